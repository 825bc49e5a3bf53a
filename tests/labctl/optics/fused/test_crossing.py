"""The compiled crossing and its derivative are those of autograd, in double."""

import math

import pytest
import torch
from torch import Tensor

from labctl.optics.crossing import cross_fused, plainly
from labctl.optics.fused.build import Built
from labctl.optics.fused.crossing import FusedMedium
from labctl.optics.fused.library import Library
from labctl.optics.kicks import Kicks, Waves

NAMES = ("field", "length", *Kicks._fields)
# Each stage of the transforms, odd and even; square and not.
SHAPES = [(16, 16), (32, 32), (16, 64), (64, 32), (32, 128)]
# A slip of a table or of a sign is far above this, rounding far below.
CLOSE = 3e-4


@pytest.fixture
def library(compiled: Built) -> Library:
    return Library(compiled.path)


def waves(shape: tuple[int, int], dtype: torch.dtype = torch.float64) -> Waves:
    down, across = (
        -((2 * math.pi * torch.fft.fftfreq(side, dtype=torch.float64)) ** 2) / 2
        for side in shape
    )
    return Waves(down.to(dtype), across.to(dtype))


def parts(shape: tuple[int, int], steps: int, count: int = 3) -> list[Tensor]:
    """A field, the length of a step and kicks, all of them different at each point."""
    draw = torch.Generator().manual_seed(steps)
    double = torch.float64

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=draw, dtype=double)

    field = torch.complex(normal(count, *shape), normal(count, *shape))
    length, saturation = (torch.tensor(number, dtype=double) for number in (0.7, 1.3))
    screen, left = normal(steps + 1, *shape), normal(steps + 1, *shape)
    strength = 0.5 * normal(steps + 1)
    left = torch.exp(-left.square())
    return [field, length, strength, saturation, screen, left]


def single(made: list[Tensor]) -> list[Tensor]:
    return [
        part.to(torch.complex64 if part.is_complex() else torch.float32)
        for part in made
    ]


def exactly(made: list[Tensor], shape: tuple[int, int]) -> Tensor:
    field, length, *kicks = made
    return plainly(field, waves(shape).transfer(length), Kicks(*kicks))


def compiled_way(made: list[Tensor], shape: tuple[int, int], own: Library) -> Tensor:
    field, length, *kicks = made
    return cross_fused(field, waves(shape, torch.float32), length, Kicks(*kicks), own)


def error(got: Tensor, want: Tensor) -> float:
    apart, size = (got - want).detach().abs().max(), want.detach().abs().max()
    return float(apart / size)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_light_and_derivatives_are_those_of_autograd(
    library: Library, shape: tuple[int, int], steps: int
) -> None:
    made = parts(shape, steps)
    exact = [part.clone().requires_grad_() for part in made]
    mine = [part.requires_grad_() for part in single(made)]
    want, got = exactly(exact, shape), compiled_way(mine, shape, library)
    assert error(got, want) < 1e-5
    draw = torch.Generator().manual_seed(3)
    cotangent = torch.randn(want.shape, generator=draw, dtype=want.dtype)
    expected = torch.autograd.grad(want, exact, cotangent)
    found = torch.autograd.grad(got, mine, cotangent.to(got.dtype))
    for name, one, right in zip(NAMES, found, expected, strict=True):
        assert one.dtype == (torch.complex64 if name == "field" else torch.float32)
        assert error(one, right) < CLOSE, name


def test_a_frozen_medium_passes_the_same_gradient_on(library: Library) -> None:
    shape = (16, 32)
    pulled = []
    for frozen in (False, True):
        made = single(parts(shape, 3))
        for part in made[:1] if frozen else made:
            part.requires_grad_()
        out = compiled_way(made, shape, library)
        pulled.append(torch.autograd.grad(out.abs().sum(), made[0])[0])
    assert torch.equal(*pulled)


def test_the_derivative_can_be_differentiated(library: Library) -> None:
    shape = (16, 16)
    made = parts(shape, 2)
    second = []
    for way in (False, True):
        leaves = [part.requires_grad_() for part in (single(made) if way else made)]
        light = compiled_way(leaves, shape, library) if way else exactly(leaves, shape)
        out = light.abs().square().sum(dim=0)[0, 0]
        (first,) = torch.autograd.grad(out, leaves[0], create_graph=True)
        second.append(torch.autograd.grad(first.abs().sum(), leaves[1:]))
    for name, right, got in zip(NAMES[1:], *second, strict=True):
        assert error(got, right) < CLOSE, name


def test_each_field_crosses_and_comes_back_by_itself(library: Library) -> None:
    shape = (16, 32)
    field, length, *kicks = single(parts(shape, 3, count=5))
    medium = FusedMedium(library, waves(shape), length, Kicks(*kicks))
    whole, course = medium.cross(field, keep=True)
    assert course is not None
    back = medium.back(whole, course, inner=False).field
    for at in range(5):
        one, way = medium.cross(field[at : at + 1], keep=True)
        assert way is not None
        assert torch.equal(one[0], whole[at])
        assert torch.equal(medium.back(one, way, inner=False).field[0], back[at])
    assert torch.equal(medium.cross(field, keep=False)[0], whole)


def test_what_it_is_given_stays_as_it_was(library: Library) -> None:
    shape = (16, 16)
    field, length, *kicks = single(parts(shape, 2))
    medium = FusedMedium(library, waves(shape), length, Kicks(*kicks))
    before = field.clone()
    crossed, course = medium.cross(field.mT.contiguous().mT, keep=True)
    assert torch.equal(field, before)
    assert torch.equal(crossed, medium.cross(field, keep=False)[0])
    assert course is not None
    gradient, held = crossed.clone(), crossed.clone()
    first = medium.back(gradient, course, inner=True)
    assert torch.equal(gradient, held)
    # The same a second time: nothing of a course is used up, and no order is chance's.
    for one, other in zip(first, medium.back(held, course, inner=True), strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(16, 24), (8, 16), (16, 2048)])
def test_refuses_grids_that_it_does_not_know(
    library: Library, shape: tuple[int, int]
) -> None:
    _, length, *kicks = single(parts(shape, 1, count=1))
    with pytest.raises(ValueError, match=r"grid=\[\d+, \d+\], expected powers of two"):
        FusedMedium(library, waves(shape), length, Kicks(*kicks))


def test_refuses_fields_of_another_grid_or_precision(library: Library) -> None:
    field, length, *kicks = single(parts((16, 16), 1))
    medium = FusedMedium(library, waves((16, 16)), length, Kicks(*kicks))
    for wrong in (field.to(torch.complex128), field[:, :8]):
        with pytest.raises(ValueError, match=r"expected torch.complex64 and \(any, 16"):
            medium.cross(wrong, keep=False)
