"""From a protocol's name to a job that was checked and costs nothing yet."""

from pathlib import Path
from typing import cast

from labctl.errors import InputError, ProtocolError
from labctl.protocol import (
    AnyProtocol,
    ComparisonProtocol,
    EvaluateProtocol,
    ScanProtocol,
    StudyProtocol,
    TrainProtocol,
)
from labctl.run import bench_study, evaluate, scan, study, train
from labctl.run.bench_study import BenchStudyJob
from labctl.run.evaluate import EvaluateJob
from labctl.run.refusal import Refusals
from labctl.run.scan import ScanJob
from labctl.run.setting import Desk, Options, Setting, resolve
from labctl.run.study import StudyJob
from labctl.run.train import TrainJob

Job = TrainJob | EvaluateJob | ScanJob | StudyJob | BenchStudyJob

__all__ = ["Job", "Options", "check", "job_of", "prepare"]


def prepare(name: str, options: Options) -> Job:
    """Read a protocol, choose its bench, check both, and forecast the cost.

    Parameters
    ----------
    name
        A path, or the name of a shipped protocol.
    options
        What the command line adds.

    Returns
    -------
    job
        To be executed; nothing was opened or created.

    Raises
    ------
    InputError
        Something is refused; the message has every fault.
    """
    return job_of(resolve(name, options))


def check(path: Path) -> None:
    """Check a protocol as a run would, but for calibrations, drivers and output.

    Parameters
    ----------
    path
        The protocol. Of a comparison its trainings are not looked at.

    Raises
    ------
    InputError
        Something is refused; the message has every fault.
    """
    setting = resolve(str(path), Options(), files=False)
    if isinstance(setting, Desk) or setting.protocol.kind != "comparison":
        job_of(setting)


def job_of(setting: Setting[AnyProtocol] | Desk) -> Job:
    """Check a run of any kind, and forecast its cost.

    Parameters
    ----------
    setting
        What it starts from.

    Returns
    -------
    job
        To be executed; nothing was opened or created.

    Raises
    ------
    ProtocolError
        It is a comparison: many runs, not one.
    InputError
        Something is refused.
    """
    if isinstance(setting, Desk):
        return study.prepare(setting)
    if isinstance(setting.protocol, ScanProtocol):
        # Every point is a variation of what was refused.
        Refusals(setting.refused).tell()
    try:
        job = _of_kind(setting)
    except InputError as error:
        refusals = Refusals((*setting.refused, error))
        raise refusals.joined() from error.__cause__
    Refusals(setting.refused).tell()
    return job


def _of_kind(setting: Setting[AnyProtocol]) -> Job:
    # A type checker cannot carry the class of one field over to its owner.
    if isinstance(setting.protocol, TrainProtocol):
        return train.prepare(cast("Setting[TrainProtocol]", setting))
    if isinstance(setting.protocol, EvaluateProtocol):
        return evaluate.prepare(cast("Setting[EvaluateProtocol]", setting))
    if isinstance(setting.protocol, StudyProtocol):
        return bench_study.prepare(cast("Setting[StudyProtocol]", setting))
    if isinstance(setting.protocol, ComparisonProtocol):
        text = (
            "kind=comparison, expected a single run. A comparison goes on by the "
            "command that began it, with --overwrite where --out names its record."
        )
        raise ProtocolError([setting.document.fault("kind", text)])
    return scan.prepare(cast("Setting[ScanProtocol]", setting))
