"""A spoilt backward pass is spoilt as it says, and the forward pass never is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labctl.protocol import DestroyJacobian
from labctl.studies.destroy_jacobian import (
    Condition,
    Found,
    Spoiler,
    SpoiltLinear,
    claims,
    columns,
    conditions,
    jobs,
    measure,
)
from labctl.studies.job import Claim, Rows

Once = Callable[[str, Callable[[Path], Any]], Any]
SPEC = DestroyJacobian(
    name="destroy-jacobian",
    depths=(1, 2),
    flips=(0.45, 1.0),
    powers=(0.0,),
    samples=48,
    width=6,
    steps=80,
)


def gradients(*ways: Condition) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(len(ways), 5, 3, generator=rng)[:1].repeat(len(ways), 1, 1)
    theta = torch.randn(1, 3, 4, generator=rng).repeat(len(ways), 1, 1)
    x.requires_grad_()
    theta.requires_grad_()
    y = SpoiltLinear.apply(x, theta, Spoiler(ways, rng))  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    assert torch.allclose(y, x @ theta)
    weights = torch.arange(1.0, 21).view(5, 4)
    gx, gt = torch.autograd.grad((y * weights).sum(), (x, theta))
    return gx, gt


def test_an_untouched_condition_has_the_true_gradients() -> None:
    gx, gt = gradients(Condition("grad_x"))
    rng = torch.Generator().manual_seed(0)
    x, theta = torch.randn(1, 5, 3, generator=rng), torch.randn(1, 3, 4, generator=rng)
    weights = torch.arange(1.0, 21).view(5, 4)
    assert torch.allclose(gx[0], weights @ theta[0].T, rtol=1e-4)
    assert torch.allclose(gt[0], x[0].T @ weights, rtol=1e-4)


@pytest.mark.parametrize(
    ("target", "spoilt"),
    [
        ("gradients", (True, True)),
        ("grad_x", (True, False)),
        ("grad_theta", (False, True)),
        ("theta", (True, False)),
    ],
)
def test_only_the_target_is_spoilt(target: str, spoilt: tuple[bool, bool]) -> None:
    both = gradients(Condition("grad_x"), Condition(target, flip=1.0))
    for pair, is_spoilt in zip(both, spoilt, strict=True):
        expected = -pair[0] if is_spoilt else pair[0]
        assert torch.allclose(pair[1], expected, rtol=1e-4)


def test_signs_alone_keep_the_norm_of_every_row() -> None:
    gx, _ = gradients(Condition("grad_x"), Condition("grad_x", power=0.0))
    assert torch.allclose(gx[0].norm(dim=1), gx[1].norm(dim=1), rtol=1e-4)
    assert torch.equal(gx[0].sign(), gx[1].sign())
    assert torch.allclose(gx[1].abs().std(dim=1), torch.zeros(5), atol=1e-4)


@pytest.fixture(scope="module")
def rows(once: Once) -> Rows:
    def make(_: Path) -> Rows:
        found = [
            {"seed": job.seed, **measure(SPEC, job)} for job in jobs(SPEC, range(2))
        ]
        return {key: np.array([row[key] for row in found]) for key in found[0]}

    rows: Rows = once("destroy-jacobian", make)
    return rows


def test_every_job_leaves_every_column(rows: Rows) -> None:
    for column in columns(SPEC):
        assert rows[column.name].shape[1:] == column.shape, column.name
    assert len(conditions(SPEC)) == 16


def test_one_layer_cannot_learn_xor_and_two_can(rows: Rows) -> None:
    found = Found(SPEC, rows)
    assert found.of(Condition("grad_x"), 1).max() < 0.75
    assert found.of(Condition("grad_x"), 2).mean() > 0.75


def test_a_gradient_turned_round_learns_the_opposite(rows: Rows) -> None:
    turned = Found(SPEC, rows).of(Condition("grad_theta", flip=1.0), 2)
    assert turned.mean() < 0.5


def test_every_claim_is_judged(rows: Rows) -> None:
    assert len(claims(SPEC, rows)) == 5


@pytest.mark.parametrize(
    ("cost", "verdict"),
    [({}, "held"), ({"grad_x": 0.1}, "holds under conditions"), ({"all": 0.1}, "held")],
)
def test_exponents_between_are_judged_by_what_they_cost(
    cost: dict[str, float], verdict: str
) -> None:
    claim = judged("to be tried in the document", "power", cost)
    assert str(claim.verdict) == verdict
    worst = cost.get("grad_x", 0)
    assert f"grad_x: k = 0.5: {worst:.4f}" in claim.measured


@pytest.mark.parametrize(
    ("cost", "verdict"),
    [
        ({}, "held"),
        ({"all": 0.1}, "holds under conditions"),
        ({"all": 0.1, "grad_x": 0.1}, "did not hold"),
    ],
)
def test_the_thesis_is_judged_by_what_wrong_signs_cost(
    cost: dict[str, float], verdict: str
) -> None:
    claim = judged("the Jacobian is a heuristic", "flip", cost)
    assert str(claim.verdict) == verdict
    assert "a share of 0.2 of all signs" in claim.measured
    assert "(cosine 0.6 a layer)" in claim.measured


def judged(text: str, field: str, cost: dict[str, float]) -> Claim:
    given = SPEC.model_copy(update={"flips": (0.2, 0.4), "powers": (0.5,)})
    ways = conditions(given)
    untouched = {"flip": 0.0, "power": 1.0}[field]
    accuracy = [
        0.9 - cost.get(w.target, 0) * (getattr(w, field) != untouched) for w in ways
    ]
    pairs = [(d, s) for d in given.depths for s in (0, 1)]
    made = {
        "depth": np.array([depth for depth, _ in pairs]),
        "seed": np.array([seed for _, seed in pairs]),
        "accuracy": np.tile(accuracy, (len(pairs), 1)),
    }
    (found,) = (c for c in claims(given, made) if c.text.startswith(text))
    return found


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [((0.0, 0.01), "held"), ((0.0, 0.1), "not decided"), ((0.05, 0.1), "did not hold")],
)
def test_signs_are_judged_by_the_whole_interval(
    lost: tuple[float, float], verdict: str
) -> None:
    given = SPEC.model_copy(update={"depths": (2,)})
    ways = conditions(given)
    accuracy = [
        [0.9 - cost * (way == Condition("grad_theta", power=0.0)) for way in ways]
        for cost in lost
    ]
    made = {
        "depth": np.array([2, 2]),
        "seed": np.array([0, 1]),
        "accuracy": np.array(accuracy),
    }
    claim, *_ = claims(given, made)
    assert claim.text == "keeping only signs works for grad_theta"
    assert str(claim.verdict) == verdict
