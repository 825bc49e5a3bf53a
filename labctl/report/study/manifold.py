"""Figures of the study ``manifold``: frames of every net, and an explorer."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from labctl.protocol import Manifold
from labctl.recording.reader import Record
from labctl.report import figure
from labctl.report.figure import Drawing
from labctl.report.section import Explorer, Section
from labctl.studies.manifold import PARAMETERS, SIDE, over_time

Rows = dict[str, NDArray[Any]]
_SHOWN = 5  # frames of a row
# Space seen from a corner: how much of each axis goes right and up.
_RIGHT, _UP = np.array([0.82, -0.57, 0.0]), np.array([0.28, 0.40, 0.80])


def sections(record: Record) -> Iterator[Section]:
    """Show every net at several moments, and how far it is from the manifold.

    Parameters
    ----------
    record
        Of the study.

    Yields
    ------
    section
        With figures.
    """
    spec = Manifold.model_validate(record.resolved["study"])
    rows = record.table("fits")
    drawings = (*_frames(rows, spec), _errors(rows, spec))
    films = _films(rows, spec)
    explorer = Explorer("manifold", json.dumps({"films": films})) if films else None
    title = "Sculpting a manifold"
    yield Section("sculpted", title, drawings=drawings, explorer=explorer)


def flat(points: NDArray[Any]) -> NDArray[np.float64]:
    """Lay points of the plane or of space onto a page.

    Parameters
    ----------
    points
        ``(…, axis)``; the third axis is NaN in the plane.

    Returns
    -------
    points
        ``(…, 2)``.
    """
    known = np.asarray(points, dtype=np.float64)
    if np.isnan(known[..., 2]).all():
        return known[..., :2]
    return np.stack([known @ _RIGHT, known @ _UP], axis=-1)


def _first(rows: Rows, target: str, kind: str) -> int | None:
    some = np.flatnonzero((rows["target"] == target) & (rows["network"] == kind))
    if not some.size:
        return None
    # Of digital nets of several widths, the widest; records of before have one.
    return int(some[rows["width"][some].argmax() if "width" in rows else 0])


def _lines(points: NDArray[np.float64], target: str) -> list[NDArray[np.float64]]:
    if PARAMETERS[target] == 1:
        return [points]
    square = points.reshape(SIDE, SIDE, 2)
    return [*square, *square.transpose(1, 0, 2)]


def _frames(rows: Rows, spec: Manifold) -> Iterator[Drawing]:
    for target in spec.targets:
        found = [(kind, _first(rows, target, kind)) for kind in spec.networks]
        known = [(kind, row) for kind, row in found if row is not None]
        if known:
            yield _film(rows, target, known)


def _film(rows: Rows, target: str, known: Sequence[tuple[str, int]]) -> Drawing:
    def draw(drawn: Figure) -> None:
        frames = rows["points"].shape[1]
        pick = np.unique(np.linspace(0, frames - 1, _SHOWN).round().astype(int))
        axes = drawn.subplots(len(known), len(pick), squeeze=False)
        for line, (kind, row) in zip(axes, known, strict=True):
            cloud = flat(rows["cloud"][row])
            reach = 1.25 * np.abs(cloud).max()
            for axis, number in zip(line, pick, strict=True):
                axis.plot(*cloud.T, ".", color="C1", markersize=2, alpha=0.6)
                lines = _lines(flat(rows["points"][row][number]), target)
                axis.add_collection(LineCollection(lines, colors="C0", linewidths=1))
                _bare(axis, reach)
                axis.set_title(f"step {rows['step'][row][number]:.0f}", fontsize=9)
            line[0].set_ylabel(kind)

    kinds = ", ".join(kind for kind, _ in known)
    view = "" if PARAMETERS[target] == 1 else " Space is seen from a corner."
    return Drawing(
        f"film-{target}",
        f"The {target}, before, during and after",
        f"What the net makes of the grid of parameters (lines) and the cloud it is "
        f"trained on (dots), first seed.{view} With the device the first picture has "
        "theta as it started and the readout solved.",
        f"Pictures of a net approaching a cloud of points, one row each: {kinds}.",
        (7.2, 0.5 + 1.45 * len(known)),
        draw,
    )


def _made(rows: Rows, row: int) -> NDArray[np.bool_]:
    """Which frames there are: a net that diverged has no more."""
    plane = rows["points"][row][..., :2]
    return np.asarray(np.isfinite(plane).all(axis=(1, 2)))


def _bare(axis: Axes, reach: float) -> None:
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)


def _errors(rows: Rows, spec: Manifold) -> Drawing:
    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(1, len(spec.targets), squeeze=False, sharey=True)[0]
        for axis, target in zip(axes, spec.targets, strict=True):
            for number, kind in enumerate(spec.networks):
                error = over_time(rows, target, kind)
                if len(error):
                    share = np.linspace(0, 100, error.shape[1])
                    style = {"label": kind, "color": f"C{number}", "marker": "o"}
                    figure.spread(axis, share, error, markersize=3, **style)
            axis.set(title=target, xlabel="part of the training (%)")
        # Of both, which share it: only once all is drawn.
        axes[0].set_ylim(bottom=0)
        axes[0].set_ylabel("rms distance, over the cloud's size")
        axes[-1].legend()

    return Drawing(
        "errors",
        "How far the net is from the manifold",
        "Rms distance between what the net makes of the grid and the manifold that the "
        "cloud lies around, in units of the cloud's spread; mean over the seeds and "
        "its 95 % interval.",
        f"Curves of the distance over the training, for {', '.join(spec.targets)}.",
        (7.2, 2.9),
        draw,
    )


def _films(rows: Rows, spec: Manifold) -> list[dict[str, Any]]:
    films: list[dict[str, Any]] = []
    for target in spec.targets:
        for kind in spec.networks:
            row = _first(rows, target, kind)
            if row is None:
                continue
            if not _made(rows, row).any():
                continue
            cloud = flat(rows["cloud"][row])
            films.append(
                {
                    "name": f"{target}, {kind}",
                    "reach": round(float(1.25 * np.abs(cloud).max()), 3),
                    "cloud": cloud.round(3).tolist(),
                    "steps": rows["step"][row][_made(rows, row)].astype(int).tolist(),
                    "frames": [
                        [line.round(3).tolist() for line in _lines(flat(f), target)]
                        for f in rows["points"][row][_made(rows, row)]
                    ],
                }
            )
    return films
