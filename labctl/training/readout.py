"""The last linear layer: what it is asked for, how it is judged, its best weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

Metric = Literal["accuracy", "nrmse"]


@dataclass(frozen=True)
class Task:
    """What the outputs of a model are meant to be.

    Parameters
    ----------
    kind
        Classes (targets are their numbers), or real targets.
    outputs
        Number of classes, or of targets.
    """

    kind: Literal["classification", "regression"]
    outputs: int

    @property
    def metric(self) -> Metric:
        """Name of the score."""
        return "accuracy" if self.kind == "classification" else "nrmse"

    @property
    def direction(self) -> Literal["up", "down"]:
        """Where better scores lie."""
        return "up" if self.kind == "classification" else "down"

    def loss(
        self, answer: Float[Tensor, "sample output"], target: Shaped[Tensor, "sample *"]
    ) -> Float[Tensor, ""]:
        """Cross entropy, or mean square error.

        Parameters
        ----------
        answer
            Outputs of the model.
        target
            Class numbers, or real targets.
        """
        if self.kind == "classification":
            return nn.functional.cross_entropy(answer, target)
        return nn.functional.mse_loss(answer, target.to(answer))

    def each(
        self, answer: Float[Tensor, "sample output"], target: Shaped[Tensor, "sample *"]
    ) -> Float[Tensor, " sample"]:
        """Loss of each sample; their mean is :meth:`loss`.

        Parameters
        ----------
        answer
            Outputs of the model.
        target
            Class numbers, or real targets.
        """
        if self.kind == "classification":
            return nn.functional.cross_entropy(answer, target, reduction="none")
        error = answer - target.to(answer).reshape(answer.shape)
        return error.square().flatten(1).mean(dim=1)

    def score(
        self, answer: Float[Tensor, "sample output"], target: Shaped[Tensor, "sample *"]
    ) -> float:
        """Share of right answers, or error relative to the spread of the targets.

        NaN for an error where the targets have no spread.

        Parameters
        ----------
        answer
            Outputs of the model.
        target
            Class numbers, or real targets.
        """
        if self.kind == "classification":
            return float((answer.argmax(dim=1) == target).double().mean())
        error = (answer.double() - target.double()).square().mean()
        spread = (target.double() - target.double().mean(dim=0)).square().mean()
        return float(torch.sqrt(error / spread)) if spread > 0 else math.nan


@dataclass(frozen=True)
class Readout:
    """A linear layer as numbers.

    Parameters
    ----------
    weight, bias
        As torch's linear layer has them.
    """

    weight: Float[Tensor, "output feature"]
    bias: Float[Tensor, " output"]

    def __call__(
        self, features: Float[Tensor, "sample feature"]
    ) -> Float[Tensor, "sample output"]:
        """Apply the layer.

        Parameters
        ----------
        features
            Inputs of the layer.
        """
        return nn.functional.linear(features.to(self.weight), self.weight, self.bias)

    def put_into(self, layer: nn.Linear) -> None:
        """Copy the numbers into a layer.

        Parameters
        ----------
        layer
            A layer of the same size.
        """
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            layer.bias.copy_(self.bias)


def solve(
    features: Float[Tensor, "sample feature"],
    target: Shaped[Tensor, "sample *"],
    task: Task,
    *,
    penalty: float = 1e-3,
    beat: Callable[[], None] = lambda: None,
) -> Readout:
    """Find the best linear layer on features that are there.

    Multinomial logistic regression by a quasi-Newton method, or ridge regression in
    closed form. The penalty lies on the weights of standardised features, so that
    their units do not matter; the bias is free.

    Parameters
    ----------
    features
        Inputs of the layer.
    target
        Class numbers, or real targets.
    task
        Which of the two.
    penalty
        Weight of half the squared weights beside the mean loss.
    beat
        Called at every step of the search, as a sign of life.

    Returns
    -------
    readout
        The layer, in double precision.
    """
    x = features.detach().double()
    mean, scale = x.mean(dim=0), x.std(dim=0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    x = (x - mean) / scale
    if task.kind == "classification":
        weight, bias = _logistic(x, target, task, penalty, beat)
    else:
        weight, bias = _ridge(x, target.double().reshape(len(x), -1), penalty)
    weight = weight / scale
    return Readout(weight, bias - weight @ mean)


def _logistic(
    x: Tensor, target: Tensor, task: Task, penalty: float, beat: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    weight = x.new_zeros(task.outputs, x.shape[1], requires_grad=True)
    bias = x.new_zeros(task.outputs, requires_grad=True)
    search = torch.optim.LBFGS(
        [weight, bias],
        max_iter=300,
        tolerance_grad=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        beat()
        search.zero_grad()
        loss = task.loss(nn.functional.linear(x, weight, bias), target)
        loss = loss + 0.5 * penalty * weight.square().sum()
        torch.autograd.backward(loss)
        return float(loss.detach())

    with torch.enable_grad():
        search.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return weight.detach(), bias.detach()


def _ridge(x: Tensor, target: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    bias = target.mean(dim=0)
    gram = x.T @ x / len(x) + 0.5 * penalty * torch.eye(x.shape[1]).to(x)
    weight = torch.linalg.solve(gram, x.T @ (target - bias) / len(x))
    return weight.T, bias
