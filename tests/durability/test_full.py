"""A disk that fills up under ``labctl run``: dark, and a record to go on with."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.sim.beam import Beam
from labctl.recording.reader import Record

Content = Callable[[Path], dict[str, Any]]
SMALL = """\
schema_version: 1
kind: train
title: full
bench: sim-small
data: {set: digits, train: 32, validation: 8, test: 8}
model:
  - {layer: device}
  - {layer: standardise}
  - {layer: linear}
surrogate: {name: twin-modes, modes: 4, fits_per_step: 1}
probes: {held_out_per_step: 2, paired_per_step: 2, noise_repeats: 4}
training: {batch: 16, validate_every: 0}
budget: {shots: 320}
record: {checkpoint_every: 4, frames: full}
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 40 MiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        pytest.skip(f"no leave to mount a file system: {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607


class Command:
    """``labctl run`` in a process of its own, and the beam of its laser."""

    def __init__(self, folder: Path, *words: str) -> None:
        beams = folder / "beams"
        beams.mkdir(exist_ok=True)
        self.process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, "-m", "labctl", "run", *words],
            env={**os.environ, "TMPDIR": str(beams)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._beams = beams

    def dark_s(self) -> float:
        """When it went dark, by the beam; waits until it has been lit."""
        beam = self._beam()
        with beam:
            while not beam.read().emission and self.process.poll() is None:
                time.sleep(0.002)
            while beam.read().emission and self.process.poll() is None:
                time.sleep(0.002)
            return beam.read().since_s

    def _beam(self) -> Beam:
        for _ in range(60_000):
            for path in self._beams.glob("labctl-*/beam"):
                if path.stat().st_size:
                    return Beam.open(path)
            time.sleep(0.002)
        text = "no beam"
        raise AssertionError(text)

    def end(self) -> tuple[int, str, str]:
        """Exit code, and what it said."""
        out, err = self.process.communicate(timeout=500)
        return self.process.returncode, out, err


@pytest.fixture
def protocol(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a run that has room enough."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "small.yaml").write_text(SMALL, encoding="utf-8")
    words = (str(folder / "small.yaml"), "--out", str(folder / "whole.h5"))
    code, _, err = Command(folder, *words).end()
    assert code == 0, err
    return folder / "whole.h5"


def wait_for_shots(path: Path, command: Command) -> None:
    while not path.exists() or path.stat().st_size < 900_000:
        assert command.process.poll() is None
        time.sleep(0.005)


@pytest.mark.slow
def test_a_disk_that_somebody_fills_ends_the_run_well(
    disk: Path, protocol: str, whole: Path, tmp_path: Path, content: Content
) -> None:
    path, filler = disk / "run.h5", disk / "filler"
    command = Command(tmp_path, protocol, "--out", str(path))
    wait_for_shots(path, command)
    with filler.open("wb", buffering=0) as file:
        for piece in (2**20, 2**12):
            try:
                while True:
                    file.write(bytes(piece))
            except OSError:
                continue
    dark_s = command.dark_s()
    code, _, err = command.end()
    assert code == 5, err
    assert "no space (errno 28)" in err or "free=0.0 MiB" in err
    assert "Traceback" not in err
    with Record.open(path) as record:
        assert record.status == "failed"
        assert dark_s <= record.writers()[-1]["end_s"]
        held = record.lengths["shots"]
    filler.unlink()
    code, _, err = Command(tmp_path, "--resume", str(path)).end()
    assert code == 0, err
    found, expected = content(path), content(whole)
    assert [name for name in expected if found[name] != expected[name]] == []
    with Record.open(path) as record:
        assert record.lengths["shots"] > held > 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits a process that runs")
def test_a_file_at_its_limit_ends_the_run_well(
    protocol: str, whole: Path, tmp_path: Path, content: Content
) -> None:
    path = tmp_path / "run.h5"
    command = Command(tmp_path, protocol, "--out", str(path))
    wait_for_shots(path, command)
    size = path.stat().st_size + 60_000
    limits = (size, resource.RLIM_INFINITY)
    resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, limits)
    dark_s = command.dark_s()
    code, _, err = command.end()
    assert code == 5, err
    assert "the file is at its size limit (errno 27)" in err
    assert "Traceback" not in err
    with Record.open(path) as record:
        held = record.lengths["shots"]
    assert held > 0
    assert dark_s > 0
    code, _, err = Command(tmp_path, "--resume", str(path)).end()
    assert code == 0, err
    found, expected = content(path), content(whole)
    assert [name for name in expected if found[name] != expected[name]] == []
