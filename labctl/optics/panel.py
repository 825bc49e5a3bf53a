"""The modulating panel: gray level to phase, crosstalk, unmodulated light."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor


@dataclass(frozen=True)
class PhaseCurve:
    """Phase of a gray level: a straight line bent by a smooth cubic.

    With u from 0 (level 0) to 1 (one level beyond the last)::

        phase = span_rad (u + bow u (1 - u) + skew u (1 - u) (1 - 2 u))

    Parameters
    ----------
    span_rad
        Phase at u = 1.
    bow, skew
        Size of the two bends, as fractions of the span.

    Raises
    ------
    ValueError
        The curve does not rise everywhere.
    """

    span_rad: float
    bow: float = 0.0
    skew: float = 0.0

    def __post_init__(self) -> None:
        u = torch.linspace(0, 1, 257, dtype=torch.float64)
        if not bool((self._slope(u) > 0).all()):
            text = (
                f"bow={self.bow:.3g}, skew={self.skew:.3g}: the phase falls "
                "somewhere, expected a curve that rises everywhere"
            )
            raise ValueError(text)

    def _slope(self, u: Float[Tensor, " level"]) -> Float[Tensor, " level"]:
        return self.span_rad * (
            1 + self.bow * (1 - 2 * u) + self.skew * (1 - 6 * u + 6 * u * u)
        )

    def __call__(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Phase at u, in rad; u may lie between two levels."""
        if self.bow == 0 and self.skew == 0:
            return u * self.span_rad
        bend = torch.add(
            torch.full_like(u, self.bow + self.skew), u, alpha=-2 * self.skew
        )
        return (u + bend * u * (1 - u)) * self.span_rad


# Beyond so many sigma a Gaussian holds less than 1e-4 of itself.
_REACH_SIGMA = 4


def blur(
    phase: Float[Tensor, "field row column"], sigma: float
) -> Float[Tensor, "field row column"]:
    """Gaussian crosstalk between neighbouring pixels.

    Acts on the phase that the pixels realise, never modulo 2 pi; beyond the
    border the panel goes on as it ends.

    Parameters
    ----------
    phase
        Phase of each pixel, in rad.
    sigma
        Width of the Gaussian in pixels; 0 for none.

    Returns
    -------
    phase
        The blurred phase.
    """
    if sigma == 0:
        return phase
    reach = math.ceil(_REACH_SIGMA * sigma)
    weight = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(reach + 1)]
    total = weight[0] + 2 * sum(weight[1:])
    weight = [w / total for w in weight]
    padded = torch.nn.functional.pad(
        phase.unsqueeze(1), (reach, reach, reach, reach), mode="replicate"
    ).squeeze(1)
    # Sums of shifted copies, the same for every pixel and every batch: a
    # convolution library may choose another order of summing for another batch.
    rows = _shifted_sum(padded, weight, dim=-2)
    return _shifted_sum(rows, weight, dim=-1)


def _shifted_sum(
    padded: Float[Tensor, "field row column"], weight: list[float], dim: int
) -> Float[Tensor, "field out_row out_column"]:
    reach = len(weight) - 1
    length = padded.shape[dim] - 2 * reach
    total = padded.narrow(dim, reach, length) * weight[0]
    for k in range(1, reach + 1):
        pair = padded.narrow(dim, reach - k, length) + padded.narrow(
            dim, reach + k, length
        )
        total = torch.add(total, pair, alpha=weight[k])
    return total


def modulate(
    phase: Float[Tensor, "field row column"], zero_order: float
) -> Complex[Tensor, "field row column"]:
    """Field behind the panel, for a plane wave of amplitude 1.

    Light that the pixels do not modulate adds coherently, at phase 0. The mean
    power over uniformly random phases is 1 whatever the share.

    Parameters
    ----------
    phase
        Phase of each pixel, in rad; positive is delay.
    zero_order
        Share of the power that is not modulated.

    Returns
    -------
    field
        The field.
    """
    amplitude = math.sqrt(1 - zero_order)
    field = torch.polar(phase.new_full((), amplitude).expand_as(phase), phase)
    return field if zero_order == 0 else field + math.sqrt(zero_order)
