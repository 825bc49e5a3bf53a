"""Analytic cases: what a propagation must give whatever its code looks like."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from labctl.optics.lens import far_field, intensity
from labctl.optics.medium import SaturableKerr
from labctl.optics.propagation import (
    chunk_size,
    plan,
    propagate,
    transfer,
    turn,
)


def random_field(
    shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.complex64
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.complex128, generator=generator).to(dtype)


def grid(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    y = torch.arange(rows, dtype=torch.float64) - rows / 2
    x = torch.arange(columns, dtype=torch.float64) - columns / 2
    return y[:, None], x[None]


def relative(got: Tensor, want: Tensor) -> float:
    return float(torch.linalg.vector_norm(got - want) / torch.linalg.vector_norm(want))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.complex128, 1e-12), (torch.complex64, 5e-6)]
)
def test_gaussian_beam_spreads_as_theory_says(
    dtype: torch.dtype, tolerance: float
) -> None:
    rows, columns, waist = 256, 192, 12.0
    y, x = grid(rows, columns)
    r2 = y**2 + x**2
    rayleigh = waist**2 / 2  # z_R / k in squared grid points
    medium = SaturableKerr(b=0.0, fresnel=rayleigh, steps=4)
    field = torch.exp(-r2 / waist**2).to(dtype)[None]
    got = propagate(field, plan(medium, (rows, columns), 1.0, dtype=dtype))
    q = complex(1, 1)
    want = torch.exp(-r2 / (waist**2 * q)) / q
    assert relative(got[0].to(torch.complex128), want) < tolerance


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.complex128, 1e-13), (torch.complex64, 1e-5)]
)
def test_power_stays_without_loss(dtype: torch.dtype, tolerance: float) -> None:
    field = random_field((3, 48, 64), 1, dtype)
    medium = SaturableKerr(b=3.0, saturation=1.0, fresnel=0.1, steps=16)
    got = propagate(field, plan(medium, (48, 64), 4.0, dtype=dtype))
    before, after = (intensity(e).double().sum() for e in (field, got))
    assert abs(float(after / before) - 1) < tolerance


def test_loss_and_edge_absorb_what_they_say() -> None:
    medium = SaturableKerr(b=0.0, loss=0.2, steps=5, fresnel=0.0)
    field = random_field((1, 16, 24), 2, torch.complex128)
    got = propagate(field, plan(medium, (16, 24), 1.0, dtype=torch.complex128))
    torch.testing.assert_close(intensity(got), intensity(field) * math.exp(-0.2))
    edged = SaturableKerr(b=0.0, edge=4.0, steps=5, fresnel=0.0)
    got = propagate(field, plan(edged, (16, 24), 1.0, dtype=torch.complex128))
    ratio = (got.abs() / field.abs())[0]
    assert float(ratio[8, 12]) == pytest.approx(1, abs=1e-6)
    assert float(ratio[8, 0]) < 0.3
    assert float(ratio[0, 12]) < 0.3


@pytest.mark.parametrize(
    ("saturation", "intensity_in", "phase"),
    [(math.inf, 1.0, 3.0), (1.0, 1.0, 1.5), (1.0, 3.0, 2.25)],
)
def test_plane_wave_gains_exactly_its_nonlinear_phase(
    saturation: float, intensity_in: float, phase: float
) -> None:
    medium = SaturableKerr(b=3.0, saturation=saturation, steps=16, fresnel=0.1)
    field = torch.full((1, 16, 24), math.sqrt(intensity_in), dtype=torch.complex64)
    got = propagate(field, plan(medium, (16, 24), 4.0))
    error = torch.angle(got * complex(math.cos(phase), -math.sin(phase)))
    assert float(error.abs().max()) < 2e-6


@pytest.mark.parametrize("across", ["rows", "columns"])
def test_soliton_error_falls_with_the_square_of_the_step(across: str) -> None:
    # One-dimensional bright soliton over 4 k w^2: b/L |A|^2 = 1/(k w^2).
    width, length = 6.0, 4.0
    _, x = grid(8, 128)
    profile = (1 / torch.cosh(x / width)).expand(8, 128).to(torch.complex128)
    if across == "rows":
        profile = profile.T.contiguous()
    shape = (int(profile.shape[0]), int(profile.shape[1]))
    want = profile * complex(math.cos(length / 2), math.sin(length / 2))
    errors = []
    for steps in (32, 64, 128):
        medium = SaturableKerr(b=length, steps=steps, fresnel=length * width**2)
        ready = plan(medium, shape, 1.0, dtype=torch.complex128)
        errors.append(relative(propagate(profile[None], ready)[0], want))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(1.9 < order < 2.1 for order in orders)
    assert errors[0] == pytest.approx(5.8e-3, rel=0.3)


def test_gradient_agrees_with_finite_differences() -> None:
    shape = (12, 20)
    medium = SaturableKerr(b=3.0, saturation=1.0, steps=4, edge=2.0)
    screen = random_field(shape, 7, torch.complex128).real
    ready = plan(medium, shape, 4.0, screens={0.5: screen}, dtype=torch.complex128)
    weight = random_field((2, *shape), 8, torch.complex128).real

    def merit(phase: Tensor) -> Tensor:
        field = torch.polar(torch.ones_like(phase), phase)
        return (intensity(far_field(propagate(field, ready))) * weight).sum()

    phase = random_field((2, *shape), 9, torch.complex128).real.requires_grad_()
    direction = random_field((2, *shape), 10, torch.complex128).real
    (gradient,) = torch.autograd.grad(merit(phase), phase)
    with torch.no_grad():
        h = 1e-5
        slope = (merit(phase + h * direction) - merit(phase - h * direction)) / (2 * h)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-6)


def test_chunks_do_not_change_a_bit() -> None:
    medium = SaturableKerr(b=3.0, saturation=1.0, steps=8)
    ready = plan(medium, (32, 48), 4.0)
    field = random_field((19, 32, 48), 3)
    whole = propagate(field, ready)
    single = torch.cat([propagate(field[i : i + 1], ready) for i in range(19)])
    assert torch.equal(whole, single)


def test_single_precision_is_enough() -> None:
    medium = SaturableKerr(b=3.0, saturation=1.0, steps=16)
    field = random_field((2, 32, 48), 4, torch.complex128)
    fine = propagate(field, plan(medium, (32, 48), 4.0, dtype=torch.complex128))
    coarse = propagate(field.to(torch.complex64), plan(medium, (32, 48), 4.0))
    assert relative(coarse.to(torch.complex128), fine) < 1e-5


def test_turned_input_gives_turned_output() -> None:
    medium = SaturableKerr(b=2.0, saturation=1.0, steps=4, edge=1.0)
    field = random_field((1, 24, 40), 5, torch.complex128)
    upright = propagate(field, plan(medium, (24, 40), 4.0, dtype=torch.complex128))
    turned = propagate(
        field.transpose(-2, -1).contiguous(),
        plan(medium, (40, 24), 4.0, dtype=torch.complex128),
    )
    torch.testing.assert_close(turned, upright.transpose(-2, -1))


def test_diffraction_delays_high_frequencies_along_the_right_axis() -> None:
    factor = transfer((8, 16), 0.5, torch.complex128)
    assert factor.shape == (8, 16)
    q = 2 * math.pi / 8
    assert float(torch.angle(factor[1, 0])) == pytest.approx(-(q**2) / 4)
    assert float(torch.angle(factor[0, 2])) == pytest.approx(-(q**2) / 4)
    assert float(torch.angle(factor[0, 1])) == pytest.approx(-(q**2) / 16)


def test_refuses_a_screen_inside_a_step_or_of_another_shape() -> None:
    medium = SaturableKerr(b=1.0, steps=4)
    with pytest.raises(ValueError, match=r"screen at 0\.3 of the length"):
        plan(medium, (8, 12), 4.0, screens={0.3: torch.zeros(8, 12)})
    with pytest.raises(ValueError, match=r"screen of shape \(12, 8\)"):
        plan(medium, (8, 12), 4.0, screens={0.5: torch.zeros(12, 8)})


def test_a_screen_without_light_effects_is_a_phase() -> None:
    screen = random_field((8, 12), 6, torch.complex128).real
    medium = SaturableKerr(b=0.0, steps=2, fresnel=0.0)
    field = random_field((1, 8, 12), 6, torch.complex128)
    got = propagate(
        field, plan(medium, (8, 12), 1.0, screens={0.5: screen}, dtype=field.dtype)
    )
    torch.testing.assert_close(
        got[0], field[0] * torch.polar(torch.ones_like(screen), screen)
    )


@pytest.mark.parametrize(
    ("shape", "fields"), [((64, 64), 8), ((32, 32), 16), ((512, 512), 1)]
)
def test_chunk_fits_the_cache(shape: tuple[int, int], fields: int) -> None:
    assert chunk_size(shape) == fields


@pytest.mark.parametrize("bound", [0.5, 2.0])
def test_turn_is_exact_to_single_precision(bound: float) -> None:
    angle = torch.linspace(-bound, bound, 2001, dtype=torch.float64).reshape(1, 3, -1)
    want = torch.polar(torch.ones_like(angle), angle)
    single = turn(angle.float(), bound).to(torch.complex128)
    assert float((single - want).abs().max()) < 2.5e-7
    assert torch.equal(turn(angle, bound), want)


def test_gradient_flows_in_single_precision() -> None:
    shape = (8, 12)
    fine, coarse = (
        plan(SaturableKerr(b=3.0, saturation=1.0, steps=16), shape, 4.0, dtype=dtype)
        for dtype in (torch.complex128, torch.complex64)
    )
    phase = random_field((1, *shape), 11, torch.complex128).real
    weight = random_field((1, *shape), 12, torch.complex128).real
    pulled = []
    for ready, real in ((fine, torch.float64), (coarse, torch.float32)):
        leaf = phase.to(real).requires_grad_()
        field = torch.polar(torch.ones_like(leaf), leaf)
        out = (intensity(far_field(propagate(field, ready))) * weight.to(real)).sum()
        pulled.append(torch.autograd.grad(out, leaf)[0].double())
    assert relative(pulled[1], pulled[0]) < 1e-5


def test_the_mode_of_a_guide_stays_as_it_is() -> None:
    # Ground state of the oscillator: exp(-r^2/a^2), a^4 = 2 fresnel w^4 / guide.
    rows, columns, macropixel, fresnel, guide = 48, 64, 4.0, 2.0, 0.6
    y, x = (
        torch.arange(side, dtype=torch.float64) - (side - 1) / 2
        for side in (rows, columns)
    )
    a2 = math.sqrt(2 * fresnel * macropixel**4 / guide)
    mode = torch.exp(-(y[:, None] ** 2 + x[None] ** 2) / a2).to(torch.complex128)
    lag = 2 * fresnel * macropixel**2 / a2
    errors = []
    for steps in (16, 32):
        medium = SaturableKerr(b=0.0, fresnel=fresnel, guide=guide, steps=steps)
        ready = plan(medium, (rows, columns), macropixel, dtype=torch.complex128)
        got = propagate(mode[None], ready)[0]
        errors.append(relative(got, mode * complex(math.cos(lag), -math.sin(lag))))
    assert errors[1] < 2e-3
    assert 1.9 < math.log2(errors[0] / errors[1]) < 2.1


def test_a_beam_beside_the_axis_of_a_guide_comes_back_after_a_pitch() -> None:
    rows, columns, macropixel, shift = 64, 96, 12.0, 6.0
    # The ray equation x'' = -2 fresnel guide x over a length of 1: one pitch.
    fresnel = 1.0
    guide = (2 * math.pi) ** 2 / (2 * fresnel)
    y, x = (
        torch.arange(side, dtype=torch.float64) - (side - 1) / 2
        for side in (rows, columns)
    )
    spot = torch.exp(-((y[:, None] - shift) ** 2 + x[None] ** 2) / 8**2)

    def middle(length: float) -> tuple[float, float]:
        medium = SaturableKerr(
            b=0.0, fresnel=fresnel * length, guide=guide * length, steps=64
        )
        ready = plan(medium, (rows, columns), macropixel, dtype=torch.complex128)
        light = intensity(propagate(spot.to(torch.complex128)[None], ready))[0]
        total = light.sum()
        return (
            float((light.sum(dim=1) * y).sum() / total),
            float((light.sum(dim=0) * x).sum() / total),
        )

    assert middle(1.0) == pytest.approx((shift, 0), abs=0.05)
    assert middle(0.5) == pytest.approx((-shift, 0), abs=0.05)
    assert middle(0.25) == pytest.approx((0, 0), abs=0.05)


@pytest.mark.parametrize("bleaching", [False, True])
def test_loss_with_a_nonlinear_phase_is_of_the_second_order(bleaching: bool) -> None:
    # A plane wave: dI/dz = -loss I/(1 + I/s), dphase/dz = b I/(1 + I/s).
    b, saturation, loss = 3.0, 0.7, 0.8
    if bleaching:
        left = _bleached(1.0, saturation, loss)
        phase = b / loss * (1 - left)
    else:
        left = math.exp(-loss)
        phase = (
            b
            * saturation
            / loss
            * math.log((1 + 1 / saturation) / (1 + left / saturation))
        )
    errors = []
    for steps in (8, 16):
        medium = SaturableKerr(
            b=b,
            saturation=saturation,
            loss=loss,
            bleaching=bleaching,
            steps=steps,
        )
        field = torch.ones((1, 8, 12), dtype=torch.complex128)
        got = propagate(field, plan(medium, (8, 12), 4.0, dtype=torch.complex128))
        want = math.sqrt(left) * complex(math.cos(phase), math.sin(phase))
        errors.append(float((got - want).abs().max()))
    assert errors[1] < 1e-3
    assert 1.8 < math.log2(errors[0] / errors[1]) < 2.2


def _bleached(start: float, saturation: float, loss: float) -> float:
    # ln I + I/s falls by the loss.
    low, high = 0.0, start
    want = math.log(start) + start / saturation - loss
    for _ in range(100):
        middle = (low + high) / 2
        if math.log(middle) + middle / saturation > want:
            high = middle
        else:
            low = middle
    return low
