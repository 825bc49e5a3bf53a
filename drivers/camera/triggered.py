"""The life cycle that every camera shares: one trigger a frame, nothing stale."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from labctl.devices import (
    Camera,
    CameraSettings,
    Clock,
    Edge,
    Frame,
    Identity,
    Settings,
)
from labctl.errors import DeviceError, FrameError, OutOfRangeError

T = TypeVar("T")
ALONE_S: Final = 0.02  # beyond the slowest of its batch, for a frame that is left over
OWED_S: Final = 0.3  # beyond its exposure, for a frame before which another came
GAIN_DB: Final = 0.1  # how far a gain may be from the one asked for
#: Bits of the pixel formats of GenICam that are right-justified.
BITS: Final = {"Mono8": 8, "Mono10": 10, "Mono12": 12, "Mono16": 16}


def bits_of(name: str, pixel_format: str, padding: int = 0) -> int:
    """Look up the bits of a pixel format, without those that a camera leaves 0.

    Parameters
    ----------
    name
        Name of the camera, for the message.
    pixel_format
        One of :data:`BITS`.
    padding
        Low bits of each count that are always 0.

    Returns
    -------
    bits
        A pixel.

    Raises
    ------
    ValueError
        It is none of these, or has no such padding.
    """
    if pixel_format not in BITS:
        text = (
            f"{name}: pixel_format={pixel_format!r}, expected one of {', '.join(BITS)}"
        )
        raise ValueError(text)
    bits = BITS[pixel_format]
    if not 0 <= padding < bits:
        text = f"{name}: padding={padding}, expected 0 to {bits - 1} ({pixel_format})"
        raise ValueError(text)
    return bits - padding


def the_one(
    name: str, wanted: str, there: Sequence[T], called: Callable[[T], Sequence[str]]
) -> T:
    """Choose a camera among those that are plugged in.

    Parameters
    ----------
    name
        Name in the bench file.
    wanted
        What its options call it; empty for the only one there is.
    there
        All that are plugged in.
    called
        What one of them may be called; the first that is not empty is told.

    Returns
    -------
    camera
        The one.

    Raises
    ------
    DeviceError
        None or several are there.
    """
    hits = [each for each in there if not wanted or wanted in called(each)]
    if len(hits) != 1:
        labels = (next(filter(None, called(each)), "?") for each in there)
        text = (
            f"camera={wanted or 'any'}: {len(hits)} of those plugged in "
            f"({', '.join(labels) or 'none'}), expected one. Name its serial number in "
            "the options, or look at plug, power and network address."
        )
        raise DeviceError(name, "open", text)
    return hits[0]


@dataclass(frozen=True)
class GainScale:
    """What a camera's own numbers of gain are in dB.

    Parameters
    ----------
    zero
        The number at 0 dB.
    db_per_step
        ``dB = db_per_step * (number - zero)``; 0 for a camera that counts in factors,
        ``dB = 20 log10(number / zero)``.
    """

    zero: float = 0.0
    db_per_step: float = 1.0

    @classmethod
    def of(cls, name: str, told: Mapping[str, float] | None) -> "GainScale | None":
        """Take it from the options of a camera.

        Parameters
        ----------
        name
            Name of the camera, for the message.
        told
            ``{db_per_step: 0.0359, zero: 0}`` or ``{unity: 32}``; None for nothing.

        Raises
        ------
        ValueError
            It is neither.
        """
        if told is None:
            return None
        keys = set(told)
        if "db_per_step" in keys <= {"db_per_step", "zero"} and told["db_per_step"] > 0:
            return cls(told.get("zero", 0.0), told["db_per_step"])
        if keys == {"unity"} and told["unity"] > 0:
            return cls(told["unity"], 0.0)
        text = (
            f"{name}: gain={dict(told)}, expected {{db_per_step: …, zero: …}}, of a "
            "camera that counts in steps of dB, or {unity: …}, the number at which one "
            "that counts in factors leaves the signal as it is. Its data sheet says."
        )
        raise ValueError(text)

    def as_db(self, number: float) -> float:
        """Give the gain of a number of the camera, in dB.

        Parameters
        ----------
        number
            As the camera counts; above 0 for factors.
        """
        if self.db_per_step:
            return self.db_per_step * (number - self.zero)
        return 20 * math.log10(number / self.zero)

    def as_number(self, gain_db: float) -> float:
        """Give the camera's number of a gain.

        Parameters
        ----------
        gain_db
            Gain.
        """
        if self.db_per_step:
            return gain_db / self.db_per_step + self.zero
        return self.zero * 10 ** (gain_db / 20)

    def limits_db(self, low: float, high: float) -> tuple[float, float]:
        """Give the least and the greatest gain.

        Parameters
        ----------
        low, high
            Least and greatest number; a factor of 0 is no gain, 1 is the next.
        """
        least = low if low > 0 or self.db_per_step else 1.0
        return self.as_db(least), self.as_db(high)


def scale_of_gain(name: str, unit: str, told: GainScale | None) -> GainScale | None:
    """Choose how a camera's gain becomes dB.

    Parameters
    ----------
    name
        Name of the camera, for the message.
    unit
        What the camera says, such as ``dB``; empty for none.
    told
        What its options say.

    Returns
    -------
    scale
        None where nobody says it: then the gain stays at its least.

    Raises
    ------
    DeviceError
        The options say it of a gain that is in dB already.
    """
    if unit.lower() != "db":
        return told
    if told is not None:
        text = "option gain, expected none: its gain is in dB. Remove the option."
        raise DeviceError(name, "open", text)
    return GainScale()


def check_taken(
    name: str, node: str, got: object, wanted: object, action: str = "open"
) -> None:
    """Refuse a setting that a camera did not take.

    Parameters
    ----------
    name
        Name in the bench file.
    node
        What was set.
    got, wanted
        What was read back, and what was sent.
    action
        What it was set for.

    Raises
    ------
    DeviceError
        They differ.
    """
    if got != wanted:
        text = f"{node}={got} read back, expected {wanted}."
        raise DeviceError(name, action, text)


def lines_of(sources: Iterable[str]) -> tuple[str, ...]:
    """Find the lines among the sources of triggers that a GenICam camera names.

    Parameters
    ----------
    sources
        Entries of ``TriggerSource``.

    Returns
    -------
    lines
        Those that a cable ends at.
    """
    return tuple(each for each in sources if each.startswith(("Line", "CC")))


def activation_of(edge: Edge) -> str:
    """Name an edge as GenICam cameras do in ``TriggerActivation``.

    Parameters
    ----------
    edge
        The edge.

    Returns
    -------
    entry
        Of that node.
    """
    return "RisingEdge" if edge.is_rising else "FallingEdge"


@dataclass(frozen=True, eq=False)
class Buffer:
    """What came from a camera.

    Parameters
    ----------
    number
        Its own counter; None of a failed one whose counter is not to be had.
    data
        Counts, ``(row, column)``; None where the buffer failed.
    problem
        Why it failed.
    device_time_s
        On the camera's own clock.
    """

    number: int | None
    data: NDArray[Any] | None
    problem: str = ""
    device_time_s: float = 0.0


class Sensor(Protocol):
    """What a camera's library can do; knows no policy. Its errors are ours."""

    #: Where its counter starts again; None if it never does.
    modulus: int | None
    #: Whether it reports that an exposure is over before its frame is here.
    tells_exposure_end: bool = False

    @abstractmethod
    def open(self) -> tuple[int, int]:
        """Take the camera, switch off what is automatic; return rows and columns."""

    @abstractmethod
    def close(self) -> None:
        """Stop and let go; may be called twice, and after an open that failed."""

    @abstractmethod
    def identity(self) -> Identity:
        """Read who it is."""

    @property
    @abstractmethod
    def exposure_limits_s(self) -> tuple[float, float]:
        """Least and greatest exposure time."""

    @property
    @abstractmethod
    def gain_limits_db(self) -> tuple[float, float]:
        """Least and greatest gain."""

    @property
    @abstractmethod
    def steps(self) -> tuple[int, int, int, int]:
        """Steps of row, column, height and width of a region."""

    @abstractmethod
    def apply(
        self, exposure_s: float, gain_db: float, region: tuple[int, int, int, int]
    ) -> CameraSettings:
        """Send settings within the limits, and read them back."""

    @abstractmethod
    def start(self, frames: int) -> None:
        """Get ready for triggers; no old frame is left."""

    @property
    def edge_lines(self) -> tuple[str, ...]:
        """Lines on which an edge can start an exposure; most have none."""
        return ()

    @property
    def edge_delay_limits_s(self) -> tuple[float, float]:
        """Least and greatest time that it waits after an edge."""
        return 0.0, 0.0

    def start_for_edges(self, frames: int, edge: Edge) -> float:
        """Get ready for edges; return the delay that it took, which is no shorter.

        For sensors that have lines. A :meth:`start` after it is as before.

        Raises
        ------
        DeviceError
            It did not take the edge.
        """
        del frames
        where, text = "camera", f"no {edge.line}, expected a sensor that has lines."
        raise DeviceError(where, "arm for edges", text)

    @abstractmethod
    def stop(self) -> None:
        """Stop; may be called when not started."""

    @abstractmethod
    def fire(self) -> None:
        """Trigger, once it takes one.

        Raises
        ------
        FrameError
            ``trigger_refused``: it does not get ready.
        """

    @abstractmethod
    def fetch(self, timeout_s: float) -> Buffer | None:
        """Return the oldest buffer; None where none comes."""

    def forget_exposures(self) -> None:
        """Forget which exposures were reported to be over."""
        return

    def exposed(self, timeout_s: float) -> int | None:
        """Return the counter of the next exposure that is reported to be over.

        None where none is. For sensors that say so in :attr:`tells_exposure_end`.
        """
        del timeout_s
        return None

    @abstractmethod
    def is_removed(self) -> bool:
        """Whether it was unplugged."""


@dataclass
class _Ends:
    """Which exposures were told to be over since the camera was armed.

    Parameters
    ----------
    told_s
        When, by the number of their trigger, on the bench clock.
    newest
        Number of the newest of those triggers; 0 before the first.
    counter
        What the camera called it.
    is_believed
        Whether each was told as expected so far.
    """

    told_s: dict[int, float] = field(default_factory=dict)
    newest: int = 0
    counter: int = 0
    is_believed: bool = True

    def is_of(self, trigger: int, counter: int) -> bool:
        """Whether a counter is that of a trigger, by those before."""
        return not self.newest or counter - self.counter == trigger - self.newest

    def take(self, trigger: int, counter: int, now_s: float) -> None:
        """Take note that the exposure of a trigger is over."""
        self.newest, self.counter = trigger, counter
        self.told_s[trigger] = now_s


@final
class TriggeredCamera(Camera):
    """A camera that is triggered, by software or edges, one exposure in flight.

    Parameters
    ----------
    name
        Name in the bench file.
    sensor
        What its library can do.
    clock
        Time of the frames.
    shape
        Rows and columns of its sensor; compared with what it says.
    pixel_um
        Distance between pixels.
    bits
        Bits a pixel, without the padding.
    padding
        Low bits of what the sensor delivers that are always 0: counts of 12 bits that
        are left-justified in 16 have 4.

    Raises
    ------
    ValueError
        An option is impossible.
    """

    def __init__(  # noqa: PLR0913 - one parameter an option
        self,
        name: str,
        sensor: Sensor,
        *,
        clock: Clock,
        shape: Sequence[int],
        pixel_um: float,
        bits: int,
        padding: int = 0,
    ) -> None:
        if len(shape) != 2 or min(shape) < 1 or not pixel_um > 0 or not 1 <= bits <= 16:
            text = (
                f"{name}: shape={list(shape)}, pixel_um={pixel_um}, bits={bits}, "
                "expected rows and columns, more than 0, 1 to 16"
            )
            raise ValueError(text)
        if not 0 <= padding <= 16 - bits:
            text = f"{name}: padding={padding}, expected 0 to {16 - bits}"
            raise ValueError(text)
        self._name, self._sensor, self._clock = name, sensor, clock
        self._shape, self._pixel_um = (int(shape[0]), int(shape[1])), float(pixel_um)
        self._bits, self._padding = bits, padding
        self._taken = CameraSettings(0.0, 0.0, (0, 0, *self._shape))
        self._open = self._armed = False
        self._left = self._frames = 0
        self._last: int | None = None
        self._started_s: list[float] = []
        self._ends = _Ends()
        self._is_owed = False  # a frame whose trigger was met by an earlier one
        # From an edge to its exposure; None where software triggers.
        self._delay_s: float | None = None
        self._slowest_s = 0.0

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self._shape

    @property
    @override
    def bit_depth(self) -> int:
        return self._bits

    @property
    @override
    def pixel_um(self) -> float:
        return self._pixel_um

    @property
    @override
    def exposure_limits_s(self) -> tuple[float, float]:
        return self._opened("exposure limits").exposure_limits_s

    @property
    @override
    def gain_limits_db(self) -> tuple[float, float]:
        return self._opened("gain limits").gain_limits_db

    @property
    @override
    def saturation_dn(self) -> int:
        return (1 << self._bits) - 1

    @property
    def _padded(self) -> int:
        return (1 << self._padding) - 1

    @property
    @override
    def frame_id_modulus(self) -> int | None:
        return self._sensor.modulus

    @override
    def open(self) -> None:
        if self._open:
            raise DeviceError(self._name, "open", "already open. Close it first.")
        try:
            shape = self._sensor.open()
            self._check_shape(shape)
            low_s, high_s = self._sensor.exposure_limits_s
            exposure_s = min(max(0.001, low_s), high_s)
            low_db, _ = self._sensor.gain_limits_db
            full = (0, 0, *shape)
            self._taken = self._sensor.apply(exposure_s, max(0.0, low_db), full)
            self._open = True
        except BaseException:
            self._sensor.close()
            raise

    def _check_shape(self, shape: tuple[int, int]) -> None:
        if shape != self._shape:
            text = (
                f"shape={list(shape)}, expected {list(self._shape)} (bench file). "
                "Correct the options of the camera."
            )
            raise DeviceError(self._name, "open", text)

    @override
    def close(self) -> None:
        self._open = self._armed = False
        self._sensor.close()

    def _opened(self, action: str) -> Sensor:
        """Return the sensor.

        Raises
        ------
        DeviceError
            It is not open: libraries answer all the same.
        FrameError
            It was unplugged: some libraries deliver all the same.
        """
        if not self._open:
            raise DeviceError(self._name, action, "not open. Open it first.")
        if self._sensor.is_removed():
            text = "no longer there. Look at plug and power."
            raise FrameError(self._name, "removed", text)
        return self._sensor

    @override
    def identity(self) -> Identity:
        return self._opened("identity").identity()

    @override
    def settings(self) -> Settings:
        self._opened("settings")
        return {
            "shape": list(self._shape),
            "bit_depth": self._bits,
            "pixel_um": self._pixel_um,
            "exposure_s": self._taken.exposure_s,
            "gain_db": self._taken.gain_db,
            "region": list(self._taken.region),
        }

    @override
    def configure(
        self,
        *,
        exposure_s: float,
        gain_db: float = 0.0,
        region: tuple[int, int, int, int] | None = None,
    ) -> CameraSettings:
        sensor = self._opened("configure")
        if self._armed:
            raise DeviceError(self._name, "configure", "armed. Disarm it first.")
        self._check("exposure_s", exposure_s, sensor.exposure_limits_s)
        self._check("gain_db", gain_db, sensor.gain_limits_db)
        wanted = (0, 0, *self._shape) if region is None else region
        self._check_region(wanted, sensor.steps)
        taken = sensor.apply(exposure_s, gain_db, wanted)
        near = math.isclose(taken.exposure_s, exposure_s, rel_tol=0.01, abs_tol=2e-6)
        if not near or abs(taken.gain_db - gain_db) > GAIN_DB or taken.region != wanted:
            text = (
                f"read back {taken}, expected exposure_s={exposure_s:g}, "
                f"gain_db={gain_db:g}, region={wanted}."
            )
            raise DeviceError(self._name, "configure", text)
        self._taken = taken
        return taken

    def _check(self, quantity: str, got: float, limits: tuple[float, float]) -> None:
        low, high = limits
        if not low <= got <= high:
            raise OutOfRangeError(self._name, quantity, got, low=low, high=high)

    def _check_region(
        self, region: tuple[int, int, int, int], steps: tuple[int, int, int, int]
    ) -> None:
        """Refuse a region that is not on the sensor, or not in its steps.

        Raises
        ------
        OutOfRangeError
            Nothing was sent.
        """
        row, column, height, width = region
        inside = (
            min(row, column) >= 0
            and min(height, width) > 0
            and row + height <= self._shape[0]
            and column + width <= self._shape[1]
        )
        if not inside or any(
            value % step for value, step in zip(region, steps, strict=True)
        ):
            raise OutOfRangeError(
                self._name,
                "region",
                region,
                low=(0, 0, steps[2], steps[3]),
                high=(0, 0, *self._shape),
                source=f"device, in steps of {list(steps)}",
            )

    @override
    def arm(self, frames: int) -> None:
        sensor = self._ready("arm", frames)
        sensor.start(frames)
        self._begin(frames, None)

    def _ready(self, action: str, frames: int) -> Sensor:
        sensor = self._opened(action)
        if frames < 1:
            raise OutOfRangeError(self._name, "frames", frames, low=1, high="any")
        self.disarm()
        return sensor

    def _begin(self, frames: int, delay_s: float | None) -> None:
        self._armed, self._left, self._frames = True, frames, 0
        self._last, self._started_s, self._ends = None, [], _Ends()
        self._is_owed = False
        self._delay_s, self._slowest_s = delay_s, 0.0

    @property
    @override
    def edge_lines(self) -> tuple[str, ...]:
        return self._opened("lines").edge_lines

    @property
    @override
    def edge_delay_limits_s(self) -> tuple[float, float]:
        return self._opened("delay limits").edge_delay_limits_s

    @override
    def arm_for_edges(self, frames: int, edge: Edge) -> None:
        sensor = self._ready("arm for edges", frames)
        lines = sensor.edge_lines
        if not lines:
            super().arm_for_edges(frames, edge)
        if edge.line not in lines:
            raise OutOfRangeError(
                self._name, "line", edge.line, low=lines[0], high=lines[-1]
            )
        self._check("delay_s", edge.delay_s, sensor.edge_delay_limits_s)
        delay_s = sensor.start_for_edges(frames, edge)
        if not 0 <= delay_s - edge.delay_s + 1e-9 <= 2e-6 + 0.01 * edge.delay_s:
            sensor.stop()
            text = f"delay_s={delay_s:g} read back, expected {edge.delay_s:g}."
            raise DeviceError(self._name, "arm for edges", text)
        self._begin(frames, max(delay_s, edge.delay_s))

    @override
    def trigger(self) -> None:
        sensor = self._opened("trigger")
        if not self._armed or self._left == 0:
            text = "no trigger left since arm. Arm it for more frames."
            raise FrameError(self._name, "trigger_refused", text)
        self._left -= 1
        # What is told from here on is told of this exposure, or of one before that was
        # slow to be told; the latter has another counter.
        sensor.forget_exposures()
        self._started_s.append(self._clock.now())
        if self._delay_s is None:
            sensor.fire()

    def _least_s(self) -> float:
        """Time between a trigger and the earliest end of its exposure."""
        return (self._delay_s or 0.0) + self._taken.exposure_s

    @property
    @override
    def tells_exposure_end(self) -> bool:
        return self._sensor.tells_exposure_end

    @override
    def wait_exposed(self, timeout_s: float) -> None:
        sensor = self._opened("wait for the end of an exposure")
        if not sensor.tells_exposure_end:
            super().wait_exposed(timeout_s)
        newest, ends = len(self._started_s), self._ends
        if newest == ends.newest and newest:
            return
        text = f"no exposure ended within {timeout_s} s"
        if self._armed and newest and ends.is_believed:
            counter, now_s = sensor.exposed(timeout_s), self._clock.now()
            self._opened("wait for the end of an exposure")
            took_s = now_s - self._started_s[-1]
            if counter is not None:
                text = (
                    f"exposure {counter} over {took_s:.6f} s after trigger {newest}, "
                    f"expected that of the trigger, after {self._least_s():g} s"
                )
                if took_s >= self._least_s() and ends.is_of(newest, counter):
                    ends.take(newest, counter, now_s)
                    return
        # Once one was not told, or not as expected, the next may be that one, late.
        ends.is_believed = False
        raise FrameError(self._name, "timeout", text)

    @override
    def frame(self, timeout_s: float) -> Frame:
        sensor = self._opened("frame")
        if not self._armed:
            raise FrameError(self._name, "timeout", "not armed. Arm it first.")
        buffer = sensor.fetch(timeout_s)
        self._opened("frame")  # a removed camera may still deliver, or fall silent
        if buffer is None:
            text = f"no frame within {timeout_s} s"
            raise FrameError(self._name, "timeout", text)
        host_s = self._clock.now()
        before, self._last = self._last, buffer.number
        self._frames += 1
        self._is_owed |= self._is_early(host_s)
        if buffer.number is None or buffer.data is None:
            if buffer.number is None and before is not None:
                self._last = before + 1  # if it is not, the next one is a gap
            raise FrameError(self._name, "incomplete", buffer.problem)
        self._check_order(before, buffer.number)
        start_s = self._begun(host_s)
        if self._delay_s is not None:
            self._check_alone(host_s)
        # Both read here, before and after, or when it said that the exposure was over:
        # its own clock is recorded, and proves nothing, as makers differ in which
        # moment they stamp.
        return Frame(
            data=self._counts(buffer.data),
            frame_id=buffer.number,
            trigger=self._frames,
            device_time_s=buffer.device_time_s,
            host_time_s=host_s,
            exposure_start_s=start_s,
            exposure_end_s=self._ends.told_s.get(self._frames, host_s),
        )

    def _check_order(self, before: int | None, number: int) -> None:
        """Refuse a frame that is not the next one.

        Raises
        ------
        FrameError
            ``gap`` or ``stale``.
        """
        if before is not None:
            modulus = self._sensor.modulus
            steps = number - before
            if (steps if modulus is None else steps % modulus) != 1:
                text = f"frame {number} after {before}, expected the next one"
                raise FrameError(self._name, "gap", text)
        if self._frames > len(self._started_s):
            text = f"{self._frames} frames for {len(self._started_s)} triggers"
            raise FrameError(self._name, "stale", text)

    def _is_early(self, host_s: float) -> bool:
        """Whether what came now cannot be of the trigger whose turn it is."""
        started_s = self._started_s[: self._frames][-1:]
        return bool(started_s) and host_s - started_s[0] < self._least_s()

    def _begun(self, host_s: float) -> float:
        """Return when the exposure began: not before its trigger was sent.

        Raises
        ------
        FrameError
            ``stale``: the exposure cannot have ended yet.
        """
        start_s = self._started_s[self._frames - 1]
        if self._is_early(host_s):
            text = (
                f"here {host_s - start_s:.6f} s after its trigger, expected at least "
                f"{self._least_s():g} s, delay and exposure"
            )
            raise FrameError(self._name, "stale", text)
        return start_s + (self._delay_s or 0.0)

    def _check_alone(self, host_s: float) -> None:
        """Refuse the last frame where an edge too many has made another.

        It has shifted those behind it, so that one is left over. It is waited for as
        long as the slowest frame took, and :data:`ALONE_S`.

        Raises
        ------
        FrameError
            ``gap``
        """
        took_s = host_s - self._started_s[self._frames - 1]
        self._slowest_s = max(self._slowest_s, took_s)
        count = len(self._started_s)
        if self._left or self._frames < count:
            return
        if self._sensor.fetch(self._slowest_s + ALONE_S) is not None:
            text = f"more than {count} frames: an edge came that nobody gave"
            raise FrameError(self._name, "gap", text)

    def _counts(self, data: NDArray[Any]) -> NDArray[np.uint16]:
        """Return an owned copy of counts that are what they should be.

        Raises
        ------
        FrameError
            ``wrong_shape``.
        DeviceError
            They are not justified as the options say.
        """
        if data.shape != self._taken.region[2:]:
            text = f"{data.shape}, expected {self._taken.region[2:]}"
            raise FrameError(self._name, "wrong_shape", text)
        counts = np.array(data, dtype=np.uint16, order="C")
        if self._padding:
            padding = int(np.bitwise_or.reduce(counts, axis=None)) & self._padded
            if padding:
                text = (
                    f"low bits {padding:#b} are set, expected {self._padding} that are "
                    "0: it is not left-justified. Correct padding in its options."
                )
                raise DeviceError(self._name, "frame", text)
            counts >>= self._padding
        if counts.max() > self.saturation_dn:
            text = (
                f"a count of {counts.max()}, expected at most {self.saturation_dn}: "
                "it is left-justified. Choose another pixel_format, or name its "
                "padding."
            )
            raise DeviceError(self._name, "frame", text)
        return counts

    @override
    def disarm(self) -> None:
        owed, self._is_owed, self._armed = self._is_owed, False, False
        if not self._open:
            return
        try:
            if owed:
                # Still to come. A camera that makes it while it is armed anew would
                # hand it out as the answer to the next trigger, and so on for ever.
                self._sensor.fetch(self._least_s() + OWED_S)
        finally:
            self._sensor.stop()
