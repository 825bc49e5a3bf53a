"""A fake device, linear optics: y = |W exp(i phase)|^2, with or without noise."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from labctl.training.blackbox import Device, Response


@dataclass
class FakeDevice:
    """Deterministic in (seed, shot), as the simulated bench is.

    Parameters
    ----------
    layout, outputs
        Shapes.
    mean_e
        Mean output.
    noise
        Shot noise is added when true.
    levels
        Steps a turn that the shown phase is rounded to; 0 for none.
    """

    layout: tuple[int, int] = (4, 6)
    outputs: int = 5
    mean_e: float = 200.0
    noise: bool = False
    levels: int = 0
    dtype: torch.dtype = torch.float64
    shots: int = 0
    calls: list[tuple[str, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(11)
        shape = (self.outputs, 3, self.pixels)
        real = torch.randn(shape, generator=generator, dtype=torch.float64)
        imag = torch.randn(shape, generator=generator, dtype=torch.float64)
        scale = (self.mean_e / (6 * self.pixels)) ** 0.5
        self.field = (scale * torch.complex(real, imag)).to(
            torch.complex64 if self.dtype == torch.float32 else torch.complex128
        )

        self.normal = torch.randn(40_009, self.outputs, generator=generator)

    @property
    def pixels(self) -> int:
        return self.layout[0] * self.layout[1]

    def clean(self, phase: Tensor) -> Tensor:
        """Return the outputs without noise, differentiable."""
        light = torch.polar(torch.ones_like(phase), phase)
        mode = torch.einsum("omp,bp->bom", self.field, light)
        return (mode.real**2 + mode.imag**2).sum(dim=2)

    def gradient(self, phase: Tensor, cotangent: Tensor) -> Tensor:
        """Return the true gradient."""
        with torch.enable_grad():
            leaf = phase.detach().requires_grad_()
            (found,) = torch.autograd.grad(self.clean(leaf), leaf, cotangent)
        return found

    def __call__(
        self, phase: Tensor, *, category: str, layer: int, step: int
    ) -> Response:
        assert not phase.requires_grad
        self.calls.append((category, layer, step, len(phase)))
        shown = torch.remainder(phase.to(self.dtype), 2 * torch.pi)
        if self.levels:
            unit = 2 * torch.pi / self.levels
            shown = torch.remainder(torch.round(shown / unit), self.levels) * unit
        y = self.clean(shown)
        shot = torch.arange(self.shots, self.shots + len(phase))
        self.shots += len(phase)
        if self.noise:
            normal = self.normal[shot % len(self.normal)].to(y)
            y = y + y.sqrt() * normal
        return Response(y, shown, shot)

    def spent(self) -> dict[str, int]:
        """Return the exposures by category."""
        counts: dict[str, int] = {}
        for category, _, _, number in self.calls:
            counts[category] = counts.get(category, 0) + number
        return counts


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def make_device() -> type[FakeDevice]:
    return FakeDevice


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def _is_a_device(fake: FakeDevice) -> Device:
    return fake
