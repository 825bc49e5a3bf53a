"""A bench seen as a function: phases in, outputs out, every exposure on the ledger.

::

    phase [pattern, macropixel] --nearest level--> levels --blocks--> panel
    panel --sequence, or write, settle, expose--> frame, judged, exposed again
    frame --dark, bins, gain, exposure, power--> y [pattern, output]

Outputs are electrons a bin, at the nominal exposure and power: what a frame of
another power or exposure time would have held there. The phases that come back
with them are those that the panel really showed, by its phase curve.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labctl.bench import Bench
from labctl.calibration import CameraResponse, ReservoirEntry, Settle
from labctl.devices import CameraSettings, Frame, Levels, Played, Sequence, Written
from labctl.errors import (
    BudgetError,
    CalibrationError,
    DeviceError,
    DeviceTimeoutError,
    FrameError,
    InputError,
)
from labctl.identity import (
    ATTEMPTS,
    REPEATABLE,
    Answer,
    Counter,
    Pattern,
    Quality,
    Verdict,
    judge,
)
from labctl.placement import Bins, UprightBins
from labctl.training.blackbox import Response

T = TypeVar("T")
CalibrationValues = TypeVar("CalibrationValues", Settle, CameraResponse)
Phases = NDArray[np.float64]
TURN = 2 * math.pi
CATEGORIES = (
    "train",
    "probe",
    "calibrate",
    "drift-check",
    "evaluate",
    "warm-up",
    "repeat",
)
# So many patterns between two signs of life to the guard; also bounds memory.
LONGEST_BATCH = 64
# On real clocks a batch that is played in one go takes so much of the heartbeat.
PLAY_SHARE = 1 / 3
# Copies of an old frame that may come before the one that is waited for.
MOST_COPIES = 8
# Looks at the error of a camera's clock while it is waited for; each is a hundredth of
# the one before.
ROUNDS = 8
# A measured power this far below the nominal one is a dark laser, not drift.
LEAST_POWER_FRACTION = 0.2


class Ledger:
    """Counts every exposure by category and holds the budget.

    Parameters
    ----------
    budget
        Greatest number of exposures, those outside the budget not counted; None
        for no limit.
    """

    def __init__(self, budget: int | None) -> None:
        self.budget = budget
        self.counts: dict[str, int] = dict.fromkeys(CATEGORIES, 0)
        self.refunded = 0
        self.outside = 0
        self._is_outside = False

    @property
    def total(self) -> int:
        """Every exposure that was made, whatever for."""
        return sum(self.counts.values())

    @property
    def spent(self) -> int:
        """Exposures that count against the budget."""
        return self.total - self.outside - self.refunded

    @property
    def left(self) -> int | None:
        """Exposures that the budget still holds; None without one."""
        return None if self.budget is None else self.budget - self.spent

    def book(self, category: str, shots: int) -> None:
        """Count exposures that are about to be made.

        Parameters
        ----------
        category
            What they are for: one of :data:`CATEGORIES`.
        shots
            How many.

        Raises
        ------
        ValueError
            There is no such category.
        BudgetError
            They would overspend the budget; nothing is booked.
        """
        if category not in self.counts:
            text = f"ledger: category={category}, expected one of {CATEGORIES}"
            raise ValueError(text)
        left = self.left
        if left is not None and shots > left and not self._is_outside:
            raise BudgetError(category, shots, left, self.budget or 0)
        self.counts[category] += shots
        if self._is_outside:
            self.outside += shots

    @contextmanager
    def outside_budget(self) -> Iterator[None]:
        """Book what follows outside the budget.

        For shots whose result never returns to training, tuning or selection:
        final tests and reference lines.
        """
        self._is_outside = True
        try:
            yield
        finally:
            self._is_outside = False

    def refund(self, shots: int) -> None:
        """Give back to the budget exposures whose frames were rejected.

        Parameters
        ----------
        shots
            How many. They stay counted in their category.
        """
        self.refunded += shots
        if self._is_outside:  # never charged, so there is nothing to give back
            self.outside -= shots

    def release(self, category: str, shots: int) -> None:
        """Take back exposures that were booked and then not made.

        Parameters
        ----------
        category
            What they were booked for.
        shots
            How many.
        """
        self.counts[category] -= shots
        if self._is_outside:
            self.outside -= shots

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint needs."""
        return {
            "counts": dict(self.counts),
            "refunded": self.refunded,
            "outside": self.outside,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state that :meth:`state_dict` returned."""
        self.counts = {**self.counts, **state["counts"]}
        self.refunded = int(state["refunded"])
        self.outside = int(state["outside"])


@dataclass(frozen=True, eq=False)
class Shots:
    """A batch of exposures as it goes to the record, one row per shot.

    A pattern that was exposed again has a row for each time; only those of
    quality ``ok`` have outputs, the others hold what came, or nothing.

    Parameters
    ----------
    first
        Number of the first shot since the reservoir was made.
    levels
        Gray level of each macropixel, ``(shot, macropixel)``.
    outputs
        ``(shot, output)``, electrons a bin at nominal exposure and power; not a
        number in rejected rows.
    power_mw
        Measured power, ``(shot,)``.
    saturated_px
        Saturated pixels of each frame, ``(shot,)``.
    played
        Frames, identities and times.
    attempt
        How often the pattern had been exposed before, ``(shot,)``.
    quality
        ``ok``, or the class of the rejection, ``(shot,)``.
    category, step, layer
        What the shots were for.
    """

    first: int
    levels: Levels
    outputs: NDArray[np.float64]
    power_mw: NDArray[np.float64]
    saturated_px: NDArray[np.int64]
    played: Played
    attempt: NDArray[np.int64]
    quality: NDArray[np.str_]
    category: str
    step: int
    layer: int


Sink = Callable[[Shots], None]


@dataclass(frozen=True, eq=False)
class Recalled:
    """Exposures that were made before, one row per shot, in their order.

    Parameters
    ----------
    levels
        Gray levels that were shown, ``(shot, macropixel)``.
    outputs
        ``(shot, output)``.
    accepted
        Whether the frame was accepted, ``(shot,)``.
    """

    levels: Levels
    outputs: NDArray[np.float64]
    accepted: NDArray[np.bool_]


# Levels asked for, category, step and layer: whatever was exposed for them before.
Past = Callable[[Levels, str, int, int], Recalled]


@dataclass(frozen=True)
class _Purpose:
    """What a batch is for."""

    category: str
    step: int
    layer: int


# What stands in a row for a write or a frame that never came.
_NO_WRITE = Written(pattern_id=0, checksum=0, written_s=math.nan)
_NO_FRAME = Frame(
    data=np.zeros((0, 0), dtype=np.uint16),
    frame_id=0,
    trigger=0,
    device_time_s=math.nan,
    host_time_s=math.nan,
    exposure_start_s=math.nan,
    exposure_end_s=math.nan,
)


@dataclass(frozen=True, eq=False)
class _Row:
    """One exposure of one pattern, and what came of it."""

    pattern: int
    attempt: int = 0
    quality: str = ""
    detail: str = ""
    written: Written = _NO_WRITE
    frame: Frame = _NO_FRAME
    power_mw: float = math.nan
    #: Of a device that failed meanwhile; a frame that is refused has none.
    failure: DeviceError | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """Exposures in the order in which they were made.

    Parameters
    ----------
    pattern
        Which of the patterns that were asked for each row shows, ``(row,)``.
    played
        Frames, identities and times; a frame that did not come is dark.
    attempt
        How often the pattern had been exposed before, ``(row,)``.
    quality
        ``ok``, or the class of the rejection, ``(row,)``.
    """

    pattern: NDArray[np.int64]
    played: Played
    attempt: NDArray[np.int64]
    quality: NDArray[np.str_]

    @property
    def accepted(self) -> NDArray[np.int64]:
        """Rows of the frames that answer their patterns, in order."""
        return np.flatnonzero(self.quality == "ok")


# Outputs of the accepted exposures, and their rows, in the order of the patterns.
_Accepted = tuple[NDArray[np.float64], NDArray[np.int64]]


class PhaseScale:
    """Phases to gray levels and back, by the panel's phase curve.

    Parameters
    ----------
    curve_rad
        Phase of each gray level, rising.

    Raises
    ------
    CalibrationError
        The curve does not cover a full turn, so some phases cannot be shown.
    """

    def __init__(self, curve_rad: NDArray[np.float64]) -> None:
        rise = curve_rad - curve_rad[0]
        usable = int(np.searchsorted(rise, TURN))
        self.phase_rad = curve_rad[:usable].astype(np.float64)
        gap = TURN - rise[usable - 1]
        coarsest = float(np.diff(rise[:usable]).max()) if usable > 1 else math.inf
        if gap > 2 * coarsest:
            text = (
                f"calibration slm-phase: the curve spans {rise[usable - 1]:.3f} rad, "
                f"expected {TURN:.3f} less one level. Calibrate the panel at this "
                "wavelength, or set its drive so that it covers a full turn."
            )
            raise CalibrationError(text)
        wrapped = np.append(rise[:usable], TURN)
        self._middle = (wrapped[1:] + wrapped[:-1]) / 2
        self._dtype = np.uint8 if len(curve_rad) <= 256 else np.uint16
        self._slope_rad = np.gradient(self.phase_rad)

    @property
    def turn(self) -> NDArray[np.int64]:
        """Gray levels in a full turn, of every place."""
        return np.array(len(self.phase_rad))

    def levels(self, phase_rad: Phases) -> Levels:
        """Nearest gray level of each phase, on the circle.

        Parameters
        ----------
        phase_rad
            Any shape, any number of turns.

        Returns
        -------
        levels
            The same shape.

        Raises
        ------
        ValueError
            A phase is not a finite number.
        """
        if not np.isfinite(phase_rad).all():
            text = "phase: not finite, expected numbers. Look at theta and the inputs."
            raise ValueError(text)
        index = np.searchsorted(
            self._middle, np.mod(phase_rad - self.phase_rad[0], TURN)
        )
        index[index == len(self.phase_rad)] = 0
        levels: Levels = index.astype(self._dtype)
        return levels

    def shown(self, levels: Levels) -> Phases:
        """Phase that each level gives, in rad."""
        shown: Phases = self.phase_rad[levels]
        return shown

    def slope(self, levels: Levels) -> Phases:
        """Change of phase with the level at each, in rad."""
        slope: Phases = self._slope_rad[levels]
        return slope


class RegionScale:
    """Phases to gray levels and back, where places have phase curves of their own.

    Parameters
    ----------
    curves_rad
        Curves, ``(curve, level)``, each as :class:`PhaseScale` takes it.
    which
        Curve of each place, in the shape of the places.

    Raises
    ------
    CalibrationError
        A curve does not cover a full turn.
    """

    def __init__(
        self, curves_rad: NDArray[np.float64], which: NDArray[np.int64]
    ) -> None:
        self._scales = [PhaseScale(curve) for curve in curves_rad]
        self._at = [which == number for number in range(len(curves_rad))]
        turns = np.array([int(scale.turn) for scale in self._scales])
        self.turn: NDArray[np.int64] = turns[which]
        self._dtype = np.uint8 if curves_rad.shape[1] <= 256 else np.uint16

    def levels(self, phase_rad: Phases) -> Levels:
        """Nearest gray level of each phase, on the circle.

        Parameters
        ----------
        phase_rad
            ``(..., place)``, any number of turns.

        Returns
        -------
        levels
            The same shape.

        Raises
        ------
        ValueError
            A phase is not a finite number.
        """
        levels: Levels = np.empty(phase_rad.shape, self._dtype)
        for at, scale in zip(self._at, self._scales, strict=True):
            levels[..., at] = scale.levels(phase_rad[..., at])
        return levels

    def shown(self, levels: Levels) -> Phases:
        """Phase that each level gives, in rad; ``(..., place)``."""
        shown: Phases = np.empty(levels.shape)
        for at, scale in zip(self._at, self._scales, strict=True):
            shown[..., at] = scale.shown(levels[..., at])
        return shown

    def slope(self, levels: Levels) -> Phases:
        """Change of phase with the level at each, in rad; ``(..., place)``."""
        slope: Phases = np.empty(levels.shape)
        for at, scale in zip(self._at, self._scales, strict=True):
            slope[..., at] = scale.slope(levels[..., at])
        return slope


Scale = PhaseScale | RegionScale


def require_turn(curve_rad: NDArray[np.float64]) -> None:
    """Refuse a phase curve, or one of a region, that does not cover a full turn.

    Parameters
    ----------
    curve_rad
        ``(..., level)``.

    Raises
    ------
    CalibrationError
        It does not.
    """
    for curve in curve_rad.reshape(-1, curve_rad.shape[-1]):
        PhaseScale(curve)


def regions_of(shape: tuple[int, int], regions: tuple[int, int]) -> NDArray[np.int64]:
    """Say in which region each pixel of a panel lies.

    Parameters
    ----------
    shape
        Height and width of the panel, which the regions divide.
    regions
        Rows and columns of regions.

    Returns
    -------
    region
        Numbered row by row, ``(row, column)``.
    """
    row, column = (
        np.arange(side) * count // side
        for side, count in zip(shape, regions, strict=True)
    )
    found: NDArray[np.int64] = row[:, None] * regions[1] + column[None]
    return found


def pixel_scale(curve_rad: NDArray[np.float64], shape: tuple[int, int]) -> Scale:
    """Scale of the pixels of a panel.

    Parameters
    ----------
    curve_rad
        One curve, or one a region, as :meth:`labctl.bench.Bench.phase_curve_rad`
        gives them.
    shape
        Height and width of the panel.

    Raises
    ------
    CalibrationError
        A curve does not cover a full turn.
    """
    if curve_rad.ndim == 1:
        return PhaseScale(curve_rad)
    rows, columns, levels = curve_rad.shape
    which = regions_of(shape, (rows, columns))
    return RegionScale(curve_rad.reshape(-1, levels), which)


class Blocks:
    """Macropixels on the panel: equal blocks, centred, level 0 around them.

    Parameters
    ----------
    panel
        Height and width of the panel, in pixels.
    macropixels
        Rows and columns of blocks.

    Raises
    ------
    InputError
        The panel is smaller than the encoding.
    """

    def __init__(self, panel: tuple[int, int], macropixels: tuple[int, int]) -> None:
        rows, columns = macropixels
        self.block = (panel[0] // rows, panel[1] // columns)
        if min(self.block) < 1:
            text = (
                f"reservoir.macropixels={rows} x {columns}, expected at most "
                f"{panel[0]} x {panel[1]} (the panel). Use fewer macropixels."
            )
            raise InputError(text)
        self.panel, self.macropixels = panel, macropixels
        self._top = (panel[0] - rows * self.block[0]) // 2
        self._left = (panel[1] - columns * self.block[1]) // 2

    def expand(self, levels: Levels) -> Levels:
        """Turn ``(pattern, macropixel)`` into ``(pattern, row, column)``."""
        rows, columns = self.macropixels
        height, width = self.block
        blocks = levels.reshape(-1, rows, columns)
        # Columns first: then whole lines of the panel are copied.
        tiled: Levels = blocks.repeat(width, axis=2).repeat(height, axis=1)
        if tiled.shape[1:] == self.panel:
            return tiled
        panel = np.zeros((len(levels), *self.panel), dtype=levels.dtype)
        panel[
            :,
            self._top : self._top + tiled.shape[1],
            self._left : self._left + tiled.shape[2],
        ] = tiled
        return panel

    def gather(self, panel: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum ``(pattern, row, column)`` over blocks: the transpose of expand."""
        rows, columns = self.macropixels
        height, width = self.block
        inner = panel[
            :,
            self._top : self._top + rows * height,
            self._left : self._left + columns * width,
        ]
        summed = inner.reshape(-1, rows, height, columns, width).sum(axis=(2, 4))
        gathered: NDArray[np.float64] = summed.reshape(len(panel), -1)
        return gathered


def macropixel_scale(blocks: Blocks, curve_rad: NDArray[np.float64]) -> Scale:
    """Scale of macropixels.

    Parameters
    ----------
    blocks
        Macropixels on the panel.
    curve_rad
        One curve, or one a region. A macropixel that lies in several regions has the
        mean curve of its pixels.

    Raises
    ------
    CalibrationError
        A curve does not cover a full turn.
    """
    if curve_rad.ndim == 1:
        return PhaseScale(curve_rad)
    rows, columns, levels = curve_rad.shape
    region = regions_of(blocks.panel, (rows, columns))
    every = np.arange(rows * columns)
    shares = blocks.gather((region == every[:, None, None]).astype(np.float64))
    mixes, which = np.unique(
        shares.T / math.prod(blocks.block), axis=0, return_inverse=True
    )
    return RegionScale(mixes @ curve_rad.reshape(-1, levels), which.reshape(-1))


class Panel:
    """Phases to the gray levels that show them, by what was calibrated.

    Parameters
    ----------
    blocks
        Macropixels on the panel.
    curve_rad
        Phase of each gray level, ``(level,)``, rising; or ``(row, column, level)`` of
        regions. A macropixel that lies in several has the mean curve of its pixels.
    correction_rad
        Phase that corrects the wavefront, ``(row, column)`` of the panel; None for
        none.

    Raises
    ------
    CalibrationError
        The curve does not cover a full turn.
    """

    def __init__(
        self,
        blocks: Blocks,
        curve_rad: NDArray[np.float64],
        correction_rad: NDArray[np.float64] | None,
    ) -> None:
        self.blocks, self.scale = blocks, macropixel_scale(blocks, curve_rad)
        rows, columns = blocks.macropixels
        # Phase that each macropixel is given beyond the one that is asked for.
        self._correction = np.zeros(rows * columns)
        if correction_rad is not None:
            height, width = blocks.block
            summed = blocks.gather(correction_rad[None])[0]
            self._correction = summed / (height * width)

    def levels(self, phase_rad: Phases) -> Levels:
        """Nearest gray level of each phase, the wavefront corrected.

        Parameters
        ----------
        phase_rad
            ``(pattern, macropixel)``, any number of turns.

        Raises
        ------
        ValueError
            A phase is not a finite number.
        """
        return self.scale.levels(phase_rad + self._correction)

    def shown(self, levels: Levels) -> Phases:
        """Phase that each level gives behind the correction, in rad."""
        return self.scale.shown(levels) - self._correction


class Decoder:
    """Frames to outputs: bin, dark-subtract, and scale to nominal conditions.

    Parameters
    ----------
    entry
        Exposure, gain and power that are nominal.
    response
        The camera's calibration.
    exposure_s
        Exposure time that the camera really took.
    bins
        Pixels of the outputs; None for the entry's region and bins as they stand.
    """

    def __init__(
        self,
        entry: ReservoirEntry,
        response: CameraResponse,
        exposure_s: float,
        bins: Bins | None = None,
    ) -> None:
        self._bins = UprightBins(entry) if bins is None else bins
        self._power_mw = entry.power_mw
        dark_dn = response.offset_dn + response.dark_dn_per_s * exposure_s
        self._dark = dark_dn * self._bins.area_px
        dark_e = response.dark_dn_per_s * exposure_s / response.gain_dn_per_e
        self._noise_px = response.read_noise_e**2 + dark_e
        self._dn_per_e = response.gain_dn_per_e * 10 ** (entry.gain_db / 20)
        self._scale = entry.exposure_s / exposure_s / self._dn_per_e

    def outputs(
        self, frames: NDArray[np.uint16], power_mw: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Decode ``(shot, row, column)`` counts into ``(shot, output)``."""
        counts = self._bins.sums(frames) - self._dark
        return counts * self._scale * (self._power_mw / power_mw)[:, None]

    def dark_variance(self) -> NDArray[np.float64]:
        """Variance of each output without light: read noise and dark current."""
        in_counts = self._noise_px * self._dn_per_e**2 * self._bins.area_px
        return np.asarray(in_counts * self._scale**2)

    def spread(self, cotangent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pull a gradient on the outputs back to counts, at nominal power."""
        return self._bins.spread(cotangent * self._scale)


class Exposer:
    """Shows panels and takes their frames, judged, and exposed again where safe.

    What a reservoir and a calibration have in common: patterns of gray levels in,
    the frames that answer them out, every exposure on the ledger. The light is up
    to whoever asks.

    Parameters
    ----------
    bench
        An open bench whose camera is configured.
    ledger
        Where exposures are booked.
    taken
        What the camera took when it was configured.
    settle_s
        Time between a complete write and the start of its exposure.

    Attributes
    ----------
    longest
        Greatest number of patterns of a batch.
    """

    def __init__(
        self, bench: Bench, ledger: Ledger, taken: CameraSettings, settle_s: float
    ) -> None:
        self.bench, self.ledger, self._settle_s = bench, ledger, settle_s
        self.frame_shape = (taken.region[2], taken.region[3])
        self.longest = self._longest(taken.exposure_s)
        self._exposure_s = taken.exposure_s
        # Exposures that were booked and are still to be made.
        self._owed = 0

    def _longest(self, exposure_s: float) -> int:
        """Patterns that may be exposed between two signs of life."""
        if self.bench.sequence is None:  # stepped, each of them is one
            return LONGEST_BATCH
        most = min(LONGEST_BATCH, self.bench.sequence.longest)
        if self.bench.simulated:
            return most
        patience_s = PLAY_SHARE * self.bench.file.heartbeat_s
        return max(1, min(most, int(patience_s / (self._settle_s + exposure_s))))

    @contextmanager
    def booked(self, category: str, shots: int) -> Iterator[None]:
        """Book exposures, and take back what was not made of them.

        Parameters
        ----------
        category
            What they are for.
        shots
            How many.

        Raises
        ------
        BudgetError
            The ledger would be overspent.
        """
        self._book(category, shots)
        try:
            yield
        finally:
            self.ledger.release(category, self._owed)
            self._owed = 0

    def recall(self, category: str, accepted: int, rejected: int) -> None:
        """Count exposures that were made before, as they were counted then.

        Parameters
        ----------
        category
            What they were for.
        accepted, rejected
            How many; the accepted ones are booked.
        """
        self._owed -= accepted
        for _ in range(rejected):
            self.ledger.refund(1)
            self.ledger.book(category, 1)

    def _book(self, category: str, shots: int) -> None:
        self.ledger.book(category, shots)
        self._owed += shots

    def expose(
        self, panel: Levels, category: str, hand_over: Callable[[Batch], T]
    ) -> T:
        """Expose one batch of patterns that was booked.

        Parameters
        ----------
        panel
            ``(pattern, row, column)``, at most :attr:`longest` patterns.
        category
            What they are for.
        hand_over
            Receives every exposure, the rejected ones as well, before an error is
            raised for one of them; called again where a batch had to be repeated.

        Returns
        -------
        accepted
            What ``hand_over`` made of the batch whose every pattern has its frame.

        Raises
        ------
        DeviceError
            A device failed, or a frame was not the one expected.
        """
        self.bench.beat()
        if self.bench.sequence is None:
            return self._step(panel, category, hand_over, 0)
        batch, refused = self._play(self.bench.sequence, panel)
        accepted = hand_over(batch)
        if refused is None:
            return accepted
        self.ledger.refund(len(batch.quality))
        if _kind(refused) not in REPEATABLE:
            raise refused
        self._book(category, len(batch.quality))
        # Played whole it is refused whole; one by one only what fails again is
        # exposed again.
        return self._step(panel, category, hand_over, 1)

    def _play(
        self, sequence: Sequence, panel: Levels
    ) -> tuple[Batch, DeviceError | None]:
        refused: DeviceError | None
        try:
            played = sequence.play(panel, settle_s=self._settle_s)
        except DeviceError as error:
            # Where nobody can tell, all of them count as made.
            made = len(panel) if error.exposed is None else error.exposed
            played, refused = self._played([_Row(at) for at in range(made)]), error
        else:
            made, refused = len(panel), self._refused(played, panel)
            played, failure = self._metered(played)
            refused = refused if failure is None else failure
        self._owed -= made
        quality = np.full(made, "ok" if refused is None else _kind(refused))
        every = np.arange(made)
        return Batch(every, played, np.zeros_like(every), quality), refused

    def _metered(self, played: Played) -> tuple[Played, DeviceError | None]:
        """Ask the meter itself where it did not follow the exposures of a batch."""
        meter, power_mw, failure = self.bench.meter, math.nan, None
        if meter is None or played.power_mw is not None:
            return played, None
        try:
            power_mw = meter.reading().value
        except DeviceError as error:
            failure = error
        every = np.full(len(played.frames), power_mw)
        return replace(played, power_mw=every), failure

    def _refused(self, played: Played, panel: Levels) -> FrameError | None:
        """Judge a batch: one frame that is not the answer refuses it whole."""
        counter = Counter(modulus=self.bench.camera.frame_id_modulus)
        ready_s = played.written_s + self._settle_s
        gone_s = np.append(played.written_s[1:], math.inf)
        if len(played.frames) != len(panel):
            text = f"{len(played.frames)} frames, expected {len(panel)}"
            return FrameError(self.bench.camera.name, "gap", text)
        for row, levels in enumerate(panel):
            pattern = Pattern(
                checksum=zlib.crc32(np.ascontiguousarray(levels).data),
                trigger=row + 1,
                ready_s=float(ready_s[row]),
                gone_s=float(gone_s[row]),
                shape=self.frame_shape,
            )
            answer = Answer(
                checksum=int(played.checksum[row]),
                trigger=int(played.trigger[row]),
                frame_id=int(played.frame_id[row]),
                start_s=float(played.exposure_start_s[row]),
                end_s=float(played.exposure_end_s[row]),
                shape=played.frames.shape[1:],
                dtype=str(played.frames.dtype),
            )
            verdict = judge(pattern, answer, counter, played.time_error_s)
            if verdict.quality != "ok":
                text = f"row {row}: {verdict.detail}"
                return FrameError(self.bench.camera.name, verdict.quality, text)
            counter = counter.after(answer)
        return None

    def _step(
        self,
        panel: Levels,
        category: str,
        hand_over: Callable[[Batch], T],
        attempt: int,
    ) -> T:
        rows: list[_Row] = []
        stepper = _Stepper(
            self.bench, self._settle_s, self.frame_shape, self._exposure_s
        )
        following: _Row | None = _Row(0, attempt)
        try:
            stepper.arm(len(panel))
            while following is not None or stepper.is_waiting:
                levels = None if following is None else panel[following.pattern]
                made = stepper.collect(levels)
                if made is not None:
                    rows.append(made)
                if made is not None and made.quality != "ok":
                    self._repeat(made, category)
                    stepper.arm(len(panel) - made.pattern)
                    following = _Row(made.pattern, made.attempt + 1)
                elif following is not None and levels is not None:
                    stepper.expose(levels, following)
                    after = following.pattern + 1
                    following = _Row(after, attempt) if after < len(panel) else None
        except DeviceError:
            rows += self._left(stepper)
            hand_over(self._batch(rows))
            raise
        finally:
            self._owed -= stepper.exposed
            self.bench.camera.disarm()
        return hand_over(self._batch(rows))

    def _left(self, stepper: "_Stepper") -> list[_Row]:
        """Take the frame that was on its way when something else failed."""
        made = stepper.abandon()
        if made is None:
            return []
        if made.quality != "ok":
            self.ledger.refund(1)
        return [made]

    def _repeat(self, row: _Row, category: str) -> None:
        """Give a rejected exposure back, and book another.

        Raises
        ------
        FrameError
            It is of a class, or the last attempt, that ends the run.
        DeviceError
            The panel failed during the exposure.
        """
        self.ledger.refund(1)
        if row.failure is not None:
            raise row.failure
        if row.quality not in REPEATABLE or row.attempt + 1 >= ATTEMPTS:
            text = f"{row.detail} (attempt {row.attempt + 1} of {ATTEMPTS})"
            raise FrameError(self.bench.camera.name, row.quality, text)
        self._book(category, 1)

    def _batch(self, rows: list[_Row]) -> Batch:
        return Batch(
            pattern=np.array([row.pattern for row in rows], dtype=np.int64),
            played=self._played(rows),
            attempt=np.array([row.attempt for row in rows], dtype=np.int64),
            quality=np.array([row.quality for row in rows], dtype=np.str_),
        )

    def _played(self, rows: list[_Row]) -> Played:
        """Columns of rows; where no frame of the right shape came, none."""
        frames = np.zeros((len(rows), *self.frame_shape), dtype=np.uint16)
        for data, row in zip(frames, rows, strict=True):
            if row.frame.data.shape == data.shape:
                data[:] = row.frame.data
        came = [row.frame for row in rows]

        def whole(values: list[int]) -> NDArray[np.int64]:
            return np.array(values, dtype=np.int64)

        def times(values: list[float]) -> NDArray[np.float64]:
            return np.array(values, dtype=np.float64)

        return Played(
            frames=frames,
            pattern_id=whole([row.written.pattern_id for row in rows]),
            checksum=whole([row.written.checksum for row in rows]),
            written_s=times([row.written.written_s for row in rows]),
            frame_id=whole([frame.frame_id for frame in came]),
            trigger=whole([max(0, frame.trigger) for frame in came]),
            device_time_s=times([frame.device_time_s for frame in came]),
            host_time_s=times([frame.host_time_s for frame in came]),
            exposure_start_s=times([frame.exposure_start_s for frame in came]),
            exposure_end_s=times([frame.exposure_end_s for frame in came]),
            power_mw=(
                None
                if self.bench.meter is None
                else times([row.power_mw for row in rows])
            ),
            time_error_s=max((frame.time_error_s for frame in came), default=0.0),
        )


def _kind(error: DeviceError) -> Quality:
    """Name what a failed device does to the frames of its batch."""
    if isinstance(error, FrameError):
        return cast("Quality", error.kind)
    return "timeout" if isinstance(error, DeviceTimeoutError) else "removed"


@dataclass(frozen=True, eq=False)
class _Exposed:
    """An exposure whose frame is on its way.

    Parameters
    ----------
    pattern
        What is known of its pattern.
    row
        Which pattern it is, which attempt, and its write.
    is_over
        Whether the camera has said that the exposure is over.
    """

    pattern: Pattern
    row: _Row
    is_over: bool = False


class _Stepper:
    """Exposes patterns one by one, with one trigger in flight.

    ::

        write 1 | settle | expose 1 | frame 1 | write 2 | settle | expose 2 | frame 2

    and where the camera tells when an exposure is over ::

        write 1 | settle | expose 1 | write 2 | settle | expose 2 | write 3 | settle
                                    |    frame 1                  |    frame 2

    Either way a frame is judged before the next exposure begins: one that is not the
    answer to its pattern is exposed again, and nothing was exposed behind it.

    Parameters
    ----------
    bench
        The bench.
    settle_s
        Time between a complete write and the start of its exposure.
    shape
        Rows and columns of a frame.
    exposure_s
        Exposure time.
    """

    def __init__(
        self,
        bench: Bench,
        settle_s: float,
        shape: tuple[int, int],
        exposure_s: float,
    ) -> None:
        self._bench, self._settle_s, self._shape = bench, settle_s, shape
        # How long a frame is waited for once its exposure is over.
        self._patience_s = bench.file.frame_s
        self._timeout_s = exposure_s + self._patience_s
        self.exposed = self._triggers = 0
        self._counter = Counter()
        self._is_by_own_clock = self._tells_end = False
        self._waiting: _Exposed | None = None
        self._ahead: Written | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a frame is on its way."""
        return self._waiting is not None

    def arm(self, frames: int) -> None:
        """Empty the camera's buffers and take its counters as the new zero."""
        camera = self._bench.camera
        self._live()
        camera.disarm()
        self._live()
        camera.arm(frames)
        self._triggers = 0
        self._counter = Counter(modulus=camera.frame_id_modulus)
        self._is_by_own_clock = camera.time_error_s != 0
        self._tells_end = camera.tells_exposure_end
        self._waiting = self._ahead = None

    def expose(self, levels: Levels, row: _Row) -> None:
        """Show a pattern, unless :meth:`collect` has, and expose it.

        Parameters
        ----------
        levels
            ``(row, column)`` of the panel.
        row
            Which pattern it is, and which attempt.
        """
        clock, camera = self._bench.clock, self._bench.camera
        written, self._ahead = self._ahead, None
        if written is None:
            written = self._write(levels)
            clock.sleep(self._settle_s)
        ready_s = written.written_s + self._settle_s
        # What has not passed while the frame before came.
        clock.sleep(max(0.0, ready_s - clock.now()))
        self._leave_room(ready_s)
        self._live()
        camera.trigger()
        self._live()
        self.exposed += 1
        self._triggers += 1
        pattern = Pattern(
            checksum=zlib.crc32(np.ascontiguousarray(levels).data),
            trigger=self._triggers,
            ready_s=ready_s,
            gone_s=math.inf,
            shape=self._shape,
        )
        self._waiting = _Exposed(pattern, replace(row, written=written))
        if self._tells_end:
            self._wait_exposed(self._waiting)

    def _live(self) -> None:
        """Give a sign of life between two calls of devices.

        Each may take long on a computer or a wire that is busy, and all of them
        together longer than the guard is patient with a lit laser.
        """
        self._bench.beat(rests=False)

    def _wait_exposed(self, exposed: _Exposed) -> None:
        try:
            turn_s = self._bench.file.turn_s
            self._bench.camera.wait_exposed(min(self._timeout_s, turn_s))
        except FrameError:
            return  # its frame tells what became of it, and is waited for
        self._leave_room(self._bench.clock.now())
        self._waiting = replace(exposed, is_over=True)

    def _write(self, levels: Levels) -> Written:
        self._bench.beat()
        return self._bench.slm.write(levels)

    def collect(self, levels: Levels | None) -> _Row | None:
        """Take the frame that is on its way, and judge it.

        Parameters
        ----------
        levels
            ``(row, column)`` of the panel: what is exposed next, None for nothing. It
            is shown before, where the exposure is known to be over.

        Returns
        -------
        row
            With what came, and its quality; None where no frame is on its way.
        """
        bench, exposed = self._bench, self._waiting
        if exposed is None:
            return None
        # A beam that has to rest does so between two shots, and not within one.
        if exposed.is_over and levels is not None and not bench.rest_s():
            pattern = replace(exposed.pattern, gone_s=bench.clock.now())
            exposed = self._waiting = replace(exposed, pattern=pattern)
            self._ahead = self._write(levels)
        self._waiting = None
        # Whoever tells of the end of an exposure was waited for already.
        timeout_s = self._patience_s if self._tells_end else self._timeout_s
        made = self._fetch(exposed, timeout_s)
        if made.quality != "ok" or bench.meter is None:
            return made
        return replace(made, power_mw=bench.meter.reading().value)

    def abandon(self) -> _Row | None:
        """Take the frame that is on its way after another call has failed.

        Returns
        -------
        row
            With its quality, also where the camera fails as well; None where no frame
            is on its way.
        """
        exposed = self._waiting
        if exposed is None:
            return None
        try:
            return self.collect(None)
        except DeviceError as error:
            return replace(exposed.row, quality=_kind(error), detail=str(error))

    def _leave_room(self, ready_s: float) -> None:
        """Wait for as long as the camera's times may be wrong, either way.

        A fresh frame may be told so much too early, an ended exposure so much too late,
        and the rule wants as much to spare.
        """
        if not self._is_by_own_clock:
            return
        for _ in range(ROUNDS):  # the error may grow meanwhile
            error_s = self._bench.camera.time_error_s
            left_s = ready_s + 2 * error_s - self._bench.clock.now()
            if left_s <= 0:
                return
            self._bench.clock.sleep(left_s)

    def _fetch(self, exposed: _Exposed, timeout_s: float) -> _Row:
        pattern, row = exposed.pattern, exposed.row
        verdict = Verdict("duplicate")
        for _ in range(MOST_COPIES):
            try:
                frame = self._bench.frame(timeout_s)
            except FrameError as error:
                return replace(row, quality=error.kind, detail=error.detail)
            answer = Answer(
                checksum=row.written.checksum,
                trigger=frame.trigger,
                frame_id=frame.frame_id,
                start_s=frame.exposure_start_s,
                end_s=frame.exposure_end_s,
                shape=frame.data.shape,
                dtype=str(frame.data.dtype),
            )
            verdict = judge(pattern, answer, self._counter, frame.time_error_s)
            row = replace(row, frame=frame)
            if verdict.quality == "ok":
                self._counter = self._counter.after(answer)
            # A copy of the frame before costs nothing: ours is behind it.
            if verdict.quality != "duplicate":
                break
        row = replace(row, quality=verdict.quality, detail=verdict.detail)
        self._live()
        return self._shown(row) if verdict.quality == "ok" else row

    def _shown(self, row: _Row) -> _Row:
        """Refuse the frame of a panel that went off during the exposure."""
        try:
            self._bench.slm.check_shown()
        except DeviceError as error:
            return replace(row, quality=_kind(error), detail=str(error), failure=error)
        return row


class Reservoir:
    """A bench as a function from macropixel phases to outputs.

    It is what a :class:`labctl.training.blackbox.DeviceLayer` is given. Making
    one configures the camera; the light goes on before the first pattern.

    Parameters
    ----------
    bench
        An open bench.
    entry
        Operating point; None takes the bench file's.
    ledger
        Where exposures are booked; None makes one without a budget.
    sink
        Receives every batch of shots, before its outputs are used.
    past
        Knows exposures that an interrupted run made: they are taken as they were
        recorded, and only what it does not know is exposed.

    Raises
    ------
    CalibrationError
        A calibration that is needed is not in force.
    InputError
        The operating point does not fit the bench.
    """

    def __init__(
        self,
        bench: Bench,
        entry: ReservoirEntry | None = None,
        *,
        ledger: Ledger | None = None,
        sink: Sink | None = None,
        past: Past | None = None,
    ) -> None:
        self.bench = bench
        self.entry = entry = bench.file.reservoir if entry is None else entry
        self.ledger = Ledger(None) if ledger is None else ledger
        self._sink, self._past = sink, past
        self.shots = 0
        self._panel = Panel(
            Blocks(bench.slm.shape, entry.macropixels),
            bench.phase_curve_rad(),
            bench.correction_rad(),
        )
        self.scale, self.blocks = self._panel.scale, self._panel.blocks
        settle_s = calibration(bench, Settle).settle_s
        bins = bench.bins(entry)
        taken = bench.configure_camera(
            exposure_s=entry.exposure_s, gain_db=entry.gain_db, region=bins.region
        )
        self.decoder = Decoder(
            entry, calibration(bench, CameraResponse), taken.exposure_s, bins
        )
        self._exposer = Exposer(bench, self.ledger, taken, settle_s)
        self._is_lit = False

    @property
    def layout(self) -> tuple[int, int]:
        """Rows and columns of macropixels."""
        return self.entry.macropixels

    @property
    def pixels(self) -> int:
        """Number of macropixels: inputs of the function."""
        return self.layout[0] * self.layout[1]

    @property
    def outputs(self) -> int:
        """Number of bins: outputs of the function."""
        return self.entry.bins[0] * self.entry.bins[1]

    def __call__(
        self, phase: Tensor, *, category: str, layer: int = 0, step: int = -1
    ) -> Response:
        """Expose a batch of phases.

        Parameters
        ----------
        phase
            ``[batch, macropixel]``, in rad.
        category
            What the shots are for.
        layer
            Which device layer asks.
        step
            Training step; -1 outside of training.

        Returns
        -------
        response
            Outputs, phases really shown, and shot numbers; in phase's dtype.

        Raises
        ------
        ValueError
            The phases do not fit the macropixels.
        BudgetError
            The ledger would be overspent; nothing was exposed.
        DeviceError
            A device failed, or a frame was not the one expected.
        SafetyError
            A limit of the bench file was passed, such as a saturated frame where it
            says stop.
        """
        asked = phase.detach().cpu().double().numpy()
        if asked.ndim != 2 or asked.shape[1] != self.pixels:
            text = (
                f"reservoir: phase shape={list(asked.shape)}, expected "
                f"[batch, {self.pixels}]"
            )
            raise ValueError(text)
        levels = self._panel.levels(asked)
        purpose, longest = _Purpose(category, step, layer), self._exposer.longest
        with self._exposer.booked(category, len(levels)):
            parts = [
                self._expose(levels[start : start + longest], purpose)
                for start in range(0, len(levels), longest)
            ]
        outputs = [np.zeros((0, self.outputs)), *(y for y, _ in parts)]
        rows = [np.zeros(0, dtype=np.int64), *(numbers for _, numbers in parts)]
        return Response(
            y=torch.from_numpy(np.concatenate(outputs)).to(phase),
            shown=torch.from_numpy(self._panel.shown(levels)).to(phase),
            shot=torch.from_numpy(np.concatenate(rows)),
        )

    def _expose(self, levels: Levels, purpose: _Purpose) -> _Accepted:
        if self._past is None:
            return self._measure(levels, purpose)
        known, numbers = self._recall(self._past, levels, purpose)
        if len(numbers) == len(levels):
            return known, numbers
        made, others = self._measure(levels[len(numbers) :], purpose)
        return np.concatenate([known, made]), np.concatenate([numbers, others])

    def _recall(self, past: Past, levels: Levels, purpose: _Purpose) -> _Accepted:
        """Answer from exposures that were made before, as far as there are any."""
        self.bench.beat()
        found = past(levels, purpose.category, purpose.step, purpose.layer)
        good, first = np.flatnonzero(found.accepted), self.shots
        # In place: what was shown is what was recorded, to the last level.
        levels[: len(good)] = found.levels[good]
        self.shots += len(found.accepted)
        rejected = len(found.accepted) - len(good)
        self._exposer.recall(purpose.category, len(good), rejected)
        return found.outputs[good], first + good

    def _measure(self, levels: Levels, purpose: _Purpose) -> _Accepted:
        if not self._is_lit:  # not before: whatever is prepared needs no light
            self.bench.light(self.entry.power_mw)
            self._is_lit = True
        return self._exposer.expose(
            self.blocks.expand(levels),
            purpose.category,
            lambda batch: self._hand_over(levels, batch, purpose),
        )

    def _hand_over(self, levels: Levels, batch: Batch, purpose: _Purpose) -> _Accepted:
        """Decode what was accepted, and give every row to the sink."""
        played, good = batch.played, batch.accepted
        power_mw = self._power(played, good)
        frames = (
            played.frames[good] if len(good) < len(played.frames) else played.frames
        )
        accepted = self.decoder.outputs(frames, power_mw[good])
        outputs = np.full((len(batch.quality), self.outputs), math.nan)
        outputs[good] = accepted
        least = self.bench.camera.saturation_dn
        saturated = np.array(
            [np.count_nonzero(frame >= least) for frame in played.frames],
            dtype=np.int64,
        )
        shots = Shots(
            first=self.shots,
            levels=levels[batch.pattern],
            outputs=outputs,
            power_mw=power_mw,
            saturated_px=saturated,
            played=played,
            attempt=batch.attempt,
            quality=batch.quality,
            category=purpose.category,
            step=purpose.step,
            layer=purpose.layer,
        )
        self.shots += len(batch.quality)
        if self._sink is not None and len(batch.quality):
            self._sink(shots)
        # After the sink: what stops a run is in its record.
        self.bench.judge_saturation(int(saturated.max(initial=0)))
        return accepted, shots.first + good

    def _power(self, played: Played, good: NDArray[np.int64]) -> NDArray[np.float64]:
        power_mw = played.power_mw
        if power_mw is None:
            power_mw = np.full(len(played.frames), self.bench.laser.power_mw())
        least = LEAST_POWER_FRACTION * self.entry.power_mw
        lowest = float(power_mw[good].min()) if good.size else math.inf
        if not lowest > least:
            text = (
                f"power_mw={lowest:.4g} measured, expected about "
                f"{self.entry.power_mw:g}. Look for a blocked beam, a tripped laser "
                "or a dark meter."
            )
            raise DeviceError(self.bench.laser.name, "measure", text)
        return power_mw

    def gradient_source(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Ask the bench for its true gradient, for reference lines only.

        Returns
        -------
        source
            From phases shown ``[batch, macropixel]`` and a gradient on the
            outputs ``[batch, output]`` to the gradient on those phases.

        Raises
        ------
        InputError
            This bench has no oracle: its light is not simulated.
        """
        oracle = self.bench.oracle()

        def source(shown: Tensor, cotangent: Tensor) -> Tensor:
            self.bench.beat()
            asked = shown.detach().cpu().double().numpy()
            levels = self._panel.levels(asked)
            on_frame = self.decoder.spread(cotangent.detach().cpu().double().numpy())
            on_panel = oracle.gradient(
                self.blocks.expand(levels), on_frame, power_mw=self.entry.power_mw
            )
            on_level = self.blocks.gather(on_panel)
            return torch.from_numpy(on_level / self.scale.slope(levels)).to(shown)

        return source


def calibration(bench: Bench, kind: type[CalibrationValues]) -> CalibrationValues:
    """Values of the calibration of one kind that is in force.

    Parameters
    ----------
    bench
        The bench.
    kind
        Which values.

    Returns
    -------
    values
        As the record holds them.

    Raises
    ------
    CalibrationError
        None is in force.
    """
    for record in bench.calibrations.values():
        if isinstance(record.values, kind):
            return record.values
    text = (
        f"bench {bench.file.name}: no calibration {kind.__name__} in force. Run "
        f"labctl calibrate, or add a record to its current.yaml."
    )
    raise CalibrationError(text)
