"""Run a comparison: trainings in processes, one record of what they say.

Only the parent writes the comparison's record; every training writes its own, in
the folder of the jobs beside it. A training that is finished there, by the same
protocol on the same bench, is read and not run again: calling the same command
again goes on after an interruption.
"""

import math
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import joblib

from labctl.comparison import cluster as clusters
from labctl.comparison import fitted
from labctl.comparison import job as rooms
from labctl.comparison.job import Job
from labctl.comparison.score import Line, References, Score, summarise
from labctl.errors import InputError, LabctlError, OutcomeError
from labctl.protocol import AnyProtocol, ComparisonProtocol
from labctl.recording.header import Header
from labctl.recording.layout import comparison_layout
from labctl.recording.reader import Record
from labctl.recording.writer import Recorder
from labctl.run import execute as single
from labctl.run import prepare as runs
from labctl.run import resume as unfinished
from labctl.run.progress import Progress, Silent, Update
from labctl.run.refusal import Refusals
from labctl.run.setting import Desk, Forecast, Options, Outcome, Setting, resolve
from labctl.training.journal import Status

Row = dict[str, Any]
AT_ZERO = Status.COSINE_AT_ZERO.label
GO_ON = (
    "Run the same command again, with --overwrite where --out names the record: what "
    "is finished is not run again."
)

__all__ = [
    "AnyJob",
    "ComparisonJob",
    "Options",
    "check",
    "choose",
    "execute",
    "prepare",
]


@dataclass(frozen=True, eq=False)
class ComparisonJob:
    """A comparison, checked; nothing is open yet.

    Parameters
    ----------
    setting
        The run.
    jobs
        Every training.
    forecast
        What they cost together.
    cluster
        Address of a Dask scheduler that they go to; None for processes here.
    """

    setting: Setting[ComparisonProtocol]
    jobs: tuple[Job, ...]
    forecast: Forecast
    cluster: str | None = None

    @property
    def headline(self) -> str:
        """First line that a person reads."""
        return self.setting.headline


AnyJob = runs.Job | ComparisonJob


def choose(
    protocol: str | None,
    record: Path | None,
    options: Options,
    *,
    cluster: str | None = None,
) -> AnyJob:
    """Prepare a new run of any kind, or go on with one.

    Parameters
    ----------
    protocol
        Protocol of a new run.
    record
        Record of an interrupted one.
    options
        What the command line adds.
    cluster
        Address of a Dask scheduler, for a comparison.

    Returns
    -------
    job
        Checked; nothing was opened or created.

    Raises
    ------
    InputError
        Something is refused.
    """
    if cluster is not None:
        clusters.check(cluster)
    job = _chosen(protocol, record, options)
    if cluster is None:
        return job
    if not isinstance(job, ComparisonJob):
        text = (
            f"--cluster: kind={job.setting.protocol.kind}, expected a comparison: one "
            "training is one process. Leave --cluster out."
        )
        raise InputError(text)
    if not job.setting.simulated:
        text = (
            f"--cluster: bench {job.setting.source.file.name} is real, expected a "
            "simulated one: its devices are here. Leave --cluster out."
        )
        raise InputError(text)
    return replace(job, cluster=cluster)


def _chosen(protocol: str | None, record: Path | None, options: Options) -> AnyJob:
    if protocol is None or record is not None:
        return unfinished.choose(protocol, record, options)
    return _job_of(resolve(protocol, options))


def check(path: Path) -> None:
    """Check a protocol of any kind, as far as a run could without its devices.

    Parameters
    ----------
    path
        The protocol.

    Raises
    ------
    InputError
        Something is refused; the message has every fault.
    """
    _job_of(resolve(str(path), Options(), files=False))


def _job_of(setting: Setting[AnyProtocol] | Desk) -> AnyJob:
    if not isinstance(setting, Desk) and isinstance(
        setting.protocol, ComparisonProtocol
    ):
        return prepare(cast("Setting[ComparisonProtocol]", setting))
    return runs.job_of(setting)


def prepare(setting: Setting[ComparisonProtocol]) -> ComparisonJob:
    """Check a comparison and every kind of training in it.

    Parameters
    ----------
    setting
        The run.

    Returns
    -------
    job
        To be executed.

    Raises
    ------
    ProtocolError
        A training is refused, or a real bench is to train twice at a time.
    """
    protocol, refusals = setting.protocol, Refusals(setting.refused)
    simulated = setting.simulated
    if protocol.workers > 1 and not simulated:
        text = (
            f"workers={protocol.workers}, expected 1: bench "
            f"{setting.source.file.name} is real, and serves one training at a time"
        )
        refusals.add([setting.document.fault("workers", text)])
    found = rooms.jobs(setting)
    try:
        checked = rooms.check(setting, found)
    except InputError as error:
        raise Refusals((*refusals.errors, error)).joined() from error.__cause__
    refusals.tell()
    seeds = len(protocol.seeds)
    shots: dict[str, int] = {}
    for training in checked:
        for category, count in training.forecast.shots.items():
            shots[category] = shots.get(category, 0) + seeds * count
    forecast = Forecast(
        shots=shots,
        shot_s=max(training.forecast.shot_s for training in checked),
        simulated=simulated,
        nbytes=seeds * sum(training.forecast.nbytes for training in checked),
        note=(
            f"jobs:  {len(found)} trainings, {sum(map(_is_done, found))} of them "
            f"finished already in {rooms.folder(setting)}"
        ),
    )
    return ComparisonJob(setting, tuple(found), forecast)


def execute(job: AnyJob, progress: Progress) -> Outcome:
    """Run a job of any kind.

    Parameters
    ----------
    job
        From :func:`choose`.
    progress
        Whoever listens.

    Returns
    -------
    outcome
        How it ended.

    Raises
    ------
    LabctlError
        A device, a limit, the record or the result stopped it.
    """
    if isinstance(job, ComparisonJob):
        return _compare(job, progress)
    return single.execute(job, progress)


def _compare(job: ComparisonJob, progress: Progress) -> Outcome:
    """Run what is not finished, write a row as each training ends, summarise.

    Raises
    ------
    OutcomeError
        Trainings failed; the others are in the record.
    """
    setting = job.setting
    folder = rooms.folder(setting)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    recorder = Recorder.create(
        setting.out,
        layout=comparison_layout(),
        header=_header(setting),
        overwrite=setting.options.overwrite,
    )
    with recorder:
        _tell_cards(job, recorder, progress)
        for row in _rows(job, progress):
            rows.append(row)
            recorder.append("jobs", **{k: [v] for k, v in row.items() if k in _COLUMNS})
            recorder.commit()
        order = {training.out.name: n for n, training in enumerate(job.jobs)}
        rows.sort(key=lambda row: order[Path(row["record"]).name])
        lines = summarise(_scores(rows), _references(job), target=_target(job))
        for line in lines:
            recorder.append("summary", **{k: [v] for k, v in _columns(line).items()})
        failed = [row for row in rows if row["status"] == "failed"]
        compact = _result(rows, failed)
        recorder.set_result(compact)
        if failed:
            recorder.event("error", "comparison", f"{len(failed)} trainings failed")
            recorder.set_status("failed")
        recorder.set_end_time()
        recorder.commit()
    if failed:
        told = "; ".join(f"{row['record']}: {row['error']}" for row in failed[:5])
        text = (
            f"{setting.where}: failed={len(failed)} of {len(rows)} trainings, expected "
            f"0. Mend the cause. {GO_ON} {told}"
        )
        raise OutcomeError(text)
    result = {**compact, "table": [_plain(_columns(line)) for line in lines]}
    shots = {"total": int(sum(row["shots"] for row in rows))}
    return Outcome(setting.out, "complete", result, shots, _summary(job, lines, rows))


# ---- trainings ----------------------------------------------------------------


def _tell_cards(job: ComparisonJob, recorder: Recorder, progress: Progress) -> None:
    """Note which trainings have to be compared over graphics cards, if any."""
    finished = [training for training in job.jobs if _is_done(training)]
    left = [training for training in job.jobs if training not in finished]
    # What cards a cluster has only its workers know.
    apart = fitted.apart(finished, "" if job.cluster else fitted.here(left))
    if apart:
        recorder.event("warning", "surrogate", apart)
        progress.say(f"warning: surrogate: {apart}")


def _rows(job: ComparisonJob, progress: Progress) -> Iterator[Row]:
    """Yield a row of every training as it ends: finished ones first."""
    setting, total = job.setting, len(job.jobs)
    finished = [training for training in job.jobs if _is_done(training)]
    left = [training for training in job.jobs if training not in finished]
    if finished:
        progress.say(f"{len(finished)} of {total} trainings are finished already")
    for training in finished:
        yield _row(training, "")
    tasks = [
        joblib.delayed(train_one)(
            # Wherever a worker was started: these names are the same there.
            replace(training, out=training.out.resolve()),
            str(setting.source.path.resolve()),
            simulate=setting.options.simulate,
        )
        for training in left
    ]
    start_s = time.monotonic()
    with clusters.handed_to(job.cluster) as workers:
        here = min(setting.protocol.workers, max(len(left), 1))
        work = joblib.Parallel(n_jobs=workers or here, return_as="generator_unordered")
        # joblib is untyped: what its generator yields is what train_one returns.
        ended = cast("Iterator[tuple[Job, str]]", work(tasks))
        for number, (training, error) in enumerate(_watched(ended, job), start=1):
            row = _row(training, error)
            done = len(finished) + number
            pace_s = (time.monotonic() - start_s) / number
            minutes = pace_s * (len(left) - number) / 60
            outcome = error or f"score {row['score']:.3f}"
            progress.say(f"{training.name}: {outcome}; about {minutes:.1f} min left")
            progress.update(Update("comparison", done, total, row["shots"], None, {}))
            yield row


def _watched(
    ended: Iterator[tuple[Job, str]], job: ComparisonJob
) -> Iterator[tuple[Job, str]]:
    """Hand on what ends; say it where a process was ended from outside.

    Raises
    ------
    OutcomeError
        A process is gone, and with it the trainings that were under way.
    """
    try:
        yield from ended
    except BrokenProcessPool as error:
        done = sum(map(_is_done, job.jobs))
        text = (
            f"{job.setting.where}: a process that trained was ended from outside "
            f"(killed, or for want of memory), expected it to end by itself. {done} "
            f"of {len(job.jobs)} trainings are finished and kept in "
            f"{rooms.folder(job.setting)}. {GO_ON} Fewer workers need less memory."
        )
        raise OutcomeError(text) from error


def train_one(training: Job, bench: str, *, simulate: bool) -> tuple[Job, str]:
    """Run one training, in whatever process this is.

    Parameters
    ----------
    training
        Its protocol and the place of its record.
    bench
        Bench file.
    simulate
        Use the bench's simulated twin.

    Returns
    -------
    training
        As given.
    error
        Why it failed; empty when it did not.
    """
    protocol = training.out.with_suffix(".yaml")
    protocol.write_text(training.text, encoding="utf-8", newline="\n")
    options = Options(bench=bench, out=training.out, overwrite=True, simulate=simulate)
    try:
        single.execute(runs.prepare(str(protocol), options), Silent())
    except LabctlError as error:
        return training, str(error)
    return training, ""


def _is_done(training: Job) -> bool:
    if not training.out.is_file():
        return False
    try:
        with Record.open(training.out) as record:
            same = record.protocol_text == training.text
            return same and (record.status == "complete" or _is_at_zero(record))
    except LabctlError:
        return False  # Left by a crash: it is run again, and written anew.


def _is_at_zero(record: Record) -> bool:
    """Whether a training did all its steps, with a cosine not told from zero.

    Of the method that says something; nothing has to be mended and run again.
    """
    return record.result.get("outcome") == AT_ZERO


def _row(training: Job, error: str) -> Row:
    row: Row = {
        "task": training.task,
        "method": training.method,
        "seed": training.seed,
        "budget": training.budget,
        "status": "failed",
        "score": math.nan,
        "cosine": math.nan,
        "shots": 0,
        "digital_s": math.nan,
        "record": f"{training.out.parent.name}/{training.out.name}",
        "error": error,
        "direction": "",
        "metric": "",
    }
    if error:
        return row | _exposed(training, error)
    with Record.open(training.out) as record:
        result, ledger = record.result, record.ledger()
        status = AT_ZERO if _is_at_zero(record) else "complete"
    row |= {
        "status": status,
        "score": _number(result["score_test"]),
        "cosine": _number(result["cosine"]),
        "shots": sum(ledger.values()),
        "digital_s": _number(result["digital_s"]),
        "direction": result["direction"],
        "metric": result["metric"],
    }
    return row


def _exposed(training: Job, error: str) -> Row:
    """Say what a training that failed exposed before it did, as its record has it."""
    if not training.out.is_file():
        return {}  # Refused before anything opened.
    try:
        with Record.open(training.out) as record:
            mine = record.protocol_text == training.text
            return {"shots": sum(record.ledger().values()) if mine else 0}
    except LabctlError as unread:
        return {"error": f"{error} Its exposures are not counted: {unread}"}


_COLUMNS = {column.name for column in comparison_layout().table("jobs").columns}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


# ---- what they say ------------------------------------------------------------


def _scores(rows: list[Row]) -> list[Score]:
    keys = ("task", "method", "seed", "budget", "score", "cosine", "digital_s")
    return [
        Score(
            **{key: row[key] for key in keys},
            direction=-1 if row["direction"] == "down" else 1,
        )
        for row in rows
        if row["status"] != "failed"
    ]


def _references(job: ComparisonJob) -> References:
    kinds = {kind: name for name, kind in rooms.kinds(job.setting.protocol)}
    return References(kinds.get("readout"), kinds.get("oracle"))


def _target(job: ComparisonJob) -> float:
    return job.setting.protocol.target


def _columns(line: Line) -> Row:
    row: Row = {}
    for name in ("mean", "gain", "over_readout", "over_oracle"):
        row[f"{name}_low"], row[f"{name}_high"] = getattr(line, f"{name}_interval")
    for name in ("task", "method", "budget", "seeds", "mean", "gain", "over_readout"):
        row[name] = getattr(line, name)
    for name in ("reached", "cosine", "digital_s", "shots_to_target"):
        row[name] = getattr(line, name)
    return row


def _plain(row: Row) -> Row:
    """JSON knows no numbers that are not finite; a target never reached is text."""
    return {
        key: (">" if value == math.inf else None)
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for key, value in row.items()
    }


def _result(rows: list[Row], failed: list[Row]) -> Row:
    good = [row for row in rows if row["status"] != "failed"]
    scales = {row["task"]: (row["metric"], row["direction"]) for row in good}
    # One word for all tasks, where there is one.
    one = scales.values() if len(set(scales.values())) == 1 else [(None, None)]
    metric, direction = next(iter(one))
    return {
        "metric": metric,
        "direction": direction,
        "scales": {
            task: {"metric": metric, "direction": direction}
            for task, (metric, direction) in scales.items()
        },
        "jobs": len(rows),
        "failed": len(failed),
        "at_zero": sum(row["status"] == AT_ZERO for row in rows),
        "shots": int(sum(row["shots"] for row in rows)),
        "digital_s": round(sum(row["digital_s"] for row in good), 1),
    }


def table(lines: list[Line]) -> list[str]:
    """Lay a summary out as the rows of a Markdown table.

    Parameters
    ----------
    lines
        What each method reached.
    """
    heads = (
        "task | method | shots | seeds | score [95 %] | recovered gain [95 %] | "
        "over readout [95 %] | reach the oracle | shots to target | cosine | "
        "digital s"
    )
    rule = "|".join(["---"] * (heads.count("|") + 1))
    return [f"| {heads} |", f"|{rule}|", *(f"| {_cells(line)} |" for line in lines)]


def _cells(line: Line) -> str:
    target = line.shots_to_target
    reached = f"> {line.budget}" if target == math.inf else _told(target, ".0f")
    cells = (
        line.task,
        line.method,
        str(line.budget),
        str(line.seeds),
        _with(line.mean, line.mean_interval),
        _with(line.gain, line.gain_interval),
        _with(line.over_readout, line.over_readout_interval),
        _reach(line),
        reached,
        _told(line.cosine, ".2f"),
        _told(line.digital_s, ".1f"),
    )
    return " | ".join(cells)


def _reach(line: Line) -> str:
    if math.isnan(line.over_oracle_interval[0]):
        return "–"
    return f"{line.reached} of {line.seeds}"


def _told(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def _with(value: float, interval: tuple[float, float]) -> str:
    if math.isnan(interval[0]):
        return _told(value, ".3f")
    return f"{_told(value, '.3f')} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _summary(job: ComparisonJob, lines: list[Line], rows: list[Row]) -> str:
    out = job.setting.out
    none = [row["record"] for row in rows if row["status"] == AT_ZERO]
    said = f"{len(none)} trainings whose held-out cosine cannot be told from zero: "
    return "\n".join(
        [
            *table(lines),
            *([said + ", ".join(none)] if none else []),
            f"trainings: {rooms.folder(job.setting)}",
            f"record: {out}",
            f"next:   labctl report {out}",
        ]
    )


def _header(setting: Setting[ComparisonProtocol]) -> Header:
    """Say what is known before the first training; no device is open for it."""
    protocol, source = setting.protocol, setting.source
    return Header(
        title=protocol.title or setting.out.stem,
        kind="comparison",
        protocol_text=setting.document.text,
        protocol_resolved=protocol.model_dump(mode="json"),
        bench_name=source.file.name,
        bench_text=source.text,
        bench_sha256=source.sha256,
        simulated=setting.simulated,
        notice="",
        seeds={f"job_{number}": seed for number, seed in enumerate(protocol.seeds)},
        instrument={},
        calibrations={},
        reservoir=setting.entry.model_dump(),
    )
