"""A record survives a kill at every boundary between two writes of its writer.

The writer runs under a shim that logs each write and each cut of the file. The log
replayed is the file, byte for byte, so that every prefix of it is a file that a kill
could have left. Each of them is read, repaired, continued and read again.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

Nursery = Callable[..., tuple[int, str]]
FOLDER = Path(__file__).parent
HEAD = struct.Struct("@qqq")
PAGE = 4096
ROUNDS = 4  # two commits each and one for the writer's row: nine


@dataclass(frozen=True)
class Change:
    """Bytes written at a place, the file cut to a length, or a promise."""

    kind: str
    place: int
    content: bytes


@dataclass(frozen=True)
class Left:
    """A file that a kill could have left, and what had been promised by then."""

    content: bytes
    acknowledged: dict[str, int] | None
    what: str


def changes(log: Path) -> Iterator[Change]:
    content, at = log.read_bytes(), 0
    while at < len(content):
        kind, place, length = HEAD.unpack_from(content, at)
        at += HEAD.size
        yield Change(chr(kind), place, content[at : at + length])
        at += length


def apply(content: bytearray, change: Change) -> None:
    if change.kind == "T":
        content[:] = content[: change.place].ljust(change.place, b"\0")
        return
    end = change.place + len(change.content)
    content.extend(bytes(max(0, end - len(content))))
    content[change.place : end] = change.content


def left_behind(start: bytes, made: list[Change], *, torn: bool) -> Iterator[Left]:
    """Every file between two changes, or with a change torn at a page."""
    content, acknowledged = bytearray(start), None
    for number, change in enumerate(made):
        if change.kind == "A":
            # The last of several: a writer may tell twice what is safe.
            acknowledged = json.loads(change.content.splitlines()[-1])
            continue
        if torn:
            for size in range(PAGE, len(change.content), PAGE):
                part = bytearray(content)
                apply(part, Change("W", change.place, change.content[:size]))
                yield Left(bytes(part), acknowledged, f"change {number} at {size}")
        apply(content, change)
        if not torn:
            yield Left(bytes(content), acknowledged, f"after change {number}")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != "linux":
        pytest.skip("the shim is preloaded, which is a way of Linux")
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("the shim is compiled by gcc, which is not here")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    words = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(  # noqa: S603 - our own code
        [compiler, *words, "-o", str(library), str(FOLDER / "shim.c"), "-ldl"],
        check=True,
        timeout=60,
    )
    return library


Once = Callable[[str, Callable[[Path], Any]], Any]
Watched = Callable[[Path, int], list[Change]]


@pytest.fixture(scope="module")
def watched(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Write so many rounds into a record under the shim; say what was done to it."""

    def write(path: Path, rounds: int) -> list[Change]:
        log = tmp_path_factory.mktemp("log") / "changes"
        descriptor = os.open(os.devnull, os.O_WRONLY)
        words = (str(path), str(rounds), str(descriptor))
        subprocess.run(  # noqa: S603 - our own code
            [sys.executable, str(FOLDER / "child.py"), *words],
            pass_fds=[descriptor],
            env={
                **os.environ,
                "LD_PRELOAD": str(shim),
                "SHIM_FILE": str(path),
                "SHIM_LOG": str(log),
                "SHIM_ACKNOWLEDGE": str(descriptor),
            },
            check=True,
            timeout=600,  # of a computer that has much else to do
        )
        os.close(descriptor)
        return list(changes(log))

    return write


@dataclass(frozen=True)
class Trial:
    """A writer that was watched."""

    name: str
    start: bytes
    made: list[Change]


@pytest.fixture(scope="module")
def trials(once: Once, watched: Watched, soaked: bool) -> list[Trial]:
    """One start from nothing, and starts from files cut off in mid-commit.

    The log of each, replayed, is the file.
    """

    def make(folder: Path) -> list[Trial]:
        path = folder.resolve() / "run.h5"

        def watch(name: str, start: bytes) -> Trial:
            if start:
                path.write_bytes(start)
            made = watched(path, ROUNDS)
            content = bytearray(start)
            for change in made:
                if change.kind != "A":
                    apply(content, change)
            assert bytes(content) == path.read_bytes(), name
            path.unlink()
            return Trial(name, start, made)

        found = [watch("from nothing", b"")]
        whole = [
            left.content
            for left in left_behind(b"", found[0].made, torn=False)
            if left.acknowledged and left.acknowledged["ckpts"]
        ]
        cuts = (len(whole) // 3, 2 * len(whole) // 3) if soaked else (len(whole) // 2,)
        found.extend(watch(f"resumed, cut at {cut}", whole[cut]) for cut in cuts)
        return found

    found: list[Trial] = once("trials", make)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
def test_a_kill_at_any_write_loses_nothing_and_can_be_gone_on_from(
    trials: list[Trial],
    nursery: Nursery,
    tmp_path: Path,
    soaked: bool,
    torn: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "run.h5"
    for trial in trials:
        points = list(left_behind(trial.start, trial.made, torn=torn))
        assert len(points) > 20
        # A step that is prime to the pattern of a commit meets every kind of write.
        chosen = points if soaked else points[:: (71 if torn else 61)]
        wrong = []
        for left in chosen:
            path.write_bytes(left.content)
            do = "check_empty" if left.acknowledged is None else "check"
            code, said = nursery(
                do=do, path=str(path), acknowledged=left.acknowledged or {}
            )
            if code:
                wrong.append(f"{trial.name}, {left.what}: {code} {said[:300]}")
        with capsys.disabled():
            kind = "torn at a page" if torn else "between two writes"
            sys.stdout.write(
                f"\n| killed {kind}, {trial.name} | {len(chosen)} of {len(points)} | "
                f"{len(wrong)} |"
            )
        assert wrong == []
