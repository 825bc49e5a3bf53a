"""Numbers are told with their interval, and verdicts are sentences."""

import pytest

from labctl.studies.job import Verdict, told, verdict


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "none"),
        ([float("nan")], "none"),
        ([0.25], "0.25"),
        ([1.0, 1.0, float("nan")], "1 [1, 1]"),
    ],
)
def test_a_mean_is_told_with_the_interval_that_it_has(
    values: list[float], said: str
) -> None:
    assert told(values) == said


def test_the_interval_lies_around_the_mean() -> None:
    assert told([0.0, 1.0, 2.0, 3.0], ".2f").startswith("1.50 [0.")


def test_an_answer_becomes_a_verdict() -> None:
    assert (verdict(held=True), verdict(held=False)) == (Verdict.HELD, Verdict.FAILED)
    assert str(Verdict.CONDITIONS) == "holds under conditions"
