"""What the surrogate learns from and is judged by: values and probes of each pass."""

import math
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor

from labctl.training.blackbox import Device, Exposure, Probes, Response
from labctl.training.estimator import HeldOutCosine
from labctl.training.journal import Listener, ProbeKind, ProbeRows
from labctl.training.probe import (
    SURVEY_SHOTS,
    DirectionName,
    Directions,
    Shares,
    Size,
    central,
    paired,
    rows,
    share_out,
    survey,
    toward,
)
from labctl.training.secant import Secants
from labctl.training.surrogate.fit import GOOD, Fitter

FITS_AT_ONCE: Final = 10
"""Fit steps in one call; each of them is a sign of life."""


@dataclass(frozen=True)
class Probing:
    """Where perturbations come from.

    Parameters
    ----------
    dither_rad
        Rms phase that every training exposure carries, first and last step.
    paired_per_step, paired_rad
        Fitted probes a step, and their rms.
    directions, dimensions
        Where these lie, and along how many directions; see :class:`Directions`.
    secant_rad
        Rms up to which the move of a sample between two of its exposures is fitted as
        a probe; 0 for no such probe.
    held_out_per_step, held_out_rad
        Exposures a step kept from every fit, an even number: each probe is a pair,
        with a perturbation of that rms and with its opposite.
    window
        Held-out probes that the live cosine looks back on.
    noise_repeats
        Patterns exposed twice before training.
    warm_up
        Samples exposed once before training; None for the whole training split.
    size_every
        Steps between two choices of ``paired_rad``, which the probes of estimators
        begin with, and ``held_out_rad``, from noise and curvature as they are then;
        0 leaves them as they are given.
    size_samples
        Samples of a batch that a choice looks at, :data:`SURVEY_SHOTS` exposures each
        in each of its :attr:`surveys`.
    """

    dither_rad: tuple[float, float] = (0.5, 0.2)
    paired_per_step: int = 0
    paired_rad: float = 0.3
    directions: DirectionName = "all"
    dimensions: int = 0
    secant_rad: float = 0.0
    held_out_per_step: int = 2
    held_out_rad: float = 0.3
    window: int = 100
    noise_repeats: int = 32
    warm_up: int | None = None
    size_every: int = 0
    size_samples: int = 8

    @property
    def surveys(self) -> int:
        """Surveys of a choice: probes that keep to directions have one of their own."""
        return 2 if self.directions != "all" and self.paired_per_step else 1


@final
class Evidence:
    """Takes the probes of a course, feeds the surrogate, keeps the cosine.

    Parameters
    ----------
    device
        Answers to probes.
    fitter
        Fits the surrogate; None where there is none.
    probing
        How many probes, and how large.
    listener
        Hears of probes, and that fits go on.
    generator
        Where perturbations and choices come from.
    samples
        Of the training split: those that secants are taken between.

    Attributes
    ----------
    noise
        Variance of each output from exposure to exposure, as outputs come now; None
        where it was not measured.
    """

    def __init__(
        self,
        device: Device,
        fitter: Fitter | None,
        probing: Probing,
        *,
        listener: Listener,
        generator: torch.Generator,
        samples: int = 0,
    ) -> None:
        self.device, self.fitter, self.probing = device, fitter, probing
        self.listener, self.generator = listener, generator
        self.cosine = HeldOutCosine(probing.window, repeats=probing.noise_repeats)
        self.noise: Tensor | None = None
        self.secants = (
            Secants(samples, probing.secant_rad)
            if fitter is not None and probing.secant_rad
            else None
        )
        self.directions = Directions(
            probing.directions, probing.dimensions, device.layout
        )
        self.shots = 0
        self.paired_rad, self.held_out_rad = probing.paired_rad, probing.held_out_rad
        self.estimator_rad = probing.paired_rad

    @property
    def fits_per_step(self) -> int:
        """Fit steps after each batch; 0 without a surrogate."""
        return 0 if self.fitter is None else self.fitter.settings.fits_per_step

    @property
    def is_enough(self) -> bool:
        """Whether the surrogate, if there is one, has something to learn from."""
        return self.fitter is None or self.fitter.ready

    def warm_up(self, exposure: Exposure) -> None:
        """Learn from a pass before training.

        Parameters
        ----------
        exposure
            What was shown and answered.
        """
        self.shots += len(exposure.response.shot)
        self._feed(exposure.response)
        order = torch.randperm(len(exposure.response.shot), generator=self.generator)
        self._pair(exposure, order[: self.probing.paired_per_step])

    @torch.no_grad()
    def gather(
        self, passes: list[Exposure], step: int, sample: Tensor | None = None
    ) -> None:
        """Probe the exposures of a training step, and learn from both.

        Held-out and paired probes take turns over the exposures, so that their
        number a step does not grow with the depth of the model.

        Parameters
        ----------
        passes
            Every exposure of the step, after the backward pass.
        step
            Counted from 0.
        sample
            Training sample of each row of every exposure; None where rows are not
            samples, so that nothing is compared with an earlier exposure.
        """
        turn = step % len(passes)
        if self.probing.size_every and step % self.probing.size_every == 0:
            # The layers take turns from choice to choice.
            number = step // self.probing.size_every
            self._choose_sizes(passes[number % len(passes)])
        for number, exposure in enumerate(passes):
            batch = len(exposure.response.shot)
            self.shots += batch
            fitted = torch.arange(batch)
            shares: Shares | None = None
            if number == turn:
                shares = share_out(
                    batch,
                    held_out=self.probing.held_out_per_step // 2,
                    paired=self.probing.paired_per_step,
                    generator=self.generator,
                )
                fitted = shares.fitted
                self._hold_out(exposure, shares.held_out)
            self._learn(exposure, fitted)
            if shares is not None:
                self._pair(exposure, shares.paired)
            if self.secants is not None and sample is not None:
                self._compare(self.secants, number, exposure, (sample, fitted))

    def _compare(
        self,
        secants: Secants,
        number: int,
        exposure: Exposure,
        of: tuple[Tensor, Tensor],
    ) -> None:
        """Take what moved since the samples' last exposures; held-out ones never."""
        sample, fitted = of
        response = rows(exposure.response, fitted)
        probes = secants.pair(number, sample.cpu()[fitted], response)
        if len(probes.d_f) == 0 or self.fitter is None:
            return
        # Their loss is that of the later exposure, the point the earlier one's: no
        # cotangent belongs to both. Values of both were fed as they came.
        nothing = torch.full_like(probes.d_f, math.nan)
        self._tell("secant", exposure, probes, nothing)
        self.fitter.observe_probes(
            probes.base, probes.d_alpha[:, None], probes.d_f[:, None]
        )

    def _learn(self, exposure: Exposure, fitted: Tensor) -> None:
        self._feed(rows(exposure.response, fitted))
        if self.fitter is not None and exposure.cotangent is not None:
            self.fitter.observe_cotangents(exposure.cotangent[fitted])
        if exposure.probes is not None:
            # The estimator took them and is done: from now on fits may see them.
            probes, cotangent = exposure.probes
            self.shots += len(probes.shot_plus)
            self._tell("control-variate", exposure, probes, cotangent)
            self._feed_probes(_of(probes, fitted, len(exposure.response.shot)))

    def _hold_out(self, exposure: Exposure, index: Tensor) -> None:
        cotangent, gradient = exposure.cotangent, exposure.judged
        gradient = exposure.gradient if gradient is None else gradient
        if len(index) == 0 or cotangent is None or gradient is None:
            return
        # Both exposures are fresh: the loss behind a batch depends on its noise, so
        # that the cotangent would know half of a probe that began at the batch.
        size = Size(self.held_out_rad, self.generator)
        point = exposure.response.shown[index]
        probes = central(self.device, point, size, exposure)
        self.shots += 2 * len(index)
        self._tell("held-out", exposure, probes, cotangent[index])
        if self.noise is not None:
            self.cosine.add(
                probes,
                gradient=gradient[index],
                cotangent=cotangent[index],
                noise=self.noise,
            )

    def _choose_sizes(self, exposure: Exposure) -> None:
        """Measure noise and curvature at the sizes there are, and step to the best.

        Held-out probes and those of estimators are isotropic: one survey, at the
        geometric mean of their sizes, serves both. Paired ones keep to directions,
        where they have any: curvature along a few is less than along all, and they
        are surveyed by themselves.
        """
        batch = len(exposure.response.shot)
        order = torch.randperm(batch, generator=self.generator)
        base = rows(exposure.response, order[: self.probing.size_samples])
        trial = math.sqrt(self.estimator_rad * self.held_out_rad)
        found = survey(self.device, base, Size(trial, self.generator), exposure)
        self.shots += SURVEY_SHOTS * len(base.shot)
        self.estimator_rad = toward(self.estimator_rad, found.paired_rad)
        self.held_out_rad = toward(self.held_out_rad, found.central_rad)
        alone = self.probing.surveys == 1
        kind = "paired" if alone else "of an estimator"
        self.listener.stage(
            f"step {exposure.step}: probes of {self.estimator_rad:.3g} rad ({kind}) "
            f"and {self.held_out_rad:.3g} rad (held out), least error at "
            f"{found.paired_rad:.3g} and {found.central_rad:.3g} rad; at "
            f"{found.rms_rad:.3g} rad noise gives {2 * found.noise:.3g}, curvature "
            f"{found.second:.3g} ({kind}) and {found.third:.3g} (held out)"
        )
        if alone:
            self.paired_rad = self.estimator_rad
        else:
            self._choose_directed(base, exposure)

    def _choose_directed(self, base: Response, exposure: Exposure) -> None:
        size = Size(self.paired_rad, self.generator, self.directions)
        found = survey(self.device, base, size, exposure)
        self.shots += SURVEY_SHOTS * len(base.shot)
        self.paired_rad = toward(self.paired_rad, found.paired_rad)
        self.listener.stage(
            f"step {exposure.step}: paired probes of {self.paired_rad:.3g} rad along "
            f"{self.probing.directions}, least error at {found.paired_rad:.3g} rad; at "
            f"{found.rms_rad:.3g} rad noise gives {2 * found.noise:.3g}, curvature "
            f"{found.second:.3g}"
        )

    def _pair(self, exposure: Exposure, index: Tensor) -> None:
        if len(index) == 0:
            return
        size = Size(self.paired_rad, self.generator, self.directions)
        base = rows(exposure.response, index)
        probes = paired(self.device, base, size, exposure)
        self.shots += len(index)
        if exposure.cotangent is None:
            cotangent = torch.full_like(base.y, math.nan)
        else:
            cotangent = exposure.cotangent[index]
        self._tell("paired", exposure, probes, cotangent)
        self._feed_probes(probes)

    def _tell(
        self, kind: ProbeKind, exposure: Exposure, probes: Probes, cotangent: Tensor
    ) -> None:
        self.listener.probes(
            ProbeRows(
                kind=kind,
                step=exposure.step,
                layer=exposure.layer,
                shot_base=probes.shot_base,
                shot_plus=probes.shot_plus,
                d_f=probes.d_f,
                cotangent=cotangent,
            )
        )

    def _feed(self, response: Response) -> None:
        if self.fitter is not None and len(response.y) > 0:
            self.fitter.observe_values(response.shown, response.y)

    def _feed_probes(self, probes: Probes) -> None:
        if self.fitter is None or len(probes.d_f) == 0:
            return
        self._feed(probes.plus)
        # Every base has one probe: groups of one.
        self.fitter.observe_probes(
            probes.base, probes.d_alpha[:, None], probes.d_f[:, None]
        )

    def forget(self, keep: int) -> None:
        """Forget all but the newest shots: the device has become another one.

        Held-out probes of before judge nothing any more.

        Parameters
        ----------
        keep
            Shots that a fit still learns from.
        """
        if self.fitter is not None:
            self.fitter.forget(keep)
        if self.secants is not None:
            self.secants.forget()
        self.cosine.forget()

    def fit(self, count: int) -> float:
        """Take fit steps: with a sign of life each, or in the dark where they are slow.

        Parameters
        ----------
        count
            How many.

        Returns
        -------
        loss
            Mean fit loss; NaN without a fit.
        """
        if self.fitter is None or count == 0:
            return math.nan
        with torch.enable_grad():
            if self.fitter.surrogate.slow:
                with self.listener.digital():
                    return self.fitter.step(count)
            total, left = 0.0, count
            while left > 0:
                some = min(left, FITS_AT_ONCE)
                total += some * self.fitter.step(some, self.listener.beat)
                left -= some
        return total / count

    def first_fit(self, batches: int) -> float:
        """Fit for the first time, to what was gathered before training.

        Parameters
        ----------
        batches
            Device batches that it was.

        Returns
        -------
        loss
            Mean fit loss; NaN without a fit.
        """
        if self.fitter is None:
            return math.nan
        settings = self.fitter.settings
        count = settings.first_fits
        if count is None:
            count = batches * settings.fits_per_step
        if settings.schedule == "constant" and settings.starts == 1:
            return self.fit(count)
        with torch.enable_grad():
            return self.fitter.first(
                count, noise=self.noise, phase=self.listener.digital
            )

    def told_fit(self) -> str:
        """Say how much of the shots that were kept from fits is not explained.

        Returns
        -------
        text
            Empty where no shot is kept, or nothing is fitted.
        """
        share = math.nan if self.fitter is None else self.fitter.unexplained(self.noise)
        if math.isnan(share):
            return ""
        beside = "" if self.noise is None else ", beside its noise"
        # An estimate of nothing falls below it as well.
        left = f"{100 * share:.1f} %" if share > 0 else "nothing"
        text = f"kept shots: {left} of the variance unexplained{beside}"
        if share < GOOD or self.noise is None:
            return text
        return (
            f"{text}, expected less than {100 * GOOD:g} %: this surrogate does not "
            "hold this bench yet. More warm_up, first_fits or starts may help; where "
            "bins reach far out, points: 4 of twin-optics; where its kind of light is "
            "another, take twin-pairs or twin-modes."
        )

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint must hold."""
        return {
            "fitter": None if self.fitter is None else self.fitter.state_dict(),
            "cosine": self.cosine.state_dict(),
            "noise": self.noise,
            "generator": self.generator.get_state(),
            "shots": self.shots,
            "sizes_rad": [self.paired_rad, self.held_out_rad, self.estimator_rad],
            "secants": None if self.secants is None else self.secants.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state.

        Parameters
        ----------
        state
            What :meth:`state_dict` returned.

        Raises
        ------
        ValueError
            The state has a surrogate and this course has none, or the reverse.
        """
        if (self.fitter is None) != (state["fitter"] is None):
            text = (
                "trainer: the state and the protocol disagree about a surrogate. "
                "Resume with the protocol of the record."
            )
            raise ValueError(text)
        if self.fitter is not None:
            self.fitter.load_state_dict(state["fitter"])
        self.cosine.load_state_dict(state["cosine"])
        self.noise = state["noise"]
        self.generator.set_state(state["generator"])
        self.shots = int(state["shots"])
        self.paired_rad, self.held_out_rad, self.estimator_rad = map(
            float, state["sizes_rad"]
        )
        if self.secants is not None:
            self.secants.load_state_dict(state["secants"])


def _of(probes: Probes, samples: Tensor, batch: int) -> Probes:
    """Return the probes of some samples; every sample has the same number."""
    many = len(probes.d_f) // batch
    index = (samples[:, None] * many + torch.arange(many)).reshape(-1)
    return Probes(
        base=probes.base[index],
        d_alpha=probes.d_alpha[index],
        d_f=probes.d_f[index],
        shot_base=probes.shot_base[index],
        shot_plus=probes.shot_plus[index],
        plus=rows(probes.plus, index),
    )
