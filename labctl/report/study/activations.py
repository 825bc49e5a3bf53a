"""Figures of the study ``activations``: one big plot, and a table to sort."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from labctl.recording.reader import Record
from labctl.report import figure
from labctl.report.figure import Drawing
from labctl.report.section import Section, Table
from labctl.studies import complex_zoo
from labctl.studies.complex_nets import READOUTS, by_seed
from labctl.studies.complex_zoo import REAL
from labctl.studies.zoo import MEASURES, SHOWN
from labctl.training.interval import bootstrap

Rows = dict[str, NDArray[Any]]
_FIELD_HEADS = {
    "largest": "largest stretch",
    "typical": "rms stretch",
    "zero_share": "share that passes nothing",
    "conjugate_share": "share of the conjugate",
}
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
    drawings = (_mega(rows, spec), _by_task(rows, spec))
    yield Section(
        "zoo", "The zoo of activations", table=_table(rows, spec), drawings=drawings
    )
    if "complex_accuracy" in rows:  # records of before have none
        names = spec["complex_functions"]
        yield Section(
            "fields",
            "Activations of fields, in nets of complex weights",
            table=_field_table(rows, names),
            drawings=(_field_mega(rows, names),),
        )


def _order(rows: Rows) -> list[int]:
    best = rows["accuracy"].mean(axis=0).max(axis=1)
    return [int(number) for number in np.argsort(-best, kind="stable")]


def _by_seed(rows: Rows) -> NDArray[np.float64]:
    """Mean over tasks and depths, ``[seed, function, backward]``."""
    seeds = np.unique(rows["seed"])
    return np.array([rows["accuracy"][rows["seed"] == s].mean(axis=0) for s in seeds])


def _mega(rows: Rows, spec: dict[str, Any]) -> Drawing:
    names, backwards = spec["functions"], spec["backwards"]
    order, found = _order(rows), _by_seed(rows)
    x = np.linspace(-4, 4, SHOWN)

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(
            len(order), 3, squeeze=False, width_ratios=(1, 1, 2), sharex="col"
        )
        for line, number in zip(axes, order, strict=True):
            value, slope, accuracy = line
            value.plot(x, rows["curves"][0][number], color="C0")
            value.set_ylabel(names[number], rotation=0, ha="right", va="center")
            for kind, backward in enumerate(backwards):
                if backward in {"own", "blurred"}:
                    slope.plot(
                        x, rows["slopes"][0][number, kind], color=f"C{kind}", lw=1
                    )
            _bounded(value)
            _bounded(slope)
            _dots(accuracy, found[:, number])
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
        "Every activation: what it looks like and how nets learn with it",
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


def _dots(axis: Axes, found: NDArray[np.float64]) -> None:
    for kind in range(found.shape[1]):
        low, high = bootstrap(found[:, kind].tolist())
        axis.hlines(kind, low, high, color=f"C{kind}", linewidth=2)
        axis.plot(found[:, kind].mean(), kind, "o", color=f"C{kind}", markersize=4)
    axis.set(ylim=(found.shape[1] - 0.4, -0.6), yticks=[])


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


# ---- complex-valued activations --------------------------------------------------


def _field_order(rows: Rows) -> list[int]:
    found = rows["complex_accuracy"].mean(axis=0)
    return [int(number) for number in np.argsort(-found, kind="stable")]


def _field_scores(rows: Rows) -> NDArray[np.float64]:
    """Complex nets, then real ones by readout: ``[seed, function, kind]``."""
    ours = by_seed(rows, "complex_accuracy")[:, :, None]
    return np.concatenate([ours, by_seed(rows, "real_accuracy")], axis=2)


def _field_mega(rows: Rows, names: list[str]) -> Drawing:
    order, found = _field_order(rows), _field_scores(rows)
    kinds = ("complex", *(f"real, {name} readout" for name in READOUTS))
    shown = rows["complex_pictures"][0]

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(len(order), 3, squeeze=False, width_ratios=(1, 1, 4))
        for line, number in zip(axes, order, strict=True):
            size, turn, accuracy = line
            # An amplitude of 3 goes in at the rim.
            _plane(size, shown[number, 0], figure.INTENSITY, 3.0)
            _plane(turn, shown[number, 1], figure.PHASE, 2 * np.pi)
            size.set_ylabel(names[number], rotation=0, ha="right", va="center")
            _dots(accuracy, found[:, number])
            accuracy.set_xlim(0.95 * found.min(), 1)
        for axis in axes[:-1, 2]:
            axis.tick_params(labelbottom=False)
        axes[0, 0].set_title("amplitude")
        axes[0, 1].set_title("phase")
        axes[0, 2].set_title("mean accuracy")
        axes[-1, 2].set_xlabel("accuracy")
        for axis, label in zip(axes[-1, :2], ("amplitude", "rad"), strict=True):
            below = axis.inset_axes((0.0, -0.25, 1.0, 0.1))
            scale = drawn.colorbar(
                axis.get_images()[0], cax=below, orientation="horizontal", label=label
            )
            if label == "rad":
                scale.set_ticks([0.0, np.pi, 2 * np.pi], labels=["0", "π", "2π"])
            else:
                scale.set_ticks([0, 3])
        handles = [
            axes[0, 2].plot([], [], "o", color=f"C{kind}", label=name)[0]
            for kind, name in enumerate(kinds)
        ]
        drawn.legend(handles=handles, loc="outside upper center", ncols=3)

    told = ", ".join(names[number] for number in order)
    return Drawing(
        "fields-mega",
        "Every activation of a field, and real nets beside it",
        "Best first: amplitude and phase of what comes out over the plane of the field "
        "(real part to the right, imaginary part upwards, -3 to 3), and the accuracy "
        "over all tasks and depths, of complex nets whose intensities are read out and "
        "of real nets with as many parameters; mean over the seeds and its 95 % "
        "interval.",
        f"Rows of images and points, from the best: {told}.",
        (7.2, 1.4 + 0.85 * len(order)),
        draw,
    )


def _plane(axis: Axes, values: NDArray[Any], colours: str, top: float) -> None:
    axis.imshow(values, cmap=colours, vmin=0, vmax=top, origin="lower")
    axis.grid(visible=False)
    axis.set(xticks=[], yticks=[])


def _field_table(rows: Rows, names: list[str]) -> Table:
    means = _field_scores(rows).mean(axis=0)
    cells = []
    for number in _field_order(rows):
        name = names[number]
        measured = [f"{value:.3g}" for value in rows["complex_measures"][0][number]]
        scores = [f"{value:.3f}" for value in means[number]]
        cells.append((name, *measured, scores[0], REAL[name], *scores[1:]))
    heads = (
        "function",
        *(_FIELD_HEADS[name] for name in complex_zoo.MEASURES),
        "complex",
        "real function",
        *(f"real, {name}" for name in READOUTS),
    )
    note = (
        "Measured over the square from -3 to 3 of real and imaginary part. A stretch "
        "is what becomes of a small change of the field. The other columns are mean "
        "accuracies: of complex nets, whose intensities are read out, and of real nets "
        "with as many parameters, read out as they are and squared."
    )
    return Table(heads, tuple(cells), note, sortable=True)
