"""Figures of the study ``restore-jacobian``."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from labctl.recording.reader import Record
from labctl.report import figure
from labctl.report.figure import Drawing
from labctl.report.section import Section

Rows = dict[str, NDArray[Any]]
_FAILED = 0.5  # a cosine below it is drawn as a failure


def sections(record: Record) -> Iterator[Section]:
    """Show both halves of the study.

    Parameters
    ----------
    record
        Of the study.

    Yields
    ------
    section
        With structure, then without.
    """
    rows = record.table("fits")
    given = rows["part"] == "structured"
    if given.any():
        drawings = (*_matrices(rows), _curves(rows), *_contrary(rows))
        yield Section(
            "structured", "With the structure of the Jacobian given", drawings=drawings
        )
    if (~given).any():
        yield Section("free", "Without structure", drawings=(_free(rows),))


def _matrices(rows: Rows) -> Iterator[Drawing]:
    given = rows["part"] == "structured"
    dim = rows["dim"][given].max()
    for method in dict.fromkeys(rows["method"][given].tolist()):
        some = given & (rows["method"] == method) & (rows["dim"] == dim)
        some &= rows["directions"] == "random"
        if not some.any():
            continue
        row = int(np.flatnonzero(some)[0])
        yield _images(rows, row, str(method), int(dim))


def _images(rows: Rows, row: int, method: str, dim: int) -> Drawing:
    frames = [*rows["matrix"][row], rows["truth"][row]]
    steps = rows["steps"][row]
    kept = np.linspace(0, len(steps) - 1, len(frames) - 1).round().astype(int)
    titles = [f"step {steps[n]:.0f}" for n in kept] + ["truth"]

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(1, len(frames))
        for axis, frame, title in zip(axes, frames, titles, strict=True):
            shown = frame[:dim, :dim]
            # cos knows no scale: every picture has its own.
            top = float(np.nanmax(np.abs(shown))) or 1.0
            axis.imshow(shown / top, cmap=figure.SIGNED, vmin=-1, vmax=1)
            axis.set(title=title)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(visible=False)
        axes[0].set_ylabel("output")
        drawn.supxlabel("input", fontsize=9)
        image = axes[-1].get_images()[0]
        drawn.colorbar(image, ax=axes, label="entry, over the largest", shrink=0.75)

    return Drawing(
        f"matrix-{method.replace('+', '-')}",
        f"The Jacobian over time, loss {method}",
        f"Restored from random directions, dimension {dim}, first seed, beside the "
        "truth. Blue is negative, red positive.",
        f"Images of a {dim} by {dim} matrix at {len(kept)} moments, and of the truth.",
        (7.2, 1.9),
        draw,
    )


def _curves(rows: Rows) -> Drawing:
    given = rows["part"] == "structured"
    dims = np.unique(rows["dim"][given]).tolist()
    methods = list(dict.fromkeys(rows["method"][given].tolist()))

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(1, len(dims), sharey=True, squeeze=False)[0]
        for axis, dim in zip(axes, dims, strict=True):
            for number, method in enumerate(methods):
                for kind, dash in (("random", "-"), ("coordinates", ":")):
                    some = given & (rows["dim"] == dim) & (rows["method"] == method)
                    some &= rows["directions"] == kind
                    if some.any():
                        style = {"color": f"C{number}", "linestyle": dash}
                        label = f"{method}, {kind}"
                        x = rows["steps"][some][0]
                        figure.spread(
                            axis, x, rows["cosine"][some], label=label, **style
                        )
            axis.set(title=f"dimension {dim}", xlabel="mini-batches")
        axes[0].set_ylabel("cosine with the truth")
        axes[-1].legend(fontsize=7, loc="lower right")

    return Drawing(
        "restored",
        "How fast the Jacobian is restored",
        "Mean over the seeds and its 95 % interval: random directions (lines) and "
        "coordinates (dots), an equal share of the dimensions sampled.",
        f"Curves of the cosine for dimensions {', '.join(map(str, dims))}.",
        (7.2, 3.0),
        draw,
    )


def _contrary(rows: Rows) -> Iterator[Drawing]:
    given = np.flatnonzero(rows["part"] == "structured")
    row = int(given[rows["contrary"][given].argmax()])
    if rows["contrary"][row] == 0:
        return

    def draw(drawn: Figure) -> None:
        left, right = drawn.subplots(1, 2)
        steps = rows["steps"][row]
        left.plot(steps, rows["loss"][row], marker="o", markersize=3)
        right.plot(steps, rows["signs"][row], marker="o", markersize=3, color="C1")
        left.set(xlabel="mini-batches", ylabel="loss on held-out relations")
        right.set(xlabel="mini-batches", ylabel="share of right signs")
        rose = np.flatnonzero(
            (np.diff(rows["loss"][row]) > 0.01 * np.abs(rows["loss"][row][:-1]))
            & (np.diff(rows["signs"][row]) > 0)
        )
        for axis in (left, right):
            for start in rose:
                axis.axvspan(
                    steps[start], steps[start + 1], color="C2", alpha=0.25, linewidth=0
                )

    yield Drawing(
        "contrary",
        "Loss up, and yet more signs right",
        f"The fit where it happened most often: {rows['job'][row]}. Shaded are the "
        "moments when the held-out loss rose by over 1 % and more signs were right.",
        "Curves of the loss and of the share of right signs.",
        (7.2, 2.7),
        draw,
    )


def _free(rows: Rows) -> Drawing:
    parts = [p for p in ("linear", "product") if (rows["part"] == p).any()]
    names = {"linear": "f(x) = A x", "product": "f(x, theta) = theta x"}

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(1, len(parts), sharey=True, squeeze=False)[0]
        for axis, part in zip(axes, parts, strict=True):
            _starts(axis, rows, part)
            axis.set(title=names[part], xlabel="dimension", ylim=(-0.2, 1.05))
        axes[0].set_ylabel("cosine of the gradient")
        axes[0].legend()

    return Drawing(
        "free",
        "dense against log-lin-exp",
        "Mean cosine with the true gradient at new operating points after equally many "
        "fit steps; one mark a start, lines join the means. Crosses are failures: a "
        "cosine below .5.",
        "Points and lines over the dimension, for two surrogates.",
        (7.2, 3.0),
        draw,
    )


def _starts(axis: Axes, rows: Rows, part: str) -> None:
    for number, method in enumerate(("dense", "log-lin-exp")):
        some = (rows["part"] == part) & (rows["method"] == method)
        dims, score = rows["dim"][some], rows["score"][some]
        good = score >= _FAILED
        colour = f"C{number}"
        axis.plot(dims[good], score[good], "o", color=colour, markersize=4)
        axis.plot(dims[~good], score[~good], "x", color=colour, markersize=6)
        places = np.unique(dims)
        means = [score[dims == dim].mean() for dim in places]
        axis.plot(places, means, color=colour, label=method)
    axis.set_xscale("log", base=2)
    axis.set_xticks(np.unique(rows["dim"][rows["part"] == part]))
    axis.xaxis.set_major_formatter("{x:.0f}")
    axis.minorticks_off()
