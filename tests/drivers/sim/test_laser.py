import subprocess
import sys
import time
from pathlib import Path

import pytest

from drivers.sim.beam import Beam
from drivers.sim.clock import VirtualClock
from drivers.sim.laser import SimLaser
from labctl.errors import (
    DeviceError,
    InterlockError,
    LaserStillOnError,
    OutOfRangeError,
)


def test_publishes_what_it_does(tmp_path: Path) -> None:
    path, clock = tmp_path / "beam", VirtualClock(5.0)
    laser = SimLaser(beam=str(path), clock=clock)
    laser.open()
    with Beam.open(path) as beam:
        laser.set_power_mw(2.5)
        dark = beam.read()
        assert (dark.emission, dark.power_setpoint_mw, dark.power_mw) == (False, 2.5, 0)
        clock.sleep(1)
        laser.emission(on=True)
        lit = beam.read()
        assert (lit.emission, lit.shutter_open, lit.power_mw) == (True, True, 2.5)
        assert lit.since_s == 6.0
        laser.close()
        closed = beam.read()
        assert (closed.emission, closed.power_setpoint_mw) == (False, 0)


def test_emission_once_more_keeps_its_time(tmp_path: Path) -> None:
    clock = VirtualClock(1.0)
    with SimLaser(beam=tmp_path / "beam", clock=clock) as laser:
        laser.emission(on=True)
        clock.sleep(1)
        laser.emission(on=True)
        with Beam.open(tmp_path / "beam") as beam:
            assert beam.read().since_s == 1.0


@pytest.mark.parametrize("power_mw", [-0.1, 10.1, float("nan")])
def test_refuses_power_beyond_limits_and_publishes_nothing(
    tmp_path: Path, power_mw: float
) -> None:
    with SimLaser(beam=tmp_path / "beam") as laser:
        before = (tmp_path / "beam").read_bytes()
        with pytest.raises(OutOfRangeError, match=r"expected 0\.0 to 10\.0"):
            laser.set_power_mw(power_mw)
        assert (tmp_path / "beam").read_bytes() == before


def test_refuses_work_while_closed(tmp_path: Path) -> None:
    laser = SimLaser(beam=tmp_path / "beam")
    for call in (laser.power_mw, laser.is_emitting, laser.identity, laser.faults):
        with pytest.raises(DeviceError, match="not open"):
            call()
    with pytest.raises(DeviceError, match="not open"):
        laser.emission(on=True)
    assert not (tmp_path / "beam").exists()


def test_refuses_impossible_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="power_limits_mw"):
        SimLaser(beam=tmp_path / "beam", power_limits_mw=[5, 1])
    with pytest.raises(ValueError, match="wavelength_nm=0, expected more than 0"):
        SimLaser(beam=tmp_path / "beam", wavelength_nm=0)


def test_a_folder_that_is_not_there_is_a_device_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="beam file"):
        SimLaser(beam=tmp_path / "nowhere" / "beam").open()


def test_importing_the_laser_imports_no_torch() -> None:
    code = "import sys, drivers.sim.laser; print('torch' in sys.modules)"
    answer = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


def test_its_watchdog_makes_it_dark_when_nobody_kicks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1e9]
    monkeypatch.setattr(time, "time", lambda: now[0])
    with (
        SimLaser(beam=tmp_path / "beam") as laser,
        Beam.open(tmp_path / "beam") as beam,
    ):
        laser.set_power_mw(3.0)
        laser.kick()  # not armed: nothing happens
        laser.emission(on=True)
        laser.arm(2.0)
        now[0] += 1.5
        laser.kick()
        now[0] += 1.5
        assert beam.read().emission
        now[0] += 0.5
        assert (beam.read().emission, beam.read().power_mw) == (False, 0.0)
        assert beam.read().since_s == 1e9 + 3.5
        assert not laser.is_emitting()
        laser.kick()  # too late, and it must not light up again
        laser.set_power_mw(4.0)
        assert not beam.read().emission
        laser.emission(on=True)
        now[0] += 100.0
        assert beam.read().emission, "what ran out is not armed"


def test_switching_off_disarms_the_watchdog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1e9]
    monkeypatch.setattr(time, "time", lambda: now[0])
    with SimLaser(beam=tmp_path / "beam") as laser:
        laser.arm(1.0)
        laser.emission(on=False)
        laser.emission(on=True)
        now[0] += 5.0
        assert laser.is_emitting()


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, 61.0, float("nan")])
def test_refuses_an_impossible_watchdog(tmp_path: Path, timeout_s: float) -> None:
    with (
        SimLaser(beam=tmp_path / "beam") as laser,
        pytest.raises(OutOfRangeError, match="timeout_s"),
    ):
        laser.arm(timeout_s)


def broken(path: Path, **fault: object) -> SimLaser:
    laser = SimLaser(beam=path / "beam", faults=[fault])
    laser.open()
    laser.set_power_mw(2.0)
    return laser


def test_a_laser_that_trips_goes_dark_and_stays_so(tmp_path: Path) -> None:
    laser = broken(tmp_path, kind="trip", at_command=3)
    laser.emission(on=True)
    assert not laser.is_emitting()
    assert laser.faults() == ["tripped: over-temperature"]
    with Beam.open(tmp_path / "beam") as beam:
        assert not beam.read().emission
        with pytest.raises(DeviceError, match="Let it cool"):
            laser.emission(on=True)
        assert not beam.read().emission
    laser.close()


def test_an_open_interlock_refuses_emission(tmp_path: Path) -> None:
    laser = broken(tmp_path, kind="interlock", at_command=1)
    with pytest.raises(InterlockError, match="interlock open"):
        laser.emission(on=True)
    assert not laser.is_emitting()
    assert laser.faults() == ["interlock open"]
    laser.close()


def test_light_goes_off_in_time_without_any_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    laser = broken(tmp_path, kind="interlock", after_s=5.0)
    monkeypatch.setattr(time, "time", lambda: now)
    laser.emission(on=True)
    with Beam.open(tmp_path / "beam") as beam:
        assert beam.read().emission
        monkeypatch.setattr(time, "time", lambda: now + 5.1)
        assert not beam.read().emission
        assert not laser.is_emitting()
        assert laser.faults() == ["interlock open"]
    laser.close()


def test_a_laser_that_does_not_stop_says_so_whoever_asks(tmp_path: Path) -> None:
    laser = broken(tmp_path, kind="stuck_on", at_command=3)
    laser.emission(on=True)
    with pytest.raises(LaserStillOnError, match="turn its key"):
        laser.emission(on=False)
    assert laser.is_emitting()
    with Beam.open(tmp_path / "beam") as beam:
        with pytest.raises(LaserStillOnError):
            laser.close()
        assert beam.read().emission
    laser.close()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"kind": "burnt", "at_command": 1}, "kind='burnt', expected one of trip"),
        ({"kind": "trip"}, "expected at_command or after_s"),
        ({"kind": "trip", "at_command": 1, "after_s": 1.0}, "expected at_command or"),
        ({"kind": "trip", "at_command": -1}, "0 or more"),
    ],
)
def test_refuses_what_is_no_fault(
    fault: dict[str, object], text: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=text):
        SimLaser(beam=tmp_path / "beam", faults=[fault])


def test_power_bends_over_the_setpoint_and_depends_on_where_it_came_from(
    tmp_path: Path,
) -> None:
    with SimLaser(beam=tmp_path / "beam", bend=0.1, hysteresis=0.05) as laser:
        laser.emission(on=True)
        found = []
        for setpoint in (5.0, 10.0, 5.0, 5.0, 0.0):
            laser.set_power_mw(setpoint)
            found.append(laser.power_mw())
    assert found == pytest.approx([6.0, 10.0, 6.5, 6.5, 0.0])


@pytest.mark.parametrize(("bend", "hysteresis"), [(0.3, 0.0), (0.0, -0.1)])
def test_a_curve_that_falls_is_refused(bend: float, hysteresis: float) -> None:
    with pytest.raises(ValueError, match=r"expected at most 0\.2"):
        SimLaser(beam="beam", bend=bend, hysteresis=hysteresis)
