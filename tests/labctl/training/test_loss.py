import math

import pytest
import torch
from torch import Generator

from labctl.training import loss as losses

NAMES = [*losses.LOSSES, "gen"]
KINKED = {"sign", "sign-mirror", "relu"}


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = Generator().manual_seed(3)
    x, y = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    return x, y


def by_hand(name: str, x: list[float], y: list[float]) -> float:
    inner = sum(a * b for a, b in zip(x, y, strict=True))
    length, goal = math.hypot(*x), math.hypot(*y)
    products = [a * b for a, b in zip(x, y, strict=True)]
    values: dict[str, float] = {
        "sign": -sum(max(0.0, 1 - math.copysign(1, p)) for p in products),
        "sign-mirror": sum(max(0.0, 1 - math.copysign(1, p)) for p in products),
        "relu": sum(max(0.0, -p) for p in products),
        "mse": sum((a - b) ** 2 for a, b in zip(x, y, strict=True)),
        "cos": 1 - inner / (length * goal),
        "dot": (1 - inner / goal**2) ** 2,
        "dot-norm": (goal - inner / goal) ** 2,
        "gen": (inner / (length**0.7 * goal**1.3) - 1) ** 2,
    }
    return values[name]


@pytest.mark.parametrize(
    "name", ["sign", "sign-mirror", "relu", "mse", "cos", "dot", "dot-norm", "gen"]
)
def test_is_the_mean_of_its_formula_over_the_vectors(
    name: str, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, y = pair
    rows = zip(x.tolist(), y.tolist(), strict=True)
    expected = sum(by_hand(name, a, b) for a, b in rows) / len(x)
    got = losses.named(name, a=0.7)(x, y)
    assert float(got) == pytest.approx(expected, rel=1e-9)


def test_logarithms_and_sums_are_made_of_their_parts(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    value = {name: float(loss(*pair)) for name, loss in losses.LOSSES.items()}
    assert value["log-mse"] == pytest.approx(math.log(value["mse"]))
    assert value["log-cos"] == pytest.approx(math.log(value["cos"]))
    assert value["cos+mse"] == pytest.approx(value["cos"] + value["mse"])
    assert value["cos+dot"] == pytest.approx(value["cos"] + value["dot"])


def test_gen_of_zero_is_dot(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.testing.assert_close(losses.gen(0.0)(*pair), losses.dot(*pair))


@pytest.mark.parametrize("name", sorted(set(NAMES) - KINKED))
def test_gradient_agrees_with_finite_differences_in_x_and_y(
    name: str, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    leaves = tuple(part.clone().requires_grad_() for part in pair)
    assert torch.autograd.gradcheck(losses.named(name, a=0.7), leaves)


def test_gradient_of_relu_agrees_away_from_its_kink() -> None:
    x = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[-1.0, 1.0, 2.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(losses.relu, (x, y))


def test_gradient_of_sign_is_zero(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    x = pair[0].clone().requires_grad_()
    torch.autograd.backward(losses.sign(x, pair[1]))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("name", NAMES)
def test_repeated_batch_costs_the_same(
    name: str, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    loss = losses.named(name)
    x, y = pair
    torch.testing.assert_close(loss(x.repeat(3, 1), y.repeat(3, 1)), loss(x, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("zero", ["x", "y", "both"])
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradient_are_finite_at_zero_vectors(
    name: str, zero: str, dtype: torch.dtype
) -> None:
    x = torch.tensor([[1.0, 2.0, -1.0], [0.5, 1.0, 0.0]], dtype=dtype)
    y = torch.tensor([[0.5, -1.0, 1.0], [1.0, 1.0, 2.0]], dtype=dtype)
    if zero != "y":
        x[0] = 0
    if zero != "x":
        y[0] = 0
    x.requires_grad_()
    y.requires_grad_()
    value = losses.named(name)(x, y)
    torch.autograd.backward(value)
    assert value.dtype == dtype
    assert torch.isfinite(value)
    for leaf in (x, y):
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()


def test_perfect_vectors_cost_nothing(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    _, y = pair
    for name in ("mse", "cos", "dot", "dot-norm", "gen", "cos+mse", "cos+dot"):
        assert float(losses.named(name)(y, y)) == pytest.approx(0, abs=1e-12)


def test_one_probe_a_group_has_no_gradient_in_cos() -> None:
    x = torch.tensor([[2.0], [-0.5]], dtype=torch.float64, requires_grad=True)
    torch.autograd.backward(losses.cos(x, torch.ones(2, 1, dtype=torch.float64)))
    assert x.grad is not None
    assert x.grad.abs().max() < 1e-15


@pytest.mark.parametrize("name", ["cos", "dot", "gen", "cos+mse"])
def test_relation_refuses_one_probe_a_group(name: str) -> None:
    loss = losses.relation(name)
    with pytest.raises(ValueError, match="probes a group=1, expected at least 2"):
        loss(torch.ones(4, 1), torch.ones(4, 1))


def test_relation_takes_one_probe_a_group_with_mse() -> None:
    value = losses.relation("mse")(torch.ones(4, 1), torch.zeros(4, 1))
    assert float(value) == 1


def test_refuses_an_unknown_name_an_exponent_out_of_range_and_an_empty_sum() -> None:
    with pytest.raises(ValueError, match="name='cosine', expected one of sign"):
        losses.named("cosine")
    with pytest.raises(ValueError, match=r"a=2.5, expected 0 to 2"):
        losses.gen(2.5)
    with pytest.raises(ValueError, match="terms=0"):
        losses.weighted([])
