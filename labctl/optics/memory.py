"""Media that remember: an index that light writes, and that follows it slowly."""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from labctl.optics.lens import intensity
from labctl.optics.propagation import Plan, turn


def through(
    field: Complex[Tensor, "field row column"],
    plan: Plan,
    written_rad: Float[Tensor, "node row column"],
) -> tuple[Complex[Tensor, "field row column"], Float[Tensor, "node row column"]]:
    """Carry fields through a medium in which light has left an index.

    Parameters
    ----------
    field
        Fields at the entrance, at most one chunk.
    plan
        The medium without its memory.
    written_rad
        Phase that the memory adds at each kick, in rad.

    Returns
    -------
    field
        Fields at the exit face.
    exposed
        Response at each kick to the mean light of all fields: the intensity,
        saturated as the medium's nonlinear phase is.
    """
    exposed = []
    for node, (kick, phase) in enumerate(zip(plan.kicks, written_rad, strict=True)):
        if node > 0:
            spectrum = torch.fft.fft2(field) * plan.transfer
            field = torch.fft.ifft2(spectrum, norm="forward")
        light = intensity(field)
        if math.isfinite(kick.saturation):
            light = light / (1 + light / kick.saturation)
        exposed.append(light.mean(dim=0))
        field = kick(field) * turn(phase, math.inf)
    return field, torch.stack(exposed)


def relaxed(
    written: Float[Tensor, "node row column"],
    exposed: Float[Tensor, "node row column"],
    times: float,
) -> Float[Tensor, "node row column"]:
    """Let what is written follow what it is exposed to.

    Parameters
    ----------
    written
        Before.
    exposed
        What it would become.
    times
        Duration of the exposure, in time constants of the medium.

    Returns
    -------
    written
        After.
    """
    return exposed + (written - exposed) * math.exp(-times)
