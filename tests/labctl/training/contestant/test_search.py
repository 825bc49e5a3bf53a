"""A search is asked, measured and told; theta moves in place."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from labctl.training.contestant.annealing import Annealing
from labctl.training.contestant.search import Effort, Gain, explore


def test_theta_of_all_layers_moves_as_one(effort: Callable[..., Effort]) -> None:
    layers = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    search = Annealing(effort(candidates=5), torch.Generator().manual_seed(0))

    def measure() -> Tensor:
        return sum((part.detach().square().sum() for part in layers), torch.zeros(()))

    losses = explore(search, layers, measure)
    assert len(losses) == 5
    assert float(measure()) == pytest.approx(float(torch.stack(losses).min()))
    assert search.done == 1


def test_a_loss_that_is_no_number_leaves_theta(effort: Callable[..., Effort]) -> None:
    theta = [nn.Parameter(torch.ones(3))]
    search = Annealing(effort(candidates=2), torch.Generator())
    losses = explore(search, theta, lambda: torch.tensor(torch.nan))
    assert torch.equal(theta[0], torch.ones(3))
    assert not torch.isfinite(torch.stack(losses)).any()


def test_the_gain_rests_then_moves_by_the_step_then_falls(
    effort: Callable[..., Effort],
) -> None:
    gain = Gain(effort(steps=100))
    gradient = torch.full((4,), 2.0)
    found = [gain(gradient) * 2.0 for _ in range(100)]
    assert found[:10] == [0.0] * 10
    assert found[10] == pytest.approx(0.05)
    assert found[-1] == pytest.approx(0.05 * (11 / 100) ** 0.602)


@pytest.mark.parametrize(
    "changes", [{"candidates": 1}, {"step_rad": 0.0}, {"radius_rad": -1.0}]
)
def test_an_effort_that_cannot_move_is_refused(
    effort: Callable[..., Effort], changes: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match="Correct the method"):
        effort(**changes)
