"""Fake devices: linear optics, y = |W exp(i phase)|^2, and one of known curvature."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from typing_extensions import override

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


class Bent(Device):
    """A device whose slope, curvature, third derivative and noise are known.

    ``y_k = x_k + bend |x|^2 / 2 + twist (b.x)^3 / 6 + noise``, x from an operating
    point, b of length one.
    """

    def __init__(self, bend: float, twist: float, noise: float) -> None:
        self.bend, self.twist, self.noise = bend, twist, noise
        self.shots = 0
        self.draw = torch.Generator().manual_seed(5)

    @property
    @override
    def layout(self) -> tuple[int, int]:
        return (4, 6)

    @property
    @override
    def pixels(self) -> int:
        return 24

    @property
    @override
    def outputs(self) -> int:
        return 5

    @override
    def __call__(
        self, phase: Tensor, *, category: str, layer: int, step: int
    ) -> Response:
        assert category in {"train", "probe"}
        x = phase.double() - 3.0
        even = self.bend * x.square().sum(dim=1) / 2
        odd = self.twist * x.mean(dim=1).mul(24**0.5) ** 3 / 6
        y = x[:, :5] + (even + odd)[:, None]
        y = y + self.noise * torch.randn(y.shape, generator=self.draw, dtype=y.dtype)
        shot = torch.arange(self.shots, self.shots + len(y))
        self.shots += len(y)
        return Response(y, phase, shot)

    def paired_rad(self, n: int = 24) -> float:
        """Where ``(2 s^2 + q h^4) / h^2`` is least along n directions.

        E (z.z)^2 = n^2 + 2 n.
        """
        return float((2 * self.noise**2 / (self.bend**2 / 4 * (n**2 + 2 * n))) ** 0.25)

    @property
    def central_rad(self) -> float:
        """Where ``(2 s^2 + c h^6) / (4 h^2)`` is least; E z^6 = 15."""
        return float((self.noise**2 / (self.twist**2 * 15 / 9)) ** (1 / 6))


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
