"""Nets of complex weights that are read out as intensities, and real ones beside them.

A real net of as many real parameters, with the like activation, learns the same
samples twice: read out as it is, and as the square of its outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from labctl.protocol import Activations
from labctl.recording.layout import Column
from labctl.studies.complex_zoo import (
    FUNCTIONS,
    MEASURES,
    REAL,
    SIDE,
    measures,
    pictures,
)
from labctl.studies.job import Claim, Rows, above, together, told
from labctl.studies.nets import Nets, right, train

READOUTS: Final = ("linear", "square")
BEHIND: Final = 0.02
"""Accuracy that may be lost by who does as well."""
Activate = Callable[[Tensor], Tensor]
Samples = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Lesson:
    """What nets learn from and are tested on.

    Parameters
    ----------
    samples, test
        Features, ``[sample, feature]``, and classes, ``[sample]``.
    classes
        How many there are.
    """

    samples: Samples
    test: Samples
    classes: int


def columns(spec: Activations) -> tuple[Column, ...]:
    """Say what complex nets and those beside them leave.

    Parameters
    ----------
    spec
        The study's settings.
    """
    count, axis = len(spec.complex_functions), "field_function"
    return (
        Column(
            "complex_accuracy",
            "f8",
            "Accuracy of nets with complex weights, intensities read out",
            shape=(count,),
            dims=(axis,),
        ),
        Column(
            "complex_diverged",
            "u1",
            "1 where their numbers were no longer finite",
            shape=(count,),
            dims=(axis,),
        ),
        Column(
            "real_accuracy",
            "f8",
            "Accuracy of real nets with as many parameters, read out as they are "
            "and squared",
            shape=(count, len(READOUTS)),
            dims=(axis, "readout"),
        ),
        Column("complex_parameters", "i8", "Real numbers in a complex net"),
        Column("real_parameters", "i8", "Numbers in a real net beside it"),
        Column(
            "complex_pictures",
            "f4",
            "Amplitude, and phase in rad, of the result over the plane of the input",
            shape=(count, 2, SIDE, SIDE),
            dims=(axis, "part", "imaginary", "real"),
        ),
        Column(
            "complex_measures",
            "f8",
            "Of the function: " + ", ".join(MEASURES),
            shape=(count, len(MEASURES)),
            dims=(axis, "field_measure"),
        ),
    )


def beside(spec: Activations) -> list[str]:
    """Name the activations of the real nets, each once.

    Parameters
    ----------
    spec
        The study's settings.
    """
    return list(dict.fromkeys(REAL[name] for name in spec.complex_functions))


def measure(
    spec: Activations, depth: int, lesson: Lesson, means: tuple[Activate, Generator]
) -> dict[str, Any]:
    """Train complex nets, and real ones beside them.

    Parameters
    ----------
    spec
        The study's settings.
    depth
        Linear layers.
    lesson
        What they learn.
    means
        Activation of the real nets, one of :func:`beside` and readout, and where
        starts and batches come from.
    """
    activate, rng = means
    count, names = len(spec.complex_functions), beside(spec)
    features = lesson.samples[0].shape[1]
    sizes = [features, *[spec.width] * (depth - 1), lesson.classes]
    nets = Nets(sizes, count, 1.5, rng, torch.complex64)

    def intensity(x: Tensor) -> Tensor:
        field = nets(x, lambda z: _apply(spec.complex_functions, z))
        return field.real.square() + field.imag.square()

    train(nets, intensity, lesson.samples, spec, rng)
    twins = Nets(_as_many(sizes, nets.numbers), 2 * len(names), 1.5, rng)

    def both(x: Tensor) -> Tensor:
        y = twins(x, activate)
        y = y.view(len(names), len(READOUTS), *y.shape[1:])
        return torch.stack([y[:, 0], y[:, 1].square()], dim=1).flatten(0, 1)

    train(twins, both, lesson.samples, spec, rng)
    with torch.no_grad():
        accuracy, lost = right(
            intensity(lesson.test[0]), lesson.test[1], lesson.classes
        )
        real, _ = right(both(lesson.test[0]), lesson.test[1], lesson.classes)
    pick = [names.index(REAL[name]) for name in spec.complex_functions]
    return {
        "complex_accuracy": accuracy.numpy(),
        "complex_diverged": lost.numpy().astype("u1"),
        "real_accuracy": real.view(len(names), len(READOUTS))[pick].numpy(),
        "complex_parameters": nets.numbers,
        "real_parameters": twins.numbers,
        "complex_pictures": np.array([pictures(n) for n in spec.complex_functions]),
        "complex_measures": np.array(
            [list(measures(name).values()) for name in spec.complex_functions]
        ),
    }


def _apply(names: Sequence[str], z: Tensor) -> Tensor:
    parts = zip(names, z.unbind(0), strict=True)
    return torch.stack([FUNCTIONS[name](part) for name, part in parts])


def _as_many(sizes: Sequence[int], wanted: int) -> list[int]:
    """Widen the hidden layers until a real net has as many parameters, or nearly."""
    if len(sizes) == 2:
        return list(sizes)

    def widened(width: int) -> list[int]:
        return [sizes[0], *[width] * (len(sizes) - 2), sizes[-1]]

    def off(width: int) -> int:
        return abs(sum((a + 1) * b for a, b in pairwise(widened(width))) - wanted)

    return widened(min(range(1, 3 * sizes[1] + 1), key=off))


# ---- claims ----------------------------------------------------------------------


def by_seed(rows: Rows, column: str) -> NDArray[np.float64]:
    """Average a column over tasks and depths, one row a seed.

    Parameters
    ----------
    rows
        One a task, depth and seed.
    column
        Which.
    """
    seeds = rows["seed"]
    found = [rows[column][seeds == s].mean(axis=0) for s in np.unique(seeds)]
    return np.array(found)


def claims(spec: Activations, rows: Rows) -> list[Claim]:
    """Judge what the study asks of complex activations.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a task, depth and seed.
    """
    made = [_as_well(spec, rows)]
    if {"kerr", "identity"} <= set(spec.complex_functions):
        made.append(_kerr(spec, rows))
    return made


def _as_well(spec: Activations, rows: Rows) -> Claim:
    ours, real = by_seed(rows, "complex_accuracy"), by_seed(rows, "real_accuracy")
    said, kinds = [], []
    for number, name in enumerate(spec.complex_functions):
        # Against the readout that is better on the whole.
        best = int(real[:, number].mean(axis=0).argmax())
        ahead = ours[:, number] - real[:, number, best]
        kinds.append(above(ahead, -BEHIND))
        said.append(f"{name} {ours[:, number].mean():.3f} ({told(ahead, '.3f')})")
    return Claim(
        "asked in the study: do complex versions do as well as real ones of as many "
        "parameters?",
        "mean accuracy (ahead of a real net with the like activation and the better of "
        f"two readouts, where {BEHIND:g} behind is as well): {'; '.join(said)}",
        together(kinds),
    )


def _kerr(spec: Activations, rows: Rows) -> Claim:
    found = by_seed(rows, "complex_accuracy")
    turned, plain = (
        found[:, spec.complex_functions.index(name)] for name in ("kerr", "identity")
    )
    return Claim(
        "asked in the study: is the Kerr phase of the bench an activation?",
        f"mean accuracy {told(turned)}, with linear optics {told(plain)}; ahead by "
        f"{told(turned - plain)}",
        above(turned - plain),
    )
