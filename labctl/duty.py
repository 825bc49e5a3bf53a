"""How long a beam was open lately, and how long it has to rest for its duty.

The rule: light since the last rest never adds up to more than ``duty * window_s``, and
a rest is ``(1 - duty) * window_s`` of dark in one piece. So no window has more than its
share: one that holds a whole rest has no room for more, any other touches the light
between two rests only.
"""

from collections.abc import Iterable
from typing import Final, final

Span = tuple[float, float]

LONGEST_S: Final = 300.0  # no bench file may ask for a longer window
MOST: Final = 256  # spans that are kept; more of them are joined, dark and all
# Clocks add times in another order than we do.
_ROUNDING_S: Final = 1e-6


@final
class Lit:
    """When a beam was open, as far back as any window reaches.

    Parameters
    ----------
    spans
        Start and end of each time that it was, on the clock of whoever asks, in order;
        in s.
    """

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans = list(spans)
        self._since_s: float | None = None

    @property
    def spans(self) -> tuple[Span, ...]:
        """Start and end of each time that is over."""
        return tuple(self._spans)

    @property
    def since_s(self) -> float | None:
        """Since when it is open; None where it is not."""
        return self._since_s

    def begin(self, now_s: float) -> None:
        """Note that it opens; nothing where it is open.

        Parameters
        ----------
        now_s
            Time, not before any that was told.
        """
        if self._since_s is None:
            self._since_s = now_s

    def end(self, now_s: float) -> None:
        """Note that it is shut; nothing where it is.

        Parameters
        ----------
        now_s
            Time, not before any that was told.
        """
        if self._since_s is None:
            return
        self._spans.append((self._since_s, now_s))
        self._since_s = None
        self._spans = [each for each in self._spans if each[1] > now_s - LONGEST_S]
        while len(self._spans) > MOST:
            (start_s, _), (_, end_s) = self._spans[:2]
            self._spans[:2] = [(start_s, end_s)]

    def lit_s(self, now_s: float, *, duty: float, window_s: float) -> float:
        """Light within the window that ends now, since the last rest.

        Parameters
        ----------
        now_s
            Time.
        duty, window_s
            As the bench file limits them.

        Returns
        -------
        lit
            In s.
        """
        spans = self._spans
        if self._since_s is not None:
            spans = [*spans, (self._since_s, now_s)]
        first_s, later_s, lit_s = now_s - window_s, now_s, 0.0
        for start_s, end_s in reversed(spans):
            rested = later_s - end_s >= (1 - duty) * window_s - _ROUNDING_S
            if rested or end_s <= first_s:
                break
            lit_s += end_s - max(start_s, first_s)
            later_s = start_s
        return lit_s

    def rest_s(self, now_s: float, *, duty: float, window_s: float) -> float:
        """Time in the dark that the beam needs from now on.

        Parameters
        ----------
        now_s
            Time.
        duty, window_s
            As the bench file limits them.

        Returns
        -------
        rest
            In s; 0 where it may be open.
        """
        if self.lit_s(now_s, duty=duty, window_s=window_s) < duty * window_s:
            return 0.0
        rest_s = (1 - duty) * window_s
        if self._since_s is None:
            rest_s -= now_s - self._spans[-1][1]
        return rest_s


def aged(spans: Iterable[Span], now_s: float, *, known: bool) -> list[Span]:
    """Bring spans that another process left to the clock of this one.

    Both clocks count from the start of their computer. Where it restarted meanwhile,
    the times of then say less than what passed: the beam is taken to have rested
    since the restart alone. So it is never taken for darker than it was.

    Parameters
    ----------
    spans
        Start and end of each time that the beam was open, in order; in s.
    now_s
        This clock now.
    known
        Whether they were written on this computer; if not, the beam is taken to have
        been open until now.

    Returns
    -------
    spans
        In order, none of them later than now; none older than a window.
    """
    spans = list(spans)
    if not spans:
        return []
    shift_s = 0.0
    if not known:
        shift_s = now_s - spans[-1][1]
    elif spans[-1][1] > now_s:
        shift_s = -spans[-1][1]
    moved = [(start_s + shift_s, end_s + shift_s) for start_s, end_s in spans]
    return [each for each in moved if each[1] > now_s - LONGEST_S]
