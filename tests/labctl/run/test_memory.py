"""A memory that is made of recorded shots is kept by their numbers."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from labctl.reservoir import PhaseScale
from labctl.run.memory import Memory
from labctl.training.probe import wrap

SHOTS, PIXELS, OUTPUTS = 30, 6, 4


class Written:
    """Columns of a record in memory."""

    def __init__(
        self, columns: dict[str, NDArray[Any]], lengths: dict[str, int]
    ) -> None:
        self.columns, self.lengths = columns, lengths

    def read(self, table: str, name: str, rows: slice) -> NDArray[Any]:
        return self.columns[f"{table}/{name}"][rows]


@pytest.fixture
def scale() -> PhaseScale:
    return PhaseScale(np.linspace(0, 2 * np.pi, 256))


@pytest.fixture
def written() -> Written:
    generator = np.random.Generator(np.random.PCG64(7))
    outputs = generator.normal(size=(SHOTS, OUTPUTS)).astype(np.float32)
    base, plus = np.arange(0, 8), np.arange(8, 16)
    columns: dict[str, NDArray[Any]] = {
        "shots/outputs": outputs,
        "shots_meta/levels": generator.integers(
            0, 256, (SHOTS, PIXELS), dtype=np.uint8
        ),
        "probes/shot_base": base,
        "probes/shot_plus": plus,
        "probes/df": (outputs[plus] - outputs[base]).astype(np.float64),
    }
    return Written(columns, {"shots": SHOTS, "probes": 8})


@pytest.fixture
def fitter(written: Written, scale: PhaseScale) -> dict[str, Any]:
    """What a fitter remembers of these shots, in an order of its own."""
    outputs = torch.from_numpy(written.columns["shots/outputs"])
    levels = written.columns["shots_meta/levels"]
    shown = torch.from_numpy(scale.shown(levels)).float()
    fed = torch.tensor([20, 3, 29, 11, 3])
    base, plus = torch.arange(0, 8), torch.arange(8, 16)
    return {
        "values": {"columns": [shown[fed], outputs[fed]], "cursor": 5},
        "kept": {"columns": [shown[24:26], outputs[24:26]], "cursor": 2},
        "probes": {
            "columns": [
                shown[base],
                wrap(shown[plus] - shown[base])[:, None],
                (outputs[plus] - outputs[base])[:, None],
            ],
            "cursor": 8,
        },
        "steps": 17,
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name in ("values", "kept", "probes"):
        assert one[name]["cursor"] == other[name]["cursor"]
        columns = zip(one[name]["columns"], other[name]["columns"], strict=True)
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in columns)


def test_comes_back_bit_by_bit_from_numbers_alone(
    written: Written, scale: PhaseScale, fitter: dict[str, Any]
) -> None:
    before = copy.deepcopy(fitter)
    packed = Memory(written, scale, 100).pack(fitter)
    assert packed["values"]["shots"].tolist() == [20, 3, 29, 11, 3]
    assert packed["kept"]["shots"].tolist() == [24, 25]
    assert packed["probes"]["shots"][:, 1].tolist() == list(range(8, 16))
    assert packed["steps"] == 17
    same(fitter, before)
    same(Memory(written, scale, 100).unpack(packed), fitter)


def test_what_the_record_does_not_hold_is_kept_whole(
    written: Written, scale: PhaseScale, fitter: dict[str, Any]
) -> None:
    fitter["values"]["columns"][1] = fitter["values"]["columns"][1] + 1
    fitter["kept"]["columns"][1] = fitter["kept"]["columns"][1] + 1
    # Outputs that are there, with phases that are not.
    fitter["probes"]["columns"][0] = fitter["probes"]["columns"][0] + 0.1
    packed = Memory(written, scale, 100).pack(fitter)
    same(packed, fitter)
    same(Memory(written, scale, 100).unpack(packed), fitter)


def test_an_empty_memory_stays_empty(written: Written, scale: PhaseScale) -> None:
    empty = {"columns": [], "cursor": 0}
    fitter = {"values": empty, "kept": empty, "probes": empty}
    memory = Memory(written, scale, 100)
    assert memory.unpack(memory.pack(fitter)) == fitter


def test_what_is_found_does_not_depend_on_how_often_one_looked(
    written: Written, scale: PhaseScale, fitter: dict[str, Any]
) -> None:
    # Of many shots only the youngest are found: the bound of a long run.
    often, once = Memory(written, scale, 3), Memory(written, scale, 3)
    for shots in range(2, SHOTS + 1, 2):
        written.lengths = {"shots": shots, "probes": 8}
        packed = often.pack(fitter)
    assert packed["values"].keys() == once.pack(fitter)["values"].keys()
    assert "shots" not in packed["values"]
