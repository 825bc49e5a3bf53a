import math

import pytest
import torch

from labctl.optics.panel import PhaseCurve, blur, modulate


def test_straight_curve_is_a_straight_line() -> None:
    u = torch.linspace(0, 1, 5)
    torch.testing.assert_close(PhaseCurve(2 * math.pi)(u), 2 * math.pi * u)


def test_bent_curve_keeps_its_ends_and_rises() -> None:
    u = torch.linspace(0, 1, 257, dtype=torch.float64)
    phase = PhaseCurve(6.4, bow=0.1, skew=-0.2)(u)
    assert float(phase[0]) == 0
    assert float(phase[-1]) == pytest.approx(6.4)
    assert bool((phase.diff() > 0).all())
    assert float((phase - 6.4 * u).abs().max()) > 0.1
    half = PhaseCurve(6.4, bow=0.1, skew=-0.2)(torch.tensor([0.25]))
    want = 6.4 * (0.25 + 0.1 * 0.1875 - 0.2 * 0.1875 * 0.5)
    assert float(half) == pytest.approx(want)


def test_refuses_a_curve_that_falls() -> None:
    with pytest.raises(ValueError, match=r"bow=1\.5, skew=0: the phase falls"):
        PhaseCurve(6.28, bow=1.5)


def test_blur_of_a_point_is_the_gaussian() -> None:
    point = torch.zeros(1, 15, 21, dtype=torch.float64)
    point[0, 7, 10] = 1
    got = blur(point, 1.0)[0]
    assert got.shape == (15, 21)
    assert float(got.sum()) == pytest.approx(1)
    assert float(got[7, 10] / got[7, 11]) == pytest.approx(math.exp(0.5))
    assert float(got[7, 10] / got[9, 10]) == pytest.approx(math.exp(2))
    torch.testing.assert_close(got[:, 10], got.flip(0)[:, 10])


def test_blur_leaves_a_flat_panel_and_its_borders() -> None:
    flat = torch.full((2, 6, 9), 5.0)
    torch.testing.assert_close(blur(flat, 0.7), flat)
    assert blur(flat, 0.0) is flat


def test_blur_knows_nothing_of_wraps() -> None:
    ramp = torch.arange(12.0).expand(1, 5, 12) * 2
    torch.testing.assert_close(blur(ramp, 0.5)[..., 3:-3], ramp[..., 3:-3])


def test_zero_order_conserves_power_on_average() -> None:
    generator = torch.Generator().manual_seed(2)
    phase = torch.rand(20, 40, 50, generator=generator) * 2 * math.pi
    power = modulate(phase, 0.03).abs().square().mean()
    assert float(power) == pytest.approx(1, abs=5e-3)
    mean = modulate(phase, 0.03).mean()
    assert float(mean.abs().square()) == pytest.approx(0.03, rel=0.05)
    torch.testing.assert_close(
        modulate(phase, 0.0), torch.polar(torch.ones_like(phase), phase)
    )


def test_gradient_flows_through_curve_and_blur() -> None:
    curve = PhaseCurve(6.3, bow=0.05, skew=0.02)
    generator = torch.Generator().manual_seed(3)
    u = torch.rand(1, 6, 8, dtype=torch.float64, generator=generator)
    u.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: blur(curve(v), 0.6), (u,))
