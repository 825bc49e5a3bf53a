"""Bootstrap intervals of means over seeds: pure arithmetic."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 4000
Interval = tuple[float, float]
NOTHING: Interval = (math.nan, math.nan)


def draws(count: int) -> NDArray[np.int64]:
    """Draw which of so many seeds each repetition takes; always the same.

    Parameters
    ----------
    count
        Seeds.
    """
    return np.random.default_rng(0).integers(0, count, (DRAWS, count))


def percentiles(values: NDArray[Any]) -> Interval:
    """Return the bounds that hold the middle 95 %.

    Parameters
    ----------
    values
        One a repetition.
    """
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def bootstrap(values: Sequence[float]) -> Interval:
    """Return the 95 % interval of a mean; NaN for fewer than two values.

    Parameters
    ----------
    values
        One a seed.
    """
    if len(values) < 2:
        return NOTHING
    return percentiles(np.asarray(values)[draws(len(values))].mean(axis=1))
