"""The guard, in a process that was forked: how it begins is in the global GIVEN.

These are standard input, output and error, the environment and the folder of who asked.
"""

import os
import sys

from labctl import guard

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
    guard._main()
