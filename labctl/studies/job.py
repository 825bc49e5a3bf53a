"""What a study is made of: jobs that run apart, and claims that they judge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from labctl.document import Schema
from labctl.recording.layout import Column
from labctl.training.interval import bootstrap

S = TypeVar("S", bound=Schema)
Values = Mapping[str, Any]
Rows = Mapping[str, NDArray[Any]]


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
    mean = format(float(np.mean(known)), form)
    if np.isnan(low):
        return mean
    return f"{mean} [{format(low, form)}, {format(high, form)}]"


def verdict(held: bool) -> Verdict:
    """Turn an answer into a verdict.

    Parameters
    ----------
    held
        Whether the claim held.
    """
    return Verdict.HELD if held else Verdict.FAILED
