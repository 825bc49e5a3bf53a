from typing import TYPE_CHECKING

import pytest
import torch
from torch import Generator

from labctl.training.surrogate.log_lin_exp import LogLinExp
from labctl.training.surrogate.settings import Ports, SurrogateSettings

if TYPE_CHECKING:
    from tests.labctl.training.surrogate.conftest import Fit, Task


def test_finds_a_matrix(matrix_task: "Task", fit: "Fit") -> None:
    settings = SurrogateSettings(
        "log-lin-exp", width=64, learning_rate=1e-2, average=0.98
    )
    fitter = fit(matrix_task, settings, shots=1000, steps=300)
    assert matrix_task.cosine(fitter) > 0.99


def test_finds_the_gradient_of_a_product(product_task: "Task", fit: "Fit") -> None:
    settings = SurrogateSettings("log-lin-exp", fit_batch=256, average=0.98)
    fitter = fit(product_task, settings, shots=5000, steps=550)
    assert product_task.cosine(fitter) > 0.99


def test_is_finite_where_numbers_are_zero() -> None:
    surrogate = LogLinExp(
        Ports(3, 2, circular=False), width=9, generator=Generator().manual_seed(0)
    )
    cotangent = torch.tensor([[0.0, 1.0], [1.0, -1.0]])
    answer = surrogate.vjp(cotangent, torch.zeros(2, 3))
    torch.autograd.backward(answer.sum())
    assert torch.isfinite(answer).all()
    assert surrogate.real.grad is not None
    assert torch.isfinite(surrogate.real.grad).all()


def test_refuses_to_have_no_monomial() -> None:
    with pytest.raises(ValueError, match="width=0"):
        LogLinExp(Ports(3, 2), width=0, generator=Generator().manual_seed(0))
