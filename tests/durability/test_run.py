"""``labctl run``, killed at any moment: dark, readable, and gone on with."""

import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from drivers.sim.beam import Beam
from labctl.recording.reader import Record

Nursery = Callable[..., tuple[int, str]]
Content = Callable[[Path], dict[str, Any]]
# The laser is dark so soon after the last sign of life of a run.
DARK_S = 2.0
SMALL = """\
schema_version: 1
kind: train
title: killed
bench: sim-small
data: {set: moons, train: 16, validation: 4, test: 8}
model:
  - {layer: device}
  - {layer: standardise}
  - {layer: linear}
surrogate: {name: twin-modes, modes: 4, fits_per_step: 2}
probes: {held_out_per_step: 2, paired_per_step: 2, noise_repeats: 4}
training: {batch: 8, validate_every: 3}
budget: {shots: 100}
record: {checkpoint_every: 2}
"""


class Runs:
    """Commands in a folder, and the beams of their lasers.

    Parameters
    ----------
    nursery
        Forks them.
    folder
        Where protocol, record and beams lie.
    """

    def __init__(self, nursery: Nursery, folder: Path) -> None:
        self._nursery, self.folder = nursery, folder
        self.protocol = folder / "small.yaml"
        self.protocol.write_text(SMALL, encoding="utf-8")
        self.told = folder / "told"
        self._beams = folder / "beams"

    def __call__(self, *words: str, **kill: float) -> tuple[int, str]:
        """Run ``labctl run`` with words; kill it where that is said."""
        self.told.unlink(missing_ok=True)
        shutil.rmtree(self._beams, ignore_errors=True)
        self._beams.mkdir()
        return self._nursery(
            do="labctl",
            words=["run", *words],
            told=str(self.told),
            temporary=str(self._beams),
            **kill,
        )

    def acknowledged(self) -> tuple[int, dict[str, int]]:
        """How often something was said to be safe, and what last."""
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        return len(lines), json.loads(lines[-1]) if lines else {}

    def dark_after_s(self, killed_s: float) -> float:
        """Wait for the dark; say how long after the kill it came, by the beam."""
        found = list(self._beams.glob("labctl-*/beam"))
        if not found:  # killed before the laser was opened
            return 0.0
        deadline = time.monotonic() + 30
        with Beam.open(found[0]) as beam:
            while beam.read().emission:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return max(0.0, beam.read().since_s - killed_s)


@dataclass
class Tally:
    """What came of many kills."""

    killed: int = 0
    finished: int = 0
    told: int = 0
    dark_s: list[float] = field(default_factory=list)

    def row(self) -> str:
        """Give the row of the table."""
        return (
            f"\n| `labctl run`, killed at random | {self.killed} kills, "
            f"{self.finished} runs finished, {self.told} shots acknowledged, dark "
            f"{median(self.dark_s):.3f} s after a kill (median) and "
            f"{max(self.dark_s):.3f} s (latest) | 0 |"
        )


def killed_until_it_ends(
    runs: Runs, path: Path, kill: Callable[[], dict[str, float]], tally: Tally
) -> None:
    """Begin a run, kill it and go on with it, until it is complete."""
    words = [str(runs.protocol), "--out", str(path)]
    status = "running"
    while status != "complete":
        code, said = runs(*words, **kill())
        assert code in {0, -9}, said
        if code:
            tally.killed += 1
            tally.dark_s.append(runs.dark_after_s(float(said)))
        _, safe = runs.acknowledged()
        with Record.open(path) as record:
            assert record.lengths["shots"] >= safe.get("shots", 0)
            status = record.status
        tally.told += safe.get("shots", 0)
        words = ["--resume", str(path)]
    tally.finished += 1


@pytest.mark.slow
def test_kills_at_random_times_leave_it_dark_and_lose_nothing(
    labctl_nursery: Nursery,
    tmp_path: Path,
    content: Content,
    kills: int,
    seed: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs, tally = Runs(labctl_nursery, tmp_path), Tally()
    whole, path = tmp_path / "whole.h5", tmp_path / "run.h5"
    code, said = runs(str(runs.protocol), "--out", str(whole))
    assert code == 0, said
    commits, _ = runs.acknowledged()
    expected = content(whole)
    source = random.Random(seed)  # noqa: S311 - no secret

    def kill() -> dict[str, float]:
        if tally.killed >= kills:
            return {}
        at, after_s = source.randint(1, commits), source.uniform(0, 0.02)
        return {"kill_at": at, "kill_after_s": after_s}

    while kill():
        killed_until_it_ends(runs, path, kill, tally)
        found = content(path)
        assert [name for name in expected if found[name] != expected[name]] == []
        path.unlink()
    with capsys.disabled():
        sys.stdout.write(tally.row())
    assert max(tally.dark_s) <= DARK_S
