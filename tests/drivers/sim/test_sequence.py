import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from drivers.sim.camera import SimCamera
from drivers.sim.meter import SimMeter
from drivers.sim.sequence import SimSequence
from drivers.sim.slm import SimSLM
from drivers.sim.world import World
from labctl.devices import Played
from labctl.errors import DeviceError, DeviceTimeoutError, FrameError

REGION = (2, 3, 9, 14)
NUMBERS = (
    "pattern_id",
    "checksum",
    "written_s",
    "frame_id",
    "trigger",
    "device_time_s",
    "host_time_s",
    "exposure_start_s",
    "exposure_end_s",
    "power_mw",
)


def joined(parts: list[Played], name: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.concatenate([getattr(p, name) for p in parts])
    return values


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# At 4 ms the panel still moves, at 60 ms it stands.
@pytest.mark.parametrize("settle_s", [0.004, 0.06])
@pytest.mark.parametrize("sizes", [(40,), (1, 7, 17, 15), (33, 7)])
@pytest.mark.parametrize("kernel", ["torch", "fused"])
def test_any_split_gives_the_frames_and_numbers_of_stepping(
    build: Callable[..., Any],
    patterns: Callable[..., Any],
    settle_s: float,
    sizes: tuple[int, ...],
    request: pytest.FixtureRequest,
    kernel: str,
) -> None:
    if kernel == "fused":
        request.getfixturevalue("compiled")
    made = {"kernel": kernel, "grid": [16, 24 if kernel == "torch" else 32]}
    stepped, played = build(**made), build(**made)
    shown = patterns(stepped, 40)
    for lit in (stepped, played):
        lit.camera.configure(exposure_s=0.001, gain_db=3.0, region=REGION)
    frames, numbers = [], []
    parts: list[Played] = []
    start = 0
    for size in sizes:
        batch = shown[start : start + size]
        start += size
        stepped.camera.arm(size)
        for pattern in batch:
            frame, row = stepped.step(pattern, settle_s)
            frames.append(frame)
            numbers.append(row)
        stepped.camera.disarm()
        parts.append(played.sequence.play(batch, settle_s=settle_s))
    assert np.array_equal(joined(parts, "frames"), np.stack(frames))
    for name, column in zip(NUMBERS, zip(*numbers, strict=True), strict=True):
        assert joined(parts, name).tolist() == list(column), name
    assert played.world.clock.now() == stepped.world.clock.now()


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["torch", "fused"])
def test_threads_batches_and_stepping_change_no_bit(
    build: Callable[..., Any],
    patterns: Callable[..., Any],
    threads: Callable[[int], None],
    request: pytest.FixtureRequest,
    kernel: str,
) -> None:
    if kernel == "fused":
        request.getfixturevalue("compiled")
    digests = set()
    for count, size in itertools.product((1, 2), (1, 7, 64, None)):
        threads(count)
        medium = {"steps": 4, "screens": 2}
        lit = build(kernel=kernel, grid=[16, 32], medium=medium)
        lit.camera.configure(exposure_s=0.001, region=REGION)
        shown, digest = patterns(lit, 64), hashlib.sha256()
        for start in range(0, 64, size or 64):
            batch = shown[start : start + (size or 64)]
            if size:
                made = lit.sequence.play(batch, settle_s=0.06).frames
            else:
                lit.camera.arm(64)
                made = np.stack([lit.step(each, 0.06)[0] for each in batch])
                lit.camera.disarm()
            digest.update(made.tobytes())
        assert lit.world.shots == 64
        digests.add(digest.hexdigest())
    assert len(digests) == 1


def test_frames_are_of_the_region_and_differ(
    build: Callable[..., Any],
    patterns: Callable[..., Any],
) -> None:
    lit = build()
    lit.camera.configure(exposure_s=0.001, region=REGION)
    played = lit.sequence.play(patterns(lit, 3), settle_s=0.05)
    assert played.frames.shape == (3, 9, 14)
    assert played.frames.dtype == np.uint16
    assert played.pattern_id.tolist() == [1, 2, 3]
    assert (played.exposure_start_s >= played.written_s + 0.05).all()
    assert not np.array_equal(played.frames[0], played.frames[1])


def test_refuses_devices_of_another_world(
    build: Callable[..., Any],
    tmp_path: Path,
) -> None:
    lit = build()
    other = World(seed=1, beam=tmp_path / "other", grid=[16, 24])
    camera = SimCamera(world=other, clock=other.clock)
    with pytest.raises(TypeError, match="another world"):
        SimSequence(slm=lit.slm, camera=camera, world=lit.world)
    slm = SimSLM(world=other, clock=other.clock)
    with pytest.raises(TypeError, match="another world"):
        SimSequence(slm=slm, camera=lit.camera, world=lit.world)


@pytest.mark.parametrize(
    ("kind", "said", "exposed"),
    [
        ("dropped", "gap", 6),
        ("late", "late", 6),
        ("truncated", "incomplete", 6),
        ("wrong_shape", "wrong_shape", 6),
        ("hung", "timeout", 6),
        ("trigger_refused", "trigger_refused", 4),
        ("removed", "removed", 4),
    ],
)
def test_a_batch_with_a_fault_is_refused_whole_and_says_what_was_exposed(
    kind: str,
    said: str,
    exposed: int,
    build: Callable[..., Any],
    patterns: Callable[..., Any],
) -> None:
    lit = build()
    fault = {"kind": kind, "at_shot": 4, "delay_s": 30.0}
    world = lit.world
    camera = SimCamera(world=world, clock=world.clock, faults=[fault])
    camera.open()
    sequence = SimSequence(slm=lit.slm, camera=camera, world=world)
    with pytest.raises(FrameError) as caught:
        sequence.play(patterns(lit, 6), settle_s=0.01)
    assert (caught.value.kind, caught.value.exposed) == (said, exposed)
    assert world.shots == exposed


def test_an_overtaken_frame_comes_in_the_order_of_its_arrival(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    lit = build()
    fault = {"kind": "reordered", "at_shot": 2}
    world = lit.world
    camera = SimCamera(world=world, clock=world.clock, faults=[fault])
    camera.open()
    sequence = SimSequence(slm=lit.slm, camera=camera, world=world)
    played = sequence.play(patterns(lit, 5), settle_s=0.01)
    assert played.trigger.tolist() == [1, 2, 4, 3, 5]
    assert played.pattern_id.tolist() == sorted(played.pattern_id.tolist())
    assert played.exposure_start_s.argsort().tolist() == [0, 1, 3, 2, 4]


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("silent", DeviceTimeoutError, "meter: reading: no answer within 1"),
        ("garbage", DeviceError, "meter: reading: got"),
    ],
)
def test_a_meter_that_fails_is_named_by_the_exposure_that_it_misses(
    kind: str,
    error: type[DeviceError],
    said: str,
    build: Callable[..., Any],
    patterns: Callable[..., Any],
) -> None:
    lit = build()
    world = lit.world
    fault = {"kind": kind, "at_shot": 4}
    sequence = SimSequence(slm=lit.slm, camera=lit.camera, world=world)
    with SimMeter(world=world, clock=world.clock, faults=[fault]):
        with pytest.raises(error, match=said) as caught:
            sequence.play(patterns(lit, 6), settle_s=0.01)
        assert caught.value.exposed == world.shots == 4
        after = sequence.play(patterns(lit, 2), settle_s=0.01).power_mw
        assert after is not None
        assert len(set(after)) == 2
    # Nobody asks one that is closed.
    assert sequence.play(patterns(lit, 2), settle_s=0.01).power_mw is not None


def test_of_a_meter_that_hangs_a_sequence_brings_no_power(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    lit = build()
    world = lit.world
    fault = {"kind": "no_return", "at_shot": 4}
    sequence = SimSequence(slm=lit.slm, camera=lit.camera, world=world)
    with SimMeter(world=world, clock=world.clock, faults=[fault]):
        assert sequence.play(patterns(lit, 3), settle_s=0.01).power_mw is not None
        assert sequence.play(patterns(lit, 3), settle_s=0.01).power_mw is None
        # It hangs on after the exposure that found it.
        assert sequence.play(patterns(lit, 1), settle_s=0.01).power_mw is None


def test_a_meter_that_repeats_an_old_value_does_so_in_a_sequence(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    lit = build()
    world = lit.world
    fault = {"kind": "frozen", "at_shot": 3, "count": 9}
    sequence = SimSequence(slm=lit.slm, camera=lit.camera, world=world)
    with SimMeter(world=world, clock=world.clock, faults=[fault]):
        power_mw = sequence.play(patterns(lit, 6), settle_s=0.01).power_mw
    assert power_mw is not None
    assert len(set(power_mw[:2])) == 2
    assert len(set(power_mw[1:])) == 1
