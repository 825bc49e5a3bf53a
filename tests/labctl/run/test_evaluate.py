"""A trained model, measured again."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from typing_extensions import override

from labctl.errors import InputError, ProtocolError
from labctl.recording.layout import BLOB_PATH
from labctl.recording.reader import Record
from labctl.run.evaluate import EvaluateJob
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent, Update
from labctl.run.setting import Options, Outcome
from tests.labctl.run.conftest import SERIES

EVALUATE = """\
schema_version: 1
kind: evaluate
bench: sim-small
source: {source}
repeats: 2
"""


@pytest.fixture
def protocol(trained: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "again.yaml"
    path.write_text(EVALUATE.format(source=trained.record), encoding="utf-8")
    return path


def test_scores_then_and_now_agree_within_noise(
    protocol: Path, trained: Outcome
) -> None:
    job = prepare(str(protocol), Options(out=Path("e.h5")))
    outcome = execute(job, Silent())
    assert outcome.result["score_then"] == trained.result["score_test"]
    assert abs(outcome.result["score_test"] - outcome.result["score_then"]) < 0.2
    assert outcome.shots["evaluate"] == 80
    with Record.open("e.h5") as record:
        assert record.column("scores", "score").tolist() == outcome.result["scores"]
        answer = record.column("predictions", "prediction").argmax(axis=1)
        target = record.column("predictions", "target")[:, 0]
        first = record.column("shots_meta", "levels")[:4]
    # What was judged before is what the trained theta showed first.
    assert isinstance(job, EvaluateJob)
    assert job.setting.light is not None
    assert job.show.phase is not None
    judged = job.setting.light.levels(job.show.entry, job.show.phase)
    assert np.array_equal(first, judged)
    assert (answer == target).mean() == pytest.approx(outcome.result["score_test"])


def test_a_series_is_measured_again_step_by_step(small: Path) -> None:
    then = small.with_name("series.h5")
    execute(prepare(str(small), Options(overrides=SERIES, out=then)), Silent())
    again = small.with_name("again.yaml")
    again.write_text(EVALUATE.format(source=then), encoding="utf-8")
    job = prepare(str(again), Options(out=Path("e.h5")))
    outcome = execute(job, Silent())
    assert outcome.shots["evaluate"] == job.forecast.shots["evaluate"] == 2 * 4 * 10
    now, before = outcome.result["score_test"], outcome.result["score_then"]
    assert now == pytest.approx(before, abs=0.3)
    with Record.open("e.h5") as record:
        shot = record.column("predictions", "shot")
    # An answer comes from the last of its four exposures.
    assert shot.tolist() == [*range(30, 40), *range(70, 80)]


def test_the_bench_is_used_as_in_training_unless_the_protocol_says_otherwise(
    small: Path,
) -> None:
    overrides = ("reservoir.exposure_s=0.002", "reference.oracle=false")
    out = small.with_name("longer.h5")
    execute(prepare(str(small), Options(overrides=overrides, out=out)), Silent())
    path = small.with_name("again.yaml")
    path.write_text(EVALUATE.format(source=out), encoding="utf-8")
    own = Options(overrides=("reservoir.exposure_s=0.001",))
    for options, expected_s in ((Options(), 0.002), (own, 0.001)):
        job = prepare(str(path), options)
        assert isinstance(job, EvaluateJob)
        assert job.setting.entry.exposure_s == expected_s


class Listening(Silent):
    """Keeps the lines that it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @override
    def say(self, text: str) -> None:
        self.lines.append(text)


class Interrupting(Silent):
    """Presses Ctrl-C as a step of the training, or its first stage, is told."""

    def __init__(self, step: int) -> None:
        self.step = step

    @override
    def update(self, update: Update) -> None:
        if update.stage == "training" and update.done >= self.step:
            raise KeyboardInterrupt

    @override
    def say(self, text: str) -> None:
        if text == "training" and not self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (0, "as it was before any step"),
        (2, "as it was after 2 steps"),
    ],
)
def test_a_training_that_did_not_end_is_measured_and_said_to_be_one(
    small: Path, step: int, told: str
) -> None:
    out = small.with_name("cut.h5")
    overrides = ("record.checkpoint_every=2",)
    with pytest.raises(KeyboardInterrupt):
        execute(
            prepare(str(small), Options(overrides=overrides, out=out)),
            Interrupting(step),
        )
    again = small.with_name("again.yaml")
    again.write_text(EVALUATE.format(source=out), encoding="utf-8")
    job, terminal = prepare(str(again), Options(out=Path("e.h5"))), Listening()
    outcome = execute(job, terminal)
    seen = "\n".join((job.headline, *terminal.lines, outcome.summary))
    for once in (
        f"the training did not end, so the model is measured {told}",
        f"labctl run --resume {out}",
    ):
        assert seen.count(once) == job.headline.count(once) == 1
    # The number says by itself what it is of.
    assert f"now (mean of 2), the model {told}" in outcome.summary
    assert "then: not measured" in outcome.summary
    assert f"the model is measured {told}" in outcome.result["unfinished"]
    with Record.open("e.h5") as record:
        assert [e.level for e in record.events() if told in e.text] == ["warning"]


def test_a_damaged_last_checkpoint_is_told_where_an_older_one_is_measured(
    protocol: Path, trained: Outcome, tmp_path: Path
) -> None:
    hurt = tmp_path / "hurt.h5"
    shutil.copy(trained.record, hurt)
    with Record.open(hurt) as record:
        last = record.checkpoints()[-1]
    with h5py.File(hurt, "r+", libver="v110") as file:
        blob = file[f"entry/{BLOB_PATH}"]
        blob[last.offset + last.nbytes // 2] ^= 0xFF
    options = Options(overrides=(f"source={hurt}",))
    job = prepare(str(protocol), options)
    assert isinstance(job, EvaluateJob)
    assert f"the last checkpoint of {hurt} is damaged" in job.headline
    assert "--resume" not in job.headline


def test_own_data_is_found_where_the_training_found_it(small: Path) -> None:
    rng = np.random.default_rng(5)
    folder = small.with_name("sub")
    folder.mkdir()
    own = small.rename(folder / "own.yaml")
    x = rng.random((120, 4))
    np.savez(folder / "own.npz", x=x, y=(x[:, 0] > x[:, 1]).astype(int))
    overrides = (
        "data={file: own.npz, task: classification}",
        "reference.oracle=false",
        "training.batch=8",
    )
    out = small.with_name("own.h5")
    execute(prepare(str(own), Options(overrides=overrides, out=out)), Silent())
    again = small.with_name("again.yaml")
    again.write_text(EVALUATE.format(source=out), encoding="utf-8")
    job = prepare(str(again), Options())
    assert isinstance(job, EvaluateJob)
    assert len(job.dataset.train) > 50
    (folder / "own.npz").unlink()
    with pytest.raises(InputError, match=r"trained on own\.npz, expected it in .*sub"):
        prepare(str(again), Options())


def test_refuses_a_bench_used_otherwise_than_in_training(protocol: Path) -> None:
    overrides = ("reservoir.bins=[2, 2]",)
    with pytest.raises(ProtocolError, match=r"bins=\[2, 2\], expected \[3, 3\]"):
        prepare(str(protocol), Options(overrides=overrides))


def test_what_bench_model_and_budget_refuse_is_told_at_once(protocol: Path) -> None:
    overrides = ("reservoir.bins=[2, 2]", "reservoir.power_mw=99", "budget.shots=3")
    with pytest.raises(ProtocolError) as caught:
        prepare(str(protocol), Options(overrides=overrides))
    keys = {fault.key for fault in caught.value.faults}
    assert keys == {"reservoir.bins", "reservoir.power_mw", "budget.shots"}


def test_refuses_a_file_that_is_no_record(protocol: Path) -> None:
    protocol.with_name("no.h5").write_text("not a record", encoding="utf-8")
    with pytest.raises(InputError, match=r"no\.h5"):
        prepare(str(protocol), Options(overrides=("source=no.h5",)))
