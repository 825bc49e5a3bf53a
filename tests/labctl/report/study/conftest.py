"""Records of studies, and a browser that opens their pages."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labctl.report import page
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options

PROTOCOLS = Path(__file__).parents[4] / "protocols" / "studies"
Make = Callable[..., Path]
Visit = Callable[[Path], Any]


@pytest.fixture(scope="session")
def make_study(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Run a shipped study, once a name; with ``--set`` changes where wanted."""
    made: dict[str, Path] = {}

    def make(name: str, *changes: str) -> Path:
        if name not in made:
            out = tmp_path_factory.mktemp(name) / "run.h5"
            options = Options(out=out, overrides=changes)
            execute(prepare(str(PROTOCOLS / f"{name}.yaml"), options), Silent())
            page.write(out, out.with_suffix(".html"))
            made[name] = out
        return made[name]

    return make


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:  # noqa: ANN401 - selenium is untyped here
    """Open a page; refuse one that complains or asks for anything beside itself."""

    def go(path: Path) -> Any:  # noqa: ANN401 - selenium is untyped here
        browser.get_log("performance")
        browser.get(path.as_uri())
        assert browser.get_log("browser") == []
        asked = {
            event["params"]["request"]["url"]
            for row in browser.get_log("performance")
            for event in [json.loads(row["message"])["message"]]
            if event["method"] == "Network.requestWillBeSent"
        }
        assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
        return browser

    yield go
    browser.get("about:blank")  # a page that moves would take a core from the rest
