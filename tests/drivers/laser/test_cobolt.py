"""Proved on a simulator of a Jive that others wrote from the manual and a real head."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from drivers.laser.cobolt import COBOLT, cobolt
from drivers.laser.dialect import demand
from labctl.errors import DeviceError, InterlockError, LaserStillOnError

pytestmark = pytest.mark.peer
Bridge = Callable[[str], Any]


def options(port: str) -> dict[str, Any]:
    return {"address": port, "wavelength_nm": 561, "gap_s": 0.0, "timeout_s": 2.0}


def test_what_the_head_holds_is_what_was_said(bridge: Bridge) -> None:
    end = bridge("CoboltLaserMock")
    end.mock.light = end.mock.auto_start = True
    with cobolt(**options(end.port)) as laser:
        # The mock counts in mW, the wire in W.
        assert (end.mock.light, end.mock.power) == (False, 0.0)
        assert end.mock.auto_start is False
        assert laser.power_limits_mw == (0.0, 600.0)
        assert laser.identity().serial == "7863"
        laser.set_power_mw(120.5)
        assert end.mock.power == pytest.approx(120.5)
        laser.emission(True)
        assert end.mock.light
        assert laser.power_mw() == pytest.approx(120.5)
    assert (end.mock.light, end.mock.power) == (False, 0.0)


def test_it_is_put_into_constant_power(bridge: Bridge) -> None:
    end = bridge("CoboltLaserMock")
    handle, heard = end.mock.handle, []

    def note(command: bytes) -> None:
        heard.append(command.strip())
        handle(command)

    end.mock.handle = note
    with cobolt(**options(end.port)):
        assert heard.index(b"cp") > heard.index(b"l0")


def test_a_number_without_a_point_is_no_power(bridge: Bridge) -> None:
    end = bridge("CoboltLaserMock")
    with cobolt(**options(end.port)) as laser:
        handle = end.mock.handle
        end.mock.handle = lambda command: handle(
            b"l?" if command.strip() == b"pa?" else command
        )
        with pytest.raises(DeviceError, match=r"pa\?.*got '0'"):
            laser.power_mw()
        end.mock.handle = handle


def test_a_head_that_does_not_know_its_name_has_none(bridge: Bridge) -> None:
    end = bridge("CoboltLaserMock")
    handle = end.mock.handle
    end.mock.handle = lambda command: handle(
        b"no such command" if command.strip() == b"gcn?" else command
    )
    with cobolt(**options(end.port)) as laser:
        assert laser.identity().model == ""
        assert laser.identity().serial == "7863"


def test_an_open_interlock_refuses_emission(bridge: Bridge) -> None:
    end = bridge("CoboltLaserMock")
    with cobolt(**options(end.port)) as laser:
        end.mock.interlock_open = True
        with pytest.raises(InterlockError, match="interlock open"):
            laser.emission(True)
        assert not end.mock.light
        assert laser.faults() == ["interlock open"]


def test_a_port_that_vanishes_while_lit_counts_as_lit(bridge: Bridge) -> None:
    end = bridge("CoboltLaserMock")
    laser = cobolt(**options(end.port))
    laser.open()
    laser.set_power_mw(100)
    laser.emission(True)
    end.unplug()
    with pytest.raises(DeviceError):
        laser.power_mw()
    first = r"l0: not open: given up after a fault \(.*again: .*Turn its key"
    for _ in range(2):  # who asks later still hears what it began with
        with pytest.raises(LaserStillOnError, match=first):
            laser.emission(False)
    with pytest.raises(LaserStillOnError, match=first):
        laser.close()
    laser.close()


def test_the_name_of_a_port_that_is_gone_leads_to_nobody(bridge: Bridge) -> None:
    end = bridge("CoboltLaserMock")
    end.unplug()
    other = bridge("CoboltLaserMock")
    assert other.port != end.port  # else whoever still asks for the first has this one
    with pytest.raises(DeviceError, match="open"):
        cobolt(**options(end.port)).open()


def test_a_second_owner_is_refused_and_the_first_goes_on(bridge: Bridge) -> None:
    end = bridge("CoboltLaserMock")
    with cobolt(**options(end.port)) as laser:
        laser.set_power_mw(10)
        with pytest.raises(DeviceError, match=r"open: .*lock"):
            cobolt(**options(end.port)).open()
        assert laser.setpoint_mw() == pytest.approx(10)


def test_power_goes_out_in_watts() -> None:
    assert demand(COBOLT.power, 120.5) == "p 0.12050"
    assert demand(COBOLT.power, 0.05) == "p 0.00005"


# A run: it has the guard open the laser by its entry point, lights it, and waits.
RUN = """
import sys, time
from labctl.guard import GuardedLaser, Patience

laser = GuardedLaser(
    "laser",
    "cobolt.laser",
    {"address": sys.argv[1], "wavelength_nm": 561, "gap_s": 0.02},
    patience=Patience(heartbeat_s=float(sys.argv[2])),
)
laser.open()
laser.set_power_mw(80)
laser.emission(True)
print(laser.identity().serial, laser.power_mw(), flush=True)
while True:
    time.sleep(0.1)
    if sys.argv[3] == "beats":
        laser.beat()
"""


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", RUN, *words], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "7863 80.0\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def dark_within(mock: Any, seconds: float) -> bool:  # noqa: ANN401 - a peer
    due = time.monotonic() + seconds
    while mock.light and time.monotonic() < due:
        time.sleep(0.01)
    return not mock.light


@pytest.mark.slow
def test_the_guard_makes_it_dark_when_the_run_is_killed(
    bridge: Bridge, run: Callable[..., subprocess.Popen[str]]
) -> None:
    end = bridge("CoboltLaserMock")
    process = run(end.port, "2", "beats")
    assert (end.mock.light, end.mock.power) == (True, 80.0)
    process.kill()
    assert dark_within(end.mock, 5)


@pytest.mark.slow
def test_the_guard_makes_it_dark_when_the_run_falls_silent(
    bridge: Bridge, run: Callable[..., subprocess.Popen[str]]
) -> None:
    end = bridge("CoboltLaserMock")
    process = run(end.port, "1", "silent")
    assert dark_within(end.mock, 5)
    assert process.poll() is None


@pytest.mark.slow
def test_the_guard_makes_it_dark_when_its_interlock_opens(
    bridge: Bridge, run: Callable[..., subprocess.Popen[str]]
) -> None:
    end = bridge("CoboltLaserMock")
    run(end.port, "2", "beats")
    end.mock.interlock_open = True
    assert dark_within(end.mock, 5)
