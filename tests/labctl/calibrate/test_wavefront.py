"""A bent panel is made flat; a flat one stays so."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from drivers.sim.light import curvature, gaussian
from drivers.sim.options import Options, parse
from labctl.bench import load
from labctl.calibrate import wavefront
from labctl.calibrate.execute import Outcome
from labctl.calibrate.mapping import Affine
from labctl.calibrate.wavefront import (
    RANGES,
    brightest,
    enough,
    gained,
    searched,
    zernike,
)
from labctl.calibration import Wavefront
from labctl.errors import OutcomeError

MakeBench = Callable[..., Path]
Calibrate = Callable[..., Outcome]
Known = Callable[..., None]
Array = NDArray[np.float64]

SHAPE = (24, 36)


def strehl(beam: Array, phase: Array) -> float:
    return float(np.abs((beam * np.exp(1j * phase)).sum()) ** 2 / beam.sum() ** 2)


def test_modes_have_mean_0_and_rms_1() -> None:
    modes = zernike(SHAPE)
    assert modes.shape == (8, *SHAPE)
    assert modes.mean(axis=(1, 2)) == pytest.approx(0, abs=1e-12)
    assert modes.std(axis=(1, 2)) == pytest.approx(1)


def turned(degrees: float) -> Affine:
    turn = math.radians(degrees)
    matrix = 60 * np.array(
        [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    )
    return Affine(np.vstack([[24.0, 24.0], matrix.T]), np.zeros((3, 3)), 0.0)


@pytest.mark.parametrize("degrees", [0, 38, 52, 90, 142, 180, 233, 322])
@pytest.mark.parametrize("reach", [0.15, 0.2, 0.25])
def test_the_spot_is_sent_where_the_camera_sees_it(
    degrees: float, reach: float
) -> None:
    mapped = turned(degrees)
    away = reach * np.array(wavefront.AWAY)
    tilt, place = wavefront.aim(mapped, away, (10, 10), (28, 28), "wavefront")
    assert all(2 <= at < 26 for at in place)
    assert mapped(tilt[None])[0] == pytest.approx(np.add(place, 10))


def test_a_spot_that_falls_beside_the_frame_is_told_with_the_remedy() -> None:
    away = 0.6 * np.array(wavefront.AWAY)
    with pytest.raises(OutcomeError, match=r"frame of 28 x 28.*reach_cycles_px"):
        wavefront.aim(turned(52), away, (10, 10), (28, 28), "wavefront")


def test_the_top_is_found_between_the_sizes_that_were_tried() -> None:
    size = np.linspace(-1.5, 1.5, 7)
    light = 100 * np.exp(-((size - 0.37) ** 2))
    assert brightest(size, light, np.ones(7)).size == pytest.approx(0.37, abs=0.01)
    rising = brightest(size, np.exp(size), np.ones(7))
    assert rising.size == 1.5
    # What has no top within the range may be anywhere in it.
    assert rising.error == pytest.approx(3 / math.sqrt(12))


@pytest.mark.parametrize("noise", [3.0, 30.0])
def test_the_error_of_a_top_is_its_spread(noise: float) -> None:
    rng = np.random.default_rng(5)
    size = np.linspace(-0.6, 0.6, 7)
    light = 1000 * np.exp(-((size - 0.1) ** 2))
    tops = [
        brightest(size, rng.normal(light, noise), np.full(7, noise)) for _ in range(400)
    ]
    spread = float(np.std([top.size for top in tops]))
    assert np.median([top.error for top in tops]) == pytest.approx(spread, rel=0.15)


def test_a_bent_wavefront_is_found_mode_by_mode() -> None:
    rng = np.random.default_rng(1)
    modes, beam = zernike(SHAPE), np.ones(SHAPE)
    # The aim is off by a third of a pixel, which is no part of the correction.
    bow = np.tensordot([0.6, 0, 0.9, -0.6, 0.3, 0.2, -0.3, 0.1], modes, axes=1)

    def spot(sizes: Array) -> tuple[Array, Array]:
        phases = bow + np.tensordot(sizes, modes, axes=1)
        light = np.array([1000 * strehl(beam, phase) for phase in phases])
        return rng.poisson(light).astype(float), np.sqrt(light + 1)

    assert strehl(beam, bow) < 0.35
    found = searched(spot, np.zeros(len(modes)), RANGES)
    sizes, sweeps = found.sizes, found.sweeps
    assert strehl(beam, bow + np.tensordot(sizes, modes, axes=1)) > 0.9
    assert sizes[2:] == pytest.approx([-0.9, 0.6, -0.3, -0.2, 0.3, -0.1], abs=0.1)
    assert len(sweeps) == 8
    # Without tilts the middle is reached by coma: what the panel does not have.
    bent = searched(spot, np.zeros(len(modes)), RANGES, 2)
    assert (bent.sizes[2:] == 0).all()
    assert sweeps[0][0] == pytest.approx(np.linspace(-1.6, 1.6, 7))


def test_modes_that_a_narrow_beam_does_not_tell_apart_say_so() -> None:
    rng = np.random.default_rng(2)
    modes = zernike(SHAPE)
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    beam = np.exp(-(x**2 + y**2) / 0.52**2)
    truth = np.array([0.2, -0.1, 0.5, 0.3, -0.3, 0.2, -0.2, 0.1])
    bow = np.tensordot(truth, modes, axes=1)

    def spot(sizes: Array) -> tuple[Array, Array]:
        phases = bow + np.tensordot(sizes, modes, axes=1)
        light = np.array([3000 * strehl(beam, phase) for phase in phases])
        return rng.poisson(light).astype(float), np.sqrt(light + 1)

    runs = [searched(spot, np.zeros(len(modes)), RANGES) for _ in range(8)]
    gaps = np.array([run.sizes + truth for run in runs])
    errors = np.array([run.errors for run in runs])
    # Coma stands for a tilt here, and spherical for focus: several times as uncertain
    # as in a beam that fills the panel.
    assert (np.median(errors[:, 5:], axis=0) > 0.08).all()
    # Of a normal error .67.
    assert 0.35 < float(np.median(np.abs(gaps / errors))) < 1.0


@pytest.mark.parametrize(
    ("noise", "frames"),
    [(0.0, 8), (0.06, 8), (0.119, 16), (0.149, 25), (5.0, 96)],
)
def test_a_faint_spot_takes_more_frames(noise: float, frames: int) -> None:
    assert enough(100 * (1 + noise * np.tile([-1.0, 1.0], 50))) == frames
    assert enough(np.zeros(4)) == 8


@pytest.mark.parametrize(
    ("ratio", "helps"), [(0.9, False), (1.0, False), (1.02, False), (1.05, True)]
)
def test_a_correction_helps_only_beyond_the_error_of_its_gain(
    ratio: float, helps: bool
) -> None:
    # 8 % from frame to frame: 1 % for 64 frames, 1.4 % for the ratio of two.
    noise = 0.08 * np.tile([-1.0, 1.0], 32) * math.sqrt(63 / 64)
    gain = gained(500 * (1 + noise), 500 * ratio * (1 + noise))
    assert gain.ratio == pytest.approx(ratio)
    assert gain.error == pytest.approx(ratio * 0.01 * math.sqrt(2))
    # Three errors are 4.2 %: what is brighter by one error alone does not help.
    assert gain.helps == helps


class Aside:
    """A stand whose frames begin elsewhere on the sensor; its power trembles."""

    name, panel, power_mw = "wavefront", SHAPE, 5.0
    corner, frame = (10, 10), (28, 28)
    bench = SimpleNamespace(
        file=SimpleNamespace(calibrate=SimpleNamespace(reach_cycles_px=0.2))
    )

    def __init__(self, metered_mw: Array) -> None:
        self.metered_mw = metered_mw

    def repeated(self, panel: Array, count: int) -> SimpleNamespace:
        return SimpleNamespace(power_mw=self.metered_mw[: len(panel) * count])

    def require_light(self, exposed: SimpleNamespace) -> None:
        assert exposed.power_mw.size

    def signal_e(self, exposed: SimpleNamespace) -> Array:
        """Light that goes with the power, in one pixel of the frame."""
        frames = np.zeros((len(exposed.power_mw), *self.frame))
        frames[:, 3, 5] = 100 * exposed.power_mw
        return frames


class Tilts:
    """A painter that paints nothing."""

    def levels(self, phase: Array) -> Array:
        return phase

    def tilt(self, tilts: Array) -> Array:
        return tilts


def aimed(
    monkeypatch: pytest.MonkeyPatch, spots: Callable[[Array], Array]
) -> tuple[Array, tuple[int, int]]:
    """Aim by spots of some tilts on the sensor."""
    rng = np.random.default_rng(3)
    tilts = rng.uniform(-0.2, 0.2, (12, 2))
    kept = np.ones(12, dtype=bool)
    monkeypatch.setattr(wavefront, "directions", lambda *_: tilts)
    monkeypatch.setattr(wavefront, "find_spots", lambda *_: (kept, spots(tilts)))
    stand: Any = Aside(np.empty(0))
    painter: Any = Tilts()
    return wavefront._aimed(stand, painter)


def test_the_pixel_of_the_spot_is_counted_from_where_frames_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mapped = turned(30)
    tilt, place = aimed(monkeypatch, mapped)
    assert mapped(tilt[None])[0] == pytest.approx(np.add(place, Aside.corner))


def test_spots_that_do_not_go_along_with_the_panel_lead_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(4)
    with pytest.raises(OutcomeError, match="wavefront: parity is not certain"):
        aimed(monkeypatch, lambda tilts: rng.permutation(turned(30)(tilts)))


def test_a_power_that_trembles_makes_no_spot_brighter() -> None:
    stand: Any = Aside(np.array([4.0, 5.0, 6.0, 5.5, 4.5, 5.0]))
    painter: Any = Tilts()
    modes = zernike(SHAPE)
    spot = wavefront._Spot(stand, painter, modes, np.zeros(SHAPE), (3, 5))
    light = spot.frames(np.zeros((2, len(modes))), 3)
    assert light == pytest.approx(np.full((2, 3), 500.0))


# ---- on the bench ----------------------------------------------------------------

LIT: Mapping[str, Any] = {
    "world.options.sensor.photons_per_s": 2e7,
    "world.options.panel.lut_error": 0.0,
}
TOLD: tuple[Mapping[str, Any], ...] = (
    {"kind": "settle", "settle_s": 0.06},
    {"kind": "slm-phase", "span_rad": 2 * math.pi * 1.03},
)


@pytest.mark.slow
def test_strehl_rises_from_a_third_to_nine_tenths(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wavefront, "FRAMES", 3)
    path = make_bench({**LIT, "world.options.panel.curvature_rad": 1.8})
    known(path, *TOLD)
    (row,) = calibrate("wavefront").rows
    assert (row.status, row.why) == ("passed", "")
    source = load(path)
    record = source.records()["wavefront"]
    assert isinstance(record.values, Wavefront)
    world = source.file.world
    assert world is not None
    options = parse(Options, world.options)
    beam = gaussian(options.grid, options.light.radius).numpy()
    bow = curvature(options, torch.float64)
    assert bow is not None
    correction = record.values.phase_rad.load(path.parent)
    assert strehl(beam, bow.numpy()) < 0.4
    assert strehl(beam, bow.numpy() + correction) > 0.9
    assert record.values.gain > 1.8


@pytest.mark.slow
def test_a_flat_panel_gets_no_correction(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wavefront, "RANGES", (0.6,))
    monkeypatch.setattr(wavefront, "POINTS", 5)
    path = make_bench(LIT)
    known(path, *TOLD)
    (row,) = calibrate("wavefront").rows
    assert (row.status, row.why) == ("passed", "")
    values = load(path).records()["wavefront"].values
    assert isinstance(values, Wavefront)
    assert values.gain < 1.2
    assert np.abs(values.phase_rad.load(path.parent)).max() < 1.0


# A camera that was turned by more than half of a right angle, of whose sensor a part
# is looked at which begins elsewhere than the sensor.
TURNED: Mapping[str, Any] = {
    **LIT,
    "world.options.grid": [48, 48],
    "world.options.panel.curvature_rad": 1.2,
    "world.options.panel.crosstalk_macropixels": 0.1,
    "world.options.sensor.turn_deg": 52.0,
    "reservoir.region": [9, 9, 30, 30],
    "calibrate.region": [9, 9, 30, 30],
    "calibrate.reach_cycles_px": 0.16,
}


@pytest.mark.slow
def test_the_spot_of_a_turned_camera_is_found_in_the_part_that_is_looked_at(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wavefront, "RANGES", (1.6, 0.8))
    monkeypatch.setattr(wavefront, "FAINT", 8)
    path = make_bench(TURNED)
    known(path, *TOLD)
    (row,) = calibrate("wavefront").rows
    assert (row.status, row.why) == ("passed", "")
    values = load(path).records()["wavefront"].values
    assert isinstance(values, Wavefront)
    assert values.gain > 1.5
    # The bow of the panel, taken back.
    assert values.modes_rad["focus"] < -0.4


@pytest.mark.slow
def test_too_few_photons_leave_the_correction_in_force(
    make_bench: MakeBench, calibrate: Calibrate, known: Known
) -> None:
    path = make_bench({**LIT, "world.options.sensor.photons_per_s": 4000.0})
    before = {
        "kind": "wavefront",
        "phase_rad": np.full((32, 48), 0.25),
        "modes_rad": {},
        "gain": 1.5,
    }
    known(path, *TOLD, before)
    (row,) = calibrate("wavefront").rows
    assert row.status == "failed"
    assert row.why.startswith("wavefront: too few photons")
    assert "times the light" in row.why
    there = load(path).records()["wavefront"].values
    assert isinstance(there, Wavefront)
    assert there.gain == 1.5
    assert row.path is not None
    assert row.path.name.endswith("-failed.yaml")


@pytest.mark.slow
def test_the_lens_that_light_makes_of_the_medium_is_not_taken_for_the_panels(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wavefront, "RANGES", (0.9, 0.45))
    monkeypatch.setattr(wavefront, "POINTS", 5)
    medium = {
        "world.options.medium.b": 3.0,
        "world.options.medium.saturation": 0.6,
        "world.options.medium.steps": 8,
    }
    path = make_bench({**LIT, **medium})
    known(path, *TOLD)
    (row,) = calibrate("wavefront").rows
    assert (row.status, row.why) == ("passed", "")
    record = load(path).records()["wavefront"]
    assert record.conditions["power_mw"] < 1.0
    assert isinstance(record.values, Wavefront)
    assert abs(record.values.modes_rad["focus"]) < 0.2
