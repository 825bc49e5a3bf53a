"""The devices of a bench: opened in order, kept within limits, dark on every way out.

::

    with bench.open(bench.load("sim")) as table:
        taken = table.configure_camera(exposure_s=1e-3)
        table.light(power_mw=2.0)

The laser opens first, in the guard's process, so that it is known dark before
anything else can fail; everything is closed in reverse, dark first, every step
attempted. Limits of the bench file are checked here and nowhere else: through
:func:`limit_faults`, by a run before anything opens, and by the two doors
:meth:`Bench.light` and :meth:`Bench.configure_camera`.
"""

import json
import math
import os
import shutil
import socket
import sys
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
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from typing_extensions import override

from labctl import calibration, devices, document, registry
from labctl.calibration import (
    BenchFile,
    CalibrationRecord,
    CameraResponse,
    Devices,
    DriverEntry,
    PhaseCurve,
    Settle,
)
from labctl.devices import CameraSettings, Clock, Device, Identity, Settings
from labctl.errors import (
    CalibrationError,
    DeviceError,
    InputError,
    OutOfRangeError,
    SafetyError,
)
from labctl.guard import GuardedLaser, Patience

ENVIRONMENT: Final = "LABCTL_BENCH"
STATE: Final = "LABCTL_STATE"
DEFAULT: Final = "sim"
FOLDER: Final = "calibrations"
SENSOR: Final = ("offset_dn", "dark_e_per_s", "gain_dn_per_e", "read_noise_e")


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
    """

    file: BenchFile
    path: Path
    text: str
    sha256: str

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
    """
    if option is not None:
        return option, "named by --bench"
    if protocol_bench is not None:
        return protocol_bench, "named by the protocol"
    from_environment = os.environ.get(ENVIRONMENT, "")
    if from_environment:
        return from_environment, f"named by {ENVIRONMENT}"
    real = [
        path.parent.name
        for path in sorted(Path(FOLDER).glob("*/bench.yaml"))
        if not load(path).file.simulated
    ]
    if len(real) == 1:
        return real[0], f"the only real bench in {FOLDER}"
    found = "no real bench" if not real else f"{len(real)} real benches"
    return DEFAULT, f"{found} in {FOLDER}"


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
    return BenchSource(read.value, path, read.text, read.sha256)


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
        One sentence for each value beyond its limit; empty if all is well.
    """
    wanted = {"power_mw": power_mw, "exposure_s": exposure_s}
    return [
        f"{key}={value:g}, expected 0 to {getattr(file.limits, key):g} (bench "
        f"{file.name}). Lower it in the protocol, or raise limits.{key} in the bench "
        "file."
        for key, value in wanted.items()
        if value is not None and not 0 <= value <= getattr(file.limits, key)
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
    laser, slm, camera, meter, shutter, attenuator
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
    sequence: devices.Sequence | None = None
    world: devices.World | None = None
    beam: Path | None = None
    calibrations: dict[str, CalibrationRecord] = field(default_factory=dict)
    _oracle: devices.Oracle | None = None
    _opened: dict[str, Device] = field(default_factory=dict, init=False)
    _undo: list[Callable[[], None]] = field(default_factory=list, init=False)

    @property
    def simulated(self) -> bool:
        """Whether the light is simulated."""
        return self.file.simulated

    def open(self) -> None:
        """Open every device, the laser first and dark; all of them or none.

        Raises
        ------
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
            ``(level,)``, in rad, rising.

        Raises
        ------
        CalibrationError
            No calibration of kind ``slm-phase`` is in force.
        """
        record = self.calibrations.get("slm-phase")
        if record is None or not isinstance(record.values, PhaseCurve):
            text = (
                f"bench {self.file.name}: calibration slm-phase=none, expected one in "
                f"force. Add a record to current.yaml beside {self.source.path}."
            )
            raise CalibrationError(text)
        return record.values.curve(self.slm.bit_depth, self.source.path.parent)

    def light(self, power_mw: float) -> None:
        """Bring light of a power onto the panel.

        With an attenuator the laser stays at the greatest power that the bench
        file allows, so that it stays warm, and the attenuator does the rest.

        Parameters
        ----------
        power_mw
            Power behind the attenuator, or of the laser where there is none.

        Raises
        ------
        OutOfRangeError
            Beyond the limits of the bench file; nothing was sent.
        LabctlError
            A device refused or failed; the light is off.
        """
        limit = self.file.limits.power_mw
        if limit_faults(self.file, power_mw=power_mw):
            name, source = self.laser.name, "bench file"
            raise OutOfRangeError(
                name, "power_mw", power_mw, low=0, high=limit, source=source
            )
        try:
            if self.attenuator is None:
                self.laser.set_power_mw(power_mw)
            else:
                self.attenuator.set_transmission(power_mw / limit)
                self.laser.set_power_mw(limit)
            self.laser.emission(True)
            if self.shutter is not None:
                self.shutter.set_open(True)
        except BaseException as err:
            _add(err, self._blocked())
            raise

    def dark(self) -> None:
        """Take the light off the panel, in the way that the bench file names."""
        if self.shutter is not None:
            self.shutter.set_open(False)
        if self.file.dark == "emission_off":
            self.laser.emission(False)

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
        limit = self.file.limits.exposure_s
        if limit_faults(self.file, exposure_s=exposure_s):
            name, source = self.camera.name, "bench file"
            raise OutOfRangeError(
                name, "exposure_s", exposure_s, low=0, high=limit, source=source
            )
        return self.camera.configure(
            exposure_s=exposure_s, gain_db=gain_db, region=region
        )

    def beat(self) -> None:
        """Tell the guard that the run is alive: at every shot and every fit step."""
        self.laser.beat()

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
            _add(error, self._closed())

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException as err:
            _add(err, self._closed())
            raise

    def _take(self) -> None:
        if self.beam is None or self.world is None:
            self._undo.append(_lock(self.file.name).release)
        else:
            folder = self.beam.parent
            folder.mkdir(mode=0o700)
            self._undo.append(lambda: shutil.rmtree(folder))
            # The world has the beam mapped, and on Windows a mapped file stays.
            self._undo.append(self.world.close)
        for role in ("laser", "slm", "camera", "meter", "shutter", "attenuator"):
            device: Device | None = getattr(self, role)
            if device is None:
                continue
            self._undo.append(device.close)
            device.open()
            self._opened[role] = device
            wanted = getattr(self.file.devices, role).serial
            serial = device.identity().serial
            if wanted is not None and serial != wanted:
                text = (
                    f"serial={serial or 'none'}, expected {wanted} (bench file). "
                    "Connect that device, or correct the bench file."
                )
                raise _OtherDeviceError(role, "open", text)
        if self.notice:
            self.calibrations = _given(self)
        self._compare_records()

    def _compare_records(self) -> None:
        found = {role: who.serial for role, who in self.identities().items()}
        for kind, record in self.calibrations.items():
            for role, serial in record.serials.items():
                if found.get(role) != serial:
                    text = (
                        f"calibration {kind}: {role} serial={found.get(role, 'none')}, "
                        f"expected {serial}. Measure again on this bench."
                    )
                    raise CalibrationError(text)

    def _blocked(self) -> list[BaseException]:
        # A stop does both, whatever the bench file calls dark; the shutter first,
        # which is quick, while a laser may take its time.
        failures: list[BaseException] = []
        shutter = self.shutter
        if shutter is not None and "shutter" in self._opened:
            _attempt(lambda: shutter.set_open(False), failures)
        if self.laser.is_open:
            _attempt(lambda: self.laser.emission(False), failures)
        return failures

    def _closed(self) -> list[BaseException]:
        failures = self._blocked()
        steps, self._undo, self._opened = self._undo, [], {}
        for step in reversed(steps):
            _attempt(step, failures)
        return failures


def construct(source: BenchSource, *, seed: int = 0, simulate: bool = False) -> Bench:
    """Construct the drivers of a bench without opening any: no I/O.

    Parameters
    ----------
    source
        The bench file.
    seed
        Seed of the simulated light path.
    simulate
        Construct the simulated twin instead.

    Returns
    -------
    bench
        Not open: good for asking shapes, and for refusing early.

    Raises
    ------
    InputError
        A driver or its options are refused.
    """
    order = _Order(source, source.file, "", seed, Patience())
    if simulate and not source.file.simulated:
        order = _twin(order, "because --simulate was given")
    return _assembled(order)


def open(
    source: BenchSource,
    *,
    seed: int = 0,
    simulate: bool = False,
    patience: Patience | None = None,
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
        How long the guard waits for the laser and for the run; None for its
        defaults, which ask for no heartbeat.

    Returns
    -------
    bench
        The open bench: close it, or use it as a context manager.

    Raises
    ------
    InputError
        Refused before any device was opened: a driver, its options, a
        calibration, the lock.
    DeviceError
        A device does not answer, and the bench file names no fallback.
    """
    order = _Order(source, source.file, "", seed, patience or Patience())
    if simulate and not source.file.simulated:
        bench = _assembled(_twin(order, "because --simulate was given"))
        bench.open()
        return bench
    bench = _assembled(order)
    bench.calibrations = source.records()
    try:
        bench.open()
    except DeviceError as err:
        # Another device than the one named does answer: a twin would hide that.
        if source.file.fallback is None or isinstance(err, _OtherDeviceError):
            raise
        bench = _assembled(_twin(order, f"because a device did not answer ({err})"))
        bench.open()
    return bench


def state_folder() -> Path:
    """Where locks lie: LABCTL_STATE, else the state folder of this user.

    Returns
    -------
    folder
        A folder that may not be there yet.
    """
    named = os.environ.get(STATE, "")
    if named:
        return Path(named)
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Application Support"
    else:
        state = os.environ.get("XDG_STATE_HOME", "")
        home = Path(state) if state else Path.home() / ".local" / "state"
    return home / "labctl"


class _OtherDeviceError(DeviceError):
    """The device that answers is not the one that the bench file names."""


@dataclass(frozen=True)
class _Order:
    """What to make a bench of."""

    source: BenchSource
    file: BenchFile
    notice: str
    seed: int
    patience: Patience


def _assembled(order: _Order) -> Bench:
    """Construct every driver; no device is touched."""
    file = order.file
    shared: dict[str, Any] = {}
    clock: Clock = RealClock()
    beam = None
    if file.world is not None:
        # Created when the bench opens; nobody else can have this name.
        beam = Path(tempfile.gettempdir()) / f"labctl-{uuid.uuid4().hex}" / "beam"
        world: devices.World = _built(
            file.world,
            "world",
            devices.World,
            {"clock_start_s": 0.0, "seed": order.seed, "beam": beam},
        )
        clock, shared = world.clock, {"world": world}
    parts: dict[str, Any] = dict(shared)
    for role, kind in (
        ("slm", devices.SLM),
        ("camera", devices.Camera),
        ("meter", devices.Meter),
        ("shutter", devices.Shutter),
        ("attenuator", devices.Attenuator),
    ):
        entry: DriverEntry | None = getattr(file.devices, role)
        if entry is not None:
            own = {"name": role, "clock": clock, **shared}
            parts[role] = _built(entry, f"devices.{role}", kind, own)
    pair = {"slm": parts["slm"], "camera": parts["camera"], **shared}
    if file.sequence is not None:
        parts["sequence"] = _built(file.sequence, "sequence", devices.Sequence, pair)
    if file.oracle is not None:
        parts["_oracle"] = _built(file.oracle, "oracle", devices.Oracle, pair)
    laser = file.devices.laser
    registry.load(laser.driver)  # refused here, before a guard is started
    guarded = GuardedLaser(
        "laser", laser.driver, laser.options, beam=beam, patience=order.patience
    )
    return Bench(
        source=order.source,
        file=file,
        notice=order.notice,
        clock=clock,
        laser=guarded,
        beam=beam,
        **parts,
    )


def _built(entry: DriverEntry, where: str, role: type, own: Mapping[str, Any]) -> Any:  # noqa: ANN401 - of the role asked for
    taken = sorted(set(own) & set(entry.options))
    if taken:
        text = (
            f"{where}.options: {taken[0]}={entry.options[taken[0]]!r}, expected no "
            "such option: the bench sets it. Remove it from the bench file."
        )
        raise InputError(text)
    arguments = {**own, **entry.options}
    return registry.build(entry.driver, where=where, role=role, arguments=arguments)


def _twin(order: _Order, because: str) -> _Order:
    # The same bench with simulated devices, as its twin section describes them.
    file = order.file
    if file.twin is None:
        text = (
            f"{order.source.path}: twin is missing, expected a section that describes "
            "the simulated stand-in. Add twin: with the options of world, slm, laser "
            "and camera, or use --bench sim."
        )
        raise InputError(text)
    twin = file.twin
    meter = None
    if twin.meter is not None:
        meter = DriverEntry(driver="sim.meter", options=twin.meter)
    simulated = file.model_copy(
        update={
            "world": DriverEntry(driver="sim.world", options=twin.world),
            "devices": Devices(
                slm=DriverEntry(driver="sim.slm", options=twin.slm),
                laser=DriverEntry(driver="sim.laser", options=twin.laser),
                camera=DriverEntry(driver="sim.camera", options=twin.camera),
                meter=meter,
            ),
            "sequence": DriverEntry(driver="sim.sequence"),
            "oracle": DriverEntry(driver="sim.oracle"),
            "dark": "emission_off",  # the twin has no shutter
        }
    )
    notice = f"bench {file.name}: SIMULATED by its twin, {because}."
    return _Order(order.source, simulated, notice, order.seed, order.patience)


def _given(bench: Bench) -> dict[str, CalibrationRecord]:
    # What a twin has by construction, for its bench's own do not hold for it: one
    # turn over all levels, the panel's worst case of settling, and the response
    # that the simulated sensor reports of itself.
    world = {} if bench.world is None else bench.world.describe()
    sensor = {key: world.get(f"sensor.{key}") for key in SENSOR}
    offset, dark, gain, noise = (
        value if isinstance(value, (int, float)) else math.nan
        for value in sensor.values()
    )
    if math.isnan(offset + dark + gain + noise):
        text = (
            f"bench {bench.file.name}: the twin describes its sensor as {sensor}, "
            "expected a number for each. Install drivers of this version of labctl."
        )
        raise CalibrationError(text)
    values = (
        PhaseCurve(kind="slm-phase", span_rad=2 * math.pi),
        Settle(kind="settle", settle_s=bench.slm.settle_s),
        CameraResponse(
            kind="camera",
            offset_dn=offset,
            dark_dn_per_s=dark * gain,
            gain_dn_per_e=gain,
            read_noise_e=noise,
        ),
    )
    now = datetime.now(UTC)
    return {
        each.kind: CalibrationRecord(
            schema_version=1,
            origin="given",
            created=now,
            bench_sha256=bench.source.sha256,
            values=each,
        )
        for each in values
    }


def _lock(name: str) -> FileLock:
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(folder / f"{name}.lock"), folder / f"{name}.owner.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        text = (
            f"bench {name}: lock={lock.lock_file} is held by {_owner(owner)}, expected "
            "it free: one run at a time. Wait for that run, or end it."
        )
        raise InputError(text) from None
    mine = {"pid": os.getpid(), "host": socket.gethostname()}
    owner.write_text(json.dumps(mine), encoding="utf-8")
    return lock


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is about to be written
        return "another process"


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
