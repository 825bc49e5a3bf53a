"""Regions that show levels of their own at once are told apart by all light."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr

from labctl.calibrate.regions import SEEN, Regions, fit, neighbours
from labctl.calibrate.slm_phase import differ

Array = NDArray[np.float64]
LEVELS, SHAPE = 256, (2, 2)
U = np.arange(LEVELS) / LEVELS
COMMON = 6.9 * (U + 0.05 * U * (1 - U))
FACTORS = np.array([0.95, 1.04, 0.98, 1.06])


def shown(
    curves: Array, share: Array, noise: float, writes: int = 480
) -> tuple[Array, NDArray[np.int64]]:
    """All light for random levels of four regions with blurred edges."""
    rng = np.random.default_rng(3)
    every = np.linspace(0, LEVELS - 1, writes).round().astype(int)
    levels = np.stack([rng.permutation(every) for _ in share], axis=1)
    phase = curves[np.arange(len(share)), levels]
    light = np.full(writes, 1.0)
    for number, part in enumerate(share):
        light += 0.3 * part * np.cos(phase[:, number] - 0.4)
    for one, other in neighbours(SHAPE):
        for k in np.arange(0.5, 6):
            w = float(ndtr(k))
            for a, b in ((one, other), (other, one)):
                p, q = phase[:, a], phase[:, b]
                blurred = np.cos(w * p + (1 - w) * q - 0.4) - np.cos(p - 0.4)
                light += 0.3 * min(share[one], share[other]) / 32 * blurred
    return light * (1 + noise * rng.standard_normal(writes)), levels


def errors(found: Regions, curves: Array) -> list[float]:
    return [differ(*pair) for pair in zip(found.phase_rad, curves, strict=True)]


def test_each_region_has_its_curve_within_its_error() -> None:
    curves = FACTORS[:, None] * COMMON
    curves[2] += 0.1 * U * (1 - U)
    light, levels = shown(curves, np.full(4, 0.25), 1e-3)
    found, halves = fit(light, levels, COMMON, SHAPE)
    assert max(errors(found, curves)) < 0.01
    assert found.error_rad == pytest.approx(0.002, abs=0.001)
    assert (found.signal > 20 * SEEN).all()
    # One curve for all of them is off by much more.
    assert math.hypot(*errors(replaced(found), curves)) > 0.15
    for half in halves:
        assert max(errors(half, curves)) < 0.02


def replaced(found: Regions) -> Regions:
    """One curve for all."""
    mean = found.phase_rad.mean(axis=0)
    return Regions(np.stack([mean] * 4), found.error_rad, found.signal)


def test_a_region_without_light_is_told() -> None:
    share = np.array([0.33, 0.33, 0.34, 0.0])
    light, levels = shown(FACTORS[:, None] * COMMON, share, 1e-3)
    found, _ = fit(light, levels, COMMON, SHAPE)
    assert int(found.signal.argmin()) == 3
    assert found.signal[3] < SEEN < found.signal[:3].min()


def test_regions_meet_along_rows_and_columns() -> None:
    pairs = {tuple(sorted(map(int, pair))) for pair in neighbours((2, 3))}
    assert pairs == {(0, 3), (1, 4), (2, 5), (0, 1), (1, 2), (3, 4), (4, 5)}
