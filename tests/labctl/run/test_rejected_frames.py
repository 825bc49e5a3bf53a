"""A training on a bench that loses frames is as whole as any other."""

from pathlib import Path

import numpy as np
import pytest

from labctl.errors import FrameError
from labctl.recording.reader import Record
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options
from tests.labctl.run.conftest import Alter


def test_rejected_frames_are_exposed_again_recorded_and_refunded(
    small: Path, lossy: Path
) -> None:
    overrides = (
        "reference.oracle=false",
        "data.train=48",
        "data.test=16",
        "budget.shots=200",
    )
    options = Options(bench=str(lossy), overrides=overrides, out=Path("t.h5"))
    job = prepare(str(small), options)
    outcome = execute(job, Silent())
    assert outcome.status == "complete"
    with Record.open(outcome.record) as record:
        quality = record.column("shots_meta", "quality")
        attempt = record.column("shots_meta", "attempt")
        outputs = record.column("shots", "outputs")
        base = record.column("probes", "shot_base")
        plus = record.column("probes", "shot_plus")
        sources = {event.source for event in record.events()}
    rejected = quality != "ok"
    assert set(quality) == {"ok", "gap", "incomplete"}
    assert attempt.max() >= 1
    assert {"frame gap", "frame incomplete"} <= sources
    assert np.array_equal(np.isnan(outputs).all(axis=1), rejected)
    # Every exposure is on the ledger; what was rejected was given back.
    assert sum(outcome.shots.values()) == len(quality)
    assert np.sum(~rejected) == job.forecast.total
    for shots in (base[base >= 0], plus):
        assert np.all(quality[shots] == "ok")


@pytest.mark.parametrize(
    ("fault", "quality", "then", "attempts"),
    [
        ("kind: removed, at_shot: 30", "removed", "is not exposed again", {0}),
        ("kind: dropped, at_shot: 30, count: 99", "gap", "is exposed again", {0, 1, 2}),
    ],
)
def test_a_frame_without_an_answer_is_told_with_what_follows_it(
    small: Path,
    alter: Alter,
    fault: str,
    quality: str,
    then: str,
    attempts: set[int],
) -> None:
    camera = "    driver: sim.camera\n    options:\n"
    bench = alter(camera, f"{camera}      faults: [{{{fault}}}]\n")
    job = prepare(str(small), Options(bench=str(bench), out=Path("t.h5")))
    with pytest.raises(FrameError, match=quality):
        execute(job, Silent())
    with Record.open("t.h5") as record:
        assert set(record.column("shots_meta", "attempt").tolist()) == attempts
        told = [e.text for e in record.events() if e.source == f"frame {quality}"]
    assert len(told) == 1
    assert then in told[0]


SCAN = """\
schema_version: 1
kind: scan
sweep: reservoir.power_mw
values: [3, 4]
patterns: {source: random, count: 40}
repeats: 2
"""


def test_every_point_of_a_scan_names_the_frame_that_was_accepted(
    small: Path, lossy: Path
) -> None:
    scan = small.with_name("scan.yaml")
    scan.write_text(SCAN, encoding="utf-8")
    outcome = execute(
        prepare(str(scan), Options(bench=str(lossy), out=Path("s.h5"))), Silent()
    )
    with Record.open(outcome.record) as record:
        quality = record.column("shots_meta", "quality")
        shot = record.column("points", "shot")
        outputs = record.column("shots", "outputs")[shot]
        assert np.array_equal(record.column("points", "outputs"), outputs)
        step = record.column("shots_meta", "step")[shot]
    assert len(quality) > len(shot) == 160
    assert np.all(quality[shot] == "ok")
    assert step.tolist() == [0] * 80 + [1] * 80
