"""Pepg finds a minimum that is known, and goes on from its state."""

from collections.abc import Callable

import torch

from labctl.training.contestant.pepg import Pepg
from labctl.training.contestant.search import Effort, Search


def test_it_finds_the_bottom(
    effort: Callable[..., Effort],
    descend: Callable[[Search, int], tuple[float, float]],
) -> None:
    generator = torch.Generator().manual_seed(3)
    search = Pepg(effort(step_rad=0.05, candidates=8), generator)
    before, after = descend(search, 7)
    assert after < 0.1 * before


def test_it_goes_on_from_its_state(
    effort: Callable[..., Effort],
    resumed: Callable[[Callable[[], Search]], None],
) -> None:
    resumed(lambda: Pepg(effort(), torch.Generator().manual_seed(5)))


def test_the_spread_follows_what_pays(effort: Callable[..., Effort]) -> None:
    """Where only large shifts have low losses, the spread grows."""
    search = Pepg(effort(candidates=40), torch.Generator().manual_seed(4))
    theta = torch.zeros(1, dtype=torch.float64)
    for _ in range(20):
        candidates = search.ask(theta)
        search.tell(theta, candidates, -candidates.square().sum(dim=1))
        search.done += 1
    spread = search.state_dict()["spread"]
    assert float(spread) > 0.15
