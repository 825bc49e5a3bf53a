"""Activations of fields are shown from the best, each with its real nets beside it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from labctl.recording.reader import Record
from labctl.report.study import field_activations
from labctl.studies.complex_zoo import FUNCTIONS, REAL


@pytest.mark.slow
def test_items_table_and_keys_are_in_one_order(make_study: Callable[..., Path]) -> None:
    with Record.open(make_study("activations")) as record:
        names = record.resolved["study"]["complex_functions"]
        rows = record.table("fits")
    section = field_activations.section(rows, names)
    assert section.gallery is not None
    assert section.table is not None
    order = [item.name for item in section.gallery.items]
    assert set(order) == set(FUNCTIONS)
    best = np.argsort(-rows["complex_accuracy"].mean(axis=0), kind="stable")
    assert order == [names[number] for number in best]
    assert [row[0] for row in section.table.rows] == order
    words = {key.label: key.values for key in section.gallery.keys}
    assert words["real function beside it"] == tuple(REAL[name] for name in order)
