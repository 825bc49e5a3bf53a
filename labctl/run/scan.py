"""Kind ``scan``: one setting swept, the outputs recorded at every value."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from labctl import bench as benches
from labctl import data, document
from labctl.bench import BenchSource
from labctl.calibration import ReservoirEntry
from labctl.errors import InputError, ProtocolError
from labctl.protocol import ScanProtocol
from labctl.recording import disk
from labctl.recording.layout import scan_layout
from labctl.reservoir import TURN, Ledger, Reservoir
from labctl.run.convergence import Show
from labctl.run.progress import Progress, Update
from labctl.run.setting import (
    Forecast,
    Outcome,
    Session,
    Setting,
    check_light,
    checked_point,
    opened,
    shot_seconds,
    shot_spec,
)
from labctl.training.encoding import Additive

BENCH_PREFIX = "bench_file."
# What is wrong with these is no fault of a value.
OWN_KEYS = frozenset({"sweep", "patterns"})
# Sections that are the whole scan's: swept, they would change no point.
UNSWEPT = frozenset(
    {"schema_version", "kind", "title", "bench", "sweep", "values", "record", "budget"}
)
# Of the patterns of one point.
MOST_PHASES = 2**27


@dataclass(frozen=True, eq=False)
class Point:
    """One value of the swept setting, checked.

    Parameters
    ----------
    value
        What the setting is here.
    setting
        The run as it is here.
    phase
        Phases shown, ``[pattern, macropixel]``, in rad.
    """

    value: object
    setting: Setting[ScanProtocol]
    phase: Tensor

    @property
    def show(self) -> Show:
        """What is judged of it."""
        return Show(self.setting.entry, self.phase)


@dataclass(frozen=True, eq=False)
class ScanJob:
    """A scan, checked at every point; nothing is open yet.

    Parameters
    ----------
    setting
        The run.
    points
        Every point, in order.
    forecast
        What it will cost.
    """

    setting: Setting[ScanProtocol]
    points: tuple[Point, ...]
    forecast: Forecast

    @property
    def headline(self) -> str:
        """First line that a person reads."""
        return self.setting.headline


def prepare(setting: Setting[ScanProtocol]) -> ScanJob:
    """Check a scan at every value before anything opens.

    Parameters
    ----------
    setting
        The run.

    Returns
    -------
    job
        Ready to execute.

    Raises
    ------
    ProtocolError
        A value is refused, or the outputs would change their number.
    """
    protocol = setting.protocol
    # What no values at all can keep is told before each of them is tried.
    _check_budget(setting, len(protocol.values))
    points = tuple(
        _placed(setting, number, value) for number, value in enumerate(protocol.values)
    )
    for point in points:
        _check_sizes(setting, points[0], point)
    shots = sum(len(point.phase) * point.setting.protocol.repeats for point in points)
    _check_budget(setting, shots)
    layout = scan_layout(shot_spec(setting))
    nbytes = disk.estimate_bytes(layout, shots, 0, 0, 0, 0)
    disk.check_room(setting.out, nbytes)
    forecast = Forecast(
        shots={"evaluate": shots},
        shot_s=max(
            shot_seconds(point.setting.source, point.setting.entry) for point in points
        ),
        simulated=setting.simulated,
        nbytes=nbytes,
        note=f"points: {len(points)} values of {protocol.sweep}",
    )
    return ScanJob(setting, points, forecast)


def _check_budget(setting: Setting[ScanProtocol], shots: int) -> None:
    """Compare shots with the budget.

    Raises
    ------
    ProtocolError
        They are more.
    """
    budget = setting.protocol.budget
    if budget is None or shots <= budget.shots:
        return
    text = (
        f"shots={budget.shots}, expected at least {shots} for this scan. "
        "Raise it, or lower values, patterns.count or repeats."
    )
    raise ProtocolError([setting.document.fault("budget.shots", text)])


def _placed(setting: Setting[ScanProtocol], number: int, value: object) -> Point:
    """Check one value; what is wrong with it is shown where it stands.

    Raises
    ------
    ProtocolError
        The setting is not known, or the value is refused.
    InputError
        As the point raises it, where the scan itself is at fault.
    """
    try:
        return _point(setting, value)
    except InputError as error:
        found = error.faults if isinstance(error, ProtocolError) else ()
        own = (fault.key.split(".")[0] in OWN_KEYS for fault in found)
        if any(own):
            raise
        told = [f"{fault.key}: {fault.text}" for fault in found] or [str(error)]
        place = f"values.{number}"
        raise ProtocolError(
            [setting.document.fault(place, text) for text in told]
        ) from error


def _point(setting: Setting[ScanProtocol], value: object) -> Point:
    sweep = setting.protocol.sweep
    override = f"{sweep}={json.dumps(value)}"
    source, given = setting.source, setting.document
    if sweep.startswith(BENCH_PREFIX):
        source = _swept_bench(setting, override.removeprefix(BENCH_PREFIX))
    elif sweep.split(".")[0] in UNSWEPT:
        text = (
            f"sweep={sweep}, expected a setting that changes what is measured, such as "
            "reservoir.power_mw. Name one."
        )
        raise ProtocolError([given.fault("sweep", text)])
    else:
        given = document.parse(
            given.text,
            ScanProtocol,
            where=setting.where,
            overrides=(*setting.overrides, override),
        )
    entry, light = checked_point(given, source, simulate=setting.options.simulate)
    if source is setting.source:  # on which no pattern is measured twice
        light = setting.light
    here = replace(setting, document=given, source=source, entry=entry, light=light)
    point = Point(value, here, _phases(here, entry))
    check_light(here, [point.show])
    return point


def _swept_bench(setting: Setting[ScanProtocol], override: str) -> BenchSource:
    source = setting.source
    key = f"{BENCH_PREFIX}{override.partition('=')[0]}"
    if not source.file.simulated or override.startswith("limits."):
        text = (
            f"sweep={key}, expected a setting of the protocol: only the bench file of "
            "a simulated bench can be swept, and never its limits"
        )
        raise ProtocolError([setting.document.fault("sweep", text)])
    return benches.load(source.path, overrides=(override,))


def _phases(setting: Setting[ScanProtocol], entry: ReservoirEntry) -> Tensor:
    patterns, layout = setting.protocol.patterns, entry.macropixels
    size = layout[0] * layout[1]
    if patterns.source == "flat":
        return torch.zeros(1, size, dtype=torch.float64)
    if patterns.source == "random":
        rng = np.random.default_rng([setting.protocol.seed, patterns.count])
        if patterns.count * size > MOST_PHASES:
            text = (
                f"count={patterns.count} of {size} macropixels each, expected at most "
                f"{MOST_PHASES // size}: they would not fit into memory. Lower it."
            )
            raise ProtocolError([setting.document.fault("patterns.count", text)])
        drawn = rng.random((patterns.count, size)) * patterns.scale_rad
        return torch.from_numpy(drawn)
    if patterns.data is None:
        text = (
            "data is missing, expected a data set with source: data. Add one, such as "
            "data: {set: digits}."
        )
        raise ProtocolError([setting.document.fault("patterns", text)])
    loaded = data.load_entry(patterns.data, setting.folder)
    x = torch.from_numpy(loaded.train.x[: patterns.count])
    encoding = Additive(loaded.features, layout, input_scale_rad=patterns.scale_rad)
    with torch.no_grad():
        encoded: Tensor = encoding(x, torch.zeros(size, dtype=x.dtype))
    return encoded.remainder(TURN)


def _check_sizes(setting: Setting[ScanProtocol], first: Point, point: Point) -> None:
    spec, other = shot_spec(first.setting), shot_spec(point.setting)
    if spec == other or replace(other, frame_origin=spec.frame_origin) == spec:
        return
    text = (
        f"{setting.protocol.sweep}={point.value} changes the number of macropixels, "
        "outputs or frame pixels, expected the same at every point. Scan it in "
        "separate runs."
    )
    raise ProtocolError([setting.document.fault("values", text)])


def execute(job: ScanJob, progress: Progress) -> Outcome:
    """Measure every point.

    Parameters
    ----------
    job
        A scan that was prepared.
    progress
        Whoever listens.

    Returns
    -------
    outcome
        How it ended.

    Raises
    ------
    LabctlError
        A device, a limit or the record stopped it.
    """
    setting, ledger = job.setting, Ledger(None)
    first = job.points[0].setting
    means: list[list[float]] = []
    here = [
        point for point in job.points if point.setting.source.file == first.source.file
    ]
    with opened(
        replace(first, out=setting.out),
        scan_layout(shot_spec(first)),
        progress,
        shows=[point.show for point in here],
        others=[point.setting for point in here],
    ) as session:
        for number, point in enumerate(job.points):
            with _at(session, point, ledger) as reservoir:
                means.append(_measure(session, reservoir, point, number))
            progress.update(
                Update("scan", number + 1, len(job.points), ledger.spent, None, {})
            )
        result = {
            "metric": "mean output",
            "unit": "electron",
            "sweep": setting.protocol.sweep,
            "values": list(setting.protocol.values),
            "mean_outputs": means,
        }
        session.recorder.set_result(result)
        path = session.recorder.path
    return Outcome(path, "complete", result, dict(ledger.counts), _summary(job, means))


@contextmanager
def _at(session: Session, point: Point, ledger: Ledger) -> Iterator[Reservoir]:
    """Yield the reservoir of a point: on the open bench, or on one of its own."""
    here, first = point.setting, session.setting
    same_file = here.source.file == first.source.file
    same_seed = here.protocol.seed == first.protocol.seed
    # The seed of a real bench draws patterns only; devices are opened once.
    if same_file and (same_seed or not session.bench.simulated):
        yield session.reservoir(here.entry, ledger)
        return
    with benches.open(
        here.source,
        seed=here.protocol.seed,
        simulate=True,
        allow_uncalibrated=here.protocol.allow_uncalibrated,
    ) as other:
        own = replace(session, bench=other)
        if not same_file:  # else it was told with the first point's
            own.tell_convergence(here.light, [point.show])
        yield own.reservoir(here.entry, ledger)


def _measure(
    session: Session, reservoir: Reservoir, point: Point, number: int
) -> list[float]:
    repeats, count = point.setting.protocol.repeats, len(point.phase)
    value = point.value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    outputs = []
    for repeat in range(repeats):
        response = reservoir(point.phase, category="evaluate", step=number)
        session.recorder.append(
            "points",
            value=np.full(count, value if is_number else number, dtype=np.float64),
            text=np.array([json.dumps(value)[:64]] * count),
            pattern=np.arange(count),
            repeat=np.full(count, repeat),
            shot=session.recorder.lengths["shots"]
            - reservoir.shots
            + response.shot.numpy(),
            outputs=response.y.numpy(),
        )
        session.recorder.commit()
        outputs.append(response.y)
    return [float(mean) for mean in torch.cat(outputs).mean(dim=0)]


def _summary(job: ScanJob, means: list[list[float]]) -> str:
    lines = [f"{'value':>12}  mean output, electrons a bin (all bins)"]
    for value, row in zip(job.setting.protocol.values, means, strict=True):
        lines.append(f"{value!s:>12}  {np.mean(row):.1f}")
    lines.append(f"record: {job.setting.out}")
    lines.append(f"next:   labctl report {job.setting.out}")
    return "\n".join(lines)
