"""A model as a list of layers, the device among them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from typing_extensions import override

from labctl.training.blackbox import Device, DeviceLayer, Start
from labctl.training.encoding import Additive, Basis, Encoding, Modes, Split


@dataclass(frozen=True)
class Recurrence:
    """How a device layer goes through a series.

    Parameters
    ----------
    steps
        Time steps that a sample has.
    feedback_rad
        Phase of a state that is one spread off its mean.
    """

    steps: int
    feedback_rad: float = 0.5


@dataclass(frozen=True)
class DeviceSpec:
    """The device as a layer.

    Parameters
    ----------
    encoding
        How inputs and theta share the panel.
    input_scale_rad
        Phase of an input of 1.
    theta_init, theta_scale_rad
        How theta starts, and how wide.
    split
        Share of the columns given to the inputs, with ``split``.
    basis, modes
        Which functions and how many, with ``modes``.
    recurrent
        How it goes through a series; None for a layer that is passed once.
    """

    encoding: Literal["additive", "split", "modes"] = "additive"
    input_scale_rad: float = math.pi
    theta_init: Literal["uniform", "normal", "zeros"] = "uniform"
    theta_scale_rad: float = 2 * math.pi
    split: float = 0.5
    basis: Basis = "fourier"
    modes: int = 32
    recurrent: Recurrence | None = None

    def encode(self, features: int, layout: tuple[int, int]) -> Encoding:
        """Make the encoding for a number of inputs on a layout.

        Parameters
        ----------
        features
            Number of inputs.
        layout
            Rows and columns of macropixels.
        """
        scale = self.input_scale_rad
        if self.encoding == "additive":
            return Additive(features, layout, input_scale_rad=scale)
        if self.encoding == "split":
            return Split(features, layout, input_scale_rad=scale, share=self.split)
        return Modes(
            features,
            layout,
            input_scale_rad=scale,
            basis=self.basis,
            modes=self.modes,
        )


@dataclass(frozen=True)
class LinearSpec:
    """A digital linear layer.

    Parameters
    ----------
    outputs
        How many; None takes as many as the task has.
    """

    outputs: int | None = None


@dataclass(frozen=True)
class StandardiseSpec:
    """Subtract the mean and divide by the spread seen at the start."""


@dataclass(frozen=True)
class ActivationSpec:
    """A digital activation.

    Parameters
    ----------
    function
        Which one.
    """

    function: Literal["relu", "gelu", "tanh", "sigmoid", "sin"]


LayerSpec = DeviceSpec | LinearSpec | StandardiseSpec | ActivationSpec

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
}


@final
class Standardise(nn.Module):
    """Subtract a mean and divide by a spread that are set once.

    Parameters
    ----------
    features
        Number of features.
    """

    mean: Tensor
    scale: Tensor
    known: Bool[Tensor, ""]

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("known", torch.tensor(data=False))

    @torch.no_grad()
    def settle(self, features: Float[Tensor, "sample feature"]) -> None:
        """Set mean and spread; a feature that never varies is only centred.

        Parameters
        ----------
        features
            What was seen at the start.

        Raises
        ------
        RuntimeError
            They are set already.
        """
        if self.known:
            text = "standardise: set twice, expected once at the start."
            raise RuntimeError(text)
        spread = features.std(dim=0, correction=0)
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))
        self.known.fill_(value=True)

    @override
    def forward(
        self, x: Float[Tensor, "batch feature"]
    ) -> Float[Tensor, "batch feature"]:
        """Return the features with mean 0 and spread 1 at the start.

        Parameters
        ----------
        x
            Features.

        Raises
        ------
        RuntimeError
            Mean and spread are not set.
        """
        if not self.known:
            text = "standardise: used before it was set. Make the warm-up pass first."
            raise RuntimeError(text)
        return (x - self.mean) / self.scale


@final
class Recurrent(nn.Module):
    """A device layer that is shown a series, step by step, with its own last outputs.

    ::

        u_t ── repeated ──┐
                          ├── encoding, theta ── device ── y_t ── standardise ── h_t
        h_(t-1) ──────────┘                                                       │
            └─────────────────────────────────────────────────────────────────────┘

    The first state is zero. Inputs are repeated until they take about as many
    macropixels as the state. Mean and spread of the state are those of the outputs of
    the first step, when they were first seen: at any later step they would depend on
    themselves.

    Parameters
    ----------
    layer
        The device layer; its theta serves every step.
    width
        Inputs of a step.
    how
        Steps and feedback.

    References
    ----------
    .. [1] H. Jaeger, H. Haas, "Harnessing Nonlinearity: Predicting Chaotic Systems
       and Saving Energy in Wireless Communication", 2004,
       doi 10.1126/science.1091277.
    .. [2] P. J. Werbos, "Backpropagation through time: what it does and how to do
       it", 1990, doi 10.1109/5.58337.
    """

    def __init__(self, layer: DeviceLayer, width: int, how: Recurrence) -> None:
        super().__init__()
        self.layer, self.width, self.how = layer, width, how
        self.state = Standardise(layer.device.outputs)

    def features(
        self, x: Float[Tensor, "batch feature"], state: Tensor | None, step: int
    ) -> Float[Tensor, "batch input"]:
        """Return what the device layer is given at a step.

        Parameters
        ----------
        x
            The series, one step after the other.
        state
            Standardised outputs of the step before, ``[batch, output]``; None at
            the first step.
        step
            Counted from 0.
        """
        outputs = self.layer.device.outputs
        u = x[:, step * self.width : (step + 1) * self.width]
        u = u.repeat(1, copies(self.width, outputs))
        if state is None:
            return torch.cat((u, u.new_zeros(len(u), outputs)), dim=1)
        scale = self.how.feedback_rad / self.layer.encoding.input_scale_rad
        return torch.cat((u, scale * state), dim=1)

    def unroll(
        self,
        x: Float[Tensor, "batch feature"],
        respond: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, "batch output"]:
        """Go through the series, and return the last state.

        Parameters
        ----------
        x
            The series, one step after the other.
        respond
            Outputs for what :meth:`features` returns: the device layer, or what
            stands in for it.
        """
        state = self._settled(respond(self.features(x, None, 0)))
        for step in range(1, self.how.steps):
            state = self._settled(respond(self.features(x, state, step)))
        return state

    def _settled(self, y: Tensor) -> Tensor:
        if not self.state.known:
            self.state.settle(y.detach())
        state: Tensor = self.state(y)
        return state

    @override
    def forward(
        self, x: Float[Tensor, "batch feature"]
    ) -> Float[Tensor, "batch output"]:
        """Show a series, and return the last state.

        Parameters
        ----------
        x
            The series, one step after the other.

        Raises
        ------
        RuntimeError
            Mean and spread of the state are not set: a batch must not set them.
        """
        if not self.state.known:
            text = "recurrent: used before it was set. Make the warm-up pass first."
            raise RuntimeError(text)
        return self.unroll(x, self.layer)


def copies(width: int, outputs: int) -> int:
    """Say how often the inputs of a step are shown beside a state.

    Parameters
    ----------
    width
        Inputs of a step.
    outputs
        Numbers in a state.
    """
    return max(1, round(outputs / width))


@final
class Activation(nn.Module):
    """A digital activation.

    Parameters
    ----------
    function
        Name in :data:`ACTIVATIONS`.
    """

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function

    @override
    def forward(
        self, x: Float[Tensor, "batch feature"]
    ) -> Float[Tensor, "batch feature"]:
        """Apply it.

        Parameters
        ----------
        x
            Features.
        """
        return ACTIVATIONS[self.function](x)


@final
class Network(nn.Module):
    """Layers in a row.

    Parameters
    ----------
    layers
        In order; a linear layer at the end is the head.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    @property
    def head(self) -> nn.Linear | None:
        """The linear layer at the end, if there is one."""
        last = self.layers[-1]
        return last if isinstance(last, nn.Linear) else None

    @property
    def device_layers(self) -> list[DeviceLayer]:
        """The device layers, in order."""
        return [part for part in self.modules() if isinstance(part, DeviceLayer)]

    @property
    def exposures(self) -> int:
        """Exposures of a sample: one a device layer, and one a step of a series."""
        return sum(
            layer.how.steps if isinstance(layer, Recurrent) else 1
            for layer in self.layers
            if isinstance(layer, DeviceLayer | Recurrent)
        )

    def theta(self) -> list[nn.Parameter]:
        """Parameters of the device layers."""
        return [layer.theta for layer in self.device_layers]

    def digital(self) -> list[nn.Parameter]:
        """Parameters of the digital layers."""
        return list(self._digital())

    def _digital(self) -> Iterator[nn.Parameter]:
        for layer in self.layers:
            if not isinstance(layer, DeviceLayer | Recurrent):
                yield from layer.parameters()

    def body(self, x: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch hidden"]:
        """Return what the head is given.

        Parameters
        ----------
        x
            Inputs.
        """
        hidden = x
        for layer in self.layers[:-1] if self.head else self.layers:
            hidden = layer(hidden)
        return hidden

    @override
    def forward(
        self, x: Float[Tensor, "batch feature"]
    ) -> Float[Tensor, "batch output"]:
        """Return what the model answers.

        Parameters
        ----------
        x
            Inputs.
        """
        hidden = self.body(x)
        return self.finish(hidden)

    def finish(
        self, hidden: Float[Tensor, "batch hidden"]
    ) -> Float[Tensor, "batch output"]:
        """Return what the head, if there is one, makes of its inputs.

        Parameters
        ----------
        hidden
            From :meth:`body`.
        """
        if self.head is None:
            return hidden
        answer: Tensor = self.head(hidden)
        return answer

    def begin(self, category: str, *, step: int, dither_rad: float = 0.0) -> None:
        """Say to every device layer what the coming exposures are for.

        Parameters
        ----------
        category
            What they are booked as.
        step
            Training step.
        dither_rad
            Rms of the random phase added to every one of them.
        """
        for layer in self.device_layers:
            layer.begin(category, step=step, dither_rad=dither_rad)


@dataclass(frozen=True)
class Ends:
    """What a model starts and ends with.

    Parameters
    ----------
    features
        Number of inputs.
    outputs
        Number of outputs that the task wants.
    """

    features: int
    outputs: int


def build(
    specs: Sequence[LayerSpec],
    ends: Ends,
    *,
    device: Device,
    generator: torch.Generator,
) -> Network:
    """Build a model.

    Parameters
    ----------
    specs
        Its layers, in order.
    ends
        What it starts and ends with.
    device
        Serves every device layer.
    generator
        Seeds theta, dither and the digital weights.

    Returns
    -------
    network
        The model, in torch's default dtype.

    Raises
    ------
    ValueError
        The last layer does not give what the task wants, or a series does not part
        into its steps.
    """
    layers: list[nn.Module] = []
    width, index = ends.features, 0
    for spec in specs:
        if isinstance(spec, DeviceSpec):
            layers.append(_device(spec, width, device, index, generator))
            width, index = device.outputs, index + 1
        elif isinstance(spec, LinearSpec):
            outputs = ends.outputs if spec.outputs is None else spec.outputs
            layers.append(_linear(width, outputs, generator))
            width = outputs
        elif isinstance(spec, StandardiseSpec):
            layers.append(Standardise(width))
        else:
            layers.append(Activation(spec.function))
    if width != ends.outputs:
        text = (
            f"model: the last layer gives {width} outputs, expected {ends.outputs} "
            "(the task). End with a linear layer without outputs."
        )
        raise ValueError(text)
    return Network(layers)


def _device(
    spec: DeviceSpec,
    width: int,
    device: Device,
    index: int,
    generator: torch.Generator,
) -> DeviceLayer | Recurrent:
    how = spec.recurrent
    features = width
    if how is not None:
        if width % how.steps:
            text = (
                f"model: {width} inputs in {how.steps} time steps, expected as many in "
                "each. Choose recurrent.steps so that it divides the inputs."
            )
            raise ValueError(text)
        width //= how.steps
        features = width * copies(width, device.outputs) + device.outputs
    layer = DeviceLayer(
        device,
        spec.encode(features, device.layout),
        index=index,
        start=Start(spec.theta_init, spec.theta_scale_rad),
        generator=generator,
    )
    return layer if how is None else Recurrent(layer, width, how)


def _linear(width: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Make torch's layer with torch's start, but from our own generator."""
    layer = nn.Linear(width, outputs)
    reach = 1 / math.sqrt(width)
    with torch.no_grad():
        for part in (layer.weight, layer.bias):
            part.copy_(reach * (2 * torch.rand(part.shape, generator=generator) - 1))
    return layer
