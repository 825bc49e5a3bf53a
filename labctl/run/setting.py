"""What a run starts from: protocol, bench and operating point, checked together.

::

    protocol file, options --resolve--> Setting (nothing opened, nothing created)
    Setting --opened--> Session: bench open, record open, shots flowing into it
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from labctl import bench as benches
from labctl import document
from labctl.bench import Bench, BenchSource
from labctl.calibration import ArrayFile, PhaseCurve, ReservoirEntry
from labctl.document import Document
from labctl.errors import (
    CalibrationError,
    DeviceError,
    Fault,
    InputError,
    OutcomeError,
    ProtocolError,
)
from labctl.identity import ATTEMPTS, ENDING
from labctl.placement import Region, placed
from labctl.protocol import ADAPTER, AnyProtocol, StudyProtocol
from labctl.recording import disk
from labctl.recording.header import CalibrationEntry, DeviceEntry, Header
from labctl.recording.layout import Layout, ShotSpec
from labctl.recording.writer import Recorder
from labctl.reservoir import (
    Blocks,
    Ledger,
    Past,
    Reservoir,
    Shots,
    macropixel_scale,
    require_turn,
)
from labctl.run import convergence
from labctl.run.convergence import Light, Show
from labctl.run.progress import Progress
from labctl.run.recall import Recall
from labctl.run.refusal import Refusals, Refused

P = TypeVar("P", bound=AnyProtocol)
RECORDS = Path("records")


@dataclass(frozen=True)
class Options:
    """What the command line adds to a protocol.

    Parameters
    ----------
    bench
        Bench to use; None leaves the choice to protocol and environment.
    out
        Record to write; None names one after protocol and time.
    overwrite
        Replace a record that is there.
    seed
        Replaces the protocol's.
    overrides
        ``key.path=value`` each.
    simulate
        Use the bench's simulated twin.
    """

    bench: str | None = None
    out: Path | None = None
    overwrite: bool = False
    seed: int | None = None
    overrides: tuple[str, ...] = ()
    simulate: bool = False


@dataclass(frozen=True)
class Fitting:
    """What a surrogate is fitted on: its rounding is that of no other.

    Parameters
    ----------
    card
        Graphics card; empty for the processor.
    kernel
        Build of the compiled kernel; empty for torch.
    note
        Why torch computes although another kernel was tried; empty otherwise.
    """

    card: str = ""
    kernel: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Unfinished:
    """What an interrupted run left, to go on from.

    Parameters
    ----------
    simulated
        Whether the light was.
    instrument
        What every device said of itself, by role.
    calibrations
        What was in force, by kind.
    threads
        Threads of the numerics.
    fitting
        What the surrogate was fitted on.
    checkpoint
        Newest state that is whole; None where the run begins anew.
    """

    simulated: bool
    instrument: dict[str, dict[str, Any]]
    calibrations: dict[str, dict[str, Any]]
    threads: int
    fitting: Fitting = Fitting()
    checkpoint: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Setting(Generic[P]):
    """A protocol on a bench, checked; nothing is open yet.

    Parameters
    ----------
    document
        The protocol with its text and positions.
    source
        The bench file with its calibrations.
    entry
        The operating point: the bench's, with the protocol's replacements.
    out
        Where the record goes.
    options
        What the command line added.
    overrides
        ``key.path=value`` each, the seed included.
    headline
        First line that a person reads: which bench, and why.
    unfinished
        What an interrupted run left in ``out``; None for a new run.
    falls_back
        Whether the bench's twin will stand in, as the library of a driver is missing.
    light
        Simulated light, to be judged on what the run shows; None where it is real,
        or the operating point cannot be had.
    refused
        What bench, operating point and output do not allow, to be told with what
        the checks of the kind find. ``entry`` has the bench's values for it.
    """

    document: Document[P]
    source: BenchSource
    entry: ReservoirEntry
    out: Path
    options: Options
    overrides: tuple[str, ...]
    headline: str
    unfinished: Unfinished | None = None
    falls_back: bool = False
    light: Light | None = None
    refused: Refused = ()

    @property
    def protocol(self) -> P:
        """The protocol."""
        return self.document.value

    @property
    def folder(self) -> Path:
        """Folder that file names in the protocol are relative to."""
        return Path() if self.document.path is None else self.document.path.parent

    @property
    def simulated(self) -> bool:
        """Whether the light is simulated: by the bench, or by its twin."""
        is_twin = self.options.simulate or self.falls_back
        return self.source.file.simulated or is_twin

    @property
    def where(self) -> str:
        """What messages call the protocol."""
        return str(self.document.path)


@dataclass(frozen=True, eq=False)
class Desk:
    """A study that needs no bench, checked; nothing is open yet.

    Parameters
    ----------
    document
        The protocol with its text and positions.
    out
        Where the record goes.
    options
        What the command line added.
    unfinished
        Whether ``out`` is an interrupted run to go on with.
    """

    document: Document[StudyProtocol]
    out: Path
    options: Options
    unfinished: bool = False

    @property
    def protocol(self) -> StudyProtocol:
        """The protocol."""
        return self.document.value

    @property
    def headline(self) -> str:
        """First line that a person reads."""
        return f"study: {self.protocol.study.name}, computed without a device"


@dataclass(frozen=True)
class Forecast:
    """What a run will cost.

    Parameters
    ----------
    shots
        Exposures by category.
    shot_s
        Time on the bench clock of one exposure.
    simulated
        Whether that clock is virtual.
    nbytes
        Size of the record.
    note
        A line on what the exposures are.
    """

    shots: dict[str, int]
    shot_s: float
    simulated: bool
    nbytes: int
    note: str = ""

    @property
    def total(self) -> int:
        """Exposures in all."""
        return sum(self.shots.values())

    def text(self) -> str:
        """Shots, time and bytes in a few lines."""
        if not self.shots:
            lines = ["shots: none", f"bytes: {self.nbytes / 2**20:.1f} MiB"]
            return "\n".join([*lines, self.note] if self.note else lines)
        made = ", ".join(f"{name} {n}" for name, n in self.shots.items() if n)
        clock = (
            "virtual time, not of yours"
            if self.simulated
            else "bench time, plus the digital"
        )
        lines = [
            f"shots: {self.total} ({made})",
            f"time:  {self.total * self.shot_s:.0f} s of {clock} "
            f"({1000 * self.shot_s:.1f} ms a shot)",
            f"bytes: {self.nbytes / 2**20:.1f} MiB",
        ]
        return "\n".join([*lines, self.note] if self.note else lines)

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "dry_run": True,
            "shots": self.shots,
            "bench_s": self.total * self.shot_s,
            "bytes": self.nbytes,
        }


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Parameters
    ----------
    record
        The file that holds it.
    status
        Status that the record was closed with.
    result
        The figures.
    shots
        Exposures by category.
    summary
        A few lines for a person.
    failure
        Why what was measured is not good enough; empty where it is.
    """

    record: Path
    status: str
    result: dict[str, Any]
    shots: dict[str, int]
    summary: str
    failure: str = ""

    def raise_failure(self) -> None:
        """Raise where what was measured is not good enough.

        Raises
        ------
        OutcomeError
            With the reason.
        """
        if self.failure:
            raise OutcomeError(self.failure)

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "record": str(self.record),
            "status": self.status,
            "result": self.result,
            "shots": self.shots,
        }


def resolve(
    name: str, options: Options, *, files: bool = True
) -> Setting[AnyProtocol] | Desk:
    """Read a protocol and its bench and compare them with each other.

    A study that needs no bench gets none. What the comparison refuses is kept in the
    setting: nothing opens with it, and the job of its kind tells it with its own.

    Parameters
    ----------
    name
        A path, or the name of a shipped protocol.
    options
        What the command line adds.
    files
        Look at calibrations and output as well: all that changes without the
        protocol and its bench.

    Returns
    -------
    setting
        Everything that a run needs; nothing was opened or created.

    Raises
    ------
    InputError
        A file, an option or the combination is refused.
    """
    path = document.find(name, "protocols")
    overrides = options.overrides
    if options.seed is not None:
        overrides = (*overrides, f"seed={options.seed}")
    protocol = document.read(path, ADAPTER, overrides=overrides)
    value = protocol.value
    if isinstance(value, StudyProtocol) and not value.study.needs_bench:
        # A type checker cannot carry the class of one field over to its owner.
        return _desk(
            cast("Document[StudyProtocol]", protocol), path, options, files=files
        )
    source, reason = _bench_file(protocol, options)
    refusals = Refusals()
    suited = _suited(
        protocol, source, refusals, simulate=options.simulate, drivers=files
    )
    # Of a point that cannot be had there is no light to be judged.
    light = None if refusals.errors else Light.among(suited)
    out = _out(path, options)
    if files:
        # A twin brings its own calibrations.
        trusting = source.file.fallback is not None or value.allow_uncalibrated
        if suited and not suited[0].notice and not trusting:
            with refusals.gathered():
                check_calibrations(source, suited[0])
        with refusals.gathered():
            _check_target(out, options)
    notice = suited[0].notice if suited else ""
    falls_back = bool(notice) and not options.simulate
    simulated = source.file.simulated or options.simulate or falls_back
    headline = (
        f"bench: {source.file.name} ({reason}), "
        f"{'SIMULATED' if simulated else 'real devices'}"
    )
    if falls_back:
        headline += f"\n{notice}"
    elif files and suited and not simulated:
        headline += _uncalibrated(source, suited[0])
    return Setting(
        document=protocol,
        source=source,
        entry=_mended(_replaced(protocol, source), source, refusals),
        out=out,
        options=options,
        overrides=overrides,
        headline=headline,
        falls_back=falls_back,
        light=light,
        refused=refusals.errors,
    )


def _bench_file(
    protocol: Document[AnyProtocol], options: Options
) -> tuple[BenchSource, str]:
    """Choose a bench, and read its file; also says why it is this one.

    Raises
    ------
    ProtocolError
        It is not there, or has faults.
    """
    named = protocol.value.bench
    chosen, reason = benches.choose(named, options.bench)
    try:
        document.find_bench(chosen)
    except ProtocolError as error:
        if options.bench is not None or named is None:
            raise
        faults = [protocol.fault("bench", fault.text) for fault in error.faults]
        raise ProtocolError(faults) from error
    return benches.load(chosen), reason


def _mended(
    entry: ReservoirEntry, source: BenchSource, refusals: Refusals
) -> ReservoirEntry:
    """Take the bench's values where the protocol's were refused: more is checked."""
    section = "reservoir."
    keys = [key.removeprefix(section) for key in refusals.keys if section in key]
    bench = source.file.reservoir
    return entry.model_copy(update={key: getattr(bench, key) for key in keys})


def _desk(
    given: Document[StudyProtocol], path: Path, options: Options, *, files: bool
) -> Desk:
    if options.bench is not None or options.simulate:
        text = (
            f"{path}: --bench or --simulate with study {given.value.study.name}, "
            "expected neither: it is computed without a device. Leave them out."
        )
        raise InputError(text)
    out = _out(path, options)
    if files:
        _check_target(out, options)
    return Desk(given, out, options)


def _out(path: Path, options: Options) -> Path:
    """Choose where the record goes."""
    if options.out is not None:
        return options.out
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return RECORDS / f"{path.stem}-{stamp}.h5"


def _check_target(out: Path, options: Options) -> None:
    """Check that a record can go there."""
    if options.out is not None or RECORDS.exists():
        disk.check_target(out, overwrite=options.overwrite)
    _check_writable(out)


def _check_writable(out: Path) -> None:
    folder = out.parent if out.parent.exists() else Path()
    try:
        # Permission bits do not tell: shares, sandboxes and read-only disks refuse
        # as well. The file has no name, or none that outlives this line.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        text = (
            f"{out}: folder={folder.absolute()}, expected one that can be written to "
            f"({error.strerror}). Choose another with --out."
        )
        raise InputError(text) from error


def operating_point(protocol: Document[P], source: BenchSource) -> ReservoirEntry:
    """Put the protocol's replacements into the bench's reservoir section.

    Parameters
    ----------
    protocol
        The protocol; faults are shown in its lines.
    source
        The bench.

    Returns
    -------
    entry
        The operating point, within the bench's limits.

    Raises
    ------
    ProtocolError
        It is beyond a limit, or its parts do not fit each other.
    """
    bench, entry = source.file, _replaced(protocol, source)
    faults: list[Fault] = []

    def refuse(key: str, text: str) -> None:
        faults.append(protocol.fault(f"reservoir.{key}", text))

    for key in ("power_mw", "exposure_s"):
        for text in benches.limit_faults(bench, **{key: getattr(entry, key)}):
            refuse(key, text)
    for axis, size in enumerate(("height", "width")):
        if entry.bins[axis] > entry.region[2 + axis]:
            refuse(
                "bins",
                f"bins={list(entry.bins)}, expected at most one a pixel of region "
                f"{size} {entry.region[2 + axis]}. Use fewer bins or a larger region.",
            )
    if faults:
        raise ProtocolError(faults)
    return entry


def checked_point(
    protocol: Document[P], source: BenchSource, *, simulate: bool
) -> tuple[ReservoirEntry, Light | None]:
    """Check an operating point against all that is known before a device opens.

    Parameters
    ----------
    protocol
        The protocol; faults are shown in its lines.
    source
        The bench.
    simulate
        Its simulated twin is used. Where the bench may fall back on that, the point
        has to suit both.

    Returns
    -------
    entry
        The operating point.
    light
        Simulated light, to be judged on what is shown there; None where it is real.

    Raises
    ------
    InputError
        It is beyond a limit, or does not fit panel or camera.
    """
    refusals = Refusals()
    suited = _suited(protocol, source, refusals, simulate=simulate, drivers=True)
    refusals.tell()
    return _replaced(protocol, source), Light.among(suited)


def _suited(
    protocol: Document[P],
    source: BenchSource,
    refusals: Refusals,
    *,
    simulate: bool,
    drivers: bool,
) -> list[Bench]:
    """Compare an operating point with limits, panel and sensor.

    Gives the benches that it was compared with; without ``drivers`` a bench that
    cannot be made here is passed over.
    """
    with refusals.gathered():
        operating_point(protocol, source)
    entry = _replaced(protocol, source)
    suited: list[Bench] = []
    with refusals.gathered() if drivers else suppress(InputError):
        made = benches.construct(source, simulate=simulate, fall_back=True)
        suited.append(made)
        if source.file.fallback is not None and not made.notice:
            suited.append(benches.construct(source, simulate=True))
    for bench in suited:
        with refusals.gathered():
            check_fit(protocol, bench, entry)
    return suited


def _replaced(protocol: Document[P], source: BenchSource) -> ReservoirEntry:
    replaced = protocol.value.reservoir.model_dump(exclude_none=True)
    return source.file.reservoir.model_copy(update=replaced)


def check_fit(document: Document[Any], bench: Bench, entry: ReservoirEntry) -> None:
    """Compare the operating point with what panel and camera can do.

    Parameters
    ----------
    document
        The protocol or bench file; faults are shown in its lines.
    bench
        The bench, not open. What a driver only knows once it is open is
        compared then.
    entry
        The operating point.

    Raises
    ------
    ProtocolError
        Panel or sensor is too small.
    """
    faults: list[Fault] = []

    def refuse(key: str, text: str) -> None:
        faults.append(document.fault(f"reservoir.{key}", text))

    with suppress(DeviceError):
        try:
            Blocks(bench.slm.shape, entry.macropixels)
        except InputError as error:
            refuse("macropixels", str(error))
    camera = bench.camera
    with suppress(DeviceError):
        top, left, height, width = entry.region
        rows, columns = camera.shape
        if top + height > rows or left + width > columns:
            text = (
                f"region={list(entry.region)}, expected within {rows} x {columns} "
                "(the sensor). Move it, or make it smaller."
            )
            refuse("region", text)
    for key in ("exposure_s", "gain_db"):
        quantity, unit = key.split("_")
        with suppress(DeviceError):
            low, high = getattr(camera, f"{quantity}_limits_{unit}")
            got = getattr(entry, key)
            if not low <= got <= high:
                text = (
                    f"{key}={got:g}, expected {low:g} to {high:g} (the camera). "
                    "Choose another, or other light."
                )
                refuse(key, text)
    if faults:
        raise ProtocolError(faults)


def _uncalibrated(source: BenchSource, bench: Bench) -> str:
    """Tell what a run on devices would be refused for, where a twin may stand in."""
    if source.file.fallback is None:
        return ""
    try:
        check_calibrations(source, bench)
    except CalibrationError as err:
        return f"\n{err} Until then only its twin runs, where a device does not answer."
    return ""


def check_calibrations(source: BenchSource, bench: Bench) -> None:
    """Refuse a bench without the calibrations that every run needs.

    Parameters
    ----------
    source
        The bench file with its calibrations.
    bench
        The bench, not open. What a driver only knows once it is open is
        compared then.

    Raises
    ------
    CalibrationError
        One is missing, stale or damaged, or the panel cannot show every phase.
    """
    records = source.records()
    moves = ("mapping",) if source.file.drawing is not None else ()
    for kind in ("slm-phase", "settle", "camera", *moves):
        if kind not in records:
            text = (
                f"bench {source.file.name}: calibration {kind}=none, expected one in "
                f"force beside {source.path}. Run labctl calibrate, or say "
                "allow_uncalibrated: true in the protocol."
            )
            raise CalibrationError(text)
    curve = records["slm-phase"].values
    with suppress(DeviceError):
        if isinstance(curve, PhaseCurve):
            require_turn(curve.curve(bench.slm.bit_depth, source.path.parent))


def check_light(setting: Setting[P], shows: Iterable[Show]) -> None:
    """Refuse simulated light that is not converged on what a run shows.

    A run that was begun goes on as it began.

    Parameters
    ----------
    setting
        The run.
    shows
        What it shows, at each of its operating points.

    Raises
    ------
    ProtocolError
        Steps or grid do not do, and the protocol does not accept it.
    """
    if setting.unfinished is None:
        convergence.check(setting.document, setting.light, shows)


@contextmanager
def light_beside(setting: Setting[P]) -> Iterator[None]:
    """Tell with what the block refuses what random patterns say of the light.

    What the run shows is not known then.

    Parameters
    ----------
    setting
        The run.

    Yields
    ------
    nothing
        The checks are made in the block.

    Raises
    ------
    InputError
        The block refused: every fault.
    """
    try:
        yield
    except InputError as error:
        refusals = Refusals([error])
        with refusals.gathered():
            check_light(setting, [Show(setting.entry)])
        raise refusals.joined() from error.__cause__


def shot_seconds(source: BenchSource, entry: ReservoirEntry) -> float:
    """Least time of one exposure on the bench clock: settle and expose.

    Parameters
    ----------
    source
        The bench.
    entry
        The operating point.
    """
    settle = [
        each.record.values.settle_s
        for each in source.in_force().values()
        if each.record.values.kind == "settle"
    ]
    return entry.exposure_s + sum(settle)


def shot_spec(setting: Setting[P]) -> ShotSpec:
    """Sizes of what every exposure leaves in the record.

    Parameters
    ----------
    setting
        The run.
    """
    entry, record = setting.entry, setting.protocol.record
    top, left, height, width = read_out(setting)
    return ShotSpec(
        n_macropixels=entry.macropixels[0] * entry.macropixels[1],
        n_outputs=entry.bins[0] * entry.bins[1],
        frame_shape=(height, width) if record.frames == "full" else None,
        frame_origin=(top, left),
        compression=record.compression,
    )


def read_out(setting: Setting[P]) -> Region:
    """Say what part of the sensor the run reads out, before the bench is open.

    Parameters
    ----------
    setting
        The run.

    Returns
    -------
    region
        Row, column, height and width: where the calibration ``mapping`` puts the
        region of a bench that has a drawing.
    """
    entry, drawing = setting.entry, setting.source.file.drawing
    if drawing is None or setting.options.simulate:
        return entry.region
    found = setting.source.in_force().get("mapping")
    if found is None:  # refused later on, or taken to be where it was drawn
        return entry.region
    return placed(entry, drawing, found.record).region


# What follows an exposure without a frame that counts.
_AGAIN = (
    "a frame was rejected: its pattern is exposed again, at most "
    f"{ATTEMPTS} times in all"
)
_ENDED = (
    "an exposure has no frame that counts, and its pattern is not exposed again: what "
    "the devices did meanwhile is not known, and the run ends"
)


@dataclass(eq=False)
class Session:
    """An open bench and an open record; shots flow from one into the other.

    Parameters
    ----------
    setting
        What it was opened for.
    bench
        The open bench.
    recorder
        The open record.
    progress
        Whoever listens.
    past
        Shots that an interrupted run made on real devices; None where there are
        none, and where simulated light can be shown again.
    """

    setting: Setting[Any]
    bench: Bench
    recorder: Recorder
    progress: Progress
    past: Past | None = None
    _warned: set[str] = field(default_factory=set)

    def reservoir(self, entry: ReservoirEntry, ledger: Ledger) -> Reservoir:
        """Make a function of the bench, whose shots are recorded.

        Parameters
        ----------
        entry
            The operating point.
        ledger
            Where exposures are booked.
        """
        return Reservoir(
            self.bench, entry, ledger=ledger, sink=self.write, past=self.past
        )

    def write(self, shots: Shots) -> None:
        """Record a batch of shots, and make it safe.

        Parameters
        ----------
        shots
            The batch.
        """
        played, count = shots.played, len(shots.levels)

        def every(value: object) -> list[object]:
            return [value] * count

        columns = {
            "outputs": shots.outputs,
            "levels": shots.levels,
            "host_time_s": played.host_time_s,
            "device_time_s": played.device_time_s,
            "frame_id": played.frame_id,
            "laser_power_mw": every(self.bench.laser.power_mw()),
            "power_mw": shots.power_mw,
            "attempt": shots.attempt,
            "step": every(shots.step),
            "layer": every(shots.layer),
            "category": every(shots.category),
            "quality": shots.quality,
            "pattern_id": played.pattern_id,
            "trigger": played.trigger,
            "exposure_start_s": played.exposure_start_s,
            "exposure_end_s": played.exposure_end_s,
            "saturated_px": shots.saturated_px,
        }
        if self.setting.protocol.record.frames == "full":
            columns["frames"] = played.frames
        self.recorder.append_shots(**{k: np.asarray(v) for k, v in columns.items()})
        self.recorder.commit()
        for kind in sorted(set(shots.quality[shots.quality != "ok"].tolist())):
            then = _ENDED if kind in ENDING else _AGAIN
            self.warn(
                f"frame {kind}",
                f"{then}. Column quality of shots_meta has every frame.",
            )
        if shots.saturated_px.any():
            self.warn(
                "camera",
                f"{int(shots.saturated_px.max())} saturated pixels in a frame. Lower "
                "reservoir.exposure_s or reservoir.power_mw.",
            )

    def warn(self, source: str, text: str) -> None:
        """Note something legal but suspicious, once for each source.

        Parameters
        ----------
        source
            Who says it.
        text
            What is suspicious, and what to do.
        """
        if source in self._warned:
            return
        self._warned.add(source)
        self.recorder.event("warning", source, text)
        self.progress.say(f"warning: {source}: {text}")

    def tell_doubts(self) -> None:
        """Note calibrations that are missing or do not hold, where a run may go on."""
        for kind, why in self.bench.doubts.items():
            text = f"{why} The run goes on (allow_uncalibrated)."
            self.warn(f"calibration {kind}", text)

    def tell_kernel(self, fitting: Fitting) -> None:
        """Note why torch computes where another kernel may be taken.

        Parameters
        ----------
        fitting
            What the surrogate is fitted on.
        """
        world = self.bench.world
        note = "" if world is None else world.describe().get("kernel_note", "")
        if note:
            self.warn("kernel", f"torch computes the light: {note}")
        if fitting.note:
            text = f"torch computes the fits of the surrogate: {fitting.note}"
            self.warn("kernel", text)

    def tell_convergence(self, light: Light | None, shows: Iterable[Show]) -> None:
        """Note how converged a simulated bench is; nothing on a real one.

        Parameters
        ----------
        light
            What was judged before the bench opened.
        shows
            What is shown, at each of the operating points.
        """
        if light is None or self.bench.world is None:
            return
        told: set[str] = set()
        for verdict in map(light.judge, shows):
            if verdict.text() in told:
                continue
            told.add(verdict.text())
            self.recorder.event("info", "convergence", verdict.text())
            doubts = (*verdict.warnings, *verdict.refusals)
            if doubts:
                self.warn("convergence", " ".join(doubts))
            if verdict.exempt and verdict.exempt not in told:
                told.add(verdict.exempt)
                self.recorder.event("info", "convergence", verdict.exempt)
                if "exempt" not in self._warned:
                    self._warned.add("exempt")
                    self.progress.say(verdict.exempt)


@contextmanager
def opened(
    setting: Setting[P],
    layout: Layout,
    progress: Progress,
    *,
    shows: Iterable[Show] | None = None,
    others: Iterable[Setting[P]] = (),
    fitting: Fitting | None = None,
) -> Iterator[Session]:
    """Open bench and record; close both, dark first, whatever happens.

    Parameters
    ----------
    setting
        The run.
    layout
        What the record holds.
    progress
        Whoever listens.
    shows
        What it shows, at each of its operating points; None where that is not known,
        and random patterns speak for it.
    others
        The run at its further operating points, on the same bench.
    fitting
        What the surrogate is fitted on; None without one.

    Yields
    ------
    session
        Both, joined.

    Raises
    ------
    LabctlError
        Anything that opening, running or closing raises.
    """
    Refusals(setting.refused).tell()
    fitting = fitting or Fitting()
    if setting.options.out is None:
        setting.out.parent.mkdir(exist_ok=True)
    seed, simulate = setting.protocol.seed, setting.options.simulate
    # The record outlives the bench, so that it can say how the bench ended.
    with benches.open(
        setting.source,
        seed=seed,
        simulate=simulate,
        allow_uncalibrated=setting.protocol.allow_uncalibrated,
    ) as bench:
        _check_answering(setting, bench)
        # Now panel and camera know all of their limits, and the laser is dark still.
        for each in (setting, *others):
            check_fit(each.document, bench, each.entry)
        _check_frames(setting, bench)
        recorder = _recorder(setting, layout, bench, fitting)
        # Closing a record can block on a full disk: the light goes off before.
        with recorder, bench.dark_after():
            for notice in filter(None, (bench.notice, bench.takeover)):
                progress.say(notice)
                recorder.event("warning", "bench", notice)
            past = _past(setting, bench, recorder, progress)
            session = Session(setting, bench, recorder, progress, past)
            session.tell_doubts()
            session.tell_kernel(fitting)
            unknown = [Show(setting.entry)]
            session.tell_convergence(setting.light, unknown if shows is None else shows)
            yield session
            recorder.set_end_time()


def _check_answering(setting: Setting[P], bench: Bench) -> None:
    """Refuse devices that answer, where without calibrations only a twin could run.

    Nobody knows before whether they do: all others are refused before any is opened.

    Raises
    ------
    CalibrationError
        A calibration is missing.
    """
    if bench.simulated or bench.is_lenient or setting.source.file.fallback is None:
        return
    try:
        check_calibrations(setting.source, bench)
    except CalibrationError as err:
        text = (
            f"{err} Its devices answer, so that its twin does not stand in; all are "
            "dark and closed again. To rehearse on the twin, say --simulate."
        )
        raise CalibrationError(text) from err


def _check_frames(setting: Setting[P], bench: Bench) -> None:
    """Refuse to record the frames of a stand-in whose camera is elsewhere.

    Raises
    ------
    InputError
        They have another shape than those of the bench that did not answer.
    """
    is_full = setting.protocol.record.frames == "full"
    if is_full and bench.bins(setting.entry).region != read_out(setting):
        text = (
            f"{setting.where}: record.frames=full, expected binned on the simulated "
            "stand-in of a bench with a drawing: its camera is where it was drawn. "
            "Set record.frames: binned, or give --simulate."
        )
        raise InputError(text)


def _recorder(
    setting: Setting[P], layout: Layout, bench: Bench, fitting: Fitting
) -> Recorder:
    """Open a new record, or the one that was left.

    Raises
    ------
    InputError
        The record cannot be written, or would not go on bit by bit.
    """
    left = setting.unfinished
    if left is None:
        return Recorder.create(
            setting.out,
            layout=layout,
            header=header(setting, bench, fitting),
            overwrite=setting.options.overwrite,
        )
    differing = list(_differences(header(setting, bench, fitting), left, fitting.note))
    if differing:
        text = (
            f"{setting.out}: {'; '.join(differing)} (the record). The run would not go "
            "on as it began: restore it, or run the protocol anew."
        )
        raise InputError(text)
    measured = not left.simulated
    # What real light did stands, whatever came of it.
    forget = () if measured else ENDING
    recorder = Recorder.resume(
        setting.out, layout=layout, measured=measured, forget=forget
    )
    shots, ended = recorder.lengths["shots"], recorder.forgotten
    recorder.event("info", "run", f"resumed after {shots} shots")
    if ended:
        text = f"the last {ended} exposures had ended the run; they are made anew"
        recorder.event("info", "run", text)
    if bench.world is not None:
        bench.world.spare(shots + ended)
    recorder.rewind({})
    return recorder


def _differences(now: Header, then: Unfinished, note: str) -> Iterator[str]:
    """Name everything that is another than when the run began.

    The note is why torch computes the fits, where a compiled kernel was asked for.
    """
    if now.simulated != then.simulated:
        yield f"simulated={now.simulated}, expected {then.simulated}"
    threads = torch.get_num_threads()
    if threads != then.threads:
        yield f"threads={threads}, expected {then.threads}"
    if now.fit_card != then.fitting.card:
        yield f"surrogate: card={now.fit_card!r}, expected {then.fitting.card!r}"
    if now.fit_kernel != then.fitting.kernel:
        yield (
            f"surrogate: kernel={now.fit_kernel or 'torch'!r}, expected "
            f"{then.fitting.kernel or 'torch'!r}{f' ({note})' if note else ''}"
        )
    roles = {*now.instrument, *then.instrument}
    for role in sorted(roles - {"beam"}):
        have = _described(now.instrument.get(role))
        want = then.instrument.get(role, {})
        want = want.get("settings", {}) if role == "world" else want
        for name in sorted({*have, *(want if role == "world" else ())}):
            if have.get(name) != want.get(name):
                yield f"{role}: {name}={have.get(name)}, expected {want.get(name)}"
    yield from _recalibrated(now, then)


def _described(device: DeviceEntry | None) -> Mapping[str, Any]:
    if device is None:
        return {}
    if device.identity is None:  # the simulated light path: all that it is made of
        return device.settings
    own = device.identity
    return {"vendor": own.vendor, "model": own.model, "serial": own.serial}


def _recalibrated(now: Header, then: Unfinished) -> Iterator[str]:
    slm = then.instrument.get("slm", {})
    if not np.array_equal(now.instrument["slm"].fields["lut"], slm.get("lut", ())):
        yield "calibration slm-phase: another curve, expected the one in force then"
    for kind in sorted(set(then.calibrations) - set(now.calibrations)):
        yield f"calibration {kind}=none, expected the one in force then"
    for kind, entry in now.calibrations.items():
        was = then.calibrations.get(kind, {})
        for name, value in entry.values.items():
            before = was.get(name)
            if isinstance(value, np.ndarray):
                if not np.array_equal(value, np.asarray(before)):
                    yield f"calibration {kind}: another {name}, expected that of then"
            elif before != value:
                yield f"calibration {kind}: {name}={value}, expected {before}"


def _past(
    setting: Setting[P], bench: Bench, recorder: Recorder, progress: Progress
) -> Past | None:
    if setting.unfinished is None or bench.simulated:
        return None

    def tell(text: str) -> None:
        recorder.note("info", "replay", text)
        progress.say(f"replay: {text}")

    shots = recorder.to_come("shots").stop
    tell(
        f"real light cannot be shown twice: going on from {shots} recorded shots, none "
        "of which is exposed again"
    )
    blocks = Blocks(bench.slm.shape, setting.entry.macropixels)
    scale = macropixel_scale(blocks, bench.phase_curve_rad())
    return Recall(recorder, scale.turn, tell)


def header(setting: Setting[P], bench: Bench, fitting: Fitting) -> Header:
    """Everything that is known before the first shot.

    Parameters
    ----------
    setting
        The run.
    bench
        The open bench.
    fitting
        What the surrogate of a training is fitted on.
    """
    entry, protocol = setting.entry, setting.protocol
    path = setting.document.path
    return Header(
        title=protocol.title or setting.out.stem,
        kind=protocol.kind,
        protocol_text=setting.document.text,
        protocol_path="" if path is None else str(path.absolute()),
        protocol_resolved={
            **protocol.model_dump(mode="json"),
            "reservoir": entry.model_dump(mode="json"),
            "bench": setting.source.file.name,
        },
        bench_name=bench.file.name,
        bench_text=setting.source.text,
        bench_sha256=setting.source.sha256,
        simulated=bench.simulated,
        notice=bench.notice,
        seeds={"run": protocol.seed},
        instrument=instrument(bench, entry),
        calibrations=applied(bench),
        reservoir=entry.model_dump(),
        fit_card=fitting.card,
        fit_kernel=fitting.kernel,
    )


def applied(bench: Bench) -> dict[str, CalibrationEntry]:
    """Every calibration in force, with its values and arrays, for the record.

    Parameters
    ----------
    bench
        The open bench.
    """
    found = {} if bench.notice else bench.source.in_force()
    entries = {}
    for kind, record in bench.calibrations.items():
        each = found.get(kind)
        if each is not None and each.record != record:
            each = None
        folder = bench.source.path.parent
        entries[kind] = CalibrationEntry(
            values={
                name: _recorded(value, folder)
                for name, value in record.values
                if name != "kind"
            },
            source=_NOWHERE if each is None else f"{folder.name}/{each.name}",
            source_sha256="" if each is None else each.sha256,
            created=record.created.isoformat(),
            figure_of_merit=record.figure_of_merit,
        )
    return entries


# A twin brings its own calibrations, a bench without them nominal numbers.
_NOWHERE = "no file: nominal numbers"


def _recorded(value: object, folder: Path) -> float | NDArray[np.float64] | None:
    if isinstance(value, ArrayFile):
        return value.load(folder)
    if isinstance(value, float | int):
        return float(value)
    if isinstance(value, list | tuple) and value:
        return np.array(value, dtype=np.float64)
    return None  # left out, empty, or for people


def instrument(bench: Bench, entry: ReservoirEntry) -> dict[str, DeviceEntry]:
    """Every device as the record describes it.

    Parameters
    ----------
    bench
        The open bench.
    entry
        The operating point.
    """
    slm, camera, laser = bench.slm, bench.camera, bench.laser
    settings = bench.settings()
    fields: dict[str, dict[str, Any]] = {
        "laser": {"type": "Laser", "name": laser.name, "power": entry.power_mw},
        "slm": {
            "shape": list(slm.shape),
            "pitch_um": slm.pitch_um,
            "bit_depth": slm.bit_depth,
            "lut": bench.phase_curve_rad(),
        },
        "camera": {
            "shape": list(camera.shape),
            "x_pixel_size": camera.pixel_um,
            "y_pixel_size": camera.pixel_um,
            "count_time": entry.exposure_s,
            "bit_depth_readout": camera.bit_depth,
            "gain": entry.gain_db,
            "roi": list(bench.bins(entry).region),
        },
    }
    entries = {
        role: DeviceEntry(identity, settings[role], fields.get(role, {}))
        for role, identity in bench.identities().items()
    }
    entries["beam"] = DeviceEntry(fields={"incident_wavelength": laser.wavelength_nm})
    if bench.world is not None:
        entries["world"] = DeviceEntry(settings=bench.world.describe())
    return entries
