from pathlib import Path

import pytest

from labctl.optics.fused.build import Built
from labctl.optics.fused.library import Library


def test_it_loads_and_tells_how_wide_its_registers_are(compiled: Built) -> None:
    assert Library(compiled.path).lanes in {4, 8, 16}


def test_what_is_no_library_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "kernel.so").write_bytes(b"not a library")
    with pytest.raises(OSError, match="kernel"):
        Library(tmp_path / "kernel.so")
