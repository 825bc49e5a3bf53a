"""Known functions, and fits of surrogates to them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pytest
import torch
from torch import Generator, Tensor

from labctl.optics.lens import far_field, intensity
from labctl.optics.medium import SaturableKerr
from labctl.optics.propagation import plan, propagate
from labctl.training.surrogate.build import build
from labctl.training.surrogate.fit import Fitter
from labctl.training.surrogate.settings import Ports, SurrogateSettings

Function = Callable[[Tensor], Tensor]
MATRIX = torch.randn(5, 7, generator=Generator().manual_seed(3))


@dataclass(frozen=True)
class Task:
    """A function whose Jacobian is known, and where it is asked."""

    function: Function
    pixels: int
    outputs: int
    circular: bool = False
    layout: tuple[int, int] | None = None

    def points(self, count: int, generator: Generator) -> Tensor:
        if self.circular:
            turns = torch.rand(count, self.pixels, generator=generator)
            return 2 * torch.pi * turns
        return torch.randn(count, self.pixels, generator=generator)

    def cosine(self, fitter: Fitter) -> float:
        """Mean cosine between the answer and the true VJP, at fresh points."""
        generator = Generator().manual_seed(99)
        point = self.points(500, generator).requires_grad_()
        cotangent = torch.randn(500, self.outputs, generator=generator)
        (true,) = torch.autograd.grad(self.function(point), point, cotangent)
        got = fitter.answering.vjp(cotangent, point.detach()).detach()
        return float(torch.nn.functional.cosine_similarity(true, got).mean())


class Fit(Protocol):
    """Fit a surrogate to a task."""

    def __call__(
        self, task: Task, settings: SurrogateSettings, *, shots: int, steps: int
    ) -> Fitter: ...


@pytest.fixture
def matrix_task() -> Task:
    """``y = A x``, with 7 inputs and 5 outputs."""
    return Task(lambda x: x @ MATRIX.T, pixels=7, outputs=5)


@pytest.fixture
def product_task() -> Task:
    """``f(x, theta) = theta x`` at 4 x 4; alpha is x, then theta by rows."""

    def function(alpha: Tensor) -> Tensor:
        theta = alpha[:, 4:].view(-1, 4, 4)
        return (theta @ alpha[:, :4, None])[:, :, 0]

    return Task(function, pixels=20, outputs=4)


@pytest.fixture
def optics_task() -> Task:
    """Linear optics ``|W exp(i phi)|^2``, 12 camera pixels in 3 bins."""
    weight = torch.randn(
        10, 12, dtype=torch.complex64, generator=Generator().manual_seed(0)
    )

    def function(phase: Tensor) -> Tensor:
        power = (torch.exp(1j * phase) @ weight).abs().square()
        return power.view(-1, 3, 4).sum(dim=2)

    return Task(function, pixels=10, outputs=3, circular=True, layout=(2, 5))


@pytest.fixture
def kerr_task() -> Task:
    """A saturable Kerr medium behind 4 x 6 macropixels, far field in 4 bins."""
    screen = torch.randn(8, 12, generator=Generator().manual_seed(0))
    medium = SaturableKerr(b=3.0, saturation=1.0, fresnel=0.1, steps=4)
    ready = plan(medium, (8, 12), 2.0, screens={0.5: screen})

    def function(phase: Tensor) -> Tensor:
        panel = phase.view(-1, 4, 6)
        panel = panel.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        entrance = torch.polar(torch.ones_like(panel), panel)
        light = intensity(far_field(propagate(entrance, ready)))
        return light.view(-1, 2, 4, 2, 6).sum(dim=(2, 4)).flatten(1)

    return Task(function, pixels=24, outputs=4, circular=True, layout=(4, 6))


@pytest.fixture
def fit() -> Fit:
    """Build, observe values and single probes, fit."""

    def run(
        task: Task, settings: SurrogateSettings, *, shots: int, steps: int
    ) -> Fitter:
        generator = Generator().manual_seed(0)
        surrogate = build(
            settings,
            Ports(
                task.pixels, task.outputs, circular=task.circular, layout=task.layout
            ),
            generator,
        )
        fitter = Fitter(surrogate, settings, generator)
        base = task.points(shots, generator)
        step = 0.1 * torch.randn(shots, 1, task.pixels, generator=generator)
        y = task.function(base)
        fitter.observe_values(base, y)
        moved = task.function(base + step[:, 0])
        fitter.observe_probes(base, step, (moved - y)[:, None])
        fitter.step(steps)
        return fitter

    return run
