"""The simulated panel: takes gray levels and hands them to the light path."""

import math
from collections.abc import Mapping, Sequence
from typing import Final, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from drivers.sim.faults import NO_RETURN, never_return, parse_faults
from drivers.sim.light import LEVELS
from drivers.sim.noise import Stream
from drivers.sim.schedule import Schedule
from drivers.sim.world import World
from labctl.devices import SLM, Clock, Identity, Levels, Settings, Written
from labctl.errors import DeviceError, DeviceTimeoutError, OutOfRangeError

# What can break: a write that never reaches the panel, a panel that shows the
# pattern before the one it was sent, a write that is not answered in time, one that
# never returns, a panel that is gone.
KINDS: Final = ("lost", "behind", "hung", NO_RETURN, "removed")
# What of it ends a run.
_ENDING: Final = ("hung", NO_RETURN, "removed")
# How long a write that hangs is waited for.
_TIMEOUT_S = 5.0


@final
class SimSLM(SLM):
    """An 8-bit phase panel.

    It reads back what it shows: that is what the checksum of a write is of.

    Parameters
    ----------
    world
        The light path.
    clock
        That of the light path.
    name
        Name in the bench file.
    pitch_um
        Distance between pixels.
    serial
        Serial number that it reports.
    faults
        Schedule of what breaks, by the number of the next exposure; its kinds
        are :data:`KINDS`.

    Raises
    ------
    ValueError
        The clock is another one than the light path's, or the pitch is
        impossible.
    """

    def __init__(
        self,
        *,
        world: World,
        clock: Clock,
        name: str = "slm",
        pitch_um: float = 8.0,
        serial: str = "SIM-SLM-1",
        faults: Sequence[Mapping[str, object]] = (),
    ) -> None:
        if clock is not world.clock:
            text = f"{name}.clock is another clock, expected that of its world"
            raise ValueError(text)
        if not pitch_um > 0:
            text = f"{name}.pitch_um={pitch_um}, expected more than 0"
            raise ValueError(text)
        self.world = world
        self._faults = Schedule(
            parse_faults(faults, KINDS, name),
            world.seed,
            Stream.PANEL_FAULTS,
            ending=_ENDING,
        )
        self._name, self._pitch_um, self._serial = name, float(pitch_um), serial
        self._open = False

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self.world.options.panel_shape

    @property
    @override
    def bit_depth(self) -> int:
        return (LEVELS - 1).bit_length()

    @property
    @override
    def pitch_um(self) -> float:
        return self._pitch_um

    @property
    @override
    def settle_s(self) -> float:
        told_s = self.world.options.panel.told_settle_s
        if told_s is not None:
            return told_s
        # A full step is within half a level of its goal after so long.
        return self.world.options.panel.slow_s * math.log(2 * (LEVELS - 1))

    @override
    def open(self) -> None:
        if self._open:
            raise DeviceError(self._name, "open", "already open. Close it first.")
        self._open = True
        self._flatten()
        self.world.restart_patterns()

    def _flatten(self) -> None:
        self.world.asked = np.zeros(self.shape, dtype=np.uint8)
        self.world.show(self.world.asked)

    @override
    def close(self) -> None:
        if not self._open:
            return
        self._flatten()
        self._open = False

    @override
    def identity(self) -> Identity:
        self._check_open("identity")
        return Identity("labctl", "simulated panel", self._serial, "1")

    @override
    def settings(self) -> Settings:
        return {
            "shape": list(self.shape),
            "bit_depth": self.bit_depth,
            "pitch_um": self._pitch_um,
            "settle_s": self.settle_s,
        }

    def _check_open(self, action: str) -> None:
        if not self._open:
            raise DeviceError(self._name, action, "not open. Open it first.")

    def check(self, levels: Levels, *, stacked: bool = False) -> None:
        """Refuse levels that the panel cannot show.

        Parameters
        ----------
        levels
            One pattern, or several.
        stacked
            Whether there is a leading axis of patterns.

        Raises
        ------
        OutOfRangeError
            Shape or dtype does not fit.
        """
        shape = levels.shape[1:] if stacked else levels.shape
        if levels.ndim != 2 + stacked or tuple(shape) != self.shape:
            raise OutOfRangeError(
                self._name,
                "shape",
                tuple(levels.shape),
                low=self.shape,
                high=self.shape,
            )
        if levels.dtype != np.uint8:
            raise OutOfRangeError(
                self._name, "dtype", levels.dtype, low="uint8", high="uint8"
            )

    @override
    def write(self, levels: Levels) -> Written:
        self._check_open("write")
        self.check(levels)
        before, self.world.asked = self.world.asked, levels.astype(np.uint8)
        return self.world.show(self._reached(before))

    def _reached(self, before: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what the panel shows after a write.

        Raises
        ------
        DeviceTimeoutError
            The fault of the moment is a write that hangs.
        DeviceError
            It is a panel that is gone.
        """
        clock = self.world.clock
        fault = self._faults.at(self.world.shots, clock.now(), self.world.spared)
        match "" if fault is None else fault.kind:
            case "lost":
                return self.world.shown
            case "behind":
                return before
            case "hung":
                clock.sleep(_TIMEOUT_S)
                text = f"no answer within {_TIMEOUT_S} s. Switch the panel off and on."
                raise DeviceTimeoutError(self._name, "write", text)
            case kind if kind == NO_RETURN:
                never_return()
            case "removed":
                text = "no longer there. Look at plug and power."
                raise DeviceError(self._name, "write", text)
        return self.world.asked
