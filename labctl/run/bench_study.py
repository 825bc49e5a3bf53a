"""Kind ``study`` on a bench: jobs one after the other, every shot and row recorded.

::

    job --measure--> shots, a row of fits, a checkpoint --commit--> the next job

An interrupted study goes on behind the last job that stands: on simulated light the
light path is put back to where it was then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labctl import bench as benches
from labctl.errors import Fault, ProtocolError, RecordError
from labctl.guard import LONGEST_SILENCE_S
from labctl.protocol import StudyProtocol
from labctl.recording import disk
from labctl.recording.layout import Layout, study_layout
from labctl.reservoir import Ledger
from labctl.run import study
from labctl.run.checkpoint import KIND
from labctl.run.convergence import Show
from labctl.run.progress import Progress, Update
from labctl.run.refusal import placed
from labctl.run.setting import (
    Forecast,
    Outcome,
    Session,
    Setting,
    check_fit,
    check_light,
    light_beside,
    opened,
    shot_seconds,
    shot_spec,
)
from labctl.run.train import load_optimiser, one_thread
from labctl.studies.catalogue import BENCH_STUDIES
from labctl.studies.job import BenchStudy, Job, Lab

# Of rows that a study makes; events and writers belong to a process.
TABLES = ("shots", "fits")
CHECKPOINT_BYTES = 2**16


@dataclass(frozen=True, eq=False)
class BenchStudyJob:
    """A study on a bench, checked; nothing is open yet.

    Parameters
    ----------
    setting
        The run.
    study
        Which experiment.
    jobs
        Its parts, in order.
    layout
        What the record holds.
    shows
        What the jobs of the first seed show first.
    forecast
        What it will cost.
    """

    setting: Setting[StudyProtocol]
    study: BenchStudy[Any]
    jobs: tuple[Job, ...]
    layout: Layout
    shows: tuple[Show, ...]
    forecast: Forecast

    @property
    def headline(self) -> str:
        """First line that a person reads."""
        return self.setting.headline


def prepare(setting: Setting[StudyProtocol]) -> BenchStudyJob:
    """Check every operating point of a study, and forecast what it costs.

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
        An operating point or a job is refused.
    InputError
        There is no room for the record.
    """
    protocol = setting.protocol
    found = BENCH_STUDIES[protocol.study.name]
    first = protocol.seed
    jobs = found.jobs(protocol.study, range(first, first + protocol.seeds))
    with light_beside(setting):
        slowest = _check_points(setting, found)
    shows = _shows(setting, found, jobs)
    check_light(setting, shows)
    shots: dict[str, int] = {}
    for job in jobs:
        for category, count in found.shots(protocol.study, job, setting).items():
            shots[category] = shots.get(category, 0) + count
    layout = study_layout(
        found.columns(protocol.study, setting.entry), shot_spec(setting)
    )
    row = sum(column.row_bytes for column in layout.table("fits").columns)
    nbytes = row * len(jobs) + disk.estimate_bytes(
        layout, sum(shots.values()), 0, 0, len(jobs), CHECKPOINT_BYTES
    )
    if setting.unfinished is None:
        disk.check_room(setting.out, nbytes)
    note = f"jobs:  {len(jobs)}, each of one of {protocol.seeds} seeds"
    forecast = Forecast(shots, slowest, setting.simulated, nbytes, note)
    return BenchStudyJob(setting, found, tuple(jobs), layout, shows, forecast)


def _shows(
    setting: Setting[StudyProtocol], found: BenchStudy[Any], jobs: Sequence[Job]
) -> tuple[Show, ...]:
    """Say what the jobs of the first seed show first.

    Raises
    ------
    ProtocolError
        What the study encodes does not fit the panel.
    """
    first = [job for job in jobs if job.seed == setting.protocol.seed]
    try:
        shows = [found.shown(setting.protocol.study, job, setting) for job in first]
    except ValueError as error:
        raise ProtocolError([placed(setting.document, "study", error)]) from error
    shown = tuple(show for show in shows if show is not None)
    return shown or (Show(setting.entry),)


def _check_points(setting: Setting[StudyProtocol], found: BenchStudy[Any]) -> float:
    """Check limits and fit at every operating point; return the slowest shot.

    Raises
    ------
    ProtocolError
        One is refused.
    """
    faults: list[Fault] = []
    points = found.points(setting.protocol.study, setting.entry)
    for key, entry in points.items():
        faults += [
            setting.document.fault(f"study.{key}", text)
            for text in benches.limit_faults(
                setting.source.file,
                power_mw=entry.power_mw,
                exposure_s=entry.exposure_s,
            )
        ]
    if faults:
        raise ProtocolError(faults)
    bench = benches.construct(
        setting.source, simulate=setting.options.simulate, fall_back=True
    )
    for key, entry in points.items():
        try:
            check_fit(setting.document, bench, entry)
        except ProtocolError as error:
            faults += [
                setting.document.fault(f"study.{key}", fault.text)
                for fault in error.faults
            ]
    if faults:
        raise ProtocolError(faults)
    return max(shot_seconds(setting.source, entry) for entry in points.values())


def execute(job: BenchStudyJob, progress: Progress) -> Outcome:
    """Do every job that does not stand in the record yet, then judge the claims.

    Parameters
    ----------
    job
        A study that was prepared.
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
    protocol = setting.protocol
    load_optimiser()
    with (
        one_thread(),
        opened(setting, job.layout, progress, shows=job.shows) as session,
    ):
        recorder = session.recorder
        done = _restore(session, ledger)
        if done:
            progress.say(f"{done} of {len(job.jobs)} jobs stand already")
        for number, part in enumerate(job.jobs[done:], start=done):
            lab = Lab(session, ledger, number)
            values = job.study.measure(protocol.study, part, lab)
            study.append(recorder, part, values)
            recorder.checkpoint(number + 1, KIND, _state(session, ledger))
            recorder.commit()
            score = {"score": float(values["score"])}
            place = (number + 1, len(job.jobs), ledger.total)
            progress.update(Update("study", *place, None, score))
        with session.bench.digital(LONGEST_SILENCE_S):
            found = job.study.claims(protocol.study, study.rows(recorder, job.layout))
        result = study.conclude(recorder, protocol, found)
        recorder.commit()
    made = ", ".join(f"{name} {n}" for name, n in ledger.counts.items() if n)
    lines = [*study.told(found), f"shots: {made}", f"record: {setting.out}"]
    lines.append(f"next:   labctl report {setting.out}")
    counts = dict(ledger.counts)
    return Outcome(setting.out, "complete", result, counts, "\n".join(lines))


def _state(session: Session, ledger: Ledger) -> dict[str, Any]:
    """Everything that going on behind a job needs."""
    world, lengths = session.bench.world, session.recorder.lengths
    return {
        "world": None if world is None else world.state(),
        "ledger": ledger.state_dict(),
        "lengths": {name: lengths[name] for name in TABLES},
    }


def _restore(session: Session, ledger: Ledger) -> int:
    """Go on behind the last job of an unfinished run; return how many stand.

    Raises
    ------
    RecordError
        The checkpoint is not one of a study.
    """
    left = session.setting.unfinished
    state = None if left is None else left.checkpoint
    if state is None:
        return 0
    try:
        session.recorder.rewind(state["lengths"])
        ledger.load_state_dict(state["ledger"])
        if session.bench.world is not None:
            session.bench.world.restore(state["world"])
        return int(state["lengths"]["fits"])
    except (KeyError, TypeError, ValueError) as error:
        text = (
            f"{session.setting.out}: checkpoint: {error!r}, expected the state of this "
            "study. Restore the file from a copy, or run the protocol anew."
        )
        raise RecordError(text) from error
