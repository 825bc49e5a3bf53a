"""Annealing finds a minimum that is known, and goes on from its state."""

from collections.abc import Callable

import pytest
import torch

from labctl.training.contestant.annealing import Annealing
from labctl.training.contestant.search import Effort, Search


def test_it_finds_the_bottom(
    effort: Callable[..., Effort],
    descend: Callable[[Search, int], tuple[float, float]],
) -> None:
    generator = torch.Generator().manual_seed(3)
    search = Annealing(effort(step_rad=0.01, candidates=6), generator)
    before, after = descend(search, 7)
    assert after < 0.1 * before


def test_it_goes_on_from_its_state(
    effort: Callable[..., Effort],
    resumed: Callable[[Callable[[], Search]], None],
) -> None:
    resumed(lambda: Annealing(effort(), torch.Generator().manual_seed(5)))


def test_nothing_worse_is_kept(effort: Callable[..., Effort]) -> None:
    search = Annealing(effort(candidates=3), torch.Generator().manual_seed(2))
    theta = torch.zeros(4, dtype=torch.float64)
    candidates = search.ask(theta)
    losses = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert torch.equal(search.tell(theta, candidates, losses), theta)


def test_variations_shrink_to_the_step(effort: Callable[..., Effort]) -> None:
    search = Annealing(effort(step_rad=0.01, steps=21), torch.Generator())
    assert search.reach_rad == pytest.approx(0.1)
    search.done = 20
    assert search.reach_rad == pytest.approx(0.01)
