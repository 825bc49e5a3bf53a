"""Kind ``laser-power``: what the meter shows for each power that is demanded.

The setpoint goes up and down again; at each the power is waited for, not a fixed time.
Before that the beam is watched at one power: how long it warms up, and how it drifts
afterwards. The curve is that halfway between up and down, and the distance between
them the hysteresis. With an attenuator in the beam the curve is that of the two
together, as the bench uses them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labctl.calibrate.camera import line
from labctl.calibrate.kind import Figure, Finding, Kind, Merit, Quantity, Series
from labctl.calibrate.stand import Stand
from labctl.errors import OutcomeError

Array = NDArray[np.float64]
POINTS, HELD_OUT, READINGS = 17, 6, 8
# Share of the greatest power from which, and up to which, the setpoint goes.
LOW, HIGH = 0.05, 0.98
SOAK_S, SOAKED = 120.0, 24
# Power has settled when two groups of readings differ by so many standard errors, or
# by so small a share.
STEADY_SIGMA, STEADY = 3.0, 1e-3
WAITS = 12
# Warm is what differs from the end by less than this share.
WARM = 0.005
# Readings beyond the limit by more than noise are one reason to stop.
BEYOND = 1.05


@dataclass(frozen=True, eq=False)
class Sweep:
    """Metered power over the setpoint, in the order of the setpoints.

    Parameters
    ----------
    setpoint_mw
        ``(point,)``.
    power_mw, error_mw
        Mean reading, and its standard error.
    """

    setpoint_mw: Array
    power_mw: Array
    error_mw: Array


@dataclass(frozen=True, eq=False)
class PowerCurve:
    """The curve between up and down.

    Parameters
    ----------
    setpoint_mw, power_mw, error_mw
        Points of the curve, rising.
    hysteresis_mw, hysteresis_error
        Greatest distance between down and up.
    has_hysteresis
        Whether that is more than noise.
    """

    setpoint_mw: Array
    power_mw: Array
    error_mw: Array
    hysteresis_mw: float
    hysteresis_error: float
    has_hysteresis: bool


def fit_curve(up: Sweep, down: Sweep) -> PowerCurve:
    """Join the way up and the way down.

    Parameters
    ----------
    up, down
        At the same setpoints, rising.

    Returns
    -------
    curve
        Halfway between them.

    Raises
    ------
    OutcomeError
        Power falls somewhere as the setpoint rises, beyond noise.
    """
    power = (up.power_mw + down.power_mw) / 2
    error = np.hypot(up.error_mw, down.error_mw) / 2
    rise, noise = np.diff(power), np.hypot(error[1:], error[:-1])
    worst = int((rise / noise).argmin())
    if rise[worst] <= 0:
        text = (
            f"laser-power: power goes from {power[worst]:.4g} to {power[worst + 1]:.4g}"
            f" mW as the setpoint goes from {up.setpoint_mw[worst]:.4g} to "
            f"{up.setpoint_mw[worst + 1]:.4g} mW, expected it to rise. Look at laser "
            "and meter; a laser near its threshold does that."
        )
        raise OutcomeError(text)
    gap, gap_error = down.power_mw - up.power_mw, 2 * error
    # All points together tell whether there is a gap, and a parabola through them how
    # wide it is.
    chi2 = float((gap**2 / gap_error**2).sum())
    freedom = len(gap)
    design = np.vander(np.linspace(-1, 1, freedom), 3)
    spread = np.linalg.inv((design.T / gap_error**2) @ design)
    smooth = design @ spread @ ((design.T / gap_error**2) @ gap)
    smooth_error = np.sqrt(np.einsum("ij,jk,ik->i", design, spread, design))
    widest = int(np.abs(smooth).argmax())
    return PowerCurve(
        up.setpoint_mw,
        power,
        error,
        hysteresis_mw=float(abs(smooth[widest])),
        hysteresis_error=float(smooth_error[widest]),
        has_hysteresis=chi2 > freedom + 5 * math.sqrt(2 * freedom),
    )


@dataclass(frozen=True)
class Soak:
    """How power behaves at one setpoint.

    Parameters
    ----------
    warm_up_s
        Until it stays near what it is at the end; 0 where it was warm.
    drift_percent_per_hour, drift_error
        Slope after that.
    """

    warm_up_s: float
    drift_percent_per_hour: float
    drift_error: float


def fit_soak(time_s: Array, power_mw: Array, error_mw: Array) -> Soak:
    """Tell warm-up from drift.

    Parameters
    ----------
    time_s
        Since the light went on.
    power_mw, error_mw
        Mean reading at each time, and its standard error.

    Returns
    -------
    soak
        The second half gives the drift.
    """
    half = len(time_s) // 2
    slope, offset, slope_error, _ = line(
        time_s[half:], power_mw[half:], error_mw[half:]
    )
    straight = offset + slope * time_s
    scale = float(power_mw[half:].mean())
    far = np.abs(power_mw - straight) > np.maximum(WARM * scale, 4 * error_mw)
    cold = np.flatnonzero(far[:half])
    warm_up_s = float(time_s[cold[-1] + 1]) if cold.size else 0.0
    per_hour = 100 * 3600 / scale
    return Soak(warm_up_s, slope * per_hour, slope_error * per_hour)


# ---- the procedure ---------------------------------------------------------------


def measure(stand: Stand, limits: Mapping[str, float]) -> Finding:
    """Measure power over setpoint.

    Parameters
    ----------
    stand
        The bench.
    limits
        Of the merits.

    Returns
    -------
    finding
        The curve, its hysteresis, warm-up and drift.

    Raises
    ------
    OutcomeError
        No light, a power that is not steady, or beyond the limit.
    """
    meter = stand.bench.meter
    if meter is None or meter.unit != "mW":
        unit = "none" if meter is None else meter.unit
        text = f"laser-power: meter unit={unit}, expected mW. Set the meter to power."
        raise OutcomeError(text)
    stand.configure(stand.bench.file.reservoir.exposure_s)
    times, readings = _soaked(stand)
    noise = _error(float(readings.std(axis=1, ddof=1).mean()), float(readings.mean()))
    soak = fit_soak(times, readings.mean(axis=1), np.full(len(times), noise))
    least_mw, most_mw = stand.bench.power_range_mw
    setpoints = np.linspace(max(LOW * most_mw, least_mw), HIGH * most_mw, POINTS)
    # The first setpoint, too, is come to from below: a dark laser keeps its last.
    stand.light(max(float(setpoints[0]) / 2, least_mw))
    up = _swept(stand, "up", setpoints)
    down = _swept(stand, "down", setpoints[::-1])
    curve = fit_curve(up, _reversed(down))
    between = np.random.default_rng(5).uniform(setpoints[0], setpoints[-1], HELD_OUT)
    # Half of them are come to from below, half from above.
    low, high = np.sort(between[: HELD_OUT // 2]), np.sort(between[HELD_OUT // 2 :])
    stand.light(float(setpoints[0]))
    rising = _swept(stand, "held out, up", low)
    stand.light(float(setpoints[-1]))
    falling = _swept(stand, "held out, down", high[::-1])
    return _finding(curve, soak, (times, readings), (up, down, rising, falling), limits)


def _soaked(stand: Stand) -> tuple[Array, Array]:
    """Watch the power at the operating point, from the moment that it is on.

    Raises
    ------
    OutcomeError
        There is none.
    """
    stand.dark()
    stand.light(stand.nominal_mw)
    start_s = stand.bench.clock.now()
    times, readings = [], []
    for number in range(SOAKED):
        stand.stage("soak", number, SOAKED)
        due_s = start_s + SOAK_S * number / (SOAKED - 1)
        stand.wait(max(due_s - stand.bench.clock.now(), 0.0))
        exposed = stand.repeated(stand.flat(), READINGS)
        if float(np.median(exposed.power_mw)) < 0.2 * stand.power_mw:
            text = f"laser-power: {stand.why_dark(exposed)}"
            raise OutcomeError(text)
        times.append(float(exposed.start_s.mean()) - start_s)
        readings.append(exposed.power_mw)
    return np.array(times), np.stack(readings)


def _swept(stand: Stand, name: str, setpoints: Array) -> Sweep:
    powers, errors = [], []
    for number, setpoint in enumerate(setpoints):
        stand.stage(f"sweep {name}", number, len(setpoints))
        stand.light(float(setpoint))
        power, error = _steady(stand)
        most_mw = stand.bench.file.limits.power_mw
        if power > BEYOND * most_mw:
            stand.dark()
            text = (
                f"laser-power: power_mw={power:.4g} metered at a setpoint of "
                f"{setpoint:.4g}, expected at most limits.power_mw={most_mw:g}. The "
                "light is off. Look at meter and laser before it goes on again."
            )
            raise OutcomeError(text)
        powers.append(power)
        errors.append(error)
    return Sweep(setpoints, np.array(powers), np.array(errors))


def _reversed(sweep: Sweep) -> Sweep:
    return Sweep(sweep.setpoint_mw[::-1], sweep.power_mw[::-1], sweep.error_mw[::-1])


def _steady(stand: Stand) -> tuple[float, float]:
    """Read the power once it no longer changes.

    Raises
    ------
    OutcomeError
        It still does after many readings.
    """
    before, change, most = _read(stand), math.inf, 0.0
    for _ in range(WAITS):
        now = _read(stand)
        noise = math.hypot(before[1], now[1])
        change, most = (
            abs(now[0] - before[0]),
            max(STEADY_SIGMA * noise, STEADY * now[0]),
        )
        if change <= most:
            return (now[0] + before[0]) / 2, noise / 2
        before = now
    text = (
        f"laser-power: power does not become steady at a setpoint of "
        f"{stand.power_mw:.4g} mW: {before[0]:.4g} mW still changes by {change:.2g}, "
        f"expected at most {most:.2g}. Let the laser warm up."
    )
    raise OutcomeError(text)


def _read(stand: Stand) -> tuple[float, float]:
    power = stand.repeated(stand.flat(), READINGS).power_mw
    mean = float(power.mean())
    return mean, _error(float(power.std(ddof=1)), mean)


def _error(noise: float, power: float) -> float:
    """Tell the standard error of readings; those all alike hide it in a digit."""
    return (noise or STEADY * power) / math.sqrt(READINGS)


def _finding(
    curve: PowerCurve,
    soak: Soak,
    soaked: tuple[Array, Array],
    sweeps: Sequence[Sweep],
    limits: Mapping[str, float],
) -> Finding:
    *ways, rising, falling = sweeps
    held_at = np.concatenate([rising.setpoint_mw, falling.setpoint_mw])
    held = np.concatenate([rising.power_mw, falling.power_mw])
    error = np.concatenate([rising.error_mw, falling.error_mw])
    side = np.repeat([-1.0, 1.0], [len(rising.power_mw), len(falling.power_mw)])
    gap = (
        np.interp(held_at, curve.setpoint_mw, _gap(ways)) if curve.has_hysteresis else 0
    )
    rest = held - np.interp(held_at, curve.setpoint_mw, curve.power_mw) - side * gap / 2
    percent = 100 * rest / held
    residual = math.sqrt(float((percent**2).mean()))
    spread = math.sqrt(float(((100 * error / held) ** 2).mean()) / len(held))
    top = float(curve.power_mw[-1])
    hysteresis = 100 * curve.hysteresis_mw / top if curve.has_hysteresis else 0.0
    middle = len(curve.power_mw) // 2
    remarks = []
    if curve.has_hysteresis:
        remarks.append(
            f"hysteresis: going down the power is up to {curve.hysteresis_mw:.3g} ± "
            f"{curve.hysteresis_error:.2g} mW from that going up."
        )
    if soak.warm_up_s:
        remarks.append(f"the laser warms up for {soak.warm_up_s:.0f} s.")
    return Finding(
        values={
            "setpoint_mw": curve.setpoint_mw.tolist(),
            "power_mw": curve.power_mw.tolist(),
            "hysteresis_mw": curve.hysteresis_mw if curve.has_hysteresis else 0.0,
            "warm_up_s": soak.warm_up_s,
        },
        quantities={
            "top_mw": Quantity(top, float(curve.error_mw[-1]), 0.005 * top),
            "middle_mw": Quantity(
                float(curve.power_mw[middle]),
                float(curve.error_mw[middle]),
                0.005 * float(curve.power_mw[middle]),
            ),
            "hysteresis_percent": Quantity(
                hysteresis, 100 * curve.hysteresis_error / top, 0.2
            ),
            "drift_percent_per_hour": Quantity(
                soak.drift_percent_per_hour, soak.drift_error, 5.0
            ),
        },
        merits=(
            Merit("residual_percent", residual, spread, limits["residual_percent"]),
            Merit(
                "hysteresis_percent",
                hysteresis,
                100 * curve.hysteresis_error / top,
                limits["hysteresis_percent"],
            ),
            Merit(
                "drift_percent_per_hour",
                abs(soak.drift_percent_per_hour),
                soak.drift_error,
                limits["drift_percent_per_hour"],
            ),
        ),
        figures=_figures(curve, ways, soaked, (held_at, percent, 100 * error / held)),
        remarks=tuple(remarks),
    )


def _gap(ways: Sequence[Sweep]) -> Array:
    up, down = ways
    gap: Array = down.power_mw[::-1] - up.power_mw
    return gap


def _figures(
    curve: PowerCurve,
    ways: Sequence[Sweep],
    soaked: tuple[Array, Array],
    held: tuple[Array, Array, Array],
) -> tuple[Figure, ...]:
    up, down = ways
    times, readings = soaked
    noise = readings.std(axis=1, ddof=1) / math.sqrt(READINGS)

    def off(sweep: Sweep) -> tuple[Array, Array]:
        there = np.interp(sweep.setpoint_mw, curve.setpoint_mw, curve.power_mw)
        return 100 * (sweep.power_mw / there - 1), 100 * sweep.error_mw / there

    return (
        Figure(
            "power-curve",
            "Power over setpoint",
            "What the meter shows, going up and down, and the curve between.",
            "setpoint (mW)",
            "metered power (mW)",
            (
                Series("up", up.setpoint_mw, up.power_mw, up.error_mw),
                Series("down", down.setpoint_mw, down.power_mw, down.error_mw),
                Series("curve", curve.setpoint_mw, curve.power_mw, is_line=True),
            ),
        ),
        Figure(
            "power-residual",
            "Distance from the curve",
            "Way up and way down lie apart where there is hysteresis; points that were "
            "held out show how well the curve tells others.",
            "setpoint (mW)",
            "distance from the curve (%)",
            (
                Series("up", up.setpoint_mw, *off(up)),
                Series("down", down.setpoint_mw, *off(down)),
                Series("held out", *held),
            ),
        ),
        Figure(
            "power-soak",
            "Power after the light went on",
            "Each point is the mean of a few readings at the operating point.",
            "time (s)",
            "metered power (mW)",
            (Series("measured", times, readings.mean(axis=1), noise),),
        ),
    )


KIND = Kind(
    name="laser-power",
    text="metered power over setpoint, hysteresis, warm-up and drift",
    of=("laser", "attenuator", "meter"),
    measure=measure,
    needs=("camera",),
    roles=("meter",),
    depends_on_wavelength=True,
    valid_days=30.0,
    limits={
        "residual_percent": 0.5,
        "hysteresis_percent": 1.0,
        "drift_percent_per_hour": 30.0,
    },
)
