"""What a crossing of a medium is made of: kicks at nodes, waves between them."""

from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor


class Kicks(NamedTuple):
    """What happens to the light at each node.

    Parameters
    ----------
    strength
        Nonlinear phase at intensity 1 without saturation, in rad.
    saturation
        Intensity of half response.
    screen
        Phase of the disorder, in rad.
    left
        Share of the amplitude that absorption leaves, above 0.
    """

    strength: Float[Tensor, " node"]
    saturation: Float[Tensor, ""]
    screen: Float[Tensor, "node row column"]
    left: Float[Tensor, "node row column"]


class Waves(NamedTuple):
    """Diffraction of the grid's plane waves, in rad a unit of length.

    A step's transfer is ``exp(i length (rows + columns)) / points``.

    Parameters
    ----------
    rows, columns
        Of the frequencies along either axis, in the order of a transform.
    """

    rows: Float[Tensor, " row"]
    columns: Float[Tensor, " column"]

    def transfer(self, length: Float[Tensor, ""]) -> Complex[Tensor, "row column"]:
        """Return the transfer of a step.

        Parameters
        ----------
        length
            Of the step.
        """
        wave = self.rows[:, None] + self.columns
        return torch.polar(torch.full_like(wave, 1 / wave.numel()), wave * length)
