"""Lenses: from the exit face to the sensor."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def far_field(
    field: Complex[Tensor, "field row column"],
) -> Complex[Tensor, "field row column"]:
    """Field in the focal plane of a lens, the zero order in the middle.

    Unitary: the power stays. A grating of f periods over the window goes f
    pixels off the middle pixel ``(height // 2, width // 2)``, towards higher
    indices where its phase rises with the index.

    Parameters
    ----------
    field
        Fields in the front focal plane.

    Returns
    -------
    field
        Fields in the back focal plane, up to a phase that no camera sees.
    """
    spectrum: Tensor = torch.fft.fft2(field, norm="ortho")
    centred: Tensor = torch.fft.fftshift(spectrum, dim=(-2, -1))
    return centred


def far_intensity(
    field: Complex[Tensor, "field row column"],
) -> Float[Tensor, "field row column"]:
    """Squared magnitude of :func:`far_field`, to the bit, in less time.

    Parameters
    ----------
    field
        Fields in the front focal plane.

    Returns
    -------
    intensity
        In the back focal plane.
    """
    # Of real numbers only half as much is moved to the middle.
    light = intensity(torch.fft.fft2(field, norm="ortho"))
    centred: Tensor = torch.fft.fftshift(light, dim=(-2, -1))
    return centred


def intensity(
    field: Complex[Tensor, "field row column"],
) -> Float[Tensor, "field row column"]:
    """Squared magnitude of a field.

    Parameters
    ----------
    field
        Any fields.

    Returns
    -------
    intensity
        Real, of the same precision.
    """
    parts = torch.view_as_real(field.resolve_conj())
    # Squaring the parts as they lie in memory first is faster than taking the
    # real and the imaginary ones apart first.
    squares = parts * parts
    return squares[..., 0] + squares[..., 1]
