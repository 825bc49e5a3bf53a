"""Figures of the study ``loss-fields``, and its explorer."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from labctl.recording.reader import Record
from labctl.report import figure
from labctl.report.figure import Drawing
from labctl.report.section import Explorer, Section
from labctl.training.interval import bootstrap

_ARROWS = 11  # a side: more cannot be told apart on a page
_ACROSS = 4


def sections(record: Record) -> Iterator[Section]:
    """Show the explorer, then the fields of the first seed and the numbers of all.

    Parameters
    ----------
    record
        Of the study.

    Yields
    ------
    section
        With explorer and figures.
    """
    spec = record.resolved["study"]
    rows = record.table("fits")
    first = np.flatnonzero(rows["seed"] == rows["seed"][0])
    numbers = list(_numbers(rows))
    drawings = (
        _panels(rows, first, spec, "gradient_x"),
        _panels(rows, first, spec, "gradient_y"),
        _descents(rows, first, spec),
        *(each for each in numbers if isinstance(each, Drawing)),
    )
    yield Section(
        "fields",
        "Fields of the losses",
        tuple(each for each in numbers if isinstance(each, str)),
        drawings=drawings,
        explorer=_explorer(spec, rows["target"][first[0]]),
    )


def _explorer(spec: dict[str, Any], target: NDArray[np.float64]) -> Explorer:
    losses = [str(name) for name in spec["losses"]]
    controls = {
        "name": "cos+mse" if "cos+mse" in losses else losses[0],
        "side": "x",
        "display": "arrows",
        "colour": "loss",
        "a": 1,
        "grid": 18,
        "length": 1,
        "step": spec["step_size"],
        "noise": 0,
        "waves": 1,
        "rate": 0.3,
    }
    data = {
        "losses": losses,
        "reach": spec["reach"],
        "target": [round(float(part), 3) for part in target],
        "controls": controls,
    }
    return Explorer("loss-fields", json.dumps(data))


def _label(rows: dict[str, NDArray[Any]], row: int) -> str:
    name = str(rows["loss"][row])
    return f"gen({rows['a'][row]:g})" if name == "gen" else name


def _square(axis: Axes, reach: float, title: str) -> None:
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title)
    axis.set_xticks([-reach, 0, reach])
    axis.set_yticks([-reach, 0, reach])
    axis.grid(visible=False)


def _grid(drawn: Figure, count: int) -> list[Axes]:
    down = -(-count // _ACROSS)
    axes = drawn.subplots(down, _ACROSS, squeeze=False, sharex=True, sharey=True)
    drawn.supxlabel("first component", fontsize=9)
    drawn.supylabel("second component", fontsize=9)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return list(axes.flat[:count])


def _size(count: int) -> tuple[float, float]:
    return 7.2, 0.3 + 1.95 * -(-count // _ACROSS)


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    flat = np.unique(values, return_inverse=True)[1].reshape(values.shape)
    return np.asarray(flat / max(int(flat.max()), 1))


_TEXTS = {
    "gradient_x": (
        "fields-x",
        "Way down of x, for all x, at a target y (ring)",
        "Arrows point against the gradient with respect to x; their length saturates. "
        "Colour is the rank of the loss: dark is low.",
    ),
    "gradient_y": (
        "fields-y",
        "Way down of y, for all y, at a given x (ring)",
        "Arrows point against the gradient with respect to y. Colour is the rank of "
        "the gradient's size: bright is steep.",
    ),
}


def _panels(
    rows: dict[str, NDArray[Any]],
    first: NDArray[np.int64],
    spec: dict[str, Any],
    which: str,
) -> Drawing:
    name, title, caption = _TEXTS[which]
    reach = float(spec["reach"])

    def draw(drawn: Figure) -> None:
        for axis, row in zip(_grid(drawn, len(first)), first, strict=True):
            gradient = rows[which][row]
            size = np.hypot(gradient[..., 0], gradient[..., 1])
            shown = rows["value"][row] if which == "gradient_x" else size
            axis.imshow(
                _ranks(shown),
                origin="lower",
                extent=(-reach, reach, -reach, reach),
                cmap=figure.INTENSITY,
                vmin=0,
                vmax=1,
                interpolation="bilinear",
            )
            _quiver(axis, gradient, reach)
            axis.plot(*rows["target"][row], "o", mfc="none", mec="black", ms=8, mew=3)
            axis.plot(*rows["target"][row], "o", mfc="none", mec="white", ms=8, mew=1.5)
            _square(axis, reach, _label(rows, row))

    told = ", ".join(_label(rows, row) for row in first)
    alt = f"Maps with arrows, one a loss: {told}."
    return Drawing(name, title, caption, alt, _size(len(first)), draw)


def _quiver(axis: Axes, gradient: NDArray[Any], reach: float) -> None:
    count = len(gradient)
    place = np.linspace(-reach, reach, count)
    pick = np.unique(np.linspace(0, count - 1, min(_ARROWS, count)).round().astype(int))
    some = -gradient[np.ix_(pick, pick)].astype(float)
    size = np.hypot(some[..., 0], some[..., 1])
    usual = np.median(size[size > 0]) if (size > 0).any() else 1.0
    long = some / (size + usual)[..., None]
    axis.quiver(
        place[pick],
        place[pick],
        long[..., 0],
        long[..., 1],
        color="white",
        pivot="middle",
        angles="xy",
        scale_units="xy",
        scale=len(pick) / (2.4 * reach),
        width=0.012,
        rasterized=True,  # thousands of arrows are megabytes as outlines
    )


def _descents(
    rows: dict[str, NDArray[Any]], first: NDArray[np.int64], spec: dict[str, Any]
) -> Drawing:
    reach = float(spec["reach"])

    def draw(drawn: Figure) -> None:
        for axis, row in zip(_grid(drawn, len(first)), first, strict=True):
            lines = LineCollection(
                list(rows["paths"][row]), colors="C0", linewidths=0.8
            )
            axis.add_collection(lines)
            ends = rows["paths"][row][:, -1]
            axis.plot(ends[:, 0], ends[:, 1], ".", color="C1", markersize=5)
            axis.plot(*rows["target"][row], "o", mfc="none", mec="C2", ms=9, mew=2)
            _square(axis, reach, _label(rows, row))

    return Drawing(
        "descents",
        "Descents",
        f"Plain gradient descent on x, {spec['steps']} steps of {spec['step_size']:g} "
        "from a square of starts; dots are the ends, the ring is y. Points between the "
        "ones kept are left out.",
        "Paths from a square of starts, one panel a loss.",
        _size(len(first)),
        draw,
    )


def _numbers(rows: dict[str, NDArray[Any]]) -> Iterator[Drawing | str]:
    """Draw the measures of the descents; say so of one that is nowhere a number."""
    labels = np.array([_label(rows, row) for row in range(len(rows["loss"]))])
    for name, column, title, caption, unit in (
        (
            "reached",
            "score",
            "How often does a descent end at the target?",
            "Share of the starts whose descent ends within 5 % of |y| of y.",
            "share of the descents",
        ),
        (
            "late",
            "late_distance",
            "Does the descent come to rest?",
            "Median distance to y over the last fifth of the steps. Losses whose "
            "minima are a line or a cone stay away from y without moving.",
            "distance to y, over |y| (logarithm to base 10)",
        ),
    ):
        values = {}
        for label in dict.fromkeys(labels.tolist()):
            mine = rows[column][labels == label].astype(float)
            if name == "late":
                mine = np.log10(mine)
            mine = mine[np.isfinite(mine)]
            if len(mine):
                values[label] = (float(mine.mean()), *bootstrap(list(mine)))
        if not values:
            yield f"{title} No figure: {column} is nowhere a number."
            continue
        yield figure.whiskers(
            name, title, f"{caption} Mean over the seeds, 95 % interval.", unit, values
        )
