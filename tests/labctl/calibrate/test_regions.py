"""Regions that show levels of their own at once are told apart by all light."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr

from labctl.calibrate.regions import SEEN, Regions, across, fit, neighbours
from labctl.calibrate.slm_phase import differ

Array = NDArray[np.float64]
LEVELS, SHAPE = 256, (2, 2)
U = np.arange(LEVELS) / LEVELS
COMMON = 6.9 * (U + 0.05 * U * (1 - U))
FACTORS = np.array([0.95, 1.04, 0.98, 1.06])


def shown(
    curves: Array, share: Array, noise: float, writes: int = 480, seed: int = 3
) -> tuple[Array, NDArray[np.int64]]:
    """All light for random levels of four regions with blurred edges."""
    rng = np.random.default_rng(seed)
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


def test_halves_of_the_writes_tell_the_error() -> None:
    curves, gaps = FACTORS[:, None] * COMMON, []
    for seed in (3, 4, 5):
        light, levels = shown(curves, np.full(4, 0.25), 2e-3, seed=seed)
        found, (one, other) = fit(light, levels, COMMON, SHAPE)
        apart = np.array(errors(one, other.phase_rad)) / 2
        gaps.append(apart / found.error_rad)
    # Halves of the same writes would not differ at all.
    assert np.sqrt(np.mean(np.square(gaps))) == pytest.approx(1, abs=0.4)


def test_a_region_with_less_light_is_known_less_well() -> None:
    share = np.array([0.3, 0.1, 0.2, 0.4])
    light, levels = shown(FACTORS[:, None] * COMMON, share, 1e-3)
    found, _ = fit(light, levels, COMMON, SHAPE)
    assert found.error_rad * share == pytest.approx(
        float((found.error_rad * share).mean()), rel=0.3
    )


def test_curves_begin_at_0_whatever_the_common_one_begins_at() -> None:
    light, levels = shown(FACTORS[:, None] * COMMON, np.full(4, 0.25), 1e-3)
    found, _ = fit(light, levels, COMMON + 0.7, SHAPE)
    assert found.phase_rad[:, 0] == pytest.approx(0, abs=1e-12)
    assert max(errors(found, FACTORS[:, None] * COMMON)) < 0.01


def test_only_what_crosstalk_changes_counts_as_the_light_of_an_edge() -> None:
    first, second = np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 5.0])
    cosine, sine = across(first, second, 1.2)
    # Two regions of one phase have no edge.
    assert cosine[:2] == pytest.approx(0, abs=1e-12)
    assert sine[:2] == pytest.approx(0, abs=1e-12)
    field = sum(
        np.exp(1j * (w * p + (1 - w) * q)) - np.exp(1j * p)
        for w in ndtr(np.arange(0.5, 5.5) / 1.2)
        for p, q in ((2.0, 5.0), (5.0, 2.0))
    )
    assert (cosine[2], sine[2]) == pytest.approx((field.real, field.imag), abs=1e-3)


def test_a_region_without_light_is_told() -> None:
    share = np.array([0.33, 0.33, 0.34, 0.0])
    light, levels = shown(FACTORS[:, None] * COMMON, share, 1e-3)
    found, _ = fit(light, levels, COMMON, SHAPE)
    assert int(found.signal.argmin()) == 3
    assert found.signal[3] < SEEN < found.signal[:3].min()


def test_regions_meet_along_rows_and_columns() -> None:
    pairs = {tuple(sorted(map(int, pair))) for pair in neighbours((2, 3))}
    assert pairs == {(0, 3), (1, 4), (2, 5), (0, 1), (1, 2), (3, 4), (4, 5)}
