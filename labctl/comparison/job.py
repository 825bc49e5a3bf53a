"""From a comparison protocol to the trainings that it consists of."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from labctl import document
from labctl.errors import Fault, ProtocolError
from labctl.protocol import ComparisonProtocol, TrainProtocol
from labctl.run import train
from labctl.run.setting import Setting
from labctl.run.train import TrainJob

Tree = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One training of a comparison.

    Parameters
    ----------
    task, method
        Names in the comparison.
    seed, budget
        Of the training.
    text
        Its protocol, as a document of its own.
    out
        Where its record goes; the protocol lies beside it.
    """

    task: str
    method: str
    seed: int
    budget: int
    text: str
    out: Path

    @property
    def name(self) -> str:
        """What progress and messages call it."""
        return f"{self.task} {self.method} seed {self.seed}, {self.budget} shots"


def folder(setting: Setting[ComparisonProtocol]) -> Path:
    """Folder of the records of the trainings, beside the comparison's own.

    It is named by the protocol, not by the time: what is finished there is not
    run again.

    Parameters
    ----------
    setting
        The comparison.
    """
    path = setting.document.path
    stem = "comparison" if path is None else path.stem
    return setting.out.parent / f"{stem}-jobs"


def jobs(setting: Setting[ComparisonProtocol]) -> list[Job]:
    """List the trainings, seed by seed, so that early rows compare all methods.

    A method with a budget of its own is trained once a seed, with the first of the
    others' budgets.

    Parameters
    ----------
    setting
        The comparison.
    """
    protocol = setting.protocol
    return [
        _job(setting, task, method, (seed, protocol.budgets_of(method)[turn]))
        for seed in protocol.seeds
        for turn in range(len(protocol.budgets))
        for task in protocol.tasks
        for method in protocol.methods
        if turn < len(protocol.budgets_of(method))
    ]


def _job(
    setting: Setting[ComparisonProtocol],
    task: str,
    method: str,
    run: tuple[int, int],
) -> Job:
    protocol, (seed, budget) = setting.protocol, run
    tree: Tree = {
        "schema_version": 1,
        "kind": "train",
        "title": f"{task}, {method}",
        "bench": setting.source.file.name,
        "seed": seed,
        "reservoir": protocol.reservoir.model_dump(mode="json", exclude_none=True),
        "record": protocol.record.model_dump(mode="json"),
    }
    if protocol.accept_unconverged:  # unsaid, the text stays what it always was
        tree["accept_unconverged"] = True
    for part in (protocol.base, protocol.tasks[task], protocol.methods[method]):
        tree = merged(tree, part)
    tree["budget"] = {"shots": budget}
    _place_data(tree, setting.folder)
    text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    digest = hashlib.sha256((text + setting.source.sha256).encode()).hexdigest()
    name = f"{task}-{method}-{seed}-{budget}-{digest[:8]}.h5"
    return Job(task, method, seed, budget, text, folder(setting) / name)


def merged(base: Mapping[str, Any], part: Mapping[str, Any]) -> Tree:
    """Lay one tree over another: maps key by key, all else as a whole.

    Parameters
    ----------
    base
        What lies below.
    part
        What goes before it.
    """
    found = dict(base)
    for key, value in part.items():
        below = found.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        found[key] = merged(cast("Tree", below), cast("Tree", value)) if both else value
    return found


def _place_data(tree: Tree, home: Path) -> None:
    """Name a data file so that it is found from the folder of the jobs."""
    data = tree.get("data")
    if isinstance(data, dict) and isinstance(data.get("file"), str):
        tree["data"] = {**data, "file": str((home / data["file"]).resolve())}


def check(setting: Setting[ComparisonProtocol], found: list[Job]) -> list[TrainJob]:
    """Check one training of every task, method and budget before anything opens.

    Parameters
    ----------
    setting
        The comparison.
    found
        Its trainings.

    Returns
    -------
    checked
        One for each of them, in the order of the first seed.

    Raises
    ------
    ProtocolError
        A training is refused; every fault says of which one.
    """
    faults: list[Fault] = []
    checked: list[TrainJob] = []
    for job in found:
        if job.seed != setting.protocol.seeds[0]:
            continue
        try:
            checked.append(train.prepare(_setting(setting, job)))
        except ProtocolError as error:
            faults += [_placed(setting, job, fault) for fault in error.faults]
    if faults:
        raise ProtocolError(list(dict.fromkeys(faults)))
    return checked


def _setting(setting: Setting[ComparisonProtocol], job: Job) -> Setting[TrainProtocol]:
    text = document.parse(job.text, TrainProtocol, where=setting.where)
    own = cast("Setting[Any]", setting)
    here = replace(text, path=setting.document.path)
    return replace(own, document=here, overrides=())


def _placed(setting: Setting[ComparisonProtocol], job: Job, fault: Fault) -> Fault:
    """Show a fault of a training where the comparison says it."""
    places = (f"methods.{job.method}", f"tasks.{job.task}", "base")
    head = fault.key.split(".")[0]
    owners = [place for place in places if head in _part(setting.protocol, place)]
    key = f"{owners[0]}.{fault.key}" if owners else fault.key
    if head == "budget":
        own = "budget" in setting.protocol.methods[job.method]
        key = f"methods.{job.method}.budget" if own else "budgets"
    whose = f"task {job.task}, method {job.method}"
    if head == "accept_unconverged":  # all methods of a task begin with one theta
        whose = f"task {job.task}"
    text = f"{fault.text} ({whose})"
    return setting.document.fault(key, text)


def _part(protocol: ComparisonProtocol, place: str) -> Mapping[str, Any]:
    head, _, name = place.partition(".")
    found = getattr(protocol, head)
    return cast("Mapping[str, Any]", found[name] if name else found)


def kinds(protocol: ComparisonProtocol) -> Iterator[tuple[str, str]]:
    """Say which way of training each method of a comparison is.

    Parameters
    ----------
    protocol
        The comparison.
    """
    for name, part in protocol.methods.items():
        tree = merged(protocol.base, part)
        method = tree.get("method")
        chosen = method.get("name", "surrogate") if isinstance(method, dict) else None
        yield name, str(chosen or "surrogate")
