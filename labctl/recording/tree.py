"""Typed look-ups in an open HDF5 file, which anybody may have made.

What HDF5 says of damaged bytes becomes a :class:`RecordError`. Nothing leads out of
the file, no filter but those that the recorder uses is run, and no array is larger
than the file could hold.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from labctl.errors import InputError, RecordError

# Deflate, shuffle and Fletcher's checksum: every other filter may be a library
# that HDF5 loads from a folder of plug-ins.
_FILTERS = frozenset({1, 2, 3})
# Deflate makes at most 1032 bytes of one.
_MOST_EXPANSION = 1040
# Text and values of variable length, chunks that are not full yet.
_SLACK_BYTES = 2**20
# What damaged bytes lead h5py to.
_DAMAGES = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)


@contextmanager
def damages(where: object) -> Iterator[None]:
    """Turn what HDF5 says of damaged bytes into our words.

    Parameters
    ----------
    where
        The record.

    Yields
    ------
    None
        While it is being read.

    Raises
    ------
    RecordError
        It is damaged.
    """
    try:
        yield
    except _DAMAGES as err:
        text = (
            f"{where}: damaged ({err}), expected a record that was written whole. "
            "Restore the file from a copy."
        )
        raise RecordError(text) from err


def group(parent: h5py.Group, path: str) -> h5py.Group:
    """Return the group at that path.

    Raises
    ------
    InputError
        There is none.
    RecordError
        The file is damaged.
    """
    with damages(parent.file.filename):
        found = parent.get(path)
    if isinstance(found, h5py.Group):
        return found
    raise InputError(_missing(parent, path, "group"))


def dataset(parent: h5py.Group, path: str) -> h5py.Dataset:
    """Return the dataset at that path.

    Raises
    ------
    InputError
        There is none.
    RecordError
        The file is damaged.
    """
    with damages(parent.file.filename):
        found = parent.get(path)
    if isinstance(found, h5py.Dataset):
        return found
    raise InputError(_missing(parent, path, "dataset"))


def names(parent: h5py.Group) -> list[str]:
    """Return the names of everything in a group.

    Raises
    ------
    RecordError
        The file is damaged.
    """
    with damages(parent.file.filename):
        return [str(name) for name in parent]


def columns(parent: h5py.Group) -> tuple[str, ...]:
    """Return the names of the datasets of a group that grow.

    Raises
    ------
    RecordError
        The file is damaged.
    """
    with damages(parent.file.filename):
        return tuple(name for name in names(parent) if _grows(dataset(parent, name)))


def values(source: h5py.Dataset, rows: slice | None = None) -> NDArray[Any]:
    """Read an array, or some of its rows.

    Raises
    ------
    RecordError
        The file is damaged, or says that more is in it than it could hold.
    """
    with damages(source.file.filename):
        shape = source.shape
        if rows is not None:
            shape = (len(range(*rows.indices(shape[0]))), *shape[1:])
        wanted = source.dtype.itemsize * math.prod(shape)
        held = source.file.id.get_filesize()
        most = held * (_MOST_EXPANSION if source.compression else 1)
        if wanted > most + _SLACK_BYTES:
            _refuse(source, f"is {wanted} bytes, of {held} in the file")
        return np.asarray(source[() if rows is None else rows])


def scalar(source: h5py.Dataset) -> object:
    """Read a single value.

    Raises
    ------
    RecordError
        The file is damaged, or there are more values.
    """
    with damages(source.file.filename):
        if source.shape != ():
            _refuse(source, f"has shape {source.shape}, not that of a single value")
        return source[()]


def check_self_contained(file: h5py.File) -> None:
    """Refuse a file in which anything leads out of it, before it is followed.

    Raises
    ------
    InputError
        It has an external link, external storage, a virtual dataset, or a filter
        that labctl does not use.
    RecordError
        The file is damaged.
    """
    with damages(file.filename):
        _check_self_contained(file)


def _check_self_contained(file: h5py.File) -> None:
    left: list[h5py.Group] = [group(file, "/")]
    seen: set[h5py.Group] = set()
    while left:
        parent = left.pop()
        if parent in seen:  # hard links may form a ring
            continue
        seen.add(parent)
        for name in names(parent):
            link = parent.get(name, getlink=True)
            if isinstance(link, h5py.SoftLink):
                continue
            # Asked before the object is: opening an external link follows it.
            if not isinstance(link, h5py.HardLink) or _leads_out(parent[name]):
                raise InputError(_untrusted(parent, name))
            if isinstance(parent[name], h5py.Group):
                left.append(group(parent, name))


def _refuse(source: h5py.Dataset, text: str) -> NoReturn:
    """Say that the file cannot be true.

    Raises
    ------
    ValueError
        Always.
    """
    message = f"{source.name} {text}"
    raise ValueError(message)


def _grows(item: h5py.Dataset) -> bool:
    return bool(item.maxshape) and item.maxshape[0] is None


def _leads_out(item: object) -> bool:
    if not isinstance(item, h5py.Dataset):
        return False
    made = item.id.get_create_plist()
    filters = {made.get_filter(number)[0] for number in range(made.get_nfilters())}
    return bool(item.external or item.is_virtual or filters - _FILTERS)


def _untrusted(parent: h5py.Group, name: str) -> str:
    return (
        f"{parent.file.filename}: {parent.name}/{name} is an external link, external "
        "storage, a virtual dataset or packed by a foreign filter, expected a file "
        "that holds everything itself. Do not trust it."
    )


def _missing(parent: h5py.Group, path: str, what: str) -> str:
    place = f"{parent.name}/{path}".replace("//", "/")
    return (
        f"{parent.file.filename}: {place} is missing, expected a {what}. Restore the "
        "file from a copy."
    )
