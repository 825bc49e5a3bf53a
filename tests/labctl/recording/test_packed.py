"""Checkpoints read without torch; the rest of the form is in test_checkpoint.py."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from labctl.recording.checkpoint import pack
from labctl.recording.packed import arrays, checksum


def test_tensors_come_as_arrays_and_the_rest_as_it_was() -> None:
    theta = torch.linspace(-1, 1, 5)
    on = torch.ones(1, dtype=torch.bool)
    state = {"theta": theta, "more": {3: (np.arange(4), [None, 2.5])}, "on": on}
    found = arrays(pack(state))
    assert isinstance(found["theta"], np.ndarray)
    np.testing.assert_array_equal(found["theta"], theta.numpy())
    assert found["more"][3][0].tolist() == [0, 1, 2, 3]
    assert found["more"][3][1] == [None, 2.5]
    assert found["on"].dtype == np.bool_
    assert found["on"]


@pytest.mark.parametrize("blob", [b"", b"\x80\x04N.", b"\xff" * 64])
def test_other_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match="expected what a checkpoint was packed into"):
        arrays(blob)


def test_numbers_that_numpy_lacks_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"checkpoint: .*expected"):
        arrays(pack({"a": torch.zeros(2, dtype=torch.bfloat16)}))


def test_it_needs_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(pack({"theta": torch.arange(3.0)}))
    code = (
        "import pathlib, sys; from labctl.recording.packed import arrays; "
        f"print(arrays(pathlib.Path({str(path)!r}).read_bytes())['theta'].sum()); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3.0", "False"]


def test_the_checksum_is_the_crc_32() -> None:
    assert checksum(b"123456789") == 0xCBF43926
