"""Figures of the study ``destroy-jacobian``."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from labctl.protocol import DestroyJacobian
from labctl.recording.reader import Record
from labctl.report import figure
from labctl.report.figure import Drawing
from labctl.report.section import Section
from labctl.studies.destroy_jacobian import TARGETS, Condition, conditions

Rows = dict[str, NDArray[Any]]


def sections(record: Record) -> Iterator[Section]:
    """Show accuracy over what was spoilt, learning curves and decision maps.

    Parameters
    ----------
    record
        Of the study.

    Yields
    ------
    section
        With figures.
    """
    spec = DestroyJacobian.model_validate(record.resolved["study"])
    rows = record.table("fits")
    drawings = (
        _over(rows, spec, "flips"),
        _over(rows, spec, "powers"),
        _learning(rows, spec),
        _maps(rows, spec),
    )
    yield Section("spoilt", "Learning with a spoilt backward pass", drawings=drawings)


_AXES = {
    "flips": (
        "flips",
        "Accuracy over the probability of a flipped sign",
        "p: 0 is untouched, .5 random, 1 every sign turned round.",
        "probability of a flip",
    ),
    "powers": (
        "powers",
        "Accuracy over how much of the sizes is kept",
        "sign(v) abs(v)^k: k = 1 is untouched, k = 0 keeps the sign alone.",
        "exponent k",
    ),
}


def _over(rows: Rows, spec: DestroyJacobian, what: str) -> Drawing:
    name, title, caption, label = _AXES[what]
    ways = conditions(spec)
    untouched = {"flips": 0.0, "powers": 1.0}[what]
    field = {"flips": "flip", "powers": "power"}[what]
    values = sorted({untouched, *getattr(spec, what)})

    def place(target: str, value: float) -> int:
        if value == untouched:
            return 0
        return ways.index(Condition(target, **{field: value}))

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(1, len(TARGETS), sharey=True)
        for axis, target in zip(axes, TARGETS, strict=True):
            pick = [place(target, value) for value in values]
            for number, depth in enumerate(spec.depths):
                found = rows["accuracy"][rows["depth"] == depth][:, pick]
                if len(found):
                    figure.spread(
                        axis,
                        np.array(values),
                        found,
                        color=f"C{number}",
                        label=f"depth {depth}",
                        marker="o",
                        markersize=3,
                    )
            axis.set(title=target, ylim=(0.0, 1.02))
            axis.axhline(0.5, color="C3", linewidth=0.8, linestyle=":")
        axes[0].set_ylabel("accuracy on clean test data")
        axes[len(TARGETS) // 2].set_xlabel(label)  # of all, which share it
        axes[0].legend(fontsize=7, loc="lower left")

    return Drawing(
        name,
        title,
        f"{caption} Mean over the seeds and its 95 % interval; dotted is chance. One "
        "panel for each way to spoil the backward pass: a part, both gradients, all.",
        f"Curves of the accuracy over the {label}, by what is spoilt and by depth.",
        (7.2, 3.0),
        draw,
    )


def _told(way: Condition) -> str:
    if way.flip:
        return f"{way.target}, flips p = {way.flip:g}"
    return f"{way.target}, k = {way.power:g}" if way.power < 1 else "untouched"


def _chosen(spec: DestroyJacobian) -> list[int]:
    """Few conditions that tell most: untouched, p nearest .45, signs alone."""
    ways = conditions(spec)
    p = min(spec.flips, key=lambda flip: abs(flip - 0.45))
    k = min(spec.powers)
    wanted = [ways[0]]
    for target in ("grad_x", "grad_theta"):
        wanted += [Condition(target, flip=p), Condition(target, power=k)]
    return [ways.index(way) for way in wanted if way in ways]


def _learning(rows: Rows, spec: DestroyJacobian) -> Drawing:
    ways, chosen = conditions(spec), _chosen(spec)

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(1, len(spec.depths), sharey=True, squeeze=False)[0]
        for axis, depth in zip(axes, spec.depths, strict=True):
            for number, way in enumerate(chosen):
                found = rows["curve"][rows["depth"] == depth][:, way]
                if len(found):
                    x = np.linspace(0, spec.steps, found.shape[1])
                    figure.spread(
                        axis, x, found, color=f"C{number}", label=_told(ways[way])
                    )
            axis.set(title=f"depth {depth}", xlabel="step", ylim=(0, 1.2))
        axes[0].set_ylabel("cross-entropy of the training (nat)")
        drawn.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=3,
            fontsize=8,
        )

    return Drawing(
        "learning",
        "Learning curves",
        "Mean over the seeds and its 95 % interval.",
        "Curves of the loss over the steps, one panel a depth.",
        (7.2, 3.4),
        draw,
    )


def _maps(rows: Rows, spec: DestroyJacobian) -> Drawing:
    ways, chosen = conditions(spec), _chosen(spec)
    seed = rows["seed"].min()

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(len(spec.depths), len(chosen), squeeze=False)
        image = None
        for line, depth in zip(axes, spec.depths, strict=True):
            found = (rows["depth"] == depth) & (rows["seed"] == seed)
            for axis, way in zip(line, chosen, strict=True):
                axis.set_xticks([])
                axis.set_yticks([])
                axis.grid(visible=False)
                if not found.any():
                    continue
                image = axis.imshow(
                    rows["map"][found][0][way],
                    origin="lower",
                    vmin=0,
                    vmax=1,
                    cmap=figure.INTENSITY,
                    extent=(-2, 2, -2, 2),
                )
            line[0].set_ylabel(f"depth {depth}")
        for axis, way in zip(axes[0], chosen, strict=True):
            axis.set_title(_told(ways[way]).replace(", ", ",\n"), fontsize=8)
        if image is not None:
            drawn.colorbar(image, ax=axes, label="probability of class 1", shrink=0.6)

    return Drawing(
        "maps",
        "Decision boundaries",
        "Probability of class 1 on the square from -2 to 2 in both features, first "
        "seed. The clouds of one class lie in opposite corners.",
        "Maps, one row a depth, one column a condition.",
        (7.2, 0.7 + 1.35 * len(spec.depths)),
        draw,
    )
