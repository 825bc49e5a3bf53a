"""Many small nets of one shape, side by side and from one start."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor


class Nets:
    """Nets that share their start, and nothing afterwards.

    Parameters
    ----------
    sizes
        Widths, input and output included.
    count
        How many.
    gain
        Variance of the weights, times the inputs of their layer.
    rng
        Where the start comes from.
    """

    def __init__(
        self, sizes: Sequence[int], count: int, gain: float, rng: Generator
    ) -> None:
        self.thetas, self.biases = [], []
        for n_in, n_out in pairwise(sizes):
            start = torch.randn(n_in, n_out, generator=rng) * (gain / n_in) ** 0.5
            self.thetas.append(start.repeat(count, 1, 1).requires_grad_())
            self.biases.append(torch.zeros(count, 1, n_out, requires_grad=True))

    @property
    def parameters(self) -> list[Tensor]:
        """Everything that is trained."""
        return [*self.thetas, *self.biases]

    def __call__(
        self,
        x: Tensor,
        activate: Callable[[Tensor], Tensor],
        multiply: Callable[[Tensor, Tensor], Tensor] = torch.matmul,
    ) -> Tensor:
        """Return what the last layer gives, ``[net, sample, output]``.

        Parameters
        ----------
        x
            ``[sample, feature]``.
        activate
            Applied between two layers, to ``[net, sample, unit]``.
        multiply
            What a layer does with its inputs and theta, ``[net, in, out]``.
        """
        y = x.expand(len(self.thetas[0]), *x.shape)
        layers = zip(self.thetas, self.biases, strict=True)
        for number, (theta, bias) in enumerate(layers):
            y = multiply(activate(y) if number else y, theta) + bias
        return y
