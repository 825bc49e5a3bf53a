"""The simulated meter: of the power of the last exposure, or of a temperature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, final

from typing_extensions import override

from drivers.sim.faults import NO_RETURN, Fault, never_return, parse_faults
from drivers.sim.noise import Stream
from drivers.sim.options import parse
from drivers.sim.schedule import Schedule
from drivers.sim.world import World
from labctl.devices import Clock, Identity, Meter, Reading, Settings
from labctl.errors import DeviceError, DeviceTimeoutError

# What can break: no answer in time, always the same one, one that is no number, one
# that comes late, no answer at all.
KINDS: Final = ("silent", "frozen", "garbage", "late", NO_RETURN)
# What of it ends a run.
_ENDING: Final = ("silent", "garbage", NO_RETURN)
_GARBAGE: Final = "\x00?+1.2"
_TIMEOUT_S = 1.0


def _in_time(fault: Fault) -> Fault:
    """Make what comes too late no answer: it never becomes that of a later question."""
    too_late = fault.kind == "late" and fault.delay_s > _TIMEOUT_S
    return replace(fault, kind="silent") if too_late else fault


@dataclass(frozen=True)
class MeterOptions:
    """What it shows.

    Parameters
    ----------
    shows
        The power of the last exposure, or a temperature.
    celsius
        Temperature at the start.
    k_per_h
        How it rises, in virtual time.
    """

    shows: Literal["power", "temperature"] = "power"
    celsius: float = field(default=21.0, metadata={"low": -273.15, "high": 1e5})
    k_per_h: float = field(default=0.0, metadata={"low": -1e5, "high": 1e5})


@final
class SimMeter(Meter):
    """A power meter that samples each exposure and holds the value, or a thermometer.

    Before the first exposure it shows the power of the moment.

    Parameters
    ----------
    world
        The light path.
    clock
        That of the light path.
    name
        Name in the bench file.
    serial
        Serial number that it reports.
    faults
        Schedule of what breaks, by the number of the next exposure; its kinds
        are :data:`KINDS`.
    **parts
        Keys of :class:`MeterOptions`.

    Raises
    ------
    TypeError
        A key is unknown or a value has the wrong type.
    ValueError
        The clock is another one than the light path's, or a number or a fault is
        impossible.
    """

    def __init__(
        self,
        *,
        world: World,
        clock: Clock,
        name: str = "meter",
        serial: str = "SIM-METER-1",
        faults: Sequence[Mapping[str, object]] = (),
        **parts: object,
    ) -> None:
        if clock is not world.clock:
            text = f"{name}.clock is another clock, expected that of its world"
            raise ValueError(text)
        self._world, self._name, self._serial = world, name, serial
        self._made = parse(MeterOptions, parts, name)
        self._open = False
        self._faults = Schedule(
            map(_in_time, parse_faults(faults, KINDS, name)),
            world.seed,
            Stream.METER_FAULTS,
            ending=_ENDING,
        )
        self._kept: Reading | None = None
        self._hangs = False

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def unit(self) -> str:
        return "mW" if self._made.shows == "power" else "C"

    @override
    def open(self) -> None:
        if self._open:
            raise DeviceError(self._name, "open", "already open. Close it first.")
        self._open = True
        if self._made.shows == "power":
            self._world.meter = self._followed

    @override
    def close(self) -> None:
        if self._open and self._made.shows == "power":
            self._world.meter = None
        self._open = False

    def _check_open(self, action: str) -> None:
        if not self._open:
            raise DeviceError(self._name, action, "not open. Open it first.")

    @override
    def identity(self) -> Identity:
        self._check_open("identity")
        shows = "power meter" if self._made.shows == "power" else "thermometer"
        return Identity("labctl", f"simulated {shows}", self._serial, "1")

    @override
    def settings(self) -> Settings:
        return {"unit": self.unit}

    @override
    def reading(self) -> Reading:
        self._check_open("reading")
        fault = self._fault()
        if self._hangs or (fault is not None and fault.kind == NO_RETURN):
            never_return()
        return self._answered(fault)

    def _fault(self) -> Fault | None:
        world = self._world
        return self._faults.at(world.shots, world.clock.now(), world.spared)

    def _followed(self) -> Reading | None:
        """Answer a sequence, which must not hang: nothing where no answer comes."""
        fault = self._fault()
        if fault is not None and fault.kind == NO_RETURN:
            self._hangs = True  # until it is made anew
        return None if self._hangs else self._answered(fault)

    def _answered(self, fault: Fault | None) -> Reading:
        clock = self._world.clock
        if fault is not None and fault.kind == "silent":
            clock.sleep(_TIMEOUT_S)
            text = f"no answer within {_TIMEOUT_S} s. Look at its plug and power."
            raise DeviceTimeoutError(self._name, "reading", text)
        if fault is not None and fault.kind == "garbage":
            text = f"got {_GARBAGE!r}, expected a number. Look at the cable."
            raise DeviceError(self._name, "reading", text)
        if fault is not None and fault.kind == "late":
            clock.sleep(fault.delay_s)
        if fault is None or fault.kind != "frozen" or self._kept is None:
            self._kept = self._shown()
        return self._kept

    def _shown(self) -> Reading:
        if self._made.shows == "power":
            return self._world.power_reading()
        now_s = self._world.clock.now()
        return Reading(self._made.celsius + self._made.k_per_h * now_s / 3600, now_s)
