"""Drift comes back, common and of each output, and noise is none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from labctl.bench import load
from labctl.calibrate import drift
from labctl.calibrate.drift import fit_drift
from labctl.calibrate.execute import Outcome
from labctl.calibration import DriftRate

Array = NDArray[np.float64]
MakeBench = Callable[..., Path]
Calibrate = Callable[..., Outcome]
Known = Callable[..., None]

TIMES = np.linspace(0, 600, 16)


def outputs(rng: np.random.Generator, common: float, own: float) -> Array:
    mean = np.full(12, 400.0)
    slopes = own * np.where(np.arange(12) % 2, 1.0, -1.0)
    change = 1 + np.outer(TIMES, common + slopes) / 3600 / 100
    return rng.poisson((mean * change)[:, None], (16, 16, 12)).astype(float)


def test_common_drift_and_that_of_each_output_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    still = [fit_drift(TIMES, outputs(rng, 0, 0)) for _ in range(12)]
    assert np.mean([f.common for f in still]) == pytest.approx(0, abs=3)
    assert np.median([f.element for f in still]) < 5
    moved = fit_drift(TIMES, outputs(rng, 30.0, 0))
    assert moved.common == pytest.approx(30, abs=5 * moved.common_error)
    assert moved.common_error < 5
    own = fit_drift(TIMES, outputs(rng, 0, 40.0))
    assert own.element == pytest.approx(40, rel=0.25)
    assert own.holds_s < min(f.holds_s for f in still)


@pytest.mark.slow
def test_a_bench_that_drifts_is_refused(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drift, "MOMENTS", 8)
    wanders = {
        "world.options.drift.element_rad": 1.5,
        "world.options.drift.element_s": 600.0,
    }
    path = make_bench(wanders)
    known(path, {"kind": "settle", "settle_s": 0.06})
    (row,) = calibrate("drift").rows
    assert row.status == "failed"
    assert row.why.startswith("element_percent_per_hour=")
    assert not isinstance(load(path).records().get("drift"), DriftRate)
