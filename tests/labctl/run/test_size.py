"""The forecast of a record's size is near what the record takes."""

from pathlib import Path

import pytest

from labctl.recording.reader import Record
from labctl.run import check, size
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options
from labctl.run.train import TrainJob
from tests.labctl.run.conftest import SERIES

QUICK = ("reference.oracle=false", "training.validate_every=0")
WIDE = (
    "surrogate.name=twin-dense",
    "surrogate.width=400",
    "surrogate.fit_batch=8",
    "surrogate.fits_per_step=1",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param((), id="small"),
        pytest.param(WIDE, id="wide"),
        pytest.param((*SERIES, "record.frames=full"), id="series"),
        pytest.param(
            ("method.name=calibrate-deploy", "method.pretrain_fits=5"), id="deployed"
        ),
        *(
            pytest.param(overrides, id=overrides[0], marks=pytest.mark.soak)
            for overrides in (
                ("record.frames=binned",),
                (
                    "surrogate.name=jacobian",
                    "probes.paired_per_step=2",
                    "budget.shots=500",
                ),
                ("method.name=cma-es", "method.candidates=4", "budget.shots=800"),
                ("method.name=dfa",),
                ("estimator.name=rehearse", "estimator.digital_steps=1"),
                ("estimator.name=control-variate", "budget.shots=700"),
                ("drift.every=2", "drift.refit_above=null", "budget.shots=700"),
            )
        ),
    ],
)
def test_checkpoints_and_record_are_as_large_as_was_forecast(
    small: Path, overrides: tuple[str, ...]
) -> None:
    options = Options(out=Path("r.h5"), overrides=(*QUICK, *overrides))
    job = prepare(str(small), options)
    assert isinstance(job, TrainJob)
    execute(job, Silent())
    with Record.open("r.h5") as record:
        real = [entry.nbytes for entry in record.checkpoints()]
    sound = check.Sound(job.setting, job.dataset, job.planned)
    assert size.checkpoints(sound) == pytest.approx(real, rel=0.15)
    taken = Path("r.h5").stat().st_size
    assert taken == pytest.approx(job.forecast.nbytes, rel=0.3)
    assert taken <= job.forecast.nbytes
