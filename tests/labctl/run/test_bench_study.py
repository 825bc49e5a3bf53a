"""A study on a bench leaves shots and rows, and goes on where its last job ended."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typing_extensions import override

from labctl.errors import ProtocolError
from labctl.recording.reader import Record
from labctl.run.bench_study import BenchStudyJob
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.resume import choose
from labctl.run.setting import Options, Outcome
from labctl.studies.job import Job, Lab, Values

TINY = """\
schema_version: 1
kind: study
title: tiny
bench: sim-small
size: smoke
seed: 4
seeds: 2
study: {name: device-activations, powers_mw: [0.5, 5], points: 8, repeats: 2}
"""


class Ear(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    @override
    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(tiny: Path) -> Outcome:
    return execute(prepare(str(tiny), Options(out=tiny.with_name("w.h5"))), Silent())


def test_a_study_on_a_bench_leaves_rows_and_every_shot(whole: Outcome) -> None:
    assert whole.shots["evaluate"] == 4 * 8 * 2
    assert "| claim | measured | verdict |" in whole.summary
    with Record.open(whole.record) as record:
        assert (record.kind, record.status) == ("study", "complete")
        assert record.simulated
        assert record.bench_name == "sim-small"
        fits = record.table("fits")
        assert len(record.column("shots", "outputs")) == 64
        step = record.column("shots_meta", "step")
        power = record.column("shots_meta", "power_mw")
        claims = record.table("claims")
    assert fits["job"].tolist() == [
        "0.5 mW seed 4",
        "5 mW seed 4",
        "0.5 mW seed 5",
        "5 mW seed 5",
    ]
    assert step.tolist() == np.repeat(np.arange(4), 16).tolist()
    for number, wanted in enumerate((0.5, 5, 0.5, 5)):
        assert power[step == number] == pytest.approx(wanted, rel=0.05)
    assert sum(whole.result["claims"].values()) == len(claims["claim"]) == 3


def test_what_is_judged_before_it_opens_is_what_each_power_shows_first(
    tiny: Path, whole: Outcome
) -> None:
    job = prepare(str(tiny), Options())
    assert isinstance(job, BenchStudyJob)
    assert [show.entry.power_mw for show in job.shows] == [0.5, 5]
    with Record.open(whole.record) as record:
        shown = record.column("shots_meta", "levels")
        texts = "".join(event.text for event in record.events())
    for number, show in enumerate(job.shows):
        assert job.setting.light is not None
        assert show.phase is not None
        judged = job.setting.light.levels(show.entry, show.phase)
        assert np.array_equal(shown[16 * number :][:8], judged)
        assert f"at power_mw={show.entry.power_mw:g}: step_gate=" in texts
    assert "on 4 of the run's own patterns" in texts


@pytest.mark.parametrize(
    ("study", "powers_mw"),
    [
        ("superposition, steps: 16, powers_mw: [0.5, 5]", [0.5, 5]),
        ("evolution, methods: [readout], budgets: [2000]", [5]),
        ("manifold, targets: [knot], networks: [device]", [5]),
        ("manifold, targets: [knot], networks: [digital]", [5]),
    ],
)
def test_every_study_says_what_it_shows(
    tiny: Path, study: str, powers_mw: list[float]
) -> None:
    changes = (f"study={{name: {study}}}", "reservoir.bins=[27, 27]", "seeds=1")
    job = prepare(str(tiny), Options(overrides=changes))
    assert isinstance(job, BenchStudyJob)
    assert [show.entry.power_mw for show in job.shows] == powers_mw
    assert all((show.phase is None) == ("digital" in study) for show in job.shows)


def test_an_interrupted_study_ends_bit_by_bit_as_if_it_never_was(
    tiny: Path, whole: Outcome
) -> None:
    out = tiny.with_name("cut.h5")
    job = prepare(str(tiny), Options(out=out))
    assert isinstance(job, BenchStudyJob)
    measure, done = job.study.measure, []

    def interrupted(spec: Any, part: Job, lab: Lab) -> Values:  # noqa: ANN401 - a stand-in
        values = measure(spec, part, lab)
        done.append(part.name)
        if len(done) == 3:  # its shots are recorded, its row is not
            raise KeyboardInterrupt
        return values

    object.__setattr__(job.study, "measure", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            execute(job, Silent())
        ear = Ear()
        again = execute(choose(None, out, Options()), ear)
    finally:
        object.__setattr__(job.study, "measure", measure)
    assert "2 of 4 jobs stand already" in ear.said
    assert done[2:] == ["0.5 mW seed 5", "0.5 mW seed 5", "5 mW seed 5"]
    assert again.result == whole.result
    assert again.shots == whole.shots
    with Record.open(whole.record) as one, Record.open(out) as two:
        assert two.status == "complete"
        for table in ("fits", "shots", "shots_meta", "claims"):
            for name, values in one.table(table).items():
                assert values.tobytes() == two.column(table, name).tobytes(), name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("study.powers_mw=[1, 9]",), "study.powers_mw.1: power_mw=9, expected 0 to 8"),
        (("study.powers_mw=[0.1, 1]",), "study.powers_mw.0: exposure_s=0.05"),
        (
            ("study.powers_mw=[1, 8]", "reservoir.exposure_s=1.0e-5"),
            "study.powers_mw.1: exposure_s=6.25e-06, expected 1e-05",
        ),
        (("study.points=9",), "study.points: got 9"),
        (
            ("study.features=300", "reservoir.macropixels=[16, 16]"),
            "study: encoding: features=300, expected 1 to 256",
        ),
        (
            ("study={name: superposition}", "reservoir.bins=[3, 3]"),
            "reservoir.bins: bins=[3, 3], expected [27, 27], one a pixel",
        ),
        (
            ("study={name: superposition, powers_mw: [5, 1]}",),
            "study.powers_mw: does not rise, expected the weakest power first",
        ),
    ],
)
def test_a_study_is_refused_before_anything_opens(
    tiny: Path, changes: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ProtocolError) as caught:
        prepare(str(tiny), Options(overrides=changes))
    assert said in str(caught.value)


def test_a_forecast_counts_shots_and_the_slowest_of_them(tiny: Path) -> None:
    job = prepare(str(tiny), Options())
    assert isinstance(job, BenchStudyJob)
    assert job.forecast.shots == {"evaluate": 64}
    # At a tenth of the power a frame takes ten times as long.
    assert job.forecast.shot_s > 0.01
    assert "jobs:  4, each of one of 2 seeds" in job.forecast.text()
