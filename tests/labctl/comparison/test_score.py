"""Gains, intervals and targets of numbers whose answer is known."""

import math
from dataclasses import replace

import pytest

from labctl.comparison.score import (
    Line,
    References,
    Score,
    summarise,
)

ENDS = References("readout", "oracle")


def _scores(
    method: str, values: list[float], budget: int = 100, task: str = "digits"
) -> list[Score]:
    return [
        Score(task, method, seed, budget, value) for seed, value in enumerate(values)
    ]


def _lines(*parts: list[Score], ends: References = ENDS) -> dict[str, Line]:
    found = summarise([score for part in parts for score in part], ends)
    return {f"{line.method} {line.budget}": line for line in found}


def test_gain_is_the_part_of_the_room_that_was_recovered() -> None:
    lines = _lines(
        _scores("readout", [0.2, 0.4]),
        _scores("mine", [0.5, 0.7]),
        _scores("oracle", [0.6, 0.8]),
    )
    assert lines["readout 100"].gain == pytest.approx(0.0)
    assert lines["mine 100"].gain == pytest.approx(0.75)
    assert lines["oracle 100"].gain == pytest.approx(1.0)
    # The seeds differ in height and in nothing else: paired, nothing is uncertain.
    assert lines["mine 100"].gain_interval == pytest.approx((0.75, 0.75))
    assert lines["mine 100"].over_readout_interval == pytest.approx((0.3, 0.3))
    low, high = lines["mine 100"].mean_interval
    assert (low, high) == pytest.approx((0.5, 0.7))


def test_without_room_no_gain_is_stated() -> None:
    lines = _lines(
        _scores("readout", [0.90, 0.92]),
        _scores("mine", [0.93, 0.93]),
        _scores("oracle", [0.94, 0.94]),
    )
    line = lines["mine 100"]
    assert math.isnan(line.gain)
    assert math.isnan(line.shots_to_target)
    assert line.over_readout == pytest.approx(0.02)


def test_less_is_better_where_the_metric_says_so() -> None:
    parts = (
        _scores("readout", [0.8, 0.6]),
        _scores("mine", [0.5, 0.3]),
        _scores("oracle", [0.4, 0.2]),
    )
    lines = _lines(*([replace(s, direction=-1) for s in part] for part in parts))
    line = lines["mine 100"]
    assert line.mean == pytest.approx(0.4)
    assert line.mean_interval == pytest.approx((0.3, 0.5))
    assert line.gain == pytest.approx(0.75)
    assert line.over_readout == pytest.approx(0.3)


def test_the_scale_of_the_gain_is_that_of_the_largest_budget() -> None:
    lines = _lines(
        _scores("readout", [0.2], 100),
        _scores("readout", [0.3], 400),
        _scores("mine", [0.4], 100),
        _scores("mine", [0.6], 400),
        _scores("oracle", [0.4], 100),
        _scores("oracle", [0.7], 400),
    )
    assert lines["mine 100"].gain == pytest.approx(0.25)
    assert lines["mine 400"].gain == pytest.approx(0.75)
    assert lines["mine 100"].shots_to_target == 400
    assert lines["oracle 100"].shots_to_target == 400
    assert lines["readout 100"].shots_to_target == math.inf


def test_a_seed_that_failed_is_left_out_of_the_pairs_only() -> None:
    lines = _lines(
        _scores("readout", [0.2, 0.4, 0.3]),
        _scores("mine", [0.5, 0.7]),
        _scores("oracle", [0.6, 0.8, 0.7]),
    )
    line = lines["mine 100"]
    assert (line.seeds, lines["readout 100"].seeds) == (2, 3)
    assert line.gain == pytest.approx(0.75)


def test_reaching_the_oracle_allows_a_hundredth() -> None:
    lines = _lines(
        _scores("near", [0.595, 0.795]),
        _scores("far", [0.58, 0.78]),
        _scores("readout", [0.2, 0.4]),
        _scores("oracle", [0.6, 0.8]),
    )
    assert lines["near 100"].reaches_oracle
    assert not lines["far 100"].reaches_oracle
    assert (lines["near 100"].reached, lines["far 100"].reached) == (2, 0)


def test_tasks_whose_scores_rise_stand_beside_tasks_whose_scores_fall() -> None:
    up = {"readout": 0.2, "mine": 0.3, "oracle": 0.4}
    rising = [s for m, v in up.items() for s in _scores(m, [v, v])]
    falling = [
        replace(s, score=1 - s.score, direction=-1, task="series") for s in rising
    ]
    lines = summarise([*rising, *falling], ENDS)
    for method in up:
        one, other = (line for line in lines if line.method == method)
        assert other.mean == pytest.approx(1 - one.mean)
        assert other.over_readout == pytest.approx(one.over_readout)
        assert other.gain == pytest.approx(one.gain)
        assert other.reached == one.reached


@pytest.mark.parametrize("low", range(0, 1980, 37))
def test_a_hundredth_below_the_oracle_counts_to_the_sample(low: int) -> None:
    # 2,000 test samples: twenty of them are the hundredth, one more is too many.
    oracle = _scores("oracle", [round((low + 20) / 2000, 6)] * 2)
    lines = _lines(
        oracle,
        _scores("at", [round(low / 2000, 6)] * 2),
        _scores("below", [round((low - 1) / 2000, 6)] * 2),
    )
    assert (lines["at 100"].reached, lines["at 100"].reaches_oracle) == (2, True)
    assert (lines["below 100"].reached, lines["below 100"].reaches_oracle) == (0, False)


def test_every_seed_counts_alone_for_reaching_the_oracle() -> None:
    lines = _lines(
        _scores("mixed", [0.60, 0.70, 0.70]),
        _scores("oracle", [0.60, 0.80], 900),
    )
    line = lines["mixed 100"]
    # The third seed has no oracle to be compared with.
    assert (line.reached, line.seeds) == (1, 3)
    assert not line.reaches_oracle


def test_without_references_only_means_are_stated() -> None:
    lines = _lines(_scores("mine", [0.5, 0.7]), ends=References(None, None))
    line = lines["mine 100"]
    assert line.mean == pytest.approx(0.6)
    assert math.isnan(line.gain)
    assert math.isnan(line.over_readout)
    assert not line.reaches_oracle
