"""Drift: reference patterns that are shown again and again, and what follows from them.

What changed between two looks at the same patterns, beyond the noise, is drift. Part
of it may be common to all patterns (the laser's power, an offset of the camera): a
gain and an offset of every output take it out, at once and without forgetting
anything. The rest (phases, disorder) is a device that has become another one: the
surrogate has to learn it anew, from fresh exposures.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from labctl.training.blackbox import Device, Response, ask

CATEGORY = "drift-check"
_FURTHEST = 10.0
"""Factor up to which brightness may drift; beyond it, light is missing or a fault."""
LOOKS = 2
"""Exposures of every reference pattern at the start."""


class Remedy(Enum):
    """What a look at the reference patterns leads to, in a few words."""

    NONE = "within bounds"
    RECENTRE = "common to all patterns: gain and offset of the outputs are corrected"
    REFIT = "the surrogate is fitted again"
    STOP = "too much"


@dataclass(frozen=True)
class Watching:
    """How closely a device is watched, and what is done when it drifts.

    Shares are of the variance that the outputs have over the reference patterns:
    what changed since they were first shown, noise apart.

    Parameters
    ----------
    every
        Steps between two looks; 0 for none.
    patterns
        Reference patterns: random phases over the whole circle.
    recentre_above
        Share from which on what is common to all patterns is taken out, if that is
        at least half of it; None for never.
    refit_above
        Share, beside what was taken out, from which on the surrogate is fitted
        again; None for never.
    stop_above
        Share from which on the course ends; None for never.
    refit_shots
        Fresh exposures that a new fit begins with.
    refit_steps
        Fit steps of it.
    refit_keep
        Newest exposures of before that it still learns from.
    """

    every: int = 0
    patterns: int = 16
    recentre_above: float | None = 0.05
    refit_above: float | None = 0.05
    stop_above: float | None = None
    refit_shots: int = 256
    refit_steps: int = 200
    refit_keep: int = 512

    def shots(self, steps: int) -> int:
        """Return the exposures of the looks at the patterns.

        Parameters
        ----------
        steps
            Optimiser steps of the course.
        """
        return self.patterns * (LOOKS + steps // self.every) if self.every else 0


@final
class Steady(Device):
    """A device whose outputs are corrected by a gain and an offset each.

    Parameters
    ----------
    device
        The device.
    dark
        Variance of each output without light, which does not follow the light; None
        for none.
    """

    def __init__(
        self, device: Device, dark: Float[Tensor, " output"] | None = None
    ) -> None:
        self._device = device
        self._dark = torch.zeros(device.outputs) if dark is None else dark
        self.gain = torch.ones(device.outputs, dtype=torch.float64)
        self.offset = torch.zeros(device.outputs, dtype=torch.float64)

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
        self,
        phase: Float[Tensor, "batch pixel"],
        *,
        category: str,
        layer: int,
        step: int,
    ) -> Response:
        """Expose, and take the common drift out."""
        found = self._device(phase, category=category, layer=layer, step=step)
        if bool((self.gain == 1).all()) and not bool(self.offset.any()):
            return found  # To the bit what the record has.
        offset, gain = self.offset.to(found.y), self.gain.to(found.y)
        return found._replace(y=(found.y - offset) / gain)

    def noise(
        self,
        noise: Float[Tensor, " output"],
        before: Float[Tensor, " output"],
        after: Float[Tensor, " output"],
    ) -> Float[Tensor, " output"]:
        """Return the noise of outputs divided by another gain, as the light asks for.

        Light that became fainter by a gain has so much less variance, and what is
        divided by the gain has its square less: by ``1 / gain`` more in all. What there
        is without light stays as it is, and grows by ``1 / gain ** 2``. Noise of the
        light's power, which shrinks with its square and would not change, counts as
        that of light.

        Parameters
        ----------
        noise
            Variance of each output while it is divided by ``before``.
        before, after
            Gains, above 0.
        """
        ratio = (after / before).to(noise)
        dark = torch.minimum((self._dark / before.square()).to(noise), noise)
        return (noise - dark) / ratio + dark / ratio.square()


class Finding(NamedTuple):
    """What a look at the reference patterns found.

    Parameters
    ----------
    share
        Drift of the outputs as they come, as a share of their variance.
    left
        The same once common drift is taken out.
    remedy
        What follows.
    """

    share: float
    left: float
    remedy: Remedy

    @override
    def __str__(self) -> str:
        """Say it to a person."""
        beside = f"{100 * self.left:.1f} % not common to all patterns"
        if self.left > self.share:  # a gain of each output would do harm
            beside = "nothing of it common to all patterns"
        return (
            f"drift is {100 * self.share:.1f} % of the outputs' variance, "
            f"{beside}: {self.remedy.value}"
        )


@final
class Watch:
    """Shows the reference patterns and says what follows.

    Parameters
    ----------
    how
        How closely.
    device
        What is watched; its correction is set here.
    generator
        Draws the reference patterns.
    """

    def __init__(
        self, how: Watching, device: Steady, generator: torch.Generator
    ) -> None:
        self.how, self.device = how, device
        count = max(how.patterns, 3)
        turn = torch.rand(count, device.pixels, generator=generator)
        self._phase = 2 * torch.pi * turn
        self._first = torch.zeros(0, device.outputs, dtype=torch.float64)
        self._first_gain = device.gain.clone()
        self.shots = 0
        self.finding = Finding(0.0, 0.0, Remedy.NONE)

    def begin(self) -> None:
        """Show the patterns for the first time, or take what they are now for that."""
        looks = [self._look(-1) for _ in range(LOOKS)]
        self._first = torch.stack(looks).mean(dim=0)
        self._first_gain = self.device.gain.clone()

    def is_due(self, done: int) -> bool:
        """Whether the patterns are to be shown again.

        Parameters
        ----------
        done
            Steps done.
        """
        return self.how.every > 0 and done > 0 and done % self.how.every == 0

    def check(self, step: int, noise: Float[Tensor, " output"] | None) -> Finding:
        """Show the patterns again; take common drift out if that is the remedy.

        Parameters
        ----------
        step
            Counted from 0.
        noise
            Variance of each output from exposure to exposure, as outputs come now;
            None where it is not known, which then counts as drift.

        Returns
        -------
        finding
            How far the device has drifted, and what is to be done; shares are NaN
            where the patterns differ by nothing but noise.

        Notes
        -----
        A share is the sum over the outputs of what changed, by the sum of their
        variances, each without the part that noise has in it. Both sums are right on
        average, so the error of their ratio falls with the number of patterns times
        outputs. A mean of the ratios of single outputs has the bias of each, however
        many there are, and one output that hardly varies over few patterns decides
        it: the separate against the combined ratio estimate of [1]_.

        References
        ----------
        .. [1] W. G. Cochran, "Sampling Techniques", 3rd ed., 1977, 6.10 to 6.12.
        """
        now, first = self._look(step), self._first
        known = torch.zeros(first.shape[1]) if noise is None else noise
        noise_now = known.to(first)
        began, gain = self._first_gain, self.device.gain
        noise_first = self.device.noise(noise_now, gain, began) / LOOKS
        spread = first.var(dim=0) - noise_first
        error = (now - first).square().mean(dim=0) - noise_now - noise_first
        share = _ratio(error.sum(), spread.sum())
        # The slope of a line through noisy points is too flat by their reliability;
        # where that is below a half, the points do not say what the slope is.
        told = spread > noise_first
        centred = first - first.mean(dim=0)
        slope = (centred * now).sum(dim=0) / ((len(first) - 1) * spread)
        slope = torch.where(told, slope, 1.0)
        offset = now.mean(dim=0) - slope * first.mean(dim=0)
        rest = (now - offset - slope * first).square().sum(dim=0) / (len(first) - 2)
        rest = rest - noise_now - slope.square() * noise_first
        left = _ratio((rest / slope.square()).sum(), spread.sum())
        is_drift = bool(((slope > 1 / _FURTHEST) & (slope < _FURTHEST)).all())
        self.finding = self._judge(share, left, may_correct=is_drift)
        if self.finding.remedy is Remedy.RECENTRE:
            # `now` was corrected already: the new line comes on top of the old one.
            self.device.offset = self.device.offset + gain * offset
            self.device.gain = gain * slope
        return self.finding

    def _judge(self, share: float, left: float, *, may_correct: bool) -> Finding:
        how = self.how
        if how.stop_above is not None and share > how.stop_above:
            return Finding(share, left, Remedy.STOP)
        common = may_correct and left < share / 2
        if how.refit_above is not None:
            beside = left if common and how.recentre_above is not None else share
            if beside > how.refit_above:
                return Finding(share, left, Remedy.REFIT)
        if how.recentre_above is not None and common and share > how.recentre_above:
            return Finding(share, left, Remedy.RECENTRE)
        return Finding(share, left, Remedy.NONE)

    def _look(self, step: int) -> Float[Tensor, "pattern output"]:
        self.shots += len(self._phase)
        found = ask(self.device, self._phase, category=CATEGORY, layer=0, step=step)
        return found.y.double()

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint must hold."""
        return {
            "first": self._first.clone(),
            "first_gain": self._first_gain.clone(),
            "gain": self.device.gain.clone(),
            "offset": self.device.offset.clone(),
            "shots": self.shots,
            "finding": [
                self.finding.share,
                self.finding.left,
                self.finding.remedy.name,
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state.

        Parameters
        ----------
        state
            What :meth:`state_dict` returned.
        """
        self._first = state["first"].clone()
        self._first_gain = state["first_gain"].clone()
        self.device.gain, self.device.offset = (
            state["gain"].clone(),
            state["offset"].clone(),
        )
        self.shots = int(state["shots"])
        share, left, remedy = state["finding"]
        self.finding = Finding(float(share), float(left), Remedy[remedy])


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part / whole) if float(whole) > 0 else math.nan
