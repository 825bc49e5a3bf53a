"""Noise of an output and the best step of a probe come back."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from labctl.bench import load
from labctl.calibrate.execute import Outcome
from labctl.calibrate.noise_floor import fit_floor, require_change
from labctl.calibration import NoiseFloor
from labctl.errors import OutcomeError

Array = NDArray[np.float64]
MakeBench = Callable[..., Path]
Calibrate = Callable[..., Outcome]
Known = Callable[..., None]

NOISE, SLOPE, BEND = 14.0, 120.0, 300.0


def test_noise_slope_and_bend_make_the_step() -> None:
    rng = np.random.default_rng(1)

    def noise(*shape: int) -> Array:
        return NOISE * rng.standard_normal(shape)

    base = rng.uniform(100, 300, 9)
    repeated = base + noise(6, 24, 9)
    slopes = SLOPE * rng.choice([-1, 1], (40, 1, 9))
    bends = BEND * rng.choice([-1, 1], (40, 1, 9))
    stepped = {}
    for step in (0.1, 0.2, 0.4):
        up, down = (
            base + sign * step * slopes + bends * step**2 / 2 + noise(40, 8, 9)
            for sign in (1, -1)
        )
        stepped[step] = (up, down)
    found = fit_floor(repeated, np.full((6, 9), NOISE / 1.1), stepped, repeated[0])
    assert found.noise_e == pytest.approx(NOISE, abs=4 * found.noise_error)
    assert found.excess == pytest.approx(1.1, rel=0.06)
    assert found.slope_e == pytest.approx(SLOPE, abs=5 * found.slope_error)
    assert found.bend_e == pytest.approx(BEND, rel=0.2)
    assert found.step_rad == pytest.approx((8 * NOISE**2 / BEND**2) ** 0.25, rel=0.12)


def test_outputs_that_no_pattern_changes_are_refused() -> None:
    rng = np.random.default_rng(2)
    noise = NOISE * rng.standard_normal((6, 24, 9))
    for _ in range(10):
        with pytest.raises(OutcomeError, match="the panel does not modulate"):
            require_change(200 + rng.permutation(noise, axis=1))
    require_change(200 + noise + NOISE / 2 * rng.standard_normal((6, 1, 9)))


@pytest.mark.slow
def test_the_light_sets_the_noise_of_the_outputs(
    make_bench: MakeBench, calibrate: Calibrate, known: Known
) -> None:
    path = make_bench()
    curve = {"kind": "slm-phase", "span_rad": 6.4}
    known(path, {"kind": "settle", "settle_s": 0.06}, curve)
    (row,) = calibrate("noise-floor").rows
    assert (row.status, row.why) == ("passed", "")
    record = load(path).records()["noise-floor"]
    assert isinstance(record.values, NoiseFloor)
    mean = 100 * record.values.noise_e / record.values.noise_percent
    pixels = 27 * 36 / 9
    ideal = math.sqrt(mean + pixels * 0.7**2)
    assert record.values.noise_e == pytest.approx(ideal, rel=0.1)
    assert 0.9 < record.values.excess < 1.3
    assert 0.01 < record.values.step_rad < 2
