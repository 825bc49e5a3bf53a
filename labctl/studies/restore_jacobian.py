"""Restore a Jacobian from scalar relations: ``g(grad_y) . d_alpha ~ grad_y . d_f``.

With the structure given, g is an explicit matrix and the study watches it become the
true one. Without it, two surrogates of the training are fitted to the same relation:
``dense`` and ``log-lin-exp``, on ``f(x) = A x`` and on ``f(x, theta) = theta x``.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from labctl.protocol import RestoreJacobian
from labctl.recording.layout import Column
from labctl.studies.job import Claim, Job, Rows, Study, Values, Verdict, told, verdict
from labctl.training import loss as losses
from labctl.training.surrogate.build import build
from labctl.training.surrogate.fit import Fitter
from labctl.training.surrogate.settings import FitTerm, Ports, SurrogateSettings

MARKS = 25  # moments that the record keeps, the start included
FRAMES = 5  # of them with the whole matrix
_BATCH = 16  # operating points of a mini-batch; each has its own cotangent
_HELD = 256  # relations that the loss is measured on
_SIZE = 0.1  # of perturbations; f is linear, so it does not matter


def columns(spec: RestoreJacobian) -> tuple[Column, ...]:
    """Say what every job leaves.

    Parameters
    ----------
    spec
        The study's settings.
    """
    side = max(spec.dims)
    curve, axis = (MARKS,), ("mark",)
    return (
        Column("part", "S16", "structured, linear (f = A x) or product (theta x)"),
        Column("method", "S16", "Loss, or surrogate"),
        Column("directions", "S16", "coordinates, or random directions"),
        Column("dim", "i8", "Dimension of x and of y"),
        Column("cosine", "f8", "Cosine with the truth", shape=curve, dims=axis),
        Column("loss", "f8", "Loss on held-out relations", shape=curve, dims=axis),
        Column("signs", "f8", "Share of right signs", shape=curve, dims=axis),
        Column("steps", "f8", "Fit steps so far", shape=curve, dims=axis),
        Column(
            "matrix",
            "f4",
            "Restored Jacobian; NaN beyond its size and without structure",
            shape=(FRAMES, side, side),
            dims=("frame", "row", "column"),
        ),
        Column(
            "truth",
            "f4",
            "True Jacobian",
            shape=(side, side),
            dims=("row", "column"),
        ),
        Column("contrary", "f8", "Share of marks where the loss rose and signs too"),
    )


def jobs(spec: RestoreJacobian, seeds: Sequence[int]) -> list[Job]:
    """List the jobs of both halves.

    Parameters
    ----------
    spec
        The study's settings.
    seeds
        Each draws a matrix and a start.
    """
    found = []
    for seed in seeds:
        for dim in spec.dims:
            for loss in spec.losses:
                found += [
                    _job("structured", loss, kind, dim, seed)
                    for kind in ("coordinates", "random")
                ]
        for part, dims in (("linear", spec.linear), ("product", spec.product)):
            for dim in dims:
                found += [
                    _job(part, name, "random", dim, seed)
                    for name in ("dense", "log-lin-exp")
                ]
    return found


def _job(part: str, method: str, directions: str, dim: int, seed: int) -> Job:
    name = f"{part} {method} {directions} dim {dim} seed {seed}"
    return Job(
        name,
        seed,
        {"part": part, "method": method, "directions": directions, "dim": dim},
    )


def measure(spec: RestoreJacobian, job: Job) -> Values:
    """Fit one model to one truth.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Which, and its seed.
    """
    part = str(job.settings["part"])
    made = _structured(spec, job) if part == "structured" else _free(spec, job)
    cosine, loss, signs = made["cosine"], made["loss"], made["signs"]
    rose = (np.diff(loss) > 0.01 * np.abs(loss[:-1])) & (np.diff(signs) > 0)
    return {
        "score": float(cosine[-1]),
        **job.settings,
        **made,
        "contrary": float(rose.mean()),
    }


# ---- with the structure given --------------------------------------------------


def _structured(spec: RestoreJacobian, job: Job) -> dict[str, NDArray[np.float64]]:
    dim, side = int(job.settings["dim"]), max(spec.dims)
    rng = torch.Generator().manual_seed(job.seed)
    truth = torch.randn(dim, dim, generator=rng)
    restored = spec.initial_messup * torch.randn(dim, dim, generator=rng)
    restored.requires_grad_()
    count = max(2, round(spec.share * dim))
    steps = int(spec.effort * dim * dim / count)
    loss = losses.relation(str(job.settings["method"]))
    adam = torch.optim.Adam([restored], lr=spec.learning_rate)
    held = _relations(truth, _random(dim, dim, rng), _HELD, rng)
    marks = np.linspace(0, steps, MARKS).round().astype(int).tolist()
    seen = _Seen(truth, side)
    draw = _random if job.settings["directions"] == "random" else _coordinates
    for step in range(steps + 1):
        if step in marks:
            with torch.no_grad():
                seen.note(restored, float(loss(*_sides(restored, held))), step)
        if step == steps:
            break
        batch = _relations(truth, draw(dim, count, rng), _BATCH, rng)
        adam.zero_grad()
        torch.autograd.backward(loss(*_sides(restored, batch)))
        adam.step()
    return seen.values()


Relations = tuple[Tensor, Tensor, Tensor]


def _random(dim: int, count: int, rng: Generator) -> Tensor:
    """Draw orthonormal directions, ``[direction, coordinate]``."""
    found: Tensor = torch.linalg.qr(torch.randn(dim, count, generator=rng)).Q.T
    return found


def _coordinates(dim: int, count: int, rng: Generator) -> Tensor:
    return torch.eye(dim)[torch.randperm(dim, generator=rng)[:count]]


def _relations(truth: Tensor, ways: Tensor, count: int, rng: Generator) -> Relations:
    """Draw cotangents, and give each the response to every direction."""
    cotangent = torch.randn(count, len(truth), generator=rng)
    d_alpha = _SIZE * ways
    return cotangent, d_alpha, d_alpha @ truth.T


def _sides(restored: Tensor, batch: Relations) -> tuple[Tensor, Tensor]:
    """Both sides of the relation: cotangents on N, their probes on n."""
    cotangent, d_alpha, d_f = batch
    return cotangent @ restored @ d_alpha.T / _SIZE, cotangent @ d_f.T / _SIZE


class _Seen:
    """What is kept of a fit over time.

    Parameters
    ----------
    truth
        The true Jacobian.
    side
        Size of the arrays that hold it.
    """

    def __init__(self, truth: Tensor, side: int) -> None:
        self._truth, self._side = truth, side
        self._rows: list[tuple[float, float, float, float]] = []
        self._matrices: list[NDArray[np.float64]] = []

    def note(self, restored: Tensor, loss: float, step: int) -> None:
        """Compare a matrix with the truth.

        Parameters
        ----------
        restored
            What is known of the Jacobian.
        loss
            On held-out relations.
        step
            Fit steps so far.
        """
        signs = (torch.sign(restored) == torch.sign(self._truth)).double().mean()
        self._rows.append((_cosine(restored, self._truth), loss, float(signs), step))
        self._matrices.append(_padded(restored, self._side))

    def values(self) -> dict[str, NDArray[np.float64]]:
        """Return the columns."""
        cosine, loss, signs, steps = np.array(self._rows).T
        kept = np.linspace(0, len(self._rows) - 1, FRAMES).round().astype(int)
        return {
            "cosine": cosine,
            "loss": loss,
            "signs": signs,
            "steps": steps,
            "matrix": np.array([self._matrices[n] for n in kept]),
            "truth": _padded(self._truth, self._side),
        }


def _cosine(one: Tensor, other: Tensor) -> float:
    flat = one.flatten().double(), other.flatten().double()
    return float(torch.nn.functional.cosine_similarity(*flat, dim=0))


def _padded(matrix: Tensor, side: int) -> NDArray[np.float64]:
    found = np.full((side, side), np.nan)
    found[: len(matrix), : matrix.shape[1]] = matrix.detach().numpy()
    return found


# ---- without ---------------------------------------------------------------------


def _free(spec: RestoreJacobian, job: Job) -> dict[str, NDArray[np.float64]]:
    dim, side = int(job.settings["dim"]), max(spec.dims)
    rng = torch.Generator().manual_seed(job.seed)
    device = _linear(dim, rng) if job.settings["part"] == "linear" else _product(dim)
    pixels = dim if job.settings["part"] == "linear" else dim + dim * dim
    settings = SurrogateSettings(
        name=job.settings["method"],
        width=spec.width,
        depth=2,
        loss=(FitTerm("mse"),),
        fit_batch=256,
        learning_rate=3e-3,
        average=0.99,
    )
    model = build(settings, Ports(pixels, dim, circular=False), rng)
    fitter = Fitter(model, settings, rng)
    alpha = torch.randn(1024, pixels, generator=rng)
    d_alpha = _SIZE * torch.randn(1024, 2, pixels, generator=rng)
    fitter.observe_probes(alpha, d_alpha, _responses(device, alpha, d_alpha))
    test = torch.randn(_HELD, pixels, generator=rng)
    cotangent = torch.randn(_HELD, dim, generator=rng)
    known = _gradient(device, test, cotangent)
    rows = []
    each = max(1, spec.fit_steps // (MARKS - 1))
    for mark in range(MARKS):
        loss = fitter.step(each) if mark else float("nan")
        with torch.no_grad():
            found = fitter.answering.vjp(cotangent, test)
        cosine = torch.nn.functional.cosine_similarity(found, known, dim=1)
        signs = (torch.sign(found) == torch.sign(known)).double().mean()
        rows.append((float(cosine.mean()), loss, float(signs), mark * each))
    cosines, loss_curve, sign_curve, steps = np.array(rows).T
    return {
        "cosine": cosines,
        "loss": loss_curve,
        "signs": sign_curve,
        "steps": steps,
        "matrix": np.full((FRAMES, side, side), np.nan),
        "truth": np.full((side, side), np.nan),
    }


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


def claims(spec: RestoreJacobian, rows: Rows) -> list[Claim]:
    """Judge what the document says of restoring a Jacobian.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a job.
    """
    return [
        _works(spec, rows),
        _scale(rows),
        _random_helps(spec, rows),
        _contrary(rows),
        _cheap("linear", "f(x) = A x", spec.linear, rows),
        _cheap("product", "f(x, theta) = theta x", spec.product, rows),
    ]


def _of(rows: Rows, column: str, **wanted: object) -> NDArray[np.float64]:
    """Rows of a column where others have these values, in the order of the seeds."""
    some = np.ones(len(rows["seed"]), dtype=bool)
    for key, value in wanted.items():
        some &= rows[key] == value
    order = np.argsort(rows["seed"][some], kind="stable")
    return np.asarray(rows[column][some][order], dtype=np.float64)


def _works(spec: RestoreJacobian, rows: Rows) -> Claim:
    said, good = [], []
    for loss in spec.losses:
        ends = _of(rows, "score", part="structured", method=loss)
        said.append(f"{loss} {told(ends)}")
        good.append(bool((ends > 0.95).all()))
    text = "the Jacobian of theta x is restored from scalar relations"
    kind = Verdict.HELD if all(good) else Verdict.CONDITIONS
    kind = kind if any(good) else Verdict.FAILED
    return Claim(text, f"cosine at the end, by loss: {'; '.join(said)}", kind)


def _scale(rows: Rows) -> Claim:
    def ratio(loss: str) -> NDArray[np.float64]:
        some = (rows["part"] == "structured") & (rows["method"] == loss)
        last = rows["matrix"][some][:, -1]
        truth = rows["truth"][some]
        shares = np.nansum(last**2, (1, 2)) / np.nansum(truth**2, (1, 2))
        return np.asarray(np.sqrt(shares))

    cos, mse = ratio("cos"), ratio("mse")
    if not len(cos) or not len(mse):
        return Claim("cos cannot find the scale", "not measured", Verdict.OPEN)
    return Claim(
        "cos cannot find the scale of the Jacobian",
        f"norm restored over the true one: cos {told(cos)}, mse {told(mse)}",
        verdict(bool((abs(cos - 1) > 2 * abs(mse - 1)).mean() > 0.5)),
    )


def _random_helps(spec: RestoreJacobian, rows: Rows) -> Claim:
    said, gains = [], []
    for dim in spec.dims:
        area = [
            _of(rows, "cosine", part="structured", dim=dim, directions=kind).mean(1)
            for kind in ("random", "coordinates")
        ]
        # One number a seed: mean over the losses of the paired difference.
        by_seed = (area[0] - area[1]).reshape(-1, len(spec.losses)).mean(1)
        gains.append(by_seed)
        said.append(f"dim {dim}: {told(by_seed, '.4f')}")
    rise = gains[-1] - gains[0]
    held = len(gains) > 1 and float(rise.mean()) > 0
    sure = held and told(rise, ".4f").partition("[")[2][:1] not in {"-", ""}
    return Claim(
        "at an equal share of dimensions, random subspaces help more in higher ones",
        "mean cosine over the fit, random less coordinates: "
        f"{'; '.join(said)}; rise {told(rise, '.4f')}",
        verdict(held) if sure or not held else Verdict.OPEN,
    )


def _contrary(rows: Rows) -> Claim:
    share = _of(rows, "contrary", part="structured")
    runs = float((share > 0).mean())
    return Claim(
        "at times the loss rises while the signs of all components improve",
        f"held-out loss up by over 1 % while more signs were right: in "
        f"{100 * runs:.0f} % of the fits, at {told(100 * share)} % of their moments",
        verdict(runs > 0),
    )


def _cheap(part: str, name: str, dims: Sequence[int], rows: Rows) -> Claim:
    said = []
    wins = []
    for dim in dims:
        dense, product = (
            _of(rows, "score", part=part, method=kind, dim=dim)
            for kind in ("dense", "log-lin-exp")
        )
        said.append(f"{dim}: {np.mean(dense):.2f} | {np.mean(product):.2f}")
        wins.append(float(np.mean(product)) > float(np.mean(dense)))
    kind = Verdict.CONDITIONS if any(wins) else Verdict.FAILED
    return Claim(
        f"log-lin-exp learns the backward pass of {name} without structure",
        f"cosine by dimension, dense | log-lin-exp: {'; '.join(said)}",
        Verdict.HELD if all(wins) and wins else kind,
    )


STUDY = Study(
    "Restore a Jacobian from scalar relations, with its structure given and without",
    columns,
    jobs,
    measure,
    claims,
)
