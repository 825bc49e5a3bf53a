"""Kind ``slm-phase``: gray level to phase.

Light that the panel does not modulate adds coherently to the rest, so levels shown one
after the other, each over the whole panel, make the total light rise and fall with the
cosine of their phase. Neighbouring pixels show the same level, so crosstalk does not
matter, and a medium without loss changes where the light goes and not how much there
is, so it may be nonlinear. The sign is a convention: the phase rises with the level.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from labctl.calibrate.kind import Figure, Finding, Kind, Merit, Quantity, Series
from labctl.calibrate.stand import Exposed, Stand
from labctl.devices import Levels
from labctl.errors import OutcomeError

Array = NDArray[np.float64]
Whole = NDArray[np.int64]
Features = Callable[[Array], Array]
# Writes of a sweep, those that come first, and numbers that a curve is described by.
WRITES, FIRST, FEWEST, MOST = 512, 192, 3, 6
# Spans that a fit starts from, in rad.
SPANS = np.linspace(3.0, 16.0, 40)
TURN = 2 * math.pi
# What the levels change must be so many times the noise of a write, in square.
LEAST = 40.0
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


def basis(levels: int, terms: int) -> Array:
    """Smooth curves through 0 that make up a phase curve, ``(level, term)``."""
    u = np.arange(levels) / levels
    bends = np.polynomial.legendre.legvander(2 * u - 1, terms - 2)
    return np.concatenate([u[:, None], (u * (1 - u))[:, None] * bends], axis=1)


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
        text = (
            "slm-phase: the panel does not modulate: the light is the same at all "
            "levels within noise, expected it to change. Look at the panel's cable and "
            "drive, and at the polarisation of the light on it."
        )
        raise OutcomeError(text)
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
    """Second derivatives of the rest, by differences."""
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

    whole: Curve
    halves: tuple[Curve, Curve]
    levels: Whole
    shown: Array
    method: str

    @property
    def rms_rad(self) -> float:
        """Error of the whole, as far as two halves tell."""
        return differ(*(half.phase_rad for half in self.halves)) / 2

    @property
    def error_rad(self) -> float:
        """The greater of that and what the noise of the data says."""
        return max(self.rms_rad, self.whole.rms_error_rad)


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
    stand.light(stand.nominal_mw)
    sample = np.linspace(0, stand.levels - 1, 8).astype(int)
    stand.brighten(_flats(stand, sample), share=0.8)
    swept = _whole_panel(stand)
    phase = swept.whole.phase_rad
    if not (np.diff(phase) > 0).all():
        level = int(np.argmin(np.diff(phase)))
        text = (
            f"slm-phase: phase falls from {phase[level]:.4g} to {phase[level + 1]:.4g} "
            f"rad at level {level + 1}, expected it to rise with the level. Look at "
            "the panel's drive, or measure with more light."
        )
        raise OutcomeError(text)
    return _finding(stand, swept, limits)


def _flats(stand: Stand, levels: Whole) -> Levels:
    shown = np.broadcast_to(levels[:, None, None], (len(levels), *stand.panel))
    return stand.as_levels(shown)


def _whole_panel(stand: Stand) -> _Swept:
    """Show levels on the whole panel: they interfere with unmodulated light."""
    rng = np.random.default_rng(6)
    first = np.linspace(0, stand.levels - 1, min(FIRST, WRITES // 2)).round()
    levels = rng.permutation(first.astype(int))
    light = _total(stand, "whole panel", levels)
    with stand.thinking():
        signal = (light / light.mean())[:, None]
        rough = fit_curve(signal, levels, stand.levels, cosine, TINY)
    # Levels at which the light changes most tell most.
    steep = np.sin(rough.phase_rad) ** 2 + 0.1
    more = rng.choice(stand.levels, WRITES - len(levels), p=steep / steep.sum())
    light = np.concatenate([light, _total(stand, "steep levels", more)])
    levels = np.concatenate([levels, more])
    signal = (light / light.mean())[:, None]
    return _swept(stand, signal, levels, cosine, "unmodulated light")


def _total(stand: Stand, stage: str, levels: Whole) -> Array:
    """All light on the camera for levels on the whole panel, at equal power."""
    stand.stage(stage)
    exposed = stand.expose(_flats(stand, levels))
    stand.require_light(exposed)
    light: Array = stand.signal_e(exposed).sum(axis=(1, 2)) * _level(stand, exposed)
    return light


def _level(stand: Stand, exposed: Exposed) -> Array:
    level: Array = stand.power_mw / exposed.power_mw
    return level


def _swept(
    stand: Stand, signals: Array, levels: Whole, features: Features, method: str
) -> _Swept:
    one = np.arange(len(levels)) % 2 == 0

    def fitted(rows: NDArray[np.bool_], noise2: float) -> Curve:
        return fit_curve(signals[rows], levels[rows], stand.levels, features, noise2)

    with stand.thinking():
        # The noise is what is left of a first fit.
        noise2 = fitted(one | ~one, TINY).rest * TINY
        halves = fitted(one, noise2), fitted(~one, noise2)
        whole = fitted(one | ~one, noise2)
    return _Swept(whole, halves, levels, signals[:, 0], method)


def _finding(stand: Stand, swept: _Swept, limits: Mapping[str, float]) -> Finding:
    phase = swept.whole.phase_rad
    span = float(phase[-1]) * stand.levels / (stand.levels - 1)
    error = swept.error_rad
    middle = stand.levels // 2
    return Finding(
        values={"phase_rad": phase - phase[0]},
        quantities={
            "span_rad": Quantity(span, 2 * error, 0.02),
            "middle_rad": Quantity(float(phase[middle]), 2 * error, 0.02),
        },
        merits=(
            Merit("rms_rad", error, math.nan, limits["rms_rad"]),
            Merit("span_rad", span, 2 * error, limits["span_rad"], is_floor=True),
        ),
        figures=_figures(swept, phase),
        conditions={
            "power_mw": stand.power_mw,
            "writes": float(len(swept.levels)),
            "signal_to_noise": math.sqrt(swept.whole.signal),
        },
        remarks=(f"measured against {swept.method}, {len(swept.levels)} writes.",),
    )


def _figures(swept: _Swept, phase: Array) -> tuple[Figure, ...]:
    levels = np.arange(len(phase))
    straight = levels * phase[-1] / levels[-1]
    first, second = (half.phase_rad for half in swept.halves)
    known, *_ = np.linalg.lstsq(cosine(phase[swept.levels]), swept.shown, rcond=None)
    return (
        Figure(
            "phase-curve",
            "Phase of each level",
            f"Measured against {swept.method}.",
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
            "The signal, one of them where there are many, and the fit to it.",
            "gray level",
            "light (of its mean, or in units of its noise)",
            (
                Series("measured", swept.levels, swept.shown),
                Series("fit", levels, cosine(phase) @ known, is_line=True),
            ),
        ),
    )


KIND = Kind(
    name="slm-phase",
    text="phase of each gray level",
    of=("slm", "laser"),
    measure=measure,
    needs=("camera", "settle"),
    depends_on_wavelength=True,
    valid_days=30.0,
    limits={"rms_rad": 0.03, "span_rad": TURN * 0.98},
)
