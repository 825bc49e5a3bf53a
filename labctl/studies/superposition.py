"""Does light add up in the device? Interference of the two halves of the panel.

A phase-only panel cannot show ``a x + b y``, and a camera squares the field. So the
left half is stepped through a turn of phase: behind a medium that is linear in the
field every pixel then follows ``a + b cos(phase + psi)``, and the power in higher
harmonics is the defect. Beside it stand the frames, which are the same at every power
in a linear medium, and the model ``x -> outputs`` itself, encoding and camera included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from labctl.calibration import ReservoirEntry
from labctl.errors import ProtocolError
from labctl.protocol import Superposition
from labctl.recording.layout import Column
from labctl.reservoir import TURN, Reservoir
from labctl.run.convergence import Show
from labctl.run.setting import Setting
from labctl.studies.harmonics import Harmonics, common_power, taken_apart
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
    verdict,
)
from labctl.training.encoding import Additive

Phases = NDArray[np.float64]


def columns(spec: Superposition, entry: ReservoirEntry) -> tuple[Column, ...]:
    """Say what every job leaves.

    Parameters
    ----------
    spec
        The study's settings.
    entry
        The operating point.
    """
    outputs, harmonics = entry.bins[0] * entry.bins[1], spec.steps // 2 - 1
    return (
        Column("power_mw", "f8", "Power", "mW"),
        Column("defect", "f8", "Share of the interference beyond the first harmonic"),
        Column("floor", "f8", "Share that noise left, taken out of the defect"),
        Column(
            "spectrum",
            "f8",
            "Share of each harmonic",
            shape=(harmonics,),
            dims=("harmonic",),
        ),
        Column(
            "frame",
            "f8",
            "Mean outputs of the model for one input, over their sum",
            shape=(outputs,),
            dims=("output",),
        ),
        Column("frame_noise", "f8", "Sum of the squares that noise left in the frame"),
        Column("model_defect", "f8", "Share of the model's answers that is not linear"),
    )


def shots(spec: Superposition, job: Job, setting: Setting[Any]) -> dict[str, int]:
    """Count the exposures of a job.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Every one costs the same.
    setting
        The run.

    Raises
    ------
    ProtocolError
        Bins hold several pixels: their fringes would cancel.
    """
    del job
    bins, size = setting.entry.bins, setting.entry.region[2:]
    if bins != size:
        text = (
            f"bins={list(bins)}, expected {list(size)}, one a pixel of region: fringes "
            "are as narrow as two pixels. Set reservoir.bins."
        )
        raise ProtocolError([setting.document.fault("reservoir.bins", text)])
    return {"evaluate": spec.repeats * (spec.steps + 3 * spec.pairs)}


def shown(spec: Superposition, job: Job, setting: Setting[Any]) -> Show:
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
    stepped = _stepped(spec, entry.macropixels, _drawing(job))
    return Show(entry, torch.from_numpy(stepped))


def _drawing(job: Job) -> np.random.Generator:
    return np.random.default_rng([job.seed, 46])


def measure(spec: Superposition, job: Job, lab: Lab) -> Values:
    """Step a phase, and ask the model, at one power.

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
    rng = _drawing(job)
    stepped = _stepped(spec, reservoir.layout, rng)
    found = taken_apart(_exposed(reservoir, stepped, spec.repeats, lab.number))
    answers = _answers(spec, reservoir, rng, lab.number)
    frames = answers.frames / answers.frames.sum(axis=1, keepdims=True)
    noise = frames.var(axis=0, ddof=1).sum() / spec.repeats
    return {
        "score": found.defect,
        "power_mw": power_mw,
        "defect": found.defect,
        "floor": found.floor,
        "spectrum": _spectrum(found),
        "frame": frames.mean(axis=0),
        "frame_noise": float(noise),
        "model_defect": answers.defect,
    }


def _spectrum(found: Harmonics) -> NDArray[np.float64]:
    power = found.power
    return np.asarray(power / power.sum())


def _stepped(
    spec: Superposition, layout: tuple[int, int], rng: np.random.Generator
) -> Phases:
    """Phases with the left half at every step, ``(step, macropixel)``."""
    rows, columns = layout
    under = spec.scale_rad * rng.random((rows, columns))
    turn = TURN * np.arange(spec.steps) / spec.steps
    left = np.arange(columns) < columns // 2
    return np.asarray(under + turn[:, None, None] * left).reshape(spec.steps, -1)


def _exposed(
    reservoir: Reservoir, phase: Phases, repeats: int, number: int
) -> NDArray[np.float64]:
    """Expose all patterns again and again: ``(repeat, pattern, output)``.

    Drift and flicker then tell repeats apart, and not patterns.
    """
    shown = torch.from_numpy(phase)
    found = [
        reservoir(shown, category="evaluate", step=number).y.numpy()
        for _ in range(repeats)
    ]
    return np.array(found)


@dataclass(frozen=True, eq=False)
class _Answers:
    """What the model makes of its inputs.

    Parameters
    ----------
    frames
        Answers to the first input, ``(repeat, output)``.
    defect
        Share of model(a x + b y) that a model(x) + b model(y) leaves unexplained.
    """

    frames: NDArray[np.float64]
    defect: float


def _answers(
    spec: Superposition, reservoir: Reservoir, rng: np.random.Generator, number: int
) -> _Answers:
    encoding = Additive(
        spec.features, reservoir.layout, input_scale_rad=spec.input_scale_rad
    )
    theta = torch.from_numpy(TURN * rng.random(reservoir.pixels))
    x, y = rng.random((2, spec.pairs, spec.features))
    a = rng.uniform(0.2, 0.8, (spec.pairs, 1))
    inputs = torch.from_numpy(np.concatenate([x, y, a * x + (1 - a) * y]))
    with torch.no_grad():
        phase = encoding(inputs, theta).numpy()
    answers = _exposed(reservoir, phase, spec.repeats, number)
    of_x, of_y, of_both = np.split(answers, 3, axis=1)
    left = of_both - a * of_x - (1 - a) * of_y
    moves = of_both - of_both.mean(axis=1, keepdims=True)
    return _Answers(of_x[:, 0], common_power(left) / common_power(moves))


# ---- claims ----------------------------------------------------------------------


def over_power(
    spec: Superposition, rows: Rows, column: str
) -> list[NDArray[np.float64]]:
    """Give a column at every power, one value a seed.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a job.
    column
        Which.
    """
    found = []
    for power in spec.powers_mw:
        some = rows["power_mw"] == power
        order = np.argsort(rows["seed"][some], kind="stable")
        found.append(np.asarray(rows[column][some][order], dtype=np.float64))
    return found


def changes(spec: Superposition, rows: Rows) -> list[NDArray[np.float64]]:
    """Say how much the frame changed since the weakest power, at every power.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a job.

    Returns
    -------
    changes
        Share of the frame's power, without bias by noise, one a seed.
    """
    frames = over_power(spec, rows, "frame")
    noises = over_power(spec, rows, "frame_noise")
    weak, noise = frames[0], noises[0]
    size = (weak**2).sum(axis=1) - noise
    found = [np.zeros(len(weak))]
    for frame, own in zip(frames[1:], noises[1:], strict=True):
        apart = ((frame - weak) ** 2).sum(axis=1) - noise - own
        found.append(np.asarray(apart / size))
    return found


def claims(spec: Superposition, rows: Rows) -> list[Claim]:
    """Judge what the document says of superposition.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a job.
    """
    return [
        _lost(spec, rows),
        _pictures(spec, rows),
        _model_claim(spec, rows),
    ]


def _listed(spec: Superposition, values: Sequence[NDArray[np.float64]]) -> str:
    pairs = zip(spec.powers_mw, values, strict=True)
    return "; ".join(f"{power:g} mW: {told(100 * one)} %" for power, one in pairs)


def _lost(spec: Superposition, rows: Rows) -> Claim:
    defect = over_power(spec, rows, "defect")
    excess = defect[-1] - defect[0]
    weak = bool(defect[0].mean() < 0.5 * defect[-1].mean())
    kind = Verdict.OPEN if (excess > 0).any() else Verdict.FAILED
    if (excess > 0).all():
        kind = Verdict.HELD if weak else Verdict.CONDITIONS
    return Claim(
        "superposition holds for weak light and is lost for strong",
        f"interference beyond the first harmonic: {_listed(spec, defect)}; strongest "
        f"less weakest, where crosstalk and phase curve alone act: "
        f"{told(100 * excess)} %",
        kind,
    )


def _pictures(spec: Superposition, rows: Rows) -> Claim:
    found = changes(spec, rows)
    return Claim(
        "strong light does not pass as weak light does",
        "change of the normalised frame against the weakest power: "
        f"{_listed(spec, found)}",
        verdict(bool((found[-1] > 0.01).all())),
    )


def _model_claim(spec: Superposition, rows: Rows) -> Claim:
    found = over_power(spec, rows, "model_defect")
    return Claim(
        "without strong light, model(a x + b y) = a model(x) + b model(y)",
        "share of model(a x + b y) that this leaves unexplained, inputs as phases on "
        f"blocks of macropixels, intensity of every pixel: {_listed(spec, found)}: "
        "encoding and camera alone are not linear",
        verdict(bool(found[0].mean() < 0.05)),
    )


STUDY = BenchStudy(
    "Whether light adds up in the device, at every power",
    columns,
    power_jobs,
    power_points,
    shown,
    shots,
    measure,
    claims,
)
