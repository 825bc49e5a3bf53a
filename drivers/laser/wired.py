"""The life cycle that every laser on a wire shares: above all, how it goes dark."""

import threading
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, final

from typing_extensions import override

from drivers.wire import Monotonic
from labctl.devices import Clock, Identity, Laser, Settings
from labctl.errors import (
    DeviceError,
    InterlockError,
    LaserStillOnError,
    OutOfRangeError,
)

POLL_S: Final = 0.05  # how often emission is looked at while it starts or stops
OFF_S: Final = 0.3  # how long a head may take to stop
OVERSHOOT: Final = 3  # so many looks in a row may find more light than was demanded


class Head(Protocol):
    """What a laser's head understands; knows its language and no policy."""

    @abstractmethod
    def connect(self) -> None:
        """Connect, quieten, and know it by its answer: from now on it can be dark."""

    @property
    @abstractmethod
    def signature(self) -> str:
        """What it answered to who it is, as read when connecting."""

    @abstractmethod
    def inquire(self) -> None:
        """Set it up, and read who it is and what it can do; it is dark meanwhile."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the wire; may be called twice."""

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """As read at open."""

    @property
    @abstractmethod
    def wavelength_nm(self) -> float:
        """As read at open, or as told."""

    @property
    @abstractmethod
    def limits_mw(self) -> tuple[float, float]:
        """Least and greatest power, as read at open."""

    @abstractmethod
    def set_power_mw(self, power_mw: float) -> None:
        """Demand a power within the limits."""

    @abstractmethod
    def setpoint_mw(self) -> float:
        """Read back what was demanded."""

    @abstractmethod
    def power_mw(self) -> float:
        """Measure."""

    @abstractmethod
    def switch(self, on: bool) -> None:
        """Ask for emission, or for none."""

    @abstractmethod
    def is_emitting(self) -> bool:
        """Whether it says that it emits."""

    @abstractmethod
    def interlock(self) -> str:
        """Tell what keeps it from emitting; empty where nothing does."""

    @abstractmethod
    def faults(self) -> list[str]:
        """Faults in words."""


@final
class WiredLaser(Laser):
    """A laser whose head is spoken to over a wire.

    Dark means emission off, read back, and the least setpoint. Off is the first that a
    head hears once it is known: some emit as soon as their key turns, and no question
    that it does not answer may keep it lit. A head that does not say that it is dark is
    asked once more through a fresh connection; after that, or where another head
    answers there, it counts as lit.

    Parameters
    ----------
    name
        Name in the bench file.
    head
        Its language.
    clock
        Time; None takes the computer's.
    start_s
        How long emission may take to start: some heads wait by law.
    tolerance
        Greatest distance of the measured from the demanded power once it emits, as
        a share of the greatest power; None does not compare.
    repetition_rate_hz, pulse_width_fs
        Of a pulsed laser.
    on_wait
        Called again and again while emission starts.

    Raises
    ------
    ValueError
        An option is impossible.
    """

    def __init__(  # noqa: PLR0913 - one parameter an option
        self,
        name: str,
        head: Head,
        *,
        clock: Clock | None = None,
        start_s: float = 8.0,
        tolerance: float | None = 0.05,
        repetition_rate_hz: float | None = None,
        pulse_width_fs: float | None = None,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        if not start_s > 0 or (tolerance is not None and not 0 < tolerance <= 1):
            text = (
                f"{name}: start_s={start_s}, tolerance={tolerance}, expected more "
                "than 0, and a share of the greatest power"
            )
            raise ValueError(text)
        self._name, self._head, self._clock = name, head, clock or Monotonic()
        self._start_s, self._tolerance = start_s, tolerance
        self._rate_hz, self._width_fs = repetition_rate_hz, pulse_width_fs
        self._on_wait = on_wait
        self._open = False
        self._who = ""
        # Until it has said that it is dark, it is taken for lit.
        self._lit = True
        self._unwanted = threading.Event()

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def wavelength_nm(self) -> float:
        return self._opened("wavelength").wavelength_nm

    @property
    @override
    def power_limits_mw(self) -> tuple[float, float]:
        return self._opened("power limits").limits_mw

    @property
    @override
    def repetition_rate_hz(self) -> float | None:
        return self._rate_hz

    @property
    @override
    def pulse_width_fs(self) -> float | None:
        return self._width_fs

    @override
    def open(self) -> None:
        if self._open:
            raise DeviceError(self._name, "open", "already open. Close it first.")
        self._lit = True
        try:
            self._head.connect()
            self._who = self._head.signature
            self._open = True
            self._go_dark()
            self._head.inquire()
            self._head.set_power_mw(self._head.limits_mw[0])
        except BaseException:
            self._open = False
            self._head.close()
            raise

    @property
    def counts_as_lit(self) -> bool:
        """Whether it has not said that it is dark."""
        return self._lit

    @override
    def close(self) -> None:
        if not self._open:
            return
        try:
            self._go_dark()
            self._head.set_power_mw(self._head.limits_mw[0])
        finally:
            self._open = False
            self._head.close()

    @override
    def identity(self) -> Identity:
        return self._opened("identity").identity

    @override
    def settings(self) -> Settings:
        head = self._opened("settings")
        return {
            "wavelength_nm": head.wavelength_nm,
            "power_limits_mw": list(head.limits_mw),
            "setpoint_mw": head.setpoint_mw(),
            "emission": head.is_emitting(),
            "repetition_rate_hz": self._rate_hz,
            "pulse_width_fs": self._width_fs,
        }

    @override
    def set_power_mw(self, power_mw: float) -> None:
        head = self._opened("set power")
        low, high = head.limits_mw
        if not low <= power_mw <= high:
            raise OutOfRangeError(self._name, "power_mw", power_mw, low=low, high=high)
        head.set_power_mw(power_mw)
        got = head.setpoint_mw()
        if not abs(got - power_mw) <= 6e-3 * high:
            text = f"power_mw={got:g} read back, expected {power_mw:g}."
            raise DeviceError(self._name, "set power", text)

    @override
    def setpoint_mw(self) -> float:
        return self._opened("read setpoint").setpoint_mw()

    @override
    def power_mw(self) -> float:
        return self._opened("read power").power_mw()

    @override
    def is_emitting(self) -> bool:
        return self._opened("read emission").is_emitting()

    @override
    def faults(self) -> list[str]:
        head = self._opened("read faults")
        kept = head.interlock()
        return [kept, *head.faults()] if kept else head.faults()

    @override
    def emission(self, on: bool) -> None:
        head = self._opened("emission")
        if not on:
            # The guard may ask for dark while another call still waits for light.
            self._unwanted.set()
            self._go_dark()
            return
        self._unwanted.clear()
        self._check_able(head)
        try:
            self._lit = True
            head.switch(True)
            self._await_light(head)
        except BaseException:
            self._go_dark()
            raise

    def _check_able(self, head: Head) -> None:
        """Refuse to emit where the head cannot.

        Raises
        ------
        InterlockError
            Interlock or key.
        DeviceError
            It has a fault.
        """
        kept = head.interlock()
        if kept:
            text = f"{self._name}: {kept}, expected closed. Close it, then run again."
            raise InterlockError(text)
        faults = head.faults()
        if faults:
            text = f"{', '.join(faults)}. Mend it, then turn the key off and on."
            raise DeviceError(self._name, "emission", text)

    def _await_light(self, head: Head) -> None:
        """Wait until it emits what was demanded.

        Raises
        ------
        DeviceError
            It does not in time, or nobody wants it any more.
        """
        due = self._clock.now() + self._start_s
        story, looks_too_much = "", 0
        while self._clock.now() < due and looks_too_much < OVERSHOOT:
            if self._unwanted.is_set():
                text = "told to go dark before it emitted."
                raise DeviceError(self._name, "emission", text)
            story, is_too_much = self._lacks(head)
            if not story:
                return
            looks_too_much = looks_too_much + 1 if is_too_much else 0
            self._on_wait()
            self._clock.sleep(POLL_S)
        faults = ", ".join(head.faults()) or "no fault reported"
        waited_s = self._start_s - max(due - self._clock.now(), 0)
        text = f"{story} after {waited_s:.2g} s ({faults}); it was made dark."
        raise DeviceError(self._name, "emission", text)

    def _lacks(self, head: Head) -> tuple[str, bool]:
        """Say what is wrong with its light, and whether it is too much of it."""
        if not head.is_emitting():
            return "emission=off, expected on", False
        if self._tolerance is None:
            return "", False
        got, wanted = head.power_mw(), head.setpoint_mw()
        if abs(got - wanted) <= self._tolerance * head.limits_mw[1]:
            return "", False
        return f"power_mw={got:g}, expected {wanted:g}", got > wanted

    def _go_dark(self) -> None:
        try:
            self._switch_off()
        except LaserStillOnError:
            self._starve()
            raise
        except DeviceError as first:
            if not self._lit:
                raise
            self._insist(first)

    def _insist(self, first: DeviceError) -> None:
        """Try once more, through a fresh connection.

        Raises
        ------
        LaserStillOnError
            Whether it is dark is not known: it counts as lit.
        """
        try:
            self._head.close()
            self._head.connect()
            self._check_same()
            self._switch_off()
        except (DeviceError, LaserStillOnError) as err:
            self._starve()
            text = (
                f"{self._name}: emission=unknown, expected off ({first}; again: {err})."
                " Turn its key by hand."
            )
            raise LaserStillOnError(text) from err
        # It may have lost its power meanwhile: it is set up as at open.
        self._head.inquire()

    def _starve(self) -> None:
        """Demand the least power of a head that does not go dark: all that is left."""
        with suppress(DeviceError):
            self._head.set_power_mw(self._head.limits_mw[0])

    def _check_same(self) -> None:
        """Refuse another head: the names of ports are given anew.

        Raises
        ------
        DeviceError
            It is not the one that was opened; it is let go of.
        """
        got = self._head.signature
        if got != self._who:
            self._head.close()
            text = f"{got!r} answers there, expected {self._who!r}."
            raise DeviceError(self._name, "emission", text)

    def _switch_off(self) -> None:
        """Switch off and read it back.

        Raises
        ------
        LaserStillOnError
            It says that it emits.
        """
        self._head.switch(False)
        due = self._clock.now() + OFF_S
        while self._head.is_emitting():
            if self._clock.now() >= due:
                self._lit = True
                text = f"{self._name}: emission=on, expected off. "
                raise LaserStillOnError(text + "Turn its key by hand.")
            self._clock.sleep(POLL_S)
        self._lit = False

    def _opened(self, action: str) -> Head:
        if not self._open:
            raise DeviceError(self._name, action, "not open. Open it first.")
        return self._head
