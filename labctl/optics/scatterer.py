"""Thick scattering media: random transmission matrices and the second harmonic."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from labctl.optics.medium import ThickScatterer
from labctl.optics.propagation import chunk_size


class Transmission(Protocol):
    """A linear map of fields that keeps their mean power."""

    @abstractmethod
    def __call__(
        self, field: Complex[Tensor, "field row column"]
    ) -> Complex[Tensor, "field row column"]:
        """Transmit fields."""


@dataclass(frozen=True, eq=False)
class Dense:
    """A matrix of independent complex Gaussian entries, the published model.

    Parameters
    ----------
    matrix
        ``(output, input)``, grid points in row-major order.
    """

    matrix: Complex[Tensor, "output input"]

    def __call__(
        self, field: Complex[Tensor, "field row column"]
    ) -> Complex[Tensor, "field row column"]:
        """Transmit fields."""
        # One at a time: a product of matrices may sum in another order for
        # another batch, and no bit may depend on the batch.
        flat = [torch.mv(self.matrix, each.flatten()) for each in field]
        return torch.stack(flat).reshape(field.shape)


@dataclass(frozen=True, eq=False)
class Structured:
    """Random phases, a Fourier transform, random phases, a Fourier transform.

    Unitary, and quick on large grids. That it may stand for a dense matrix is a
    guess [G]; its speckle is fully developed. Two rounds, because behind a
    single one a tilt of the input would merely shift the output.

    Parameters
    ----------
    masks
        Phasors, ``(round, row, column)``.
    """

    masks: Complex[Tensor, "round row column"]

    def __call__(
        self, field: Complex[Tensor, "field row column"]
    ) -> Complex[Tensor, "field row column"]:
        """Transmit fields."""
        for mask in self.masks:
            field = torch.fft.fft2(field * mask, norm="ortho")
        return field


def dense(
    normal: Float[Tensor, "part output input"], dtype: torch.dtype = torch.complex64
) -> Dense:
    """Make a dense transmission of normal numbers.

    Parameters
    ----------
    normal
        Standard normal numbers, real and imaginary parts.
    dtype
        Precision.

    Returns
    -------
    transmission
        Keeps the power on average.
    """
    scale = math.sqrt(2 * normal.shape[-1])
    return Dense((torch.complex(normal[0], normal[1]) / scale).to(dtype))


def structured(
    phase: Float[Tensor, "round row column"], dtype: torch.dtype = torch.complex64
) -> Structured:
    """Make a structured transmission of random phases.

    Parameters
    ----------
    phase
        Uniform over a turn, in rad.
    dtype
        Precision.

    Returns
    -------
    transmission
        Keeps the power exactly.
    """
    return Structured(torch.polar(torch.ones_like(phase), phase).to(dtype))


@dataclass(frozen=True, eq=False)
class ScatterPlan:
    """A thick scatterer made ready for a grid.

    Parameters
    ----------
    first, second
        Of the fundamental to where it converts, and of the harmonic onwards.
    amplitude
        Of the harmonic for a fundamental of amplitude 1.
    harmonic
        Which wave leaves: 1 or 2.
    chunk
        Fields computed together.
    """

    first: Transmission
    second: Transmission
    amplitude: float
    harmonic: int
    chunk: int

    def through(
        self, field: Complex[Tensor, "field row column"]
    ) -> Complex[Tensor, "field row column"]:
        """Carry one chunk of fields through the powder."""
        fundamental = self.first(field)
        if self.harmonic == 1:
            return fundamental
        return self.second(fundamental * fundamental) * self.amplitude


def plan(
    medium: ThickScatterer,
    shape: tuple[int, int],
    first: Transmission,
    second: Transmission,
) -> ScatterPlan:
    """Make a scatterer ready for a grid.

    Parameters
    ----------
    medium
        The medium.
    shape
        Grid ``(height, width)``.
    first, second
        Transmissions of fundamental and harmonic.

    Returns
    -------
    plan
        For :func:`labctl.optics.propagation.propagate`.
    """
    amplitude = math.sqrt(medium.conversion)
    return ScatterPlan(first, second, amplitude, medium.harmonic, chunk_size(shape))
