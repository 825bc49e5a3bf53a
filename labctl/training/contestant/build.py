"""From a method's settings to its parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import torch

from labctl.training.contestant.annealing import Annealing
from labctl.training.contestant.cma_es import CmaEs
from labctl.training.contestant.finite_difference import FiniteDifference
from labctl.training.contestant.pepg import Pepg
from labctl.training.contestant.search import Effort, Search
from labctl.training.contestant.spsa import Spsa

MethodName = Literal[
    "surrogate",
    "readout",
    "oracle",
    "forward-gradient",
    "jacobian",
    "pat",
    "dat",
    "calibrate-deploy",
    "dfa",
    "finite-difference",
    "spsa",
    "annealing",
    "pepg",
    "cma-es",
]
SEARCHES: Final[Mapping[str, type[Search]]] = MappingProxyType(
    {
        "finite-difference": FiniteDifference,
        "spsa": Spsa,
        "annealing": Annealing,
        "pepg": Pepg,
        "cma-es": CmaEs,
    }
)
PRETRAINED: Final = frozenset({"pat", "dat", "calibrate-deploy"})
FITTED: Final = PRETRAINED | {"surrogate", "jacobian"}
"""Methods that fit a surrogate."""


@dataclass(frozen=True)
class Method:
    """Which way of training, and its numbers.

    Parameters
    ----------
    name
        Which.
    step_rad
        Rms of a search's first moves; of the last variations of ``annealing``.
    radius_rad
        Size of the perturbations of a search and of ``forward-gradient``.
    candidates
        Thetas that a search measures on every batch.
    probes
        Probes of every sample, of ``forward-gradient``.
    pretrain_samples
        Samples that a twin is trained on before the device is; None takes what
        the budget leaves, for ``calibrate-deploy``.
    pretrain_rad
        Rms phase of these exposures.
    pretrain_fits
        Fit steps on them.
    digital_steps
        Optimiser steps on the twin alone, of ``calibrate-deploy``.
    """

    name: MethodName = "surrogate"
    step_rad: float = 0.02
    radius_rad: float = 0.2
    candidates: int = 2
    probes: int = 1
    pretrain_samples: int | None = None
    pretrain_rad: float = 0.6
    pretrain_fits: int = 1000
    digital_steps: int = 600

    @property
    def is_search(self) -> bool:
        """Whether it knows losses only."""
        return self.name in SEARCHES

    def search(self, steps: int, generator: torch.Generator) -> Search | None:
        """Make the search; None where the method is none.

        Parameters
        ----------
        steps
            Batches of the course.
        generator
            Where its random numbers come from.

        Raises
        ------
        ValueError
            The numbers do not suit it.
        """
        if not self.is_search:
            return None
        effort = Effort(self.step_rad, self.radius_rad, self.candidates, steps)
        return SEARCHES[self.name](effort, generator)
