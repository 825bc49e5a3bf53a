"""What a budget of exposures pays for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from typing_extensions import override

from labctl.training.drift import LOOKS, Watching
from labctl.training.probe import SURVEY_SHOTS


@dataclass(frozen=True)
class Course:
    """What a training course costs.

    Parameters
    ----------
    train, validation
        Samples of the splits.
    batch
        Samples a step.
    exposures
        Of a sample in one pass: one a device layer, and one a step of a series.
    noise_repeats
        Patterns exposed twice before training.
    paired_per_step
        Probes a step and a warm-up batch that are fitted.
    held_out_per_step
        Probes a step that measure the cosine.
    probes_per_sample
        Probes that the estimator takes for every exposure of a sample.
    most_per_sample
        The same where it takes most of them; a gate decides as it goes.
    validate_every
        Steps between validations; 0 for none.
    candidates
        Thetas that are measured on every batch.
    pretrain
        Samples exposed before training, for a twin.
    refits
        Passes over the training split after training, for the head.
    watching
        How drift is looked for.
    warm_up
        Samples exposed before training; None for all. A course that limits them
        need not show the device every sample.
    size_every, size_samples, surveys
        Steps between two choices of the probes' size, samples that each looks at,
        and how often.
    """

    train: int
    validation: int
    batch: int
    exposures: int = 1
    noise_repeats: int = 0
    paired_per_step: int = 0
    held_out_per_step: int = 0
    probes_per_sample: int = 0
    most_per_sample: int = 0
    validate_every: int = 0
    candidates: int = 1
    pretrain: int = 0
    refits: int = 0
    watching: Watching = field(default_factory=Watching)
    warm_up: int | None = None
    size_every: int = 0
    size_samples: int = 8
    surveys: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training split; the rest waits for another epoch."""
        return self.train // self.batch

    @property
    def least_steps(self) -> int:
        """Steps of the shortest course that makes sense."""
        return self.steps_per_epoch if self.warm_up is None else 1

    @property
    def varies(self) -> bool:
        """Whether the device decides, as it goes, what a step costs."""
        refits = self.watching.every > 0 and self.watching.refit_above is not None
        return refits or self.most_per_sample > self.probes_per_sample

    @property
    def needed(self) -> int:
        """Exposures without which there is no course."""
        least = sum(self.counts(self.least_steps).values())
        if not self.varies:
            return least
        return max(least, sum(self.counts(0).values()) + self.dearest)

    def counts(self, steps: int) -> dict[str, int]:
        """Return the exposures of a course of so many steps, by category.

        Parameters
        ----------
        steps
            Optimiser steps.
        """
        shown = self.batch * self.exposures
        validations = steps // self.validate_every if self.validate_every else 0
        probes = self.paired_per_step + self.held_out_per_step
        probes += shown * self.probes_per_sample
        first = self.train if self.warm_up is None else min(self.warm_up, self.train)
        warm_up = math.ceil(first / self.batch) * self.paired_per_step
        warm_up *= self.exposures
        choices = math.ceil(steps / self.size_every) if self.size_every else 0
        return {
            "repeat": 2 * self.noise_repeats,
            "warm-up": (first + self.pretrain) * self.exposures,
            "train": steps * shown * self.candidates
            + self.refits * self.train * self.exposures,
            "probe": warm_up
            + steps * probes
            + choices * self.surveys * self.size_samples * SURVEY_SHOTS,
            "evaluate": validations * self.validation * self.exposures,
            "drift-check": self.watching.shots(steps),
        }

    @property
    def dearest(self) -> int:
        """Exposures that a single step may cost at most."""
        most = max(self.most_per_sample, self.probes_per_sample)
        full = replace(self, probes_per_sample=most)
        step = sum(full.counts(1).values()) - sum(full.counts(0).values())
        if self.validate_every > 1:
            step += self.validation * self.exposures
        watching = self.watching
        if watching.every == 0:
            return step
        shots = watching.patterns
        if watching.refit_above is not None:
            batches = math.ceil(watching.refit_shots / self.batch)
            each = watching.refit_shots + batches * self.paired_per_step
            shots += each * self.exposures + watching.patterns * LOOKS
        return step + shots


@dataclass(frozen=True)
class Plan:
    """A course that the budget pays for.

    Parameters
    ----------
    steps
        Optimiser steps.
    epochs
        Passes over the training split that these make.
    counts
        Exposures by category. ``evaluate`` holds the validations; the final test
        and the reference lines lie outside the budget.
    total
        Exposures in all.
    least
        Steps that it pays for whatever they cost; None where every step costs the
        same, so that it is exactly ``steps``.
    """

    steps: int
    epochs: float
    counts: Mapping[str, int]
    total: int
    least: int | None = None


@dataclass(frozen=True)
class TooSmall:
    """The budget does not pay for one epoch, or for one step that may be dear.

    Parameters
    ----------
    budget
        Exposures that there are.
    needed
        Exposures that one epoch needs, with everything before it.
    dearest
        Exposures that one step may cost where the device decides what it does;
        0 where all steps cost the same.
    """

    budget: int
    needed: int
    dearest: int = 0

    @override
    def __str__(self) -> str:
        if self.dearest:
            return (
                f"shots={self.budget}, expected at least {self.needed}: a step is "
                f"begun only where {self.dearest} are left, as much as one may cost "
                "with the probes of a gate and with a fit after drift. Raise "
                "budget.shots, or lower estimator.probes or drift.refit_shots."
            )
        return (
            f"shots={self.budget}, expected at least {self.needed} for one "
            "epoch with its noise repeats, warm-up pass and probes. Raise "
            "budget.shots, or use fewer training samples."
        )


def plan(budget: int, course: Course) -> Plan | TooSmall:
    """Find the longest course that a budget pays for.

    Parameters
    ----------
    budget
        Exposures of every kind but final tests and reference lines.
    course
        What it consists of.

    Returns
    -------
    plan
        The course, or why there is none.

    Raises
    ------
    ValueError
        A batch is greater than the training split.
    """
    if course.steps_per_epoch < 1:
        text = (
            f"training: batch={course.batch}, expected at most {course.train} "
            "(training samples). Lower training.batch."
        )
        raise ValueError(text)

    def total(steps: int) -> int:
        return sum(course.counts(steps).values())

    if budget < course.needed:
        return TooSmall(budget, course.needed, course.dearest if course.varies else 0)
    low, high = course.least_steps, budget // course.batch + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) <= budget else (low, middle)
    least = (budget - total(0)) // course.dearest if course.varies else None
    return Plan(
        low, low / course.steps_per_epoch, course.counts(low), total(low), least
    )
