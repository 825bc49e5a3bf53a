"""The zoo of activations: functions, what stands for their derivatives, measures."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]
REACH: Final = 8.0
NODES: Final = 8193
SHOWN: Final = 161  # points of a curve that the record keeps, -4 to 4
MEASURES: Final = (
    "largest",
    "typical",
    "zero_share",
    "oscillation",
    "complexity",
    "monotone",
)
BACKWARDS: Final = ("own", "identity", "sigmoid", "blurred", "clamped")
X: Final = np.linspace(-REACH, REACH, NODES)
STEP: Final = float(X[1] - X[0])


def _cantor(x: Curve) -> Curve:
    """Cantor's function on 0 to 1, from -1 to 1, and the identity's steps beyond."""
    whole = np.floor(x)
    rest, value, weight = x - whole, np.zeros_like(x), 0.5
    settled = np.zeros(x.shape, dtype=bool)
    for _ in range(24):
        rest = rest * 3
        digit = np.minimum(np.floor(rest), 2)
        rest = rest - digit
        # The first 1 among the ternary digits ends the number.
        value += np.where(settled, 0.0, weight * (digit > 0))
        settled |= digit == 1
        weight /= 2
    return np.asarray(whole + value)


def _perlin(x: Curve) -> Curve:
    """Gradient noise on whole numbers, always the same."""
    slopes = np.random.default_rng(7).uniform(-1, 1, 64)
    cell = np.floor(x).astype(int)
    rest = x - cell
    fade = rest**3 * (rest * (rest * 6 - 15) + 10)
    left, right = slopes[cell % 64] * rest, slopes[(cell + 1) % 64] * (rest - 1)
    return np.asarray(2 * (left + fade * (right - left)))


def _jeff(complexity: int) -> Callable[[Curve], Curve]:
    """Build a sum of waves whose frequencies and phases have no pattern."""
    rng = np.random.default_rng(11)
    frequency = rng.uniform(0.5, complexity, complexity)
    phase = rng.uniform(0, 2 * np.pi, complexity)

    def jeff(x: Curve) -> Curve:
        waves = np.sin(np.multiply.outer(x, frequency) + phase)
        return np.asarray(waves.sum(axis=-1) * (2 / complexity) ** 0.5)

    return jeff


def _power(degree: int) -> Callable[[Curve], Curve]:
    """Chebyshev's polynomial: small from -1 to 1, x to the degree beyond."""
    chebyshev = np.polynomial.chebyshev.Chebyshev.basis(degree)
    return lambda x: np.asarray(chebyshev(x))


def _gelu(x: Curve) -> Curve:
    from scipy.special import erf  # noqa: PLC0415 - start-up time

    return np.asarray(x * (1 + erf(x / 2**0.5)) / 2)


FUNCTIONS: Final[Mapping[str, Callable[[Curve], Curve]]] = MappingProxyType(
    {
        "identity": lambda x: x,
        "relu": lambda x: np.maximum(x, 0),
        "gelu": _gelu,
        "tanh": np.tanh,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "sin": np.sin,
        "threshold": lambda x: (x > 0).astype(float),
        "cantor": _cantor,
        "polynomial-2": _power(2),
        "polynomial-3": _power(3),
        "polynomial-5": _power(5),
        "perlin": _perlin,
        "jeff-3": _jeff(3),
        "jeff-12": _jeff(12),
        "jeff-48": _jeff(48),
    }
)

FAMILIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "identity": "straight",
        "relu": "rectifier",
        "gelu": "rectifier",
        "tanh": "saturating",
        "sigmoid": "saturating",
        "sin": "wave",
        "threshold": "steps",
        "cantor": "steps",
        "polynomial-2": "polynomial",
        "polynomial-3": "polynomial",
        "polynomial-5": "polynomial",
        "perlin": "noise",
        "jeff-3": "noise",
        "jeff-12": "noise",
        "jeff-48": "noise",
    }
)
"""What kind of function each is: for who looks for its relatives."""


def derivative(name: str) -> Curve:
    """Slope of a function at the nodes; of a jump, none.

    Parameters
    ----------
    name
        Of the function.
    """
    if name in {"threshold", "cantor"}:
        return np.zeros_like(X)
    return np.asarray(np.gradient(FUNCTIONS[name](X), STEP))


def backward(name: str, kind: str, width: float) -> Curve:
    """Give what is used in the place of the derivative, at the nodes.

    Parameters
    ----------
    name
        Of the function.
    kind
        ``own``, ``identity`` (1), ``sigmoid`` (the sigmoid's), ``blurred`` (of the
        function smoothed over a neighbourhood) or ``clamped`` (own, from -1 to 1).
    width
        Sigma of the neighbourhood.
    """
    if kind == "own":
        return derivative(name)
    if kind == "identity":
        return np.ones_like(X)
    if kind == "sigmoid":
        logistic = FUNCTIONS["sigmoid"](X)
        return np.asarray(logistic * (1 - logistic))
    if kind == "clamped":
        return np.clip(derivative(name), -1, 1)
    return _blurred(name, width)


def _blurred(name: str, width: float) -> Curve:
    half = round(4 * width / STEP)
    window = np.exp(-0.5 * (np.arange(-half, half + 1) * STEP / width) ** 2)
    wide = np.linspace(-REACH - half * STEP, REACH + half * STEP, NODES + 2 * half)
    smooth = np.convolve(FUNCTIONS[name](wide), window / window.sum(), "valid")
    return np.asarray(np.gradient(smooth, STEP), dtype=np.float64)


def measures(name: str) -> dict[str, float]:
    """Measure a function of the zoo and its derivative from -4 to 4.

    Parameters
    ----------
    name
        Of the function.

    Returns
    -------
    measures
        As :func:`measured` gives them.
    """
    some = np.abs(X) <= 4
    return measured(FUNCTIONS[name](X[some]), derivative(name)[some])


def measured(value: Curve, slope: Curve) -> dict[str, float]:
    """Measure a function and its derivative at equal steps from -4 to 4.

    Parameters
    ----------
    value, slope
        Function and derivative, ``(point,)``.

    Returns
    -------
    measures
        Largest and typical (root mean square) size of the derivative, share where
        it is zero, turns a unit length, shortest length that ninety percent of the
        waves in the function fit (as waves a unit), and whether it never turns.
    """
    steps = np.diff(value)
    moving = np.sign(steps[np.abs(steps) > 1e-9])
    turns = int((np.diff(moving) != 0).sum())
    # A straight line through the ends first: the spectrum knows periodic waves only.
    flat = value - np.linspace(value[0], value[-1], len(value))
    power = np.abs(np.fft.rfft(flat)) ** 2
    share = np.cumsum(power) / max(power.sum(), 1e-300)
    waves = float(np.searchsorted(share, 0.9)) / 8 if power.sum() > 1e-9 else 0.0
    return {
        "largest": float(np.abs(slope).max()),
        "typical": float(np.sqrt(np.mean(slope**2))),
        "zero_share": float((np.abs(slope) < 1e-6).mean()),
        "oscillation": turns / 8,
        "complexity": waves,
        "monotone": float(turns == 0),
    }
