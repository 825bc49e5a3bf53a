"""Figures of the study ``evolution``."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from labctl.protocol import Evolution
from labctl.recording.reader import Record
from labctl.report import figure
from labctl.report.figure import Drawing
from labctl.report.section import Section
from labctl.studies.evolution import scores
from labctl.training.interval import bootstrap

Rows = dict[str, NDArray[Any]]


def sections(record: Record) -> Iterator[Section]:
    """Show scores by method, and the course of every training.

    Parameters
    ----------
    record
        Of the study.

    Yields
    ------
    section
        With figures.
    """
    spec = Evolution.model_validate(record.resolved["study"])
    rows = record.table("fits")
    drawings = (*_scores(rows, spec), *_courses(rows, spec))
    yield Section("trained", "What each way of training reaches", drawings=drawings)


def _scores(rows: Rows, spec: Evolution) -> Iterator[Drawing]:
    values = {}
    for budget in spec.budgets:
        for method in spec.methods:
            found = scores(rows, method, budget)
            found = found[np.isfinite(found)]
            if len(found):
                low, high = bootstrap(found.tolist())
                values[f"{method}, {budget} shots"] = (float(found.mean()), low, high)
    if values:
        yield figure.whiskers(
            "methods",
            "Score on the test split",
            "Mean over the seeds and its 95 % interval. Selection keeps the best of "
            "equally wide variations, in annealing they shrink; readout leaves theta "
            "as it started, and the oracle knows the true gradient.",
            "test score",
            values,
        )


def _courses(rows: Rows, spec: Evolution) -> Iterator[Drawing]:
    budget = max(spec.budgets)
    known = [
        method
        for method in spec.methods
        if ((rows["method"] == method) & (rows["budget"] == budget)).any()
    ]
    if not known:
        return

    def draw(drawn: Figure) -> None:
        axis = drawn.subplots()
        for number, method in enumerate(known):
            some = (rows["method"] == method) & (rows["budget"] == budget)
            loss, shots = rows["loss"][some], rows["shots"][some][0]
            whole = np.isfinite(loss).all(axis=0)
            style = {"label": method, "color": f"C{number}"}
            figure.spread(axis, shots[whole], loss[:, whole], **style)
        axis.set(xlabel="shots spent", ylabel="training loss (nat)")
        # Curves may lie anywhere within the axes.
        drawn.legend(loc="outside upper center", ncols=len(known))

    yield Drawing(
        "courses",
        "The course of the training",
        f"Training loss over the exposures, budget {budget}; mean over the seeds and "
        "its 95 % interval. Searches show the mean over the thetas that they try, and "
        "the learned backward pass its dither: what counts is the test score.",
        f"Curves of the loss over the shots, one a method: {', '.join(known)}.",
        (7.2, 3.2),
        draw,
    )
