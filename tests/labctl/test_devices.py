"""What every device inherits: opened whole or not at all, closed in any case."""

import inspect
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from labctl import devices
from labctl.devices import (
    Clock,
    ClockOffset,
    Device,
    Identity,
    Meter,
    Reading,
    Settings,
)
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


class Ticking(Clock):
    """A clock that each look costs time."""

    def __init__(self, now_s: float, look_s: float) -> None:
        self.now_s, self.look_s = now_s, look_s

    @override
    def now(self) -> float:
        self.now_s += self.look_s
        return self.now_s

    @override
    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@given(
    starts_s=st.floats(-1e9, 1e9),
    pace=st.floats(-1.0, 1.0),
    rate=st.floats(0.0, 1e-2),
    look_s=st.floats(0.0, 0.1),
    late_s=st.floats(0.0, 1.0),
    passes_s=st.floats(-1e3, 1e4),
)
def test_another_clock_is_told_no_better_than_it_can_be(
    starts_s: float,
    pace: float,
    rate: float,
    look_s: float,
    late_s: float,
    passes_s: float,
) -> None:
    clock = Ticking(12.0, look_s)

    def device_s(bench_s: float) -> float:
        return starts_s + bench_s * (1 + pace * rate)

    def read() -> float:
        # Somewhere in the call it is latched; nobody knows where.
        latched_s = device_s(clock.now_s + late_s * look_s)
        clock.sleep(look_s)
        return latched_s

    offset = ClockOffset.latched(clock, read, rate=rate)
    true_s = 12.0 + passes_s
    told_s = offset.bench_time_s(device_s(true_s))
    assert abs(told_s - true_s) <= offset.bench_error_s(device_s(true_s))
    assert offset.error_s <= 1.5 * look_s + 1e-9


@pytest.mark.parametrize(
    "numbers",
    [
        (math.nan, 0.0, 0.0, 0.0),
        (0.0, math.inf, 0.0, 0.0),
        (0.0, 0.0, -1e-9, 0.0),
        (0.0, 0.0, 0.0, 1.0),
        (0.0, 0.0, 0.0, -1e-9),
    ],
)
def test_an_offset_that_cannot_be_is_refused(
    numbers: tuple[float, float, float, float],
) -> None:
    with pytest.raises(ValueError, match="expected finite times"):
        ClockOffset(*numbers)
