import math
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from drivers.sim.light import (
    Illumination,
    LightPath,
    curvature,
    gaussian,
    kerr_plan,
    one_thread,
    phase_curve,
    unevenness,
)
from drivers.sim.options import LightOptions, MediumOptions, Options, PanelOptions

IDEAL = Options(
    grid=(16, 24),
    macropixel_px=2,
    ideal=True,
    medium=MediumOptions(kind="free", b=0, screens=0, edge=0.0),
).effective()


def lit(count: int, power: float = 1.0) -> Illumination:
    return Illumination(torch.full((count,), power))


def test_a_blazed_panel_deflects_along_the_right_axis() -> None:
    path = LightPath(IDEAL)
    rows = torch.arange(16.0)[:, None].expand(16, 24)
    columns = torch.arange(24.0).expand(16, 24)
    # 3 periods down the rows, 4 along the columns, in levels of 256.
    ramps = torch.stack([rows * 48 % 256, columns * 256 * 4 / 24 % 256])
    spots = path.fraction(ramps, lit(2))
    peaks = [divmod(int(spot.argmax()), 24) for spot in spots]
    assert peaks == [(8 + 3, 12), (8, 12 + 4)]


@pytest.fixture
def oracle(
    need_module: Callable[..., Any],
) -> Callable[[torch.Tensor], NDArray[np.float64]]:
    """Slmsuite's simulated panel and camera, lit by our beam: phase in, light out."""
    with warnings.catch_warnings():
        # It recommends a library for NVIDIA's cards as it is imported.
        warnings.simplefilter("ignore")
        panels = need_module("slmsuite.hardware.slms.simulated")
        cameras = need_module("slmsuite.hardware.cameras.simulated")

    def far_field(phase: torch.Tensor) -> NDArray[np.float64]:
        rows, columns = phase.shape
        beam = gaussian((rows, columns), IDEAL.light.radius).numpy()
        lit = {"amplitude_sim": beam, "phase_sim": np.zeros_like(beam)}
        panel = panels.SimulatedSLM((columns, rows), source=lit)
        camera = cameras.SimulatedCamera(panel)
        panel.set_phase(phase.numpy())
        seen = camera.render()
        light: NDArray[np.float64] = seen / seen.sum()
        return light

    return far_field


@pytest.mark.peer
@pytest.mark.parametrize("periods", [(3, 0), (0, 4), (-2, 5)])
def test_a_grating_deflects_as_in_slmsuite_and_as_the_formula_says(
    periods: tuple[int, int], oracle: Callable[..., NDArray[np.float64]]
) -> None:
    grid, options = (48, 64), replace(IDEAL, grid=(48, 64))
    ramps = [
        torch.arange(float(side)) * count / side
        for side, count in zip(grid, periods, strict=True)
    ]
    levels = (256 * (ramps[0][:, None] + ramps[1])).round() % 256
    ours = LightPath(options).fraction(levels[None], lit(1))[0].numpy()
    theirs = oracle(levels * (2 * math.pi / 256))
    # A grating of f periods over the panel goes f pixels off the middle, towards
    # where its phase rises.
    spot = (24 + periods[0], 32 + periods[1])
    assert divmod(int(ours.argmax()), 64) == spot
    assert divmod(int(theirs.argmax()), 64) == spot
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * theirs.max())


@pytest.mark.peer
def test_a_random_panel_makes_the_far_field_that_slmsuite_computes(
    oracle: Callable[..., NDArray[np.float64]],
) -> None:
    blocks = np.random.default_rng(6).integers(0, 256, (12, 16))
    levels = torch.from_numpy(blocks.repeat(4, 0).repeat(4, 1)).float()
    path = LightPath(replace(IDEAL, grid=(48, 64)))
    ours = path.fraction(levels[None], lit(1))[0].numpy()
    theirs = oracle(levels * (2 * math.pi / 256))
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * theirs.max())
    # Nothing that is turned round or upside down would pass.
    for turned in (theirs[::-1], theirs[:, ::-1]):
        assert np.abs(ours - turned).max() > 0.5 * theirs.max()


def test_tilt_moves_the_spot_by_its_pixels() -> None:
    path = LightPath(IDEAL)
    tilt = torch.tensor([[2.0, 0.0], [0.0, -3.0]])
    spots = path.fraction(torch.zeros(2, 16, 24), Illumination(torch.ones(2), tilt))
    peaks = [divmod(int(spot.argmax()), 24) for spot in spots]
    assert peaks == [(10, 12), (8, 9)]


def test_all_light_reaches_the_sensor_without_loss() -> None:
    lossless = Options(
        grid=(16, 24), macropixel_px=2, ideal=True, medium=MediumOptions(edge=0)
    ).effective()
    seen = LightPath(lossless).fraction(torch.zeros(2, 16, 24), lit(2, 0.5))
    torch.testing.assert_close(seen.sum(dim=(1, 2)), torch.tensor([0.5, 0.5]))


def test_power_acts_in_the_medium_not_at_the_camera() -> None:
    path = LightPath(Options(grid=(16, 24), macropixel_px=2))
    levels = torch.randint(
        0, 256, (1, 16, 24), generator=torch.Generator().manual_seed(1)
    ).float()
    weak, strong = (path.fraction(levels, lit(1, power)) for power in (0.1, 1.0))
    shape_change = (strong / strong.sum() - weak / weak.sum()).abs().sum()
    assert float(shape_change) > 0.1


def test_ripple_changes_only_what_interferes_with_the_zero_order() -> None:
    shaken = Illumination(torch.ones(1), ripple_rad=torch.tensor([0.3]))
    levels = torch.randint(
        0, 256, (1, 16, 24), generator=torch.Generator().manual_seed(1)
    ).float()
    pure = LightPath(IDEAL)
    torch.testing.assert_close(
        pure.fraction(levels, shaken),
        pure.fraction(levels, lit(1)),
        rtol=1e-3,
        atol=1e-7,
    )
    leaky = LightPath(Options(grid=(16, 24), macropixel_px=2))
    change = leaky.fraction(levels, shaken) - leaky.fraction(levels, lit(1))
    assert float(change.abs().max()) > 1e-4


@pytest.mark.parametrize("device_seed", [1, 2, 3])
def test_curve_has_the_error_it_should_and_the_overshoot(device_seed: int) -> None:
    curve = phase_curve(Options(device_seed=device_seed))
    u = torch.arange(256, dtype=torch.float64) / 256
    span = 2 * math.pi * 1.03
    error = (curve(u) - span * u) / (2 * math.pi)
    assert float(error.square().mean().sqrt()) == pytest.approx(0.02, rel=1e-6)
    assert float(curve(torch.ones(1))) == pytest.approx(span)
    assert bool((curve(u).diff() > 0).all())


def test_a_curve_that_would_fall_is_refused_with_the_error_that_would_do() -> None:
    def curve(lut_error: float, seed: int) -> None:
        panel = PanelOptions(lut_error=lut_error, lut_overshoot=-0.3)
        phase_curve(Options(device_seed=seed, panel=panel))

    text = (
        r"panel\.lut_error=0\.05, expected less than ([0-9.]+): the phase of specimen"
    )
    refused = 0
    for seed in range(20):
        try:
            curve(0.05, seed)
        except ValueError as error:
            found = re.search(text, str(error))
            assert found is not None
            refused += 1
            curve(float(found[1]) * 0.99, seed)
    assert refused > 0


def test_beam_is_gaussian_and_centred() -> None:
    beam = gaussian((20, 32), 0.5)
    torch.testing.assert_close(beam, beam.flip((0, 1)))
    ratio = float((beam[9, 15] / beam[9, 25]) ** 2)
    assert ratio == pytest.approx(math.exp(2 * (9.5**2 - 0.5**2) / 10**2))


def test_screens_have_their_size_and_belong_to_the_specimen() -> None:
    one = Options(medium=MediumOptions(screen_rad=0.3))
    masks = [kick.mask for kick in kerr_plan(one, 16, torch.complex128).kicks]
    inside = [mask[20:44, 20:44] for mask in masks if mask is not None]
    angles = torch.stack([torch.angle(mask) for mask in inside])
    strong = angles.abs().amax(dim=(1, 2)) > 1e-6
    assert strong.nonzero().flatten().tolist() == [2, 6, 10, 14]
    assert float(angles[strong].std()) == pytest.approx(0.3, rel=0.3)
    other = Options(medium=MediumOptions(screen_rad=0.3), device_seed=2)
    mask = kerr_plan(other, 16, torch.complex128).kicks[2].mask
    assert mask is not None
    assert masks[2] is not None
    assert not torch.equal(mask, masks[2])


def test_screens_are_correlated_over_the_length_they_say() -> None:
    made = MediumOptions(screens=2, screen_rad=0.2, screen_macropixels=1.5)
    options = Options(grid=(128, 192), macropixel_px=4, medium=made)
    masks = [kick.mask for kick in kerr_plan(options, 4, torch.complex128).kicks]
    screens = [torch.angle(mask) for mask in (masks[1], masks[3]) if mask is not None]
    assert len(screens) == 2
    for screen in screens:
        # A Gaussian correlation that has fallen to exp(-1) after the length.
        for axis in (0, 1):
            related = (screen * screen.roll(6, axis)).mean() / screen.square().mean()
            assert float(related) == pytest.approx(math.exp(-1), abs=0.1)
        assert float(screen.std()) == pytest.approx(0.2, rel=1e-3)
    together = (screens[0] * screens[1]).mean() / 0.04
    assert abs(float(together)) < 0.1


def test_same_screens_in_twice_the_steps() -> None:
    options = Options()
    totals = []
    for steps in (16, 32):
        kicks = kerr_plan(options, steps, torch.complex128).kicks
        turns = [torch.angle(k.mask[30, 30]) for k in kicks if k.mask is not None]
        totals.append(torch.stack(turns).sum())
    torch.testing.assert_close(*totals)


def test_one_thread_puts_the_number_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_light_path_is_made_alike_on_any_number_of_threads() -> None:
    # Of so many points two threads add one half each.
    options = Options(grid=(188, 196), macropixel_px=4, precision="complex128")
    field = torch.ones((1, 188, 196), dtype=torch.complex128)
    before = torch.get_num_threads()
    seen = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            seen.append(LightPath(options).seen(field))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_double_precision_agrees_with_single() -> None:
    levels = np.random.default_rng(3).integers(0, 256, (2, 16, 24))
    single, double = (
        LightPath(Options(grid=(16, 24), macropixel_px=2, precision=precision))
        for precision in ("complex64", "complex128")
    )
    a = single.fraction(torch.from_numpy(levels).float(), lit(2)).double()
    b = double.fraction(
        torch.from_numpy(levels).double(), Illumination(torch.ones(2).double())
    )
    assert float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b)) < 1e-5


def test_at_least_four_fifths_of_the_macropixels_are_lit() -> None:
    for grid, side in (((64, 64), 4), ((32, 32), 2)):
        intensity = gaussian(grid, LightOptions().radius).square()
        blocks = intensity.reshape(grid[0] // side, side, grid[1] // side, side)
        mean = blocks.mean(dim=(1, 3))
        assert float((mean > 0.1).double().mean()) >= 0.8


def test_crosstalk_is_in_macropixels() -> None:
    options = Options(macropixel_px=4, panel=PanelOptions(crosstalk_macropixels=0.25))
    assert LightPath(options).sigma_px == 1.0


KINDS: list[dict[str, Any]] = [
    {"kind": "free"},
    {"kind": "kerr"},
    {"kind": "kerr_sat"},
    {"kind": "grin_kerr", "guide": 0.5},
    {"kind": "shg", "kappa": 1.0, "mismatch": 1.0},
    {"kind": "shg", "kappa": 1.0, "mismatch": 1.0, "domains": 8},
    {"kind": "tm_shg", "conversion": 0.2},
    {"kind": "tm_shg", "conversion": 0.2, "transmission": "dense"},
]


def seen(medium: dict[str, Any], power: float = 1.0, **parts: Any) -> torch.Tensor:  # noqa: ANN401 - options of any type
    options = Options(
        grid=(16, 24), macropixel_px=2, medium=MediumOptions(**medium), **parts
    ).effective()
    levels = torch.randint(
        0, 256, (3, 16, 24), generator=torch.Generator().manual_seed(1)
    ).float()
    return LightPath(options).fraction(levels, lit(3, power))


def test_every_medium_is_another_device() -> None:
    pictures = [seen(medium) for medium in KINDS]
    for i, one in enumerate(pictures):
        assert bool(torch.isfinite(one).all())
        for other in pictures[:i]:
            assert float((one - other).abs().max()) > 1e-4 * float(one.max())


@pytest.mark.parametrize("medium", KINDS, ids=lambda medium: str(medium["kind"]))
def test_only_free_space_is_linear_in_the_power(medium: dict[str, Any]) -> None:
    weak, strong = (seen(medium, power) / power for power in (0.5, 1.0))
    change = float((strong - weak).abs().max() / weak.max())
    assert (change < 1e-5) == (medium["kind"] == "free")


def test_the_harmonic_takes_what_the_fundamental_loses() -> None:
    shg = {"kind": "shg", "kappa": 0.5, "edge": 0.0, "steps": 32}
    first, second = (
        seen({**shg, "wave": wave}).sum(dim=(1, 2))
        for wave in ("fundamental", "second")
    )
    torch.testing.assert_close(
        first + second,
        seen({"kind": "free", "edge": 0.0}).sum(dim=(1, 2)),
        rtol=1e-4,
        atol=0,
    )


def test_the_image_is_upright_and_where_the_panel_is() -> None:
    # A lens shows the directions, the image the places: one dark corner of the
    # beam stays in its corner.
    options = replace(
        IDEAL, view="image", medium=MediumOptions(b=0, screens=0, fresnel=0.0, edge=0.0)
    )
    path = LightPath(options)
    picture = path.fraction(torch.zeros(1, 16, 24), lit(1))[0]
    beam = gaussian((16, 24), options.light.radius).square()
    torch.testing.assert_close(
        picture.double(), beam / beam.sum(), rtol=1e-4, atol=1e-8
    )


def test_an_image_moves_with_the_grating_as_far_as_its_angle_takes_it() -> None:
    # A grating of f periods over a window of n points deflects by 2 pi f/n times
    # L/k: fresnel * macropixel^2 grid points along that axis.
    medium = MediumOptions(b=0, screens=0, fresnel=2.0, edge=0.0)
    options = replace(
        IDEAL,
        view="image",
        grid=(32, 48),
        medium=medium,
        light=LightOptions(radius=0.2),
    )
    path = LightPath(options.effective())
    rows = torch.arange(32.0)[:, None].expand(32, 48)
    ramps = torch.stack([torch.zeros(32, 48), rows * 256 * 4 / 32 % 256])
    still, moved = path.fraction(ramps, lit(2))
    y, x = torch.arange(32.0), torch.arange(48.0)
    middles = [
        (float((p.sum(1) * y).sum() / p.sum()), float((p.sum(0) * x).sum() / p.sum()))
        for p in (still, moved)
    ]
    shift = 2 * math.pi * 4 / 32 * 2.0 * 2**2
    assert middles[1][0] - middles[0][0] == pytest.approx(shift, rel=0.02)
    assert middles[1][1] == pytest.approx(middles[0][1], abs=0.01)


@pytest.mark.parametrize("wave", ["fundamental", "second"])
def test_the_scatterer_shows_fully_developed_speckle(wave: str) -> None:
    medium = MediumOptions(kind="tm_shg", conversion=0.1, wave=wave)  # type: ignore[arg-type]  # both are waves
    options = Options(grid=(64, 48), macropixel_px=4, ideal=True, medium=medium)
    path = LightPath(options.effective())
    levels = torch.randint(
        0, 256, (8, 64, 48), generator=torch.Generator().manual_seed(2)
    ).float()
    light = path.fraction(levels, lit(8))
    assert float(light.std() / light.mean()) == pytest.approx(1, abs=0.03)


def test_a_bowed_backplane_adds_the_phase_it_says() -> None:
    made = Options(grid=(32, 48), panel=PanelOptions(curvature_rad=0.5))
    bow = curvature(made, torch.float64)
    assert bow is not None
    assert bow.shape == (32, 48)
    assert float(bow.std(correction=0)) == pytest.approx(0.5)
    assert float(bow.mean()) == pytest.approx(0, abs=1e-9)
    # Smooth: neighbours differ by little.
    assert float(bow.diff(dim=1).abs().max()) < 0.4
    assert curvature(Options(), torch.float64) is None
    levels = torch.full((1, 32, 48), 7.0)
    lit = Illumination(torch.ones(1))
    flat, bowed = (
        LightPath(replace(made, panel=PanelOptions(zero_order=0, curvature_rad=size)))
        for size in (0.0, 0.5)
    )
    turned = bowed.entrance(levels, lit) / flat.entrance(levels, lit)
    np.testing.assert_allclose(
        torch.angle(turned)[0].numpy(), np.angle(np.exp(1j * bow.numpy())), atol=1e-4
    )


def test_an_uneven_panel_shifts_more_at_one_place_than_at_another() -> None:
    options = Options(grid=(24, 36), panel=PanelOptions(lut_unevenness=0.05))
    uneven = unevenness(options, torch.float64)
    assert uneven is not None
    assert float(uneven.mean()) == pytest.approx(1)
    assert float(uneven.std(correction=0)) == pytest.approx(0.05)
    even = replace(options, panel=replace(options.panel, lut_unevenness=0.0))
    assert unevenness(even, torch.float64) is None
    # Level 0 is the same everywhere.
    flat, bent = (
        LightPath(each).entrance(torch.zeros(1, 24, 36), Illumination(torch.ones(1)))
        for each in (even, options)
    )
    assert torch.equal(flat, bent)
