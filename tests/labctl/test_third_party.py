"""A laboratory with drivers of its own runs a protocol; nothing here changes for it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from labctl import cli
from labctl.recording.reader import Record

Lab = Callable[..., Path]
KINDS = ("slm-phase", "settle", "camera")


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.app, ["run", "moons.yaml", "--out", "r.h5", *words])


def test_a_bench_of_foreign_drivers_trains(lab: Lab, tmp_path: Path) -> None:
    light = lab()
    result = run("--json")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "bench: acme (the only real bench in calibrations), real devices"
    )
    assert json.loads(lines[-1])["result"]["score_test"] > 0.6
    assert light.read_text() == "0.0"
    with Record.open(tmp_path / "r.h5") as record:
        assert (record.status, record.simulated) == ("complete", False)
        assert record.instrument["camera"]["serial"] == "4711"
        patterns = record.column("shots_meta", "pattern_id")
        frames = record.column("shots", "frames")
        power = record.column("shots_meta", "power_mw")
        loss = record.column("training", "loss")
    # Stepped one by one: each write has its frame.
    assert patterns.tolist() == list(range(1, len(frames) + 1))
    assert frames.shape[1:] == (8, 9)
    assert frames.max() > 200
    assert np.all(power == 2.0)  # no meter: what the head says
    assert len(loss) > 5


def test_a_device_that_does_not_answer_is_exit_3(lab: Lab, tmp_path: Path) -> None:
    light = lab("mute")
    result = run()
    assert result.exit_code == 3
    assert "labctl: camera: open: no answer. Plug it in." in result.stderr
    assert light.read_text() == "0.0"
    assert not (tmp_path / "r.h5").exists()


def test_a_device_that_fails_during_the_run_is_exit_3_and_dark(
    lab: Lab, tmp_path: Path
) -> None:
    light = lab("late")
    result = run()
    assert result.exit_code == 3
    assert "camera: trigger: gone. Look at its cable." in result.stderr
    assert light.read_text() == "0.0"
    with Record.open(tmp_path / "r.h5") as record:
        assert record.status == "failed"
        assert any("gone" in event.text for event in record.events())


def test_it_can_be_simulated_with_its_own_shapes(lab: Lab, tmp_path: Path) -> None:
    light = lab()
    result = run("--simulate", "--json")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].endswith("SIMULATED")
    assert json.loads(lines[-1])["result"]["score_test"] > 0.6
    assert not light.exists()
    with Record.open(tmp_path / "r.h5") as record:
        assert (record.status, record.simulated) == ("complete", True)
        assert "SIMULATED by its twin, because --simulate was given" in record.notice
        assert record.column("shots", "frames").shape[1:] == (8, 9)


def test_a_twin_knows_its_true_gradient_and_a_real_bench_does_not(lab: Lab) -> None:
    lab()
    asked = ("--dry-run", "--set", "reference.oracle=true")
    result = run(*asked)
    assert result.exit_code == 2
    assert "reference.oracle: oracle=true" in result.stderr
    result = run(*asked, "--simulate")
    assert result.exit_code == 0, result.stderr
    assert "virtual time" in result.stdout


def test_a_twin_whose_grid_cannot_see_the_macropixels_is_refused(
    lab: Lab, tmp_path: Path
) -> None:
    lab()
    path = tmp_path / "calibrations" / "acme" / "bench.yaml"
    text = path.read_text(encoding="utf-8")
    twin = "twin: {world: {grid: [8, 8], macropixel_px: 1}}\n"
    path.write_text(text + twin, encoding="utf-8")
    result = run("--simulate")
    assert result.exit_code == 2
    assert "the grid under-samples the panel" in result.stderr
    assert not (tmp_path / "r.h5").exists()


def test_a_panel_that_cannot_show_every_phase_is_refused_before_anything_opens(
    lab: Lab, tmp_path: Path
) -> None:
    light = lab()
    path = tmp_path / "calibrations" / "acme" / "slm-phase-given.yaml"
    text = path.read_text(encoding="utf-8").replace("6.28", "5.28")
    path.write_text(text, encoding="utf-8")
    result = run()
    assert result.exit_code == 2
    assert "the curve spans 5.26" in result.stderr
    assert not light.exists()
    assert not (tmp_path / "r.h5").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_calibration_is_refused_before_anything_opens(
    lab: Lab, tmp_path: Path, kind: str
) -> None:
    light = lab()
    current = tmp_path / "calibrations" / "acme" / "current.yaml"
    left = ", ".join(f"{other}-given.yaml" for other in KINDS if other != kind)
    current.write_text(f"schema_version: 1\nrecords: [{left}]\n", encoding="utf-8")
    result = run()
    assert result.exit_code == 2
    assert f"calibration {kind}=none, expected one in force" in result.stderr
    assert not light.exists()
    assert not (tmp_path / "r.h5").exists()


def test_a_bench_that_may_fall_back_tells_beforehand_that_it_is_not_calibrated(
    lab: Lab, tmp_path: Path
) -> None:
    lab()
    folder = tmp_path / "calibrations" / "acme"
    path = folder / "bench.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}fallback: sim\n", encoding="utf-8")
    (folder / "current.yaml").write_text("schema_version: 1\nrecords: []\n", "utf-8")
    result = run("--dry-run")
    assert result.exit_code == 0, result.stderr
    first, second = result.stdout.splitlines()[:2]
    assert first.endswith("real devices")
    assert "calibration slm-phase=none" in second
    assert second.endswith("only its twin runs, where a device does not answer.")


@pytest.mark.parametrize("fault", ["", "mute"])
def test_a_bench_that_may_fall_back_and_is_not_calibrated_uses_no_device(
    lab: Lab, tmp_path: Path, fault: str
) -> None:
    """Whether its twin may stand in is known once they were asked: dark, and closed."""
    light = lab(fault)
    folder = tmp_path / "calibrations" / "acme"
    path = folder / "bench.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}fallback: sim\n", encoding="utf-8")
    (folder / "current.yaml").write_text("schema_version: 1\nrecords: []\n", "utf-8")
    result = run()
    assert light.read_text() == "0.0"
    if fault:
        assert result.exit_code == 0, result.stderr
        assert "SIMULATED by its twin, because a device did not answer" in result.stdout
        return
    assert result.exit_code == 2
    assert "calibration slm-phase=none, expected one in force" in result.stderr
    assert "Its devices answer, so that its twin does not stand in" in result.stderr
    assert not (tmp_path / "r.h5").exists()
