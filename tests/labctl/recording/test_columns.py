from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from labctl.recording import columns, layout
from labctl.recording.layout import Layout

MakeRows = Callable[[Layout, str, int], dict[str, Any]]


def test_every_column_is_asked_for(plan: Layout, make_rows: MakeRows) -> None:
    rows = make_rows(plan, "training", 3)
    rows.pop("loss")
    rows["loose"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"missing=\['loss'\], unknown=\['loose'\]"):
        columns.arrays(plan.together("training"), rows, 0)


def test_columns_are_equally_long(plan: Layout, make_rows: MakeRows) -> None:
    rows = make_rows(plan, "training", 3) | {"loss": np.zeros(2)}
    with pytest.raises(ValueError, match=r"'training/loss': 2.*expected equally"):
        columns.arrays(plan.together("training"), rows, 0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("frames", np.zeros((2, 7, 5), "u2"), r"shape=\(2, 7, 5\), expected \(rows, 5"),
        ("frames", np.zeros((2, 5, 7)), "dtype=float64, expected uint16"),
        ("levels", np.full((2, 15), 256), "values beyond uint8"),
        ("levels", np.full((2, 15), -1), "values beyond uint8"),
        ("outputs", np.full((2, 6), 1e300), "values beyond float32"),
        ("outputs", np.full((2, 6), "1"), "dtype=<U1, expected float32"),
        ("category", np.full(2, "a-far-too-long-one"), "expected at most 12 bytes"),
        ("category", np.zeros(2), "dtype=float64, expected text"),
        ("step", 3, r"shape=\(\), expected \(rows"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    plan: Layout, make_rows: MakeRows, name: str, value: ArrayLike, message: str
) -> None:
    rows = make_rows(plan, "shots", 2) | {name: value}
    with pytest.raises(ValueError, match=message):
        columns.arrays(plan.together("shots"), rows, 0)


def test_whole_numbers_of_another_width_are_taken(
    plan: Layout, make_rows: MakeRows
) -> None:
    rows = make_rows(plan, "shots", 2)
    rows["levels"] = rows["levels"].astype("i8")
    rows["frame_id"] = [7, 8]
    arrays = columns.arrays(plan.together("shots"), rows, 5)
    assert arrays["shots_meta/levels"].dtype == np.uint8
    assert arrays["shots_meta/frame_id"].tolist() == [7, 8]
    assert arrays["shots/shot"].tolist() == [5, 6]


def test_nan_and_infinity_stay_what_they_are(plan: Layout, make_rows: MakeRows) -> None:
    rows = make_rows(plan, "shots", 2)
    rows["outputs"] = np.array([[np.nan] * 6, [np.inf] * 6])
    kept = columns.arrays(plan.together("shots"), rows, 0)["shots/outputs"]
    assert np.isnan(kept[0]).all()
    assert np.isinf(kept[1]).all()


def test_a_text_longer_than_its_field_is_refused() -> None:
    with pytest.raises(ValueError, match=r"events.source='s+', expected 32 bytes"):
        columns.row(layout.EVENTS, (0.0, "info", "s" * 33, "text"))


@given(st.text(), st.integers(4, 20))
def test_the_parts_of_a_text_make_the_text(text: str, nbytes: int) -> None:
    parts = list(columns.parts(text, nbytes))
    assert "".join(parts) == text
    assert all(len(part.encode()) <= nbytes for part in parts)
