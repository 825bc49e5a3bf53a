"""The compiled kernel does what torch does."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from labctl.optics.fused.build import Built
from labctl.optics.fused.library import Library
from labctl.optics.fused.plan import FusedPlan, refusal
from labctl.optics.medium import SaturableKerr
from labctl.optics.propagation import Plan, plan, propagate

# Each stage of the transforms, odd and even; square and not.
SHAPES = [(16, 16), (16, 64), (64, 32), (32, 128)]
MEDIA: list[dict[str, Any]] = [
    {"b": 3.0, "saturation": 1.0, "edge": 2.0},
    {"b": 3.0},
    {"b": 0.0, "edge": 1.0},
    {"b": 0.0},
    {"b": -17.0, "saturation": 0.75, "loss": 0.2},
    {"b": 2.0, "guide": 0.02, "saturation": 2.0},
]


@pytest.fixture
def library(compiled: Built) -> Library:
    return Library(compiled.path)


def entrance(shape: tuple[int, int], count: int = 3, seed: int = 1) -> Tensor:
    """Gaussian beams behind macropixels of random phase, off the middle."""
    source = torch.Generator().manual_seed(seed)
    blocks = torch.rand(count, shape[0] // 4, shape[1] // 4, generator=source)
    phase = math.pi * blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    y, x = (torch.linspace(-1, 1, side) for side in shape)
    beam = torch.exp(-2 * (y[:, None] - 0.1) ** 2 - (x[None] + 0.2) ** 2)
    return torch.polar(beam.expand_as(phase), phase)


def ready(shape: tuple[int, int], dtype: torch.dtype, **medium: float) -> Plan:
    source = torch.Generator().manual_seed(2)
    made = SaturableKerr(**({"steps": 16} | medium))  # type: ignore[arg-type]  # steps is whole
    screens = {
        place: 0.3 * torch.randn(shape, generator=source, dtype=torch.float64)
        for place in (0.375, 0.5)
    }
    return plan(
        made, shape, 4.0, screens=screens if made.steps == 16 else {}, dtype=dtype
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("medium", MEDIA)
def test_agrees_with_torch_in_double_precision(
    library: Library, shape: tuple[int, int], medium: dict[str, float]
) -> None:
    check(library, shape, medium, 16)


@pytest.mark.parametrize("steps", [1, 2, 15])
def test_agrees_with_torch_in_any_number_of_steps(library: Library, steps: int) -> None:
    check(library, (16, 32), {"b": -10.0, "saturation": 1.3, "edge": 2.0}, steps)


def check(
    library: Library, shape: tuple[int, int], medium: dict[str, float], steps: int
) -> None:
    exact, single = (
        ready(shape, dtype, steps=steps, **medium)
        for dtype in (torch.complex128, torch.complex64)
    )
    field = entrance(shape)
    before = field.clone()
    want = propagate(field.to(torch.complex128), exact)
    got = propagate(field, FusedPlan(single, library)).to(torch.complex128)
    assert torch.equal(field, before)
    error = (got - want).abs().max() / want.abs().max()
    # The bound that a user is promised is 2e-4; a slip of a table is far above this.
    assert float(error) < 5e-5
    relative = torch.linalg.vector_norm(got - want) / torch.linalg.vector_norm(want)
    assert float(relative) < 1e-4


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_do_not_change_a_bit(library: Library, size: int) -> None:
    shape = (16, 32)
    fused = FusedPlan(ready(shape, torch.complex64, b=3.0, saturation=1.0), library)
    field = entrance(shape, 70)
    whole = fused.through(field)
    parts = [fused.through(field[at : at + size]) for at in range(0, 70, size)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(propagate(field, fused), whole)


def test_takes_fields_however_they_lie_in_memory(library: Library) -> None:
    shape = (16, 32)
    fused = FusedPlan(ready(shape, torch.complex64, b=3.0), library)
    field = entrance(shape, 4)
    want = fused.through(field[::2])
    turned = field.conj().clone().conj()[::2].mT.contiguous().mT
    assert not turned.is_contiguous()
    assert torch.equal(fused.through(turned), want)


def test_gradients_are_torchs(library: Library) -> None:
    shape = (16, 32)
    single = ready(shape, torch.complex64, b=3.0, saturation=1.0)
    fused = FusedPlan(single, library)
    phase = torch.angle(entrance(shape)).requires_grad_()
    pulled = [
        torch.autograd.grad(
            propagate(torch.polar(torch.ones_like(phase), phase), each)[:, 3:9]
            .abs()
            .sum(),
            phase,
        )[0]
        for each in (single, fused)
    ]
    assert torch.equal(*pulled)
    assert bool(pulled[0].any())


@pytest.mark.parametrize(
    ("shape", "dtype", "bleaching", "text"),
    [
        ((16, 24), torch.complex64, False, r"grid=\[16, 24\], expected powers of two"),
        ((8, 16), torch.complex64, False, "from 16 to 1024"),
        ((16, 32), torch.complex128, False, "precision=complex128"),
        ((16, 32), torch.complex64, True, "bleaching=True"),
    ],
)
def test_refuses_what_it_does_not_know(
    library: Library,
    shape: tuple[int, int],
    dtype: torch.dtype,
    bleaching: bool,
    text: str,
) -> None:
    medium = SaturableKerr(b=1.0, loss=0.1, saturation=1.0, bleaching=bleaching)
    made = plan(medium, shape, 4.0, dtype=dtype)
    assert refusal(made)
    with pytest.raises(ValueError, match=text):
        FusedPlan(made, library)


def test_refuses_fields_of_another_shape_or_precision(library: Library) -> None:
    fused = FusedPlan(ready((16, 32), torch.complex64, b=3.0), library)
    with pytest.raises(ValueError, match=r"expected torch\.complex64 and \(any, 16"):
        fused.through(entrance((32, 16)))
    with pytest.raises(ValueError, match=r"field of torch\.complex128"):
        fused.through(entrance((16, 32)).to(torch.complex128))
