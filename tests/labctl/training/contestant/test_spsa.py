"""Spsa finds a minimum that is known, and goes on from its state."""

from collections.abc import Callable

import pytest
import torch

from labctl.training.contestant.search import Effort, Search
from labctl.training.contestant.spsa import Spsa, slope


def test_it_finds_the_bottom(
    effort: Callable[..., Effort],
    descend: Callable[[Search, int], tuple[float, float]],
) -> None:
    generator = torch.Generator().manual_seed(3)
    search = Spsa(effort(step_rad=0.05, candidates=4), generator)
    before, after = descend(search, 7)
    assert after < 0.1 * before


def test_it_goes_on_from_its_state(
    effort: Callable[..., Effort],
    resumed: Callable[[Callable[[], Search]], None],
) -> None:
    resumed(lambda: Spsa(effort(), torch.Generator().manual_seed(5)))


def test_the_slope_is_right_on_average(effort: Callable[..., Effort]) -> None:
    """On a linear loss the mean over many pairs is the gradient itself."""
    true = torch.linspace(-1, 2, 5, dtype=torch.float64)
    search = Spsa(effort(candidates=40_000), torch.Generator().manual_seed(0))
    theta = torch.ones(5, dtype=torch.float64)
    candidates = search.ask(theta)
    found = slope(candidates, candidates @ true)
    # Each element has variance (|g|^2 - g_i^2) / pairs.
    spread = float((true.square().sum() / 20_000).sqrt())
    assert (found - true).abs().max() < 4 * spread


def test_an_odd_number_of_candidates_is_refused(effort: Callable[..., Effort]) -> None:
    with pytest.raises(ValueError, match="candidates=5, expected an even number"):
        Spsa(effort(candidates=5), torch.Generator())


def test_noise_alone_moves_theta_less_and_less(effort: Callable[..., Effort]) -> None:
    """The gain falls as Spall's: the moves add up to less than a straight walk."""
    generator = torch.Generator().manual_seed(1)
    search = Spsa(effort(steps=200, step_rad=0.02), torch.Generator())
    theta = torch.zeros(50, dtype=torch.float64)
    moves = []
    for _ in range(200):
        losses = torch.randn(4, generator=generator, dtype=torch.float64)
        new = search.tell(theta, search.ask(theta), losses)
        moves.append(float((new - theta).square().mean().sqrt()))
        theta, search.done = new, search.done + 1
    assert moves[:10] == [0.0] * 10
    early, late = sum(moves[10:40]) / 30, sum(moves[-30:]) / 30
    assert 0.01 < early < 0.04
    assert late < 0.6 * early
