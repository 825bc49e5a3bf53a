"""What a report says of a comparison: who is ahead of whom, at what cost."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from labctl.recording.reader import Record
from labctl.report.figure import Drawing, slug
from labctl.report.section import Section, Table
from labctl.training.interval import bootstrap

Lines = Mapping[str, NDArray[Any]]
_HEADS: Final = {
    "task": "task",
    "method": "method",
    "budget": "shots",
    "seeds": "seeds",
    "mean": "score",
    "gain": "recovered gain",
    "over_readout": "over readout",
    "reached": "reach the oracle",
    "shots_to_target": "shots to target",
    "cosine": "cosine",
    "digital_s": "digital s",
}
_FORMS: Final = {"cosine": ".2f", "digital_s": ".1f", "shots_to_target": ".0f"}
_OPPONENTS: Final = ("readout", "spsa", "oracle")
_ROW_INCH: Final = 0.27
_MARKS: Final = "osD^vPX*"
_AHEAD, _BEHIND, _OPEN = "C2", "C1", "C7"


@dataclass(frozen=True, eq=False)
class Panel:
    """One number of every row, with its interval.

    Parameters
    ----------
    label
        What the numbers are.
    middle, low, high
        ``(row,)``; no number where there is none, or no interval.
    lines
        Where thin lines stand.
    is_log
        Whether its axis is logarithmic.
    is_judged
        Whether colours say on which side of zero the whole interval is.
    """

    label: str
    middle: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    lines: tuple[float, ...] = ()
    is_log: bool = False
    is_judged: bool = False

    @property
    def colours(self) -> list[str]:
        """One a row."""
        if not self.is_judged:
            return ["C0"] * len(self.middle)
        sides = zip(self.low, self.high, strict=True)
        return [
            _AHEAD if low > 0 else _BEHIND if high < 0 else _OPEN for low, high in sides
        ]


@dataclass(frozen=True, eq=False)
class Course:
    """What a method reached with each of its budgets.

    Parameters
    ----------
    budget
        Shots, rising, ``(point,)``.
    score, gain
        Middle, lower and upper end, ``(3, point)``.
    is_end
        Whether it is the readout or the oracle, between which gains are measured.
    """

    budget: NDArray[Any]
    score: NDArray[Any]
    gain: NDArray[Any]
    is_end: bool


def sections(record: Record) -> Iterator[Section]:
    """Say what methods are worth, and who is ahead of whom.

    Parameters
    ----------
    record
        Of a comparison.
    """
    lines = record.table("summary")
    count = len(lines["task"])
    if not count:
        done = len(record.column("jobs", "job"))
        text = f"{done} trainings have ended; the summary comes after the last one."
        yield Section("comparison", "Methods compared", (text,))
        return
    # Records of before have no count of the seeds that reach the oracle.
    heads = {name: text for name, text in _HEADS.items() if name in lines}
    rows = tuple(
        tuple(cell(lines, row, head) for head in heads) for row in range(count)
    )
    note = (
        "Brackets hold 95 % bootstrap intervals over the seeds. No gain is stated "
        "where the oracle gains less than .05. Digital seconds depend on the computer."
    )
    drawings = [
        drawing
        for task in _tasks(lines)
        for drawing in (
            _compared(lines, task, _scale(record, task)),
            _over_shots(lines, task, _scale(record, task), _ends(record)),
        )
    ]
    table = Table(tuple(heads.values()), rows, note)
    yield Section("comparison", "Methods compared", (), table, tuple(drawings))
    yield from _wins(record, lines)


def cell(lines: Lines, row: int, head: str) -> str:
    """Write a number of the summary, with its interval where it has one.

    Parameters
    ----------
    lines
        The summary.
    row, head
        Which of it.
    """
    value = lines[head][row]
    if head == "shots_to_target" and np.isinf(value):
        return f"> {lines['budget'][row]}"
    if isinstance(value, np.floating) and np.isnan(value):
        return "–"
    if f"{head}_low" not in lines:
        return f"{value:{_FORMS[head]}}" if head in _FORMS else str(value)
    ends = (lines[f"{head}_low"][row], lines[f"{head}_high"][row])
    return _with((value, *ends), ".3f")


def _with(numbers: Iterable[Any], form: str) -> str:
    """Write a number with its interval, where it has one."""
    value, low, high = map(float, numbers)
    if math.isnan(low):
        return f"{value:{form}}"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _tasks(lines: Lines) -> list[str]:
    return list(dict.fromkeys(lines["task"].tolist()))


def _scale(record: Record, task: str) -> tuple[str, int]:
    """Give the name of a task's score, and -1 where less is better."""
    result = record.result
    own = result.get("scales", {}).get(task, result)
    sign = -1 if own.get("direction") == "down" else 1
    return str(own.get("metric") or "score"), sign


def _kinds(record: Record) -> dict[str, str]:
    """Say of each method of a comparison which way of training it is."""
    resolved = record.resolved
    usual = resolved.get("base", {}).get("method", {}).get("name", "surrogate")
    return {
        name: str(given.get("method", {}).get("name", usual))
        for name, given in resolved.get("methods", {}).items()
    }


def _ends(record: Record) -> set[str]:
    kinds = _kinds(record)
    return {name for name, kind in kinds.items() if kind in {"readout", "oracle"}}


# ---- a task: every method, one row each ------------------------------------------


def _row_names(methods: Sequence[str], budgets: Sequence[int]) -> list[str]:
    """Name rows by their method, and by their shots where those differ."""
    if len(set(budgets)) == 1:
        return list(methods)
    return [f"{m}, {b:,} shots" for m, b in zip(methods, budgets, strict=True)]


def _shots(budgets: Sequence[int]) -> str:
    some = set(budgets)
    if len(some) == 1:
        return f"{some.pop():,} shots"
    return "the largest number of shots that each method was given"


def _largest(lines: Lines, task: str) -> NDArray[np.int64]:
    """Rows of a task, of each method that with the most shots."""
    mine = np.flatnonzero(lines["task"] == task)
    methods, budgets = lines["method"][mine], lines["budget"][mine]
    most = np.array([budgets[methods == name].max() for name in methods])
    found: NDArray[np.int64] = mine[budgets == most]
    return found


def _compared(lines: Lines, task: str, scale: tuple[str, int]) -> Drawing:
    mine = _largest(lines, task)
    metric, sign = scale

    def taken(name: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        none = np.full(len(mine), np.nan)
        low, high = (
            lines[f"{name}_{end}"][mine] if f"{name}_{end}" in lines else none
            for end in ("low", "high")
        )
        return lines[name][mine], low, high

    better = "" if sign > 0 else ", less is better"
    panels = [
        Panel(f"{metric}{better}", *taken("mean")),
        Panel("recovered gain", *taken("gain"), lines=(0.0, 1.0)),
        Panel("cosine", *taken("cosine"), lines=(0.0,)),
        Panel("digital s", *taken("digital_s"), is_log=True),
    ]
    budgets = lines["budget"][mine].tolist()
    said = {
        "recovered gain": "part of the room between readout (0) and oracle (1) that it "
        "took",
        "cosine": "held-out cosine of the surrogate at the end",
        "digital s": "seconds of digital work",
    }
    panels = [panel for panel in panels if np.isfinite(panel.middle).any()]
    told = [said[panel.label] for panel in panels if panel.label in said]
    return rows(
        f"compared-{slug(task)}",
        f"{task}: what each method reached",
        f"{', '.join(['Score on the test split', *told])}, with {_shots(budgets)}. "
        "Means and 95 % intervals over the seeds.",
        _row_names(lines["method"][mine].tolist(), budgets),
        panels,
    )


def rows(
    name: str,
    title: str,
    caption: str,
    names: Sequence[str],
    panels: Sequence[Panel],
) -> Drawing:
    """Draw several numbers of every row side by side, each with its interval.

    Parameters
    ----------
    name, title, caption
        Of the drawing.
    names
        Of the rows.
    panels
        What is drawn of them.

    Returns
    -------
    drawing
        Not drawn yet.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, max(1, len(panels)), sharey=True, squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=True):
            _draw_panel(axis, panel)
        axes[0].set_yticks(range(len(names)), list(names))
        axes[0].set_ylim(len(names) - 0.5, -0.5)

    told = ". ".join(
        f"{panel.label}: "
        + ", ".join(
            f"{row} {_with(numbers, '.3g')}"
            for row, *numbers in zip(
                names, panel.middle, panel.low, panel.high, strict=True
            )
            if math.isfinite(numbers[0])
        )
        for panel in panels
    )
    height = 0.85 + _ROW_INCH * len(names)
    return Drawing(name, title, caption, f"Points. {told}.", (7.6, height), draw)


def _draw_panel(axis: Axes, panel: Panel) -> None:
    place = np.arange(len(panel.middle))
    for line in panel.lines:
        axis.axvline(line, color="gray", linewidth=0.8, linestyle=":")
    for at, colour in enumerate(panel.colours):
        axis.hlines(at, panel.low[at], panel.high[at], color=colour, linewidth=2)
        axis.plot(panel.middle[at], place[at], "o", color=colour, markersize=4.5)
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.1)
    axis.set_xlabel(panel.label)
    if panel.is_log and (panel.middle[np.isfinite(panel.middle)] > 0).all():
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(4))


# ---- a task: over the shots ------------------------------------------------------


def _over_shots(
    lines: Lines, task: str, scale: tuple[str, int], ends: set[str]
) -> Drawing:
    courses: dict[str, Course] = {}
    for method in dict.fromkeys(lines["method"].tolist()):
        mine = np.flatnonzero((lines["task"] == task) & (lines["method"] == method))
        mine = mine[np.argsort(lines["budget"][mine], kind="stable")]
        if mine.size:
            score, gain = (
                np.stack([lines[key][mine] for key in (name, *_bounds(name))])
                for name in ("mean", "gain")
            )
            budget = lines["budget"][mine]
            courses[str(method)] = Course(budget, score, gain, method in ends)
    return over_shots(task, scale, courses)


def _bounds(name: str) -> tuple[str, str]:
    return f"{name}_low", f"{name}_high"


def over_shots(
    task: str, scale: tuple[str, int], courses: Mapping[str, Course]
) -> Drawing:
    """Draw score and recovered gain of every method over the shots it was given.

    Methods with equal shots stand side by side, so that none hides another.

    Parameters
    ----------
    task
        What was learned.
    scale
        Name of its score, and -1 where less is better.
    courses
        What each method reached.

    Returns
    -------
    drawing
        Not drawn yet.
    """
    metric, sign = scale
    has_gain = any(np.isfinite(each.gain[0]).any() for each in courses.values())
    shown = [(metric if sign > 0 else f"{metric} (less is better)", "score")]
    shown += [("recovered gain", "gain")] if has_gain else []
    columns = 4 if max(map(len, courses)) < 18 else 3

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for axis, (label, name) in zip(axes, shown, strict=True):
            _draw_courses(axis, courses, name)
            axis.set(xlabel="shots", ylabel=label)
            if name == "gain":
                for line in (0.0, 1.0):
                    axis.axhline(line, color="gray", linewidth=0.8, linestyle=":")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)

    told = "; ".join(
        f"{name} "
        + ", ".join(
            f"{_with(each, '.3g')} with {shots:,}"
            for shots, each in zip(course.budget, course.score.T, strict=True)
        )
        for name, course in courses.items()
    )
    return Drawing(
        f"over-shots-{slug(task)}",
        f"{task}: {' and '.join(name for name in ('score', 'gain')[: len(shown)])} "
        "over shots",
        "By the shots that the training was given; bars are 95 % intervals over the "
        "seeds. Methods with as many shots stand side by side."
        + (" Dotted: readout (0) and oracle (1)." if has_gain else ""),
        f"{metric} by method: {told}.",
        (7.6, 3.1 + 0.24 * math.ceil(len(courses) / columns)),
        draw,
    )


def _draw_courses(axis: Axes, courses: Mapping[str, Course], name: str) -> None:
    budgets = np.unique(np.concatenate([each.budget for each in courses.values()]))
    # Decades from one method to the next: more where no other shots are in the way.
    most, room = (0.05, 0.3) if len(budgets) == 1 else (0.022, 0.2)
    step = min(most, room / len(courses))
    number = 0
    for turn, (method, course) in enumerate(courses.items()):
        x = course.budget * 10 ** ((turn - (len(courses) - 1) / 2) * step)
        middle, low, high = getattr(course, name)
        if course.is_end:
            colour, mark, dash = "C7", "s" if turn else "o", "--"
        else:
            colour = f"C{number % 7}"
            mark, dash = _MARKS[(number + 2 * (number // 7)) % len(_MARKS)], "-"
            number += 1
        axis.plot(
            x, middle, color=colour, marker=mark, linestyle=dash,
            linewidth=1.2, markersize=5, label=method,
        )  # fmt: skip
        known = np.isfinite(low) & np.isfinite(high)
        axis.vlines(x[known], low[known], high[known], color=colour, linewidth=1.4)
    axis.set_xscale("log")
    axis.set_xlim(budgets[0] / 1.6, budgets[-1] * 1.6)
    axis.set_xticks(budgets, [_short(budget) for budget in budgets])
    axis.xaxis.set_minor_locator(NullLocator())


def _short(shots: int) -> str:
    """Whole thousands in two letters less: budgets lie side by side on the axis."""
    thousands, rest = divmod(shots, 1000)
    return f"{shots:,}" if rest or not thousands else f"{thousands:,}k"


# ---- wins and losses -------------------------------------------------------------


@dataclass(frozen=True)
class Match:
    """A method against another, seed by seed.

    Parameters
    ----------
    task, method, budget
        Who.
    against
        Whom.
    seeds, won
        Trainings of both, and those that were better.
    middle, low, high
        Mean difference, positive where the method is better, and its interval.
    """

    task: str
    method: str
    budget: int
    against: str
    seeds: int
    won: int
    middle: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Say on which side of zero the whole interval is."""
        return "wins" if self.low > 0 else "loses" if self.high < 0 else "open"

    @property
    def told(self) -> str:
        """Write it in a cell."""
        numbers = _with((self.middle, self.low, self.high), "+.3f")
        return f"{self.verdict}, {numbers}, better in {self.won} of {self.seeds}"


def matches(record: Record) -> list[Match]:
    """Set every method against readout, SPSA and oracle, seed by seed.

    An opponent is taken at its largest budget, as for the recovered gain.

    Parameters
    ----------
    record
        Of a comparison.
    """
    jobs, kinds = record.table("jobs"), _kinds(record)
    good = (jobs["status"] != "failed") & np.isfinite(jobs["score"])
    scores: dict[tuple[str, str, int], dict[int, float]] = {}
    for row in np.flatnonzero(good):
        task, method = str(jobs["task"][row]), str(jobs["method"][row])
        sign = _scale(record, task)[1]
        own = scores.setdefault((task, method, int(jobs["budget"][row])), {})
        own[int(jobs["seed"][row])] = sign * float(jobs["score"][row])
    return list(_matched(scores, kinds))


def _matched(
    scores: Mapping[tuple[str, str, int], Mapping[int, float]], kinds: Mapping[str, str]
) -> Iterator[Match]:
    for kind in _OPPONENTS:
        others = [name for name, each in kinds.items() if each == kind]
        for (task, method, budget), mine in scores.items():
            for other in others:
                budgets = [b for t, m, b in scores if (t, m) == (task, other)]
                if method == other or not budgets:
                    continue
                theirs = scores[task, other, max(budgets)]
                common = sorted(mine.keys() & theirs.keys())
                if not common:
                    continue
                found = np.array([mine[seed] - theirs[seed] for seed in common])
                yield Match(
                    task, method, budget, other, len(found), int((found > 0).sum()),
                    float(found.mean()), *bootstrap(found.tolist()),
                )  # fmt: skip


def _wins(record: Record, lines: Lines) -> Iterator[Section]:
    """Say who is ahead of readout, SPSA and oracle, and who behind."""
    found = matches(record)
    if not found:
        return
    by = {(m.task, m.method, m.budget, m.against): m for m in found}
    against = list(dict.fromkeys(match.against for match in found))
    keys = [
        key
        for key in zip(
            *(lines[name].tolist() for name in ("task", "method", "budget")),
            strict=True,
        )
        if any((*key, other) in by for other in against)
    ]
    rows_ = tuple(
        (
            *map(str, key),
            *(by[*key, o].told if (*key, o) in by else "–" for o in against),
        )
        for key in keys
    )
    note = (
        "Differences of scores of the same seeds, positive where the method is better, "
        "with their 95 % intervals; who wins has the whole interval above 0, who loses "
        "below, all else is open, and always is with one seed. Opponents are taken at "
        "their largest number of shots."
    )
    heads = ("task", "method", "shots", *(f"against {name}" for name in against))
    yield Section(
        "wins",
        "Wins and losses",
        tuple(_count(found, other, _ends(record)) for other in against),
        Table(heads, rows_, note),
        tuple(_drawn_wins(by, against, keys)),
    )


def _count(found: Sequence[Match], against: str, ends: set[str]) -> str:
    """Say how often an opponent is beaten, and who is beaten by it."""
    mine = [m for m in found if m.against == against and m.method not in ends]
    wins, loses, undecided = (
        [match for match in mine if match.verdict == verdict]
        for verdict in ("wins", "loses", "open")
    )
    behind = [f"{m.method} ({m.task}, {m.budget:,} shots)" for m in loses]
    return (
        f"Against {against}, readout and oracle themselves aside: {len(wins)} of "
        f"{len(mine)} win, {len(loses)} lose, {len(undecided)} are open. "
        f"Behind: {_listed(behind)}."
    )


_NAMED: Final = 12


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more if names else "none"


def _drawn_wins(
    by: Mapping[tuple[str, str, int, str], Match],
    against: Sequence[str],
    keys: Sequence[tuple[str, str, int]],
) -> Iterator[Drawing]:
    most: dict[tuple[str, str], int] = {}
    for task, method, budget in keys:
        most[task, method] = max(budget, most.get((task, method), 0))
    for task in dict.fromkeys(key[0] for key in keys):
        mine = [key for key in keys if key[0] == task and key[2] == most[key[:2]]]
        panels = []
        for other in against:
            found = [by.get((*key, other)) for key in mine]
            middle, low, high = (
                np.array([math.nan if m is None else getattr(m, name) for m in found])
                for name in ("middle", "low", "high")
            )
            if np.isfinite(middle).any():
                label = f"over {other}"
                panels.append(Panel(label, middle, low, high, (0.0,), is_judged=True))
        yield rows(
            f"wins-{slug(task)}",
            f"{task}: wins and losses",
            "Difference of the score to that of the same seeds, positive where the "
            f"method is better, with {_shots([key[2] for key in mine])}. Green: the "
            "whole 95 % interval is above 0; orange: below; gray: it holds 0, or there "
            "is one seed.",
            _row_names([key[1] for key in mine], [key[2] for key in mine]),
            panels,
        )
