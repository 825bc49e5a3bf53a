"""The simulated laser: runs in the guard's process, without torch."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from typing_extensions import override

from drivers.sim.beam import Beam, BeamState
from drivers.sim.faults import NO_RETURN, never_return
from labctl.devices import Clock, Identity, Laser, Settings, Watchdog
from labctl.errors import (
    DeviceError,
    InterlockError,
    LaserStillOnError,
    OutOfRangeError,
)

LONGEST_WATCHDOG_S = 60.0
# What can break, and what the head then says.
KINDS: Final = {
    "trip": "tripped: over-temperature",
    "interlock": "interlock open",
    "stuck_on": "emission does not stop",
    NO_RETURN: "a call did not return",
}
_DARKENING: Final = ("trip", "interlock")


@dataclass(frozen=True)
class LaserFault:
    """Something that breaks in the head, for good.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    at_command
        At which command since it was opened, counted from 1.
    after_s
        After how long a time of emission, by the computer's clock: the light goes
        off without any command.
    """

    kind: str
    at_command: int | None = None
    after_s: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            text = f"kind={self.kind!r}, expected one of {', '.join(KINDS)}"
            raise ValueError(text)
        given = [at for at in (self.at_command, self.after_s) if at is not None]
        if len(given) != 1 or not given[0] >= 0:
            text = f"{self}, expected at_command or after_s, 0 or more"
            raise ValueError(text)

    def is_due(self, commands: int, lit_s: float) -> bool:
        """Whether it breaks now.

        Parameters
        ----------
        commands
            Since the laser was opened.
        lit_s
            How long it has emitted; negative while it does not.
        """
        if self.at_command is not None:
            return commands >= self.at_command
        return self.after_s is not None and lit_s >= self.after_s


@final
class SimLaser(Laser, Watchdog):
    """A continuous laser that publishes what it does in a beam file.

    It has a watchdog: a timer that makes it dark in the eyes of every reader of the
    beam, also when this process is frozen.

    Parameters
    ----------
    beam
        Path of the beam file; made on open.
    name
        Name in the bench file.
    clock
        Time of changes of emission; None takes the computer's.
    wavelength_nm
        Vacuum wavelength.
    power_limits_mw
        Least and greatest power.
    serial
        Serial number that it reports.
    bend
        Bow of the power over the setpoint, as a share of the greatest power: it is
        four times that, times u (1 - u), with u the setpoint's share [G].
    hysteresis
        How much more it is where the setpoint was come to from above, in the same
        way [G].
    faults
        Schedule of what breaks: keys of :class:`LaserFault`.

    Raises
    ------
    TypeError
        A fault has a key that is not known.
    ValueError
        An option is impossible.
    """

    def __init__(  # noqa: PLR0913 - one parameter an option
        self,
        *,
        beam: Path | str,
        name: str = "laser",
        clock: Clock | None = None,
        wavelength_nm: float = 780.0,
        power_limits_mw: Sequence[float] = (0.0, 10.0),
        serial: str = "SIM-LASER-1",
        bend: float = 0.0,
        hysteresis: float = 0.0,
        faults: Sequence[Mapping[str, object]] = (),
    ) -> None:
        if (
            len(power_limits_mw) != 2
            or not 0 <= power_limits_mw[0] < power_limits_mw[1]
        ):
            text = (
                f"{name}.power_limits_mw={list(power_limits_mw)}, expected two "
                "rising numbers from 0"
            )
            raise ValueError(text)
        if not wavelength_nm > 0:
            text = f"{name}.wavelength_nm={wavelength_nm}, expected more than 0"
            raise ValueError(text)
        if not (abs(bend) <= 0.2 and 0 <= hysteresis <= 0.2):
            text = (
                f"{name}.bend={bend}, hysteresis={hysteresis}, expected at most 0.2, "
                "and no hysteresis below 0"
            )
            raise ValueError(text)
        self._path = Path(beam)
        self._name, self._serial = name, serial
        self._wavelength_nm = wavelength_nm
        self._limits = (float(power_limits_mw[0]), float(power_limits_mw[1]))
        self._time = time.time if clock is None else clock.now
        self._beam: Beam | None = None
        self._bend, self._hysteresis = float(bend), float(hysteresis)
        self._setpoint_mw, self._since_s, self._on = 0.0, 0.0, False
        self._from_above = False
        self._watchdog_s, self._due_s = 0.0, 0.0
        self._faults = [LaserFault(**fault) for fault in faults]  # type: ignore[arg-type]  # checked by itself
        self._broken: set[str] = set()
        # Commands since it was opened; when it was lit, by the computer's clock.
        self._commands, self._lit_s = 0, 0.0

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def wavelength_nm(self) -> float:
        return self._wavelength_nm

    @property
    @override
    def power_limits_mw(self) -> tuple[float, float]:
        return self._limits

    @property
    @override
    def repetition_rate_hz(self) -> float | None:
        return None

    @property
    @override
    def pulse_width_fs(self) -> float | None:
        return None

    @override
    def open(self) -> None:
        if self._beam is not None:
            raise DeviceError(self._name, "open", "already open. Close it first.")
        try:
            self._beam = Beam.create(self._path)
        except OSError as error:
            raise DeviceError(self._name, "open", f"beam file: {error}") from error
        self._commands = 0
        self._darken()

    def _darken(self) -> None:
        self._setpoint_mw, self._on, self._since_s = 0.0, False, self._time()
        self._from_above = False
        self._watchdog_s, self._due_s = 0.0, 0.0
        self._publish()

    def _publish(self) -> None:
        self._link("publish").write(
            BeamState(
                emission=self._on,
                # There is no shutter: the path is open.
                shutter_open=True,
                power_setpoint_mw=self._setpoint_mw,
                since_s=self._since_s,
                power_mw=self._power_mw() if self._on else 0.0,
                watchdog_due_s=self._dark_s(),
            )
        )

    def _power_mw(self) -> float:
        """Power at the setpoint, by the way it was come to."""
        high = self._limits[1]
        share = self._setpoint_mw / high
        bow = self._bend + (self._hysteresis if self._from_above else 0.0)
        return self._setpoint_mw + 4 * bow * high * share * (1 - share)

    def _dark_s(self) -> float:
        """When the head goes dark by itself, watchdog or fault; 0 for never."""
        times = [
            self._lit_s + fault.after_s
            for fault in self._faults
            if self._on and fault.kind in _DARKENING and fault.after_s is not None
        ]
        if self._due_s:
            times.append(self._due_s)
        return min(times) if times else 0.0

    def _asked(self, action: str) -> Beam:
        beam = self._link(action)
        self._commands += 1
        self._break()
        return beam

    def _break(self) -> None:
        lit_s = time.time() - self._lit_s if self._on else -1.0
        new = {
            fault.kind for fault in self._faults if fault.is_due(self._commands, lit_s)
        } - self._broken
        self._broken |= new
        if self._on and new.intersection(_DARKENING):
            self._on, self._since_s = False, self._time()
            self._publish()
        if NO_RETURN in new:  # once: whoever calls next is answered
            never_return()

    def _check_able(self) -> None:
        if "interlock" in self._broken:
            text = f"{self._name}: {KINDS['interlock']}, expected closed. Close it."
            raise InterlockError(text)
        if "trip" in self._broken:
            text = f"{KINDS['trip']}. Let it cool, then turn its key off and on."
            raise DeviceError(self._name, "emission", text)

    def _still_on(self) -> LaserStillOnError:
        text = f"{self._name}: emission=on, expected off: turn its key by hand."
        return LaserStillOnError(text)

    def _link(self, action: str) -> Beam:
        if self._beam is None:
            raise DeviceError(self._name, action, "not open. Open it first.")
        return self._beam

    @override
    def close(self) -> None:
        if self._beam is None:
            return
        stuck = self._on and "stuck_on" in self._broken
        if not stuck:
            self._darken()
        self._beam.close()
        self._beam, self._on = None, False
        self._broken.clear()
        if stuck:
            raise self._still_on()

    @override
    def identity(self) -> Identity:
        self._link("identity")
        return Identity("labctl", "simulated laser", self._serial, "1")

    @override
    def settings(self) -> Settings:
        return {
            "wavelength_nm": self._wavelength_nm,
            "power_limits_mw": list(self._limits),
            "setpoint_mw": self._setpoint_mw,
            "emission": self._on,
            "watchdog_s": self._watchdog_s,
        }

    @override
    def set_power_mw(self, power_mw: float) -> None:
        beam = self._asked("set power")
        low, high = self._limits
        if not low <= power_mw <= high:
            raise OutOfRangeError(self._name, "power_mw", power_mw, low=low, high=high)
        self._expire(beam)
        if power_mw != self._setpoint_mw:
            self._from_above = power_mw < self._setpoint_mw
        self._setpoint_mw = float(power_mw)
        self._publish()

    @override
    def setpoint_mw(self) -> float:
        self._asked("read setpoint")
        return self._setpoint_mw

    @override
    def power_mw(self) -> float:
        return self._asked("read power").read().power_mw

    @override
    def emission(self, on: bool) -> None:
        self._expire(self._asked("emission"))
        if on:
            self._check_able()
        elif self._on and "stuck_on" in self._broken:
            raise self._still_on()
        if on != self._on:
            self._on, self._since_s, self._lit_s = on, self._time(), time.time()
        if not on:
            self._watchdog_s, self._due_s = 0.0, 0.0
        self._publish()

    def _expire(self, beam: Beam) -> None:
        # The timer is in the head: what it did is learnt when the head is asked.
        state = beam.read()
        if self._on and not state.emission:
            self._on, self._since_s = False, state.since_s
            self._watchdog_s, self._due_s = 0.0, 0.0

    @override
    def arm(self, timeout_s: float) -> None:
        self._link("arm the watchdog")
        if not 0 < timeout_s <= LONGEST_WATCHDOG_S:
            raise OutOfRangeError(
                self._name, "timeout_s", timeout_s, low=0, high=LONGEST_WATCHDOG_S
            )
        self._watchdog_s = timeout_s
        self.kick()

    @override
    def kick(self) -> None:
        beam = self._link("kick the watchdog")
        self._break()
        self._expire(beam)
        if self._watchdog_s:
            # The computer's time: that is what readers of the beam go by.
            self._due_s = time.time() + self._watchdog_s
            self._publish()

    @override
    def is_emitting(self) -> bool:
        return self._asked("read emission").read().emission

    @override
    def faults(self) -> list[str]:
        # No command: the guard looks when it likes, and a schedule counts commands.
        beam = self._link("read faults")
        self._break()
        self._expire(beam)
        # Of a call that hangs the head knows nothing.
        return [KINDS[kind] for kind in sorted(self._broken - {NO_RETURN})]
