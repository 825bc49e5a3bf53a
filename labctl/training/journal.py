"""What a training tells of itself: rows, probes, stages, and how it ended."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol, final, runtime_checkable

from torch import Tensor

from labctl.training.estimator import Cosine

ProbeKind = Literal["held-out", "paired", "control-variate", "secant"]


@dataclass(frozen=True)
class Row:
    """What one step was like.

    Parameters
    ----------
    step
        Counted from 0.
    loss, accuracy
        Of the batch, dither included; accuracy is the score of the task.
    loss_surrogate
        Mean fit loss; NaN without a fit.
    lr
        Adam's step on theta.
    cosine, cosine_error
        Held-out cosine of the window; NaN until there are enough probes.
    shots
        Exposures that this course has made so far.
    score_validation
        NaN where the step had no validation.
    """

    step: int
    loss: float
    loss_surrogate: float
    lr: float
    accuracy: float
    cosine: float
    cosine_error: float
    shots: int
    score_validation: float


@dataclass(frozen=True)
class ProbeRows:
    """Probes of one step, as a record keeps them.

    Parameters
    ----------
    kind
        Whether a fit may see them.
    step, layer
        Where they belong.
    shot_base, shot_plus
        Exposures without and with the perturbation.
    d_f
        Change of the outputs.
    cotangent
        Gradient of the loss with respect to the outputs at the base; NaN for
        probes of the warm-up pass, which had no loss.
    """

    kind: ProbeKind
    step: int
    layer: int
    shot_base: Tensor
    shot_plus: Tensor
    d_f: Tensor
    cotangent: Tensor


@runtime_checkable
class Listener(Protocol):
    """Whoever follows a training."""

    def stage(self, text: str) -> None:
        """Hear what begins now.

        Parameters
        ----------
        text
            A few words.
        """

    def beat(self) -> None:
        """Hear that digital work goes on; called every few milliseconds."""

    def digital(self) -> AbstractContextManager[None]:
        """Hear that longer digital work begins, without signs of life.

        Returns
        -------
        phase
            Lasts as long as the work: the device may rest meanwhile.
        """
        ...

    def probes(self, rows: ProbeRows) -> None:
        """Hear of probes, before the row of their step.

        Parameters
        ----------
        rows
            One or more.
        """

    def step(self, row: Row) -> None:
        """Hear that a step is done; the trainer's state may be taken now.

        Parameters
        ----------
        row
            What it was like.
        """


@final
class Silent:
    """A listener that does nothing."""

    def stage(self, text: str) -> None:
        """Do nothing.

        Parameters
        ----------
        text
            Ignored.
        """

    def beat(self) -> None:
        """Do nothing."""

    def digital(self) -> AbstractContextManager[None]:
        """Let nothing rest."""
        return nullcontext()

    def probes(self, rows: ProbeRows) -> None:
        """Do nothing.

        Parameters
        ----------
        rows
            Ignored.
        """

    def step(self, row: Row) -> None:
        """Do nothing.

        Parameters
        ----------
        row
            Ignored.
        """


class Status(Enum):
    """How a course ended, as a sentence with the remedy."""

    COMPLETED = "The planned steps were done."
    NOT_FINITE_OUTPUT = (
        "The device answered with values that are not finite. "
        "Look at the frames and at the calibrations of the camera."
    )
    SATURATED = (
        "Most frames are saturated: outputs stand still where there is more light than "
        "the camera can count. Lower reservoir.exposure_s, reservoir.power_mw or "
        "reservoir.gain_db, or put a filter before the camera."
    )
    NO_STEP_PAID = (
        "What came before the first step left less of the budget than one step may "
        "cost. Raise budget.shots, or lower estimator.probes or drift.refit_shots."
    )
    NOTHING_TO_FIT = (
        "The surrogate learns from probes alone, and none were taken. Set "
        "probes.paired_per_step, or add value to surrogate.loss."
    )
    DRIFTED = (
        "The device drifted further than drift.stop_above allows. Let it settle, and "
        "calibrate it again; or raise the bound."
    )
    NOT_FINITE_LOSS = (
        "The loss is not finite. Lower training.learning_rate_digital, or look at "
        "the outputs of the last step."
    )
    NOT_FINITE_GRADIENT = (
        "The gradient is not finite: the surrogate diverged. Lower "
        "surrogate.learning_rate."
    )
    COSINE_AT_ZERO = (
        "The planned steps were done, but the held-out cosine of the whole training "
        "cannot be told from zero: theta followed nothing that could be seen of the "
        "device's gradient. All was measured and is kept; compare its score with the "
        "readout's, as what is too small to be seen may have helped. Give the "
        "surrogate more to learn from (probes.paired_per_step, "
        "surrogate.fits_per_step, budget.shots), choose another, or let estimator "
        "gate leave it out."
    )

    @property
    def is_whole(self) -> bool:
        """Whether all steps were done, so that what came out can be measured."""
        return self in {Status.COMPLETED, Status.COSINE_AT_ZERO}

    @property
    def label(self) -> str:
        """Its name, as results have it."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Result:
    """What a course led to; the network holds the trained numbers.

    Parameters
    ----------
    status
        How it ended.
    steps
        Optimiser steps done.
    shots
        Exposures made.
    cosine
        Held-out cosine at the end.
    whole
        The same over all held-out probes of the course.
    refitted
        Whether the head was solved once more on the last epoch's outputs.
    told
        What the device's answers were like, where they ended the course.
    """

    status: Status
    steps: int
    shots: int
    cosine: Cosine
    whole: Cosine
    refitted: bool
    told: str = ""

    @property
    def why(self) -> str:
        """Say how it ended, with the numbers where there are any."""
        return self.told or self.status.value


class Stopped(Exception):  # noqa: N818 - no error: a course that ends early
    """A course that cannot go on.

    Parameters
    ----------
    status
        Why.
    """

    def __init__(self, status: Status) -> None:
        self.status = status
        super().__init__(status.value)
