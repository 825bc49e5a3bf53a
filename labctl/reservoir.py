"""A bench seen as a function: phases in, outputs out, every exposure on the ledger.

::

    phase [pattern, macropixel] --nearest level--> levels --blocks--> panel
    panel --sequence, or write, settle, expose--> frame, identified
    frame --dark, bins, gain, exposure, power--> y [pattern, output]

Outputs are electrons a bin, at the nominal exposure and power: what a frame of
another power or exposure time would have held there. The phases that come back
with them are those that the panel really showed, by its phase curve.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labctl.bench import Bench
from labctl.calibration import CameraResponse, ReservoirEntry, Settle
from labctl.devices import Levels, Played
from labctl.errors import (
    BudgetError,
    CalibrationError,
    DeviceError,
    FrameError,
    InputError,
)
from labctl.training.blackbox import Response

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
LONGEST_BATCH = 256
FRAME_TIMEOUT_S = 5.0
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

    Parameters
    ----------
    first
        Number of the first shot since the reservoir was made.
    levels
        Gray level of each macropixel, ``(shot, macropixel)``.
    outputs
        ``(shot, output)``, electrons a bin at nominal exposure and power.
    power_mw
        Measured power, ``(shot,)``.
    saturated_px
        Saturated pixels of each frame, ``(shot,)``.
    played
        Frames, identities and times.
    category, step, layer
        What the shots were for.
    """

    first: int
    levels: Levels
    outputs: NDArray[np.float64]
    power_mw: NDArray[np.float64]
    saturated_px: NDArray[np.int64]
    played: Played
    category: str
    step: int
    layer: int


Sink = Callable[[Shots], None]


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
        self.slope_rad = np.gradient(self.phase_rad)

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
        blocks = levels.reshape(-1, rows, columns)
        tiled = blocks.repeat(self.block[0], axis=1).repeat(self.block[1], axis=2)
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


class Decoder:
    """Frames to outputs: dark-subtract, bin, and scale to nominal conditions.

    Parameters
    ----------
    entry
        Region, bins, exposure, gain and power that are nominal.
    response
        The camera's calibration.
    exposure_s
        Exposure time that the camera really took.
    """

    def __init__(
        self, entry: ReservoirEntry, response: CameraResponse, exposure_s: float
    ) -> None:
        _, _, height, width = entry.region
        self._shape = (height, width)
        self._rows = np.linspace(0, height, entry.bins[0] + 1).round().astype(int)
        self._columns = np.linspace(0, width, entry.bins[1] + 1).round().astype(int)
        self._power_mw = entry.power_mw
        dark_dn = response.offset_dn + response.dark_dn_per_s * exposure_s
        area = np.outer(np.diff(self._rows), np.diff(self._columns))
        self._dark = dark_dn * area.ravel()
        self._dn_per_e = response.gain_dn_per_e * 10 ** (entry.gain_db / 20)
        self._scale = entry.exposure_s / exposure_s / self._dn_per_e

    def outputs(
        self, frames: NDArray[np.uint16], power_mw: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Decode ``(shot, row, column)`` counts into ``(shot, output)``."""
        sums = np.add.reduceat(frames, self._rows[:-1], axis=1, dtype=np.int64)
        sums = np.add.reduceat(sums, self._columns[:-1], axis=2)
        counts = sums.reshape(len(frames), -1) - self._dark
        return counts * self._scale * (self._power_mw / power_mw)[:, None]

    def spread(self, cotangent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pull a gradient on the outputs back to counts, at nominal power."""
        rows, columns = len(self._rows) - 1, len(self._columns) - 1
        bins = (cotangent * self._scale).reshape(-1, rows, columns)
        return bins.repeat(np.diff(self._rows), axis=1).repeat(
            np.diff(self._columns), axis=2
        )


class Reservoir:
    """A bench as a function from macropixel phases to outputs.

    It is what a :class:`labctl.training.blackbox.DeviceLayer` is given. Making
    one configures the camera and switches the light on.

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
    ) -> None:
        self.bench = bench
        self.entry = entry = bench.file.reservoir if entry is None else entry
        self.ledger = Ledger(None) if ledger is None else ledger
        self._sink = sink
        self.shots = 0
        self.scale = PhaseScale(bench.phase_curve_rad())
        self.blocks = Blocks(bench.slm.shape, entry.macropixels)
        self._settle_s = calibration(bench, Settle).settle_s
        taken = bench.configure_camera(
            exposure_s=entry.exposure_s, gain_db=entry.gain_db, region=entry.region
        )
        self.decoder = Decoder(
            entry, calibration(bench, CameraResponse), taken.exposure_s
        )
        self._frame_shape = (taken.region[2], taken.region[3])
        bench.light(entry.power_mw)

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
        """
        levels = self.scale.levels(phase.detach().cpu().double().numpy())
        if levels.ndim != 2 or levels.shape[1] != self.pixels:
            text = (
                f"reservoir: phase shape={list(levels.shape)}, expected "
                f"[batch, {self.pixels}]"
            )
            raise ValueError(text)
        self.ledger.book(category, len(levels))
        first = self.shots
        outputs = [
            self._expose(levels[start : start + LONGEST_BATCH], category, layer, step)
            for start in range(0, len(levels), LONGEST_BATCH)
        ]
        empty = np.zeros((0, self.outputs))
        return Response(
            y=torch.from_numpy(np.concatenate([empty, *outputs])).to(phase),
            shown=torch.from_numpy(self.scale.shown(levels)).to(phase),
            shot=torch.arange(first, first + len(levels)),
        )

    def _expose(
        self, levels: Levels, category: str, layer: int, step: int
    ) -> NDArray[np.float64]:
        self.bench.beat()
        panel = self.blocks.expand(levels)
        if self.bench.sequence is None:
            played = self._step(panel)
        else:
            played = self.bench.sequence.play(panel, settle_s=self._settle_s)
        self._accept(played, panel)
        power_mw = self._power(played)
        outputs = self.decoder.outputs(played.frames, power_mw)
        saturated = (played.frames >= self.bench.camera.saturation_dn).sum(axis=(1, 2))
        shots = Shots(
            first=self.shots,
            levels=levels,
            outputs=outputs,
            power_mw=power_mw,
            saturated_px=saturated.astype(np.int64),
            played=played,
            category=category,
            step=step,
            layer=layer,
        )
        self.shots += len(levels)
        if self._sink is not None:
            self._sink(shots)
        return outputs

    def _step(self, panel: Levels) -> Played:
        bench, camera = self.bench, self.bench.camera
        written, frames, powers = [], [], []
        camera.arm(len(panel))
        try:
            for levels in panel:
                bench.beat()
                written.append(bench.slm.write(levels))
                bench.clock.sleep(self._settle_s)
                camera.trigger()
                frames.append(camera.frame(FRAME_TIMEOUT_S + self.entry.exposure_s))
                if bench.meter is not None:
                    powers.append(bench.meter.reading().value)
        finally:
            camera.disarm()
        return Played(
            frames=np.stack([frame.data for frame in frames]),
            pattern_id=np.array([w.pattern_id for w in written]),
            checksum=np.array([w.checksum for w in written]),
            written_s=np.array([w.written_s for w in written]),
            frame_id=np.array([frame.frame_id for frame in frames]),
            trigger=np.array([frame.trigger for frame in frames]),
            device_time_s=np.array([frame.device_time_s for frame in frames]),
            host_time_s=np.array([frame.host_time_s for frame in frames]),
            exposure_start_s=np.array([frame.exposure_start_s for frame in frames]),
            exposure_end_s=np.array([frame.exposure_end_s for frame in frames]),
            power_mw=np.array(powers) if powers else None,
        )

    def _accept(self, played: Played, panel: Levels) -> None:
        """Refuse a batch in which any frame is not the answer to its pattern.

        Raises
        ------
        FrameError
            With its class; the whole batch is refused.
        """
        name = self.bench.camera.name
        expected = (len(panel), *self._frame_shape)
        if played.frames.shape != expected or played.frames.dtype != np.uint16:
            text = (
                f"got {played.frames.shape} {played.frames.dtype}, "
                f"expected {expected} uint16"
            )
            raise FrameError(name, "wrong_shape", text)
        sums = np.array([zlib.crc32(levels.tobytes()) for levels in panel])
        if not np.array_equal(sums, played.checksum):
            row = int(np.argmin(sums == played.checksum))
            text = f"row {row}: the panel shows another pattern than was written"
            raise FrameError(name, "stale", text)
        ready = played.written_s + self._settle_s
        # One part in 1e9 of a second: clocks add times in another order than we.
        early = np.flatnonzero(played.exposure_start_s < ready - 1e-9)
        if early.size:
            row = int(early[0])
            text = (
                f"row {row}: exposure began at {played.exposure_start_s[row]:.6f} s, "
                f"expected not before {ready[row]:.6f} s (write and settle)"
            )
            raise FrameError(name, "stale", text)
        late = np.flatnonzero(played.exposure_end_s[:-1] > played.written_s[1:] + 1e-9)
        if late.size:
            text = f"row {int(late[0])}: still exposing when the next was written"
            raise FrameError(name, "late", text)
        if np.any(np.diff(played.trigger) != 1):
            text = f"triggers {played.trigger.tolist()}, expected one after the other"
            raise FrameError(name, "gap", text)

    def _power(self, played: Played) -> NDArray[np.float64]:
        power_mw = played.power_mw
        if power_mw is None:
            power_mw = np.full(len(played.frames), self.bench.laser.power_mw())
        least = LEAST_POWER_FRACTION * self.entry.power_mw
        if not np.all(power_mw > least):
            text = (
                f"power_mw={float(np.nanmin(power_mw)):.4g} measured, expected about "
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
            levels = self.scale.levels(shown.detach().cpu().double().numpy())
            on_frame = self.decoder.spread(cotangent.detach().cpu().double().numpy())
            on_panel = oracle.gradient(
                self.blocks.expand(levels), on_frame, power_mw=self.entry.power_mw
            )
            on_level = self.blocks.gather(on_panel)
            return torch.from_numpy(on_level / self.scale.slope_rad[levels]).to(shown)

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
