"""The page of the study has its figures, and its big one is put in order by hand."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from labctl.recording.reader import Record
from labctl.report import content, page
from labctl.report.section import Gallery

pytestmark = pytest.mark.slow
MakeStudy = Callable[[str], Path]


@pytest.fixture
def galleries(make_study: MakeStudy) -> dict[str, Gallery]:
    with Record.open(make_study("activations")) as record:
        sections = content.read(record).sections
    return {section.name: section.gallery for section in sections if section.gallery}


@pytest.mark.soak  # every figure of the mega plot
def test_papers_get_every_figure_whole(make_study: MakeStudy, tmp_path: Path) -> None:
    page.write(make_study("activations"), tmp_path / "a.html", tmp_path / "png")
    names = {path.stem for path in (tmp_path / "png").iterdir()}
    assert names == {"mega", "by-task", "fields-mega"}


def test_each_gallery_begins_with_the_best(galleries: dict[str, Gallery]) -> None:
    assert set(galleries) == {"zoo", "fields"}
    for gallery in galleries.values():
        values = gallery.keys[0].values
        assert list(values) == sorted(values, reverse=True)
        assert {len(key.values) for key in gallery.keys} == {len(gallery.items)}
        drawn = [drawing.name for drawing in gallery.drawings]
        assert len(set(drawn)) == len(drawn) == 1 + 2 * len(gallery.items)


def test_no_two_figures_of_the_page_share_a_name(
    galleries: dict[str, Gallery],
) -> None:
    one, other = (
        {drawing.name for drawing in gallery.drawings} for gallery in galleries.values()
    )
    assert not one & other


def test_scripts_sort_the_tables_and_the_galleries_and_no_more(
    make_study: MakeStudy,
) -> None:
    path = make_study("activations").with_suffix(".html")
    html = path.read_text(encoding="utf-8")
    assert html.count('<table role="table" class="sortable wide">') == 2
    assert html.count('<figure class="gallery"') == 2
    assert html.count("<script>") == 2
    assert "script-src 'sha256-" in html
    assert path.stat().st_size < 6e6


SHOWN = """
const gallery = document.getElementById("activations-gallery");
return [
  [...gallery.querySelectorAll("h4")].map((each) => each.textContent),
  [...gallery.querySelectorAll(".value")].map((each) => each.textContent),
  gallery.querySelector("[aria-live]").textContent,
  gallery.querySelector("form").checkVisibility(),
  [...gallery.querySelectorAll("li")].map((each) => each.getBoundingClientRect().top),
];
"""


def shown(driver: Any) -> tuple[list[str], list[str], str]:  # noqa: ANN401 - selenium is untyped here
    names, values, told, is_there, tops = driver.execute_script(SHOWN)
    assert is_there
    assert tops == sorted(tops)  # seen in the order in which they are read
    return names, values, told


def said(values: list[str]) -> list[float]:
    return [float(value.rpartition(": ")[2]) for value in values]


@pytest.mark.peer
def test_the_gallery_is_ordered_by_keyboard(
    make_study: MakeStudy,
    visit: Callable[[Path], Any],
    need_module: Callable[..., ModuleType],
) -> None:
    driver = visit(make_study("activations").with_suffix(".html"))
    keys = need_module("selenium.webdriver.common.keys").Keys
    first, values, told = shown(driver)
    assert told == "Ordered by best accuracy, mean, highest first."
    assert said(values) == sorted(said(values), reverse=True)

    select = driver.find_element("css selector", "#activations-gallery select")
    select.send_keys("name")  # as who types into a list does
    names, values, told = shown(driver)
    assert names == sorted(first)
    assert names != first
    assert set(values) == {""}
    assert told == (f"Ordered by name, from A to Z: from {names[0]} to {names[-1]}.")

    select.send_keys(keys.TAB)
    button = driver.switch_to.active_element
    assert button.text == "Reverse the order"
    button.send_keys(keys.ENTER)
    names, _, told = shown(driver)
    assert names == sorted(first, reverse=True)
    assert "from Z to A" in told
    assert driver.get_log("browser") == []


@pytest.mark.peer
def test_the_gallery_is_ordered_by_pointer(
    make_study: MakeStudy,
    visit: Callable[[Path], Any],
    need_module: Callable[..., ModuleType],
) -> None:
    driver = visit(make_study("activations").with_suffix(".html"))
    chains = need_module("selenium.webdriver.common.action_chains")
    ui = need_module("selenium.webdriver.support.ui")
    first, _, _ = shown(driver)
    select = driver.find_element("css selector", "#activations-gallery select")
    ui.Select(select).select_by_visible_text("largest slope")
    names, values, told = shown(driver)
    assert names[:2] == ["polynomial-5", "polynomial-3"]
    assert values[0].startswith("largest slope: ")
    assert said(values) == sorted(said(values), reverse=True)
    assert told.startswith("Ordered by largest slope, highest first: from polynomial-5")

    button = driver.find_element("css selector", "#activations-gallery button")
    chains.ActionChains(driver).move_to_element(button).click().perform()
    turned, values, told = shown(driver)
    assert said(values) == sorted(said(values))
    assert turned[-1] == "polynomial-5"
    assert "lowest first" in told

    ui.Select(select).select_by_visible_text("best accuracy, mean")
    assert shown(driver)[0] == first


@pytest.mark.peer
def test_without_scripts_the_order_is_fixed_and_nothing_pretends_to_change_it(
    make_study: MakeStudy,
    browser: Any,  # noqa: ANN401 - selenium is untyped here
    visit: Callable[[Path], Any],
) -> None:
    off = "Emulation.setScriptExecutionDisabled"
    browser.execute_cdp_cmd(off, {"value": True})
    try:
        driver = visit(make_study("activations").with_suffix(".html"))
        find = driver.find_elements
        assert not find("css selector", "#activations-gallery form")[0].is_displayed()
        assert "which yours does not" in find("tag name", "noscript")[0].text
        assert len(find("css selector", "#activations-gallery li")) == 15
    finally:
        browser.execute_cdp_cmd(off, {"value": False})
