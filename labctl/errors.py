"""Every error that labctl raises on purpose, on one page.

::

    LabctlError
    ├── InputError          exit 2   refused before a device opened
    │   ├── ProtocolError            a protocol or bench file: every fault, line by line
    │   ├── CalibrationError         missing, stale, failed, or of other hardware
    │   ├── MissingLibraryError      a driver's vendor library is not installed
    │   └── BudgetError              the ledger would be overspent
    ├── DeviceError         exit 3   a device failed
    │   ├── OutOfRangeError          a value beyond what the device can do
    │   ├── DeviceTimeoutError       no answer in time
    │   └── FrameError               a frame that cannot be accepted; carries its class
    ├── SafetyError         exit 4   a limit or an interlock stopped the run
    │   ├── InterlockError
    │   ├── LaserStillOnError
    │   ├── LatchedError             dark until a person lifts the latch
    │   └── SilentRunError           the guard heard nothing: dark, no latch
    ├── RecordError         exit 5   no room, locked, damaged
    └── OutcomeError        exit 6   measured, and not good enough
        ├── NotFiniteError           outputs of a device are no numbers
        └── SaturatedError           more light than the camera can count

Messages have one form: *where: what=got, expected …. Do ….* Classes that carry
fields build their message from them and keep them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from typing_extensions import override


class LabctlError(Exception):
    """An error for the person at the bench; the message says what to do."""

    exit_code: ClassVar[int] = 1
    #: What came of it all the same, for ``--json``.
    told: Mapping[str, object] = MappingProxyType({})


class InputError(LabctlError):
    """Refused before any device was opened."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a document, and where.

    Parameters
    ----------
    where
        The document: a file's path, or ``--set``.
    line
        Line, counted from 1; None where the fault has no line.
    column
        Column, counted from 1; None where the fault has no column.
    key
        Dotted path of the key, such as ``training.batch``.
    text
        What was got, what was expected, what to do.
    """

    where: str
    line: int | None
    column: int | None
    key: str
    text: str

    @override
    def __str__(self) -> str:
        place = self.where
        if self.line is not None:
            place += f" line {self.line}"
        if self.column is not None:
            place += f" column {self.column}"
        return ": ".join(part for part in (place, self.key, self.text) if part)


class ProtocolError(InputError):
    """A protocol or bench file that cannot be used.

    Parameters
    ----------
    faults
        Every fault that was found, in the order of the document.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class CalibrationError(InputError):
    """A calibration is missing, stale, failed, or belongs to other hardware."""


class MissingLibraryError(InputError):
    """A driver cannot be imported: the library of its vendor is not installed."""


class BudgetError(InputError):
    """Booking the shots would overspend the budget.

    Parameters
    ----------
    category
        What the shots were for.
    wanted
        Shots that were asked for.
    left
        Shots that the budget still holds.
    budget
        The budget of the run.
    """

    def __init__(self, category: str, wanted: int, left: int, budget: int) -> None:
        self.category, self.wanted, self.left, self.budget = (
            category,
            wanted,
            left,
            budget,
        )
        super().__init__(
            f"ledger: {category}={wanted} shots, expected at most {left} "
            f"(left of budget.shots={budget}). Raise budget.shots in the protocol, "
            "or ask for less."
        )


class DeviceError(LabctlError):
    """A device failed.

    Parameters
    ----------
    device
        Name of the device in the bench file.
    action
        What it was asked to do.
    detail
        What happened, and what to do.
    """

    exit_code = 3
    #: Exposures that a sequence had made by then; None where nobody can tell.
    exposed: int | None = None

    def __init__(self, device: str, action: str, detail: str) -> None:
        self.device, self.action, self.detail = device, action, detail
        super().__init__(f"{device}: {action}: {detail}")


class OutOfRangeError(DeviceError):
    """A value beyond what the device can do; nothing was sent.

    Parameters
    ----------
    device
        Name of the device in the bench file.
    quantity
        Name of the value, with its unit, such as ``power_mw``.
    got
        The value that was refused.
    low, high
        The range that the device accepts.
    source
        Who sets the range: ``device``, ``bench file`` or ``calibration``.
    """

    def __init__(
        self,
        device: str,
        quantity: str,
        got: object,
        *,
        low: object,
        high: object,
        source: str = "device",
    ) -> None:
        self.quantity, self.got, self.low, self.high = quantity, got, low, high
        self.source = source
        super().__init__(
            device, "set", f"{quantity}={got}, expected {low} to {high} ({source})"
        )


class DeviceTimeoutError(DeviceError):
    """A device did not answer in time.

    Parameters
    ----------
    device
        Name of the device in the bench file.
    action
        What it was asked to do.
    detail
        What happened, and what to do.
    seconds
        How long it was waited for; None where only the driver knows.
    """

    def __init__(
        self, device: str, action: str, detail: str, *, seconds: float | None = None
    ) -> None:
        self.seconds = seconds
        super().__init__(device, action, detail)


class FrameError(DeviceError):
    """A frame that cannot be accepted as the answer to its pattern.

    Parameters
    ----------
    device
        Name of the camera in the bench file.
    kind
        Class of the rejection: ``stale``, ``duplicate``, ``gap``, ``late``,
        ``incomplete``, ``wrong_shape``, ``trigger_refused``, ``timeout``,
        ``removed``.
    detail
        What was got and what was expected.
    exposed
        Exposures that a sequence had made by then; None where it cannot tell.
    """

    def __init__(
        self, device: str, kind: str, detail: str, *, exposed: int | None = None
    ) -> None:
        self.kind, self.exposed = kind, exposed
        super().__init__(device, f"frame {kind}", detail)


class SafetyError(LabctlError):
    """A safety limit or an interlock stopped the run."""

    exit_code = 4
    #: Whether the bench stays dark afterwards, until a person has looked at it.
    latches: ClassVar[bool] = True


class InterlockError(SafetyError):
    """The interlock is open; emission is refused."""


class LaserStillOnError(SafetyError):
    """The laser was told to go dark and still emits: turn its key by hand."""


class LatchedError(SafetyError):
    """The bench is latched dark; emission is refused until a person lifts it."""

    latches = False  # it is latched, and the first reason stays


class SilentRunError(SafetyError):
    """The run was silent, frozen or starved; the guard made the laser dark."""

    latches = False  # nothing is wrong with the bench


class RecordError(LabctlError):
    """The record cannot be written, read or repaired."""

    exit_code = 5


class OutcomeError(LabctlError):
    """Measured, and not good enough: a typed failure of a calibration or training.

    Parameters
    ----------
    text
        What happened.
    told
        What came of it all the same, for ``--json``.
    """

    exit_code = 6

    def __init__(self, text: str, *, told: Mapping[str, object] | None = None) -> None:
        super().__init__(text)
        if told is not None:
            self.told = told


class NotFiniteError(OutcomeError):
    """Outputs of a device that are no numbers; nothing may learn from them.

    Parameters
    ----------
    category
        What the exposures were for.
    layer, step
        Which device layer asked, and when.
    count, total
        Outputs that are not finite, and outputs there are.
    """

    def __init__(
        self, category: str, *, layer: int, step: int, count: int, total: int
    ) -> None:
        self.category, self.layer, self.step = category, layer, step
        self.count, self.total = count, total
        super().__init__(
            f"device: {category} exposures of layer {layer}, step {step}: "
            f"not finite={count} of {total} outputs, expected 0. Look at the frames "
            "and at the calibrations of the camera."
        )


class SaturatedError(OutcomeError):
    """More light in most frames than the camera can count; nothing may learn from it.

    Parameters
    ----------
    where
        Name of the camera.
    saturated, frames
        Frames that are saturated, and frames there are.
    pixels
        Share of its pixels from which on a frame is.
    """

    def __init__(
        self, where: str, *, saturated: int, frames: int, pixels: float
    ) -> None:
        self.where, self.saturated, self.frames = where, saturated, frames
        self.pixels = pixels
        super().__init__(
            f"{where}: saturated={saturated} of {frames} frames of the training "
            f"({saturated / frames:.0%}; more than {pixels:.0%} of their pixels), "
            "expected at most half of them. Lower reservoir.exposure_s, "
            "reservoir.power_mw or reservoir.gain_db, or put a filter before it."
        )


@contextmanager
def vendor_errors(where: str, action: str) -> Iterator[None]:
    """Turn whatever a library of many vendors raises into a device's error.

    For libraries that hand on what those below them raise; where a library has errors
    of its own, its driver maps those and no others.

    Parameters
    ----------
    where
        Name of the device.
    action
        What it was asked to do.

    Raises
    ------
    DeviceError
        Always, of an error of theirs.
    """
    try:
        yield
    except DeviceError:
        raise
    except Exception as err:  # vendors raise anything
        text = f"{type(err).__name__}: {err}. Look at the device and its software."
        raise DeviceError(where, action, text) from err
