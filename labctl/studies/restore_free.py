"""Restore a backward pass without its structure: surrogates, starts and their cost.

``dense`` and ``log-lin-exp`` are fitted to relation (1) of ``f(x) = A x`` and of
``f(x, theta) = theta x``, at equal numbers of parameters: over the dimension, over
their parameters, over the probes that they have, and up to the largest dimension whose
gradient they find.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from labctl.protocol import RestoreJacobian
from labctl.recording.layout import Column
from labctl.studies.job import Claim, Job, Rows, Verdict, above, together, told, verdict
from labctl.training.interval import bootstrap
from labctl.training.surrogate.build import build
from labctl.training.surrogate.fit import Fitter
from labctl.training.surrogate.settings import FitTerm, Ports, SurrogateSettings

MARKS: Final = 25
"""Moments that the record keeps, the start included."""
METHODS: Final = ("dense", "log-lin-exp")
GOAL: Final = 0.99
"""Cosine at which a gradient counts as found."""
FAILED: Final = 0.5
"""Cosine below which a fit counts as failed."""
_HELD: Final = 256  # operating points that no fit has seen
_GOOD: Final = 0.9  # cosine that is near enough to count parameters by
_SIZE: Final = 0.1  # of perturbations; f is linear in each of its inputs
_GROUP: Final = 2  # probes at an operating point


@dataclass(frozen=True)
class Task:
    """One fit: which device, which surrogate, and what it may cost.

    Parameters
    ----------
    part
        ``linear`` or ``product``.
    method
        Surrogate.
    dim
        Dimension of x and of y.
    share
        Monomials, as a share of all products of a cotangent and an input.
    probes
        Perturbations that are measured.
    steps
        Fit steps.
    """

    part: str
    method: str
    dim: int
    share: float
    probes: int
    steps: int

    @property
    def pixels(self) -> int:
        """Inputs of the device."""
        return self.dim if self.part == "linear" else self.dim + self.dim**2

    def monomials(self, most: int) -> int:
        """Count the monomials of ``log-lin-exp``.

        Parameters
        ----------
        most
            However large the device is.
        """
        every = self.dim * (self.pixels + 1)
        return max(1, round(self.share * min(every, most)))

    def width(self, most: int) -> int:
        """Say how wide the surrogate is, both methods with as many parameters.

        Parameters
        ----------
        most
            Monomials, however large the device is.
        """
        monomials = self.monomials(most)
        if self.method != "dense":
            return monomials
        inputs, outputs = self.dim + self.pixels, self.pixels
        wanted = 2 * monomials * (inputs + outputs) + outputs
        # width^2 + (inputs + outputs + 2) width + outputs = wanted, for two layers.
        half = (inputs + outputs + 2) / 2
        return max(1, round(math.sqrt(half**2 + wanted - outputs) - half))


def columns(spec: RestoreJacobian) -> tuple[Column, ...]:
    """Say what fits without structure leave beside those with it.

    Parameters
    ----------
    spec
        The study's settings.
    """
    starts, axis = (spec.starts,), ("start",)
    return (
        Column("axis", "S16", "dimension, parameters, probes or reach; else none"),
        Column("share", "f8", "Monomials as a share of those that could be needed"),
        Column("width", "i8", "Width of the surrogate; 0 with structure"),
        Column("parameters", "i8", "Numbers that are fitted"),
        Column("probes", "i8", "Perturbations that were used"),
        Column(
            "seconds",
            "f8",
            "Processor time of the fit so far, its other starts included",
            units="s",
            shape=(MARKS,),
            dims=("mark",),
        ),
        Column(
            "start_cosine",
            "f8",
            "Cosine of each start when the best was chosen; NaN where none was needed",
            shape=starts,
            dims=axis,
        ),
        Column(
            "start_loss",
            "f8",
            "Loss on held-out relations then, by which it was chosen",
            shape=starts,
            dims=axis,
        ),
        Column(
            "reach_s",
            "f8",
            "Processor time until a cosine of .99, by dimension; NaN for never",
            units="s",
            shape=(len(spec.reach),),
            dims=("reached",),
        ),
        Column("digital_s", "f8", "Processor time of all fits of the job", units="s"),
        Column("reached", "i8", "Largest dimension that arrived; 0 none, -1 not asked"),
    )


def jobs(spec: RestoreJacobian, seed: int) -> Iterator[Job]:
    """List the fits without structure.

    Parameters
    ----------
    spec
        The study's settings.
    seed
        Draws a device, probes and starts.

    Yields
    ------
    job
        For both methods in turn.
    """
    usual = {"share": 1.0, "probes": spec.probes}
    for part, dims in (("linear", spec.linear), ("product", spec.product)):
        for dim in dims:
            yield from _both(part, "dimension", seed, {"dim": dim, **usual})
    at = {"dim": spec.axes_dim, **usual}
    # The axes of parameters and of probes meet where both are as elsewhere.
    for share in sorted({*spec.shares, 1.0}):
        yield from _both("product", "parameters", seed, {**at, "share": share})
    for probes in sorted({*spec.probe_counts, spec.probes}):
        yield from _both("product", "probes", seed, {**at, "probes": probes})
    yield from _both("product", "reach", seed, {**usual, "dim": max(spec.reach)})


def _both(part: str, axis: str, seed: int, cost: dict[str, Any]) -> Iterator[Job]:
    for method in METHODS:
        dim, share, probes = cost["dim"], cost["share"], cost["probes"]
        text = {"parameters": f" share {share:g}", "probes": f" probes {probes}"}
        name = f"{part} {method} {axis} dim {dim}{text.get(axis, '')} seed {seed}"
        settings = {"part": part, "method": method, "directions": "random"}
        yield Job(name, seed, {**settings, "axis": axis, **cost})


def measure(spec: RestoreJacobian, job: Job) -> dict[str, Any]:
    """Fit a surrogate, or climb through the dimensions as far as it gets.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Which, and its seed.
    """
    said, reach = job.settings, np.full(len(spec.reach), np.nan)
    task = Task(
        said["part"],
        said["method"],
        said["dim"],
        said["share"],
        said["probes"],
        spec.fit_steps,
    )
    if said["axis"] != "reach":
        found = _fit(spec, task, job.seed)
        spent = found["seconds"][-1]
        return {**found, "reach_s": reach, "reached": -1, "digital_s": spent}
    reached, spent, found = 0, 0.0, {}
    for number, dim in enumerate(spec.reach):
        climb = replace(task, dim=dim, steps=spec.reach_steps)
        found = _fit(spec, climb, job.seed, goal=GOAL)
        spent += found["seconds"][-1]
        if found["cosine"][-1] < GOAL:
            break
        reached, reach[number] = dim, found["seconds"][-1]
    return {**found, "reach_s": reach, "reached": reached, "digital_s": spent}


# ---- one fit ---------------------------------------------------------------------


class _Start:
    """A surrogate on its way from one start.

    Parameters
    ----------
    fitter
        Has the probes already.
    held
        What no fit has seen.
    """

    def __init__(self, fitter: Fitter, held: "_Held") -> None:
        self._fitter, self._held = fitter, held
        self.seconds, self._steps = 0.0, 0
        self.rows: list[tuple[float, ...]] = []
        self._note()

    def go(self, steps: int) -> None:
        """Take fit steps, and look.

        Parameters
        ----------
        steps
            Fit steps.
        """
        begun = time.process_time()
        self._fitter.step(steps)
        self.seconds += time.process_time() - begun
        self._steps += steps
        self._note()

    def has(self, goal: float) -> bool:
        """Whether the cosine is as high as this.

        Parameters
        ----------
        goal
            Cosine.
        """
        return self.rows[-1][0] >= goal

    def _note(self) -> None:
        cosine, loss, signs = self._held.look(self._fitter)
        self.rows.append((cosine, loss, signs, self._steps, self.seconds))


class _Held:
    """Operating points that no fit has seen, and the truth there.

    Parameters
    ----------
    device
        Whose gradient is wanted.
    task
        Its sizes.
    rng
        Where they come from.
    """

    def __init__(self, device: "Device", task: Task, rng: Generator) -> None:
        self._alpha = torch.randn(_HELD, task.pixels, generator=rng)
        self._cotangent = torch.randn(_HELD, task.dim, generator=rng)
        d_alpha = _SIZE * torch.randn(_HELD, _GROUP, task.pixels, generator=rng)
        d_f = _responses(device, self._alpha, d_alpha)
        self._d_alpha = d_alpha
        self._target = (d_f @ self._cotangent[:, :, None])[..., 0]
        self._known = _gradient(device, self._alpha, self._cotangent)

    def look(self, fitter: Fitter) -> tuple[float, float, float]:
        """Return cosine, loss on relations and share of right signs.

        Parameters
        ----------
        fitter
            Whose surrogate answers. One that is no longer finite has the cosine 0 and
            an infinite loss.
        """
        with torch.no_grad():
            found = fitter.answering.vjp(self._cotangent, self._alpha)
        if not torch.isfinite(found).all():
            return 0.0, float("inf"), 0.0
        same = torch.nn.functional.cosine_similarity(found, self._known, dim=1)
        signs = (torch.sign(found) == torch.sign(self._known)).double().mean()
        answer = (self._d_alpha @ found[:, :, None])[..., 0]
        loss = (answer - self._target).square().mean() / self._target.square().mean()
        return float(same.mean()), float(loss), float(signs)


def _fit(
    spec: RestoreJacobian, task: Task, seed: int, goal: float = 2.0
) -> dict[str, Any]:
    """Fit from every start up to where they are judged, and the best to the end.

    A start that comes to the goal is the last: a climb asks whether one does.
    """
    rng = torch.Generator().manual_seed(seed)
    device = _linear(task.dim, rng) if task.part == "linear" else _product(task.dim)
    held = _Held(device, task, rng)
    groups = max(1, task.probes // _GROUP)
    alpha = torch.randn(groups, task.pixels, generator=rng)
    d_alpha = _SIZE * torch.randn(groups, _GROUP, task.pixels, generator=rng)
    probes = alpha, d_alpha, _responses(device, alpha, d_alpha)
    each = max(1, task.steps // (MARKS - 1))
    judged = max(1, round(spec.judged * (MARKS - 1)))
    starts, parameters = [], 0
    for number in range(spec.starts):
        rate = spec.rates[number % len(spec.rates)]
        settings = _settings(task, task.width(spec.width), rate)
        ports = Ports(task.pixels, task.dim, circular=False)
        model = build(settings, ports, rng)
        parameters = sum(part.numel() for part in model.parameters())
        fitter = Fitter(model, settings, rng)
        fitter.observe_probes(*probes)
        starts.append(_Start(fitter, held))
        while len(starts[-1].rows) <= judged and not starts[-1].has(goal):
            starts[-1].go(each)
        if starts[-1].has(goal):
            break
    # By what can be known without the truth.
    best = min(starts, key=lambda start: (not start.has(goal), start.rows[-1][1]))
    chosen = np.full((spec.starts, 2), np.nan)
    chosen[: len(starts)] = [start.rows[-1][:2] for start in starts]
    others = sum(start.seconds for start in starts if start is not best)
    while len(best.rows) < MARKS and not best.has(goal):
        best.go(each)
    # One that has arrived stays where it is.
    rows = np.array(best.rows + best.rows[-1:] * (MARKS - len(best.rows)))
    return {
        "dim": task.dim,
        "share": task.share,
        "width": task.width(spec.width),
        "parameters": parameters,
        "probes": groups * _GROUP,
        "cosine": rows[:, 0],
        "loss": rows[:, 1],
        "signs": rows[:, 2],
        "steps": rows[:, 3],
        "seconds": rows[:, 4] + others,
        "start_cosine": chosen[:, 0],
        "start_loss": chosen[:, 1],
    }


def _settings(task: Task, width: int, rate: float) -> SurrogateSettings:
    return SurrogateSettings(
        name="dense" if task.method == "dense" else "log-lin-exp",
        width=width,
        depth=2,
        loss=(FitTerm("mse"),),
        fit_batch=256,
        learning_rate=rate,
        average=0.99,
    )


Device = Callable[[Tensor], Tensor]


def _linear(dim: int, rng: Generator) -> Device:
    matrix = torch.randn(dim, dim, generator=rng) / dim**0.5
    return lambda alpha: alpha @ matrix.T


def _product(dim: int) -> Device:
    def device(alpha: Tensor) -> Tensor:
        x, theta = alpha[..., :dim], alpha[..., dim:]
        matrix = theta.reshape(*theta.shape[:-1], dim, dim)
        return torch.einsum("...ij,...j->...i", matrix, x)

    return device


def _responses(device: Device, alpha: Tensor, d_alpha: Tensor) -> Tensor:
    half = d_alpha / 2
    return device(alpha[:, None] + half) - device(alpha[:, None] - half)


def _gradient(device: Device, alpha: Tensor, cotangent: Tensor) -> Tensor:
    leaf = alpha.clone().requires_grad_()
    (found,) = torch.autograd.grad(device(leaf), leaf, cotangent)
    return found


# ---- claims ----------------------------------------------------------------------


def of(rows: Rows, column: str, **wanted: object) -> NDArray[np.float64]:
    """Return the rows of a column where others have these values, by seed.

    Parameters
    ----------
    rows
        Of all jobs.
    column
        Which.
    **wanted
        Values of other columns.
    """
    some = np.ones(len(rows["seed"]), dtype=bool)
    for key, value in wanted.items():
        some &= rows[key] == value
    order = np.argsort(rows["seed"][some], kind="stable")
    return np.asarray(rows[column][some][order], dtype=np.float64)


def claims(spec: RestoreJacobian, rows: Rows) -> list[Claim]:
    """Judge what the document says of surrogates without structure.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a job.
    """
    return [
        _against("f(x) = A x", "linear", spec.linear, rows),
        _against("f(x, theta) = theta x", "product", spec.product, rows),
        _parameters(spec, rows),
        _probes(spec, rows),
        _reach(spec, rows),
        _cheaper(rows),
    ]


def _pairs(
    rows: Rows, key: str, values: Sequence[float], **wanted: object
) -> tuple[str, list[Verdict]]:
    """Say both methods at several places, and whether log-lin-exp is ahead there."""
    said, kinds = [], []
    for value in values:
        dense, product = (
            of(rows, "score", method=method, **{key: value}, **wanted)
            for method in METHODS
        )
        ahead = told(product - dense, ".2f")
        said.append(f"{value:g}: {dense.mean():.2f}, {product.mean():.2f} ({ahead})")
        kinds.append(above(product - dense))
    return "; ".join(said), kinds


def _against(name: str, part: str, dims: Sequence[int], rows: Rows) -> Claim:
    said, kinds = _pairs(rows, "dim", dims, part=part, axis="dimension")
    failures = [
        int((of(rows, "score", method=m, part=part, axis="dimension") < FAILED).sum())
        for m in METHODS
    ]
    return Claim(
        f"log-lin-exp does better than a deep fully connected net on {name}",
        "cosine of the gradient by dimension, equally many parameters: dense, "
        f"log-lin-exp (difference): {said}; failures (below {FAILED:g}): {failures[0]} "
        f"and {failures[1]}",
        together(kinds),
    )


def _parameters(spec: RestoreJacobian, rows: Rows) -> Claim:
    shares = sorted({*spec.shares, 1.0})
    said, kinds = _pairs(rows, "share", shares, axis="parameters")
    counts = ", ".join(
        f"{of(rows, 'parameters', share=share, axis='parameters')[0]:.0f}"
        for share in shares
    )
    return Claim(
        "asked in the study: does log-lin-exp do with fewer parameters?",
        f"cosine on theta x of dimension {spec.axes_dim} by monomials, as a share of "
        f"all that could be needed ({counts} parameters): dense, log-lin-exp "
        f"(difference): {said}",
        together(kinds),
    )


def _probes(spec: RestoreJacobian, rows: Rows) -> Claim:
    counts = sorted({*spec.probe_counts, spec.probes})
    counts = [count // _GROUP * _GROUP for count in counts]
    said, kinds = _pairs(rows, "probes", counts, axis="probes")
    return Claim(
        "asked in the study: does log-lin-exp do with fewer probes?",
        f"cosine on theta x of dimension {spec.axes_dim} by probes: dense, log-lin-exp "
        f"(difference): {said}",
        together(kinds),
    )


def _reach(spec: RestoreJacobian, rows: Rows) -> Claim:
    dense, product = (
        of(rows, "reached", method=method, axis="reach") for method in METHODS
    )
    spent = [
        f"{told(of(rows, 'digital_s', method=method, axis='reach'))} s"
        for method in METHODS
    ]
    return Claim(
        "asked in the study: up to which dimension is the gradient of theta x found?",
        f"largest of {', '.join(map(str, spec.reach))} with a cosine of {GOAL:g} "
        f"within {spec.reach_steps} fit steps: dense {told(dense)}, log-lin-exp "
        f"{told(product)}; the climbs took {spent[0]} and {spent[1]} of processor "
        "time. Held where log-lin-exp gets further",
        above(product - dense),
    )


def _cheaper(rows: Rows) -> Claim:
    text = "a learned backward pass is cheaper than a full model of the Jacobian"
    free = np.isin(rows["axis"], ("dimension", "parameters"))
    found = []
    keys = ("part", "method", "dim", "share")
    for key in sorted({tuple(rows[k][n] for k in keys) for n in np.flatnonzero(free)}):
        some = free & np.all([rows[k] == v for k, v in zip(keys, key, strict=True)], 0)
        low, _ = bootstrap(rows["score"][some].tolist())
        if low > _GOOD:
            dim = int(key[2])
            pixels = dim if key[0] == "linear" else dim + dim**2
            found.append((rows["parameters"][some][0] / (dim * pixels), key))
    if not found:
        return Claim(text, f"no fit comes to a cosine of {_GOOD:g}", Verdict.OPEN)
    ratio, (part, method, dim, _) = min(found)
    return Claim(
        text,
        f"fewest parameters with a cosine above {_GOOD:g}, over the numbers of the "
        f"Jacobian at one operating point: {ratio:.3g} ({method}, {part}, dimension "
        f"{dim})",
        verdict(ratio < 1),
    )
