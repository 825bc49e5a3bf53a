"""Kind ``study``: jobs one after the other, a row of the record each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labctl.protocol import StudyProtocol
from labctl.recording import disk
from labctl.recording.header import Header
from labctl.recording.layout import LONGEST_CLAIM_BYTES, Layout, study_layout
from labctl.recording.writer import Recorder
from labctl.run.progress import Progress, Update
from labctl.run.setting import RECORDS, Desk, Forecast, Outcome
from labctl.studies.catalogue import STUDIES
from labctl.studies.job import Claim, Job, Study, Verdict

NO_BENCH = ""
"""Name of the bench in the record of a study that has none."""


@dataclass(frozen=True, eq=False)
class StudyJob:
    """A study, checked; nothing is open yet.

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
    forecast
        What it will cost.
    """

    setting: Desk
    study: Study[Any]
    jobs: tuple[Job, ...]
    layout: Layout
    forecast: Forecast

    @property
    def headline(self) -> str:
        """First line that a person reads."""
        return self.setting.headline


def prepare(setting: Desk) -> StudyJob:
    """List the jobs of a study and forecast the size of its record.

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
    InputError
        There is no room for the record.
    """
    protocol = setting.protocol
    study = STUDIES[protocol.study.name]
    first = protocol.seed
    jobs = study.jobs(protocol.study, range(first, first + protocol.seeds))
    layout = study_layout(study.columns(protocol.study))
    row = sum(column.row_bytes for column in layout.table("fits").columns)
    nbytes = disk.estimate_bytes(layout, 0, 0, 0, 0, 0) + row * len(jobs)
    if not setting.unfinished:
        disk.check_room(setting.out, nbytes)
    note = f"jobs:  {len(jobs)}, each of one of {protocol.seeds} seeds"
    forecast = Forecast({}, 0.0, simulated=False, nbytes=nbytes, note=note)
    return StudyJob(setting, study, tuple(jobs), layout, forecast)


def execute(job: StudyJob, progress: Progress) -> Outcome:
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
        The record failed.
    """
    setting = job.setting
    with _recorder(job) as recorder:
        done = _standing(recorder)
        if done:
            progress.say(f"{len(done)} of {len(job.jobs)} jobs stand already")
        for number, part in enumerate(job.jobs, start=1):
            if part.name in done:
                continue
            values = job.study.measure(setting.protocol.study, part)
            append(recorder, part, values)
            recorder.commit()
            score = {"score": float(values["score"])}
            progress.update(Update("study", number, len(job.jobs), 0, None, score))
        found = job.study.claims(setting.protocol.study, rows(recorder, job.layout))
        result = conclude(recorder, setting.protocol, found)
        recorder.set_end_time()
    lines = [*told(found), f"record: {setting.out}"]
    lines.append(f"next:   labctl report {setting.out}")
    return Outcome(setting.out, "complete", result, {}, "\n".join(lines))


def _recorder(job: StudyJob) -> Recorder:
    setting = job.setting
    if setting.unfinished:
        return Recorder.resume(setting.out, layout=job.layout)
    if setting.options.out is None:
        RECORDS.mkdir(exist_ok=True)
    return Recorder.create(
        setting.out,
        layout=job.layout,
        header=_header(setting),
        overwrite=setting.options.overwrite,
    )


def _standing(recorder: Recorder) -> set[str]:
    """Name the jobs whose rows are there."""
    there = slice(0, recorder.lengths["fits"])
    names = recorder.read("fits", "job", there)
    return {name.decode() for name in names.tolist()}


def append(recorder: Recorder, part: Job, values: Any) -> None:  # noqa: ANN401
    """Append the row of a job.

    Parameters
    ----------
    recorder
        The open record.
    part
        The job.
    values
        Its score and a value of every column of the study.
    """
    row = {"job": part.name, "seed": part.seed, **values}
    recorder.append("fits", **{k: np.asarray([v]) for k, v in row.items()})


def rows(recorder: Recorder, layout: Layout) -> dict[str, NDArray[Any]]:
    """Read the rows of all jobs, texts as text.

    Parameters
    ----------
    recorder
        The open record.
    layout
        What it holds.
    """
    there = slice(0, recorder.lengths["fits"])
    found = {}
    for column in layout.table("fits").columns:
        values = recorder.read("fits", column.name, there)
        if column.dtype.startswith("S"):
            values = np.array([text.decode() for text in values.tolist()], dtype=object)
        found[column.name] = values
    return found


def conclude(
    recorder: Recorder, protocol: StudyProtocol, found: Sequence[Claim]
) -> dict[str, Any]:
    """Write what was said of each claim, and the summary.

    Parameters
    ----------
    recorder
        The open record.
    protocol
        The study.
    found
        Its claims, judged.

    Returns
    -------
    result
        The summary.
    """
    left = recorder.lengths["claims"]
    for claim in found[left:]:
        recorder.append(
            "claims",
            claim=[claim.text],
            measured=[shortened(recorder, claim.measured)],
            verdict=[str(claim.verdict)],
        )
    counts = {
        str(kind): sum(claim.verdict is kind for claim in found) for kind in Verdict
    }
    result = {
        "metric": "claims of the document that held",
        "study": protocol.study.name,
        "size": protocol.size,
        "seeds": protocol.seeds,
        "jobs": recorder.lengths["fits"],
        "claims": {kind: count for kind, count in counts.items() if count},
    }
    recorder.set_result(result)
    return result


def shortened(recorder: Recorder, text: str) -> str:
    """Cut what the column cannot hold, say so there, and keep all in an event.

    A study ends with its claims: too many words must not cost the whole run.

    Parameters
    ----------
    recorder
        The open record.
    text
        What was measured.

    Returns
    -------
    text
        As it was where it fits.
    """
    room = LONGEST_CLAIM_BYTES
    size = len(text.encode())
    if size <= room:
        return text
    tail = f" … ({size} bytes, cut)"
    kept = text.encode()[: room - len(tail.encode())].decode(errors="ignore")
    recorder.event("warning", "study", f"claims.measured, all {size} bytes: {text}")
    return kept + tail


def told(found: Sequence[Claim]) -> Iterator[str]:
    """Lay claims out as the rows of a Markdown table.

    Parameters
    ----------
    found
        Judged.
    """
    yield "| claim | measured | verdict |"
    yield "|---|---|---|"
    for claim in found:
        yield f"| {claim.text} | {claim.measured} | {claim.verdict} |"


def _header(setting: Desk) -> Header:
    protocol, path = setting.protocol, setting.document.path
    return Header(
        title=protocol.title or setting.out.stem,
        kind="study",
        protocol_text=setting.document.text,
        protocol_path="" if path is None else str(path.absolute()),
        protocol_resolved=protocol.model_dump(mode="json"),
        bench_name=NO_BENCH,
        bench_text="",
        bench_sha256="",
        simulated=False,
        notice="",
        seeds={"first": protocol.seed},
        instrument={},
        calibrations={},
        reservoir={},
    )
