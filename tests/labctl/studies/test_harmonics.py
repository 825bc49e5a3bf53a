"""Harmonics are found beside noise, and noise adds nothing to their power."""

import numpy as np
import pytest

from labctl.studies.harmonics import Harmonics, common_power, taken_apart

STEPS = 16
TURN = 2 * np.pi * np.arange(STEPS) / STEPS


def found(repeats: int, noise: float, second: float) -> Harmonics:
    """Three outputs: a wave with a second harmonic, half of it, and nothing."""
    one = 5 + np.cos(TURN + 0.4) + second * np.sin(2 * TURN)
    clean = np.stack([one, one / 2, np.full(STEPS, 3.0)], axis=1)
    drawn = np.random.default_rng(3).normal(0, noise, (repeats, *clean.shape))
    return taken_apart(clean + drawn)


def test_a_cosine_has_no_defect_and_a_second_harmonic_is_one() -> None:
    assert found(2, 0.0, 0.0).defect == pytest.approx(0, abs=1e-12)
    with_second = found(2, 0.0, 0.5)
    assert with_second.defect == pytest.approx(0.25 / 1.25)
    assert with_second.mean == pytest.approx([5, 2.5, 3])
    assert with_second.power.shape == (STEPS // 2 - 1,)


def test_noise_is_taken_out_of_the_defect() -> None:
    noisy = found(64, 0.5, 0.0)
    assert noisy.floor > 0.01
    assert abs(noisy.defect) < noisy.floor / 2


def test_a_curve_is_drawn_with_its_slope_and_silence_stays_silent() -> None:
    value, slope = found(8, 0.02, 0.5).curves(TURN)
    wave = np.cos(TURN + 0.4) + 0.5 * np.sin(2 * TURN)
    steep = -np.sin(TURN + 0.4) + np.cos(2 * TURN)
    spread = np.sqrt(1.25 / 2)
    assert value[0] == pytest.approx(wave / spread, abs=0.05)
    assert slope[1] == pytest.approx(steep / spread, abs=0.1)
    assert np.abs(value[2]).max() == 0


def test_only_what_repeats_share_counts() -> None:
    drawn = np.random.default_rng(0).normal(size=(400, 7))
    assert common_power(drawn) == pytest.approx(0, abs=0.1)
    assert common_power(drawn + 2) == pytest.approx(28, rel=0.05)
