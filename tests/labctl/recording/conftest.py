"""A header, sizes and rows that the tests of the record share."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labctl.devices import Identity
from labctl.recording.header import CalibrationEntry, DeviceEntry, Header
from labctl.recording.layout import (
    Layout,
    ShotSpec,
    Table,
    evaluate_layout,
    scan_layout,
    train_layout,
)

MakeRows = Callable[[Layout, str, int], dict[str, Any]]
RunPython = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def header() -> Header:
    """A header with every role, field and kind of value."""
    return Header(
        title="Digits, ünïcode",
        kind="train",
        protocol_text="kind: train\nschema_version: 1\n",
        protocol_resolved={"kind": "train", "budget": {"shots": 100}},
        bench_name="sim",
        bench_text="name: sim\n",
        bench_sha256="0" * 64,
        simulated=True,
        notice="SIMULATED",
        seeds={"run": 2**62, "data": 1},
        instrument={
            "laser": DeviceEntry(
                Identity("labctl", "SimLaser", "1", "0.1"),
                {"power_limits_mw": [0.0, 10.0]},
                {"type": "Laser", "name": "simulated", "power": 5.0},
            ),
            "beam": DeviceEntry(fields={"incident_wavelength": 1550.0}),
            "slm": DeviceEntry(
                Identity("labctl", "SimSLM", "2", "0.1"),
                {"ideal": False, "note": None},
                {
                    "shape": [12, 20],
                    "pitch_um": 8.0,
                    "bit_depth": 8,
                    "lut": np.linspace(0, 6, 256),
                },
            ),
            "camera": DeviceEntry(
                Identity("labctl", "SimCamera", "3", "0.1"),
                {},
                {
                    "shape": [30, 40],
                    "x_pixel_size": 3.45,
                    "y_pixel_size": 3.45,
                    "count_time": 1e-3,
                    "bit_depth_readout": 12,
                    "gain": 0.0,
                    "roi": [0, 0, 30, 40],
                },
            ),
            "world": DeviceEntry(settings={"b": 3.0}),
        },
        calibrations={
            "slm-phase": CalibrationEntry(
                {"phase_rad": np.linspace(0, 6, 256), "span_rad": None},
                "slm-phase.yaml",
                "1" * 64,
                "2031-04-02T10:00:00+00:00",
                {"rms_rad": 0.01},
            ),
            "settle": CalibrationEntry(
                {"settle_s": 0.05}, "settle.yaml", "2" * 64, "2031-04-02T10:00:00+00:00"
            ),
        },
        reservoir={
            "exposure_s": 1e-3,
            "gain_db": 0.0,
            "power_mw": 5.0,
            "region": [4, 6, 5, 7],
            "bins": [2, 3],
            "macropixels": [3, 5],
        },
    )


@pytest.fixture(scope="session")
def shots() -> ShotSpec:
    """Sizes of shots that keep their frames, nothing square."""
    return ShotSpec(15, 6, frame_shape=(5, 7), frame_origin=(4, 6))


@pytest.fixture(scope="session")
def layouts(shots: ShotSpec) -> dict[str, Layout]:
    """One layout of each kind, and one without frames."""
    binned = replace(shots, frame_shape=None)
    return {
        "train": train_layout(shots, metrics=["entropy"]),
        "train-binned": train_layout(binned),
        "train-gzip": train_layout(
            replace(shots, compression="gzip", level_dtype="u2")
        ),
        "evaluate": evaluate_layout(binned, n_predictions=4, n_targets=1),
        "scan": scan_layout(binned),
    }


@pytest.fixture(scope="session")
def plan(layouts: dict[str, Layout]) -> Layout:
    """The layout of a training run with frames."""
    return layouts["train"]


@pytest.fixture(scope="session")
def make_rows() -> MakeRows:
    """Values for every column of the tables that grow together."""

    def rows(layout: Layout, table: str, count: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for number, grows in enumerate(layout.together(table)):
            values |= _table_rows(grows, count, number)
        return values

    return rows


def _table_rows(table: Table, count: int, seed: int) -> dict[str, Any]:
    generator = np.random.Generator(np.random.PCG64([seed, count]))
    values: dict[str, Any] = {}
    for column in table.columns:
        shape = (count, *column.shape)
        kind = np.dtype(column.dtype).kind
        if column.filled:
            continue
        if kind == "S":
            word = {"category": "train", "quality": "ok"}.get(column.name, "5.0")
            values[column.name] = np.full(shape, word)
        elif kind == "f":
            values[column.name] = generator.normal(size=shape).astype(column.dtype)
        else:
            whole = generator.integers(0, 256, size=shape)
            values[column.name] = whole.astype(column.dtype)
    return values


@pytest.fixture
def record_path(tmp_path: Path) -> Path:
    """Where a record may be written."""
    return tmp_path / "run.h5"


@pytest.fixture
def run_python() -> RunPython:
    """Run code in a process of its own, with words as its arguments."""

    def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own code
            [sys.executable, "-c", code, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run
