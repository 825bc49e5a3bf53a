"""A record from a stranger is read, repaired and continued, or refused in words.

Each in a process of its own, with a time limit: what is no longer true of a file can
hang or crash the library that reads it.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typing_extensions import override

from labctl.errors import InputError, RecordError
from labctl.recording.reader import Record
from labctl.recording.reopen import mend
from labctl.recording.repair import repair

Nursery = Callable[..., tuple[int, str]]


class Files(dict[str, bytes]):
    """Contents by name, told by their lengths: hypothesis prints what it was given."""

    @override
    def __repr__(self) -> str:
        return repr({name: len(content) for name, content in self.items()})


HEAD = 48


@pytest.fixture(scope="module")
def files(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A finished record, and one whose writer was killed."""
    folder = tmp_path_factory.mktemp("files")
    made = Files()
    for name, rounds, kill_after_s in (("closed", 3, None), ("killed", -1, 0.05)):
        path = folder / name
        told = {"path": str(path), "told": str(folder / f"{name}.told")}
        nursery(do="write", rounds=rounds, kill_after_s=kill_after_s, **told)
        made[name] = path.read_bytes()
    return made


bad = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from([0, 1, 127, 255])),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize("name", ["closed", "killed"])
@given(where=bad, dense=st.booleans())
@settings(
    max_examples=200 if os.environ.get("LABCTL_SOAK") == "1" else 12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_damaged_bytes_neither_hang_nor_crash_nor_surprise(
    nursery: Nursery,
    files: Files,
    tmp_path: Path,
    name: str,
    where: list[tuple[float, int]],
    dense: bool,
) -> None:
    content = bytearray(files[name])
    # Descriptions of what is in the file lie at its beginning, values at its end.
    room = min(len(content), 60_000) if dense else len(content)
    for place, value in where:
        content[HEAD + int(place * (room - HEAD))] = value
    path = tmp_path / "run.h5"
    path.write_bytes(content)
    code, said = nursery(do="check_strange", path=str(path), limit_s=20)
    assert code == 0, said


@given(head=st.binary(min_size=HEAD, max_size=HEAD), keep=st.integers(0, HEAD))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_repair_changes_no_more_than_the_superblock_or_nothing(
    files: Files, tmp_path: Path, head: bytes, keep: int
) -> None:
    path = tmp_path / "run.h5"
    content = files["killed"]
    path.write_bytes(content[:keep] + head[keep:] + content[HEAD:])
    before = path.read_bytes()
    said = ""
    try:
        repair(path)
    except RecordError as error:
        said = str(error)
    after = path.read_bytes()
    assert after[HEAD:] == before[HEAD:]
    assert ("It was not touched" in said) == (after == before)


def outward(path: Path, how: str, folder: Path) -> None:
    """Let a record lead to a pipe: whoever follows it waits for ever."""
    secret = folder / "pipe"
    os.mkfifo(secret)
    with h5py.File(path, "r+", libver="v110") as file:
        shots = file["entry/shots"]
        if how == "link":
            file["entry/extra"] = h5py.ExternalLink(str(secret), "/")
        elif how == "hidden link":
            del file["entry/shots/outputs"]
            file["entry/shots/outputs"] = h5py.ExternalLink(str(secret), "/x")
        elif how == "storage":
            shots.create_dataset("more", (4,), "u1", external=[(str(secret), 0, 4)])
        elif how == "virtual":
            virtual = h5py.VirtualLayout((4,), np.uint8)
            virtual[:] = h5py.VirtualSource(str(secret), "x", (4,))
            shots.create_virtual_dataset("more", virtual)
        else:
            shots.create_dataset("more", (4,), "u1", chunks=(4,), compression="lzf")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a named pipe")
@pytest.mark.parametrize("how", ["link", "hidden link", "storage", "virtual", "filter"])
def test_nothing_is_followed_out_of_the_file(
    nursery: Nursery, files: Files, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "run.h5"
    path.write_bytes(files["closed"])
    outward(path, how, tmp_path)
    with pytest.raises(InputError, match="Do not trust it"):
        Record.open(path)
    with pytest.raises(InputError, match="Do not trust it"):
        mend(path)
    code, said = nursery(do="check_strange", path=str(path), limit_s=20)
    assert code == 0, said


def test_rows_that_the_file_cannot_hold_are_refused_before_memory_is_taken(
    files: Files, tmp_path: Path
) -> None:
    path = tmp_path / "run.h5"
    path.write_bytes(files["closed"])
    rows = 2**40
    with h5py.File(path, "r+", libver="v110") as file:
        entry = file["entry"]
        for name in ("training/loss", "shots/frames"):
            entry[name].resize(rows, axis=0)
        commits = entry["commits"]
        last = commits[-1]
        last["steps"] = last["shots"] = rows
        commits[-1] = last
    with Record.open(path) as record:
        for table, name in (("training", "loss"), ("shots", "frames")):
            with pytest.raises(RecordError, match=r"bytes, of \d+ in the file"):
                record.column(table, name)
        # A single row is as small as it ever was.
        assert record.column("shots", "frames", slice(0, 1)).shape == (1, 32, 64)
