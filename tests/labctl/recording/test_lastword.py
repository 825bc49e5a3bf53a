import signal
import threading

import pytest

from labctl.recording.lastword import undisturbed


def test_signals_are_put_off_and_told() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with undisturbed() as came:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert came == [signal.SIGINT, signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_handlers_come_back_after_an_error() -> None:
    handler = signal.getsignal(signal.SIGTERM)

    def fail() -> None:
        with undisturbed():
            text = "full"
            raise OSError(text)

    with pytest.raises(OSError, match="full"):
        fail()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_another_thread_leaves_the_handlers_alone() -> None:
    seen: list[object] = []

    def look() -> None:
        with undisturbed() as came:
            seen.extend([signal.getsignal(signal.SIGINT), came])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT), []]
