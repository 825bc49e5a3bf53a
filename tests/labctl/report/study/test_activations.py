"""The page of the study has its figures."""

from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.recording.reader import Record
from labctl.report import content

EXPECTED = {"mega", "by-task", "fields-mega"}


@pytest.mark.slow
def test_the_page_shows_every_figure(make_study: Callable[..., Path]) -> None:
    with Record.open(make_study("activations")) as record:
        page = content.read(record)
    drawn = {d.name for section in page.sections for d in section.drawings}
    assert drawn >= EXPECTED


@pytest.mark.slow
def test_the_table_can_be_sorted_and_its_script_is_allowed(
    make_study: Callable[..., Path],
) -> None:
    page = make_study("activations").with_suffix(".html")
    html = page.read_text(encoding="utf-8")
    assert html.count('<table role="table" class="sortable wide">') == 2
    assert html.count("<script>") == 1
    assert "script-src 'sha256-" in html
