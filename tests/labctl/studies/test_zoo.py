"""Activations are what their names say; measures tell waves from slopes."""

import numpy as np
import pytest
import torch

from labctl.studies.zoo import FAMILIES, FUNCTIONS, X, backward, derivative, measures


def test_cantor_is_flat_almost_everywhere_and_climbs_as_the_identity() -> None:
    at = np.array([0.0, 0.4, 0.5, 0.6, 1.0, 1.5, -0.5])
    expected = [0.0, 0.5, 0.5, 0.5, 1.0, 1.5, -0.5]
    assert FUNCTIONS["cantor"](at) == pytest.approx(expected, abs=1e-6)
    assert FUNCTIONS["cantor"](np.array([0.25])) == pytest.approx([1 / 3], abs=1e-6)


@pytest.mark.parametrize("name", ["gelu", "tanh", "sigmoid", "sin"])
def test_slopes_are_those_of_torch(name: str) -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64, requires_grad=True)
    known: torch.Tensor = getattr(
        torch.nn.functional if name == "gelu" else torch, name
    )(x)
    (slope,) = torch.autograd.grad(known.sum(), x)
    place = x.detach().numpy()
    assert FUNCTIONS[name](place) == pytest.approx(known.detach().numpy())
    found = np.interp(place, X, derivative(name))
    assert found == pytest.approx(slope.numpy(), abs=1e-4)


def test_blurring_a_threshold_gives_a_bump_of_area_one() -> None:
    bump = backward("threshold", "blurred", 0.5)
    assert bump.sum() * (X[1] - X[0]) == pytest.approx(1.0, abs=1e-3)
    assert X[bump.argmax()] == pytest.approx(0.0, abs=0.01)


def test_clamped_slopes_stay_within_one() -> None:
    assert np.abs(derivative("polynomial-5")).max() > 100
    assert np.abs(backward("polynomial-5", "clamped", 0.5)).max() == 1


def test_measures_tell_waves_from_slopes() -> None:
    sine, line = measures("sin"), measures("identity")
    assert sine["oscillation"] > 0 == line["oscillation"]
    assert (sine["monotone"], line["monotone"]) == (0, 1)
    assert measures("threshold")["zero_share"] == 1
    assert measures("jeff-48")["complexity"] > measures("jeff-3")["complexity"]


def test_every_function_is_of_a_family() -> None:
    assert list(FAMILIES) == list(FUNCTIONS)
