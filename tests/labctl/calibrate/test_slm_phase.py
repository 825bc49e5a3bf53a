"""The phase curve comes back from unmodulated light and from quadrants."""

import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from drivers.sim.light import gaussian, phase_curve, unevenness
from drivers.sim.options import Options, parse
from labctl.bench import load
from labctl.bench import open as open_bench
from labctl.calibrate import execute as room
from labctl.calibrate import slm_phase
from labctl.calibrate.execute import Outcome
from labctl.calibrate.kind import Finding
from labctl.calibrate.quadrants import LEAST, Light
from labctl.calibrate.slm_phase import (
    KIND,
    Curve,
    cosine,
    differ,
    fit_curve,
    interfering,
)
from labctl.calibrate.stand import Exposed, Stand
from labctl.calibration import PhaseCurve
from labctl.devices import Levels
from labctl.errors import InputError, OutcomeError
from labctl.recording.reader import Record
from labctl.reservoir import Reservoir, regions_of

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


def test_a_panel_that_may_modulate_is_told_with_the_light_that_would_show() -> None:
    rng = np.random.default_rng(1)
    level = order(rng)
    shape, noise = 0.28 * np.cos(TRUTH[level]), rng.standard_normal(len(level))
    with pytest.raises(OutcomeError) as caught:
        fit_curve((shape + noise)[:, None], level, LEVELS, cosine)
    told = re.search(r"told at about (1\.\d) times the light", str(caught.value))
    assert told is not None
    # As much more light over the same noise is seen.
    more = (float(told[1]) * shape + noise)[:, None]
    assert fit_curve(more, level, LEVELS, cosine).signal * len(level) > LEAST
    with pytest.raises(OutcomeError, match="by far too few: take a filter away"):
        fit_curve((0.3 * shape + noise)[:, None], level, LEVELS, cosine)


@pytest.mark.parametrize("scale", [1e-2, 1e-4])
def test_light_all_of_which_is_modulated_has_no_curve_at_any_noise(
    scale: float,
) -> None:
    rng = np.random.default_rng(4)
    for _ in range(4):
        level = rng.permutation(np.arange(0, LEVELS, 2))
        light = 1e6 * (1 + scale * rng.standard_normal(len(level)))
        with pytest.raises(OutcomeError, match="the light is the same at all levels"):
            interfering(Light(light, level), LEVELS)


def test_light_that_is_not_modulated_is_found_at_a_noise_that_nobody_told() -> None:
    rng = np.random.default_rng(5)
    level = rng.permutation(np.arange(0, LEVELS, 2))
    light = rng.poisson(45_000 * (1 + 0.34 * np.cos(TRUTH[level])))
    found = interfering(Light(light.astype(float), level), LEVELS)
    assert differ(found.phase_rad, TRUTH) < 0.03
    assert found.rest == pytest.approx(1, abs=0.1)


class Whole:
    """A stand that has shown the whole panel; nothing more is asked of it."""

    name, panel, levels = "slm-phase", (4, 6), LEVELS
    nominal_mw = power_mw = 5.0
    ledger = SimpleNamespace(counts={"calibrate": 0})

    def light(self, power_mw: float) -> None:
        assert power_mw == self.nominal_mw

    @contextmanager
    def thinking(self) -> Iterator[None]:
        yield

    def as_levels(self, values: NDArray[np.generic]) -> Levels:
        return values.astype(np.uint8)

    def brighten(self, panel: Levels, share: float) -> None:
        assert len(panel) == 8
        assert share


@pytest.mark.parametrize("is_seen", [True, False])
def test_faint_light_gets_more_frames_where_quadrants_are_the_only_way(
    monkeypatch: pytest.MonkeyPatch, is_seen: bool
) -> None:
    curve = Curve(TRUTH, np.zeros(LEVELS), 1.0, 1e3, 1.0)
    asked = []

    def linear(stand: Stand, panel: Levels, frames: int, most: int) -> float:
        asked.append((len(panel), frames, most))
        raise OutcomeError(stand.name)

    def goes_on(stand: Stand, *_: object) -> None:
        raise OutcomeError(stand.name)

    monkeypatch.setattr(
        slm_phase, "_whole_panel", lambda _: (None, curve if is_seen else None)
    )
    monkeypatch.setattr(slm_phase, "linear_power", linear)
    monkeypatch.setattr(slm_phase, "_more_levels", goes_on)
    stand: Any = Whole()
    with pytest.raises(OutcomeError, match="slm-phase"):
        slm_phase.measure(stand, KIND.limits)
    # With a curve already there, levels over the whole panel are a way as well.
    assert asked == [(3, 8, 0 if is_seen else 64)]


def test_levels_alone_that_tell_too_little_say_what_quadrants_lack() -> None:
    rng = np.random.default_rng(6)

    def light(count: int) -> Light:
        level = rng.integers(0, LEVELS, count)
        mean = 1 + 0.34 * np.cos(TRUTH[level])
        return Light(mean * (1 + 0.1 * rng.standard_normal(count)), level)

    stand: Any = Whole()
    why = "too few photons: it can be had at about 1.7 times the light."
    swept = slm_phase._whole_alone(stand, light(128), light(300), why)
    finding = slm_phase._finding(stand, swept, KIND.limits)
    told = room._judged(finding)
    assert told.startswith("rms_rad=")
    assert told.endswith(f"quadrants of it could not be used: {why}")


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


ALL_MODULATED: Mapping[str, object] = {
    "world.options.panel.zero_order": 0.0,
    "world.options.panel.flicker_rad": 0.0,
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_quadrants_alone_tell_the_curve_where_all_light_is_modulated(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    capsys: pytest.CaptureFixture[str],
    seed: int,
) -> None:
    path = make_bench({**ALL_MODULATED, "world.options.device_seed": seed})
    known(path, {"kind": "settle", "settle_s": 0.06})
    (row,) = calibrate("slm-phase", loud=True).rows
    assert (row.status, row.why) == ("passed", "")
    told = capsys.readouterr().out
    assert "light over the whole panel does not depend on its level" in told
    record = load(path).records()["slm-phase"]
    assert isinstance(record.values, PhaseCurve)
    assert differ(record.values.curve(8, path.parent), truth(path)) < 0.03


@pytest.mark.slow
def test_light_all_of_which_is_modulated_in_a_medium_that_is_never_linear_is_named(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make_bench({**ALL_MODULATED, "world.options.medium.b": 3.0})
    known(path, {"kind": "settle", "settle_s": 0.06})
    monkeypatch.setattr("labctl.calibrate.patterns.HALVINGS", 1)
    (row,) = calibrate("slm-phase").rows
    assert row.status == "failed"
    assert "light over the whole panel is the same at all levels" in row.why
    assert "the medium is not linear" in row.why


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


UNEVEN: Mapping[str, object] = {
    "world.options.device_seed": 11,  # more along one diagonal than in the middle
    "world.options.panel.lut_unevenness": 0.04,
    "world.options.panel.lut_overshoot": 0.15,
}


def off(path: Path, curves: Array) -> float:
    """Distance of curves of 2 x 2 regions from the truth where the light is, rms."""
    world = load(path).file.world
    assert world is not None
    options = parse(Options, world.options).effective()
    uneven = unevenness(options, torch.float64)
    assert uneven is not None
    light = gaussian(options.grid, options.light.radius).numpy() ** 2
    which = regions_of(options.grid, (2, 2))
    gaps = []
    for number, curve in enumerate(curves.reshape(-1, LEVELS)):
        own = which == number
        factor = float((uneven.numpy() * light)[own].sum() / light[own].sum())
        gaps.append(differ(curve, factor * truth(path)))
    return float(np.sqrt(np.mean(np.square(gaps))))


@pytest.mark.slow
def test_regions_of_an_uneven_panel_have_a_curve_each(
    make_bench: MakeBench, calibrate: Calibrate, known: Known
) -> None:
    path = make_bench({**UNEVEN, "calibrate.phase_regions": [2, 2]})
    known(path, {"kind": "settle", "settle_s": 0.06})
    (row,) = calibrate("slm-phase").rows
    assert (row.status, row.why) == ("passed", "")
    record = load(path).records()["slm-phase"]
    assert isinstance(record.values, PhaseCurve)
    curves = record.values.curve(8, path.parent)
    assert curves.shape == (2, 2, LEVELS)
    each, one = off(path, curves), off(path, np.tile(curves.mean(axis=(0, 1)), (4, 1)))
    assert each < 0.03
    assert one > 2 * each
    assert record.conditions["writes"] <= 1200
    assert set(record.quantities) == {f"span_{r}_{c}_rad" for r in "01" for c in "01"}
    # A run shows each macropixel by the curve of its region, and its gradient too.
    with open_bench(load(path)) as bench:
        reservoir = Reservoir(bench)
        answer = reservoir(torch.full((2, reservoir.pixels), 5.0), category="evaluate")
        assert answer.shown.numpy() == pytest.approx(5.0, abs=0.03)
        levels = reservoir.scale.levels(np.full((1, reservoir.pixels), 5.0))
        assert len(np.unique(levels)) > 1


def test_other_regions_are_due_and_those_that_do_not_divide_the_panel_refused(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make_bench({"calibrate.phase_regions": [2, 2]})
    curve = {"kind": "slm-phase", "span_rad": 6.5}
    known(path, {"kind": "settle", "settle_s": 0.06}, curve)
    looked = []

    def measure(stand: Stand, _limits: Mapping[str, float]) -> Finding:
        looked.append(stand.name)
        raise OutcomeError(stand.name)

    monkeypatch.setattr(room, "KINDS", (replace(KIND, measure=measure),))
    (row,) = calibrate().rows
    assert (row.kind, row.status, looked) == ("slm-phase", "failed", ["slm-phase"])
    shutil.rmtree(path.parent)
    path = make_bench({"calibrate.phase_regions": [3, 2]})
    with pytest.raises(InputError, match=r"phase_regions=\[3, 2\], expected numbers"):
        calibrate()


@pytest.mark.slow
def test_regions_without_light_to_interfere_with_are_refused(
    make_bench: MakeBench, calibrate: Calibrate, known: Known
) -> None:
    path = make_bench(
        {"world.options.panel.zero_order": 0.0, "calibrate.phase_regions": [2, 2]}
    )
    known(path, {"kind": "settle", "settle_s": 0.06})
    (row,) = calibrate("slm-phase").rows
    assert row.status == "failed"
    assert "2 x 2 regions of the panel cannot be told apart" in row.why
    assert "calibrate.phase_regions: [1, 1]" in row.why


@pytest.mark.soak  # sixteen regions take their time
def test_regions_that_the_beam_does_not_reach_are_refused_by_name(
    make_bench: MakeBench, calibrate: Calibrate, known: Known
) -> None:
    path = make_bench(
        {"world.options.light.radius": 0.2, "calibrate.phase_regions": [4, 4]}
    )
    known(path, {"kind": "settle", "settle_s": 0.06})
    (row,) = calibrate("slm-phase").rows
    assert row.status == "failed"
    assert "of 4 x 4: all light changes with its level by" in row.why
    assert "It gets too little of the light" in row.why


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
