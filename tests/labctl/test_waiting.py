"""A frame is waited for as long as was said, with signs of life in between."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from labctl import waiting
from labctl.errors import DeviceTimeoutError, FrameError, SafetyError

FRAME = SimpleNamespace(number=1)


@dataclass
class Slow:
    """A camera whose frame is there after so many seconds, or whose wait fails."""

    after_s: float
    error: Exception | None = None
    now_s: float = 0.0
    turns_s: list[float] = field(default_factory=list)
    beats_s: list[float] = field(default_factory=list)

    def frame(self, timeout_s: float) -> Any:  # noqa: ANN401 - a stand-in
        self.turns_s.append(timeout_s)
        if self.after_s <= self.now_s + timeout_s:
            self.now_s = max(self.now_s, self.after_s)
            if self.error is not None:
                raise self.error
            return FRAME
        self.now_s += timeout_s
        where, text = "camera", f"no frame within {timeout_s} s"
        raise FrameError(where, "timeout", text)

    def taken(self, timeout_s: float, turn_s: float = 0.5) -> object:
        camera: Any = self
        return waiting.frame(camera, timeout_s, turn_s=turn_s, beat=self.beat)

    def beat(self) -> None:
        self.beats_s.append(self.now_s)


@pytest.mark.parametrize(
    ("after_s", "beats_s"), [(0.2, []), (0.7, [0.5]), (1.9, [0.5, 1.0, 1.5])]
)
def test_no_turn_is_longer_than_it_may_be(after_s: float, beats_s: list[float]) -> None:
    camera = Slow(after_s)
    assert camera.taken(2.0) is FRAME
    assert camera.beats_s == beats_s
    assert max(camera.turns_s) == 0.5
    assert camera.now_s == after_s


def test_the_end_is_when_it_was_said() -> None:
    camera = Slow(9.0)
    with pytest.raises(FrameError, match=r"no frame within 1\.25 s") as caught:
        camera.taken(1.25)
    assert (caught.value.kind, caught.value.device) == ("timeout", "camera")
    assert camera.turns_s == [0.5, 0.5, 0.25]
    assert camera.now_s == 1.25


def test_one_turn_is_one_call_and_its_error_that_of_the_camera() -> None:
    camera = Slow(9.0)
    with pytest.raises(FrameError, match=r"no frame within 0\.4 s"):
        camera.taken(0.4)
    assert (camera.turns_s, camera.beats_s) == ([0.4], [])


@pytest.mark.parametrize(
    "error",
    [
        FrameError("camera", "gap", "one is missing"),
        FrameError("camera", "removed", "no longer there"),
        DeviceTimeoutError("camera", "frame", "no answer"),
    ],
)
def test_what_the_camera_says_of_its_frame_is_said_at_once(error: Exception) -> None:
    camera = Slow(0.7, error)
    with pytest.raises(type(error)) as caught:
        camera.taken(60.0)
    assert caught.value is error
    assert camera.now_s == 0.7


def test_a_run_that_was_stopped_meanwhile_waits_no_longer() -> None:
    camera: Any = Slow(9.0)

    def beat() -> None:
        text = "the guard made it dark"
        raise SafetyError(text)

    with pytest.raises(SafetyError, match="the guard"):
        waiting.frame(camera, 8.0, turn_s=0.5, beat=beat)
    assert camera.turns_s == [0.5]
