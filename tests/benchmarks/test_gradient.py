"""How well a twin knows the gradient, over the shots that it was fitted to.

``sim-small`` with everything on, digits on the panel, theta as it starts. ``make
bench`` prints the table. With ``LABCTL_WRITE_TABLES=1`` the picture is drawn anew:
``docs/pictures/gradient.png``.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

from labctl import bench as benches
from labctl import data
from labctl.report import figure
from labctl.report.figure import Drawing
from labctl.reservoir import Reservoir
from labctl.run import model
from labctl.training.encoding import Additive
from labctl.training.surrogate.build import build
from labctl.training.surrogate.fit import Fitter
from labctl.training.surrogate.settings import SurrogateSettings

PICTURE: Final = Path(__file__).parents[2] / "docs" / "pictures" / "gradient.png"
SHOTS: Final = (150, 600, 2400)
SEEDS: Final = (0, 1)
TRAINED, ASKED, BATCH, REPEATS = 1200, 60, 64, 32
DITHER_RAD: Final = 0.5
FITTED: Final = {
    "twin-optics, told nothing": SurrogateSettings(
        name="twin-optics",
        optics="learned",
        learning_rate=0.02,
        schedule="one-cycle",
        starts=4,
        keep_every=8,
        fit_batch=64,
    ),
    "twin-pairs": SurrogateSettings(name="twin-pairs"),
    "twin-modes": SurrogateSettings(name="twin-modes", modes=64),
}
CYCLE: Final = 500  # steps of the first fit of twin-optics
PER_BATCH: Final = 40  # steps of the others for each batch, as in training

Cosine = Callable[[Fitter], float]


def phases(count: int, draw: Generator) -> Tensor:
    """Digits on the panel at one theta: first those of the fit, then those asked."""
    digits = data.load(set="digits", train=count, validation=1, test=ASKED)
    encoding = Additive(64, (16, 16), input_scale_rad=torch.pi)
    theta = 2 * torch.pi * torch.rand(encoding.theta_size, generator=draw)
    x = np.concatenate([digits.train.x, digits.test.x])
    shown: Tensor = encoding(torch.tensor(x, dtype=torch.float32), theta)
    return shown


def fitted(
    name: str, shown: Tensor, y: Tensor, noise: Tensor, draw: Generator
) -> Fitter:
    settings = FITTED[name]
    file = benches.load("sim-small").file
    surrogate = build(settings, model.ports(file, file.reservoir, settings), draw)
    fitter = Fitter(surrogate, settings, draw)
    fitter.observe_values(shown, y)
    if settings.name == "twin-optics":
        fitter.first(CYCLE, noise=noise)
    else:
        fitter.step(PER_BATCH * len(y) // BATCH)
    return fitter


def course(seed: int) -> dict[str, list[float]]:
    """Mean cosine of every twin with the true gradient, by the shots of its fit."""
    draw = Generator().manual_seed(seed)
    most = max(SHOTS)
    alpha = phases(TRAINED, draw)
    train, asked = alpha[:TRAINED], alpha[TRAINED:]
    pick = torch.arange(most) % len(train)
    dithered = train[pick] + DITHER_RAD * torch.randn(most, 256, generator=draw)
    with benches.open(benches.load("sim-small"), seed=seed) as bench:
        reservoir = Reservoir(bench)
        told = reservoir(dithered, category="train")
        again = reservoir(asked[:1].expand(REPEATS, -1), category="repeat")
        spread = told.y.var(dim=0)
        # Each output counts as much, as behind a layer that standardises.
        cotangent = torch.randn(ASKED, 9, generator=draw) / spread.sqrt()
        truth = reservoir.gradient_source()(asked, cotangent)
    found: dict[str, list[float]] = {}
    for name in FITTED:
        for count in SHOTS:
            fitter = fitted(
                name, told.shown[:count], told.y[:count], again.y.var(dim=0), draw
            )
            got = fitter.answering.vjp(cotangent, asked).detach()
            cosine = torch.nn.functional.cosine_similarity(truth, got).mean()
            found.setdefault(name, []).append(float(cosine))
    return found


@pytest.mark.bench
def test_one_twin_serves_all_patterns(capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    runs = [course(seed) for seed in SEEDS]
    curves = {name: np.array([run[name] for run in runs]) for name in FITTED}
    # N probes dealt out to a batch, each pattern anew: cosine sqrt(K / pixels).
    alone = np.sqrt(np.array(SHOTS) / BATCH / 256)
    with capsys.disabled():
        for name, curve in {**curves, "each pattern anew": alone[None]}.items():
            print(name, *(f"{n}: {c:.2f}" for n, c in zip(SHOTS, curve.mean(0))))  # noqa: T201, B905 - this is what make bench is for
    if os.environ.get("LABCTL_WRITE_TABLES") == "1":
        PICTURE.write_bytes(figure.render(drawn(curves, alone), "light", "png"))
    last = {name: curve[:, -1] for name, curve in curves.items()}
    assert (last["twin-optics, told nothing"] > last["twin-pairs"]).all()
    assert (last["twin-pairs"] > last["twin-modes"]).all()
    assert (last["twin-pairs"] > alone[-1]).all()


def drawn(curves: dict[str, np.ndarray], alone: np.ndarray) -> Drawing:
    def draw(sheet: Figure) -> None:
        axis = sheet.subplots()
        for number, (name, curve) in enumerate(curves.items()):
            mean = curve.mean(axis=0)
            axis.plot(SHOTS, mean, "osD"[number], linestyle="-", label=name)
            axis.fill_between(SHOTS, curve.min(0), curve.max(0), alpha=0.25)
        axis.plot(SHOTS, alone, "--", color="0.4", label="each pattern anew (theory)")
        axis.set(
            xscale="log",
            xlabel="shots that the twin has seen",
            ylabel="cosine with the true gradient",
            ylim=(0, 1.02),
        )
        axis.set_xticks(SHOTS, [f"{count:,}" for count in SHOTS])
        axis.minorticks_off()
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    return Drawing("gradient", "", "", "", (7.2, 3.0), draw)
