"""Room on the disk: estimate, refuse, keep a reserve, name what went wrong."""

import math
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np

from labctl.document import is_file
from labctl.errors import InputError, LabctlError, RecordError
from labctl.recording.layout import BLOB_CHUNK, Layout
from labctl.recording.reader import Record

if sys.platform == "linux":
    import os

RESERVE_BYTES = 8 * 2**20
# Room for a checkpoint and some batches beside the reserve.
LOW_WATER_BYTES = 16 * 2**20
# Rows of commits, events and the HDF5 index, measured at about 60 bytes a shot.
_SHOT_OVERHEAD_BYTES = 64
# Groups, attributes, texts and the first rows of events and commits: measured at
# 440 kB in the record of a training.
_EMPTY_BYTES = 2**19
_SLACK = 1.05
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_NO_ROOM = {27: "the file is at its size limit", 28: "no space", 122: "quota"}


def estimate_bytes(
    layout: Layout,
    shots: int,
    steps: int,
    probes: int,
    checkpoints: int,
    checkpoint_bytes: int,
) -> int:
    """Return how large a record becomes, frames counted as not compressed.

    Parameters
    ----------
    layout
        What is recorded.
    shots, steps, probes, checkpoints
        How many of each; every other table is taken to have a row a shot.
    checkpoint_bytes
        Size of one checkpoint, in the mean.

    Returns
    -------
    nbytes
        An upper estimate, with 5 % of slack.
    """
    counts = {"shots": shots, "steps": steps, "probes": probes}
    total = _EMPTY_BYTES + shots * _SHOT_OVERHEAD_BYTES
    for table, column in layout.columns():
        # Chunks are written whole.
        size = column.chunk[0]
        chunks = math.ceil(counts.get(table.counter, shots) / size)
        total += chunks * size * column.row_bytes
    for rows in layout.rows[:1]:
        nbytes = sum(np.dtype(kind).itemsize for _, kind in rows.fields)
        total += checkpoints * nbytes
    total += math.ceil(checkpoints * checkpoint_bytes / BLOB_CHUNK) * BLOB_CHUNK
    return int(total * _SLACK)


def check_room(path: str | PathLike[str], nbytes: int) -> None:
    """Refuse a run whose record would not fit.

    Parameters
    ----------
    path
        The record, which need not exist.
    nbytes
        Its estimated size.

    Raises
    ------
    InputError
        The disk has less room than that and the reserve.
    """
    folder = Path(path).absolute().parent
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free - RESERVE_BYTES
    # A record that is replaced, or continued, has its room already.
    if is_file(Path(path)):
        free += Path(path).stat().st_size
    if nbytes > free:
        text = (
            f"{path}: size={nbytes / 2**20:.1f} MiB (estimated), expected at most "
            f"{max(0, free) / 2**20:.1f} MiB (free on this disk, less the reserve). "
            "Choose another disk with --out, make room, or record.frames: binned."
        )
        raise InputError(text)


def check_target(path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse a path that no record can be written to; nothing is created.

    Parameters
    ----------
    path
        Where the record shall be.
    overwrite
        A record that is there may be replaced.

    Raises
    ------
    InputError
        The folder is missing, or something is in the way.
    """
    target = Path(path)
    folder = target.absolute().parent
    if not folder.is_dir():
        text = (
            f"{target}: folder={folder}, expected one that exists. "
            "Make it, or choose another with --out."
        )
        raise InputError(text)
    _check_name(target)
    if target.is_dir():
        text = f"{target}: a folder, expected a file name. Add one, such as run.h5."
        raise InputError(text)
    if target.exists() and not overwrite:
        text = (
            f"{target}: exists, expected a new file. "
            "Choose another with --out, or replace it with --overwrite."
        )
        raise InputError(text + _unfinished(target))
    if target.exists() and not _is_hdf5(target):
        text = (
            f"{target}: no record, expected one where --overwrite is given. "
            "Choose another file with --out."
        )
        raise InputError(text)


def _check_name(target: Path) -> None:
    """Refuse a name that the disk does not take, such as one that is too long.

    Raises
    ------
    InputError
        It does not.
    """
    try:
        target.exists()
    except OSError as error:
        text = (
            f"{target}: name={target.name}, expected one that this disk takes "
            f"({error.strerror}). Choose another with --out."
        )
        raise InputError(text) from error


def _unfinished(path: Path) -> str:
    """Say how to go on, where a run left something to go on with."""
    try:
        with Record.open(path) as record:
            status, kind = record.status, record.kind
    except LabctlError:
        return ""
    if status == "complete":
        return ""
    if kind == "comparison":
        return (
            f" It holds a comparison that is {status}: the same command with "
            "--overwrite goes on, and runs no finished training again."
        )
    return f" Its run is {status}: go on with labctl run --resume {path}"


def check_water(path: Path) -> None:
    """Stop a run while the disk still has room to end it well.

    Parameters
    ----------
    path
        The record.

    Raises
    ------
    RecordError
        Less than :data:`LOW_WATER_BYTES` are free.
    """
    free = shutil.disk_usage(path.absolute().parent).free
    if free < LOW_WATER_BYTES:
        text = (
            f"{path}: free={free / 2**20:.1f} MiB on this disk, expected at least "
            f"{LOW_WATER_BYTES / 2**20:.0f} MiB. Make room, then go on with labctl "
            f"run --resume {path}"
        )
        raise RecordError(text)


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE


class Reserve:
    """Room that is given back when the disk is full, so that closing succeeds.

    Parameters
    ----------
    path
        The file that takes the room; replaced when it is there.
    nbytes
        How much.
    """

    def __init__(self, path: Path, nbytes: int = RESERVE_BYTES) -> None:
        self._path = path
        with path.open("wb") as file:
            if sys.platform == "linux":
                os.posix_fallocate(file.fileno(), 0, nbytes)
            else:  # no call that allocates: only written bytes are surely there
                file.write(bytes(nbytes))

    def release(self) -> None:
        """Give the room back; may be called twice."""
        self._path.unlink(missing_ok=True)


@contextmanager
def disk_errors(where: Path, reserve: Reserve | None = None) -> Iterator[None]:
    """Turn HDF5's errors into ours, and give the reserve back.

    HDF5 reports a full disk as a RuntimeError that names errno in its text only.

    Parameters
    ----------
    where
        The record.
    reserve
        Released on error, so that what follows has room.

    Yields
    ------
    None
        While the file is being worked on.

    Raises
    ------
    RecordError
        Writing failed.
    """
    try:
        yield
    except (RuntimeError, OSError) as err:
        if reserve is not None:
            reserve.release()
        raise RecordError(_explain(where, err)) from err


def _explain(where: Path, err: Exception) -> str:
    found = re.search(r"errno = (\d+)", str(err))
    number = int(found[1]) if found else getattr(err, "errno", None)
    if number in _NO_ROOM:
        return (
            f"{where}: writing failed: {_NO_ROOM[number]} (errno {number}), "
            "expected room. Make room; what was committed is in the record."
        )
    return (
        f"{where}: writing failed: {err}, expected a disk that works. "
        "Check it; what was committed is in the record."
    )
