from typing import TYPE_CHECKING

import pytest
import torch
from torch import Generator, Tensor

from labctl.training.surrogate.jacobian import Jacobian
from labctl.training.surrogate.settings import FitTerm, Ports, SurrogateSettings

if TYPE_CHECKING:
    from tests.labctl.training.surrogate.conftest import Fit, Task


def probes(count: int, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = Generator().manual_seed(4)
    matrix = torch.randn(5, 8, generator=generator)
    d_alpha = 0.1 * torch.randn(count, 8, generator=generator)
    d_f = d_alpha @ matrix.T + noise * torch.randn(count, 5, generator=generator)
    return matrix, d_alpha, d_f


def test_finds_a_matrix(matrix_task: "Task", fit: "Fit") -> None:
    fitter = fit(matrix_task, SurrogateSettings("jacobian"), shots=40, steps=1)
    assert matrix_task.cosine(fitter) > 0.99


def test_is_the_ridge_solution_without_forgetting() -> None:
    _, d_alpha, d_f = probes(6, noise=0.1)
    jacobian = Jacobian(Ports(8, 5), ridge=0.05, forgetting=1.0)
    jacobian.update(d_alpha, d_f)
    load = 0.05 * 8 * d_alpha.square().mean() * torch.eye(8)
    expected = torch.linalg.solve(d_alpha.T @ d_alpha + load, d_alpha.T @ d_f).T
    torch.testing.assert_close(jacobian.matrix, expected, rtol=1e-4, atol=1e-5)


def test_update_in_parts_is_the_update_at_once() -> None:
    _, d_alpha, d_f = probes(12)
    one, two = (Jacobian(Ports(8, 5), ridge=0.01, forgetting=0.9) for _ in range(2))
    one.update(d_alpha, d_f)
    for part in (slice(0, 5), slice(5, 6), slice(6, 12)):
        two.update(d_alpha[part], d_f[part])
    torch.testing.assert_close(one.matrix, two.matrix)


def test_forgets_a_device_that_changed() -> None:
    matrix, d_alpha, d_f = probes(400)
    jacobian = Jacobian(Ports(8, 5), ridge=0.001, forgetting=0.97)
    jacobian.update(d_alpha[:200], -d_f[:200])
    jacobian.update(d_alpha[200:], d_f[200:])
    error = (jacobian.matrix - matrix).norm() / matrix.norm()
    assert error < 0.05


def test_ridge_beats_least_squares_at_as_many_noisy_probes_as_pixels() -> None:
    matrix, d_alpha, d_f = probes(8, noise=0.1)
    ridge = Jacobian(Ports(8, 5), ridge=0.1, forgetting=1.0)
    plain = Jacobian(Ports(8, 5), ridge=1e-7, forgetting=1.0)
    errors = []
    for jacobian in (ridge, plain):
        jacobian.update(d_alpha, d_f)
        errors.append(float((jacobian.matrix - matrix).norm()))
    assert errors[0] < 0.7 * errors[1]


def test_does_not_depend_on_the_scale_that_comes_later() -> None:
    matrix, d_alpha, d_f = probes(60)
    jacobian = Jacobian(Ports(8, 5), ridge=1e-4, forgetting=1.0)
    jacobian.update(d_alpha, d_f)
    jacobian.calibrate(100 * torch.randn(9, 5, generator=Generator().manual_seed(0)))
    cotangent = torch.tensor([[1.0, -2.0, 0.0, 3.0, 1.0]])
    answer = jacobian.vjp(cotangent, torch.zeros(1, 8))
    torch.testing.assert_close(answer, cotangent @ matrix, rtol=1e-3, atol=1e-3)


def test_knows_nothing_before_the_first_probe() -> None:
    jacobian = Jacobian(Ports(8, 5), ridge=1e-2, forgetting=1.0)
    answer = jacobian.vjp(torch.ones(2, 5), torch.zeros(2, 8))
    assert torch.equal(answer, torch.zeros(2, 8))


def test_state_restores_the_answer_after_it_was_solved() -> None:
    _, d_alpha, d_f = probes(20)
    one, two = (Jacobian(Ports(8, 5), ridge=0.01, forgetting=0.9) for _ in range(2))
    one.update(d_alpha, d_f)
    two.update(d_alpha, -d_f)
    assert not torch.equal(one.matrix, two.matrix)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.matrix, two.matrix)


@pytest.mark.parametrize(("ridge", "forgetting"), [(0.0, 0.9), (0.1, 0.0), (0.1, 1.1)])
def test_refuses_parameters_out_of_range(ridge: float, forgetting: float) -> None:
    with pytest.raises(ValueError, match=f"ridge={ridge}, forgetting={forgetting}"):
        Jacobian(Ports(8, 5), ridge=ridge, forgetting=forgetting)


def test_refuses_a_fit_loss(matrix_task: "Task", fit: "Fit") -> None:
    settings = SurrogateSettings("jacobian", loss=(FitTerm("cos"),))
    with pytest.raises(ValueError, match="closed form, expected none"):
        fit(matrix_task, settings, shots=4, steps=1)
