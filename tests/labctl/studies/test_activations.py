"""Nets train with forward and backward chosen apart."""

import numpy as np
import torch

from labctl.protocol import Activations
from labctl.studies.activations import Tables, claims, columns, jobs, measure
from labctl.studies.zoo import NODES, X

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
