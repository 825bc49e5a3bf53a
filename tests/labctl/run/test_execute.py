"""A job of any kind leaves a record that says what it was."""

from pathlib import Path

import pytest
from typing_extensions import override

from labctl.recording.reader import Record
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent, Update
from labctl.run.setting import Options, Outcome

KINDS = {
    "scan": "sweep: reservoir.exposure_s\nvalues: [0.001, 0.002]\nrepeats: 1\n",
    "evaluate": "source: {record}\n",
}


class Ear(Silent):
    """Remembers where a run said that it stands."""

    def __init__(self) -> None:
        self.updates: list[Update] = []

    @override
    def update(self, update: Update) -> None:
        self.updates.append(update)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_leaves_its_record(small: Path, trained: Outcome, kind: str) -> None:
    path = small.with_name(f"{kind}.yaml")
    body = KINDS[kind].format(record=trained.record.as_posix())
    head = f"schema_version: 1\nkind: {kind}\nbench: sim-small\n"
    path.write_text(head + body, encoding="utf-8")
    job = prepare(str(path), Options(out=Path("kind.h5")))
    outcome = execute(job, Silent())
    assert (outcome.status, outcome.record) == ("complete", Path("kind.h5"))
    assert sum(outcome.shots.values()) == job.forecast.total
    with Record.open(outcome.record) as record:
        assert (record.kind, record.status) == (kind, "complete")
        assert record.result == outcome.result


def test_whoever_listens_hears_every_step(small: Path) -> None:
    ear = Ear()
    overrides = ("reference.oracle=false", "budget.shots=300")
    job = prepare(str(small), Options(overrides=overrides, out=Path("t.h5")))
    outcome = execute(job, ear)
    told = [update for update in ear.updates if update.stage == "training"]
    steps = outcome.result["steps"]
    assert [update.done for update in told] == list(range(1, steps + 1))
    assert {update.total for update in told} == {steps}
    assert told[-1].shots <= (told[-1].budget or 0) == 300
    assert {"loss", "accuracy", "cosine"} <= set(told[-1].figures)
