"""The derivative by hand is that of autograd, in every direction, and twice."""

import pytest
import torch
from torch import Tensor

from labctl.optics.crossing import cross, plainly
from labctl.optics.kicks import Kicks

NODES, BATCH, GRID = 4, 3, (6, 8)
NAMES = ("field", "transfer", *Kicks._fields)


@pytest.fixture
def parts() -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    double = torch.float64

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=double)

    field = torch.complex(normal(BATCH, *GRID), normal(BATCH, *GRID))
    points = GRID[0] * GRID[1]
    transfer = torch.polar(torch.full(GRID, 1 / points, dtype=double), normal(*GRID))
    strength, saturation = normal(NODES), torch.tensor(1.3, dtype=double)
    screen = 0.3 * normal(NODES, *GRID)
    left = torch.exp(-normal(NODES, *GRID).square())
    made = [field, transfer, strength, saturation, screen, left]
    return [part.requires_grad_() for part in made]


def through(parts: list[Tensor], *, by_hand: bool) -> Tensor:
    field, transfer, *kicks = parts
    return (cross if by_hand else plainly)(field, transfer, Kicks(*kicks))


def test_light_and_derivatives_are_those_of_autograd(parts: list[Tensor]) -> None:
    plain, mine = (through(parts, by_hand=way) for way in (False, True))
    torch.testing.assert_close(mine, plain)
    draw = torch.Generator().manual_seed(2)
    cotangent = torch.randn(plain.shape, generator=draw, dtype=plain.dtype)
    expected = torch.autograd.grad(plain, parts, cotangent)
    found = torch.autograd.grad(mine, parts, cotangent)
    for name, got, right in zip(NAMES, found, expected, strict=True):
        torch.testing.assert_close(got, right, msg=name)


def test_a_frozen_medium_passes_the_gradient_on(parts: list[Tensor]) -> None:
    for part in parts[1:]:
        part.requires_grad = False
    found, expected = (
        torch.autograd.grad(through(parts, by_hand=way).abs().sum(), parts[0])[0]
        for way in (True, False)
    )
    torch.testing.assert_close(found, expected)


def test_the_derivative_can_be_differentiated(parts: list[Tensor]) -> None:
    second = []
    for way in (True, False):
        out = through(parts, by_hand=way).abs().square().sum(dim=0)[0, 0]
        (first,) = torch.autograd.grad(out, parts[0], create_graph=True)
        second.append(torch.autograd.grad(first.abs().sum(), parts[1:]))
    for got, right in zip(*second, strict=True):
        torch.testing.assert_close(got, right)
