"""Complex nets learn beside real ones of as many parameters."""

import numpy as np
import pytest
import torch

from labctl.protocol import Activations
from labctl.studies.complex_nets import Lesson, beside, claims, columns, measure
from labctl.studies.job import Rows, Verdict

SPEC = Activations(
    name="activations",
    complex_functions=("identity", "split-tanh", "amplitude-tanh", "kerr"),
    width=6,
    batch=32,
    steps=40,
)


def _tanh(y: torch.Tensor) -> torch.Tensor:
    return torch.tanh(y)


def test_nets_learn_and_leave_every_column() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=rng)
    samples = x, (x[:, 0] * x[:, 1] > 0).long()
    found = measure(SPEC, 3, Lesson(samples, samples, 2), (_tanh, rng))
    for column in columns(SPEC):
        assert np.shape(found[column.name]) == column.shape, column.name
    assert found["complex_accuracy"].min() > 0.8
    # 2 -> 6 -> 6 -> 2, and each number twice.
    assert found["complex_parameters"] == 2 * (18 + 42 + 14)
    assert found["real_parameters"] == pytest.approx(148, rel=0.1)
    # Both kinds of tanh are compared with the same real net.
    assert (found["real_accuracy"][1] == found["real_accuracy"][2]).all()


def test_real_nets_are_named_once() -> None:
    assert beside(SPEC) == ["identity", "tanh", "sin"]


def _rows(ahead: float) -> Rows:
    rng = np.random.default_rng(0)
    seed = np.repeat(np.arange(4), 2)
    real = 0.7 + 0.005 * rng.normal(size=(8, 4, 2)) - [0, 0.3]
    ours = real[:, :, 0] + ahead + 0.005 * rng.normal(size=(8, 4))
    return {"seed": seed, "complex_accuracy": ours, "real_accuracy": real}


@pytest.mark.parametrize(
    ("ahead", "kind"),
    [(0.1, Verdict.HELD), (-0.01, Verdict.HELD), (-0.1, Verdict.FAILED)],
)
def test_as_well_means_hardly_behind_the_better_readout(
    ahead: float, kind: Verdict
) -> None:
    first, second = claims(SPEC, _rows(ahead))
    assert first.verdict is kind
    assert second.verdict is not Verdict.CONDITIONS
    assert "linear optics" in second.measured
