"""A record that was left unfinished, opened for writing and cut to its last commit.

Rows beyond the last commit do not exist; what a kill left of them is cut off, so
that new rows find their place. Nothing of the file is trusted: what leads out of
it, or does not fit the layout, is refused before anything is changed.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from labctl.errors import InputError, RecordError
from labctl.recording import disk, layout, repair, tree
from labctl.recording.columns import h5_dtype, row_dtype
from labctl.recording.layout import Layout
from labctl.recording.reader import COUNTERS, Record, check_creator, last_commit
from labctl.recording.repair import locked


def reopen(path: Path, plan: Layout) -> tuple[h5py.File, int, dict[str, int]]:
    """Open a repaired record whose lock the caller holds.

    Parameters
    ----------
    path
        The record.
    plan
        What it must hold.

    Returns
    -------
    file
        Open for writing, status ``running``; SWMR is not on yet.
    commits
        Commits that count.
    counts
        Committed rows by counter.

    Raises
    ------
    InputError
        It is no record of that layout, holds nothing, or is complete.
    RecordError
        Rows that were committed are missing.
    """
    file = _open(path)
    try:
        with tree.damages(path):
            _check(path, file, plan)
        with disk.disk_errors(path):
            commits, counts = _cut(path, file)
            entry = tree.group(file, "entry")
            for name, text in (("status", "running"), ("end_time", "")):
                _put(entry, name, text)
            file.flush()
    except BaseException:
        file.close()
        raise
    return file, commits, counts


def cut(path: Path) -> dict[str, int]:
    """Cut a repaired record to its last commit, and call it interrupted.

    Parameters
    ----------
    path
        The record, whose lock the caller holds.

    Returns
    -------
    counts
        Rows that it has, by counter.

    Raises
    ------
    InputError
        It is no record, or holds nothing.
    RecordError
        Rows that were committed are missing.
    """
    with _open(path) as file, disk.disk_errors(path):
        tree.check_self_contained(file)
        check_creator(path, file)
        _, counts = _cut(path, file)
        entry = tree.group(file, "entry")
        if _text(entry, "status") in layout.OPEN_STATUSES:
            _put(entry, "status", "interrupted")
    return counts


@dataclass(frozen=True)
class Mended:
    """What a repair led to.

    Parameters
    ----------
    was_flagged
        Whether a writer had been killed; else nothing had to be done.
    status
        Status that the record has now.
    counts
        Committed rows by counter.
    """

    was_flagged: bool
    status: str
    counts: dict[str, int]


def mend(path: Path) -> Mended:
    """Make a record plain again whose writer was killed.

    Parameters
    ----------
    path
        The record.

    Returns
    -------
    mended
        What was done.

    Raises
    ------
    InputError
        It is no record, holds nothing, or its writer lives.
    RecordError
        It is damaged, or the disk failed.
    """
    done = repair.repair(path)
    with Record.open(path) as record:
        status, counts = record.status, record.lengths
    if not done.flags and status not in layout.OPEN_STATUSES:
        return Mended(was_flagged=False, status=status, counts=counts)
    with locked(path):
        counts = cut(path)
    status = "interrupted" if status in layout.OPEN_STATUSES else status
    return Mended(was_flagged=True, status=status, counts=counts)


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r+", libver="v110")
    except OSError as err:
        text = (
            f"{path}: cannot be opened for writing ({err}), expected a record. "
            "Close what reads it, or restore the file from a copy."
        )
        raise InputError(text) from err


def _check(path: Path, file: h5py.File, plan: Layout) -> None:
    tree.check_self_contained(file)
    check_creator(path, file)
    entry = tree.group(file, "entry")
    version = tree.scalar(tree.dataset(entry, "layout_version"))
    found = {"layout_version": version, "kind": _text(entry, "kind")}
    for name, want in (("layout_version", layout.VERSION), ("kind", plan.kind)):
        if found[name] != want:
            text = f"{path}: {name}={found[name]}, expected {want}. It cannot go on."
            raise InputError(text)
    if _text(entry, "status") == "complete":
        text = (
            f"{path}: status=complete, expected a run that was interrupted. There is "
            "nothing to go on with; look at it with labctl report."
        )
        raise InputError(text)
    for table, column in plan.columns():
        name = f"{table.name}/{column.name}"
        _check_dataset(path, entry, name, h5_dtype(column.dtype), column.shape)
    for rows in plan.rows:
        _check_dataset(path, entry, rows.path, row_dtype(rows), ())
    _check_dataset(path, entry, layout.BLOB_PATH, h5_dtype(layout.BLOB.dtype), ())


def _check_dataset(
    path: Path, entry: h5py.Group, name: str, dtype: object, shape: tuple[int, ...]
) -> None:
    found = tree.dataset(entry, name)
    if found.dtype != dtype or found.maxshape != (None, *shape):
        text = (
            f"{path}: {name} is {found.dtype} {found.maxshape}, expected {dtype} "
            f"{(None, *shape)} (protocol and bench). It cannot go on."
        )
        raise InputError(text)


def _cut(path: Path, file: h5py.File) -> tuple[int, dict[str, int]]:
    entry = tree.group(file, "entry")
    commits, counts = last_commit(tree.dataset(entry, layout.COMMITS))
    if commits == 0:
        text = (
            f"{path}: commits=0, expected at least one: it was killed before it held "
            "anything. Run the protocol anew, with --overwrite."
        )
        raise InputError(text)
    wanted = {layout.COMMITS: commits}
    for name in tree.names(entry):
        if name in COUNTERS:
            columns = tree.columns(tree.group(entry, name))
            wanted |= {f"{name}/{column}": counts[COUNTERS[name]] for column in columns}
    for rows in (layout.CHECKPOINT_INDEX, layout.EVENTS, layout.WRITERS):
        wanted[rows.path] = counts[rows.counter]
    wanted[layout.BLOB_PATH] = counts[layout.BLOB.name]
    grown = {name: tree.dataset(entry, name) for name in wanted}
    short = [
        f"{name} has {dataset.shape[0]} of {wanted[name]}"
        for name, dataset in grown.items()
        if dataset.shape[0] < wanted[name]
    ]
    if short:
        text = (
            f"{path}: rows that were committed are missing: {', '.join(short)}. "
            "Restore the file from a copy."
        )
        raise RecordError(text)
    for name, dataset in grown.items():
        if dataset.shape[0] > wanted[name]:
            dataset.resize(wanted[name], axis=0)
    return commits, counts


def _text(entry: h5py.Group, name: str) -> str:
    value = tree.scalar(tree.dataset(entry, name))
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("utf-8", "replace")
    return str(value)


def _put(entry: h5py.Group, name: str, text: str) -> None:
    place = tree.dataset(entry, name)
    place[()] = np.array(text.encode(), dtype=place.dtype)
