"""What a calibration is: what it needs, how it is measured, what it found."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import JsonValue

from labctl.bench import Bench
from labctl.calibrate.stand import Stand
from labctl.calibration import CalibrationRecord, View

Value = JsonValue | NDArray[np.float64]
Role = Literal["meter", "attenuator"]
# What to do about an error that is too great, as a rule.
MORE_LIGHT = (
    "Too few photons, as a rule: take a filter away, raise the power, or allow a "
    "longer exposure (limits.exposure_s)."
)
# What has moved by less than this many standard errors has not moved.
SIGNIFICANT = 4.0


@dataclass(frozen=True)
class Quantity:
    """A number that was measured.

    Parameters
    ----------
    value
        The number, in the unit that its name ends in.
    error
        Its standard error.
    tolerance
        A change that matters to nobody, in the same unit.
    """

    value: float
    error: float
    tolerance: float = 0.0

    def has_moved(self, before: float, error: float = 0.0) -> bool:
        """Whether it differs from what it was, beyond error and tolerance."""
        spread = SIGNIFICANT * math.hypot(self.error, error)
        return not abs(self.value - before) <= max(spread, self.tolerance)


@dataclass(frozen=True)
class Merit:
    """A figure that judges a calibration.

    Parameters
    ----------
    name
        Its name, with unit.
    value
        What was reached, on data that the fit has not seen where there is a fit.
    error
        Standard error; not a number where it has none.
    limit
        Greatest value that is good enough, or the least one.
    is_floor
        Whether the limit is the least value.
    remedy
        What to do where it is not good enough; empty where that depends.
    """

    name: str
    value: float
    error: float
    limit: float
    is_floor: bool = False
    remedy: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether it is good enough; what is no number is not."""
        if self.is_floor:
            return self.value >= self.limit
        return self.value <= self.limit

    def text(self) -> str:
        """Value, error and limit in a few words."""
        spread = f" ± {self.error:.2g}" if math.isfinite(self.error) else ""
        sign = ">=" if self.is_floor else "<="
        return f"{self.name} {self.value:.3g}{spread} ({sign} {self.limit:.3g})"


@dataclass(frozen=True, eq=False)
class Series:
    """Points, a curve or arrows in a figure.

    Parameters
    ----------
    name
        What they are; a curve is a line, everything else points.
    x, y
        Places, ``(point,)``.
    error
        Standard error of y, a band about a line; None where not known.
    arrow
        Length along x and y of an arrow from each point; None for no arrows.
    is_line
        Draw a line through them.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    error: ArrayLike | None = None
    arrow: tuple[ArrayLike, ArrayLike] | None = None
    is_line: bool = False


@dataclass(frozen=True, eq=False)
class Figure:
    """What a calibration shows of itself.

    Parameters
    ----------
    name
        Stem of its file.
    title, caption
        Above and below it.
    x_label, y_label
        Its axes, with units.
    series
        What is drawn.
    scale
        Of the axes.
    names
        Of 0, 1 and so on along x, where those count things; empty for numbers.
    arrows
        How many times as long as they are arrows are drawn.
    """

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    scale: Literal["linear", "loglog", "logy", "image"] = "linear"
    names: tuple[str, ...] = ()
    arrows: float = 1.0


@dataclass(frozen=True, eq=False)
class Finding:
    """What a calibration found.

    Parameters
    ----------
    values
        Of the record, by the keys of its schema, without ``kind``; arrays become
        files beside it.
    quantities
        What ``--check`` compares.
    merits
        What judges it.
    figures
        What the report draws.
    conditions
        Numbers under which it was measured.
    remarks
        Sentences that a person should read.
    """

    values: Mapping[str, Value]
    quantities: Mapping[str, Quantity]
    merits: tuple[Merit, ...]
    figures: tuple[Figure, ...] = ()
    conditions: Mapping[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """One kind of calibration.

    Parameters
    ----------
    name
        Its name, as in records and on the command line.
    text
        What it measures, in a few words.
    of
        Roles of the devices that it is about: it holds for these alone.
    measure
        The procedure: drives the stand, fits, returns what it found. Raises an
        :class:`labctl.errors.OutcomeError` that names what is wrong.
    needs
        Kinds that must hold before.
    looks_at_outputs
        Whether it uses the bench's outputs: where the bench file has a drawing these
        lie where ``mapping`` says, which must hold before as well.
    views
        Where the camera may look; empty for anywhere.
    roles
        Optional devices that the bench must have.
    depends_on_wavelength
        Whether it holds at one wavelength only.
    valid_days
        How long it holds.
    limits
        Limits of its merits, by name.
    least
        What merits are never below, by name, where that is not 0: nor can a limit be.
    asked
        Says what the bench file asks of it that a record in force does not have; empty
        for nothing.
    """

    name: str
    text: str
    of: tuple[str, ...]
    measure: Callable[[Stand, Mapping[str, float]], Finding]
    needs: tuple[str, ...] = ()
    looks_at_outputs: bool = False
    views: tuple[View, ...] = ()
    roles: tuple[Role, ...] = ()
    depends_on_wavelength: bool = False
    valid_days: float = 30.0
    limits: Mapping[str, float] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    asked: Callable[[Bench, CalibrationRecord], str] | None = None
