"""The media: an equation of propagation and its dimensionless numbers."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class SaturableKerr:
    """A Kerr medium that saturates, between its entrance and its exit face.

    With ``I = abs(E)**2`` in units of the greatest intensity at the entrance at
    nominal power, and z from 0 to 1 through the medium::

        E_z = (i fresnel w^2 / 2) lap E + i b I/(1 + I/saturation) E - (loss/2) E

    where w is the side of a macropixel; thin phase screens and an edge absorber
    are added by :func:`labctl.optics.propagation.plan`. ``b = 0`` is free space.

    Parameters
    ----------
    b
        Nonlinear phase at I = 1 without saturation, in rad; positive focuses.
    saturation
        Intensity at which the response has halved; ``inf`` is pure Kerr.
    fresnel
        Diffraction across one macropixel, L/(k w^2).
    steps
        Steps of the split-step scheme.
    loss
        Linear absorption of the intensity over the whole length, alpha L.
    edge
        Absorption of the amplitude at the middle of the window's edge over the
        whole length, as an exponent; 0 for none.

    Raises
    ------
    ValueError
        A number is impossible.
    """

    b: float
    saturation: float = math.inf
    fresnel: float = 0.1
    steps: int = 16
    loss: float = 0.0
    edge: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            text = f"steps={self.steps}, expected at least 1"
            raise ValueError(text)
        if not self.saturation > 0:
            text = f"saturation={self.saturation}, expected more than 0"
            raise ValueError(text)
        for name in ("fresnel", "loss", "edge"):
            got = getattr(self, name)
            if not 0 <= got < math.inf:
                text = f"{name}={got}, expected 0 or more"
                raise ValueError(text)
        if not math.isfinite(self.b):
            text = f"b={self.b}, expected a finite number"
            raise ValueError(text)


# A super-Gaussian of this order is flat over the inner 80 % of the window and
# smooth enough to reflect nothing.
_EDGE_ORDER = 16


def edge_profile(shape: tuple[int, int]) -> Float[Tensor, "row column"]:
    """Shape of the edge absorber: 0 inside, 1 at the middle of each edge.

    Parameters
    ----------
    shape
        Grid ``(height, width)``.

    Returns
    -------
    profile
        Exponent of the absorption, in float64.
    """
    rows, columns = (
        (torch.linspace(-1, 1, side + 1, dtype=torch.float64)[:-1] + 1 / side)
        for side in shape
    )
    return rows[:, None].abs() ** _EDGE_ORDER + columns[None].abs() ** _EDGE_ORDER
