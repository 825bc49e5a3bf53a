"""A setting swept, the outputs recorded."""

from collections.abc import Callable
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
        (
            "reservoir.region",
            "[[3, 3, 27, 27], [30, 30, 27, 27]]",
            r"values\.1: .*expected within 32 x 32 \(the sensor\)",
        ),
        (
            "reservoir.gain_db",
            "[0, 1000]",
            r"values\.1: .*gain_db=1000, expected 0 to 24 \(the camera\)",
        ),
        (
            "bench_file.world.options.grid",
            "[[32, 32], [16, 16]]",
            r"values\.1: .*(sensor|macropixels|grid)",
        ),
        ("bench_file.limits.power_mw", "[100]", "never its limits"),
        ("kind", "[train]", "expected a setting"),
        ("title", "[a, b]", "expected a setting that changes what is measured"),
        ("budget.shots", "[9, 99]", "expected a setting that changes"),
        ("record.frames", "[full]", "expected a setting that changes"),
        ("reservoir.powr_mw", "[1]", r"values\.0: reservoir\.powr_mw: is not known"),
        (
            "bench_file.world.options.medium.bb",
            "[1]",
            r"values\.0: world\.options: sim\.w",
        ),
    ],
)
def test_refuses_before_anything_opens(
    scan: Path, sweep: str, values: str, message: str
) -> None:
    with pytest.raises(ProtocolError, match=message):
        prepare(write(scan, sweep, values), Options())
    assert list(scan.parent.iterdir()) == [scan]


def test_swept_repeats_count_towards_the_budget(scan: Path) -> None:
    name = write(scan, "repeats", "[1, 4]")
    assert prepare(name, Options()).forecast.total == 30
    with pytest.raises(ProtocolError, match=r"shots=29, expected at least 30.*Raise"):
        prepare(name, Options(overrides=("budget.shots=29",)))


def test_more_values_than_shots_are_refused_before_any_is_tried(
    scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("labctl.run.scan._point")
    name = write(scan, "seed", str([*range(40)]))
    with pytest.raises(ProtocolError, match="shots=5, expected at least 40"):
        prepare(name, Options(overrides=("budget.shots=5",)))


Lab = Callable[..., Path]
ON_ACME = SCAN.replace("sim-small", "acme")


def test_a_seed_draws_patterns_and_opens_real_devices_once(
    lab: Lab, tmp_path: Path
) -> None:
    light = lab()
    (tmp_path / "scan.yaml").write_text(
        ON_ACME.format(sweep="seed", values="[1, 2]"), encoding="utf-8"
    )
    execute(prepare("scan.yaml", Options(out=Path("s.h5"))), Silent())
    with Record.open("s.h5") as record:
        assert (record.status, record.simulated) == ("complete", False)
        outputs = record.column("points", "outputs")
        patterns = record.column("shots_meta", "pattern_id")
    # One count of writes over both points: the panel was opened once.
    assert patterns.tolist() == list(range(1, 25))
    assert not np.array_equal(outputs[:6], outputs[12:18])
    assert light.read_text() == "0.0"


def test_every_point_of_a_twin_is_simulated(lab: Lab, tmp_path: Path) -> None:
    light = lab()
    (tmp_path / "scan.yaml").write_text(
        ON_ACME.format(sweep="seed", values="[1, 2]"), encoding="utf-8"
    )
    options = Options(out=Path("s.h5"), simulate=True)
    outcome = execute(prepare("scan.yaml", options), Silent())
    one, two = (np.mean(row) for row in outcome.result["mean_outputs"])
    assert one == pytest.approx(two, rel=0.3)
    assert not light.exists()


def test_what_only_an_open_device_knows_is_compared_in_the_dark(
    lab: Lab, tmp_path: Path
) -> None:
    light = lab("shy")
    region = "[[1, 2, 8, 9], [8, 8, 8, 9]]"
    (tmp_path / "scan.yaml").write_text(
        ON_ACME.format(sweep="reservoir.region", values=region), encoding="utf-8"
    )
    job = prepare("scan.yaml", Options(out=Path("s.h5")))
    with pytest.raises(ProtocolError, match=r"within 10 x 14 \(the sensor\)"):
        execute(job, Silent())
    assert light.read_text() == "0.0"
    assert not (tmp_path / "s.h5").exists()
