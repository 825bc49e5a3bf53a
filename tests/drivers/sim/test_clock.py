import math

import pytest

from drivers.sim.clock import VirtualClock


def test_time_passes_only_when_somebody_waits() -> None:
    clock = VirtualClock(3.0)
    assert clock.now() == 3.0
    clock.sleep(0.25)
    clock.sleep(0)
    assert clock.now() == 3.25


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_refuses_time_that_cannot_pass(wrong: float) -> None:
    with pytest.raises(ValueError, match="expected 0 or more"):
        VirtualClock().sleep(wrong)


def test_restores_a_moment() -> None:
    clock = VirtualClock(9.0)
    clock.restore(4.0)
    assert clock.now() == 4.0
