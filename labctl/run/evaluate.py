"""Kind ``evaluate``: a trained model from a record, measured again."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labctl import bench as benches
from labctl import data
from labctl.calibration import ReservoirEntry
from labctl.data import Dataset
from labctl.errors import Fault, InputError, ProtocolError
from labctl.protocol import EvaluateProtocol, TrainProtocol
from labctl.recording import disk
from labctl.recording.layout import Layout, evaluate_layout
from labctl.recording.reader import Record
from labctl.reservoir import Ledger
from labctl.run import model
from labctl.run.checkpoint import FINAL
from labctl.run.convergence import PATTERNS, Show
from labctl.run.progress import Progress, Update
from labctl.run.refusal import Refusals
from labctl.run.setting import (
    Forecast,
    Outcome,
    Session,
    Setting,
    check_light,
    light_beside,
    opened,
    shot_seconds,
    shot_spec,
)
from labctl.training.network import Network

# So many samples are exposed between two signs of life on the terminal.
BATCH = 128


@dataclass(frozen=True)
class Halfway:
    """Where a training stood whose model is measured; empty where it ended.

    Parameters
    ----------
    far
        How far it had come, such as ``after 200 steps``.
    text
        What a person is told of it.
    """

    far: str = ""
    text: str = ""


@dataclass(frozen=True, eq=False)
class EvaluateJob:
    """An evaluation, checked; nothing is open yet.

    Parameters
    ----------
    setting
        The run.
    trained
        The protocol that the model was trained by.
    dataset
        The data it was trained on.
    state
        Numbers of the trained model.
    then
        Result of its training.
    unfinished
        How far the training had come whose model this is.
    show
        What it shows first.
    forecast
        What it will cost.
    """

    setting: Setting[EvaluateProtocol]
    trained: TrainProtocol
    dataset: Dataset
    state: dict[str, Any]
    then: dict[str, Any]
    unfinished: Halfway
    show: Show
    forecast: Forecast

    @property
    def headline(self) -> str:
        """First lines that a person reads."""
        said = self.unfinished.text
        return self.setting.headline + (f"\nsource: {said}" if said else "")


def prepare(setting: Setting[EvaluateProtocol]) -> EvaluateJob:
    """Read the trained model and check that it fits this bench.

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
        The record holds no trained model, or one of another size.
    ProtocolError
        The budget, or the operating point, does not fit it.
    """
    protocol, refusals = setting.protocol, Refusals()
    with light_beside(setting):
        found = _found(setting)
    trained, dataset = found.protocol, found.dataset
    with refusals.gathered():
        setting = _as_trained(setting, trained)
    refusals.add(_misfits(setting, trained))
    shots = len(dataset.test) * trained.exposures * protocol.repeats
    if protocol.budget is not None and shots > protocol.budget.shots:
        text = f"shots={protocol.budget.shots}, expected at least {shots} for this"
        refusals.add([setting.document.fault("budget.shots", text)])
    with light_beside(setting):
        refusals.tell()
    show = _show(setting, found)
    check_light(setting, [show])
    nbytes = disk.estimate_bytes(_layout(setting, dataset), shots, 0, 0, 0, 0)
    disk.check_room(setting.out, nbytes)
    forecast = Forecast(
        shots={"evaluate": shots},
        shot_s=shot_seconds(setting.source, setting.entry),
        simulated=setting.simulated,
        nbytes=nbytes,
    )
    return EvaluateJob(
        setting,
        trained,
        dataset,
        found.state,
        found.result,
        found.unfinished,
        show,
        forecast,
    )


@dataclass(frozen=True, eq=False)
class _Trained:
    protocol: TrainProtocol
    dataset: Dataset
    state: dict[str, Any]
    result: dict[str, Any]
    unfinished: Halfway


def _show(setting: Setting[EvaluateProtocol], found: _Trained) -> Show:
    """Give the first patterns of the test split, with theta as it was trained."""
    sizes = model.Sizes(setting.entry)
    network = model.build(found.protocol, found.dataset, sizes, torch.Generator())
    network.load_state_dict(found.state)
    test = model.samples(found.dataset.test)
    return Show(setting.entry, model.first_phases(network, test.x, PATTERNS))


def _found(setting: Setting[EvaluateProtocol]) -> _Trained:
    """Read a trained model; what is wrong with it is shown at ``source``.

    Raises
    ------
    ProtocolError
        There is none, or its data are others by now.
    """
    try:
        return _read(setting)
    except InputError as error:
        fault = setting.document.fault("source", str(error))
        raise ProtocolError([fault]) from error


def _read(setting: Setting[EvaluateProtocol]) -> _Trained:
    """Read a trained model, and load what it was trained on.

    Raises
    ------
    InputError
        There is no trained model, or its data are others by now.
    """
    source = setting.folder / setting.protocol.source
    with Record.open(source) as record:
        if record.kind != "train":
            text = (
                f"{source}: kind={record.kind}, expected a record of kind train. Name "
                "the record of a training in source."
            )
            raise InputError(text)
        if not record.checkpoints():
            text = (
                f"{source}: no checkpoint, expected a trained model: the run ended "
                f"before it kept one. labctl run --resume {source} goes on with it, or "
                "train again."
            )
            raise InputError(text)
        trained = TrainProtocol.model_validate(record.resolved)
        then, (step, kind, state) = record.result, record.checkpoint()
        unfinished = Halfway() if kind == FINAL else _halfway(record, step)
        folder = _data_folder(record, trained, setting)
    dataset = data.load_entry(trained.data, folder)
    if {**state, **then}.get("data_sha256") != dataset.sha256:
        text = (
            f"{source}: data {trained.data.set or trained.data.file} differs from what "
            "the model was trained on, expected the same. Restore the file."
        )
        raise InputError(text)
    return _Trained(trained, dataset, state["network"], then, unfinished)


def _halfway(record: Record, step: int) -> Halfway:
    """Say how far a training had come at a checkpoint that is not its end."""
    far = f"after {step} steps" if step else "before any step on the device"
    return Halfway(far, _why(record, f"the model is measured as it was {far}"))


def _why(record: Record, model_then: str) -> str:
    """Say why the end of a training is not there, and what to do."""
    if any(entry.kind == FINAL for entry in record.checkpoints()):
        return (
            f"the last checkpoint of {record.path} is damaged, so {model_then}. "
            "Restore the file from a copy to measure the model that was trained."
        )
    if record.is_written:
        return f"{record.path} is still being written, so {model_then}."
    return (
        f"the training did not end, so {model_then}. "
        f"labctl run --resume {record.path} goes on with it."
    )


def _data_folder(
    record: Record, trained: TrainProtocol, setting: Setting[EvaluateProtocol]
) -> Path:
    """Choose the folder of the training's own file: as it was named, else as here.

    Raises
    ------
    InputError
        It is in neither.
    """
    file = trained.data.file
    folders = [setting.folder]
    if record.protocol_path:
        folders.insert(0, Path(record.protocol_path).parent)
    for folder in folders:
        if file is None or (folder / file).is_file():
            return folder
    text = (
        f"{record.path}: the model was trained on {file}, expected it in "
        f"{' or '.join(str(folder.absolute()) for folder in folders)}. Put it there."
    )
    raise InputError(text)


def _as_trained(
    setting: Setting[EvaluateProtocol], trained: TrainProtocol
) -> Setting[EvaluateProtocol]:
    """Use the bench as in training, but for what the protocol itself replaces.

    On another bench, whose light and camera are others, its own operating point
    holds.

    Raises
    ------
    ProtocolError
        The bench's limits no longer allow it.
    """
    file = setting.source.file
    if trained.bench != file.name:
        return setting
    own = setting.protocol.reservoir.model_dump(exclude_none=True)
    then = trained.reservoir.model_dump(exclude_none=True)
    entry = setting.entry.model_copy(update={**then, **own})
    faults = [
        setting.document.fault("source", text)
        for key in ("power_mw", "exposure_s")
        if key not in own  # which is told in its own place
        for text in benches.limit_faults(file, **{key: getattr(entry, key)})
    ]
    if faults:
        raise ProtocolError(faults)
    return replace(setting, entry=entry)


def _misfits(
    setting: Setting[EvaluateProtocol], trained: TrainProtocol
) -> Iterator[Fault]:
    """Compare macropixels and bins, which belong to the model, with this bench."""
    wanted = ReservoirEntry.model_validate(trained.reservoir.model_dump())
    for key in ("macropixels", "bins"):
        want, have = getattr(wanted, key), getattr(setting.entry, key)
        if want != have:
            text = (
                f"{key}={list(have)}, expected {list(want)} as the model was trained "
                f"with. Set reservoir.{key} in this protocol."
            )
            yield setting.document.fault(f"reservoir.{key}", text)


def _layout(setting: Setting[EvaluateProtocol], dataset: Dataset) -> Layout:
    targets = 1 if dataset.task == "classification" else dataset.outputs
    return evaluate_layout(
        shot_spec(setting), n_predictions=dataset.outputs, n_targets=targets
    )


def execute(job: EvaluateJob, progress: Progress) -> Outcome:
    """Measure the test split with the trained model.

    Parameters
    ----------
    job
        An evaluation that was prepared.
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
    scores: list[float] = []
    layout = _layout(setting, job.dataset)
    with opened(setting, layout, progress, shows=[job.show]) as session:
        reservoir = session.reservoir(setting.entry, ledger)
        network = model.build(job.trained, job.dataset, reservoir, torch.Generator())
        network.load_state_dict(job.state)
        if job.unfinished.text:  # a person has read it in the headline
            session.recorder.event("warning", "source", job.unfinished.text)
        for repeat in range(setting.protocol.repeats):
            scores.append(_measure(job, session, network, repeat))
            progress.update(
                Update(
                    "measuring",
                    repeat + 1,
                    setting.protocol.repeats,
                    ledger.total,
                    None,
                    {"score": scores[-1]},
                )
            )
        task = model.task(job.dataset)
        result = {
            "metric": task.metric,
            "direction": task.direction,
            "score_test": float(np.mean(scores)),
            "score_then": job.then.get("score_test"),
            "scores": scores,
            "source": setting.protocol.source,
            "unfinished": job.unfinished.text,
        }
        session.recorder.set_result(result)
        session.recorder.commit()
    then, far = result["score_then"], job.unfinished.far
    model_now = f", the model as it was {far}" if far else ""
    summary = [
        f"{task.metric} on {len(job.dataset.test)} test samples",
        f"  {result['score_test']:.3f}  now (mean of {len(scores)}){model_now}",
        f"  {then:.3f}  then" if then is not None else "  then: not measured",
        f"record: {setting.out}",
        f"next:   labctl report {setting.out}",
    ]
    return Outcome(
        setting.out, "complete", result, dict(ledger.counts), "\n".join(summary)
    )


@torch.no_grad()
def _measure(
    job: EvaluateJob, session: Session, network: Network, repeat: int
) -> float:
    test, task = model.samples(job.dataset.test), model.task(job.dataset)
    found = []
    for start in range(0, len(test), BATCH):
        network.begin("evaluate", step=repeat)
        rows = slice(start, start + BATCH)
        answer = network(test.x[rows])
        found.append(answer)
        target = test.y[rows].double().reshape(len(answer), -1)
        session.recorder.append(
            "predictions",
            repeat=[repeat] * len(answer),
            sample=np.arange(start, start + len(answer)),
            shot=network.device_layers[-1].tape[-1].response.shot.numpy(),
            prediction=answer.double().numpy(),
            target=target.numpy(),
        )
    answers = torch.cat(found)
    score = task.score(answers, test.y)
    session.recorder.append(
        "scores",
        repeat=[repeat],
        score=[score],
        loss=[float(task.loss(answers, test.y))],
        shots=[session.recorder.lengths["shots"]],
        time_s=[session.bench.clock.now()],
    )
    session.recorder.commit()
    return score
