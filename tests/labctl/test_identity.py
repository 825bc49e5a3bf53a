"""No frame is ever attributed to the wrong pattern."""

import itertools
import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.identity import ATTEMPTS, REPEATABLE, Answer, Counter, Pattern, judge

SHAPE = (5, 9)
PATTERN = Pattern(checksum=77, trigger=3, ready_s=1.0, gone_s=2.0, shape=SHAPE)
ANSWER = Answer(77, trigger=3, frame_id=43, start_s=1.1, end_s=1.2, shape=SHAPE)
COUNTER = Counter(trigger=2, frame_id=42)


def test_accepts_the_answer() -> None:
    assert judge(PATTERN, ANSWER, COUNTER).quality == "ok"
    assert judge(PATTERN, ANSWER, Counter(trigger=2)).quality == "ok"


REFUSED: dict[str, list[dict[str, object]]] = {
    "stale": [
        {"start_s": 0.9},
        {"checksum": 76},
        {"trigger": 1, "frame_id": 41},
        {"start_s": float("nan")},
        {"end_s": 1.05},
    ],
    "duplicate": [{"trigger": 2, "frame_id": 42}],
    "gap": [{"frame_id": 44}, {"trigger": 4, "frame_id": 44}],
    "late": [{"end_s": 2.1}],
    "incomplete": [{"shape": (3, 9)}],
    "wrong_shape": [
        {"shape": (0, 9)},
        {"shape": (9, 5)},
        {"shape": (6, 9)},
        {"shape": ()},
        {"dtype": "uint8"},
    ],
}


@pytest.mark.parametrize(
    ("quality", "change"),
    [(quality, change) for quality, some in REFUSED.items() for change in some],
)
def test_each_refusal_has_its_class_and_says_why(
    quality: str, change: dict[str, object]
) -> None:
    wrong = replace(ANSWER, **change)  # type: ignore[arg-type]  # fields by name
    verdict = judge(PATTERN, wrong, COUNTER)
    assert verdict.quality == quality
    assert verdict.detail


def test_what_clocks_may_be_off_is_added_on_both_sides() -> None:
    close = replace(ANSWER, start_s=1.001, end_s=1.999)
    assert judge(PATTERN, close, COUNTER).quality == "ok"
    assert judge(PATTERN, close, COUNTER, margin_s=0.01).quality == "stale"
    late = replace(close, start_s=1.1)
    assert judge(PATTERN, late, COUNTER, margin_s=0.01).quality == "late"


WRONG_BY = st.floats(-1.0, 1.0)


@given(
    begins_s=st.floats(0.0, 3.0),
    lasts_s=st.floats(0.0, 1.0),
    margin_s=st.floats(0.0, 0.4),
    start=WRONG_BY,
    end=WRONG_BY,
)
def test_within_the_margin_nothing_stale_is_fresh(
    begins_s: float, lasts_s: float, margin_s: float, start: float, end: float
) -> None:
    ends_s = begins_s + lasts_s
    start_s = begins_s + start * margin_s
    end_s = max(start_s, ends_s + end * margin_s)
    told = replace(ANSWER, start_s=start_s, end_s=end_s)
    quality = judge(PATTERN, told, COUNTER, margin_s).quality
    is_fresh = begins_s >= PATTERN.ready_s - 1e-8 and ends_s <= PATTERN.gone_s + 1e-8
    assert is_fresh or quality in {"stale", "late"}
    # What has twice the margin to spare is known to be fresh, however it was told.
    spare_s = min(begins_s - PATTERN.ready_s, PATTERN.gone_s - ends_s)
    assert quality == "ok" or spare_s < 2 * margin_s + 1e-8


@pytest.mark.parametrize("margin_s", [math.nan, math.inf, -0.01])
def test_a_margin_that_is_none_lets_nothing_pass(margin_s: float) -> None:
    assert judge(PATTERN, ANSWER, COUNTER, margin_s).quality == "stale"


@pytest.mark.parametrize("modulus", [None, 65_535, 65_536])
def test_counters_are_unwrapped(modulus: int | None) -> None:
    if modulus is None:
        assert Counter(1, 65_535).triggers(65_536) == 1
        return
    first = 1 if modulus == 65_535 else 0
    counter = Counter(1, 65_535, modulus)
    assert counter.triggers(first) == 1
    assert counter.triggers(first + 4) == 5
    assert counter.triggers(65_530) == -5
    assert counter.triggers(65_535) == 0


def test_only_what_a_second_exposure_can_mend_is_exposed_again() -> None:
    assert {"gap", "incomplete", "stale", "late"} == REPEATABLE
    assert ATTEMPTS == 3


@dataclass(frozen=True)
class Sent:
    """A frame, and which pattern's exposure it really is."""

    of: int
    answer: Answer


# What a transport may do with the frame of each pattern.
FATES = st.sampled_from(["ok", "ok", "ok", "drop", "copy", "swap", "delay", "early"])


@given(
    fates=st.lists(FATES, min_size=1, max_size=30),
    first=st.sampled_from([1, 20, 65_510, 65_530]),
    wraps=st.booleans(),
    takes=st.lists(st.integers(0, 3), min_size=30, max_size=30),
)
def test_no_frame_is_attributed_to_the_wrong_pattern(
    fates: list[str], first: int, wraps: bool, takes: list[int]
) -> None:
    # Patterns are written every 10 s and settle in 2; exposures take 1.
    patterns = [
        Pattern(checksum=k, trigger=k + 1, ready_s=10 * k + 2, gone_s=g, shape=SHAPE)
        for k, g in zip(range(len(fates)), itertools.count(10, 10), strict=False)
    ]
    queue: list[Sent] = []
    for k, fate in enumerate(fates):
        made = first + k
        start_s = 10 * k + (1.0 if fate == "early" else 3.0)
        frame_id = (made - 1) % 65_535 + 1 if wraps else made
        answer = Answer(k, k + 1, frame_id, start_s, start_s + 1, SHAPE)
        copies = {"drop": 0, "copy": 2}.get(fate, 1)
        place = len(queue) - 1 if fate == "swap" and queue else len(queue)
        queue[place:place] = [Sent(k, answer)] * copies
    for k, fate in enumerate(fates):
        if fate == "delay":
            moved = [sent for sent in queue if sent.of == k]
            queue = [sent for sent in queue if sent.of != k] + moved
    # Whoever asks may read any of the frames that are there, for any pattern;
    # the panel confirms what is asked for, so only times and counters tell.
    counter = Counter(modulus=65_535 if wraps else None)
    for pattern, take in zip(patterns, takes, strict=False):
        for sent in queue[: take + 1]:
            claimed = replace(sent.answer, checksum=pattern.checksum)
            verdict = judge(pattern, claimed, counter)
            if verdict.quality == "ok":
                assert sent.of == pattern.trigger - 1
                counter = counter.after(claimed)
        queue = queue[take:]
