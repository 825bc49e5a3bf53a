"""From a surrogate's settings to the model."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from torch import Generator

from labctl.optics.cuda import device_of
from labctl.optics.fused.plan import grid_refusal
from labctl.optics.kernel import Choice, decide
from labctl.training.surrogate.dense import Dense
from labctl.training.surrogate.jacobian import Jacobian
from labctl.training.surrogate.linear import Linear
from labctl.training.surrogate.log_lin_exp import LogLinExp
from labctl.training.surrogate.model import Surrogate
from labctl.training.surrogate.settings import Ports, SurrogateSettings
from labctl.training.surrogate.twin_dense import TwinDense
from labctl.training.surrogate.twin_fields import TwinFields
from labctl.training.surrogate.twin_modes import TwinModes
from labctl.training.surrogate.twin_optics import TwinOptics
from labctl.training.surrogate.twin_pairs import TwinPairs

Builder = Callable[[Ports, SurrogateSettings, Generator], Surrogate]


def _jacobian(ports: Ports, own: SurrogateSettings, generator: Generator) -> Surrogate:
    del generator  # It starts at zero.
    return Jacobian(ports, ridge=own.ridge, forgetting=own.forgetting)


def _dense(ports: Ports, own: SurrogateSettings, generator: Generator) -> Surrogate:
    return Dense(ports, width=own.width, depth=own.depth, generator=generator)


def _log_lin_exp(
    ports: Ports, own: SurrogateSettings, generator: Generator
) -> Surrogate:
    return LogLinExp(ports, width=own.width, generator=generator)


def _linear(ports: Ports, own: SurrogateSettings, generator: Generator) -> Surrogate:
    return Linear(
        ports, rank=own.rank, width=own.width, depth=own.depth, generator=generator
    )


def _twin_dense(
    ports: Ports, own: SurrogateSettings, generator: Generator
) -> Surrogate:
    return TwinDense(ports, width=own.width, depth=own.depth, generator=generator)


def _twin_modes(
    ports: Ports, own: SurrogateSettings, generator: Generator
) -> Surrogate:
    return TwinModes(ports, modes=own.modes, generator=generator)


def _twin_pairs(
    ports: Ports, own: SurrogateSettings, generator: Generator
) -> Surrogate:
    del generator  # It starts at zero.
    return TwinPairs(ports, reach=own.reach)


def _twin_fields(
    ports: Ports, own: SurrogateSettings, generator: Generator
) -> Surrogate:
    return TwinFields(ports, modes=own.modes, generator=generator)


def _twin_optics(
    ports: Ports, own: SurrogateSettings, generator: Generator
) -> Surrogate:
    return TwinOptics(
        ports,
        screens=own.screens,
        panel_lag=own.panel_lag,
        fused=kernel_of(own, ports).kernel == "fused",
        generator=generator,
    )


BUILDERS: Final[Mapping[str, Builder]] = MappingProxyType(
    {
        "jacobian": _jacobian,
        "dense": _dense,
        "log-lin-exp": _log_lin_exp,
        "linear": _linear,
        "twin-dense": _twin_dense,
        "twin-modes": _twin_modes,
        "twin-pairs": _twin_pairs,
        "twin-fields": _twin_fields,
        "twin-optics": _twin_optics,
    }
)


MOST_WEIGHTS: Final = 2**28
"""A gigabyte in single precision, of which a fit holds a few copies."""
_LOWER: Final = {
    "linear": "rank, width or depth",
    "log-lin-exp": "width",
    "twin-modes": "modes",
    "twin-pairs": "reach",
    "dense": "width or depth",
    "twin-dense": "width or depth",
}


def weights(settings: SurrogateSettings, ports: Ports) -> int:
    """Count what a surrogate would hold, to the order of its greatest parts.

    Parameters
    ----------
    settings
        Which model, and its sizes.
    ports
        What goes in and what comes out.

    Returns
    -------
    weights
        Numbers, none of which was made.
    """
    pixels, outputs, width = ports.pixels, ports.outputs, settings.width
    hidden = (settings.depth - 1) * width**2
    # A phase goes in as its cosine and its sine.
    net = 2 * pixels * width + hidden
    near = min(pixels, math.ceil(2 * (settings.reach + 1) ** 2))
    return {
        "jacobian": pixels * (pixels + outputs),
        "dense": net + width * (pixels + outputs),
        "twin-dense": net + width * outputs,
        "log-lin-exp": width * (4 * pixels + 2 * outputs),
        "linear": net + (width + 1) * settings.rank * (pixels + outputs),
        "twin-modes": settings.modes * (2 * pixels + outputs),
        "twin-fields": settings.modes * (2 * pixels + 4 * settings.modes + outputs),
        "twin-pairs": 2 * pixels * (1 + near) * outputs,
    }.get(settings.name, settings.screens * pixels)


def kernel_of(settings: SurrogateSettings, ports: Ports) -> Choice:
    """Say what crosses the medium of a surrogate, building it at its first use.

    Parameters
    ----------
    settings
        Which model, where, and what was asked for.
    ports
        Sizes of the device, and where its optics are.

    Returns
    -------
    choice
        The kernel; torch for a surrogate that has no medium.

    Raises
    ------
    ValueError
        ``fused`` was asked for and is not to be had.
    """
    wanted = settings.kernel
    if settings.name != "twin-optics" or settings.device != "cpu":
        if wanted != "fused":
            return Choice("torch")
        text = (
            f"surrogate: kernel='fused' with name={settings.name} and "
            f"device={settings.device}, expected twin-optics on cpu: nothing else has "
            "a compiled kernel. Leave surrogate.kernel out, or set it to auto."
        )
        raise ValueError(text)
    lacking = "" if ports.optics is None else grid_refusal(ports.optics.grid)
    try:
        return decide(wanted, _sentence(lacking))
    except ValueError as error:
        text = f"surrogate: {error}"
        raise ValueError(text) from error


def _sentence(lacking: str) -> str:
    return f"the compiled kernel does not do {lacking}." if lacking else ""


def build(settings: SurrogateSettings, ports: Ports, generator: Generator) -> Surrogate:
    """Build a surrogate.

    Parameters
    ----------
    settings
        Which model, and its sizes.
    ports
        What goes in and what comes out.
    generator
        Source of the start.

    Returns
    -------
    surrogate
        The model at its start, on its device. The start is the same on any.

    Raises
    ------
    ValueError
        There is no such model or device, or it cannot have these sizes; nothing was
        made.
    """
    if settings.name not in BUILDERS:
        known = ", ".join(BUILDERS)
        text = (
            f"surrogate: name={settings.name!r}, expected one of {known}. "
            "Correct surrogate.name."
        )
        raise ValueError(text)
    count = weights(settings, ports)
    if count > MOST_WEIGHTS:
        lower = _LOWER.get(settings.name, "the number of macropixels")
        text = (
            f"surrogate: {settings.name} would have {count:.2g} weights, expected at "
            f"most {MOST_WEIGHTS:.2g}: it would not fit into memory. Lower {lower}."
        )
        raise ValueError(text)
    try:
        device = device_of(settings.device)
    except ValueError as error:
        text = f"surrogate: {error}"
        raise ValueError(text) from error
    kernel_of(settings, ports)
    return BUILDERS[settings.name](ports, settings, generator).to(device)
