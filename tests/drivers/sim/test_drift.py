from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from drivers.sim.drift import Drift, Renewal, Wander
from drivers.sim.noise import Stream
from drivers.sim.options import DriftOptions, Options
from labctl.devices import CameraSettings

FULL = CameraSettings(0.001, 0.0, (0, 0, 16, 24))


def wander(seed: int = 3, tau_s: float = 10.0, count: int = 400) -> Wander:
    return Wander(seed, Stream.ELEMENT_DRIFT, tau_s, count)


@pytest.mark.parametrize("time_s", [0.0, 0.3, 777.7, 43_200.0])
def test_it_has_mean_0_and_variance_1_at_any_time(time_s: float) -> None:
    values = wander(count=4000).at(time_s)
    assert values.mean() == pytest.approx(0, abs=0.06)
    assert values.std() == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("lag_s", [1.0, 5.0, 10.0, 30.0])
def test_it_forgets_as_an_ornstein_uhlenbeck_process(lag_s: float) -> None:
    process = wander(count=4000)
    first, second = process.at(50.0), process.at(50.0 + lag_s)
    expected = np.exp(-lag_s / 10.0)
    assert np.mean(first * second) == pytest.approx(expected, abs=0.05)
    change = np.std(second - first)
    assert change == pytest.approx(np.sqrt(2 * (1 - expected)), rel=0.1)


def test_it_is_a_function_of_time_in_whatever_order_it_is_read() -> None:
    times = [90.0, 0.1, 45.0, 45.01, 90.0]
    forwards = {time_s: wander().at(time_s) for time_s in times}
    process = wander()
    for time_s in times:
        assert np.array_equal(process.at(time_s), forwards[time_s])
    assert not np.array_equal(wander(seed=4).at(45.0), forwards[45.0])


def renewal(change: float = 0.3, seed: int = 3) -> Renewal:
    first = np.random.default_rng(1).standard_normal((40, 50))
    return Renewal(first, change, 2.0, seed)


@pytest.mark.parametrize("change", [0.02, 0.3])
@pytest.mark.parametrize("nodes", [1, 7, 100, 4097])
def test_disorder_decorrelates_by_what_it_says_in_each_period(
    change: float, nodes: int
) -> None:
    process = renewal(change)
    first, later = (process.at(process.part(2.0 * at)) for at in (0, nodes))
    assert later.std() == pytest.approx(1, abs=0.05)
    kept = (1 - change**2) ** (nodes / 2)
    assert np.mean(first * later) == pytest.approx(kept, abs=0.07)
    if nodes == 1:
        taken = later - np.sqrt(1 - change**2) * first
        assert taken.std() == pytest.approx(change, rel=0.05)
        assert abs(np.corrcoef(taken.ravel(), first.ravel())[0, 1]) < 0.07


def test_disorder_between_two_late_moments_decorrelates_as_from_the_start() -> None:
    process = renewal(0.3)
    early, late = (process.at(process.part(2.0 * at)) for at in (1001, 1008))
    assert np.mean(early * late) == pytest.approx(0.91**3.5, abs=0.07)


def test_disorder_is_a_function_of_time_in_whatever_order_it_is_read() -> None:
    times = [0.0, 9.3, 2.0, 2.06, 300.0, 9.3]
    forwards = {time_s: renewal().at(renewal().part(time_s)) for time_s in times}
    process = renewal()
    for time_s in times:
        assert np.array_equal(process.at(process.part(time_s)), forwards[time_s])
    assert not np.array_equal(forwards[2.0], forwards[300.0])
    other = renewal(seed=4)
    assert np.array_equal(other.at(0), forwards[0.0])
    assert not np.array_equal(other.at(other.part(9.3)), forwards[9.3])


def test_within_a_period_disorder_goes_straight_and_keeps_its_size() -> None:
    process = renewal(0.9)
    half = process.at(8)
    assert half.std() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(half.ravel(), process.at(0).ravel())[0, 1] > 0.7


def test_without_options_nothing_drifts() -> None:
    drifted = Drift(Options(), seed=3).at(5000.0)
    assert (drifted.power, drifted.strength, drifted.element_rad) == (1, 1, None)
    assert drifted.sensor_k == 0
    assert not drifted.tilt_px.any()


def test_each_drift_has_the_size_it_says() -> None:
    made = DriftOptions(
        power=0.01,
        power_s=1.0,
        pointing_px=0.2,
        pointing_s=1.0,
        medium=0.02,
        medium_s=1.0,
        element_rad=0.3,
        element_s=1.0,
        sensor_k=0.5,
        sensor_s=1.0,
    )
    drift = Drift(Options(grid=(32, 48), drift=made), seed=3)
    some = [drift.at(4.0 * k) for k in range(500)]
    assert np.std([each.power for each in some]) == pytest.approx(0.01, rel=0.1)
    assert np.std([each.tilt_px for each in some]) == pytest.approx(0.2, rel=0.1)
    assert np.std([each.strength for each in some]) == pytest.approx(0.02, rel=0.1)
    assert np.std([each.sensor_k for each in some]) == pytest.approx(0.5, rel=0.1)
    elements = np.array([each.element_rad for each in some[:40]])
    assert elements.shape == (40, 8, 12)
    assert elements.std() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("tau_s", [2.0, 20.0])
@pytest.mark.parametrize(
    "name", ["power", "pointing_px", "medium", "element_rad", "sensor_k"]
)
def test_each_drift_forgets_in_the_time_it_says(name: str, tau_s: float) -> None:
    forgets = name.split("_")[0] + "_s"
    made = DriftOptions(**{name: 0.1, forgets: tau_s})
    drift = Drift(Options(grid=(8, 12), drift=made), seed=3)
    field = {
        "power": "power",
        "pointing_px": "tilt_px",
        "medium": "strength",
        "element_rad": "element_rad",
        "sensor_k": "sensor_k",
    }[name]

    def read(time_s: float) -> Any:  # noqa: ANN401 - a number or an array
        return getattr(drift.at(time_s), field)

    # Far enough apart to be independent.
    starts = [8 * tau_s * k for k in range(400)]
    early, late = (
        np.array([read(start + lag) for start in starts], dtype=float).ravel()
        for lag in (0.0, tau_s)
    )
    assert np.corrcoef(early, late)[0, 1] == pytest.approx(np.exp(-1), abs=0.13)
    if name == "pointing_px":
        rows, columns = early.reshape(-1, 2).T
        assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.13


def test_element_drift_of_the_drift_regime_is_a_third_of_a_radian_in_10000_shots() -> (
    None
):
    # A shot of sim takes 52 ms.
    made = DriftOptions(element_rad=0.3, element_s=750.0)
    drift = Drift(Options(drift=made), seed=3)
    before, after = drift.at(100.0).element_rad, drift.at(100.0 + 520.0).element_rad
    assert before is not None
    assert after is not None
    assert np.std(after - before) == pytest.approx(0.3, rel=0.12)


@pytest.mark.parametrize(
    "drift",
    [
        {"power": 0.05, "power_s": 5.0},
        {"pointing_px": 1.0, "pointing_s": 5.0},
        {"medium": 0.1, "medium_s": 5.0},
        {"element_rad": 0.3, "element_s": 5.0},
        {"speckle": 0.9, "speckle_s": 30.0},
    ],
)
def test_drift_reaches_the_frame(
    drift: dict[str, float], build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    still = {"read_noise_e": 0.0, "shot_noise": False, "photons_per_s": 1e8}
    quiet = {"light": {"power_noise": 0.0, "pointing_px": 0.0}, "sensor": still}
    lit = build(**quiet, drift=drift, panel={"flicker_rad": 0.0})
    lit.world.show(patterns(lit, 1)[0])
    lit.world.clock.sleep(1.0)
    early, soon = (lit.world.render([lit.world.expose(FULL)])[0] for _ in range(2))
    lit.world.clock.sleep(20.0)
    late = lit.world.render([lit.world.expose(FULL)])[0]
    assert np.array_equal(early, soon)
    assert np.mean(late != early) > 0.2


def test_a_drifting_medium_loses_no_light(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    lit = build(
        ideal=False,
        light={"power_noise": 0.0, "pointing_px": 0.0},
        medium={"edge": 0.0, "steps": 8, "screens": 4},
        sensor={"read_noise_e": 0.0, "shot_noise": False, "photons_per_s": 1e8},
        panel={"flicker_rad": 0.0},
        drift={"medium": 0.1, "medium_s": 1.0},
    )
    lit.world.show(patterns(lit, 1)[0])
    sums = []
    for _ in range(6):
        lit.world.clock.sleep(10.0)
        sums.append(float(lit.world.render([lit.world.expose(FULL)]).sum()))
    assert np.std(sums) < 0.01 * np.mean(sums)


def test_a_resumed_world_drifts_on(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    drift = {"element_rad": 0.3, "element_s": 0.5, "power": 0.02, "power_s": 0.2}
    lit, other = build(seed=5, drift=drift), build(seed=5, drift=drift)
    shown = patterns(lit, 8)
    lit.sequence.play(shown[:5], settle_s=0.1)
    other.world.restore(lit.world.state())
    ends = [bench.sequence.play(shown[5:], settle_s=0.1) for bench in (lit, other)]
    assert np.array_equal(ends[0].frames, ends[1].frames)


@pytest.mark.parametrize(
    "medium",
    [
        {"steps": 8, "screens": 4, "screen_rad": 0.3},
        {"kind": "shg", "kappa": 1.0, "steps": 8, "screens": 4, "screen_rad": 0.3},
        {"kind": "tm_shg", "conversion": 0.2},
        {"kind": "tm_shg", "conversion": 0.2, "transmission": "dense"},
    ],
    ids=["screens", "harmonic", "structured", "dense"],
)
def test_speckle_starts_as_the_specimen_and_drifts_whatever_the_batch(
    medium: dict[str, Any], build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    dense = "transmission" in medium
    steady: dict[str, Any] = {"grid": [8, 12] if dense else [16, 24]}
    steady["light"] = {"power_noise": 0.0, "pointing_px": 0.0}
    steady["sensor"] = {"photons_per_s": 1e9, "shot_noise": False, "read_noise_e": 0.0}
    steady["panel"] = {"flicker_rad": 0.0}
    drift = {"speckle": 0.6, "speckle_s": 1.6}
    lit = build(**steady, medium=medium, drift=drift)
    other = build(**steady, medium=medium, drift=drift)
    still = build(**steady, medium=medium)
    shown = np.stack([patterns(lit, 1)[0]] * 12)
    frames = lit.sequence.play(shown, settle_s=0.09).frames.astype(float)
    fixed = still.sequence.play(shown, settle_s=0.09).frames.astype(float)
    assert np.abs(frames[0] - fixed[0]).max() <= 1
    assert np.ptp(fixed, axis=0).max() <= 30  # what is left of the panel's step
    moved = [np.linalg.norm(each - fixed[0]) for each in frames]
    assert moved[0] < moved[3] < moved[7] < moved[11]
    other.sequence.play(shown[:5], settle_s=0.09)
    third = build(**steady, medium=medium, drift=drift)
    third.world.restore(other.world.state())
    resumed = third.sequence.play(shown[5:], settle_s=0.09).frames
    assert np.array_equal(resumed, frames[5:])
