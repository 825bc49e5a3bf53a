"""The phase curve comes back from unmodulated light and from quadrants."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from drivers.sim.light import phase_curve
from drivers.sim.options import Options, parse
from labctl.bench import load
from labctl.calibrate.execute import Outcome
from labctl.calibrate.slm_phase import cosine, differ, fit_curve
from labctl.calibrate.stand import Exposed, Stand
from labctl.calibration import PhaseCurve
from labctl.devices import Levels
from labctl.errors import OutcomeError
from labctl.recording.reader import Record

MakeBench = Callable[..., Path]
Calibrate = Callable[..., Outcome]
Known = Callable[..., None]
Array = NDArray[np.float64]

LEVELS = 256
U = np.arange(LEVELS) / LEVELS
TRUTH = 2 * math.pi * (1.03 * U + 0.08 * U * (1 - U) - 0.05 * U * (1 - U) * (1 - 2 * U))


def order(rng: np.random.Generator) -> NDArray[np.int64]:
    return np.concatenate([rng.permutation(LEVELS) for _ in range(2)])


def test_a_curve_comes_back_from_the_light_that_is_not_modulated() -> None:
    rng = np.random.default_rng(1)
    level = order(rng)
    mean = 45_000 * (1 + 0.34 * np.cos(TRUTH[level]))
    signal = rng.poisson(mean)[:, None] / 45_000
    found = fit_curve(signal, level, LEVELS, cosine, 1 / 45_000)
    assert differ(found.phase_rad, TRUTH) < 0.012
    assert differ(found.phase_rad, TRUTH) < 2.5 * found.rms_error_rad
    assert found.rest == pytest.approx(1, abs=0.3)


def test_a_curve_comes_back_from_speckle_of_half_of_the_panel() -> None:
    rng = np.random.default_rng(2)
    level = order(rng)
    field, other = rng.standard_normal((2, 300, 2)) @ np.array([1, 1j])
    modulated = np.exp(1j * TRUTH[level])[:, None] * field
    light = 40 * np.abs(modulated + other) ** 2
    frames = rng.poisson(light) / np.sqrt(light.mean(axis=0))
    found = fit_curve(frames, level, LEVELS, cosine)
    assert differ(found.phase_rad, TRUTH) < 0.004


def test_a_panel_that_does_not_modulate_is_named() -> None:
    rng = np.random.default_rng(3)
    level = order(rng)
    signal = rng.normal(1, 0.01, (len(level), 1))
    with pytest.raises(OutcomeError, match="slm-phase: the panel does not modulate"):
        fit_curve(signal, level, LEVELS, cosine, 1e-4)


# ---- on the bench ----------------------------------------------------------------


def truth(path: Path) -> Array:
    world = load(path).file.world
    assert world is not None
    options = parse(Options, world.options).effective()
    u = torch.arange(LEVELS, dtype=torch.float64) / LEVELS
    found: Array = phase_curve(options)(u).numpy()
    return found


@pytest.mark.slow
def test_the_injected_curve_comes_back(
    make_bench: MakeBench, calibrate: Calibrate, known: Known
) -> None:
    path = make_bench({"world.options.panel.lut_error": 0.03})
    known(path, {"kind": "settle", "settle_s": 0.06})
    (row,) = calibrate("slm-phase").rows
    assert (row.status, row.why) == ("passed", "")
    record = load(path).records()["slm-phase"]
    assert isinstance(record.values, PhaseCurve)
    assert differ(record.values.curve(8, path.parent), truth(path)) < 0.012
    assert record.figure_of_merit["rms_rad"] < 0.015
    assert record.conditions["writes"] == record.conditions["exposures"] <= 600
    assert record.wavelength_nm == 780


@pytest.mark.slow
def test_the_curve_comes_back_through_the_medium_of_the_shipped_bench(
    make_bench: MakeBench, calibrate: Calibrate, known: Known
) -> None:
    path = make_bench({"world.options.device_seed": 5}, quick=False)
    known(path, {"kind": "settle", "settle_s": 0.06})
    (row,) = calibrate("slm-phase").rows
    assert (row.status, row.why) == ("passed", "")
    record = load(path).records()["slm-phase"]
    assert isinstance(record.values, PhaseCurve)
    assert differ(record.values.curve(8, path.parent), truth(path)) < 0.012
    # At full power the medium responds to the light.
    assert record.conditions["power_mw"] < 1
    assert record.conditions["writes"] == record.conditions["exposures"] <= 600


@pytest.mark.slow
def test_the_whole_panel_alone_is_used_and_named_where_the_medium_is_never_linear(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = make_bench({"world.options.medium.b": 3.0})
    known(path, {"kind": "settle", "settle_s": 0.06})
    monkeypatch.setattr("labctl.calibrate.patterns.HALVINGS", 1)
    monkeypatch.setattr("labctl.calibrate.slm_phase.EXPOSURES", 300)
    brighten, seen = Stand.brighten, []

    def dimmer(stand: Stand, panel: Levels, **how: float) -> Exposed:
        found = brighten(stand, panel, **how)
        seen.append(found.exposure_s)
        if len(seen) > 1:
            stand.configure(seen[0] / 2)
        return found

    monkeypatch.setattr(Stand, "brighten", dimmer)
    (row,) = calibrate("slm-phase", loud=True).rows
    told = capsys.readouterr().out
    assert "levels over the whole panel alone" in told
    assert "the medium is not linear" in told
    # Both lots of levels count, though they are exposed for other times.
    assert row.record is not None
    with Record.open(row.record) as record:
        stage = record.column("shots_meta", "stage")
        exposure_s = record.column("shots_meta", "exposure_s")
    first, second = (
        np.unique(exposure_s[stage == name]) for name in ("whole panel", "steep levels")
    )
    assert second == pytest.approx(0.5 * first)
    found = load(path).records()["slm-phase"]
    assert isinstance(found.values, PhaseCurve)
    error = differ(found.values.curve(8, path.parent), truth(path))
    assert error < 2 * found.figure_of_merit["rms_rad"]
    assert found.figure_of_merit["rms_rad"] < 0.03
