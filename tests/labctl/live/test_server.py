"""The page: for who has its address, in a browser that others wrote."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urlsplit

import numpy as np
import pytest

from labctl.errors import InputError
from labctl.live.server import serve

if TYPE_CHECKING:
    from labctl.live.session import Session


class Hand(Protocol):
    """What ``conftest.py`` gives."""

    session: Any
    address: str
    errors: list[Exception]

    def leave(self) -> None: ...


Hold = Callable[..., Hand]


def status(address: str, data: bytes | None = None, **headers: str) -> int:
    """Ask for something over loopback; return the status alone."""
    request = urllib.request.Request(address, data, headers)  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_only_who_has_the_address_gets_an_answer(hold: Hold) -> None:
    hand = hold()
    address = hand.address
    assert urlsplit(address).hostname == "127.0.0.1"
    root = address[: -len(urlsplit(address).path)]
    assert status(address) == 200
    assert status(f"{address}facts") == 200
    wrong = address[:-2] + ("A" if address[-2] != "A" else "B") + "/"
    lit = b'{"do": "light", "power_mw": 1}'
    for place in (root, f"{root}/", f"{root}/facts", wrong, f"{wrong}facts"):
        assert status(place) == 404
    assert status(f"{wrong}do", lit) == 404
    assert status(address, Host="evil.example") == 404
    assert status(f"{address}do", lit, Host="evil.example") == 404
    assert status(f"{address}../facts") == 404
    assert status(f"{address}do", b'{"do": "light", "power_mw": 99}') == 409
    with (
        pytest.raises(InputError, match="expected one that is free"),
        serve(hand.session, int(urlsplit(address).port or 0)),
    ):
        pass


class Ended:
    """A session that a limit has ended."""

    is_over, why = True, "camera: saturated_px=3."

    def look(self, _: int) -> bytes:
        return b""


def test_the_page_is_told_why_it_ended() -> None:
    with (
        serve(cast("Session", Ended())) as served,
        pytest.raises(urllib.error.HTTPError) as caught,
    ):
        urllib.request.urlopen(f"{served.address}frame", timeout=10)  # noqa: S310
    with caught.value as answer:
        assert answer.code == 410
        assert json.load(answer) == {"why": "camera: saturated_px=3."}


RED = """
const c = document.getElementById('frame');
const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
let n = 0;
for (let i = 0; i < d.length; i += 4) n += d[i] === 230 && d[i + 1] === 40;
return n;
"""


class Page:
    """The page in a browser, and what a person does with it.

    Parameters
    ----------
    hand
        The session behind it.
    browser
        A Chromium.
    need_module
        Imports selenium's parts.
    """

    def __init__(
        self,
        hand: Hand,
        browser: Any,  # noqa: ANN401 - selenium is untyped here
        need_module: Callable[..., ModuleType],
    ) -> None:
        self.hand, self._browser = hand, browser
        ui = need_module("selenium.webdriver.support.ui")
        self.keys = need_module("selenium.webdriver.common.keys").Keys
        self._wait = ui.WebDriverWait(browser, 20)
        for log in ("performance", "browser"):
            browser.get_log(log)
        browser.get(hand.address)

    def at(self, name: str) -> Any:  # noqa: ANN401 - selenium
        return self._browser.find_element("id", name)

    def says(self, name: str, words: str) -> None:
        told = f"{words!r} in {name}"
        self._wait.until(lambda _: words in self.at(name).text, told)

    def until(self, is_so: Callable[[], bool]) -> None:
        self._wait.until(lambda _: is_so())

    def type_in(self, name: str, text: str) -> None:
        self.at(name).clear()
        self.at(name).send_keys(text, self.keys.TAB)

    def choose(self, pattern: str) -> None:
        way = f"[value={pattern}] + span"
        self._browser.find_element("css selector", way).click()

    def escape(self) -> None:
        self._browser.find_element("tag name", "body").send_keys(self.keys.ESCAPE)

    def script(self, text: str) -> Any:  # noqa: ANN401 - JSON
        return self._browser.execute_script(text)

    def asked(self) -> set[str]:
        """Addresses that the page asked for anything."""
        rows = self._browser.get_log("performance")
        events = [json.loads(row["message"])["message"] for row in rows]
        return {
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        }

    def complaints(self) -> list[str]:
        """What the browser's console holds, beside answers that were refusals."""
        rows = [row["message"] for row in self._browser.get_log("browser")]
        return [row for row in rows if " 409 " not in row and " 410 " not in row]


@pytest.mark.peer
@pytest.mark.slow
def test_a_person_aligns_a_bench_with_the_page(
    hold: Hold,
    browser: Any,  # noqa: ANN401 - selenium is untyped here
    need_module: Callable[..., ModuleType],
    tmp_path: Path,
) -> None:
    page = Page(hold(), browser, need_module)
    page.says("lamp", "dark")
    page.says("simulated", "SIMULATED")
    page.says("told", "frame")
    page.type_in("power", "99")
    page.at("light").click()
    page.says("error", "power_mw=99.0, expected 0 to 8.0 (bench file)")
    page.type_in("power", "8")
    page.at("light").click()
    page.says("lamp", "lit, ")
    page.until(lambda: not page.at("error").is_displayed())
    page.until(lambda: int(page.at("most").text) > 1000)
    page.type_in("exposure", "20")
    page.says("warning", "saturated pixels. Lower the power or the exposure.")
    assert page.script(RED) > 0
    page.choose("grating")
    page.says("shown", "grating, 8 px at 0°")
    np.save(tmp_path / "p.npy", np.arange(32 * 32).reshape(32, 32) % 256)
    page.choose("file")
    page.at("file").send_keys(str(tmp_path / "p.npy"))
    page.says("shown", "file p.npy")
    page.escape()
    page.says("lamp", "dark")
    assert page.complaints() == []
    page.at("leave").click()
    page.says("lamp", "closed")
    page.hand.leave()
    assert page.hand.errors == []
    elsewhere = {url for url in page.asked() if not url.startswith(page.hand.address)}
    assert elsewhere <= {"data:,"}
