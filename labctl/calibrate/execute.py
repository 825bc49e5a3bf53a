"""From kinds that were asked for to records that are in force.

::

    job --open bench--> for each kind, in order:
        due? -> measurable here? -> parents hold? -> measure -> judge -> install or keep
    --> closing table; exit 6 if one failed
"""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np

import labctl
from labctl import bench as benches
from labctl.bench import Bench, BenchSource
from labctl.calibrate import section, store
from labctl.calibrate.kind import Figure, Finding, Kind, Merit, Quantity
from labctl.calibrate.kinds import KINDS
from labctl.calibrate.patterns import require_far_field
from labctl.calibrate.stand import Stand, frame_of
from labctl.calibration import (
    APPLIED,
    CalibrationRecord,
    InForce,
    View,
)
from labctl.document import in_order
from labctl.errors import (
    CalibrationError,
    Fault,
    InputError,
    OutcomeError,
    ProtocolError,
)
from labctl.recording import environment
from labctl.recording.header import Header
from labctl.recording.layout import Layout, calibrate_layout
from labctl.recording.writer import Recorder
from labctl.reservoir import Ledger
from labctl.run.progress import Progress
from labctl.run.setting import RECORDS, applied, instrument

Ask = Callable[[str], bool]
Status = Literal["passed", "failed", "moved", "not measurable here", "skipped"]


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Parameters
    ----------
    kinds
        Kinds to calibrate; empty for all that are due.
    bench
        Bench to use; None leaves the choice to the environment.
    check
        Measure again and compare, install nothing.
    seed
        Seed of a simulated bench.
    """

    kinds: tuple[str, ...] = ()
    bench: str | None = None
    check: bool = False
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be calibrated; nothing is open yet.

    Parameters
    ----------
    source
        The bench file beside which records go.
    kinds
        Kinds that were asked for; empty for all that are due.
    options
        What the command line says.
    headline
        First line that a person reads.
    """

    source: BenchSource
    kinds: tuple[Kind, ...]
    options: Options
    headline: str


@dataclass(frozen=True)
class Row:
    """A line of the closing table.

    Parameters
    ----------
    kind
        Which calibration.
    status
        How it ended.
    why
        What led to that, in a sentence; empty when it passed.
    merits
        What judged it.
    record
        The HDF5 record; None where nothing was measured.
    path
        The YAML beside the bench file; None where none was written.
    valid_until
        When it expires; empty for never.
    """

    kind: str
    status: Status
    why: str = ""
    merits: tuple[Merit, ...] = ()
    record: Path | None = None
    path: Path | None = None
    valid_until: str = ""

    def cells(self) -> tuple[str, str, str, str]:
        """Kind, figures of merit, status, validity or reason."""
        merits = "; ".join(merit.text() for merit in self.merits)
        return self.kind, merits, self.status, self.why or self.valid_until


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a calibration of a bench ended.

    Parameters
    ----------
    bench
        Its name.
    rows
        One a kind that was looked at.
    shots
        Exposures by category.
    is_check
        Nothing was to be installed.
    """

    bench: str
    rows: tuple[Row, ...]
    shots: dict[str, int] = field(default_factory=dict)
    is_check: bool = False

    @property
    def summary(self) -> str:
        """The closing table."""
        if not self.rows:
            return "nothing is due: every calibration holds. Name a kind to measure it."
        heads = ("kind", "figure of merit", "result", "valid until")
        table = [heads, *(row.cells() for row in self.rows)]
        widths = [max(len(line[at]) for line in table) for at in range(3)]
        lines = [
            "  ".join(
                cell.ljust(width)
                for cell, width in zip(line, (*widths, 0), strict=True)
            ).rstrip()
            for line in table
        ]
        made = [row.record for row in self.rows if row.record is not None]
        if made:
            spent = ", ".join(f"{k} {n}" for k, n in self.shots.items() if n)
            lines += [f"shots:  {spent}", f"next:   labctl report {made[-1]}"]
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "bench": self.bench,
            "check": self.is_check,
            "calibrations": [
                {
                    "kind": row.kind,
                    "status": row.status,
                    "why": row.why,
                    "figure_of_merit": {m.name: m.value for m in row.merits},
                    "record": None if row.record is None else str(row.record),
                    "calibration": None if row.path is None else str(row.path),
                    "valid_until": row.valid_until,
                }
                for row in self.rows
            ],
            "shots": self.shots,
        }

    def raise_failures(self) -> None:
        """Raise what failed or has moved, if anything did.

        Raises
        ------
        OutcomeError
            Every one of them.
        """
        bad = [row for row in self.rows if row.status in {"failed", "moved"}]
        if bad:
            told = "; ".join(f"{row.kind} {row.status}: {row.why}" for row in bad)
            raise OutcomeError(told)


def prepare(options: Options) -> Job:
    """Choose the bench and check what is asked for; nothing is opened.

    Parameters
    ----------
    options
        What the command line says.

    Returns
    -------
    job
        To be executed.

    Raises
    ------
    InputError
        A kind is not known, or the bench is refused.
    ProtocolError
        What the bench file says of its devices or of calibrations is refused.
    """
    known = [kind.name for kind in KINDS]
    for name in options.kinds:
        if name not in known:
            text = f"KIND={name}, expected one of {', '.join(known)}. Correct it."
            raise InputError(text)
    chosen, reason = benches.choose(None, options.bench)
    source = benches.load(chosen)
    _refuse(section.faults(source, benches.construct(source), KINDS))
    headline = (
        f"bench: {source.file.name} ({reason}), "
        f"{'SIMULATED' if source.file.simulated else 'real devices'}"
    )
    if not options.check:
        source, note = store.home(source)
        headline += f"\n{note}" if note else ""
    wanted = tuple(kind for kind in KINDS if kind.name in options.kinds)
    return Job(source, wanted, options, headline)


def execute(job: Job, progress: Progress, ask: Ask | None = None) -> Outcome:
    """Calibrate a bench.

    Parameters
    ----------
    job
        From :func:`prepare`.
    progress
        Whoever listens.
    ask
        Asks a person to do something, and returns whether it was done; None where
        there is no person.

    Returns
    -------
    outcome
        How each kind ended; those that passed are in force.

    Raises
    ------
    LabctlError
        A device, a limit or a record stopped it.
    """
    options = job.options
    rows: list[Row] = []
    ledger = Ledger(None)
    with (
        benches.open(job.source, seed=options.seed, allow_uncalibrated=True) as bench,
        _restoring(bench),
    ):
        if bench.takeover:
            progress.say(bench.takeover)
        # Now panel and sensor know their shapes, and the laser is dark still.
        _refuse(section.misfits(job.source, bench, KINDS))
        RECORDS.mkdir(exist_ok=True)
        room = _Room(job, bench, ledger, progress, ask)
        for kind in job.kinds or KINDS:
            row = room.look_at(kind, rows)
            if row is not None:
                rows.append(row)
                progress.say("  ".join(filter(None, row.cells())))
    shots = {name: count for name, count in ledger.counts.items() if count}
    return Outcome(job.source.file.name, tuple(rows), shots, options.check)


def _refuse(faults: Sequence[Fault]) -> None:
    """Refuse what a bench file says of calibrations.

    Raises
    ------
    ProtocolError
        There is a fault in it.
    """
    if faults:
        raise ProtocolError(in_order(faults))


@contextmanager
def _restoring(bench: Bench) -> Iterator[None]:
    """Put camera, panel and setpoint back as they were, dark, whatever happens."""
    before = bench.camera.settings()
    setpoint_mw = bench.laser.setpoint_mw()
    dtype = np.uint8 if bench.slm.bit_depth <= 8 else np.uint16
    with bench.dark_after():
        try:
            yield
        finally:
            bench.camera.disarm()
            region = before.get("region")
            exposure_s, gain_db = before.get("exposure_s"), before.get("gain_db")
            if isinstance(exposure_s, float) and isinstance(region, list):
                top, left, height, width = (int(side) for side in region)
                bench.camera.configure(
                    exposure_s=exposure_s,
                    gain_db=float(gain_db) if isinstance(gain_db, float) else 0.0,
                    region=(top, left, height, width),
                )
            bench.slm.write(np.zeros(bench.slm.shape, dtype=dtype))
            bench.dark()
            bench.laser.set_power_mw(setpoint_mw)


@dataclass(eq=False)
class _Room:
    """One calibration of a bench, going on."""

    job: Job
    bench: Bench
    ledger: Ledger
    progress: Progress
    ask: Ask | None

    @property
    def _folder(self) -> Path:
        return self.job.source.path.parent

    def look_at(self, kind: Kind, rows: Sequence[Row]) -> Row | None:
        """Calibrate a kind if it is asked for, or due; None where it holds."""
        found = self.job.source.in_force()
        named = bool(self.job.kinds)
        if self.job.options.check:
            if kind.name not in found and not named:
                return None
            because = "to be checked"
        else:
            because = self._due(kind, found)
            if named:
                because = because or "asked for"
        if not because:
            return None
        missing = self._not_here(kind)
        if missing:
            return Row(kind.name, "not measurable here", missing)
        lacking = self._lacking(kind, found, rows)
        if lacking:
            return lacking
        self.progress.say(f"{kind.name}: {because}")
        return self._measure(kind, found)

    def _due(self, kind: Kind, found: Mapping[str, InForce]) -> str:
        """Say why a kind is due; empty where it holds."""
        each = found.get(kind.name)
        if each is None:
            return "missing"
        if each.record.origin == "given":
            return "given with the bench, never measured"
        asked = self._asked(kind, each.record)
        faults = (*each.faults, self.bench.mismatch(each.record), asked)
        return " ".join(filter(None, faults))

    def _asked(self, kind: Kind, record: CalibrationRecord) -> str:
        """Say what the bench file asks for that a record is not of."""
        if kind.looks_at_outputs:
            changed = [
                f"{name}={record.conditions[name]:g}, expected {now:g}"
                for name, now in _outputs(self.bench).items()
                if record.conditions.get(name, now) != now
            ]
            if changed:
                return f"{'; '.join(changed)} (bench file)."
        return "" if kind.asked is None else kind.asked(self.bench, record)

    def _incomparable(self, kind: Kind, each: InForce | None, finding: Finding) -> str:
        """Say why what was measured again cannot be compared; empty where it can."""
        remedy = f"Measure it: labctl calibrate {kind.name}"
        if each is None:
            return f"nothing can be compared: no {kind.name} is in force. {remedy}"
        asked = self._asked(kind, each.record)
        before = each.record.quantities
        if asked or (before and not before.keys() & finding.quantities.keys()):
            text = f"nothing can be compared: it was measured in another way. {asked}"
            return f"{text.strip()} {remedy}"
        return ""

    def _not_here(self, kind: Kind) -> str:
        for role in kind.roles:
            if getattr(self.bench, role) is None:
                return f"the bench has no {role}"
        file = self.bench.file
        if kind.name in file.calibrate.lacks:
            return file.calibrate.lacks[kind.name]
        if not kind.views or file.view in kind.views:
            return ""
        given = file.calibrate.views
        reachable: list[View] = [view for view in kind.views if view in given]
        if not reachable:
            return f"needs view {' or '.join(kind.views)}, the bench has {file.view}"
        how = given[reachable[0]]
        question = f"Move the camera to view {reachable[0]}: {how} Done?"
        if self.ask is None or not self.ask(question):
            return f"needs view {reachable[0]}, and nobody moved the camera there"
        return ""

    def _was_moved(self, kind: Kind) -> bool:
        """Whether a person said so; mapping itself finds out by its spots."""
        asked = bool(kind.views) and self.bench.file.view not in kind.views
        return asked and "mapping" in kind.needs

    def _needs(self, kind: Kind) -> tuple[str, ...]:
        """Kinds that must hold before, on this bench."""
        if kind.looks_at_outputs and self.bench.file.drawing is not None:
            return (*kind.needs, "mapping")
        return kind.needs

    def _applied(self, kind: Kind, found: Mapping[str, InForce]) -> tuple[str, ...]:
        """Kinds that it is measured with, of those that are in force here."""
        return tuple(
            name
            for name in APPLIED.get(kind.name, ())
            if name in found and not self.bench.mismatch(found[name].record)
        )

    def _lacking(
        self, kind: Kind, found: Mapping[str, InForce], rows: Sequence[Row]
    ) -> Row | None:
        """Refuse a kind whose parents do not hold.

        Raises
        ------
        CalibrationError
            It was asked for by name.
        """
        lost = {row.kind: row.status for row in rows if row.status != "passed"}
        for name in self._needs(kind):
            each = found.get(name)
            if each is not None:
                faults = (*each.faults, self.bench.mismatch(each.record))
                if not any(faults) and lost.get(name) != "failed":
                    continue
            if name in lost or not self.job.kinds:
                return Row(kind.name, "skipped", f"needs {name}, which does not hold")
            text = (
                f"calibration {kind.name}: needs {name}, which does not hold. Measure "
                f"it first: labctl calibrate {name}"
            )
            raise CalibrationError(text)
        return None

    def _measure(self, kind: Kind, found: Mapping[str, InForce]) -> Row:
        moment = datetime.now(UTC).replace(microsecond=0)
        name = self.bench.file.name
        while (path := RECORDS / f"{name}-{_stem(kind, moment)}.h5").exists():
            moment += timedelta(seconds=1)
        stem = _stem(kind, moment)
        limits = {**kind.limits, **self._limits(kind)}
        # While every device answers.
        made = {**self._made(kind, found, limits), "created": moment}
        with self._keeping(kind, stem, made, path):
            finding, why, cost = self._found(kind, limits, path)
        merits = () if finding is None else finding.merits
        if self.job.options.check and finding is not None:
            each = found.get(kind.name)
            if gap := self._incomparable(kind, each, finding):
                return Row(kind.name, "moved", why or gap, merits, path)
            return _compared(kind, each, finding, why, path)
        if self.job.options.check:
            return Row(kind.name, "failed", why, (), path)
        made |= {
            "record": store.hash_of(path),
            "conditions": cost if finding is None else dict(finding.conditions),
            "figure_of_merit": {} if finding is None else _figures_of_merit(finding),
        }
        if finding is None or why:
            kept = store.keep(self._folder, stem, {**made, "failed": kind.name}, why)
            return Row(kind.name, "failed", why, merits, path, kept)
        days = self.bench.file.calibrate.valid_days.get(kind.name, kind.valid_days)
        measured = {n: (q.value, q.error) for n, q in finding.quantities.items()}
        yaml = store.install(
            self._folder,
            stem,
            {**made, "valid_days": days, "quantities": measured},
            {"kind": kind.name, **finding.values},
        )
        self._take_up(kind.name)
        for remark in finding.remarks:
            self.progress.say(f"{kind.name}: {remark}")
        until = f"{moment + timedelta(days=days):%Y-%m-%d %H:%M} UTC"
        return Row(kind.name, "passed", "", merits, path, yaml, until)

    @contextmanager
    def _keeping(
        self, kind: Kind, stem: str, made: Mapping[str, Any], path: Path
    ) -> Iterator[None]:
        """Keep also a measurement that a device, a limit, the disk or a bug ended.

        A person who ended it did not make it fail.
        """
        try:
            yield
        except Exception as error:
            if path.exists() and not self.job.options.check:
                told = {**made, "failed": kind.name, "record": store.hash_of(path)}
                why = str(error) or type(error).__name__
                try:
                    kept = store.keep(self._folder, stem, told, why)
                except CalibrationError as other:
                    error.add_note(f"and then: {other}")
                else:
                    self.progress.say(f"{kind.name}: failed, kept as {kept}")
            raise

    def _found(
        self, kind: Kind, limits: Mapping[str, float], path: Path
    ) -> tuple[Finding | None, str, dict[str, float]]:
        """Measure and judge: what was found, why it is not good enough, its cost."""
        finding: Finding | None = None
        recorder = Recorder.create(
            path, layout=self._layout(), header=self._header(kind, limits)
        )
        with recorder, self.bench.dark_after():
            stand = Stand(self.bench, recorder, self.ledger, self.progress, kind.name)
            try:
                if self._was_moved(kind):
                    require_far_field(stand)
                finding = kind.measure(stand, limits)
            except OutcomeError as error:
                why = str(error)
            else:
                why = _judged(finding)
            cost = stand.cost
            if finding is not None:
                of = _outputs(self.bench) if kind.looks_at_outputs else {}
                told = {**finding.conditions, **of, **cost}
                finding = replace(finding, conditions=told)
            self.bench.dark()
            for figure in () if finding is None else finding.figures:
                _draw(recorder, figure)
            recorder.set_result(_result(kind, finding, why))
            if why:
                recorder.event("error", kind.name, why)
                recorder.set_status("failed")
        return finding, why, cost

    def _take_up(self, name: str) -> None:
        self.bench.calibrations[name] = self.job.source.in_force()[name].record
        self.bench.doubts.pop(name, None)

    def _limits(self, kind: Kind) -> Mapping[str, float]:
        return self.bench.file.calibrate.limits.get(kind.name, {})

    def _layout(self) -> Layout:
        dtype: Literal["u1", "u2"] = "u1" if self.bench.slm.bit_depth <= 8 else "u2"
        return calibrate_layout(self.bench.slm.shape, frame_of(self.bench), dtype)

    def _header(self, kind: Kind, limits: Mapping[str, float]) -> Header:
        bench, source = self.bench, self.job.source
        entry = bench.file.reservoir
        asked = {
            "kind": "calibrate",
            "calibration": kind.name,
            "bench": bench.file.name,
            "check": self.job.options.check,
            "seed": self.job.options.seed,
            "limits": dict(limits),
        }
        return Header(
            title=f"Calibration of {bench.file.name}: {kind.text}",
            kind="calibrate",
            protocol_text="",
            protocol_resolved=asked,
            bench_name=bench.file.name,
            bench_text=source.text,
            bench_sha256=source.sha256,
            simulated=bench.simulated,
            notice=bench.notice,
            seeds={"run": self.job.options.seed},
            instrument=instrument(bench, entry),
            calibrations=applied(bench),
            reservoir=entry.model_dump(),
        )

    def _made(
        self,
        kind: Kind,
        found: Mapping[str, InForce],
        limits: Mapping[str, float],
    ) -> dict[str, Any]:
        bench, machine = self.bench, environment.capture()
        serials = {role: who.serial for role, who in bench.identities().items()}
        return {
            "schema_version": 1,
            "bench_sha256": self.job.source.sha256,
            "serials": {r: serials[r] for r in kind.of if serials.get(r)},
            "wavelength_nm": (
                bench.laser.wavelength_nm if kind.depends_on_wavelength else None
            ),
            "geometry": {r: s for r, s in bench.geometry.items() if r in kind.of},
            "parents": {
                name: found[name].sha256
                for name in (*self._needs(kind), *self._applied(kind, found))
            },
            "software": {
                "labctl": labctl.__version__,
                "git": machine.git_commit,
                "python": platform.python_version(),
                "numpy": np.__version__,
            },
            "limits": dict(limits),
        }


def _outputs(bench: Bench) -> dict[str, float]:
    """Say which outputs a run has, and how it lights them."""
    entry = bench.file.reservoir
    names = ("row", "column", "height", "width")
    region = zip((f"region_{name}_px" for name in names), entry.region, strict=True)
    return {
        **{name: float(place) for name, place in region},
        "bin_rows": float(entry.bins[0]),
        "bin_columns": float(entry.bins[1]),
        "macropixel_rows": float(entry.macropixels[0]),
        "macropixel_columns": float(entry.macropixels[1]),
        "run_exposure_s": entry.exposure_s,
        "run_gain_db": entry.gain_db,
        "run_power_mw": entry.power_mw,
    }


def _compared(
    kind: Kind, each: InForce | None, finding: Finding, why: str, path: Path
) -> Row:
    moved = [
        text
        for name, now in finding.quantities.items()
        if each is not None and (text := _moved(name, now, each.record))
    ]
    if moved or why:
        return Row(kind.name, "moved", "; ".join(moved) or why, finding.merits, path)
    return Row(kind.name, "passed", "has not moved", finding.merits, path)


def _stem(kind: Kind, moment: datetime) -> str:
    return f"{kind.name}-{moment:%Y%m%dT%H%M%SZ}"


def _judged(finding: Finding) -> str:
    """Say which merits are not good enough, and what to do; empty if all are."""
    bad = [merit for merit in finding.merits if not merit.is_kept]
    told = "; ".join(
        f"{merit.name}={merit.value:.3g}, expected at "
        f"{'least' if merit.is_floor else 'most'} {merit.limit:.3g}"
        for merit in bad
    )
    remedies = dict.fromkeys(merit.remedy for merit in bad if merit.remedy)
    return ". ".join([told, *remedies])


def _figures_of_merit(finding: Finding) -> dict[str, float]:
    found: dict[str, float] = {}
    for merit in finding.merits:
        found[merit.name] = merit.value
        if np.isfinite(merit.error):
            found[f"{merit.name}_error"] = merit.error
    return found


def _moved(name: str, now: Quantity, record: CalibrationRecord) -> str:
    before, error = record.quantities.get(name, (None, 0.0))
    if before is None:
        value = getattr(record.values, name, None)
        before = value if isinstance(value, float | int) else None
    if before is None or not now.has_moved(before, error):
        return ""
    return f"{name} was {before:.4g}, is {now.value:.4g} ± {now.error:.2g}"


def _result(kind: Kind, finding: Finding | None, why: str) -> dict[str, Any]:
    result: dict[str, Any] = {"calibration": kind.name, "passed": not why, "why": why}
    if finding is None:
        return result
    plain = {
        name: value
        for name, value in finding.values.items()
        if isinstance(value, float | int | str)
    }
    return {
        **result,
        "values": plain,
        "quantities": {n: [q.value, q.error] for n, q in finding.quantities.items()},
        "merits": {
            m.name: [_finite(m.value), _finite(m.error), m.limit]
            for m in finding.merits
        },
        "conditions": dict(finding.conditions),
        "remarks": list(finding.remarks),
        "figures": [
            {
                "name": f.name,
                "title": f.title,
                "caption": f.caption,
                "x": f.x_label,
                "y": f.y_label,
                "scale": f.scale,
                "lines": [s.name for s in f.series if s.is_line],
                "names": list(f.names),
                "arrows": f.arrows,
            }
            for f in finding.figures
        ],
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _draw(recorder: Recorder, figure: Figure) -> None:
    for series in figure.series:
        x = np.atleast_1d(np.asarray(series.x, dtype=np.float64))
        nothing = np.full(len(x), np.nan)
        u, v = (nothing, nothing) if series.arrow is None else series.arrow
        recorder.append(
            "fits",
            figure=np.full(len(x), figure.name),
            series=np.full(len(x), series.name),
            x=x,
            y=np.atleast_1d(np.asarray(series.y, dtype=np.float64)),
            error=nothing if series.error is None else np.asarray(series.error),
            u=np.asarray(u),
            v=np.asarray(v),
        )
    recorder.commit()
