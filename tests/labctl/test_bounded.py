"""Every call of a role goes through, and every call is bounded."""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from typing_extensions import override

from labctl import bounded, devices, lane
from labctl.errors import DeviceError, DeviceTimeoutError

ROLES = {
    "slm": devices.SLM,
    "camera": devices.Camera,
    "meter": devices.Meter,
    "shutter": devices.Shutter,
    "attenuator": devices.Attenuator,
}
ARGUMENTS: dict[str, tuple[tuple[object, ...], dict[str, object]]] = {
    "write": ((np.zeros((2, 3), np.uint8),), {}),
    "configure": ((), {"exposure_s": 0.01, "gain_db": 1.0, "region": (0, 0, 1, 2)}),
    "arm": ((4,), {}),
    "arm_for_edges": ((4, devices.Edge("Line1", is_rising=True, delay_s=0.1)), {}),
    "frame": ((0.5,), {}),
    "wait_exposed": ((0.5,), {}),
    "set_open": ((True,), {}),
    "set_transmission": ((0.5,), {}),
}
LIFE = {"open", "close", "name"}


class Told:
    """A driver that says what it was asked; a property is a call as well."""

    def __init__(self, role: type, gate: threading.Event) -> None:
        self.asked: list[object] = []
        self.hangs_in, self.gate = "", gate
        self._role = role

    name = "thing"

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever is asked for
        if isinstance(inspect.getattr_static(self._role, name), property):
            return self._answer(name)
        return lambda *args, **kwargs: self._answer(name, args, kwargs)

    def _answer(self, name: str, *how: object) -> object:
        if name == self.hangs_in:
            self.gate.wait()
        self.asked.append((name, *how))
        return ("answer", name)


Make = Callable[[str], tuple[Any, Told]]


@pytest.fixture
def make() -> Iterator[Make]:
    gate = threading.Event()

    def build(role: str) -> tuple[Any, Told]:
        told = Told(ROLES[role], gate)
        return bounded.all_of({role: told, "world": "left out"}, 0.05)[role], told

    yield build
    gate.set()


def members(role: str) -> list[str]:
    return sorted(getattr(ROLES[role], "__abstractmethods__", set()) - LIFE)


CALLS = [(role, name) for role in ROLES for name in members(role)]
# What a driver may leave to its role.
CALLS += [
    ("camera", name)
    for name in (
        "time_error_s",
        "tells_exposure_end",
        "wait_exposed",
        "edge_lines",
        "edge_delay_limits_s",
        "arm_for_edges",
    )
]
CALLS.append(("slm", "gives_edges"))


def ask(device: object, role: str, name: str) -> object:
    found = getattr(device, name)
    if isinstance(inspect.getattr_static(ROLES[role], name), property):
        return found
    args, kwargs = ARGUMENTS.get(name, ((), {}))
    return found(*args, **kwargs)


@pytest.mark.parametrize(("role", "name"), CALLS)
def test_a_call_reaches_its_driver_as_it_was_made(
    make: Make, role: str, name: str
) -> None:
    device, told = make(role)
    device.open()
    assert ROLES[role] in type(device).__mro__
    answer = ask(device, role, name)
    args, kwargs = ARGUMENTS.get(name, ((), {}))
    static = inspect.getattr_static(ROLES[role], name)
    made = (name,) if isinstance(static, property) else (name, args, kwargs)
    assert told.asked[-1] == made
    returns_nothing = "-> None" in str(
        inspect.signature(getattr(static, "fget", static))
    )
    assert answer == (None if returns_nothing else ("answer", name))
    device.close()
    assert [each[0] for each in told.asked] == ["open", name, "close"]  # type: ignore[index]  # tuples


class Silent(Told):
    """A panel that cannot be asked what it shows."""

    check_shown = devices.SLM.check_shown


@pytest.mark.parametrize(("kind", "asked"), [(Told, ["check_shown"]), (Silent, [])])
def test_only_a_panel_that_can_tell_is_asked_what_it_shows(
    monkeypatch: pytest.MonkeyPatch, kind: type[Told], asked: list[str]
) -> None:
    gate = threading.Event()
    told = kind(devices.SLM, gate)
    panel = bounded.all_of({"slm": told}, 0.05)["slm"]
    panel.open()
    calls, call = list[str](), lane.Lane.call

    def told_too(thread: lane.Lane, action: str, *how: Any) -> object:  # noqa: ANN401 - handed on
        calls.append(action)
        return call(thread, action, *how)

    monkeypatch.setattr(lane.Lane, "call", told_too)
    panel.check_shown()
    assert calls == asked
    told.hangs_in = "check_shown"
    with pytest.raises(DeviceTimeoutError) if asked else nullcontext():
        panel.check_shown()
    gate.set()
    panel.close()


@pytest.mark.parametrize(("role", "name"), CALLS)
def test_a_call_that_hangs_fails_its_device(make: Make, role: str, name: str) -> None:
    device, told = make(role)
    device.open()
    told.hangs_in = name
    with pytest.raises(DeviceTimeoutError, match=r"thing: .*no answer within"):
        ask(device, role, name)
    with pytest.raises(DeviceTimeoutError):
        device.settings()
    told.gate.set()
    device.close()
    device.close()
    assert told.asked[-1][0] == "close"  # type: ignore[index]  # a tuple


@pytest.mark.parametrize("role", ROLES)
def test_opening_and_closing_are_bounded(
    make: Make, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "OPEN_S", 0.1)
    monkeypatch.setattr(lane, "LINGER_S", 0.05)
    device, told = make(role)
    told.hangs_in = "open"
    with pytest.raises(DeviceTimeoutError, match=r"open: no answer within 0\.1 s"):
        device.open()
    with pytest.raises(DeviceTimeoutError, match="close: still busy with open"):
        device.close()


def test_nothing_is_bounded_before_anything_is_open(make: Make) -> None:
    before = threading.active_count()
    device, told = make("camera")
    assert device.shape == ("answer", "shape")
    assert device.name == "thing"
    assert device.driver is told
    device.close()
    assert threading.active_count() == before


def test_times_of_a_driver_that_does_not_say_hold_as_they_are(make: Make) -> None:
    device, told = make("camera")

    class Plain:
        """A driver that inherits nothing."""

        name, open, close = "thing", told.open, told.close

    device = bounded.BoundedCamera(Plain(), 0.5)  # type: ignore[arg-type]  # no camera
    device.open()
    assert device.time_error_s == 0
    assert device.tells_exposure_end is False
    assert device.edge_lines == ()
    device.close()
    panel = bounded.BoundedSLM(Plain(), 0.5)  # type: ignore[arg-type]  # no panel
    panel.open()
    assert panel.gives_edges is False
    panel.close()


def test_a_frame_may_take_its_own_time_on_top(make: Make) -> None:
    device, told = make("camera")
    device.open()
    told.hangs_in = "frame"
    with pytest.raises(DeviceTimeoutError, match=r"frame: no answer within 0\.15 s"):
        device.frame(0.1)


class Player(devices.Sequence):
    """Plays for ever, or refuses."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate

    @property
    @override
    def longest(self) -> int:
        return 7

    @override
    def play(self, levels: devices.Levels, *, settle_s: float) -> devices.Played:
        if settle_s:
            self.gate.wait()
        raise DeviceError("sequence", "play", f"{len(levels)} patterns")


def test_a_sequence_is_bounded_by_its_patterns() -> None:
    gate = threading.Event()
    sequence = bounded.BoundedSequence(Player(gate), 0.05)
    levels = np.zeros((3, 2, 2), np.uint8)
    assert sequence.longest == 7
    with pytest.raises(DeviceError, match="3 patterns"):
        sequence.play(levels, settle_s=0.0)
    with pytest.raises(DeviceTimeoutError, match=r"play: no answer within 0\.35 s"):
        sequence.play(levels, settle_s=0.1)
    gate.set()
    sequence.end()
    sequence.end()
