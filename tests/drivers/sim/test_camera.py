import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from drivers.sim.camera import SimCamera
from drivers.sim.clock import VirtualClock
from labctl.errors import FrameError


def test_a_frame_arrives_after_exposure_and_readout(build: Callable[..., Any]) -> None:
    lit = build()
    lit.camera.configure(exposure_s=0.01)
    lit.camera.arm(1)
    start = lit.world.clock.now()
    lit.camera.trigger()
    assert lit.world.clock.now() == start
    frame = lit.camera.frame(1.0)
    assert frame.exposure_start_s == frame.device_time_s == start
    assert frame.exposure_end_s == pytest.approx(start + 0.01)
    assert frame.host_time_s == lit.world.clock.now() == pytest.approx(start + 0.011)


def test_a_frame_that_is_still_exposed_times_out_and_can_be_had_later(
    build: Callable[..., Any],
) -> None:
    lit = build()
    lit.camera.configure(exposure_s=0.01)
    lit.camera.arm(1)
    lit.camera.trigger()
    with pytest.raises(FrameError, match=r"no frame within 0\.002 s, still exposing"):
        lit.camera.frame(0.002)
    assert lit.camera.frame(0.02).trigger == 1


def test_a_trigger_during_an_exposure_waits_for_it(build: Callable[..., Any]) -> None:
    lit = build()
    lit.camera.configure(exposure_s=0.01)
    lit.camera.arm(3)
    for _ in range(3):
        lit.camera.trigger()
    frames = [lit.camera.frame(1.0) for _ in range(3)]
    assert [frame.trigger for frame in frames] == [1, 2, 3]
    for earlier, later in itertools.pairwise(frames):
        assert later.exposure_start_s >= earlier.exposure_end_s + 0.001 - 1e-12


def test_region_and_gain_act_on_the_frame(build: Callable[..., Any]) -> None:
    lit = build(ideal=True, sensor={"photons_per_s": 1e8})
    frames = {}
    taken: dict[str, dict[str, Any]] = {
        "full": {},
        "part": {"region": (2, 5, 9, 14)},
        "gain": {"gain_db": 6.0},
        "long": {"exposure_s": 0.002},
    }
    for name, options in taken.items():
        lit.camera.configure(**({"exposure_s": 0.001} | options))
        lit.camera.arm(1)
        lit.camera.trigger()
        frames[name] = lit.camera.frame(1.0).data.astype(float)
        lit.camera.disarm()
    assert np.array_equal(frames["part"], frames["full"][2:11, 5:19])
    bright = frames["full"] > 1000
    bright &= frames["full"] < 20_000
    assert frames["gain"][bright] / frames["full"][bright] == pytest.approx(
        1.995, rel=2e-3
    )
    assert frames["long"][bright] / frames["full"][bright] == pytest.approx(2, rel=2e-3)


def test_saturation_follows_the_gain(build: Callable[..., Any]) -> None:
    camera = build().camera
    camera.configure(exposure_s=0.001)
    assert camera.saturation_dn == 60_100
    camera.configure(exposure_s=0.001, gain_db=6.0)
    assert camera.saturation_dn == 65_535


def test_refuses_a_strange_clock_and_pixel(build: Callable[..., Any]) -> None:
    world = build().world
    with pytest.raises(ValueError, match="another clock"):
        SimCamera(world=world, clock=VirtualClock())
    with pytest.raises(ValueError, match="pixel_um=-1, expected a number"):
        SimCamera(world=world, clock=world.clock, pixel_um=-1)
