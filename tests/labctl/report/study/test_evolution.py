"""The page of the study has its figures."""

from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.recording.reader import Record
from labctl.report import content

SHOTS = {"shot", "shot-train", "shot-warm-up"}
EXPECTED = {"methods", "courses", "ledger", *SHOTS}


@pytest.mark.slow
def test_the_page_shows_every_figure(make_study: Callable[..., Path]) -> None:
    with Record.open(make_study("evolution")) as record:
        page = content.read(record)
    drawn = {d.name for section in page.sections for d in section.drawings}
    assert drawn == EXPECTED
