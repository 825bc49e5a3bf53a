"""Phase curve from quadrants of a panel that interfere with each other.

Two opposite quadrants show one level, the other two another. On each pixel of the
camera their light interferes as the cosine of the difference of their phases. Both
levels take all values, so that none has only partners with which the cosine is flat. A
tilt of the beam does not move one pair of quadrants against the other, as both have the
same middle.

Crosstalk makes the phase change over a few pixels where quadrants meet, and that light
follows no cosine of the difference; but it is little, and depends on the difference and
on a width alone::

    field = A exp(i p) + B exp(i q) + C + exp(i (p + q)/2) (S h + i T g)
    h     = 2 sum_k cos(w_k (p - q)) - cos((p - q)/2)
    g     = 2 sum_k k (sin(w_k (p - q)) - sin((p - q)/2))

with p and q the two phases, C light that is not modulated, and w_k the share, less a
half, that a step has risen to k pixels from where it is. Each signal has coefficients
of its own; those of the edge are held the nearer to 0 the less of the panel lies there.

Where the medium responds to the light, the phase follows how bright a level is. Light
of levels over the whole panel tells that apart: it goes as cos p at any power.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import ndtr

from labctl.errors import OutcomeError

Array = NDArray[np.float64]
Whole = NDArray[np.int64]
# Numbers that a curve is described by.
FEWEST, MOST = 3, 6
# Spans that a fit starts from, in rad.
SPANS = np.linspace(3.0, 16.0, 40)
# What the levels change in a signal must be so many times its noise, in square.
LEAST = 40.0
# Widest kernel, over the narrowest as this over 1 / this, in pixels; how sure it is.
WIDEST, SURE = 3.3, 0.7
# How far the phase may go along with the light, in rad, one standard deviation.
BEND_RAD = 0.05
# Features of light without crosstalk; then sizes of those of the edge, as multiples
# of the share of the panel that lies there, and of its square.
PLAIN = 7
EDGE, EDGE2 = (3.0, 3.0, 0, 0, 0.6, 0.6, 0), (0, 0, 10.0, 10.0, 0, 0, 4.0)
# Steps of a fit at most; it takes a few.
STEPS = 25
# Signals that all pixels are brought down to: more than there are features.
SIGNALS = 24


@dataclass(frozen=True, eq=False)
class Light:
    """All light for levels that the whole panel shows.

    Parameters
    ----------
    light
        Of each write, in any unit.
    level
        That was shown.
    """

    light: Array
    level: Whole


@dataclass(frozen=True, eq=False)
class Fringes:
    """Signals of quadrants at two levels.

    Parameters
    ----------
    signals
        ``(write, signal)``.
    first, second
        Levels of the two pairs of quadrants, ``(write,)``.
    edge
        Share of the panel's pixels that lie where quadrants meet.
    """

    signals: Array
    first: Whole
    second: Whole
    edge: float


@dataclass(frozen=True, eq=False)
class Fitted:
    """A phase curve.

    Parameters
    ----------
    phase_rad
        Of each level, from 0.
    error_rad
        Standard error of each, a common phase left out.
    terms
        That describe it.
    bend_rad
        How far the phase goes along with the light of a level.
    signal
        What the levels change in the square of a signal, in units of its noise.
    fringe
        Signal of the greatest change, and the fit to it, ``(2, write)``.
    """

    phase_rad: Array
    error_rad: Array
    terms: int
    bend_rad: float
    signal: float
    fringe: Array


def basis(levels: int, terms: int) -> Array:
    """Smooth curves through 0 that make up a phase curve, ``(level, term)``."""
    u = np.arange(levels) / levels
    bends = np.polynomial.legendre.legvander(2 * u - 1, terms - 2)
    return np.concatenate([u[:, None], (u * (1 - u))[:, None] * bends], axis=1)


def features(first_rad: Array, second_rad: Array, sigma_px: float) -> Array:
    """How light depends on two phases.

    Parameters
    ----------
    first_rad, second_rad
        Phases, ``(write,)``.
    sigma_px
        Width of the crosstalk, in pixels.

    Returns
    -------
    features
        ``(write, feature)``: first :data:`PLAIN` without crosstalk.
    """
    gap, mean = first_rad - second_rad, (first_rad + second_rad) / 2
    half = gap / 2
    k = np.arange(0.5, math.ceil(4 * sigma_px) + 0.5)
    along = gap[:, None] * (ndtr(k / sigma_px) - 0.5)
    even = 2 * (np.cos(along) - np.cos(half)[:, None]).sum(axis=1)
    odd = 2 * (k * (np.sin(along) - np.sin(half)[:, None])).sum(axis=1)
    found: list[Array] = [np.ones_like(gap)]
    for phase in (gap, first_rad, second_rad):
        found += [np.cos(phase), np.sin(phase)]
    for size, phase in ((even, half), (odd, half), (even, mean)):
        found += [size * np.cos(phase), size * np.sin(phase)]
    return np.stack([*found, even**2], axis=1)


def components(frames: Array, read_noise_e: float) -> Array:
    """Bring pixels down to few signals that hold what they have in common.

    Parameters
    ----------
    frames
        Electrons, ``(write, pixel)``.
    read_noise_e
        Of a pixel.

    Returns
    -------
    signals
        At most :data:`SIGNALS`, the greatest first, ``(write, signal)``.
    """
    mean = np.maximum(frames.mean(axis=0), 0.0)
    equal = frames / np.sqrt(mean + max(read_noise_e, 1e-3) ** 2)
    # How alike two writes are is enough.
    size2, along = np.linalg.eigh(equal @ equal.T)
    most = slice(-1, -1 - min(SIGNALS, frames.shape[1]), -1)
    found: Array = along[:, most] * np.sqrt(np.maximum(size2[most], 0.0))
    return found


def unseen(changed: float) -> str:
    """Say that levels do not change the light, as far as noise lets see.

    Parameters
    ----------
    changed
        What they change in a signal, over its noise, in square; below :data:`LEAST`.

    Returns
    -------
    why
        What was got, what was expected, what to do.
    """
    # Noise alone comes to a fifth of that at most.
    light = (
        f"which can be told at about {LEAST / changed:.2g} times the light"
        if changed > LEAST / 2
        else "which then are by far too few"
    )
    return (
        "slm-phase: the panel does not modulate: the light is the same at all levels "
        "within noise, expected it to change. Look at the panel's cable and drive, and "
        "at the polarisation of the light on it; or there are too few photons to tell, "
        f"{light}: take a filter away, or allow a longer exposure (limits.exposure_s)."
    )


def fit(
    fringes: Fringes, whole: Light | None, levels: int, start_rad: Array | None = None
) -> tuple[Fitted, tuple[Fitted, Fitted]]:
    """Fit one phase curve to quadrants and, where there is, light of whole levels.

    The curve is as simple as the data allow: a term more must pay (Schwarz). The noise
    of the signals, which they share, is what a fit before has left.

    Parameters
    ----------
    fringes
        Signals of quadrants.
    whole
        Light of whole levels; None where it does not change.
    levels
        Number of levels of the panel.
    start_rad
        Phase to start from; None for straight lines of any slope.

    Returns
    -------
    fitted, halves
        From all writes, and from each half of them.

    Raises
    ------
    OutcomeError
        The signals do not depend on the levels.
    """
    known = _straight(fringes, levels) if start_rad is None else start_rad
    state = _State(known, 0.0, 0.0)
    for terms in (FEWEST, MOST):
        state = _whitened(fringes, whole, levels, state).solved(state, terms)
    problem = _whitened(fringes, whole, levels, state)
    price = math.log(len(fringes.signals))
    found = [problem.solved(state, terms) for terms in range(FEWEST, MOST + 1)]
    best = min(found, key=lambda each: 2 * each.rest + price * each.terms)
    gain = 2 * (problem.flat() - best.rest) / problem.signals.shape[1]
    if gain < LEAST:
        raise OutcomeError(unseen(gain))
    one = np.arange(len(fringes.signals)) % 2 == 0
    other = [problem.part(rows) for rows in (one, ~one)]
    halves = [half.fitted(half.solved(best, best.terms)) for half in other]
    return problem.fitted(best), (halves[0], halves[1])


@dataclass(frozen=True, eq=False)
class _State:
    """A curve, how it goes along with the light, and the width of crosstalk."""

    phase_rad: Array
    bend_rad: float
    width: float
    terms: int = 0
    rest: float = math.inf
    error_rad: Array = field(default_factory=lambda: np.empty(0))

    @property
    def sigma_px(self) -> float:
        return _sigma_px(self.width)


def _sigma_px(width: float) -> float:
    return float(WIDEST ** np.tanh(width))


def _straight(fringes: Fringes, levels: int) -> Array:
    """Find the straight line that fits best."""
    u = np.arange(levels) / levels

    def rest(span: float) -> float:
        phase = span * u
        made = features(phase[fringes.first], phase[fringes.second], 1.0)[:, :PLAIN]
        across, _ = np.linalg.qr(made)
        return -float(((across.T @ fringes.signals) ** 2).sum())

    best: Array = min(SPANS, key=rest) * u
    return best


def _cosine(phase: Array) -> Array:
    return np.stack([np.ones_like(phase), np.cos(phase), np.sin(phase)], axis=1)


def _followed(phase: Array, bend_rad: float, slope: Array) -> Array:
    """Phase that goes along with how bright a level is: cosine and sine of that."""
    size = float(np.hypot(*slope))
    if size == 0:
        return phase
    bright: Array = (slope[0] * np.cos(phase) + slope[1] * np.sin(phase)) / size
    return phase + bend_rad * bright


def _made(fringes: Fringes, phase: Array, width: float) -> Array:
    return features(phase[fringes.first], phase[fringes.second], _sigma_px(width))


def _solved(made: Array, signals: Array, hold: Array) -> Array:
    """Coefficients of features, held near 0: ``(feature, signal)``."""
    normal = made.T @ made + np.diag(hold + 1e-9)
    found: Array = np.asarray(np.linalg.solve(normal, made.T @ signals), np.float64)
    return found


@dataclass(frozen=True, eq=False)
class _Problem:
    """Signals in units of their noise, and how far the edge is held."""

    fringes: Fringes
    whole: Light | None
    levels: int
    signals: Array
    light: Array
    hold: Array

    def part(self, rows: NDArray[np.bool_]) -> "_Problem":
        """Return the same of some writes."""
        made = self.fringes
        some = Fringes(
            made.signals[rows], made.first[rows], made.second[rows], made.edge
        )
        whole, light = self.whole, self.light
        if whole is not None:
            # Rows of quadrants begin with the one half or with the other.
            begin = 0 if rows[0] else 1
            whole = Light(whole.light[begin::2], whole.level[begin::2])
            light = light[begin::2]
        return _Problem(some, whole, self.levels, self.signals[rows], light, self.hold)

    def left(self, phase: Array, bend_rad: float, width: float) -> Array:
        """Return what is left, in units of the noise; and what holds numbers near 0."""
        left, slope = [np.array([bend_rad / BEND_RAD, width / SURE])], np.zeros(2)
        if self.whole is not None:
            made = _cosine(phase)[self.whole.level]
            terms = _solved(made, self.light[:, None], np.zeros(3))[:, 0]
            left.append(self.light - made @ terms)
            slope = terms[1:]
        made = _made(self.fringes, _followed(phase, bend_rad, slope), width)
        sizes = _solved(made, self.signals, self.hold)
        held = np.sqrt(self.hold[PLAIN:, None]) * sizes[PLAIN:]
        left += [held.ravel(), (self.signals - made @ sizes).ravel()]
        return np.concatenate(left)

    def flat(self) -> float:
        """Return half of the sum of squares that no phase at all leaves."""
        left = float(((self.signals - self.signals.mean(axis=0)) ** 2).sum())
        if self.whole is not None:
            left += float(((self.light - self.light.mean()) ** 2).sum())
        return left / 2

    def solved(self, state: _State, terms: int) -> _State:
        """Fit a curve of some terms, from one that is near."""
        base = basis(self.levels, terms)

        def left(numbers: Array) -> Array:
            phase = base @ numbers[:terms]
            return self.left(phase, float(numbers[-2]), float(numbers[-1]))

        near, *_ = np.linalg.lstsq(base, state.phase_rad, rcond=None)
        start = np.array([*near, state.bend_rad, state.width])
        found = least_squares(
            left, start, method="lm", xtol=1e-4, ftol=1e-6, max_nfev=STEPS * len(start)
        )
        phase = base @ found.x[:terms]
        if phase[-1] < 0:
            phase = -phase
        jacobian: Array = np.asarray(found.jac, dtype=np.float64)
        spread = np.linalg.pinv(jacobian.T @ jacobian, hermitian=True)
        along = base - base.mean(axis=0)
        error2 = np.einsum("ij,jk,ik->i", along, spread[:terms, :terms], along)
        return _State(
            phase_rad=phase,
            bend_rad=float(found.x[-2]),
            width=float(found.x[-1]),
            terms=terms,
            rest=float(found.cost),
            error_rad=np.sqrt(np.maximum(error2, 0.0)),
        )

    def fitted(self, state: _State) -> Fitted:
        """Tell the errors of a curve."""
        gain = 2 * (self.flat() - state.rest) / self.signals.size
        return Fitted(
            phase_rad=state.phase_rad,
            error_rad=state.error_rad,
            terms=state.terms,
            bend_rad=state.bend_rad,
            signal=gain,
            fringe=self._fringe(state),
        )

    def _fringe(self, state: _State) -> Array:
        shown = self.signals[:, int(self.signals.var(axis=0).argmax())]
        made = features(
            state.phase_rad[self.fringes.first],
            state.phase_rad[self.fringes.second],
            state.sigma_px,
        )
        terms, *_ = np.linalg.lstsq(made, shown, rcond=None)
        return np.stack([shown, made @ terms])


def _whitened(
    fringes: Fringes, whole: Light | None, levels: int, state: _State
) -> _Problem:
    """Learn the noise from what a curve leaves."""
    light: Array = np.empty(0)
    slope: Array = np.zeros(2)
    if whole is not None:
        mean = whole.light / whole.light.mean()
        made = _cosine(state.phase_rad)[whole.level]
        terms, *_ = np.linalg.lstsq(made, mean, rcond=None)
        left2 = float(((mean - made @ terms) ** 2).sum())
        light = mean / math.sqrt(left2 / (len(mean) - 3 - FEWEST))
        slope = terms[1:]
    phase = _followed(state.phase_rad, state.bend_rad, slope)
    made = _made(fringes, phase, state.width)
    across, _ = np.linalg.qr(made)
    signals = fringes.signals
    left = signals - across @ (across.T @ signals)
    spread = left.T @ left / (len(signals) - made.shape[1])
    size, along = np.linalg.eigh(spread)
    equal = signals @ (along / np.sqrt(np.maximum(size, 1e-9 * size.max())))
    plain, *_ = np.linalg.lstsq(made[:, :PLAIN], equal, rcond=None)
    fringe2 = float((plain[1:3] ** 2).sum()) / equal.shape[1]
    edge = fringes.edge
    sizes = np.array(EDGE) * edge + np.array(EDGE2) * edge**2
    free = np.zeros(PLAIN)
    hold = np.concatenate([free, 1 / (sizes**2 * max(fringe2, 1e-9))])
    return _Problem(fringes, whole, levels, equal, light, hold)
