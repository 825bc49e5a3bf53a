"""What every surrogate of the backward pass is: phase and cotangent in, gradient out.

A surrogate answers for the vector-Jacobian product (VJP) ``grad_alpha = grad_y . J``
of a device ``y = f(alpha)``. A twin is a surrogate that predicts y itself and
answers with its own derivative.

It lives on a device, where all that it computes with is. Whoever asks for its public
answers (:meth:`Surrogate.vjp`, a twin's ``forward`` and ``jvp``) and whoever hands it
data (``calibrate``, ``calibrate_probes``, ``absorb``) need not know: tensors are taken
wherever they are, and answers are where the question was. The inner ones
(:meth:`Surrogate.unit_vjp`, :meth:`Twin.predict`) compute on the device alone.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from typing_extensions import override

from labctl.training.surrogate.settings import FitTerm, Ports


class Surrogate(nn.Module, ABC):
    """A learned backward pass, positively homogeneous in the cotangent.

    Outputs are measured in units of ``y_scale`` around ``y_mean``, and their change
    per rad on one pixel in units of ``y_slope``. All are set once from the first
    data, so that models work with numbers of order one whatever the device counts
    in.

    Parameters
    ----------
    ports
        Sizes of the device.
    """

    default_losses: ClassVar[tuple[FitTerm, ...]]
    restarts: ClassVar[bool] = False
    # Whether a fit step may take so long that a busy computer misses a sign of life.
    slow: ClassVar[bool] = False
    y_mean: Float[Tensor, " output"]
    y_scale: Float[Tensor, " output"]
    y_slope: Float[Tensor, " output"]
    mean_known: Bool[Tensor, ""]
    slope_known: Bool[Tensor, ""]

    def __init__(self, ports: Ports) -> None:
        super().__init__()
        self.ports = ports
        self.register_buffer("y_mean", torch.zeros(ports.outputs))
        self.register_buffer("y_scale", torch.ones(ports.outputs))
        self.register_buffer("y_slope", torch.ones(ports.outputs))
        self.register_buffer("mean_known", torch.tensor(data=False))
        self.register_buffer("slope_known", torch.tensor(data=False))

    @property
    def pixels(self) -> int:
        """Inputs: macropixels of the panel."""
        return self.ports.pixels

    @property
    def outputs(self) -> int:
        """Outputs of the device."""
        return self.ports.outputs

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.y_scale.device

    @torch.no_grad()
    def calibrate(self, y: Float[Tensor, "batch output"]) -> None:
        """Set mean and scale of the outputs, once; later calls change nothing.

        Parameters
        ----------
        y
            Outputs of the device, at least two rows. An output that does not vary
            at all keeps the scale 1.

        Raises
        ------
        ValueError
            There are fewer than two rows, or a value is not finite.
        """
        if self.mean_known:
            return
        y = y.to(self.device)
        _check_finite(y, "y", rows=2)
        self.y_mean.copy_(y.mean(dim=0))
        self.y_scale.copy_(_one_for_zero(y.std(dim=0)))
        self.mean_known.fill_(value=True)

    @torch.no_grad()
    def calibrate_probes(
        self,
        d_alpha: Float[Tensor, "probe pixel"],
        d_f: Float[Tensor, "probe output"],
    ) -> None:
        """Set the slope of the outputs, once; later calls change nothing.

        Before any values have come it sets the scale too, which they replace.

        Parameters
        ----------
        d_alpha
            Perturbations, in rad.
        d_f
            Responses.

        Raises
        ------
        ValueError
            There is no probe, or a value is not finite.
        """
        if self.slope_known:
            return
        d_alpha, d_f = d_alpha.to(self.device), d_f.to(self.device)
        _check_finite(d_alpha, "d_alpha", rows=1)
        _check_finite(d_f, "d_f", rows=1)
        response = d_f.square().mean(dim=0).sqrt()
        if not self.mean_known:
            self.y_scale.copy_(_one_for_zero(response))
        # |d_alpha| is the rms of one pixel times the root of their number.
        length = torch.linalg.vector_norm(d_alpha, dim=1).square().mean().sqrt()
        self.y_slope.copy_(response / _one_for_zero(length))
        self.slope_known.fill_(value=True)

    @property
    def gradient_scale(self) -> Float[Tensor, ""]:
        """Size to be expected of one pixel's gradient, for a unit cotangent."""
        return (self.y_slope / self.y_scale).square().mean().sqrt()

    def vjp(
        self,
        cotangent: Float[Tensor, "batch output"],
        phase: Float[Tensor, "batch pixel"],
    ) -> Float[Tensor, "batch pixel"]:
        """Answer for ``grad_y . J``.

        The model sees the cotangent's direction only and the answer is rescaled:
        k times the cotangent gives k times the answer for every k >= 0, and a zero
        cotangent gives zero.

        Parameters
        ----------
        cotangent
            Gradient of a loss with respect to the outputs.
        phase
            Operating point, in rad.

        Returns
        -------
        gradient
            Gradient of the loss with respect to the phase, per rad.
        """
        scaled = cotangent.to(self.device) * self.y_scale
        # Largest component first: the squares of a norm underflow long before it.
        peak = scaled.abs().amax(dim=1, keepdim=True)
        flat = scaled / _one_for_zero(peak)
        norm = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        unit = flat / _one_for_zero(norm)
        answer: Tensor = self.unit_vjp(unit, phase.to(self.device)) * (norm * peak)
        return answer.to(cotangent.device)

    @abstractmethod
    def unit_vjp(
        self,
        cotangent: Float[Tensor, "batch output"],
        phase: Float[Tensor, "batch pixel"],
    ) -> Float[Tensor, "batch pixel"]:
        """Answer for cotangents of norm one, for outputs in units of ``y_scale``.

        Parameters
        ----------
        cotangent
            Directions, of norm one or zero.
        phase
            Operating point, in rad.

        Returns
        -------
        gradient
            Gradient with respect to the phase; it carries the graph of the
            parameters where gradients are enabled.
        """

    def restart(self, generator: Generator) -> None:
        """Go to another start; scales of the outputs stay.

        Parameters
        ----------
        generator
            Source of the start.

        Raises
        ------
        ValueError
            The model knows one start only.
        """
        del generator
        text = (
            f"surrogate: another start of {type(self).__name__}, expected a model "
            "that has several. Set surrogate.starts to 1."
        )
        raise ValueError(text)

    def absorb(
        self,
        d_alpha: Float[Tensor, "probe pixel"],
        d_f: Float[Tensor, "probe output"],
    ) -> None:
        """Take probes in at once, for models in closed form; others learn by fits.

        Parameters
        ----------
        d_alpha
            Perturbations, in rad.
        d_f
            Responses, in the units of the device.
        """

    def forget(self) -> None:
        """Forget what :meth:`absorb` took in; others have nothing to forget."""


class Twin(Surrogate):
    """A differentiable model of the device itself; its derivative answers."""

    @abstractmethod
    def predict(
        self, phase: Float[Tensor, "batch pixel"]
    ) -> Float[Tensor, "batch output"]:
        """Predict the outputs, in units of ``y_scale`` around ``y_mean``.

        Parameters
        ----------
        phase
            What the panel shows, in rad.

        Returns
        -------
        scaled
            Outputs, of order one.
        """

    @override
    def forward(
        self, phase: Float[Tensor, "batch pixel"]
    ) -> Float[Tensor, "batch output"]:
        """Predict the outputs in the units of the device.

        Parameters
        ----------
        phase
            What the panel shows, in rad.

        Returns
        -------
        y
            Outputs.
        """
        y = self.y_mean + self.y_scale * self.predict(phase.to(self.device))
        return y.to(phase.device)

    def jvp(
        self,
        phase: Float[Tensor, "batch pixel"],
        direction: Float[Tensor, "batch pixel"],
    ) -> Float[Tensor, "batch output"]:
        """Directional derivative of the outputs.

        Parameters
        ----------
        phase
            Operating point, in rad.
        direction
            Direction in which the phase moves.

        Returns
        -------
        slope
            Change of the outputs per unit of the direction.
        """
        keep = torch.is_grad_enabled()
        # The VJP is linear in its cotangent, so its derivative there is the JVP;
        # torch's forward mode compiles decompositions with a deprecated script.
        with torch.enable_grad():
            leaf = phase.detach().to(self.device).requires_grad_()
            scaled = self.predict(leaf)
            free = torch.zeros_like(scaled).requires_grad_()
            (gradient,) = torch.autograd.grad(scaled, leaf, free, create_graph=True)
            along = direction.to(self.device)
            (slope,) = torch.autograd.grad(gradient, free, along, create_graph=keep)
        return (self.y_scale * slope).to(phase.device)

    @override
    def unit_vjp(
        self,
        cotangent: Float[Tensor, "batch output"],
        phase: Float[Tensor, "batch pixel"],
    ) -> Float[Tensor, "batch pixel"]:
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            leaf = phase.detach().requires_grad_()
            scaled = self.predict(leaf)
            (gradient,) = torch.autograd.grad(
                scaled, leaf, cotangent, create_graph=keep
            )
        return gradient


def _one_for_zero(spread: Tensor) -> Tensor:
    return torch.where(spread > 0, spread, torch.ones_like(spread))


def _check_finite(values: Tensor, name: str, *, rows: int) -> None:
    if len(values) < rows:
        text = (
            f"surrogate: {name} has rows={len(values)}, expected at least {rows}. "
            "Observe a batch before the fit."
        )
        raise ValueError(text)
    if not torch.isfinite(values).all():
        text = (
            f"surrogate: {name} has values that are not finite, expected numbers. "
            "Leave failed shots out."
        )
        raise ValueError(text)
