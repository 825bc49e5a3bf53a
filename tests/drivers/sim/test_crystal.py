import math

import numpy as np
import pytest

from drivers.sim.crystal import Crystal

FAST, SLOW = 1 / 520, 1 / 128


def test_a_full_step_is_slow_and_a_small_one_fast() -> None:
    crystal = Crystal((2, 3), FAST, SLOW, 255)
    goal = np.array([[0, 1, 255], [0, 0, 0]], dtype=np.uint8)
    crystal.latch(goal, 10.0)
    later = crystal.at(10.0 + SLOW)
    assert later[0, 2] == pytest.approx(255 * (1 - math.exp(-1)))
    tau = FAST + (SLOW - FAST) / 255
    assert later[0, 1] == pytest.approx(1 - math.exp(-SLOW / tau))
    assert later[1, 1] == 0


def test_falling_is_as_slow_as_rising_and_never_goes_through_a_wrap() -> None:
    crystal = Crystal((1, 2), FAST, SLOW, 255)
    crystal.latch(np.array([[255, 0]], dtype=np.uint8), 0.0)
    crystal.latch(np.array([[0, 255]], dtype=np.uint8), 1.0)
    half = crystal.at(1.0 + SLOW * math.log(2))
    np.testing.assert_allclose(half, [[127.5, 127.5]])


def test_is_settled_as_soon_as_the_last_pixel_is_within_half_a_level() -> None:
    crystal = Crystal((2, 2), FAST, SLOW, 255)
    crystal.latch(np.array([[255, 10], [1, 0]], dtype=np.uint8), 0.0)
    edge = SLOW * math.log(255 / 0.5)
    for time_s in (edge * 0.99, edge * 1.01):
        gap = np.abs(crystal.at(time_s) - [[255, 10], [1, 0]]).max()
        assert (time_s >= crystal.settled_s) == bool(gap < 0.5)
    assert crystal.settled_s == pytest.approx(edge)
    crystal.latch(np.array([[255, 10], [1, 0]], dtype=np.uint8), 10.0)
    assert crystal.settled_s < 10.0


def test_without_time_constants_it_follows_at_once() -> None:
    crystal = Crystal((1, 2), 0.0, 0.0, 255)
    crystal.latch(np.array([[200, 3]], dtype=np.uint8), 1.0)
    assert crystal.settled_s <= 1.0
    np.testing.assert_array_equal(crystal.at(1.0), [[200, 3]])


def test_state_goes_on_bit_for_bit() -> None:
    first, second = (Crystal((2, 3), FAST, SLOW, 255) for _ in range(2))
    source = np.random.default_rng(2)
    first.latch(source.integers(0, 256, (2, 3)), 0.1)
    first.latch(source.integers(0, 256, (2, 3)), 0.105)
    second.restore(first.state())
    assert np.array_equal(first.at(0.111), second.at(0.111))
    assert first.settled_s == second.settled_s
    with pytest.raises(ValueError, match=r"shape \(2, 3\), expected \(3, 2\)"):
        Crystal((3, 2), FAST, SLOW, 255).restore(first.state())


@pytest.mark.parametrize("wrong", [(0.0, 0.1), (0.2, 0.1), (-0.1, 0.1)])
def test_refuses_impossible_time_constants(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="expected 0 < fast_s <= slow_s"):
        Crystal((2, 2), *wrong, 255)
