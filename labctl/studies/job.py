"""What a study is made of: jobs that run apart, and claims that they judge.

A :class:`Study` is computed; a :class:`BenchStudy` exposes on the device that it is
handed in a :class:`Lab`.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from labctl.calibration import ReservoirEntry
from labctl.document import Schema
from labctl.guard import LONGEST_SILENCE_S
from labctl.recording.layout import Column
from labctl.reservoir import Ledger, Reservoir
from labctl.run.convergence import Show
from labctl.run.setting import Session, Setting
from labctl.training.interval import bootstrap

S = TypeVar("S", bound=Schema)
Values = Mapping[str, Any]
Rows = Mapping[str, NDArray[Any]]
_ROUNDING = 1e-12


class Verdict(StrEnum):
    """What the measurement says of a claim."""

    HELD = "held"
    FAILED = "did not hold"
    CONDITIONS = "holds under conditions"
    OPEN = "not decided"


@dataclass(frozen=True)
class Job:
    """One part of a study, of one seed; it needs nothing of the others.

    Parameters
    ----------
    name
        Names it in the record; no two are alike.
    seed
        Where its random numbers come from.
    settings
        What tells it from its neighbours.
    """

    name: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A sentence of the document, and what was found here.

    Parameters
    ----------
    text
        What is claimed.
    measured
        Numbers with their intervals.
    verdict
        What they say of it.
    """

    text: str
    measured: str
    verdict: Verdict


@dataclass(frozen=True)
class Study(Generic[S]):
    """An experiment: its jobs, what each leaves, and what they say together.

    Parameters
    ----------
    about
        What it is, in a sentence.
    columns
        What every job leaves, beside name, seed and score.
    jobs
        Lists the jobs of a specification and some seeds.
    measure
        Does one job; returns its score and a value of every column.
    claims
        Judges the claims by the rows of all jobs.
    """

    about: str
    columns: Callable[[S], tuple[Column, ...]]
    jobs: Callable[[S, Sequence[int]], list[Job]]
    measure: Callable[[S, Job], Values]
    claims: Callable[[S, Rows], list[Claim]]


@dataclass(frozen=True, eq=False)
class Lab:
    """The bench as a study uses it: at any operating point, every shot recorded.

    Parameters
    ----------
    session
        Open bench and open record.
    ledger
        Where exposures are booked.
    number
        Of the job, from 0; shots are recorded as of this step.
    """

    session: Session
    ledger: Ledger
    number: int

    @property
    def entry(self) -> ReservoirEntry:
        """The operating point of the run."""
        return self.session.setting.entry

    def reservoir(self, entry: ReservoirEntry | None = None) -> Reservoir:
        """Make a function of the bench.

        Parameters
        ----------
        entry
            Operating point; None takes the run's.
        """
        return self.session.reservoir(
            self.entry if entry is None else entry, self.ledger
        )

    def digital(self) -> AbstractContextManager[None]:
        """Announce work that exposes nothing; the beam is blocked meanwhile."""
        return self.session.bench.digital(LONGEST_SILENCE_S)


@dataclass(frozen=True)
class BenchStudy(Generic[S]):
    """An experiment on the device; its jobs follow each other on one open bench.

    Parameters
    ----------
    about
        What it is, in a sentence.
    columns
        What every job leaves, for a specification and an operating point.
    jobs
        Lists the jobs of a specification and some seeds.
    points
        Operating points that it visits, by the key of the specification that says so.
    shown
        Says what a job shows first; None where it shows nothing.
    shots
        Counts the exposures of a job by category; refuses what cannot be done.
    measure
        Does one job; returns its score and a value of every column.
    claims
        Judges the claims by the rows of all jobs.
    """

    about: str
    columns: Callable[[S, ReservoirEntry], tuple[Column, ...]]
    jobs: Callable[[S, Sequence[int]], list[Job]]
    points: Callable[[S, ReservoirEntry], dict[str, ReservoirEntry]]
    shown: Callable[[S, Job, Setting[Any]], Show | None]
    shots: Callable[[S, Job, Setting[Any]], dict[str, int]]
    measure: Callable[[S, Job, Lab], Values]
    claims: Callable[[S, Rows], list[Claim]]


class Powered(Protocol):
    """A specification that visits several powers."""

    @property
    @abstractmethod
    def powers_mw(self) -> Sequence[float]:
        """Powers, in mW."""


def power_jobs(spec: Powered, seeds: Sequence[int]) -> list[Job]:
    """List the jobs of a study of power: one a power and seed.

    Parameters
    ----------
    spec
        The study's settings.
    seeds
        Each draws the same at every power.
    """
    return [
        Job(f"{power:g} mW seed {seed}", seed, {"power_mw": power})
        for seed in seeds
        for power in spec.powers_mw
    ]


def power_points(spec: Powered, entry: ReservoirEntry) -> dict[str, ReservoirEntry]:
    """List the operating points of a study of power.

    Parameters
    ----------
    spec
        The study's settings.
    entry
        The operating point of the run.
    """
    return {
        f"powers_mw.{number}": at_power(entry, power)
        for number, power in enumerate(spec.powers_mw)
    }


def own_point(spec: object, entry: ReservoirEntry) -> dict[str, ReservoirEntry]:
    """List the operating points of a study that stays at the run's.

    Parameters
    ----------
    spec
        The study's settings.
    entry
        The operating point of the run.
    """
    del spec
    return {"name": entry}


def at_power(entry: ReservoirEntry, power_mw: float) -> ReservoirEntry:
    """Move an operating point to another power, at the same energy a frame.

    Parameters
    ----------
    entry
        Where to start from.
    power_mw
        The power.
    """
    exposure_s = entry.exposure_s * entry.power_mw / power_mw
    return entry.model_copy(update={"power_mw": power_mw, "exposure_s": exposure_s})


def told(values: Sequence[float] | NDArray[Any], form: str = ".3g") -> str:
    """Say a mean over seeds with its 95 % interval.

    Parameters
    ----------
    values
        One a seed; what is not a number is left out.
    form
        How numbers are written.
    """
    known = [float(value) for value in values if np.isfinite(value)]
    if not known:
        return "none"
    low, high = bootstrap(known)
    middle = float(np.mean(known))
    if abs(middle) < _ROUNDING * max(map(abs, known)):
        middle = 0.0  # what rounding left of differences that cancel
    mean = format(middle, form)
    if np.isnan(low):
        return mean
    return f"{mean} [{format(low, form)}, {format(high, form)}]"


def above(values: Sequence[float] | NDArray[Any], bound: float = 0.0) -> Verdict:
    """Judge by the 95 % interval whether a mean over seeds is above a bound.

    Parameters
    ----------
    values
        One a seed.
    bound
        What it should be above.

    Returns
    -------
    verdict
        Not decided where the bound lies within the interval, or there is none.
    """
    low, high = bootstrap([float(value) for value in values])
    if low > bound:
        return Verdict.HELD
    return Verdict.FAILED if high <= bound else Verdict.OPEN


def together(kinds: Sequence[Verdict]) -> Verdict:
    """Sum up what was found of a claim at several places.

    Parameters
    ----------
    kinds
        What each said.
    """
    if not kinds or all(kind is Verdict.OPEN for kind in kinds):
        return Verdict.OPEN
    if len(set(kinds)) == 1:
        return kinds[0]
    return Verdict.CONDITIONS if Verdict.HELD in kinds else Verdict.FAILED


def verdict(held: bool) -> Verdict:
    """Turn an answer into a verdict.

    Parameters
    ----------
    held
        Whether the claim held.
    """
    return Verdict.HELD if held else Verdict.FAILED
