"""Figures of the study ``activations``: one big plot and a table, both to be sorted."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from labctl.recording.reader import Record
from labctl.report import figure
from labctl.report.figure import Drawing
from labctl.report.section import Gallery, Item, Section, Table
from labctl.report.study import field_activations
from labctl.report.study.small_multiple import Scores, dots
from labctl.studies.zoo import FAMILIES, MEASURES, SHOWN

Rows = dict[str, NDArray[Any]]
HEADS = {
    "largest": "largest slope",
    "typical": "rms slope",
    "zero_share": "share of zero slope",
    "oscillation": "turns a unit",
    "complexity": "waves a unit",
    "monotone": "monotone",
}


def sections(record: Record) -> Iterator[Section]:
    """Show every activation with its slopes and what nets learn with it.

    Parameters
    ----------
    record
        Of the study.

    Yields
    ------
    section
        The plot and the table.
    """
    spec, rows = record.resolved["study"], record.table("fits")
    yield Section(
        "zoo",
        "The zoo of activations",
        table=_table(rows, spec),
        drawings=(_by_task(rows, spec),),
        gallery=_gallery(rows, spec),
    )
    if "complex_accuracy" in rows:  # records of before have none
        yield field_activations.section(rows, spec["complex_functions"])


def _order(rows: Rows) -> list[int]:
    best = rows["accuracy"].mean(axis=0).max(axis=1)
    return [int(number) for number in np.argsort(-best, kind="stable")]


def _by_seed(rows: Rows) -> NDArray[np.float64]:
    """Mean over tasks and depths, ``[seed, function, backward]``."""
    seeds = np.unique(rows["seed"])
    return np.array([rows["accuracy"][rows["seed"] == s].mean(axis=0) for s in seeds])


_TITLE = "Every activation: what it looks like and how nets learn with it"


def _gallery(rows: Rows, spec: dict[str, Any]) -> Gallery:
    names = spec["functions"]
    scores = Scores(
        "activations",
        tuple(names),
        "backward pass",
        tuple(spec["backwards"]),
        rows,
        rows["accuracy"],
        rank=lambda means: means.max(axis=1),
    )
    order = scores.order
    keys = (
        *scores.keys("best accuracy"),
        *scores.others(
            [HEADS[name] for name in MEASURES],
            rows["measures"][0],
            {"name": names, "family": [FAMILIES[name] for name in names]},
        ),
    )
    return Gallery(
        "activations-gallery",
        _TITLE,
        "The function and its slope (own and blurred), from -4 to 4 and cut off there, "
        "and the accuracy by task and depth with each backward pass; mean over the "
        "seeds and its 95 % interval. Best is the backward pass with the highest mean.",
        scores.legend(),
        tuple(
            Item(names[n], (_shape(rows, spec, n), scores.drawing(n))) for n in order
        ),
        keys,
        _mega(rows, spec),
    )


def _shape(rows: Rows, spec: dict[str, Any], number: int) -> Drawing:
    name = spec["functions"][number]

    def draw(drawn: Figure) -> None:
        value, slope = drawn.subplots(1, 2)
        _curves(value, slope, rows, spec, number)
        value.set_title("function", fontsize=7.5, pad=3)
        slope.set_title("slope: own, blurred", fontsize=7.5, pad=3)
        for axis in (value, slope):
            axis.set_xlabel("input", fontsize=7, labelpad=1)
            axis.set_xticks([-4, 0, 4])
            axis.tick_params(labelsize=6.5, length=2, pad=2)

    return Drawing(
        f"activations-shape-{figure.slug(name)}",
        name,
        "",
        f"Curves of {name} and its slopes from -4 to 4; family: {FAMILIES[name]}.",
        (2.7, 1.35),
        draw,
    )


def _curves(
    value: Axes, slope: Axes, rows: Rows, spec: dict[str, Any], number: int
) -> None:
    x = np.linspace(-4, 4, SHOWN)
    ink = value.xaxis.label.get_color()  # colours are for the backward passes
    value.plot(x, rows["curves"][0][number], color=ink, lw=1.2)
    for kind, backward in enumerate(spec["backwards"]):
        if backward in {"own", "blurred"}:
            slope.plot(x, rows["slopes"][0][number, kind], color=f"C{kind}", lw=1)
    _bounded(value)
    _bounded(slope)


def _mega(rows: Rows, spec: dict[str, Any]) -> Drawing:
    names, backwards = spec["functions"], spec["backwards"]
    order, found = _order(rows), _by_seed(rows)

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(
            len(order), 3, squeeze=False, width_ratios=(1, 1, 2), sharex="col"
        )
        for line, number in zip(axes, order, strict=True):
            value, slope, accuracy = line
            _curves(value, slope, rows, spec, number)
            value.set_ylabel(names[number], rotation=0, ha="right", va="center")
            dots(accuracy, found[:, number])
        axes[0, 0].set_title("function")
        axes[0, 1].set_title("slope: own, blurred")
        axes[0, 2].set_title("mean accuracy, by backward pass")
        axes[-1, 0].set_xlabel("input")
        axes[-1, 1].set_xlabel("input")
        axes[-1, 2].set_xlabel("accuracy")
        handles = [
            axes[0, 2].plot([], [], "o", color=f"C{kind}", label=backward)[0]
            for kind, backward in enumerate(backwards)
        ]
        drawn.legend(handles=handles, loc="outside upper center", ncols=5)

    told = ", ".join(names[number] for number in order)
    return Drawing(
        "mega",
        _TITLE,
        "Best first: the function, its slope (own and blurred, from -4 to 4), and the "
        "accuracy over all tasks and depths with each backward pass; mean over the "
        "seeds and its 95 % interval.",
        f"Rows of curves and points, from the best: {told}.",
        (7.2, 0.9 + 0.72 * len(order)),
        draw,
    )


def _bounded(axis: Axes) -> None:
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, -4), min(high, 4))
    axis.tick_params(labelsize=6)


def _by_task(rows: Rows, spec: dict[str, Any]) -> Drawing:
    names, order = spec["functions"], _order(rows)
    tasks = [
        (task, depth)
        for task in spec["tasks"]
        for depth in spec["depths"]
        if ((rows["task"] == task) & (rows["depth"] == depth)).any()
    ]
    shown = np.array(
        [
            [
                rows["accuracy"][(rows["task"] == task) & (rows["depth"] == depth)]
                .mean(axis=0)[number]
                .max()
                for task, depth in tasks
            ]
            for number in order
        ]
    )

    def draw(drawn: Figure) -> None:
        axis = drawn.subplots()
        image = axis.imshow(shown, cmap=figure.INTENSITY, vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(shown):
            ink = "black" if value > 0.6 else "white"
            text = f"{value:.2f}"
            axis.text(column, row, text, ha="center", va="center", color=ink, size=7)
        axis.set_yticks(range(len(order)), [names[number] for number in order])
        labels = [f"{task}\ndepth {depth}" for task, depth in tasks]
        axis.set_xticks(range(len(tasks)), labels, fontsize=7)
        axis.grid(visible=False)
        drawn.colorbar(image, ax=axis, label="accuracy, best backward pass")

    return Drawing(
        "by-task",
        "Accuracy by task and depth",
        "Of the best backward pass of each function; mean over the seeds.",
        f"Table in colours: {len(order)} functions by {len(tasks)} tasks and depths.",
        (7.2, 0.9 + 0.28 * len(order)),
        draw,
    )


def _table(rows: Rows, spec: dict[str, Any]) -> Table:
    means = _by_seed(rows).mean(axis=0)
    cells = []
    for number in _order(rows):
        measured = rows["measures"][0][number]
        own = [f"{value:.3g}" for value in measured[:-1]]
        own.append("yes" if measured[-1] else "no")
        scores = [f"{value:.3f}" for value in means[number]]
        cells.append((spec["functions"][number], *own, *scores))
    heads = ("function", *(HEADS[name] for name in MEASURES), *spec["backwards"])
    note = (
        "Measured from -4 to 4. The last columns are mean accuracies with each "
        "backward pass. Waves a unit hold nine tenths of the function's spectral power."
    )
    return Table(heads, tuple(cells), note, sortable=True)
