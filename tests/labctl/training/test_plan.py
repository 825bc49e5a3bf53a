from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.training.drift import Watching
from labctl.training.plan import Course, Plan, TooSmall, plan


def test_counts_every_category_of_a_course() -> None:
    course = Course(
        train=100,
        validation=30,
        batch=20,
        exposures=2,
        noise_repeats=8,
        paired_per_step=1,
        held_out_per_step=2,
        probes_per_sample=1,
        validate_every=4,
    )
    assert course.counts(10) == {
        "repeat": 16,
        "warm-up": 200,
        "train": 400,
        "probe": 5 * 2 + 10 * (3 + 40),
        "evaluate": 2 * 60,
        "drift-check": 0,
    }


def test_a_choice_of_the_probes_size_is_paid_at_the_first_step_and_later() -> None:
    course = Course(train=100, validation=0, batch=20, size_every=4, size_samples=3)
    counts = [course.counts(steps)["probe"] for steps in (0, 1, 4, 5)]
    assert counts == [0, 15, 15, 30]
    assert course.dearest == 20 + 15


def test_a_budget_of_exactly_one_epoch_is_planned() -> None:
    course = Course(train=105, validation=0, batch=10)
    found = plan(105 + 100, course)
    assert isinstance(found, Plan)
    assert (found.steps, found.epochs, found.total) == (10, 1.0, 205)


def test_a_budget_one_shot_short_of_an_epoch_says_what_is_needed() -> None:
    found = plan(204, Course(train=105, validation=0, batch=10))
    assert found == TooSmall(204, 205)
    assert "shots=204, expected at least 205" in str(found)


def test_a_limited_warm_up_makes_a_course_of_one_step_possible() -> None:
    course = Course(train=1000, validation=0, batch=10, warm_up=100)
    found = plan(135, course)
    assert isinstance(found, Plan)
    assert (found.steps, found.total) == (3, 130)
    short = plan(109, course)
    assert isinstance(short, TooSmall)
    assert short.needed == 110


def test_a_batch_beyond_the_training_split_is_refused() -> None:
    with pytest.raises(ValueError, match="batch=11, expected at most 10"):
        plan(1000, Course(train=10, validation=0, batch=11))


@given(
    budget=st.integers(0, 20_000),
    train=st.integers(1, 400),
    batch=st.integers(1, 64),
    layers=st.integers(1, 3),
    probes=st.integers(0, 5),
    every=st.integers(0, 20),
)
def test_plans_spend_no_more_than_the_budget_and_no_step_less(
    budget: int, train: int, batch: int, layers: int, probes: int, every: int
) -> None:
    course = Course(
        train=max(train, batch),
        validation=37,
        batch=batch,
        exposures=layers,
        paired_per_step=probes,
        validate_every=every,
    )
    found = plan(budget, course)
    if isinstance(found, TooSmall):
        assert budget < found.needed
        return
    assert found.total == sum(found.counts.values()) <= budget
    assert sum(course.counts(found.steps + 1).values()) > budget


def test_looks_for_drift_are_paid_and_the_dearest_step_is_known() -> None:
    watching = Watching(every=5, patterns=10, refit_shots=40)
    course = Course(
        train=96, validation=7, batch=16, watching=watching, most_per_sample=3
    )
    assert course.counts(12)["drift-check"] == 10 * (2 + 2)
    # A batch with its probes, a look, a fit from fresh exposures, a new first look.
    assert course.dearest == 16 * 4 + 10 + 40 + 20
    quiet = replace(course, watching=Watching(), validate_every=4)
    assert quiet.dearest == 16 * 4 + 7
    assert replace(quiet, most_per_sample=0).dearest == 16 + 7


@pytest.mark.parametrize(
    "course",
    [
        Course(train=96, validation=0, batch=16, most_per_sample=500),
        Course(
            train=96,
            validation=0,
            batch=16,
            noise_repeats=4,
            warm_up=32,
            watching=Watching(every=5, patterns=10, refit_shots=1400),
        ),
    ],
)
def test_what_a_course_needs_holds_one_step_as_dear_as_it_may_be(
    course: Course,
) -> None:
    before = sum(course.counts(0).values())
    short = plan(before + course.dearest - 1, course)
    assert isinstance(short, TooSmall)
    assert short.needed == before + course.dearest
    assert f"expected at least {short.needed}" in str(short)
    found = plan(short.needed, course)
    assert isinstance(found, Plan)
    assert found.least == 1 <= found.steps
