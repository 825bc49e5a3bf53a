"""Proved on a display server of two monitors, read back by a client of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import override

from labctl.bench import RealClock
from labctl.devices import SLM, Clock
from labctl.errors import DeviceError, OutOfRangeError

pytestmark = pytest.mark.peer
SHAPE = (600, 800)
OPTIONS: dict[str, Any] = {"shape": SHAPE, "pitch_um": 8, "settle_s": 0.1}


class Monitors(Protocol):
    """The display of ``tests/conftest.py``."""

    corner: tuple[int, int]

    def set(self, *words: str) -> None: ...


@pytest.fixture
def screen(need_module: Callable[[str], ModuleType], desktop: Monitors) -> ModuleType:
    del desktop
    for peer in ("glfw", "moderngl", "mss"):
        need_module(peer)
    return need_module("drivers.screen")


@pytest.fixture
def slm(screen: ModuleType) -> Iterator[SLM]:
    with screen.ScreenSLM(**OPTIONS, clock=RealClock()) as made:
        yield made


@pytest.fixture
def seen(
    screen: ModuleType,
    need_module: Callable[[str], ModuleType],
    desktop: Monitors,
) -> Iterator[Callable[[], NDArray[np.uint8]]]:
    """What another client of the display reads off the second monitor."""
    del screen
    left, top = desktop.corner
    place = {"left": left, "top": top, "width": SHAPE[1], "height": SHAPE[0]}
    with need_module("mss").MSS() as client:
        yield lambda: np.asarray(client.grab(place))[..., :3]


def patterns() -> dict[str, NDArray[np.uint8]]:
    rows, columns = np.indices(SHAPE)
    return {
        "random": np.random.default_rng(1).integers(0, 256, SHAPE).astype(np.uint8),
        "ramp": (columns % 256).astype(np.uint8),
        "rows": (rows % 251).astype(np.uint8),
        "corner": ((rows < 2) & (columns < 3)).astype(np.uint8) * 255,
    }


@pytest.mark.parametrize("name", list(patterns()))
def test_every_pixel_of_every_colour_is_the_level(
    slm: SLM,
    seen: Callable[[], NDArray[np.uint8]],
    name: str,
) -> None:
    levels = patterns()[name]
    slm.write(levels)
    wrong = int((seen() != levels[..., np.newaxis]).sum())
    assert wrong == 0


@pytest.mark.parametrize(
    ("channels", "bit_depth"),
    [("hl-", 16), ("-lh", 10), ("lhh", 12), ("l--", 8), ("-l-", 8)],
)
def test_each_colour_carries_its_byte_of_the_level(
    screen: ModuleType,
    seen: Callable[[], NDArray[np.uint8]],
    channels: str,
    bit_depth: int,
) -> None:
    kind: type[Any] = np.uint16 if bit_depth > 8 else np.uint8
    levels: NDArray[Any] = (
        np.random.default_rng(1).integers(0, 2**bit_depth, SHAPE).astype(kind)
    )
    bytes_of = {"-": 0 * levels, "l": levels & kind(255), "h": levels >> 8}
    options = OPTIONS | {"channels": channels, "bit_depth": bit_depth}
    with screen.ScreenSLM(**options, clock=RealClock()) as slm:
        assert not seen().any()
        slm.write(levels)
        blue_green_red = seen()
        with pytest.raises(OutOfRangeError):
            slm.write(levels.astype(np.uint16 if kind is np.uint8 else np.uint8))
    for channel, colour in zip(channels, (2, 1, 0), strict=True):
        wrong = int((blue_green_red[..., colour] != bytes_of[channel]).sum())
        assert (channel, wrong) == (channel, 0)


def test_is_flat_after_open(slm: SLM, seen: Callable[[], NDArray[np.uint8]]) -> None:
    assert slm.identity().serial == "DUMMY1@640,0"
    assert not seen().any()


OPEN = """
from drivers.screen import ScreenSLM
from labctl.bench import RealClock
from labctl.errors import DeviceError
slm = ScreenSLM(shape=(600, 800), pitch_um=8, settle_s=0.1, clock=RealClock())
try:
    slm.open()
except DeviceError as err:
    print(err)
else:
    slm.close()
"""


def test_a_monitor_has_one_owner(
    slm: SLM, seen: Callable[[], NDArray[np.uint8]]
) -> None:
    def elsewhere() -> str:
        done = subprocess.run(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", OPEN], capture_output=True, text=True, check=True
        )
        return done.stdout

    slm.write(patterns()["ramp"])
    said = elsewhere()
    assert said.startswith("slm: open: monitor DUMMY1 at [640, 0] of display ")
    assert f"is held by process {os.getpid()} on " in said
    assert (seen() == patterns()["ramp"][..., np.newaxis]).all()
    slm.close()
    assert not elsewhere()


def test_is_flat_before_its_window_goes(
    screen: ModuleType,
    seen: Callable[[], NDArray[np.uint8]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slm = screen.ScreenSLM(**OPTIONS, clock=RealClock())
    slm.open()
    slm.write(patterns()["ramp"])
    assert seen().any()
    last: list[bool] = []
    let_go = slm._let_go

    def look_and_let_go() -> None:
        last.append(bool(seen().any()))
        let_go()

    monkeypatch.setattr(slm, "_let_go", look_and_let_go)
    slm.close()
    assert last == [False]


def test_no_cursor_lies_on_the_pattern(screen: ModuleType, slm: Any) -> None:  # noqa: ANN401
    glfw = screen.glfw
    assert glfw.get_input_mode(slm._window, glfw.CURSOR) == glfw.CURSOR_HIDDEN


def test_a_gamma_ramp_is_refused_though_no_screenshot_shows_it(
    screen: ModuleType,
    desktop: Monitors,
) -> None:
    desktop.set("--output", "DUMMY1", "--gamma", "1.5")
    with (
        pytest.raises(DeviceError, match="gamma ramp makes"),
        screen.ScreenSLM(**OPTIONS, clock=RealClock()),
    ):
        pass


def test_a_gamma_ramp_of_mid_run_is_refused_at_the_next_pattern_until_it_is_reset(
    slm: SLM, desktop: Monitors
) -> None:
    slm.write(patterns()["ramp"])
    # A night light: blue is dimmed, red is not.
    desktop.set("--output", "DUMMY1", "--gamma", "1:1:1.3")
    with pytest.raises(DeviceError, match="write: the gamma ramp makes"):
        slm.write(patterns()["ramp"])
    desktop.set("--output", "DUMMY1", "--gamma", "1")
    slm.write(patterns()["ramp"])
    slm.check_shown()


def test_a_scaled_desktop_is_refused(
    screen: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 200 % a pixel of the window is four of the panel, or a part of one."""

    def doubled(window: object) -> tuple[int, int]:
        del window
        return 1600, 1200

    slm = screen.ScreenSLM(**OPTIONS, clock=RealClock())
    match = r"window has \[1200, 1600\] pixels, expected \[600, 800\].*scaling"
    with monkeypatch.context() as scaled:
        scaled.setattr(screen.glfw, "get_framebuffer_size", doubled)
        with pytest.raises(DeviceError, match=match):
            slm.open()
    with slm:  # it was let go of
        slm.check_shown()


def test_a_write_returns_once_the_last_line_is_on_the_panel(
    screen: ModuleType, seen: Callable[[], NDArray[np.uint8]]
) -> None:
    class Scan(Clock):
        """Time passes only where somebody waits, and what is shown then is kept."""

        now_s = 0.0
        shown: NDArray[np.uint8] | None = None

        @override
        def now(self) -> float:
            return self.now_s

        @override
        def sleep(self, seconds: float) -> None:
            self.now_s, self.shown = self.now_s + seconds, seen()

    clock = Scan()
    with screen.ScreenSLM(**OPTIONS, clock=clock) as slm:
        refresh_hz = slm.settings()["refresh_hz"]
        before_s = clock.now_s
        written_s = slm.write(patterns()["ramp"]).written_s
        assert clock.shown is not None
        # One refresh from the first line on.
        assert (clock.shown == patterns()["ramp"][..., np.newaxis]).all()
        assert written_s - before_s >= 1 / refresh_hz
        assert 40 < refresh_hz < 90


def test_a_mode_that_changed_is_noticed_at_the_next_pattern(
    slm: SLM,
    desktop: Monitors,
) -> None:
    slm.write(patterns()["ramp"])
    desktop.set("--output", "DUMMY1", "--mode", "640x480")
    with pytest.raises(DeviceError, match=r"shows \[480, 640\], expected \[600, 800\]"):
        slm.write(patterns()["ramp"])


def test_a_monitor_that_was_switched_off_is_noticed_at_the_next_pattern(
    slm: SLM,
    desktop: Monitors,
) -> None:
    slm.write(patterns()["ramp"])
    desktop.set("--output", "DUMMY1", "--off")
    with pytest.raises(DeviceError, match="DUMMY1 is gone"):
        slm.write(patterns()["ramp"])


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--off",), "check: the monitor DUMMY1 is gone"),
        (("--mode", "640x480"), r"check: .* shows \[480, 640\]"),
        (("--pos", "0x0"), "check: the monitor DUMMY1 is gone"),
        (("--gamma", "1.5"), "check: the gamma ramp makes"),
    ],
)
def test_what_happens_to_the_monitor_after_a_pattern_is_noticed_without_another(
    slm: SLM, desktop: Monitors, words: tuple[str, ...], match: str
) -> None:
    slm.write(patterns()["ramp"])
    slm.check_shown()
    desktop.set("--output", "DUMMY1", *words)
    with pytest.raises(DeviceError, match=match):
        slm.check_shown()


def test_a_monitor_that_came_back_shows_nothing_until_it_is_opened_again(
    slm: SLM, desktop: Monitors
) -> None:
    slm.write(patterns()["ramp"])
    desktop.set("--output", "DUMMY1", "--off")
    with pytest.raises(DeviceError, match="DUMMY1 is gone"):
        slm.check_shown()
    desktop.set("--output", "DUMMY1", "--mode", "800x600", "--pos", "640x0")
    for ask in (slm.check_shown, lambda: slm.write(patterns()["ramp"])):
        with pytest.raises(DeviceError, match="DUMMY1 is gone"):
            ask()
    slm.close()
    slm.open()
    slm.write(patterns()["ramp"])
    slm.check_shown()


def test_a_monitor_without_a_mode_is_gone_before_its_event_is_here(
    screen: ModuleType, slm: SLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = screen._described

    def off(monitor: Any) -> object:  # noqa: ANN401 - glfw's
        seen = described(monitor)
        if seen[0] == "DUMMY1":
            raise screen.glfw.GLFWError(b"Failed to query video mode")
        return seen

    slm.write(patterns()["ramp"])
    monkeypatch.setattr(screen, "_described", off)
    with pytest.raises(DeviceError, match="DUMMY1 is gone"):
        slm.write(patterns()["ramp"])


def test_the_monitor_is_chosen_by_name_place_and_mode(
    screen: ModuleType,
    desktop: Monitors,
) -> None:
    def opened(**options: object) -> str:
        with screen.ScreenSLM(**OPTIONS | options, clock=RealClock()) as slm:
            return str(slm.identity().serial)

    assert opened(monitor="DUMMY1") == "DUMMY1@640,0"
    assert opened(shape=(480, 640)) == "DUMMY0@0,0"
    for wrong in ({"monitor": "HOLOEYE"}, {"position": (1, 2)}, {"shape": (600, 801)}):
        with pytest.raises(DeviceError, match="0 of DUMMY0 at"):
            opened(**wrong)
    desktop.set("--output", "DUMMY0", "--mode", "800x600")
    desktop.set("--output", "DUMMY1", "--pos", "800x0")
    with pytest.raises(DeviceError, match="2 of DUMMY0 at"):
        opened()
    assert opened(position=(800, 0)) == "DUMMY1@800,0"


def test_monitors_are_found_with_the_lines_to_paste(screen: ModuleType) -> None:
    assert [each.lines() for each in screen.find()] == [
        'slm: {driver: screen.slm, options: {monitor: "DUMMY0", shape: [480, 640], '
        "position: [0, 0]}}",
        'slm: {driver: screen.slm, options: {monitor: "DUMMY1", shape: [600, 800], '
        "position: [640, 0]}}",
    ]


def test_without_a_display_it_says_so(
    screen: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for call in (screen.find, screen.ScreenSLM(**OPTIONS, clock=RealClock()).open):
        with pytest.raises(DeviceError, match=r"no display \(DISPLAY=''\): .*desktop"):
            call()


@pytest.mark.parametrize(
    "wrong", [{"shape": [600]}, {"pitch_um": 0}, {"settle_s": -1}, {"shape": [0, 5]}]
)
def test_options_that_make_no_sense_are_refused(
    screen: ModuleType, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="expected rows and columns"):
        screen.ScreenSLM(**OPTIONS | wrong, clock=RealClock())


@pytest.mark.parametrize(
    ("channels", "bit_depth"),
    [
        ("lll", 9),
        ("hl-", 8),
        ("hhh", 16),
        ("---", 8),
        ("hl", 16),
        ("rgb", 8),
        ("hl-", 17),
        ("lll", 0),
    ],
)
def test_bits_that_no_colour_carries_are_refused(
    screen: ModuleType, channels: str, bit_depth: int
) -> None:
    options = OPTIONS | {"channels": channels, "bit_depth": bit_depth}
    with pytest.raises(ValueError, match="expected three of -, l, h"):
        screen.ScreenSLM(**options, clock=RealClock())
