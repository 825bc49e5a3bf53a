"""A small training, run once for all tests of this room."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options, Outcome

Once = Callable[[str, Callable[[Path], Any]], Any]
SMALL = """\
schema_version: 1
kind: train
title: small
bench: sim-small
data: {set: digits, train: 96, validation: 20, test: 40}
model:
  - {layer: device}
  - {layer: standardise}
  - {layer: linear}
surrogate: {name: twin-modes, modes: 8, fits_per_step: 2}
probes: {held_out_per_step: 4, noise_repeats: 4}
training: {batch: 16, validate_every: 5}
budget: {shots: 400}
record: {checkpoint_every: 4, frames: full}
reference: {oracle: true}
"""
# The same with a series of four steps, for --set.
SERIES = (
    "model=[{layer: device, recurrent: {steps: 4, feedback_rad: 0.5}}, "
    "{layer: standardise}, {layer: linear}]",
    "data={set: mackey-glass, train: 32, validation: 5, test: 10}",
    "record.frames=binned",
    "reference.oracle=false",
    "budget.shots=420",
)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(once: Once) -> Outcome:
    def make(folder: Path) -> Outcome:
        path = folder / "small.yaml"
        path.write_text(SMALL, encoding="utf-8")
        return execute(prepare(str(path), Options(out=folder / "small.h5")), Silent())

    outcome: Outcome = once("trained", make)
    return outcome
