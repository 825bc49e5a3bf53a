"""Files of any kind, checked without a bench."""

import re
from pathlib import Path

import pytest

from labctl.errors import ProtocolError
from labctl.run.validate import validate


def test_every_fault_of_every_file_is_found(small: Path) -> None:
    bad = small.with_name("bad.yaml")
    text = small.read_text(encoding="utf-8")
    bad.write_text(
        text.replace("batch:", "bach:").replace("shots: 400", "shots: none"),
        encoding="utf-8",
    )
    checked = validate([str(small), str(bad), "sim-small", "missing.yaml"])
    assert dict(checked.good) == {
        str(small): "protocol",
        "sim-small": "bench file",
    }
    assert len(checked.faults) == 3
    first = str(checked.faults[0])
    assert "bad.yaml line 12 column" in first
    assert "batch" in first
    with pytest.raises(ProtocolError, match="missing"):
        checked.raise_faults()


def test_a_calibration_of_another_bench_file_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = Path(__file__).parents[3] / "calibrations" / "sim-small"
    copy = tmp_path / "mine"
    copy.mkdir()
    for path in shipped.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    bench = copy / "bench.yaml"
    bench.write_text(bench.read_text(encoding="utf-8") + "\n# changed\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    (fault, *_) = validate([str(bench)]).faults
    assert "bench" in fault.text


def test_drivers_and_their_options_are_checked_as_opening_does(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[3] / "calibrations" / "sim-small" / "bench.yaml"
    text = shipped.read_text(encoding="utf-8")
    lines = text.splitlines()
    first = tmp_path / "first.yaml"
    first.write_text(
        text.replace("driver: sim.camera", "driver: sin.camera")
        .replace("pitch_um", "pitch_nm")
        .replace("[0.0, 10.0]", "[10.0, 0.0]"),
        encoding="utf-8",
    )
    second = tmp_path / "second.yaml"
    second.write_text(
        text.replace("driver: sim.camera", "driver: sim.laser").replace(
            "steps: 8", "stepps: 8", 1
        ),
        encoding="utf-8",
    )
    checked = validate([str(first), str(second)])
    assert checked.good == ()
    places = {
        (fault.where, fault.key): (fault.line, fault.column) for fault in checked.faults
    }

    def place(path: Path, key: str, line: str, column: int) -> None:
        at = next(i for i, each in enumerate(lines) if line in each)
        assert places.pop((str(path), key)) == (at + 1, column)

    place(first, "devices.slm.options.pitch_nm", "pitch_um", 17)
    place(first, "devices.camera.driver", "sim.camera", 13)
    place(first, "devices.laser.options", "wavelength_nm", 7)
    place(second, "devices.camera.driver", "sim.camera", 13)
    assert list(places) == [(str(second), "world.options")]
    told = "\n".join(str(fault) for fault in checked.faults)
    assert "Did you mean sim.camera?" in told
    assert "expected a driver of the role Camera" in told
    assert "stepps" in told


def test_an_operating_point_beyond_panel_or_sensor_is_a_fault(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[3] / "calibrations" / "sim-small" / "bench.yaml"
    text = shipped.read_text(encoding="utf-8")
    path = tmp_path / "bench.yaml"
    (region,) = re.findall(r"  region: \[.*\]", text)
    (blocks,) = re.findall(r"  macropixels: \[.*\]", text)
    path.write_text(
        text.replace(region, "  region: [30, 0, 9, 9]").replace(
            blocks, "  macropixels: [64, 8]"
        ),
        encoding="utf-8",
    )
    told = {fault.key: fault.text for fault in validate([str(path)]).faults}
    assert set(told) == {"reservoir.region", "reservoir.macropixels"}
    assert "expected within 32 x 32 (the sensor)" in told["reservoir.region"]


def test_a_fault_in_a_map_of_commands_is_told_at_its_line(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[3] / "calibrations" / "loopback" / "bench.yaml"
    text = shipped.read_text(encoding="utf-8")
    shutter = """  shutter:
    driver: text.shutter
    options:
      address: nonsense::x
      baudrate: fast
      commands:
        identify: "id?"
        identity: "("
        open: 1
"""
    path = tmp_path / "bench.yaml"
    real = text.replace("devices:\n", "devices:\n" + shutter)
    path.write_text(real, encoding="utf-8")

    def told() -> dict[str, tuple[str, str]]:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert validate([str(path)]).good == ()
        return {
            fault.key.removeprefix("devices.shutter.options."): (
                lines[(fault.line or 0) - 1].strip(),
                fault.text,
            )
            for fault in validate([str(path)]).faults
        }

    # Types first: what is of another type, no driver is given.
    first = told()
    assert first["baudrate"][0] == "baudrate: fast"
    assert first["baudrate"][1].startswith('got "fast", expected a whole number')
    assert first["commands.open"][0] == "open: 1"
    path.write_text(
        real.replace("baudrate: fast", "baudrate: 9600").replace("open: 1", "opne: o"),
        encoding="utf-8",
    )
    second = told()
    assert second["commands.identity"][0] == 'identity: "("'
    assert second["commands.opne"][0] == "opne: o"
    assert "Did you mean open?" in second["commands.opne"][1]
