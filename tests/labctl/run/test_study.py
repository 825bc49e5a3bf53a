"""A study leaves a row a job, goes on where it stood, and judges its claims."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typing_extensions import override

from labctl.errors import InputError, ProtocolError
from labctl.recording.layout import LONGEST_CLAIM_BYTES
from labctl.recording.reader import Record
from labctl.run import study
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent, Update
from labctl.run.resume import choose, unfinished
from labctl.run.setting import Options, Outcome
from labctl.run.study import StudyJob
from labctl.studies.job import Claim, Values, Verdict

TINY = """\
schema_version: 1
kind: study
title: tiny
size: smoke
seed: 4
seeds: 2
study: {name: loss-fields, losses: [mse, cos], grid: 3, starts: 2, steps: 5}
"""
Write = Callable[..., Path]


class Ear(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.updates: list[Update] = []

    @override
    def say(self, text: str) -> None:
        self.said.append(text)

    @override
    def update(self, update: Update) -> None:
        self.updates.append(update)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


def run(tiny: Path, name: str = "tiny.h5") -> Outcome:
    return execute(prepare(str(tiny), Options(out=tiny.with_name(name))), Silent())


def test_a_study_leaves_a_row_a_job_and_its_claims(tiny: Path) -> None:
    ear = Ear()
    out = tiny.with_name("tiny.h5")
    job = prepare(str(tiny), Options(out=out))
    outcome = execute(job, ear)
    with Record.open(outcome.record) as record:
        assert (record.kind, record.status) == ("study", "complete")
        assert record.simulated is False
        assert record.reservoir == {}
        fits, claims = record.table("fits"), record.table("claims")
        assert record.result == outcome.result
    assert fits["job"].tolist() == [
        "mse seed 4",
        "cos seed 4",
        "mse seed 5",
        "cos seed 5",
    ]
    assert fits["gradient_x"].shape == (4, 3, 3, 2)
    assert sum(outcome.result["claims"].values()) == len(claims["claim"]) > 3
    assert [update.done for update in ear.updates] == [1, 2, 3, 4]
    assert "| claim | measured | verdict |" in outcome.summary
    assert job.forecast.nbytes > fits["gradient_x"].nbytes
    assert "jobs:  4" in job.forecast.text()


def test_an_interrupted_study_does_not_do_again_what_stands(
    tiny: Path,
) -> None:
    whole = run(tiny, "whole.h5")
    out = tiny.with_name("tiny.h5")
    job = prepare(str(tiny), Options(out=out))
    assert isinstance(job, StudyJob)
    measure, calls = job.study.measure, []

    def interrupted(spec: Any, part: Any) -> Values:  # noqa: ANN401 - a stand-in
        calls.append(part.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(spec, part)

    object.__setattr__(job.study, "measure", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            execute(job, Silent())
        ear = Ear()
        outcome = execute(choose(None, out, Options()), ear)
    finally:
        object.__setattr__(job.study, "measure", measure)
    assert ear.said == ["2 of 4 jobs stand already"]
    assert calls == [
        "mse seed 4",
        "cos seed 4",
        "mse seed 5",
        "mse seed 5",
        "cos seed 5",
    ]
    assert outcome.result == whole.result
    with Record.open(whole.record) as one, Record.open(out) as two:
        assert two.status == "complete"
        for name, values in one.table("fits").items():
            assert np.array_equal(
                values, two.column("fits", name), equal_nan=values.dtype.kind == "f"
            ), name
        assert one.table("claims")["measured"].tolist() == (
            two.table("claims")["measured"].tolist()
        )


def test_a_study_that_ended_has_nothing_to_go_on_with(tiny: Path) -> None:
    with pytest.raises(InputError, match="status=complete"):
        unfinished(run(tiny).record)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(bench="sim"), "--bench or --simulate with study loss-fields"),
        (Options(simulate=True), "computed without a device. Leave them out."),
    ],
)
def test_a_study_without_a_device_takes_no_bench(
    tiny: Path, options: Options, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        prepare(str(tiny), options)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("bench=sim", "bench: is not used by study loss-fields"),
        ("reservoir.power_mw=2", "reservoir: is not used by study loss-fields"),
        ("study.gird=9", "Did you mean grid"),
        ("study.name=loss-field", "loss-fields"),
        ("seeds=0", "seeds: got 0, expected a whole number"),
        ("size=huge", "expected one of smoke, full"),
    ],
)
def test_a_study_refuses_what_makes_no_sense(
    tiny: Path, change: str, said: str
) -> None:
    with pytest.raises(ProtocolError) as caught:
        prepare(str(tiny), Options(overrides=(change,)))
    assert said in str(caught.value)


def test_the_seed_option_moves_all_seeds(tiny: Path) -> None:
    job = prepare(str(tiny), Options(seed=40))
    assert isinstance(job, StudyJob)
    assert {part.seed for part in job.jobs} == {40, 41}


def test_a_study_names_its_record_after_the_protocol(tiny: Path) -> None:
    outcome = execute(prepare(str(tiny), Options()), Silent())
    assert outcome.record.parent == Path("records")
    assert outcome.record.name.startswith("tiny-")


def test_claims_are_told_as_a_table() -> None:
    assert list(study.told([])) == ["| claim | measured | verdict |", "|---|---|---|"]


def test_a_claim_that_is_too_long_is_cut_in_sight_and_ends_no_run(tiny: Path) -> None:
    made = prepare(str(tiny), Options(out=tiny.with_name("long.h5")))
    assert isinstance(made, StudyJob)
    long = Claim("too much", "é" * LONGEST_CLAIM_BYTES, Verdict.OPEN)
    wordy = replace(made.study, claims=lambda _spec, _rows: [long])
    execute(replace(made, study=wordy), Silent())
    with Record.open(tiny.with_name("long.h5")) as record:
        (text,) = record.table("claims")["measured"].tolist()
        assert text.startswith("éé")
        assert text.endswith("… (8192 bytes, cut)")
        assert long.measured in record.events()[-1].text
        assert record.status == "complete"
