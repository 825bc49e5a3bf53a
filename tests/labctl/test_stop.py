import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.sim.beam import Beam
from labctl import bench, state, stop
from labctl.errors import DeviceError, InputError, LaserStillOnError, LatchedError

PAGES = Path(__file__).parents[2] / "docs" / "reference" / "benches"


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
    dark = call("dark", "--bench", "sim-small", "--json")
    clear = call("clear", "--bench", "sim-small", "--reason", "looked")
    assert (dark.returncode, clear.returncode) == (0, 0), dark.stderr
    assert '"dark": true' in dark.stdout.splitlines()[-1]
    assert "a person asked for dark" in clear.stdout
    assert call("clear", "--bench", "sim-small", "--reason", "x").returncode == 2
    assert (here / "state" / "sim-small.cleared.jsonl").exists()


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "labctl", *words],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of benches whose laser was opened to make it dark."""
    names: list[str] = []

    def note(source: bench.BenchSource) -> None:
        names.append(source.file.name)
        if source.file.name == "mute":
            device = "laser"
            raise DeviceError(device, "open", "no answer. Plug it in.")

    monkeypatch.setattr(stop, "_open_and_close", note)
    return names


def real(here: Path, name: str, *, power_mw: float = 20.0) -> Path:
    text = (PAGES / "desk.yaml").read_text(encoding="utf-8")
    text = text.replace("name: desk", f"name: {name}")
    path = here / "calibrations" / name / "bench.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text.replace("power_mw: 40.0", f"power_mw: {power_mw}"))
    return path


def test_dark_passes_over_a_broken_bench_file(here: Path, opened: list[str]) -> None:
    real(here, "lab")
    real(here, "old", power_mw=-8)
    wanted = stop.targets(None)
    assert wanted.lines() == [
        "bench: lab (the only real bench in calibrations)",
        "passed over: calibrations/old/bench.yaml has faults, and no guard has its "
        "laser. See: labctl validate calibrations/old/bench.yaml",
    ]
    done = wanted.dark()
    done.raise_failures()
    assert opened == ["lab"]
    assert done.as_json()["bench"] == "lab"
    assert state.latched("lab") is not None
    assert state.latched("old") is None


def test_dark_without_a_name_is_dark_on_every_real_bench(
    here: Path, opened: list[str]
) -> None:
    for name in ("lab", "mute", "other"):
        real(here, name)
    done = stop.targets(None).dark()
    assert opened == ["lab", "mute", "other"]
    assert "bench other: dark" in done.text()
    with pytest.raises(DeviceError, match="no answer"):
        done.raise_failures()
    shown = done.as_json()
    assert shown["dark"] is False
    assert isinstance(shown["benches"], list)
    assert [each["bench"] for each in shown["benches"]] == ["lab", "other"]


@pytest.mark.parametrize("option", [None, "old"])
def test_the_guard_of_a_bench_whose_file_broke_meanwhile_is_reached(
    here: Path, opened: list[str], option: str | None
) -> None:
    real(here, "lab")
    real(here, "old", power_mw=-8)
    guard = state.Presence("old")
    try:
        guard.tell(dark=True)
        wanted = stop.targets(option)
        done = wanted.dark()
        assert done.made[-1].latch.bench == "old"
        assert [owner.pid for owner in done.made[-1].guards] == [os.getpid()]
        assert opened == ([] if option else ["lab"])
    finally:
        guard.end()


def test_a_laser_that_a_broken_file_hides_is_told_of(here: Path) -> None:
    real(here, "old", power_mw=-8)
    result = call("dark", "--json")
    assert result.returncode == 4
    assert "bench: old (its file has faults" in result.stdout
    assert "If it emits, turn its key by hand" in result.stderr
    assert "limits.power_mw: got -8" in result.stderr
    assert state.latched("old") is not None
    assert call("dark", "--bench", "nowhere").returncode == 2
