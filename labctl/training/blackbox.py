"""The device as a layer: forward on any callable, backward from an estimator.

The device computes ``y = f(phase)`` and nobody knows its derivative. The forward
pass exposes it; the backward pass hands the gradient with respect to ``y`` (the
cotangent) to an estimator and takes its answer for the gradient with respect to
the phase. Everything upstream (encoding, theta, digital layers, further device
layers) is ordinary automatic differentiation.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import override

from labctl.errors import NotFiniteError
from labctl.training.encoding import Encoding


class Response(NamedTuple):
    """What the device answered to a batch of phases.

    Parameters
    ----------
    y
        Outputs.
    shown
        Phase that the panel really had, in rad.
    shot
        Number of each exposure.
    """

    y: Float[Tensor, "batch output"]
    shown: Float[Tensor, "batch pixel"]
    shot: Int[Tensor, " batch"]


@runtime_checkable
class Device(Protocol):
    """A function from phase to outputs that costs one exposure a sample."""

    @property
    @abstractmethod
    def pixels(self) -> int:
        """Number of macropixels."""

    @property
    @abstractmethod
    def layout(self) -> tuple[int, int]:
        """Rows and columns of macropixels."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of outputs."""

    @abstractmethod
    def __call__(
        self,
        phase: Float[Tensor, "batch pixel"],
        *,
        category: str,
        layer: int,
        step: int,
    ) -> Response:
        """Expose every phase of the batch.

        Parameters
        ----------
        phase
            Phase of each macropixel, in rad; any value, shown modulo 2 pi.
        category
            What the exposures are booked as.
        layer
            Which device layer of the model asks.
        step
            Training step that the exposures belong to.
        """


class Probes(NamedTuple):
    """Perturbations of the phase, and the change of the outputs that they caused.

    Parameters
    ----------
    base
        Phase that was perturbed, in rad, as shown.
    d_alpha
        Difference of the shown phases, in (-pi, pi] rad.
    d_f
        Difference of the outputs.
    shot_base, shot_plus
        Exposures with and without the perturbation.
    plus
        What the device answered with the perturbation.
    """

    base: Float[Tensor, "probe pixel"]
    d_alpha: Float[Tensor, "probe pixel"]
    d_f: Float[Tensor, "probe output"]
    shot_base: Int[Tensor, " probe"]
    shot_plus: Int[Tensor, " probe"]
    plus: Response


@dataclass(eq=False)
class Exposure:
    """One forward pass of a device layer, and what became of it backwards.

    Parameters
    ----------
    layer, step, category
        Who asked, when and what for.
    response
        What the device answered.
    cotangent
        Gradient with respect to the outputs; None until the backward pass.
    gradient
        What the estimator answered; None until the backward pass.
    judged
        What held-out probes judge in its place; None for the gradient itself.
    probes
        Probes that the estimator took for this exposure, with their cotangents.
    """

    layer: int
    step: int
    category: str
    response: Response
    cotangent: Tensor | None = None
    gradient: Tensor | None = None
    judged: Tensor | None = None
    probes: tuple[Probes, Tensor] | None = None


Estimate = Callable[[Exposure, Tensor], Tensor]


@final
class _NoSecondDerivative(torch.autograd.Function):
    """Pass a gradient on, tied to what it depends on; its own backward refuses."""

    @staticmethod
    @override
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        phase: Tensor,
        cotangent: Tensor,
        gradient: Tensor,
    ) -> Tensor:
        return gradient.clone()

    @staticmethod
    @override
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *grad_outputs: Tensor
    ) -> tuple[None, None, None]:
        """Refuse.

        Raises
        ------
        RuntimeError
            Always: the estimator knows a first derivative only.
        """
        text = (
            "blackbox: a second derivative was asked for, expected one backward pass. "
            "Leave out create_graph, or the term that differentiates a gradient."
        )
        raise RuntimeError(text)


@final
class _Blackbox(torch.autograd.Function):
    @staticmethod
    @override
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        phase: Tensor,
        expose: Callable[[Tensor], Exposure],
        estimate: Estimate | None,
    ) -> Tensor:
        exposure = expose(phase.detach())
        ctx.save_for_backward(phase)
        # The exposure, not saved_tensors: backward writes into it for the tape.
        ctx.exposure = exposure  # type: ignore[attr-defined]  # autograd's own way
        ctx.estimate = estimate  # type: ignore[attr-defined]  # autograd's own way
        # A copy, because an output that the context holds would never be freed.
        return exposure.response.y.clone()

    @staticmethod
    @override
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, None, None]:
        """Ask the estimator.

        Raises
        ------
        RuntimeError
            The layer has no estimator.
        """
        if not ctx.needs_input_grad[0]:  # type: ignore[attr-defined]  # torch types it late
            return None, None, None
        exposure: Exposure = ctx.exposure  # type: ignore[attr-defined]  # set in forward
        estimate: Estimate | None = ctx.estimate  # type: ignore[attr-defined]  # set in forward
        if estimate is None:
            text = (
                "blackbox: estimator=None, expected one before a backward pass. "
                "Set DeviceLayer.estimate."
            )
            raise RuntimeError(text)
        with torch.no_grad():
            exposure.cotangent = grad_outputs[0].detach().clone()
            exposure.gradient = estimate(exposure, exposure.cotangent)
        gradient = exposure.gradient
        if torch.is_grad_enabled():
            (phase,) = ctx.saved_tensors  # type: ignore[attr-defined]  # set in forward
            tied: Tensor = _NoSecondDerivative.apply(phase, grad_outputs[0], gradient)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
            return tied, None, None
        return gradient, None, None


def respond(
    phase: Float[Tensor, "batch pixel"],
    expose: Callable[[Tensor], Exposure],
    estimate: Estimate | None,
) -> Float[Tensor, "batch output"]:
    """Expose a batch, differentiable by the word of an estimator.

    Parameters
    ----------
    phase
        Phase of each macropixel, in rad.
    expose
        Asks the device; called once, without a graph.
    estimate
        Gradient with respect to the phase for an exposure and the gradient with
        respect to its outputs; needed by a backward pass only.

    Returns
    -------
    y
        Outputs, in the graph of ``phase``.
    """
    y: Tensor = _Blackbox.apply(phase, expose, estimate)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return y


@dataclass(frozen=True)
class Start:
    """How theta starts.

    Parameters
    ----------
    distribution
        Uniform in [0, scale), normal with that sigma, or zeros.
    scale_rad
        Width of the distribution.
    """

    distribution: Literal["uniform", "normal", "zeros"] = "uniform"
    scale_rad: float = 2 * torch.pi

    def draw(self, size: int, generator: torch.Generator) -> Float[Tensor, " theta"]:
        """Draw a start, in torch's default dtype.

        Parameters
        ----------
        size
            Number of parameters.
        generator
            Where the numbers come from.
        """
        if self.distribution == "zeros":
            return torch.zeros(size)
        if self.distribution == "normal":
            return self.scale_rad * torch.randn(size, generator=generator)
        return self.scale_rad * torch.rand(size, generator=generator)


@final
class DeviceLayer(nn.Module):
    """The device as a layer of a model: encoding, theta, exposure.

    Parameters
    ----------
    device
        The device; several layers may share one.
    encoding
        How inputs and theta become a phase.
    index
        Number of this layer in its model.
    start
        How theta starts.
    generator
        Seeds theta and this layer's own generator of dither.
    """

    theta: nn.Parameter

    def __init__(
        self,
        device: Device,
        encoding: Encoding,
        *,
        index: int = 0,
        start: Start | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.device = device
        self.encoding = encoding
        self.index = index
        start = Start() if start is None else start
        self.theta = nn.Parameter(start.draw(encoding.theta_size, generator))
        self.generator = offspring(generator)
        self.estimate: Estimate | None = None
        self.tape: list[Exposure] = []
        self._category, self._step, self._dither_rad = "train", 0, 0.0

    def begin(self, category: str, *, step: int, dither_rad: float = 0.0) -> None:
        """Say what the coming exposures are for, and empty the tape.

        Parameters
        ----------
        category
            What they are booked as.
        step
            Training step.
        dither_rad
            Rms of the random phase added to every one of them.
        """
        self._category, self._step, self._dither_rad = category, step, dither_rad
        self.tape.clear()

    @override
    def forward(
        self, x: Float[Tensor, "batch feature"]
    ) -> Float[Tensor, "batch output"]:
        """Show the inputs with theta, and return the outputs.

        Parameters
        ----------
        x
            Inputs, nominally in [0, 1].
        """
        phase: Tensor = self.encoding(x, self.theta)
        if self._dither_rad > 0:
            noise = torch.randn(
                phase.shape, generator=self.generator, dtype=phase.dtype
            )
            phase = phase + self._dither_rad * noise.to(phase.device)
        return respond(phase, self._expose, self.estimate)

    def _expose(self, phase: Tensor) -> Exposure:
        raw = ask(
            self.device,
            phase,
            category=self._category,
            layer=self.index,
            step=self._step,
        )
        expected = (phase.shape[0], self.device.outputs)
        if tuple(raw.y.shape) != expected:
            text = f"device: y.shape={tuple(raw.y.shape)}, expected {expected}."
            raise ValueError(text)
        if raw.shown.shape != phase.shape:
            text = (
                f"device: shown.shape={tuple(raw.shown.shape)}, "
                f"expected {tuple(phase.shape)}."
            )
            raise ValueError(text)
        response = Response(raw.y.to(phase), raw.shown.to(phase), raw.shot)
        exposure = Exposure(self.index, self._step, self._category, response)
        self.tape.append(exposure)
        return exposure


def ask(
    device: Device,
    phase: Float[Tensor, "batch pixel"],
    *,
    category: str,
    layer: int,
    step: int,
) -> Response:
    """Expose, and let no answer through that is not a number.

    All that a training learns from or is judged by comes in here.

    Parameters
    ----------
    device
        The device.
    phase
        What is to be shown, in rad.
    category
        What the exposures are booked as.
    layer, step
        Who asks, and when.

    Returns
    -------
    response
        What the device answered.

    Raises
    ------
    NotFiniteError
        An output is not finite.
    """
    found = device(phase, category=category, layer=layer, step=step)
    good = torch.isfinite(found.y)
    if not bool(good.all()):
        count, total = int((~good).sum()), good.numel()
        raise NotFiniteError(category, layer=layer, step=step, count=count, total=total)
    return found


def offspring(generator: torch.Generator) -> torch.Generator:
    """Return a generator of its own, seeded from this one.

    Parameters
    ----------
    generator
        Moves on by one draw.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator).item())
    return torch.Generator().manual_seed(seed)
