"""A curve comes back from two levels that interfere, and crosstalk between them."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from labctl.calibrate.quadrants import (
    PLAIN,
    Fringes,
    Light,
    basis,
    components,
    features,
    fit,
)
from labctl.calibrate.slm_phase import differ
from labctl.errors import OutcomeError

Array = NDArray[np.float64]

LEVELS = 256
U = np.arange(LEVELS) / LEVELS
TRUTH = 2 * math.pi * (1.03 * U + 0.08 * U * (1 - U) - 0.05 * U * (1 - U) * (1 - 2 * U))
EDGE = 1 / 32


def seen(
    rng: np.random.Generator, count: int, *, bend_rad: float = 0.0
) -> tuple[Fringes, Array]:
    """Fields of 3 pixels, of quadrants with a soft edge, with the noise of light."""
    first, second = rng.integers(0, LEVELS, (2, count))
    phase = TRUTH + bend_rad * np.cos(TRUTH)
    p, q = phase[first, None], phase[second, None]
    left, right = np.array([0.5, 0.5, 0.3]), np.array([0.5, -0.5, 0.2j])
    field = left * np.exp(1j * p) + right * np.exp(1j * q) + 0.17 * np.array([1, 0, 0])
    # Pixels on either side of the edge, which are a part of the way to the other side.
    for share in (0.07, 0.31):
        for way in (share, 1 - share):
            own = np.exp(1j * q) if way < 0.5 else np.exp(1j * p)
            blurred = np.exp(1j * (q + way * (p - q)))
            field = field + 0.02 * np.array([1, 0.2, 0.4]) * (blurred - own)
    frames = rng.poisson(4000 * np.abs(field) ** 2) + 0.5 * rng.standard_normal(p.shape)
    return Fringes(components(frames, 0.5), first, second, EDGE), frames


def whole(rng: np.random.Generator) -> Light:
    level = np.arange(0, LEVELS, 2)
    light = rng.poisson(10_000 * (1 + 0.34 * np.cos(TRUTH[level])))
    return Light(light.astype(float), level)


def test_a_curve_comes_back_through_crosstalk() -> None:
    rng = np.random.default_rng(1)
    fringes, _ = seen(rng, 300)
    start = TRUTH + 0.1 * U
    found, halves = fit(fringes, whole(rng), LEVELS, start)
    assert differ(found.phase_rad, TRUTH) < 0.012
    claimed = math.sqrt(float((found.error_rad**2).mean()))
    assert differ(found.phase_rad, TRUTH) < 3 * claimed < 0.03
    assert 0 < differ(halves[0].phase_rad, halves[1].phase_rad) < 6 * claimed


def test_crosstalk_that_is_not_in_the_fit_spoils_the_curve() -> None:
    rng = np.random.default_rng(1)
    fringes, _ = seen(rng, 300)
    none = Fringes(fringes.signals, fringes.first, fringes.second, 1e-6)
    found, _ = fit(none, whole(rng), LEVELS, TRUTH)
    assert differ(found.phase_rad, TRUTH) > 0.02


def test_a_phase_that_follows_the_light_is_told_apart() -> None:
    rng = np.random.default_rng(2)
    fringes, _ = seen(rng, 300, bend_rad=0.05)
    found, _ = fit(fringes, whole(rng), LEVELS, TRUTH)
    assert differ(found.phase_rad, TRUTH) < 0.015
    assert found.bend_rad == pytest.approx(0.05, abs=0.03)


def test_a_curve_comes_back_from_quadrants_alone() -> None:
    rng = np.random.default_rng(3)
    fringes, _ = seen(rng, 400)
    found, _ = fit(fringes, None, LEVELS)
    assert differ(found.phase_rad, TRUTH) < 0.03


def test_levels_that_change_nothing_are_named() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.integers(0, LEVELS, (2, 200))
    frames = rng.poisson(np.full((200, 40), 100.0)).astype(float)
    fringes = Fringes(components(frames, 0.5), first, second, EDGE)
    with pytest.raises(OutcomeError, match="slm-phase: the panel does not modulate"):
        fit(fringes, None, LEVELS)


def test_without_difference_there_is_no_light_of_the_edge() -> None:
    phase = np.linspace(0, 6, 5)
    made = features(phase, phase, 1.0)
    assert np.abs(made[:, PLAIN:]).max() < 1e-12
    apart = features(phase + 3.0, phase, 1.0)
    assert np.abs(apart[:, PLAIN:]).max() > 0.5


def test_few_signals_hold_what_pixels_have_in_common() -> None:
    rng = np.random.default_rng(5)
    _, frames = seen(rng, 200)
    signals = components(np.concatenate([frames, frames], axis=1), 0.5)
    assert signals.shape == (200, 6)
    assert np.abs(signals[:, 3:]).max() < 1e-3 * np.abs(signals[:, 0]).max()


def test_curves_begin_at_no_phase() -> None:
    assert np.abs(basis(LEVELS, 6)[0]).max() == 0
    found, *_ = np.linalg.lstsq(basis(LEVELS, 3), TRUTH, rcond=None)
    assert np.abs(basis(LEVELS, 3) @ found - TRUTH).max() < 1e-9
