"""How long the page of a long training takes, and how large it is.

``make bench`` prints it. The record has 30,000 shots, its training a row for each 64 of
them, as ``protocols/quickstart.yaml`` leaves them.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from labctl.recording.header import Header
from labctl.recording.layout import ShotSpec, train_layout
from labctl.recording.writer import Recorder
from labctl.report import page

SHOTS, BATCH, MACROPIXELS, BINS = 30_000, 64, (16, 16), (3, 3)
LONGEST_S, MOST_BYTES = 5.0, 6 * 2**20


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "run.h5"
    entry: dict[str, list[int] | float] = {
        "macropixels": list(MACROPIXELS),
        "bins": list(BINS),
        "region": [0, 0, 27, 27],
        "exposure_s": 1e-3,
        "gain_db": 0.0,
        "power_mw": 5.0,
    }
    header = Header(
        title="long",
        kind="train",
        protocol_text="kind: train\n",
        protocol_resolved={"model": [{"layer": "device", "encoding": "additive"}]},
        bench_name="sim",
        bench_text="",
        bench_sha256="0" * 64,
        simulated=True,
        notice="",
        seeds={},
        instrument={},
        calibrations={},
        reservoir=entry,
    )
    rng = np.random.default_rng(0)
    plan = train_layout(ShotSpec(256, 9), metrics=("score_validation",))
    with Recorder.create(path, layout=plan, header=header) as recorder:
        for table, count in (("shots", SHOTS), ("training", SHOTS // BATCH)):
            columns = {
                column.name: _drawn(rng, column.dtype, (count, *column.shape))
                for each in plan.together(table)
                for column in each.columns
                if not column.filled
            }
            recorder.append(table, **columns)
    return path


def _drawn(
    rng: np.random.Generator, dtype: str, shape: tuple[int, ...]
) -> NDArray[Any]:
    if dtype.startswith("S"):
        return np.full(shape, "ok", dtype=dtype)
    return (200 * rng.random(shape)).astype(dtype)


@pytest.mark.bench
def test_the_page_of_thirty_thousand_shots_is_made_in_seconds(
    record: Path, tmp_path: Path
) -> None:
    start = time.process_time()
    out = page.write(record, tmp_path / "run.html")
    took, size = time.process_time() - start, out.stat().st_size
    print(f"page of {SHOTS} shots: {took:.1f} s, {size / 2**20:.2f} MiB")  # noqa: T201 - this is what make bench is for
    assert took < LONGEST_S
    assert size < MOST_BYTES
