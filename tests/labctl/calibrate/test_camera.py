"""The camera's truth comes back; what is no camera curve is refused."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from labctl.bench import load
from labctl.calibrate import camera
from labctl.calibrate.camera import (
    Dark,
    Stack,
    fit_dark,
    fit_linearity,
    fit_transfer,
    light_for_linearity,
    line,
    own_variance,
    reached_saturation,
    zero_bits,
)
from labctl.calibrate.execute import Outcome
from labctl.calibrate.stand import Stand
from labctl.calibration import CameraResponse
from labctl.errors import OutcomeError
from labctl.recording.reader import Record

MakeBench = Callable[..., Path]
Calibrate = Callable[..., Outcome]

GAIN, OFFSET, NOISE_E, WELL_E = 2.5, 64.0, 3.0, 6000.0


def stack(
    rng: np.random.Generator,
    mean_e: NDArray[np.float64],
    exposure_s: float,
    count: int = 24,
    power_noise: float = 0.0,
) -> Stack:
    power = 1 + power_noise * rng.standard_normal(count)
    electrons = rng.poisson(np.outer(power, mean_e)).astype(float)
    electrons += NOISE_E * rng.standard_normal(electrons.shape)
    counts = np.rint(GAIN * np.minimum(electrons, WELL_E) + OFFSET)
    return Stack(counts, exposure_s, 5.0 * power)


@pytest.fixture
def dark() -> Dark:
    rng = np.random.default_rng(3)
    times = (0.001, 0.5, 1.0)
    return fit_dark([stack(rng, np.full(1500, 2 * t), t, 32) for t in times])


def test_dark_level_and_noise_come_back(dark: Dark) -> None:
    assert dark.offset_dn == pytest.approx(OFFSET, abs=5 * dark.offset_error)
    assert dark.dark_dn_per_s == pytest.approx(2 * GAIN, abs=5 * dark.dark_error)
    assert math.sqrt(dark.variance_dn2 - 1 / 12) == pytest.approx(
        GAIN * NOISE_E, rel=0.02
    )
    assert dark.hot.size == 0


def test_a_dark_level_that_falls_is_refused() -> None:
    rng = np.random.default_rng(4)
    stacks = [stack(rng, np.full(500, 9.0 - 8 * t), t, 32) for t in (0.01, 0.5, 1.0)]
    with pytest.raises(OutcomeError, match="dark level falls by"):
        fit_dark(stacks)


def test_hot_pixels_are_found_and_left_out() -> None:
    rng = np.random.default_rng(5)
    rate = np.full(400, 2.0)
    rate[[7, 300]] = 900.0
    found = fit_dark([stack(rng, rate * t, t, 32) for t in (0.01, 0.5, 1.0)])
    assert found.hot.tolist() == [7, 300]
    assert found.dark_dn_per_s == pytest.approx(5.0, abs=5 * found.dark_error)


def test_what_all_pixels_share_is_no_noise_of_theirs() -> None:
    rng = np.random.default_rng(6)
    mean = rng.uniform(200, 800, 2000)
    calm = stack(rng, mean, 1.0)
    trembling = stack(rng, mean, 1.0, power_noise=0.06)
    expected = GAIN**2 * (mean + NOISE_E**2) + 1 / 12
    for each in (calm, trembling):
        (variance,), _ = own_variance([each.frames])
        ratio = variance / expected
        assert ratio.mean() == pytest.approx(1, abs=0.04)
    assert (trembling.frames.var(axis=0, ddof=1) / expected).mean() > 2


def test_the_gain_comes_back_from_light_that_trembles(dark: Dark) -> None:
    rng = np.random.default_rng(7)
    rate = rng.exponential(200.0, 1500)
    stacks = [stack(rng, rate * t, t, power_noise=0.02) for t in (0.1, 0.3, 1.0)]
    found = fit_transfer(stacks, dark, GAIN * WELL_E + OFFSET)
    assert found.gain_dn_per_e == pytest.approx(GAIN, abs=4 * found.gain_error)
    assert found.gain_error < 0.02 * GAIN


def test_pixels_that_tremble_together_do_not_bias_the_gain(dark: Dark) -> None:
    rng = np.random.default_rng(15)
    rate = rng.exponential(200.0, 1500)
    # A beam that wanders shows on the few pixels of a steep edge alone.
    steep = np.zeros(1500)
    steep[[10, 300, 302, 304, 900, 1200]] = 0.2
    rate[steep > 0] = 1500.0
    stacks = []
    for exposure_s in (0.1, 0.3, 1.0):
        wander = 1 + steep * rng.standard_normal((24, 1))
        light_e = rng.poisson(rate * exposure_s * wander)
        read = NOISE_E * rng.standard_normal(light_e.shape)
        frames = np.rint(OFFSET + GAIN * (light_e + read))
        stacks.append(Stack(frames, exposure_s, np.ones(24)))
    found = fit_transfer(stacks, dark, GAIN * WELL_E + OFFSET)
    assert found.gain_dn_per_e == pytest.approx(GAIN, abs=3 * found.gain_error)
    assert found.gain_error < 0.02 * GAIN


def test_dim_pixels_do_not_bias_the_gain(dark: Dark) -> None:
    rng = np.random.default_rng(14)
    rate = rng.exponential(1.0, 1500) ** 4
    pulls = []
    for _ in range(6):
        stacks = [stack(rng, rate * t, t) for t in (0.1, 0.2, 0.4, 0.7, 1.0)]
        found = fit_transfer(stacks, dark, GAIN * WELL_E + OFFSET)
        pulls.append((found.gain_dn_per_e - GAIN) / found.gain_error)
    assert abs(np.mean(pulls)) < 1.5


def test_too_few_photons_are_named(dark: Dark) -> None:
    rng = np.random.default_rng(8)
    stacks = [stack(rng, np.full(1500, 1e-3), t) for t in (0.5, 1.0)]
    with pytest.raises(OutcomeError, match="too few photons: gain="):
        fit_transfer(stacks, dark, GAIN * WELL_E + OFFSET)


@pytest.mark.parametrize("bend", [0.0, -0.08])
def test_a_bent_response_is_told_from_a_straight_one(dark: Dark, bend: float) -> None:
    rng = np.random.default_rng(9)
    rate = np.linspace(500, 5500, 1500)
    stacks = []
    for t in np.linspace(0.1, 1.0, 9):
        mean = rate * t
        stacks.append(stack(rng, mean * (1 + bend * mean / WELL_E), float(t), 32))
    found = fit_linearity(stacks, dark, GAIN, GAIN * WELL_E + OFFSET)
    assert found is not None
    expected = 100 * abs(bend) * 0.9 / 8
    # A bend of the response is a little less of a bend over what it shows.
    assert found.percent == pytest.approx(expected, abs=0.15 * expected + 0.05)


def test_linearity_of_dim_pixels_is_not_known(dark: Dark) -> None:
    rng = np.random.default_rng(10)
    stacks = [stack(rng, np.full(1500, 900 * t), t) for t in (0.5, 1.0)]
    assert fit_linearity(stacks, dark, GAIN, GAIN * WELL_E + OFFSET) is None
    # With a little more than what is missing it is.
    times = light_for_linearity(stacks, dark, GAIN * WELL_E + OFFSET)
    lit = [
        Stack(
            dark.level_dn + 1.05 * times * (each.frames - dark.level_dn),
            each.exposure_s,
            each.power_mw,
        )
        for each in stacks
    ]
    assert fit_linearity(lit, dark, GAIN, GAIN * WELL_E + OFFSET) is not None
    assert fit_linearity(lit[:-1], dark, GAIN, GAIN * WELL_E + OFFSET) is None


def test_saturation_is_found_where_it_is_reached(dark: Dark) -> None:
    rng = np.random.default_rng(11)
    mean = np.full(1500, 100.0)
    mean[42] = 20_000
    stacks = [stack(rng, mean * t, t) for t in (0.1, 0.5, 1.0)]
    assert reached_saturation(stacks, dark) == GAIN * WELL_E + OFFSET
    assert reached_saturation(stacks[:1], dark) is None


@pytest.mark.parametrize(("shift", "zeros"), [(0, 0), (1, 1), (4, 4)])
def test_low_bits_that_never_change_are_counted(shift: int, zeros: int) -> None:
    counts = np.left_shift(np.arange(60), shift).reshape(3, 4, 5).astype(np.uint16)
    assert zero_bits(counts) == zeros
    assert zero_bits(np.zeros((2, 3), np.uint16)) == 0


def test_a_line_comes_back_with_its_errors() -> None:
    rng = np.random.default_rng(12)
    x = np.linspace(0, 4, 50)
    pulls = []
    for _ in range(200):
        y = 3 * x - 1 + 0.2 * rng.standard_normal(50)
        slope, offset, slope_error, offset_error = line(x, y, np.full(50, 0.2))
        pulls.append([(slope - 3) / slope_error, (offset + 1) / offset_error])
    assert np.std(pulls, axis=0) == pytest.approx([1, 1], abs=0.15)


# ---- on the bench ----------------------------------------------------------------

TRUTH = {
    "world.options.sensor.gain_dn_per_e": 3.3,
    "world.options.sensor.offset_dn": 77.0,
    "world.options.sensor.read_noise_e": 1.1,
    "world.options.sensor.dark_e_per_s": 40.0,
    "world.options.sensor.hot_pixels": 0.002,
    "world.options.sensor.hot_e_per_s": 50_000.0,
}


@pytest.mark.slow
def test_injected_truth_comes_back(make_bench: MakeBench, calibrate: Calibrate) -> None:
    path = make_bench(TRUTH)
    outcome = calibrate("camera")
    (row,) = outcome.rows
    assert (row.status, row.why) == ("passed", "")
    found = load(path).records()["camera"]
    values = found.values
    assert isinstance(values, CameraResponse)
    assert values.gain_dn_per_e == pytest.approx(3.3, rel=0.02)
    assert values.read_noise_e == pytest.approx(1.1, rel=0.1)
    assert values.offset_dn == pytest.approx(77, abs=0.05)
    assert values.dark_dn_per_s == pytest.approx(132, abs=4)
    assert values.saturation_dn == int(15_000 * 3.3 + 77)
    assert found.figure_of_merit["linearity_percent"] < 0.5
    for row_px, column_px in values.hot_px:
        assert row_px < 32
        assert column_px < 48
    assert 1 <= len(values.hot_px) <= 8
    assert outcome.shots == {"calibrate": 744}
    assert row.record is not None
    with Record.open(row.record) as record:
        assert record.status == "complete"
        assert record.column("shots", "frames").shape == (744, 32, 48)
        assert record.ledger() == {"calibrate": 744, "refunded": 0}


def failure(outcome: Outcome) -> str:
    (row,) = outcome.rows
    assert row.status == "failed"
    assert row.path is not None
    assert row.path.name.endswith("-failed.yaml")
    return row.why


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"world.options.sensor.photons_per_s": 0.0},
            "camera: dark, or too few photons to be told from it: the laser emits",
        ),
        (
            {"world.options.sensor.photons_per_s": 1e12},
            "camera: saturated: ",
        ),
        (
            {"world.options.sensor.photons_per_s": 2e4},
            r"gain_error_percent=\d\.\d+, expected at most 2\. Too few photons, as a ",
        ),
        (
            {"world.options.light.power_noise": 0.1},
            "camera: unstable source: power changes by",
        ),
    ],
    ids=["blocked", "saturated", "dim", "unstable"],
)
@pytest.mark.slow
def test_what_is_wrong_is_named_and_nothing_is_installed(
    make_bench: MakeBench,
    calibrate: Calibrate,
    changes: dict[str, float],
    said: str,
) -> None:
    path = make_bench(changes)
    assert re.match(said, failure(calibrate("camera")))
    assert load(path).records() == {}
    assert not (Path("calibrations") / "lab" / "current.yaml").exists()


@pytest.mark.slow
def test_what_may_take_longer_than_a_heartbeat_is_computed_in_the_dark(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    kept = camera.reached_saturation

    def looked(stacks: list[Stack], dark: Dark) -> float | None:
        seen.append(stands[-1].power_mw)
        return kept(stacks, dark)

    stands: list[Stand] = []
    made = Stand.__init__

    def noted(stand: Stand, *given: object) -> None:
        made(stand, *given)  # type: ignore[arg-type]  # as they come
        stands.append(stand)

    monkeypatch.setattr(Stand, "__init__", noted)
    monkeypatch.setattr(camera, "reached_saturation", looked)
    make_bench()
    calibrate("camera")
    assert seen == [0.0]
