"""The page of the study has its figures."""

from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.recording.reader import Record
from labctl.report import content

EXPECTED = {
    "matrix-mse",
    "matrix-cos",
    "restored",
    "free",
    "starts",
    "cost",
    "reach",
}


@pytest.mark.slow
def test_the_page_shows_every_figure(make_study: Callable[..., Path]) -> None:
    with Record.open(make_study("restore-jacobian")) as record:
        page = content.read(record)
    drawn = {d.name for section in page.sections for d in section.drawings}
    assert drawn >= EXPECTED
