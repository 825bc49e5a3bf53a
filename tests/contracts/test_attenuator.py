"""What every attenuator must do: dim the beam by what was asked for, or say no."""

import math

import pytest

from labctl.devices import Attenuator
from labctl.errors import DeviceError, OutOfRangeError


def test_lets_through_as_little_as_it_can_after_open(attenuator: Attenuator) -> None:
    assert isinstance(attenuator, Attenuator)
    with attenuator:
        least, most = attenuator.transmission_limits
        assert 0 <= least < most <= 1
        assert attenuator.transmission() == pytest.approx(least, abs=2e-3)


def test_is_at_its_least_after_open_even_if_it_was_left_at_its_most(
    attenuator: Attenuator,
) -> None:
    with attenuator:
        attenuator.set_transmission(attenuator.transmission_limits[1])
    with attenuator:
        least = attenuator.transmission_limits[0]
        assert attenuator.transmission() == pytest.approx(least, abs=2e-3)


def test_what_was_set_reads_back(attenuator: Attenuator) -> None:
    with attenuator:
        least, most = attenuator.transmission_limits
        for share in (0.5, 1.0, 0.25, 0.0):
            wanted = least + share * (most - least)
            attenuator.set_transmission(wanted)
            assert attenuator.transmission() == pytest.approx(wanted, abs=2e-3)


@pytest.mark.parametrize("beyond", [-1e-3, 1e-3, math.nan])
def test_refuses_what_is_beyond_its_limits_and_keeps_the_old(
    attenuator: Attenuator, beyond: float
) -> None:
    with attenuator:
        least, most = attenuator.transmission_limits
        attenuator.set_transmission(0.5 * (least + most))
        before = attenuator.transmission()
        wrong = least + beyond if beyond < 0 else most + beyond
        with pytest.raises(OutOfRangeError, match="transmission"):
            attenuator.set_transmission(wrong)
        assert attenuator.transmission() == before


def test_refuses_to_move_while_closed(attenuator: Attenuator) -> None:
    least = attenuator.transmission_limits[0]
    for action in (lambda: attenuator.set_transmission(least), attenuator.transmission):
        with pytest.raises(DeviceError, match="not open"):
            action()
