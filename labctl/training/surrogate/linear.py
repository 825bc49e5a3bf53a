"""A g that is linear in the cotangent by construction, with coefficients from a net."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from typing_extensions import override

from labctl.training.surrogate.layers import feature_count, features, net
from labctl.training.surrogate.model import Surrogate
from labctl.training.surrogate.settings import FitTerm, Ports


class Linear(Surrogate):
    """``g = sum_r u_r(alpha) (v_r(alpha) . grad_y)``, fitted by relation (1).

    Parameters
    ----------
    ports
        Sizes of the device.
    rank
        Terms of the sum; the Jacobian is found where it has no higher rank.
    width, depth
        Size and number of the hidden layers of the net that gives u and v.
    generator
        Source of the start.

    Raises
    ------
    ValueError
        There is no term.
    """

    default_losses: ClassVar[tuple[FitTerm, ...]] = (FitTerm("mse"),)

    def __init__(
        self, ports: Ports, *, rank: int, width: int, depth: int, generator: Generator
    ) -> None:
        super().__init__(ports)
        if rank < 1:
            text = f"linear: rank={rank}, expected at least 1. Raise surrogate.rank."
            raise ValueError(text)
        self.rank = rank
        each = ports.pixels + ports.outputs
        sizes = [feature_count(ports), *[width] * depth, rank * each]
        self.net = net(sizes, generator, last=0.1)
        # u and v start from a part that does not depend on alpha, else both start
        # near zero, where the gradient of their product vanishes; and small, for
        # what a random start says must first be unlearned.
        start = 0.3 * torch.randn(rank * each, generator=generator)
        self.start = nn.Parameter(start)

    @override
    def unit_vjp(
        self,
        cotangent: Float[Tensor, "batch output"],
        phase: Float[Tensor, "batch pixel"],
    ) -> Float[Tensor, "batch pixel"]:
        both = self.start + self.net(features(phase, self.ports))
        both = both.view(len(phase), self.rank, self.pixels + self.outputs)
        u, v = both.split([self.pixels, self.outputs], dim=2)
        gain = torch.bmm(v, cotangent[:, :, None])
        total = torch.bmm(gain.transpose(1, 2), u)[:, 0]
        answer: Tensor = self.gradient_scale * total / self.rank**0.5
        return answer
