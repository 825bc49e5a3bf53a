from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from labctl.errors import OutOfRangeError

MEDIA: list[dict[str, Any]] = [
    {"kind": "kerr_sat", "loss": 0.2, "bleaching": True},
    {"kind": "free"},
    {"kind": "kerr", "b": -2.0},
    {"kind": "grin_kerr", "guide": 0.5},
    {"kind": "shg", "kappa": 1.0, "mismatch": 1.0},
    {"kind": "tm_shg", "conversion": 0.2},
    {"kind": "tm_shg", "conversion": 0.2, "transmission": "dense"},
]


@pytest.mark.parametrize("view", ["far_field", "image"])
@pytest.mark.parametrize("medium", MEDIA, ids=lambda medium: str(medium["kind"]))
def test_gradient_agrees_with_finite_differences_of_mean_frames(
    build: Callable[..., Any],
    patterns: Callable[..., Any],
    medium: dict[str, Any],
    view: str,
) -> None:
    lit = build(
        precision="complex128", medium={"steps": 8, "screens": 4, **medium}, view=view
    )
    settings = lit.camera.configure(exposure_s=0.001, gain_db=2.0, region=(2, 3, 9, 14))
    levels = patterns(lit, 2)
    source = np.random.default_rng(3)
    cotangent = source.standard_normal((2, 9, 14))
    direction = source.standard_normal(levels.shape)
    gradient = lit.oracle.gradient(levels, cotangent, power_mw=4.0)
    assert gradient.shape == levels.shape
    h = 1e-4
    shown = torch.from_numpy(levels.astype(float))
    step = h * torch.from_numpy(direction)
    with torch.no_grad():
        up, down = (
            lit.oracle.mean_counts(shown + sign * step, settings, 4.0).numpy()
            for sign in (1, -1)
        )
    slope = float((cotangent * (up - down)).sum() / (2 * h))
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-5)


def test_gradient_of_a_batch_is_that_of_its_patterns(
    build: Callable[..., Any],
    patterns: Callable[..., Any],
) -> None:
    lit = build()
    levels = patterns(lit, 19)
    cotangent = np.random.default_rng(4).standard_normal((19, 16, 24))
    whole = lit.oracle.gradient(levels, cotangent, power_mw=5.0)
    single = [
        lit.oracle.gradient(levels[i : i + 1], cotangent[i : i + 1], power_mw=5.0)[0]
        for i in (0, 11, 18)
    ]
    np.testing.assert_allclose(whole[[0, 11, 18]], single, rtol=1e-3, atol=1e-3)


def test_costs_no_shot_no_time_and_no_light(
    build: Callable[..., Any],
    patterns: Callable[..., Any],
) -> None:
    lit = build()
    lit.laser.emission(on=False)
    before = (lit.world.shots, lit.world.clock.now())
    gradient = lit.oracle.gradient(patterns(lit, 1), np.ones((1, 16, 24)), power_mw=5.0)
    assert np.abs(gradient).max() > 0
    assert (lit.world.shots, lit.world.clock.now()) == before


@pytest.mark.parametrize("binning", [1, 2])
def test_mean_frames_are_what_the_camera_sees_on_average(
    build: Callable[..., Any], patterns: Callable[..., Any], binning: int
) -> None:
    lit = build(
        light={"power_noise": 0.0, "pointing_px": 0.0},
        panel={"flicker_rad": 0.0},
        sensor={"photons_per_s": 5e6 / binning**2, "binning": binning},
    )
    pattern = patterns(lit, 1)[0]
    lit.world.show(pattern)
    lit.world.clock.sleep(0.5)
    settings = lit.camera.taken
    shots = [lit.world.expose(settings) for _ in range(200)]
    seen = lit.world.render(shots).astype(float).mean(axis=0)
    with torch.no_grad():
        want = lit.oracle.mean_counts(
            torch.from_numpy(pattern[None]).float(), settings, 5.0
        )[0].numpy()
    spread = 4 * np.sqrt((want - 100).clip(min=0) / 4 + 1)
    assert (np.abs(seen - want) < 6 * spread / np.sqrt(200)).all()


def test_refuses_a_cotangent_of_another_region_and_a_negative_power(
    build: Callable[..., Any],
    patterns: Callable[..., Any],
) -> None:
    lit = build()
    levels = patterns(lit, 1)
    with pytest.raises(OutOfRangeError, match="cotangent shape"):
        lit.oracle.gradient(levels, np.ones((1, 24, 16)), power_mw=5.0)
    with pytest.raises(OutOfRangeError, match="power_mw=-1"):
        lit.oracle.gradient(levels, np.ones((1, 16, 24)), power_mw=-1)
    with pytest.raises(OutOfRangeError, match="shape"):
        lit.oracle.gradient(levels[0], np.ones((1, 16, 24)), power_mw=5.0)
