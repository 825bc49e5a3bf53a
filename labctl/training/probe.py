"""Perturbations of the phase, and what the device answers to them.

The perturbation of a probe is always the difference of the phases that the panel
really showed, never the one that was asked for.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labctl.training.blackbox import Device, Exposure, Probes, Response

CATEGORY = "probe"


def wrap(difference: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Take a difference of phases into (-pi, pi] rad.

    Parameters
    ----------
    difference
        Any difference, in rad.
    """
    return torch.pi - torch.remainder(torch.pi - difference, 2 * torch.pi)


def rows(response: Response, index: Int[Tensor, " row"]) -> Response:
    """Return some rows of a response.

    Parameters
    ----------
    response
        What the device answered.
    index
        Which rows.
    """
    return Response(
        response.y[index], response.shown[index], response.shot[index.cpu()]
    )


@dataclass(frozen=True)
class Size:
    """How large perturbations are, and where they come from.

    Parameters
    ----------
    rms_rad
        Rms of each macropixel's perturbation.
    generator
        Where the numbers come from.
    """

    rms_rad: float
    generator: torch.Generator

    def draw(self, phase: Float[Tensor, "probe pixel"]) -> Float[Tensor, "probe pixel"]:
        """Draw normal perturbations, one row for each row of a phase.

        Parameters
        ----------
        phase
            Gives shape and dtype.
        """
        noise = torch.randn(phase.shape, generator=self.generator, dtype=phase.dtype)
        return self.rms_rad * noise.to(phase.device)


def paired(device: Device, base: Response, size: Size, made: Exposure) -> Probes:
    """Expose every row of a response once more, each with a perturbation.

    Parameters
    ----------
    device
        The device; it books the exposures as probes.
    base
        Exposures that are there already.
    size
        How large the perturbations are.
    made
        The exposure that the base belongs to: says layer and step.

    Returns
    -------
    probes
        One probe a row.
    """
    asked = base.shown + size.draw(base.shown)
    plus = device(asked, category=CATEGORY, layer=made.layer, step=made.step)
    plus = Response(plus.y.to(base.y), plus.shown.to(base.shown), plus.shot)
    return _probes(base, base.shown, plus)


def central(
    device: Device, phase: Float[Tensor, "probe pixel"], size: Size, made: Exposure
) -> Probes:
    """Expose phases with a perturbation and with its opposite.

    The difference has no error of second order in the perturbation, and costs two
    exposures a probe.

    Parameters
    ----------
    device
        The device; it books the exposures as probes.
    phase
        Operating points, in rad.
    size
        How large each half of the perturbations is.
    made
        An exposure of the layer and step that the probes belong to.

    Returns
    -------
    probes
        One probe a row; ``base`` is the operating point, ``shot_base`` the
        exposure with the opposite perturbation.
    """
    half = size.draw(phase)
    asked = torch.cat((phase - half, phase + half))
    both = device(asked, category=CATEGORY, layer=made.layer, step=made.step)
    both = Response(both.y.to(phase), both.shown.to(phase), both.shot)
    index = torch.arange(len(phase))
    minus, plus = rows(both, index), rows(both, index + len(phase))
    return _probes(minus, phase, plus)


def _probes(minus: Response, base: Tensor, plus: Response) -> Probes:
    return Probes(
        base=base,
        d_alpha=wrap(plus.shown - minus.shown),
        d_f=plus.y - minus.y,
        shot_base=minus.shot,
        shot_plus=plus.shot,
        plus=plus,
    )


@dataclass(frozen=True)
class Dither:
    """The random phase that every training exposure carries, over the course.

    Parameters
    ----------
    first_rad, last_rad
        Rms at the first and at the last step; straight in between.
    steps
        Steps of the course.
    """

    first_rad: float
    last_rad: float
    steps: int

    def rms_rad(self, step: int | float) -> float:
        """Return the rms at a step.

        Parameters
        ----------
        step
            Counted from 0.
        """
        share = min(step / (self.steps - 1), 1.0) if self.steps > 1 else 0.0
        return self.first_rad + share * (self.last_rad - self.first_rad)


@dataclass(frozen=True)
class Shares:
    """Which samples of a batch are probed, and which may be learned from.

    Parameters
    ----------
    held_out
        Bases of held-out probes: kept from every fit.
    paired
        Bases of probes that are fitted.
    fitted
        Samples that are fitted: all but the held-out ones.
    """

    held_out: Int[Tensor, " held"]
    paired: Int[Tensor, " paired"]
    fitted: Int[Tensor, " fitted"]


def share_out(
    batch: int, *, held_out: int, paired: int, generator: torch.Generator
) -> Shares:
    """Draw the samples that are probed, no sample twice.

    Parameters
    ----------
    batch
        Samples in the batch.
    held_out, paired
        How many of each.
    generator
        Where the numbers come from.

    Raises
    ------
    ValueError
        More probes than samples.
    """
    if held_out + paired > batch:
        text = (
            f"probes: held_out={held_out} and paired={paired}, expected at most "
            f"{batch} together (training.batch). Lower them, or raise the batch."
        )
        raise ValueError(text)
    order = torch.randperm(batch, generator=generator)
    return Shares(
        held_out=order[:held_out],
        paired=order[held_out : held_out + paired],
        fitted=order[held_out:].sort().values,
    )


def noise_variance(
    first: Float[Tensor, "repeat output"], second: Float[Tensor, "repeat output"]
) -> Float[Tensor, " output"]:
    """Variance of each output between exposures of one pattern.

    Parameters
    ----------
    first, second
        Two exposures of every pattern.

    Returns
    -------
    variance
        Noise of a single exposure, averaged over the patterns.

    Raises
    ------
    ValueError
        There is no pattern.
    """
    if len(first) == 0:
        text = "probes: noise_repeats=0, expected at least 1 to measure the noise."
        raise ValueError(text)
    return (first - second).square().mean(dim=0) / 2


def noise_of_target(
    cotangent: Float[Tensor, "probe output"], variance: Float[Tensor, " output"]
) -> Float[Tensor, " probe"]:
    """Variance that noise gives to ``grad_y . d_f`` of a probe.

    Parameters
    ----------
    cotangent
        Gradients with respect to the outputs.
    variance
        Noise of a single exposure; a probe is the difference of two.
    """
    return 2 * cotangent.square() @ variance
