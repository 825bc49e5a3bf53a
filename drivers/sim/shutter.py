"""The simulated shutter: stands in the beam before the panel."""

from collections.abc import Mapping, Sequence
from typing import Final, final

from typing_extensions import override

from drivers.sim.faults import NO_RETURN, never_return, parse_faults
from drivers.sim.noise import Stream
from drivers.sim.schedule import Schedule
from drivers.sim.world import World
from labctl.devices import Clock, Identity, Settings, Shutter
from labctl.errors import DeviceError, DeviceTimeoutError

# What can break: the blade stays where it is, nobody answers in time, or at all.
KINDS: Final = ("stuck", "silent", NO_RETURN)
_TIMEOUT_S = 1.0


@final
class SimShutter(Shutter):
    """A blade that takes its time, and is read back.

    Parameters
    ----------
    world
        The light path.
    clock
        That of the light path.
    name
        Name in the bench file.
    move_s
        Time that a move takes.
    serial
        Serial number that it reports.
    faults
        Schedule of what breaks, by the number of the next exposure; its kinds
        are :data:`KINDS`.

    Raises
    ------
    ValueError
        The clock is another one than the light path's, or an option is
        impossible.
    """

    def __init__(
        self,
        *,
        world: World,
        clock: Clock,
        name: str = "shutter",
        move_s: float = 0.02,
        serial: str = "SIM-SHUTTER-1",
        faults: Sequence[Mapping[str, object]] = (),
    ) -> None:
        if clock is not world.clock:
            text = f"{name}.clock is another clock, expected that of its world"
            raise ValueError(text)
        if not move_s >= 0:
            text = f"{name}.move_s={move_s}, expected 0 or more"
            raise ValueError(text)
        self._world, self._name, self._serial = world, name, serial
        self._move_s, self._open = float(move_s), False
        self._faults = Schedule(
            parse_faults(faults, KINDS, name),
            world.seed,
            Stream.SHUTTER_FAULTS,
            ending=KINDS,
        )

    @property
    @override
    def name(self) -> str:
        return self._name

    @override
    def open(self) -> None:
        if self._open:
            raise DeviceError(self._name, "open", "already open. Close it first.")
        self._open = True
        self.set_open(False)

    @override
    def close(self) -> None:
        if not self._open:
            return
        try:
            self.set_open(False)
        finally:
            self._open = False

    @override
    def identity(self) -> Identity:
        self._check_open("identity")
        return Identity("labctl", "simulated shutter", self._serial, "1")

    @override
    def settings(self) -> Settings:
        return {"move_s": self._move_s, "is_open": not self._world.blocked}

    def _check_open(self, action: str) -> None:
        if not self._open:
            raise DeviceError(self._name, action, "not open. Open it first.")

    def _fault(self) -> str:
        clock = self._world.clock
        fault = self._faults.at(self._world.shots, clock.now(), self._world.spared)
        if fault is not None and fault.kind == "silent":
            clock.sleep(_TIMEOUT_S)
            text = f"no answer within {_TIMEOUT_S} s. Look at its plug and power."
            raise DeviceTimeoutError(self._name, "move", text)
        if fault is not None and fault.kind == NO_RETURN:
            never_return()
        return "" if fault is None else fault.kind

    @override
    def set_open(self, is_open: bool) -> None:
        self._check_open("move")
        kind = self._fault()
        self._world.clock.sleep(self._move_s)
        if kind != "stuck":
            self._world.blocked = not is_open
        if self._world.blocked == is_open:
            wanted = "open" if is_open else "closed"
            text = f"read back another position, expected {wanted}. Free the blade."
            raise DeviceError(self._name, "move", text)

    @override
    def is_open(self) -> bool:
        self._check_open("read position")
        self._fault()
        return not self._world.blocked
