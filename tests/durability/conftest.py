"""A nursery of processes that may hang or crash, and the extent of the tests."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from labctl.recording.reader import Record

# Do an order in a child: its exit code (less than 0: ended by that signal), and
# what it said. With ``kill_after_s`` it is killed so long after it told for the
# ``kill_at``-th time that something is safe; what it said is then the time of that.
Nursery = Callable[..., tuple[int, str]]
CHILD = Path(__file__).with_name("child.py")
LIMIT_S = 600


@pytest.fixture(scope="session")
def soaked() -> bool:
    """Whether the long forms are run."""
    return os.environ.get("LABCTL_SOAK") == "1"


@pytest.fixture(scope="session")
def kills(soaked: bool) -> int:
    """How often ``labctl run`` is killed."""
    return int(os.environ.get("LABCTL_SOAK_KILLS", "100" if soaked else "6"))


@pytest.fixture(scope="session")
def seed() -> int:
    """Of the random moments of kills: other parts of a long form take others."""
    return int(os.environ.get("LABCTL_SOAK_SEED", "4"))


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """One process that imports the recorder once and forks a child for each order."""
    with _nursery(tmp_path_factory) as do:
        yield do


@pytest.fixture(scope="session")
def labctl_nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """One process that imports all of labctl once, and forks commands of it."""
    with _nursery(tmp_path_factory, "labctl") as do:
        yield do


@contextmanager
def _nursery(factory: pytest.TempPathFactory, *words: str) -> Iterator[Nursery]:
    if sys.platform == "win32":
        pytest.skip("forks children and kills them by signals")
    said = factory.mktemp("nursery") / "error.txt"
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, str(CHILD), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        ordered, answers = process.stdin, process.stdout
        assert ordered is not None
        assert answers is not None
        assert answers.readline() == "ready\n"

        def do(
            kill_after_s: float | None = None, kill_at: int = 1, **order: object
        ) -> tuple[int, str]:
            said.write_text("")
            made = {"error": str(said), "limit_s": LIMIT_S, **order}
            ordered.write(json.dumps(made) + "\n")
            ordered.flush()
            child = int(answers.readline().split()[1])
            if kill_after_s is not None and _told(order["told"], kill_at, child):
                time.sleep(kill_after_s)
                said.write_text(str(time.time()))
                os.kill(child, signal.SIGKILL)
            return int(_last(answers)), said.read_text()

        yield do
        ordered.close()


def _last(answers: IO[str]) -> str:
    # Whatever the child prints comes before.
    return next(line for line in answers if line.startswith("ended ")).split()[1]


def _told(name: object, lines: int, child: int) -> bool:
    """Wait until a child said so often that something is safe; False if it ended."""
    told, state = Path(str(name)), Path(f"/proc/{child}/stat")
    for _ in range(LIMIT_S * 500):
        if told.exists() and told.read_bytes().count(b"\n") >= lines:
            return True
        if not _lives(state):
            return False
        time.sleep(0.002)
    return False


def _lives(state: Path) -> bool:
    """Whether a process runs: who ended stays, marked so, until its parent looked."""
    try:
        return ") Z" not in state.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="session")
def content() -> Callable[[Path], dict[str, Any]]:
    """Everything in a record that the wall clock has no part in."""

    def read(path: Path) -> dict[str, Any]:
        with Record.open(path) as record:
            found: dict[str, Any] = {
                f"{table}/{name}": hashlib.sha256(
                    record.column(table, name).data
                ).digest()
                for table, names in record.tables.items()
                for name in names
                if record.column(table, name).dtype.kind != "U"
            }
            found["ledger"] = record.ledger()
            found["checkpoints"] = [entry.crc32 for entry in record.checkpoints()]
            result = record.result.items()
            found["result"] = {k: v for k, v in result if not k.endswith("_s")}
            found["status"] = record.status
        return found

    return read
