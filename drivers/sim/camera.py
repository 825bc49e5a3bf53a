"""The simulated camera: triggers exposures of the light path, hands out frames."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, final

import numpy as np
from typing_extensions import override

from drivers.sim.faults import (
    NO_RETURN,
    Fault,
    never_return,
    parse_faults,
)
from drivers.sim.noise import Stream
from drivers.sim.options import parse
from drivers.sim.schedule import Schedule
from drivers.sim.sensor import BIT_DEPTH
from drivers.sim.world import Shot, World
from labctl.devices import (
    Camera,
    CameraSettings,
    Clock,
    ClockOffset,
    Frame,
    Identity,
    Settings,
)
from labctl.errors import DeviceError, FrameError, OutOfRangeError

_EXPOSURE_S = (1e-5, 1.0)
_GAIN_DB = (0.0, 24.0)
# What can break between sensor and run; a schedule names them.
KINDS: Final = (
    "dropped",
    "duplicated",
    "late",
    "reordered",
    "truncated",
    "wrong_shape",
    "trigger_refused",
    "hung",
    NO_RETURN,
    "removed",
)
# What of it ends a run.
_ENDING: Final = ("wrong_shape", "trigger_refused", "hung", NO_RETURN, "removed")
# A GigE Vision 1 counter has 16 bits and skips 0: 65,535 is followed by 1.
_SHORT_MODULUS = 65_535


def _number(default: float, low: float, high: float) -> float:
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class CameraOptions:
    """How frames get from the sensor to whoever asked for them.

    Parameters
    ----------
    pixel_um
        Distance between pixels, before binning [G].
    frame_id_bits
        Width of the frame counter: 64, which never starts again, or 16, which
        goes from 65,535 to 1 as GigE Vision 1 has it [S].
    clock_offset_s
        What the camera's own clock shows when the bench clock shows 0. Where it is
        another one, the times of frames are told by it, as it was read at arming.
    clock_ppm
        How much faster it goes, in parts per million [G].
    free_running_s
        Time from one exposure to the next of a camera that nobody triggers; 0
        for one that is triggered. It hands out whatever is in its buffers, the
        oldest first: without looking at the time of a frame it is not known
        what it shows.
    buffers
        Frames that a free-running camera keeps until they are fetched; what
        comes while they are full is lost [G].
    tells_exposure_end
        Whether it says that an exposure is over, before it has read the frame out: the
        next pattern is written meanwhile, so the virtual time of a shot depends on
        where a batch ends.
    """

    pixel_um: float = _number(6.5, 1e-3, 1e6)
    frame_id_bits: Literal[16, 64] = 64
    clock_offset_s: float = _number(0.0, -1e9, 1e9)
    clock_ppm: float = _number(0.0, -1e4, 1e4)
    free_running_s: float = _number(0.0, 0.0, 1e3)
    buffers: int = field(default=8, metadata={"low": 1, "high": 1000})
    tells_exposure_end: bool = False


@dataclass(frozen=True, eq=False)
class Delivery:
    """A frame on its way from the sensor.

    Parameters
    ----------
    trigger
        Number of its trigger since the camera was armed.
    frame_id
        The camera's counter.
    shot
        The exposure.
    arrival_s
        When it is there.
    fault
        What happened to it on the way; None if nothing.
    """

    trigger: int
    frame_id: int
    shot: Shot
    arrival_s: float
    fault: Fault | None = None

    @property
    def kind(self) -> str:
        """What happened to it; empty if nothing."""
        return "" if self.fault is None else self.fault.kind


@final
class SimCamera(Camera):
    """A triggered 16-bit camera in the light path.

    An exposure starts when it is triggered; a trigger that comes before the last
    frame is read out waits for that.

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
        Schedule of what breaks, as :func:`drivers.sim.faults.parse_faults`
        reads it; its kinds are :data:`KINDS`.
    **parts
        Keys of :class:`CameraOptions`.

    Raises
    ------
    TypeError
        A key is unknown or a value has the wrong type.
    ValueError
        The clock is another one than the light path's, or an option is
        impossible.
    """

    def __init__(
        self,
        *,
        world: World,
        clock: Clock,
        name: str = "camera",
        serial: str = "SIM-CAMERA-1",
        faults: Sequence[Mapping[str, object]] = (),
        **parts: object,
    ) -> None:
        if clock is not world.clock:
            text = f"{name}.clock is another clock, expected that of its world"
            raise ValueError(text)
        self.world = world
        self._made = parse(CameraOptions, parts, name)
        self._faults = Schedule(
            parse_faults(faults, KINDS, name),
            world.seed,
            Stream.CAMERA_FAULTS,
            ending=_ENDING,
        )
        self._name, self._serial = name, serial
        self._open = False
        self._taken = CameraSettings(0.001, 0.0, (0, 0, *world.options.sensor_shape))
        self._left = self._triggers = 0
        self._armed = False
        self._pending: list[Delivery] = []
        # Frames that wait until the next one has overtaken them.
        self._held: list[Delivery] = []
        self._lost = 0
        self._hung = self._removed = False
        self._next_s = 0.0
        self._newest: Shot | None = None
        # None where its clock is that of the bench.
        self._offset: ClockOffset | None = None

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self.world.options.sensor_shape

    @property
    @override
    def bit_depth(self) -> int:
        return BIT_DEPTH

    @property
    @override
    def pixel_um(self) -> float:
        return self._made.pixel_um * self.world.options.sensor.binning

    @property
    @override
    def exposure_limits_s(self) -> tuple[float, float]:
        return _EXPOSURE_S

    @property
    @override
    def gain_limits_db(self) -> tuple[float, float]:
        return _GAIN_DB

    @property
    @override
    def saturation_dn(self) -> int:
        return self.world.sensor.saturation_dn(self._taken.gain_db)

    @property
    @override
    def frame_id_modulus(self) -> int | None:
        return _SHORT_MODULUS if self._made.frame_id_bits == 16 else None

    @property
    @override
    def time_error_s(self) -> float:
        begins_s = max(self.world.clock.now(), self.world.ready_s)
        return self._error_s(begins_s + self._taken.exposure_s)

    @property
    @override
    def tells_exposure_end(self) -> bool:
        return self._made.tells_exposure_end

    @override
    def wait_exposed(self, timeout_s: float) -> None:
        self.check_open("wait_exposed")
        if not self._made.tells_exposure_end:
            super().wait_exposed(timeout_s)
        self._check_there()
        clock, shot = self.world.clock, self._newest
        wait_s = math.inf if shot is None else shot.end_s - clock.now()
        if wait_s > timeout_s:
            clock.sleep(timeout_s)
            text = f"no exposure ended within {timeout_s} s"
            raise FrameError(self._name, "timeout", text)
        clock.sleep(max(0.0, wait_s))

    @property
    def taken(self) -> CameraSettings:
        """Settings in force."""
        return self._taken

    @override
    def open(self) -> None:
        if self._open:
            raise DeviceError(self._name, "open", "already open. Close it first.")
        self._open = True
        self.world.restart_frames()
        self._pending.clear()
        self._held.clear()
        self._removed = False
        self.disarm()
        self._latch()

    @override
    def close(self) -> None:
        self.disarm()
        self._open = False

    @override
    def identity(self) -> Identity:
        self.check_open("identity")
        return Identity("labctl", "simulated camera", self._serial, "1")

    @override
    def settings(self) -> Settings:
        return {
            "shape": list(self.shape),
            "bit_depth": self.bit_depth,
            "pixel_um": self.pixel_um,
            "exposure_s": self._taken.exposure_s,
            "gain_db": self._taken.gain_db,
            "region": list(self._taken.region),
        }

    def check_open(self, action: str) -> None:
        """Refuse an action on a closed camera.

        Raises
        ------
        DeviceError
            It is closed.
        """
        if not self._open:
            raise DeviceError(self._name, action, "not open. Open it first.")

    @override
    def configure(
        self,
        *,
        exposure_s: float,
        gain_db: float = 0.0,
        region: tuple[int, int, int, int] | None = None,
    ) -> CameraSettings:
        self.check_open("configure")
        if self._armed:
            raise DeviceError(self._name, "configure", "armed. Disarm it first.")
        self._check("exposure_s", exposure_s, _EXPOSURE_S)
        self._check("gain_db", gain_db, _GAIN_DB)
        full = (0, 0, *self.shape)
        self._taken = CameraSettings(
            float(exposure_s),
            float(gain_db),
            full if region is None else self._checked_region(region),
        )
        return self._taken

    def _check(self, quantity: str, got: float, limits: tuple[float, float]) -> None:
        low, high = limits
        if not low <= got <= high:
            raise OutOfRangeError(self._name, quantity, got, low=low, high=high)

    def _checked_region(
        self, region: tuple[int, int, int, int]
    ) -> tuple[int, int, int, int]:
        row, column, height, width = region
        inside = (
            row >= 0
            and column >= 0
            and height > 0
            and width > 0
            and row + height <= self.shape[0]
            and column + width <= self.shape[1]
        )
        if not inside:
            raise OutOfRangeError(
                self._name, "region", region, low=(0, 0, 1, 1), high=(0, 0, *self.shape)
            )
        return (row, column, height, width)

    @override
    def arm(self, frames: int) -> None:
        self.check_open("arm")
        self._check_there()
        if frames < 1:
            raise OutOfRangeError(self._name, "frames", frames, low=1, high="any")
        self.disarm()
        self._latch()
        self._armed, self._left = True, frames
        if self._made.free_running_s > 0:
            self._run()

    def _run(self) -> None:
        period_s, clock = self._made.free_running_s, self.world.clock
        least_s = self._taken.exposure_s + self.world.options.sensor.readout_s
        if period_s < least_s:
            raise OutOfRangeError(
                self._name, "free_running_s", period_s, low=least_s, high="any"
            )
        self._next_s = max(clock.now(), self.world.ready_s)
        self.world.before_write = self._catch_up

    def _catch_up(self) -> None:
        """Make the exposures that have started by themselves since."""
        while self._armed and self._next_s <= self.world.clock.now():
            shot = self.world.expose(self._taken, self._next_s)
            self._triggers += 1
            frame_id = self._counter(self.world.next_frame_id())
            if len(self._pending) < self._made.buffers:
                arrival_s = self.world.arrival_s(shot)
                made = Delivery(self._triggers, frame_id, shot, arrival_s)
                self._pending.append(made)
            self._next_s += self._made.free_running_s

    @override
    def disarm(self) -> None:
        # What a fault holds up is in no buffer: it comes whenever it comes, and
        # counts from before the next arming.
        now = self.world.clock.now()
        late = [
            replace(each, trigger=each.trigger - self._triggers)
            for each in self._pending
            if each.kind == "late" and each.arrival_s > now
        ]
        self._held = [
            replace(each, trigger=each.trigger - self._triggers) for each in self._held
        ]
        self._pending = late
        self._armed, self._left, self._triggers, self._lost = False, 0, 0, 0
        self._newest = None
        if self._made.free_running_s > 0:
            self.world.before_write = None
        self._hung = False

    @override
    def trigger(self) -> None:
        self._pending += self.deliveries(self.start())
        self._pending.sort(key=lambda each: each.arrival_s)

    def start(self) -> Delivery:
        """Start an exposure that nobody has to fetch.

        Returns
        -------
        delivery
            Its frame, if all goes well on the way.

        Raises
        ------
        FrameError
            ``trigger_refused``: not armed, or more triggers than armed for.
            ``removed``: the camera is gone.
        """
        self._check_there()
        refused = self._refusal()
        if refused:
            raise FrameError(self._name, "trigger_refused", refused)
        fault = self._fault()
        if fault is not None and fault.kind == "trigger_refused":
            raise FrameError(
                self._name, "trigger_refused", "not ready. Look at the camera."
            )
        early = self.world.ready_s - self.world.clock.now()
        if early > 0:
            self.world.clock.sleep(early)
        shot = self._newest = self.world.expose(self._taken)
        self._left -= 1
        self._triggers += 1
        return Delivery(
            trigger=self._triggers,
            frame_id=self._counter(self.world.next_frame_id()),
            shot=shot,
            arrival_s=self.world.arrival_s(shot),
            fault=fault,
        )

    def _refusal(self) -> str:
        if not self._armed:
            return "not armed. Arm it for more frames."
        if self._made.free_running_s > 0:
            return "it runs freely. Set free_running_s to 0 in the bench file."
        if self._left == 0:
            return "no trigger left since arm. Arm it for more frames."
        return ""

    def _fault(self) -> Fault | None:
        world = self.world
        return self._faults.at(world.shots, world.clock.now(), world.spared)

    def _check_there(self) -> None:
        fault = self._fault()
        self._removed |= fault is not None and fault.kind == "removed"
        if self._removed:
            raise FrameError(
                self._name, "removed", "no longer there. Look at plug and power."
            )

    def _counter(self, frames: int) -> int:
        modulus = self.frame_id_modulus
        return frames if modulus is None else (frames - 1) % modulus + 1

    def device_time_s(self, time_s: float) -> float:
        """Read the camera's own clock.

        Parameters
        ----------
        time_s
            On the bench clock.

        Returns
        -------
        device_time
            At that moment.
        """
        fast = 1 + self._made.clock_ppm * 1e-6
        return time_s * fast + self._made.clock_offset_s

    def _latch(self) -> None:
        made, clock = self._made, self.world.clock
        if made.clock_offset_s or made.clock_ppm:
            # Its data sheet is good: it knows how fast its clock may be.
            self._offset = ClockOffset.latched(
                clock,
                lambda: self.device_time_s(clock.now()),
                rate=abs(made.clock_ppm) * 1e-6,
            )

    def _told_s(self, time_s: float) -> float:
        """Tell a time on the bench clock, as far as its own clock shows it."""
        if self._offset is None:
            return time_s
        return self._offset.bench_time_s(self.device_time_s(time_s))

    def _error_s(self, time_s: float) -> float:
        if self._offset is None:
            return 0.0
        return self._offset.bench_error_s(self.device_time_s(time_s))

    def deliveries(self, made: Delivery) -> list[Delivery]:
        """Send a frame on its way, on which it may meet a fault.

        Parameters
        ----------
        made
            From :meth:`start`.

        Returns
        -------
        deliveries
            What arrives, and when, in order: none, it, or it and others.
        """
        overtaken, self._held = self._held, []
        late = [replace(each, arrival_s=made.arrival_s) for each in overtaken]
        match made.kind:
            case "dropped":
                self._lost += 1
                return late
            case "hung":
                self._hung = True
                return late
            case "reordered":
                self._held.append(made)
                return late
            case "duplicated":
                return [made, made, *late]
            case "late" if made.fault is not None:
                at = made.arrival_s + made.fault.delay_s
                return [*late, replace(made, arrival_s=at)]
        return [made, *late]

    @override
    def frame(self, timeout_s: float) -> Frame:
        self.check_open("frame")
        self._check_there()
        clock, start_s = self.world.clock, self.world.clock.now()
        if self._armed and self._made.free_running_s > 0:
            wait_s = 0.0 if self._pending else self._next_s - start_s
            clock.sleep(min(max(wait_s, 0.0), timeout_s))
            self._catch_up()
            timeout_s = max(0.0, timeout_s - (clock.now() - start_s))
        if self._hung or not self._pending:
            clock.sleep(timeout_s)
            raise self._missing(timeout_s)
        first = self._pending[0]
        wait = first.arrival_s - clock.now()
        if wait > timeout_s:
            clock.sleep(timeout_s)
            kind = "late" if first.kind == "late" else "timeout"
            text = f"no frame within {timeout_s} s, still exposing or on its way"
            raise FrameError(self._name, kind, text)
        if wait > 0:
            clock.sleep(wait)
        if first.kind == NO_RETURN:
            never_return()
        self._pending.remove(first)
        return self._framed(first)

    def _missing(self, timeout_s: float) -> FrameError:
        waited = f"no frame within {timeout_s} s"
        if self._hung:
            return FrameError(self._name, "timeout", f"{waited}, the read hangs")
        if self._held:
            return FrameError(self._name, "late", f"{waited}, it is still on its way")
        if self._lost:
            text = f"{waited}, the camera counts {self._lost} that never arrived"
            return FrameError(self._name, "gap", text)
        return FrameError(self._name, "timeout", f"{waited}, no trigger waits for one")

    def _framed(self, arrived: Delivery) -> Frame:
        shot = arrived.shot
        data = self.world.render([shot])[0]
        if arrived.kind == "truncated":
            data = data[: len(data) // 2]
        elif arrived.kind == "wrong_shape":
            data = data[:0]
        return Frame(
            data=np.ascontiguousarray(data),
            frame_id=arrived.frame_id,
            trigger=arrived.trigger,
            device_time_s=self.device_time_s(shot.start_s),
            host_time_s=self.world.clock.now(),
            exposure_start_s=self._told_s(shot.start_s),
            exposure_end_s=self._told_s(shot.end_s),
            time_error_s=max(self._error_s(shot.start_s), self._error_s(shot.end_s)),
        )
