"""Figures of the study ``restore-jacobian``."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from labctl.recording.reader import Record
from labctl.report import figure
from labctl.report.figure import Drawing
from labctl.report.section import Section
from labctl.studies.restore_free import FAILED, METHODS
from labctl.training.interval import bootstrap

Rows = dict[str, NDArray[Any]]
_NAMES = {"linear": "f(x) = A x", "product": "f(x, theta) = theta x"}


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
        yield Section("free", "Without structure", drawings=(*_freely(rows, record),))


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
        scale = drawn.colorbar(image, ax=axes, shrink=0.75)
        scale.set_label("entry, over the largest", fontsize=7.5)

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


def _freely(rows: Rows, record: Record) -> Iterator[Drawing]:
    # Records of before fitted over the dimension alone, from one start.
    every = np.full(len(rows["part"]), "dimension", dtype=object)
    some = rows.get("axis", every) == "dimension"
    yield _free({name: values[some] for name, values in rows.items()})
    if "axis" not in rows:
        return
    yield _starts(rows)
    yield _cost(rows)
    spec = record.resolved["study"]
    yield _reach(rows, spec["reach"], spec["reach_steps"])


def _free(rows: Rows) -> Drawing:
    parts = [p for p in _NAMES if (rows["part"] == p).any()]

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(1, len(parts), sharey=True, squeeze=False)[0]
        for axis, part in zip(axes, parts, strict=True):
            some = rows["part"] == part
            _points(axis, {name: values[some] for name, values in rows.items()}, "dim")
            axis.set_xscale("log", base=2)
            axis.set_xticks(np.unique(rows["dim"][some]))
            axis.xaxis.set_major_formatter("{x:.0f}")
            axis.minorticks_off()
            axis.set(title=_NAMES[part], xlabel="dimension")
        axes[0].set_ylabel("cosine of the gradient")
        _legend(drawn, axes[0])

    return Drawing(
        "free",
        "dense against log-lin-exp",
        "Cosine with the true gradient at new operating points, with equally many fit "
        "steps and parameters; one mark a seed, lines join the means, bands are the "
        "95 % interval. Crosses are failures: a cosine below .5.",
        "Points and lines over the dimension, for two surrogates.",
        (7.2, 3.2),
        draw,
    )


def _points(axis: Axes, rows: Rows, place: str) -> None:
    """Draw the scores of both methods over a column, failures as failures."""
    for number, method in enumerate(METHODS):
        some = rows["method"] == method
        x, score = rows[place][some], rows["score"][some]
        places = np.unique(x)
        middle = [score[x == one].mean() for one in places]
        bounds = np.array([bootstrap(score[x == one].tolist()) for one in places])
        ink = f"C{number}"
        axis.plot(places, middle, label=method, linewidth=1.2, color=ink)
        if np.isfinite(bounds).all():
            low, high = bounds.T
            axis.fill_between(places, low, high, alpha=0.2, linewidth=0, color=ink)
        good = score >= FAILED
        axis.plot(x[good], score[good], "o", markersize=4, color=ink)
        axis.plot(x[~good], score[~good], "x", markersize=6, color=ink)
    axis.set_ylim(-0.15, 1.05)


def _legend(drawn: Figure, axis: Axes) -> None:
    handles, _ = axis.get_legend_handles_labels()
    failure = Line2D([], [], marker="x", linestyle="", color="0.5", label="failure")
    drawn.legend(handles=[*handles, failure], loc="outside upper center", ncols=3)


def _starts(rows: Rows) -> Drawing:
    parts = [p for p in _NAMES if (rows["part"] == p).any()]

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(1, len(parts), sharey=True, squeeze=False)[0]
        for axis, part in zip(axes, parts, strict=True):
            for number, method in enumerate(METHODS):
                some = (rows["part"] == part) & (rows["method"] == method)
                some &= rows["axis"] == "dimension"
                # Side by side, so that one method does not hide the other.
                x = rows["dim"][some] * (0.94, 1.06)[number]
                _tried(axis, x, rows, some, f"C{number}")
                axis.plot([], [], "o", color=f"C{number}", label=method)
            axis.set_xscale("log", base=2)
            own = (rows["part"] == part) & (rows["axis"] == "dimension")
            dims = np.unique(rows["dim"][own])
            axis.set_xticks(dims, [str(dim) for dim in dims])
            axis.set_xlim(dims[0] / 1.3, dims[-1] * 1.3)
            axis.minorticks_off()
            axis.set(title=_NAMES[part], xlabel="dimension", ylim=(-0.15, 1.05))
        axes[0].set_ylabel("cosine when chosen")
        _legend(drawn, axes[0])

    return Drawing(
        "starts",
        "Several starts",
        "Every start when the best was chosen, the starts with their own step "
        "size. Filled is the one that went on, chosen by its loss on held-out "
        "relations, which needs no truth; crosses are failures.",
        "Points over the dimension, one a start, for two surrogates.",
        (7.2, 3.2),
        draw,
    )


def _tried(
    axis: Axes, x: NDArray[Any], rows: Rows, some: NDArray[Any], colour: str
) -> None:
    cosine, loss = rows["start_cosine"][some], rows["start_loss"][some]
    kept = loss.argmin(axis=1)
    for row, place in enumerate(x):
        for start, value in enumerate(cosine[row]):
            full = start == kept[row]
            mark = "o" if value >= FAILED else "x"
            face = colour if full or mark == "x" else "none"
            axis.plot(
                place,
                value,
                mark,
                color=colour,
                markerfacecolor=face,
                markersize=5 if full else 4,
                alpha=1 if full else 0.6,
            )


def _cost(rows: Rows) -> Drawing:
    names = {"parameters": "parameters", "probes": "probes"}
    dim = int(rows["dim"][rows["axis"] == "parameters"].max())

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(1, 2, sharey=True)
        for axis, (name, label) in zip(axes, names.items(), strict=True):
            some = rows["axis"] == name
            _points(axis, {key: values[some] for key, values in rows.items()}, name)
            axis.set_xscale("log")
            places = np.unique(rows[name][some & (rows["method"] == METHODS[1])])
            axis.set_xticks(places, [f"{place:,}" for place in places])
            axis.minorticks_off()
            axis.set(xlabel=label)
        axes[0].set_ylabel("cosine of the gradient")
        _legend(drawn, axes[0])

    return Drawing(
        "cost",
        "How many parameters and how many probes",
        f"theta x of dimension {dim}: cosine with the true gradient over the numbers "
        "that are fitted, and over the perturbations that were measured. Crosses are "
        "failures: a cosine below .5.",
        "Two panels with points and lines for two surrogates.",
        (7.2, 3.2),
        draw,
    )


def _reach(rows: Rows, dims: list[int], steps: int) -> Drawing:
    spent = {m: _climb(rows, m) for m in METHODS}
    found = np.concatenate([values.ravel() for values in spent.values()])
    known = found[np.isfinite(found)]
    known = known if known.size else np.ones(1)

    def draw(drawn: Figure) -> None:
        axis = drawn.subplots()
        for number, (method, values) in enumerate(spent.items()):
            colour, move = f"C{number}", (0.97, 1.03)[number]
            for line in values:
                arrived = np.isfinite(line)
                x = np.array(dims)[arrived] * move
                axis.plot(x, line[arrived], "o-", color=colour, markersize=4, lw=1)
                if not arrived.all():
                    first = int(np.argmin(arrived))
                    # On the upper edge: it has no time at which it arrived.
                    axis.plot(
                        dims[first] * move,
                        1.0,
                        "x",
                        color=colour,
                        markersize=7,
                        transform=axis.get_xaxis_transform(),
                        clip_on=False,
                    )
            axis.plot([], [], "o-", color=colour, label=method)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(dims, [str(dim) for dim in dims])
        axis.set_xlim(dims[0] / 1.2, dims[-1] * 1.2)
        axis.set_ylim(known.min() / 1.5, known.max() * 1.5)
        axis.minorticks_off()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set(xlabel="dimension", ylabel="processor time (s)")
        _legend(drawn, axis)

    told = "; ".join(
        f"{method} up to {', '.join(str(int(n)) for n in _reached(rows, method))}"
        for method in METHODS
    )
    return Drawing(
        "reach",
        "How large a theta x may be",
        "Processor time until the gradient of theta x has a cosine of .99, all starts "
        "included; one line a seed. A cross on the upper edge has no time: "
        f"the dimension did not arrive within {steps} fit steps, and the climb ended.",
        f"Lines over the dimension. Largest that arrived, by seed: {told}.",
        (7.2, 3.4),
        draw,
    )


def _climb(rows: Rows, method: str) -> NDArray[Any]:
    some = (rows["axis"] == "reach") & (rows["method"] == method)
    found: NDArray[Any] = rows["reach_s"][some]
    return found


def _reached(rows: Rows, method: str) -> list[float]:
    some = (rows["axis"] == "reach") & (rows["method"] == method)
    found: list[float] = rows["reached"][some].tolist()
    return found
