import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from labctl.errors import InputError
from labctl.recording.arrays import read_arrays


def test_reads_what_is_there_and_leaves_out_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "own.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(6, dtype=np.float32).reshape(2, 3)
        file["flags"] = np.array([True, False])
        file["other"] = "text is not read"
    arrays = read_arrays(path, ["x", "flags", "absent"])
    assert sorted(arrays) == ["flags", "x"]
    assert arrays["x"].dtype == np.float32
    assert arrays["x"].tolist() == [[0, 1, 2], [3, 4, 5]]


def external_link(file: h5py.File, folder: Path) -> None:
    file["x"] = h5py.ExternalLink(str(folder / "secret.h5"), "/x")


def soft_link(file: h5py.File, folder: Path) -> None:
    file["away"] = h5py.ExternalLink(str(folder / "secret.h5"), "/")
    file["x"] = h5py.SoftLink("/away/x")


def external_storage(file: h5py.File, folder: Path) -> None:
    place = [(str(folder / "secret.raw"), 0, 8)]
    file.create_dataset("x", shape=(1,), dtype="f8", external=place)


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    layout[:] = h5py.VirtualSource(folder / "secret.h5", "x", shape=(4,))
    file.create_virtual_dataset("x", layout)


def group(file: h5py.File, folder: Path) -> None:
    del folder
    file.create_group("x")


def text(file: h5py.File, folder: Path) -> None:
    del folder
    file["x"] = ["a", "b"]


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (external_link, "a soft or external link"),
        (soft_link, "a soft or external link"),
        (external_storage, "virtual or in external storage"),
        (virtual, "virtual or in external storage"),
        (group, "no dataset"),
        (text, "of type object"),
    ],
)
def test_refuses_all_that_is_not_a_plain_array(
    tmp_path: Path, make: Callable[[h5py.File, Path], None], found: str
) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.arange(4.0)
    path = tmp_path / "own.h5"
    with h5py.File(path, "w") as file:
        make(file, tmp_path)
    with pytest.raises(
        InputError, match=f"x is {re.escape(found)}, expected a dataset"
    ):
        read_arrays(path, ["x"])


def test_refuses_a_file_that_is_not_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "own.h5"
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match="expected a readable HDF5 file"):
        read_arrays(path, ["x"])
