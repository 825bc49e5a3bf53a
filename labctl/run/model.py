"""From the plain entries of a train protocol to the parts that training wants."""

import torch
from torch import Tensor
from typing_extensions import override

from labctl.calibration import BenchFile, ReservoirEntry
from labctl.data import Dataset, Split
from labctl.protocol import (
    ActivationLayer,
    DeviceLayer,
    DriftEntry,
    Layer,
    LinearLayer,
    ProbeEntry,
    SurrogateEntry,
    TrainingEntry,
    TrainProtocol,
)
from labctl.run import method
from labctl.training import network
from labctl.training.blackbox import Device, Response
from labctl.training.blackbox import DeviceLayer as ShowingLayer
from labctl.training.drift import Watching
from labctl.training.evidence import Probing
from labctl.training.network import Network, Recurrence, Recurrent, Standardise
from labctl.training.plan import Course
from labctl.training.readout import Task
from labctl.training.surrogate.settings import (
    FitTerm,
    OpticalLayout,
    Ports,
    SurrogateSettings,
)
from labctl.training.trainer import Optimisation, Purse, Samples, Settings


class Sizes(Device):
    """The sizes of a device that is not open yet: a model can be checked on it.

    Parameters
    ----------
    entry
        The operating point that it will have.
    """

    def __init__(self, entry: ReservoirEntry) -> None:
        self._entry = entry

    @property
    @override
    def layout(self) -> tuple[int, int]:
        """Rows and columns of macropixels."""
        return self._entry.macropixels

    @property
    @override
    def pixels(self) -> int:
        """Number of macropixels."""
        return self.layout[0] * self.layout[1]

    @property
    @override
    def outputs(self) -> int:
        """Number of outputs."""
        return self._entry.bins[0] * self._entry.bins[1]

    @override
    def __call__(
        self, phase: Tensor, *, category: str, layer: int, step: int
    ) -> Response:
        """Refuse: there is no device behind it.

        Raises
        ------
        RuntimeError
            Always.
        """
        text = f"sizes: asked for {category} exposures, expected an open reservoir"
        raise RuntimeError(text)


class AsEvaluation(Device):
    """A device whose every exposure is booked as ``evaluate``.

    For reference lines: their shots never return to the training.

    Parameters
    ----------
    device
        The device.
    """

    def __init__(self, device: Device) -> None:
        self._device = device

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
        """Expose; ``category`` and ``step`` are replaced."""
        return self._device(phase, category="evaluate", layer=layer, step=-1)


def layer_spec(layer: Layer) -> network.LayerSpec:
    """Give one layer of a protocol's model, for training.

    Parameters
    ----------
    layer
        As the protocol has it.
    """
    if isinstance(layer, DeviceLayer):
        how = layer.recurrent
        return network.DeviceSpec(
            **layer.model_dump(exclude={"layer", "recurrent"}),
            recurrent=None if how is None else Recurrence(how.steps, how.feedback_rad),
        )
    if isinstance(layer, LinearLayer):
        return network.LinearSpec(layer.outputs)
    if isinstance(layer, ActivationLayer):
        return network.ActivationSpec(layer.function)
    return network.StandardiseSpec()


def build(
    protocol: TrainProtocol,
    dataset: Dataset,
    device: Device,
    generator: torch.Generator,
) -> Network:
    """Build the model of a protocol.

    Parameters
    ----------
    protocol
        The protocol.
    dataset
        Gives the number of inputs and outputs.
    device
        Serves its device layers.
    generator
        Seeds theta, dither and digital weights.

    Returns
    -------
    model
        In torch's default dtype.

    Raises
    ------
    ValueError
        The layers do not fit each other, the data, or the panel.
    """
    return network.build(
        [layer_spec(layer) for layer in protocol.model],
        network.Ends(dataset.features, dataset.outputs),
        device=device,
        generator=generator,
    )


@torch.no_grad()
def first_phases(network: Network, x: Tensor, count: int) -> Tensor | None:
    """Give the phases that the first device layer shows for some inputs.

    Parameters
    ----------
    network
        The model, on a device that need not be open. Standardising layers before
        the device are set where they are not yet, as a training does.
    x
        Inputs, ``[sample, feature]``: those that the standardising layers see.
    count
        Of the first so many samples phases are given.

    Returns
    -------
    phase
        ``[sample, macropixel]``, in rad, without dither; None without a device layer.
    """
    hidden = x
    for layer in network.layers:
        if isinstance(layer, Recurrent):
            hidden = layer.features(hidden[:count], None, 0)
            layer = layer.layer
        if isinstance(layer, ShowingLayer):
            phase: Tensor = layer.encoding(hidden[:count], layer.theta)
            return phase
        if isinstance(layer, Standardise) and not layer.known:
            layer.settle(hidden)
        hidden = layer(hidden)
    return None


def task(dataset: Dataset) -> Task:
    """Say what the outputs of a model are meant to be.

    Parameters
    ----------
    dataset
        The data.
    """
    return Task(dataset.task, dataset.outputs)


def samples(split: Split) -> Samples:
    """Give a split as tensors, in torch's default dtype.

    Parameters
    ----------
    split
        The split.
    """
    y = torch.from_numpy(split.y)
    default = torch.get_default_dtype()
    return Samples(
        torch.from_numpy(split.x).to(default),
        y.to(default) if y.is_floating_point() else y,
    )


def surrogate_settings(entry: SurrogateEntry) -> SurrogateSettings:
    """Give the surrogate of a protocol, for training.

    Parameters
    ----------
    entry
        As the protocol has it.
    """
    terms = tuple(FitTerm(term.name, term.weight, term.a) for term in entry.loss)
    return SurrogateSettings(**{**entry.model_dump(exclude={"loss"}), "loss": terms})


def ports(
    file: BenchFile, entry: ReservoirEntry, settings: SurrogateSettings | None = None
) -> Ports:
    """Give the sizes of a bench, and where its optics are, for a surrogate.

    Nothing else of a bench file reaches a training: no surrogate can be told what the
    bench is like.

    Parameters
    ----------
    file
        The bench file.
    entry
        The operating point.
    settings
        Of the surrogate, which may have to find out where its optics are; None for
        one that is told.

    Raises
    ------
    ValueError
        The decoded region was replaced, and the file does not say where the new one
        is on the grid.
    """
    sizes, optics = Sizes(entry), file.optics
    lens = file.view == "far_field"
    if settings is not None and settings.optics == "learned":
        guess = OpticalLayout.guess(
            entry.macropixels, entry.bins, points=settings.points, lens=lens
        )
        return Ports(sizes.pixels, sizes.outputs, layout=sizes.layout, optics=guess)
    if optics is None:
        return Ports(sizes.pixels, sizes.outputs, layout=sizes.layout)
    if optics.region is not None and entry.region != file.reservoir.region:
        text = (
            f"reservoir: region={list(entry.region)}, expected "
            f"{list(file.reservoir.region)}: where another lies on the grid of optics "
            "the bench file does not say. Leave reservoir.region out."
        )
        raise ValueError(text)
    return Ports(
        sizes.pixels,
        sizes.outputs,
        layout=sizes.layout,
        optics=OpticalLayout(
            grid=optics.grid,
            steps=optics.steps,
            fresnel=optics.fresnel,
            region=optics.region or entry.region,
            bins=entry.bins,
            lens=lens,
        ),
    )


def probing(entry: ProbeEntry) -> Probing:
    """Give the probes of a protocol, for training.

    Parameters
    ----------
    entry
        As the protocol has it.
    """
    return Probing(**entry.model_dump())


def optimisation(entry: TrainingEntry) -> Optimisation:
    """Give the optimiser of a protocol, for training.

    Parameters
    ----------
    entry
        As the protocol has it.
    """
    return Optimisation(**entry.model_dump())


def course(protocol: TrainProtocol, dataset: Dataset) -> Course:
    """Say what a training of this protocol consists of, for the plan.

    Parameters
    ----------
    protocol
        The protocol.
    dataset
        The data.
    """
    probes, estimator = protocol.probes, protocol.estimator
    sampled = estimator.probes if estimator.name == "control-variate" else 0
    common = Course(
        train=len(dataset.train),
        validation=len(dataset.validation),
        batch=protocol.training.batch,
        exposures=protocol.exposures,
        noise_repeats=probes.noise_repeats,
        paired_per_step=probes.paired_per_step,
        held_out_per_step=probes.held_out_per_step,
        probes_per_sample=sampled,
        most_per_sample=estimator.probes if estimator.name == "gate" else sampled,
        validate_every=protocol.training.validate_every,
        watching=watching(protocol.drift),
        warm_up=probes.warm_up,
        size_every=probes.size_every,
        size_samples=probes.size_samples,
        surveys=probing(probes).surveys,
    )
    return method.course(protocol, common)


def settings(protocol: TrainProtocol, dataset: Dataset, steps: int) -> Settings:
    """How a training of this protocol goes.

    Parameters
    ----------
    protocol
        The protocol.
    dataset
        The data.
    steps
        Optimiser steps.
    """
    return Settings(
        task=task(dataset),
        steps=steps,
        optimisation=optimisation(protocol.training),
        probing=probing(protocol.probes),
        purse=_purse(protocol, course(protocol, dataset)),
    )


def _purse(protocol: TrainProtocol, course: Course) -> Purse | None:
    """Say what limits a course whose steps cost what the device makes of them."""
    if not course.varies:
        return None
    return Purse(protocol.budget.shots, course.dearest)


def watching(entry: DriftEntry) -> Watching:
    """Give the watch over drift of a protocol, for training.

    Parameters
    ----------
    entry
        As the protocol has it.
    """
    return Watching(**entry.model_dump())
