"""Pages of all studies in a browser: quiet, alone, drawn, and usable by everybody."""

from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.report.study.course import FIGURES

pytestmark = [pytest.mark.peer, pytest.mark.slow]


@pytest.mark.parametrize("name", FIGURES)
def test_a_page_is_quiet_and_usable(
    name: str, make_study: Callable[..., Path], check_page: Callable[[Path], str]
) -> None:
    record = make_study(name)
    text = check_page(record.with_suffix(".html"))
    assert "What the document claims, and what was found" in text
