"""From a checked job to a record."""

from labctl.run import bench_study, evaluate, scan, study, train
from labctl.run.bench_study import BenchStudyJob
from labctl.run.evaluate import EvaluateJob
from labctl.run.prepare import Job
from labctl.run.progress import Progress
from labctl.run.setting import Outcome
from labctl.run.study import StudyJob
from labctl.run.train import TrainJob


def execute(job: Job, progress: Progress) -> Outcome:
    """Run a job.

    Parameters
    ----------
    job
        From :func:`labctl.run.prepare.prepare`.
    progress
        Whoever listens.

    Returns
    -------
    outcome
        How it ended, and where the record is.

    Raises
    ------
    LabctlError
        A device, a limit, the record or the result stopped it.
    """
    if isinstance(job, TrainJob):
        return train.execute(job, progress)
    if isinstance(job, EvaluateJob):
        return evaluate.execute(job, progress)
    if isinstance(job, StudyJob):
        return study.execute(job, progress)
    if isinstance(job, BenchStudyJob):
        return bench_study.execute(job, progress)
    return scan.execute(job, progress)
