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

        E_z = (i fresnel w^2 / 2) lap E + i b I/(1 + I/saturation) E
              - i guide (r/w)^2 E - (loss/2) / (1 + bleaching I/saturation) E

    where w is the side of a macropixel and r the distance from the axis; thin
    phase screens and an edge absorber are added by
    :func:`labctl.optics.propagation.plan`. ``b = 0`` without guide is free space.

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
    guide
        Phase that a parabolic index lags behind the axis at r = w, in rad; 0
        for a homogeneous medium.
    bleaching
        Whether the absorption saturates as the nonlinear phase does.

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
    guide: float = 0.0
    bleaching: bool = False

    def __post_init__(self) -> None:
        check_steps(self.steps)
        if not self.saturation > 0:
            text = f"saturation={self.saturation}, expected more than 0"
            raise ValueError(text)
        for name in ("fresnel", "loss", "edge", "guide"):
            check_not_negative(name, getattr(self, name))
        check_finite("b", self.b)


@dataclass(frozen=True)
class SecondHarmonic:
    """A chi(2) medium: the fundamental wave and its second harmonic.

    With z from 0 to 1 through the medium and no harmonic at the entrance::

        E1_z = (i fresnel w^2 / 2) lap E1 + i kappa conj(E1) E2 - (loss/2) E1
        E2_z = (i fresnel w^2 / 4) lap E2 + i kappa E1^2 - i mismatch E2 - (loss/2) E2

    in units in which abs(E1)^2 + abs(E2)^2 is conserved without loss. Both waves
    see the same index but for the mismatch, and no walk-off; a screen turns the
    harmonic's phase by twice the fundamental's.

    Parameters
    ----------
    kappa
        Conversion: at I = 1, without diffraction and mismatch, the harmonic
        leaves with tanh(kappa)^2.
    mismatch
        Wavevector mismatch times length, dk L, in rad.
    fresnel
        Diffraction of the fundamental across one macropixel, L/(k w^2).
    steps
        Steps of the split-step scheme.
    loss
        Linear absorption of either intensity over the whole length.
    edge
        Absorption at the window's edge, as for :class:`SaturableKerr`.
    harmonic
        Which wave a filter lets through to the camera: 1 or 2.

    Raises
    ------
    ValueError
        A number is impossible.
    """

    kappa: float
    mismatch: float = 0.0
    fresnel: float = 0.1
    steps: int = 16
    loss: float = 0.0
    edge: float = 0.0
    harmonic: int = 2

    def __post_init__(self) -> None:
        check_steps(self.steps)
        for name in ("fresnel", "loss", "edge"):
            check_not_negative(name, getattr(self, name))
        check_finite("kappa", self.kappa)
        check_finite("mismatch", self.mismatch)
        check_harmonic(self.harmonic)


@dataclass(frozen=True)
class ThickScatterer:
    """A powder that scatters many times and doubles the frequency.

    With two transmission matrices of random, independent entries::

        E1 = T1 E        E2 = sqrt(conversion) T2 (E1^2)

    Parameters
    ----------
    conversion
        Power of the second harmonic over that of a wave of I = 1 everywhere;
        the fundamental is not depleted.
    harmonic
        Which wave a filter lets through to the camera: 1 or 2.

    Raises
    ------
    ValueError
        A number is impossible.
    """

    conversion: float = 0.1
    harmonic: int = 2

    def __post_init__(self) -> None:
        check_not_negative("conversion", self.conversion)
        check_harmonic(self.harmonic)


def check_steps(steps: int) -> None:
    """Refuse a medium without a step.

    Raises
    ------
    ValueError
        Fewer than one.
    """
    if steps < 1:
        text = f"steps={steps}, expected at least 1"
        raise ValueError(text)


def check_not_negative(name: str, got: float) -> None:
    """Refuse a number that is negative or not finite.

    Raises
    ------
    ValueError
        It is.
    """
    if not 0 <= got < math.inf:
        text = f"{name}={got}, expected 0 or more"
        raise ValueError(text)


def check_finite(name: str, got: float) -> None:
    """Refuse a number that is not finite.

    Raises
    ------
    ValueError
        It is not.
    """
    if not math.isfinite(got):
        text = f"{name}={got}, expected a finite number"
        raise ValueError(text)


def check_harmonic(harmonic: int) -> None:
    """Refuse a harmonic that is not there.

    Raises
    ------
    ValueError
        Neither 1 nor 2.
    """
    if harmonic not in {1, 2}:
        text = f"harmonic={harmonic}, expected 1 or 2"
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


def radius_squared(shape: tuple[int, int]) -> Float[Tensor, "row column"]:
    """Squared distance from the middle of the window, in squared grid points.

    Parameters
    ----------
    shape
        Grid ``(height, width)``.

    Returns
    -------
    squared
        In float64.
    """
    rows, columns = (
        torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in shape
    )
    return rows[:, None] ** 2 + columns[None] ** 2
