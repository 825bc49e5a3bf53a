"""A generic twin: a net on cosine and sine of the phase."""

from typing import ClassVar

from jaxtyping import Float
from torch import Generator, Tensor
from typing_extensions import override

from labctl.training.surrogate.layers import feature_count, features, net
from labctl.training.surrogate.model import Twin
from labctl.training.surrogate.settings import FitTerm, Ports


class TwinDense(Twin):
    """A net with GELU that predicts the outputs; its derivative answers.

    Parameters
    ----------
    ports
        Sizes of the device; inputs off the circle go in raw.
    width, depth
        Size and number of the hidden layers.
    generator
        Source of the start.
    """

    default_losses: ClassVar[tuple[FitTerm, ...]] = (FitTerm("value"),)

    def __init__(
        self, ports: Ports, *, width: int, depth: int, generator: Generator
    ) -> None:
        super().__init__(ports)
        sizes = [feature_count(ports), *[width] * depth, ports.outputs]
        self.net = net(sizes, generator)

    @override
    def predict(
        self, phase: Float[Tensor, "batch pixel"]
    ) -> Float[Tensor, "batch output"]:
        scaled: Tensor = self.net(features(phase, self.ports))
        return scaled
