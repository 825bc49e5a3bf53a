"""A twin made of field modes, each the square of a weighted sum of the panel's light.

``y_k = b_k + sum_r M_kr |w_r . exp(i phi) + c_r|^2``. Every linear optical system
with a camera behind it has this form, with enough modes; c_r carries the light that
no pixel modulates.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from typing_extensions import override

from labctl.training.surrogate.model import Twin
from labctl.training.surrogate.settings import FitTerm, Ports


class TwinModes(Twin):
    """A bank of field modes and a mixture of their intensities.

    Parameters
    ----------
    ports
        Sizes of the device; its inputs are phases.
    modes
        Field modes.
    generator
        Source of the start.

    Raises
    ------
    ValueError
        There is no mode, or inputs are not phases.
    """

    default_losses: ClassVar[tuple[FitTerm, ...]] = (FitTerm("value"),)

    def __init__(self, ports: Ports, *, modes: int, generator: Generator) -> None:
        super().__init__(ports)
        if modes < 1 or not ports.circular:
            text = (
                f"twin-modes: modes={modes}, circular={ports.circular}, expected at "
                "least one mode of phases. Take twin-dense for plain numbers."
            )
            raise ValueError(text)
        # Each mode has intensity 1 on average under random phases, with variance 1.
        spread = (2 * ports.pixels) ** -0.5
        self.weight = nn.Parameter(
            spread * torch.randn(ports.pixels, 2 * modes, generator=generator)
        )
        self.offset = nn.Parameter(torch.zeros(2 * modes))
        mix = start_of_mix(modes, ports.outputs, generator)
        self.mix = nn.Parameter(mix)
        self.bias = nn.Parameter(-mix.sum(dim=0))

    @override
    def predict(
        self, phase: Float[Tensor, "batch pixel"]
    ) -> Float[Tensor, "batch output"]:
        # One real product for the complex one: cosines and sines as rows, real and
        # imaginary parts of the weights as columns; four quarters come out.
        light = torch.cat([torch.cos(phase), torch.sin(phase)])
        cosine, sine = (light @ self.weight).chunk(2)
        (cos_real, cos_imag), (sin_real, sin_imag) = (
            cosine.chunk(2, 1),
            sine.chunk(2, 1),
        )
        offset_real, offset_imag = self.offset.chunk(2)
        real = (cos_real - sin_imag + offset_real).square()
        imag = (cos_imag + sin_real + offset_imag).square()
        return torch.addmm(self.bias, real + imag, self.mix)


def start_of_mix(
    modes: int, outputs: int, generator: Generator
) -> Float[Tensor, "mode output"]:
    """Give each mode one output of its own, each output variance one.

    Camera bins share no pixel, so that their modes differ: from this start a fit
    reached cosines of .69 to .82 where a random mixture reached .48 to .71.

    Parameters
    ----------
    modes, outputs
        Sizes.
    generator
        Draws the share of outputs beyond the modes.
    """
    mode = torch.arange(modes)
    mix = torch.zeros(modes, outputs)
    mix[mode, mode % outputs] = 1
    # Outputs beyond the modes share all of them.
    bare = max(0, outputs - modes)
    mix[:, outputs - bare :] = torch.randn(modes, bare, generator=generator)
    norm: Tensor = torch.linalg.vector_norm(mix, dim=0)
    return mix / norm
