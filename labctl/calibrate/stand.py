"""An open bench and an open record: what a procedure shows and sees."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from labctl.bench import Bench
from labctl.calibration import CalibrationRecord, CameraResponse, Settle
from labctl.devices import CameraSettings, Levels
from labctl.errors import OutcomeError
from labctl.recording.writer import Recorder
from labctl.reservoir import (
    Batch,
    Blocks,
    Decoder,
    Exposer,
    Ledger,
)
from labctl.run.progress import Progress, Update

CATEGORY = "calibrate"
V = TypeVar("V", bound=object)
# A frame is bright enough when its peak is so many times the noise of the dark.
LEAST_SIGNAL = 8.0
# Light is more than noise at so many standard errors; in the brightest of many spots
# of so many pixels along a side at so many.
SEEN, SEEN_SPOT, SPOT = 4.0, 7.0, 3
TRIES = 8
# Share of pixels that may be saturated where frames are taken as a whole.
SATURATED = 0.01
# No fit takes longer, on any computer that can run a bench.
THINKING_S = 120.0


def frame_of(bench: Bench) -> tuple[int, int]:
    """Height and width of frames of a calibration.

    Parameters
    ----------
    bench
        The open bench.

    Returns
    -------
    shape
        Of the sensor, or of the part that the bench file names.
    """
    region = bench.file.calibrate.region
    return bench.camera.shape if region is None else region[2:]


@dataclass(frozen=True, eq=False)
class Exposed:
    """Frames that were accepted, and how they came about.

    Parameters
    ----------
    frames
        Counts, ``(pattern, row, column)``.
    power_mw
        Metered during each exposure; the head's own reading without a meter.
    start_s
        Start of each exposure on the bench clock.
    exposure_s
        Exposure time that the camera took.
    """

    frames: NDArray[np.uint16]
    power_mw: NDArray[np.float64]
    start_s: NDArray[np.float64]
    exposure_s: float


@dataclass(frozen=True)
class Glimpse:
    """What little light there is in frames that hold too little of it.

    Parameters
    ----------
    light, error
        Of a frame, and its standard error.
    where
        Over the whole sensor, or in a spot.
    needed
        Light over the whole sensor that would do.
    unit
        Of these.
    exposure_s
        Exposure time of the frames.
    is_seen
        Whether it is more than noise.
    """

    light: float
    error: float
    where: str
    needed: float
    unit: str
    exposure_s: float
    is_seen: bool

    def text(self) -> str:
        """Say what was got, what was expected, what to do."""
        got = (
            f"light={self.light:.3g} ± {self.error:.2g} {self.unit} a frame "
            f"{self.where} at exposure_s={self.exposure_s:g}, expected at least "
            f"{self.needed:.3g} over the whole sensor"
        )
        if self.is_seen:
            return (
                f"too few photons: {got}. It can be had at about "
                f"{self.needed / self.light:.2g} times the light: take a filter away, "
                "raise the power, or allow a longer exposure (limits.exposure_s)."
            )
        return (
            "dark, or too few photons to be told from it: the laser emits and the "
            f"camera sees nothing, {got}. The beam is blocked, misses the camera or is "
            "by far too faint: look between panel and camera, and take filters away."
        )


def glimpse(
    level: NDArray[np.float64],
    noise: float,
    needed: float,
    unit: str,
    exposure_s: float,
) -> Glimpse:
    """Look for light over a whole mean frame, and in its brightest spot.

    Parameters
    ----------
    level
        Mean frame above the dark, ``(row, column)``.
    noise
        Standard error of a pixel of it.
    needed
        Light over the whole sensor that would do.
    unit
        Of these.
    exposure_s
        Exposure time of the frames.

    Returns
    -------
    glimpse
        Over the whole sensor if it is seen there, else in the spot if it is there.
    """
    light, error = float(level.sum()), noise * math.sqrt(level.size)
    windows = sliding_window_view(level, [min(SPOT, side) for side in level.shape])
    spot = float(windows.sum(axis=(2, 3)).max())
    spot_error = noise * math.sqrt(windows[0, 0].size)
    over = "over the whole sensor"
    if light <= SEEN * error and spot > SEEN_SPOT * spot_error:
        light, error, over = spot, spot_error, "in its brightest spot"
    is_seen = light > SEEN * error
    return Glimpse(light, error, over, needed, unit, exposure_s, is_seen)


class Stand:
    """Shows patterns and takes frames for a procedure; everything is recorded.

    Parameters
    ----------
    bench
        The open bench.
    recorder
        The open record, of kind ``calibrate``.
    ledger
        Where exposures are booked.
    progress
        Whoever listens.
    name
        Kind of the calibration, for messages.
    """

    def __init__(
        self,
        bench: Bench,
        recorder: Recorder,
        ledger: Ledger,
        progress: Progress,
        name: str,
    ) -> None:
        self.bench, self.ledger, self.name = bench, ledger, name
        self._recorder, self._progress = recorder, progress
        self._patterns: dict[bytes, int] = {}
        self._power_mw = 0.0
        self._stage = ""
        self._writes, self._before = 0, ledger.counts[CATEGORY]
        self._began_s = bench.clock.now()
        self._taken = self.configure(bench.file.reservoir.exposure_s)

    # ---- what is known of the bench ---------------------------------------------

    @property
    def panel(self) -> tuple[int, int]:
        """Height and width of the panel."""
        return self.bench.slm.shape

    @property
    def is_whole(self) -> bool:
        """Whether frames are of the whole sensor."""
        return self.bench.file.calibrate.region is None

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of the sensor at which frames begin."""
        region = self.bench.file.calibrate.region
        return (0, 0) if region is None else region[:2]

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width of frames."""
        return frame_of(self.bench)

    @property
    def levels(self) -> int:
        """Number of gray levels."""
        return 1 << self.bench.slm.bit_depth

    @property
    def nominal_mw(self) -> float:
        """Power of the bench's operating point."""
        return self.bench.file.reservoir.power_mw

    @property
    def power_mw(self) -> float:
        """Power that is on the panel now, as demanded; 0 in the dark."""
        return self._power_mw

    @property
    def longest_s(self) -> float:
        """Longest exposure that bench file and camera allow."""
        return min(
            self.bench.file.limits.exposure_s, self.bench.camera.exposure_limits_s[1]
        )

    @property
    def shortest_s(self) -> float:
        """Shortest exposure of the camera."""
        return self.bench.camera.exposure_limits_s[0]

    @property
    def response(self) -> CameraResponse:
        """The camera's calibration."""
        return self.calibrated(CameraResponse)

    def calibrated(self, kind: type[V]) -> V:
        """Values of a calibration that this one needs.

        Parameters
        ----------
        kind
            Which values.

        Returns
        -------
        values
            As the record in force holds them.

        Raises
        ------
        OutcomeError
            None is in force.
        """
        for record in self.bench.calibrations.values():
            if isinstance(record.values, kind):
                return record.values
        text = f"{self.name}: no {kind.__name__} in force. Calibrate it first."
        raise OutcomeError(text)

    @property
    def correction_rad(self) -> NDArray[np.float64] | None:
        """Phase that a run adds to each pixel of the panel; None for none."""
        record = self.bench.calibrations.get("wavefront")
        if record is None or self.bench.mismatch(record):
            return None
        return self.bench.correction_rad()

    @property
    def settle_s(self) -> float:
        """Wait after a write that leaves nothing of the pattern before."""
        stated = self.bench.file.calibrate.settle_s
        rough = 2 * self.bench.slm.settle_s if stated is None else stated
        record: CalibrationRecord | None = self.bench.calibrations.get("settle")
        if record is not None and isinstance(record.values, Settle):
            return max(rough, record.values.settle_s)
        return rough

    @property
    def cost(self) -> dict[str, float]:
        """Patterns written and frames exposed so far, and seconds on the bench clock.

        An exposure has a write of its own, also where the pattern is the one before;
        patterns that are held without one come on top.
        """
        return {
            "writes": float(self._writes),
            "exposures": float(self.ledger.counts[CATEGORY] - self._before),
            "took_s": self.bench.clock.now() - self._began_s,
        }

    # ---- what a procedure does ----------------------------------------------------

    def stage(self, name: str, done: int = 0, total: int = 1) -> None:
        """Say what follows: in the record, and to whoever watches.

        Parameters
        ----------
        name
            Stage of the procedure, at most 32 bytes.
        done, total
            How far it is.
        """
        self._stage = name
        spent = self.ledger.counts[CATEGORY]
        update = Update(f"{self.name}: {name}", done, total, spent, None, {})
        self._progress.update(update)

    def configure(self, exposure_s: float, gain_db: float = 0.0) -> CameraSettings:
        """Set the camera up: the whole sensor, or what the bench file says of it.

        Parameters
        ----------
        exposure_s
            Exposure time.
        gain_db
            Gain.

        Returns
        -------
        taken
            What it really took.
        """
        self._taken = self.bench.configure_camera(
            exposure_s=exposure_s,
            gain_db=gain_db,
            region=self.bench.file.calibrate.region,
        )
        return self._taken

    def light(self, power_mw: float) -> None:
        """Bring light of a power onto the panel."""
        self.bench.light(power_mw)
        self._power_mw = power_mw

    def dark(self) -> None:
        """Take the light off the panel."""
        self.bench.dark()
        self._power_mw = 0.0

    def flat(self, level: int = 0) -> Levels:
        """Return a pattern of one level, ``(1, row, column)``."""
        dtype = np.uint8 if self.bench.slm.bit_depth <= 8 else np.uint16
        return np.full((1, *self.panel), level, dtype=dtype)

    def as_levels(self, values: NDArray[np.generic]) -> Levels:
        """Turn whole numbers into levels of the panel's type."""
        dtype = np.uint8 if self.bench.slm.bit_depth <= 8 else np.uint16
        levels: Levels = np.ascontiguousarray(values, dtype=dtype)
        return levels

    def expose(self, panel: Levels, settle_s: float | None = None) -> Exposed:
        """Show patterns and take the frame of each.

        Parameters
        ----------
        panel
            ``(pattern, row, column)``.
        settle_s
            Time between write and exposure; None waits long enough.

        Returns
        -------
        exposed
            One accepted frame a pattern, in order.

        Raises
        ------
        DeviceError
            A device failed, or a frame could not be had.
        """
        wait_s = self.settle_s if settle_s is None else settle_s
        exposer = Exposer(self.bench, self.ledger, self._taken, wait_s)
        numbers, size = self._numbers(panel), exposer.longest
        self._writes += len(panel)
        parts = []
        with exposer.booked(CATEGORY, len(panel)):
            for start in range(0, len(panel), size):
                rows = slice(start, start + size)

                def hand_over(batch: Batch, rows: slice = rows) -> Exposed:
                    return self._hand_over(batch, numbers[rows], wait_s)

                parts.append(exposer.expose(panel[rows], CATEGORY, hand_over))
        return Exposed(
            frames=np.concatenate([part.frames for part in parts]),
            power_mw=np.concatenate([part.power_mw for part in parts]),
            start_s=np.concatenate([part.start_s for part in parts]),
            exposure_s=self._taken.exposure_s,
        )

    def hold(self, panel: Levels) -> None:
        """Show a pattern until nothing is left of the one before; no exposure.

        Parameters
        ----------
        panel
            ``(1, row, column)``.
        """
        self.bench.beat()
        self.bench.slm.write(panel[0])
        self._writes += 1
        self.bench.clock.sleep(self.settle_s)

    @contextmanager
    def thinking(self) -> Iterator[None]:
        """Compute for longer than a heartbeat: in the dark, and announced."""
        with self.bench.digital(THINKING_S):
            yield

    def wait(self, seconds: float) -> None:
        """Let time pass, alive; the light stays as it is."""
        longest_s = self.bench.file.heartbeat_s / 4
        while seconds > 0:
            self.bench.beat()
            part_s = min(seconds, longest_s)
            self.bench.clock.sleep(part_s)
            seconds -= part_s

    def repeated(self, panel: Levels, count: int) -> Exposed:
        """Take ``count`` frames of each pattern, one after the other."""
        return self.expose(panel.repeat(count, axis=0))

    def random(self, count: int, *, seed: int) -> Levels:
        """Return patterns of random levels on the bench's macropixels."""
        layout = self.bench.file.reservoir.macropixels
        drawn = np.random.default_rng(seed).integers(
            0, self.levels, (count, layout[0] * layout[1])
        )
        return Blocks(self.panel, layout).expand(self.as_levels(drawn))

    def outputs(self, exposed: Exposed) -> NDArray[np.float64]:
        """Decode frames into the bench's outputs, at its operating point.

        Parameters
        ----------
        exposed
            Frames.

        Returns
        -------
        outputs
            Electrons, ``(frame, output)``.

        Raises
        ------
        OutcomeError
            The outputs lie elsewhere on the sensor.
        """
        entry = self.bench.file.reservoir
        bins = self.bench.bins(entry)
        top, left, height, width = bins.region
        row, column = top - self.corner[0], left - self.corner[1]
        rows, columns = self.frame
        if min(row, column) < 0 or row + height > rows or column + width > columns:
            text = (
                f"{self.name}: outputs lie at {list(bins.region)}, expected inside of "
                f"calibrate.region, which begins at {self.corner} and has {self.frame} "
                "pixels. Make that larger."
            )
            raise OutcomeError(text)
        cut = exposed.frames[:, row : row + height, column : column + width]
        decoder = Decoder(entry, self.response, exposed.exposure_s, bins)
        return decoder.outputs(cut, exposed.power_mw)

    @property
    def pixels_an_output(self) -> float:
        """Mean number of camera pixels that an output is the sum of."""
        return float(self.bench.bins(self.bench.file.reservoir).area_px.mean())

    def signal_e(self, exposed: Exposed) -> NDArray[np.float64]:
        """Turn counts into electrons above the dark, by the camera's calibration."""
        return self.response.electrons(exposed.frames, exposed.exposure_s, self.corner)

    def brighten(
        self, panel: Levels, *, share: float = 0.7, least_e: float = 0.0
    ) -> Exposed:
        """Choose the exposure at which the frames' peak comes near saturation.

        Parameters
        ----------
        panel
            Patterns that will be shown, or a fair sample of them.
        share
            Share of saturation that the peak is to reach.
        least_e
            Electrons that the peak must reach at the longest exposure.

        Returns
        -------
        exposed
            Frames at the exposure that was chosen; the camera is left there.

        Raises
        ------
        OutcomeError
            There is no light, too little, or too much at any exposure.
        """
        exposure_s = min(self.bench.file.reservoir.exposure_s, self.longest_s)
        exposed = self._at(exposure_s, panel)
        for _ in range(TRIES):
            got = self._share(exposed)
            if 0.6 * share <= got <= 1.15 * share:
                return exposed
            factor = 0.2 if got >= 0.98 else share / max(got, 1e-3)
            low_s, high_s = self.shortest_s, self.longest_s
            wanted_s = float(np.clip(exposure_s * factor, low_s, high_s))
            if wanted_s == exposure_s:
                break
            exposure_s = wanted_s
            exposed = self._at(exposure_s, panel)
        self._judge_light(exposed, least_e)
        return exposed

    def _at(self, exposure_s: float, panel: Levels) -> Exposed:
        self.configure(exposure_s)
        return self.expose(panel)

    def _share(self, exposed: Exposed) -> float:
        """Peak above the dark, as a share of what fits below saturation."""
        response = self.response
        floor_dn = response.offset_dn + response.dark_dn_per_s * exposed.exposure_s
        room_dn = self.bench.camera.saturation_dn - floor_dn
        return (float(exposed.frames.max()) - floor_dn) / room_dn

    def _judge_light(self, exposed: Exposed, least_e: float) -> None:
        """Refuse frames that are saturated or dark.

        Raises
        ------
        OutcomeError
            They are.
        """
        self.require_unsaturated(exposed)
        self.require_light(exposed)
        peak_e = float(self.signal_e(exposed).max())
        if peak_e < least_e:
            times = least_e / peak_e
            text = (
                f"{self.name}: too few photons: peak={peak_e:.0f} electrons at the "
                f"longest exposure ({exposed.exposure_s:g} s), expected {least_e:.0f}. "
                f"It can be had at {times:.1f} times the light: take a filter away, "
                "raise the power, or allow a longer exposure."
            )
            raise OutcomeError(text)

    def is_saturated(self, exposed: Exposed, most: float = 0.0) -> bool:
        """Tell whether more pixels than a share of them are saturated."""
        full = exposed.frames >= self.bench.camera.saturation_dn
        return float(full.mean()) > most

    def require_unsaturated(self, exposed: Exposed, most: float = 0.0) -> None:
        """Refuse frames that are saturated.

        Parameters
        ----------
        exposed
            Frames.
        most
            Share of the pixels that may be.

        Raises
        ------
        OutcomeError
            They are.
        """
        if self.is_saturated(exposed, most):
            text = (
                f"{self.name}: saturated at exposure_s={exposed.exposure_s:g} and "
                f"power_mw={self._power_mw:g}, expected a peak below "
                f"{self.bench.camera.saturation_dn} counts. Put a filter before the "
                "camera."
            )
            raise OutcomeError(text)

    def require_light(self, exposed: Exposed) -> None:
        """Refuse frames in which there is no light, and say where it is lost.

        Raises
        ------
        OutcomeError
            Laser off, dark at the meter, blocked on the way to the camera, or too few
            photons.
        """
        response = self.response
        frame_e = self.signal_e(exposed).mean(axis=0)
        read_e = math.hypot(response.read_noise_e, 1.0)
        noise_e = math.hypot(read_e / math.sqrt(len(exposed.frames)), self._uneven_e)
        # The sum over the sensor sees what no pixel does; but also the dark's drift.
        total = float(frame_e.sum()) / (noise_e * math.sqrt(frame_e.size))
        peak = float(frame_e.max()) / noise_e
        if peak > LEAST_SIGNAL or total > 10 * LEAST_SIGNAL:
            return
        seen = glimpse(
            frame_e,
            noise_e,
            10 * LEAST_SIGNAL * noise_e * math.sqrt(frame_e.size),
            "electrons",
            exposed.exposure_s,
        )
        text = f"{self.name}: {self.why_dark(exposed, seen)}"
        raise OutcomeError(text)

    @property
    def _uneven_e(self) -> float:
        """What pixels differ by in the dark, however many frames are taken."""
        measured = self.bench.calibrations["camera"].quantities
        return measured.get("dsnu_e", (0.0, 0.0))[0]

    def why_dark(self, exposed: Exposed, seen: Glimpse | None = None) -> str:
        """Say where the light is lost, as far as the bench can tell.

        Parameters
        ----------
        exposed
            Dark frames that should not be.
        seen
            What little light is in them; None where nobody looked.

        Returns
        -------
        why
            What was got, what was expected, what to do.
        """
        faults = self.bench.laser.faults()
        if not self.bench.laser.is_emitting() or faults:
            told = f" ({'; '.join(faults)})" if faults else ""
            return (
                f"the laser is off{told}, expected emission at power_mw="
                f"{self._power_mw:g}. Look at key, interlock and cable."
            )
        reading = float(np.median(exposed.power_mw))
        if reading < 0.2 * self._power_mw:
            return (
                f"dark: power_mw={reading:.3g} metered, expected about "
                f"{self._power_mw:g}. Look between laser and meter."
            )
        if seen is not None:
            return seen.text()
        return (
            "dark: the laser emits and the camera sees nothing, expected light. The "
            "beam is blocked, or misses the camera: look between panel and camera."
        )

    # ---- what is recorded ---------------------------------------------------------

    def _numbers(self, panel: Levels) -> NDArray[np.int64]:
        numbers, new = [], []
        for pattern in panel:
            key = pattern.tobytes()
            if key not in self._patterns:
                self._patterns[key] = len(self._patterns)
                new.append(pattern)
            numbers.append(self._patterns[key])
        if new:
            self._recorder.append("patterns", levels=np.stack(new))
        return np.array(numbers)

    def _hand_over(
        self, batch: Batch, numbers: NDArray[np.int64], settle_s: float
    ) -> Exposed:
        played, count = batch.played, len(batch.quality)
        reported_mw = self.bench.laser.power_mw()
        metered = played.power_mw
        power_mw = np.full(count, reported_mw) if metered is None else metered

        def every(value: object) -> list[object]:
            return [value] * count

        saturated = played.frames >= self.bench.camera.saturation_dn
        columns = {
            "frames": played.frames,
            "pattern": numbers[batch.pattern],
            "stage": every(self._stage),
            "exposure_s": every(self._taken.exposure_s),
            "settle_s": every(settle_s),
            "setpoint_mw": every(self._power_mw),
            "time_s": played.written_s,
            "host_time_s": played.host_time_s,
            "device_time_s": played.device_time_s,
            "frame_id": played.frame_id,
            "laser_power_mw": every(reported_mw),
            "power_mw": power_mw,
            "attempt": batch.attempt,
            "category": every(CATEGORY),
            "quality": batch.quality,
            "pattern_id": played.pattern_id,
            "trigger": played.trigger,
            "exposure_start_s": played.exposure_start_s,
            "exposure_end_s": played.exposure_end_s,
            "saturated_px": saturated.sum(axis=(1, 2)),
        }
        if count:
            arrays = {name: np.asarray(value) for name, value in columns.items()}
            self._recorder.append_shots(**arrays)
            self._recorder.commit()
            self.bench.beat(rests=False)  # a disk that is busy takes its time
        good = batch.accepted
        return Exposed(
            played.frames[good],
            power_mw[good],
            played.exposure_start_s[good],
            self._taken.exposure_s,
        )
