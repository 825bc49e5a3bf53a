"""What every shutter must do: block the beam, and know whether it does."""

import pytest

from labctl.devices import Shutter
from labctl.errors import DeviceError


def test_is_closed_after_open(shutter: Shutter) -> None:
    assert isinstance(shutter, Shutter)
    with shutter:
        assert not shutter.is_open()


def test_is_closed_after_open_even_if_it_was_left_open(shutter: Shutter) -> None:
    with shutter:
        shutter.set_open(True)
    with shutter:
        assert not shutter.is_open()


def test_position_is_read_back(shutter: Shutter) -> None:
    with shutter:
        for wanted in (True, True, False, False):
            shutter.set_open(wanted)
            assert shutter.is_open() == wanted


def test_refuses_to_move_while_closed_as_a_device(shutter: Shutter) -> None:
    for action in (lambda: shutter.set_open(True), shutter.is_open):
        with pytest.raises(DeviceError, match="not open"):
            action()
