"""Activations of fields are what their names say, and torch's backward passes fit."""

import numpy as np
import pytest
import torch

from labctl.studies.complex_zoo import (
    FUNCTIONS,
    KERR_RAD,
    REAL,
    SIDE,
    measures,
    pictures,
    slopes,
)
from labctl.studies.zoo import FUNCTIONS as REAL_FUNCTIONS

# Away from the axes, where two of them have a jump, and from |z| = 1/2.
FIELDS = torch.tensor(
    [0.7 + 0.9j, -0.4 + 1.3j, -1.1 - 0.8j, 0.2 - 1.7j, 0.15 + 0.1j],
    dtype=torch.complex128,
)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_backward_pass_is_that_of_finite_differences(name: str) -> None:
    leaf = FIELDS.clone().requires_grad_()
    assert torch.autograd.gradcheck(FUNCTIONS[name], (leaf,))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slopes_say_what_a_small_step_does(name: str) -> None:
    step = 1e-6 * torch.polar(torch.ones(5), torch.arange(5.0)).to(FIELDS.dtype)
    moved = FUNCTIONS[name](FIELDS + step) - FUNCTIONS[name](FIELDS)
    told = slopes(name, FIELDS) @ torch.view_as_real(step)[:, :, None]
    assert torch.allclose(torch.view_as_real(moved), told[..., 0], atol=1e-11)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_explodes_in_the_dark(name: str) -> None:
    dark = torch.zeros(1, dtype=torch.complex64, requires_grad=True)
    y = FUNCTIONS[name](dark)
    torch.autograd.backward(y.abs().square().sum() + y.real.sum())
    assert y.abs().item() == 0
    assert dark.grad is not None
    assert torch.isfinite(torch.view_as_real(dark.grad)).all()


def test_kerr_turns_the_phase_and_keeps_the_light() -> None:
    y = FUNCTIONS["kerr"](FIELDS)
    light = FIELDS.abs().square()
    assert torch.allclose(y.abs(), FIELDS.abs())
    turned = torch.remainder((y / FIELDS).angle(), 2 * torch.pi)
    assert torch.allclose(turned, KERR_RAD * light / (1 + light))


def test_amplitudes_keep_their_phase() -> None:
    for name in ("amplitude-tanh", "mod-relu", "cardioid"):
        y = FUNCTIONS[name](FIELDS[:4])
        assert torch.allclose(y.angle(), FIELDS[:4].angle()), name
    assert FUNCTIONS["mod-relu"](FIELDS)[4] == 0  # |z| is below its bias
    assert FUNCTIONS["amplitude-tanh"](FIELDS).abs().max() < 1


def test_on_the_real_line_some_are_the_real_ones() -> None:
    line = torch.linspace(-2, 2, 9, dtype=torch.float64)
    field = torch.complex(line, torch.zeros_like(line))
    for name in ("identity", "split-tanh", "amplitude-tanh", "cardioid"):
        known = torch.as_tensor(REAL_FUNCTIONS[REAL[name]](line.numpy()))
        assert torch.allclose(FUNCTIONS[name](field).real, known, atol=1e-6), name


def test_measures_know_what_is_holomorphic_and_what_passes_nothing() -> None:
    plain, quarter = measures("identity"), measures("z-relu")
    assert plain == {
        "largest": pytest.approx(1),
        "typical": pytest.approx(1),
        "zero_share": 0,
        "conjugate_share": pytest.approx(0, abs=1e-12),
    }
    assert quarter["zero_share"] == pytest.approx(0.75, abs=0.01)
    # z exp(i t(|z|)) shears: with a slope s of the phase over log |z|, the larger
    # singular value is (s + sqrt(s^2 + 4)) / 2, and s is 3/2 at most.
    assert measures("kerr")["largest"] == pytest.approx(2, abs=1e-3)


def test_pictures_leave_the_phase_out_where_nothing_comes() -> None:
    size, turn = pictures("z-relu")
    assert size.shape == turn.shape == (SIDE, SIDE)
    dark = size < 1e-6
    assert dark.mean() > 0.7
    assert np.isnan(turn[dark]).all()
    assert (turn[~dark] <= 1.6).all()
