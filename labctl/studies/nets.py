"""Many small nets of one shape, side by side and from one start."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

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
    dtype
        Of weights; complex ones have the variance in both parts together.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        count: int,
        gain: float,
        rng: Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.thetas, self.biases = [], []
        for n_in, n_out in pairwise(sizes):
            start = torch.randn(n_in, n_out, generator=rng, dtype=dtype)
            start = start * (gain / n_in) ** 0.5
            self.thetas.append(start.repeat(count, 1, 1).requires_grad_())
            bias = torch.zeros(count, 1, n_out, dtype=dtype, requires_grad=True)
            self.biases.append(bias)

    @property
    def numbers(self) -> int:
        """Real numbers that one of the nets has; a complex one counts as two."""
        one = sum(part[0].numel() for part in self.parameters)
        return 2 * one if self.thetas[0].is_complex() else one

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
        y = x.to(self.thetas[0].dtype).expand(len(self.thetas[0]), *x.shape)
        layers = zip(self.thetas, self.biases, strict=True)
        for number, (theta, bias) in enumerate(layers):
            y = multiply(activate(y) if number else y, theta) + bias
        return y


class Course(Protocol):
    """What a training takes."""

    @property
    @abstractmethod
    def batch(self) -> int:
        """Samples of a step."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps of Adam."""

    @property
    @abstractmethod
    def learning_rate(self) -> float:
        """Adam's step."""


def train(
    nets: Nets,
    answer: Callable[[Tensor], Tensor],
    samples: tuple[Tensor, Tensor],
    course: Course,
    rng: Generator,
) -> None:
    """Teach classes to nets side by side.

    Parameters
    ----------
    nets
        Changed in place.
    answer
        Gives the logits of samples, ``[net, sample, class]``.
    samples
        Features, ``[sample, feature]``, and classes, ``[sample]``.
    course
        Effort.
    rng
        Draws the batches.
    """
    adam = torch.optim.Adam(nets.parameters, lr=course.learning_rate)
    x, label = samples
    for _ in range(course.steps):
        pick = torch.randint(len(x), (course.batch,), generator=rng)
        logits = answer(x[pick])
        goal = label[pick].expand(len(logits), -1)
        each = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), goal.flatten(), reduction="none"
        )
        adam.zero_grad()
        # The nets share nothing, so their sum trains each apart.
        torch.autograd.backward(each.view(goal.shape).mean(dim=1).sum())
        for parameter in nets.parameters:
            if parameter.grad is not None:
                # One that diverged stays where it is, and spoils nobody's sum.
                torch.nan_to_num_(_parts(parameter.grad), 0.0, 0.0, 0.0)
        adam.step()


def _parts(values: Tensor) -> Tensor:
    return torch.view_as_real(values) if values.is_complex() else values


def right(logits: Tensor, goal: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Score every net.

    Parameters
    ----------
    logits
        ``[net, sample, class]``.
    goal
        Classes, ``[sample]``.
    classes
        How many there are.

    Returns
    -------
    accuracy
        ``[net]``; chance where numbers are not finite.
    lost
        Where they are not, ``[net]``.
    """
    lost = ~torch.isfinite(logits).all(dim=2).all(dim=1)
    share = (logits.argmax(dim=2) == goal).double().mean(dim=1)
    return torch.where(lost, 1 / classes, share), lost
