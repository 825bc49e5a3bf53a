"""What every laser must do: above all, be dark when it should."""

import math

import pytest

from labctl.devices import Laser
from labctl.errors import DeviceError, OutOfRangeError


def middle_mw(laser: Laser) -> float:
    low, high = laser.power_limits_mw
    return (low + high) / 2  # of a laser whose power is fixed, that power


def test_is_dark_after_open(laser: Laser) -> None:
    with laser:
        assert not laser.is_emitting()
        assert laser.power_mw() == 0
        assert laser.setpoint_mw() == laser.power_limits_mw[0]
        assert laser.faults() == []


def test_is_dark_after_open_even_if_it_was_left_lit(laser: Laser) -> None:
    with laser:
        laser.set_power_mw(laser.power_limits_mw[1])
        laser.emission(on=True)
    with laser:
        assert not laser.is_emitting()
        assert laser.setpoint_mw() == laser.power_limits_mw[0]


def test_setting_power_never_switches_emission(laser: Laser) -> None:
    with laser:
        laser.set_power_mw(middle_mw(laser))
        assert not laser.is_emitting()
        assert laser.power_mw() == 0
        assert laser.setpoint_mw() == pytest.approx(middle_mw(laser))


def test_emits_the_power_that_was_set_and_stops(laser: Laser) -> None:
    with laser:
        power_mw = middle_mw(laser)
        laser.set_power_mw(power_mw)
        laser.emission(on=True)
        assert laser.is_emitting()
        assert laser.power_mw() == pytest.approx(power_mw, rel=0.05)
        laser.emission(on=False)
        assert not laser.is_emitting()
        assert laser.power_mw() == 0


@pytest.mark.parametrize("beyond", [-1.0, 1.0, math.nan])
def test_refuses_power_beyond_limits_and_keeps_the_old(
    laser: Laser, beyond: float
) -> None:
    with laser:
        low, high = laser.power_limits_mw
        wrong = low - 1 if beyond < 0 else high + beyond
        laser.set_power_mw(middle_mw(laser))
        with pytest.raises(OutOfRangeError, match=f"expected {low} to {high}"):
            laser.set_power_mw(wrong)
        assert laser.setpoint_mw() == pytest.approx(middle_mw(laser))


def test_is_dark_and_silent_after_an_exception(laser: Laser) -> None:
    with pytest.raises(ZeroDivisionError), laser:
        laser.set_power_mw(laser.power_limits_mw[1])
        laser.emission(on=True)
        raise ZeroDivisionError
    with pytest.raises(DeviceError, match="not open"):
        laser.emission(on=True)


def test_names_its_light(laser: Laser) -> None:
    with laser:
        assert laser.wavelength_nm > 0
        assert (laser.repetition_rate_hz is None) == (laser.pulse_width_fs is None)
