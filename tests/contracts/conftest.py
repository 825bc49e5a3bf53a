"""Every registered driver, made ready in this process: one row a driver.

A new driver adds its row to ``ROWS``; the contracts of its role then run over it. Where
there is no peer, the model of its instrument in ``models.py`` stands in.
Guards are started by a bench only: here a laser is opened directly.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from drivers.wire import Link
from labctl.bench import RealClock
from labctl.devices import (
    SLM,
    Attenuator,
    Camera,
    Clock,
    Device,
    Laser,
    Meter,
    Shutter,
    World,
)
from tests.contracts import models
from tests.contracts.models import Broken

ROLES = (
    "world",
    "slm",
    "laser",
    "camera",
    "meter",
    "shutter",
    "attenuator",
    "sequence",
    "oracle",
)


@dataclass
class Place:
    """Where a driver is tried: its folder, and what must be closed after it.

    Parameters
    ----------
    folder
        Empty, for files.
    stack
        Closes what a row opened.
    bridge
        Puts a mock that others wrote behind a serial port.
    need_module
        Imports a peer, or skips.
    display
        Starts a display with two monitors.
    gige
        Gives what starts a GigE Vision camera.
    gentl
        The same, behind GenICam's own node map.
    linked
        Gives every driver on a wire this link.
    """

    folder: Path
    stack: ExitStack
    bridge: Callable[[str], Any]
    need_module: Callable[[str], Any]
    display: Callable[[], object]
    gige: Callable[[], Callable[[], object]]
    gentl: Callable[[], Callable[[], object]]
    linked: Callable[[Link], None]
    made: dict[str, Any] = field(default_factory=dict)

    def driver(self, key: str, **options: object) -> Any:  # noqa: ANN401 - any role
        """Make what an entry point names, once."""
        if key not in self.made:
            (entry,) = (
                point
                for point in distribution("labctl").entry_points
                if point.group == "labctl.drivers" and point.name == key
            )
            self.made[key] = entry.load()(**options)
        return self.made[key]


def sim_world(place: Place) -> World:
    world: World = place.driver(
        "sim.world",
        seed=1,
        beam=place.folder / "beam",
        grid=[16, 24],
        macropixel_px=2,
        medium={"steps": 8},
    )
    # The light path reads a beam file, which only a laser makes.
    if "sim.laser" not in place.made:
        place.stack.enter_context(sim_laser(place))
    return world


def sim_laser(place: Place) -> Laser:
    laser: Laser = place.driver("sim.laser", beam=place.folder / "beam")
    return laser


def sim_device(key: str) -> Callable[[Place], Any]:
    def make(place: Place) -> Any:  # noqa: ANN401 - any role
        world = sim_world(place)
        return place.driver(key, world=world, clock=world.clock)

    return make


def sim_capability(key: str) -> Callable[[Place], Any]:
    def make(place: Place) -> Any:  # noqa: ANN401 - any role
        world = sim_world(place)
        parts = {
            role: place.driver(f"sim.{role}", world=world, clock=world.clock)
            for role in ("slm", "camera")
        }
        return place.driver(key, world=world, **parts)

    return make


def on_mock(key: str, mock: str, **options: object) -> Callable[[Place], Laser]:
    def make(place: Place) -> Laser:
        port = place.bridge(mock).port
        laser: Laser = place.driver(key, address=port, **options)
        return laser

    return make


def on_model(key: str) -> Callable[[Place], Any]:
    model, driver, _ = models.STAND_INS[key]

    def make(place: Place) -> Any:  # noqa: ANN401 - any role
        link = Broken(model())
        place.linked(link)
        return driver(address="x", clock=link.clock)

    return make


def screen_slm(place: Place) -> SLM:
    for peer in ("glfw", "moderngl"):
        place.need_module(peer)
    place.display()
    slm: SLM = place.driver(
        "screen.slm", shape=[600, 800], pitch_um=8, settle_s=0.1, clock=RealClock()
    )
    return slm


def slmsuite_slm(place: Place) -> SLM:
    place.need_module("slmsuite.hardware.slms.simulated")
    slm: SLM = place.driver(
        "slmsuite.slm",
        panel="simulated.SimulatedSLM",
        arguments={"resolution": [32, 24]},
        shape=[24, 32],
        pitch_um=8,
        settle_s=0.1,
        clock=RealClock(),
    )
    return slm


def slmsuite_camera(place: Place) -> Camera:
    panels = place.need_module("slmsuite.hardware.slms.simulated")
    # As large as this, an image takes longer than the exposures here.
    panel = panels.SimulatedSLM(resolution=(640, 480))
    camera: Camera = place.driver(
        "slmsuite.camera",
        camera="simulated.SimulatedCamera",
        arguments={"slm": panel, "bitdepth": 12},
        shape=[480, 640],
        pixel_um=5,
        bits=12,
        clock=RealClock(),
    )
    return camera


def basler_camera(place: Place) -> Camera:
    place.need_module("pypylon.pylon")
    camera: Camera = place.driver(
        "basler.camera",
        shape=[4096, 4096],
        pixel_um=3.45,
        tells_exposure_end=True,
        clock=RealClock(),
    )
    return camera


def aravis_camera(place: Place) -> Camera:
    place.gige()()
    camera: Camera = place.driver(
        "aravis.camera",
        shape=[2048, 2048],
        pixel_um=5.5,
        clock=RealClock(),
        pixel_format="Mono8",
        camera="127.0.0.1",
    )
    return camera


def genicam_camera(place: Place) -> Camera:
    place.gentl()()
    camera: Camera = place.driver(
        "genicam.camera",
        shape=[2048, 2048],
        pixel_um=5.5,
        clock=RealClock(),
        pixel_format="Mono8",
        producer="lent.cti",
    )
    return camera


def micromanager_camera(place: Place) -> Camera:
    place.need_module("pymmcore")
    adapters = place.need_module("mm_test_adapters")
    camera: Camera = place.driver(
        "micromanager.camera",
        shape=[512, 512],
        pixel_um=6.5,
        bits=12,
        adapter="DemoCamera",
        device="DCam",
        folder=str(adapters.device_adapter_path()),
        properties={"PixelType": "16bit", "BitDepth": "12"},
        clock=RealClock(),
    )
    return camera


# The Cobolt mock once more, by a map of commands as a bench file has it.
MAP = {
    "vendor": "Cobolt",
    "send": "\r",
    "done": "\r\n",
    "identify": {"ask": "sn?", "reply": r"(\d+)"},
    "serial": {"ask": "sn?", "reply": r"(\d+)"},
    "model": {"ask": "gcn?", "reply": "(.+)"},
    "accepted": "OK",
    "start": ["@cobas 0"],
    "most": {"ask": "gmlp?"},
    "power": "p {w:.5}",
    "setpoint": {"ask": "p?", "scale": 1000},
    "measured": {"ask": "pa?", "scale": 1000},
    "on": ["l1"],
    "off": ["l0"],
    "emitting": {"ask": "l?", "reply": "([01])"},
    "faults": {"ask": "f?", "reply": r"(\d+)", "words": {"3": "interlock"}},
}
ROWS: dict[str, Callable[[Place], Any]] = {
    "sim.world": sim_world,
    "sim.laser": sim_laser,
    "sim.slm": sim_device("sim.slm"),
    "sim.camera": sim_device("sim.camera"),
    "sim.meter": sim_device("sim.meter"),
    "sim.shutter": sim_device("sim.shutter"),
    "sim.sequence": sim_capability("sim.sequence"),
    "sim.oracle": sim_capability("sim.oracle"),
    "cobolt.laser": on_mock(
        "cobolt.laser", "CoboltLaserMock", wavelength_nm=561, gap_s=0.0, timeout_s=2.0
    ),
    "sapphire.laser": on_mock(
        "sapphire.laser", "CoherentSapphireLaserMock", timeout_s=2.0
    ),
    "scpi.laser": on_mock(
        "scpi.laser", "CoboltLaserMock", wavelength_nm=561, commands=MAP, timeout_s=2.0
    ),
    "basler.camera": basler_camera,
    "aravis.camera": aravis_camera,
    "genicam.camera": genicam_camera,
    "micromanager.camera": micromanager_camera,
    "screen.slm": screen_slm,
    "slmsuite.slm": slmsuite_slm,
    "slmsuite.camera": slmsuite_camera,
}
# What must be there for a row; the others need nothing.
PEERS = {key for key in ROWS if not key.startswith("sim.")}
ROWS |= {key: on_model(key) for key in models.STAND_INS}
# No counterpart of these is to be had: byte scripts from the manual's syntax in the
# test of each driver, and models by the same hand, are all that they were proved
# against.
UNPROVED = {"pylablib.camera", *models.STAND_INS}
DEVICES = ("slm", "laser", "camera", "meter", "shutter", "attenuator")


def of_role(*roles: str) -> list[str]:
    return [key for key in ROWS if key.split(".")[1] in roles]


def cases(*roles: str) -> list[Any]:
    return [
        pytest.param(key, marks=pytest.mark.peer if key in PEERS else ())
        for key in of_role(*roles)
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a contract over every driver of the role that it asks for."""
    for role in ROLES:
        if role in metafunc.fixturenames:
            metafunc.parametrize(role, cases(role), indirect=True)
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", cases(*DEVICES), indirect=True)


@pytest.fixture
def place(
    tmp_path: Path,
    bridge: Callable[[str], Any],
    need_module: Callable[[str], Any],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    def display() -> object:
        return request.getfixturevalue("desktop")

    def gige() -> Callable[[], object]:
        start: Callable[[], object] = request.getfixturevalue("gige")
        return start

    def gentl() -> Callable[[], object]:
        start: Callable[[], object] = request.getfixturevalue("gentl")
        return start

    with ExitStack() as stack:
        linked = partial(models.put, monkeypatch)
        yield Place(tmp_path, stack, bridge, need_module, display, gige, gentl, linked)


@pytest.fixture
def rows() -> dict[str, Callable[[Place], Any]]:
    return ROWS


@pytest.fixture
def unproved() -> set[str]:
    return UNPROVED


@pytest.fixture
def device(request: pytest.FixtureRequest, place: Place) -> Device:
    made: Device = ROWS[request.param](place)
    return made


@pytest.fixture
def laser(request: pytest.FixtureRequest, place: Place) -> Laser:
    made: Laser = ROWS[request.param](place)
    return made


@pytest.fixture
def slm(request: pytest.FixtureRequest, place: Place) -> SLM:
    made: SLM = ROWS[request.param](place)
    return made


@pytest.fixture
def camera(request: pytest.FixtureRequest, place: Place) -> Camera:
    made: Camera = ROWS[request.param](place)
    return made


@pytest.fixture
def meter(request: pytest.FixtureRequest, place: Place) -> Meter:
    made: Meter = ROWS[request.param](place)
    return made


@pytest.fixture
def shutter(request: pytest.FixtureRequest, place: Place) -> Shutter:
    made: Shutter = ROWS[request.param](place)
    return made


@pytest.fixture
def attenuator(request: pytest.FixtureRequest, place: Place) -> Attenuator:
    made: Attenuator = ROWS[request.param](place)
    return made


@pytest.fixture
def world(request: pytest.FixtureRequest, place: Place) -> World:
    made: World = ROWS[request.param](place)
    return made


@dataclass
class Played:
    """A sequence, or an oracle, with the open devices that it works on."""

    capability: Any
    slm: SLM
    camera: Camera
    clock: Clock


def _with_devices(key: str, place: Place) -> Played:
    capability = ROWS[key](place)
    family = key.split(".")[0]
    slm, camera = place.made[f"{family}.slm"], place.made[f"{family}.camera"]
    place.stack.enter_context(slm)
    place.stack.enter_context(camera)
    return Played(capability, slm, camera, place.made[f"{family}.world"].clock)


@pytest.fixture
def sequence(request: pytest.FixtureRequest, place: Place) -> Played:
    return _with_devices(request.param, place)


@pytest.fixture
def oracle(request: pytest.FixtureRequest, place: Place) -> Played:
    return _with_devices(request.param, place)
