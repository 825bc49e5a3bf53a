"""The devices of a bench: opened in order, kept within limits, dark on every way out.

::

    with bench.open(bench.load("sim")) as table:
        taken = table.configure_camera(exposure_s=1e-3)
        table.light(power_mw=2.0)

The laser opens first, in the guard's process, so that it is known dark before
anything else can fail; everything is closed in reverse, dark first, every step
attempted. Every call of a device has a deadline (:mod:`labctl.bounded`). Limits of
the bench file are checked here and nowhere else: through :func:`limit_faults`, by a
run before anything opens, by the two doors :meth:`Bench.light` and
:meth:`Bench.configure_camera`, and at every sign of life (:meth:`Bench.beat`) what
only shows in use: the meters and the duty. The guard watches the laser's own faults.

A :class:`SafetyError` that leaves the bench latches it (:mod:`labctl.state`).
"""

import math
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from labctl import (
    bounded,
    calibration,
    devices,
    document,
    option,
    registry,
    state,
    twin,
    waiting,
)
from labctl.bounded import BoundedSequence
from labctl.calibration import (
    BenchFile,
    CalibrationRecord,
    CameraResponse,
    DriverEntry,
    InForce,
    MeterLimits,
    PhaseCurve,
    ReservoirEntry,
    Settle,
    Wavefront,
    divides,
)
from labctl.devices import (
    CameraSettings,
    Clock,
    Device,
    Frame,
    Identity,
    Settings,
)
from labctl.document import Document
from labctl.duty import Lit
from labctl.errors import (
    CalibrationError,
    DeviceError,
    DeviceTimeoutError,
    Fault,
    InputError,
    MissingLibraryError,
    OutOfRangeError,
    ProtocolError,
    SafetyError,
    SilentRunError,
)
from labctl.guard import GuardedLaser, Patience, given_to_laser, laser_fault
from labctl.placement import Bins, placed
from labctl.wired import WiredSequence

ENVIRONMENT: Final = "LABCTL_BENCH"
DEFAULT: Final = "sim"
FOLDER: Final = "calibrations"
# Real devices to labctl, yet nobody's lab: used where it is named.
LOOPBACK: Final = "loopback"
RAMP_STEP_S: Final = 0.02
# In the order in which they are opened.
ROLES: Final = (
    "laser",
    "slm",
    "camera",
    "meter",
    "thermometer",
    "shutter",
    "attenuator",
)


@final
class RealClock(Clock):
    """Time that passes by itself, in seconds of :func:`time.monotonic`."""

    @override
    def now(self) -> float:
        return time.monotonic()

    @override
    def sleep(self, seconds: float) -> None:
        if not seconds >= 0:
            text = f"clock: seconds={seconds}, expected 0 or more"
            raise ValueError(text)
        time.sleep(seconds)


@dataclass(frozen=True)
class BenchSource:
    """A bench file that was read and found valid; nothing is open.

    Parameters
    ----------
    file
        What it says, overrides applied.
    path
        Where it was found.
    text
        As it was written.
    sha256
        Hash of its bytes.
    document
        The same with the place of every key.
    """

    file: BenchFile
    path: Path
    text: str
    sha256: str
    document: Document[BenchFile] = field(repr=False, compare=False)

    def records(self) -> dict[str, CalibrationRecord]:
        """Read the calibration records that are in force.

        Returns
        -------
        records
            By kind, such as ``slm-phase``.

        Raises
        ------
        CalibrationError
            A record is missing, stale or damaged.
        """
        return calibration.load_records(self.path, self.sha256)

    def in_force(self) -> dict[str, InForce]:
        """Read the calibration records in force, also those that hold no more.

        Returns
        -------
        records
            By kind, each with why it does not hold.

        Raises
        ------
        CalibrationError
            A record is missing or damaged.
        """
        return calibration.in_force(self.path, self.sha256)


def choose(protocol_bench: str | None, option: str | None) -> tuple[str, str]:
    """Decide which bench to use.

    Parameters
    ----------
    protocol_bench
        What the protocol names, if it does.
    option
        What the command line names, if it does.

    Returns
    -------
    name
        Name or path of the bench.
    reason
        Why it is this one, for the first line of a run.

    Raises
    ------
    InputError
        The environment names a bench that is not there.
    """
    if option is not None:
        return option, "named by --bench"
    if protocol_bench is not None:
        return protocol_bench, "named by the protocol"
    from_environment = os.environ.get(ENVIRONMENT, "")
    if from_environment:
        try:
            document.find_bench(from_environment)
        except InputError as err:
            text = f"{ENVIRONMENT}={err} Or unset {ENVIRONMENT}."
            raise InputError(text) from err
        return from_environment, f"named by {ENVIRONMENT}"
    there = survey()
    if len(there.real) == 1 and not there.doubtful:
        return there.real[0], f"the only real bench in {FOLDER}{there.notes()}"
    count = len(there.real)
    found = {0: "no real bench", 1: "1 real bench"}.get(count, f"{count} real benches")
    return DEFAULT, f"{found} in {FOLDER}{there.notes()}"


@dataclass(frozen=True)
class Survey:
    """The bench files of the current directory, also those that have faults.

    Parameters
    ----------
    real
        Names of the benches that have no simulated light, in alphabetical order.
    broken
        Bench files that cannot be used; none of them stops anybody who wants another.
    doubtful
        Those of them that may be of a real bench.
    """

    real: tuple[str, ...]
    broken: tuple[Path, ...]
    doubtful: tuple[Path, ...]

    def notes(self) -> str:
        """Name the files that have faults, as the end of a line."""
        return "".join(
            f"; {path.as_posix()} has faults"
            + (" and may be a real bench" if path in self.doubtful else "")
            + f": labctl validate {path.as_posix()}"
            for path in self.broken
        )


def survey() -> Survey:
    """Look at every bench file of the current directory.

    Returns
    -------
    survey
        Which are real; a file with faults is named, not raised.
    """
    real: list[str] = []
    broken: list[Path] = []
    for path in sorted(Path(FOLDER).glob("*/bench.yaml")):
        if path.parent.name == LOOPBACK:
            continue
        try:
            if not load(path).file.simulated:
                real.append(path.parent.name)
        except ProtocolError:
            broken.append(path)
    doubtful = tuple(path for path in broken if not seems_simulated(path))
    return Survey(tuple(real), tuple(broken), doubtful)


def seems_simulated(path: Path) -> bool:
    """Whether a bench file that has faults is of simulated light, as far as it shows.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    simulated
        False also where the file cannot be read at all.
    """
    try:
        return document.glance(path).get("world") is not None
    except ProtocolError:
        return False


def load(name: str | Path, overrides: Sequence[str] = ()) -> BenchSource:
    """Read and check a bench file; nothing is opened.

    Parameters
    ----------
    name
        Name of the bench, or path of its file.
    overrides
        Changes such as ``world.options.medium.b=2``; simulated benches only.

    Returns
    -------
    source
        The bench file.

    Raises
    ------
    InputError
        It is not there or has faults, or overrides are given for a real bench.
    """
    path = document.find_bench(name)
    read = document.read(path, BenchFile, overrides=overrides)
    if overrides and not read.value.simulated:
        text = (
            f"{path}: {overrides[0]} would change a real bench, expected a simulated "
            "one. Change the bench file itself."
        )
        raise InputError(text)
    return BenchSource(read.value, path, read.text, read.sha256, read)


def limit_faults(
    file: BenchFile, *, power_mw: float | None = None, exposure_s: float | None = None
) -> list[str]:
    """Compare values with the limits of a bench file.

    Parameters
    ----------
    file
        The bench file.
    power_mw
        Power that is wanted; None is not checked.
    exposure_s
        Exposure time that is wanted; None is not checked.

    Returns
    -------
    faults
        One sentence for each value beyond its limit; empty if all is well. The
        power is judged by its densities as well, where they are limited.
    """
    return [
        f"{key}={got:g}, expected 0 to {most:g} (bench {file.name}). Lower "
        f"{'it' if key in {'power_mw', 'exposure_s'} else 'power_mw'} in the protocol, "
        f"or raise limits.{key} in the bench file."
        for key, got, most in file.limits.exceeded(
            power_mw=power_mw, exposure_s=exposure_s
        )
    ]


@final
@dataclass(kw_only=True, eq=False)
class Bench:
    """Devices that are used together, and all that a run may do with them.

    Made by :func:`open`; a context manager that closes on every way out.

    Parameters
    ----------
    source
        The bench file it came from.
    file
        What it is made of: the source's file, or that of its simulated twin.
    notice
        Sentence for the first and last line where a simulated twin stands in;
        empty otherwise.
    clock
        Time of this bench: virtual where the light is simulated.
    laser, slm, camera, meter, shutter, attenuator, thermometer
        The devices; None where the bench has none of that role. Set power and
        exposure through :meth:`light` and :meth:`configure_camera` only.
    sequence
        Capability to play patterns in one go.
    world
        The simulated light path.
    beam
        File through which the simulated laser lights the simulated world.
    calibrations
        Records in force, by kind.
    doubts
        Why a calibration is missing or does not hold, by kind, on a bench that was
        opened all the same.
    is_lenient
        Whether calibrations that do not hold are used, and missing ones replaced by
        nominal numbers.
    takeover
        Sentences about what others left: a process that had this bench and died, a beam
        that has to rest first; empty if there is nothing to say.
    """

    source: BenchSource
    file: BenchFile
    notice: str
    clock: Clock
    laser: GuardedLaser
    slm: devices.SLM
    camera: devices.Camera
    meter: devices.Meter | None = None
    shutter: devices.Shutter | None = None
    attenuator: devices.Attenuator | None = None
    thermometer: devices.Meter | None = None
    sequence: devices.Sequence | None = None
    world: devices.World | None = None
    beam: Path | None = None
    calibrations: dict[str, CalibrationRecord] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    is_lenient: bool = False
    takeover: str = field(default="", init=False)
    _oracle: devices.Oracle | None = None
    _power_mw: float = field(default=0.0, init=False)
    _lit: Lit = field(default_factory=Lit, init=False)
    _metered_s: dict[str, float] = field(default_factory=dict, init=False)
    _opened: dict[str, Device] = field(default_factory=dict, init=False)
    _undo: list[Callable[[], None]] = field(default_factory=list, init=False)

    @property
    def simulated(self) -> bool:
        """Whether the light is simulated."""
        return self.file.simulated

    @property
    def latch_name(self) -> str:
        """What a safety stop latches: this bench, or its simulated twin alone."""
        return _latch_name(self.source, self.file)

    def open(self) -> None:
        """Open every device, the laser first and dark; all of them or none.

        Raises
        ------
        LatchedError
            A safety stop latched this bench; nothing was touched.
        InputError
            Another process has this bench.
        DeviceError
            A device does not answer, or is another one than the bench file names.
        CalibrationError
            A calibration belongs to another device.
        """
        if self._undo:
            name = f"bench {self.file.name}"
            raise DeviceError(name, "open", "is open already. Close it first.")
        with self._closing_on_error():
            self._take()

    def oracle(self) -> devices.Oracle:
        """Return the capability to tell the true gradient.

        Returns
        -------
        oracle
            The capability; for reference lines only.

        Raises
        ------
        InputError
            This bench has none.
        """
        if self._oracle is None:
            text = (
                f"bench {self.file.name}: oracle=none, expected a simulated bench that "
                "has one. Leave reference.oracle out of the protocol, or use another."
            )
            raise InputError(text)
        return self._oracle

    def phase_curve_rad(self) -> NDArray[np.float64]:
        """Phase of each gray level, by the calibration in force.

        Returns
        -------
        curve
            ``(level,)``, in rad, rising; or ``(row, column, level)`` where regions of
            the panel have one each.

        Raises
        ------
        CalibrationError
            No calibration of kind ``slm-phase`` is in force, or its regions do not
            divide the panel.
        """
        record = self.calibrations.get("slm-phase")
        if record is None or not isinstance(record.values, PhaseCurve):
            text = (
                f"bench {self.file.name}: calibration slm-phase=none, expected one in "
                f"force. Add a record to current.yaml beside {self.source.path}."
            )
            raise CalibrationError(text)
        found = record.values.curve(self.slm.bit_depth, self.source.path.parent)
        if found.ndim > 1 and not divides(found.shape[:2], self.slm.shape):
            text = (
                f"calibration slm-phase: {found.shape[0]} x {found.shape[1]} regions, "
                f"expected them to divide {self.slm.shape[0]} x {self.slm.shape[1]} "
                "pixels of the panel. Measure again on this panel."
            )
            raise CalibrationError(text)
        return found

    def correction_rad(self) -> NDArray[np.float64] | None:
        """Phase that corrects the wavefront, by the calibration in force.

        Returns
        -------
        correction
            Of each pixel of the panel, ``(row, column)``; None where there is none.

        Raises
        ------
        CalibrationError
            It is of another panel.
        """
        record = self.calibrations.get("wavefront")
        if record is None or not isinstance(record.values, Wavefront):
            return None
        found = record.values.phase_rad.load(self.source.path.parent)
        if found.shape != self.slm.shape:
            text = (
                f"calibration wavefront: {record.values.phase_rad.file}: "
                f"shape={list(found.shape)}, expected {list(self.slm.shape)}, that of "
                "the panel. Measure again on this panel."
            )
            raise CalibrationError(text)
        return found

    def bins(self, entry: ReservoirEntry) -> Bins:
        """Find the pixels of the outputs, by the calibration in force.

        Parameters
        ----------
        entry
            Region and bins of the operating point.

        Returns
        -------
        bins
            The region as it stands, or moved to where its light falls.

        Raises
        ------
        CalibrationError
            The bench file has a drawing and no calibration of kind ``mapping`` is in
            force, or by that the bins are not on the sensor.
        """
        return placed(entry, self.file.drawing, self.calibrations.get("mapping"))

    def light(
        self, power_mw: float, *, listen: Callable[[], None] | None = None
    ) -> None:
        """Bring light of a power onto the panel.

        With an attenuator the laser stays at the greatest power that the bench
        file allows, so that it stays warm, and the attenuator does the rest.

        Parameters
        ----------
        power_mw
            Power behind the attenuator, or of the laser where there is none.
        listen
            Called at every step of a ramp; what it raises ends the ramp, dark.

        Raises
        ------
        OutOfRangeError
            Beyond the limits of the bench file; nothing was sent.
        LabctlError
            A device refused or failed; the light is off.
        """
        self._refuse_beyond(self.laser.name, power_mw=power_mw)
        if not self._power_mw:
            self._rest_first()
        start_mw = power_mw
        if self.file.limits.ramp_mw_per_s is not None:
            start_mw = self._power_mw or min(self.power_range_mw[0], power_mw)
        try:
            self._note_lit()
            if self.attenuator is not None:
                self.attenuator.set_transmission(start_mw / self.file.limits.power_mw)
                self.laser.set_power_mw(self.file.limits.power_mw)
            else:
                self.laser.set_power_mw(start_mw)
            self.laser.emission(True)
            if self.shutter is not None:
                self.shutter.set_open(True)
            self._power_mw = power_mw
            self._ramp(start_mw, power_mw, listen)
        except BaseException as err:
            _add(err, self._blocked())
            raise

    def dark(self, *, at_once: bool = False) -> None:
        """Take the light off the panel, in the way that the bench file names.

        Parameters
        ----------
        at_once
            Without a ramp, as a safety stop does.
        """
        if self._power_mw and not at_once:
            self._ramp(self._power_mw, min(self.power_range_mw[0], self._power_mw))
        self._power_mw = 0.0
        if self.shutter is not None:
            self.shutter.set_open(False)
        if self.file.dark == "emission_off":
            self.laser.emission(False)
        self._note_dark()

    @contextmanager
    def dark_after(self) -> Iterator[None]:
        """Take the light off at the end; a failure does so in every way there is.

        Raises
        ------
        SafetyError
            The guard had stopped the run before it failed: this is why.
        """
        try:
            yield
        except BaseException as err:
            failures = self._blocked()
            why = self._why(err)
            _add(why, failures)
            if why is err:
                raise
            raise why from err
        self.dark()

    def _why(self, error: BaseException) -> BaseException:
        """Tell what a failure comes from, where the laser or its guard knows."""
        if isinstance(error, SafetyError):
            return error
        stopped = self.laser.stopped()
        # A device that hangs makes the run silent: it is the cause, not the effect.
        hung = isinstance(error, DeviceTimeoutError)
        if stopped is not None and hung and isinstance(stopped, SilentRunError):
            error.add_note(f"meanwhile: {stopped}")
            return error
        if stopped is None and isinstance(error, DeviceError):
            stopped = self._unread(error) or self._laser_fault()
        return error if stopped is None else stopped

    def _unread(self, error: DeviceError) -> SafetyError | None:
        """Tell that a meter failed whose readings keep the bench safe."""
        if error.device not in {meter.name for meter, _ in self._watched()}:
            return None
        text = f"{error.device}: no reading ({error}), expected one. Look at it."
        return SafetyError(text)

    def _watched(self) -> Iterator[tuple[devices.Meter, MeterLimits]]:
        """Meters whose readings keep the bench safe, and what they have to show."""
        limits = self.file.limits
        for meter, bounds in (
            (self.meter, limits.meter),
            (self.thermometer, limits.thermometer),
        ):
            if meter is not None and bounds is not None:
                yield meter, bounds

    def _laser_fault(self) -> SafetyError | None:
        """Ask the laser whether it failed, as frames without light make one think."""
        if not self.laser.is_open:
            return None
        try:
            found = self.laser.faults()
        except DeviceError:  # what the run failed of is told, and closing tells this
            return None
        outcome = "the run ends, and makes it dark"
        return laser_fault(self.laser.name, found, outcome) if found else None

    @contextmanager
    def digital(self, seconds: float) -> Iterator[None]:
        """Announce work without signs of life; the beam is blocked meanwhile.

        Parameters
        ----------
        seconds
            Longest time that it may take: the guard stops the run after it.
        """
        power_mw = self._power_mw
        if power_mw:
            self.dark()
        self.laser.deadline(seconds)
        yield
        self.laser.beat()
        if power_mw:
            self.light(power_mw)

    def configure_camera(
        self,
        *,
        exposure_s: float,
        gain_db: float = 0.0,
        region: tuple[int, int, int, int] | None = None,
    ) -> CameraSettings:
        """Set exposure, gain and region of the camera, within the bench's limits.

        Parameters
        ----------
        exposure_s
            Exposure time.
        gain_db
            Gain.
        region
            Row, column, height and width, in pixels; None for the sensor.

        Returns
        -------
        taken
            What the camera really took.

        Raises
        ------
        OutOfRangeError
            Beyond the limits of the bench file or the camera; nothing was sent.
        """
        self._refuse_beyond(self.camera.name, exposure_s=exposure_s)
        return self.camera.configure(
            exposure_s=exposure_s, gain_db=gain_db, region=region
        )

    def beat(self, *, rests: bool = True) -> None:
        """Tell the guard that the run is alive: at every shot and every fit step.

        Looks at the meters, and rests in the dark where the duty asks for it.

        Parameters
        ----------
        rests
            Whether it rests, and lights again after it; without, :meth:`rest_s` is for
            the caller to ask and to obey.

        Raises
        ------
        SafetyError
            The guard stopped the run, or a meter is silent, stale or out of
            range.
        """
        self.laser.beat()
        if self._power_mw:
            for meter, limits in self._watched():
                self._check_meter(meter, limits)
            if rests:
                self._rest()

    def frame(
        self,
        timeout_s: float,
        *,
        listen: Callable[[], None] | None = None,
        listen_s: float = math.inf,
    ) -> Frame:
        """Take a frame from the camera, with signs of life while it is waited for.

        Parameters
        ----------
        timeout_s
            Longest time to wait.
        listen
            Called at every sign of life; what it raises ends the wait.
        listen_s
            Longest time between two of them.

        Returns
        -------
        frame
            The answer to the oldest trigger that has none yet.

        Raises
        ------
        FrameError
            ``timeout``, or what the camera says of the frame.
        SafetyError
            As :meth:`beat`.
        """

        def alive() -> None:
            self.beat(rests=False)
            if listen is not None:
                listen()

        turn_s = min(self.file.turn_s, listen_s)
        return waiting.frame(self.camera, timeout_s, turn_s=turn_s, beat=alive)

    def judge_saturation(self, pixels: int) -> None:
        """Stop the run over saturated pixels, where the bench file says so.

        Parameters
        ----------
        pixels
            How many there were in a frame.

        Raises
        ------
        SafetyError
            There are some, and the bench file says stop.
        """
        if pixels and self.file.limits.on_saturation == "stop":
            text = (
                f"{self.camera.name}: saturated_px={pixels}, expected 0 (bench file: "
                "on_saturation). Lower the power or the exposure."
            )
            raise SafetyError(text)

    def identities(self) -> dict[str, Identity]:
        """Who each device says it is, by role."""
        return {role: device.identity() for role, device in self._opened.items()}

    def settings(self) -> dict[str, Settings]:
        """Every setting of each device and of the simulated light path, by role."""
        settings = {role: device.settings() for role, device in self._opened.items()}
        if self.world is not None:
            settings["world"] = self.world.describe()
        return settings

    def close(self) -> None:
        """Make dark, then close every device in reverse, each step attempted.

        Raises
        ------
        LabctlError
            The gravest of what failed, the others as notes on it.
        """
        failures = self._closed()
        if failures:
            worst = _gravest(failures)
            self._latch(worst)
            raise worst

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._close_on(error)

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException as err:
            self._close_on(err)
            raise

    def _close_on(self, error: BaseException) -> None:
        failures = self._closed()
        for each in (error, *failures):
            self._latch(each)
        _add(error, failures)

    def _latch(self, error: BaseException) -> None:
        if isinstance(error, SafetyError) and error.latches:
            state.latch(self.latch_name, str(error))
            error.add_note(
                "The bench is latched dark. Look at it, then: labctl clear --bench "
                f"{self.latch_name} --reason TEXT"
            )

    def _refuse_beyond(
        self,
        name: str,
        *,
        power_mw: float | None = None,
        exposure_s: float | None = None,
    ) -> None:
        """Refuse what is beyond a limit of the bench file.

        Raises
        ------
        OutOfRangeError
            The first that is.
        """
        for key, got, most in self.file.limits.exceeded(
            power_mw=power_mw, exposure_s=exposure_s
        ):
            raise OutOfRangeError(name, key, got, low=0, high=most, source="bench file")

    @property
    def power_range_mw(self) -> tuple[float, float]:
        """Least and greatest power that can be brought onto the panel, lit."""
        most_mw = self.file.limits.power_mw
        if self.attenuator is None:
            low_mw, high_mw = self.laser.power_limits_mw
            return low_mw, min(high_mw, most_mw)
        least, most = self.attenuator.transmission_limits
        return least * most_mw, most * most_mw

    def _set_power(self, power_mw: float) -> None:
        if self.attenuator is None:
            self.laser.set_power_mw(power_mw)
        else:
            self.attenuator.set_transmission(power_mw / self.file.limits.power_mw)

    def _ramp(
        self,
        start_mw: float,
        target_mw: float,
        listen: Callable[[], None] | None = None,
    ) -> None:
        rate = self.file.limits.ramp_mw_per_s
        if rate is None or start_mw == target_mw:
            return
        steps = math.ceil(abs(target_mw - start_mw) / (rate * RAMP_STEP_S))
        for step in range(1, steps + 1):
            self.clock.sleep(RAMP_STEP_S)
            if listen is not None:
                listen()
            self._set_power(start_mw + (target_mw - start_mw) * step / steps)

    def _note_lit(self) -> None:
        # Before the light: a run that is killed now has had it.
        if self._lit.since_s is None:
            if _keeps_lit(self.file):
                self.laser.beam(True)
            self._lit.begin(self.clock.now())

    def _note_dark(self) -> None:
        if self._lit.since_s is not None:
            self._lit.end(self.clock.now())
            if _keeps_lit(self.file):
                self.laser.beam(False)

    def _check_meter(self, meter: devices.Meter, limits: MeterLimits) -> None:
        """Read a meter, not more often than it is worth.

        Raises
        ------
        SafetyError
            It is silent, stale or out of range.
        """
        name, now = meter.name, self.clock.now()
        if now - self._metered_s.get(name, -math.inf) < limits.oldest_s / 4:
            return
        self._metered_s[name] = now
        try:
            reading = meter.reading()
        except DeviceError as err:
            raise self._unread(err) or err from err
        age_s = self.clock.now() - reading.time_s
        # One from beyond the end of an exposure that may be under way is of another
        # clock: it would stay young for ever.
        if not -self.file.limits.exposure_s <= age_s <= limits.oldest_s:
            text = (
                f"{name}: reading is {age_s:.3g} s old, expected 0 to "
                f"{limits.oldest_s:g} s (bench file): stale counts as unsafe. Look at "
                "it."
            )
            raise SafetyError(text)
        if not limits.low <= reading.value <= limits.high:
            text = (
                f"{name}: reading={reading.value:g} {meter.unit}, expected "
                f"{limits.low:g} to {limits.high:g} (bench file). Look at what it "
                "measures."
            )
            raise SafetyError(text)

    def rest_s(self) -> float:
        """Time that the beam has to be shut from now on, for its duty.

        Returns
        -------
        rest
            In s; 0 where it may be open.
        """
        limits = self.file.limits
        if limits.duty is None:
            return 0.0
        window_s = limits.duty_window_s
        return self._lit.rest_s(self.clock.now(), duty=limits.duty, window_s=window_s)

    def _rest(self) -> None:
        rest_s = self.rest_s()
        if not rest_s:
            return
        with self.digital(rest_s + self.file.heartbeat_s):
            self.clock.sleep(rest_s)
        # What they held before the pause is old.
        self._metered_s = dict.fromkeys(self._metered_s, self.clock.now())

    def _rest_first(self) -> None:
        """Wait in the dark for what earlier light, also of other runs, asks for."""
        rest_s = self.rest_s()
        if rest_s:
            self.laser.deadline(rest_s + self.file.heartbeat_s)
            self.clock.sleep(rest_s)
            self.laser.beat()

    def _take(self) -> None:
        self._own()
        if isinstance(self.sequence, BoundedSequence):
            self._undo.append(self.sequence.end)
        for role in ROLES:
            device: Device | None = getattr(self, role)
            if device is not None:
                self._undo.append(device.close)
                device.open()
                self._opened[role] = device
                self._compare_serial(role, device)
        self.check_wiring()
        self._recall_light()
        self._compare_pulses()
        if self.notice:
            self.calibrations = twin.calibrations(
                self.file.name,
                self.source.sha256,
                self.slm.settle_s,
                {} if self.world is None else self.world.describe(),
            )
        self._compare_records()

    def _recall_light(self) -> None:
        """Take up when the beam was open in earlier runs; nobody's, where simulated."""
        self._lit = Lit(self.laser.lit_spans)
        said = [self.takeover, self.laser.lit_doubt]
        rest_s = self.rest_s()
        if rest_s:
            said.append(
                f"bench {self.file.name}: the beam was open in earlier runs and rests "
                f"{rest_s:.0f} s first (limits.duty)."
            )
        self.takeover = " ".join(filter(None, said))

    def _own(self) -> None:
        """Take the bench, or make the folder of a simulated one.

        Raises
        ------
        LatchedError
            It is latched.
        """
        latched = state.latched(self.latch_name)
        if latched is not None:
            raise latched.error()
        if self.beam is None or self.world is None:
            owned = state.Ownership(self.file.name)
            self._undo.append(owned.release)
            if owned.stale is not None:
                self.takeover = (
                    f"bench {self.file.name}: {owned.stale} had it and died without "
                    "giving it back. Its lock was free and is taken over."
                )
        else:
            folder = self.beam.parent
            folder.mkdir(mode=0o700)
            self._undo.append(lambda: shutil.rmtree(folder))
            # The world has the beam mapped, and on Windows a mapped file stays.
            self._undo.append(self.world.close)

    def _compare_serial(self, role: str, device: Device) -> None:
        wanted = getattr(self.file.devices, role).serial
        serial = device.identity().serial
        if wanted is not None and serial != wanted:
            text = (
                f"serial={serial or 'none'}, expected {wanted} (bench file). "
                "Connect that device, or correct the bench file."
            )
            raise _OtherDeviceError(role, "open", text)

    def check_wiring(self) -> None:
        """Refuse cables that panel and camera, both open, cannot use.

        By the settling in force.

        Raises
        ------
        DeviceError
            No output, no such line, or no delay as long as the settling.
        """
        if not isinstance(self.sequence, WiredSequence):
            return
        record, settle_s = self.calibrations.get("settle"), self.slm.settle_s
        if record is not None and isinstance(record.values, Settle):
            settle_s = record.values.settle_s
        self.sequence.check(settle_s)

    def _compare_pulses(self) -> None:
        # A lower rate or a shorter pulse makes a density greater than was checked.
        limits = self.file.limits
        for key in ("repetition_rate_hz", "pulse_width_fs"):
            got, least = getattr(self.laser, key), getattr(limits, key)
            if got is not None and least is not None and got < 0.999 * least:
                text = (
                    f"{key}={got:g}, expected at least {least:g}, for which limits "
                    f"were checked (bench file). Correct limits.{key}."
                )
                raise DeviceError(self.laser.name, "open", text)

    def _compare_records(self) -> None:
        for kind, record in self.calibrations.items():
            mismatch = self.mismatch(record)
            if mismatch and self.is_lenient:
                self.doubts.setdefault(kind, f"{mismatch}.")
            elif mismatch:
                text = (
                    f"calibration {kind}: {mismatch}. Measure again on this bench: "
                    "labctl calibrate."
                )
                raise CalibrationError(text)
        for values in _nominal(self) if self.is_lenient else ():
            if values.kind not in self.calibrations:
                self.doubts[values.kind] = "none is in force."
                self.calibrations[values.kind] = _declared(self, values)

    def mismatch(self, record: CalibrationRecord) -> str:
        """Say where a calibration is of another device than this bench has.

        Parameters
        ----------
        record
            The calibration.

        Returns
        -------
        mismatch
            What differs; empty if nothing does.
        """
        serials = {role: who.serial for role, who in self.identities().items()}
        return record.mismatch(serials, self.laser.wavelength_nm, self.geometry)

    @property
    def geometry(self) -> dict[str, tuple[int, int]]:
        """Height and width of panel and sensor, by role."""
        return {"slm": self.slm.shape, "camera": self.camera.shape}

    def _blocked(self) -> list[BaseException]:
        # A stop does both, whatever the bench file calls dark; the shutter first,
        # which is quick, while a laser may take its time.
        failures: list[BaseException] = []
        self._power_mw = 0.0
        shutter = self.shutter
        if shutter is not None and "shutter" in self._opened:
            _attempt(lambda: shutter.set_open(False), failures)
        if self.laser.is_open:
            _attempt(lambda: self.laser.emission(False), failures)
            if not failures:
                _attempt(self._note_dark, failures)
        return failures

    def _closed(self) -> list[BaseException]:
        failures = self._blocked()
        steps, self._undo, self._opened = self._undo, [], {}
        for step in reversed(steps):
            _attempt(step, failures)
        return failures


def construct(
    source: BenchSource,
    *,
    seed: int = 0,
    simulate: bool = False,
    fall_back: bool = False,
) -> Bench:
    """Construct the drivers of a bench without opening any: no I/O.

    Parameters
    ----------
    source
        The bench file.
    seed
        Seed of the simulated light path.
    simulate
        Construct the simulated twin instead.
    fall_back
        Construct it also where the library of a driver is missing and the bench file
        names it as fallback, as :func:`open` does.

    Returns
    -------
    bench
        Not open: good for asking shapes, and for refusing early.

    Raises
    ------
    ProtocolError
        Drivers or their options are refused: every fault with its line.
    InputError
        The twin cannot be made.
    MissingLibraryError
        Libraries of drivers are not installed.
    """
    order = _Order(source, source.file, "", seed, None)
    if simulate and not source.file.simulated:
        order = _twin(order, "because --simulate was given")
    try:
        return _assembled(order)
    except MissingLibraryError as err:
        if not fall_back or source.file.fallback is None:
            raise
        return _assembled(_twin(order, f"because a driver cannot be used ({err})"))


def faults(source: BenchSource) -> tuple[list[Fault], list[str], Bench | None]:
    """Check a bench as opening it does, without opening anything.

    Parameters
    ----------
    source
        The bench file.

    Returns
    -------
    faults
        Every fault of its drivers and their options, and of the twin that its file
        describes.
    unchecked
        What nobody can check here, as the library of a driver is not installed.
    made
        The bench itself, not open; None where it cannot be constructed.
    """
    found: list[Fault] = []
    unchecked: list[str] = []
    made: Bench | None = None
    has_twin = source.file.twin is not None or source.file.fallback is not None
    for simulate in (False, True) if has_twin else (False,):
        try:
            constructed = construct(source, simulate=simulate)
            made = made if simulate else constructed
        except MissingLibraryError as err:
            unchecked.append(str(err))
        except ProtocolError as err:
            found += err.faults
        except InputError as err:
            found.append(source.document.fault("twin", str(err)))
    return list(dict.fromkeys(found)), unchecked, made


def open(
    source: BenchSource,
    *,
    seed: int = 0,
    simulate: bool = False,
    patience: Patience | None = None,
    allow_uncalibrated: bool = False,
) -> Bench:
    """Open every device of a bench, the laser first and dark.

    Parameters
    ----------
    source
        The bench file.
    seed
        Seed of the simulated light path.
    simulate
        Open the simulated twin instead of the devices.
    patience
        How long to wait for a call of a device, and the guard for the run; None
        for the defaults and what the bench file asks for.
    allow_uncalibrated
        Use calibrations that do not hold, and nominal numbers for those that are
        missing; :attr:`Bench.doubts` says which.

    Returns
    -------
    bench
        The open bench: close it, or use it as a context manager.

    Raises
    ------
    InputError
        Refused before any device was opened: a driver, its options, a
        calibration, the lock.
    MissingLibraryError
        The library of a driver is not installed, and there is no fallback.
    DeviceError
        A device does not answer, and the bench file names no fallback.

    Notes
    -----
    A bench that is opened to be calibrated (``allow_uncalibrated``) falls back on
    nothing: what its twin measures says nothing about it.
    """
    order = _Order(source, source.file, "", seed, patience)
    has_fallback = source.file.fallback is not None and not allow_uncalibrated
    if simulate and not source.file.simulated:
        return _opened(_twin(order, "because --simulate was given"))
    try:
        bench = _assembled(order)
    except MissingLibraryError as err:
        if not has_fallback:
            raise
        return _opened(_twin(order, f"because a driver cannot be used ({err})"))
    if allow_uncalibrated:
        bench.is_lenient = True
        found = source.in_force()
        bench.calibrations = {kind: each.record for kind, each in found.items()}
        bench.doubts = {
            kind: " ".join(each.faults) for kind, each in found.items() if each.faults
        }
    else:
        bench.calibrations = source.records()
    try:
        bench.open()
    except DeviceError as err:
        # Another device than the one named does answer: a twin would hide that.
        if not has_fallback or isinstance(err, _OtherDeviceError):
            raise
        return _opened(_twin(order, f"because a device did not answer ({err})"))
    return bench


def _opened(order: "_Order") -> Bench:
    bench = _assembled(order)
    bench.open()
    return bench


class _OtherDeviceError(DeviceError):
    """The device that answers is not the one that the bench file names."""


@dataclass(frozen=True)
class _Order:
    """What to make a bench of."""

    source: BenchSource
    file: BenchFile
    notice: str
    seed: int
    patience: Patience | None


def _latch_name(source: BenchSource, file: BenchFile) -> str:
    is_twin = file.simulated and not source.file.simulated
    return f"{file.name}-twin" if is_twin else file.name


def _keeps_lit(file: BenchFile) -> bool:
    # Virtual time begins with its run.
    return not file.simulated and file.limits.duty is not None


class _Parts:
    """Drivers that were constructed, and what is wrong with those that were not."""

    def __init__(self, order: _Order) -> None:
        self._source, self._is_twin = order.source, bool(order.notice)
        self._faults: list[Fault] = []
        self._missing: list[str] = []

    def make(
        self, entry: DriverEntry, key: str, role: type, own: Mapping[str, Any]
    ) -> Any:  # noqa: ANN401 - of the role asked for
        """Construct a driver; None where it cannot be, or what it needs could not."""
        what: dict[str, Any] = {
            "where": key,
            "role": role,
            "arguments": entry.options,
            "own": own,
        }
        try:
            factory = registry.check(entry.driver, **what)
            option.check(factory, key, entry.options)
            if any(own[need] is None for need in _NEEDED & {*own}):
                return None
            return registry.build(entry.driver, **what)
        except MissingLibraryError as err:
            self._missing.append(f"{key}: {err}")
        except ProtocolError as err:
            self._faults += [self._placed(fault) for fault in err.faults]
        return None

    def raise_refusals(self) -> None:
        """Tell all that was refused.

        Raises
        ------
        ProtocolError
            Every fault of the bench file, at its line.
        MissingLibraryError
            All that is wrong is that libraries are missing.
        """
        if self._faults:
            raise ProtocolError(self._faults)
        if self._missing:
            raise MissingLibraryError(" ".join(self._missing))

    def _placed(self, fault: Fault) -> Fault:
        key = fault.key
        if self._is_twin:  # devices.slm.options.faults stands at twin.slm.faults
            head, _, rest = key.partition(".options")
            head = head.removeprefix("devices.").removesuffix(".driver")
            key = f"twin.{head}{rest}"
        return self._source.document.fault(key, fault.text)


# Without these no driver can be constructed that asks for them.
_NEEDED: Final = frozenset({"world", "slm", "camera"})


def _assembled(order: _Order) -> Bench:
    """Construct every driver; no device is touched.

    Raises
    ------
    ProtocolError
        Drivers or their options are refused: every fault at its line.
    MissingLibraryError
        Libraries of drivers are not installed.
    """
    file = order.file
    made = _Parts(order)
    shared: dict[str, Any] = {}
    clock: Clock = RealClock()
    beam = None
    if file.world is not None:
        # Created when the bench opens; nobody else can have this name.
        beam = Path(tempfile.gettempdir()) / f"labctl-{uuid.uuid4().hex}" / "beam"
        own: dict[str, Any] = {
            "clock_start_s": 0.0,
            "seed": order.seed,
            "beam": beam,
        }
        world: devices.World | None = made.make(file.world, "world", devices.World, own)
        clock, shared = clock if world is None else world.clock, {"world": world}
    parts: dict[str, Any] = dict(shared)
    for role, kind in _HERE:
        entry: DriverEntry | None = getattr(file.devices, role)
        if entry is not None:
            own = {"name": role, "clock": clock, **shared}
            parts[role] = made.make(entry, f"devices.{role}", kind, own)
    pair = {"slm": parts["slm"], "camera": parts["camera"], **shared}
    if file.sequence is not None:
        parts["sequence"] = made.make(file.sequence, "sequence", devices.Sequence, pair)
    if file.oracle is not None:
        parts["_oracle"] = made.make(file.oracle, "oracle", devices.Oracle, pair)
    # Only to refuse it here: the one that lights is constructed by the guard.
    made.make(
        file.devices.laser,
        "devices.laser",
        devices.Laser,
        given_to_laser("laser", beam),
    )
    made.raise_refusals()
    return _joined(order, clock, beam, parts)


# Whose drivers live in this process: all but the laser's.
_HERE: Final = (
    ("slm", devices.SLM),
    ("camera", devices.Camera),
    ("meter", devices.Meter),
    ("shutter", devices.Shutter),
    ("attenuator", devices.Attenuator),
    ("thermometer", devices.Meter),
)


def _joined(
    order: _Order, clock: Clock, beam: Path | None, parts: dict[str, Any]
) -> Bench:
    file = order.file
    patience = order.patience or Patience(
        call_s=file.limits.call_s, heartbeat_s=file.heartbeat_s
    )
    laser = file.devices.laser
    guarded = GuardedLaser(
        "laser",
        laser.driver,
        laser.options,
        beam=beam,
        patience=patience,
        bench=_latch_name(order.source, file),
        keeps_lit=_keeps_lit(file),
    )
    within = parts | bounded.all_of(parts, patience.call_s)
    if file.wiring is not None:
        within["sequence"] = WiredSequence(
            slm=within["slm"],
            camera=within["camera"],
            meter=within.get("meter"),
            clock=clock,
            wire=file.wiring.exposure,
            patience_s=file.limits.exposure_s + file.frame_s,
            turn_s=file.turn_s,
            beat=guarded.beat,
        )
    return Bench(
        source=order.source,
        file=file,
        notice=order.notice,
        clock=clock,
        laser=guarded,
        beam=beam,
        **within,
    )


def _twin(order: _Order, because: str) -> _Order:
    real = order.file

    def device(role: str, kind: type) -> Any:  # noqa: ANN401 - of the role asked for
        made = _Parts(order)
        own = {"name": role, "clock": RealClock()}
        entry: DriverEntry = getattr(real.devices, role)
        driver = made.make(entry, f"devices.{role}", kind, own)
        made.raise_refusals()
        return driver

    file = twin.stand_in(
        real,
        order.source.path,
        slm=lambda: device("slm", devices.SLM),
        camera=lambda: device("camera", devices.Camera),
    )
    notice = f"bench {file.name}: SIMULATED by its twin, {because}."
    unlike = twin.unlike(real)
    return _Order(
        order.source,
        file,
        f"{notice} {unlike}" if unlike else notice,
        order.seed,
        order.patience,
    )


def _declared(bench: Bench, values: calibration.Values) -> CalibrationRecord:
    return CalibrationRecord(
        schema_version=1,
        origin="given",
        created=datetime.now(UTC),
        bench_sha256=bench.source.sha256,
        values=values,
    )


def _nominal(bench: Bench) -> tuple[calibration.Values, ...]:
    # What stands in for what was never measured: one turn over all levels, the
    # panel's worst case, outputs that stay counts, and a camera that is where it was
    # drawn.
    drawing = bench.file.drawing
    return (
        *(() if drawing is None else (drawing.mapping,)),
        PhaseCurve(kind="slm-phase", span_rad=2 * math.pi),
        Settle(kind="settle", settle_s=bench.slm.settle_s),
        CameraResponse(
            kind="camera",
            offset_dn=0.0,
            dark_dn_per_s=0.0,
            gain_dn_per_e=1.0,
            read_noise_e=0.0,
        ),
    )


def _attempt(step: Callable[[], object], failures: list[BaseException]) -> None:
    try:
        step()
    except BaseException as err:  # noqa: BLE001 - every step is attempted, then raised
        failures.append(err)


def _gravest(failures: Sequence[BaseException]) -> BaseException:
    # One error, not a group: its class decides the exit code, and a laser that is
    # still on outranks whatever else failed. The others are notes on it.
    # A bug of a driver (no LabctlError) comes next: its traceback is needed.
    def rank(error: BaseException) -> int:
        if isinstance(error, SafetyError):
            return 0
        return 2 if isinstance(error, DeviceError) else 1

    worst = min(failures, key=rank)
    for other in failures:
        if other is not worst:
            worst.add_note(f"and: {other}")
    return worst


def _add(error: BaseException, failures: Sequence[BaseException]) -> None:
    """Note what failed while closing; a laser that is still on comes first."""
    if not failures:
        return
    worst = _gravest(failures)
    if isinstance(worst, SafetyError):
        raise worst from error
    notes = getattr(worst, "__notes__", [])
    error.add_note("\n".join([f"while closing: {worst}", *notes]))
