"""Faults at the wire, for every driver that speaks over one, at every command.

Behind each driver stands a model of its instrument that answers every command; those of
the Cobolt and the Sapphire are python-microscope's, the others say what the manual
says. The link between them breaks in one of these ways, at the first command, at the
second, and so on. Time passes only where somebody waits.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import drivers
from drivers.laser.cobolt import cobolt
from drivers.laser.coherent import sapphire
from drivers.wire import Link
from labctl.errors import DeviceError, LaserStillOnError, SafetyError
from tests.conftest import instrument
from tests.contracts import models
from tests.contracts.models import FAULTS, LASERS, OTHERS, Broken, Make, Mock

#: No call of a driver takes longer, whatever happens; start-up has 8 to 10 s of it.
CALL_S: Final = 15.0
#: At most so many words reach a laser until it is dark.
FIRST_WORDS: Final = 5
PEERS: Final[dict[str, Make]] = {
    "cobolt": (lambda: "CoboltLaserMock", partial(cobolt, wavelength_nm=561), 120.0),
    "sapphire": (lambda: "CoherentSapphireLaserMock", sapphire, 50.0),
}


@pytest.fixture
def linked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Link], None]:
    """Give every driver this link, whatever its address."""
    return partial(models.put, monkeypatch)


class Told:
    """What a driver said while its wire was broken.

    Parameters
    ----------
    link
        The wire.
    """

    def __init__(self, link: Broken) -> None:
        self._link = link
        self.errors: list[Exception] = []

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
        """Call a driver: what it raises is ours, and it takes its time and no more.

        Raises
        ------
        DeviceError
            As it did.
        SafetyError
            As it did.
        """
        begun_s = self._link.clock.now()
        try:
            return function(*arguments)
        except (DeviceError, SafetyError) as error:
            self.errors.append(error)
            raise
        finally:
            assert self._link.clock.now() - begun_s < CALL_S


def used(told: Told, laser: Any, power_mw: float) -> None:  # noqa: ANN401
    """Use a laser as a run does; every value that it tells is its own."""
    told.call(laser.open)
    told.call(laser.set_power_mw, power_mw)
    told.call(laser.emission, True)
    assert told.call(laser.power_mw) == pytest.approx(power_mw, rel=0.01)
    assert told.call(laser.setpoint_mw) == pytest.approx(power_mw, rel=0.01)
    assert told.call(laser.is_emitting) is True
    assert told.call(laser.faults) == []
    told.call(laser.emission, False)
    told.call(laser.close)


def make(
    name: str, need_module: Callable[..., ModuleType]
) -> tuple[Callable[[], Any], Callable[..., Any], float]:
    if name in LASERS:
        return LASERS[name]
    mocks = need_module("microscope.testsuite.mock_devices")
    mock, driver, power_mw = PEERS[name]
    return lambda: Mock(instrument(mocks, mock())), driver, power_mw


NAMES: Final = [
    *LASERS,
    *(pytest.param(name, marks=pytest.mark.peer) for name in PEERS),
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_laser_whose_wire_breaks_at_any_command_tells_it_and_goes_dark(
    linked: Callable[[Link], None],
    need_module: Callable[..., ModuleType],
    name: str,
    fault: str,
) -> None:
    model, driver, power_mw = make(name, need_module)
    whole = Broken(model())
    linked(whole)
    used(Told(whole), driver(address="x", clock=whole.clock), power_mw)
    assert whole.model.lit is False
    for at in range(1, whole.commands + 1):
        link = Broken(model(), fault, at)
        linked(link)
        told, laser = Told(link), driver(address="x", clock=link.clock)
        try:
            used(told, laser, power_mw)
        except (DeviceError, SafetyError):
            with suppress(DeviceError, SafetyError):
                told.call(laser.close)
        if "always" in fault:
            # The last one only sets the least power, of a laser that is dark.
            assert told.errors or at == whole.commands, at
        # What stays lit is told: a person must turn its key.
        is_told = any(isinstance(error, LaserStillOnError) for error in told.errors)
        assert is_told or not link.model.lit, (at, told.errors)
        if "once" in fault:
            assert link.model.lit is False, (at, told.errors)
            again = driver(address="x", clock=link.clock)
            used(Told(link), again, power_mw)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_laser_that_its_key_lit_is_dark_whatever_breaks_while_it_opens(
    linked: Callable[[Link], None],
    need_module: Callable[..., ModuleType],
    name: str,
    fault: str,
) -> None:
    model, driver, _ = make(name, need_module)

    def opened(at: int) -> tuple[Broken, list[Exception]]:
        link = Broken(model(), fault, at)
        link.model.light(True)
        linked(link)
        told, laser = Told(link), driver(address="x", clock=link.clock)
        with suppress(DeviceError, SafetyError):
            told.call(laser.open)
        return link, told.errors

    whole, _ = opened(0)
    assert not whole.model.lit
    dark_at = whole.dark_at
    # Echo and prompt off, who are you, and off: nothing else may come before it.
    assert dark_at <= FIRST_WORDS
    for at in range(1, whole.commands + 1):
        link, errors = opened(at)
        # Before it is known who is there, nobody is told anything.
        is_told = any(isinstance(error, LaserStillOnError) for error in errors)
        assert not link.model.lit or (is_told if at >= dark_at else errors), at
        if "once" in fault and at >= dark_at:
            assert not link.model.lit, at


def shut(told: Told, shutter: Any) -> None:  # noqa: ANN401
    told.call(shutter.open)
    told.call(shutter.set_open, True)
    assert told.call(shutter.is_open) is True
    told.call(shutter.set_open, False)
    assert told.call(shutter.is_open) is False
    told.call(shutter.close)


def turned(told: Told, mount: Any) -> None:  # noqa: ANN401
    told.call(mount.open)
    for transmission in (0.5, 0.9):
        told.call(mount.set_transmission, transmission)
        got = told.call(mount.transmission)
        assert got == pytest.approx(transmission, abs=1e-3)
    told.call(mount.close)


def metered(told: Told, meter: Any) -> None:  # noqa: ANN401
    told.call(meter.open)
    for _ in range(2):
        assert told.call(meter.reading).value == pytest.approx(1.2345)
    told.call(meter.close)


USES: Final[dict[str, Callable[[Told, Any], None]]] = {
    "text": shut,
    "ell14": turned,
    "pm100": metered,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", list(OTHERS))
def test_another_device_whose_wire_breaks_at_any_command_tells_it(
    linked: Callable[[Link], None], name: str, fault: str
) -> None:
    model, driver, timeout_s = OTHERS[name]
    use = USES[name]
    whole = Broken(model())
    linked(whole)
    use(Told(whole), driver(address="x", clock=whole.clock))
    for at in range(1, whole.commands + 1):
        link = Broken(model(), fault, at, timeout_s)
        linked(link)
        told, device = Told(link), driver(address="x", clock=link.clock)
        try:
            use(told, device)
        except (DeviceError, SafetyError):
            with suppress(DeviceError, SafetyError):
                told.call(device.close)
        if "always" in fault:
            assert told.errors, at
        # A shutter that stays open is told by every call since.
        assert told.errors or not link.model.lit, at
        if "once" in fault:
            assert link.model.lit is False, (at, told.errors)
            use(Told(link), driver(address="x", clock=link.clock))


def test_every_driver_on_a_wire_is_here() -> None:
    root = Path(drivers.__file__).parents[1]
    wired = set()
    for entry in entry_points(group="labctl.drivers"):
        path = (root / entry.module.replace(".", "/")).with_suffix(".py")
        if not path.exists():  # a folder, as of the simulated world; or somebody else's
            continue
        source = path.read_text(encoding="utf-8")
        if "from drivers.wire import" in source or "drivers.laser.wired" in source:
            wired.add(entry.name.partition(".")[0])
    assert wired == {*LASERS, *PEERS, *OTHERS}


@pytest.fixture(autouse=True)
def no_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that slept would hang this test."""

    def sleeps(seconds: float) -> None:
        raise AssertionError(seconds)

    monkeypatch.setattr("time.sleep", sleeps)
