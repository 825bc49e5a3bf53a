from collections.abc import Callable
from typing import Any

import pytest

from drivers.sim.clock import VirtualClock
from drivers.sim.shutter import SimShutter
from labctl.errors import DeviceError, DeviceTimeoutError


def made(lit: Any, *faults: dict[str, object]) -> SimShutter:  # noqa: ANN401 - Lit
    return SimShutter(world=lit.world, clock=lit.world.clock, faults=faults)


def test_it_takes_the_light_off_the_panel(build: Callable[..., Any]) -> None:
    lit = build(power_mw=2.5)
    assert lit.world.lit_mw() == 2.5
    with made(lit) as shutter:
        assert lit.world.lit_mw() == 0
        assert lit.world.expose(lit.camera.taken).power_mw == 0
        before = lit.world.clock.now()
        shutter.set_open(True)
        assert lit.world.clock.now() == pytest.approx(before + 0.02)
        assert lit.world.lit_mw() == 2.5
        assert shutter.settings()["is_open"]
    assert lit.world.lit_mw() == 0


def test_a_restored_world_has_its_shutter_where_it_was(
    build: Callable[..., Any],
) -> None:
    lit, other = build(), build()
    with made(lit):
        other.world.restore(lit.world.state())
    assert other.world.lit_mw() == 0


def test_a_blade_that_sticks_is_noticed(build: Callable[..., Any]) -> None:
    lit = build()
    shutter = made(lit, {"kind": "stuck", "at_s": 1.0, "duration_s": 1.0})
    shutter.open()
    shutter.set_open(True)
    lit.world.clock.sleep(1.0)
    with pytest.raises(DeviceError, match=r"expected closed\. Free the blade"):
        shutter.set_open(False)
    assert shutter.is_open()
    assert lit.world.lit_mw() > 0
    with pytest.raises(DeviceError, match="expected closed"):
        shutter.close()
    lit.world.clock.sleep(1.0)
    shutter.open()
    assert not shutter.is_open()


def test_a_silent_shutter_is_waited_for(build: Callable[..., Any]) -> None:
    lit = build()
    shutter = made(lit, {"kind": "silent", "at_shot": 1})
    shutter.open()
    lit.world.expose(lit.camera.taken)
    before = lit.world.clock.now()
    with pytest.raises(DeviceTimeoutError, match="no answer within 1"):
        shutter.set_open(False)
    assert lit.world.clock.now() == pytest.approx(before + 1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"move_s": -1.0}, "shutter.move_s=-1"),
        ({"clock": VirtualClock()}, "expected that of its world"),
        ({"faults": [{"kind": "burnt", "at_shot": 1}]}, "expected one of stuck"),
    ],
)
def test_refuses_what_is_impossible(
    options: dict[str, Any], text: str, build: Callable[..., Any]
) -> None:
    world = build().world
    with pytest.raises(ValueError, match=text):
        SimShutter(**{"world": world, "clock": world.clock, **options})
