"""The panel's time constants come back; what never moves or never rests is named."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from labctl.bench import load
from labctl.calibrate import settle
from labctl.calibrate.execute import Outcome
from labctl.calibrate.settle import (
    AROUND,
    FARTHEST,
    LEFT,
    STEPS,
    Course,
    Reach,
    covariance,
    fit_relaxation,
    folded_s,
    left_over,
)
from labctl.calibration import Settle
from labctl.errors import OutcomeError

MakeBench = Callable[..., Path]
Calibrate = Callable[..., Outcome]
Known = Callable[..., None]
Array = NDArray[np.float64]

TIMES = np.array([0.0, *np.geomspace(5, 60, 10), 100.0]) * 1e-3
DELAY_S, FAST_S, SLOW_S = 0.003, 0.002, 0.008


def courses(
    rng: np.random.Generator, noise: float, *, moves: bool = True
) -> list[Course]:
    made = []
    for start, end in STEPS:
        size = abs(end - start)
        tau = FAST_S + (SLOW_S - FAST_S) * size
        left = np.exp(-np.maximum(TIMES - DELAY_S, 0) / tau) * moves
        error = np.full(len(TIMES), noise / size)
        drawn = left + error * rng.standard_normal(len(TIMES))
        made.append(Course(size, TIMES, drawn, error))
    return made


def test_delay_and_time_of_a_full_step_come_back_with_their_errors() -> None:
    rng = np.random.default_rng(1)
    truth = DELAY_S + SLOW_S * math.log(1 / LEFT)
    pulls = []
    for _ in range(16):
        found = fit_relaxation(courses(rng, 0.002))
        assert found is not None
        assert found.settle_s == pytest.approx(truth, rel=0.1)
        assert found.delay_s == pytest.approx(DELAY_S, abs=6 * found.delay_error)
        pulls.append((found.settle_s - truth) / found.settle_error)
    assert np.std(pulls) == pytest.approx(1, abs=0.6)
    assert abs(np.mean(pulls)) < 0.9


def test_frames_that_look_near_before_the_panel_moves_are_no_tail() -> None:
    rng = np.random.default_rng(7)
    truth = DELAY_S + SLOW_S * math.log(1 / LEFT)
    made = courses(rng, 0.002)
    for number in (1, 4, 5):
        # Of the first two points, at which nearly all is left.
        made[number].left[:2] = 0.1 / made[number].size * np.array([0.5, 0.55])
    # At once nothing has happened, after a delay that the tail does not know.
    found_s = [max(folded_s(course), 0.0) for course in made]
    assert found_s == [0, TIMES[1], 0, 0, TIMES[1], TIMES[1]]
    found = fit_relaxation(made)
    assert found is not None
    assert found.settle_s == pytest.approx(truth, rel=0.1)
    assert found.settle_error < 0.1 * truth


def test_data_that_are_constant_have_no_transition() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        assert fit_relaxation(courses(rng, 0.002, moves=False)) is None


def test_a_panel_that_does_not_rest_is_refused() -> None:
    rng = np.random.default_rng(3)
    never = [
        Course(each.size, each.time_s, each.left + 0.05, each.error)
        for each in courses(rng, 0.002)
    ]
    with pytest.raises(OutcomeError, match=r"not settled: \d\.\d % of a step is left"):
        fit_relaxation(never)


def test_a_step_between_two_delays_is_too_fast_to_be_followed() -> None:
    rng = np.random.default_rng(4)
    error = np.full(len(TIMES), 0.01)
    left = (TIMES < 0.001) + error * rng.standard_normal(len(TIMES))
    with pytest.raises(OutcomeError, match="a step falls within one delay"):
        fit_relaxation([Course(0.8, TIMES, left, error)])


def test_a_time_that_no_point_tells_is_refused_and_not_guessed() -> None:
    # Of a delay and two times; in seconds, so of sizes that are far apart.
    slope = np.array([[9e4, 1.0, 0.0], [2e4, 3.0, 0.0], [1e4, 0.0, 2.0]])
    expected = np.linalg.inv(slope.T @ slope)
    assert covariance(slope) == pytest.approx(expected)
    for blind in (0 * slope[:, 2], 1e-5 * slope[:, 0]):
        with pytest.raises(OutcomeError, match="a step falls within one delay"):
            covariance(np.column_stack([slope[:, :2], blind]))


def test_what_is_left_of_the_frame_before_is_told_without_bias() -> None:
    rng = np.random.default_rng(5)
    mean = rng.exponential(1.0, (2, 3000))
    for share in (0.0, 0.1, 1.0):
        frame = mean[1] + share * (mean[0] - mean[1])
        found = [
            left_over(*(rng.poisson(x).astype(float) for x in (frame, mean, mean)))
            for _ in range(60)
        ]
        error = float(np.std(found)) / math.sqrt(len(found))
        assert np.mean(found) == pytest.approx(share, abs=4 * error + 0.01)


def speckle(rng: np.random.Generator, count: int) -> Callable[[float], Array]:
    """Frames of a panel of which half is at a level, as a share of all levels."""
    one, other = rng.standard_normal((2, count, 2)) @ np.array([1, 1j])
    spot = 0.7 * (one + other) + rng.standard_normal()

    def frame(share: float) -> Array:
        turned = one + spot * np.exp(1j * (0.6 + math.tau * share))
        light: Array = 20 * np.abs(turned) ** 2
        return light

    return frame


def test_the_distance_from_a_goal_is_told_where_light_does_not_go_along() -> None:
    rng = np.random.default_rng(7)
    frame = speckle(rng, 4000)
    settled = [
        [rng.poisson(frame(by), (9, 4000)).mean(0) for by in AROUND] for _ in "12"
    ]
    reach = Reach(np.array(settled))
    by = np.array([-0.09, -0.05, -0.02, 0.0, 0.02, 0.05, 0.09])
    found = [
        np.mean([reach.away(rng.poisson(frame(x)).astype(float)) for _ in range(50)])
        for x in by
    ]
    assert found == pytest.approx(by, abs=0.002)
    # What a straight line through the nearest levels makes of it.
    slope = frame(0.05) - frame(-0.05)
    line = [(frame(x) - frame(0)) @ slope / (10 * slope @ slope) for x in by]
    assert np.abs(np.array(line) - by).max() > 0.006
    # Far away is never taken for near.
    assert abs(reach.away(frame(0.2))) > FARTHEST


def test_levels_that_make_no_difference_lead_nowhere() -> None:
    flat = np.full((2, len(AROUND), 30), 5.0)
    with pytest.raises(OutcomeError, match="settle: the panel does not modulate"):
        Reach(flat)


def test_a_goal_that_is_a_little_off_and_a_long_exposure_change_nothing() -> None:
    rng = np.random.default_rng(8)
    truth = DELAY_S + SLOW_S * math.log(1 / LEFT)
    exposure_s = 0.004
    off = []
    for _ in range(16):
        made = []
        for each in courses(rng, 0.002):
            shared = float(each.error[0]) / 2
            tau = FAST_S + (SLOW_S - FAST_S) * each.size
            half = exposure_s / 2 / tau
            left = each.left * np.where(each.time_s > 0.005, math.sinh(half) / half, 1)
            made.append(
                replace(
                    each,
                    left=left + shared * rng.standard_normal(),
                    shared=shared,
                    exposure_s=exposure_s,
                )
            )
        found = fit_relaxation(made)
        assert found is not None
        off.append((found.settle_s - truth) / found.settle_error)
    assert abs(np.mean(off)) < 0.9
    assert np.std(off) < 1.6


# ---- on the bench ----------------------------------------------------------------

BRIGHT = {"world.options.sensor.photons_per_s": 2e7}


@pytest.fixture
def few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "REPEATS", 2)
    monkeypatch.setattr(settle, "REFERENCES", 8)
    monkeypatch.setattr(settle, "FRESH", 4)
    monkeypatch.setattr(settle, "STEPS", STEPS[1:3])


@pytest.mark.slow
@pytest.mark.usefixtures("few_frames")
def test_the_time_that_the_panel_takes_comes_back(
    make_bench: MakeBench, calibrate: Calibrate, known: Known
) -> None:
    slow_s = 0.0105
    path = make_bench({**BRIGHT, "world.options.panel.slow_s": slow_s})
    known(path)
    (row,) = calibrate("settle").rows
    assert (row.status, row.why) == ("passed", "")
    record = load(path).records()["settle"]
    assert isinstance(record.values, Settle)
    truth = slow_s * math.log(1 / LEFT)
    settled, error = record.quantities["settled_s"]
    assert settled == pytest.approx(truth, rel=0.04)
    assert error < 0.04 * truth
    assert record.values.settle_s == pytest.approx(settled + 2 * error)
    assert record.figure_of_merit["leakage_percent"] < 2


@pytest.mark.parametrize(
    ("photons_per_s", "said"),
    [
        (1e13, "settle: saturated at exposure_s=1e-05"),
        (1e3, "settle: dark, or too few"),
    ],
    ids=["saturated", "dark"],
)
def test_light_that_is_too_much_or_too_little_is_named(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    photons_per_s: float,
    said: str,
) -> None:
    known(make_bench({"world.options.sensor.photons_per_s": photons_per_s}))
    (row,) = calibrate("settle").rows
    assert row.status == "failed"
    assert row.why.startswith(said)


@pytest.mark.slow
@pytest.mark.usefixtures("few_frames")
def test_an_instantaneous_panel_has_no_transition(
    make_bench: MakeBench, calibrate: Calibrate, known: Known
) -> None:
    at_once = {"world.options.panel.fast_s": 0.0, "world.options.panel.slow_s": 0.0}
    waits = {"calibrate.settle_s": 0.08}
    path = make_bench({**BRIGHT, **at_once, **waits})
    known(path)
    (row,) = calibrate("settle").rows
    assert (row.status, row.why) == ("passed", "")
    assert load(path).records()["settle"].values == Settle(kind="settle", settle_s=0)


def test_a_panel_whose_levels_make_no_difference_is_named() -> None:
    rng = np.random.default_rng(6)
    mean = rng.exponential(2.0, 2000)
    one, other = (rng.poisson(mean, (settle.REFERENCES, 2000)) for _ in range(2))
    with pytest.raises(OutcomeError, match="settle: the panel does not modulate"):
        settle.require_step(one.mean(axis=0), other.mean(axis=0))
    settle.require_step(one.mean(axis=0), other.mean(axis=0)[::-1])
