"""A nursery of processes that may hang or crash, and the extent of the tests."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Do an order in a child: its exit code (less than 0: ended by that signal), and
# what it said. With ``kill_after_s`` it is killed so long after it first told that
# something is safe.
Nursery = Callable[..., tuple[int, str]]
CHILD = Path(__file__).with_name("child.py")
LIMIT_S = 60


@pytest.fixture(scope="session")
def soaked() -> bool:
    """Whether the long forms are run."""
    return os.environ.get("LABCTL_SOAK") == "1"


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """One process that imports everything once and forks a child for each order."""
    if sys.platform == "win32":
        pytest.skip("forks children and kills them by signals")
    said = tmp_path_factory.mktemp("nursery") / "error.txt"
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, str(CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        ordered, answers = process.stdin, process.stdout
        assert ordered is not None
        assert answers is not None
        assert answers.readline() == "ready\n"

        def do(kill_after_s: float | None = None, **order: object) -> tuple[int, str]:
            said.write_text("")
            words = {"error": str(said), "limit_s": LIMIT_S, **order}
            ordered.write(json.dumps(words) + "\n")
            ordered.flush()
            child = int(answers.readline())
            if kill_after_s is not None:
                _wait_for(Path(str(order["told"])))
                time.sleep(kill_after_s)
                os.kill(child, signal.SIGKILL)
            return int(answers.readline()), said.read_text()

        yield do
        ordered.close()


def _wait_for(told: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not told.exists() or told.stat().st_size == 0:
        assert time.monotonic() < deadline
        time.sleep(0.002)
