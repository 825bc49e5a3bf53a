"""Losses whose minimum is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from labctl.training.contestant.search import Effort, Search

Descend = Callable[[Search, int], tuple[float, float]]


def bowl(theta: Tensor) -> Tensor:
    """Loss of each row, with its minimum of 0 at 0.3; the axes differ in weight."""
    weight = torch.linspace(0.5, 2, theta.shape[1], dtype=theta.dtype)
    return (weight * (theta - 0.3).square()).sum(dim=1)


@pytest.fixture
def descend() -> Descend:
    """Run a search on the bowl; say the loss before and after."""

    def go(search: Search, size: int) -> tuple[float, float]:
        theta = torch.full((size,), 1.5, dtype=torch.float64)
        first = float(bowl(theta[None]))
        for _ in range(search.effort.steps):
            candidates = search.ask(theta)
            assert candidates.shape == (search.effort.candidates, size)
            theta = search.tell(theta, candidates, bowl(candidates))
            search.done += 1
        return first, float(bowl(theta[None]))

    return go


@pytest.fixture
def resumed() -> Callable[[Callable[[], Search]], None]:
    """Check that a search goes on from a state as if nothing had happened."""

    def check(make: Callable[[], Search]) -> None:
        def run(search: Search, theta: Tensor, steps: int) -> Tensor:
            for _ in range(steps):
                candidates = search.ask(theta)
                theta = search.tell(theta, candidates, bowl(candidates))
                search.done += 1
            return theta

        start = torch.linspace(-1, 1, 7, dtype=torch.float64)
        whole = run(make(), start, 30)
        first = make()
        halfway = run(first, start, 17)
        second = make()
        second.load_state_dict(first.state_dict())
        assert torch.equal(run(second, halfway, 13), whole)

    return check


@pytest.fixture
def effort() -> Callable[..., Effort]:
    def make(**changes: float) -> Effort:
        usual = {"step_rad": 0.05, "radius_rad": 0.1, "candidates": 4, "steps": 300}
        values = {**usual, **changes}
        return Effort(
            values["step_rad"],
            values["radius_rad"],
            int(values["candidates"]),
            int(values["steps"]),
        )

    return make
