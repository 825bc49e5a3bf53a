"""A protocol becomes a job of its kind; nothing is opened or created."""

import subprocess
from pathlib import Path

import pytest

from labctl.errors import InputError
from labctl.run.evaluate import EvaluateJob
from labctl.run.prepare import prepare
from labctl.run.scan import ScanJob
from labctl.run.setting import Options, Outcome
from labctl.run.train import TrainJob

SCAN = """\
schema_version: 1
kind: scan
bench: sim-small
sweep: reservoir.exposure_s
values: [0.001, 0.002]
"""
EVALUATE = """\
schema_version: 1
kind: evaluate
bench: sim-small
source: {record}
"""


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when a guard is started."""

    def refuse(*_args: object, **_options: object) -> None:
        text = "a process was started"
        raise AssertionError(text)

    monkeypatch.setattr(subprocess, "Popen", refuse)


def test_each_kind_has_its_job(small: Path, trained: Outcome) -> None:
    scan, evaluate = small.with_name("scan.yaml"), small.with_name("evaluate.yaml")
    scan.write_text(SCAN, encoding="utf-8")
    text = EVALUATE.format(record=trained.record.as_posix())
    evaluate.write_text(text, encoding="utf-8")
    before = set(small.parent.iterdir())
    assert isinstance(prepare(str(small), Options()), TrainJob)
    assert isinstance(prepare(str(scan), Options()), ScanJob)
    assert isinstance(prepare(str(evaluate), Options()), EvaluateJob)
    assert set(small.parent.iterdir()) == before


def test_the_forecast_is_the_same_each_time(small: Path) -> None:
    forecasts = [prepare(str(small), Options()).forecast for _ in range(2)]
    assert forecasts[0] == forecasts[1]


def test_a_sweep_beyond_the_sensor_is_refused(small: Path) -> None:
    text = SCAN.replace("exposure_s", "bins").replace("0.001, 0.002", "[99, 98]")
    small.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"99, 98"):
        prepare(str(small), Options())
