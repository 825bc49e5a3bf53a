from collections.abc import Callable
from typing import Any

import pytest

from drivers.sim.clock import VirtualClock
from drivers.sim.meter import SimMeter


def test_shows_the_power_of_the_moment_before_the_first_exposure(
    build: Callable[..., Any],
) -> None:
    lit = build(power_mw=2.5)
    reading = lit.meter.reading()
    assert (reading.value, reading.time_s) == (2.5, lit.world.clock.now())


def test_holds_the_power_of_the_last_exposure(build: Callable[..., Any]) -> None:
    lit = build(power_mw=2.5)
    lit.camera.arm(1)
    lit.camera.trigger()
    frame = lit.camera.frame(1.0)
    held = lit.meter.reading()
    assert held.value == pytest.approx(2.5, rel=0.02)
    assert held.value != 2.5
    assert held.time_s == frame.exposure_end_s
    lit.laser.set_power_mw(1.0)
    lit.world.clock.sleep(1.0)
    assert lit.meter.reading() == held


def test_refuses_a_strange_clock(build: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="another clock"):
        SimMeter(world=build().world, clock=VirtualClock())
