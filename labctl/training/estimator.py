"""What the backward pass hands to the optimiser, and how good it is."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Final, NamedTuple, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from labctl.training.blackbox import Device, Exposure, Probes
from labctl.training.probe import Size, noise_of_target, paired, rows

GradientSource = Callable[[Tensor, Tensor], Tensor]
State = dict[str, Any]
_OWN = 3
SURE: Final = 2.0
"""Standard errors above zero at which a cosine is told from it."""
SEEN: Final = 0.25
"""A cosine that would have been told from zero, where a smaller one counts as none."""


@runtime_checkable
class Answering(Protocol):
    """Something that answers for a vector-Jacobian product: a surrogate."""

    @abstractmethod
    def vjp(
        self,
        cotangent: Float[Tensor, "batch output"],
        phase: Float[Tensor, "batch pixel"],
    ) -> Float[Tensor, "batch pixel"]:
        """Return the gradient with respect to the phase.

        Parameters
        ----------
        cotangent
            Gradient with respect to the outputs.
        phase
            Operating points, in rad.
        """


class Estimator(ABC):
    """A gradient with respect to the phase, for one with respect to the outputs."""

    relies: ClassVar[bool] = True
    """Whether theta follows what held-out probes judge, however bad it is."""

    @abstractmethod
    def __call__(
        self, exposure: Exposure, cotangent: Float[Tensor, "batch output"]
    ) -> Float[Tensor, "batch pixel"]:
        """Estimate the gradient.

        Parameters
        ----------
        exposure
            What was shown, and what the device answered.
        cotangent
            Gradient with respect to the outputs.
        """

    def hear(self, cosine: "Cosine") -> str:
        """Hear what held-out probes say, once a step.

        Parameters
        ----------
        cosine
            Between what was handed out and the true gradient.

        Returns
        -------
        said
            What changes because of it, for a person; empty where nothing does.
        """
        del cosine
        return ""

    def resize(self, rms_rad: float) -> None:
        """Take probes of another size from now on, where this takes any.

        Parameters
        ----------
        rms_rad
            Rms of their perturbations.
        """
        del rms_rad

    def expect(self, noise: Float[Tensor, " output"]) -> None:
        """Take the outputs to have another noise from now on.

        Parameters
        ----------
        noise
            Variance of each output from exposure to exposure.
        """
        del noise

    @abstractmethod
    def renew(self) -> str:
        """Forget how good the surrogate was: the device has become another one.

        Returns
        -------
        said
            What changes because of it, for a person; empty where nothing does.
        """

    @abstractmethod
    def state_dict(self) -> State:
        """All that a checkpoint must hold."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Take up a state.

        Parameters
        ----------
        state
            What :meth:`state_dict` returned.
        """


class Stateless(Estimator):
    """An estimator that remembers nothing of its own."""

    @override
    def renew(self) -> str:
        return ""

    @override
    def state_dict(self) -> State:
        return {}

    @override
    def load_state_dict(self, state: State) -> None:
        pass


@final
class Trust(Stateless):
    """Take the surrogate at its word.

    Parameters
    ----------
    surrogate
        Answers at the phase that was really shown.
    """

    def __init__(self, surrogate: Answering) -> None:
        self.surrogate = surrogate

    @override
    def __call__(
        self, exposure: Exposure, cotangent: Float[Tensor, "batch output"]
    ) -> Float[Tensor, "batch pixel"]:
        return self.surrogate.vjp(cotangent, exposure.response.shown)


@final
class Given(Stateless):
    """Take a gradient that is given: the true one, where it is known.

    Parameters
    ----------
    source
        Gradient for (phase shown, gradient with respect to the outputs).
    """

    def __init__(self, source: GradientSource) -> None:
        self.source = source

    @override
    def __call__(
        self, exposure: Exposure, cotangent: Float[Tensor, "batch output"]
    ) -> Float[Tensor, "batch pixel"]:
        return self.source(exposure.response.shown, cotangent)


@dataclass(frozen=True)
class Correction:
    """How a control variate corrects.

    Parameters
    ----------
    probes
        Fresh probes of every sample.
    rms_rad
        Rms of their perturbations, until :meth:`ControlVariate.resize`.
    gain
        Weight of the correction; None computes the best one.
    memory
        Part of the old estimate of the surrogate's error that each batch keeps.
    """

    probes: int = 1
    rms_rad: float = 0.3
    gain: float | None = None
    memory: float = 0.9


@final
class ControlVariate(Estimator):
    """The surrogate, corrected by fresh probes of every sample.

    ``g + c mean_k (grad_y . d_f_k - g . d_alpha_k) d_alpha_k / h^2``: unbiased at
    c = 1 up to the curvature of the device, since no probe was seen by a fit of g
    before. For normal perturbations the mean square error is least at
    ``c = 1 / (1 + (n + 1) / K + n s^2 / (K h^2 e^2))`` with n macropixels, K probes,
    noise s^2 of ``grad_y . d_f`` and the surrogate's squared error e^2. The mean
    square residual is ``h^2 e^2 + s^2``, so e^2 is measured: relative to
    ``|grad_y|^2``, pooled over the batch and over past ones, since one sample has
    too few probes to tell.

    Parameters
    ----------
    surrogate
        What is corrected.
    device
        Takes the probes, booked as such.
    correction
        How many probes, and how much weight.
    noise
        Variance of each output from exposure to exposure.
    generator
        Where the perturbations come from.
    """

    def __init__(
        self,
        surrogate: Answering,
        device: Device,
        correction: Correction,
        *,
        noise: Float[Tensor, " output"],
        generator: torch.Generator,
    ) -> None:
        self.surrogate = surrogate
        self.device = device
        self.correction = correction
        self.noise = noise
        self.generator = generator
        self.rms_rad = correction.rms_rad
        self._excess, self._weight = 0.0, 0.0

    @override
    def __call__(
        self, exposure: Exposure, cotangent: Float[Tensor, "batch output"]
    ) -> Float[Tensor, "batch pixel"]:
        many = self.correction.probes
        guess = self.surrogate.vjp(cotangent, exposure.response.shown)
        index = torch.arange(len(cotangent)).repeat_interleave(many)
        size = Size(self.rms_rad, self.generator)
        probes = paired(self.device, rows(exposure.response, index), size, exposure)
        exposure.probes = (probes, cotangent[index])
        residual = (cotangent[index] * probes.d_f).sum(dim=1)
        residual = residual - (guess[index] * probes.d_alpha).sum(dim=1)
        # The panel rounds, so the variance is measured, not the one asked for.
        variance = probes.d_alpha.square().mean()
        step = residual[:, None] * probes.d_alpha / variance
        step = step.reshape(len(cotangent), many, -1).mean(dim=1)
        gain = self._gain(cotangent, residual, variance)
        return guess + gain[:, None] * step

    def _gain(self, cotangent: Tensor, residual: Tensor, variance: Tensor) -> Tensor:
        given = self.correction.gain
        strength = cotangent.square().sum(dim=1)
        if given is not None:
            return torch.full_like(strength, given)
        many = self.correction.probes
        noise = noise_of_target(cotangent, self.noise.to(cotangent))
        keep = self.correction.memory
        excess = (residual.square().sum() - many * noise.sum()) / variance
        self._excess = keep * self._excess + float(excess)
        self._weight = keep * self._weight + float(many * strength.sum())
        if self._excess <= 0 or self._weight <= 0:
            # Nothing but noise is left to correct.
            return torch.zeros_like(strength)
        error = self._excess / self._weight * strength
        pixels = self.device.pixels
        spread = (pixels + 1) / many + pixels * noise / (many * variance * error)
        return torch.where(error > 0, 1 / (1 + spread), 0.0)

    @override
    def resize(self, rms_rad: float) -> None:
        self.rms_rad = rms_rad

    @override
    def expect(self, noise: Float[Tensor, " output"]) -> None:
        self.noise = noise

    @override
    def renew(self) -> str:
        self._excess, self._weight = 0.0, 0.0
        return ""

    @override
    def state_dict(self) -> State:
        return {
            "rms_rad": self.rms_rad,
            "excess": self._excess,
            "weight": self._weight,
            "generator": self.generator.get_state(),
        }

    @override
    def load_state_dict(self, state: State) -> None:
        self.rms_rad = float(state["rms_rad"])
        self._excess = float(state["excess"])
        self._weight = float(state["weight"])
        self.generator.set_state(state["generator"])


class Way(Enum):
    """What a gate hands to the optimiser, in a few words."""

    TRUST = "the surrogate alone"
    CORRECT = "the surrogate, corrected by fresh probes"
    FREE = "fresh probes alone"


@dataclass(frozen=True)
class Ways:
    """Where a gate may lead.

    Parameters
    ----------
    trust, correct, free
        The estimator of each way.
    sure
        The surrogate is trusted alone where its cosine is at least this, and one
        standard error more.
    hopeless
        It is left out where its cosine, with one standard error, is below this:
        what the probes reach without it.
    """

    trust: Estimator
    correct: Estimator
    free: Estimator
    sure: float
    hopeless: float


@final
class Gate(Estimator):
    """As much of the surrogate as held-out probes vouch for.

    It begins with the correction, which is never far from the better of the other
    two. The cosine that decides is that of the surrogate: while the surrogate is
    left out, its own answers are still what held-out probes judge.

    Parameters
    ----------
    ways
        Where it may lead.
    """

    relies: ClassVar[bool] = False

    def __init__(self, ways: Ways) -> None:
        self.ways = ways
        self.way = Way.CORRECT

    @override
    def __call__(
        self, exposure: Exposure, cotangent: Float[Tensor, "batch output"]
    ) -> Float[Tensor, "batch pixel"]:
        if self.way is Way.TRUST:
            return self.ways.trust(exposure, cotangent)
        chosen = self.ways.correct if self.way is Way.CORRECT else self.ways.free
        # What is judged: a correction must not hide how good the surrogate is.
        exposure.judged = self.ways.trust(exposure, cotangent)
        return chosen(exposure, cotangent)

    @override
    def hear(self, cosine: "Cosine") -> str:
        before = self.way
        if not math.isnan(cosine.value):
            self.way = Way.CORRECT
            if cosine.value - cosine.error >= self.ways.sure:
                self.way = Way.TRUST
            elif cosine.value + cosine.error < self.ways.hopeless:
                self.way = Way.FREE
        if self.way is before:
            return ""
        told = f"{cosine.value:.2f} ± {cosine.error:.2f}"
        return f"held-out cosine {told}: from now on {self.way.value}"

    @override
    def resize(self, rms_rad: float) -> None:
        for way in self._all:
            way.resize(rms_rad)

    @override
    def expect(self, noise: Float[Tensor, " output"]) -> None:
        for way in self._all:
            way.expect(noise)

    @override
    def renew(self) -> str:
        before, self.way = self.way, Way.CORRECT
        for way in self._all:
            way.renew()
        if self.way is before:
            return ""
        return f"no held-out cosine after a new fit yet: from now on {self.way.value}"

    @property
    def _all(self) -> tuple[Estimator, ...]:
        return self.ways.trust, self.ways.correct, self.ways.free

    @override
    def state_dict(self) -> State:
        return {"way": self.way.name, "ways": [way.state_dict() for way in self._all]}

    @override
    def load_state_dict(self, state: State) -> None:
        self.way = Way[state["way"]]
        for way, kept in zip(self._all, state["ways"], strict=True):
            way.load_state_dict(kept)


class Cosine(NamedTuple):
    """Cosine between the gradient that was used and the true one.

    Parameters
    ----------
    value
        NaN where noise hides it, or where there are too few probes. Chance can
        take it beyond 1, within its error; it is not cut.
    error
        Standard error: of the probes, and of the noise that is taken off.
    probes
        Probes that it rests on.
    """

    value: float
    error: float
    probes: int

    @property
    def is_zero(self) -> bool:
        """Whether one of :data:`SEEN` would have shown, and nothing above zero does."""
        bound = SURE * self.error
        return bound <= SEEN and self.value <= bound

    @property
    def is_told(self) -> bool:
        """Whether it is told from zero."""
        return self.value > SURE * self.error

    @override
    def __str__(self) -> str:
        """Say it to a person."""
        doubt = "" if math.isnan(self.error) else f" ± {self.error:.2f}"
        return f"{self.value:.2f}{doubt}"


class HeldOutCosine:
    """The cosine that held-out probes measure, over a moving window.

    For isotropic perturbations ``<s t> / sqrt(<s^2> (<t^2> - noise))`` with
    ``s = g . d_alpha`` and ``t = grad_y . d_f`` is the cosine between g and the
    true gradient; without the noise term a noisy device makes every g look bad.
    Gradients count by direction: every probe is divided by ``|grad_y|``. The error
    is the jackknife's, so it needs no random numbers, and beside it that of the
    noise: a variance measured by R repeats is uncertain by a share of
    ``sqrt(2 / R)``, for every output on its own.

    The noise of a probe must not depend on its cotangent. That of the batch does,
    through the loss, so a probe that began at the batch reads wrong: take
    :func:`labctl.training.probe.central` ones.

    Parameters
    ----------
    window
        Probes that count.
    least
        Fewer than these give NaN.
    repeats
        Patterns that the noise was measured on; 0 where it is known.
    """

    def __init__(self, window: int = 100, least: int = 20, repeats: int = 0) -> None:
        self.window = window
        self.least = least
        self.repeats = repeats
        # <s t>, <s^2>, <t^2>, and what each output's noise has of the last.
        self._moments = torch.zeros(0, _OWN, dtype=torch.float64)
        # Of all probes ever: how many, their sum, and the products of the first
        # three, the noise taken off the third.
        self._count = 0
        self._sum = torch.zeros(0, dtype=torch.float64)
        self._products = torch.zeros(_OWN, _OWN, dtype=torch.float64)

    def add(
        self,
        probes: Probes,
        *,
        gradient: Float[Tensor, "probe pixel"],
        cotangent: Float[Tensor, "probe output"],
        noise: Float[Tensor, " output"],
    ) -> None:
        """Take in probes that no fit has seen.

        Parameters
        ----------
        probes
            Perturbations and responses.
        gradient
            What was handed out at their bases.
        cotangent
            Gradient with respect to the outputs there.
        noise
            Variance of each output from exposure to exposure.
        """
        double = torch.float64
        size = cotangent.to(double).norm(dim=1)
        some = size > 0
        unit = cotangent.to(double)[some] / size[some, None]
        handed = gradient.to(double)[some] / size[some, None]
        s = (handed * probes.d_alpha.to(double)[some]).sum(dim=1)
        t = (unit * probes.d_f.to(double)[some]).sum(dim=1)
        part = 2 * unit.square() * noise.to(unit)
        new = torch.cat((torch.stack((s * t, s**2, t**2), dim=1), part), dim=1).cpu()
        if len(self._sum) == 0:
            self._moments, self._sum = new[:0], torch.zeros_like(new.sum(dim=0))
        self._count += len(new)
        self._sum += new.sum(dim=0)
        each = _clean(new)
        self._products += each.T @ each
        self._moments = torch.cat((self._moments, new))[-self.window :]

    def read(self) -> Cosine:
        """Return the cosine of the window, with its error."""
        count = len(self._moments)
        if count < self.least:
            return Cosine(math.nan, math.nan, count)
        total = self._moments.sum(dim=0)
        value = _cosine(total[None])[0]
        without = _cosine(total - self._moments)
        spread = (without - without.mean()).square().sum()
        square = spread * (count - 1) / count + self._doubt(value, total)
        return Cosine(float(value), float(torch.sqrt(square)), count)

    def whole(self) -> Cosine:
        """Return the cosine of all probes of the course, with its error.

        The error is that of the linearised ratio, which needs no single probe kept.
        Where all that was handed out is nothing, the cosine is zero without doubt.
        """
        count, total = self._count, self._sum
        if count < self.least:
            return Cosine(math.nan, math.nan, count)
        if not bool(total[1]):
            return Cosine(0.0, 0.0, count)
        value = _cosine(total[None])[0]
        # What the value gains with each of the three sums; their own part is nil.
        root = torch.sqrt(total[1] * _clean(total[None])[0, 2])
        slope = torch.stack(
            (
                1 / root,
                -value / 2 / total[1],
                -value / 2 / _clean(total[None])[0, 2],
            )
        )
        square = slope @ self._products @ slope * count / (count - 1)
        square = square + self._doubt(value, total)
        return Cosine(float(value), float(torch.sqrt(square)), count)

    def forget(self) -> None:
        """Empty the window: the device, or what answers for it, is another one.

        What :meth:`whole` says of the course stays.
        """
        self._moments = self._moments[:0]

    def _doubt(self, value: Tensor, total: Tensor) -> Tensor:
        """Variance that a cosine has from the noise that is taken off."""
        if not self.repeats:
            return torch.zeros_like(value)
        power = _clean(total[None])[0, 2]
        share = total[_OWN:].square().sum() * 2 / self.repeats / power.square()
        return (value / 2) ** 2 * share

    def state_dict(self) -> State:
        """All that a checkpoint must hold."""
        return {
            "moments": self._moments.clone(),
            "count": self._count,
            "sum": self._sum.clone(),
            "products": self._products.clone(),
        }

    def load_state_dict(self, state: State) -> None:
        """Take up a state.

        Parameters
        ----------
        state
            What :meth:`state_dict` returned.
        """
        self._moments = state["moments"].clone()
        self._count = int(state["count"])
        self._sum, self._products = state["sum"].clone(), state["products"].clone()


def _clean(
    moments: Float[Tensor, "row moment"],
) -> Float[Tensor, "row 3"]:
    """Take the noise off the third moment."""
    power = moments[:, 2] - moments[:, _OWN:].sum(dim=1)
    return torch.stack((moments[:, 0], moments[:, 1], power), dim=1)


def _cosine(moments: Float[Tensor, "row moment"]) -> Float[Tensor, " row"]:
    """NaN, by the square root, where the noise exceeds what was measured."""
    product, handed, power = _clean(moments).unbind(dim=1)
    return product / torch.sqrt(handed * power)
