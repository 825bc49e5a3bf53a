"""The guard, in a process that was forked: how it begins is in the global GIVEN.

These are standard input, output and error, the environment and the folder of who asked.
Where a bench allows the longest silence, as simulated ones do, it takes a run for one
that hangs only after a minute: a computer that many tests share may keep one of them
waiting for seconds. Tests that are about silence allow less, or their guards begin as
for everybody.
"""

import os
import sys

from labctl import guard

LONGER_S = 60.0


AS_FOR_EVERYBODY = guard._Guard._is_silent


def is_silent(it: guard._Guard, now: float) -> bool:
    is_longest = it._patience.heartbeat_s == guard.BEAT_LIMIT_S
    return AS_FOR_EVERYBODY(it, now - LONGER_S if is_longest else now)


if __name__ == "__main__":
    ends, environment, folder = globals()["GIVEN"]
    # As a process that was started: a session and group of its own.
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    for number, end in enumerate(ends):
        os.dup2(end.fileno(), number)
        end.close()
    guard._Guard._is_silent = is_silent  # type: ignore[method-assign, assignment]
    guard._main()
