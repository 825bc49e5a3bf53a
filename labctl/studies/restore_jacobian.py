"""Restore a Jacobian from scalar relations: ``g(grad_y) . d_alpha ~ grad_y . d_f``.

With the structure given, g is an explicit matrix and the study watches it become the
true one. Without it, see :mod:`labctl.studies.restore_free`.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from labctl.protocol import RestoreJacobian
from labctl.recording.layout import Column
from labctl.studies import restore_free as free
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
)
from labctl.studies.restore_free import MARKS, of
from labctl.training import loss as losses
from labctl.training.probe import coordinates, subspace

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
        *free.columns(spec),
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
        found += free.jobs(spec, seed)
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
    if job.settings["part"] == "structured":
        made = {**_without_starts(spec), **_structured(spec, job)}
    else:
        made = {**_without_matrix(spec), **free.measure(spec, job)}
    cosine, loss, signs = made["cosine"], made["loss"], made["signs"]
    rose = (np.diff(loss) > 0.01 * np.abs(loss[:-1])) & (np.diff(signs) > 0)
    return {
        "score": float(cosine[-1]),
        **job.settings,
        **made,
        "contrary": float(rose.mean()),
    }


def _without_matrix(spec: RestoreJacobian) -> dict[str, NDArray[np.float64]]:
    side = max(spec.dims)
    return {
        "matrix": np.full((FRAMES, side, side), np.nan),
        "truth": np.full((side, side), np.nan),
    }


def _without_starts(spec: RestoreJacobian) -> dict[str, Any]:
    none = np.full(spec.starts, np.nan)
    return {
        "axis": "none",
        "share": np.nan,
        "width": 0,
        "start_cosine": none,
        "start_loss": none,
        "reach_s": np.full(len(spec.reach), np.nan),
        "reached": -1,
    }


# ---- with the structure given --------------------------------------------------


def _structured(spec: RestoreJacobian, job: Job) -> dict[str, Any]:
    dim, side = int(job.settings["dim"]), max(spec.dims)
    rng = torch.Generator().manual_seed(job.seed)
    truth = torch.randn(dim, dim, generator=rng)
    restored = spec.initial_messup * torch.randn(dim, dim, generator=rng)
    restored.requires_grad_()
    count = max(2, round(spec.share * dim))
    steps = int(spec.effort * dim * dim / count)
    loss = losses.relation(str(job.settings["method"]))
    adam = torch.optim.Adam([restored], lr=spec.learning_rate)
    held = _relations(truth, subspace(dim, dim, rng), _HELD, rng)
    marks = np.linspace(0, steps, MARKS).round().astype(int).tolist()
    seen = _Seen(truth, side)
    draw = subspace if job.settings["directions"] == "random" else coordinates
    seconds, begun = [], time.process_time()
    for step in range(steps + 1):
        if step in marks:
            with torch.no_grad():
                seen.note(restored, float(loss(*_sides(restored, held))), step)
            seconds.append(time.process_time() - begun)
        if step == steps:
            break
        batch = _relations(truth, draw(dim, count, rng), _BATCH, rng)
        adam.zero_grad()
        torch.autograd.backward(loss(*_sides(restored, batch)))
        adam.step()
    return {
        **seen.values(),
        "parameters": dim * dim,
        "probes": steps * count,
        "seconds": np.array(seconds),
        "digital_s": seconds[-1],
    }


Relations = tuple[Tensor, Tensor, Tensor]


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
        _contrary(spec, rows),
        *free.claims(spec, rows),
    ]


def _by_seed(rows: Rows, column: str, **wanted: object) -> NDArray[np.float64]:
    """Mean of a column with the structure given, one a seed."""
    found = of(rows, column, part="structured", **wanted)
    seeds = of(rows, "seed", part="structured", **wanted)
    return np.array([found[seeds == seed].mean() for seed in np.unique(seeds)])


def _works(spec: RestoreJacobian, rows: Rows) -> Claim:
    ends = {loss: _by_seed(rows, "score", method=loss) for loss in spec.losses}
    said = "; ".join(f"{loss} {told(values)}" for loss, values in ends.items())
    return Claim(
        "the Jacobian of theta x is restored from scalar relations",
        f"cosine at the end, by loss, to be above .95: {said}",
        together([above(values, 0.95) for values in ends.values()]),
    )


def _scale(rows: Rows) -> Claim:
    def off(loss: str) -> NDArray[np.float64]:
        """Distance of the norm that was restored from the true one, by seed."""
        some = (rows["part"] == "structured") & (rows["method"] == loss)
        last, seeds = rows["matrix"][some][:, -1], rows["seed"][some]
        shares = np.nansum(last**2, (1, 2)) / np.nansum(
            rows["truth"][some] ** 2, (1, 2)
        )
        apart = np.abs(np.sqrt(shares) - 1)
        return np.array([apart[seeds == seed].mean() for seed in np.unique(seeds)])

    cos, mse = off("cos"), off("mse")
    text = "cos cannot find the scale of the Jacobian"
    if not len(cos) or not len(mse):
        return Claim(text, "not measured", Verdict.OPEN)
    return Claim(
        text,
        f"distance of the restored norm from the true one, as a share: cos "
        f"{told(cos)}, mse {told(mse)}",
        above(cos - 2 * mse),
    )


def _random_helps(spec: RestoreJacobian, rows: Rows) -> Claim:
    parts, kinds = [], []
    for text, measure in _LEADS.items():
        said, gains = [], []
        for dim in spec.dims:
            found = [
                measure(of(rows, "cosine", part="structured", dim=dim, directions=kind))
                for kind in ("random", "coordinates")
            ]
            # One number a seed: mean over the losses of the paired difference.
            by_seed = (found[0] - found[1]).reshape(-1, len(spec.losses)).mean(1)
            gains.append(by_seed)
            said.append(f"dim {dim}: {told(by_seed, '.4f')}")
        rise = gains[-1] - gains[0]
        parts.append(f"{text}: {'; '.join(said)}; rise {told(rise, '.4f')}")
        kinds.append(above(rise) if len(gains) > 1 else Verdict.OPEN)
    return Claim(
        "at an equal share of dimensions, random subspaces help more in higher ones",
        f"random less coordinates, {' | '.join(parts)}",
        together(kinds),
    )


def _left(cosine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Decades that the first moments bring the cosine nearer to 1."""
    return np.asarray(-np.log10(np.maximum(1 - cosine[:, 1:3], 1e-12)).mean(1))


# Over the whole fit a cosine near 1 hides who is ahead, above all where it is reached
# soon; early on, decades of what is missing show it.
_LEADS = {
    "mean cosine over the fit": lambda cosine: cosine.mean(1),
    "decades of the missing cosine in the first twelfth of the fit": _left,
}


def _contrary(spec: RestoreJacobian, rows: Rows) -> Claim:
    shares = {
        loss: 100 * _by_seed(rows, "contrary", method=loss) for loss in spec.losses
    }
    said = "; ".join(f"{loss} {told(share)}" for loss, share in shares.items())
    return Claim(
        "at times the loss rises while the signs of all components improve",
        "share of the moments, in %, at which the held-out loss was up by over 1 % and "
        f"more signs were right, by loss: {said}",
        together([above(share) for share in shares.values()]),
    )


STUDY = Study(
    "Restore a Jacobian from scalar relations, with its structure given and without",
    columns,
    jobs,
    measure,
    claims,
)
