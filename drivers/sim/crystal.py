"""The liquid crystal: gray levels that follow what was written, each pixel slowly.

Retardance relaxes, never the phase modulo 2 pi: a wrap from 255 to 0 travels the
whole range and is the slowest step there is.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A pixel counts as settled within half a level of its goal.
_SETTLED_LEVELS = 0.5


class Crystal:
    """Levels of a panel over time.

    Parameters
    ----------
    shape
        Panel ``(height, width)``.
    fast_s, slow_s
        Time constants of a vanishing and of a full step; both 0: at once.
    top
        Highest level.

    Raises
    ------
    ValueError
        The time constants are impossible.
    """

    def __init__(
        self, shape: tuple[int, int], fast_s: float, slow_s: float, top: int
    ) -> None:
        if not 0 <= fast_s <= slow_s or (fast_s == 0) != (slow_s == 0):
            text = (
                f"fast_s={fast_s}, slow_s={slow_s}, expected 0 < fast_s <= slow_s, "
                "or both 0"
            )
            raise ValueError(text)
        self._fast_s, self._slow_s = fast_s, slow_s
        self._slowdown_s = (slow_s - fast_s) / top
        self._goal = np.zeros(shape)
        self._gap = np.zeros(shape)
        self._rate = np.ones(shape)
        self._latch_s, self._settled_s = 0.0, -math.inf

    def latch(self, levels: NDArray[Any], time_s: float) -> None:
        """Head for new levels from where the pixels are."""
        goal = levels.astype(np.float64)
        self._take(goal, self.at(time_s) - goal, time_s)

    def _take(
        self, goal: NDArray[np.float64], gap: NDArray[np.float64], time_s: float
    ) -> None:
        self._goal, self._latch_s, self._settled_s = goal, time_s, -math.inf
        if self._slow_s == self._fast_s == 0:
            self._gap = np.zeros_like(gap)
            return
        size = np.abs(gap)
        self._gap, greatest = gap, float(size.max())
        self._rate = 1 / (self._fast_s + self._slowdown_s * size)
        if greatest >= _SETTLED_LEVELS:
            # The widest gap closes slowest: it is the last within any bound.
            tau = self._fast_s + self._slowdown_s * greatest
            self._settled_s = time_s + tau * math.log(greatest / _SETTLED_LEVELS)

    def at(self, time_s: float) -> NDArray[np.float64]:
        """Levels at a time, fractions of a level included."""
        left = np.exp((self._latch_s - time_s) * self._rate)
        left *= self._gap
        left += self._goal
        return left

    @property
    def latch_s(self) -> float:
        """When the pixels last headed for new levels."""
        return self._latch_s

    @property
    def settled_s(self) -> float:
        """From when on every pixel is within half a level of its goal."""
        return self._settled_s

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {
            "panel_goal": self._goal.copy(),
            "panel_gap": self._gap.copy(),
            "panel_latch_s": self._latch_s,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a state.

        Raises
        ------
        ValueError
            It is of a panel of another shape.
        """
        goal = np.asarray(state["panel_goal"], dtype=np.float64)
        gap = np.asarray(state["panel_gap"], dtype=np.float64)
        if goal.shape != self._goal.shape or gap.shape != self._goal.shape:
            text = (
                f"panel_goal of shape {goal.shape}, expected {self._goal.shape}. "
                "Resume on the bench that the state was saved on."
            )
            raise ValueError(text)
        self._take(goal.copy(), gap.copy(), float(state["panel_latch_s"]))
