"""What a protocol may say about a surrogate, as plain data."""

import math
from dataclasses import dataclass
from typing import Literal

TermName = Literal["value", "jvp", "mse", "cos", "dot", "gen"]
SurrogateName = Literal[
    "jacobian",
    "dense",
    "log-lin-exp",
    "linear",
    "twin-dense",
    "twin-modes",
    "twin-pairs",
]


@dataclass(frozen=True)
class FitTerm:
    """One term of a surrogate's fit.

    Parameters
    ----------
    name
        ``value`` and ``jvp`` for twins; ``mse``, ``cos``, ``dot``, ``gen`` on
        relation (1) for any surrogate that is fitted by gradient steps.
    weight
        Factor of the term.
    a
        Exponent of ``gen``.
    """

    name: TermName
    weight: float = 1.0
    a: float = 1.0


@dataclass(frozen=True)
class SurrogateSettings:
    """The learned backward pass: which model, and how it is fitted.

    Parameters
    ----------
    name
        Which model.
    width, depth
        Hidden size and layers of the nets.
    rank
        Terms of ``linear``.
    modes
        Field modes of ``twin-modes``.
    reach
        Greatest distance of a pair of ``twin-pairs``, in macropixels.
    ridge, forgetting
        Of ``jacobian``.
    loss
        Terms of the fit; empty takes the model's own default.
    fits_per_step
        Fit steps after each device batch.
    fit_batch
        Shots, or rows of relation (1), a fit step.
    learning_rate
        Adam's step.
    average
        Decay of the averaged weights that answer; 0 for none.
    replay
        Greatest number of shots remembered.
    """

    name: SurrogateName
    width: int = 128
    depth: int = 2
    rank: int = 64
    modes: int = 64
    reach: float = 2.0
    ridge: float = 1e-2
    forgetting: float = 0.999
    loss: tuple[FitTerm, ...] = ()
    fits_per_step: int = 40
    fit_batch: int = 128
    learning_rate: float = 3e-3
    average: float = 0.995
    replay: int = 100_000


@dataclass(frozen=True)
class Ports:
    """What goes into a surrogate and what comes out.

    Parameters
    ----------
    pixels
        Inputs: macropixels of the panel.
    outputs
        Outputs of the device.
    circular
        Inputs are phases in rad, on a circle; False takes them as plain numbers.
    layout
        Rows and columns of the macropixels, for models that know neighbours.
    """

    pixels: int
    outputs: int
    circular: bool = True
    layout: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.pixels < 1 or self.outputs < 1:
            text = (
                f"surrogate: pixels={self.pixels}, outputs={self.outputs}, expected "
                "at least 1 each. Give the sizes of the device."
            )
            raise ValueError(text)
        if self.layout is not None and math.prod(self.layout) != self.pixels:
            text = (
                f"surrogate: layout={self.layout}, expected pixels={self.pixels} in "
                "all. Give the layout of the device."
            )
            raise ValueError(text)
