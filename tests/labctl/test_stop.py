import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.sim.beam import Beam
from labctl import bench, state, stop
from labctl.errors import InputError, LaserStillOnError, LatchedError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def source() -> bench.BenchSource:
    return bench.load("sim-small")


@pytest.fixture
def table(source: bench.BenchSource) -> Iterator[bench.Bench]:
    opened = bench.open(source)
    yield opened
    opened.close()


def test_dark_reaches_a_run_through_its_guard(
    table: bench.Bench, source: bench.BenchSource
) -> None:
    table.light(2.0)
    assert table.beam is not None
    with Beam.open(table.beam) as beam:
        assert beam.read().emission
        stopped = stop.dark(source)
        assert not beam.read().emission
    assert [owner.pid for owner in stopped.guards] == [table.laser.pid]
    assert not stopped.opened
    with pytest.raises(LatchedError, match="a person asked for dark"):
        while True:  # the guard's word is on its way
            table.beat()
    with pytest.raises(LatchedError, match="labctl clear --bench sim-small"):
        table.light(1.0)


def test_a_latched_bench_is_refused_until_it_is_cleared(
    source: bench.BenchSource,
) -> None:
    stopped = stop.dark(source)
    assert stopped.guards == []
    assert "no run has it" in stopped.text()
    assert stopped.as_json()["dark"] is True
    with pytest.raises(LatchedError, match="a person asked"):
        bench.open(source)
    assert stop.clear(source, "had a look") == stopped.latch
    bench.open(source).close()
    with pytest.raises(InputError, match="nothing to clear"):
        stop.clear(source, "again")


def test_a_guard_that_does_not_answer_is_told_of(
    source: bench.BenchSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "ANSWER_S", 0.1)
    guard = state.Presence("sim-small")  # a guard that never says dark
    try:
        with pytest.raises(LaserStillOnError, match=rf"process {os.getpid()} .*key"):
            stop.dark(source)
    finally:
        guard.end()


def test_a_bench_of_which_only_the_run_lives_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = bench.load("sim-small").path.read_text(encoding="utf-8")
    folder = tmp_path / "calibrations" / "lab"
    folder.mkdir(parents=True)
    (folder / "bench.yaml").write_text(text.replace("name: sim-small", "name: lab"))
    source = bench.load("lab")
    monkeypatch.setattr(type(source.file), "simulated", False)
    mine = state.Ownership("lab")
    with pytest.raises(LaserStillOnError, match="no guard answers"):
        stop.dark(source)
    mine.release()


def test_the_command_line_makes_dark_and_clears(here: Path) -> None:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "labctl", *words],
            capture_output=True,
            text=True,
            check=False,
        )

    dark = call("dark", "--bench", "sim-small", "--json")
    clear = call("clear", "--bench", "sim-small", "--reason", "looked")
    assert (dark.returncode, clear.returncode) == (0, 0), dark.stderr
    assert '"dark": true' in dark.stdout.splitlines()[-1]
    assert "a person asked for dark" in clear.stdout
    assert call("clear", "--bench", "sim-small", "--reason", "x").returncode == 2
    assert (here / "state" / "sim-small.cleared.jsonl").exists()
