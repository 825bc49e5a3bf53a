"""Complex-valued activations: functions of a field, and what they do to it nearby.

All are written so that the backward pass is finite everywhere, in the origin too.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Field = Callable[[Tensor], Tensor]
SIDE: Final = 33
"""Points a side of the pictures, real and imaginary part from -3 to 3."""
MEASURES: Final = ("largest", "typical", "zero_share", "conjugate_share")
KERR_RAD: Final = 3.0
_BIAS: Final = 0.5
_TINY: Final = 1e-12  # below every amplitude that matters
_PLACES: Final = 97


def _amplitude(z: Tensor) -> Tensor:
    return torch.sqrt(z.real.square() + z.imag.square() + _TINY)


def identity(z: Tensor) -> Tensor:
    """Leave the field alone: linear optics, where the camera alone is not linear.

    Parameters
    ----------
    z
        Field, of any shape.
    """
    return z


def split_tanh(z: Tensor) -> Tensor:
    """Take tanh of the real and of the imaginary part.

    Parameters
    ----------
    z
        Field, of any shape.

    References
    ----------
    .. [1] Nitta, "An extension of the back-propagation algorithm to complex
       numbers", 1997, doi:10.1016/S0893-6080(97)00036-1. Ours has tanh for the
       sigmoid.
    """
    return torch.complex(torch.tanh(z.real), torch.tanh(z.imag))


def amplitude_tanh(z: Tensor) -> Tensor:
    """Saturate the amplitude and keep the phase, z tanh|z| / |z|.

    Parameters
    ----------
    z
        Field, of any shape.

    References
    ----------
    .. [1] Hirose, "Continuous complex-valued back-propagation learning", 1992,
       doi:10.1049/el:19921186.
    """
    size = _amplitude(z)
    return z * (torch.tanh(size) / size)


def mod_relu(z: Tensor) -> Tensor:
    """Shorten the amplitude by .5, to nothing if need be, and keep the phase.

    Parameters
    ----------
    z
        Field, of any shape.

    References
    ----------
    .. [1] Arjovsky, Shah, Bengio, "Unitary evolution recurrent neural networks",
       2015, arXiv:1511.06464, eq. 8. Ours has a fixed bias, so that it has no more
       parameters than the others.
    """
    size = _amplitude(z)
    return z * (torch.relu(size - _BIAS) / size)


def z_relu(z: Tensor) -> Tensor:
    """Pass what has both parts positive, and nothing else.

    Parameters
    ----------
    z
        Field, of any shape.

    References
    ----------
    .. [1] Guberman, "On complex valued convolutional neural networks", 2016,
       arXiv:1602.09046.
    """
    return z * ((z.real > 0) & (z.imag > 0)).to(z.real.dtype)


def cardioid(z: Tensor) -> Tensor:
    """Weaken the field by its phase, (1 + cos arg z) z / 2; ReLU on the real line.

    Parameters
    ----------
    z
        Field, of any shape.

    References
    ----------
    .. [1] Virtue, Yu, Lustig, "Better than real: complex-valued neural nets for MRI
       fingerprinting", 2017, arXiv:1707.00070.
    """
    return z * ((1 + z.real / _amplitude(z)) / 2)


def kerr(z: Tensor) -> Tensor:
    """Turn the phase by 3 rad |z|^2 / (1 + |z|^2), as the bench's thin medium does.

    Parameters
    ----------
    z
        Field, of any shape; its intensity is left alone.

    References
    ----------
    .. [1] labctl.optics.medium.SaturableKerr with b = 3 rad, saturation at I = 1,
       and no diffraction or loss within.
    """
    light = z.real.square() + z.imag.square()
    turn = KERR_RAD * light / (1 + light)
    return z * torch.complex(torch.cos(turn), torch.sin(turn))


FUNCTIONS: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "identity": identity,
        "split-tanh": split_tanh,
        "amplitude-tanh": amplitude_tanh,
        "mod-relu": mod_relu,
        "z-relu": z_relu,
        "cardioid": cardioid,
        "kerr": kerr,
    }
)
REAL: Final[Mapping[str, str]] = MappingProxyType(
    {
        "identity": "identity",
        "split-tanh": "tanh",
        "amplitude-tanh": "tanh",
        "mod-relu": "relu",
        "z-relu": "relu",
        "cardioid": "relu",
        "kerr": "sin",
    }
)
"""What a real net has in the place of each; the sine for the turn of a phase."""


def _plane(points: int) -> Tensor:
    side = torch.linspace(-3, 3, points, dtype=torch.float64)
    return torch.complex(*torch.meshgrid(side, side, indexing="xy"))


def pictures(name: str) -> NDArray[np.float64]:
    """Return amplitude and phase of the result over the plane of the input.

    Parameters
    ----------
    name
        Of the function.

    Returns
    -------
    pictures
        ``(amplitude or phase, imaginary part, real part)``; the phase in rad, from 0
        to 2 pi, NaN where nothing comes out.
    """
    found = FUNCTIONS[name](_plane(SIDE))
    size, turn = found.abs(), torch.remainder(found.angle(), 2 * torch.pi)
    turn = torch.where(size > 1e-6, turn, torch.nan)
    return np.stack([size.numpy(), turn.numpy()])


def slopes(name: str, z: Tensor) -> Tensor:
    """Return the Jacobian between real and imaginary parts.

    Parameters
    ----------
    name
        Of the function.
    z
        Fields, ``[point]``.

    Returns
    -------
    jacobian
        ``[point, part out, part in]``.
    """
    leaf = z.clone().requires_grad_()
    found = FUNCTIONS[name](leaf)
    rows = [
        torch.autograd.grad(part.sum(), leaf, retain_graph=True)[0]
        for part in (found.real, found.imag)
    ]
    return torch.view_as_real(torch.stack(rows, dim=1))


def measures(name: str) -> dict[str, float]:
    """Measure a function over the square from -3 to 3.

    Parameters
    ----------
    name
        Of the function.

    Returns
    -------
    measures
        Largest and typical (root mean square) stretch of a small change of the field,
        share of the square where nothing passes, and share of the slope that
        belongs to the conjugate: 0 for a holomorphic function.
    """
    found = slopes(name, _plane(_PLACES).flatten())
    stretch = torch.linalg.svdvals(found)
    # Wirtinger's derivatives, by z and by its conjugate.
    (u_x, u_y), (v_x, v_y) = (found[:, row].unbind(1) for row in (0, 1))
    own = torch.complex(u_x + v_y, v_x - u_y).abs().square().mean()
    mirrored = torch.complex(u_x - v_y, v_x + u_y).abs().square().mean()
    return {
        "largest": float(stretch.max()),
        "typical": float(stretch.square().mean().sqrt()),
        "zero_share": float((stretch.amax(dim=1) < 1e-6).double().mean()),
        "conjugate_share": float(mirrored / (own + mirrored)),
    }
