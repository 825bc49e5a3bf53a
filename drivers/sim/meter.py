"""The simulated power meter: holds the power of the last exposure."""

from collections.abc import Mapping, Sequence
from typing import Final, final

from typing_extensions import override

from drivers.sim.faults import NO_RETURN, Schedule, never_return, parse_faults
from drivers.sim.noise import Stream
from drivers.sim.world import World
from labctl.devices import Clock, Identity, Meter, Reading, Settings
from labctl.errors import DeviceError, DeviceTimeoutError

# What can break: no answer in time, always the same one, no answer at all.
KINDS: Final = ("silent", "frozen", NO_RETURN)
_TIMEOUT_S = 1.0


@final
class SimMeter(Meter):
    """A power meter that samples each exposure and holds the value.

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

    Raises
    ------
    ValueError
        The clock is another one than the light path's, or a fault is
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
    ) -> None:
        if clock is not world.clock:
            text = f"{name}.clock is another clock, expected that of its world"
            raise ValueError(text)
        self._world, self._name, self._serial = world, name, serial
        self._open = False
        self._faults = Schedule(
            parse_faults(faults, KINDS, name), world.seed, Stream.METER_FAULTS
        )
        self._kept: Reading | None = None

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def unit(self) -> str:
        return "mW"

    @override
    def open(self) -> None:
        if self._open:
            raise DeviceError(self._name, "open", "already open. Close it first.")
        self._open = True

    @override
    def close(self) -> None:
        self._open = False

    def _check_open(self, action: str) -> None:
        if not self._open:
            raise DeviceError(self._name, action, "not open. Open it first.")

    @override
    def identity(self) -> Identity:
        self._check_open("identity")
        return Identity("labctl", "simulated power meter", self._serial, "1")

    @override
    def settings(self) -> Settings:
        return {"unit": self.unit}

    @override
    def reading(self) -> Reading:
        self._check_open("reading")
        clock = self._world.clock
        fault = self._faults.at(self._world.shots, clock.now())
        if fault is not None and fault.kind == "silent":
            clock.sleep(_TIMEOUT_S)
            text = f"no answer within {_TIMEOUT_S} s. Look at its plug and power."
            raise DeviceTimeoutError(self._name, "reading", text)
        if fault is not None and fault.kind == NO_RETURN:
            never_return()
        if fault is None or self._kept is None:
            self._kept = self._world.power_reading()
        return self._kept
