"""Fit a surrogate to what the device answered, step by step, and keep its average.

Values (phase, y) feed the ``value`` term, probe groups the others. A probe serves
any number of cotangents, because the camera returns the whole response: every fit
step pairs the probes with cotangents of the run and with random ones.

What was observed stays on the processor, and so do the random numbers, whatever device
the surrogate is on: every fit step draws its rows there and sends them.
"""

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, Final, TypedDict

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from labctl.training import loss as losses
from labctl.training.surrogate.model import Surrogate, Twin
from labctl.training.surrogate.replay import Ring, RingState
from labctl.training.surrogate.settings import FitTerm, SurrogateSettings

COTANGENTS: Final = 4
"""Cotangents that each drawn probe group meets in a fit step."""
GOOD: Final = 0.05
"""Share of the outputs' variance that a good fit may leave unexplained, noise apart."""
# A one-cycle fit: where it begins, and when its step is highest. After it the step is
# this part of the highest for good.
_FIRST_SHARE, _RISING, _LATER_SHARE = 0.04, 0.3, 0.1


class FitterState(TypedDict):
    """Everything that a fitter remembers.

    Attributes
    ----------
    surrogate, averaged
        State of the two models; the second is empty without an average.
    adam
        State of the optimiser; empty for a model in closed form.
    steps
        Fit steps taken.
    values, kept, probes, cotangents
        State of the memories.
    seen
        Values observed, kept ones included.
    generator
        State of the source of randomness.
    """

    surrogate: dict[str, Tensor]
    averaged: dict[str, Tensor]
    adam: dict[str, Any]
    steps: int
    values: RingState
    kept: RingState
    seen: int
    probes: RingState
    cotangents: RingState
    generator: Tensor


class Fitter:
    """A surrogate, what it has seen, and the optimiser that fits it.

    Parameters
    ----------
    surrogate
        The model; it is changed in place.
    settings
        Terms, effort and memory of the fit.
    generator
        Source of the batches and of random cotangents.

    Raises
    ------
    ValueError
        A term of the loss does not suit the model, or several starts are asked for
        that nothing can judge.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        settings: SurrogateSettings,
        generator: Generator,
    ) -> None:
        self.surrogate = surrogate
        self.settings = settings
        self.generator = generator
        self.terms = settings.loss or surrogate.default_losses
        self.steps = 0
        self._recency = settings.recency
        self._values = Ring(settings.replay)
        # Kept from every fit, to judge it.
        self._kept = Ring(settings.replay)
        self._seen = 0
        self._probes = Ring(settings.replay)
        self._cotangents = Ring(settings.replay)
        self._relations = {
            term: losses.relation(term.name, term.a)
            for term in self.terms
            if term.name not in {"value", "jvp"}
        }
        fitted = bool(list(surrogate.parameters()))
        _check_terms(surrogate, self.terms, fitted=fitted)
        _check_starts(surrogate, settings)
        self._averaged = (
            copy.deepcopy(surrogate).requires_grad_(requires_grad=False)
            if fitted and settings.average
            else None
        )

    @property
    def answering(self) -> Surrogate:
        """The model that answers: with averaged weights, where an average is kept."""
        return self.surrogate if self._averaged is None else self._averaged

    @property
    def ready(self) -> bool:
        """Whether a fit step would have anything to learn from."""
        return any(self._has_data(term) for term in self.terms)

    def _has_data(self, term: FitTerm) -> bool:
        return len(self._values if term.name == "value" else self._probes) > 0

    def observe_values(
        self, phase: Float[Tensor, "batch pixel"], y: Float[Tensor, "batch output"]
    ) -> None:
        """Remember shots; the first ones set the scale of the outputs.

        Parameters
        ----------
        phase
            What the panel showed, in rad.
        y
            What the device answered.
        """
        phase, y = self._cast(phase), self._cast(y)
        self.surrogate.calibrate(y)
        self._share_scale()
        every = self.settings.keep_every
        number = torch.arange(self._seen, self._seen + len(y))
        self._seen += len(y)
        fitted = (number + 1) % every > 0 if every else torch.ones_like(number) > 0
        self._values.append(phase[fitted], y[fitted])
        if every:
            self._kept.append(phase[~fitted], y[~fitted])

    def observe_probes(
        self,
        phase: Float[Tensor, "group pixel"],
        d_alpha: Float[Tensor, "group probe pixel"],
        d_f: Float[Tensor, "group probe output"],
    ) -> None:
        """Remember probes; a model in closed form takes them in at once.

        Parameters
        ----------
        phase
            Operating point of each group, in rad.
        d_alpha
            Perturbations as shown, in rad.
        d_f
            Responses, in the units of the device.
        """
        phase, d_alpha, d_f = self._cast(phase), self._cast(d_alpha), self._cast(d_f)
        flat = d_alpha.flatten(0, 1), d_f.flatten(0, 1)
        self.surrogate.calibrate_probes(*flat)
        self._share_scale()
        self._probes.append(phase, d_alpha, d_f)
        self.surrogate.absorb(*flat)

    def observe_cotangents(self, cotangent: Float[Tensor, "batch output"]) -> None:
        """Remember cotangents of the run: relation (1) is then fitted along them.

        Parameters
        ----------
        cotangent
            Gradients of the run's loss with respect to the outputs; zero rows are
            left out, for they have no direction.
        """
        cotangent = self._cast(cotangent)
        self._cotangents.append(cotangent[cotangent.abs().amax(dim=1) > 0])

    def forget(self, keep: int) -> None:
        """Forget all but the newest of what was observed: the device has changed.

        A model in closed form is made anew of the probes that are left.

        Parameters
        ----------
        keep
            Shots, probe groups and cotangents that are remembered.
        """
        for ring in (self._values, self._kept, self._probes, self._cotangents):
            ring.forget(keep)
        self.surrogate.forget()
        if len(self._probes):
            _, d_alpha, d_f = self._probes.rows()  # The oldest first.
            self.surrogate.absorb(d_alpha.flatten(0, 1), d_f.flatten(0, 1))

    def _cast(self, values: Tensor) -> Tensor:
        return values.detach().to("cpu", self.surrogate.y_scale.dtype)

    def _share_scale(self) -> None:
        if self._averaged is not None:
            pairs = zip(self._averaged.buffers(), self.surrogate.buffers(), strict=True)
            for mine, source in pairs:
                mine.copy_(source)

    def step(self, count: int, beat: Callable[[], None] = lambda: None) -> float:
        """Take fit steps; a model in closed form is only measured.

        Terms whose data have not come yet wait.

        Parameters
        ----------
        count
            Steps.
        beat
            Called after each of them, as a sign of life.

        Returns
        -------
        loss
            Mean of the fit loss over the steps; nan where nothing was to be
            learned from.
        """
        if count == 0 or not self.ready:
            return float("nan")
        if self._adam is None:
            return float(self._step())
        total = self._nothing()
        for _ in range(count):
            total += self._step()
            beat()
        return float(total) / count

    def _step(self) -> Float[Tensor, ""]:
        """Take one fit step; a model in closed form is only measured.

        The loss stays on the device: to read it would wait for all that was launched.
        """
        if self._adam is None:
            with torch.no_grad():
                return self._loss()
        self._adam.zero_grad()
        loss = self._loss()
        torch.autograd.backward(loss)
        self._adam.step()
        self.steps += 1
        self._average()
        return loss.detach()

    def _nothing(self) -> Float[Tensor, ""]:
        return torch.zeros((), dtype=torch.float64, device=self.surrogate.device)

    def first(
        self,
        count: int,
        *,
        noise: Tensor | None,
        phase: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> float:
        """Fit for the first time; from another start as long as that is no good.

        Every start is judged by the shots that are kept from fits. The best stays.

        Parameters
        ----------
        count
            Fit steps of each start.
        noise
            Variance of each output from exposure to exposure; None where it is not
            known, so that every start is tried.
        phase
            Entered for each start: the device may rest as long as it lasts.

        Returns
        -------
        loss
            Mean of the fit loss over the steps of the last start.
        """
        best, loss = math.inf, math.nan
        state = self._trained()
        for number in range(self.settings.starts):
            if number > 0:
                self._begin_again()
            with phase():
                loss = self._cycle(count)
                left = self.unexplained(noise)
            if number == 0 or left < best:
                best, state = left, self._trained()
            if left < GOOD and noise is not None:
                break
        self._put_back(state)
        return loss

    def _cycle(self, count: int) -> float:
        """Take the steps of a first fit by its schedule."""
        if not self.ready:
            return math.nan
        total = self._nothing()
        for number in range(count):
            self._set_rate(self._factor((number + 0.5) / count))
            total += self._step()
        if self.settings.schedule == "one-cycle":
            self._set_rate(_LATER_SHARE)
            if self._averaged is not None:
                # Where the step has fallen to nothing there is nothing to average.
                self._averaged.load_state_dict(self.surrogate.state_dict())
        return float(total) / max(count, 1)

    def _factor(self, share: float) -> float:
        if self.settings.schedule == "constant":
            return 1.0
        if share < _RISING:
            rise = (1 - math.cos(math.pi * share / _RISING)) / 2
            return _FIRST_SHARE + (1 - _FIRST_SHARE) * rise
        return (1 + math.cos(math.pi * (share - _RISING) / (1 - _RISING))) / 2

    def _set_rate(self, factor: float) -> None:
        if self._adam is not None:
            for group in self._adam.param_groups:
                group["lr"] = factor * self.settings.learning_rate

    @torch.no_grad()
    def unexplained(self, noise: Tensor | None) -> float:
        """Share of the outputs' variance that the kept shots show unexplained.

        Parameters
        ----------
        noise
            Variance of each output from exposure to exposure; it is taken off, so
            that a perfect twin reads 0.

        Returns
        -------
        share
            Nan where no shot was kept, or the model is no twin.
        """
        if len(self._kept) < 2 or not isinstance(self.answering, Twin):
            return math.nan
        phase, y = self._kept.rows()
        return unexplained(self.answering, phase, y, noise)

    def _begin_again(self) -> None:
        self.surrogate.restart(self.generator)
        if self._averaged is not None:
            self._averaged.load_state_dict(self.surrogate.state_dict())
        self.__dict__.pop("_adam", None)
        self.steps = 0

    @cached_property
    def _adam(self) -> torch.optim.Optimizer | None:
        """Made when it is asked for first: PyTorch loads its compiler for it."""
        parameters = list(self.surrogate.parameters())
        rate = self.settings.learning_rate
        return torch.optim.Adam(parameters, lr=rate, fused=True) if parameters else None

    def _trained(self) -> dict[str, Any]:
        """Copy what fit steps change."""
        state = {
            "surrogate": self.surrogate.state_dict(),
            "averaged": {} if self._averaged is None else self._averaged.state_dict(),
            "adam": {} if self._adam is None else self._adam.state_dict(),
            "steps": self.steps,
        }
        return copy.deepcopy(state)

    def _put_back(self, state: Mapping[str, Any]) -> None:
        self.surrogate.load_state_dict(state["surrogate"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        if self._adam is not None:
            self._adam.load_state_dict(copy.deepcopy(state["adam"]))
        self.steps = state["steps"]

    @torch.no_grad()
    def _average(self) -> None:
        if self._averaged is None:
            return
        # The start is forgotten quickly: the mean of all steps first, then a window.
        decay = min(self.settings.average, self.steps / (self.steps + 9))
        pairs = zip(
            self._averaged.parameters(), self.surrogate.parameters(), strict=True
        )
        for mine, source in pairs:
            mine.lerp_(source, 1 - decay)

    def _loss(self) -> Float[Tensor, ""]:
        active = [term for term in self.terms if self._has_data(term)]
        parts = [term.weight * self._term(term) for term in active]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum()

    def _term(self, term: FitTerm) -> Float[Tensor, ""]:
        if term.name == "value":
            return self._value(_twin(self.surrogate))
        if term.name == "jvp":
            return self._jvp(_twin(self.surrogate))
        return self._relation(self._relations[term])

    def _value(self, twin: Twin) -> Float[Tensor, ""]:
        phase, y = self._draw(self._values, self.settings.fit_batch)
        target = (y - twin.y_mean) / twin.y_scale
        return (twin.predict(phase) - target).square().mean()

    def _jvp(self, twin: Twin) -> Float[Tensor, ""]:
        phase, d_alpha, d_f = self._groups(cotangents=1)
        groups, probes, _ = d_alpha.shape
        shown = (phase[:, None] + d_alpha).flatten(0, 1)
        scaled = twin.predict(torch.cat([shown, phase]))
        moved = scaled[: groups * probes].view(groups, probes, -1)
        target = d_f / twin.y_scale
        error = moved - scaled[groups * probes :, None] - target
        mean_square: Tensor = error.square().mean() / _power(target)
        return mean_square

    def _relation(self, loss: Callable[[Tensor, Tensor], Tensor]) -> Float[Tensor, ""]:
        phase, d_alpha, d_f = self._groups(cotangents=COTANGENTS)
        groups, probes, _ = d_alpha.shape
        unit = self._units(groups * COTANGENTS)
        gradient = self.surrogate.unit_vjp(
            unit, phase.repeat_interleave(COTANGENTS, dim=0)
        )
        s = gradient.view(groups, COTANGENTS, -1) @ d_alpha.transpose(1, 2)
        target = (d_f / self.surrogate.y_scale).transpose(1, 2)
        t = unit.view(groups, COTANGENTS, -1) @ target
        # In units of the target, so that mse weighs the same beside other terms.
        size = (_power(t) * COTANGENTS * probes).sqrt()
        return loss(s.flatten(1) / size, t.flatten(1) / size)

    def _groups(self, *, cotangents: int) -> tuple[Tensor, ...]:
        rows = max(1, self.settings.fit_batch // cotangents)
        return self._draw(self._probes, rows)

    def _draw(self, ring: Ring, count: int) -> tuple[Tensor, ...]:
        drawn = ring.draw(count, self.generator, recency=self._recency)
        return tuple(self._sent(part) for part in drawn)

    def _sent(self, drawn: Tensor) -> Tensor:
        # CUDA has copied from memory that is not pinned before it returns, so that
        # nobody needs to wait for what was launched before.
        return drawn.to(self.surrogate.device, non_blocking=True)

    def _units(self, count: int) -> Float[Tensor, "row output"]:
        """Draw cotangents of norm one, in scaled outputs: half of them the run's."""
        known = count // 2 if len(self._cotangents) else 0
        scale = self.surrogate.y_scale
        drawn = torch.randn(
            count - known, len(scale), generator=self.generator, dtype=scale.dtype
        )
        rows = self._sent(drawn)
        if known:
            (run,) = self._draw(self._cotangents, known)
            run = run * scale
            # Alternating, so that a group meets both kinds.
            rows = torch.stack([rows[:known], run / run.abs().amax(1, True)], 1)
            rows = rows.flatten(0, 1)
        units: Tensor = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return units

    def state_dict(self) -> FitterState:
        """Copy everything that :meth:`load_state_dict` needs.

        Returns
        -------
        state
            Tensors and plain numbers, nested; those of the models are on their device.
        """
        state: FitterState = {
            **self._trained(),  # type: ignore[typeddict-item]  # four of its keys
            "values": self._values.state_dict(),
            "kept": self._kept.state_dict(),
            "seen": self._seen,
            "probes": self._probes.state_dict(),
            "cotangents": self._cotangents.state_dict(),
            "generator": self.generator.get_state(),
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: FitterState) -> None:
        """Go back to a state; every later step is then the same, bit by bit.

        Parameters
        ----------
        state
            As from :meth:`state_dict` of a fitter with the same settings, on any
            device.
        """
        self._put_back(state)
        self._values.load_state_dict(state["values"])
        self._kept.load_state_dict(state["kept"])
        self._seen = state["seen"]
        self._probes.load_state_dict(state["probes"])
        self._cotangents.load_state_dict(state["cotangents"])
        self.generator.set_state(state["generator"])


@torch.no_grad()
def unexplained(
    twin: Twin,
    phase: Float[Tensor, "batch pixel"],
    y: Float[Tensor, "batch output"],
    noise: Float[Tensor, " output"] | None,
) -> float:
    """Say which share of the outputs' variance a twin leaves unexplained.

    Parameters
    ----------
    twin
        Predicts the outputs.
    phase, y
        Shots that it was not fitted to, at least two.
    noise
        Variance of each output from exposure to exposure; it is taken off.

    Returns
    -------
    share
        Mean over the outputs; 0 for a perfect twin, up to the error of the noise.
    """
    error = (y - twin(phase.to(twin.y_scale.dtype))).square().mean(dim=0)
    if noise is not None:
        error = error - noise.to(error)
    spread = y.var(dim=0)
    varied = spread > 0
    return float((error[varied] / spread[varied]).mean())


def try_out(fitter: Fitter) -> None:
    """Do once all that a fit does, with numbers of no meaning.

    A card loads what it computes with when that is asked for first, which takes
    seconds: not while a laser is on.

    Parameters
    ----------
    fitter
        It has seen nothing, and is of no use after it.
    """
    ports, generator = fitter.surrogate.ports, fitter.generator
    phase = torch.rand(8, ports.pixels, generator=generator)
    y = 1 + torch.rand(8, ports.outputs, generator=generator)
    fitter.observe_values(phase, y)
    fitter.observe_probes(phase, phase[:, None], y[:, None])
    fitter.observe_cotangents(y)
    fitter.step(2)
    fitter.answering.vjp(y, phase)


def _power(values: Tensor) -> Tensor:
    power = values.detach().square().mean()
    return torch.where(power > 0, power, torch.ones_like(power))


def _twin(surrogate: Surrogate) -> Twin:
    if not isinstance(surrogate, Twin):
        kind = type(surrogate).__name__
        text = (
            f"surrogate: loss value or jvp with model={kind}, expected a twin. "
            "Take mse, cos, dot or gen, or a twin model."
        )
        raise TypeError(text)
    return surrogate


def _check_terms(
    surrogate: Surrogate, terms: tuple[FitTerm, ...], *, fitted: bool
) -> None:
    if not terms:
        text = "surrogate: loss=[], expected at least one term. Name a fit loss."
        raise ValueError(text)
    twin_only = [term.name for term in terms if term.name in {"value", "jvp"}]
    if twin_only and not isinstance(surrogate, Twin):
        kind = type(surrogate).__name__
        text = (
            f"surrogate: loss={twin_only} with model={kind}, expected terms of "
            "relation (1). Take mse, cos, dot or gen, or a twin model."
        )
        raise ValueError(text)
    if not fitted and any(term.name != "mse" for term in terms):
        text = (
            f"surrogate: loss={[term.name for term in terms]} with a model in closed "
            "form, expected none. Leave loss out."
        )
        raise ValueError(text)


def _check_starts(surrogate: Surrogate, settings: SurrogateSettings) -> None:
    if settings.starts == 1:
        return
    if not surrogate.restarts or settings.keep_every == 0:
        text = (
            f"surrogate: starts={settings.starts} with "
            f"model={type(surrogate).__name__} and keep_every={settings.keep_every}, "
            "expected a model that has several starts, and shots that judge them. Set "
            "keep_every, or starts to 1."
        )
        raise ValueError(text)
