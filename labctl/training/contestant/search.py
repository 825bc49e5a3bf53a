"""Theta searched for by losses alone: no gradient with respect to the outputs.

A search is told the losses of some thetas on one batch and answers with the next
theta. The digital layers learn beside it by their own exact gradient, which the
exposures of all candidates give for nothing.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

State = dict[str, Any]
Theta = Float[Tensor, " theta"]
Candidates = Float[Tensor, "candidate theta"]
Losses = Float[Tensor, " candidate"]


@dataclass(frozen=True)
class Effort:
    """How a search moves.

    Parameters
    ----------
    step_rad
        Rms of the first moves of theta.
    radius_rad
        Size of the perturbations that are tried.
    candidates
        Thetas that are measured on every batch.
    steps
        Batches of the course.
    """

    step_rad: float
    radius_rad: float
    candidates: int
    steps: int

    def __post_init__(self) -> None:
        if self.candidates < 2 or self.step_rad <= 0 or self.radius_rad <= 0:
            text = (
                f"method: candidates={self.candidates}, step_rad={self.step_rad}, "
                f"radius_rad={self.radius_rad}, expected at least 2 candidates and "
                "sizes above 0. Correct the method."
            )
            raise ValueError(text)


class Search(ABC):
    """A way to find theta from losses.

    Parameters
    ----------
    effort
        How it moves.
    generator
        Where its random numbers come from.
    """

    def __init__(self, effort: Effort, generator: torch.Generator) -> None:
        self.effort, self.generator = effort, generator
        self.done = 0

    @abstractmethod
    def ask(self, theta: Theta) -> Candidates:
        """Propose thetas to be measured on one batch.

        Parameters
        ----------
        theta
            Where the search stands.

        Returns
        -------
        candidates
            As many rows as the effort says.
        """

    @abstractmethod
    def tell(self, theta: Theta, candidates: Candidates, losses: Losses) -> Theta:
        """Take in what was measured.

        Parameters
        ----------
        theta
            Where the search stood.
        candidates
            From :meth:`ask`.
        losses
            Of each on the same batch.

        Returns
        -------
        theta
            Where the search stands now.
        """

    def normal(self, rows: int, like: Theta) -> Candidates:
        """Draw standard normal rows.

        Parameters
        ----------
        rows
            How many.
        like
            Gives their length and dtype.
        """
        return torch.randn(
            rows, len(like), generator=self.generator, dtype=like.dtype
        ).to(like.device)

    def signs(self, rows: int, like: Theta) -> Candidates:
        """Draw rows of -1 and 1.

        Parameters
        ----------
        rows
            How many.
        like
            Gives their length and dtype.
        """
        coins = torch.randint(2, (rows, len(like)), generator=self.generator)
        return (2 * coins - 1).to(like)

    def state_dict(self) -> State:
        """All that a checkpoint must hold."""
        return {"done": self.done, "generator": self.generator.get_state()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state.

        Parameters
        ----------
        state
            What :meth:`state_dict` returned.
        """
        self.done = int(state["done"])
        self.generator.set_state(state["generator"])


@final
class Gain:
    """Spall's falling gain, its scale set by the first gradients that are seen.

    ``a_k = a / (A + k + 1)^.602`` with A a tenth of the steps and a such that a
    gradient of the size seen in the first steps moves theta by ``step_rad`` rms.
    Theta rests while these are gathered.

    Parameters
    ----------
    effort
        Gives the step and the length of the course.

    References
    ----------
    .. [1] Spall, "Implementation of the simultaneous perturbation algorithm for
       stochastic optimization", 1998, doi:10.1109/7.705889, section III.
    """

    POWER = 0.602

    def __init__(self, effort: Effort) -> None:
        self._effort = effort
        self._rest = min(10, max(1, effort.steps // 10))
        self._stability = 0.1 * effort.steps
        self._squares, self._seen, self._scale = 0.0, 0, 0.0

    def __call__(self, gradient: Theta) -> float:
        """Return what this gradient is multiplied with.

        Parameters
        ----------
        gradient
            The next one of the course.
        """
        self._seen += 1
        if self._seen <= self._rest:
            self._squares += float(gradient.square().mean())
            return 0.0
        if self._scale == 0.0 and self._squares > 0:
            size = math.sqrt(self._squares / self._rest)
            self._scale = self._effort.step_rad * self._falling(0) / size
        return self._scale / self._falling(self._seen - self._rest - 1)

    def _falling(self, step: int) -> float:
        return float((self._stability + step + 1) ** self.POWER)

    def state_dict(self) -> State:
        """All that a checkpoint must hold."""
        return {"squares": self._squares, "seen": self._seen, "scale": self._scale}

    def load_state_dict(self, state: State) -> None:
        """Take up a state.

        Parameters
        ----------
        state
            What :meth:`state_dict` returned.
        """
        self._squares, self._seen = float(state["squares"]), int(state["seen"])
        self._scale = float(state["scale"])


Measure = Callable[[], Tensor]


def explore(
    search: Search, theta: list[torch.nn.Parameter], measure: Measure
) -> list[Tensor]:
    """Measure every candidate on one batch and move theta.

    Parameters
    ----------
    search
        Proposes and decides.
    theta
        Parameters of the device layers; moved in place.
    measure
        Exposes one batch as theta stands and returns its loss, in the graph of
        the digital layers.

    Returns
    -------
    losses
        One a candidate. Theta was not moved where one is not finite.
    """
    here = torch.nn.utils.parameters_to_vector(theta).detach().clone()
    candidates = search.ask(here)
    losses = []
    for row in candidates:
        _put(row, theta)
        losses.append(measure())
    told = torch.stack([loss.detach() for loss in losses]).to(here)
    finite = bool(torch.isfinite(told).all())
    _put(search.tell(here, candidates, told) if finite else here, theta)
    search.done += 1
    return losses


@torch.no_grad()
def _put(values: Theta, theta: list[torch.nn.Parameter]) -> None:
    start = 0
    for part in theta:
        part.copy_(values[start : start + part.numel()].view_as(part))
        start += part.numel()
