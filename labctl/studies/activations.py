"""Nets learn with every activation of the zoo, forward and backward chosen apart.

Both are tabulated from -8 to 8 and continued straight beyond, so that every activation
costs the same and nets with different ones are trained side by side, from one start.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from labctl import data
from labctl.protocol import Activations
from labctl.recording.layout import Column
from labctl.studies import complex_nets as fields
from labctl.studies.complex_nets import READOUTS
from labctl.studies.job import (
    Claim,
    Job,
    Rows,
    Study,
    Values,
    Verdict,
    above,
    together,
    told,
    verdict,
)
from labctl.studies.nets import Nets, right, train
from labctl.studies.zoo import (
    FUNCTIONS,
    MEASURES,
    NODES,
    REACH,
    SHOWN,
    STEP,
    Curve,
    X,
    backward,
    measures,
)

_BEHIND: Final = 0.02  # of accuracy: so little is as well
WIDTHS: Final = (8, 32, 128)
"""Hidden units with which an activation is asked what it can represent at all."""


@dataclass(frozen=True)
class Kind:
    """An activation with its backward pass.

    Parameters
    ----------
    function, backward
        Names of both.
    """

    function: str
    backward: str


def kinds(spec: Activations) -> list[Kind]:
    """List what is trained side by side.

    Parameters
    ----------
    spec
        The study's settings.
    """
    return [Kind(f, b) for f in spec.functions for b in spec.backwards]


def columns(spec: Activations) -> tuple[Column, ...]:
    """Say what every job leaves.

    Parameters
    ----------
    spec
        The study's settings.
    """
    functions, backwards = len(spec.functions), len(spec.backwards)
    return (
        Column("task", "S16", "Data set"),
        Column("depth", "i8", "Linear layers"),
        Column(
            "accuracy",
            "f8",
            "Accuracy on test data; chance where the training diverged",
            shape=(functions, backwards),
            dims=("function", "backward"),
        ),
        Column(
            "diverged",
            "u1",
            "1 where numbers were no longer finite",
            shape=(functions, backwards),
            dims=("function", "backward"),
        ),
        Column(
            "curves",
            "f4",
            "Function, -4 to 4",
            shape=(functions, SHOWN),
            dims=("function", "point"),
        ),
        Column(
            "slopes",
            "f4",
            "What is used as derivative, -4 to 4",
            shape=(functions, backwards, SHOWN),
            dims=("function", "backward", "point"),
        ),
        Column(
            "measures",
            "f8",
            "Of the function: " + ", ".join(MEASURES),
            shape=(functions, len(MEASURES)),
            dims=("function", "measure"),
        ),
        Column(
            "misfit",
            "f8",
            "Rms error of the best sum of hidden units on a wave, over its size; "
            f"{', '.join(map(str, WIDTHS))} units",
            shape=(functions, len(WIDTHS)),
            dims=("function", "width"),
        ),
        *fields.columns(spec),
    )


def jobs(spec: Activations, seeds: Sequence[int]) -> list[Job]:
    """List the jobs: one a task, depth and seed.

    Parameters
    ----------
    spec
        The study's settings.
    seeds
        Each draws a start and the order of the samples.
    """
    return [
        Job(f"{task} depth {depth} seed {seed}", seed, {"task": task, "depth": depth})
        for seed in seeds
        for task in spec.tasks
        for depth in spec.depths
    ]


class Tables:
    """Functions and what stands for their derivatives, ready to be looked up.

    Parameters
    ----------
    forward, backward
        ``[kind, node]``.
    """

    def __init__(self, forward: Curve, backward: Curve) -> None:
        self._tables = {
            "forward": torch.tensor(forward).float(),
            "backward": torch.tensor(backward).float(),
        }

    def look_up(self, which: str, x: Tensor) -> Tensor:
        """Interpolate between nodes, and go on straight beyond the last.

        Parameters
        ----------
        which
            ``forward`` or ``backward``.
        x
            ``[kind, sample, unit]``.
        """
        table = self._tables[which]
        place = (x + REACH) / STEP
        low = place.detach().nan_to_num().clamp(0, NODES - 2).floor().long()
        rest = place - low
        if which == "backward":
            rest = rest.clamp(0, 1)
        flat = low.flatten(1)
        left, right = (table.gather(1, flat + n).view_as(x) for n in (0, 1))
        return left + rest * (right - left)

    def __call__(self, x: Tensor) -> Tensor:
        """Activate, with the backward pass of the tables.

        Parameters
        ----------
        x
            ``[kind, sample, unit]``.
        """
        found: Tensor = Activate.apply(x, self)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        return found


class Activate(torch.autograd.Function):
    """An activation whose backward pass is looked up on its own."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, tables: Tables) -> Tensor:
        """Look the function up.

        Parameters
        ----------
        ctx
            Of torch.
        x
            ``[kind, sample, unit]``.
        tables
            Both tables.
        """
        ctx.save_for_backward(x)
        ctx.tables = tables
        return tables.look_up("forward", x)

    @staticmethod
    @override
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Multiply by what stands for the derivative.

        Parameters
        ----------
        ctx
            Of torch.
        *grads
            Gradient of the result.
        """
        (x,) = ctx.saved_tensors
        return grads[0] * ctx.tables.look_up("backward", x), None


def measure(spec: Activations, job: Job) -> Values:
    """Train nets with every activation and backward pass on one task.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Which task, depth and seed.
    """
    rng = torch.Generator().manual_seed(job.seed)
    task, depth = str(job.settings["task"]), int(job.settings["depth"])
    found = data.load(set=task, train=spec.samples, validation=1, test=397)
    middle, spread = found.train.x.mean(axis=0), found.train.x.std(axis=0)
    x, test = (
        torch.tensor((part.x - middle) / np.where(spread > 0, spread, 1)).float()
        for part in (found.train, found.test)
    )
    label, goal = torch.tensor(found.train.y), torch.tensor(found.test.y)
    every = kinds(spec)
    tables = Tables(
        np.array([FUNCTIONS[kind.function](X) for kind in every]),
        np.array([backward(k.function, k.backward, spec.blur) for k in every]),
    )
    sizes = [found.features, *[spec.width] * (depth - 1), found.classes]
    nets = Nets(sizes, len(every), 1.5, rng)
    train(nets, lambda some: nets(some, tables), (x, label), spec, rng)
    with torch.no_grad():
        accuracy, lost = right(nets(test, tables), goal, found.classes)
    shape = (len(spec.functions), len(spec.backwards))
    lesson = fields.Lesson((x, label), (test, goal), found.classes)
    twins = [name for name in fields.beside(spec) for _ in READOUTS]
    twins_tables = Tables(
        np.array([FUNCTIONS[name](X) for name in twins]),
        np.array([backward(name, "own", spec.blur) for name in twins]),
    )
    return {
        "score": float(accuracy.max()),
        "task": task,
        "depth": depth,
        "accuracy": accuracy.view(shape).numpy(),
        "diverged": lost.view(shape).numpy().astype("u1"),
        **_looks(spec),
        "misfit": np.array([misfit(name, job.seed) for name in spec.functions]),
        **fields.measure(spec, depth, lesson, (twins_tables, rng)),
    }


def misfit(name: str, seed: int) -> Curve:
    """Fit a wave by one layer of ever more random hidden units.

    The weights of the last layer are solved by least squares, so that what is left is
    what the units cannot represent, not what training misses.

    Parameters
    ----------
    name
        Of the activation.
    seed
        Draws the weights and offsets of the hidden units, the same for each name.

    Returns
    -------
    misfit
        Rms error over the rms size of the wave, ``(width,)``.
    """
    rng = np.random.default_rng([seed, 3])
    x = np.linspace(-1, 1, 400)
    wave = np.sin(3 * np.pi * x)
    weight, offset = rng.normal(0, 3, WIDTHS[-1]), rng.uniform(-3, 3, WIDTHS[-1])
    units = FUNCTIONS[name](np.multiply.outer(x, weight) + offset)
    found = []
    for width in WIDTHS:
        some = np.column_stack([units[:, :width], np.ones_like(x)])
        some = some / np.maximum(np.linalg.norm(some, axis=0), 1e-300)
        solved = np.linalg.lstsq(some, wave, rcond=1e-10)[0]
        found.append(np.sqrt(np.mean((some @ solved - wave) ** 2) / np.mean(wave**2)))
    return np.array(found)


def _looks(spec: Activations) -> dict[str, NDArray[np.float64]]:
    pick = np.linspace(-4, 4, SHOWN)
    return {
        "curves": np.array([FUNCTIONS[name](pick) for name in spec.functions]),
        "slopes": np.array(
            [
                [
                    np.interp(pick, X, backward(name, kind, spec.blur))
                    for kind in spec.backwards
                ]
                for name in spec.functions
            ]
        ),
        "measures": np.array(
            [list(measures(name).values()) for name in spec.functions]
        ),
    }


# ---- claims ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Found:
    """Accuracies by function and backward pass.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a task, depth and seed.
    """

    spec: Activations
    rows: Rows

    def of(self, function: str, kind: str = "own") -> NDArray[np.float64]:
        """Return the mean accuracy over tasks and depths, one a seed.

        Parameters
        ----------
        function, kind
            Which activation and backward pass.
        """
        place = self.spec.functions.index(function), self.spec.backwards.index(kind)
        accuracy = self.rows["accuracy"][:, place[0], place[1]]
        seeds = self.rows["seed"]
        return np.array([accuracy[seeds == seed].mean() for seed in np.unique(seeds)])

    def apart(
        self, task: str, one: tuple[str, str], other: tuple[str, str]
    ) -> NDArray[np.float64]:
        """Return what one activation is ahead of another on a task, one a seed.

        Parameters
        ----------
        task
            Data set.
        one, other
            Function and backward pass of each.
        """
        where = [
            (self.spec.functions.index(f), self.spec.backwards.index(b))
            for f, b in (one, other)
        ]
        some = self.rows["task"] == task
        seeds, accuracy = self.rows["seed"][some], self.rows["accuracy"][some]
        ahead = accuracy[:, *where[0]] - accuracy[:, *where[1]]
        return np.array([ahead[seeds == seed].mean() for seed in np.unique(seeds)])

    def has(self, *names: str) -> bool:
        """Whether all these functions and backward passes were trained.

        Parameters
        ----------
        *names
            Of functions and backward passes.
        """
        return set(names) <= {*self.spec.functions, *self.spec.backwards}

    def measure(self, name: str) -> NDArray[np.float64]:
        """Return a measure, one a function.

        Parameters
        ----------
        name
            One of ``MEASURES``.
        """
        return np.asarray(self.rows["measures"][0][:, MEASURES.index(name)])


def claims(spec: Activations, rows: Rows) -> list[Claim]:
    """Judge what the document says of activations.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a task, depth and seed.
    """
    found = Found(spec, rows)
    made = [judge(found) for needed, judge in _JUDGES if found.has(*needed)]
    made += [_monotone(found), _oscillation(found)]
    if len(found.spec.tasks) > 1:
        made.append(_some_are_better(found))
    return made + fields.claims(spec, rows)


def _less(found: Found, one: tuple[str, str], other: tuple[str, str]) -> str:
    return told(found.of(*one) - found.of(*other))


def _above(found: Found, one: tuple[str, str], other: tuple[str, str]) -> Verdict:
    apart = found.of(*one) - found.of(*other)
    sure = bool((apart > 0).all() or (apart < 0).all())
    return verdict(bool(apart.mean() > 0)) if sure else Verdict.OPEN


def _polynomials(found: Found) -> Claim:
    names = [n for n in found.spec.functions if n.startswith("polynomial")]
    said = "; ".join(f"{name} {told(found.of(name))}" for name in names)
    lower = all(
        _above(found, ("relu", "own"), (n, "own")) is Verdict.HELD for n in names
    )
    index = [found.spec.functions.index(name) for name in names]
    lost = found.rows["diverged"][:, index].any(axis=(1, 2)).mean()
    return Claim(
        "polynomials are bad activations",
        f"mean accuracy: relu {told(found.of('relu'))}; {said}; at least one training "
        f"diverged in {100 * lost:.0f} % of the jobs. Of depth k, the degree is deg^k",
        verdict(lower),
    )


def _universal(found: Found) -> Claim:
    lines = found.rows["misfit"]
    names = found.spec.functions
    # Seeds draw the units; tasks and depths repeat the same numbers.
    _, first = np.unique(found.rows["seed"], return_index=True)

    def of(name: str) -> NDArray[np.float64]:
        return np.asarray(lines[first][:, names.index(name)])

    powers = [name for name in names if name.startswith("polynomial")]
    shown = ["relu", *powers]
    said = "; ".join(
        f"{name} {', '.join(told(one, '.2g') for one in of(name).T)}" for name in shown
    )
    stuck = all((of(n)[:, -1] > 0.9 * of(n)[:, 0]).all() for n in powers)
    falls = bool((of("relu")[:, -1] < 0.1 * of("relu")[:, 0]).all())
    return Claim(
        "wide nets approximate any function, except where activations are polynomials",
        f"misfit to a wave of {', '.join(map(str, WIDTHS))} random hidden units, last "
        f"layer solved: {said}",
        verdict(stuck and falls),
    )


def _slopes(found: Found) -> Claim:
    best = np.asarray(found.rows["accuracy"][..., found.spec.backwards.index("own")])
    seeds = found.rows["seed"]
    chance = _chance(found)
    said, kinds = [], []
    for text, measure in (("largest slope", "largest"), ("no slope", "zero_share")):
        ranks = _ranks(found.measure(measure))
        each = [
            float(np.corrcoef(ranks, _ranks(best[seeds == seed].mean(axis=0)))[0, 1])
            for seed in np.unique(seeds)
        ]
        said.append(f"{text} {told(each)}")
        kinds.append(_beyond(np.negative(each), chance))
    return Claim(
        "good activations have a Jacobian that is neither too large nor too often 0",
        f"rank correlation with the accuracy over {len(found.spec.functions)} "
        f"activations, own derivative, of the {'; of the share with '.join(said)} (by "
        f"chance down to -{chance:.2g})",
        together(kinds),
    )


def _chance(found: Found) -> float:
    """Say what ranks without relation keep below, 19 times of 20 to either side."""
    return float(1.645 / np.sqrt(len(found.spec.functions) - 1))


def _beyond(values: NDArray[np.float64], chance: float) -> Verdict:
    if (values > chance).all():
        return Verdict.HELD
    return Verdict.FAILED if (values < -chance).all() else Verdict.OPEN


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import rankdata  # noqa: PLC0415 - start-up time

    return np.asarray(rankdata(values), dtype=np.float64)


def _threshold(found: Found) -> Claim:
    apart = _above(found, ("threshold", "sigmoid"), ("threshold", "own"))
    return Claim(
        "a threshold trains with the sigmoid's derivative in its backward pass",
        f"mean accuracy {told(found.of('threshold', 'sigmoid'))}; with its own, which "
        f"is zero, {told(found.of('threshold'))} (the last layer alone learns)",
        apart,
    )


def _cantor_wins(found: Found) -> Claim:
    pair = ("cantor", "identity"), ("identity", "own")
    apart = {task: found.apart(task, *pair) for task in found.spec.tasks}
    said = "; ".join(f"{task} {told(one)}" for task, one in apart.items())
    return Claim(
        "Cantor's function with the identity's backward pass beats the identity",
        f"mean accuracy {told(found.of(*pair[0]))} against {told(found.of(*pair[1]))}; "
        f"paired difference {_less(found, *pair)}; by task: {said}",
        together([above(one) for one in apart.values()]),
    )


def _perlin_loses(found: Found) -> Claim:
    pair = ("relu", "own"), ("perlin", "own")
    return Claim(
        "Perlin noise performs below ReLU",
        f"mean accuracy {told(found.of(*pair[1]))} against {told(found.of(*pair[0]))}; "
        f"ReLU ahead by {_less(found, *pair)}",
        _above(found, *pair),
    )


def _sine(found: Found) -> Claim:
    pair = ("sin", "own"), ("relu", "own")
    return Claim(
        "the sine does well",
        f"mean accuracy {told(found.of(*pair[0]))}; ahead of ReLU by "
        f"{_less(found, *pair)}, where {_BEHIND:g} behind is as well",
        above(found.of(*pair[0]) - found.of(*pair[1]), -_BEHIND),
    )


def _some_are_better(found: Found) -> Claim:
    seeds, tasks = found.rows["seed"], found.rows["task"]
    best = found.rows["accuracy"].max(axis=2)
    each = []
    for seed in np.unique(seeds):
        ranks = [
            _ranks(best[(seeds == seed) & (tasks == task)].mean(axis=0))
            for task in found.spec.tasks
        ]
        each.append(
            np.mean([np.corrcoef(a, b)[0, 1] for a, b in combinations(ranks, 2)])
        )
    return Claim(
        "some activations are generally better than others",
        "rank correlation between tasks, over "
        f"{len(found.spec.functions)} activations with their best backward pass: "
        f"{told(each)} (by chance up to {_chance(found):.2g})",
        _beyond(np.array(each), _chance(found)),
    )


def _complex(found: Found) -> Claim:
    pair = ("jeff-3", "own"), ("jeff-48", "own")
    said = "; ".join(
        f"{name} {told(found.of(name))}" for name in ("jeff-3", "jeff-12", "jeff-48")
    )
    return Claim(
        "too complex an activation hurts",
        f"mean accuracy by the number of waves: {said}",
        _above(found, *pair),
    )


def _blur(found: Found) -> Claim:
    rough = ("threshold", "cantor", "perlin", "jeff-3", "jeff-12", "jeff-48", "sin")
    names = [name for name in rough if name in found.spec.functions]
    apart = {n: found.of(n, "blurred") - found.of(n, "own") for n in names}
    said = "; ".join(f"{name} {told(gain)}" for name, gain in apart.items())
    good = [bool(gain.mean() > 0) for gain in apart.values()]
    kind = Verdict.CONDITIONS if any(good) else Verdict.FAILED
    return Claim(
        "blurring the Jacobian helps",
        f"accuracy gained by blurring, sigma {found.spec.blur:g}: {said}",
        Verdict.HELD if all(good) else kind,
    )


def _clamp(found: Found) -> Claim:
    steep = [
        name
        for name, size in zip(
            found.spec.functions, found.measure("largest"), strict=True
        )
        if size > 1.5
    ]
    apart = {n: found.of(n, "clamped") - found.of(n, "own") for n in steep}
    said = "; ".join(f"{name} {told(gain)}" for name, gain in apart.items())
    good = [bool(gain.mean() > 0) for gain in apart.values()]
    kind = Verdict.CONDITIONS if any(good) else Verdict.FAILED
    return Claim(
        "asked in the document: what about clamping a large Jacobian?",
        f"accuracy gained by clamping to -1 .. 1: {said}",
        Verdict.HELD if good and all(good) else kind,
    )


_JUDGES: Final[tuple[tuple[tuple[str, ...], Callable[[Found], Claim]], ...]] = (
    (("relu", "own", "polynomial-2"), _polynomials),
    (("relu", "polynomial-2"), _universal),
    (("own",), _slopes),
    (("threshold", "own", "sigmoid"), _threshold),
    (("cantor", "identity", "own"), _cantor_wins),
    (("relu", "perlin", "own"), _perlin_loses),
    (("sin", "relu", "own"), _sine),
    (("jeff-3", "jeff-12", "jeff-48", "own"), _complex),
    (("own", "blurred"), _blur),
    (("own", "clamped"), _clamp),
)


def _bests(found: Found) -> NDArray[np.float64]:
    """Best mean accuracy over the backward passes, ``(seed, function)``."""
    seeds = found.rows["seed"]
    return np.array(
        [
            found.rows["accuracy"][seeds == seed].mean(axis=0).max(axis=1)
            for seed in np.unique(seeds)
        ]
    )


def _monotone(found: Found) -> Claim:
    text = "monotonicity is not required"
    best, straight = _bests(found), found.measure("monotone") > 0
    if straight.all() or not straight.any():
        return Claim(text, "one kind only", Verdict.OPEN)
    names, middle = np.array(found.spec.functions), best.mean(axis=0)
    one, other = (
        int(np.flatnonzero(some)[middle[some].argmax()])
        for some in (~straight, straight)
    )
    return Claim(
        text,
        f"best that turns: {names[one]} {told(best[:, one])}; best monotone one: "
        f"{names[other]} {told(best[:, other])}; ahead by "
        f"{told(best[:, one] - best[:, other])}, where {_BEHIND:g} behind is as well",
        above(best[:, one] - best[:, other], -_BEHIND),
    )


def _oscillation(found: Found) -> Claim:
    text = "oscillating activations are good"
    turns, best = found.measure("oscillation"), _bests(found)
    groups = {
        "none": turns == 0,
        "up to one turn a unit": (turns > 0) & (turns <= 1),
        "more": turns > 1,
    }
    means = {
        name: best[:, some].mean(axis=1) for name, some in groups.items() if some.any()
    }
    said = "; ".join(
        f"{name} {told(mean)} ({groups[name].sum()})" for name, mean in means.items()
    )
    if "none" not in means or len(means) < 2:
        return Claim(text, said, Verdict.OPEN)
    ahead = [
        above(mean - means["none"]) for name, mean in means.items() if name != "none"
    ]
    return Claim(
        text, f"mean of the best accuracies, by oscillation: {said}", together(ahead)
    )


STUDY = Study(
    "A zoo of activations with forward and backward chosen apart",
    columns,
    jobs,
    measure,
    claims,
)
