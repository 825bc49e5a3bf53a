"""A disk that fills up under ``labctl run``: dark, and a record to go on with."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from drivers.sim.beam import Beam
from labctl.recording.reader import Record

Once = Callable[[str, Callable[[Path], Any]], Any]
Fork = Callable[[Path], BaseProcess]
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


SCRIPT = """
import os, sys, tempfile
tempfile.tempdir = {beams!r}
said = os.open({said!r}, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
os.dup2(said, 1), os.dup2(said, 2)
sys.stdout = open(1, "w", buffering=1, closefd=False)
sys.stderr = open(2, "w", buffering=1, closefd=False)
sys.argv = ["labctl", "run", *{words!r}]
from labctl.cli import main
main()
"""


class Command:
    """``labctl run`` in a process of its own, and the beam of its laser.

    Parameters
    ----------
    fork
        Makes the process.
    folder
        Where it says what it says, and where its beam lies.
    words
        Of the command.
    """

    def __init__(self, fork: Fork, folder: Path, *words: str) -> None:
        self._beams, self._said = folder / "beams", folder / "said.txt"
        self._beams.mkdir(exist_ok=True)
        script = folder / "command.py"
        script.write_text(
            SCRIPT.format(beams=str(self._beams), said=str(self._said), words=words)
        )
        self.process = fork(script)

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self.process.pid is not None
        return self.process.pid

    def dark_s(self) -> float:
        """When it went dark, by the beam; waits until it has been lit."""
        beam = self._beam()
        with beam:
            while not beam.read().emission and self.process.is_alive():
                time.sleep(0.002)
            while beam.read().emission and self.process.is_alive():
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

    def end(self) -> tuple[int, str]:
        """Exit code, and what it said."""
        self.process.join(500)
        said = self._said.read_text(encoding="utf-8")
        assert self.process.exitcode is not None, said
        return self.process.exitcode, said


@pytest.fixture
def protocol(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def whole(once: Once, fork: Fork) -> Path:
    """The record of a run that has room enough."""

    def make(folder: Path) -> Path:
        (folder / "small.yaml").write_text(SMALL, encoding="utf-8")
        words = (str(folder / "small.yaml"), "--out", str(folder / "whole.h5"))
        code, said = Command(fork, folder, *words).end()
        assert code == 0, said
        return folder / "whole.h5"

    record: Path = once("whole", make)
    return record


def wait_for_shots(path: Path, command: Command) -> None:
    while not path.exists() or path.stat().st_size < 900_000:
        assert command.process.is_alive()
        time.sleep(0.005)


@pytest.mark.slow
def test_a_disk_that_somebody_fills_ends_the_run_well(
    disk: Path,
    protocol: str,
    whole: Path,
    tmp_path: Path,
    content: Content,
    fork: Fork,
) -> None:
    path, filler = disk / "run.h5", disk / "filler"
    command = Command(fork, tmp_path, protocol, "--out", str(path))
    wait_for_shots(path, command)
    with filler.open("wb", buffering=0) as file:
        for piece in (2**20, 2**12):
            try:
                while True:
                    file.write(bytes(piece))
            except OSError:
                continue
    dark_s = command.dark_s()
    code, said = command.end()
    assert code == 5, said
    assert "no space (errno 28)" in said or "free=0.0 MiB" in said
    assert "Traceback" not in said
    with Record.open(path) as record:
        assert record.status == "failed"
        assert dark_s <= record.writers()[-1]["end_s"]
        held = record.lengths["shots"]
    filler.unlink()
    code, said = Command(fork, tmp_path, "--resume", str(path)).end()
    assert code == 0, said
    found, expected = content(path), content(whole)
    assert [name for name in expected if found[name] != expected[name]] == []
    with Record.open(path) as record:
        assert record.lengths["shots"] > held > 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits a process that runs")
def test_a_file_at_its_limit_ends_the_run_well(
    protocol: str, whole: Path, tmp_path: Path, content: Content, fork: Fork
) -> None:
    path = tmp_path / "run.h5"
    command = Command(fork, tmp_path, protocol, "--out", str(path))
    wait_for_shots(path, command)
    size = path.stat().st_size + 60_000
    limits = (size, resource.RLIM_INFINITY)
    resource.prlimit(command.pid, resource.RLIMIT_FSIZE, limits)
    dark_s = command.dark_s()
    code, said = command.end()
    assert code == 5, said
    assert "the file is at its size limit (errno 27)" in said
    assert "Traceback" not in said
    with Record.open(path) as record:
        held = record.lengths["shots"]
    assert held > 0
    assert dark_s > 0
    code, said = Command(fork, tmp_path, "--resume", str(path)).end()
    assert code == 0, said
    found, expected = content(path), content(whole)
    assert [name for name in expected if found[name] != expected[name]] == []
