"""The width of the crosstalk comes back; none is none, with a bound."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from labctl.bench import load
from labctl.calibrate import crosstalk
from labctl.calibrate.crosstalk import HALVES, Orders, efficiency, fit_width
from labctl.calibrate.execute import Outcome
from labctl.calibration import Crosstalk

MakeBench = Callable[..., Path]
Calibrate = Callable[..., Outcome]
Known = Callable[..., None]

DEPTHS = np.linspace(0, 2 * math.pi, 10)[:-1]


def groups(rng: np.random.Generator, sigma_px: float, noise: float) -> list[Orders]:
    made = []
    for half in HALVES:
        light = 80 * efficiency(DEPTHS, half, sigma_px) + 3.0
        error = np.full(len(DEPTHS), noise)
        drawn = light + noise * rng.standard_normal(len(DEPTHS))
        made.append(Orders(half, DEPTHS, drawn, error))
    return made


def test_a_sharp_grating_sends_out_the_sine_of_half_its_depth_squared() -> None:
    found = efficiency(DEPTHS, 8, 0.0)
    # Of a grating of points: a little more than the 4 / pi^2 of a continuous one.
    whole = 1 / (8 * math.sin(math.pi / 16)) ** 2
    assert found == pytest.approx(whole * np.sin(DEPTHS / 2) ** 2)
    assert efficiency(DEPTHS, 2, 1.0).max() < 0.8 * efficiency(DEPTHS, 2, 0.0).max()


def test_the_width_comes_back_with_its_error() -> None:
    rng = np.random.default_rng(1)
    pulls = []
    for _ in range(4):
        found = fit_width(groups(rng, 0.9, 0.2))
        assert found.is_seen
        assert found.error_px < 0.1
        pulls.append((found.sigma_px - 0.9) / found.error_px)
    assert np.abs(pulls).max() < 4


def test_where_there_is_none_the_answer_is_a_bound() -> None:
    rng = np.random.default_rng(2)
    for _ in range(2):
        found = fit_width(groups(rng, 0.0, 0.3))
        assert not found.is_seen
        assert 0 < found.most_px < 0.8


# ---- on the bench ----------------------------------------------------------------


@pytest.mark.slow
def test_the_injected_width_comes_back(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crosstalk, "FRAMES", 6)
    path = make_bench(
        {
            "world.options.sensor.photons_per_s": 2e7,
            "world.options.panel.crosstalk_macropixels": 0.2,
            "world.options.panel.lut_error": 0.0,
        }
    )
    curve = {"kind": "slm-phase", "span_rad": 2 * math.pi * 1.03}
    mapped = {
        "kind": "mapping",
        "matrix_px": [[32.0, 0.0], [0.0, 48.0]],
        "offset_px": [16.0, 24.0],
        "mirrored": False,
    }
    known(path, {"kind": "settle", "settle_s": 0.06}, curve, mapped)
    (row,) = calibrate("crosstalk").rows
    assert (row.status, row.why) == ("passed", "")
    record = load(path).records()["crosstalk"]
    assert isinstance(record.values, Crosstalk)
    _, error = record.quantities["sigma_px"]
    assert record.values.sigma_px == pytest.approx(0.8, abs=0.08)
    assert error < 0.12
