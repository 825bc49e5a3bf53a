"""The plainest g: a fully connected net of cotangent and phase."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from typing_extensions import override

from labctl.training.surrogate.layers import feature_count, features, net
from labctl.training.surrogate.model import Surrogate
from labctl.training.surrogate.settings import FitTerm, Ports


class Dense(Surrogate):
    """g(grad_y, alpha) as a net with GELU, fitted by relation (1).

    Parameters
    ----------
    ports
        Sizes of the device.
    width, depth
        Size and number of the hidden layers.
    generator
        Source of the start.
    """

    default_losses: ClassVar[tuple[FitTerm, ...]] = (FitTerm("mse"),)

    def __init__(
        self, ports: Ports, *, width: int, depth: int, generator: Generator
    ) -> None:
        super().__init__(ports)
        inputs = ports.outputs + feature_count(ports)
        self.net = net([inputs, *[width] * depth, ports.pixels], generator)
        # A cotangent of norm one has small components; the features have not.
        self._gain = ports.outputs**0.5

    @override
    def unit_vjp(
        self,
        cotangent: Float[Tensor, "batch output"],
        phase: Float[Tensor, "batch pixel"],
    ) -> Float[Tensor, "batch pixel"]:
        seen = torch.cat([self._gain * cotangent, features(phase, self.ports)], dim=1)
        answer: Tensor = self.gradient_scale * self.net(seen)
        return answer
