"""Where losses lead: their gradients in the plane, and descents along them.

Every number comes from :mod:`labctl.training.loss`. Gradients are taken with
respect to x for all x at a target y, and with respect to y for all y at that x.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad_and_value, vmap

from labctl.protocol import LossFields
from labctl.recording.layout import Column
from labctl.studies.job import Claim, Job, Rows, Study, Values, Verdict, told, verdict
from labctl.training import loss as losses

KEPT = 41  # points of a descent that the record keeps, ends included
Figures = Callable[[str, str], NDArray[np.float64]]
_NEAR = 0.05  # of the target's norm: what counts as having reached it
_SMALL = np.geomspace(1e-3, 1e-1, 7)  # norms at which explosions are measured
_LARGE = np.geomspace(1e1, 1e3, 7)
DIMENSIONS = (2, 4, 8, 16)
_DRAWN = 50_000  # random vectors in each of these dimensions
_FAINT = 0.1  # of the gradient at a right angle: what counts as negligible


def columns(spec: LossFields) -> tuple[Column, ...]:
    """Say what every job leaves.

    Parameters
    ----------
    spec
        The study's settings.
    """
    side, grid = (spec.grid, spec.grid), ("row", "column")
    paths = (spec.starts**2, KEPT, 2)
    return (
        Column("loss", "S16", "Loss"),
        Column("a", "f8", "Exponent of gen; NaN for the others"),
        Column("target", "f8", "The fixed point", shape=(2,), dims=("axis",)),
        Column("value", "f4", "Loss of x at the target y", shape=side, dims=grid),
        Column(
            "gradient_x",
            "f4",
            "Gradient with respect to x, target y fixed",
            shape=(*side, 2),
            dims=(*grid, "axis"),
        ),
        Column(
            "gradient_y",
            "f4",
            "Gradient with respect to y, x fixed",
            shape=(*side, 2),
            dims=(*grid, "axis"),
        ),
        Column(
            "paths",
            "f4",
            "Descents on x, every so many steps",
            shape=paths,
            dims=("start", "point", "axis"),
        ),
        Column(
            "near_opposite",
            "f8",
            "Share of random x so close to opposite y that the gradient of x is below "
            "a tenth of that at a right angle, in "
            f"{', '.join(map(str, DIMENSIONS))} dimensions",
            shape=(len(DIMENSIONS),),
            dims=("dimension",),
        ),
        *(Column(name, "f8", text) for name, text in _FIGURES.items()),
    )


_FIGURES = {
    "zero_share": "Share of the grid where the gradient of x is zero",
    "straight": "Mean cosine between minus the gradient of x and y - x",
    "radial": "Mean size of the cosine between the gradient of x and x",
    "across": "Mean share of the gradient of x that is orthogonal to y",
    "y_blind": "Relative change of the gradient of x when y is tripled",
    "slope_x": "Exponent of the gradient of x over the norm of x, towards 0",
    "slope_y": "Exponent of the gradient of y over the norm of y, towards 0",
    "slope_far": "Exponent of the gradient of y over the norm of y, far away",
    "opposite": "Gradient of x .01 rad beside opposite, over that at a right angle",
    "late_distance": "Median distance to y in the last fifth of the steps, over |y|",
    "norm_change": "Median change of the norm of x by the descent, relative",
    "run_off": "Of dot: median <x, y>/<y, y> after the same descent on 1 minus it",
}


def jobs(spec: LossFields, seeds: Sequence[int]) -> list[Job]:
    """List the jobs: one a loss and seed.

    Parameters
    ----------
    spec
        The study's settings.
    seeds
        Each draws a target.
    """
    kinds = [(name, a) for name in spec.losses for a in _exponents(spec, name)]
    return [
        Job(f"{_title(name, a)} seed {seed}", seed, {"loss": name, "a": a})
        for seed in seeds
        for name, a in kinds
    ]


def _exponents(spec: LossFields, name: str) -> tuple[float, ...]:
    return spec.a if name == "gen" else (float("nan"),)


def _title(name: str, a: float) -> str:
    return f"gen({a:g})" if name == "gen" else name


@dataclass(frozen=True, eq=False)
class Field:
    """A loss as a function of single vectors.

    Parameters
    ----------
    loss
        From :mod:`labctl.training.loss`.
    """

    loss: losses.Loss

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return gradients of x and y and the loss, vector by vector.

        Parameters
        ----------
        x, y
            Vectors and targets, ``[point, 2]``.
        """

        def one(x: Tensor, y: Tensor) -> Tensor:
            # Each vector is a batch of its own: log losses take the mean inside.
            return self.loss(x[None], y[None])

        (gx, gy), value = vmap(grad_and_value(one, argnums=(0, 1)))(x, y)
        return gx, gy, value

    def size(self, x: Tensor, y: Tensor) -> tuple[NDArray[np.float64], ...]:
        """Return the norms of both gradients.

        Parameters
        ----------
        x, y
            Vectors and targets, ``[point, 2]``.
        """
        gx, gy, _ = self(x, y)
        return gx.norm(dim=1).numpy(), gy.norm(dim=1).numpy()


def measure(spec: LossFields, job: Job) -> Values:
    """Draw the fields of one loss around one target, and descend along them.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Which loss and seed.
    """
    name, a = job.settings["loss"], float(job.settings["a"])
    field = Field(losses.named(name, 1.0 if name != "gen" else a))
    target = _target(job.seed, spec.reach)
    points = _grid(spec.grid, spec.reach)
    fixed = target.expand_as(points)
    gx, _, value = field(points, fixed)
    _, gy, _ = field(fixed, points)
    paths, late = _descend(field, spec, target)
    reached = (paths[:, -1] - target).norm(dim=1) < _NEAR * target.norm()
    side = (spec.grid, spec.grid)
    return {
        "score": float(reached.double().mean()),
        "loss": name,
        "a": a,
        "target": target.numpy(),
        "value": value.reshape(side).numpy(),
        "gradient_x": gx.reshape(*side, 2).numpy(),
        "gradient_y": gy.reshape(*side, 2).numpy(),
        "paths": paths.numpy()[:, np.linspace(0, spec.steps, KEPT).round().astype(int)],
        "late_distance": late,
        "norm_change": float(
            (paths[:, -1].norm(dim=1) / paths[:, 0].norm(dim=1) - 1).median()
        ),
        "run_off": _run_off(spec, target) if name == "dot" else float("nan"),
        "near_opposite": _near_opposite(field, job.seed),
        **_shape(points, target, gx),
        **_limits(field, target),
    }


def _target(seed: int, reach: float) -> Tensor:
    """Draw a target between a quarter and a half of the reach from the middle."""
    rng = np.random.default_rng([seed, 1])
    angle, norm = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.5) * reach
    return torch.tensor([norm * np.cos(angle), norm * np.sin(angle)])


def _grid(count: int, reach: float) -> Tensor:
    """Points of a square, ``[row * column, 2]``: rows along y, columns along x."""
    line = torch.linspace(-reach, reach, count, dtype=torch.float64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def _descend(field: Field, spec: LossFields, target: Tensor) -> tuple[Tensor, float]:
    """Plain gradient descent: every point of every path, and the late distance."""
    x = _grid(spec.starts, 0.9 * spec.reach)
    fixed = target.expand_as(x)
    path = [x]
    for _ in range(spec.steps):
        x = x - spec.step_size * field(x, fixed)[0]
        path.append(x)
    paths = torch.stack(path, dim=1)
    last = paths[:, -max(1, spec.steps // 5) :]
    late = (last - target).norm(dim=2).median() / target.norm()
    return paths, float(late)


def _run_off(spec: LossFields, target: Tensor) -> float:
    """Descend on ``1 - <x, y>/<y, y>``: where the similarity ends, in the median."""
    plain = Field(lambda x, y: (1 - losses.dot_similarity(x, y)).mean())
    paths, _ = _descend(plain, spec, target)
    last = paths[:, -1]
    ends = losses.dot_similarity(last, target.expand_as(last))
    return float(np.median(ends.numpy()))


def _near_opposite(field: Field, seed: int) -> NDArray[np.float64]:
    """How often random vectors have next to no gradient, by dimension."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for count in DIMENSIONS:
        x = torch.randn(_DRAWN, count, generator=rng, dtype=torch.float64)
        x = x / x.norm(dim=1, keepdim=True)
        y = torch.zeros(count, dtype=torch.float64)
        y[0] = 1.0
        across = y.roll(1)[None]
        full, _ = field.size(across, y[None])
        size, _ = field.size(x, y.expand_as(x))
        found.append(float(((size < _FAINT * full) & (x[:, 0] < 0).numpy()).mean()))
    return np.array(found)


def _shape(points: Tensor, target: Tensor, gx: Tensor) -> dict[str, float]:
    norm = gx.norm(dim=1)
    some = (norm > 0) & (points.norm(dim=1) > 0)
    there = (points - target).norm(dim=1) > 0
    unit = gx[some & there] / norm[some & there, None]
    at = points[some & there]
    cosine = torch.nn.functional.cosine_similarity
    across = torch.stack([-target[1], target[0]]) / target.norm()
    nothing = float("nan")
    return {
        "zero_share": float((norm == 0).double().mean()),
        "straight": float(cosine(-unit, target - at).mean()) if len(at) else nothing,
        "radial": float(cosine(unit, at).abs().mean()) if len(at) else nothing,
        "across": float((unit @ across).abs().mean()) if len(at) else nothing,
    }


def _limits(field: Field, target: Tensor) -> dict[str, float]:
    turned = _turn(target, 1.0)
    away = turned[None] / turned.norm()
    small, large = torch.from_numpy(_SMALL), torch.from_numpy(_LARGE)
    near_x, _ = field.size(small[:, None] * away, target.expand(len(small), 2))
    # x a little aside of y, so that no gradient vanishes by symmetry.
    fixed = turned.expand(len(small), 2)
    unit = target[None] / target.norm()
    _, near_y = field.size(fixed, small[:, None] * unit)
    _, far_y = field.size(fixed, large[:, None] * unit)
    beside = torch.stack([_turn(target, np.pi - 0.01), _turn(target, np.pi / 2)])
    sides, _ = field.size(beside, target.expand(2, 2))
    around = torch.stack([_turn(target, angle) for angle in (0.3, 1.1, 2.2, -0.7)])
    once, _, _ = field(around, target.expand_as(around))
    tripled, _, _ = field(around, 3 * target.expand_as(around))
    blind = (once - tripled).norm() / once.norm() if once.norm() else torch.tensor(0.0)
    return {
        "slope_x": _exponent(_SMALL, near_x),
        "slope_y": _exponent(_SMALL, near_y),
        "slope_far": _exponent(_LARGE, far_y),
        "opposite": float(sides[0] / sides[1]) if sides[1] else float("nan"),
        "y_blind": float(blind),
    }


def _turn(vector: Tensor, angle: float) -> Tensor:
    c, s = float(np.cos(angle)), float(np.sin(angle))
    return torch.stack([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1]])


def _exponent(norms: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    if not (sizes > 0).all():
        return float("nan")
    return float(np.polyfit(np.log(norms), np.log(sizes), 1)[0])


# ---- claims -------------------------------------------------------------------


def claims(spec: LossFields, rows: Rows) -> list[Claim]:
    """Judge what the document says of each loss that was measured.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a job.
    """
    del spec

    def of(name: str, figure: str) -> NDArray[np.float64]:
        return np.asarray(rows[figure][rows["loss"] == name], dtype=np.float64)

    found: list[Claim] = []
    there = set(rows["loss"].tolist())
    for needed, judge in _JUDGES:
        if needed <= there:
            found.append(judge(of))
    return found


def _sign(of: Figures) -> Claim:
    zero = of("sign", "zero_share")
    return Claim(
        "sign as written: lowest where signs disagree, gradient zero almost everywhere",
        f"gradient zero on {told(100 * zero)} % of the grid; the loss is 0 where all "
        "signs agree and -2 a component where they do not",
        verdict(bool((zero > 0.99).all())),
    )


def _mse(of: Figures) -> Claim:
    straight = of("mse", "straight")
    return Claim(
        "mse: following the gradient leads x straight toward y",
        f"cosine between the way down and y - x: {told(straight, '.6f')}",
        verdict(bool((straight > 0.999).all())),
    )


def _log_mse(of: Figures) -> Claim:
    calm, log = of("mse", "late_distance"), of("log-mse", "late_distance")
    return Claim(
        "log mse overshoots through the optimum instead of converging calmly",
        f"same steps: median late distance to y, over |y|: log-mse {told(log)}, mse "
        f"{told(calm)}",
        verdict(bool((log > 2 * calm).all())),
    )


def _log_cos(of: Figures) -> Claim:
    plain, log = of("cos", "norm_change"), of("log-cos", "norm_change")
    return Claim(
        "log cos overshoots as log mse does",
        "its steps throw x outwards: median change of |x|: log-cos "
        f"{told(100 * log)} %, cos {told(100 * plain)} %",
        verdict(bool((log > plain).all())),
    )


def _cos_blind(of: Figures) -> Claim:
    blind = of("cos", "y_blind")
    return Claim(
        "cos: the field does not depend on |y|",
        f"relative change of the gradient when y is tripled: {told(blind, '.1e')}",
        verdict(bool((blind < 1e-9).all())),
    )


def _cos_explodes(of: Figures) -> Claim:
    slope = of("cos", "slope_x")
    return Claim(
        "cos: the gradient explodes as x comes close to 0",
        f"gradient ~ |x|^k with k = {told(slope)}",
        verdict(bool((slope < -0.9).all())),
    )


def _cos_circles(of: Figures) -> Claim:
    radial, change = of("cos", "radial"), of("cos", "norm_change")
    return Claim(
        "cos: paths are circles; depending on the algorithm the norm of x is kept",
        f"the gradient is orthogonal to x (|cosine| {told(radial, '.1e')}), so the "
        "flow keeps |x|; finite steps leave the circle outwards, by "
        f"{told(100 * change)} % in the median here",
        Verdict.CONDITIONS if (radial < 1e-6).all() else Verdict.FAILED,
    )


def _cos_opposite(of: Figures) -> Claim:
    share = of("cos", "opposite")
    return Claim(
        "cos: the gradient is negligible where x is opposite to y",
        f".01 rad beside opposite it is {told(share)} of that at a right angle",
        verdict(bool((share < 0.02).all())),
    )


def _cos_unlikely(of: Figures) -> Claim:
    share = of("cos", "near_opposite")
    said = "; ".join(
        f"{count} dimensions: {told(100 * one)} %"
        for count, one in zip(DIMENSIONS, share.T, strict=True)
    )
    falls = bool((np.diff(share, axis=1) <= 0).all() and (share[:, -1] < 1e-3).all())
    return Claim(
        "cos: being opposite to y is very unlikely in many dimensions",
        f"random x whose gradient is below {_FAINT:g} of that at a right angle: {said}",
        verdict(falls),
    )


def _dot_length(of: Figures) -> Claim:
    length, ends = of("dot", "run_off"), of("dot", "late_distance")
    return Claim(
        "1 - <x, y>/<y, y> rewards a length that does not fit; mse(1, <x, y>/<y, y>) "
        "prevents it",
        f"<x, y>/<y, y>, 1 where x fits, after the same descent on 1 minus it: "
        f"{told(length)}; with mse the distance to y stays {told(ends)} |y|, across y",
        verdict(bool((length > 2).all() and np.isfinite(ends).all())),
    )


def _dot_across(of: Figures) -> Claim:
    across, reached = of("dot", "across"), of("dot", "score")
    return Claim(
        "dot: the part of x that is orthogonal to y does not count",
        f"share of the gradient across y: {told(across, '.1e')}; "
        f"{told(100 * reached)} % of the descents reach y itself",
        verdict(bool((across < 1e-6).all())),
    )


def _dot_explodes(of: Figures) -> Claim:
    near, far = of("dot", "slope_y"), of("dot", "slope_far")
    return Claim(
        "dot: the gradient explodes as |y| -> 0 and vanishes as |y| -> infinity",
        f"gradient of y ~ |y|^k with k = {told(near)} near 0 and {told(far)} far away",
        verdict(bool((near < 0).all() and (far < 0).all())),
    )


def _dot_norm(of: Figures) -> Claim:
    near, across = of("dot-norm", "slope_y"), of("dot-norm", "across")
    dot = of("dot", "slope_y")
    return Claim(
        "to be done in the document: is mse(|y|, <x, y>/|y|) better than dot?",
        f"near 0 the gradient of y goes as |y|^k with k = {told(near)}, of dot with "
        f"{told(dot)}: milder, but it still explodes, and what is orthogonal to y "
        f"still does not count (share {told(across, '.1e')})",
        Verdict.CONDITIONS if (near > dot + 1).all() else Verdict.FAILED,
    )


def _gen(of: Figures) -> Claim:
    del of
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 64, 2, 3, generator=rng, dtype=torch.float64)
    pairs = zip(x, y, strict=True)
    apart = [
        (
            float(abs(losses.gen(0.0)(a, b) - losses.dot(a, b)) / losses.dot(a, b)),
            float(
                abs(losses.gen(1.0)(a[:1], b[:1]) - losses.cos(a[:1], b[:1]).square())
            ),
        )
        for a, b in pairs
    ]
    dot, cos = np.array(apart).max(axis=0)
    return Claim(
        "gen(a) generalises dot (a = 0) and cos (a = 1)",
        f"gen(0) is dot to {dot:.0e}; gen(1) is the square of cos to {cos:.0e}: the "
        "same minima, another steepness",
        verdict(bool(max(dot, cos) < 1e-9)),
    )


def _single(sum_of: str, parts: tuple[str, ...], of: Figures) -> Claim:
    mine = of(sum_of, "score")
    alone = {part: of(part, "score") for part in parts}
    said = ", ".join(f"{part} {told(100 * share)} %" for part, share in alone.items())
    better = all((mine > share).all() for share in alone.values() if len(share))
    full = bool((mine > 0.9).all())
    return Claim(
        f"{sum_of}: the gradient falls into a single point",
        f"descents that end at y: {sum_of} {told(100 * mine)} %, {said}",
        verdict(better and full) if full or not better else Verdict.CONDITIONS,
    )


def _cos_mse(of: Figures) -> Claim:
    return _single("cos+mse", ("cos",), of)


def _cos_dot(of: Figures) -> Claim:
    return _single("cos+dot", ("cos", "dot"), of)


_JUDGES = (
    ({"sign"}, _sign),
    ({"mse"}, _mse),
    ({"mse", "log-mse"}, _log_mse),
    ({"cos", "log-cos"}, _log_cos),
    ({"cos"}, _cos_blind),
    ({"cos"}, _cos_explodes),
    ({"cos"}, _cos_circles),
    ({"cos"}, _cos_opposite),
    ({"cos"}, _cos_unlikely),
    ({"dot"}, _dot_length),
    ({"dot"}, _dot_across),
    ({"dot"}, _dot_explodes),
    ({"dot", "dot-norm"}, _dot_norm),
    ({"gen"}, _gen),
    ({"cos", "cos+mse"}, _cos_mse),
    ({"cos", "dot", "cos+dot"}, _cos_dot),
)
STUDY = Study(
    "Gradient fields of the losses in the plane, and descents along them",
    columns,
    jobs,
    measure,
    claims,
)
