"""Accuracies of nets by task and depth, as small figures to be put in order."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from labctl.report.figure import Drawing, slug
from labctl.report.section import Key
from labctl.training.interval import bootstrap

_MARKS = "osD^v"
_HEIGHT = 1.35  # inches
_SMALL: dict[str, Any] = {"labelsize": 6.5, "length": 2, "pad": 2}


@dataclass(frozen=True, eq=False)
class Scores:
    """Accuracies, one row a task, depth and seed.

    Parameters
    ----------
    name
        Begins the name of every figure.
    names
        What is compared.
    way, kinds
        In which each was trained: what they are, and their names.
    rows
        Columns ``task``, ``depth`` and ``seed``, ``(row,)``.
    accuracy
        ``(row, name, kind)``.
    rank
        Takes mean accuracies ``(name, kind)``; returns the one that each is ranked by.
    """

    name: str
    names: tuple[str, ...]
    way: str
    kinds: tuple[str, ...]
    rows: Mapping[str, NDArray[Any]]
    accuracy: NDArray[np.float64]
    rank: Callable[[NDArray[np.float64]], NDArray[np.float64]] = field(repr=False)

    @cached_property
    def order(self) -> list[int]:
        """Places of the names, from the highest mean accuracy."""
        found = self._ranked(np.ones(len(self.accuracy), dtype=bool))
        return [int(number) for number in np.argsort(-found, kind="stable")]

    @cached_property
    def tasks(self) -> list[str]:
        """Every task, in the order of the rows."""
        return list(dict.fromkeys(self.rows["task"].tolist()))

    @cached_property
    def depths(self) -> list[int]:
        """Every depth, the smallest first."""
        return [int(depth) for depth in np.unique(self.rows["depth"])]

    @cached_property
    def lowest(self) -> float:
        """Lower end of the axes that all share."""
        return float(np.nanmin(self.accuracy, initial=1.0)) - 0.05

    def keys(self, ranked: str) -> list[Key]:
        """Say by which accuracies the names can be ordered.

        Parameters
        ----------
        ranked
            What each is ranked by, such as ``best accuracy``.
        """
        every = np.ones(len(self.rows["seed"]), dtype=bool)
        picks = {f"{ranked}, mean": every}
        if len(self.tasks) > 1:
            picks |= {
                f"{ranked} on {task}": self.rows["task"] == task for task in self.tasks
            }
        if len(self.depths) > 1:
            picks |= {
                f"{ranked}, depth {n}": self.rows["depth"] == n for n in self.depths
            }
        mean = self.accuracy.mean(axis=0)
        return [
            *(
                self._key(ranked, label, self._ranked(some))
                for label, some in picks.items()
            ),
            *(
                self._key("mean accuracy", f"mean accuracy, {kind}", mean[:, number])
                for number, kind in enumerate(self.kinds)
            ),
        ]

    def others(
        self,
        heads: Iterable[str],
        measures: NDArray[np.float64],
        words: Mapping[str, Sequence[str]],
    ) -> list[Key]:
        """Say by what else the names can be ordered.

        Parameters
        ----------
        heads
            Names of the measures.
        measures
            Of the names as given, ``[name, measure]``.
        words
            What is said of each name as given, by what it is.
        """
        columns = zip(heads, measures[self.order].T, strict=True)
        return [
            *(Key("measure", head, tuple(map(float, one))) for head, one in columns),
            *(
                Key("word", head, tuple(said[number] for number in self.order))
                for head, said in words.items()
            ),
        ]

    def _ranked(self, some: NDArray[np.bool_]) -> NDArray[np.float64]:
        return self.rank(self.accuracy[some].mean(axis=0))

    def _key(self, group: str, label: str, values: NDArray[np.float64]) -> Key:
        return Key(group, label, tuple(float(values[n]) for n in self.order), ".3f")

    def legend(self) -> Drawing:
        """Say which colour and mark is which kind."""

        def draw(drawn: Figure) -> None:
            # A figure of nothing but a legend has nothing to lay out.
            drawn.set_layout_engine("none")
            axis = drawn.add_axes((0, 0, 1, 1))
            axis.set_axis_off()
            handles = [
                axis.plot([], [], f"{_MARKS[n % 5]}-", color=f"C{n}", label=kind, lw=1)
                for n, kind in enumerate(self.kinds)
            ]
            axis.legend(
                handles=[line for (line,) in handles],
                title=self.way,
                title_fontsize=8,
                alignment="left",
                loc="center left",
                ncols=len(handles),
                fontsize=8,
                markerscale=0.7,
                columnspacing=1.2,
                borderaxespad=0,
            )

        told = ", ".join(self.kinds)
        alt = f"Colours and marks of the accuracies, by {self.way}: {told}."
        return Drawing(f"{self.name}-legend", "", "", alt, (4.6, 0.42), draw)

    def drawing(self, number: int) -> Drawing:
        """Draw the accuracies of one name, a panel a task.

        Parameters
        ----------
        number
            Its place among the names.
        """
        count = len(self.tasks)

        def draw(drawn: Figure) -> None:
            axes = drawn.subplots(1, count, squeeze=False, sharey=True)[0]
            for axis, task in zip(axes, self.tasks, strict=True):
                self._panel(axis, task, number)
            axes[0].set_ylabel("accuracy", fontsize=7)

        name = self.names[number]
        ranked = {task: self._ranked(self.rows["task"] == task) for task in self.tasks}
        best = ", ".join(
            f"{task} {ranks[number]:.3f}" for task, ranks in ranked.items()
        )
        return Drawing(
            f"{self.name}-accuracy-{slug(name)}",
            name,
            "",
            f"Accuracy of nets with {name} over their depth; mean over the depths: "
            f"{best}.",
            (0.5 + 1.35 * max(count, 3), _HEIGHT),
            draw,
        )

    def _panel(self, axis: Axes, task: str, number: int) -> None:
        for kind in range(len(self.kinds)):
            middle, low, high = self._course(task, number, kind)
            # Beside each other: intervals of one depth would hide one another.
            shift = (kind - (len(self.kinds) - 1) / 2) * 0.13
            place = np.arange(len(self.depths)) + shift
            axis.plot(
                place,
                middle,
                f"{_MARKS[kind % 5]}-",
                color=f"C{kind}",
                markersize=2.6,
                linewidth=0.5,
            )
            axis.vlines(place, low, high, color=f"C{kind}", linewidth=1.1)
        axis.set_title(task, fontsize=7.5, pad=3)
        axis.set_xticks(range(len(self.depths)), [f"{depth}" for depth in self.depths])
        axis.set_xlabel("depth", fontsize=7, labelpad=1)
        axis.set(xlim=(-0.5, len(self.depths) - 0.5), ylim=(self.lowest, 1.03))
        axis.tick_params(**_SMALL)
        axis.grid(visible=False, axis="x")

    def _course(
        self, task: str, number: int, kind: int
    ) -> tuple[NDArray[np.float64], ...]:
        """Mean and interval at each depth; no number where nothing was trained."""
        found = []
        for depth in self.depths:
            mine = (self.rows["task"] == task) & (self.rows["depth"] == depth)
            seeds = self.accuracy[mine, number, kind]
            middle = seeds.mean() if seeds.size else np.nan
            found.append((middle, *bootstrap(seeds.tolist())))
        return tuple(np.array(found).T)


def dots(axis: Axes, found: NDArray[np.float64]) -> None:
    """Draw the mean over the seeds of each kind, and its 95 % interval.

    Parameters
    ----------
    axis
        Where.
    found
        ``(seed, kind)``.
    """
    for kind in range(found.shape[1]):
        low, high = bootstrap(found[:, kind].tolist())
        axis.hlines(kind, low, high, color=f"C{kind}", linewidth=2)
        axis.plot(found[:, kind].mean(), kind, "o", color=f"C{kind}", markersize=4)
    axis.set(ylim=(found.shape[1] - 0.4, -0.6), yticks=[])
