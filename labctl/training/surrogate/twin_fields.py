"""A twin whose fields multiply: log, linear and exponential of complex light.

``a_s = w_s . exp(i phi) + c_s`` are fields in linear optics, ``F_r = exp(sum_s P_rs
log a_s)`` are products of their powers, and ``y_k = b_k + sum_r M_kr |sum_s C_rs
F_s|^2`` is what a camera makes of sums of them. With whole exponents the products are
the terms of chi(2) (two fields) and chi(3) (three of them, a conjugate among them as an
exponent of its phase); P and C start as one, where the twin is ``twin-modes``.
"""

from typing import ClassVar, Final

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from typing_extensions import override

from labctl.training.surrogate.model import Twin
from labctl.training.surrogate.settings import FitTerm, Ports
from labctl.training.surrogate.twin_modes import start_of_mix

FLOOR: Final = 0.03
"""Fields weaker than this, their rms being one, count as this."""


class TwinFields(Twin):
    """Products of field modes, and a mixture of the intensities of their sums.

    Parameters
    ----------
    ports
        Sizes of the device; its inputs are phases.
    modes
        Field modes, and as many products.
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
                f"twin-fields: modes={modes}, circular={ports.circular}, expected at "
                "least one mode of phases. Take twin-dense for plain numbers."
            )
            raise ValueError(text)
        # Each field has intensity 1 on average under random phases.
        spread = (2 * ports.pixels) ** -0.5
        shape = (2, ports.pixels, modes)
        self.weight = nn.Parameter(spread * torch.randn(shape, generator=generator))
        self.offset = nn.Parameter(torch.zeros(2, modes))
        one = torch.stack([torch.eye(modes), torch.zeros(modes, modes)])
        self.exponent = nn.Parameter(one.clone())
        self.sum = nn.Parameter(one.clone())
        mix = start_of_mix(modes, ports.outputs, generator)
        self.mix = nn.Parameter(mix)
        self.bias = nn.Parameter(-mix.sum(dim=0))

    @override
    def predict(
        self, phase: Float[Tensor, "batch pixel"]
    ) -> Float[Tensor, "batch output"]:
        light = torch.stack([torch.cos(phase), torch.sin(phase)])
        real, imag = _product(light, self.weight) + self.offset[:, None]
        size = (real.square() + imag.square()).clamp_min(FLOOR**2).log() / 2
        logarithm = torch.stack([size, torch.atan2(imag, real)])
        growth, angle = _product(logarithm, self.exponent)
        fields = growth.exp() * torch.stack([angle.cos(), angle.sin()])
        real, imag = _product(fields, self.sum)
        return torch.addmm(self.bias, real.square() + imag.square(), self.mix)


def _product(
    left: Float[Tensor, "part batch inner"], right: Float[Tensor, "part inner outer"]
) -> Float[Tensor, "part batch outer"]:
    """Multiply complex matrices, real and imaginary parts apart."""
    (a, b), (c, d) = left, right
    return torch.stack([a @ c - b @ d, a @ d + b @ c])
