"""What is good enough, and what has moved."""

import math

import pytest

from labctl.calibrate.kind import Merit, Quantity


@pytest.mark.parametrize(
    ("value", "is_floor", "is_kept"),
    [
        (0.9, False, True),
        (1.0, False, True),
        (1.1, False, False),
        (math.nan, False, False),
        (0.9, True, False),
        (1.1, True, True),
        (math.nan, True, False),
    ],
)
def test_a_merit_keeps_its_limit_or_does_not(
    value: float, is_floor: bool, is_kept: bool
) -> None:
    assert Merit("x", value, 0.1, 1.0, is_floor).is_kept is is_kept


def test_a_merit_tells_value_error_and_limit() -> None:
    assert Merit("rms_rad", 0.0041, 0.0003, 0.012).text() == (
        "rms_rad 0.0041 ± 0.0003 (<= 0.012)"
    )
    assert Merit("strehl", 0.9, math.nan, 0.8, True).text() == "strehl 0.9 (>= 0.8)"


def test_what_moved_less_than_its_error_or_tolerance_has_not_moved() -> None:
    now = Quantity(1.0, 0.01)
    assert not now.has_moved(1.03)
    assert now.has_moved(1.05)
    assert not now.has_moved(1.05, error=0.02)
    assert not Quantity(1.0, 0.01, tolerance=0.1).has_moved(1.09)
    assert now.has_moved(math.nan)
