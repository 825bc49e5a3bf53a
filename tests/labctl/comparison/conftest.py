"""A comparison of seconds."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labctl.comparison.run import ComparisonJob, choose, execute
from labctl.run.progress import Silent
from labctl.run.setting import Options, Outcome

Once = Callable[[str, Callable[[Path], Any]], Any]
TINY = """\
schema_version: 1
kind: comparison
title: tiny
bench: sim-small
seeds: [0, 1]
budgets: [200]
workers: 1
base:
  data: {set: yin-yang, train: 48, validation: 10, test: 40}
  model:
    - {layer: device}
    - {layer: standardise}
    - {layer: linear}
  surrogate: {name: twin-modes, modes: 8, fits_per_step: 1}
  probes: {noise_repeats: 2}
  training: {batch: 16}
tasks:
  narrow: {training: {weight_decay: 0.1}}
methods:
  still: {method: {name: readout}}
  walk: {method: {name: spsa}}
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def compared(once: Once) -> Outcome:
    def make(folder: Path) -> Outcome:
        path = folder / "tiny.yaml"
        path.write_text(TINY, encoding="utf-8")
        job = choose(str(path), None, Options(out=folder / "tiny.h5"))
        return execute(job, Silent())

    outcome: Outcome = once("compared", make)
    return outcome


@pytest.fixture
def finished(compared: Outcome, tmp_path: Path) -> ComparisonJob:
    """The same, ended, in a folder where it may be changed."""
    jobs, folder = Path("tiny-jobs"), compared.record.parent
    shutil.copytree(folder / jobs, tmp_path / jobs)
    shutil.copy(folder / "tiny.yaml", tmp_path)
    options = Options(out=tmp_path / "again.h5")
    job = choose(str(tmp_path / "tiny.yaml"), None, options)
    assert isinstance(job, ComparisonJob)
    return job
