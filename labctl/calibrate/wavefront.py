"""Kind ``wavefront``: the phase that makes the panel's light meet in one spot.

A few spots tell roughly where the camera sees a tilt of the light. It is sent away
from what is not modulated, to the middle of a camera pixel. Zernike's modes, tilts
first, are put on the panel one after the other in several sizes: the size at which the
spot is brightest is kept, and all of it is done again in smaller steps. Without tilts,
coma would bring a spot that is a little off to the middle, as it has a tilt in it. They
are no part of the correction: ``mapping`` tells where the spots are with it.

At the end the spot with the correction is compared with that without at equal exposure,
each in the middle. Only a correction that makes it brighter beyond its error is used;
where none does, the answer is that the panel is flat.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from labctl.calibrate.kind import (
    MORE_LIGHT,
    Figure,
    Finding,
    Kind,
    Merit,
    Quantity,
    Series,
)
from labctl.calibrate.mapping import (
    Affine,
    directions,
    find_spots,
    fit_map,
    require_certain,
)
from labctl.calibrate.patterns import Painter, linear_power
from labctl.calibrate.stand import Stand
from labctl.errors import OutcomeError

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
# Spots that tell roughly where the camera sees a tilt; and modes that are tilts, which
# are no part of the correction.
ROUGH, TILTS = 12, 2
# Direction of the spot, as shares of the greatest tilt: where it is not in the way.
AWAY = (11 / 14, 1.0)
# Nearer by so much where that falls off the frame: a camera may be turned.
NEARER: Final = (1.0, 0.8, 0.64, 0.5)
MARGIN_PX: Final = 2
# A gain counts from so many standard errors.
CERTAIN = 3.0


def zernike(shape: tuple[int, int]) -> Array:
    """Zernike's modes on a panel, each of mean 0 and rms 1.

    Parameters
    ----------
    shape
        Height and width of the panel.

    Returns
    -------
    modes
        ``(mode, row, column)``: :data:`TILTS` tilts, then those of :data:`MODES`.
    """
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    r2 = x**2 + y**2
    modes = np.stack(
        [
            y,
            x,
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


@dataclass(frozen=True)
class Top:
    """Where a spot is brightest.

    Parameters
    ----------
    size, error
        Of the mode, in rad rms, and its standard error with all other modes as they
        are.
    """

    size: float
    error: float


def brightest(size: Array, light: Array, error: Array) -> Top:
    """Find the size at which a spot is brightest.

    Parameters
    ----------
    size
        Of the mode, rising.
    light, error
        Of the spot, and its standard error.

    Returns
    -------
    top
        Of a parabola through the logarithm of what is bright, within the range. Light
        that has no such top tells no more than the range.
    """
    top = int(light.argmax())
    near = np.zeros(len(size), dtype=bool)
    near[max(top - 2, 0) : top + 3] = True
    bright = near & (light > 0.3 * light[top]) & (light > 0)
    # The spread of what may be anywhere in the range.
    most = float(size[-1] - size[0]) / math.sqrt(12)
    if bright.sum() < 3:
        return Top(float(size[top]), most)
    (bend, slope, _), covariance = np.polyfit(
        size[bright],
        np.log(light[bright]),
        2,
        w=(light / error)[bright],
        cov="unscaled",
    )
    if bend >= 0:
        return Top(float(size[top]), most)
    best = -slope / (2 * bend)
    by = np.array([-best / bend, -1 / (2 * bend), 0.0])
    known = math.sqrt(by @ covariance @ by)
    return Top(float(np.clip(best, size[0], size[-1])), min(known, most))


@dataclass(frozen=True, eq=False)
class Search:
    """The sizes of all modes that make the brightest spot.

    Parameters
    ----------
    sizes, errors
        Of each mode in rad rms, ``(mode,)``. The error is that of its top and its move
        in the last round together: modes that can stand for each other, as tilt and
        coma of a narrow beam, move as long as they are not told apart.
    sweeps
        Sizes and light of each mode in the first round.
    """

    sizes: Array
    errors: Array
    sweeps: list[tuple[Array, Array]]


def searched(
    spot: Callable[[Array], tuple[Array, Array]],
    sizes: Array,
    reaches: Sequence[float],
    count: int | None = None,
) -> Search:
    """Look for the sizes of all modes that make the brightest spot.

    Parameters
    ----------
    spot
        Light of the spot and its error for sizes ``(trial, mode)``.
    sizes
        Of each mode, to begin with.
    reaches
        How far each is moved to either side, in one round after the other.
    count
        How many of the modes are searched; None for all.

    Returns
    -------
    search
        What was found; modes that are not searched have no error.
    """
    sizes = sizes.copy()
    errors = np.zeros(len(sizes))
    sweeps = []
    for number, reach in enumerate(reaches):
        for mode in range(len(sizes) if count is None else count):
            steps = np.linspace(-reach, reach, POINTS)
            trials = np.tile(sizes, (POINTS, 1))
            trials[:, mode] += steps
            light, error = spot(trials)
            top = brightest(steps, light, error)
            sizes[mode] += top.size
            errors[mode] = math.hypot(top.error, top.size)
            if number == 0:
                sweeps.append((steps, light))
    return Search(sizes, errors, sweeps)


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


@dataclass(frozen=True)
class Gain:
    """How many times as bright a correction makes a spot.

    Parameters
    ----------
    ratio, error
        Light with it over that without, and its standard error.
    """

    ratio: float
    error: float

    @property
    def helps(self) -> bool:
        """Whether it is brighter, beyond the error."""
        return self.ratio - 1 > CERTAIN * self.error


def gained(without: Array, corrected: Array) -> Gain:
    """Compare the spot with a correction with that without.

    Parameters
    ----------
    without, corrected
        Light of the spot in single frames, ``(frame,)``.

    Returns
    -------
    gain
        With its error.
    """
    before, after = float(without.mean()), float(corrected.mean())
    shares = [
        float(light.std(ddof=1)) / math.sqrt(len(light)) / mean
        for light, mean in ((without, before), (corrected, after))
    ]
    ratio = after / before
    return Gain(ratio, ratio * math.hypot(*shares))


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

    def __call__(self, sizes: Array) -> tuple[Array, Array]:
        light = self.frames(sizes, self.count)
        noise = math.sqrt(float(light.var(axis=1, ddof=1).mean()) / self.count)
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
    # The same to all sides: what they differ by is the spot, which may be spread wide.
    sides = _away(stand) * np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]])
    aside = painter.levels(painter.tilt(sides))
    power_mw = linear_power(stand, aside, TOLD, most=MOST)
    tilt, place = _aimed(stand, painter)
    phase = painter.tilt(tilt[None])
    # With room for a spot that is brighter by much.
    stand.brighten(painter.levels(phase), share=0.2)
    spot = _Spot(stand, painter, modes, phase[0], place)
    flat = np.zeros(len(modes))
    stand.stage("modes")
    surely = replace(spot, count=enough(spot.frames(flat[None], COMPARED)))
    quickly = replace(spot, count=max(surely.count // 3, FRAMES))
    first = searched(quickly, flat, RANGES[:1])
    nearer = searched(quickly, first.sizes, RANGES[1:-1])
    last = searched(surely, nearer.sizes, RANGES[-1:])
    # The spot without is moved to the middle of the pixel as well.
    bare = searched(quickly, flat, RANGES[1:], TILTS)
    stand.stage("comparison")
    gain = gained(*spot.frames(np.stack([bare.sizes, last.sizes]), COMPARED))
    found = Search(last.sizes[TILTS:], last.errors[TILTS:], first.sweeps[TILTS:])
    modes = modes[TILTS:]
    kept = found.sizes if gain.helps else np.zeros(len(modes))
    remark = (
        f"the spot is {gain.ratio:.3g} ± {gain.error:.2g} times as bright with the "
        "correction."
        if gain.helps
        else f"no correction helps: with the best one the spot is {gain.ratio:.3g} ± "
        f"{gain.error:.2g} times as bright. The panel counts as flat."
    )
    factor = gain.ratio if gain.helps else 1.0
    return Finding(
        values={
            "phase_rad": np.tensordot(kept, modes, axes=1),
            "modes_rad": {name: float(x) for name, x in zip(MODES, kept, strict=True)},
            "gain": factor,
        },
        quantities={
            name.replace(" ", "_") + "_rad": Quantity(float(x), float(error), 0.15)
            for name, x, error in zip(MODES, kept, found.errors, strict=True)
        },
        merits=(
            Merit("gain", factor, gain.error, limits["gain"], is_floor=True),
            # Flat is an answer only where a bent panel would have been seen.
            Merit(
                "gain_error",
                gain.error,
                math.nan,
                limits["gain_error"],
                remedy=MORE_LIGHT,
            ),
        ),
        figures=_figures(found, is_kept=gain.helps),
        conditions={"power_mw": power_mw},
        remarks=(remark,),
    )


def _away(stand: Stand) -> Array:
    """Say roughly where the spot is sent, in cycles a panel pixel."""
    reach = stand.bench.file.calibrate.reach_cycles_px
    tilt: Array = reach * np.array(AWAY)
    return tilt


def _aimed(stand: Stand, painter: Painter) -> tuple[Array, tuple[int, int]]:
    """Choose a direction that leads to the middle of a camera pixel.

    Not by ``mapping``: that is measured with the correction, which moves spots.

    Raises
    ------
    OutcomeError
        No light, no spots, or spots that do not go along with the panel, or lie
        beside the frame.
    """
    tilts = directions(stand, ROUGH)
    kept, spots = find_spots(stand, tilts, painter.levels(painter.tilt(tilts)))
    mapped = fit_map(tilts[kept], spots[kept])
    require_certain(mapped, stand.name)
    return aim(mapped, _away(stand), stand.corner, stand.frame, stand.name)


def aim(
    mapped: Affine,
    away: Array,
    corner: tuple[int, int],
    frame: tuple[int, int],
    name: str,
) -> tuple[Array, tuple[int, int]]:
    """Give the tilt that leads to the middle of a pixel of the frame, and that pixel.

    Parameters
    ----------
    mapped
        Map from cycles a panel pixel to row and column on the sensor.
    away
        Tilt to go to, or nearer where that falls beside the frame.
    corner, frame
        First row and column, and height and width, of the frame.
    name
        Of the kind, for the message.

    Returns
    -------
    tilt
        Cycles a panel pixel, along rows and columns.
    place
        Row and column in the frame.

    Raises
    ------
    OutcomeError
        It falls beside the frame, however near.
    """
    row = column = 0
    for share in NEARER:
        place = mapped(share * away[None])[0].round()
        row, column = (int(each) for each in place - corner)
        inside = all(
            MARGIN_PX <= at < size - MARGIN_PX
            for at, size in zip((row, column), frame, strict=True)
        )
        if inside:
            tilt: Array = np.linalg.solve(mapped.matrix, place - mapped.terms[0])
            return tilt, (row, column)
    text = (
        f"{name}: the spot would be at row {row}, column {column} of a frame of "
        f"{frame[0]} x {frame[1]} pixels, expected inside. Make calibrate."
        "reach_cycles_px of the bench file smaller, or calibrate.region larger."
    )
    raise OutcomeError(text)


def _figures(found: Search, *, is_kept: bool) -> tuple[Figure, ...]:
    numbers = np.arange(len(found.sizes))
    return (
        Figure(
            "wavefront-modes",
            "Correction by mode",
            "Size of each Zernike mode that makes the spot brightest, and its error: "
            "of its top, and of how far it still moved in the last round."
            + ("" if is_kept else " As they do not help, none is put in force."),
            "mode",
            "size (rad rms)",
            (Series("correction", numbers, found.sizes, found.errors),),
            names=MODES,
        ),
        Figure(
            "wavefront-sweeps",
            "First round",
            "Light of the spot over the size of each mode, one after the other.",
            "size (rad rms)",
            "light (electrons)",
            tuple(
                Series(name, steps, light, is_line=True)
                for name, (steps, light) in zip(MODES, found.sweeps, strict=True)
            ),
        ),
    )


KIND = Kind(
    name="wavefront",
    text="phase that makes the panel's light meet in one spot",
    of=("slm", "laser", "camera"),
    measure=measure,
    needs=("camera", "settle", "slm-phase"),
    views=("far_field",),
    depends_on_wavelength=True,
    valid_days=30.0,
    limits={"gain": 1.0, "gain_error": 0.2},
    # A correction that does not help is never put in force.
    least={"gain": 1.0},
)
