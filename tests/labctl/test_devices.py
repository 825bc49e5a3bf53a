"""What every device inherits: opened whole or not at all, closed in any case."""

import inspect
import subprocess
import sys

import pytest
from typing_extensions import override

from labctl import devices
from labctl.devices import Device, Identity, Meter, Reading, Settings
from labctl.errors import DeviceError


class Loud(Meter):
    """Writes down what happens to it."""

    def __init__(self, *, fails: bool = False) -> None:
        self.log: list[str] = []
        self._fails = fails

    @property
    @override
    def name(self) -> str:
        return "loud"

    @property
    @override
    def unit(self) -> str:
        return "mW"

    @override
    def open(self) -> None:
        self.log.append("open")
        if self._fails:
            raise DeviceError(self.name, "open", "no answer")

    @override
    def close(self) -> None:
        self.log.append("close")

    @override
    def identity(self) -> Identity:
        return Identity("", "", "", "")

    @override
    def settings(self) -> Settings:
        return {}

    @override
    def reading(self) -> Reading:
        return Reading(1.0, 0.0)


def test_a_device_is_closed_on_the_way_out() -> None:
    loud = Loud()
    with pytest.raises(KeyError), loud:
        raise KeyError
    assert loud.log == ["open", "close"]


def test_a_device_that_opens_half_way_is_closed() -> None:
    loud = Loud(fails=True)
    with pytest.raises(DeviceError, match="no answer"), loud:
        loud.log.append("inside")
    assert loud.log == ["open", "close"]


def test_an_unfinished_driver_cannot_be_made() -> None:
    class Half(Loud):
        reading = Meter.reading

    with pytest.raises(TypeError, match="reading"):
        Half()


def test_roles_are_told_apart() -> None:
    loud = Loud()
    assert isinstance(loud, Meter)
    assert isinstance(loud, Device)
    assert not isinstance(loud, devices.Shutter)


def test_every_method_of_a_role_says_what_it_promises() -> None:
    roles = [
        kind
        for name, kind in vars(devices).items()
        if inspect.isclass(kind) and getattr(kind, "_is_protocol", False)
        if kind.__module__ == devices.__name__ and not name.startswith("_")
    ]
    assert len(roles) > 8
    silent = [
        f"{role.__name__}.{name}"
        for role in roles
        for name in getattr(role, "__abstractmethods__", ())
        if not inspect.getdoc(getattr(role, name))
    ]
    assert silent == []


def test_importing_the_roles_imports_no_library_of_a_vendor_or_of_numerics() -> None:
    code = "import labctl.devices, sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.splitlines()}
    assert not loaded & {"torch", "h5py", "scipy", "serial", "pyvisa", "drivers"}
