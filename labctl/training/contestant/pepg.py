"""Parameter-exploring policy gradients: a distribution of theta that learns."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
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
class Pepg(Search):
    """Symmetric sampling around a mean, whose spread follows what pays.

    Every element of theta has a spread of its own. The mean moves along
    ``sum (loss_- - loss_+) / 2 shift``; the spread grows where large shifts had
    losses below the running mean, and shrinks where they had not. Losses are
    measured in units of their own spread over the candidates of a batch. The spread
    stays between a tenth and twice its start.

    Parameters
    ----------
    effort
        How it moves; ``radius_rad`` is the spread at the start, candidates are
        even in number.
    generator
        Where the shifts come from.

    Raises
    ------
    ValueError
        The number of candidates is odd.

    References
    ----------
    .. [1] Sehnke et al., "Parameter-exploring policy gradients", 2010,
       doi:10.1016/j.neunet.2009.12.004, algorithm 2.
    """

    SPREAD_RATE = 0.05
    LEAST = 0.1
    MOST = 2.0

    def __init__(self, effort: Effort, generator: torch.Generator) -> None:
        check_pairs(effort)
        super().__init__(effort, generator)
        self._gain = Gain(effort)
        self._spread: Tensor | None = None

    def _spread_of(self, theta: Theta) -> Theta:
        if self._spread is None:
            self._spread = torch.full_like(theta, self.effort.radius_rad)
        return self._spread

    @override
    def ask(self, theta: Theta) -> Candidates:
        noise = self.normal(self.effort.candidates // 2, theta)
        shift = noise * self._spread_of(theta)
        return torch.cat((theta + shift, theta - shift))

    @override
    def tell(self, theta: Theta, candidates: Candidates, losses: Losses) -> Theta:
        pairs, spread = len(losses) // 2, self._spread_of(theta)
        shift = (candidates[:pairs] - candidates[pairs:]) / 2
        change = (losses[:pairs] - losses[pairs:]) / 2
        gradient = (change[:, None] * shift / spread.square()).mean(dim=0)
        self._spread = self._followed(spread, shift, losses)
        return theta - self._gain(gradient) * gradient

    def _followed(
        self, spread: Theta, shift: Float[Tensor, "pair theta"], losses: Losses
    ) -> Theta:
        pairs = len(shift)
        size = losses.std()
        if pairs < 2 or not size > 0:
            return spread
        better = (losses.mean() - (losses[:pairs] + losses[pairs:]) / 2) / size
        growth = (shift.square() - spread.square()) / spread.square()
        step = self.SPREAD_RATE * (better[:, None] * growth).mean(dim=0)
        low, high = self.LEAST, self.MOST
        radius = self.effort.radius_rad
        return (spread * torch.exp(step)).clamp(low * radius, high * radius)

    @override
    def state_dict(self) -> State:
        own = {"gain": self._gain.state_dict(), "spread": self._spread}
        return {**super().state_dict(), **own}

    @override
    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self._gain.load_state_dict(state["gain"])
        self._spread = state["spread"]
