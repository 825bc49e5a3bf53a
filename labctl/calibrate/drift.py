"""Kind ``drift``: how the outputs for one pattern change over time.

A reference pattern is shown again and again over ten minutes, a few frames at a time.
What all outputs share is the common drift, what is left of each its own. From both
follows how long an answer of the device holds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labctl.calibrate.camera import line
from labctl.calibrate.kind import Figure, Finding, Kind, Merit, Quantity, Series
from labctl.calibrate.stand import SATURATED, Stand

Array = NDArray[np.float64]
LASTS_S, MOMENTS, FRAMES = 600.0, 16, 16
HOUR_S = 3600.0


@dataclass(frozen=True, eq=False)
class Drift:
    """Change of the outputs over time.

    Parameters
    ----------
    common, common_error
        Of their sum, in percent an hour.
    element, element_error
        Of each beyond that, rms over the outputs, in percent an hour; noise taken off.
    holds_s
        Time after which either is as great as the noise of one frame.
    course, course_error
        Sum of the outputs over its mean at each time.
    """

    common: float
    common_error: float
    element: float
    element_error: float
    holds_s: float
    course: Array
    course_error: Array


def fit_drift(time_s: Array, outputs: Array) -> Drift:
    """Fit slopes to outputs over time.

    Parameters
    ----------
    time_s
        ``(moment,)``.
    outputs
        ``(moment, frame, output)``.

    Returns
    -------
    drift
        Common, and of each output.
    """
    frames = outputs.shape[1]
    total = outputs.sum(axis=2)
    share = outputs / total[:, :, None]
    mean = share.mean(axis=(0, 1))
    course = total.mean(axis=1) / total.mean()
    one = total.std(axis=1, ddof=1).mean() / total.mean()
    course_error = np.full(len(time_s), one / math.sqrt(frames))
    common, _, common_error, _ = line(time_s, course, course_error)
    own = share.mean(axis=1) / mean
    own_one = share.std(axis=1, ddof=1).mean(axis=0) / mean
    slopes, errors = np.array(
        [
            line(
                time_s, own[:, k], np.full(len(time_s), own_one[k] / math.sqrt(frames))
            )
            for k in range(len(mean))
        ]
    )[:, [0, 2]].T
    # What noise alone makes of the slopes is taken off.
    element2 = float((slopes**2 - errors**2).mean())
    element2_error = math.sqrt(2 / len(mean)) * float((errors**2).mean())
    element = math.sqrt(max(element2, 0.0))
    holds = [
        noise / rate
        for noise, rate in ((one, abs(common)), (float(own_one.mean()), element))
        if rate > 0
    ]
    percent = 100 * HOUR_S
    return Drift(
        common=percent * common,
        common_error=percent * common_error,
        element=percent * element,
        # That of a root: no more than the root of the square's own error.
        element_error=percent
        * min(element2_error / max(2 * element, 1e-300), math.sqrt(element2_error)),
        holds_s=min(holds, default=math.inf),
        course=course,
        course_error=course_error,
    )


# ---- the procedure ---------------------------------------------------------------


def measure(stand: Stand, limits: Mapping[str, float]) -> Finding:
    """Measure how the outputs drift.

    Parameters
    ----------
    stand
        The bench.
    limits
        Of the merits.

    Returns
    -------
    finding
        Common drift, that of each output, and how long an answer holds.

    Raises
    ------
    OutcomeError
        No light.
    """
    stand.light(stand.nominal_mw)
    stand.configure(stand.bench.file.reservoir.exposure_s)
    panel = stand.random(1, seed=8)
    start_s = stand.bench.clock.now()
    times, outputs = [], []
    for number in range(MOMENTS):
        stand.stage("moments", number, MOMENTS)
        due_s = start_s + LASTS_S * number / (MOMENTS - 1)
        stand.wait(max(due_s - stand.bench.clock.now(), 0.0))
        exposed = stand.repeated(panel, FRAMES)
        stand.require_unsaturated(exposed, SATURATED)
        stand.require_light(exposed)
        times.append(float(exposed.start_s.mean()) - start_s)
        outputs.append(stand.outputs(exposed))
    return _finding(np.array(times), np.stack(outputs), limits)


def _finding(times: Array, outputs: Array, limits: Mapping[str, float]) -> Finding:
    found = fit_drift(times, outputs)
    share = outputs.mean(axis=1)
    share /= share.sum(axis=1, keepdims=True)
    each = share / share.mean(axis=0)
    return Finding(
        values={
            "common_percent_per_hour": found.common,
            "element_percent_per_hour": found.element,
            "holds_s": min(found.holds_s, 1e9),
        },
        quantities={
            "common_percent_per_hour": Quantity(found.common, found.common_error, 5.0),
            "element_percent_per_hour": Quantity(
                found.element, found.element_error, 5.0
            ),
        },
        merits=(
            Merit(
                "common_percent_per_hour",
                abs(found.common),
                found.common_error,
                limits["common_percent_per_hour"],
            ),
            Merit(
                "element_percent_per_hour",
                found.element,
                found.element_error,
                limits["element_percent_per_hour"],
                remedy="Outputs change against each other: something moves or warms "
                "up, or too little light falls on some of them, as from a panel that "
                "does not modulate.",
            ),
        ),
        figures=(
            Figure(
                "drift",
                "One pattern over time",
                "Sum of the outputs over its mean, at equal metered power.",
                "time (s)",
                "sum of the outputs (of its mean)",
                (Series("sum", times, found.course, found.course_error),),
            ),
            Figure(
                "drift-outputs",
                "Each output over time",
                "Share that each output has of the sum, over its mean; at most nine "
                "of them.",
                "time (s)",
                "share of the sum (of its mean)",
                tuple(
                    Series(f"output {k}", times, each[:, k], is_line=True)
                    for k in range(min(9, each.shape[1]))
                ),
            ),
        ),
        conditions={"lasted_s": float(times[-1])},
        remarks=(
            f"an answer holds for {_told(found.holds_s)} before it has drifted by the "
            "noise of one frame.",
        ),
    )


def _told(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 3600:.2g} h" if seconds < 3.6e7 else "more than a year"


KIND = Kind(
    name="drift",
    text="change of the outputs for one pattern over ten minutes",
    of=("slm", "laser", "camera"),
    measure=measure,
    needs=("camera", "settle"),
    looks_at_outputs=True,
    valid_days=7.0,
    limits={"common_percent_per_hour": 100.0, "element_percent_per_hour": 100.0},
)
