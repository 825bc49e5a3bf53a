from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from drivers.sim.clock import VirtualClock
from drivers.sim.meter import SimMeter
from labctl.devices import CameraSettings
from labctl.errors import DeviceError, DeviceTimeoutError

FULL = CameraSettings(0.001, 0.0, (0, 0, 16, 24))


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


def test_as_a_thermometer_it_tells_of_a_room_that_grows_warmer(
    build: Callable[..., Any],
) -> None:
    world = build().world
    warming: dict[str, Any] = {"shows": "temperature", "k_per_h": 2.0}
    room = SimMeter(world=world, clock=world.clock, **warming)
    room.open()
    assert room.unit == "C"
    start = room.reading()
    world.clock.sleep(1800.0)
    assert room.reading().value - start.value == pytest.approx(1.0)
    assert room.reading().time_s == world.clock.now()
    with pytest.raises(ValueError, match=r"meter\.k_per_h.*expected"):
        SimMeter(world=world, clock=world.clock, k_per_h=1e9)


def test_refuses_a_strange_clock(build: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="another clock"):
        SimMeter(world=build().world, clock=VirtualClock())


def test_a_silent_meter_is_waited_for_and_a_frozen_one_repeats_itself(
    build: Callable[..., Any],
) -> None:
    lit = build()
    faults = [
        {"kind": "frozen", "at_shot": 2, "count": 2},
        {"kind": "silent", "at_shot": 4},
    ]
    meter = SimMeter(world=lit.world, clock=lit.world.clock, faults=faults)
    meter.open()
    seen = []
    for _ in range(3):
        lit.world.expose(lit.camera.taken)
        seen.append(meter.reading())
        lit.world.clock.sleep(0.1)
    assert seen[0] == seen[1] == seen[2]
    lit.world.expose(lit.camera.taken)
    before = lit.world.clock.now()
    with pytest.raises(DeviceTimeoutError, match="no answer within 1"):
        meter.reading()
    assert lit.world.clock.now() == pytest.approx(before + 1)
    lit.world.expose(lit.camera.taken)
    assert meter.reading().time_s > seen[2].time_s


def test_a_reply_is_garbage_late_or_too_late_for_any_question(
    build: Callable[..., Any],
) -> None:
    lit = build()
    faults = [
        {"kind": "garbage", "at_shot": 1},
        {"kind": "late", "at_shot": 2, "delay_s": 0.4},
        {"kind": "late", "at_shot": 3, "delay_s": 1.5},
    ]
    meter = SimMeter(world=lit.world, clock=lit.world.clock, faults=faults)
    meter.open()
    lit.world.expose(lit.camera.taken)
    with pytest.raises(DeviceError, match=r"got '.*', expected a number"):
        meter.reading()
    lit.world.expose(lit.camera.taken)
    before = lit.world.clock.now()
    assert meter.reading() == lit.world.power_reading()
    assert lit.world.clock.now() == pytest.approx(before + 0.4)
    lit.world.expose(lit.camera.taken)
    with pytest.raises(DeviceTimeoutError, match="no answer within 1"):
        meter.reading()
    lit.world.expose(lit.camera.taken)
    assert meter.reading() == lit.world.power_reading()


def test_readings_scatter_by_what_they_say_about_the_power_that_was(
    build: Callable[..., Any],
) -> None:
    lit = build(meter={"noise": 0.02})
    ratios = []
    for _ in range(400):
        shot = lit.world.expose(FULL)
        ratios.append(lit.meter.reading().value / shot.power_mw)
    assert np.mean(ratios) == pytest.approx(1, abs=0.004)
    assert np.std(ratios) == pytest.approx(0.02, rel=0.12)
