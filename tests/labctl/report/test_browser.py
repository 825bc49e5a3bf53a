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
    training_page: Path,
    marked_record: Path,
    empty_record: Path,
    check_page: CheckPage,
    tmp_path: Path,
    markup: str,
) -> None:
    marked = page.write(marked_record, tmp_path / "marked.html")
    empty = page.write(empty_record, tmp_path / "empty.html")
    told = [check_page(path) for path in (training_page, marked, empty)]
    assert "The trained device took 76 % of the room" in told[0]
    assert told[1].count(markup) > 15
    assert "No step was recorded yet." in told[2]


def test_the_page_of_the_smoke_comparison_is_too(
    smoke: tuple[Path, dict[str, Any]], check_page: CheckPage
) -> None:
    path, told = smoke
    text = check_page(path.with_suffix(".html"))
    assert "Smoke comparison" in text
    assert "8 trainings, 0 of them failed" in text
    for line in told["result"]["table"]:
        assert f"{line['mean']:.3f} [{line['mean_low']:.3f}" in text
        assert f"{line['gain']:.3f}" in text


CELLS = """
return [...document.querySelectorAll("#events td, #calibrations td")].map((cell) => [
  getComputedStyle(cell, "::before").content,
  cell.getBoundingClientRect().right,
]);
"""


def test_words_of_a_table_are_in_sight_on_a_narrow_page(
    training_page: Path, visit: Callable[[Path], Any]
) -> None:
    narrow = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver = visit(training_page)
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


PAPER = """
const { clientWidth } = document.documentElement;
const seen = [...document.querySelectorAll("figure img")].filter(
  (each) => each.checkVisibility());
return [
  seen.map((each) => each.className),
  Math.max(...seen.map((each) => each.getBoundingClientRect().height)),
  Math.max(...[...document.querySelectorAll("img, table, pre")].map(
    (each) => each.getBoundingClientRect().right)) - clientWidth,
  [...document.querySelectorAll(".scroll")].map(
    (each) => getComputedStyle(each).overflowX),
];
"""
CM = 96 / 2.54  # of a style, in pixels


@pytest.mark.parametrize("name", ["activations", "manifold"])
def test_a_page_fits_on_paper_and_is_light_there(
    name: str, make_study: Callable[[str], Path], visit: Callable[[Path], Any]
) -> None:
    driver = visit(make_study(name).with_suffix(".html"))
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    # The paper of Letter between the margins of a browser is 19.6 by 25.9 cm.
    size = {"width": round(19.6 * CM), "height": round(25.9 * CM)}
    sheet = {**size, "deviceScaleFactor": 1, "mobile": False}
    media = {"media": "print", "features": dark}
    try:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sheet)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        shown, tallest, beyond, scrolls = driver.execute_script(PAPER)
    finally:
        reset = {"media": "", "features": []}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", reset)
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert set(shown) == {"on-light"}
    assert 5 * CM < tallest < 22 * CM  # with its heading and caption below 25.9
    assert beyond <= 0
    assert set(scrolls) == {"visible"}
