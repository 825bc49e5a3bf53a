"""On a bench that is not simulated a run goes on from what it recorded."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from labctl import cli
from labctl.devices import Levels
from labctl.recording.reader import Record

Lab = Callable[..., Path]
# What a clock, a device or a process has a part in.
OWN = {"host_time_s", "device_time_s", "exposure_start_s", "exposure_end_s", "time_s"}
OWN |= {"frame_id", "trigger", "pattern_id"}


def labctl(*words: str) -> Result:
    return CliRunner().invoke(cli.app, ["run", *words])


def content(path: Path) -> dict[str, Any]:
    with Record.open(path) as record:
        found: dict[str, Any] = {
            f"{table}/{name}": record.column(table, name).tobytes()
            for table, names in record.tables.items()
            for name in names
            if name not in OWN
        }
        result = record.result.items()
        found["result"] = {k: v for k, v in result if not k.endswith("_s")}
        found["ledger"] = record.ledger()
        found["checkpoints"] = [entry.crc32 for entry in record.checkpoints()]
    return found


# Each of them trains on a bench of drivers that step, some more than once.
pytestmark = pytest.mark.slow


@pytest.fixture
def broken(lab: Lab, tmp_path: Path) -> Path:
    """A run whose camera went away after 60 frames of a batch."""
    lab("late")
    result = labctl("moons.yaml", "--out", "r.h5", "--set", "record.frames=binned")
    assert result.exit_code == 3, result.output
    assert "next:   labctl run --resume r.h5" in result.stderr
    return tmp_path / "r.h5"


def test_a_run_of_failures_ends_as_if_nothing_had_failed(
    broken: Path, tmp_path: Path
) -> None:
    # The camera fails every 60 frames: only what is new can be exposed.
    resumed = 0
    while True:
        with Record.open(broken) as record:
            held = record.lengths["shots"]
        result = labctl("--resume", "r.h5")
        resumed += 1
        assert f"going on from {held} recorded shots, none of which" in result.stdout
        assert result.exit_code in {0, 3}, result.output
        if result.exit_code == 0:
            break
        assert resumed < 10
    assert resumed > 2
    assert (tmp_path / "light.txt").read_text() == "0.0"
    # The same bench without the fault.
    bench = tmp_path / "calibrations" / "acme" / "bench.yaml"
    old = hashlib.sha256(bench.read_bytes()).hexdigest()
    bench.write_text(bench.read_text().replace('fault: "late"', 'fault: ""'))
    new = hashlib.sha256(bench.read_bytes()).hexdigest()
    for given in bench.parent.glob("*-given.yaml"):
        given.write_text(given.read_text().replace(old, new))
    words = ("--out", "whole.h5", "--set", "record.frames=binned")
    assert labctl("moons.yaml", *words).exit_code == 0
    ours, whole = content(broken), content(tmp_path / "whole.h5")
    assert [name for name in whole if ours[name] != whole[name]] == []
    with Record.open(broken) as record:
        events = [event.text for event in record.events()]
        reasons = [row["reason"] for row in record.writers()]
    assert reasons == ["create", *["resume"] * resumed]
    assert not any("diverged" in text for text in events)
    assert any("recorded shots passed; measuring again" in text for text in events)


def alter(path: Path, how: Callable[[Levels], Levels]) -> None:
    with h5py.File(path, "r+", libver="v110") as file:
        levels = file["entry/shots_meta/levels"]
        levels[...] = how(levels[...])


def shifted(levels: Levels) -> Levels:
    levels[7, 3] += 1 if levels[7, 3] < 100 else -1
    return levels


def test_rounding_writes_an_event_and_the_recorded_pair_stands(broken: Path) -> None:
    alter(broken, shifted)
    with Record.open(broken) as record:
        before = record.column("shots_meta", "levels")
    result = labctl("--resume", "r.h5")
    assert result.exit_code == 3
    assert "replay diverged at shot" in result.stdout
    with Record.open(broken) as record:
        after = record.column("shots_meta", "levels")
        events = [e.text for e in record.events() if e.source == "replay"]
    assert len(after) > len(before)
    np.testing.assert_array_equal(after[: len(before)], before)
    assert any("1 of " in text and "by rounding" in text for text in events)


def test_other_patterns_courses_devices_and_calibrations_are_refused(
    broken: Path,
) -> None:
    def course(file: h5py.File) -> None:
        file["entry/shots_meta/category"][2] = b"probe"

    def patterns(file: h5py.File) -> None:
        levels = file["entry/shots_meta/levels"]
        levels[...] = np.roll(levels[...], 1, axis=0)

    def put(place: str, value: str | float) -> Callable[[h5py.File], None]:
        def change(file: h5py.File) -> None:
            file[f"entry/{place}"][...] = value

        return change

    whole = broken.read_bytes()
    cases: list[tuple[Callable[[h5py.File], None], int, str]] = [
        (patterns, 5, "macropixels are not those that were shown"),
        (course, 5, "shot 2 was probe, step -1, layer 0, expected repeat"),
        (
            put("instrument/camera/serial", "4712"),
            2,
            "camera: serial=4711, expected 4712",
        ),
        (put("instrument/slm/lut", 3.0), 2, "slm-phase: another curve"),
        (put("calibration/settle/settle_s", 0.5), 2, "settle_s=0.0, expected 0.5"),
    ]
    for change, code, message in cases:
        broken.write_bytes(whole)
        with h5py.File(broken, "r+", libver="v110") as file:
            change(file)
        result = labctl("--resume", "r.h5")
        assert result.exit_code == code, result.output
        assert message in result.stderr
