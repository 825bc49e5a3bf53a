"""Kind ``slm-phase``: gray level to phase.

First levels over the whole panel, one after the other: light that the panel does not
modulate adds coherently to the rest, so the total light rises and falls with the cosine
of their phase. Neighbouring pixels show the same level, so crosstalk does not matter,
and a medium without loss changes where the light goes and not how much there is, so it
may be nonlinear. But where the cosine is flat it says little: at the ends of the range.

Then quadrants of the panel at two levels, at a power at which the medium is linear:
:mod:`labctl.calibrate.quadrants` fits both together. Where there is no such power, or
too little light for it, more levels over the whole panel are all there is, and a remark
says so. The sign is a convention: the phase rises with the level.

Where the bench file asks for regions of the panel, more follows, in which every region
shows levels of its own (:mod:`labctl.calibrate.regions`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from labctl.bench import Bench
from labctl.calibrate import regions
from labctl.calibrate.kind import (
    MORE_LIGHT,
    Figure,
    Finding,
    Kind,
    Merit,
    Quantity,
    Series,
)
from labctl.calibrate.patterns import FAINT, linear_power
from labctl.calibrate.quadrants import (
    FEWEST,
    LEAST,
    MOST,
    SPANS,
    Fitted,
    Fringes,
    Light,
    basis,
    components,
    fit,
    unseen,
)
from labctl.calibrate.stand import CATEGORY, Exposed, Stand
from labctl.calibration import CalibrationRecord, PhaseCurve
from labctl.devices import Levels
from labctl.errors import OutcomeError
from labctl.reservoir import regions_of

Array = NDArray[np.float64]
Whole = NDArray[np.int64]
Features = Callable[[Array], Array]
# Exposures in all; writes of the whole panel; the fewest of quadrants, or of the whole
# panel in their place. Then as many for each region, where they are asked for, and the
# most for all.
EXPOSURES, WHOLE, QUARTERS, FEWEST_MORE, EACH, MOST_WRITES = 600, 128, 128, 96, 120, 720
# Frames of a pattern that tell whether the medium is linear; share of such a power that
# is used; least share of it that light to spare is given up down to.
FRAMES, DIMMED, DIMMEST = 8, 1 / 2, 1 / 16
# Brightest pixels that are looked at.
PIXELS = 4096
TURN = 2 * math.pi
# Where the noise is not known yet.
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Curve:
    """A phase curve.

    Parameters
    ----------
    phase_rad
        Of each level, from 0.
    error_rad
        Standard error of each, from the noise of the data alone.
    rest
        Mean squared distance of the data from the fit, in units of their noise.
    signal
        What the levels change in the square of a write, in units of its noise.
    total
        Sum of the squared distances, in units of the noise.
    """

    phase_rad: Array
    error_rad: Array
    rest: float
    signal: float
    total: float

    @property
    def rms_error_rad(self) -> float:
        """Root mean square of the errors, a common phase left out."""
        return math.sqrt(float((self.error_rad**2).mean()))


def cosine(phase: Array) -> Array:
    """Light that interferes with some of constant phase: 1, cos, sin."""
    return np.stack([np.ones_like(phase), np.cos(phase), np.sin(phase)], axis=1)


def fit_curve(
    signals: Array, level: Whole, levels: int, features: Features, noise2: float = 1.0
) -> Curve:
    """Fit a + b cos(phase - psi) to all signals at once, each with its own a, b, psi.

    The curve is as simple as the data allow: a term more must pay (Schwarz).

    Parameters
    ----------
    signals
        ``(write, signal)``, all of equal noise.
    level
        That was shown, ``(write,)``.
    levels
        Number of levels of the panel.
    features
        How light depends on phase, such as :func:`cosine`.
    noise2
        Variance of a signal.

    Returns
    -------
    curve
        Of the smallest rest.

    Raises
    ------
    OutcomeError
        The signals do not depend on the level.
    """
    seen = _seen(signals, level, levels)
    found = [
        _fitted(seen, basis(levels, terms), features, noise2)
        for terms in range(FEWEST, MOST + 1)
    ]
    scale = min(curve.rest for curve, _ in found)
    price = math.log(signals.size)
    best, _ = min(found, key=lambda each: each[0].total / scale + price * each[1])
    return best


@dataclass(frozen=True, eq=False)
class _Seen:
    """All that signals tell of a curve: their sum at each level, and their square."""

    sums: Array
    writes: Array
    square: float
    count: int


def _seen(signals: Array, level: Whole, levels: int) -> _Seen:
    sums = np.zeros((levels, signals.shape[1]))
    np.add.at(sums, level, signals)
    if sums.shape[1] > levels:
        # How alike two levels are is enough.
        size, along = np.linalg.eigh(sums @ sums.T)
        sums = along * np.sqrt(np.maximum(size, 0.0))
    writes = np.bincount(level, minlength=levels).astype(float)
    return _Seen(sums, writes, float((signals**2).sum()), signals.shape[1])


def _fitted(
    seen: _Seen, base: Array, features: Features, noise2: float
) -> tuple[Curve, int]:
    """Fit a curve of some terms; and how many there are.

    Raises
    ------
    OutcomeError
        The signals do not depend on the level.
    """
    size, writes = base.shape[1], float(seen.writes.sum())

    def rest(terms: Array) -> float:
        shape = features(base @ terms)
        normal = shape.T @ (seen.writes[:, None] * shape)
        along = shape.T @ seen.sums
        return seen.square - float((along * (np.linalg.pinv(normal) @ along)).sum())

    starts = [np.array([span, *np.zeros(size - 1)]) for span in SPANS]
    best = min(starts, key=rest)
    found = minimize(rest, best, method="BFGS", options={"maxiter": 200})
    terms = np.asarray(found.x, dtype=np.float64)
    flat = rest(np.zeros(size))
    freedom = (writes - features(np.zeros(2)).shape[1]) * seen.count - size
    changed = (flat - float(found.fun)) / (noise2 * seen.count)
    if changed < LEAST:
        raise OutcomeError(unseen(changed))
    left = float(found.fun) / freedom / noise2
    spread = 2 * noise2 * max(left, 1.0) * np.linalg.pinv(_curvature(rest, terms))
    phase = base @ terms
    if phase[-1] < 0:
        phase = -phase
    along = base - base.mean(axis=0)
    error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", along, spread, along), 0))
    squares = float(found.fun) / noise2
    return Curve(phase, error, left, changed / writes, squares), size


def _curvature(rest: Callable[[Array], float], at: Array) -> Array:
    """Second derivatives of a function, by differences."""
    size, step = len(at), 3e-3
    found = np.empty((size, size))
    unit = step * np.eye(size)
    for i in range(size):
        for j in range(i + 1):
            corners = [
                sign_i * sign_j * rest(at + sign_i * unit[i] + sign_j * unit[j])
                for sign_i in (-1, 1)
                for sign_j in (-1, 1)
            ]
            found[i, j] = found[j, i] = sum(corners) / (4 * step**2)
    return found


def differ(first: Array, second: Array) -> float:
    """Root mean square of the difference of two curves, a common phase left out."""
    gap = first - second
    return math.sqrt(float(((gap - gap.mean()) ** 2).mean()))


# ---- the procedure ---------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Swept:
    """What a sweep says: a curve from all writes, and one from each half of them."""

    phase_rad: Array
    error_rad: float
    halves: tuple[Array, Array]
    signal: float
    light: Light
    # Difference of two phases, a signal and the fit to it; empty without quadrants.
    fringe: Array
    remark: str
    # What to do where it is not good enough.
    remedy: str = MORE_LIGHT

    @property
    def rms_rad(self) -> float:
        """Error of the whole, as far as two halves tell."""
        return differ(*self.halves) / 2

    @property
    def most_rad(self) -> float:
        """The greater of that and what the noise of the data says."""
        return max(self.rms_rad, self.error_rad)


def measure(stand: Stand, limits: Mapping[str, float]) -> Finding:
    """Measure the phase of every level.

    Parameters
    ----------
    stand
        The bench.
    limits
        Of the merits.

    Returns
    -------
    finding
        The phase curve.

    Raises
    ------
    OutcomeError
        No light, a panel that does not modulate, or a curve that falls somewhere.
    """
    before = stand.ledger.counts[CATEGORY]

    def left() -> int:
        return EXPOSURES + before - stand.ledger.counts[CATEGORY]

    stand.light(stand.nominal_mw)
    sample = np.linspace(0, stand.levels - 1, 8).astype(int)
    stand.brighten(_flats(stand, sample), share=0.8)
    light, rough = _whole_panel(stand)
    # Without a curve quadrants are the only way: faint light gets more frames.
    why = _dimmed(stand, FAINT if rough is None else 0)
    if why:
        swept = _more_levels(stand, light, rough, left(), why)
    else:
        swept = _quadrants(stand, light, rough, max(left(), QUARTERS))
    phase = _risen(swept.phase_rad, "")
    shape = stand.bench.file.calibrate.phase_regions
    finding = _finding(stand, swept, limits)
    if shape == (1, 1):
        return finding
    if rough is None:
        text = (
            f"slm-phase: {shape[0]} x {shape[1]} regions of the panel cannot be told "
            "apart: light over the whole panel does not depend on its level, expected "
            "some that the panel does not modulate to interfere with. Ask for one "
            "curve: calibrate.phase_regions: [1, 1]."
        )
        raise OutcomeError(text)
    return _by_region(finding, swept, _regions(stand, phase, shape), limits)


@dataclass(frozen=True, eq=False)
class _Parts:
    """Curves of regions, ``(row, column, level)``; the error of each, rms; writes."""

    phase_rad: Array
    error_rad: Array
    writes: int


def _regions(stand: Stand, common: Array, shape: tuple[int, int]) -> _Parts:
    """Let every region show levels of its own, all at once.

    Raises
    ------
    OutcomeError
        A region sends too little light, or its phase falls somewhere.
    """
    rng = np.random.default_rng(9)
    count = shape[0] * shape[1]
    writes = min(EACH * count, MOST_WRITES)
    every = np.linspace(0, stand.levels - 1, writes).round().astype(int)
    levels = np.stack([rng.permutation(every) for _ in range(count)], axis=1)
    panel = stand.as_levels(levels[:, regions_of(stand.panel, shape)])
    stand.light(stand.nominal_mw)
    stand.brighten(panel[:16], share=0.8)
    light = _total(stand, "regions", panel)
    with stand.thinking():
        found, halves = regions.fit(light, levels, common, shape)
    faintest = int(found.signal.argmin())
    if found.signal[faintest] < regions.SEEN:
        row, column = divmod(faintest, shape[1])
        text = (
            f"slm-phase: region {row}, {column} of {shape[0]} x {shape[1]}: all light "
            f"changes with its level by {found.signal[faintest]:.1f} standard errors, "
            f"expected at least {regions.SEEN:g}. It gets too little of the light, or "
            "there is none that the panel does not modulate. Ask for fewer regions "
            "(calibrate.phase_regions), or measure with more light."
        )
        raise OutcomeError(text)
    curves = [
        _risen(curve, "region {}, {}: ".format(*divmod(number, shape[1])))
        for number, curve in enumerate(found.phase_rad)
    ]
    apart = [
        differ(first, second) / 2
        for first, second in zip(halves[0].phase_rad, halves[1].phase_rad, strict=True)
    ]
    return _Parts(
        np.stack(curves).reshape(*shape, -1),
        np.maximum(found.error_rad, apart).reshape(shape),
        writes,
    )


def _risen(phase: Array, where: str) -> Array:
    """Return a curve from 0.

    Raises
    ------
    OutcomeError
        It falls somewhere.
    """
    if not (np.diff(phase) > 0).all():
        level = int(np.argmin(np.diff(phase)))
        text = (
            f"slm-phase: {where}phase falls from {phase[level]:.4g} to "
            f"{phase[level + 1]:.4g} rad at level {level + 1}, expected it to rise "
            "with the level. Look at the panel's drive, or measure with more light."
        )
        raise OutcomeError(text)
    risen: Array = phase - phase[0]
    return risen


def _flats(stand: Stand, levels: Whole) -> Levels:
    shown = np.broadcast_to(levels[:, None, None], (len(levels), *stand.panel))
    return stand.as_levels(shown)


def _quartered(stand: Stand, first: Whole, second: Whole) -> Levels:
    """Patterns of two levels, each on two opposite quadrants."""
    height, width = stand.panel
    upper = np.arange(height)[:, None] < height // 2
    left = np.arange(width)[None] < width // 2
    shown = np.where(
        upper == left, first[:, None, None], second[:, None, None]
    )  # fmt: skip
    return stand.as_levels(shown)


def _whole_panel(stand: Stand) -> tuple[Light, Curve | None]:
    """Show levels on the whole panel: they interfere with unmodulated light."""
    rng = np.random.default_rng(6)
    levels = np.linspace(0, stand.levels - 1, WHOLE).round().astype(int)
    levels = rng.permutation(levels)
    light = Light(_total(stand, "whole panel", _flats(stand, levels)), levels)
    with stand.thinking():
        try:
            return light, interfering(light, stand.levels)
        except OutcomeError:  # all light is modulated, or none: quadrants tell
            return light, None


def interfering(light: Light, levels: int) -> Curve:
    """Fit a curve to light of levels over the whole panel, whose noise nobody told.

    Parameters
    ----------
    light
        Of every write.
    levels
        Number of levels of the panel.

    Returns
    -------
    curve
        In units of the noise that a fit leaves.

    Raises
    ------
    OutcomeError
        The light does not depend on the level, by more than that noise.
    """
    signal = (light.light / light.light.mean())[:, None]
    return fit_curve(
        signal, light.level, levels, cosine, _noise2(signal, light.level, levels)
    )


def _noise2(signal: Array, level: Whole, levels: int) -> float:
    """Learn the variance of a signal from what a curve leaves, whatever it is of."""
    return fit_curve(signal, level, levels, cosine, TINY).rest * TINY


def _total(stand: Stand, stage: str, panel: Levels) -> Array:
    """All light a second for patterns, at equal power."""
    stand.stage(stage)
    exposed = stand.expose(panel)
    stand.require_light(exposed)
    light: Array = stand.signal_e(exposed).sum(axis=(1, 2)) * _level(stand, exposed)
    # A second: levels that are shown later may be exposed longer or shorter.
    return light / exposed.exposure_s


def _level(stand: Stand, exposed: Exposed) -> Array:
    level: Array = stand.power_mw / exposed.power_mw
    return level


def _dimmed(stand: Stand, most: int) -> str:
    """Light the panel at a power at which the medium is linear; or say why not."""
    # About no, half a turn more and half a turn less between the two.
    quarter = stand.levels // 4
    first, second = np.array([[0, 2, 1], [0, 0, 3]]) * quarter
    sample = _quartered(stand, first, second)
    try:
        # What is not seen in a few frames may still be more than the phase may err.
        power_mw = linear_power(stand, sample, FRAMES, most) * DIMMED
    except OutcomeError as error:
        return str(error).removeprefix(f"{stand.name}: ")
    stand.light(power_mw)
    exposed = stand.brighten(sample)
    spare = exposed.exposure_s / stand.longest_s
    if spare < 1 and power_mw < DIMMED * stand.nominal_mw:
        # Light to spare is better given up as power: the medium is the more linear.
        spare = max(spare, DIMMEST)
        stand.light(power_mw * spare)
        stand.configure(exposed.exposure_s / spare)
    return ""


def _quadrants(stand: Stand, light: Light, rough: Curve | None, count: int) -> _Swept:
    """Show quadrants at two levels each, in random pairs."""
    rng = np.random.default_rng(7)
    every = np.linspace(0, stand.levels - 1, count).round().astype(int)
    first, second = rng.permutation(every), rng.permutation(every)
    stand.stage("quadrants")
    exposed = stand.expose(_quartered(stand, first, second))
    stand.require_light(exposed)
    height, width = stand.panel
    with stand.thinking():
        signals = components(_bright(stand, exposed), stand.response.read_noise_e)
        fringes = Fringes(signals, first, second, (height + width) / (height * width))
        start = None if rough is None else rough.phase_rad
        whole = None if rough is None else light
        found, halves = fit(fringes, whole, stand.levels, start)
    error = math.sqrt(float((found.error_rad**2).mean()))
    gap = found.phase_rad[first] - found.phase_rad[second]
    return _Swept(
        phase_rad=found.phase_rad,
        error_rad=error,
        halves=(halves[0].phase_rad, halves[1].phase_rad),
        signal=found.signal,
        light=light,
        fringe=np.stack([gap, *found.fringe]),
        remark=_remark(found, rough, len(light.level), count),
    )


def _remark(found: Fitted, rough: Curve | None, whole: int, count: int) -> str:
    if rough is None:
        return (
            f"measured with {count} writes of quadrants against each other; light over "
            "the whole panel does not depend on its level."
        )
    return (
        f"measured with {whole} levels over the whole panel and {count} writes of "
        "quadrants against each other, where the phase goes along with the light by "
        f"{found.bend_rad:.2g} rad."
    )


def _bright(stand: Stand, exposed: Exposed) -> Array:
    """Electrons of the brightest pixels at equal power, ``(write, pixel)``."""
    flat = exposed.frames.reshape(len(exposed.frames), -1)
    mean = flat.mean(axis=0)
    floor = float(np.median(mean))
    bright = np.flatnonzero(mean - floor >= 0.003 * (mean.max() - floor))
    bright = bright[np.argsort(mean[bright])[-PIXELS:]]
    response = stand.response
    dark_dn = response.offset_dn + response.dark_dn_per_s * exposed.exposure_s
    light = (flat[:, bright] - dark_dn) / response.gain_dn_per_e
    found: Array = light * _level(stand, exposed)[:, None]
    return found


def _more_levels(
    stand: Stand, light: Light, rough: Curve | None, count: int, why: str
) -> _Swept:
    """Show more levels on the whole panel, as quadrants cannot be used.

    Raises
    ------
    OutcomeError
        The light does not depend on the level.
    """
    if rough is None:
        text = (
            f"slm-phase: {why} Without quadrants it takes light that the panel does "
            "not modulate to interfere with, but light over the whole panel is the "
            "same at all levels within noise."
        )
        raise OutcomeError(text)
    stand.light(stand.nominal_mw)
    sample = np.linspace(0, stand.levels - 1, 8).astype(int)
    stand.brighten(_flats(stand, sample), share=0.8)
    # Levels at which the light changes most tell most.
    steep = np.sin(rough.phase_rad) ** 2 + 0.1
    rng = np.random.default_rng(8)
    more = rng.choice(stand.levels, max(count - 24, FEWEST_MORE), p=steep / steep.sum())
    added = _total(stand, "steep levels", _flats(stand, more))
    return _whole_alone(stand, light, Light(added, more), why)


def _whole_alone(stand: Stand, light: Light, more: Light, why: str) -> _Swept:
    levels = np.concatenate([light.level, more.level])
    signal = np.concatenate([light.light, more.light])
    signals = (signal / signal.mean())[:, None]
    one = np.arange(len(levels)) % 2 == 0

    def fitted(rows: NDArray[np.bool_], noise2: float) -> Curve:
        return fit_curve(signals[rows], levels[rows], stand.levels, cosine, noise2)

    with stand.thinking():
        noise2 = _noise2(signals, levels, stand.levels)
        halves = fitted(one, noise2), fitted(~one, noise2)
        whole = fitted(one | ~one, noise2)
    return _Swept(
        phase_rad=whole.phase_rad,
        error_rad=whole.rms_error_rad,
        halves=(halves[0].phase_rad, halves[1].phase_rad),
        signal=whole.signal,
        light=Light(signal, levels),
        fringe=np.empty((3, 0)),
        remark=(
            f"measured with {len(levels)} levels over the whole panel alone, which "
            f"tell least at the ends of the range: {why}"
        ),
        remedy=(
            "Levels over the whole panel alone tell too little, and quadrants of it "
            f"could not be used: {why}"
        ),
    )


def _finding(stand: Stand, swept: _Swept, limits: Mapping[str, float]) -> Finding:
    phase = swept.phase_rad
    span = float(phase[-1]) * stand.levels / (stand.levels - 1)
    error = swept.most_rad
    middle = stand.levels // 2
    return Finding(
        values={"phase_rad": phase - phase[0]},
        quantities={
            "span_rad": Quantity(span, 2 * error, 0.02),
            "middle_rad": Quantity(float(phase[middle]), 2 * error, 0.02),
        },
        merits=(
            Merit("rms_rad", error, math.nan, limits["rms_rad"], remedy=swept.remedy),
            Merit("span_rad", span, 2 * error, limits["span_rad"], is_floor=True),
        ),
        figures=_figures(swept),
        conditions={
            "power_mw": stand.power_mw,
            "signal_to_noise": math.sqrt(swept.signal),
        },
        remarks=(swept.remark,),
    )


def _by_region(
    whole: Finding, swept: _Swept, parts: _Parts, limits: Mapping[str, float]
) -> Finding:
    """Make a finding of one curve that of regions."""
    levels = parts.phase_rad.shape[-1]
    curves, errors = parts.phase_rad.reshape(-1, levels), parts.error_rad.reshape(-1)
    rows, columns = parts.error_rad.shape
    names = [f"row {row}, column {column}" for row, column in np.ndindex(rows, columns)]
    spans = curves[:, -1] * levels / (levels - 1)
    common = swept.phase_rad - swept.phase_rad[0]
    apart = np.array([differ(curve, curves.mean(axis=0)) for curve in curves])
    uneven = math.sqrt(float((apart**2).mean()))
    worst, least = int(errors.argmax()), int(spans.argmin())
    told = (
        f"{rows} x {columns} regions, told apart by {parts.writes} more writes in "
        "which each shows levels of its own: one curve for all would be off by "
        f"{uneven:.2g} rad rms, where these are known to "
        f"{math.sqrt(float((errors**2).mean())):.2g}."
    )
    if uneven < 2 * errors.mean():
        told += " They do not differ: one curve does as well."
    at = np.arange(levels)
    return replace(
        whole,
        values={"phase_rad": parts.phase_rad},
        quantities={
            f"span_{row}_{column}_rad": Quantity(
                float(parts.phase_rad[row, column, -1]) * levels / (levels - 1),
                2 * float(parts.error_rad[row, column]),
                0.02,
            )
            for row, column in np.ndindex(rows, columns)
        },
        merits=(
            Merit(
                "rms_rad",
                float(errors[worst]),
                math.nan,
                limits["rms_rad"],
                remedy=f"In the region of {names[worst]}. {MORE_LIGHT}",
            ),
            Merit(
                "span_rad",
                float(spans[least]),
                2 * float(errors[least]),
                limits["span_rad"],
                is_floor=True,
                remedy=f"In the region of {names[least]}.",
            ),
        ),
        figures=(
            Figure(
                "phase-regions",
                "Regions of the panel",
                f"Their curves less their mean, each with its error. {told}",
                "gray level",
                "phase less the mean (rad)",
                tuple(
                    Series(
                        name,
                        at,
                        curve - curves.mean(axis=0),
                        np.full(levels, error),
                        is_line=True,
                    )
                    for name, curve, error in zip(names, curves, errors, strict=True)
                ),
            ),
            Figure(
                "phase-spans",
                "Phase over all levels",
                "Of each region, and of one curve for all, each with its error.",
                "region (row, column)",
                "phase (rad)",
                (
                    Series("regions", np.arange(len(spans)), spans, 2 * errors),
                    Series(
                        "one curve",
                        np.array([-0.5, len(spans) - 0.5]),
                        np.full(2, common[-1] * levels / (levels - 1)),
                        np.full(2, 2 * swept.most_rad),
                        is_line=True,
                    ),
                ),
                names=tuple(f"{r}, {c}" for r, c in np.ndindex(rows, columns)),
            ),
            *whole.figures,
        ),
        remarks=(told, *whole.remarks),
    )


def _figures(swept: _Swept) -> tuple[Figure, ...]:
    phase = swept.phase_rad
    levels = np.arange(len(phase))
    straight = levels * phase[-1] / levels[-1]
    first, second = swept.halves
    shown, light = swept.light.level, swept.light.light
    known, *_ = np.linalg.lstsq(cosine(phase[shown]), light, rcond=None)
    figures = [
        Figure(
            "phase-curve",
            "Phase of each level",
            swept.remark.capitalize(),
            "gray level",
            "phase (rad)",
            (Series("curve", levels, phase, is_line=True),),
        ),
        Figure(
            "phase-bend",
            "Distance from a straight line",
            "The curve, and those from either half of the writes: "
            f"they differ by {2 * swept.rms_rad:.2g} rad rms.",
            "gray level",
            "phase less a straight line (rad)",
            (
                Series("curve", levels, phase - straight, is_line=True),
                Series("one half", levels, first - straight, is_line=True),
                Series("other half", levels, second - straight, is_line=True),
            ),
        ),
        Figure(
            "phase-light",
            "Light over level",
            "All light on the camera for levels over the whole panel, and the fit.",
            "gray level",
            "light (electrons a second)",
            (
                Series("measured", shown, light),
                Series("fit", levels, cosine(phase) @ known, is_line=True),
            ),
        ),
    ]
    gap, measured, fitted = swept.fringe
    if gap.size:
        figures.append(
            Figure(
                "phase-fringe",
                "Light over the difference of two phases",
                "What changes most on the camera as quadrants of the panel interfere. "
                "Light that is not modulated makes it depend on either phase as well.",
                "difference (rad)",
                "signal (of its noise)",
                (Series("measured", gap, measured), Series("fit", gap, fitted)),
            )
        )
    return tuple(figures)


def _asked(bench: Bench, record: CalibrationRecord) -> str:
    """Say that regions are asked for which a record does not have."""
    wanted = bench.file.calibrate.phase_regions
    if not isinstance(record.values, PhaseCurve):
        return ""
    curve = record.values.curve(bench.slm.bit_depth, bench.source.path.parent)
    found = (1, 1) if curve.ndim == 1 else curve.shape[:2]
    if found == wanted:
        return ""
    return f"phase_regions={list(found)}, expected {list(wanted)} (bench file)."


KIND = Kind(
    name="slm-phase",
    text="phase of each gray level",
    of=("slm", "laser"),
    measure=measure,
    needs=("camera", "settle"),
    depends_on_wavelength=True,
    valid_days=30.0,
    limits={"rms_rad": 0.03, "span_rad": TURN * 0.98},
    asked=_asked,
)
