"""The liquid crystal: gray levels that follow what was written, each pixel slowly.

Retardance relaxes, never the phase modulo 2 pi: a wrap from 255 to 0 travels the
whole range and is the slowest step there is.
"""

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
    """

    def __init__(
        self, shape: tuple[int, int], fast_s: float, slow_s: float, top: int
    ) -> None:
        self._fast_s, self._slow_s, self._top = fast_s, slow_s, top
        self._goal = np.zeros(shape)
        self._gap = np.zeros(shape)
        self._rate = np.zeros(shape)
        self._latch_s = 0.0

    def latch(self, levels: NDArray[Any], time_s: float) -> None:
        """Head for new levels from where the pixels are."""
        now = self.at(time_s)
        self._goal = levels.astype(np.float64)
        self._take(now - self._goal, time_s)

    def _take(self, gap: NDArray[np.float64], time_s: float) -> None:
        self._gap, self._latch_s = gap, time_s
        slowdown = (self._slow_s - self._fast_s) / self._top
        tau = self._fast_s + slowdown * np.abs(gap)
        # A pixel without a time constant has no gap left at any time.
        at_once = tau == 0
        self._rate = 1 / np.where(at_once, 1.0, tau)
        self._gap = np.where(at_once, 0.0, gap)

    def _left(self, time_s: float) -> NDArray[np.float64]:
        left: NDArray[np.float64] = self._gap * np.exp(
            (self._latch_s - time_s) * self._rate
        )
        return left

    def at(self, time_s: float) -> NDArray[np.float64]:
        """Levels at a time, fractions of a level included."""
        return self._goal + self._left(time_s)

    def is_settled(self, time_s: float) -> bool:
        """Whether every pixel is within half a level of its goal."""
        return float(np.abs(self._left(time_s)).max()) < _SETTLED_LEVELS

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
        self._goal = goal.copy()
        self._take(gap.copy(), float(state["panel_latch_s"]))
