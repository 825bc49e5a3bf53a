"""Twelve hours of a bench: as quick and as small at the end as at the start."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch

from labctl import bench as benches
from labctl.recording.layout import train_layout
from labctl.recording.reader import Record
from labctl.reservoir import Ledger
from labctl.run.progress import Silent
from labctl.run.setting import (
    Options,
    Session,
    Setting,
    opened,
    resolve,
    shot_spec,
)

HOURS = 12.0
# Of the night, in CI.
SHARE = 1 / 20
BATCH = 64
# A full night: dropped frames, a beam that rests, a meter and a room that are watched.
BENCH = (
    "limits.duty=0.35",
    "limits.meter={low: 1, high: 9, oldest_s: 5}",
    "limits.thermometer={low: 15, high: 30, oldest_s: 5}",
    "devices.thermometer={driver: sim.meter, options: {shows: temperature}}",
    "devices.camera.options.faults=[{kind: dropped, probability: 0.0002}]",
)
PROTOCOL = """\
schema_version: 1
kind: train
title: night
bench: sim-small
data: {set: moons, train: 32, validation: 8, test: 8}
model: [{layer: device}, {layer: standardise}, {layer: linear}]
surrogate: {name: twin-modes, modes: 4}
budget: {shots: 1000000}
record: {frames: binned}
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """An open bench with its guard, and an open record."""
    path = tmp_path / "night.yaml"
    path.write_text(PROTOCOL, encoding="utf-8")
    setting = resolve(str(path), Options(out=tmp_path / "night.h5"))
    assert isinstance(setting, Setting)
    setting = replace(setting, source=benches.load("sim-small", BENCH))
    layout = train_layout(shot_spec(setting), metrics=("score_validation",))
    with opened(setting, layout, Silent()) as session:
        yield session


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_night_is_as_small_and_quick_at_its_end_as_at_its_start(
    session: Session, soaked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    hours = HOURS if soaked else SHARE * HOURS
    reservoir = session.reservoir(session.setting.entry, Ledger(None))
    draw = torch.Generator().manual_seed(1)
    clock, spent_s = session.bench.clock, list[float]()
    sizes, files = list[int](), list[int]()
    while clock.now() < 3600 * hours:
        phase = 6 * torch.rand(BATCH, reservoir.pixels, generator=draw)
        start_s = time.process_time()
        reservoir(phase, category="evaluate")
        spent_s.append(time.process_time() - start_s)
        if len(spent_s) % 4 == 0:
            sizes.append(resident_bytes())
            files.append(sum(1 for _ in Path("/proc/self/fd").iterdir()))
    shots, tenth = reservoir.ledger.spent, len(sizes) // 10
    # The first tenth is for what comes once.
    grown = (median(sizes[-tenth:]) - median(sizes[tenth : 2 * tenth])) / shots
    slower = median(spent_s[-4 * tenth :]) / median(spent_s[: 4 * tenth])
    with capsys.disabled():
        sys.stdout.write(
            f"\n| {hours:g} h of bench time, {shots} shots | {slower:.2f} | "
            f"{grown:.1f} B | {files[tenth]} and {files[-1]} | "
            f"{reservoir.ledger.refunded} |"
        )
    assert set(files[tenth:]) == {files[tenth]}
    # What grew with the night would be many times as slow.
    assert slower < 2.5
    # A frame is 1,458 bytes: none stays. In a short night what is cached once, a
    # mebibyte of each column of the record, counts as well.
    assert grown < (64 if soaked else 800)
    with Record.open(session.recorder.path) as record:
        assert record.lengths["shots"] == reservoir.ledger.total
