"""Propagation through a medium: Strang-split steps on a periodic grid.

Fields are ``(field, row, column)``; lengths are in grid points. The transfer
function is kept in FFT order, so that nothing is shifted inside the loop.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from labctl.optics.lens import intensity
from labctl.optics.medium import SaturableKerr, edge_profile


def transfer(
    shape: tuple[int, int], distance: float, dtype: torch.dtype = torch.complex64
) -> Complex[Tensor, "row column"]:
    """Transfer function of paraxial diffraction, in FFT order.

    Built in float64 and cast once: at complex64 the phases alone would cost
    three digits.

    Parameters
    ----------
    shape
        Grid ``(height, width)``.
    distance
        Length over wavenumber, z/k, in squared grid points.
    dtype
        Precision of the result.

    Returns
    -------
    transfer
        Factor of each plane wave.
    """
    row, column = (
        2 * math.pi * torch.fft.fftfreq(side, dtype=torch.float64) for side in shape
    )
    phase = -(row[:, None] ** 2 + column[None] ** 2) * distance / 2
    return torch.polar(torch.ones_like(phase), phase).to(dtype)


@dataclass(frozen=True, eq=False)
class Kick:
    """What happens at one place: nonlinear phase, screen and absorption.

    Parameters
    ----------
    b
        Nonlinear phase at I = 1 of this kick alone.
    saturation
        Saturation intensity.
    mask
        Factor of the field whatever its intensity: screen and absorber; None
        for 1.
    """

    b: float
    saturation: float
    mask: Complex[Tensor, "row column"] | None = None

    def __call__(
        self, field: Complex[Tensor, "field row column"]
    ) -> Complex[Tensor, "field row column"]:
        """Apply the kick."""
        if self.b != 0:
            response = intensity(field)
            if math.isfinite(self.saturation):
                response = response / (1 + response / self.saturation)
            # A saturated response never exceeds the saturation intensity.
            field = field * turn(response * self.b, abs(self.b) * self.saturation)
        return field if self.mask is None else field * self.mask


# Up to this angle the polynomials below are as exact as single precision; they
# cost two thirds of torch.polar, which is a quarter of a step.
_SMALL_RAD = 0.5
_COSINE = tuple(torch.tensor(c) for c in (1.0, -1 / 2, 1 / 24))
_SINE = tuple(torch.tensor(c) for c in (1.0, -1 / 6, 1 / 120))


def turn(
    angle: Float[Tensor, "field row column"], bound: float
) -> Complex[Tensor, "field row column"]:
    """Make unit phasors, exp(i angle).

    Parameters
    ----------
    angle
        In rad.
    bound
        No angle is greater than this.

    Returns
    -------
    phasor
        To the precision of the angles.
    """
    if bound > _SMALL_RAD or angle.dtype != torch.float32:
        return torch.polar(torch.ones_like(angle), angle)
    square = angle * angle
    cosine = _horner(_COSINE, square, -1 / 720)
    sine = _horner(_SINE, square, -1 / 5040)
    return torch.complex(cosine, sine * angle)


def _horner(
    low: tuple[Tensor, ...], x: Float[Tensor, "*shape"], highest: float
) -> Float[Tensor, "*shape"]:
    *rest, last = low
    total = torch.add(last, x, alpha=highest)
    for coefficient in reversed(rest):
        total = torch.addcmul(coefficient, x, total)
    return total


@dataclass(frozen=True, eq=False)
class Plan:
    """A medium made ready for a grid.

    Parameters
    ----------
    transfer
        Diffraction over one step, divided by the number of grid points: neither
        Fourier transform of a step is then normalised.
    kicks
        One more than steps: half a kick at both faces, whole ones between.
    chunk
        Fields propagated together; so many stay in the processor's cache.
    """

    transfer: Complex[Tensor, "row column"]
    kicks: tuple[Kick, ...]
    chunk: int


# Measured: 8 fields of 64 x 64 and 16 of 32 x 32 are fastest on a core with
# 1 MiB of cache; more fall out of it, fewer pay the overhead of each call.
_CHUNK_POINTS, _CHUNK_FIELDS = 32768, 16


def chunk_size(shape: tuple[int, int]) -> int:
    """Fields of a grid that are best computed together.

    Parameters
    ----------
    shape
        Grid ``(height, width)``.

    Returns
    -------
    fields
        At least 1.
    """
    return max(1, min(_CHUNK_FIELDS, _CHUNK_POINTS // (shape[0] * shape[1])))


def plan(
    medium: SaturableKerr,
    shape: tuple[int, int],
    macropixel: float,
    *,
    screens: Mapping[float, Float[Tensor, "row column"]] | None = None,
    dtype: torch.dtype = torch.complex64,
) -> Plan:
    """Make a medium ready for a grid.

    Parameters
    ----------
    medium
        The medium.
    shape
        Grid ``(height, width)``.
    macropixel
        Side of a macropixel in grid points: the length that ``fresnel`` is of.
    screens
        Thin phase screens, in rad, by their place in the medium as a fraction
        of its length; each place must fall between two steps.
    dtype
        Precision: complex64, or complex128 to check it.

    Returns
    -------
    plan
        For :func:`propagate`.

    Raises
    ------
    ValueError
        A screen does not lie between two steps, or has another shape.
    """
    steps = medium.steps
    at_node = _by_node(screens or {}, steps, shape)
    exponent = medium.edge * edge_profile(shape) + medium.loss / 2
    kicks = []
    for node in range(steps + 1):
        weight = (0.5 if node in {0, steps} else 1.0) / steps
        mask = None
        if node in at_node or bool((exponent > 0).any()):
            screen = at_node.get(node, torch.zeros_like(exponent))
            mask = torch.polar(torch.exp(-exponent * weight), screen).to(dtype)
        kicks.append(Kick(medium.b * weight, medium.saturation, mask))
    distance = medium.fresnel * macropixel**2 / steps
    step = transfer(shape, distance, torch.complex128) / (shape[0] * shape[1])
    return Plan(step.to(dtype), tuple(kicks), chunk_size(shape))


def _by_node(
    screens: Mapping[float, Float[Tensor, "row column"]],
    steps: int,
    shape: tuple[int, int],
) -> dict[int, Float[Tensor, "row column"]]:
    at_node = {}
    for place, screen in screens.items():
        node = round(place * steps)
        if abs(node - place * steps) > 1e-9 or not 0 <= node <= steps:
            text = (
                f"screen at {place} of the length, expected between two of "
                f"{steps} steps. Take another number of steps."
            )
            raise ValueError(text)
        if tuple(screen.shape) != shape:
            text = f"screen of shape {tuple(screen.shape)}, expected {shape}"
            raise ValueError(text)
        at_node[node] = screen.double()
    return at_node


def propagate(
    field: Complex[Tensor, "field row column"], plan: Plan
) -> Complex[Tensor, "field row column"]:
    """Carry fields from the entrance to the exit face.

    Parameters
    ----------
    field
        Fields at the entrance, of the plan's precision.
    plan
        The medium, made ready for this grid.

    Returns
    -------
    field
        Fields at the exit face.
    """
    starts = range(0, len(field), plan.chunk)
    return torch.cat([_through(field[at : at + plan.chunk], plan) for at in starts])


def _through(
    field: Complex[Tensor, "field row column"], plan: Plan
) -> Complex[Tensor, "field row column"]:
    first, *rest = plan.kicks
    field = first(field)
    for kick in rest:
        spectrum = torch.fft.fft2(field) * plan.transfer
        field = kick(torch.fft.ifft2(spectrum, norm="forward"))
    return field
