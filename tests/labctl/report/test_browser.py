"""Pages of every kind in a browser: quiet, alone, drawn, and usable by everybody."""

from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.recording.layout import Kind
from labctl.report import page

KINDS: tuple[Kind, ...] = ("evaluate", "scan", "comparison", "calibrate")
pytestmark = [pytest.mark.peer, pytest.mark.slow]
CheckPage = Callable[[Path], str]


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_quiet_and_usable_and_shows_markup_as_text(
    kind: Kind,
    write_record: Callable[..., Path],
    check_page: CheckPage,
    tmp_path: Path,
    markup: str,
) -> None:
    record = write_record(kind, markup)
    text = check_page(page.write(record, tmp_path / f"{kind}.html"))
    assert text.count(markup) > 12


def test_the_page_of_a_training_is_too(
    training_record: Path,
    marked_record: Path,
    empty_record: Path,
    check_page: CheckPage,
    tmp_path: Path,
    markup: str,
) -> None:
    told = [
        check_page(page.write(record, tmp_path / f"{number}.html"))
        for number, record in enumerate((training_record, marked_record, empty_record))
    ]
    assert "The trained device took 76 % of the room" in told[0]
    assert told[1].count(markup) > 15
    assert "No step was recorded yet." in told[2]
