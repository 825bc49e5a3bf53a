"""The explorer draws what the training computes, and answers pointer and keys."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from numpy.typing import NDArray

from labctl.recording.reader import Record
from labctl.report import content
from labctl.studies.loss_fields import Field
from labctl.training import loss as losses

Make = Callable[..., Path]
Visit = Callable[[Path], Any]
NAMES = (*losses.LOSSES, "gen")
PLACES = (-1.7, -0.4, 0.3, 1.1)
TARGETS = ((0.6, -0.5), (-1.2, 0.9), (0.05, 0.02))
ASK = """
const [name, points, a] = arguments;
return points.map(([x, y]) => {
  const f = window.lossField(name, x, y, a);
  return [f.value, ...f.gx, ...f.gy];
});
"""


@pytest.fixture(scope="module")
def html(make_study: Make) -> Path:
    return make_study("loss-fields").with_suffix(".html")


def test_the_page_has_explorer_figures_and_claims(make_study: Make) -> None:
    with Record.open(make_study("loss-fields")) as record:
        page = content.read(record)
    found = {section.name: section for section in page.sections}
    assert found["fields"].explorer is not None
    drawn = {drawing.name for drawing in found["fields"].drawings}
    assert drawn == {"fields-x", "fields-y", "descents", "reached", "late"}
    assert found["claims"].table is not None
    assert "calibrations" not in found


def test_the_policy_allows_the_script_of_the_explorer_and_no_other(
    html: Path,
) -> None:
    text = html.read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert text.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in text
    assert "unsafe" not in text.partition("<body>")[0]
    assert not re.search(r"\son[a-z]+=", text.replace(script, ""))


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_the_explorer_are_those_of_the_training(
    html: Path, visit: Visit, name: str
) -> None:
    xs = [(a, b) for a in PLACES for b in PLACES]
    pairs = [(x, y) for y in TARGETS for x in xs]
    for a in (0.0, 0.7, 2.0) if name == "gen" else (1.0,):
        drawn = np.array(visit(html).execute_script(ASK, name, pairs, a))
        x, y = torch.tensor(pairs, dtype=torch.float64).unbind(dim=1)
        gx, gy, value = Field(losses.named(name, a))(x, y)
        known = torch.cat([value[:, None], gx, gy], dim=1).numpy()
        size = np.abs(known).max(axis=1, keepdims=True)
        assert np.abs(drawn - known).max() < 1e-5 * max(1.0, size.max())
        assert (np.abs(drawn - known) <= 1e-5 * np.maximum(size, 1e-3)).all()


def picture(driver: Any) -> NDArray[np.float32]:  # noqa: ANN401 - selenium
    canvas = driver.find_element("id", "loss-canvas")
    return np.asarray(imread(io.BytesIO(canvas.screenshot_as_png)))


def wait(driver: Any, words: str) -> None:  # noqa: ANN401 - selenium
    ui = pytest.importorskip("selenium.webdriver.support.ui")
    told = driver.find_element("id", "loss-told")
    ui.WebDriverWait(driver, 20).until(lambda _: words in told.text)


def changed(driver: Any, before: NDArray[np.float32]) -> None:  # noqa: ANN401
    ui = pytest.importorskip("selenium.webdriver.support.ui")
    ui.WebDriverWait(driver, 20).until(
        lambda _: np.abs(picture(driver) - before).mean() > 1e-3
    )


@pytest.mark.peer
@pytest.mark.slow
def test_pointer_keys_and_controls_change_the_field(
    html: Path, visit: Visit, need_module: Callable[..., ModuleType]
) -> None:
    chains = need_module("selenium.webdriver.common.action_chains")
    keys = need_module("selenium.webdriver.common.keys").Keys
    driver = visit(html)
    canvas = driver.find_element("id", "loss-canvas")
    wait(driver, "cos+mse: y = (")
    first = picture(driver)
    assert len(np.unique(first.reshape(-1, first.shape[2]), axis=0)) > 500
    move = chains.ActionChains(driver)
    move.move_to_element(canvas).move_by_offset(-100, -100).perform()
    wait(driver, "y = (-0.")
    changed(driver, first)
    canvas.send_keys(keys.HOME)
    start = json.loads(
        driver.find_element("id", "loss-explorer").get_attribute("data-start")
    )
    x, y = start["target"]
    wait(driver, f"y = ({x:.2f}, {y:.2f})")
    canvas.send_keys(keys.ARROW_RIGHT)
    wait(driver, f"y = ({x + 0.04 * start['reach']:.2f}, {y:.2f})")
    for display in ("lines", "descents", "particles"):
        before = picture(driver)
        driver.find_element(
            "css selector", f"#loss-display option[value={display}]"
        ).click()
        changed(driver, before)
    driver.find_element("css selector", "#loss-name option[value=gen]").click()
    driver.find_element("id", "loss-a").send_keys(keys.ARROW_LEFT)
    wait(driver, "gen(0.95)")
    assert driver.get_log("browser") == []
