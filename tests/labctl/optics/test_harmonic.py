"""Second-harmonic generation against what can be solved by hand."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from labctl.optics.harmonic import exchange, plan
from labctl.optics.lens import far_field, intensity
from labctl.optics.medium import SecondHarmonic
from labctl.optics.propagation import propagate

SHAPE = (12, 20)


# Of powers of two: on them a plane wave's Fourier transforms are exact, and what
# is left is the error of the scheme.
EVEN = (16, 32)


def plane(dtype: torch.dtype = torch.complex64) -> Tensor:
    return torch.ones((1, *EVEN), dtype=dtype)


def random_field(seed: int, fields: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((fields, *SHAPE), dtype=torch.complex128, generator=generator)


def test_matched_waves_convert_as_tanh_squared_and_keep_their_power() -> None:
    medium = SecondHarmonic(kappa=2.0, steps=32)
    pair = plan(medium, EVEN, 4.0).pair(plane())
    first, second = (intensity(wave).double() for wave in pair)
    assert float((second - math.tanh(2) ** 2).abs().max()) < 1e-6
    assert float((first + second - 1).abs().max()) < 1e-6


@pytest.mark.parametrize("mismatch", [0.0, 30.0])
@pytest.mark.parametrize(("steps", "tolerance"), [(40, 0.15), (80, 0.04)])
def test_random_domains_add_powers_instead_of_fields(
    mismatch: float, steps: int, tolerance: float
) -> None:
    # Without diffraction every point is a crystal of its own: of N layers of random
    # sign the mean harmonic is N times that of one.
    layers = 20
    source = torch.Generator().manual_seed(2)
    signs = torch.randint(0, 2, (layers, 64, 128), generator=source) * 2.0 - 1
    medium = SecondHarmonic(kappa=0.05, mismatch=mismatch, fresnel=0.0, steps=steps)
    ready = plan(medium, (64, 128), 4.0, domains=signs.double())
    wave = torch.ones((1, 64, 128), dtype=torch.complex64)
    second = intensity(propagate(wave, ready)).double()
    each = mismatch / layers / 2
    one = (0.05 / layers) ** 2 * (math.sin(each) / each if each else 1.0) ** 2
    assert float(second.mean()) == pytest.approx(layers * one, rel=tolerance)
    # A random walk in the plane, or along a line where the waves are matched.
    contrast = float(second.std() / second.mean())
    assert contrast == pytest.approx(math.sqrt(2) if mismatch == 0 else 1, abs=0.15)


def test_domains_of_one_sign_are_a_crystal_without_domains() -> None:
    medium, light = SecondHarmonic(kappa=1.0, steps=6), random_field(3)
    signs = torch.ones(3, *SHAPE, dtype=torch.float64)
    pictures = [
        propagate(light, plan(medium, SHAPE, 4.0, domains=each, dtype=light.dtype))
        for each in (None, signs, -signs)
    ]
    torch.testing.assert_close(pictures[0], pictures[1])
    # The other sign turns the harmonic's phase by half a turn, and no picture.
    torch.testing.assert_close(pictures[0], -pictures[2])


def test_mismatched_waves_convert_as_sinc_squared() -> None:
    medium = SecondHarmonic(kappa=0.05, mismatch=4.0, steps=32)
    second = intensity(propagate(plane(), plan(medium, EVEN, 4.0))).double()
    want = 0.05**2 * (math.sin(2) / 2) ** 2
    assert float((second / want - 1).abs().max()) < 3e-3


@pytest.mark.parametrize("sign", [1, -1])
def test_the_mismatch_turns_the_harmonic_by_half_of_itself(sign: int) -> None:
    # Undepleted: E2 = i kappa sinc(dk L/2) exp(-i dk L/2) with the lag in the wave.
    medium = SecondHarmonic(kappa=0.01, mismatch=sign * 1.0, steps=64)
    wave = propagate(
        plane(torch.complex128), plan(medium, EVEN, 4.0, dtype=torch.complex128)
    )
    assert float(torch.angle(wave[0, 3, 5])) == pytest.approx(
        math.pi / 2 - sign / 2, abs=1e-3
    )


def test_diffraction_and_conversion_keep_the_power_together() -> None:
    medium = SecondHarmonic(kappa=1.0, mismatch=2.0, steps=16)
    field = random_field(1).to(torch.complex64)
    pair = plan(medium, SHAPE, 2.0).pair(field)
    after = sum(intensity(wave).double().sum() for wave in pair)
    assert float(after / intensity(field).double().sum()) == pytest.approx(1, abs=1e-3)


def test_the_harmonic_diffracts_half_as_much() -> None:
    # A weak wave E = 1 + e cos(q x) has the harmonic's side band at the same q.
    medium = SecondHarmonic(kappa=1e-3, steps=4, fresnel=0.2)
    ready = plan(medium, SHAPE, 2.0, dtype=torch.complex128)
    fundamental, harmonic = (torch.angle(t[1, 0]) for t in ready.transfers)
    assert float(harmonic) == pytest.approx(float(fundamental) / 2)
    assert float(fundamental) < 0


def test_error_falls_with_the_square_of_the_step_with_loss_and_edge() -> None:
    def seen(steps: int) -> Tensor:
        medium = SecondHarmonic(
            kappa=1.0, mismatch=1.0, steps=steps, loss=0.5, edge=1.0, fresnel=0.1
        )
        ready = plan(medium, SHAPE, 3.0, dtype=torch.complex128)
        return intensity(propagate(smooth, ready))

    y = torch.arange(12, dtype=torch.float64)[:, None] - 5.5
    x = torch.arange(20, dtype=torch.float64) - 9.5
    smooth = torch.polar(torch.exp(-(y**2) / 12 - x**2 / 30), 0.3 * x - 0.1 * y)[None]
    want = seen(512)
    errors = [
        float(torch.linalg.vector_norm(seen(steps) - want)) for steps in (8, 16, 32)
    ]
    for coarse, fine in itertools.pairwise(errors):
        assert 1.8 < math.log2(coarse / fine) < 2.2


def test_a_screen_turns_the_harmonic_twice() -> None:
    medium = SecondHarmonic(kappa=1e-4, steps=2, fresnel=0.0)
    screen = random_field(6)[0].real
    light = torch.ones((1, *SHAPE), dtype=torch.complex128)
    ready = plan(medium, SHAPE, 1.0, screens={0.5: screen}, dtype=torch.complex128)
    fundamental, harmonic = ready.pair(light)
    one = torch.ones_like(screen)
    torch.testing.assert_close(fundamental[0], torch.polar(one, screen))
    want = 1e-4j * torch.polar(one, 2 * screen)
    torch.testing.assert_close(harmonic[0], want, rtol=1e-5, atol=1e-12)


def test_either_wave_can_leave() -> None:
    field = random_field(2)
    fundamental, harmonic = (
        propagate(
            field,
            plan(
                SecondHarmonic(kappa=0.5, steps=4, harmonic=number),
                SHAPE,
                2.0,
                dtype=torch.complex128,
            ),
        )
        for number in (1, 2)
    )
    both = plan(SecondHarmonic(kappa=0.5, steps=4), SHAPE, 2.0, dtype=torch.complex128)
    pair = both.pair(field)
    assert torch.equal(pair[0], fundamental)
    assert torch.equal(pair[1], harmonic)


def test_gradient_agrees_with_finite_differences() -> None:
    medium = SecondHarmonic(kappa=1.0, mismatch=1.0, steps=4, edge=1.0)
    ready = plan(medium, SHAPE, 4.0, dtype=torch.complex128)
    weight = random_field(8).real

    def merit(phase: Tensor) -> Tensor:
        field = torch.polar(torch.ones_like(phase), phase)
        return (intensity(far_field(propagate(field, ready))) * weight).sum()

    phase = random_field(9).real.requires_grad_()
    direction = random_field(10).real
    (gradient,) = torch.autograd.grad(merit(phase), phase)
    with torch.no_grad():
        h = 1e-5
        slope = (merit(phase + h * direction) - merit(phase - h * direction)) / (2 * h)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-6)


def test_chunks_do_not_change_a_bit() -> None:
    medium = SecondHarmonic(kappa=1.0, steps=4, edge=1.0)
    ready = plan(medium, SHAPE, 4.0)
    field = random_field(3, 35).to(torch.complex64)
    whole = propagate(field, ready)
    single = torch.cat([propagate(field[i : i + 1], ready) for i in range(35)])
    assert torch.equal(whole, single)


def test_exchange_is_of_the_fourth_order() -> None:
    pair = (plane(torch.complex128), torch.zeros_like(plane(torch.complex128)))
    errors = [
        float((exchange(pair, kappa)[1].abs() - math.tanh(kappa)).abs().max())
        for kappa in (0.2, 0.1)
    ]
    assert 4.5 < math.log2(errors[0] / errors[1]) < 5.5
