"""Real light cannot be shown twice: an interrupted run goes on from what it recorded.

::

    trainer --phases--> reservoir --levels--> Recall --rows of the record--> outputs
                            └── after the last row: the bench

The digital part is done again, and every pattern that it asks for is compared with
the one that was exposed. By rounding alone a few macropixels may move by a level; the
recorded pattern stands then, because the recorded outputs are its answer.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labctl.devices import Levels
from labctl.errors import RecordError
from labctl.recording.writer import Recorder
from labctl.reservoir import Recalled

# Share of macropixels that may be more than a level off: rounding that Adam
# amplifies, where a gradient is next to nothing, moves one in many thousands.
MOST_OFF = 0.05
_FIELDS = ("category", "step", "layer")


class Recall:
    """Answers a reservoir with the shots that a record holds already.

    Parameters
    ----------
    recorder
        The record, rewound.
    turn
        Gray levels in a full turn of phase, of all macropixels or of each.
    tell
        Is told what a person should know, once each.
    """

    def __init__(
        self, recorder: Recorder, turn: ArrayLike, tell: Callable[[str], None]
    ) -> None:
        self._recorder, self._turn, self._tell = recorder, np.asarray(turn), tell
        self._is_past_told = self._is_shift_told = False

    def __call__(
        self, levels: Levels, category: str, step: int, layer: int
    ) -> Recalled:
        """Give the recorded exposures of the next patterns, as far as there are any.

        Parameters
        ----------
        levels
            Patterns, ``(pattern, macropixel)``.
        category, step, layer
            What they are for.

        Returns
        -------
        recalled
            Rejected exposures among them.

        Raises
        ------
        RecordError
            Other patterns, or patterns for something else, were exposed.
        """
        rows, accepted = self._next(len(levels))
        if rows.start == rows.stop and not self._is_past_told:
            self._is_past_told = True
            self._tell(f"{rows.start} recorded shots passed; measuring again")
        self._check_purpose(rows, (category, step, layer))
        shown = self._read("shots_meta", "levels", rows)
        good = shown[accepted]
        self._check_levels(rows, good, levels[: len(good)])
        outputs = self._read("shots", "outputs", rows).astype(np.float64)
        self._recorder.pass_over("shots", rows.stop - rows.start)
        return Recalled(shown, outputs, accepted)

    def _next(self, patterns: int) -> tuple[slice, NDArray[np.bool_]]:
        """Rows until so many were accepted, or until there are no more."""
        ahead = self._recorder.to_come("shots")
        stop = ahead.start
        accepted = np.zeros(0, dtype=np.bool_)
        while stop < ahead.stop and accepted.sum() < patterns:
            part = slice(stop, min(ahead.stop, stop + patterns))
            quality = self._read("shots_meta", "quality", part)
            accepted = np.concatenate([accepted, quality == b"ok"])
            stop = part.stop
        last = np.flatnonzero(accepted)[patterns - 1 : patterns]
        if last.size:
            accepted = accepted[: int(last[0]) + 1]
        return slice(ahead.start, ahead.start + len(accepted)), accepted

    def _check_purpose(self, rows: slice, wanted: tuple[str, int, int]) -> None:
        found = [self._read("shots_meta", name, rows).tolist() for name in _FIELDS]
        for number, (category, *rest) in enumerate(zip(*found, strict=True)):
            have = (category.decode(), *rest)
            if have != wanted:
                text = (
                    f"{self._recorder.path}: shot {rows.start + number} was "
                    f"{_words(have)}, expected {_words(wanted)}. The data or the "
                    "software is another than it was: restore it, or run the protocol "
                    "anew."
                )
                raise RecordError(text)

    def _check_levels(self, rows: slice, shown: Levels, asked: Levels) -> None:
        apart = np.abs(shown.astype(np.int64) - asked.astype(np.int64))
        apart = np.minimum(apart, self._turn - apart)
        if not apart.any():
            return
        off = int((apart > 1).sum())
        if off > MOST_OFF * apart.size:
            text = (
                f"{self._recorder.path}: replay diverged at shot {rows.start}: {off} "
                f"of {apart.size} macropixels are not those that were shown, expected "
                f"at most {MOST_OFF:.0%} by rounding. The data or the software is "
                "another than it was: restore it, or run the protocol anew."
            )
            raise RecordError(text)
        if not self._is_shift_told:
            self._is_shift_told = True
            self._tell(
                f"replay diverged at shot {rows.start}: {int((apart > 0).sum())} of "
                f"{apart.size} macropixels differ by rounding, at most by "
                f"{int(apart.max())} levels; going on from what was recorded"
            )

    def _read(self, table: str, name: str, rows: slice) -> NDArray[Any]:
        return self._recorder.read(table, name, rows)


def _words(purpose: tuple[str, int, int]) -> str:
    category, step, layer = purpose
    return f"{category}, step {step}, layer {layer}"
