"""Power over setpoint comes back, with its hysteresis; what is no curve is refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from typing_extensions import override

from drivers.sim.world import World
from labctl import bench, cli
from labctl.bench import Bench, BenchSource, load
from labctl.calibrate import laser_power
from labctl.calibrate.execute import Outcome
from labctl.calibrate.laser_power import Sweep, fit_curve, fit_soak
from labctl.calibration import LaserPower
from labctl.devices import Attenuator, Identity
from labctl.errors import CalibrationError, OutcomeError

MakeBench = Callable[..., Path]
Calibrate = Callable[..., Outcome]
Known = Callable[..., None]

SETPOINTS = np.linspace(0.4, 7.8, 17)


def ways(rng: np.random.Generator, gap: float, noise: float) -> tuple[Sweep, Sweep]:
    bow = SETPOINTS * (8 - SETPOINTS) / 16
    made = []
    for side in (0, 1):
        mean = SETPOINTS * 1.02 + 0.1 * bow + side * gap * bow
        error = noise * SETPOINTS
        drawn = mean + error * rng.standard_normal(len(mean))
        made.append(Sweep(SETPOINTS, drawn, error))
    return made[0], made[1]


def test_hysteresis_is_found_where_there_is_some_and_only_there() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        straight = fit_curve(*ways(rng, 0.0, 0.001))
        assert not straight.has_hysteresis
        found = fit_curve(*ways(rng, 0.05, 0.001))
        assert found.has_hysteresis
        assert found.hysteresis_mw == pytest.approx(
            0.05, abs=5 * found.hysteresis_error
        )
        assert found.hysteresis_error < 0.006


def test_power_that_falls_as_the_setpoint_rises_is_refused() -> None:
    up, down = ways(np.random.default_rng(2), 0.0, 1e-4)
    up.power_mw[9] = down.power_mw[9] = 0.9 * up.power_mw[8]
    with pytest.raises(OutcomeError, match=r"power goes from 4\.\d+ to 3\.\d+ mW as"):
        fit_curve(up, down)


def test_warm_up_is_told_from_drift() -> None:
    rng = np.random.default_rng(3)
    time_s = np.linspace(0, 120, 25)
    error = np.full(25, 0.002)
    cold = 5 * (1 - 0.1 * np.exp(-time_s / 10) + 0.02 * time_s / 3600)
    found = fit_soak(time_s, cold + error * rng.standard_normal(25), error)
    # From 10 % to half a percent: three time constants.
    assert 25 <= found.warm_up_s <= 35
    assert found.drift_percent_per_hour == pytest.approx(2, abs=5 * found.drift_error)
    warm = fit_soak(time_s, 5 + error * rng.standard_normal(25), error)
    assert warm.warm_up_s == 0


def test_the_curve_is_inverted_within_what_was_measured() -> None:
    curve = LaserPower(
        kind="laser-power", setpoint_mw=[1.0, 2.0, 4.0], power_mw=[0.5, 1.0, 3.0]
    )
    assert curve.setpoint_for(2.0) == 3.0
    with pytest.raises(CalibrationError, match=r"power_mw=3\.5, expected 0\.5 to 3"):
        curve.setpoint_for(3.5)


# ---- on the bench ----------------------------------------------------------------


@pytest.mark.slow
def test_an_injected_curve_and_its_hysteresis_come_back(
    make_bench: MakeBench, calibrate: Calibrate, known: Known
) -> None:
    bend, hysteresis = 0.03, 0.006
    path = make_bench(
        {
            "devices.laser.options.bend": bend,
            "devices.laser.options.hysteresis": hysteresis,
        }
    )
    known(path)
    (row,) = calibrate("laser-power").rows
    assert (row.status, row.why) == ("passed", "")
    record = load(path).records()["laser-power"]
    assert isinstance(record.values, LaserPower)
    for power in (0.46, 1.0, 3.3, 5.0, 7.0):
        setpoint = record.values.setpoint_for(power)
        u = setpoint / 10
        truth = setpoint + 40 * (bend + hysteresis / 2) * u * (1 - u)
        assert power == pytest.approx(truth, rel=0.005)
    # Widest at half of what the laser can.
    assert record.values.hysteresis_mw == pytest.approx(10 * hysteresis, rel=0.35)
    assert record.figure_of_merit["residual_percent"] < 0.5


@pytest.mark.slow
def test_a_beam_that_is_dark_or_too_strong_at_the_meter_is_named(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make_bench({"devices.laser.options.bend": 0.2})
    monkeypatch.setattr(laser_power, "SOAKED", 4)
    monkeypatch.setattr(laser_power, "POINTS", 3)
    known(path)
    (row,) = calibrate("laser-power").rows
    assert row.status == "failed"
    assert "expected at most limits.power_mw=8. The light is off" in row.why


class Wheel(Attenuator):
    """An attenuator in the light path: it lets through more than it is told to."""

    name = "wheel"
    transmission_limits = (0.1, 0.9)
    shown = 0.1

    @staticmethod
    def through(asked: float) -> float:
        return asked + 0.08 * asked * (1 - asked)

    @override
    def set_transmission(self, transmission: float) -> None:
        low, high = self.transmission_limits
        assert low <= transmission <= high
        self.shown = transmission

    @override
    def transmission(self) -> float:
        return self.shown

    @override
    def open(self) -> None: ...

    @override
    def close(self) -> None: ...

    @override
    def identity(self) -> Identity:
        return Identity("test", "wheel", "WHEEL-1", "")

    @override
    def settings(self) -> dict[str, Any]:
        return {}


@pytest.mark.slow
def test_the_transmission_of_an_attenuator_comes_back(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, wheel = make_bench(), Wheel()
    known(path)
    opened, lit_mw = bench.open, World.lit_mw

    @contextmanager
    def behind_it(
        source: BenchSource, *, seed: int, allow_uncalibrated: bool
    ) -> Iterator[Bench]:
        lenient = allow_uncalibrated
        with opened(source, seed=seed, allow_uncalibrated=lenient) as table:
            table.attenuator = wheel
            yield table

    monkeypatch.setattr(bench, "open", behind_it)
    monkeypatch.setattr(
        World, "lit_mw", lambda world: lit_mw(world) * wheel.through(wheel.shown)
    )
    (row,) = calibrate("laser-power").rows
    assert (row.status, row.why) == ("passed", "")
    values = load(path).records()["laser-power"].values
    assert isinstance(values, LaserPower)
    # The laser stays at the limit, and the wheel goes as far as it can.
    assert values.setpoint_mw[0] == pytest.approx(0.8)
    assert values.setpoint_mw[-1] == pytest.approx(0.98 * 7.2)
    for power_mw in (1.0, 2.5, 5.0, 7.0):
        share = values.setpoint_for(power_mw) / 8
        assert 8 * wheel.through(share) == pytest.approx(power_mw, rel=0.005)


POWER = {"kind": "laser-power", "setpoint_mw": [1.0, 8.0], "power_mw": [1.0, 8.0]}
WATCHED = {"low": 0.1, "high": 9.0, "oldest_s": 60.0}


@pytest.mark.parametrize(
    ("kind", "changes", "end"),
    [
        ("silent", {}, (3, "meter: reading: no answer within 1")),
        ("garbage", {}, (3, "meter: reading: got")),
        ("no_return", {"limits.call_s": 0.5}, (3, "meter: reading: no answer")),
        ("silent", {"limits.meter": WATCHED}, (4, "meter: no reading")),
        ("frozen", {}, (6, "expected it to rise. Look at laser and meter")),
    ],
    ids=["silent", "garbage", "hung", "silent-and-watched", "frozen"],
)
def test_a_meter_that_fails_ends_it_and_leaves_the_curve_in_force(
    make_bench: MakeBench,
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    changes: dict[str, object],
    end: tuple[int, str],
) -> None:
    code, said = end
    monkeypatch.setattr(laser_power, "SOAKED", 4)
    monkeypatch.setattr(laser_power, "POINTS", 3)
    fault = {"kind": kind, "at_shot": 20, "count": 10_000}
    path = make_bench({"devices.meter.options.faults": [fault], **changes})
    known(path, POWER)
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    # A latch of its own, which it may leave.
    monkeypatch.setenv("LABCTL_STATE", str(path.parents[2] / "state"))
    ended = CliRunner().invoke(cli.app, ["calibrate", "laser-power", "--bench", "lab"])
    assert ended.exit_code == code
    assert said in ended.stderr
    (kept,) = [each for each in path.parent.iterdir() if each.name not in before]
    assert kept.name.endswith("-failed.yaml")
    assert said in kept.read_text(encoding="utf-8").replace("\n  ", " ")
    assert {name: (path.parent / name).read_bytes() for name in before} == before
