"""Virtual time: it passes only when somebody waits."""

import math
from typing import final

from typing_extensions import override

from labctl.devices import Clock


@final
class VirtualClock(Clock):
    """A clock whose seconds cost nothing.

    Parameters
    ----------
    start_s
        What it shows first.
    """

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    @override
    def now(self) -> float:
        return self._now_s

    @override
    def sleep(self, seconds: float) -> None:
        if not 0 <= seconds < math.inf:
            text = f"clock: seconds={seconds}, expected 0 or more"
            raise ValueError(text)
        self._now_s += seconds

    def restore(self, now_s: float) -> None:
        """Set the clock to a moment that a checkpoint remembers."""
        self._now_s = now_s
