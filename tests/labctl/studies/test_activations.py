"""Nets train with forward and backward chosen apart."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from labctl.protocol import Activations
from labctl.studies.activations import (
    WIDTHS,
    Tables,
    claims,
    columns,
    jobs,
    measure,
    misfit,
)
from labctl.studies.job import Rows
from labctl.studies.zoo import MEASURES, NODES, X

SPEC = Activations(
    name="activations",
    functions=("identity", "relu", "sin", "threshold", "cantor"),
    backwards=("own", "identity", "sigmoid"),
    tasks=("xor",),
    depths=(2,),
    samples=64,
    width=6,
    steps=60,
)


def test_forward_and_backward_are_looked_up_apart() -> None:
    tables = Tables(X[None] ** 2, np.full((1, NODES), 3.0))
    x = torch.tensor([[[1.0, -2.0, 0.5]]], requires_grad=True)
    y = tables(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(y, torch.tensor([[[1.0, 4.0, 0.25]]]), atol=1e-4)
    assert torch.allclose(slope, torch.full_like(slope, 3.0))


def test_a_job_leaves_every_column_and_claims_can_be_judged() -> None:
    (job,) = jobs(SPEC, [0])
    row = {"seed": 0, **measure(SPEC, job)}
    for column in columns(SPEC):
        assert np.shape(row[column.name]) == column.shape, column.name
    rows = {key: np.array([value]) for key, value in row.items()}
    texts = [claim.text for claim in claims(SPEC, rows)]
    assert "the sine does well" in texts
    relu, threshold = (SPEC.functions.index(n) for n in ("relu", "threshold"))
    assert row["accuracy"][relu, 0] > 0.6
    # With a slope of zero, only the last layer learns.
    assert row["accuracy"].shape == (5, 3)
    assert row["accuracy"][threshold, 2] > 0.5


@pytest.mark.parametrize("degree", [2, 3, 5])
def test_a_polynomial_fits_what_polynomials_of_its_degree_fit(degree: int) -> None:
    x = np.linspace(-1, 1, 400)
    wave = np.sin(3 * np.pi * x)
    best = np.polynomial.Polynomial.fit(x, wave, degree)(x)
    expected = np.sqrt(np.mean((best - wave) ** 2) / np.mean(wave**2))
    assert misfit(f"polynomial-{degree}", 1) == pytest.approx(expected, rel=1e-6)


def test_wide_layers_of_relu_fit_a_wave() -> None:
    found = misfit("relu", 1)
    assert found.shape == (len(WIDTHS),)
    assert (np.diff(found) < 0).all()
    assert found[-1] < 0.05


def made(**given: Sequence[float]) -> tuple[Activations, Rows]:
    """Accuracies by task, then by function, the same in both seeds."""
    spec = SPEC.model_copy(update={"tasks": tuple(given)})
    names = SPEC.functions
    pairs = [(task, seed) for task in given for seed in (0, 1)]
    accuracy = [np.tile(np.array(given[t])[:, None], (1, 3)) for t, _ in pairs]
    (job,) = jobs(SPEC, [0])
    row = measure(SPEC.model_copy(update={"steps": 1}), job)
    rows = {key: np.array([value] * len(pairs)) for key, value in row.items()}
    rows["task"] = np.array([task for task, _ in pairs])
    rows["seed"] = np.array([seed for _, seed in pairs])
    rows["accuracy"] = np.array(accuracy)
    assert rows["accuracy"].shape[1:] == (len(names), 3)
    return spec, rows


def verdict_of(text: str, spec: Activations, rows: Rows) -> tuple[str, str]:
    (found,) = (c for c in claims(spec, rows) if c.text.startswith(text))
    return str(found.verdict), found.measured


@pytest.mark.parametrize(
    ("digits", "verdict"), [(0.9, "held"), (0.3, "holds under conditions")]
)
def test_cantor_is_judged_task_by_task(digits: float, verdict: str) -> None:
    # Identity, ReLU, sine, threshold, Cantor.
    spec, rows = made(xor=[0.5, 1, 1, 1, 0.6], digits=[0.5, 1, 1, 1, digits])
    found, measured = verdict_of("Cantor's function", spec, rows)
    assert found == verdict
    assert f"xor 0.1 [0.1, 0.1]; digits {digits - 0.5:.3g} [" in measured


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [
        ([0.9, 0.8, 0.7, 0.3, 0.2], "held"),
        ([0.2, 0.3, 0.4, 0.8, 0.9], "did not hold"),
        ([0.8, 0.3, 0.9, 0.2, 0.85], "not decided"),
    ],
)
def test_slopes_are_set_against_accuracy(accuracy: list[float], verdict: str) -> None:
    spec, rows = made(xor=accuracy)
    rows["measures"][..., MEASURES.index("largest")] = [1, 1.1, 1.2, 9, 10]
    rows["measures"][..., MEASURES.index("zero_share")] = [0, 0.1, 0.2, 0.8, 0.9]
    found, measured = verdict_of("good activations have a Jacobian", spec, rows)
    assert found == verdict
    assert "over 5 activations" in measured
