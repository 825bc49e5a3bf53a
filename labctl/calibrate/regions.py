"""Phase curves of regions of a panel, from all of its light.

Every region shows a random level of its own, all at once. Light that the panel does not
modulate adds coherently to that of each pixel, so each region changes the total light
by the cosine of its own phase, at whatever power and whatever is in the path that loses
no light. What regions share is known before: a region has that curve, times a factor,
and with bends that pay. Where two regions meet, crosstalk leads the phase from the one
to the other over a few pixels; their light follows from both phases and a width.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import ndtr

from labctl.calibrate.quadrants import WIDEST, basis

Array = NDArray[np.float64]
Whole = NDArray[np.int64]
# Numbers that tell a region from the mean: a factor, and bends.
MOST = 3
# Amplitude of a region's cosine must be so many times its error.
SEEN = 5.0
# Steps of a fit at most; it takes a few.
STEPS = 15


@dataclass(frozen=True, eq=False)
class Regions:
    """Phase curves of regions.

    Parameters
    ----------
    phase_rad
        ``(region, level)``, from 0.
    error_rad
        Standard error of each curve by the noise of the light, rms, ``(region,)``.
    signal
        Amplitude of each region's cosine, in units of its error, ``(region,)``.
    """

    phase_rad: Array
    error_rad: Array
    signal: Array


def fit(
    light: Array, levels: Whole, common_rad: Array, shape: tuple[int, int]
) -> tuple[Regions, tuple[Regions, Regions]]:
    """Fit a curve of each region to all light.

    Parameters
    ----------
    light
        Of each write, in any unit, ``(write,)``.
    levels
        That each region showed, ``(write, region)``.
    common_rad
        Curve that regions differ little from, ``(level,)``.
    shape
        Rows and columns of regions, which are numbered row by row.

    Returns
    -------
    regions, halves
        From all writes, and from each half of them; as simple as the data allow: a
        number more for each region must pay (Schwarz).
    """
    known = common_rad - common_rad[0]
    price = levels.shape[1] * math.log(len(light))
    best = _Problem(light / light.mean(), levels, known, neighbours(shape))
    for _ in range(1, MOST):
        more = best.extended()
        if len(light) * math.log(best.rest / more.rest) < price:
            break
        best = more
    one = np.arange(len(light)) % 2 == 0
    halves = [best.part(rows).regions() for rows in (one, ~one)]
    return best.regions(), (halves[0], halves[1])


def neighbours(shape: tuple[int, int]) -> NDArray[np.int64]:
    """Pairs of regions that meet along an edge, ``(pair, 2)``."""
    number = np.arange(shape[0] * shape[1]).reshape(shape)
    pairs = [(number[1:], number[:-1]), (number[:, 1:], number[:, :-1])]
    return np.concatenate([np.stack([x.ravel(), y.ravel()], axis=1) for x, y in pairs])


def across(first_rad: Array, second_rad: Array, sigma_px: float) -> tuple[Array, Array]:
    """Give what crosstalk changes in the light of an edge: cosine and sine."""
    cosine, sine = np.zeros_like(first_rad), np.zeros_like(first_rad)
    for k in np.arange(0.5, math.ceil(4 * sigma_px) + 0.5):
        share = float(ndtr(k / sigma_px))
        for own, other in ((first_rad, second_rad), (second_rad, first_rad)):
            blurred = share * own + (1 - share) * other
            cosine += np.cos(blurred) - np.cos(own)
            sine += np.sin(blurred) - np.sin(own)
    return cosine, sine


class _Problem:
    """The fit with some numbers for each region."""

    def __init__(
        self,
        light: Array,
        levels: Whole,
        known: Array,
        pairs: NDArray[np.int64],
        start: Array | None = None,
    ) -> None:
        self._light, self._levels, self._known = light, levels, known
        self._pairs, self._count = pairs, levels.shape[1]
        # The last one is the width of the crosstalk.
        begin = np.zeros(self._count + 1) if start is None else start
        terms = (len(begin) - 1) // self._count
        bends = basis(len(known), terms + 1)[:, 1:terms]
        self._base = np.column_stack([known, bends])
        scale = np.full(len(begin), 0.05)
        scale[-1] = 1.0
        found = least_squares(
            self._left, begin, x_scale=scale, xtol=1e-4, ftol=1e-6, max_nfev=STEPS
        )
        self._numbers = np.asarray(found.x, dtype=np.float64)
        self._slope = np.asarray(found.jac, dtype=np.float64)
        self.rest = max(2 * float(found.cost), 1e-300)

    def extended(self) -> "_Problem":
        """Return the fit with a number more for each region."""
        numbers = self._numbers[:-1].reshape(self._count, -1)
        more = np.concatenate([numbers, np.zeros((self._count, 1))], axis=1)
        start = np.append(more, self._numbers[-1])
        return _Problem(self._light, self._levels, self._known, self._pairs, start)

    def part(self, rows: NDArray[np.bool_]) -> "_Problem":
        """Return the same of some writes."""
        light, levels = self._light[rows], self._levels[rows]
        return _Problem(light, levels, self._known, self._pairs, self._numbers)

    def _solved(self, made: Array) -> Array:
        normal = made.T @ made + 1e-9 * len(made) * np.eye(made.shape[1])
        solved = np.linalg.solve(normal, made.T @ self._light)
        found: Array = np.asarray(solved, dtype=np.float64)
        return found

    def _curves(self, numbers: Array) -> Array:
        curves: Array = (
            self._known + numbers[:-1].reshape(self._count, -1) @ self._base.T
        )
        return curves

    def _features(self, numbers: Array) -> Array:
        curves = self._curves(numbers)
        shown = curves[np.arange(self._count), self._levels]
        first, second = shown[:, self._pairs[:, 0]], shown[:, self._pairs[:, 1]]
        edges = across(first, second, float(WIDEST ** np.tanh(numbers[-1])))
        ones = np.ones((len(shown), 1))
        return np.concatenate([ones, np.cos(shown), np.sin(shown), *edges], axis=1)

    def _left(self, numbers: Array) -> Array:
        made = self._features(numbers)
        left: Array = self._light - made @ self._solved(made)
        return left

    def regions(self) -> Regions:
        """Tell curves, errors and signals."""
        made = self._features(self._numbers)
        terms = self._solved(made)
        freedom = max(len(made) - made.shape[1] - len(self._numbers), 1)
        noise2 = self.rest / freedom
        spread = noise2 * np.linalg.pinv(self._slope.T @ self._slope)
        errors = np.empty(self._count)
        along = self._base - self._base.mean(axis=0)
        for number in range(self._count):
            size = self._base.shape[1]
            rows = slice(number * size, (number + 1) * size)
            variance = np.einsum("ij,jk,ik->i", along, spread[rows, rows], along)
            errors[number] = math.sqrt(float(variance.mean()))
        wave = np.hypot(*terms[1 : 2 * self._count + 1].reshape(2, -1))
        sure = np.linalg.pinv(made.T @ made).diagonal()[1 : self._count + 1]
        return Regions(
            self._curves(self._numbers), errors, wave / np.sqrt(noise2 * sure)
        )
