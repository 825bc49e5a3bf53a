"""Figures of the study ``activations``: of fields, in nets of complex weights."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from labctl.report import figure
from labctl.report.figure import Drawing
from labctl.report.section import Gallery, Item, Section, Table
from labctl.report.study.small_multiple import Scores, dots
from labctl.studies.complex_nets import READOUTS, by_seed
from labctl.studies.complex_zoo import MEASURES, REAL

Rows = dict[str, NDArray[Any]]
HEADS = {
    "largest": "largest stretch",
    "typical": "rms stretch",
    "zero_share": "share that passes nothing",
    "conjugate_share": "share of the conjugate",
}
_TITLE = "Every activation of a field, and real nets beside it"


def section(rows: Rows, names: list[str]) -> Section:
    """Show every activation of a field, and what nets learn with it.

    Parameters
    ----------
    rows
        Of the study, one a task, depth and seed.
    names
        Of the activations.
    """
    return Section(
        "fields",
        "Activations of fields, in nets of complex weights",
        table=_table(rows, names),
        gallery=_gallery(rows, names),
    )


def _order(rows: Rows) -> list[int]:
    found = rows["complex_accuracy"].mean(axis=0)
    return [int(number) for number in np.argsort(-found, kind="stable")]


def _scores(rows: Rows) -> NDArray[np.float64]:
    """Complex nets, then real ones by readout: ``[seed, function, kind]``."""
    ours = by_seed(rows, "complex_accuracy")[:, :, None]
    return np.concatenate([ours, by_seed(rows, "real_accuracy")], axis=2)


def _gallery(rows: Rows, names: list[str]) -> Gallery:
    ours, real = rows["complex_accuracy"][:, :, None], rows["real_accuracy"]
    scores = Scores(
        "fields",
        tuple(names),
        "net",
        _kinds(),
        rows,
        np.concatenate([ours, real], axis=2),
        rank=lambda means: means[:, 0],
    )
    order = scores.order
    keys = (
        *scores.keys("accuracy of complex nets"),
        *scores.others(
            [HEADS[name] for name in MEASURES],
            rows["complex_measures"][0],
            {"name": names, "real function beside it": [REAL[name] for name in names]},
        ),
    )
    return Gallery(
        "fields-gallery",
        _TITLE,
        "Amplitude and phase of what comes out over the plane of the field (real part "
        "to the right, imaginary part upwards, -3 to 3), and the accuracy by task and "
        "depth, of complex nets whose intensities are read out and of real nets with "
        "as many parameters; mean over the seeds and its 95 % interval.",
        scores.legend(),
        tuple(
            Item(names[n], (_planes(rows, names[n], n), scores.drawing(n)))
            for n in order
        ),
        keys,
        _mega(rows, names),
    )


def _kinds() -> tuple[str, ...]:
    return ("complex", *(f"real, {name} readout" for name in READOUTS))


def _planes(rows: Rows, name: str, number: int) -> Drawing:
    shown = rows["complex_pictures"][0][number]

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(1, 2)
        for axis, picture, (title, colours, top, ticks) in zip(
            axes, shown, _PLANES, strict=True
        ):
            _plane(axis, picture, colours, top)
            axis.set_title(title, fontsize=7.5, pad=3)
            beside = axis.inset_axes((1.05, 0.0, 0.07, 1.0))
            scale = drawn.colorbar(axis.get_images()[0], cax=beside)
            scale.set_ticks(list(ticks), labels=list(ticks.values()))
            beside.tick_params(labelsize=6.5, length=2, pad=2)

    return Drawing(
        f"fields-planes-{figure.slug(name)}",
        name,
        "",
        f"Images of amplitude and phase of {name} over the plane of the field.",
        (2.7, 1.35),
        draw,
    )


_PLANES: tuple[tuple[str, str, float, dict[float, str]], ...] = (
    # An amplitude of 3 goes in at the rim.
    ("amplitude", figure.INTENSITY, 3.0, {0.0: "0", 3.0: "3"}),
    (
        "phase (rad)",
        figure.PHASE,
        2 * np.pi,
        {0.0: "0", np.pi: "π", 2 * np.pi: "2π"},
    ),
)


def _mega(rows: Rows, names: list[str]) -> Drawing:
    order, found = _order(rows), _scores(rows)
    kinds = _kinds()
    shown = rows["complex_pictures"][0]

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(len(order), 3, squeeze=False, width_ratios=(1, 1, 4))
        for line, number in zip(axes, order, strict=True):
            size, turn, accuracy = line
            # An amplitude of 3 goes in at the rim.
            _plane(size, shown[number, 0], figure.INTENSITY, 3.0)
            _plane(turn, shown[number, 1], figure.PHASE, 2 * np.pi)
            size.set_ylabel(names[number], rotation=0, ha="right", va="center")
            dots(accuracy, found[:, number])
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
        _TITLE,
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


def _table(rows: Rows, names: list[str]) -> Table:
    means = _scores(rows).mean(axis=0)
    cells = []
    for number in _order(rows):
        name = names[number]
        measured = [f"{value:.3g}" for value in rows["complex_measures"][0][number]]
        scores = [f"{value:.3f}" for value in means[number]]
        cells.append((name, *measured, scores[0], REAL[name], *scores[1:]))
    heads = (
        "function",
        *(HEADS[name] for name in MEASURES),
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
