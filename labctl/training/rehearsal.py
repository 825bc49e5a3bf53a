"""Rehearsal: theta and readout learn on a twin between two device batches.

A twin that predicts the device well is cheaper than the device: a digital step costs
no exposure. After each device batch theta therefore takes many steps on the twin, but
no further than the twin has earned. What it leaves unexplained of the newest batch,
which no fit has seen, says how far that is: the radius grows where it is little and
shrinks where it is much. The next device batch confirms the move or takes it back.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from labctl.training.blackbox import DeviceLayer
from labctl.training.network import Network, Recurrent, Standardise
from labctl.training.readout import Readout, Task, solve
from labctl.training.surrogate.fit import unexplained
from labctl.training.surrogate.model import Twin

State = dict[str, Any]
_PART = 64


class Verdict(Enum):
    """What the device said of the last move, in a few words."""

    FIRST = "nothing to compare with yet"
    CONFIRMED = "confirmed"
    TAKEN_BACK = "taken back"


@dataclass(frozen=True)
class Rehearsing:
    """How much is rehearsed, and how far a twin is trusted.

    Parameters
    ----------
    digital_steps
        Steps on the twin after each device batch.
    radius_rad
        Rms by which theta may move in the first rehearsal.
    widest_rad, narrowest_rad
        Bounds of that radius later.
    good, bad
        Share of the outputs' variance left unexplained, noise apart: below ``good``
        the radius doubles, above ``bad`` it halves.
    doubt
        A loss that is worse than the best one by more than so many standard errors
        takes the move back.
    """

    digital_steps: int = 40
    radius_rad: float = 0.5
    widest_rad: float = math.pi
    narrowest_rad: float = 0.01
    good: float = 0.05
    bad: float = 0.2
    doubt: float = 2.0

    def next_radius(self, radius: float, share: float) -> float:
        """Return the radius after a batch that left a share unexplained.

        Parameters
        ----------
        radius
            The last one, in rad.
        share
            NaN counts as much: what cannot be judged is not trusted.
        """
        if share < self.good:
            return min(2 * radius, self.widest_rad)
        if share <= self.bad:
            return radius
        return max(radius / 2, self.narrowest_rad)


@dataclass(frozen=True)
class Rates:
    """Adam's steps of one rehearsal.

    Parameters
    ----------
    theta, digital
        In rad, and in units of the digital weights.
    """

    theta: float
    digital: float


@final
class Rehearsal:
    """Moves theta and the digital layers on a twin, within a radius.

    Parameters
    ----------
    how
        How much, and how far.
    twin
        Predicts the outputs; the fits change it.
    network
        The model; its parameters are changed in place.
    task
        What the model is meant to do.
    generator
        Which samples are rehearsed, and the noise that the twin has not.
    """

    def __init__(
        self,
        how: Rehearsing,
        twin: Twin,
        network: Network,
        task: Task,
        generator: torch.Generator,
    ) -> None:
        self.how, self.twin, self.network, self.task = how, twin, network, task
        self.generator = generator
        self.radius_rad = how.radius_rad
        self.share = math.nan
        self._adam = torch.optim.Adam(
            [{"params": network.theta()}, {"params": network.digital()}], lr=0.0
        )
        self._anchor: State | None = None
        self._anchor_loss = (math.inf, 0.0)

    # ---- what the device says --------------------------------------------------

    @torch.no_grad()
    def judge(
        self,
        phase: Float[Tensor, "batch pixel"],
        y: Float[Tensor, "batch output"],
        noise: Float[Tensor, " output"] | None,
    ) -> None:
        """Set the radius by a batch that no fit has seen.

        Parameters
        ----------
        phase, y
            What was shown and answered.
        noise
            Variance of each output from exposure to exposure.
        """
        self.share = unexplained(self.twin, phase, y, noise)
        self.radius_rad = self.how.next_radius(self.radius_rad, self.share)

    @torch.no_grad()
    def confirm(self, losses: Float[Tensor, " sample"]) -> Verdict:
        """Keep the last move, or take it back.

        Parameters
        ----------
        losses
            Of each sample of a device batch at theta as it stands.

        Returns
        -------
        verdict
            Whether theta and the digital layers stayed.
        """
        mean, error = float(losses.mean()), float(losses.std()) / len(losses) ** 0.5
        best, spread = self._anchor_loss
        if mean - best > self.how.doubt * math.hypot(error, spread):
            self._return()
            self.radius_rad = max(self.radius_rad / 2, self.how.narrowest_rad)
            # Doubt wears off: a batch that was easy by chance must not hold for ever.
            self._anchor_loss = (best, math.hypot(error, spread))
            return Verdict.TAKEN_BACK
        first = self._anchor is None
        self._anchor = copy.deepcopy(self.network.state_dict())
        self._anchor_loss = (mean, error)
        return Verdict.FIRST if first else Verdict.CONFIRMED

    def _return(self) -> None:
        if self._anchor is not None:
            self.network.load_state_dict(self._anchor)
        for state in self._adam.state.values():
            # What Adam remembers led astray.
            state["exp_avg"].zero_()

    def renew(self) -> None:
        """Compare with nothing of before: the device has become another one."""
        self._anchor, self._anchor_loss = None, (math.inf, 0.0)
        self.radius_rad = self.how.radius_rad

    # ---- what the twin teaches -------------------------------------------------

    def rehearse(
        self,
        x: Float[Tensor, "sample feature"],
        target: Shaped[Tensor, "sample *"],
        *,
        noise: Float[Tensor, " output"] | None,
        batch: int,
        rates: Rates,
    ) -> float:
        """Take digital steps, not further than the radius.

        Parameters
        ----------
        x, target
            The training split: on the twin it is free.
        noise
            Variance of each output, which the rehearsal adds to the twin's.
        batch
            Samples a step.
        rates
            Adam's steps.

        Returns
        -------
        loss
            Mean over the steps; NaN without one.
        """
        start = [theta.detach().clone() for theta in self.network.theta()]
        for group, rate in zip(
            self._adam.param_groups, (rates.theta, rates.digital), strict=True
        ):
            group["lr"] = rate
        total = 0.0
        for _ in range(self.how.digital_steps):
            index = torch.randint(len(x), (batch,), generator=self.generator)
            total += self._step(x[index], target[index], noise)
            self._stay_near(start)
        return total / self.how.digital_steps if self.how.digital_steps else math.nan

    def _step(self, x: Tensor, target: Tensor, noise: Tensor | None) -> float:
        with torch.enable_grad():
            answer = self.network.finish(self.body(x, noise))
            loss = self.task.loss(answer, target)
        parameters = [p for g in self._adam.param_groups for p in g["params"]]
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self._adam.step()
        self._adam.zero_grad()
        return float(loss.detach())

    def body(
        self, x: Float[Tensor, "batch feature"], noise: Tensor | None
    ) -> Float[Tensor, "batch hidden"]:
        """Return what the head would be given if the twin were the device.

        Parameters
        ----------
        x
            Inputs.
        noise
            Variance of each output that is added; None for none.
        """
        hidden = x
        for layer in self._layers():
            if isinstance(layer, DeviceLayer):
                hidden = self._respond(layer, hidden, noise)
            elif isinstance(layer, Recurrent):
                respond = partial(self._respond, layer.layer, noise=noise)
                hidden = layer.unroll(hidden, respond)
            else:
                hidden = layer(hidden)
        return hidden

    def _respond(self, layer: DeviceLayer, x: Tensor, noise: Tensor | None) -> Tensor:
        phase = layer.encoding(x, layer.theta)
        y: Tensor = self.twin(phase.to(self.twin.y_scale.dtype)).to(x)
        if noise is None:
            return y
        drawn = torch.randn(y.shape, generator=self.generator, dtype=y.dtype)
        return y + drawn * noise.to(y).sqrt()

    def _layers(self) -> Iterator[nn.Module]:
        layers = list(self.network.layers)
        yield from layers[:-1] if self.network.head is not None else layers

    @torch.no_grad()
    def _stay_near(self, start: list[Tensor]) -> None:
        moved = [
            theta - old for theta, old in zip(self.network.theta(), start, strict=True)
        ]
        count = sum(part.numel() for part in moved)
        rms = math.sqrt(sum(float(part.square().sum()) for part in moved) / count)
        if rms <= self.radius_rad:
            return
        for theta, old, part in zip(self.network.theta(), start, moved, strict=True):
            theta.copy_(old + part * (self.radius_rad / rms))

    @torch.no_grad()
    def readout(
        self,
        x: Float[Tensor, "sample feature"],
        target: Shaped[Tensor, "sample *"],
        *,
        noise: Float[Tensor, " output"] | None,
        draws: int,
    ) -> Readout:
        """Solve the head on the twin: many noisy answers to every sample.

        Parameters
        ----------
        x, target
            The training split.
        noise
            Variance of each output.
        draws
            Answers to each sample.
        """
        hidden = [
            self.body(part, noise)
            for _ in range(draws)
            for part in torch.split(x, _PART)
        ]
        return solve(torch.cat(hidden), torch.cat([target] * draws), self.task)

    # ---- going on later --------------------------------------------------------

    def state_dict(self) -> State:
        """All that a checkpoint must hold."""
        return copy.deepcopy(
            {
                "radius_rad": self.radius_rad,
                "share": self.share,
                "adam": self._adam.state_dict(),
                "anchor": self._anchor,
                "anchor_loss": list(self._anchor_loss),
                "generator": self.generator.get_state(),
            }
        )

    def load_state_dict(self, state: State) -> None:
        """Take up a state.

        Parameters
        ----------
        state
            What :meth:`state_dict` returned.
        """
        state = copy.deepcopy(state)
        self.radius_rad, self.share = state["radius_rad"], state["share"]
        self._adam.load_state_dict(state["adam"])
        self._anchor = state["anchor"]
        mean, error = state["anchor_loss"]
        self._anchor_loss = (mean, error)
        self.generator.set_state(state["generator"])


def try_out(
    rehearsal: Rehearsal,
    x: Float[Tensor, "sample feature"],
    target: Shaped[Tensor, "sample *"],
    *,
    batch: int,
) -> None:
    """Do once all that a rehearsal does, with numbers of no meaning.

    As for the fit (:func:`labctl.training.surrogate.fit.try_out`): a card loads what
    it computes with when that is asked for first.

    Parameters
    ----------
    rehearsal
        It has rehearsed nothing; it and its network are of no use after it.
    x, target
        Samples of the training split.
    batch
        Samples a step.
    """
    ports, generator = rehearsal.twin.ports, rehearsal.generator
    for layer in rehearsal.network.modules():
        if isinstance(layer, Standardise):
            layer.settle(torch.rand(8, len(layer.mean), generator=generator))
    noise = torch.ones(ports.outputs)
    y = 1 + torch.rand(batch, ports.outputs, generator=generator)
    rehearsal.judge(torch.rand(batch, ports.pixels, generator=generator), y, noise)
    rehearsal.how = replace(rehearsal.how, digital_steps=2)
    rates = Rates(theta=0.0, digital=0.0)
    rehearsal.rehearse(x, target, noise=noise, batch=batch, rates=rates)
    rehearsal.readout(x[:_PART], target[:_PART], noise=noise, draws=1)
