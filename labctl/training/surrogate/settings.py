"""What a protocol may say about a surrogate, as plain data."""

import math
from dataclasses import dataclass
from typing import Literal

from labctl.optics.kernel import Kernel

TermName = Literal["value", "jvp", "mse", "cos", "dot", "gen"]
SurrogateName = Literal[
    "jacobian",
    "dense",
    "log-lin-exp",
    "linear",
    "twin-dense",
    "twin-modes",
    "twin-pairs",
    "twin-fields",
    "twin-optics",
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
    device
        Where it is fitted and answers: ``cpu``, or ``cuda``, the first card.
    kernel
        What crosses the medium of ``twin-optics``: ``torch``; ``fused``, the compiled
        kernel; ``auto``, that where it can be had.
    width, depth
        Hidden size and layers of the nets.
    rank
        Terms of ``linear``.
    modes
        Field modes of ``twin-modes`` and ``twin-fields``.
    reach
        Greatest distance of a pair of ``twin-pairs``, in macropixels.
    optics
        Whether ``twin-optics`` is ``told`` where the optics are or has to find it
        (``learned``).
    points
        Points along a macropixel of the grid of ``twin-optics``, where it is not told.
    screens
        Thin screens in the medium of ``twin-optics``.
    panel_lag
        Whether ``twin-optics`` learns a phase of each macropixel as well.
    ridge, forgetting
        Of ``jacobian``.
    loss
        Terms of the fit; empty takes the model's own default.
    first_fits
        Fit steps of the first fit; None takes ``fits_per_step`` for each batch that
        it has.
    starts
        Starts that the first fit may try, judged by shots that are kept from it.
    keep_every
        Every so many shots one is kept from all fits; 0 for none.
    schedule
        ``constant``, or ``one-cycle``: the step of the first fit rises to
        ``learning_rate`` and falls to nothing, and stays small after it.
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
    recency
        Preference of fits for young shots: 0 for none, see :meth:`Ring.draw`.
    """

    name: SurrogateName
    device: Literal["cpu", "cuda"] = "cpu"
    kernel: Kernel = "torch"
    width: int = 128
    depth: int = 2
    rank: int = 64
    modes: int = 64
    reach: float = 2.0
    optics: Literal["told", "learned"] = "told"
    points: int = 2
    screens: int = 4
    panel_lag: bool = False
    ridge: float = 1e-2
    forgetting: float = 0.999
    loss: tuple[FitTerm, ...] = ()
    first_fits: int | None = None
    starts: int = 1
    keep_every: int = 0
    schedule: Literal["constant", "one-cycle"] = "constant"
    fits_per_step: int = 40
    fit_batch: int = 128
    learning_rate: float = 3e-3
    average: float = 0.995
    replay: int = 100_000
    recency: float = 0.0


@dataclass(frozen=True)
class OpticalLayout:
    """Where things are on a bench, as a twin may know it; never what they are like.

    Parameters
    ----------
    grid
        Rows and columns of points over the panel and, behind a lens, the sensor.
    steps
        Steps of the propagation.
    fresnel
        Diffraction across one macropixel as far as it is known, L/(k w^2).
    region, bins
        Row, column, height and width of what is read out, in grid points, and the
        rows and columns of outputs that it is divided into.
    lens
        Whether a lens takes the light to its far field.
    guessed
        Region and diffraction are where a fit starts from, no more: both are learned.
    """

    grid: tuple[int, int]
    steps: int
    fresnel: float
    region: tuple[int, int, int, int]
    bins: tuple[int, int]
    lens: bool = True
    guessed: bool = False

    @classmethod
    def guess(
        cls,
        macropixels: tuple[int, int],
        bins: tuple[int, int],
        *,
        points: int,
        lens: bool,
    ) -> "OpticalLayout":
        """Lay a bench out of which only panel and bins are known.

        Parameters
        ----------
        macropixels
            Rows and columns on the panel.
        bins
            Rows and columns of outputs.
        points
            Points of the grid along a macropixel. Behind a lens it reaches so many
            times as far as a panel of macropixels without gaps throws its light
            without loss, which is ``points / 2`` central lobes of a macropixel.
        lens
            Whether a lens takes the light to its far field.

        Returns
        -------
        layout
            Bins over the middle of the grid, and numbers as plain as any.
        """
        grid = (macropixels[0] * points, macropixels[1] * points)
        (top, height), (left, width) = (_middle(side) for side in grid)
        region = (top, left, height, width)
        return cls(grid, _STEPS, _FRESNEL, region, bins, lens=lens, guessed=True)


# What is guessed of a bench of which nothing is known.
_STEPS, _FRESNEL, _SHARE = 8, 0.1, 0.7


def _middle(side: int) -> tuple[int, int]:
    length = max(1, round(_SHARE * side))
    return (side - length) // 2, length


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
    optics
        Where the optics are, for ``twin-optics``.
    """

    pixels: int
    outputs: int
    circular: bool = True
    layout: tuple[int, int] | None = None
    optics: OpticalLayout | None = None

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
