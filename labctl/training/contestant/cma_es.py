"""Evolution with an adapted covariance matrix."""

import math
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from labctl.training.contestant.search import (
    Candidates,
    Effort,
    Losses,
    Search,
    State,
    Theta,
)


@final
class CmaEs(Search):
    """Hansen's (mu/mu_w, lambda) evolution strategy, every batch one generation.

    The mean goes to the weighted best half of the candidates; the covariance
    follows the path of the mean and the best steps; the step size follows the
    length of the path. Its whole state is tensors, so that a run can be resumed
    from a checkpoint without running code from it.

    Parameters
    ----------
    effort
        ``radius_rad`` is the first step size, ``candidates`` the population.
    generator
        Where the population comes from.

    Raises
    ------
    ValueError
        Fewer than 4 candidates.

    References
    ----------
    .. [1] Hansen, "The CMA evolution strategy: a tutorial", arXiv:1604.00772,
       equations 5 to 50 and table 1, positive weights only.
    """

    def __init__(self, effort: Effort, generator: torch.Generator) -> None:
        if effort.candidates < 4:
            text = (
                f"method: candidates={effort.candidates}, expected at least 4: half of "
                "a generation is kept. Raise method.candidates."
            )
            raise ValueError(text)
        super().__init__(effort, generator)
        kept = effort.candidates // 2
        raw = math.log(kept + 0.5) - torch.arange(1, kept + 1).double().log()
        self.weights = raw / raw.sum()
        self.effective = float(1 / self.weights.square().sum())
        self.sigma = effort.radius_rad
        empty = torch.zeros(0, dtype=torch.float64)
        self._covariance: Tensor | None = None
        self._path_sigma: Tensor = empty
        self._path_c: Tensor = empty

    def _start(self, size: int) -> Tensor:
        known: Tensor | None = self._covariance
        if known is None:
            known = torch.eye(size, dtype=torch.float64)
            self._covariance = known
            self._path_sigma = torch.zeros(size, dtype=torch.float64)
            self._path_c = torch.zeros(size, dtype=torch.float64)
        return known

    @override
    def ask(self, theta: Theta) -> Candidates:
        values, vectors = torch.linalg.eigh(self._start(len(theta)))
        noise = self.normal(self.effort.candidates, theta).double().cpu()
        shift: Tensor = (noise * values.clamp_min(0).sqrt()) @ vectors.T
        return theta + self.sigma * shift.to(theta)

    @override
    def tell(self, theta: Theta, candidates: Candidates, losses: Losses) -> Theta:
        best = candidates[losses.argsort()[: len(self.weights)]]
        steps = (best - theta).double().cpu() / self.sigma
        mean = self.weights @ steps
        moved = theta + (self.sigma * mean).to(theta)
        is_long = self._adapt_size(mean, len(theta))
        self._adapt_shape(mean, steps, is_long=is_long)
        return moved

    def _adapt_size(self, mean: Tensor, size: int) -> bool:
        covariance = self._start(size)
        values, vectors = torch.linalg.eigh(covariance)
        whitened = vectors @ ((vectors.T @ mean) / values.clamp_min(1e-20).sqrt())
        rate = (self.effective + 2) / (size + self.effective + 5)
        push = math.sqrt(rate * (2 - rate) * self.effective)
        self._path_sigma = (1 - rate) * self._path_sigma + push * whitened
        excess = math.sqrt((self.effective - 1) / (size + 1)) - 1
        damping = 1 + 2 * max(0.0, excess) + rate
        usual = math.sqrt(size) * (1 - 1 / (4 * size) + 1 / (21 * size**2))
        length = float(self._path_sigma.norm())
        self.sigma *= math.exp(rate / damping * (length / usual - 1))
        faded = math.sqrt(1 - (1 - rate) ** (2 * (self.done + 1)))
        return length / faded >= (1.4 + 2 / (size + 1)) * usual

    def _adapt_shape(self, mean: Tensor, steps: Tensor, *, is_long: bool) -> None:
        many, size = self.effective, len(mean)
        rate = (4 + many / size) / (size + 4 + 2 * many / size)
        one = 2 / ((size + 1.3) ** 2 + many)
        rest = min(1 - one, 2 * (many - 2 + 1 / many) / ((size + 2) ** 2 + many))
        go = 0.0 if is_long else 1.0
        push = go * math.sqrt(rate * (2 - rate) * many)
        self._path_c = (1 - rate) * self._path_c + push * mean
        lost = (1 - go) * one * rate * (2 - rate)
        old = (1 - one - rest + lost) * self._start(size)
        new = one * torch.outer(self._path_c, self._path_c)
        new = new + rest * (steps.T * self.weights) @ steps
        total = old + new
        self._covariance = (total + total.T) / 2

    @override
    def state_dict(self) -> State:
        own = {
            "sigma": self.sigma,
            "covariance": self._covariance,
            "path_sigma": self._path_sigma,
            "path_c": self._path_c,
        }
        return {**super().state_dict(), **own}

    @override
    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.sigma = float(state["sigma"])
        self._covariance = state["covariance"]
        self._path_sigma, self._path_c = state["path_sigma"], state["path_c"]
