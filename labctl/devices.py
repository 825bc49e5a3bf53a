"""What a device must do to be an SLM, a laser or a camera: the roles.

A role is a :class:`typing.Protocol` with abstract methods; a driver inherits it
explicitly, so that a type checker and the interpreter both refuse an unfinished
one. This module imports nothing but the standard library and labctl's errors:
importing a role never imports a vendor's library, nor numpy, which the guard of a
laser starts quicker without.

Arrays are ``(…, row, column)``, shapes ``(height, width)``, phase positive is
delay. Units stand in names. A value out of range raises before anything is sent.
"""

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

from typing_extensions import TypeAliasType

from labctl.errors import DeviceError, OutOfRangeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Levels = TypeAliasType("Levels", "NDArray[np.uint8 | np.uint16]")
Counts = TypeAliasType("Counts", "NDArray[np.uint16]")
Settings = Mapping[str, str | int | float | bool | list[int] | list[float] | None]
Trigger = Literal["software", "line"]


@dataclass(frozen=True)
class Identity:
    """Who a device says it is.

    Parameters
    ----------
    vendor, model, serial, firmware
        As read from the device; an empty string where it cannot tell.
    """

    vendor: str
    model: str
    serial: str
    firmware: str


@dataclass(frozen=True)
class Found:
    """An instrument, or a port, that a finder sees.

    Parameters
    ----------
    what
        What it is, for a person.
    role
        Role that it could have; empty for a port that says nothing.
    driver
        Driver that could open it; empty where that cannot be told.
    options
        Options that the driver needs to open this one.
    serial
        Serial number; empty where it cannot be told.
    """

    what: str
    role: str = ""
    driver: str = ""
    options: Mapping[str, str | int | list[int]] = field(default_factory=dict)
    serial: str = ""

    def lines(self) -> str:
        """Return what a bench file would say, on one line; empty without a driver."""
        if not self.driver:
            return ""
        parts = [f"driver: {self.driver}"]
        if self.serial:
            parts.append(f"serial: {json.dumps(self.serial)}")
        if self.options:
            given = ", ".join(
                f"{key}: {json.dumps(value)}" for key, value in self.options.items()
            )
            parts.append(f"options: {{{given}}}")
        return f"{self.role}: {{{', '.join(parts)}}}"


@dataclass(frozen=True)
class Written:
    """Proof that a pattern is on the panel.

    Parameters
    ----------
    pattern_id
        Counts the writes of this panel since it was opened, from 1.
    checksum
        CRC-32 of the levels, row by row.
    written_s
        Time on the bench clock at which the write was complete.
    """

    pattern_id: int
    checksum: int
    written_s: float


@dataclass(frozen=True)
class Edge:
    """What starts an exposure, where no software does.

    Parameters
    ----------
    line
        Line of the camera that it comes on, in the camera's own word.
    is_rising
        Whether it is the rising edge, or the falling one.
    delay_s
        Time from the edge to the exposure, which the camera waits by itself.
    """

    line: str
    is_rising: bool
    delay_s: float


@dataclass(frozen=True)
class CameraSettings:
    """What a camera really took when it was configured.

    Parameters
    ----------
    exposure_s
        Exposure time, as read back.
    gain_db
        Gain, as read back.
    region
        Row, column, height and width of the region read out, in pixels.
    """

    exposure_s: float
    gain_db: float
    region: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Frame:
    """One exposure, owned by whoever received it.

    Parameters
    ----------
    data
        Counts, ``(row, column)``, uint16, right-justified.
    frame_id
        The camera's own counter.
    trigger
        Number of the trigger that this frame answers, from 1 since ``arm``.
    device_time_s
        Start of the exposure on the device's own clock.
    host_time_s
        Arrival on the bench clock.
    exposure_start_s, exposure_end_s
        Bounds of the exposure on the bench clock: it did not begin before the first,
        nor end after the second.
    time_error_s
        How far that may be wrong, as where the times were those of another clock
        (:class:`ClockOffset`). A frame counts as fresh only with so much to spare. 0
        where the bench clock was read before the trigger was sent and after the frame
        came: such times hold, however long the camera takes.
    """

    data: Counts
    frame_id: int
    trigger: int
    device_time_s: float
    host_time_s: float
    exposure_start_s: float
    exposure_end_s: float
    time_error_s: float = 0.0


@dataclass(frozen=True)
class Reading:
    """A measured value and when it was measured.

    Parameters
    ----------
    value
        The value, in the unit that the meter declares.
    time_s
        Time on the bench clock.
    """

    value: float
    time_s: float


@dataclass(frozen=True, eq=False)
class Played:
    """What a sequence of N patterns brought back, one row per pattern.

    Parameters
    ----------
    frames
        Counts, ``(pattern, row, column)``, uint16.
    pattern_id, checksum
        As :class:`Written`, int64 ``(pattern,)``.
    written_s
        Time at which each pattern was on the panel.
    frame_id, trigger
        As :class:`Frame`, int64 ``(pattern,)``.
    device_time_s, host_time_s, exposure_start_s, exposure_end_s
        As :class:`Frame`, float64 ``(pattern,)``.
    power_mw
        Optical power during each exposure, measured; None where the bench
        has no meter that follows single exposures.
    time_error_s
        As :class:`Frame`, the greatest of all patterns.
    """

    frames: Counts
    pattern_id: "NDArray[np.int64]"
    checksum: "NDArray[np.int64]"
    written_s: "NDArray[np.float64]"
    frame_id: "NDArray[np.int64]"
    trigger: "NDArray[np.int64]"
    device_time_s: "NDArray[np.float64]"
    host_time_s: "NDArray[np.float64]"
    exposure_start_s: "NDArray[np.float64]"
    exposure_end_s: "NDArray[np.float64]"
    power_mw: "NDArray[np.float64] | None"
    time_error_s: float = 0.0


class Clock(Protocol):
    """The one source of time for a bench: real, or virtual in simulation."""

    @abstractmethod
    def now(self) -> float:
        """Seconds since a fixed moment; never goes back."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Return when ``seconds`` have passed on this clock.

        Raises
        ------
        ValueError
            ``seconds`` is negative or not a number.
        """


@dataclass(frozen=True)
class ClockOffset:
    """A device's own clock against the bench clock, read when the device was armed.

    Parameters
    ----------
    device_s
        What it showed.
    bench_s
        When, on the bench clock: the middle of the call that asked.
    error_s
        Half of that call.
    rate
        Greatest deviation of its pace, as a fraction: 1e-4 for the 100 ppm of a plain
        quartz.

    Raises
    ------
    ValueError
        A number is impossible.
    """

    device_s: float
    bench_s: float
    error_s: float
    rate: float

    def __post_init__(self) -> None:
        numbers = (self.device_s, self.bench_s, self.error_s, self.rate)
        if not all(map(math.isfinite, numbers)) or not (
            self.error_s >= 0 and 0 <= self.rate < 1
        ):
            text = f"{self}, expected finite times, error_s from 0, rate from 0 below 1"
            raise ValueError(text)

    @classmethod
    def latched(cls, clock: Clock, read: Callable[[], float], *, rate: float) -> Self:
        """Read both clocks.

        Parameters
        ----------
        clock
            Of the bench.
        read
            Latches the device's clock and returns what it showed, in s.
        rate
            As above.

        Returns
        -------
        offset
            Good until the device is armed anew.
        """
        before_s = clock.now()
        device_s = read()
        after_s = clock.now()
        half_s = (after_s - before_s) / 2
        return cls(device_s, before_s + half_s, half_s, rate)

    def bench_time_s(self, device_time_s: float) -> float:
        """Bring a time of the device to the bench clock.

        Parameters
        ----------
        device_time_s
            On the device's clock.

        Returns
        -------
        time
            On the bench clock, as well as can be told.
        """
        return self.bench_s + (device_time_s - self.device_s)

    def bench_error_s(self, device_time_s: float) -> float:
        """How far :meth:`bench_time_s` may be from the truth.

        Parameters
        ----------
        device_time_s
            On the device's clock.

        Returns
        -------
        error
            Half of the call that read the clock, what its pace may add up to since, and
            the digits that such large numbers lack.
        """
        passed_s = abs(device_time_s - self.device_s)
        digits_s = 4 * math.ulp(
            max(abs(device_time_s), abs(self.device_s), abs(self.bench_s) + passed_s)
        )
        return self.error_s + passed_s * self.rate / (1 - self.rate) + digits_s


@runtime_checkable
class Device(Protocol):
    """Anything with a life cycle: constructed without I/O, opened, closed."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in the bench file."""

    @abstractmethod
    def open(self) -> None:
        """Take the device, command its safe state and read it back.

        Raises
        ------
        DeviceError
            It does not answer, is taken, or is another one than was asked for.
        """

    @abstractmethod
    def close(self) -> None:
        """Command the safe state, then release.

        May be called twice, and after an ``open`` that failed half-way.
        """

    @abstractmethod
    def identity(self) -> Identity:
        """Who the device says it is; open only."""

    @abstractmethod
    def settings(self) -> Settings:
        """Give a plain snapshot of every setting, for the record."""

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@runtime_checkable
class SLM(Device, Protocol):
    """A spatial light modulator: shows gray levels, knows nothing of phase."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Panel ``(height, width)``, in pixels."""

    @property
    @abstractmethod
    def bit_depth(self) -> int:
        """Bits a level; 8 asks for uint8, more for uint16."""

    @property
    @abstractmethod
    def pitch_um(self) -> float:
        """Distance between pixels."""

    @property
    @abstractmethod
    def settle_s(self) -> float:
        """The vendor's worst-case settling time; a calibration replaces it."""

    @property
    def gives_edges(self) -> bool:
        """Whether an output of it gives an edge with every pattern that is written.

        The pattern is on the panel when the edge comes, and the edge has come when
        :meth:`write` returns, also where the pattern is the one before. A driver need
        not say: most panels have no such output.
        """
        return False

    @abstractmethod
    def write(self, levels: Levels) -> Written:
        """Show a pattern; returns when the panel has it, not when it settled.

        Parameters
        ----------
        levels
            ``(row, column)`` of the panel's shape; uint8 up to 8 bits, uint16
            above. Nothing is cropped, wrapped, cast or corrected.

        Returns
        -------
        written
            Identity of the pattern and the time at which it was complete.

        Raises
        ------
        OutOfRangeError
            Shape, dtype or a level does not fit; nothing was sent.
        """

    def check_shown(self) -> None:
        """Refuse a panel that may have lost what was written last; open only.

        Asked once an exposure is over, before its frame is let in: a panel that goes
        away meanwhile, as a monitor that is switched off, told nobody. A driver need
        not say: most panels cannot be asked.

        Raises
        ------
        DeviceError
            It is gone, or shows in another mode.
        """
        return


def check_levels(panel: SLM, levels: Levels) -> None:
    """Refuse levels that a panel cannot show as they are, before anything is sent.

    Parameters
    ----------
    panel
        The panel.
    levels
        One pattern.

    Raises
    ------
    OutOfRangeError
        Shape, dtype or a level does not fit.
    """
    if tuple(levels.shape) != panel.shape:
        raise OutOfRangeError(
            panel.name, "shape", tuple(levels.shape), low=panel.shape, high=panel.shape
        )
    wanted = "uint8" if panel.bit_depth <= 8 else "uint16"
    if levels.dtype != wanted:
        raise OutOfRangeError(
            panel.name, "dtype", levels.dtype, low=wanted, high=wanted
        )
    most = (1 << panel.bit_depth) - 1
    if levels.max() > most:
        raise OutOfRangeError(panel.name, "level", levels.max(), low=0, high=most)


@runtime_checkable
class Laser(Device, Protocol):
    """A light source. Dark after open, dark after close."""

    @property
    @abstractmethod
    def wavelength_nm(self) -> float:
        """Vacuum wavelength; open only."""

    @property
    @abstractmethod
    def power_limits_mw(self) -> tuple[float, float]:
        """Least and greatest power that the head accepts; open only."""

    @property
    @abstractmethod
    def repetition_rate_hz(self) -> float | None:
        """Pulses a second; None for a continuous source."""

    @property
    @abstractmethod
    def pulse_width_fs(self) -> float | None:
        """Length of a pulse; None for a continuous source."""

    @abstractmethod
    def set_power_mw(self, power_mw: float) -> None:
        """Demand a power; never switches emission.

        Raises
        ------
        OutOfRangeError
            Beyond the limits; nothing was sent.
        """

    @abstractmethod
    def setpoint_mw(self) -> float:
        """Power that was demanded."""

    @abstractmethod
    def power_mw(self) -> float:
        """Power that the head measures; 0 while dark."""

    @abstractmethod
    def emission(self, on: bool) -> None:
        """Switch emission; returns when it is confirmed.

        Raises
        ------
        InterlockError
            The interlock is open.
        DeviceError
            Emission did not start; the laser was told to go dark first.
        LaserStillOnError
            Emission did not stop.
        """

    @abstractmethod
    def is_emitting(self) -> bool:
        """Whether the head says that it emits."""

    @abstractmethod
    def faults(self) -> list[str]:
        """Faults in words; empty when all is well. Any one stops a run that is lit."""


@runtime_checkable
class Watchdog(Protocol):
    """Capability of a laser: its own timer makes it dark when nobody kicks it.

    The timer runs in the head, so it works when guard and computer are frozen.
    """

    @abstractmethod
    def arm(self, timeout_s: float) -> None:
        """Start the timer; emission stops when it runs out.

        Opening, closing and switching emission off disarm it.

        Parameters
        ----------
        timeout_s
            Greatest time between two kicks, on the laser's own clock.

        Raises
        ------
        OutOfRangeError
            The timer cannot be set to that; nothing was sent.
        """

    @abstractmethod
    def kick(self) -> None:
        """Start the timer again; does nothing where it is not armed."""


@runtime_checkable
class Camera(Device, Protocol):
    """A frame source that is triggered, one frame a trigger."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Full sensor ``(height, width)``, in pixels."""

    @property
    @abstractmethod
    def bit_depth(self) -> int:
        """Bits a pixel, right-justified."""

    @property
    @abstractmethod
    def pixel_um(self) -> float:
        """Distance between pixels."""

    @property
    @abstractmethod
    def exposure_limits_s(self) -> tuple[float, float]:
        """Least and greatest exposure time; open only."""

    @property
    @abstractmethod
    def gain_limits_db(self) -> tuple[float, float]:
        """Least and greatest gain; open only."""

    @property
    @abstractmethod
    def saturation_dn(self) -> int:
        """Counts from which a pixel is saturated."""

    @property
    @abstractmethod
    def frame_id_modulus(self) -> int | None:
        """Where the frame counter starts again; None if it never does."""

    @property
    def time_error_s(self) -> float:
        """Greatest :attr:`Frame.time_error_s` of a frame that is triggered now.

        Whoever triggers waits twice as long more, so that a fresh frame shows it. A
        driver need not say: 0 is for times that hold as they are, and a camera that
        says it when it was armed is not asked again.
        """
        return 0.0

    @property
    def tells_exposure_end(self) -> bool:
        """Whether :meth:`wait_exposed` works: the next pattern need not await a frame.

        A driver need not say: without it patterns are stepped one frame at a time.
        """
        return False

    def wait_exposed(self, timeout_s: float) -> None:
        """Wait until the exposure of the newest trigger is over, its frame still away.

        For cameras that :attr:`tells_exposure_end`. It returns by what the camera says,
        never by a guess of when the exposure should be over, and the frame's
        :attr:`Frame.exposure_end_s` is then not after the return, its time error apart.

        Parameters
        ----------
        timeout_s
            Longest time to wait.

        Raises
        ------
        FrameError
            ``timeout``: it does not say. ``removed``: it is gone.
        DeviceError
            It cannot say.
        """
        del timeout_s
        text = "it does not tell when an exposure ends. Wait for its frame."
        raise DeviceError(self.name, "wait for the end of an exposure", text)

    @property
    def edge_lines(self) -> tuple[str, ...]:
        """Lines on which an edge can start an exposure; open only.

        A driver need not say: without one, software triggers.
        """
        return ()

    @property
    def edge_delay_limits_s(self) -> tuple[float, float]:
        """Least and greatest time from an edge to the exposure; open only."""
        return 0.0, 0.0

    def arm_for_edges(self, frames: int, edge: Edge) -> None:
        """Get ready for ``frames`` edges; buffers are empty afterwards.

        From then on :meth:`trigger` starts nothing: it says that an edge may come from
        now on, and must be called before each. A frame that came before its edge can
        have been there is ``stale``. :meth:`frame` returns the last only if none is
        left over. For cameras that have :attr:`edge_lines`.

        Parameters
        ----------
        frames
            How many.
        edge
            On which line, and how long before the exposure.

        Raises
        ------
        OutOfRangeError
            There is no such line, or it cannot wait so long; nothing was sent.
        DeviceError
            It takes no edges.
        """
        del frames, edge
        text = "it takes no edges. Remove wiring from the bench file."
        raise DeviceError(self.name, "arm for edges", text)

    @abstractmethod
    def configure(
        self,
        *,
        exposure_s: float,
        gain_db: float = 0.0,
        region: tuple[int, int, int, int] | None = None,
    ) -> CameraSettings:
        """Set exposure, gain and region; refused while armed.

        Parameters
        ----------
        exposure_s
            Exposure time.
        gain_db
            Gain.
        region
            Row, column, height and width, in pixels; None for the sensor.

        Returns
        -------
        taken
            What the camera really took.

        Raises
        ------
        OutOfRangeError
            A value does not fit; nothing was sent.
        DeviceError
            The camera is armed.
        """

    @abstractmethod
    def arm(self, frames: int) -> None:
        """Get ready for ``frames`` triggers; buffers are empty afterwards."""

    @abstractmethod
    def trigger(self) -> None:
        """Start one exposure.

        Raises
        ------
        FrameError
            ``trigger_refused``: not armed, or more triggers than armed for.
        """

    @abstractmethod
    def frame(self, timeout_s: float) -> Frame:
        """Return the answer to the oldest trigger that has none yet.

        A frame that began before its trigger is never returned.

        Raises
        ------
        FrameError
            ``timeout`` or any other class of rejection.
        """

    @abstractmethod
    def disarm(self) -> None:
        """Stop; may be called when not armed."""


@runtime_checkable
class Shutter(Device, Protocol):
    """Something that blocks the beam. Closed after open, closed after close."""

    @abstractmethod
    def set_open(self, is_open: bool) -> None:
        """Move, and return when the position was read back.

        Raises
        ------
        DeviceError
            It did not get there.
        """

    @abstractmethod
    def is_open(self) -> bool:
        """Position, read back."""


@runtime_checkable
class Attenuator(Device, Protocol):
    """Something that dims the beam. At its least after open and close."""

    @property
    @abstractmethod
    def transmission_limits(self) -> tuple[float, float]:
        """Least and greatest transmission, as fractions."""

    @abstractmethod
    def set_transmission(self, transmission: float) -> None:
        """Set the transmitted fraction of the power.

        Raises
        ------
        OutOfRangeError
            Beyond the limits; nothing was sent.
        """

    @abstractmethod
    def transmission(self) -> float:
        """Read the transmitted fraction back."""


@runtime_checkable
class Meter(Device, Protocol):
    """Something that measures one number, such as the optical power."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """Unit of the readings, such as ``mW``."""

    @abstractmethod
    def reading(self) -> Reading:
        """Return the newest value and when it was measured.

        Raises
        ------
        DeviceTimeoutError
            The meter is silent.
        """


class Sequence(Protocol):
    """Capability: play N patterns and return N frames in one go."""

    @property
    @abstractmethod
    def longest(self) -> int:
        """Greatest number of patterns that one call accepts."""

    @abstractmethod
    def play(self, levels: Levels, *, settle_s: float) -> Played:
        """Show every pattern, wait, expose; with the camera's settings.

        Stepping the same patterns through ``SLM.write``, ``Clock.sleep`` and
        ``Camera.trigger`` gives the same frames.

        Parameters
        ----------
        levels
            ``(pattern, row, column)``.
        settle_s
            Time between a complete write and the start of its exposure.

        Returns
        -------
        played
            One row per pattern, in order.

        Raises
        ------
        OutOfRangeError
            Levels do not fit the panel, or there are too many patterns.
        FrameError
            A frame is missing or not the one expected: none is returned.
        """


class Oracle(Protocol):
    """Capability of simulated benches: the true gradient, for reference only."""

    @abstractmethod
    def gradient(
        self, levels: Levels, cotangent: "NDArray[np.float64]", *, power_mw: float
    ) -> "NDArray[np.float64]":
        """Pull a gradient on the mean frame back to the gray levels.

        Costs no exposure, moves no clock, draws no noise.

        Parameters
        ----------
        levels
            ``(pattern, row, column)`` of the panel, settled.
        cotangent
            Derivative of something with respect to each count of the frame,
            ``(pattern, row, column)``, with the camera's present settings.
        power_mw
            Optical power.

        Returns
        -------
        gradient
            Derivative with respect to each gray level,
            ``(pattern, row, column)``; the jump from the last level to 0 is
            not part of it.
        """


@dataclass(frozen=True)
class Convergence:
    """How far a simulated light path is from continuous optics, on some patterns.

    Parameters
    ----------
    steps
        Steps of its scheme.
    step_gate
        Relative change of the light on the sensor with twice the steps.
    nyquist_share
        Share of the entrance's power that the grid hardly resolves, with the
        patterns' phases brought to half a turn.
    nyquist_share_full_range
        The same with the patterns as they are.
    exit_share
        Share of the power at the exit face that the grid hardly resolves, and that
        lies at the rim of the far field, with phases up to half a turn; 0 where
        the medium is made of grid points, as a scatterer is.
    power_over_critical
        Power over that of self-focusing, without saturation.
    enough_steps
        Steps whose gate passes; None where no sensible number does.
    enough_grid
        Rows and columns that resolve the panel and the far field; None where no
        sensible grid does.
    """

    steps: int
    step_gate: float
    nyquist_share: float
    nyquist_share_full_range: float
    exit_share: float
    power_over_critical: float
    enough_steps: int | None
    enough_grid: tuple[int, int] | None


class World(Protocol):
    """The simulated light path that the devices of a simulated bench share."""

    @property
    @abstractmethod
    def clock(self) -> Clock:
        """The virtual clock of this bench."""

    @property
    @abstractmethod
    def shots(self) -> int:
        """Exposures made so far, whatever for."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that a checkpoint must hold to go on bit-identically."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a state that :meth:`state` returned."""

    @abstractmethod
    def spare(self, shots: int) -> None:
        """Let nothing end the run again that ended one before: it was mended.

        Parameters
        ----------
        shots
            Exposures that were made by then.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the beam's file; may be called twice."""

    @abstractmethod
    def describe(self) -> Settings:
        """Medium, grid, kernel and imperfections, for the record."""

    @abstractmethod
    def convergence(self, levels: Levels, *, power_mw: float) -> Convergence:
        """Measure how converged the light path is; costs no shot and no time.

        Parameters
        ----------
        levels
            ``(pattern, row, column)``: patterns as the run will show them.
        power_mw
            Power on the panel.

        Returns
        -------
        convergence
            Both figures, and what would do where they fail.
        """
