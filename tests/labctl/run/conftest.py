"""A small training, run once for all tests of this room."""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labctl import bench as benches
from labctl.bench import Bench
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

SHIPPED = Path(__file__).parents[3] / "calibrations" / "sim-small"
# Frames that a camera loses, one in twenty.
FAULTS = """\
    options:
      faults:
        - {kind: dropped, probability: 0.02}
        - {kind: truncated, probability: 0.01}
        - {kind: duplicated, probability: 0.02}
"""


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


Alter = Callable[[str, str], Path]


@pytest.fixture
def alter(tmp_path: Path) -> Alter:
    """Make a bench that is sim-small but for some words of its file."""

    def altered(before: str, after: str) -> Path:
        folder = tmp_path / "altered"
        shutil.copytree(SHIPPED, folder)
        path = folder / "bench.yaml"
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after), encoding="utf-8")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        for record in folder.glob("*-2*.yaml"):
            given = record.read_text(encoding="utf-8")
            record.write_text(
                re.sub(r"bench_sha256: \S+", f"bench_sha256: {digest}", given),
                encoding="utf-8",
            )
        return path

    return altered


@pytest.fixture
def lossy(alter: Alter) -> Path:
    """The bench sim-small with a camera that loses frames."""
    camera = "    driver: sim.camera\n    options:\n"
    return alter(camera, f"    driver: sim.camera\n{FAULTS}")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Bench]:
    """Benches that runs opened, in order: their worlds know what they exposed."""
    found: list[Bench] = []
    usual = benches.open

    @contextmanager
    def listed(*given: Any, **options: Any) -> Iterator[Bench]:  # noqa: ANN401 - passed on
        with usual(*given, **options) as bench:
            found.append(bench)
            yield bench

    monkeypatch.setattr(benches, "open", listed)
    return found
