from pathlib import Path

import h5py
import numpy as np
import pytest

from labctl.errors import InputError, RecordError
from labctl.recording import tree

WRONG = "incorrect metadata checksum"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("entry")
        file["entry/x"] = 1
        with pytest.raises(InputError, match="/entry/y is missing, expected a dat"):
            tree.dataset(tree.group(file, "entry"), "y")
        with pytest.raises(InputError, match=r"/entry/x is missing, expected a group"):
            tree.group(file, "entry/x")


def test_a_ring_of_hard_links_is_walked_once(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("a")["ring"] = file["/"]
        file["soft"] = h5py.SoftLink("/nowhere")
        tree.check_self_contained(file)


@pytest.mark.parametrize("how", ["link", "storage", "virtual", "filter"])
def test_nothing_may_lead_out_of_the_file(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/shots")
        if how == "link":
            group["frames"] = h5py.ExternalLink("/etc/secret.h5", "/x")
        elif how == "storage":
            group.create_dataset(
                "frames", (4,), "u1", external=[(str(tmp_path / "raw"), 0, 4)]
            )
        elif how == "filter":
            group.create_dataset("frames", (4,), "u1", compression="lzf")
        else:
            virtual = h5py.VirtualLayout((4,), np.uint8)
            virtual[:] = h5py.VirtualSource("other.h5", "x", (4,))
            group.create_virtual_dataset("frames", virtual)
    with (
        h5py.File(path) as file,
        pytest.raises(InputError, match=r"/entry/shots/frames is an external link"),
    ):
        tree.check_self_contained(file)


def test_no_array_is_larger_than_the_file_could_hold(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plain = file.create_dataset("plain", (10, 2**40), "f8", chunks=(1, 1024))
        packed = file.create_dataset("packed", (2**30,), "u1", compression="gzip")
        for bomb in (plain, packed):
            with pytest.raises(RecordError, match=r"bytes, of \d+ in the file"):
                tree.values(bomb)
        assert tree.values(packed, slice(3, 9)).tolist() == [0] * 6


def test_what_hdf5_says_of_damage_is_said_in_our_words(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(3)
        with pytest.raises(RecordError, match=r"damaged .*not that of a single value"):
            tree.scalar(file["x"])
    with (
        pytest.raises(RecordError, match=r"run\.h5: damaged .* from a copy"),
        tree.damages("run.h5"),
    ):
        raise RuntimeError(WRONG)
