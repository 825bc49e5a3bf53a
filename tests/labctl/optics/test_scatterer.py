"""Statistics of speckle behind a thick scatterer."""

import math

import pytest
import torch
from torch import Tensor

from labctl.optics.lens import intensity
from labctl.optics.medium import ThickScatterer
from labctl.optics.propagation import propagate
from labctl.optics.scatterer import Transmission, dense, plan, structured

SHAPE = (24, 32)
POINTS = SHAPE[0] * SHAPE[1]


def dense_pair(dtype: torch.dtype = torch.complex64) -> list[Transmission]:
    source = torch.Generator().manual_seed(5)
    return [
        dense(
            torch.randn((2, POINTS, POINTS), dtype=torch.float64, generator=source),
            dtype,
        )
        for _ in range(2)
    ]


def structured_pair(dtype: torch.dtype = torch.complex64) -> list[Transmission]:
    source = torch.Generator().manual_seed(6)
    return [
        structured(
            2
            * math.pi
            * torch.rand((2, *SHAPE), dtype=torch.float64, generator=source),
            dtype,
        )
        for _ in range(2)
    ]


def fields(count: int, dtype: torch.dtype = torch.complex64) -> Tensor:
    source = torch.Generator().manual_seed(7)
    phase = 2 * math.pi * torch.rand((count, *SHAPE), generator=source)
    return torch.polar(torch.ones_like(phase), phase).to(dtype)


def contrast(light: Tensor) -> float:
    return float(light.std() / light.mean())


@pytest.mark.parametrize("make", [dense_pair, structured_pair])
def test_speckle_has_the_contrast_of_gaussian_light(make: object) -> None:
    first, second = make()  # type: ignore[operator]  # a list of the two above
    light = fields(60)
    before = plan(ThickScatterer(harmonic=1), SHAPE, first, second)
    behind = plan(ThickScatterer(harmonic=2), SHAPE, first, second)
    fundamental = propagate(light, before)
    assert contrast(intensity(fundamental)) == pytest.approx(1, abs=0.03)
    assert contrast(intensity(propagate(light, behind))) == pytest.approx(1, abs=0.03)
    # Only where it is made is the harmonic super-Rayleigh: the moments of an
    # exponential distribution give sqrt(4!/2!^2 - 1).
    local = intensity(fundamental * fundamental)
    assert contrast(local) == pytest.approx(math.sqrt(5), abs=0.12)


@pytest.mark.parametrize(
    ("make", "tolerance"), [(dense_pair, 0.1), (structured_pair, 1e-5)]
)
def test_transmission_keeps_the_power(make: object, tolerance: float) -> None:
    first, _ = make()  # type: ignore[operator]  # a list of the two above
    ratio = intensity(first(fields(3))).double().sum() / (3 * POINTS)
    assert float(ratio) == pytest.approx(1, abs=tolerance)


def test_the_harmonic_grows_with_the_square_of_the_power() -> None:
    ready = plan(ThickScatterer(conversion=0.2), SHAPE, *structured_pair())
    light = fields(1)
    weak, strong = (intensity(propagate(light * a, ready)).sum() for a in (1.0, 2.0))
    assert float(strong / weak) == pytest.approx(16, rel=1e-4)
    # Twice that of a plane wave, for <I^2> = 2 <I>^2 in speckle.
    assert float(weak / POINTS) == pytest.approx(0.4, rel=0.2)


def test_a_tilt_of_the_input_does_not_merely_shift_the_output() -> None:
    first, _ = structured_pair()
    tilt = torch.polar(
        torch.ones(SHAPE), (2 * math.pi * torch.arange(32) / 32).expand(SHAPE)
    )
    light = fields(1)
    a, b = (intensity(first(each))[0] for each in (light, light * tilt))
    spectra = [torch.fft.fft2(each - each.mean()) for each in (a, b)]
    related = torch.fft.ifft2(spectra[0].conj() * spectra[1]).real
    scale = float((a - a.mean()).square().sum())
    assert float(related.abs().max()) / scale < 0.3


@pytest.mark.parametrize("make", [dense_pair, structured_pair])
def test_chunks_do_not_change_a_bit(make: object) -> None:
    ready = plan(ThickScatterer(), SHAPE, *make())  # type: ignore[operator]  # a list of the two above
    light = fields(19)
    whole = propagate(light, ready)
    single = torch.cat([propagate(light[i : i + 1], ready) for i in range(19)])
    assert torch.equal(whole, single)


@pytest.mark.parametrize("make", [dense_pair, structured_pair])
def test_gradient_agrees_with_finite_differences(make: object) -> None:
    ready = plan(ThickScatterer(), SHAPE, *make(torch.complex128))  # type: ignore[operator]  # a list of the two above
    source = torch.Generator().manual_seed(8)
    phase, direction, weight = torch.randn(
        (3, 1, *SHAPE), dtype=torch.float64, generator=source
    )

    def merit(at: Tensor) -> Tensor:
        field = torch.polar(torch.ones_like(at), at)
        total: Tensor = (intensity(propagate(field, ready)) * weight).sum()
        return total

    leaf = phase.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(merit(leaf), leaf)
    h = 1e-5
    slope = (merit(phase + h * direction) - merit(phase - h * direction)) / (2 * h)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-6)
