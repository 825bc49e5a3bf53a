"""A setting swept, the outputs recorded."""

from pathlib import Path

import numpy as np
import pytest

from labctl.errors import ProtocolError
from labctl.recording.reader import Record
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options

SCAN = """\
schema_version: 1
kind: scan
bench: sim-small
sweep: {sweep}
values: {values}
patterns: {{source: random, count: 6}}
repeats: 2
"""


@pytest.fixture
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "scan.yaml"


def write(path: Path, sweep: str, values: str) -> str:
    path.write_text(SCAN.format(sweep=sweep, values=values), encoding="utf-8")
    return str(path)


def test_outputs_are_normalised_by_exposure(scan: Path) -> None:
    name = write(scan, "reservoir.exposure_s", "[0.001, 0.002, 0.004]")
    outcome = execute(prepare(name, Options(out=Path("s.h5"))), Silent())
    with Record.open("s.h5") as record:
        outputs = record.column("points", "outputs")
        value = record.column("points", "value")
        shot = record.column("points", "shot")
        exposure = record.column("shots_meta", "exposure_end_s") - record.column(
            "shots_meta", "exposure_start_s"
        )
    assert outputs.shape == (36, 9)
    assert exposure[shot] == pytest.approx(value)
    means = [outputs[value == v].sum(axis=1).mean() for v in np.unique(value)]
    # The nominal exposure is swept too, so electrons grow with it.
    assert np.array(means) / means[0] == pytest.approx([1, 2, 4], rel=0.05)
    assert outcome.shots["evaluate"] == 36


def test_a_setting_of_the_simulated_bench_is_swept(scan: Path) -> None:
    name = write(scan, "bench_file.world.options.medium.b", "[0.0, 3.0]")
    execute(prepare(name, Options(out=Path("s.h5"))), Silent())
    with Record.open("s.h5") as record:
        outputs = record.column("points", "outputs").reshape(2, 2, 6, 9).mean(axis=1)
    # The same patterns through another medium: another function.
    change = np.abs(outputs[1] - outputs[0]).mean() / outputs.mean()
    assert change > 0.03


@pytest.mark.parametrize(
    ("sweep", "values", "message"),
    [
        ("reservoir.power_mw", "[1, 99]", r"values\.1: .*power_mw=99, expected 0 to 8"),
        ("reservoir.bins", "[[3, 3], [2, 2]]", "changes the number"),
        ("bench_file.limits.power_mw", "[100]", "never its limits"),
        ("kind", "[train]", "expected a setting"),
        ("reservoir.powr_mw", "[1]", r"values\.0: reservoir\.powr_mw: is not known"),
        ("bench_file.world.options.medium.bb", "[1]", r"values\.0: world: sim\.w"),
    ],
)
def test_refuses_before_anything_opens(
    scan: Path, sweep: str, values: str, message: str
) -> None:
    with pytest.raises(ProtocolError, match=message):
        prepare(write(scan, sweep, values), Options())
    assert list(scan.parent.iterdir()) == [scan]
