"""FiniteDifference finds a minimum that is known, and goes on from its state."""

from collections.abc import Callable

import pytest
import torch

from labctl.training.contestant.finite_difference import FiniteDifference
from labctl.training.contestant.search import Effort, Search


def test_it_finds_the_bottom(
    effort: Callable[..., Effort],
    descend: Callable[[Search, int], tuple[float, float]],
) -> None:
    generator = torch.Generator().manual_seed(3)
    search = FiniteDifference(effort(step_rad=0.05, candidates=4), generator)
    before, after = descend(search, 7)
    assert after < 0.1 * before


def test_it_goes_on_from_its_state(
    effort: Callable[..., Effort],
    resumed: Callable[[Callable[[], Search]], None],
) -> None:
    resumed(lambda: FiniteDifference(effort(), torch.Generator().manual_seed(5)))


def test_every_element_is_measured_once_a_round(effort: Callable[..., Effort]) -> None:
    search = FiniteDifference(effort(candidates=6), torch.Generator())
    theta = torch.zeros(9, dtype=torch.float64)
    asked = torch.cat([search.ask(theta)[:3] for _ in range(3)])
    assert asked.abs().sum(dim=0).tolist() == pytest.approx([0.1] * 9)


def test_the_gradient_of_a_line_is_exact(effort: Callable[..., Effort]) -> None:
    true = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    search = FiniteDifference(effort(candidates=6, steps=10), torch.Generator())
    theta = torch.zeros(3, dtype=torch.float64)
    for _ in range(2):
        candidates = search.ask(theta)
        theta = search.tell(theta, candidates, candidates @ true)
    # The first step sets the gain; the second moves by step_rad rms, downhill.
    rms = float(true.square().mean().sqrt())
    assert torch.allclose(theta, -0.05 * true / rms)
