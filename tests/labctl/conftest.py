"""A package outside this repository that brings drivers, made for a test."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Once = Callable[[str, Callable[[Path], Any]], Any]
PAGE = (sys.executable, "-m", "labctl", "report")
Package = Callable[[str, str, Mapping[str, str]], Path]
CHROMIUM = "apt-get install chromium chromium-driver"

# One module of another package: panel, laser and camera, and between them a lens.
# The laser lives in the guard's process, so its light is a number in a file.
SOURCE = """
import zlib
from pathlib import Path

import numpy as np

from labctl.devices import SLM, Camera, CameraSettings, Frame, Identity, Laser, Written
from labctl.errors import DeviceError, OutOfRangeError


class Part:
    def __init__(self, *, name, clock, light, fault=""):
        self._name, self._clock, self._light = name, clock, Path(light)
        self._fault = fault
        self._is_open = False

    name = property(lambda self: self._name)

    def open(self):
        if self._fault == "mute":
            raise DeviceError(self._name, "open", "no answer. Plug it in.")
        self._is_open = True

    def close(self):
        pass

    def identity(self):
        return Identity("acme", self._name, "4711", "2.0")

    def settings(self):
        return {"fault": self._fault}


class AcmeLaser(Part, Laser):
    wavelength_nm = property(lambda self: 633.0)
    power_limits_mw = property(lambda self: (0.0, 5.0))
    repetition_rate_hz = property(lambda self: None)
    pulse_width_fs = property(lambda self: None)
    _power, _on = 0.0, False

    def open(self):
        self.emission(False)

    def close(self):
        self.emission(False)

    def set_power_mw(self, power_mw):
        if not 0 <= power_mw <= 5:
            raise OutOfRangeError(self._name, "power_mw", power_mw, low=0, high=5)
        self._power = power_mw
        self._shine()

    def setpoint_mw(self):
        return self._power

    def power_mw(self):
        return self._power if self._on else 0.0

    def emission(self, on):
        self._on = on
        self._shine()

    def is_emitting(self):
        return self._on

    def faults(self):
        return []

    def _shine(self):
        self._light.write_text(str(self.power_mw()))


class AcmeSLM(Part, SLM):
    shape = property(lambda self: (12, 20))
    bit_depth = property(lambda self: 8)
    pitch_um = property(lambda self: 12.5)
    settle_s = property(lambda self: 0.0)
    shown, _count = np.zeros((12, 20), np.uint8), 0

    def write(self, levels):
        if levels.shape != self.shape or levels.dtype != np.uint8:
            raise OutOfRangeError(
                self._name, "levels", levels.shape, low=0, high=self.shape
            )
        AcmeSLM.shown = levels.copy()
        self._count += 1
        return Written(self._count, zlib.crc32(levels.tobytes()), self._clock.now())


class AcmeCamera(Part, Camera):
    bit_depth = property(lambda self: 12)
    pixel_um = property(lambda self: 5.5)
    exposure_limits_s = property(lambda self: (1e-5, 1.0))
    gain_limits_db = property(lambda self: (0.0, 0.0))
    saturation_dn = property(lambda self: 4095)
    frame_id_modulus = property(lambda self: None)
    _region, _exposure_s = (0, 0, 10, 14), 1e-3
    _armed = _triggers = _frames = 0

    @property
    def shape(self):
        if self._fault == "shy" and not self._is_open:
            raise DeviceError(self._name, "shape", "not open.")
        return 10, 14

    def configure(self, *, exposure_s, gain_db=0.0, region=None):
        self._region, self._exposure_s = region or (0, 0, 10, 14), exposure_s
        return CameraSettings(exposure_s, gain_db, self._region)

    def arm(self, frames):
        self._armed, self._triggers = frames, 0

    def trigger(self):
        if self._fault == "late" and self._frames > 60:
            raise DeviceError(self._name, "trigger", "gone. Look at its cable.")
        self._triggers += 1
        self._start_s = self._clock.now()

    def frame(self, timeout_s):
        power = float(self._light.read_text())
        field = np.exp(2j * np.pi * AcmeSLM.shown / 256)
        spot = np.fft.fftshift(np.abs(np.fft.fft2(field, norm="ortho")) ** 2)
        seen = 100 + 20 * power * self._exposure_s / 1e-3 * spot[1:11, 3:17]
        top, left, height, width = self._region
        data = np.minimum(seen, 4095).round().astype(np.uint16)
        self._frames += 1
        end_s = self._clock.now()
        return Frame(
            data=data[top : top + height, left : left + width].copy(),
            frame_id=self._frames,
            trigger=self._triggers,
            device_time_s=self._start_s,
            host_time_s=end_s,
            exposure_start_s=self._start_s,
            exposure_end_s=end_s,
        )

    def disarm(self):
        self._armed = 0
"""
BENCH = """\
schema_version: 1
name: acme
devices:
  laser: {{driver: acme.laser, options: {{light: {light}}}}}
  slm: {{driver: acme.slm, serial: "4711", options: {{light: {light}}}}}
  camera: {{driver: acme.camera, options: {{light: {light}, fault: "{fault}"}}}}
limits: {{power_mw: 4, exposure_s: 0.01}}
reservoir:
  macropixels: [6, 10]
  region: [1, 2, 8, 9]
  bins: [2, 3]
  exposure_s: 0.001
  power_mw: 2
"""
GIVEN = {
    "slm-phase": "kind: slm-phase\n  span_rad: 6.283185307179586",
    "settle": "kind: settle\n  settle_s: 0.0",
    "camera": "kind: camera\n  offset_dn: 100\n  dark_dn_per_s: 0\n"
    "  gain_dn_per_e: 2\n  read_noise_e: 1",
}
PROTOCOL = """\
schema_version: 1
kind: train
data: {set: moons, train: 64, validation: 8, test: 40}
model:
  - {layer: device}
  - {layer: standardise}
  - {layer: linear}
surrogate: {name: twin-modes, modes: 6, fits_per_step: 1}
probes: {held_out_per_step: 2, noise_repeats: 4}
training: {batch: 16, validate_every: 5}
budget: {shots: 250}
record: {frames: full}
"""

Lab = Callable[..., Path]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Install a package of one module: name, source, entry points.

    It is found by this process and by those that it starts.
    """
    site = tmp_path / "site"
    site.mkdir()
    made: list[str] = []

    def install(name: str, source: str, drivers: Mapping[str, str]) -> Path:
        (site / f"{name}.py").write_text(source, encoding="utf-8")
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        entries = "\n".join(f"{key} = {value}" for key, value in drivers.items())
        (info / "entry_points.txt").write_text(f"[labctl.drivers]\n{entries}\n")
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nProvides-Extra: acme\n"
        )
        made.append(name)
        return site

    monkeypatch.syspath_prepend(str(site))
    old = os.environ.get("PYTHONPATH")
    joined = str(site) if old is None else os.pathsep.join([str(site), old])
    monkeypatch.setenv("PYTHONPATH", joined)
    yield install
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Package) -> Lab:
    """Install the package; lay out a folder with its bench, and go there."""
    drivers = {
        f"acme.{role}": f"acme_lab:Acme{name}"
        for role, name in (("slm", "SLM"), ("laser", "Laser"), ("camera", "Camera"))
    }
    package("acme_lab", SOURCE, drivers)
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("LABCTL_BENCH", raising=False)
    light = tmp_path / "light.txt"

    def make(fault: str = "") -> Path:
        folder = tmp_path / "calibrations" / "acme"
        folder.mkdir(parents=True)
        text = BENCH.format(light=json.dumps(str(light)), fault=fault)
        (folder / "bench.yaml").write_bytes(text.encode())
        digest = hashlib.sha256(text.encode()).hexdigest()
        for kind, values in GIVEN.items():
            (folder / f"{kind}-given.yaml").write_text(
                "schema_version: 1\norigin: given\ncreated: 2026-01-01T00:00:00Z\n"
                f"bench_sha256: {digest}\nvalues:\n  {values}\n",
                encoding="utf-8",
            )
        (folder / "current.yaml").write_text(
            "schema_version: 1\nrecords: "
            f"[{', '.join(f'{kind}-given.yaml' for kind in GIVEN)}]\n",
            encoding="utf-8",
        )
        (tmp_path / "moons.yaml").write_text(PROTOCOL, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        return light

    return make


@pytest.fixture(scope="session")
def smoke(once: Once, typed: Callable[..., BaseProcess]) -> tuple[Path, dict[str, Any]]:
    """Run the shipped smoke comparison as its user does, and draw its page.

    Its record, with the page beside it, and the JSON that the run told. Its trainings
    run in one process, which begins with all imported: those that a comparison starts
    have their own test. In the long form all is as the file says.
    """

    def ran(folder: Path, *words: str) -> str:
        process = typed(folder, *words)
        process.join()
        told, error = (
            (folder / name).read_text(encoding="utf-8")
            for name in ("out.txt", "err.txt")
        )
        assert (process.exitcode, error) == (0, ""), error
        return told

    def make(folder: Path) -> tuple[Path, dict[str, Any]]:
        # No folder of protocols is here: the name is that of a shipped one.
        words = ["run", "comparisons/smoke.yaml", "--out", "smoke.h5", "--overwrite"]
        if os.environ.get("LABCTL_SOAK") != "1":
            words += ["--set", "workers=1"]
        told = json.loads(ran(folder, *words, "--json").splitlines()[-1])
        # The one command of the two that nothing else begins with no module imported.
        done = subprocess.run(  # noqa: S603 - our own words
            [*PAGE, "smoke.h5", "--out", "smoke.html"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return folder / "smoke.h5", told

    made: tuple[Path, dict[str, Any]] = once("smoke", make)
    return made


@pytest.fixture(scope="session")
def browser(
    need_module: Callable[..., ModuleType], need_program: Callable[[str, str], str]
) -> Iterator[Any]:
    """A Chromium without a window."""
    need_module("selenium")
    webdriver = need_module("selenium.webdriver")
    service = need_module("selenium.webdriver.chrome.service")
    options = webdriver.ChromeOptions()
    options.binary_location = need_program("chromium", CHROMIUM)
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(word)
    options.add_argument("--window-size=1100,1000")
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    driver = need_program("chromedriver", CHROMIUM)
    found = webdriver.Chrome(options=options, service=service.Service(driver))
    try:
        yield found
    finally:
        found.quit()
