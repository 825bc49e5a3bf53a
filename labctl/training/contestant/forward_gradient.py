"""The model-free gradient: slopes along random directions, sample by sample."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from labctl.training.blackbox import Device
from labctl.training.estimator import Answering, ControlVariate, Correction


@final
class Nothing(Answering):
    """A surrogate that knows nothing: its gradient is zero."""

    @override
    def vjp(
        self,
        cotangent: Float[Tensor, "batch output"],
        phase: Float[Tensor, "batch pixel"],
    ) -> Float[Tensor, "batch pixel"]:
        """Answer zero.

        Parameters
        ----------
        cotangent, phase
            Give shape and dtype.
        """
        del cotangent
        return torch.zeros_like(phase)


def forward_gradient(
    device: Device,
    *,
    probes: int,
    rms_rad: float,
    generator: torch.Generator,
) -> ControlVariate:
    """Make the estimator ``mean_k (grad_y . d_f_k) d_alpha_k / h^2``.

    It is the control variate of a surrogate that knows nothing, with a gain of 1:
    unbiased up to the curvature of the device. With n pixels and K noiseless normal
    probes its cosine with the true gradient is about ``sqrt(K / (n + K + 1))``.

    Parameters
    ----------
    device
        Takes the probes, booked as such.
    probes
        Probes K of every sample.
    rms_rad
        Rms h of their perturbations.
    generator
        Where the perturbations come from.
    """
    correction = Correction(probes=probes, rms_rad=rms_rad, gain=1.0)
    noise = torch.zeros(device.outputs)  # A fixed gain weighs no noise.
    return ControlVariate(
        Nothing(), device, correction, noise=noise, generator=generator
    )
