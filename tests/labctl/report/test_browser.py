"""Pages of every kind in a browser: quiet, alone, drawn, and usable by everybody."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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


CELLS = """
return [...document.querySelectorAll("#events td, #calibrations td")].map((cell) => [
  getComputedStyle(cell, "::before").content,
  cell.getBoundingClientRect().right,
]);
"""


def test_words_of_a_table_are_in_sight_on_a_narrow_page(
    training_record: Path, visit: Callable[[Path], Any], tmp_path: Path
) -> None:
    narrow = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver = visit(page.write(training_record, tmp_path / "run.html"))
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    try:
        cells = driver.execute_script(CELLS)
        tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert len(cells) > 9
    assert '"what happened: "' in {before for before, _ in cells}
    assert max(right for _, right in cells) <= 400
    # Stacked by the style, and still a table to who hears it.
    roles = [node.get("role", {}).get("value") for node in tree]
    assert roles.count("table") == 5
    assert roles.count("columnheader") == 16
