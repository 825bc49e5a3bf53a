"""The course of a training: device forwards, fits of the surrogate, steps of theta."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from typing_extensions import override

from labctl.errors import NotFiniteError, OutcomeError, SaturatedError
from labctl.training.blackbox import Device, DeviceLayer, Exposure, offspring
from labctl.training.contestant.search import Search, explore
from labctl.training.drift import CATEGORY as DRIFT
from labctl.training.drift import Remedy, Steady, Watch
from labctl.training.estimator import Cosine, Estimator
from labctl.training.evidence import Evidence, Probing
from labctl.training.journal import Listener, Result, Row, Silent, Status, Stopped
from labctl.training.network import Network, Recurrent, Standardise
from labctl.training.probe import Dither, noise_variance
from labctl.training.readout import Readout, Task, solve
from labctl.training.rehearsal import Rates, Rehearsal, Verdict
from labctl.training.surrogate.fit import Fitter

State = dict[str, Any]
Found = TypeVar("Found")
LAST = 5
"""Device batches that judge a readout that was rehearsed."""
DRAWS = 4
"""Noisy answers of the twin to every sample that such a readout is solved on."""
UNUSABLE: dict[type[OutcomeError], Status] = {
    NotFiniteError: Status.NOT_FINITE_OUTPUT,
    SaturatedError: Status.SATURATED,
}
"""What answers of a device can be that nothing may learn from."""


@dataclass(frozen=True)
class Samples:
    """Inputs and targets.

    Parameters
    ----------
    x
        Inputs, nominally in [0, 1].
    y
        Class numbers, or real targets.
    """

    x: Float[Tensor, "sample feature"]
    y: Shaped[Tensor, "sample *"]

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Optimisation:
    """How theta and the digital layers are trained.

    Parameters
    ----------
    batch
        Samples a step.
    learning_rate_theta, learning_rate_digital
        Adam's steps, in rad and in units of the digital weights.
    schedule
        Of both steps over the course.
    weight_decay
        Of the digital layers.
    validate_every
        Steps between validations; 0 for none.
    """

    batch: int = 64
    learning_rate_theta: float = 0.1
    learning_rate_digital: float = 0.01
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: float = 0.0
    validate_every: int = 0

    def factor(self, step: int | float, steps: int) -> float:
        """Return what the schedule multiplies both steps with.

        Parameters
        ----------
        step
            Counted from 0.
        steps
            Steps of the course.
        """
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclass(frozen=True)
class Purse:
    """Exposures of a course whose steps do not all cost the same.

    Parameters
    ----------
    shots
        Exposures that there are.
    dearest
        Exposures that the dearest step may cost: one more is begun only where they
        are left.
    """

    shots: int
    dearest: int


@dataclass(frozen=True)
class Settings:
    """What the course consists of.

    Parameters
    ----------
    task
        What the model is meant to do.
    steps
        Optimiser steps that the budget pays for.
    optimisation, probing
        How.
    purse
        What limits the course beside its steps, where nobody knows beforehand what
        a step costs; None where all do.
    """

    task: Task
    steps: int
    optimisation: Optimisation = Optimisation()
    probing: Probing = field(default_factory=Probing)
    purse: Purse | None = None


@dataclass(frozen=True)
class Parts:
    """What is trained, and with what.

    Parameters
    ----------
    network
        The model; its device layers share the device.
    device
        Answers to probes.
    make_estimator
        Makes the estimator once the noise of the outputs is known; it is handed
        None where no repeats were asked for.
    fitter
        Fits the surrogate; None where there is none.
    search
        Moves theta by losses alone; None where a gradient does.
    rehearsal
        Moves theta and the digital layers on a twin between device batches, which
        then only judge; None where every step is the device's.
    watch
        Looks for drift of the device; None where nobody does.
    """

    network: Network
    device: Device
    make_estimator: Callable[[Tensor | None], Estimator]
    fitter: Fitter | None = None
    search: Search | None = None
    rehearsal: Rehearsal | None = None
    watch: Watch | None = None


class Trainer:
    """Train a model with a device in it.

    First patterns are exposed twice, to know the noise; then the whole training
    split once, with dither around the initial theta: this sets the standardising
    layers, feeds the surrogate, and gives the head its best weights for a theta
    that was never trained. Then the planned steps. At the end the head is solved
    once more on the outputs of the last epoch, and the solution is kept where its
    loss on them is lower.

    Parameters
    ----------
    parts
        What is trained.
    train
        Training split.
    settings
        How.
    validation
        Validation split, where validations are asked for.
    listener
        Hears what happens; None for nobody.
    generator
        Seeds the order of the samples and the probes.

    Raises
    ------
    ValueError
        The settings ask for more than there is.
    """

    def __init__(
        self,
        parts: Parts,
        train: Samples,
        settings: Settings,
        *,
        validation: Samples | None = None,
        listener: Listener | None = None,
        generator: torch.Generator,
    ) -> None:
        _check(parts, train, settings, validation)
        self.parts, self.train, self.settings = parts, train, settings
        self.validation = validation
        self.listener: Listener = Silent() if listener is None else listener
        self.done = 0
        self.estimator: Estimator | None = None
        self._order = offspring(generator)
        self.evidence = Evidence(
            parts.device,
            parts.fitter,
            settings.probing,
            listener=self.listener,
            generator=offspring(generator),
            samples=len(train),
        )
        self._permutation = torch.zeros(0, dtype=torch.int64)
        self._cursor = 0
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._failed: Status | None = None
        self._told = ""
        if parts.search is not None:
            # What losses move needs no gradient: no estimator is ever asked.
            for theta in parts.network.theta():
                theta.requires_grad_(False)
        how = settings.optimisation
        groups: list[dict[str, Any]] = [
            {
                "params": parts.network.theta(),
                "peak": how.learning_rate_theta,
                "weight_decay": 0.0,
            },
            {
                "params": parts.network.digital(),
                "peak": how.learning_rate_digital,
                "weight_decay": how.weight_decay,
            },
        ]
        self._adam = torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training split."""
        return len(self.train) // self.settings.optimisation.batch

    @property
    def prepared(self) -> bool:
        """Whether the noise is known, the warm-up pass made and the head solved."""
        return self.estimator is not None

    @property
    def _goes_on(self) -> bool:
        purse = self.settings.purse
        can_pay = purse is None or self.evidence.shots + purse.dearest <= purse.shots
        return can_pay and self.done < self.settings.steps

    @property
    def _place(self) -> int | float:
        """Steps done, or what they are worth of the course if shots run out before."""
        purse, steps = self.settings.purse, self.settings.steps
        if purse is None:
            return self.done
        return max(self.done, steps * self.evidence.shots / purse.shots)

    def run(self) -> Result:
        """Do what is left of the course."""
        if not self.prepared and self._failed is None:
            self.prepare()
        if self._failed is None and self._goes_on:
            self.listener.stage("training")
        try:
            while self._failed is None and self._goes_on:
                self.step()
        except (Stopped, NotFiniteError, SaturatedError) as err:
            self._failed = self._why(err)
        if self._failed is None and self.done == 0 < self.settings.steps:
            self._failed = Status.NO_STEP_PAID
        refitted = self._failed is None and self._refit()
        whole, latest = self.evidence.cosine.whole(), self.evidence.cosine.read()
        return Result(
            status=self._failed or self._judged(whole, latest),
            steps=self.done,
            shots=self.evidence.shots,
            cosine=latest,
            whole=whole,
            refitted=refitted,
            told=self._told,
        )

    def _judged(self, whole: Cosine, latest: Cosine) -> Status:
        """Say how a course ended that did all its steps."""
        relies = self.estimator is not None and self.estimator.relies
        stays = whole.is_zero and not latest.is_told
        if self.parts.fitter is not None and relies and stays:
            return Status.COSINE_AT_ZERO
        return Status.COMPLETED

    # ---- before the first step -------------------------------------------------

    @torch.no_grad()
    def prepare(self) -> bool:
        """Measure the noise, warm up, fit for the first time, solve the head.

        Returns
        -------
        ready
            False where the device's answers cannot be used: :meth:`run` then
            returns the reason at once.
        """
        return self.attempt(self._prepare)

    def attempt(self, work: Callable[[], object]) -> bool:
        """Do what comes before the first step.

        Parameters
        ----------
        work
            May expose.

        Returns
        -------
        done
            False where the device's answers cannot be used: :meth:`run` then
            returns the reason at once.
        """
        try:
            work()
        except (Stopped, NotFiniteError, SaturatedError) as err:
            self._failed = self._why(err)
        return self._failed is None

    def _why(self, error: Stopped | OutcomeError) -> Status:
        if isinstance(error, Stopped):
            return error.status
        self._told = str(error)
        self.listener.stage(self._told)
        return UNUSABLE[type(error)]

    def _prepare(self) -> None:
        first = warming(self.train, self.settings.probing.warm_up)
        hidden = first.x
        head = self.parts.network.head
        for layer in self.parts.network.layers:
            if isinstance(layer, DeviceLayer | Recurrent):
                if self.evidence.shots == 0:
                    self.evidence.noise = self._repeat(layer, hidden)
                self.listener.stage("warm-up pass")
                hidden = self._warm_up(layer, hidden)
            elif head is not None and layer is head:
                solve(
                    hidden, first.y, self.settings.task, beat=self.listener.beat
                ).put_into(head)
            else:
                if isinstance(layer, Standardise):
                    layer.settle(hidden)
                hidden = layer(hidden)
        if self.parts.fitter is not None:
            self._fit_first(math.ceil(len(first) / self.settings.optimisation.batch))
        self._install(self.parts.make_estimator(self.evidence.noise))
        if self.parts.watch is not None:
            self.listener.stage("reference patterns")
            self._look(self.parts.watch.begin)

    def _fit_first(self, batches: int) -> None:
        self.listener.stage("first fit")
        self.evidence.first_fit(batches)
        if said := self.evidence.told_fit():
            self.listener.stage(said)

    def _install(self, estimator: Estimator) -> None:
        self.estimator = estimator
        for layer in self.parts.network.device_layers:
            layer.estimate = estimator

    def _repeat(self, layer: DeviceLayer | Recurrent, x: Tensor) -> Tensor | None:
        count = self.settings.probing.noise_repeats
        if count == 0:
            return None
        if isinstance(layer, Recurrent):
            return self._repeat(layer.layer, layer.features(x[:count], None, 0))
        self.listener.stage("noise repeats")
        layer.begin("repeat", step=-1)
        first, second = layer(x[:count]), layer(x[:count])
        self.evidence.shots += 2 * count
        return noise_variance(first, second)

    def _warm_up(self, layer: DeviceLayer | Recurrent, x: Tensor) -> Tensor:
        if isinstance(layer, Recurrent):
            # Step by step, every sample: the first one sets the scale of the state.
            own = layer.layer
            return layer.unroll(x, lambda features: self._warm_up(own, features))
        probing = self.settings.probing
        found: list[Tensor] = []
        for part in self._parts_of(x):
            layer.begin("warm-up", step=-1, dither_rad=probing.dither_rad[0])
            found.append(layer(part))
            self.evidence.warm_up(layer.tape[-1])
        return torch.cat(found)

    # ---- drift -----------------------------------------------------------------

    def _look(self, look: Callable[[], Found]) -> Found:
        """Let the watch expose; its shots are the course's."""
        watch = self.parts.watch
        before = 0 if watch is None else watch.shots
        found = look()
        self.evidence.shots += (0 if watch is None else watch.shots) - before
        return found

    def _watch(self) -> None:
        """Look for drift where that is due, and do what follows.

        Raises
        ------
        Stopped
            It is more than the protocol allows.
        """
        watch = self.parts.watch
        if watch is None or not watch.is_due(self.done):
            return
        before = watch.device.gain
        found = self._look(lambda: watch.check(self.done, self.evidence.noise))
        if found.remedy is not Remedy.NONE:
            self.listener.stage(f"step {self.done}: {found}")
        if found.remedy is Remedy.STOP:
            raise Stopped(Status.DRIFTED)
        if found.remedy is Remedy.RECENTRE:
            self._correct_noise(watch.device, before)
        if found.remedy is Remedy.REFIT:
            self._renew(watch)

    def _correct_noise(self, device: Steady, before: Tensor) -> None:
        """Take it that outputs are divided by another gain from now on."""
        noise = self.evidence.noise
        if noise is None:
            return
        self.evidence.noise = device.noise(noise, before, device.gain)
        if self.estimator is not None:
            self.estimator.expect(self.evidence.noise)

    @torch.no_grad()
    def _renew(self, watch: Watch) -> None:
        """Learn the device anew around theta as it stands."""
        how, probing = watch.how, self.settings.probing
        self.evidence.forget(how.refit_keep)
        drawn = self.train.x[self._draw(how.refit_shots)]
        for part in self._parts_of(drawn):
            self.parts.network.begin(
                DRIFT, step=self.done, dither_rad=probing.dither_rad[0]
            )
            self.parts.network.body(part)
            for exposure in self._exposures():
                self.evidence.warm_up(exposure)
        self.evidence.fit(how.refit_steps)
        if self.parts.rehearsal is not None:
            self.parts.rehearsal.renew()
        if self.estimator is not None:
            self._tell(self.estimator.renew())
        self._look(watch.begin)

    def _draw(self, count: int) -> Tensor:
        drawn = torch.randint(len(self.train), (count,), generator=self._order)
        return drawn.to(self.train.x.device)

    # ---- one step --------------------------------------------------------------

    def step(self) -> Row:
        """Do one optimiser step, with its probes and fits.

        Returns
        -------
        row
            What it was like; the listener has heard it already.

        Raises
        ------
        RuntimeError
            The course was not prepared.
        Stopped
            The course cannot go on; :meth:`run` makes a result of it.
        """
        if not self.prepared:
            text = "trainer: step before prepare, expected prepare first."
            raise RuntimeError(text)
        self._watch()
        how = self.settings.optimisation
        index = self._next_batch()
        x, target = self.train.x[index], self.train.y[index]
        if self.parts.search is None:
            loss, score = self._descend(x, target)
            passes = list(self._exposures())
        else:
            loss, score, passes = self._explore(self.parts.search, x, target)
        # A search exposes a batch many times: its rows are no samples.
        self.evidence.gather(
            passes, self.done, index if self.parts.search is None else None
        )
        if self.estimator is not None and self.settings.probing.size_every:
            self.estimator.resize(self.evidence.estimator_rad)
        if not self.evidence.is_enough:
            raise Stopped(Status.NOTHING_TO_FIT)
        fit = self.evidence.fit(self.evidence.fits_per_step)
        self._rehearse()
        rate = how.learning_rate_theta * how.factor(self._place, self.settings.steps)
        validation = self._validate()
        cosine = self.evidence.cosine.read()
        self._listen(cosine)
        row = Row(
            step=self.done,
            loss=loss,
            loss_surrogate=fit,
            lr=rate,
            accuracy=score,
            cosine=cosine.value,
            cosine_error=cosine.error,
            shots=self.evidence.shots,
            score_validation=validation,
        )
        self.done += 1
        self.listener.step(row)
        return row

    def _listen(self, cosine: Cosine) -> None:
        self._tell("" if self.estimator is None else self.estimator.hear(cosine))

    def _tell(self, said: str) -> None:
        if said:
            self.listener.stage(f"step {self.done}: {said}")

    def _next_batch(self) -> Tensor:
        size = self.settings.optimisation.batch
        if self._cursor + size > len(self._permutation):
            self._permutation = torch.randperm(len(self.train), generator=self._order)
            self._cursor = 0
        index = self._permutation[self._cursor : self._cursor + size]
        self._cursor += size
        return index.to(self.train.x.device)

    def _descend(self, x: Tensor, target: Tensor) -> tuple[float, float]:
        network, task = self.parts.network, self.settings.task
        dither = Dither(*self.settings.probing.dither_rad, self.settings.steps)
        network.begin("train", step=self.done, dither_rad=dither.rms_rad(self._place))
        hidden = network.body(x)
        answer = network.finish(hidden)
        loss = task.loss(answer, target)
        if not bool(torch.isfinite(loss)):
            raise Stopped(Status.NOT_FINITE_LOSS)
        if self.parts.rehearsal is None:
            self._move(loss)
        else:
            torch.autograd.backward(loss)
            self._check_gradients()
            self._consult(self.parts.rehearsal, task.each(answer.detach(), target))
        self._remember(hidden, target)
        return float(loss.detach()), task.score(answer.detach(), target)

    def _explore(
        self, search: Search, x: Tensor, target: Tensor
    ) -> tuple[float, float, list[Exposure]]:
        """Let a search move theta; the digital layers learn from all it measured.

        Raises
        ------
        Stopped
            A loss is not finite.
        """
        network, task = self.parts.network, self.settings.task
        passes: list[Exposure] = []
        hidden: list[Tensor] = []
        scores: list[float] = []

        def measure() -> Tensor:
            network.begin("train", step=self.done)
            hidden.append(network.body(x))
            answer = network.finish(hidden[-1])
            passes.extend(self._exposures())
            scores.append(task.score(answer.detach(), target))
            return task.loss(answer, target)

        losses = torch.stack(explore(search, network.theta(), measure))
        if not bool(torch.isfinite(losses).all()):
            raise Stopped(Status.NOT_FINITE_LOSS)
        if losses.requires_grad:
            self._move(losses.mean())
        self._remember(torch.cat(hidden), torch.cat([target] * len(hidden)))
        return float(losses.detach().mean()), sum(scores) / len(scores), passes

    def _move(self, loss: Tensor) -> None:
        how = self.settings.optimisation
        self._adam.zero_grad()
        torch.autograd.backward(loss)
        self._check_gradients()
        factor = how.factor(self._place, self.settings.steps)
        for group in self._adam.param_groups:
            group["lr"] = group["peak"] * factor
        self._adam.step()

    def _consult(self, rehearsal: Rehearsal, losses: Tensor) -> None:
        """Let the device say how far the twin is to be trusted, and judge the move."""
        shown = [exposure.response for exposure in self._exposures()]
        phase = torch.cat([response.shown for response in shown])
        rehearsal.judge(
            phase, torch.cat([response.y for response in shown]), self.evidence.noise
        )
        if rehearsal.confirm(losses) is Verdict.TAKEN_BACK:
            text = f"step {self.done}: the device took back what the twin taught"
            self.listener.stage(text)

    def _rehearse(self) -> None:
        rehearsal, how = self.parts.rehearsal, self.settings.optimisation
        if rehearsal is None:
            return
        factor = how.factor(self._place, self.settings.steps)
        rates = Rates(
            factor * how.learning_rate_theta, factor * how.learning_rate_digital
        )
        with self.listener.digital():
            rehearsal.rehearse(
                self.train.x,
                self.train.y,
                noise=self.evidence.noise,
                batch=how.batch,
                rates=rates,
            )

    def _remember(self, hidden: Tensor, target: Tensor) -> None:
        self._seen.append((hidden.detach(), target))
        self._seen = self._seen[-self.steps_per_epoch :]

    def _check_gradients(self) -> None:
        for parameter in self.parts.network.parameters():
            grad = parameter.grad
            if grad is not None and not bool(torch.isfinite(grad).all()):
                raise Stopped(Status.NOT_FINITE_GRADIENT)

    def _exposures(self) -> Iterator[Exposure]:
        for layer in self.parts.network.device_layers:
            yield from layer.tape

    # ---- judging ---------------------------------------------------------------

    def score(self, split: Samples, category: str = "evaluate") -> float:
        """Measure the model on a split, without dither.

        Parameters
        ----------
        split
            Every sample costs an exposure a device layer and time step.
        category
            What the exposures are booked as.
        """
        hidden = self.features(split, category)
        with torch.no_grad():
            answer = self.parts.network.finish(hidden)
        return self.settings.task.score(answer, split.y)

    def _parts_of(self, x: Tensor) -> Iterator[Tensor]:
        size = self.settings.optimisation.batch
        for start in range(0, len(x), size):
            yield x[start : start + size]

    @torch.no_grad()
    def features(
        self, split: Samples, category: str = "evaluate"
    ) -> Float[Tensor, "sample hidden"]:
        """Measure what the head is given for a split, without dither.

        Parameters
        ----------
        split
            Every sample costs an exposure a device layer and time step.
        category
            What the exposures are booked as.
        """
        found: list[Tensor] = []
        for part in self._parts_of(split.x):
            self.parts.network.begin(category, step=self.done)
            found.append(self.parts.network.body(part))
        return torch.cat(found)

    def readout(self, category: str = "evaluate") -> Readout:
        """Solve a head on the training split as theta stands, without dither.

        Taken between :meth:`prepare` and the first step it is the honest opponent
        of a training: the best that a linear layer makes of the untrained device.

        Parameters
        ----------
        category
            What the exposures of the training split are booked as.
        """
        hidden = self.features(self.train, category)
        return solve(hidden, self.train.y, self.settings.task, beat=self.listener.beat)

    def score_readout(self, split: Samples, category: str = "evaluate") -> float:
        """Measure :meth:`readout` on a split: what theta as it stands is good for.

        Parameters
        ----------
        split
            Every sample costs an exposure a device layer and time step, as does
            every training sample.
        category
            What the exposures are booked as.
        """
        found = self.readout(category)
        answer = found(self.features(split, category))
        return self.settings.task.score(answer, split.y)

    def _validate(self) -> float:
        every = self.settings.optimisation.validate_every
        if self.validation is None or every == 0 or (self.done + 1) % every:
            return math.nan
        exposures = self.parts.network.exposures
        self.evidence.shots += len(self.validation) * exposures
        return self.score(self.validation)

    def _refit(self) -> bool:
        head = self.parts.network.head
        if head is None or not self._seen:
            return False
        self.listener.stage("last readout")
        # Where theta moved far between batches only the last were seen as it is.
        seen = self._seen if self.parts.rehearsal is None else self._seen[-LAST:]
        hidden = torch.cat([part for part, _ in seen])
        target = torch.cat([part for _, part in seen])
        if self.parts.rehearsal is None:
            found = solve(hidden, target, self.settings.task, beat=self.listener.beat)
        else:
            with self.listener.digital():
                found = self.parts.rehearsal.readout(
                    self.train.x, self.train.y, noise=self.evidence.noise, draws=DRAWS
                )
        with torch.no_grad():
            old = self.settings.task.loss(head(hidden), target)
        if not float(self.settings.task.loss(found(hidden), target)) < float(old):
            return False
        found.put_into(head)
        return True

    # ---- going on later --------------------------------------------------------

    def state_dict(self) -> State:
        """Everything that a bit-identical continuation needs, at a step boundary.

        Returns
        -------
        state
            Tensors, numbers, strings and None in dicts and lists.

        Raises
        ------
        RuntimeError
            The course was not prepared.
        """
        if self.estimator is None:
            text = "trainer: state before prepare, expected prepare first."
            raise RuntimeError(text)
        state: State = {
            "done": self.done,
            "network": self.parts.network.state_dict(),
            "dither": [g.get_state() for g in self._dither_generators()],
            "adam": self._adam.state_dict(),
            "estimator": self.estimator.state_dict(),
            "search": self.parts.search.state_dict() if self.parts.search else None,
            "rehearsal": self.parts.rehearsal.state_dict()
            if self.parts.rehearsal
            else None,
            "watch": self.parts.watch.state_dict() if self.parts.watch else None,
            "order": self._order.get_state(),
            "evidence": self.evidence.state_dict(),
            "permutation": self._permutation,
            "cursor": self._cursor,
            "seen": [[hidden, target] for hidden, target in self._seen],
        }
        copied: State = _copy(state)
        return copied

    def load_state_dict(self, state: State) -> None:
        """Take up a state; what was prepared then need not be prepared again.

        Parameters
        ----------
        state
            From :meth:`state_dict` of a trainer made with the same arguments.
        """
        state = _copy(state)
        self.done = int(state["done"])
        self.evidence.load_state_dict(state["evidence"])
        self.parts.network.load_state_dict(state["network"])
        for generator, kept in zip(
            self._dither_generators(), state["dither"], strict=True
        ):
            generator.set_state(kept)
        self._adam.load_state_dict(state["adam"])
        self._install(self.parts.make_estimator(self.evidence.noise))
        if self.estimator is not None:
            self.estimator.load_state_dict(state["estimator"])
        if self.parts.search is not None:
            self.parts.search.load_state_dict(state["search"])
        if self.parts.rehearsal is not None:
            self.parts.rehearsal.load_state_dict(state["rehearsal"])
        if self.parts.watch is not None:
            self.parts.watch.load_state_dict(state["watch"])
        self._order.set_state(state["order"])
        self._permutation, self._cursor = state["permutation"], int(state["cursor"])
        self._seen = [(hidden, target) for hidden, target in state["seen"]]

    def _dither_generators(self) -> list[torch.Generator]:
        return [layer.generator for layer in self.parts.network.device_layers]


def warming(train: Samples, count: int | None) -> Samples:
    """Choose the samples of the warm-up pass, evenly over the training split.

    Parameters
    ----------
    train
        Training split.
    count
        How many; None for all.
    """
    if count is None or count >= len(train):
        return train
    index = torch.linspace(0, len(train) - 1, count).long()
    return Samples(train.x[index], train.y[index])


def _copy(value: Any) -> Any:  # noqa: ANN401 - a tree of anything
    """Copy a tree of state; tensors must not change with the training."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(part) for part in value)
    return value


@dataclass(frozen=True)
class Misfit:
    """A setting that asks for more than there is.

    Parameters
    ----------
    section, key
        Which: ``training`` or ``probes``, and the key in it.
    text
        What was got, what was expected, what to do.
    """

    section: str
    key: str
    text: str

    @override
    def __str__(self) -> str:
        return f"{self.section}: {self.text}"


def misfits(
    how: Optimisation, probing: Probing, *, train: int, validation: int
) -> Iterator[Misfit]:
    """Compare settings with the data, before anything is exposed.

    Parameters
    ----------
    how, probing
        The settings.
    train, validation
        Samples of the splits.

    Yields
    ------
    misfit
        Everything that a :class:`Trainer` would refuse.
    """
    if not 1 <= how.batch <= train:
        text = (
            f"batch={how.batch}, expected 1 to {train} (training samples). Lower "
            "training.batch."
        )
        yield Misfit("training", "batch", text)
    held_out, paired = probing.held_out_per_step, probing.paired_per_step
    most = min(how.batch, train)
    if held_out + paired > most:
        text = (
            f"held_out_per_step={held_out} and paired_per_step={paired}, expected at "
            f"most {most} together (training.batch). Lower them."
        )
        key = "held_out_per_step" if held_out > most else "paired_per_step"
        yield Misfit("probes", key, text)
    if probing.size_every and not 1 <= probing.size_samples <= most:
        text = (
            f"size_samples={probing.size_samples}, expected 1 to {most} "
            "(training.batch). Lower it."
        )
        yield Misfit("probes", "size_samples", text)
    if held_out % 2:
        text = (
            f"held_out_per_step={held_out}, expected an even number: held-out probes "
            "are pairs of exposures. Add one."
        )
        yield Misfit("probes", "held_out_per_step", text)
    if probing.noise_repeats > train:
        text = (
            f"noise_repeats={probing.noise_repeats}, expected at most {train} "
            "(training samples). Lower it."
        )
        yield Misfit("probes", "noise_repeats", text)
    if how.validate_every and not validation:
        text = (
            f"validate_every={how.validate_every} without a validation split. Set it "
            "to 0, or give samples for validation."
        )
        yield Misfit("training", "validate_every", text)


def _check(
    parts: Parts, train: Samples, settings: Settings, validation: Samples | None
) -> None:
    found = misfits(
        settings.optimisation,
        settings.probing,
        train=len(train),
        validation=0 if validation is None else len(validation),
    )
    told = [str(misfit) for misfit in found]
    if told:
        raise ValueError("\n".join(told))
    if not parts.network.device_layers:
        text = "model: no device layer, expected at least one."
        raise ValueError(text)
