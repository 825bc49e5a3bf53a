"""Simultaneous perturbation: one random direction a batch, both ways."""

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


@final
class Spsa(Search):
    """Spall's stochastic approximation with his gains.

    The slope along each random direction of signs, from the same batch on both
    sides, times the direction is an estimate of the gradient that is right on
    average: ``(loss_+ - loss_-) / (2 c_k) sign``, ``c_k = radius / (k + 1)^.101``.
    More than one pair of candidates are averaged.

    Parameters
    ----------
    effort
        How it moves; an even number of candidates.
    generator
        Where the signs come from.

    Raises
    ------
    ValueError
        The number of candidates is odd.

    References
    ----------
    .. [1] Spall, 1998, doi:10.1109/7.705889.
    """

    POWER = 0.101

    def __init__(self, effort: Effort, generator: torch.Generator) -> None:
        check_pairs(effort)
        super().__init__(effort, generator)
        self._gain = Gain(effort)

    @override
    def ask(self, theta: Theta) -> Candidates:
        reach = self.effort.radius_rad / (self.done + 1) ** self.POWER
        shift = reach * self.signs(self.effort.candidates // 2, theta)
        return torch.cat((theta + shift, theta - shift))

    @override
    def tell(self, theta: Theta, candidates: Candidates, losses: Losses) -> Theta:
        gradient = slope(candidates, losses)
        return theta - self._gain(gradient) * gradient

    @override
    def state_dict(self) -> State:
        return {**super().state_dict(), "gain": self._gain.state_dict()}

    @override
    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self._gain.load_state_dict(state["gain"])


def check_pairs(effort: Effort) -> None:
    """Refuse an odd number of candidates.

    Parameters
    ----------
    effort
        Of a search that goes both ways.

    Raises
    ------
    ValueError
        It is odd.
    """
    if effort.candidates % 2:
        text = (
            f"method: candidates={effort.candidates}, expected an even number: every "
            "direction is tried both ways. Add one."
        )
        raise ValueError(text)


def slope(candidates: Candidates, losses: Losses) -> Theta:
    """Estimate the gradient from pairs on both sides of a point.

    Parameters
    ----------
    candidates
        First all of one side, then all of the other, in the same order; every
        element of a shift has the same size.
    losses
        Of each.

    Returns
    -------
    gradient
        Mean over the pairs of the slope along the shift, times its signs.
    """
    pairs = len(losses) // 2
    shift = (candidates[:pairs] - candidates[pairs:]) / 2
    change = (losses[:pairs] - losses[pairs:]) / 2
    # shift / |shift|^2 per element: signs divided by their size.
    return (change[:, None] * shift / shift.square().mean(1, keepdim=True)).mean(0)
