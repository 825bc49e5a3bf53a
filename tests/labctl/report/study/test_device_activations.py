"""The page of the study has its figures, and the device stands beside the zoo."""

from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.recording.reader import Record
from labctl.report import content

EXPECTED = {"responses", "device-measures", "shot", "ledger"}


@pytest.mark.slow
def test_the_page_shows_every_figure(make_study: Callable[..., Path]) -> None:
    with Record.open(make_study("device-activations")) as record:
        page = content.read(record)
    drawn = {d.name for section in page.sections for d in section.drawings}
    assert drawn == EXPECTED
    (table,) = [part.table for part in page.sections if part.name == "device-zoo"]
    assert table is not None
    assert [row[0] for row in table.rows[:3]] == [
        "device, 0.5 mW",
        "device, 5 mW",
        "sin",
    ]
    assert {len(row) for row in table.rows} == {len(table.heads)}
