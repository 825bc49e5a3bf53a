"""Propagation through a medium: Strang-split steps on a periodic grid.

Fields are ``(field, row, column)``; lengths are in grid points. The transfer
function is kept in FFT order, so that nothing is shifted inside the loop.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from labctl.optics.lens import intensity
from labctl.optics.medium import SaturableKerr, edge_profile, radius_squared


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
        Factor of the field whatever its intensity: screen, guide and absorber;
        None for 1.
    loss
        Absorption of the intensity by this kick alone.
    bleaching
        Whether that absorption saturates; else it is in the mask already.
    """

    b: float
    saturation: float
    mask: Complex[Tensor, "row column"] | None = None
    loss: float = 0.0
    bleaching: bool = False

    def __call__(
        self, field: Complex[Tensor, "field row column"]
    ) -> Complex[Tensor, "field row column"]:
        """Apply the kick."""
        if self.bleaching:
            field = field * self._bleached(intensity(field))
        elif self.b != 0:
            response = intensity(field)
            if self.loss > 0:
                # Half of the light lost is lost before the middle of the kick:
                # without this the scheme is of first order.
                response = response * math.exp(-self.loss / 2)
            if math.isfinite(self.saturation):
                response = response / (1 + response / self.saturation)
            # A saturated response never exceeds the saturation intensity.
            field = field * turn(response * self.b, abs(self.b) * self.saturation)
        return field if self.mask is None else field * self.mask

    def _bleached(
        self, before: Float[Tensor, "field row column"]
    ) -> Complex[Tensor, "field row column"]:
        half = torch.exp(-self.loss / 2 / (1 + before / self.saturation))
        middle = before * half
        left = 1 / (1 + middle / self.saturation)
        return torch.polar(torch.exp(-self.loss / 2 * left), middle * left * self.b)


# Up to this angle the polynomials below are as exact as single precision; they
# cost two thirds of torch.polar, which is a quarter of a step.
_SMALL_RAD = 0.5
_COSINE = (1.0, -1 / 2, 1 / 24)
_SINE = (1.0, -1 / 6, 1 / 120)


@cache
def _coefficients(device: torch.device) -> tuple[tuple[Tensor, ...], ...]:
    # Where the angles are: what is recorded for a CUDA device may copy nothing there.
    return tuple(
        tuple(torch.tensor(c, device=device) for c in series)
        for series in (_COSINE, _SINE)
    )


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
    even, odd = _coefficients(angle.device)
    cosine = _horner(even, square, -1 / 720)
    sine = _horner(odd, square, -1 / 5040)
    return torch.complex(cosine, sine * angle)


def _horner(
    low: tuple[Tensor, ...], x: Float[Tensor, "*shape"], highest: float
) -> Float[Tensor, "*shape"]:
    *rest, last = low
    total = torch.add(last, x, alpha=highest)
    for coefficient in reversed(rest):
        total = torch.addcmul(coefficient, x, total)
    return total


class Crossing(Protocol):
    """A medium made ready for a grid, whatever its equation."""

    @property
    @abstractmethod
    def chunk(self) -> int:
        """Fields computed together; so many stay in the processor's cache."""

    @abstractmethod
    def through(
        self, field: Complex[Tensor, "field row column"]
    ) -> Complex[Tensor, "field row column"]:
        """Carry one chunk of fields from the entrance to the exit face."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A Kerr medium made ready for a grid.

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

    def through(
        self, field: Complex[Tensor, "field row column"]
    ) -> Complex[Tensor, "field row column"]:
        """Carry one chunk of fields from the entrance to the exit face."""
        first, *rest = self.kicks
        field = first(field)
        for kick in rest:
            spectrum = torch.fft.fft2(field) * self.transfer
            field = kick(torch.fft.ifft2(spectrum, norm="forward"))
        return field


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
    at_node = screens_by_node(screens or {}, steps, shape)
    lost = 0.0 if medium.bleaching else medium.loss
    exponent = medium.edge * edge_profile(shape) + lost / 2
    lag = medium.guide * radius_squared(shape) / macropixel**2
    weights = node_weights(steps)
    # Most nodes are of one weight and without a screen: their mask is the same.
    left = {weight: torch.exp(-exponent * weight) for weight in {*weights}}

    def masked(weight: float, screen: Tensor) -> Tensor:
        return torch.polar(left[weight], screen - lag * weight).to(dtype)

    bare: dict[float, Tensor] = {}
    if bool((exponent > 0).any()) or medium.guide > 0:
        bare = {each: masked(each, torch.zeros_like(exponent)) for each in left}
    kicks = []
    for node, weight in enumerate(weights):
        screen = at_node.get(node)
        mask = bare.get(weight) if screen is None else masked(weight, screen)
        kicks.append(
            Kick(
                medium.b * weight,
                medium.saturation,
                mask,
                medium.loss * weight,
                bleaching=medium.bleaching,
            )
        )
    return Plan(
        step_transfer(shape, medium.fresnel * macropixel**2 / steps, dtype),
        tuple(kicks),
        chunk_size(shape),
    )


def node_weights(steps: int) -> list[float]:
    """Share of the medium that each kick stands for: half a step at both faces.

    Parameters
    ----------
    steps
        Steps of the scheme.

    Returns
    -------
    weights
        One more than steps; their sum is 1.
    """
    return [(0.5 if node in {0, steps} else 1.0) / steps for node in range(steps + 1)]


def step_transfer(
    shape: tuple[int, int], distance: float, dtype: torch.dtype
) -> Complex[Tensor, "row column"]:
    """Diffraction over one step, divided by the number of grid points.

    Parameters
    ----------
    shape
        Grid ``(height, width)``.
    distance
        Length of the step over wavenumber, in squared grid points.
    dtype
        Precision of the result.

    Returns
    -------
    transfer
        For two Fourier transforms of which neither is normalised.
    """
    step = transfer(shape, distance, torch.complex128) / (shape[0] * shape[1])
    return step.to(dtype)


def screens_by_node(
    screens: Mapping[float, Float[Tensor, "row column"]],
    steps: int,
    shape: tuple[int, int],
) -> dict[int, Float[Tensor, "row column"]]:
    """Find the kick at which each thin screen stands.

    Parameters
    ----------
    screens
        In rad, by place as a fraction of the length.
    steps
        Steps of the scheme.
    shape
        Grid ``(height, width)``.

    Returns
    -------
    screens
        By number of the kick, in float64.

    Raises
    ------
    ValueError
        A screen does not lie between two steps, or has another shape.
    """
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
    field: Complex[Tensor, "field row column"], plan: Crossing
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
    if len(field) <= plan.chunk:
        return plan.through(field)
    starts = range(0, len(field), plan.chunk)
    return torch.cat([plan.through(field[at : at + plan.chunk]) for at in starts])
