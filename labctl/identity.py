"""Which pattern a frame belongs to: the rule of acceptance, and its refusals.

Frame *f* belongs to pattern *k* if, and only if,

1. its counter says that it answers *k*'s trigger;
2. its exposure began when *k* was on the panel and had settled;
3. its exposure ended before the next pattern was written;
4. it is whole: every row of it, of the promised type;

and the panel confirms that it showed *k*. Everything else has one name.

How far the times of a frame may be wrong (``Frame.time_error_s``) is the margin: 2 and
3 hold only where they hold whatever the true times are within it.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

Quality = Literal[
    "ok",
    "stale",
    "duplicate",
    "gap",
    "late",
    "incomplete",
    "wrong_shape",
    "trigger_refused",
    "timeout",
    "removed",
]
# What a second exposure can mend. A refused trigger or a silent camera has done
# nobody knows what: doing it again is not safe.
REPEATABLE: Final = frozenset({"gap", "incomplete", "stale", "late"})
# Every other class but ok ends the run at once.
ENDING: Final = frozenset(get_args(Quality)) - REPEATABLE - {"ok"}
# Exposures of one pattern before its run gives up.
ATTEMPTS: Final = 3
# Clocks add times in another order than we do.
_ROUNDING_S = 1e-9


@dataclass(frozen=True)
class Pattern:
    """What is known of a pattern before its frame comes.

    Parameters
    ----------
    checksum
        CRC-32 of the levels that were asked for.
    trigger
        Number of triggers since the camera was armed, its own included.
    ready_s
        Time from which it stands settled on the panel.
    gone_s
        Time at which the next one was written; infinite while there is none.
    shape
        Rows and columns of its frame.
    """

    checksum: int
    trigger: int
    ready_s: float
    gone_s: float
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """What a frame says of itself, and the panel of what it shows.

    Parameters
    ----------
    checksum
        CRC-32 of the levels that the panel confirms.
    trigger
        Trigger that the frame answers, by the camera's driver.
    frame_id
        The camera's own counter.
    start_s, end_s
        The exposure, on the bench clock.
    shape
        Of the data.
    dtype
        Of the data.
    """

    checksum: int
    trigger: int
    frame_id: int
    start_s: float
    end_s: float
    shape: tuple[int, ...]
    dtype: str = "uint16"


@dataclass(frozen=True)
class Counter:
    """Where the camera's counter stood at the last frame that was accepted.

    Parameters
    ----------
    trigger
        Number of that frame's trigger.
    frame_id
        Its counter; None before the first frame since the camera was armed.
    modulus
        How many different counters there are: 65,535 where 65,535 is followed
        by 1; None where the counter never starts again.
    """

    trigger: int = 0
    frame_id: int | None = None
    modulus: int | None = None

    def triggers(self, frame_id: int) -> int:
        """Frames that the camera made since, by its counter.

        Parameters
        ----------
        frame_id
            The counter of a later frame, or of an earlier one.

        Returns
        -------
        triggers
            Negative for an earlier frame; 0 for the same.
        """
        steps = frame_id - (frame_id if self.frame_id is None else self.frame_id)
        if self.modulus is None:
            return steps
        # The shorter way round: half a turn of frames is never in flight.
        half = self.modulus // 2
        return (steps + half) % self.modulus - half

    def after(self, answer: Answer) -> "Counter":
        """Return the counter with a frame accepted."""
        return Counter(answer.trigger, answer.frame_id, self.modulus)


@dataclass(frozen=True)
class Verdict:
    """Whether a frame is the answer to its pattern.

    Parameters
    ----------
    quality
        ``ok``, or the class of the refusal.
    detail
        What was got and what was expected; empty where all is well.
    """

    quality: Quality
    detail: str = ""


def judge(
    pattern: Pattern, answer: Answer, counter: Counter, margin_s: float = 0.0
) -> Verdict:
    """Decide whether a frame belongs to a pattern.

    Parameters
    ----------
    pattern
        The pattern.
    answer
        The frame.
    counter
        Of the camera, since it was armed.
    margin_s
        How far the frame's times may be from the truth on the bench clock.

    Returns
    -------
    verdict
        The first of the reasons against it, if there is any.
    """
    for verdict in (
        _whole(pattern, answer),
        _counted(pattern, answer, counter),
        _shown(pattern, answer),
        _timed(pattern, answer, margin_s),
    ):
        if verdict is not None:
            return verdict
    return Verdict("ok")


def _whole(pattern: Pattern, answer: Answer) -> Verdict | None:
    if answer.shape == pattern.shape and answer.dtype == "uint16":
        return None
    text = f"got {answer.shape} {answer.dtype}, expected {pattern.shape} uint16"
    rows = answer.shape[0] if answer.shape else 0
    short = answer.shape[1:] == pattern.shape[1:] and 0 < rows < pattern.shape[0]
    return Verdict("incomplete" if short else "wrong_shape", text)


def _counted(pattern: Pattern, answer: Answer, counter: Counter) -> Verdict | None:
    wanted = pattern.trigger - counter.trigger
    made = answer.trigger - counter.trigger
    by_id = wanted if counter.frame_id is None else counter.triggers(answer.frame_id)
    if made == by_id == wanted:
        return None
    got = made if made != wanted else by_id
    text = (
        f"trigger {answer.trigger}, frame {answer.frame_id}: {got} after the last "
        f"accepted one, expected {wanted}"
    )
    if counter.frame_id is not None and made == by_id == 0:
        return Verdict("duplicate", text)
    return Verdict("stale" if min(made, by_id) < wanted else "gap", text)


def _shown(pattern: Pattern, answer: Answer) -> Verdict | None:
    if answer.checksum == pattern.checksum:
        return None
    return Verdict("stale", "the panel shows another pattern than was written")


def _timed(pattern: Pattern, answer: Answer, margin_s: float) -> Verdict | None:
    times = (answer.start_s, answer.end_s, pattern.ready_s, margin_s)
    is_told = all(map(math.isfinite, times)) and margin_s >= 0
    if not is_told or answer.end_s < answer.start_s:
        text = (
            f"exposed from {answer.start_s} s to {answer.end_s} s, give or take "
            f"{margin_s} s, expected times"
        )
        return Verdict("stale", text)
    if answer.start_s < pattern.ready_s + margin_s - _ROUNDING_S:
        text = (
            f"exposure began at {answer.start_s:.6f} s, expected not before "
            f"{pattern.ready_s + margin_s:.6f} s (write and settle)"
        )
        return Verdict("stale", text)
    if answer.end_s > pattern.gone_s - margin_s + _ROUNDING_S:
        text = (
            f"exposure ended at {answer.end_s:.6f} s, expected not after "
            f"{pattern.gone_s - margin_s:.6f} s (the next write)"
        )
        return Verdict("late", text)
    return None
