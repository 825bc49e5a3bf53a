"""Which way a training goes: what each method leaves out, needs, and costs."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from typing_extensions import override

from labctl.data import Dataset
from labctl.protocol import EstimatorEntry, TrainProtocol
from labctl.run.setting import Setting
from labctl.training.blackbox import Device, Exposure, Response
from labctl.training.contestant import twin
from labctl.training.contestant.build import FITTED, PRETRAINED, Method
from labctl.training.contestant.dfa import DirectFeedback
from labctl.training.contestant.forward_gradient import forward_gradient
from labctl.training.estimator import Estimator, Stateless
from labctl.training.network import Network
from labctl.training.plan import Course, Plan, TooSmall
from labctl.training.trainer import Trainer

# What is measured for the held-out cosine stays where an estimator is judged by it.
_JUDGED = frozenset({"forward-gradient", "dfa", "jacobian", "pat", "dat"})
# The others are not fitted as training goes on, nor after drift.
_LEARNS_ON = frozenset({"surrogate", "jacobian", "dat"})
PRETRAIN_SHARE = 4
# That a search may hold at once.
MOST_NUMBERS = 2**28


def settings(protocol: TrainProtocol) -> Method:
    """Give the method of a protocol, for training.

    Parameters
    ----------
    protocol
        The protocol.
    """
    return Method(**protocol.method.model_dump())


def effective(setting: Setting[TrainProtocol]) -> Setting[TrainProtocol]:
    """Take out of a protocol what its method does not use.

    The record then says what was really done: a method without a fitted surrogate
    carries no dither, one that nothing judges takes no held-out probes, and one that
    fits nothing as training goes on does not after drift.

    Parameters
    ----------
    setting
        As it was read.

    Returns
    -------
    setting
        The same for the method ``surrogate``.
    """
    protocol = setting.protocol
    name = protocol.method.name
    if name == "surrogate":
        return setting
    probes: dict[str, object] = {"dither_rad": (0.0, 0.0)}
    if name != "jacobian":
        probes["paired_per_step"] = 0
    if name == "forward-gradient":
        probes["paired_rad"] = protocol.method.radius_rad  # Where its choice begins.
    if name not in _JUDGED:
        probes |= {"held_out_per_step": 0, "noise_repeats": 0, "size_every": 0}
    surrogate: dict[str, object] = {} if name in FITTED else {"device": "cpu"}
    if name == "jacobian":
        surrogate = {"name": "jacobian", "loss": []}
    if name == "pat":
        surrogate = {"fits_per_step": 0}
    drift = protocol.drift
    if name not in _LEARNS_ON:
        drift = drift.model_copy(update={"refit_above": None})
    value = protocol.model_copy(
        update={
            "probes": protocol.probes.model_copy(update=probes),
            "surrogate": protocol.surrogate.model_copy(update=surrogate),
            "estimator": EstimatorEntry(),
            "drift": drift,
        }
    )
    return replace(setting, document=replace(setting.document, value=value))


def contradictions(protocol: TrainProtocol) -> Iterator[tuple[str, str]]:
    """Say where a method and another section contradict each other.

    Parameters
    ----------
    protocol
        As it was read.

    Yields
    ------
    key, text
        Dotted path; what was got, what was expected, what to do.
    """
    name, surrogate = protocol.method.name, protocol.surrogate.name
    if name == "surrogate":
        return
    if protocol.estimator.name != "trust":
        text = (
            f"name={protocol.estimator.name}, expected trust with method {name}: only "
            "the method surrogate is corrected. Remove the estimator."
        )
        yield "estimator.name", text
    if name in PRETRAINED and not surrogate.startswith("twin-"):
        text = (
            f"name={surrogate}, expected a twin with method {name}. "
            "Take twin-modes or twin-dense."
        )
        yield "surrogate.name", text
    try:
        settings(protocol).search(1, torch.Generator())
    except ValueError as error:
        yield "method.candidates", str(error)
    linear = protocol.model[-1].layer == "linear"
    if name in {"readout", "calibrate-deploy"} and not linear:
        text = (
            f"ends with {protocol.model[-1].layer}, expected linear with method "
            f"{name}. End the model with a linear layer."
        )
        yield "model", text


def excess(setting: Setting[TrainProtocol]) -> Iterator[tuple[str, str]]:
    """Find what a search would hold beyond any memory.

    Parameters
    ----------
    setting
        The run.

    Yields
    ------
    key, text
        Dotted path; what was got, what was expected, what to do.
    """
    method = setting.protocol.method
    layers = sum(layer.layer == "device" for layer in setting.protocol.model)
    theta = layers * math.prod(setting.entry.macropixels)
    if method.name == "cma-es" and theta**2 > MOST_NUMBERS:
        text = (
            f"name=cma-es with {theta} phases, expected at most "
            f"{math.isqrt(MOST_NUMBERS)}: it holds a matrix of them. Take pepg."
        )
        yield "method.name", text
    if (
        settings(setting.protocol).is_search
        and method.candidates * theta > MOST_NUMBERS
    ):
        text = (
            f"candidates={method.candidates} of {theta} phases each, expected at most "
            f"{MOST_NUMBERS // theta}: they would not fit into memory. Lower it."
        )
        yield "method.candidates", text


def course(protocol: TrainProtocol, common: Course) -> Course:
    """Add to a course what its method costs.

    Parameters
    ----------
    protocol
        The protocol.
    common
        The course without it.
    """
    method = settings(protocol)
    if method.name == "calibrate-deploy":
        given = method.pretrain_samples
        empty = replace(common, refits=1, pretrain=0)
        left = protocol.budget.shots - sum(empty.counts(0).values())
        samples = max(0, left) // common.exposures if given is None else given
        return replace(empty, pretrain=samples)
    return replace(
        common,
        candidates=method.candidates if method.is_search else 1,
        pretrain=_pretrain(method, protocol.budget.shots, common.exposures),
        probes_per_sample=method.probes
        if method.name == "forward-gradient"
        else common.probes_per_sample,
    )


def _pretrain(method: Method, budget: int, layers: int) -> int:
    if method.name not in PRETRAINED:
        return 0
    if method.pretrain_samples is not None:
        return method.pretrain_samples
    return budget // (PRETRAIN_SHARE * layers)


def deployed(budget: int, course: Course) -> Plan | TooSmall:
    """Plan a course whose every optimiser step is digital.

    Parameters
    ----------
    budget
        Exposures that there are.
    course
        What it consists of.
    """
    counts = course.counts(0)
    total = sum(counts.values())
    least = sum(replace(course, pretrain=course.batch).counts(0).values())
    if total > budget or course.pretrain < course.batch:
        return TooSmall(budget, max(least, total))
    return Plan(0, 0.0, counts, total)


def estimator(
    protocol: TrainProtocol, dataset: Dataset, network: Network, device: Device
) -> Estimator | None:
    """Make the gradient of a method that fits nothing.

    Parameters
    ----------
    protocol
        The protocol.
    dataset
        Gives the width of the answer.
    network
        The model.
    device
        Takes its probes.

    Returns
    -------
    estimator
        None where the method has no gradient, or takes a surrogate's.
    """
    method = settings(protocol)
    generator = torch.Generator().manual_seed(protocol.seed + 1)
    if method.name == "forward-gradient":
        return forward_gradient(
            device,
            probes=method.probes,
            rms_rad=method.radius_rad,
            generator=generator,
        )
    if method.name == "dfa":
        return DirectFeedback(
            network,
            outputs=dataset.outputs,
            pixels=device.pixels,
            generator=generator,
        )
    return None


def fits(protocol: TrainProtocol) -> bool:
    """Whether the method has a surrogate that is fitted.

    Parameters
    ----------
    protocol
        The protocol.
    """
    return protocol.method.name in FITTED


def is_frozen(protocol: TrainProtocol) -> bool:
    """Whether theta stays as it started.

    Parameters
    ----------
    protocol
        The protocol.
    """
    return protocol.method.name == "readout"


def stages(protocol: TrainProtocol) -> int:
    """Say how many parts :func:`before` has.

    Parameters
    ----------
    protocol
        The protocol.
    """
    name = protocol.method.name
    return 4 if name == "calibrate-deploy" else 2 * (name in PRETRAINED)


def before(
    trainer: Trainer, protocol: TrainProtocol, course: Course
) -> list[Callable[[], None]]:
    """Say what a method does between the first fit and the first step.

    Parameters
    ----------
    trainer
        To be prepared before.
    protocol
        The protocol.
    course
        What was planned.

    Returns
    -------
    stages
        In order; after each, the state of the trainer is all that the next one needs.
    """
    method = settings(protocol)
    if method.name not in PRETRAINED:
        return []
    how = twin.Pretraining(course.pretrain, method.pretrain_rad, method.pretrain_fits)
    found: list[Callable[[], None]] = [
        partial(twin.expose, trainer, how),
        partial(twin.fit, trainer, how),
    ]
    if method.name == "calibrate-deploy":
        found.append(partial(twin.descend, trainer, method.digital_steps))
        found.append(partial(twin.deploy, trainer))
    return found


class NoGradient(Stateless):
    """For methods that never ask for a gradient of the device."""

    @override
    def __call__(self, exposure: Exposure, cotangent: Tensor) -> Tensor:
        """Refuse.

        Raises
        ------
        RuntimeError
            Always.
        """
        text = "method: a gradient was asked for, expected losses only."
        raise RuntimeError(text)


class Timed(Device):
    """A device that knows how long its exposures took: the rest is digital work.

    Parameters
    ----------
    device
        The device.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.seconds = 0.0

    @property
    @override
    def layout(self) -> tuple[int, int]:
        """Rows and columns of macropixels."""
        return self._device.layout

    @property
    @override
    def pixels(self) -> int:
        """Number of macropixels."""
        return self._device.pixels

    @property
    @override
    def outputs(self) -> int:
        """Number of outputs."""
        return self._device.outputs

    @override
    def __call__(
        self, phase: Tensor, *, category: str, layer: int, step: int
    ) -> Response:
        """Expose, and count the time."""
        start = time.monotonic()
        response = self._device(phase, category=category, layer=layer, step=step)
        self.seconds += time.monotonic() - start
        return response
