"""The device as an activation: each output over one input, measured as the zoo is.

One of the inputs is swept through a turn of its phase, the others and theta are drawn.
What repeats do not share is noise; the curve is made of the harmonics that stand out of
it, so that its slope is known. An input of 1 is a phase of 1 rad.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labctl.calibration import ReservoirEntry
from labctl.protocol import DeviceActivations
from labctl.recording.layout import Column
from labctl.reservoir import TURN
from labctl.run.convergence import Show
from labctl.run.setting import Setting
from labctl.studies.harmonics import taken_apart
from labctl.studies.job import (
    BenchStudy,
    Claim,
    Job,
    Lab,
    Rows,
    Values,
    Verdict,
    at_power,
    power_jobs,
    power_points,
    told,
)
from labctl.studies.zoo import MEASURES, SHOWN, X, measured, measures
from labctl.training.encoding import Additive

STEEP: Final = 10.0  # slope, outputs in units of their spread: "too large" from here
FLAT: Final = 0.5  # share of inputs without a slope: "often" from here

_SOME = np.abs(X) <= 4


def columns(spec: DeviceActivations, entry: ReservoirEntry) -> tuple[Column, ...]:
    """Say what every job leaves.

    Parameters
    ----------
    spec
        The study's settings.
    entry
        The operating point.
    """
    outputs = entry.bins[0] * entry.bins[1]
    return (
        Column("power_mw", "f8", "Power", "mW"),
        Column(
            "response",
            "f8",
            "Mean outputs over the swept input",
            "electron",
            shape=(spec.points, outputs),
            dims=("point", "output"),
        ),
        Column(
            "curves",
            "f4",
            "Each output over the input, -4 to 4, in units of its spread",
            shape=(outputs, SHOWN),
            dims=("output", "point"),
        ),
        Column(
            "measures",
            "f8",
            "Of each output: " + ", ".join(MEASURES),
            shape=(outputs, len(MEASURES)),
            dims=("output", "measure"),
        ),
        Column(
            "beyond",
            "f8",
            "Share beyond the first harmonic",
        ),
    )


def shots(spec: DeviceActivations, job: Job, setting: Setting[Any]) -> dict[str, int]:
    """Count the exposures of a job.

    Parameters
    ----------
    spec
        The study's settings.
    job, setting
        Every job costs the same.
    """
    del job, setting
    return {"evaluate": spec.points * spec.repeats}


def _swept(spec: DeviceActivations, job: Job, layout: tuple[int, int]) -> Tensor:
    """Phases with one input at every point of its turn, ``[point, macropixel]``."""
    rng = np.random.default_rng([job.seed, 47])
    encoding = Additive(spec.features, layout, input_scale_rad=1.0)
    inputs = np.tile(TURN * rng.random(spec.features), (spec.points, 1))
    inputs[:, 0] = TURN * np.arange(spec.points) / spec.points
    theta = torch.from_numpy(TURN * rng.random(encoding.pixels))
    with torch.no_grad():
        phase: Tensor = encoding(torch.from_numpy(inputs), theta)
    return phase


def shown(spec: DeviceActivations, job: Job, setting: Setting[Any]) -> Show:
    """Say what a job shows first.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Which power and seed.
    setting
        The run.
    """
    entry = at_power(setting.entry, float(job.settings["power_mw"]))
    return Show(entry, _swept(spec, job, entry.macropixels))


def measure(spec: DeviceActivations, job: Job, lab: Lab) -> Values:
    """Sweep one input at one power.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Which power and seed.
    lab
        The bench.
    """
    power_mw = float(job.settings["power_mw"])
    reservoir = lab.reservoir(at_power(lab.entry, power_mw))
    phase = _swept(spec, job, reservoir.layout)
    found = np.array(
        [
            reservoir(phase, category="evaluate", step=lab.number).y.numpy()
            for _ in range(spec.repeats)
        ]
    )
    harmonics = taken_apart(found)
    values, slopes = harmonics.curves(X[_SOME])
    each = [
        list(measured(value, slope).values())
        for value, slope in zip(values, slopes, strict=True)
    ]
    shown, _ = harmonics.curves(np.linspace(-4, 4, SHOWN))
    return {
        "score": float(np.mean([row[MEASURES.index("oscillation")] for row in each])),
        "power_mw": power_mw,
        "response": found.mean(axis=0),
        "curves": shown,
        "measures": np.array(each),
        "beyond": harmonics.defect,
    }


# ---- claims ----------------------------------------------------------------------


def over_power(
    spec: DeviceActivations, rows: Rows, name: str
) -> list[NDArray[np.float64]]:
    """Give a measure at every power: its mean over the outputs, one value a seed.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a job.
    name
        One of ``MEASURES``.
    """
    found = []
    for power in spec.powers_mw:
        some = rows["power_mw"] == power
        order = np.argsort(rows["seed"][some], kind="stable")
        values = rows["measures"][some][order][..., MEASURES.index(name)]
        found.append(np.asarray(values.mean(axis=1), dtype=np.float64))
    return found


def claims(spec: DeviceActivations, rows: Rows) -> list[Claim]:
    """Judge the device by what the document asks of an activation.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a job.
    """
    return [_bounded(spec, rows), _oscillates(spec, rows), _complex(spec, rows)]


def _listed(spec: DeviceActivations, rows: Rows, name: str) -> str:
    pairs = zip(spec.powers_mw, over_power(spec, rows, name), strict=True)
    return "; ".join(f"{power:g} mW: {told(values)}" for power, values in pairs)


def _graded(good: Sequence[bool]) -> Verdict:
    if all(good):
        return Verdict.HELD
    return Verdict.CONDITIONS if any(good) else Verdict.FAILED


def _bounded(spec: DeviceActivations, rows: Rows) -> Claim:
    steep, flat = (over_power(spec, rows, n) for n in ("largest", "zero_share"))
    good = [
        bool((one < STEEP).all() and (none < FLAT).all())
        for one, none in zip(steep, flat, strict=True)
    ]
    return Claim(
        "asked of an activation: the Jacobian is neither too large nor often 0",
        "of the device, outputs in units of their spread: largest slope "
        f"{_listed(spec, rows, 'largest')}; share of zero slope "
        f"{_listed(spec, rows, 'zero_share')} (held: in every seed slopes below "
        f"{STEEP:g}, less than {FLAT:g} without)",
        _graded(good),
    )


def _oscillates(spec: DeviceActivations, rows: Rows) -> Claim:
    turns = over_power(spec, rows, "oscillation")
    return Claim(
        "asked of an activation: it oscillates",
        f"turns of the device a unit of input: {_listed(spec, rows, 'oscillation')}; "
        f"of the sine {measures('sin')['oscillation']:.3g} "
        "(held: in every seed above 0)",
        _graded([bool((one > 0).all()) for one in turns]),
    )


def _complex(spec: DeviceActivations, rows: Rows) -> Claim:
    waves = over_power(spec, rows, "complexity")
    known = {name: measures(name)["complexity"] for name in ("sin", "jeff-12")}
    return Claim(
        "asked of an activation: it is not too complex",
        f"waves of the device a unit of input: {_listed(spec, rows, 'complexity')}; "
        f"of the sine {known['sin']:.3g}, of jeff-12, which learns badly, "
        f"{known['jeff-12']:.3g} (held: in every seed fewer than that)",
        _graded([bool((one < known["jeff-12"]).all()) for one in waves]),
    )


STUDY = BenchStudy(
    "The device as an activation: its outputs over one input, measured as the zoo is",
    columns,
    power_jobs,
    power_points,
    shown,
    shots,
    measure,
    claims,
)
