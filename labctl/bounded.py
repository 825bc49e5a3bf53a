"""Devices whose every call has a deadline, whatever their driver does.

A driver should keep its own deadlines; a vendor's library need not. Each class here
is a role that hands its calls to a driver of that role, through a
:class:`~labctl.lane.Lane`: a call that does not return raises
:class:`~labctl.errors.DeviceTimeoutError`, the device is failed from then on, and
whoever called goes on to close the others. The laser needs none: the guard bounds it.

Before a device is opened nothing is asked of an instrument, so nothing is bounded:
a bench that is only looked at starts no thread.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar, final

from typing_extensions import override

from labctl import devices
from labctl.devices import (
    SLM,
    Attenuator,
    Camera,
    CameraSettings,
    Device,
    Edge,
    Frame,
    Identity,
    Levels,
    Meter,
    Played,
    Reading,
    Settings,
    Shutter,
    Written,
)
from labctl.lane import Lane

D = TypeVar("D", bound=Device)
T = TypeVar("T")
# A camera that boots, a panel that is switched on.
OPEN_S: Final = 30.0


class _Bounded(Device, Generic[D]):
    """What every role inherits.

    Parameters
    ----------
    driver
        The device itself.
    call_s
        Longest time of one call; opening may take at least :data:`OPEN_S`.
    """

    def __init__(self, driver: D, call_s: float) -> None:
        self.driver, self._call_s = driver, call_s
        self._name = driver.name
        self._lane = Lane(self._name)

    def _ask(self, action: str, function: Callable[[], T], longer_s: float = 0.0) -> T:
        if not self._lane.is_running and not self._lane.has_failed:
            return function()  # not open: refused, or known without asking
        return self._lane.call(action, function, self._call_s + longer_s)

    @property
    @override
    def name(self) -> str:
        return self._name

    @override
    def open(self) -> None:
        self._lane.call("open", self.driver.open, max(OPEN_S, self._call_s))

    @override
    def close(self) -> None:
        if self._lane.is_running:
            self._lane.close(self.driver.close, self._call_s)
        elif not self._lane.has_failed:
            self.driver.close()

    @override
    def identity(self) -> Identity:
        return self._ask("identity", self.driver.identity)

    @override
    def settings(self) -> Settings:
        return self._ask("settings", self.driver.settings)


@final
class BoundedSLM(_Bounded[SLM], SLM):
    """A panel; see the module."""

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self._ask("shape", lambda: self.driver.shape)

    @property
    @override
    def bit_depth(self) -> int:
        return self._ask("bit_depth", lambda: self.driver.bit_depth)

    @property
    @override
    def pitch_um(self) -> float:
        return self._ask("pitch_um", lambda: self.driver.pitch_um)

    @property
    @override
    def settle_s(self) -> float:
        return self._ask("settle_s", lambda: self.driver.settle_s)

    @property
    @override
    def gives_edges(self) -> bool:
        return self._ask(
            "gives_edges", lambda: getattr(self.driver, "gives_edges", False)
        )

    @override
    def write(self, levels: Levels) -> Written:
        return self._ask("write", functools.partial(self.driver.write, levels))

    @override
    def check_shown(self) -> None:
        # Most panels cannot be asked: a shot is spared the way to their thread.
        check = getattr(self.driver, "check_shown", None)
        if check is not None and getattr(check, "__func__", None) != SLM.check_shown:
            self._ask("check_shown", check)


@final
class BoundedCamera(_Bounded[Camera], Camera):
    """A camera; see the module."""

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self._ask("shape", lambda: self.driver.shape)

    @property
    @override
    def bit_depth(self) -> int:
        return self._ask("bit_depth", lambda: self.driver.bit_depth)

    @property
    @override
    def pixel_um(self) -> float:
        return self._ask("pixel_um", lambda: self.driver.pixel_um)

    @property
    @override
    def exposure_limits_s(self) -> tuple[float, float]:
        return self._ask("exposure_limits_s", lambda: self.driver.exposure_limits_s)

    @property
    @override
    def gain_limits_db(self) -> tuple[float, float]:
        return self._ask("gain_limits_db", lambda: self.driver.gain_limits_db)

    @property
    @override
    def saturation_dn(self) -> int:
        return self._ask("saturation_dn", lambda: self.driver.saturation_dn)

    @property
    @override
    def frame_id_modulus(self) -> int | None:
        return self._ask("frame_id_modulus", lambda: self.driver.frame_id_modulus)

    @property
    @override
    def time_error_s(self) -> float:
        # A driver that does not inherit its role does not have the default.
        return self._ask(
            "time_error_s", lambda: getattr(self.driver, "time_error_s", 0.0)
        )

    @property
    @override
    def tells_exposure_end(self) -> bool:
        return self._ask(
            "tells_exposure_end",
            lambda: getattr(self.driver, "tells_exposure_end", False),
        )

    @override
    def wait_exposed(self, timeout_s: float) -> None:
        call = functools.partial(self.driver.wait_exposed, timeout_s)
        self._ask("wait_exposed", call, timeout_s)

    @property
    @override
    def edge_lines(self) -> tuple[str, ...]:
        return self._ask("edge_lines", lambda: getattr(self.driver, "edge_lines", ()))

    @property
    @override
    def edge_delay_limits_s(self) -> tuple[float, float]:
        return self._ask("edge_delay_limits_s", lambda: self.driver.edge_delay_limits_s)

    @override
    def arm_for_edges(self, frames: int, edge: Edge) -> None:
        call = functools.partial(self.driver.arm_for_edges, frames, edge)
        self._ask("arm_for_edges", call)

    @override
    def configure(
        self,
        *,
        exposure_s: float,
        gain_db: float = 0.0,
        region: tuple[int, int, int, int] | None = None,
    ) -> CameraSettings:
        call = functools.partial(
            self.driver.configure,
            exposure_s=exposure_s,
            gain_db=gain_db,
            region=region,
        )
        return self._ask("configure", call)

    @override
    def arm(self, frames: int) -> None:
        self._ask("arm", functools.partial(self.driver.arm, frames))

    @override
    def trigger(self) -> None:
        self._ask("trigger", self.driver.trigger)

    @override
    def frame(self, timeout_s: float) -> Frame:
        call = functools.partial(self.driver.frame, timeout_s)
        return self._ask("frame", call, timeout_s)

    @override
    def disarm(self) -> None:
        self._ask("disarm", self.driver.disarm)


@final
class BoundedShutter(_Bounded[Shutter], Shutter):
    """A shutter; see the module."""

    @override
    def set_open(self, is_open: bool) -> None:
        call = functools.partial(self.driver.set_open, is_open)
        self._ask("open" if is_open else "close", call)

    @override
    def is_open(self) -> bool:
        return self._ask("is_open", self.driver.is_open)


@final
class BoundedAttenuator(_Bounded[Attenuator], Attenuator):
    """An attenuator; see the module."""

    @property
    @override
    def transmission_limits(self) -> tuple[float, float]:
        return self._ask("limits", lambda: self.driver.transmission_limits)

    @override
    def set_transmission(self, transmission: float) -> None:
        call = functools.partial(self.driver.set_transmission, transmission)
        self._ask("set_transmission", call)

    @override
    def transmission(self) -> float:
        return self._ask("transmission", self.driver.transmission)


@final
class BoundedMeter(_Bounded[Meter], Meter):
    """A meter; see the module."""

    @property
    @override
    def unit(self) -> str:
        return self._ask("unit", lambda: self.driver.unit)

    @override
    def reading(self) -> Reading:
        return self._ask("reading", self.driver.reading)


@final
class BoundedSequence(devices.Sequence):
    """The capability to play patterns; its thread ends with :meth:`end`.

    Parameters
    ----------
    driver
        The capability itself.
    call_s
        Longest time of one call, the settling of its patterns not counted.
    """

    def __init__(self, driver: devices.Sequence, call_s: float) -> None:
        self.driver, self._call_s = driver, call_s
        self._lane = Lane("sequence")

    @property
    @override
    def longest(self) -> int:
        return self.driver.longest

    @override
    def play(self, levels: Levels, *, settle_s: float) -> Played:
        call = functools.partial(self.driver.play, levels, settle_s=settle_s)
        patience_s = self._call_s + len(levels) * max(0.0, settle_s)
        return self._lane.call("play", call, patience_s)

    def end(self) -> None:
        """Let the thread go; may be called twice."""
        self._lane.end()


_WRAPS: Final[Mapping[str, Callable[[Any, float], Any]]] = {
    "slm": BoundedSLM,
    "camera": BoundedCamera,
    "meter": BoundedMeter,
    "thermometer": BoundedMeter,
    "shutter": BoundedShutter,
    "attenuator": BoundedAttenuator,
    "sequence": BoundedSequence,
}


def all_of(parts: Mapping[str, Any], call_s: float) -> dict[str, Any]:
    """Bound the calls of the devices among the parts of a bench.

    Parameters
    ----------
    parts
        Drivers by role; what is no device of the run is left out.
    call_s
        Longest time of one call.

    Returns
    -------
    bounded
        The devices, by role.
    """
    return {
        role: _WRAPS[role](part, call_s)
        for role, part in parts.items()
        if role in _WRAPS
    }
