import math

import pytest
import torch

from labctl.optics.medium import SaturableKerr, edge_profile


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps=0, expected at least 1"),
        ({"saturation": 0.0}, "saturation=0.0, expected more than 0"),
        ({"fresnel": -0.1}, r"fresnel=-0\.1, expected 0 or more"),
        ({"loss": math.inf}, "loss=inf, expected 0 or more"),
        ({"edge": math.nan}, "edge=nan, expected 0 or more"),
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
