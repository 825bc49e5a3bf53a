"""Patterns have the phase that was asked for; a medium that bends is found out."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import override

from labctl.calibrate import patterns
from labctl.calibrate.execute import Outcome
from labctl.calibrate.patterns import LINEAR, _distance, _Seen
from labctl.calibrate.stand import Stand
from labctl.devices import Levels
from labctl.errors import OutcomeError

Array = NDArray[np.float64]
MakeBench = Callable[..., Path]
Calibrate = Callable[..., Outcome]
Known = Callable[..., None]


def test_frames_that_are_alike_within_noise_are_no_distance_apart() -> None:
    rng = np.random.default_rng(1)
    mean = rng.exponential(20.0, (3, 400))
    variance = np.full_like(mean, 0.25)

    def seen(scale: float) -> _Seen:
        noisy = mean * scale + 0.5 * rng.standard_normal(mean.shape)
        return _Seen(1.0, noisy, variance, 10)

    for _ in range(20):
        gap, error = _distance(seen(1.0), seen(1.0))
        assert gap < 3 * error < 3 * LINEAR
    apart, _ = _distance(seen(1.0), seen(1.2))
    assert apart == pytest.approx(0.2 / math.sqrt(1.2), abs=0.02)


@pytest.mark.slow
def test_the_power_is_lowered_until_the_medium_is_linear(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strong = {
        "world.options.medium.b": 6.0,
        "world.options.medium.saturation": 1.0,
        "world.options.sensor.photons_per_s": 2e7,
        "world.options.panel.crosstalk_macropixels": 0.1,
    }
    path = make_bench(strong)
    curve = {"kind": "slm-phase", "span_rad": 6.4}
    known(path, {"kind": "settle", "settle_s": 0.06}, curve)
    found = []
    kept = patterns.linear_power

    def keep(stand: Stand, panel: Levels, frames: int = 12, most: int = 0) -> float:
        found.append(kept(stand, panel, frames, most))
        return found[-1]

    monkeypatch.setattr("labctl.calibrate.mapping.linear_power", keep)
    (row,) = calibrate("mapping").rows
    assert (row.status, row.why) == ("passed", "")
    assert found[0] < 2.5
    monkeypatch.setattr(patterns, "HALVINGS", 1)
    (row,) = calibrate("mapping").rows
    assert row.why.startswith("mapping: the medium is not linear: at power_mw=")


@pytest.mark.slow
@pytest.mark.parametrize("photons_per_s", [1e12, 1e13])
def test_saturated_frames_are_not_taken_for_a_medium_that_is_not_linear(
    make_bench: MakeBench, calibrate: Calibrate, known: Known, photons_per_s: float
) -> None:
    path = make_bench({"world.options.sensor.photons_per_s": photons_per_s})
    curve = {"kind": "slm-phase", "span_rad": 6.4}
    known(path, {"kind": "settle", "settle_s": 0.06}, curve)
    (row,) = calibrate("mapping").rows
    assert row.why.startswith("mapping: saturated at exposure_s=")
    assert row.why.endswith("Put a filter before the camera.")


class Dim:
    """A stand whose light tells little; what is asked of it."""

    name, nominal_mw = "mapping", 4.0

    def __init__(self, *, is_whole: bool = True) -> None:
        self.is_whole = is_whole
        self.lit_mw: list[float] = []

    def stage(self, name: str) -> None:
        assert name == "linear power"

    def light(self, power_mw: float) -> None:
        self.lit_mw.append(power_mw)


class Faint:
    """Frames that differ by a share, with less noise the more there are.

    Parameters
    ----------
    gap
        Share by which those of a quarter of a power differ from those of the power.
    noise2
        Variance of that in a single frame.
    """

    def __init__(self, gap: Callable[[float], float], noise2: float) -> None:
        self.gap, self.noise2 = gap, noise2
        self.asked: list[tuple[float, int]] = []

    def see(self, _stand: object, _panel: object, power_mw: float, count: int) -> _Seen:
        self.asked.append((power_mw, count))
        return _Seen(power_mw, np.zeros(1), np.full(1, self.noise2 / count), count)

    def distance(self, above: _Seen, below: _Seen) -> tuple[float, float]:
        assert below.power_mw == above.power_mw / 4
        assert below.count == above.count
        return self.gap(above.power_mw), math.sqrt(float(above.variance[0]))


@pytest.mark.parametrize(
    ("gap", "noise2", "counts"),
    [
        pytest.param(0.01, 0.1, [10] * 5 + [20] * 2, id="too few to tell"),
        pytest.param(0.03, 0.02, [10] * 5 + [20] * 2, id="too near to tell"),
        pytest.param(0.03, 0.001, [10] * 3, id="told"),
        pytest.param(0.0, 0.004, [10] * 3, id="alike"),
    ],
)
def test_faint_frames_are_taken_again_until_they_tell(
    monkeypatch: pytest.MonkeyPatch, gap: float, noise2: float, counts: list[int]
) -> None:
    faint, stand = Faint(lambda _: gap, noise2), Dim()
    monkeypatch.setattr(patterns, "_see", faint.see)
    monkeypatch.setattr(patterns, "_distance", faint.distance)
    panel = np.zeros((2, 3, 4), np.uint8)
    assert patterns.linear_power(cast("Stand", stand), panel, 10, 50) == 4.0
    powers_mw = [4.0, 2.0, 1.0] + [4.0, 1.0] * ((len(counts) - 3) // 2)
    assert faint.asked == list(zip(powers_mw, counts, strict=True))
    assert stand.lit_mw == [4.0]


def test_what_a_power_does_is_known_of_half_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Fainter(Faint):
        @override
        def distance(self, above: _Seen, below: _Seen) -> tuple[float, float]:
            gap, error = super().distance(above, below)
            return gap, error / above.power_mw

    faint, stand = Fainter(lambda power_mw: 0.03 * power_mw, 0.625), Dim()
    monkeypatch.setattr(patterns, "_see", faint.see)
    monkeypatch.setattr(patterns, "_distance", faint.distance)
    # However long one looks, 1 mW does not tell by itself; 4 and 2 mW do.
    alone = [math.sqrt(0.625 / 40) / power_mw for power_mw in (2.0, 1.0)]
    assert alone[0] < 2 * LINEAR < alone[1]
    panel = np.zeros((2, 3, 4), np.uint8)
    assert patterns.linear_power(cast("Stand", stand), panel, 10, 40) == 1.0


@pytest.mark.parametrize(
    ("expected", "joined"),
    [
        (None, (0.06, 0.04)),
        ((0.02, 0.04), (math.sqrt(0.002), 0.04 / 2**0.25)),
        ((0.02, 1.0), (0.06, 0.04)),
        ((0.02, 0.001), (0.02, 0.001)),
    ],
)
def test_what_is_surer_counts_for_more(
    expected: tuple[float, float] | None, joined: tuple[float, float]
) -> None:
    assert patterns._joined((0.06, 0.04), expected) == pytest.approx(joined, rel=1e-3)


def saturable_phase(power_mw: float) -> float:
    """Phase that the own light of a spot gives it, in rad."""
    return 1.5 * power_mw / (0.5 + power_mw)


def changed(power_mw: float) -> float:
    """Share by which frames change to a quarter of the power."""
    return 0.25 * (saturable_phase(power_mw) - saturable_phase(power_mw / 4))


@pytest.mark.parametrize("power_mw", [0.25, 0.125, 0.0625])
def test_what_half_of_a_power_does_is_expected_to_a_tenth(power_mw: float) -> None:
    expected = patterns._at_half((changed(power_mw), 0.001), changed(2 * power_mw))
    assert expected is not None
    assert expected[0] == pytest.approx(changed(power_mw / 2), rel=0.1)
    # The error of a square, which a tenth makes a fifth of it.
    assert expected[1] ** 2 == pytest.approx(0.2 * expected[0] ** 2)


@pytest.mark.parametrize(
    ("gap", "before"),
    [(0.05, 0.0), (0.1, 0.2), (0.08, 0.1), (changed(4.0), changed(8.0)), (0.0, 0.1)],
)
def test_nothing_is_expected_of_what_does_not_go_along_with_the_light(
    gap: float, before: float
) -> None:
    assert patterns._at_half((gap, 0.01), before) is None


def test_a_medium_that_saturates_is_not_linear_where_half_of_the_power_is_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def half(power_mw: float) -> float:
        return saturable_phase(power_mw) - saturable_phase(power_mw / 2)

    faint = Faint(changed, 1e-6)
    monkeypatch.setattr(patterns, "_see", faint.see)
    monkeypatch.setattr(patterns, "_distance", faint.distance)
    panel = np.zeros((2, 3, 4), np.uint8)
    assert 0.25 * half(Dim.nominal_mw) < LINEAR + 0.01
    power_mw = patterns.linear_power(cast("Stand", Dim()), panel, 10)
    assert saturable_phase(power_mw) < 0.2


def test_frames_that_are_added_weigh_as_many_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = _Seen(2.0, np.array([4.0]), np.array([0.3]), 10)
    more = _Seen(2.0, np.array([1.0]), np.array([0.15]), 20)
    asked = []

    def see(_stand: object, _panel: object, power_mw: float, count: int) -> _Seen:
        asked.append((power_mw, count))
        return more

    monkeypatch.setattr(patterns, "_see", see)
    panel = np.zeros((2, 3, 4), np.uint8)
    both = patterns._longer(cast("Stand", Dim()), panel, first, 30)
    assert asked == [(2.0, 20)]
    assert both.count == 30
    assert both.mean == pytest.approx([2.0])
    # As of 30 frames with a variance of 3 each.
    assert both.variance == pytest.approx([0.1])
    assert patterns._longer(cast("Stand", Dim()), panel, first, 10) is first


def test_too_few_photons_are_named_where_no_more_frames_may_be_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faint = Faint(lambda _: 0.01, 0.225)
    monkeypatch.setattr(patterns, "_see", faint.see)
    monkeypatch.setattr(patterns, "_distance", faint.distance)
    rng = np.random.default_rng(4)
    dim = rng.standard_normal((2, 12, 50))
    monkeypatch.setattr(patterns, "_frames", lambda *_: (dim, False))
    panel = np.zeros((2, 3, 4), np.uint8)
    why = r"mapping: too few photons: at power_mw=4 .*about 1\.4 times the light.*"
    with pytest.raises(OutcomeError, match=why + r"limits\.exposure_s\)\.$"):
        patterns.linear_power(cast("Stand", Dim()), panel, 10, 30)
    powers_mw, counts = zip(*faint.asked, strict=True)
    assert powers_mw == (4.0, 2.0, 1.0, 4.0, 1.0)
    assert counts == (10, 10, 10, 10, 10)
    # Where frames are a part of the sensor, light may fall beside them.
    with pytest.raises(OutcomeError, match=why + "falls beside calibrate.region"):
        patterns.linear_power(cast("Stand", Dim(is_whole=False)), panel, 10, 30)


@pytest.mark.parametrize(
    ("apart", "noise", "said"),
    [
        pytest.param(0.0, 0.1, "the panel does not modulate", id="still"),
        pytest.param(0.0, 10.0, "too few photons", id="too dim to tell"),
        pytest.param(1.0, 0.1, "too few photons", id="modulates"),
    ],
)
def test_a_panel_that_does_not_modulate_is_told_from_too_few_photons(
    monkeypatch: pytest.MonkeyPatch, apart: float, noise: float, said: str
) -> None:
    rng = np.random.default_rng(5)

    def frames(
        _stand: object, panel: Levels, _power_mw: float, count: int
    ) -> tuple[Array, bool]:
        shape = (len(panel), count, 400)
        own = rng.standard_normal((len(panel), 1, 400))
        return 4 + apart * own + noise * rng.standard_normal(shape), False

    monkeypatch.setattr(patterns, "_frames", frames)
    panel = np.zeros((2, 3, 4), np.uint8)
    text = patterns._unseen(cast("Stand", Dim()), panel, 4.0, 0.0, math.inf)
    assert text.startswith(f"mapping: {said}")


def test_patterns_that_do_not_differ_have_no_distance_that_can_be_told() -> None:
    noise = np.full((2, 400), 0.1)
    above = np.full((2, 400), 1e-3)
    one, other = (_Seen(1.0, mean, noise, 10) for mean in (above, -above))
    gap, error = _distance(one, other)
    assert math.isfinite(gap**2)
    assert error > 100 * LINEAR
