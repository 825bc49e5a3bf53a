"""CmaEs finds a minimum that is known, and goes on from its state."""

from collections.abc import Callable

import pytest
import torch

from labctl.training.contestant.cma_es import CmaEs
from labctl.training.contestant.search import Effort, Search


def test_it_finds_the_bottom(
    effort: Callable[..., Effort],
    descend: Callable[[Search, int], tuple[float, float]],
) -> None:
    generator = torch.Generator().manual_seed(3)
    search = CmaEs(effort(step_rad=0.05, candidates=10), generator)
    before, after = descend(search, 7)
    assert after < 0.1 * before


def test_it_goes_on_from_its_state(
    effort: Callable[..., Effort],
    resumed: Callable[[Callable[[], Search]], None],
) -> None:
    resumed(lambda: CmaEs(effort(), torch.Generator().manual_seed(5)))


def test_a_small_population_is_refused(effort: Callable[..., Effort]) -> None:
    with pytest.raises(ValueError, match="candidates=3, expected at least 4"):
        CmaEs(effort(candidates=3), torch.Generator())


def test_the_shape_follows_the_losses(effort: Callable[..., Effort]) -> None:
    """Along a valley the steps become longer than across it."""
    search = CmaEs(effort(candidates=10), torch.Generator().manual_seed(6))
    theta = torch.tensor([2.0, 0.0], dtype=torch.float64)
    weight = torch.tensor([0.01, 10.0], dtype=torch.float64)
    for _ in range(40):
        candidates = search.ask(theta)
        losses = (weight * candidates.square()).sum(dim=1)
        theta = search.tell(theta, candidates, losses)
        search.done += 1
    covariance = search.state_dict()["covariance"]
    assert covariance[0, 0] > 10 * covariance[1, 1]
