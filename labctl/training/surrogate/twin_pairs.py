"""A twin made of pairs: how the light of nearby macropixels interferes in each output.

``y_k = b_k + sum_pq Re(w_kpq exp(i (phi_p - phi_q)))``, over the macropixels p and q
that lie within ``reach`` of each other, and over each alone (with light that no pixel
modulates). Every linear optical system with a camera behind it has this form with all
pairs. A camera bin several pixels wide sees interference of neighbours almost only, so
that few weights say most of it; and the outputs are linear in them, so that a fit has
one minimum.
"""

import math
from typing import ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from labctl.training.surrogate.model import Twin
from labctl.training.surrogate.settings import FitTerm, Ports

# Weights of a device of variance one are then 1/18 in size, some twenty of the default
# steps of Adam: measured on the simulated benches, three times either way costs little.
_WEIGHT_SIZE: Final = 1 / 18


def offsets(reach: float) -> list[tuple[int, int]]:
    """List the displacements between the partners of a pair, each pair once.

    Parameters
    ----------
    reach
        Greatest distance, in macropixels.

    Returns
    -------
    displacements
        Rows and columns, by rows.
    """
    most = math.floor(reach)
    square = [(dy, dx) for dy in range(most + 1) for dx in range(-most, most + 1)]
    return [
        (dy, dx)
        for dy, dx in square
        if (dy > 0 or dx > 0) and dy * dy + dx * dx <= reach * reach
    ]


class TwinPairs(Twin):
    """Weights of the interference of nearby macropixels.

    Parameters
    ----------
    ports
        Sizes of the device; its inputs are phases, its layout is known.
    reach
        Greatest distance between the partners of a pair, in macropixels.

    Raises
    ------
    ValueError
        There is no pair, no layout, or inputs are not phases.
    """

    default_losses: ClassVar[tuple[FitTerm, ...]] = (FitTerm("value"),)

    def __init__(self, ports: Ports, *, reach: float) -> None:
        super().__init__(ports)
        if ports.layout is None or not ports.circular or not reach >= 1:
            text = (
                f"twin-pairs: reach={reach:g}, layout={ports.layout}, "
                f"circular={ports.circular}, expected a reach of at least 1 over rows "
                "and columns of phases. Take twin-dense for plain numbers."
            )
            raise ValueError(text)
        self._layout = ports.layout
        rows, columns = ports.layout
        self._offsets = [
            (dy, dx) for dy, dx in offsets(reach) if dy < rows and abs(dx) < columns
        ]
        pairs = sum((rows - dy) * (columns - abs(dx)) for dy, dx in self._offsets)
        terms = 2 * (ports.pixels + pairs)
        self._gain = 1 / (_WEIGHT_SIZE * math.sqrt(terms))
        # Outputs first: the products of a fit are then twice as fast.
        self.weight = nn.Parameter(torch.zeros(ports.outputs, terms))
        self.bias = nn.Parameter(torch.zeros(ports.outputs))

    def terms(
        self, phase: Float[Tensor, "batch pixel"]
    ) -> Float[Tensor, "batch feature"]:
        """Interference of each macropixel with constant light, and of each pair.

        Parameters
        ----------
        phase
            What the panel shows, in rad.

        Returns
        -------
        terms
            Cosines and sines of the phases, then of the differences, in turn.
        """
        rows, columns = self._layout
        panel = phase.view(-1, rows, columns)
        cosine, sine = torch.cos(panel), torch.sin(panel)
        found = [cosine, sine]
        for dy, dx in self._offsets:
            here = (
                slice(None),
                slice(0, rows - dy),
                slice(max(0, -dx), columns - max(0, dx)),
            )
            there = (
                slice(None),
                slice(dy, rows),
                slice(max(0, dx), columns + min(0, dx)),
            )
            found += [
                cosine[here] * cosine[there] + sine[here] * sine[there],
                sine[here] * cosine[there] - cosine[here] * sine[there],
            ]
        return torch.cat([part.flatten(1) for part in found], dim=1)

    @override
    def predict(
        self, phase: Float[Tensor, "batch pixel"]
    ) -> Float[Tensor, "batch output"]:
        return nn.functional.linear(
            self.terms(phase), self._gain * self.weight, self.bias
        )
