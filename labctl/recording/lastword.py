"""The last word of a record is said whole, whatever key is pressed meanwhile."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


@contextmanager
def undisturbed() -> Iterator[list[int]]:
    """Put off the signals that end a run, in the thread that gets them.

    A call into HDF5 is not cut short by a signal in any case: its handler runs once
    the call has returned. So nothing is waited for longer.

    Yields
    ------
    came
        Numbers of the signals that came meanwhile.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, frame: object) -> None:
        del frame
        came.append(number)

    before: dict[int, Any] = {}
    try:
        for name in _ENDING:
            if hasattr(signal, name):
                number = getattr(signal, name)
                before[number] = signal.signal(number, note)
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
