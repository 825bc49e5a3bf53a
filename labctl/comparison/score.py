"""What trainings of several methods say about the methods: pure arithmetic.

Scores are signed inside, so that more is better. All intervals are bootstrap
intervals over seeds, drawn together for every method: a seed that was hard for
one was hard for all.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labctl.training.interval import (
    NOTHING,
    Interval,
    bootstrap,
    draws,
    percentiles,
)

LEAST_ROOM = 0.05
"""Where the oracle gains less than this over the readout, no gain is stated."""
REACHES = -0.01
"""Paired difference from which on a method reaches another, in a seed or as the lower
bound over all of them."""
HAIR = 2e-6
"""What a difference of two scores may miss of a number that it should be: they are kept
with six digits, and decimals are no exact binary numbers. Far below one sample."""


@dataclass(frozen=True)
class Score:
    """What one training ended with.

    Parameters
    ----------
    task, method
        Names in the protocol.
    seed, budget
        Of the training.
    score
        On the test split.
    cosine
        Held-out cosine at the end; NaN where none was measured.
    digital_s
        Seconds of digital work.
    direction
        1 where more is better on this task, -1 where less is.
    """

    task: str
    method: str
    seed: int
    budget: int
    score: float
    cosine: float = math.nan
    digital_s: float = math.nan
    direction: int = 1


@dataclass(frozen=True)
class References:
    """Which methods a gain is measured between.

    Parameters
    ----------
    readout, oracle
        Names of the methods; None where the protocol has none.
    """

    readout: str | None
    oracle: str | None


@dataclass(frozen=True)
class Line:
    """What a method reached on a task with a budget.

    Parameters
    ----------
    task, method, budget
        Which.
    seeds
        How many trainings.
    mean, mean_interval
        Score on the test split and its 95 % interval.
    gain, gain_interval
        Part of the room between readout and oracle that was recovered; NaN where
        there is no room.
    over_readout, over_readout_interval
        Paired difference to the readout.
    over_oracle_interval
        The same to the oracle.
    reached
        Seeds in which the score is not more than a hundredth below the oracle's; a
        hundredth counts.
    cosine, digital_s
        Means over the seeds.
    shots_to_target
        Least budget with which the mean score reaches the target; infinite where
        none does, NaN where there is no target.
    """

    task: str
    method: str
    budget: int
    seeds: int
    mean: float
    mean_interval: Interval
    gain: float
    gain_interval: Interval
    over_readout: float
    over_readout_interval: Interval
    over_oracle_interval: Interval
    reached: int
    cosine: float
    digital_s: float
    shots_to_target: float

    @property
    def reaches_oracle(self) -> bool:
        """Whether the paired difference is not below the margin."""
        return _reaches(self.over_oracle_interval[0])


@dataclass(frozen=True)
class _Task:
    """The scores of one task.

    Parameters
    ----------
    name
        Of the task.
    table
        Signed score by method and budget, then by seed.
    scores
        As they were handed over.
    sign
        1 where more is better, -1 where less is.
    """

    name: str
    table: Mapping[tuple[str, int], Mapping[int, float]]
    scores: tuple[Score, ...]
    sign: int

    def largest(self, method: str | None) -> Mapping[int, float]:
        """Return the scores of a method at its largest budget."""
        budgets = [budget for name, budget in self.table if name == method]
        return self.table[method, max(budgets)] if method and budgets else {}


def summarise(
    scores: Iterable[Score], references: References, *, target: float = 0.5
) -> list[Line]:
    """Summarise trainings, method by method.

    Readout and oracle are taken at their largest budget, so that the gain of
    different budgets has one scale.

    Parameters
    ----------
    scores
        Of every training that ended well.
    references
        Between which methods the gain is measured.
    target
        Share of the oracle's gain that shots-to-target asks for.

    Returns
    -------
    lines
        One a task, budget and method, in the order of the scores.
    """
    found = tuple(scores)
    lines: list[Line] = []
    for name in dict.fromkeys(score.task for score in found):
        own = tuple(score for score in found if score.task == name)
        table: dict[tuple[str, int], dict[int, float]] = {}
        for score in own:
            signed = score.direction * score.score
            table.setdefault((score.method, score.budget), {})[score.seed] = signed
        task = _Task(name, table, own, own[0].direction)
        lines += [_line(task, key, references, target) for key in table]
    return lines


def _line(
    task: _Task, key: tuple[str, int], references: References, target: float
) -> Line:
    method, budget = key
    low, high = task.largest(references.readout), task.largest(references.oracle)
    mine = task.table[key]
    own = [s for s in task.scores if (s.method, s.budget) == key]
    sign = task.sign
    bounds = sorted(sign * bound for bound in bootstrap(list(mine.values())))
    gain, gain_interval = _gain(mine, low, high)
    over, over_interval = _difference(mine, low)
    _, oracle_interval = _difference(mine, high)
    return Line(
        task=task.name,
        method=method,
        budget=budget,
        seeds=len(mine),
        mean=sign * float(np.mean(list(mine.values()))),
        mean_interval=(bounds[0], bounds[1]),
        gain=gain,
        gain_interval=gain_interval,
        over_readout=over,
        over_readout_interval=over_interval,
        over_oracle_interval=oracle_interval,
        reached=sum(_reaches(mine[seed] - high[seed]) for seed in mine.keys() & high),
        cosine=_mean([score.cosine for score in own]),
        digital_s=_mean([score.digital_s for score in own]),
        shots_to_target=_to_target(task, method, (low, high), target),
    )


def _reaches(difference: float) -> bool:
    return difference >= REACHES - HAIR


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _difference(
    mine: Mapping[int, float], other: Mapping[int, float]
) -> tuple[float, Interval]:
    common = sorted(mine.keys() & other.keys())
    if not common:
        return math.nan, NOTHING
    differences = [mine[seed] - other[seed] for seed in common]
    return float(np.mean(differences)), bootstrap(differences)


def _gain(
    mine: Mapping[int, float], low: Mapping[int, float], high: Mapping[int, float]
) -> tuple[float, Interval]:
    common = sorted(mine.keys() & low.keys() & high.keys())
    if not common:
        return math.nan, NOTHING
    rows = np.array([[part[seed] for seed in common] for part in (mine, low, high)])
    got, start, end = rows.mean(axis=1)
    if end - start < LEAST_ROOM:
        return math.nan, NOTHING
    gain = float((got - start) / (end - start))
    if len(common) < 2:
        return gain, NOTHING
    drawn = rows[:, draws(len(common))].mean(axis=2)
    room = drawn[2] - drawn[1]
    # Draws without room say nothing; where they are many, nor does the interval.
    some = room >= LEAST_ROOM
    if some.mean() < 0.95:
        return gain, NOTHING
    return gain, percentiles((drawn[0][some] - drawn[1][some]) / room[some])


def _to_target(
    task: _Task,
    method: str,
    ends: tuple[Mapping[int, float], Mapping[int, float]],
    share: float,
) -> float:
    if not ends[0] or not ends[1]:
        return math.nan
    start, end = (float(np.mean(list(part.values()))) for part in ends)
    if end - start < LEAST_ROOM:
        return math.nan
    wanted = start + share * (end - start)
    reached = [
        budget
        for (name, budget), found in task.table.items()
        if name == method and float(np.mean(list(found.values()))) >= wanted
    ]
    return float(min(reached, default=math.inf))
