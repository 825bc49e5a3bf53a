"""Published scores of ordinary models on the tasks' data: the data are what they say.

``make bench`` prints them. With ``LABCTL_WRITE_TABLES=1`` they are written into
``docs/reference/comparison.md``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from labctl import data
from labctl.data import Split
from labctl.training.readout import Task, solve

Section = Callable[[str, str, str], None]
SEEDS = 3


@dataclass(frozen=True)
class Anchor:
    """A published score.

    Parameters
    ----------
    task
        Data set.
    published, within
        Accuracy and how near ours has to come.
    source
        Where it stands.
    hidden
        Width of the hidden layers; none for a linear model. A layer that is as wide
        as the one before is added to it, as in the published model of MNIST-1D.
    steps, batch, learning_rate
        Of Adam.
    """

    task: str
    published: float
    within: float
    source: str
    hidden: tuple[int, ...] = ()
    steps: int = 6000
    batch: int = 100
    learning_rate: float = 1e-3


GREYDANUS = "Greydanus and Kobak, arXiv:2011.14439, README of the data set"
KRIENER = "Kriener, Göltz and Petrovici, arXiv:2102.08211, README of the data set"
ANCHORS = (
    Anchor("mnist-1d", 0.32, 0.02, GREYDANUS),
    Anchor("mnist-1d", 0.68, 0.02, GREYDANUS, (256, 256), 8000, learning_rate=1e-2),
    Anchor("yin-yang", 0.643, 0.02, KRIENER),
    Anchor("yin-yang", 0.987, 0.02, KRIENER, (120,), batch=20, learning_rate=1e-2),
)


class Beside(nn.Module):
    """What comes in, and a layer of it.

    Parameters
    ----------
    width
        Of both.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    @override
    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + torch.relu(self.layer(hidden))


def tensors(split: Split) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(split.x).float(), torch.from_numpy(split.y)


def score(anchor: Anchor, seed: int) -> float:
    """Accuracy on the test split."""
    found = data.load(set=anchor.task)
    (x, y), (x_test, y_test) = tensors(found.train), tensors(found.test)
    if not anchor.hidden:
        answer = solve(x, y, Task("classification", found.outputs), penalty=1e-6)
        return float((answer(x_test).argmax(dim=1) == y_test).double().mean())
    torch.manual_seed(seed)
    mean, scale = x.mean(dim=0), x.std(dim=0)
    widths = (x.shape[1], *anchor.hidden)
    layers: list[nn.Module] = []
    for wide, next_wide in pairwise(widths):
        layers += (
            [Beside(wide)]
            if wide == next_wide
            else [nn.Linear(wide, next_wide), nn.ReLU()]
        )
    model = nn.Sequential(*layers, nn.Linear(widths[-1], found.outputs))
    adam = torch.optim.Adam(model.parameters(), lr=anchor.learning_rate)
    for step in range(anchor.steps):
        rows = torch.randint(len(x), (anchor.batch,))
        loss = nn.functional.cross_entropy(model((x[rows] - mean) / scale), y[rows])
        adam.zero_grad()
        torch.autograd.backward(loss)
        for group in adam.param_groups:
            group["lr"] = anchor.learning_rate * (1 - step / anchor.steps)
        adam.step()
    with torch.no_grad():
        answer = model((x_test - mean) / scale).argmax(dim=1)
    return float((answer == y_test).double().mean())


@pytest.mark.bench
def test_ordinary_models_reach_what_was_published(section: Section) -> None:
    lines = ["| data | model | published | here | source |", "|---|---|---|---|---|"]
    off: list[str] = []
    for anchor in ANCHORS:
        seeds = range(SEEDS if anchor.hidden else 1)
        found = [score(anchor, seed) for seed in seeds]
        mean, spread = float(np.mean(found)), float(np.std(found))
        model = f"MLP {anchor.hidden}" if anchor.hidden else "linear"
        told = f"{mean:.3f}" + (f" ± {spread:.3f}" if anchor.hidden else "")
        lines.append(
            f"| {anchor.task} | {model} | {anchor.published:.3f} | {told} "
            f"| {anchor.source} |"
        )
        if abs(mean - anchor.published) > anchor.within:
            off.append(lines[-1])
    closing = (
        f"Accuracy on 2,000 test samples, mean and spread of {SEEDS} starts. "
        "`LABCTL_WRITE_TABLES=1 make bench`."
    )
    section("comparison", "Published anchors", "\n".join([*lines, "", closing]))
    assert off == []
