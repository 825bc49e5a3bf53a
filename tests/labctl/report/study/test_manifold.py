"""The page of the study has its figures, and its film can be stepped through."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from labctl.recording.reader import Record
from labctl.report import content
from labctl.report.study.manifold import flat

SHOTS = {"shot", "shot-probe", "shot-train"}
EXPECTED = {"film-knot", "film-saddle", "errors", "ledger", *SHOTS}


@pytest.mark.slow
def test_the_page_shows_every_figure(make_study: Callable[..., Path]) -> None:
    with Record.open(make_study("manifold")) as record:
        page = content.read(record)
    drawn = {d.name for section in page.sections for d in section.drawings}
    assert drawn == EXPECTED
    assert any(section.explorer for section in page.sections)


@pytest.mark.peer
@pytest.mark.slow
def test_keys_step_through_the_film(
    make_study: Callable[..., Path],
    visit: Callable[[Path], Any],
    need_module: Callable[..., ModuleType],
) -> None:
    keys = need_module("selenium.webdriver.common.keys").Keys
    driver = visit(make_study("manifold").with_suffix(".html"))
    told = driver.find_element("id", "film-told")
    canvas = driver.find_element("id", "film-canvas")
    assert told.text.startswith("knot, digital: after 0 of 60 steps")
    first = canvas.screenshot_as_png
    driver.find_element("id", "film-step").send_keys(keys.END)
    assert "after 60 of 60 steps" in told.text
    assert canvas.screenshot_as_png != first
    driver.find_element("css selector", "#film-name option:last-child").click()
    assert told.text.startswith("saddle, device: after 0 of ")
    assert driver.get_log("browser") == []


INKS = """
window.addEventListener("beforeprint", () => {
  const canvas = document.getElementById("film-canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, 720, 720);
  window.inks = new Set();
  for (let n = 0; n < data.length; n += 4)
    if (data[n + 3] === 255) window.inks.add(data.slice(n, n + 3).join());
});
"""
ORANGE = {"light": "213,94,0", "dark": "240,136,62"}


@pytest.mark.peer
@pytest.mark.slow
def test_a_film_on_a_dark_screen_is_printed_with_the_inks_of_paper(
    make_study: Callable[..., Path], visit: Callable[[Path], Any]
) -> None:
    driver = visit(make_study("manifold").with_suffix(".html"))
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    try:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        driver.execute_script(INKS)
        driver.execute_cdp_cmd("Page.printToPDF", {})
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    inks = driver.execute_script("return [...window.inks]")
    assert ORANGE["light"] in inks
    assert ORANGE["dark"] not in inks


def test_points_of_the_plane_stay_and_those_of_space_are_seen_from_a_corner() -> None:
    plane = np.array([[1.0, 2.0, np.nan]])
    assert flat(plane).tolist() == [[1, 2]]
    above = flat(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    assert above[1, 1] > above[0, 1]
    assert above[1, 0] == above[0, 0]
