import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from drivers.sim.camera import SimCamera
from drivers.sim.clock import VirtualClock
from labctl.errors import FrameError, OutOfRangeError
from labctl.identity import Counter


def test_a_frame_arrives_after_exposure_and_readout(build: Callable[..., Any]) -> None:
    lit = build()
    lit.camera.configure(exposure_s=0.01)
    lit.camera.arm(1)
    start = lit.world.clock.now()
    lit.camera.trigger()
    assert lit.world.clock.now() == start
    frame = lit.camera.frame(1.0)
    assert frame.exposure_start_s == frame.device_time_s == start
    assert frame.exposure_end_s == pytest.approx(start + 0.01)
    assert frame.host_time_s == lit.world.clock.now() == pytest.approx(start + 0.011)


def test_an_exposure_is_over_before_its_frame_is_read_out(
    build: Callable[..., Any],
) -> None:
    world = build().world
    camera = SimCamera(world=world, clock=world.clock, tells_exposure_end=True)
    camera.open()
    camera.configure(exposure_s=0.01)
    camera.arm(2)
    with pytest.raises(FrameError, match=r"no exposure ended within 1\.0"):
        camera.wait_exposed(1.0)
    for _ in range(2):
        start = world.clock.now()
        camera.trigger()
        with pytest.raises(FrameError, match=r"no exposure ended within 0\.004"):
            camera.wait_exposed(0.004)
        camera.wait_exposed(1.0)
        over = world.clock.now()
        assert over == pytest.approx(start + 0.01)
        camera.wait_exposed(1.0)  # it stays over
        assert world.clock.now() == over
        frame = camera.frame(1.0)
        assert frame.exposure_end_s == pytest.approx(over)
        assert frame.host_time_s == pytest.approx(over + 0.001)
    camera.disarm()
    with pytest.raises(FrameError, match="no exposure ended"):
        camera.wait_exposed(0.1)


def test_a_frame_that_is_still_exposed_times_out_and_can_be_had_later(
    build: Callable[..., Any],
) -> None:
    lit = build()
    lit.camera.configure(exposure_s=0.01)
    lit.camera.arm(1)
    lit.camera.trigger()
    with pytest.raises(FrameError, match=r"no frame within 0\.002 s, still exposing"):
        lit.camera.frame(0.002)
    assert lit.camera.frame(0.02).trigger == 1


def test_a_trigger_during_an_exposure_waits_for_it(build: Callable[..., Any]) -> None:
    lit = build()
    lit.camera.configure(exposure_s=0.01)
    lit.camera.arm(3)
    for _ in range(3):
        lit.camera.trigger()
    frames = [lit.camera.frame(1.0) for _ in range(3)]
    assert [frame.trigger for frame in frames] == [1, 2, 3]
    for earlier, later in itertools.pairwise(frames):
        assert later.exposure_start_s >= earlier.exposure_end_s + 0.001 - 1e-12


def test_region_and_gain_act_on_the_frame(build: Callable[..., Any]) -> None:
    lit = build(ideal=True, sensor={"photons_per_s": 1e8})
    frames = {}
    taken: dict[str, dict[str, Any]] = {
        "full": {},
        "part": {"region": (2, 5, 9, 14)},
        "gain": {"gain_db": 6.0},
        "long": {"exposure_s": 0.002},
    }
    for name, options in taken.items():
        lit.camera.configure(**({"exposure_s": 0.001} | options))
        lit.camera.arm(1)
        lit.camera.trigger()
        frames[name] = lit.camera.frame(1.0).data.astype(float)
        lit.camera.disarm()
    assert np.array_equal(frames["part"], frames["full"][2:11, 5:19])
    bright = frames["full"] > 1000
    bright &= frames["full"] < 20_000
    assert frames["gain"][bright] / frames["full"][bright] == pytest.approx(
        1.995, rel=2e-3
    )
    assert frames["long"][bright] / frames["full"][bright] == pytest.approx(2, rel=2e-3)


def test_a_binned_camera_has_fewer_larger_pixels_that_hold_the_same_light(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    fine, coarse = (
        build(ideal=True, sensor={"photons_per_s": 1e7, "binning": side})
        for side in (1, 2)
    )
    assert coarse.camera.shape == (8, 12)
    assert coarse.camera.pixel_um == 2 * fine.camera.pixel_um
    pattern = patterns(fine, 1)[0]
    coarse.camera.configure(exposure_s=0.001, region=(1, 2, 6, 9))
    fine.camera.configure(exposure_s=0.001, region=(2, 4, 12, 18))
    frames = []
    for lit in (fine, coarse):
        lit.camera.arm(1)
        frames.append(lit.step(pattern, 0.5)[0].astype(float))
        lit.camera.disarm()
    squares = frames[0].reshape(6, 2, 9, 2).sum(axis=(1, 3))
    np.testing.assert_allclose(frames[1], squares, atol=2.5)
    gradient = coarse.oracle.gradient(pattern[None], np.ones((1, 6, 9)), power_mw=5.0)
    np.testing.assert_allclose(
        gradient,
        fine.oracle.gradient(pattern[None], np.ones((1, 12, 18)), power_mw=5.0),
        rtol=1e-3,
        atol=1e-3,
    )


def test_saturation_follows_the_gain(build: Callable[..., Any]) -> None:
    camera = build().camera
    camera.configure(exposure_s=0.001)
    assert camera.saturation_dn == 60_100
    camera.configure(exposure_s=0.001, gain_db=6.0)
    assert camera.saturation_dn == 65_535


def test_refuses_a_strange_clock_and_pixel(build: Callable[..., Any]) -> None:
    world = build().world
    with pytest.raises(ValueError, match="another clock"):
        SimCamera(world=world, clock=VirtualClock())
    with pytest.raises(ValueError, match="pixel_um=-1, expected a number"):
        SimCamera(world=world, clock=world.clock, pixel_um=-1)


def test_a_short_counter_goes_from_65535_to_1(build: Callable[..., Any]) -> None:
    world = build().world
    camera = SimCamera(world=world, clock=world.clock, frame_id_bits=16)
    assert camera.frame_id_modulus == 65_535
    with camera:
        world.restore(world.state() | {"frames": 65_533})
        camera.arm(4)
        ids = []
        for _ in range(4):
            camera.trigger()
            ids.append(camera.frame(1.0).frame_id)
    assert ids == [65_534, 65_535, 1, 2]
    counter = Counter(1, ids[0], camera.frame_id_modulus)
    assert [counter.triggers(each) for each in ids] == [0, 1, 2, 3]


def test_its_own_clock_starts_elsewhere_and_goes_at_its_own_pace(
    build: Callable[..., Any],
) -> None:
    world = build().world
    camera = SimCamera(
        world=world, clock=world.clock, clock_offset_s=50.0, clock_ppm=100.0
    )
    with camera:
        frames = []
        for _ in range(2):
            camera.arm(1)
            camera.trigger()
            frames.append(camera.frame(1.0))
            world.clock.sleep(1000.0)
    device_s = frames[1].device_time_s - frames[0].device_time_s
    bench_s = frames[1].exposure_start_s - frames[0].exposure_start_s
    assert device_s == pytest.approx(bench_s * (1 + 1e-4), rel=1e-9)
    assert frames[0].device_time_s == pytest.approx(
        50 + frames[0].exposure_start_s * (1 + 1e-4)
    )
    assert frames[0].time_error_s < 1e-6, "it was read at arming"


@pytest.mark.parametrize("waits_s", [0.0, 0.3, 1e4])
@pytest.mark.parametrize(
    ("offset_s", "ppm"),
    [(0.0, 0.0), (50.0, 0.0), (-1e9, 0.0), (0.0, 80.0), (1e6, -80.0), (-3.0, 1e4)],
)
def test_times_by_another_clock_come_with_how_wrong_they_may_be(
    build: Callable[..., Any], offset_s: float, ppm: float, waits_s: float
) -> None:
    world = build().world
    world.clock.sleep(7.3)
    options: dict[str, Any] = {"clock_offset_s": offset_s, "clock_ppm": ppm}
    camera = SimCamera(world=world, clock=world.clock, **options)
    with camera:
        camera.configure(exposure_s=0.01)
        camera.arm(1)
        world.clock.sleep(waits_s)
        promised_s, starts_s = camera.time_error_s, world.clock.now()
        camera.trigger()
        frame = camera.frame(1.0)
    assert (frame.time_error_s == 0) == (offset_s == ppm == 0)
    assert (
        frame.time_error_s <= promised_s <= 1.03e-6 * abs(ppm) * (waits_s + 0.1) + 1e-6
    )
    for told_s, true_s in (
        (frame.exposure_start_s, starts_s),
        (frame.exposure_end_s, starts_s + 0.01),
    ):
        assert abs(told_s - true_s) <= frame.time_error_s
        # By the camera's own clock it is told, and no other.
        assert abs(told_s - true_s) >= 0.9e-6 * abs(ppm) * waits_s - 1e-6


def faulty(lit: Any, kind: str, shot: int = 0, **more: float) -> SimCamera:  # noqa: ANN401 - Lit
    fault = {"kind": kind, "at_shot": lit.world.shots + shot, **more}
    camera = SimCamera(world=lit.world, clock=lit.world.clock, faults=[fault])
    camera.open()
    camera.arm(4)
    return camera


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("dropped", "gap"),
        ("hung", "timeout"),
        ("late", "late"),
        ("reordered", "late"),
    ],
)
def test_a_frame_that_does_not_come_is_waited_for_and_then_has_a_class(
    kind: str, said: str, build: Callable[..., Any]
) -> None:
    lit = build()
    camera, before = faulty(lit, kind, delay_s=2.0), lit.world.clock.now()
    camera.trigger()
    with pytest.raises(FrameError) as caught:
        camera.frame(0.5)
    assert caught.value.kind == said
    assert lit.world.clock.now() == pytest.approx(before + 0.5)


def test_frames_come_twice_late_broken_or_overtaken(build: Callable[..., Any]) -> None:
    lit = build()
    came: dict[str, list[Any]] = {}
    for kind in ("duplicated", "late", "reordered", "truncated", "wrong_shape"):
        camera = faulty(lit, kind, delay_s=0.01)
        came[kind] = []
        for _ in range(2):
            camera.trigger()
        for _ in range(2):
            came[kind].append(camera.frame(1.0))
    assert [frame.trigger for frame in came["duplicated"]] == [1, 1]
    assert [frame.trigger for frame in came["late"]] == [2, 1]
    assert [frame.trigger for frame in came["reordered"]] == [2, 1]
    assert [frame.data.shape for frame in came["truncated"]] == [(8, 24), (16, 24)]
    assert [frame.data.shape for frame in came["wrong_shape"]] == [(0, 24), (16, 24)]


def test_what_is_late_outlives_an_arming_and_counts_from_before(
    build: Callable[..., Any],
) -> None:
    lit = build()
    camera = faulty(lit, "late", delay_s=0.2)
    camera.trigger()
    camera.arm(1)
    lit.world.clock.sleep(0.195)
    camera.trigger()
    assert [camera.frame(1.0).trigger for _ in range(2)] in ([1, 0], [0, 1])


def test_a_refused_trigger_exposes_nothing(build: Callable[..., Any]) -> None:
    lit = build()
    camera = faulty(lit, "trigger_refused", shot=1)
    camera.trigger()
    for _ in range(2):
        with pytest.raises(FrameError) as caught:
            camera.trigger()
        assert caught.value.kind == "trigger_refused"
    assert lit.world.shots == 1


def test_a_camera_that_is_gone_stays_gone(build: Callable[..., Any]) -> None:
    lit = build()
    camera = faulty(lit, "removed", shot=1)
    camera.trigger()
    actions: list[Callable[[], object]] = [
        camera.trigger,
        lambda: camera.frame(1.0),
        lambda: camera.arm(1),
    ]
    for action in actions:
        with pytest.raises(FrameError) as caught:
            action()
        assert caught.value.kind == "removed"
    camera.close()


PERIOD_S = 0.05


def runs_freely(lit: Any, **more: Any) -> SimCamera:  # noqa: ANN401 - Lit, options
    camera = SimCamera(
        world=lit.world, clock=lit.world.clock, free_running_s=PERIOD_S, **more
    )
    lit.camera.close()
    camera.open()
    camera.configure(exposure_s=0.02)
    camera.arm(10_000)
    return camera


def drain(camera: SimCamera) -> None:
    with contextlib.suppress(FrameError):
        while True:
            camera.frame(0.0)


def stale_after(
    strategy: str,
    lit: Any,  # noqa: ANN401 - Lit
    shown: Any,  # noqa: ANN401 - levels
    count: int,
) -> int:
    """Show patterns at odd moments, and count the frames of older ones."""
    triggered = strategy == "trigger"
    camera = lit.camera if triggered else runs_freely(lit)
    source = np.random.default_rng(5)
    lit.world.clock.sleep(2.0)
    stale = 0
    for turn in range(count):
        lit.world.clock.sleep(0.03 + float(source.random()) * PERIOD_S)
        written = lit.slm.write(shown[turn % len(shown)])
        if strategy in {"drain", "discard"}:
            drain(camera)
        if strategy == "discard":
            camera.frame(1.0)
        if triggered:
            camera.arm(1)
            camera.trigger()
        frame = camera.frame(1.0)
        stale += frame.exposure_start_s < written.written_s
    return stale


@pytest.mark.parametrize(
    ("strategy", "count", "least", "most"),
    [
        # Of a real camera at 20 frames a second: 200 of 200, 7 to 42 of 100,
        # 0 of 100, 0 of 200.
        ("next", 200, 200, 200),
        ("drain", 100, 7, 42),
        ("discard", 100, 0, 0),
        ("trigger", 200, 0, 0),
    ],
)
def test_a_free_running_camera_delivers_as_stale_as_a_real_one(
    strategy: str,
    count: int,
    least: int,
    most: int,
    build: Callable[..., Any],
    patterns: Callable[..., Any],
) -> None:
    lit = build(ideal=True)
    assert least <= stale_after(strategy, lit, patterns(lit, 5), count) <= most


def test_a_frame_that_ran_by_itself_shows_what_was_there(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    lit = build(ideal=True, sensor={"photons_per_s": 1e8})
    first, second = patterns(lit, 2)
    lit.camera.configure(exposure_s=0.02)
    settled = []
    for pattern in (first, second):
        lit.slm.write(pattern)
        lit.camera.arm(1)
        lit.camera.trigger()
        settled.append(lit.camera.frame(1.0).data)
    lit.slm.write(first)
    camera = runs_freely(lit, buffers=3)
    lit.world.clock.sleep(0.03)
    lit.slm.write(second)
    lit.world.clock.sleep(1.0)
    frames = [camera.frame(1.0) for _ in range(4)]
    assert np.array_equal(frames[0].data, settled[0])
    assert np.array_equal(frames[1].data, settled[1])
    # Three buffers were full for a second; the counter tells what was lost.
    assert [frame.frame_id for frame in frames[:3]] == [1, 2, 3]
    assert frames[3].frame_id > 15


def test_a_free_running_camera_takes_no_trigger(build: Callable[..., Any]) -> None:
    lit = build()
    camera = runs_freely(lit)
    with pytest.raises(FrameError, match="it runs freely") as caught:
        camera.trigger()
    assert caught.value.kind == "trigger_refused"
    camera.disarm()
    camera.configure(exposure_s=0.06)
    with pytest.raises(OutOfRangeError, match=r"free_running_s=0\.05, expected 0\.061"):
        camera.arm(1)
