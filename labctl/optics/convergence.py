"""How far a simulated medium is from converged, in steps and in grid."""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

# Limits of :func:`step_gate` and :func:`nyquist_share`. Over 72 cases the gate
# was .65 to 1.02 of the true error wherever that was below .5.
GATE_PASSES, GATE_WARNS = 0.02, 0.05
NYQUIST_PASSES = 1e-3
# At the exit face the medium has broadened the spectrum: some of it beyond the
# grid's reach is a doubt, a hundredth of the power a fault.
EXIT_WARNS = 1e-2

# Power in a self-trapped beam, in units of 1/(2 k g): the integral of the
# ground state's profile.
_CRITICAL = 11.7009


def step_gate(
    coarse: Float[Tensor, "field row column"], fine: Float[Tensor, "field row column"]
) -> float:
    """Relative change of the sensor's intensity when the steps are doubled.

    Parameters
    ----------
    coarse, fine
        Intensities of the same patterns with S and with 2 S steps.

    Returns
    -------
    gate
        At most .02 is converged, at most .05 deserves a warning.
    """
    return float(
        torch.linalg.vector_norm(coarse - fine) / torch.linalg.vector_norm(fine)
    )


def nyquist_share(field: Complex[Tensor, "field row column"]) -> float:
    """Share of the power at spatial frequencies beyond .8 of the grid's greatest.

    Parameters
    ----------
    field
        Fields at the entrance.

    Returns
    -------
    share
        Below 1e-3 the grid resolves the field.
    """
    power = torch.fft.fft2(field).abs().square().sum(dim=0)
    row, column = (torch.fft.fftfreq(side).abs() > 0.4 for side in field.shape[-2:])
    return float(power[row[:, None] | column[None]].sum() / power.sum())


def critical_ratio(
    intensity: Float[Tensor, "row column"], b: float, diffraction: float
) -> float:
    """Power over the critical power of self-focusing, without saturation.

    Parameters
    ----------
    intensity
        At the entrance.
    b
        Nonlinear phase at I = 1 over the whole medium, in rad.
    diffraction
        Length over wavenumber of the medium, L/k, in squared grid points.

    Returns
    -------
    ratio
        P/Pcr; 0 without nonlinear phase, ``inf`` with one but no diffraction.
    """
    if b == 0:
        return 0.0
    if diffraction == 0:
        return math.inf
    return float(2 * abs(b) / diffraction * intensity.double().sum() / _CRITICAL)
