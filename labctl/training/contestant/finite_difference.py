"""Finite differences of the loss, some elements of theta a batch."""

from typing import final

import torch
from typing_extensions import override

from labctl.training.contestant.search import (
    Candidates,
    Effort,
    Gain,
    Losses,
    Search,
    State,
    Theta,
)
from labctl.training.contestant.spsa import check_pairs


@final
class FiniteDifference(Search):
    """Central differences along single elements of theta, block by block.

    A whole gradient costs two batches an element of theta, which few budgets pay
    for. So every step measures ``candidates / 2`` elements, each once before any
    comes again, and moves these only.

    Parameters
    ----------
    effort
        How it moves; an even number of candidates.
    generator
        Where the order of the elements comes from.

    Raises
    ------
    ValueError
        The number of candidates is odd.
    """

    def __init__(self, effort: Effort, generator: torch.Generator) -> None:
        check_pairs(effort)
        super().__init__(effort, generator)
        self._gain = Gain(effort)
        self._order = torch.zeros(0, dtype=torch.int64)

    @override
    def ask(self, theta: Theta) -> Candidates:
        count = min(self.effort.candidates // 2, len(theta))
        if len(self._order) < count:
            fresh = torch.randperm(len(theta), generator=self.generator)
            # What is left of the old order goes first, so nothing waits two rounds.
            rest = fresh[~torch.isin(fresh, self._order)]
            self._order = torch.cat((self._order, rest))
        chosen, self._order = self._order[:count], self._order[count:]
        shift = torch.zeros(count, len(theta)).to(theta)
        shift[torch.arange(count), chosen] = self.effort.radius_rad
        return torch.cat((theta + shift, theta - shift))

    @override
    def tell(self, theta: Theta, candidates: Candidates, losses: Losses) -> Theta:
        pairs = len(losses) // 2
        change = (losses[:pairs] - losses[pairs:]) / 2
        sign = (candidates[:pairs] - candidates[pairs:]).sign()
        gradient = (change[:, None] * sign).sum(dim=0) / self.effort.radius_rad
        return theta - self._gain(gradient) * gradient

    @override
    def state_dict(self) -> State:
        own = {"gain": self._gain.state_dict(), "order": self._order}
        return {**super().state_dict(), **own}

    @override
    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self._gain.load_state_dict(state["gain"])
        self._order = state["order"]
