import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl import duty
from labctl.duty import Lit, Span, aged

STEP_S = 0.1
TOUCH_S = 1e-5
# What happens one after the other: light or dark of some length, or another process.
COURSE = st.lists(
    st.tuples(st.sampled_from(["light", "dark", "handed on"]), st.floats(0.0, 9.0)),
    max_size=40,
)


def shares(spans: list[Span], window_s: float) -> list[float]:
    """Light of every window that begins or ends where a span does."""
    edges = [edge for span in spans for edge in span]
    starts = edges + [edge - window_s for edge in edges]
    return [
        sum(
            max(0.0, min(end, start + window_s) - max(begin, start))
            for begin, end in spans
        )
        for start in starts
    ]


@given(COURSE, st.floats(0.05, 0.95), st.floats(1.0, 20.0))
def test_no_window_has_more_than_its_share_over_any_number_of_runs(
    course: list[tuple[str, float]], share: float, window_s: float
) -> None:
    lit, now_s, true = Lit(), 0.0, list[Span]()
    for what, length_s in course:
        if what == "handed on":
            lit = Lit(aged(lit.spans, now_s, known=True))
        elif what == "dark":
            now_s += length_s
        else:
            now_s += lit.rest_s(now_s, duty=share, window_s=window_s)
            end_s, start_s = now_s + length_s, now_s
            lit.begin(now_s)
            while now_s < end_s:  # as a run does at each sign of life
                if lit.rest_s(now_s, duty=share, window_s=window_s):
                    break
                now_s += STEP_S
            lit.end(now_s)
            true.append((start_s, now_s))
    most_s = share * window_s + STEP_S + TOUCH_S
    assert all(lit_s <= most_s for lit_s in shares(true, window_s))


def test_what_is_rested_is_forgotten_and_what_is_not_adds_up() -> None:
    limits = {"duty": 0.25, "window_s": 4.0}
    lit = Lit([(0.0, 0.6), (2.0, 2.5)])
    assert lit.lit_s(2.5, **limits) == pytest.approx(1.1)
    assert lit.rest_s(2.5, **limits) == pytest.approx(3.0)
    assert lit.rest_s(3.5, **limits) == pytest.approx(2.0)
    assert lit.rest_s(5.5, **limits) == 0
    lit.begin(5.5)
    assert lit.lit_s(6.0, **limits) == pytest.approx(0.5)
    lit.begin(6.2)  # is open already
    assert lit.since_s == 5.5


def test_it_is_kept_short_and_errs_towards_light() -> None:
    lit, now_s = Lit(), 0.0
    for _ in range(3 * duty.MOST):
        lit.begin(now_s)
        lit.end(now_s + 0.1)
        now_s += 0.2
    assert len(lit.spans) == duty.MOST
    assert lit.spans[0][0] == 0.0
    kept_s = sum(end_s - start_s for start_s, end_s in lit.spans)
    assert kept_s > 0.1 * 3 * duty.MOST
    lit.begin(now_s + duty.LONGEST_S)
    lit.end(now_s + duty.LONGEST_S)
    assert len(lit.spans) == 1


@pytest.mark.parametrize(
    ("now_s", "known", "expected"),
    [
        (20.0, True, [(0.0, 4.0), (6.0, 9.0)]),
        # Restarted: dark since then for sure, and no longer.
        (5.0, True, [(-9.0, -5.0), (-3.0, 0.0)]),
        # Another computer, whose clock says nothing here.
        (5.0, False, [(-4.0, 0.0), (2.0, 5.0)]),
        (306.0, True, [(6.0, 9.0)]),
        (400.0, True, []),
    ],
)
def test_what_another_process_left_is_never_older_than_it_is(
    now_s: float, known: bool, expected: list[Span]
) -> None:
    spans = [(0.0, 4.0), (6.0, 9.0)]
    assert aged(spans, now_s, known=known) == expected
    assert aged([], now_s, known=known) == []
