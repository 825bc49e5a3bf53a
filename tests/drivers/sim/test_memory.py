"""A photorefractive medium: what a frame shows depends on the frames before."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from drivers.sim.camera import SimCamera
from drivers.sim.memory import Memory
from drivers.sim.options import MediumOptions, Options
from labctl.devices import CameraSettings

FULL = CameraSettings(0.001, 0.0, (0, 0, 16, 24))
REMEMBERS: dict[str, Any] = {
    "medium": {"steps": 8, "screens": 4, "memory_rad": 3.0, "memory_s": 0.2},
    "light": {"power_noise": 0.0, "pointing_px": 0.0},
    "panel": {"flicker_rad": 0.0},
    "sensor": {"photons_per_s": 1e8, "read_noise_e": 0.0, "shot_noise": False},
}


def test_a_frame_shows_what_was_there_before(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    shown = patterns(build(), 3)
    lasts = []
    for first in shown[:2]:
        lit = build(**REMEMBERS)
        lit.sequence.play(np.stack([first] * 8), settle_s=0.05)
        lasts.append(lit.sequence.play(shown[2:], settle_s=0.05).frames[0])
    assert np.mean(lasts[0] != lasts[1]) > 0.5
    forgetful = REMEMBERS | {"medium": {"steps": 8, "screens": 4}}
    lits = [build(**forgetful) for _ in range(2)]
    for lit, first in zip(lits, shown[:2], strict=True):
        lit.sequence.play(np.stack([first] * 8), settle_s=0.2)
    ends = [lit.sequence.play(shown[2:], settle_s=0.2).frames[0] for lit in lits]
    assert np.mean(ends[0] != ends[1]) < 0.05


def test_the_index_follows_the_light_in_its_time_and_fades_in_the_dark(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    lit = build(**REMEMBERS)
    lit.sequence.play(patterns(lit, 1), settle_s=2.0)
    states = [lit.world.state()]
    assert float(states[0]["written"].max()) > 0.3
    lit.laser.emission(on=False)
    for _ in range(2):
        lit.world.clock.sleep(0.2 - FULL.exposure_s)
        lit.world.expose(FULL)
        lit.world.clock.sleep(FULL.exposure_s)
        states.append(lit.world.state())
    for before, after in itertools.pairwise(states):
        dark_s = after["lit_until_s"] - before["lit_until_s"]
        assert dark_s == pytest.approx(0.2, abs=0.0011)
        left = before["written"] * np.exp(-dark_s / 0.2)
        np.testing.assert_allclose(after["written"], left, rtol=1e-4, atol=1e-7)


def test_no_split_into_batches_changes_a_bit(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    shown = patterns(build(), 9)
    drift = {"speckle": 0.5, "speckle_s": 0.3}
    whole, split, stepped = (build(**REMEMBERS, drift=drift) for _ in range(3))
    frames = whole.sequence.play(shown, settle_s=0.05).frames
    parts = [
        split.sequence.play(part, settle_s=0.05).frames
        for part in (shown[:1], shown[1:7], shown[7:])
    ]
    assert np.array_equal(frames, np.concatenate(parts))
    stepped.camera.arm(len(shown))
    singles = [stepped.step(pattern, 0.05)[0] for pattern in shown]
    assert np.array_equal(frames, np.stack(singles))


def test_a_resumed_medium_remembers(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    lit, other = (build(**REMEMBERS) for _ in range(2))
    shown = patterns(lit, 8)
    lit.sequence.play(shown[:5], settle_s=0.05)
    other.world.restore(lit.world.state())
    ends = [bench.sequence.play(shown[5:], settle_s=0.05) for bench in (lit, other)]
    assert np.array_equal(ends[0].frames, ends[1].frames)
    a, b = lit.world.state(), other.world.state()
    assert np.array_equal(a["written"], b["written"])
    assert a["lit_until_s"] == b["lit_until_s"]


def test_a_frame_that_nobody_fetched_has_still_exposed_the_medium(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    lit, other = (build(**REMEMBERS) for _ in range(2))
    shown = patterns(lit, 2)
    lit.sequence.play(shown[:1], settle_s=0.05)
    fault = {"kind": "dropped", "at_shot": 0}
    camera = SimCamera(world=other.world, clock=other.world.clock, faults=[fault])
    camera.open()
    camera.arm(1)
    other.slm.write(shown[0])
    other.world.clock.sleep(0.05)
    camera.trigger()
    other.world.clock.sleep(0.002)
    written = [bench.world.state()["written"] for bench in (lit, other)]
    assert np.array_equal(*written)
    assert written[0].any()


def test_many_frames_that_nobody_fetches_do_not_pile_up(
    build: Callable[..., Any],
) -> None:
    lit = build(**REMEMBERS)
    for _ in range(100):
        lit.world.expose(FULL)
        lit.world.clock.sleep(0.01)
    memory = lit.world._memory
    assert memory is not None
    assert len(memory._waiting) <= 64
    lit.world.state()
    assert memory._waiting == []


def test_a_state_of_another_medium_is_refused() -> None:
    options = Options(grid=(16, 24), medium=MediumOptions(memory_rad=1.0))
    memory: Memory[Any] = Memory(options, torch.float32, lambda *_: (_[1], _[1]))
    with pytest.raises(ValueError, match=r"written of shape \(3, 16, 24\), expected"):
        memory.restore({"written": np.zeros((3, 16, 24))})
