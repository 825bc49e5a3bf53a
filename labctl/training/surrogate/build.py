"""From a surrogate's settings to the model."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from torch import Generator

from labctl.training.surrogate.dense import Dense
from labctl.training.surrogate.jacobian import Jacobian
from labctl.training.surrogate.linear import Linear
from labctl.training.surrogate.log_lin_exp import LogLinExp
from labctl.training.surrogate.model import Surrogate
from labctl.training.surrogate.settings import Ports, SurrogateSettings
from labctl.training.surrogate.twin_dense import TwinDense
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


def _twin_optics(
    ports: Ports, own: SurrogateSettings, generator: Generator
) -> Surrogate:
    return TwinOptics(ports, screens=own.screens, generator=generator)


BUILDERS: Final[Mapping[str, Builder]] = MappingProxyType(
    {
        "jacobian": _jacobian,
        "dense": _dense,
        "log-lin-exp": _log_lin_exp,
        "linear": _linear,
        "twin-dense": _twin_dense,
        "twin-modes": _twin_modes,
        "twin-pairs": _twin_pairs,
        "twin-optics": _twin_optics,
    }
)


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
        The model at its start.

    Raises
    ------
    ValueError
        There is no such model, or it cannot have these sizes.
    """
    if settings.name not in BUILDERS:
        known = ", ".join(BUILDERS)
        text = (
            f"surrogate: name={settings.name!r}, expected one of {known}. "
            "Correct surrogate.name."
        )
        raise ValueError(text)
    return BUILDERS[settings.name](ports, settings, generator)
