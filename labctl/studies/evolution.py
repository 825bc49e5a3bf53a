"""The other way to train a device: vary the best one, and select.

Each job is a training of the comparison (``kind: comparison``): the same data, start,
readout and budget, by variation and selection, by the learned backward pass, by the
readout alone, and by the true gradient as a reference.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from labctl.calibration import ReservoirEntry
from labctl.protocol import Evolution
from labctl.recording.layout import Column
from labctl.run.convergence import Show
from labctl.run.setting import Setting
from labctl.run.train import TrainJob
from labctl.studies import lesson
from labctl.studies.job import (
    BenchStudy,
    Claim,
    Job,
    Lab,
    Rows,
    Values,
    Verdict,
    own_point,
    together,
    told,
)

MARKS: Final = 40
"""Points of a learning curve that the record keeps."""


def columns(spec: Evolution, entry: ReservoirEntry) -> tuple[Column, ...]:
    """Say what every job leaves.

    Parameters
    ----------
    spec
        The study's settings.
    entry
        The operating point.
    """
    del spec, entry
    curve, axis = (MARKS,), ("mark",)
    return (
        Column("method", "S16", "Way of training"),
        Column("budget", "i8", "Exposures that the training may cost"),
        Column("shots", "f8", "Exposures so far", shape=curve, dims=axis),
        Column("loss", "f8", "Training loss, averaged", shape=curve, dims=axis),
    )


def jobs(spec: Evolution, seeds: Sequence[int]) -> list[Job]:
    """List the jobs: one a method, budget and seed.

    Parameters
    ----------
    spec
        The study's settings.
    seeds
        Of the trainings.
    """
    return [
        Job(
            f"{method} {budget} shots seed {seed}",
            seed,
            {"method": method, "budget": budget},
        )
        for seed in seeds
        for budget in spec.budgets
        for method in spec.methods
    ]


def _lesson(spec: Evolution, job: Job, setting: Setting[Any]) -> TrainJob:
    return lesson.lesson(setting, _sections(spec, job), job.seed)


def _sections(spec: Evolution, job: Job) -> dict[str, Any]:
    return {
        "data": spec.data.model_dump(),
        "model": lesson.through_device(spec.input_scale_rad),
        "method": _method(spec, str(job.settings["method"])),
        "surrogate": {"name": "twin-modes"},
        "training": {"batch": spec.batch},
        "budget": {"shots": int(job.settings["budget"])},
    }


def _method(spec: Evolution, name: str) -> Mapping[str, Any]:
    if name not in {"selection", "annealing"}:
        return {"name": name}
    last = spec.step_rad if name == "annealing" else spec.radius_rad
    return {
        "name": "annealing",
        "candidates": spec.candidates,
        "radius_rad": spec.radius_rad,
        "step_rad": last,
    }


def shown(spec: Evolution, job: Job, setting: Setting[Any]) -> Show:
    """Say what a job shows first.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Which training.
    setting
        The run.
    """
    return _lesson(spec, job, setting).show


def shots(spec: Evolution, job: Job, setting: Setting[Any]) -> dict[str, int]:
    """Check a training and count its exposures.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Which method, budget and seed.
    setting
        The run.
    """
    return lesson.shots(_lesson(spec, job, setting))


def measure(spec: Evolution, job: Job, lab: Lab) -> Values:
    """Train once.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Which method, budget and seed.
    lab
        The bench.
    """
    with lab.digital():
        prepared = _lesson(spec, job, lab.session.setting)
    taught = lesson.teach(prepared, lab)
    return {
        "score": taught.score,
        "method": str(job.settings["method"]),
        "budget": int(job.settings["budget"]),
        "shots": _marked(taught.shots),
        "loss": _marked(taught.loss),
    }


def _marked(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average a curve in equal parts; one that is shorter ends in NaN."""
    parts = np.array_split(curve, min(MARKS, max(len(curve), 1)))
    found = np.full(MARKS, np.nan)
    for number, part in enumerate(parts):
        if len(part):
            found[number] = part.mean()
    return found


# ---- claims ----------------------------------------------------------------------


def scores(rows: Rows, method: str, budget: int) -> NDArray[np.float64]:
    """Give the scores of a method, one a seed.

    Parameters
    ----------
    rows
        One a job.
    method, budget
        Which.
    """
    some = (rows["method"] == method) & (rows["budget"] == budget)
    order = np.argsort(rows["seed"][some], kind="stable")
    return np.asarray(rows["score"][some][order], dtype=np.float64)


def claims(spec: Evolution, rows: Rows) -> list[Claim]:
    """Judge evolution against what else trains a device.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a job.
    """
    found = []
    for better, worse, text in (
        ("annealing", "selection", "variations that shrink do better than equal ones"),
        ("surrogate", "annealing", "a learned backward pass needs fewer exposures"),
    ):
        if better in spec.methods and worse in spec.methods:
            found.append(_ahead(spec, rows, (better, worse), text))
    ways = [name for name in ("annealing", "selection") if name in spec.methods]
    if ways and "readout" in spec.methods:
        text = "evolutive selection and annealing train a device"
        each = [_ahead(spec, rows, (way, "readout"), text) for way in ways]
        said = "; ".join(claim.measured for claim in each)
        found.insert(0, Claim(text, said, together([one.verdict for one in each])))
    return found


def _ahead(spec: Evolution, rows: Rows, pair: tuple[str, str], text: str) -> Claim:
    said, kinds = [], []
    for budget in spec.budgets:
        better, worse = (scores(rows, name, budget) for name in pair)
        ahead = better - worse
        said.append(
            f"{budget} shots: {pair[0]} {told(better)}, {pair[1]} {told(worse)}, "
            f"ahead by {told(ahead)}{_of_oracle(spec, rows, pair[0], budget)}"
        )
        kinds.append(_judged(ahead[np.isfinite(ahead)]))
    kind = kinds[0] if len(set(kinds)) == 1 else Verdict.CONDITIONS
    return Claim(text, f"test accuracy, {'; '.join(said)}", kind)


def _judged(ahead: NDArray[np.float64]) -> Verdict:
    if len(ahead) and (ahead > 0).all():
        return Verdict.HELD
    if len(ahead) and (ahead <= 0).all():
        return Verdict.FAILED
    return Verdict.OPEN


def _of_oracle(spec: Evolution, rows: Rows, name: str, budget: int) -> str:
    """Say which part of the room between readout and oracle a method took."""
    if not {"readout", "oracle"} <= set(spec.methods):
        return ""
    low, high = (np.mean(scores(rows, n, budget)) for n in ("readout", "oracle"))
    if not high - low > 0.05:
        return ""
    gain = (np.mean(scores(rows, name, budget)) - low) / (high - low)
    return f" ({gain:.2f} of the oracle's gain)"


STUDY = BenchStudy(
    "Training by variation and selection, beside the learned backward pass",
    columns,
    jobs,
    own_point,
    shown,
    shots,
    measure,
    claims,
)
