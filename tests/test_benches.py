"""The benches that the documentation shows can be copied as they are."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from labctl import bench
from labctl.run.validate import validate

FOLDER = Path(__file__).parents[1] / "docs" / "reference" / "benches"
BENCHES = sorted(FOLDER.glob("*.yaml"))


def test_every_one_is_a_valid_bench_file() -> None:
    checked = validate([str(path) for path in BENCHES])
    assert [str(fault) for fault in checked.faults] == []
    assert len(checked.good) == 3


@pytest.mark.peer
@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_its_drivers_take_its_options_and_a_twin_stands_in(
    path: Path, need_module: Callable[[str], ModuleType]
) -> None:
    for peer in ("glfw", "moderngl", "pypylon.pylon"):
        need_module(peer)
    source = bench.load(path)
    made = bench.construct(source)
    assert made.slm.shape != made.camera.shape
    twin = bench.construct(source, simulate=True)
    assert "SIMULATED by its twin" in twin.notice
    assert (twin.slm.shape, twin.camera.shape) == (made.slm.shape, made.camera.shape)
