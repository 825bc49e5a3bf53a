"""Trainings run, are not run twice, and end in one record and one table."""

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import pytest
from typing_extensions import override

from labctl.comparison import run
from labctl.comparison.job import Job
from labctl.comparison.run import ComparisonJob, choose, execute, train_one
from labctl.comparison.score import LEAST_ROOM, References, Score, summarise
from labctl.errors import InputError, OutcomeError, ProtocolError
from labctl.recording.reader import Record
from labctl.run.progress import Silent
from labctl.run.setting import Options, Outcome


class Ear(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    @override
    def say(self, text: str) -> None:
        self.said.append(text)


def test_the_record_has_a_row_a_training_and_a_line_a_method(
    compared: Outcome,
) -> None:
    with Record.open(compared.record) as record:
        jobs, summary = record.table("jobs"), record.table("summary")
        assert (record.kind, record.status) == ("comparison", "complete")
        assert record.result["jobs"] == 4
    assert jobs["method"].tolist() == ["still", "walk"] * 2
    assert set(jobs["status"]) == {"complete"}
    assert summary["method"].tolist() == ["still", "walk"]
    for row, name in enumerate(jobs["record"]):
        with Record.open(compared.record.parent / name) as training:
            assert training.result["score_test"] == pytest.approx(jobs["score"][row])
            assert sum(training.ledger().values()) == jobs["shots"][row]
    mean = jobs["score"][1::2].mean()
    assert summary["mean"][1] == pytest.approx(mean)
    # There is no oracle: no gain, and the paired difference stands alone.
    assert math.isnan(summary["gain"][1])
    assert summary["over_readout"][1] == pytest.approx(mean - summary["mean"][0])


def test_every_method_starts_from_the_same_readout(compared: Outcome) -> None:
    with Record.open(compared.record) as record:
        jobs = record.table("jobs")
    found: dict[int, set[float]] = {0: set(), 1: set()}
    for seed, name in zip(jobs["seed"], jobs["record"], strict=True):
        with Record.open(compared.record.parent / name) as training:
            found[int(seed)].add(training.result["score_readout"])
    assert all(len(scores) == 1 for scores in found.values())


def test_what_is_finished_is_not_run_again(
    compared: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = compared.record.parent
    ear = Ear()
    again = Options(out=folder / "again.h5")
    job = choose(str(folder / "tiny.yaml"), None, again)
    assert isinstance(job, ComparisonJob)
    assert "4 of them" in job.forecast.note.replace("4 trainings, ", "")
    monkeypatch.setattr(run, "train_one", None)
    outcome = execute(job, ear)
    assert ear.said == ["4 of 4 trainings are finished already"]
    assert outcome.result == compared.result


def test_a_training_that_was_cut_short_is_run_again(
    compared: Outcome, finished: ComparisonJob
) -> None:
    first = finished.jobs[0]
    first.out.write_bytes(first.out.read_bytes()[:100])
    ear = Ear()
    outcome = execute(finished, ear)
    assert ear.said[0] == "3 of 4 trainings are finished already"
    assert outcome.result["table"] == _but_seconds(compared, outcome)


def _but_seconds(old: Outcome, new: Outcome) -> list[dict[str, object]]:
    pairs = zip(old.result["table"], new.result["table"], strict=True)
    return [{**was, "digital_s": now["digital_s"]} for was, now in pairs]


def test_failed_trainings_are_told_and_the_others_kept(tiny: Path) -> None:
    text = tiny.read_text(encoding="utf-8").replace(
        "  walk: {method: {name: spsa}}",
        "  burst: {method: {name: surrogate}, surrogate: {learning_rate: 1.0e+30}}",
    )
    tiny.write_text(text, encoding="utf-8")
    options = Options(out=Path("bad.h5"), overrides=("seeds=[0]",))
    with pytest.raises(OutcomeError, match=r"failed=1 of 2 trainings.*not finite"):
        execute(choose(str(tiny), None, options), Silent())
    with Record.open("bad.h5") as record:
        assert record.status == "failed"
        jobs = record.table("jobs")
        assert jobs["status"].tolist() == ["complete", "failed"]
        assert record.result["failed"] == 1
        told = record.result["shots"]
    made = []
    for name in jobs["record"]:
        with Record.open(tiny.parent / name) as training:
            made.append(len(training.column("shots_meta", "category")))
    # What failed exposed as well, and its shots are gone as all others are.
    assert jobs["shots"].tolist() == made
    assert told == sum(made) > made[0] > 0


def test_a_failed_training_whose_record_cannot_be_read_says_so(tiny: Path) -> None:
    job = choose(str(tiny), None, Options(out=Path("r.h5")))
    assert isinstance(job, ComparisonJob)
    training = job.jobs[0]
    assert run._row(training, "no light.")["shots"] == 0
    training.out.parent.mkdir(parents=True, exist_ok=True)
    training.out.write_bytes(b"x" * 100)
    row = run._row(training, "no light.")
    assert row["shots"] == 0
    assert row["error"].startswith("no light. Its exposures are not counted: ")


def test_a_training_whose_cosine_stays_at_zero_is_a_result(tiny: Path) -> None:
    text = tiny.read_text(encoding="utf-8").replace(
        "  walk: {method: {name: spsa}}",
        "  blind: {surrogate: {fits_per_step: 0}, probes: {held_out_per_step: 14}, "
        "budget: {shots: 1600}}",
    )
    tiny.write_text(text, encoding="utf-8")
    options = Options(out=Path("blind.h5"), overrides=("seeds=[0]",))
    outcome = execute(choose(str(tiny), None, options), Silent())
    assert outcome.status == "complete"
    assert "1 trainings whose held-out cosine cannot be told from zero" in (
        outcome.summary
    )
    assert (outcome.result["failed"], outcome.result["at_zero"]) == (0, 1)
    assert {line["method"] for line in outcome.result["table"]} == {"still", "blind"}
    with Record.open("blind.h5") as record:
        status = record.table("jobs")["status"].tolist()
    assert status == ["complete", "cosine at zero"]
    again = choose(str(tiny), None, replace(options, out=Path("again.h5")))
    assert "2 of them finished already" in again.forecast.note


def ended(training: Job, bench: str, *, simulate: bool) -> tuple[Job, str]:
    """Train, but where it is a walk: then end as if killed."""
    if training.method == "walk":
        os._exit(9)
    return train_one(training, bench, simulate=simulate)


@pytest.mark.slow
def test_processes_give_what_one_gives_and_a_killed_one_is_told_with_the_way_on(
    tiny: Path, compared: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "train_one", ended)
    options = Options(out=Path("k.h5"), overrides=("workers=2",))
    with pytest.raises(OutcomeError, match=r"ended from outside.*--overwrite"):
        execute(choose(str(tiny), None, options), Silent())
    with Record.open("k.h5") as record:
        assert record.status == "failed"
    with pytest.raises(InputError, match=r"the same command with --overwrite goes on"):
        choose(str(tiny), None, options)
    with pytest.raises(InputError, match=r"goes on by the command that began it"):
        choose(None, Path("k.h5"), Options())
    monkeypatch.undo()
    monkeypatch.chdir(tiny.parent)
    # Two walks at least are left: a process for each.
    processes: list[int] = []
    monkeypatch.setattr(joblib, "Parallel", counted(processes))
    again = replace(options, overwrite=True)
    outcome = execute(choose(str(tiny), None, again), Silent())
    assert processes == [2]
    assert (outcome.status, outcome.result["failed"]) == ("complete", 0)
    assert _trainings(outcome) == _trainings(compared)


def _trainings(outcome: Outcome) -> list[tuple[object, ...]]:
    """What came of each, whichever ended first."""
    with Record.open(outcome.record) as record:
        jobs = record.table("jobs")
    told = ("seed", "method", "task", "status", "score", "shots")
    return sorted(zip(*(jobs[name].tolist() for name in told), strict=True))


def counted(processes: list[int]) -> Callable[..., joblib.Parallel]:
    usual = joblib.Parallel

    def make(*, n_jobs: int, **options: Any) -> joblib.Parallel:  # noqa: ANN401 - passed on
        processes.append(n_jobs)
        return usual(n_jobs=n_jobs, **options)

    return make


@pytest.mark.slow
def test_the_smoke_comparison_has_every_part(
    smoke: tuple[Path, dict[str, Any]],
) -> None:
    path, told = smoke
    result, table = told["result"], told["result"]["table"]
    assert (told["status"], told["exit_code"]) == ("complete", 0)
    assert (result["jobs"], result["failed"], result["metric"]) == (8, 0, "accuracy")
    assert [line["method"] for line in table] == [
        "readout",
        "spsa",
        "default",
        "oracle",
    ]
    assert {(line["task"], line["budget"], line["seeds"]) for line in table} == {
        ("yin-yang", 600, 2)
    }
    scores = _scores_of_trainings(path, told["shots"]["total"])
    means = {name: sum(found) / 2 for name, found in scores.items()}
    room = means["oracle"] - means["readout"]
    # Else the smallest comparison would be one without a gain.
    assert room > LEAST_ROOM
    for line in table:
        over = means[line["method"]] - means["readout"]
        assert line["mean"] == pytest.approx(means[line["method"]])
        assert line["over_readout"] == pytest.approx(over, abs=1e-9)
        assert line["gain"] == pytest.approx(over / room, abs=1e-9)
        both = sorted(scores[line["method"]])
        assert [line["mean_low"], line["mean_high"]] == pytest.approx(both)
        assert line["digital_s"] > 0
    assert (table[-1]["reached"], table[-1]["shots_to_target"]) == (2, 600)


def _scores_of_trainings(path: Path, shots: int) -> dict[str, list[float]]:
    """Read the records of the trainings, not the comparison's word for them."""
    found: dict[str, list[float]] = {}
    spent = 0
    with Record.open(path) as record:
        assert (record.kind, record.status) == ("comparison", "complete")
        jobs = record.table("jobs")
    assert set(jobs["status"]) == {"complete"}
    for name, method in zip(jobs["record"], jobs["method"], strict=True):
        with Record.open(path.parent / name) as training:
            assert training.status == "complete"
            spent += sum(training.ledger().values())
            found.setdefault(method, []).append(training.result["score_test"])
    assert spent == shots
    return found


def test_other_kinds_are_handed_on(tiny: Path) -> None:
    text = tiny.read_text(encoding="utf-8")
    single = tiny.with_name("single.yaml")
    head = "schema_version: 1\nkind: scan\nbench: sim-small\n"
    single.write_text(
        head + "sweep: reservoir.power_mw\nvalues: [1.0]\n", encoding="utf-8"
    )
    assert text
    job = choose(str(single), None, Options(out=Path("y.h5")))
    assert not isinstance(job, ComparisonJob)


def test_a_real_bench_trains_once_at_a_time(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = choose(str(tiny), None, Options(overrides=("workers=2",)))
    assert isinstance(job, ComparisonJob)
    monkeypatch.setattr(
        type(job.setting.source.file), "simulated", property(lambda _: False)
    )
    with pytest.raises(ProtocolError, match="workers=2, expected 1"):
        run.prepare(job.setting)


def test_a_target_that_was_not_reached_is_told_with_the_budget() -> None:
    scores = [
        Score("t", name, 0, 50, value) for name, value in (("low", 0.1), ("high", 0.9))
    ]
    lines = summarise(scores, References("low", "high"))
    low, high = run.table(lines)[2:]
    assert "> 50" in low
    assert "| 0.900 |" in high
