"""Plain arrays out of an HDF5 file that somebody else wrote."""

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from labctl.errors import InputError


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, NDArray[np.generic]]:
    """Read number arrays from the root of an HDF5 file.

    Nothing outside the file is ever read: links, virtual datasets and external
    storage are refused.

    Parameters
    ----------
    path
        The file.
    names
        Datasets to read; those that are not there are left out.

    Returns
    -------
    arrays
        What was found, by name.

    Raises
    ------
    InputError
        The file is no HDF5 file, is damaged, or a dataset is not a plain array
        of numbers.
    """
    try:
        with h5py.File(path, "r") as file:
            return {name: _array(path, file, name) for name in names if name in file}
    except (OSError, RuntimeError, KeyError, ValueError) as err:
        text = (
            f"{path}: {err}; expected a readable HDF5 file. Check the file, or write "
            "it again."
        )
        raise InputError(text) from err


def _array(path: Path, file: h5py.File, name: str) -> NDArray[np.generic]:
    # The link itself first: to look behind it would already open another file.
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise InputError(_refusal(path, name, "a soft or external link"))
    item = file[name]
    if not isinstance(item, h5py.Dataset):
        raise InputError(_refusal(path, name, "no dataset"))
    if item.is_virtual or item.external:
        raise InputError(_refusal(path, name, "virtual or in external storage"))
    if item.dtype.kind not in "biuf":
        raise InputError(_refusal(path, name, f"of type {item.dtype}"))
    return np.asarray(item[()])


def _refusal(path: Path, name: str, found: str) -> str:
    return (
        f"{path}: {name} is {found}, expected a dataset of numbers stored in this "
        "file. Write the values themselves into the file."
    )
