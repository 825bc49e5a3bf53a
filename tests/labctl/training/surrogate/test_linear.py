from typing import TYPE_CHECKING

import pytest
import torch
from torch import Generator

from labctl.training.surrogate.linear import Linear
from labctl.training.surrogate.settings import Ports, SurrogateSettings

if TYPE_CHECKING:
    from tests.labctl.training.surrogate.conftest import Fit, Task


def test_finds_a_matrix(matrix_task: "Task", fit: "Fit") -> None:
    settings = SurrogateSettings(
        "linear", width=32, depth=1, rank=8, learning_rate=1e-2, average=0.98
    )
    fitter = fit(matrix_task, settings, shots=1000, steps=300)
    assert matrix_task.cosine(fitter) > 0.99


def test_is_linear_in_the_cotangent() -> None:
    generator = Generator().manual_seed(6)
    surrogate = Linear(
        Ports(6, 4), rank=3, width=8, depth=1, generator=generator
    ).double()
    phase = torch.randn(5, 6, generator=generator).double()
    one, two = torch.randn(2, 5, 4, generator=generator).double()
    together = surrogate.vjp(one - 3 * two, phase)
    apart = surrogate.vjp(one, phase) - 3 * surrogate.vjp(two, phase)
    torch.testing.assert_close(together, apart)


def test_refuses_to_have_no_term() -> None:
    generator = Generator().manual_seed(0)
    with pytest.raises(ValueError, match="rank=0"):
        Linear(Ports(6, 4), rank=0, width=8, depth=1, generator=generator)
