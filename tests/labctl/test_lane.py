"""A call that hangs holds up nobody, and its late answer is nobody's."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from labctl import lane
from labctl.errors import DeviceTimeoutError
from labctl.lane import Lane


@pytest.fixture
def camera() -> Iterator[Lane]:
    made = Lane("webcam")  # no other test has one that hangs
    yield made
    made.end()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a call waits for that hangs; open at the end, so that no thread stays."""
    made = threading.Event()
    yield made
    made.set()


def hang(gate: threading.Event, answer: str = "late") -> Callable[[], str]:
    def call() -> str:
        gate.wait()
        return answer

    return call


def test_answers_and_errors_come_through_from_one_thread(camera: Lane) -> None:
    threads = {camera.call("who", threading.get_ident, 5.0) for _ in range(3)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    with pytest.raises(ZeroDivisionError):
        camera.call("divide", lambda: 1 // 0, 5.0)
    assert camera.call("add", lambda: 2 + 3, 5.0) == 5


def test_a_call_that_hangs_is_given_up_and_the_device_not_asked_again(
    camera: Lane, gate: threading.Event
) -> None:
    with pytest.raises(
        DeviceTimeoutError, match=r"webcam: frame: no answer within 0\.05 s"
    ) as caught:
        camera.call("frame", hang(gate), 0.05)
    assert (caught.value.device, caught.value.action) == ("webcam", "frame")
    assert caught.value.seconds == 0.05
    asked: list[str] = []
    with pytest.raises(DeviceTimeoutError, match="frame: no answer within"):
        camera.call("disarm", lambda: asked.append("disarm"), 5.0)
    assert asked == []


def test_a_late_answer_is_never_that_of_the_next_question(
    camera: Lane, gate: threading.Event
) -> None:
    def interrupted(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupted)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        # Ctrl-C leaves a call on its way, as a vendor's library cannot be stopped.
        with pytest.raises(KeyboardInterrupt):
            camera.call("first", hang(gate, "first"), 30.0)
    finally:
        signal.signal(signal.SIGALRM, old)
    gate.set()
    assert camera.call("second", lambda: "second", 5.0) == "second"


def test_a_failed_device_that_comes_back_is_closed_in_its_own_thread(
    camera: Lane, gate: threading.Event
) -> None:
    with pytest.raises(DeviceTimeoutError):
        camera.call("frame", hang(gate), 0.05)
    gate.set()
    closed: list[str] = []
    camera.close(lambda: closed.append(threading.current_thread().name), 5.0)
    assert closed == ["labctl-lane-webcam"]
    with pytest.raises(DeviceTimeoutError, match="frame: no answer"):
        camera.call("frame", hang(gate), 5.0)


def test_a_device_that_stays_away_is_left_and_told_of(
    camera: Lane, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LINGER_S", 0.05)
    with pytest.raises(DeviceTimeoutError):
        camera.call("frame", hang(gate), 0.05)
    with pytest.raises(
        DeviceTimeoutError, match=r"webcam: close: still busy with frame.*by hand"
    ):
        camera.close(lambda: None, 5.0)
    assert "webcam" in lane.hanging()


def test_what_closing_raises_after_a_hang_is_told_as_it_is(
    camera: Lane, gate: threading.Event
) -> None:
    with pytest.raises(DeviceTimeoutError):
        camera.call("frame", hang(gate), 0.05)
    gate.set()

    def close() -> None:
        raise DeviceTimeoutError("webcam", "close", "the wire is silent.")

    with pytest.raises(DeviceTimeoutError, match="the wire is silent"):
        camera.close(close, 5.0)


def test_the_thread_ends_with_the_device(camera: Lane) -> None:
    camera.call("open", lambda: None, 5.0)
    camera.close(lambda: None, 5.0)
    due = time.monotonic() + 5.0
    while "webcam" in lane.hanging():
        assert time.monotonic() < due, "the thread stays"
    assert not camera.is_running


FROZEN = """
import threading
from labctl.lane import Lane

camera = Lane("camera")
gate = threading.Event()
threading.Timer(0.4, gate.set).start()
print("asking", flush=True)
print(camera.call("frame", lambda: gate.wait() and "in time", 1.0))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_process_that_was_frozen_blames_no_device() -> None:
    run = subprocess.Popen(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", FROZEN], stdout=subprocess.PIPE, text=True
    )
    with run:
        assert run.stdout is not None
        assert run.stdout.readline() == "asking\n"
        run.send_signal(signal.SIGSTOP)
        # Its clock goes on meanwhile: twice its patience.
        os.waitid(os.P_PID, run.pid, os.WSTOPPED)
        threading.Event().wait(2.0)
        run.send_signal(signal.SIGCONT)
        assert run.stdout.read() == "in time\n"
    assert run.returncode == 0


LEAVING = """
import atexit, sys, threading
from labctl import lane
from labctl.errors import DeviceTimeoutError

forever = threading.Event()
atexit.register(forever.wait)  # a library that waits at the end
try:
    lane.Lane("camera").call("frame", forever.wait, 0.1)
except DeviceTimeoutError as error:
    print(error.device, end="")
    lane.leave(3)
"""


def test_a_thread_that_hangs_keeps_no_process_alive() -> None:
    done = subprocess.run(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", LEAVING],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "camera")


def test_leaving_does_nothing_where_nobody_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(lane, "_exit", codes.append)
    monkeypatch.setattr(lane, "hanging", list)
    lane.leave(3)
    assert codes == []
    monkeypatch.setattr(lane, "hanging", lambda: ["camera"])
    lane.leave(3)
    assert codes == [3]
