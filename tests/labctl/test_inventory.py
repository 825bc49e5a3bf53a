"""What is there is listed, what does not answer is named, and nothing stays lit."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from labctl import bench, cli, inventory, registry
from labctl.calibration import DriverEntry
from labctl.devices import Attenuator, Found, Identity
from labctl.errors import DeviceError, LatchedError, OutOfRangeError
from labctl.state import clear, latch


def called(*words: str) -> Result:
    return CliRunner().invoke(cli.app, ["devices", *words])


@pytest.fixture
def finders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the finders of a package that is not ours, one of them without a library."""

    def sulk() -> list[Found]:
        raise DeviceError("acme", "find", "its bus is locked. Unlock it.")

    def find() -> list[Found]:
        return [
            Found(
                what="Acme 7",
                role="meter",
                driver="acme.meter",
                options={"port": "a"},
                serial="S7",
            ),
            Found(what="a port that says nothing"),
        ]

    real = registry.installed, registry.load

    def installed(group: str = registry.GROUP) -> object:
        return real[0]() if group == registry.GROUP else {"acme": 1, "bolt": 2}

    def load(key: str, group: str = registry.GROUP) -> Callable[..., object]:
        if group == registry.GROUP:
            return real[1](key)
        return {"acme": find, "bolt": sulk}[key]

    monkeypatch.setattr(registry, "installed", installed)
    monkeypatch.setattr(registry, "load", load)


@pytest.mark.slow
@pytest.mark.usefixtures("finders")
def test_lists_drivers_and_instruments_with_the_lines_to_paste() -> None:
    result = called("--json")
    assert result.exit_code == 0, result.output
    said = result.stdout
    assert "  sim.slm\n" in said
    assert "  Acme 7\n    meter: {driver: acme.meter, serial:" in said
    assert "a port that says nothing" in said
    assert "not looked for: bolt: acme: find: its bus is locked. Unlock it." in said
    content = json.loads(said.splitlines()[-1])
    assert content["found"][0]["serial"] == "S7"
    assert content["drivers"]["sim.slm"] == ""


def test_a_missing_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (entry,) = (each for each in [registry.installed()["sim.slm"]])
    absent = type(entry)("basler.camera", "no_such_library.x:Camera", registry.GROUP)
    vars(absent)["dist"] = entry.dist
    monkeypatch.setattr(registry, "entry_points", lambda **_: [absent])
    monkeypatch.syspath_prepend(tmp_path)  # another path is looked through anew
    there = inventory.take()
    assert "pip install 'labctl[basler]'" in there.drivers["basler.camera"]
    assert "pip install 'labctl[basler]'" in there.missing["basler.camera"]
    assert "cannot be used" in there.text()


def test_each_device_of_a_bench_says_who_and_how_it_is() -> None:
    result = called("--bench", "sim-small", "--json")
    assert result.exit_code == 0, result.output
    assert "laser      sim.laser: labctl simulated laser SIM-LASER-1 1: dark" in (
        result.stdout
    )
    assert "a frame in the dark: median" in result.stdout
    devices = json.loads(result.stdout.splitlines()[-1])["devices"]
    assert [each["role"] for each in devices] == ["laser", "slm", "camera", "meter"]
    assert devices[0]["identity"]["serial"] == "SIM-LASER-1"


def test_an_attenuator_tells_what_it_transmits() -> None:
    class Plate(Attenuator):
        name = property(lambda _: "attenuator")
        transmission_limits = property(lambda _: (0.01, 0.9))
        open = close = lambda _: None
        settings = lambda _: {}  # noqa: E731 - a role in as few lines
        identity = lambda _: Identity("Acme", "Plate", "1", "2")  # noqa: E731
        set_transmission = lambda *_: None  # noqa: E731
        transmission = lambda _: 0.25  # noqa: E731

    entry = DriverEntry(driver="acme.attenuator")
    said = inventory._said("attenuator", entry, Plate()).text()
    assert said.endswith("Acme Plate 1 2: transmits 0.25 of 0.01 to 0.9")


# A panel of another package; laser and camera are the real drivers before peers.
PANEL = """
import zlib
from labctl.devices import SLM, Identity, Written

class Panel(SLM):
    shape = property(lambda self: (12, 20))
    bit_depth = property(lambda self: 8)
    pitch_um = property(lambda self: 12.5)
    settle_s = property(lambda self: 0.0)
    name = property(lambda self: "slm")

    def __init__(self, *, name, clock):
        self._clock = clock

    def open(self):
        pass

    def close(self):
        pass

    def identity(self):
        return Identity("acme", "panel", "P1", "")

    def settings(self):
        return {}

    def write(self, levels):
        return Written(1, zlib.crc32(levels.tobytes()), self._clock.now())
"""
BENCH = """\
schema_version: 1
name: half
devices:
  laser:
    driver: cobolt.laser
    serial: "7863"
    options: {{address: {port}, wavelength_nm: 561, gap_s: 0.0}}
  slm: {slm}
  camera:
    driver: basler.camera
    serial: "{serial}"
    options: {{shape: [4096, 4096], pixel_um: 3.45}}
limits: {{power_mw: 90, exposure_s: 0.01}}
reservoir:
  macropixels: [6, 10]
  region: [0, 0, 80, 90]
  bins: [2, 3]
  exposure_s: 0.001
  power_mw: 20
"""


@pytest.fixture
def half(
    tmp_path: Path,
    package: Callable[..., Path],
    bridge: Callable[[str], Any],
    need_module: Callable[[str], object],
) -> Callable[..., tuple[Path, Any]]:
    """A bench of two real drivers before their peers."""
    need_module("pypylon.pylon")
    package("acme_panel", PANEL, {"acme.slm": "acme_panel:Panel"})

    def make(
        serial: str = "0815-0000", slm: str = "{driver: acme.slm}"
    ) -> tuple[Path, Any]:
        end = bridge("CoboltLaserMock")
        path = tmp_path / "bench.yaml"
        text = BENCH.format(port=end.port, serial=serial, slm=slm)
        path.write_text(text, encoding="utf-8")
        return path, end

    return make


@pytest.mark.peer
@pytest.mark.slow
def test_real_drivers_answer_one_by_one_and_stay_dark(
    half: Callable[..., tuple[Path, Any]],
) -> None:
    path, end = half()
    result = called("--bench", str(path), "--json")
    assert result.exit_code == 0, result.output
    assert "cobolt.laser: Cobolt Macro-Gen5b-SHG-0501_4W-RevA 7863" in result.stdout
    assert "dark, no faults, 561 nm, 0 to 600 mW" in result.stdout
    assert "Basler Emulation 0815-0000" in result.stdout
    assert end.mock.light is False


@pytest.mark.peer
@pytest.mark.slow
def test_one_that_fails_does_not_hide_the_others(
    half: Callable[..., tuple[Path, Any]],
) -> None:
    path, end = half("4711")
    end.unplug()
    result = called("--bench", str(path))
    assert result.exit_code == 3
    assert "laser      cobolt.laser: laser: open: " in result.stdout
    assert "slm        acme.slm: acme panel P1: 12 x 20 pixels" in result.stdout
    assert "serial=0815-0000, expected 4711 (bench file)" in result.stdout
    assert "laser, camera: no good answer" in result.stderr


SCREEN = (
    "{driver: screen.slm, options: {shape: [600, 800], pitch_um: 8, settle_s: 0.1}}"
)
HOLD = """
from drivers.screen import ScreenSLM
from labctl.bench import RealClock
with ScreenSLM(shape=(600, 800), pitch_um=8, settle_s=0.1, clock=RealClock()):
    print("open", flush=True)
    input()
"""


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.usefixtures("desktop")
def test_a_panel_that_another_process_has_is_named_with_who_has_it(
    half: Callable[..., tuple[Path, Any]], need_module: Callable[[str], object]
) -> None:
    for library in ("glfw", "moderngl"):
        need_module(library)
    path, end = half(slm=SCREEN)
    with subprocess.Popen(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        busy = called("--bench", str(path), "--json")
        holder.communicate("\n")
    assert holder.returncode == 0
    assert busy.exit_code == 3, busy.output
    laser, slm, camera = json.loads(busy.stdout.splitlines()[-1])["devices"]
    assert "monitor DUMMY1 at [640, 0] of display :" in slm["error"]
    assert f"is held by process {holder.pid} on " in slm["error"]
    assert "Wait for that process, or end it." in slm["error"]
    # It hides neither of the others, and nothing is lit.
    assert not laser["error"]
    assert not camera["error"]
    assert end.mock.light is False
    assert "slm: no good answer" in busy.stderr
    free = called("--bench", str(path))
    assert free.exit_code == 0, free.output
    assert "600 x 800 pixels, 8 bits, flat" in free.stdout


@pytest.mark.peer
@pytest.mark.slow
def test_a_bench_of_real_drivers_is_dark_on_the_way_out(
    half: Callable[..., tuple[Path, Any]],
) -> None:
    path, end = half()
    with pytest.raises(ZeroDivisionError), bench.open(bench.load(path)) as table:
        table.configure_camera(exposure_s=1e-3, region=(0, 0, 80, 90))
        table.light(20)
        assert (end.mock.light, end.mock.power) == (True, 20.0)
        with pytest.raises(OutOfRangeError, match="power_mw=91"):
            table.light(91)
        table.camera.arm(1)
        table.camera.trigger()
        assert table.camera.frame(2.0).data.shape == (80, 90)
        raise ZeroDivisionError
    assert (end.mock.light, end.mock.power) == (False, 0.0)


@pytest.mark.peer
@pytest.mark.slow
def test_another_serial_number_refuses_the_bench(
    half: Callable[..., tuple[Path, Any]],
) -> None:
    path, end = half("4711")
    with pytest.raises(DeviceError, match="serial=0815-0000, expected 4711"):
        bench.open(bench.load(path))
    assert end.mock.light is False


@pytest.mark.peer
def test_a_latched_bench_is_not_touched(
    half: Callable[..., tuple[Path, Any]],
) -> None:
    path, _ = half()
    latch("half", "somebody looked into the beam.")
    with pytest.raises(LatchedError, match="looked into the beam"):
        inventory.call(bench.load(path))
    clear("half", "nobody does any more")
