"""Twins that are trained before the device is: frozen, corrected, or deployed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from labctl.training.blackbox import Device, Response
from labctl.training.estimator import Trust
from labctl.training.readout import solve
from labctl.training.surrogate.model import Twin
from labctl.training.trainer import Trainer


@dataclass(frozen=True)
class Pretraining:
    """What a twin learns before training.

    Parameters
    ----------
    samples
        Training samples that are exposed for it, each through every device layer.
    rms_rad
        Rms of the random phase that each exposure carries: how far around the
        first theta the twin is good.
    fits
        Fit steps.
    """

    samples: int
    rms_rad: float
    fits: int


@torch.no_grad()
def expose(trainer: Trainer, how: Pretraining) -> None:
    """Expose training samples around the first theta; the twin may learn from them.

    Parameters
    ----------
    trainer
        Prepared, with a fitter.
    how
        How much of it.

    Raises
    ------
    ValueError
        There is no surrogate to be fitted.
    """
    fitter, network = trainer.parts.fitter, trainer.parts.network
    if fitter is None:
        text = "method: no surrogate, expected a twin to train before the device."
        raise ValueError(text)
    trainer.listener.stage("exposures for the twin")
    left, size = how.samples, trainer.settings.optimisation.batch
    order = torch.arange(len(trainer.train))
    while left > 0:
        part, order = order[: min(size, left)], order.roll(-min(size, left))
        network.begin("warm-up", step=-1, dither_rad=how.rms_rad)
        network.body(trainer.train.x[part])
        for layer in network.device_layers:
            for exposure in layer.tape:
                shown = exposure.response
                fitter.observe_values(shown.shown, shown.y)
                trainer.evidence.shots += len(shown.shot)
        left -= len(part)


def fit(trainer: Trainer, how: Pretraining) -> None:
    """Fit the twin to all that was exposed.

    Parameters
    ----------
    trainer
        Prepared, with a fitter.
    how
        How much of it.
    """
    trainer.listener.stage("fit of the twin")
    trainer.evidence.fit(how.fits)


@final
class TwinDevice(Device):
    """A twin in the place of the device: costs no exposure.

    Parameters
    ----------
    twin
        Predicts the outputs.
    layout
        Rows and columns of macropixels.
    """

    def __init__(self, twin: Twin, layout: tuple[int, int]) -> None:
        self._twin, self._layout = twin, layout

    @property
    @override
    def layout(self) -> tuple[int, int]:
        """Rows and columns of macropixels."""
        return self._layout

    @property
    @override
    def pixels(self) -> int:
        """Number of macropixels."""
        return self._twin.pixels

    @property
    @override
    def outputs(self) -> int:
        """Number of outputs."""
        return self._twin.outputs

    @override
    @torch.no_grad()
    def __call__(
        self,
        phase: Float[Tensor, "batch pixel"],
        *,
        category: str,
        layer: int,
        step: int,
    ) -> Response:
        """Predict; the numbers of the shots are -1."""
        del category, layer, step
        y: Tensor = self._twin(phase)
        return Response(y, phase, torch.full((len(phase),), -1))


def descend(trainer: Trainer, steps: int) -> None:
    """Train theta and digital layers on the twin alone.

    Parameters
    ----------
    trainer
        Prepared; its twin is fitted.
    steps
        Optimiser steps, all of them digital.

    Raises
    ------
    TypeError
        There is no twin.
    """
    fitter = trainer.parts.fitter
    twin = None if fitter is None else fitter.answering
    if not isinstance(twin, Twin):
        text = (
            "method: calibrate-deploy needs a twin, expected one. Choose a twin as "
            "surrogate."
        )
        raise TypeError(text)
    trainer.listener.stage("training on the twin")
    with _on(trainer, twin):
        _descend(trainer, steps)


def deploy(trainer: Trainer) -> None:
    """Solve the head on fresh exposures of the whole training split.

    Parameters
    ----------
    trainer
        Its theta was trained on the twin.

    Raises
    ------
    ValueError
        The model has no linear layer at its end.
    """
    head = trainer.parts.network.head
    if head is None:
        text = (
            "method: calibrate-deploy needs a linear layer at the end of the model, "
            "expected one. End the model with linear."
        )
        raise ValueError(text)
    trainer.listener.stage("last readout")
    hidden = trainer.features(trainer.train, "train")
    exposures = trainer.parts.network.exposures
    trainer.evidence.shots += len(trainer.train) * exposures
    solve(
        hidden, trainer.train.y, trainer.settings.task, beat=trainer.listener.beat
    ).put_into(head)


@contextmanager
def _on(trainer: Trainer, twin: Twin) -> Iterator[None]:
    layers = trainer.parts.network.device_layers
    before = [(layer.device, layer.estimate) for layer in layers]
    replacement = TwinDevice(twin, trainer.parts.device.layout)
    for layer in layers:
        layer.device, layer.estimate = replacement, Trust(twin)
        layer.begin("train", step=-1)
    try:
        yield
    finally:
        for layer, (device, estimate) in zip(layers, before, strict=True):
            layer.device, layer.estimate = device, estimate


def _descend(trainer: Trainer, steps: int) -> None:
    how, network = trainer.settings.optimisation, trainer.parts.network
    groups = [
        {"params": network.theta(), "peak": how.learning_rate_theta},
        {"params": network.digital(), "peak": how.learning_rate_digital},
    ]
    adam = torch.optim.Adam(groups, lr=0.0)
    generator = trainer.evidence.generator
    for step in range(steps):
        index = torch.randint(len(trainer.train), (how.batch,), generator=generator)
        network.begin("train", step=-1)
        answer = network(trainer.train.x[index])
        loss = trainer.settings.task.loss(answer, trainer.train.y[index])
        adam.zero_grad()
        torch.autograd.backward(loss)
        for group in adam.param_groups:
            group["lr"] = group["peak"] * how.factor(step, steps)
        adam.step()
        trainer.listener.beat()
