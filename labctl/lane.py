"""A thread of its own for each device, so that a call that hangs holds up nobody.

::

    run's thread              lane of the camera (a daemon thread)
    call(frame)  --job-->     camera.frame()  -> the vendor's library
                 <--done--    the job holds its own answer, or its error
    patience is over          the job is given up, the device is failed:
                              what it answers later is an answer that nobody reads

A job carries its own answer, so a late one can never be taken for that of the next
question. All calls of a device come from one thread, as some vendors' libraries want.
Patience is counted in real time on every bench, and only while this process runs: a
run that was frozen meanwhile blames no device.
"""

import math
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar, final

from labctl.errors import DeviceTimeoutError

T = TypeVar("T")
#: How a lane's thread is called; a process that is about to end looks for these.
PREFIX: Final = "labctl-lane-"
# Ctrl-C is seen between two looks on Windows, and a freeze costs one look at most.
LOOK_S: Final = 0.25
# A device that is busy when it is to be closed gets so long to come back.
LINGER_S: Final = 0.5


@final
class Lane:
    """Calls one device, in a thread that only does this.

    The thread starts with the first call and ends with :meth:`end`.

    Parameters
    ----------
    device
        Name of the device in the bench file.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._jobs: queue.SimpleQueue[_Job | None] | None = None
        self._hung: tuple[str, float] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the thread was started and not yet ended."""
        return self._jobs is not None

    @property
    def has_failed(self) -> bool:
        """Whether a call did not return in time: the device is not asked again."""
        return self._hung is not None

    def call(self, action: str, function: Callable[[], T], patience_s: float) -> T:
        """Call the device and wait for it, so long and no longer.

        Parameters
        ----------
        action
            What it is asked to do, for the message.
        function
            The call.
        patience_s
            Longest time to wait, in real time.

        Returns
        -------
        answer
            What the call returned; what it raised is raised here.

        Raises
        ------
        DeviceTimeoutError
            It did not return in time, or the device had failed before: then nothing
            was sent.
        """
        if self._hung is not None:
            raise self._failure()
        if self._jobs is None:
            self._jobs = queue.SimpleQueue()
            name = f"{PREFIX}{self._device}"
            threading.Thread(
                target=_work, args=(self._jobs,), name=name, daemon=True
            ).start()
        job = _Job(function)
        self._jobs.put(job)
        if not job.wait(patience_s):
            self._hung = (action, patience_s)
            raise self._failure()
        answer: T = job.answer()
        return answer

    def close(self, function: Callable[[], None], patience_s: float) -> None:
        """Close the device, also a failed one if it comes back; end the thread.

        Parameters
        ----------
        function
            The device's own way to close.
        patience_s
            Longest time to wait.

        Raises
        ------
        DeviceTimeoutError
            It did not return in time, or is still busy with a call that was given
            up: it is left as it is.
        """
        hung, self._hung = self._hung, None
        try:
            self.call("close", function, patience_s if hung is None else LINGER_S)
        except DeviceTimeoutError:
            if hung is None or not self.has_failed:  # it, or its driver, says so
                raise
            action, seconds = hung
            text = (
                f"still busy with {action}, given up after {seconds:g} s: left as it "
                "is. Switch it off by hand."
            )
            raise DeviceTimeoutError(self._device, "close", text) from None
        finally:
            self._hung = hung or self._hung
            self.end()

    def end(self) -> None:
        """Let the thread go, once what it does has returned."""
        if self._jobs is not None:
            self._jobs.put(None)
        self._jobs = None

    def _failure(self) -> DeviceTimeoutError:
        action, seconds = self._hung or ("", math.nan)
        text = (
            f"no answer within {seconds:g} s, expected one. The device is marked "
            "failed and not asked again. Switch it off and on, then run again, or "
            "resume."
        )
        return DeviceTimeoutError(self._device, action, text, seconds=seconds)


def leave(code: int) -> None:
    """End this process at once if a device still hangs in a call; else do nothing.

    An interpreter that ends in order runs what libraries left to be done at the end,
    and that may wait for the very call that hangs.

    Parameters
    ----------
    code
        Exit code.
    """
    for thread in _threads():
        thread.join(LINGER_S)  # of a bench that was closed a moment ago
    if hanging():
        sys.stdout.flush()
        sys.stderr.flush()
        _exit(code)


def hanging() -> list[str]:
    """Name the devices whose lanes have not ended.

    Returns
    -------
    devices
        Empty once every bench is closed and every call has returned.
    """
    return sorted(thread.name.removeprefix(PREFIX) for thread in _threads())


def _threads() -> list[threading.Thread]:
    return [
        thread for thread in threading.enumerate() if thread.name.startswith(PREFIX)
    ]


def _exit(code: int) -> NoReturn:
    os._exit(code)


@final
class _Job:
    """One call, and its own answer."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._answer: Any = None
        self._error: BaseException | None = None
        # A bare lock is the quickest signal there is between two threads.
        self._busy = threading.Lock()
        self._busy.acquire()

    def run(self) -> None:
        try:
            self._answer = self._function()
        except BaseException as err:  # noqa: BLE001 - raised where it was asked for
            self._error = err
        finally:
            self._busy.release()

    def wait(self, patience_s: float) -> bool:
        look_s = min(LOOK_S, patience_s)
        # Looks, not a clock: a process that is stopped and goes on has looked once.
        return any(
            self._busy.acquire(timeout=look_s)
            for _ in range(math.ceil(patience_s / look_s))
        )

    def answer(self) -> Any:  # noqa: ANN401 - of the call
        if self._error is not None:
            raise self._error
        return self._answer


def _work(jobs: "queue.SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        job.run()
        del job  # else the last frame is kept until the next call
