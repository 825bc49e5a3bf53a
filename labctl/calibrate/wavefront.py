"""Kind ``wavefront``: the phase that makes the panel's light meet in one spot.

The light is sent away from what is not modulated, to the middle of a camera pixel, and
Zernike's modes are put on the panel one after the other in several sizes: the size at
which the spot is brightest is kept, and all of it is done again in smaller steps. At
the end the spot with the correction is compared with that without at equal exposure.
Only a correction that makes it brighter beyond its error is used; where none does, the
answer is that the panel is flat.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from labctl.calibrate.kind import Figure, Finding, Kind, Merit, Quantity, Series
from labctl.calibrate.patterns import Painter, linear_power
from labctl.calibrate.stand import Stand
from labctl.calibration import PanelMap

Array = NDArray[np.float64]
# Sizes of a mode in one round after the other, in rad rms.
RANGES, POINTS, COMPARED = (1.6, 1.0, 0.6, 0.4), 7, 64
# Frames of each size; in the last round up to so many where the spot is faint, for its
# light to have the relative error that follows, without a correction. A third of them
# in those before: a round that goes astray in noise is not made good by the last.
FRAMES, FAINT, SHARP = 8, 96, 0.03
# Frames of each that tell whether the medium is linear; most where light is faint.
TOLD, MOST = 32, 256
MODES = ("focus", "astigmatism 0", "astigmatism 45", "coma y", "coma x", "spherical")
# Direction of the spot, as shares of the greatest tilt: where it is not in the way.
AWAY = (11 / 14, 1.0)
# A gain counts from so many standard errors.
CERTAIN = 3.0


def zernike(shape: tuple[int, int]) -> Array:
    """Zernike's modes on a panel, each of mean 0 and rms 1, ``(mode, row, column)``."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    r2 = x**2 + y**2
    modes = np.stack(
        [
            2 * r2 - 1,
            x**2 - y**2,
            2 * x * y,
            (3 * r2 - 2) * y,
            (3 * r2 - 2) * x,
            6 * r2**2 - 6 * r2 + 1,
        ]
    )
    modes -= modes.mean(axis=(1, 2), keepdims=True)
    found: Array = modes / modes.std(axis=(1, 2), keepdims=True)
    return found


def brightest(size: Array, light: Array, error: Array) -> float:
    """Find the size at which a spot is brightest.

    Parameters
    ----------
    size
        Of the mode, rising.
    light, error
        Of the spot, and its standard error.

    Returns
    -------
    size
        Top of a parabola through the logarithm of what is bright, within the range.
    """
    top = int(light.argmax())
    near = np.zeros(len(size), dtype=bool)
    near[max(top - 2, 0) : top + 3] = True
    bright = near & (light > 0.3 * light[top]) & (light > 0)
    if bright.sum() < 3:
        return float(size[top])
    bend, slope, _ = np.polyfit(
        size[bright], np.log(light[bright]), 2, w=(light / error)[bright]
    )
    if bend >= 0:
        return float(size[top])
    return float(np.clip(-slope / (2 * bend), size[0], size[-1]))


def searched(
    spot: Callable[[Array, bool], tuple[Array, Array]], modes: int
) -> tuple[Array, list[tuple[Array, Array]]]:
    """Look for the sizes of all modes that make the brightest spot.

    Parameters
    ----------
    spot
        Light of the spot and its error for sizes ``(trial, mode)``; whether it is
        the last round, which decides.
    modes
        How many there are.

    Returns
    -------
    sizes, sweeps
        Of each mode; and sizes and light of each mode in the first round.
    """
    sizes = np.zeros(modes)
    sweeps = []
    for number, reach in enumerate(RANGES):
        for mode in range(modes):
            steps = np.linspace(-reach, reach, POINTS)
            trials = np.tile(sizes, (POINTS, 1))
            trials[:, mode] += steps
            light, error = spot(trials, number == len(RANGES) - 1)
            sizes[mode] += brightest(steps, light, error)
            if number == 0:
                sweeps.append((steps, light))
    return sizes, sweeps


def enough(light: Array) -> int:
    """Say how many frames tell the light of a spot.

    Parameters
    ----------
    light
        Of the spot in single frames.

    Returns
    -------
    frames
        From :data:`FRAMES` to :data:`FAINT`.
    """
    wanted = float(light.std()) / (SHARP * max(float(light.mean()), 1e-9))
    return math.ceil(min(max(wanted**2, FRAMES), FAINT))


@dataclass(frozen=True, eq=False)
class _Spot:
    """The spot of patterns with a correction each."""

    stand: Stand
    painter: Painter
    modes: Array
    tilt: Array
    place: tuple[int, int]
    count: int = FRAMES

    def frames(self, sizes: Array, count: int) -> Array:
        """Light of the spot ``(trial, frame)`` for sizes ``(trial, mode)``."""
        phase = self.tilt + np.tensordot(sizes, self.modes, axes=1)
        exposed = self.stand.repeated(self.painter.levels(phase), count)
        self.stand.require_light(exposed)
        level = self.stand.power_mw / exposed.power_mw
        row, column = self.place
        light = self.stand.signal_e(exposed)[:, row, column] * level
        found: Array = light.reshape(len(sizes), count)
        return found

    def __call__(self, sizes: Array, is_last: bool) -> tuple[Array, Array]:
        count = self.count if is_last else max(self.count // 3, FRAMES)
        light = self.frames(sizes, count)
        noise = math.sqrt(float(light.var(axis=1, ddof=1).mean()) / count)
        return light.mean(axis=1), np.full(len(sizes), max(noise, 1e-9))


# ---- the procedure ---------------------------------------------------------------


def measure(stand: Stand, limits: Mapping[str, float]) -> Finding:
    """Measure the correction, and whether it helps.

    Parameters
    ----------
    stand
        The bench.
    limits
        Of the merits.

    Returns
    -------
    finding
        The correction; flat where none helps.

    Raises
    ------
    OutcomeError
        No light, or no linear medium.
    """
    painter = Painter(stand)
    modes = zernike(stand.panel)
    tilt, place = _aimed(stand)
    phase = painter.tilt(tilt[None])
    sample = painter.levels(phase)
    # The same to all sides: what they differ by is the spot, which may be spread wide.
    sides = tilt * np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]])
    aside = painter.levels(painter.tilt(sides))
    power_mw = linear_power(stand, aside, TOLD, most=MOST)
    # With room for a spot that is brighter by much.
    stand.brighten(sample, share=0.2)
    spot = _Spot(stand, painter, modes, phase[0], place)
    stand.stage("modes")
    spot = replace(spot, count=enough(spot.frames(np.zeros((1, len(modes))), COMPARED)))
    sizes, sweeps = searched(spot, len(modes))
    stand.stage("comparison")
    both = spot.frames(np.stack([np.zeros(len(modes)), sizes]), COMPARED)
    before, after = both.mean(axis=1)
    noise = both.std(axis=1, ddof=1) / math.sqrt(COMPARED)
    ratio = float(after / before)
    error = ratio * math.hypot(noise[0] / before, noise[1] / after)
    helps = ratio - 1 > CERTAIN * error
    kept = sizes if helps else np.zeros(len(modes))
    remark = (
        f"the spot is {ratio:.3g} ± {error:.2g} times as bright with the correction."
        if helps
        else f"no correction helps: with the best one the spot is {ratio:.3g} ± "
        f"{error:.2g} times as bright. The panel counts as flat."
    )
    gained = ratio if helps else 1.0
    return Finding(
        values={
            "phase_rad": np.tensordot(kept, modes, axes=1),
            "modes_rad": {name: float(x) for name, x in zip(MODES, kept, strict=True)},
            "gain": gained,
        },
        quantities={
            name.replace(" ", "_") + "_rad": Quantity(float(x), 0.05, 0.15)
            for name, x in zip(MODES, kept, strict=True)
        },
        merits=(Merit("gain", gained, error, limits["gain"], is_floor=True),),
        figures=_figures(sizes, sweeps, is_kept=bool(np.any(kept))),
        conditions={"power_mw": power_mw},
        remarks=(remark,),
    )


def _aimed(stand: Stand) -> tuple[Array, tuple[int, int]]:
    """Choose a direction that leads to the middle of a camera pixel."""
    mapped = stand.calibrated(PanelMap)
    reach = stand.bench.file.calibrate.reach_cycles_px
    place = mapped.places(reach * np.array([AWAY]))[0].round()
    offset = mapped.places(np.zeros((1, 2)))[0]
    tilt = np.linalg.solve(np.array(mapped.matrix_px), place - offset)
    row, column = place - stand.corner
    return tilt, (int(row), int(column))


def _figures(
    sizes: Array, sweeps: list[tuple[Array, Array]], *, is_kept: bool
) -> tuple[Figure, ...]:
    modes = ", ".join(f"{number} {mode}" for number, mode in enumerate(MODES, 1))
    return (
        Figure(
            "wavefront-modes",
            "Correction by mode",
            f"Size of each Zernike mode that makes the spot brightest: {modes}."
            + ("" if is_kept else " As they do not help, none is put in force."),
            "mode",
            "size (rad rms)",
            (Series("correction", np.arange(1, len(sizes) + 1), sizes),),
        ),
        Figure(
            "wavefront-sweeps",
            "First round",
            "Light of the spot over the size of each mode, one after the other.",
            "size (rad rms)",
            "light (electrons)",
            tuple(
                Series(name, steps, light, is_line=True)
                for name, (steps, light) in zip(MODES, sweeps, strict=True)
            ),
        ),
    )


KIND = Kind(
    name="wavefront",
    text="phase that makes the panel's light meet in one spot",
    of=("slm", "laser", "camera"),
    measure=measure,
    needs=("camera", "settle", "slm-phase", "mapping"),
    views=("far_field",),
    depends_on_wavelength=True,
    valid_days=30.0,
    limits={"gain": 1.0},
)
