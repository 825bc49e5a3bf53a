"""The simulated power meter: holds the power of the last exposure."""

from typing import final

from typing_extensions import override

from drivers.sim.world import World
from labctl.devices import Clock, Identity, Meter, Reading, Settings
from labctl.errors import DeviceError


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

    Raises
    ------
    ValueError
        The clock is another one than the light path's.
    """

    def __init__(
        self,
        *,
        world: World,
        clock: Clock,
        name: str = "meter",
        serial: str = "SIM-METER-1",
    ) -> None:
        if clock is not world.clock:
            text = f"{name}.clock is another clock, expected that of its world"
            raise ValueError(text)
        self._world, self._name, self._serial = world, name, serial
        self._open = False

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
        return self._world.power_reading()
