"""What every device must do, whatever its role."""

import pytest

from labctl.devices import Device, Identity
from labctl.errors import DeviceError


def test_fulfils_the_role_and_has_a_name(device: Device) -> None:
    assert isinstance(device, Device)
    assert device.name


def test_does_nothing_before_it_is_opened(device: Device) -> None:
    with pytest.raises(DeviceError, match="not open"):
        device.identity()


def test_says_who_it_is_and_how_it_is_set(device: Device) -> None:
    with device:
        identity = device.identity()
        assert isinstance(identity, Identity)
        assert identity.vendor
        assert identity.model
        assert identity.serial
        plain = (str, int, float, bool, list, type(None))
        for key, value in device.settings().items():
            assert isinstance(key, str)
            assert isinstance(value, plain)


def test_close_may_be_called_twice_and_before_open(device: Device) -> None:
    device.close()
    device.open()
    device.close()
    device.close()


def test_opens_again_after_close(device: Device) -> None:
    with device:
        first = device.identity()
    with device:
        assert device.identity() == first


def test_a_second_open_is_refused(device: Device) -> None:
    with device, pytest.raises(DeviceError, match="already open"):
        device.open()


def test_closes_on_the_way_out_of_an_exception(device: Device) -> None:
    with pytest.raises(KeyError), device:
        raise KeyError
    with pytest.raises(DeviceError, match="not open"):
        device.identity()
