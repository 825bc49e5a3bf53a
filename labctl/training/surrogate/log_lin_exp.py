"""Sums of products: Lin(Exp(Lin(Log z))) with a complex logarithm.

Exponents are weights, signs are phases, products are sums: the model is a sum of
monomials with real exponents, exact for a VJP that is one, as that of
``f(x, theta) = theta x``.
"""

from typing import ClassVar, Final

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from typing_extensions import override

from labctl.training.surrogate.layers import dense_layer
from labctl.training.surrogate.model import Surrogate
from labctl.training.surrogate.settings import FitTerm, Ports

FLOOR: Final = 1e-3
"""Magnitudes below this count as this: the logarithm of zero is out of reach."""
_NOISE: Final = 0.02


class LogLinExp(Surrogate):
    """Monomials of cotangent and phase factors, fitted by relation (1).

    z holds the cotangent's components and, for circular inputs, ``exp(i phi)``,
    whose logarithm is ``i phi``; other inputs are in z as they are. Phases shown a
    turn apart differ for exponents that are not whole.

    Each monomial starts as one component of the cotangent times one other factor,
    all pairs in turn, because the VJP is linear in the cotangent; a start with
    random exponents does not find them.

    Parameters
    ----------
    ports
        Sizes of the device.
    width
        Monomials.
    generator
        Source of the start.

    Raises
    ------
    ValueError
        There is no monomial.
    """

    default_losses: ClassVar[tuple[FitTerm, ...]] = (FitTerm("mse"),)

    def __init__(self, ports: Ports, *, width: int, generator: Generator) -> None:
        super().__init__(ports)
        if width < 1:
            text = f"log-lin-exp: width={width}, expected at least 1. Raise width."
            raise ValueError(text)
        self.width = width
        factors = ports.outputs + ports.pixels
        exponent = _start_of_exponents(ports, width, generator)
        noise = torch.randn(2, factors, width, generator=generator)
        self.real = nn.Parameter(exponent + _NOISE * noise[0])
        self.imag = nn.Parameter(_NOISE * noise[1])
        self.mix = dense_layer(2 * width, ports.pixels, generator)

    @override
    def unit_vjp(
        self,
        cotangent: Float[Tensor, "batch output"],
        phase: Float[Tensor, "batch pixel"],
    ) -> Float[Tensor, "batch pixel"]:
        size, turn = _log(self.outputs**0.5 * cotangent)
        if self.ports.circular:
            size = torch.cat([size, torch.zeros_like(phase)], dim=1)
            turn = torch.cat([turn, phase], dim=1)
        else:
            more = _log(phase)
            size = torch.cat([size, more[0]], dim=1)
            turn = torch.cat([turn, more[1]], dim=1)
        # (real + i imag) * (size + i turn), then exp.
        growth = torch.exp(size @ self.real - turn @ self.imag)
        angle = size @ self.imag + turn @ self.real
        parts = torch.cat([growth * torch.cos(angle), growth * torch.sin(angle)], 1)
        answer: Tensor = self.gradient_scale * self.mix(parts)
        return answer


def _log(
    z: Float[Tensor, "batch factor"],
) -> tuple[Float[Tensor, "batch factor"], Float[Tensor, "batch factor"]]:
    return torch.log(z.abs().clamp_min(FLOOR)), torch.pi * (z < 0).to(z.dtype)


def _start_of_exponents(
    ports: Ports, width: int, generator: Generator
) -> Float[Tensor, "factor width"]:
    """One whole exponent for a cotangent's component, one for another factor."""
    pairs = ports.outputs * (ports.pixels + 1)
    order = torch.randperm(pairs, generator=generator)
    chosen = order[torch.arange(width) % pairs]
    cotangent, factor = chosen % ports.outputs, chosen // ports.outputs
    exponent = torch.zeros(ports.outputs + ports.pixels + 1, width)
    monomial = torch.arange(width)
    exponent[cotangent, monomial] = 1
    # The last factor is 1: such a monomial is linear in the cotangent alone.
    exponent[ports.outputs + factor, monomial] = 1
    return exponent[:-1]
