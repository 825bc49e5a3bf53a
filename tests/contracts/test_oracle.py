"""What every oracle must do."""

from typing import Any

import numpy as np
import pytest

from labctl.errors import OutOfRangeError


def test_gives_a_gradient_for_each_level_and_costs_nothing(oracle: Any) -> None:  # noqa: ANN401 - see conftest
    oracle.camera.configure(exposure_s=0.001, region=(1, 2, 5, 9))
    source = np.random.default_rng(2)
    levels = source.integers(0, 256, (2, *oracle.slm.shape)).astype(np.uint8)
    before = oracle.clock.now()
    gradient = oracle.capability.gradient(levels, np.ones((2, 5, 9)), power_mw=1.0)
    assert gradient.shape == levels.shape
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0
    assert oracle.clock.now() == before


def test_is_linear_in_the_cotangent(oracle: Any) -> None:  # noqa: ANN401 - see conftest
    source = np.random.default_rng(3)
    levels = source.integers(0, 256, (1, *oracle.slm.shape)).astype(np.uint8)
    pulled = source.standard_normal((1, *oracle.camera.shape))
    pull = oracle.capability.gradient
    once, twice = (pull(levels, k * pulled, power_mw=2.0) for k in (1, 2))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-4, atol=1e-6)


def test_refuses_what_does_not_fit(oracle: Any) -> None:  # noqa: ANN401 - see conftest
    levels = np.zeros((1, *oracle.slm.shape), dtype=np.uint8)
    pulled = np.zeros((1, *oracle.camera.shape))
    pull = oracle.capability.gradient
    with pytest.raises(OutOfRangeError):
        pull(levels, pulled[:, 1:], power_mw=1.0)
    with pytest.raises(OutOfRangeError):
        pull(levels[0], pulled, power_mw=1.0)
    with pytest.raises(OutOfRangeError):
        pull(levels, pulled, power_mw=-1.0)
