import math

import pytest
import torch

from labctl.optics.medium import (
    SaturableKerr,
    SecondHarmonic,
    ThickScatterer,
    edge_profile,
    radius_squared,
)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps=0, expected at least 1"),
        ({"saturation": 0.0}, "saturation=0.0, expected more than 0"),
        ({"fresnel": -0.1}, r"fresnel=-0\.1, expected 0 or more"),
        ({"loss": math.inf}, "loss=inf, expected 0 or more"),
        ({"edge": math.nan}, "edge=nan, expected 0 or more"),
        ({"guide": -1.0}, r"guide=-1\.0, expected 0 or more"),
        ({"b": math.nan}, "b=nan, expected a finite number"),
    ],
)
def test_refuses_impossible_numbers(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SaturableKerr(**{"b": 1.0, **wrong})  # type: ignore[arg-type]  # steps too


def test_edge_profile_is_flat_inside_and_symmetric() -> None:
    profile = edge_profile((24, 40))
    assert profile.shape == (24, 40)
    assert float(profile[12, 20]) < 1e-9
    torch.testing.assert_close(profile, profile.flip(0))
    torch.testing.assert_close(profile, profile.flip(1))
    assert 0.4 < float(profile[0, 20]) <= 1
    assert 0.4 < float(profile[12, 0]) <= 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps=0, expected at least 1"),
        ({"kappa": math.inf}, "kappa=inf, expected a finite number"),
        ({"mismatch": math.nan}, "mismatch=nan, expected a finite number"),
        ({"loss": -1.0}, r"loss=-1\.0, expected 0 or more"),
        ({"harmonic": 3}, "harmonic=3, expected 1 or 2"),
    ],
)
def test_refuses_an_impossible_harmonic(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SecondHarmonic(**{"kappa": 1.0, **wrong})  # type: ignore[arg-type]  # steps too


def test_refuses_an_impossible_scatterer() -> None:
    with pytest.raises(ValueError, match="conversion=nan, expected 0 or more"):
        ThickScatterer(conversion=math.nan)
    with pytest.raises(ValueError, match="harmonic=0, expected 1 or 2"):
        ThickScatterer(harmonic=0)


def test_distance_is_from_the_middle_of_the_window() -> None:
    squared = radius_squared((4, 8))
    assert squared.shape == (4, 8)
    assert float(squared[0, 0]) == 1.5**2 + 3.5**2
    torch.testing.assert_close(squared, squared.flip((0, 1)))
