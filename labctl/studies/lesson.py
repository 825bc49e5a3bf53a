"""A training as a job of a study: the same parts and course as ``kind: train``."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labctl.protocol import TrainProtocol
from labctl.run import method, model, train
from labctl.run.setting import Setting
from labctl.run.train import TrainJob
from labctl.studies.job import Lab
from labctl.training.journal import ProbeRows, Row
from labctl.training.trainer import Trainer

Watch = Callable[[Trainer], None]


def lesson(setting: Setting[Any], sections: Mapping[str, Any], seed: int) -> TrainJob:
    """Check a training at the operating point of a study.

    Parameters
    ----------
    setting
        The study's run.
    sections
        Of a ``train`` protocol: data, model, surrogate, budget and what else differs
        from the defaults.
    seed
        Of the training.

    Returns
    -------
    job
        Ready to be taught.
    """
    outer = setting.protocol
    protocol = TrainProtocol.model_validate(
        {
            "schema_version": 1,
            "kind": "train",
            "bench": setting.source.file.name,
            "seed": seed,
            "reservoir": outer.reservoir.model_dump(),
            "record": outer.record.model_dump(),
            "accept_unconverged": outer.accept_unconverged,
            **sections,
        }
    )
    document = replace(setting.document, value=protocol)
    return train.prepare(replace(setting, document=document))


def through_device(input_scale_rad: float) -> list[dict[str, Any]]:
    """Write the model of one device layer and a linear readout.

    Parameters
    ----------
    input_scale_rad
        Phase of an input of 1.
    """
    return [
        {"layer": "device", "input_scale_rad": input_scale_rad},
        {"layer": "standardise"},
        {"layer": "linear"},
    ]


def shots(job: TrainJob) -> dict[str, int]:
    """Count the exposures of a training and of its final test.

    Parameters
    ----------
    job
        From :func:`lesson`.
    """
    layers = job.setting.protocol.exposures
    counts = dict(job.planned.counts)
    counts["evaluate"] = counts.get("evaluate", 0) + layers * len(job.dataset.test)
    return counts


@dataclass(frozen=True, eq=False)
class Taught:
    """What came of a training.

    Parameters
    ----------
    score
        On the test split; NaN where the training failed.
    shots, loss
        After every step.
    """

    score: float
    shots: NDArray[np.float64]
    loss: NDArray[np.float64]


@dataclass(eq=False)
class _Listener:
    """Keeps the guard awake, and hands the trainer to who watches."""

    lab: Lab
    watch: Watch | None
    trainer: Trainer | None = None
    rows: list[tuple[float, float]] = field(default_factory=list)

    def stage(self, text: str) -> None:
        """Have nothing to say: a job of a study is one line."""

    def beat(self) -> None:
        self.lab.session.bench.beat()

    def digital(self) -> AbstractContextManager[None]:
        return self.lab.digital()

    def probes(self, rows: ProbeRows) -> None:
        """Keep none: a study records the shots alone."""

    def step(self, row: Row) -> None:
        self.rows.append((row.shots, row.loss))
        if self.watch is not None and self.trainer is not None:
            self.watch(self.trainer)


def teach(job: TrainJob, lab: Lab, watch: Watch | None = None) -> Taught:
    """Train on the bench of a study, and test.

    Parameters
    ----------
    job
        From :func:`lesson`.
    lab
        The bench.
    watch
        Is shown the trainer before the first step and after each.

    Returns
    -------
    taught
        How it went.
    """
    protocol, listener = job.setting.protocol, _Listener(lab, watch)
    reservoir = lab.reservoir(job.setting.entry)
    trainer = train.assemble(job, reservoir, reservoir, listener)
    listener.trainer = trainer
    if trainer.prepare():
        course = model.course(protocol, job.dataset)
        for stage in method.before(trainer, protocol, course):
            stage()
        if watch is not None:
            watch(trainer)
    ended = trainer.run()
    score = math.nan
    if ended.status.is_whole:
        score = trainer.score(model.samples(job.dataset.test))
    rows = np.array(listener.rows, dtype=np.float64).reshape(-1, 2)
    return Taught(score, rows[:, 0], rows[:, 1])
