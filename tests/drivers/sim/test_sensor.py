import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from drivers.sim.options import Options, SensorOptions
from drivers.sim.sensor import Sensor, poisson
from labctl.devices import CameraSettings

REGION = (3, 5, 10, 14)


def settings(exposure_s: float = 0.001, gain_db: float = 0.0) -> CameraSettings:
    return CameraSettings(exposure_s, gain_db, REGION)


def sensor(**made: float | bool) -> Sensor:
    return Sensor(Options(grid=(16, 24), sensor=SensorOptions(**made)), seed=4)  # type: ignore[arg-type]  # one of the two by field


def many(
    chip: Sensor, light: NDArray[np.float64], taken: CameraSettings, count: int
) -> NDArray[np.uint16]:
    return chip.counts(np.stack([light] * count), taken, range(count))


def one(
    chip: Sensor, light: NDArray[np.float64], taken: CameraSettings, shot: int
) -> NDArray[np.uint16]:
    frame: NDArray[np.uint16] = chip.counts(light[None], taken, [shot])[0]
    return frame


@pytest.mark.parametrize("mean_e", [0.5, 3.0, 19.0, 21.0, 400.0])
def test_shot_noise_has_the_mean_and_variance_of_poisson(mean_e: float) -> None:
    chip = sensor(prnu=0.0, dsnu_e=0.0, dark_e_per_s=0.0, read_noise_e=0.0)
    light = np.full(REGION[2:], mean_e)
    frames = many(chip, light, settings(), 200)
    electrons = (frames.astype(float) - 100) / 4
    count = electrons.size
    assert electrons.mean() == pytest.approx(mean_e, abs=4 * (mean_e / count) ** 0.5)
    assert electrons.var() == pytest.approx(mean_e, rel=4 * (3 / count) ** 0.5 + 0.01)


def test_dim_light_arrives_by_the_inverse_of_poissons_distribution() -> None:
    source = np.random.default_rng(3)
    mean, uniform = source.uniform(0, 20, 50_000), source.random(50_000)
    assert (poisson(mean, uniform) == stats.poisson.ppf(uniform, mean)).all()
    # The greatest number below one has no end of its own.
    assert poisson(np.array([0.0, 20.0]), np.full(2, 1 - 2**-53))[0] == 0
    assert not len(poisson(np.empty(0), np.empty(0)))


def test_a_frame_of_dim_and_bright_pixels_has_both_right() -> None:
    chip = sensor(prnu=0.0, dsnu_e=0.0, dark_e_per_s=0.0, read_noise_e=0.0)
    light = np.full(REGION[2:], 2.0)
    light[:, 7:] = 100.0
    frames = many(chip, light, settings(), 100)
    electrons = (frames.astype(float) - 100) / 4
    assert electrons[..., :7].mean() == pytest.approx(2, rel=0.05)
    assert electrons[..., 7:].mean() == pytest.approx(100, rel=0.01)
    assert electrons[..., 7:].var() == pytest.approx(100, rel=0.1)


def test_read_noise_dark_current_and_offset_in_the_dark() -> None:
    chip = sensor(dsnu_e=0.0, dark_e_per_s=1000.0, read_noise_e=2.0)
    dark = np.zeros(REGION[2:])
    frames = many(chip, dark, settings(0.01), 200)
    electrons = (frames.astype(float) - 100) / 4
    assert electrons.mean() == pytest.approx(10, rel=0.02)
    assert electrons.var() == pytest.approx(10 + 4, rel=0.05)


def test_full_well_clips_before_the_converter_and_gain_turns_that_round() -> None:
    chip = sensor(read_noise_e=0.0)
    bright = np.full(REGION[2:], 1e6)
    well = one(chip, bright, settings(), 0)
    assert chip.saturation_dn(0.0) == 60_100
    assert (well == 60_100).all()
    converter = one(chip, bright, settings(gain_db=6.0), 0)
    assert chip.saturation_dn(6.0) == 65_535
    assert (converter == 65_535).all()
    assert well.dtype == np.uint16


def test_gain_multiplies_the_signal_but_not_the_offset() -> None:
    chip = sensor(shot_noise=False, read_noise_e=0.0, prnu=0.0, dsnu_e=0.0)
    light = np.full(REGION[2:], 100.0)
    low, high = (one(chip, light, settings(gain_db=db), 0) for db in (0.0, 20.0))
    assert int(low[0, 0]) == 500
    assert int(high[0, 0]) == 4100


def test_a_frame_is_a_function_of_seed_and_shot() -> None:
    light = np.random.default_rng(1).random(REGION[2:]) * 5
    first, second = sensor(), sensor()
    assert np.array_equal(
        one(first, light, settings(), 12), one(second, light, settings(), 12)
    )
    assert not np.array_equal(
        one(first, light, settings(), 12), one(first, light, settings(), 13)
    )


def test_fixed_pattern_belongs_to_the_pixel_not_to_the_region() -> None:
    chip = sensor(prnu=0.05, dsnu_e=3.0)
    whole = CameraSettings(0.001, 0.0, (0, 0, 16, 24))
    fraction = torch.full((1, 16, 24), 0.01, dtype=torch.float64)
    full = chip.mean_counts(fraction, whole)[0]
    part = chip.mean_counts(fraction[:, 3:13, 5:19], settings())[0]
    torch.testing.assert_close(part, full[3:13, 5:19])
    assert float(full.std()) > 1


def test_mean_counts_are_the_mean_of_the_counts() -> None:
    chip = sensor(photons_per_s=1e6, dark_e_per_s=500.0, dsnu_e=1.0, prnu=0.1)
    fraction = torch.rand(
        1, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    light = fraction[0, 3:13, 5:19].numpy() * chip.electrons_per_fraction(settings())
    mean = many(chip, light, settings(), 200).mean(axis=0)
    want = chip.mean_counts(fraction[:, 3:13, 5:19], settings())[0].numpy()
    spread = 4 * np.sqrt(light + 2)
    assert (np.abs(mean - want) < 5 * spread / np.sqrt(200)).all()


def test_a_saturated_pixel_has_no_slope() -> None:
    chip = sensor()
    fraction = torch.full((1, 16, 24), 1e-4, dtype=torch.float64)
    fraction[0, 4, 6] = 1e6
    fraction.requires_grad_()
    counts = chip.mean_counts(fraction[:, 3:13, 5:19], settings())
    (slope,) = torch.autograd.grad(counts.sum(), fraction)
    assert float(slope[0, 4, 6]) == 0
    assert float(slope[0, 5, 6]) > 0


def test_hot_pixels_are_as_many_as_it_says_and_always_the_same() -> None:
    made = SensorOptions(hot_pixels=0.1, hot_e_per_s=1e5, read_noise_e=0.0)
    grid = (64, 96)
    dark = CameraSettings(0.01, 0.0, (0, 0, *grid))
    frames = [
        Sensor(Options(grid=grid, sensor=made), seed).counts(
            np.zeros((1, *grid)), dark, [0]
        )[0]
        for seed in (1, 2)
    ]
    hot = [frame > 2000 for frame in frames]
    assert np.array_equal(*hot)
    assert hot[0].mean() == pytest.approx(0.1, abs=0.015)
    assert frames[0][hot[0]].mean() == pytest.approx(100 + 4 * 1000, rel=0.01)


@pytest.mark.parametrize(
    ("gain_dn_per_e", "gain_db", "read_noise_e"), [(4.0, 0.0, 0.7), (0.3, 12.0, 3.2)]
)
def test_a_photon_transfer_curve_gives_back_gain_and_read_noise(
    gain_dn_per_e: float, gain_db: float, read_noise_e: float
) -> None:
    # EMVA 1288: the variance of the difference of two frames over their mean.
    chip = sensor(
        gain_dn_per_e=gain_dn_per_e, read_noise_e=read_noise_e, prnu=0.02, dsnu_e=1.0
    )
    taken, lit, shot = settings(gain_db=gain_db), [], 0
    for mean_e in (0.0, 5.0, 15.0, 40.0, 100.0, 300.0, 1000.0):
        light = np.full(REGION[2:], mean_e)
        pairs = []
        for _ in range(60):
            pairs.append([one(chip, light, taken, shot + at) for at in (0, 1)])
            shot += 2
        a, b = np.array(pairs, dtype=float).swapaxes(0, 1)
        lit.append(((a + b).mean() / 2, (a - b).var() / 2))
    mean, variance = np.array(lit).T
    signal = mean - mean[0]
    slope = float(signal @ (variance - variance[0]) / (signal @ signal))
    gain = gain_dn_per_e * 10 ** (gain_db / 20)
    assert slope == pytest.approx(gain, rel=0.03)
    # Rounding adds a twelfth of a count squared.
    read_e = float(np.sqrt(variance[0] - 1 / 12)) / slope
    assert read_e == pytest.approx(read_noise_e, rel=0.05)
    assert mean[0] == pytest.approx(100, abs=4)


def test_unequal_pixels_have_the_spreads_that_are_claimed() -> None:
    made = SensorOptions(prnu=0.02, dsnu_e=3.0, photons_per_s=1e6)
    chip = Sensor(Options(grid=(64, 96), sensor=made), seed=4)
    taken = CameraSettings(0.001, 0.0, (0, 0, 64, 96))
    efficiency = chip.electrons_per_fraction(taken)
    assert efficiency.mean() == pytest.approx(1e6 * 0.8 * 0.001, rel=2e-3)
    assert efficiency.std() / efficiency.mean() == pytest.approx(0.02, rel=0.05)
    dark = chip.mean_counts(torch.zeros(1, 64, 96, dtype=torch.float64), taken)
    assert float(dark.std()) / 4 == pytest.approx(3.0, rel=0.05)


def test_no_pixel_of_millions_takes_light_away() -> None:
    grid = (2048, 2048)
    made = SensorOptions(prnu=0.2, dark_e_per_s=0.0)
    chip = Sensor(Options(grid=grid, sensor=made), seed=4)
    taken = CameraSettings(0.001, 0.0, (0, 0, *grid))
    efficiency = chip.electrons_per_fraction(taken)
    assert efficiency.min() == 0
    counts = chip.counts(0.1 * efficiency[None], taken, [0])[0]
    blind = counts[efficiency == 0].astype(float)
    assert blind == pytest.approx(100, abs=20)


@pytest.mark.parametrize(
    ("well_e", "top_dn", "highest_e"), [(10_000.0, 40_100, 1e4), (2e4, 65_535, 16_358)]
)
def test_a_ramp_of_light_ends_at_the_well_or_at_the_converter(
    well_e: float, top_dn: int, highest_e: float
) -> None:
    chip = sensor(well_e=well_e, read_noise_e=0.0, shot_noise=False, dsnu_e=0.0)
    ramp = np.linspace(0.9, 1.1, 14) * highest_e
    frame = one(chip, np.broadcast_to(ramp, REGION[2:]), settings(), 0)
    assert chip.saturation_dn(0.0) == top_dn
    assert (frame[:, ramp > highest_e] == top_dn).all()
    below = frame[0, ramp < highest_e]
    np.testing.assert_allclose(below, 100 + 4 * ramp[ramp < highest_e], atol=1)


@pytest.mark.parametrize("temperature_c", [14.0, 30.0, 46.0])
def test_dark_current_doubles_every_eight_kelvin(temperature_c: float) -> None:
    # EMVA 1288 reference simulator: given at 30 degrees Celsius.
    chip = sensor(
        dsnu_e=0.0,
        dark_e_per_s=1000.0,
        hot_pixels=0.0,
        temperature_c=temperature_c,
    )
    want = 10 * 2 ** ((temperature_c - 30) / 8)
    frames = many(chip, np.zeros(REGION[2:]), settings(0.01), 200)
    electrons = (frames.astype(float) - 100) / 4
    assert electrons.mean() == pytest.approx(want, rel=0.03)
    assert chip.dark_e_per_s * 0.01 == pytest.approx(want)


def test_a_shot_on_a_warmer_sensor_has_more_dark_current_and_no_more_light() -> None:
    chip = sensor(dsnu_e=0.0, dark_e_per_s=1000.0, shot_noise=False, read_noise_e=0.0)
    light = np.full((3, *REGION[2:]), 100.0)
    warmer_k = np.array([0.0, 8.0, -8.0])
    frames = chip.counts(light, settings(0.01), range(3), warmer_k)
    want_e = 100 + np.array([10.0, 20.0, 5.0])
    np.testing.assert_array_equal(
        frames, np.full(frames.shape, 100) + 4 * want_e[:, None, None]
    )


def test_binned_pixels_add_light_dark_and_well_but_are_read_once() -> None:
    single = sensor(prnu=0.02, dsnu_e=3.0, dark_e_per_s=1000.0)
    both = sensor(
        prnu=0.02, dsnu_e=3.0, dark_e_per_s=1000.0, read_noise_e=20.0, binning=2
    )
    region = CameraSettings(0.01, 0.0, (1, 2, 5, 7))
    assert both.pixels(region.region) == (2, 4, 10, 14)
    pixels = CameraSettings(0.01, 0.0, (2, 4, 10, 14))
    fraction = torch.rand(
        1, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    ).mul_(1e-3)
    fine = single.mean_counts(fraction, pixels)[0].numpy() - 100
    want = fine.reshape(5, 2, 7, 2).sum(axis=(1, 3)) + 100
    mean = both.mean_counts(fraction, region)[0].numpy()
    np.testing.assert_allclose(mean, want, rtol=1e-12)
    light = fraction[0].numpy() * both.electrons_per_fraction(region)
    frames = many(both, light, region, 400).astype(float)
    electrons = (mean - 100) / 4
    # What no light and no current make has no shot noise.
    made = (
        electrons
        - (
            both.mean_counts(fraction * 0, CameraSettings(0, 0, region.region))[
                0
            ].numpy()
            - 100
        )
        / 4
    )
    spread = np.sqrt(made + 20.0**2)
    assert (np.abs(frames.mean(axis=0) - mean) < 5 * 4 * spread / 20).all()
    ratio = frames.var(axis=0) / (16 * spread**2)
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    assert both.saturation_dn(0.0) == 65_535
    assert both.saturation_dn(-12.0412) == pytest.approx(60_100, abs=2)


def test_a_full_pixel_of_a_square_gives_no_charge_to_its_neighbours() -> None:
    chip = sensor(
        shot_noise=False,
        read_noise_e=0.0,
        prnu=0.0,
        dsnu_e=0.0,
        dark_e_per_s=0.0,
        binning=2,
        gain_dn_per_e=1.0,
    )
    taken = CameraSettings(0.01, 0.0, (0, 0, 1, 1))
    light = np.array([[1e6, 10.0], [20.0, 30.0]])
    assert one(chip, light, taken, 0) == 15_000 + 60 + 100


def test_binned_frames_do_not_depend_on_their_batch() -> None:
    chip = sensor(binning=4)
    taken = CameraSettings(0.01, 0.0, (0, 1, 3, 4))
    light = np.random.default_rng(1).random((6, 12, 16)) * 50
    whole = chip.counts(light, taken, range(6))
    parts = [chip.counts(light[at : at + 1], taken, [at])[0] for at in range(6)]
    assert np.array_equal(whole, parts)
