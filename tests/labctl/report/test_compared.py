"""A page says of a comparison who is ahead of whom, and at what cost."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from labctl.comparison import run as comparing
from labctl.comparison.score import References, Score, summarise
from labctl.recording.header import Header
from labctl.recording.layout import comparison_layout
from labctl.recording.reader import Record
from labctl.recording.writer import Recorder
from labctl.report import compared, figure
from labctl.report.figure import Drawing
from labctl.report.section import Section

MakeHeader = Callable[..., Header]
Kinds = Mapping[str, str]
SMALL = {"still": "readout", "walk": "spsa", "mine": "surrogate", "truth": "oracle"}
MANY = {
    **{name: name for name in ("readout", "spsa", "oracle", "forward-gradient")},
    **{name: name for name in ("calibrate-deploy", "finite-difference", "pepg")},
    **{name: name for name in ("annealing", "cma-es", "dfa", "pat")},
    **dict.fromkeys(("twin-modes", "twin-pairs-and-a-long-name"), "surrogate"),
}
# Of each seed; the seventh digit of a score is lost in a record of decimals.
GAIN = {"still": 0.0, "walk": 0.1, "mine": 0.6, "truth": 1.0}


@pytest.fixture
def write(tmp_path: Path, make_header: MakeHeader) -> Callable[..., Path]:
    """Write a record as a comparison leaves it, from the scores of its trainings."""

    def made(
        scores: list[Score], kinds: Kinds, *, direction: str = "up", failed: int = 0
    ) -> Path:
        path = tmp_path / "compared.h5"
        methods = {name: {"method": {"name": kind}} for name, kind in kinds.items()}
        header = replace(make_header("comparison", {"methods": methods}))
        ends = {kind: name for name, kind in kinds.items()}
        with Recorder.create(
            path, layout=comparison_layout(), header=header
        ) as recorder:
            for number, each in enumerate(scores):
                row = {
                    name: [getattr(each, name)]
                    for name in ("task", "method", "seed", "budget", "score")
                }
                status = "failed" if number < failed else "complete"
                row |= {"status": [status], "record": [f"jobs/{number}.h5"]}
                row |= {"cosine": [each.cosine], "digital_s": [each.digital_s]}
                recorder.append("jobs", shots=[each.budget], **row)
            references = References(ends.get("readout"), ends.get("oracle"))
            for line in summarise(scores[failed:], references):
                columns = comparing._columns(line)
                recorder.append("summary", **{k: [v] for k, v in columns.items()})
            tasks = {score.task for score in scores}
            scale = {"metric": "accuracy", "direction": direction}
            result = {"jobs": len(scores), "scales": dict.fromkeys(tasks, scale)}
            recorder.set_result(result)
        return path

    return made


def scored(
    gains: Mapping[str, float],
    *,
    seeds: int = 4,
    budgets: tuple[int, ...] = (4000,),
    sign: int = 1,
    task: str = "digits",
) -> list[Score]:
    draw = np.random.default_rng(3)
    return [
        Score(
            task=task,
            method=method,
            seed=seed,
            budget=budget,
            score=sign
            * (0.3 + 0.5 * gain * budget / max(budgets) + 0.02 * draw.normal()),
            cosine=0.4 if method == "mine" else math.nan,
            digital_s=3.0 + seed,
            direction=sign,
        )
        for seed in range(seeds)
        for method, gain in gains.items()
        for budget in budgets
    ]


def read(path: Path) -> dict[str, Section]:
    with Record.open(path) as record:
        return {each.name: each for each in compared.sections(record)}


def texts(drawing: Drawing) -> list[str]:
    """Everything that is written in a figure."""
    shown = Figure(figsize=drawing.size)
    drawing.draw(shown)
    found = [axis.get_xlabel() for axis in shown.axes]
    found += [axis.get_ylabel() for axis in shown.axes]
    found += [label.get_text() for label in shown.axes[0].get_yticklabels()]
    found += [each.get_text() for key in shown.legends for each in key.get_texts()]
    return [text for text in found if text]


def test_each_task_shows_score_gain_cosine_and_seconds_of_every_method(
    write: Callable[..., Path],
) -> None:
    found = read(write(scored(GAIN), SMALL))["comparison"]
    assert [each.name for each in found.drawings] == [
        "compared-digits",
        "over-shots-digits",
    ]
    told = texts(found.drawings[0])
    assert told[:4] == ["accuracy", "recovered gain", "cosine", "digital s"]
    assert told[4:] == ["still", "walk", "mine", "truth"]
    assert "cosine: mine 0.4." in found.drawings[0].alt
    assert found.table is not None
    assert found.table.rows[2][-2:] == ("0.40", "4.5")


def test_score_and_gain_are_drawn_over_the_shots_also_where_there_is_one_number(
    write: Callable[..., Path],
) -> None:
    for budgets in ((4000,), (1000, 4000)):
        path = write(scored(GAIN, budgets=budgets), SMALL)
        drawing = read(path)["comparison"].drawings[1]
        path.unlink()
        shown = Figure(figsize=drawing.size)
        drawing.draw(shown)
        score, gain = shown.axes
        assert [axis.get_ylabel() for axis in shown.axes] == [
            "accuracy",
            "recovered gain",
        ]
        assert score.get_xticks().tolist() == list(budgets)
        assert [label.get_text() for label in score.get_xticklabels()] == [
            f"{budget // 1000}k" for budget in budgets
        ]
        # Each method has a place of its own, near the shots that it was given.
        first = [float(np.ravel(line.get_xdata())[0]) for line in score.lines]
        assert len(first) == len(set(first)) == 4
        assert first == pytest.approx([budgets[0]] * 4, rel=0.3)
        assert {np.size(line.get_xdata()) for line in score.lines} == {len(budgets)}
        heights = [float(np.ravel(line.get_ydata())[-1]) for line in gain.lines[:4]]
        assert heights == pytest.approx([0, 0.1, 0.6, 1], abs=0.1)
        bars = [segments for each in score.collections for segments in each.get_paths()]
        assert len(bars) == 4 * len(budgets)
        assert set(texts(drawing)) >= set(SMALL)


def test_without_an_oracle_there_is_no_gain_to_draw(write: Callable[..., Path]) -> None:
    kinds = {name: kind for name, kind in SMALL.items() if kind != "oracle"}
    gains = {name: GAIN[name] for name in kinds}
    found = read(write(scored(gains), kinds))
    assert "recovered gain" not in texts(found["comparison"].drawings[0])
    assert found["comparison"].drawings[1].title == "digits: score over shots"
    assert found["wins"].table is not None
    assert found["wins"].table.heads[3:] == ("against still", "against walk")


@pytest.mark.parametrize("sign", [1, -1])
def test_wins_and_losses_are_counted_against_readout_spsa_and_oracle(
    write: Callable[..., Path], sign: int
) -> None:
    direction = "up" if sign > 0 else "down"
    path = write(scored(GAIN, sign=sign), SMALL, direction=direction)
    wins = read(path)["wins"]
    assert wins.table is not None
    assert wins.table.heads[3:] == ("against still", "against walk", "against truth")
    cells = {row[1]: row[3:] for row in wins.table.rows}
    assert cells["still"][0] == cells["walk"][1] == cells["truth"][2] == "–"
    assert cells["mine"][0].startswith("wins, +0.")
    assert cells["mine"][1].endswith("better in 4 of 4")
    assert cells["mine"][2].startswith("loses, -0.")
    assert cells["mine"][2].endswith("better in 0 of 4")
    # The same numbers as the summary has.
    with Record.open(path) as record:
        lines = record.table("summary")
    row = lines["method"].tolist().index("mine")
    ends = (
        lines["over_readout"],
        lines["over_readout_low"],
        lines["over_readout_high"],
    )
    middle, low, high = (each[row] for each in ends)
    assert f"{middle:+.3f} [{low:+.3f}, {high:+.3f}]" in cells["mine"][0]
    against = wins.sentences[1]
    assert against.startswith("Against walk, readout and oracle themselves aside: 1 of")
    assert "Behind: mine (digits, 4,000 shots), walk" not in wins.sentences[2]
    assert "Behind: walk (digits, 4,000 shots), mine" in wins.sentences[2]
    told = texts(wins.drawings[0])
    assert told[:3] == ["over still", "over walk", "over truth"]


def test_one_seed_decides_nothing_and_failed_trainings_do_not_count(
    write: Callable[..., Path],
) -> None:
    wins = read(write(scored(GAIN, seeds=1), SMALL))["wins"]
    assert wins.table is not None
    assert {cell[:4] for row in wins.table.rows for cell in row[3:]} == {"open", "–"}
    assert "1 lose" not in "".join(wins.sentences)


def test_a_training_that_failed_is_no_loss(write: Callable[..., Path]) -> None:
    # The first is of the readout, seed 0.
    wins = read(write(scored(GAIN), SMALL, failed=1))["wins"]
    assert wins.table is not None
    cells = {row[1]: row[3:] for row in wins.table.rows}
    assert cells["mine"][0].endswith("of 3")
    assert cells["mine"][1].endswith("of 4")


def test_methods_that_stand_apart_have_colours_that_say_so() -> None:
    numbers = np.array([1.0, -1.0, 0.1, 2.0])
    low = np.array([0.5, -2.0, -1.0, math.nan])
    high = np.array([1.5, -0.5, 1.0, math.nan])
    panel = compared.Panel("over it", numbers, low, high, is_judged=True)
    assert panel.colours == ["C2", "C1", "C7", "C7"]
    assert len(set(replace(panel, is_judged=False).colours)) == 1


def test_thirteen_methods_with_three_budgets_have_room(
    write: Callable[..., Path],
) -> None:
    gains = {name: number / len(MANY) for number, name in enumerate(MANY)}
    gains |= {"readout": 0.0, "oracle": 1.0}
    budgets = (1000, 10000, 30000)
    scores = [
        score
        for task in ("digits", "yin-yang")
        for score in scored(gains, budgets=budgets, task=task)
    ]
    found = read(write(scores, MANY))
    drawings = [each for part in found.values() for each in part.drawings]
    assert len(drawings) == 6
    for each in drawings[:2] + drawings[-1:]:
        # Refused where names or numbers have no room.
        assert figure.render(each, "light", "svg").startswith(b"<?xml")
    # A row a method, however often it was trained: the rest is over the shots.
    for each in (drawings[0], drawings[-1]):
        assert [text for text in texts(each) if text in MANY] == list(MANY)
    legend = Figure(figsize=drawings[1].size)
    drawings[1].draw(legend)
    marks = {(each.get_color(), each.get_marker()) for each in legend.axes[0].lines}
    assert len(marks) == len(MANY)


def test_before_the_summary_the_trainings_are_counted(
    tmp_path: Path, make_header: MakeHeader
) -> None:
    path = tmp_path / "early.h5"
    header = make_header("comparison", {})
    Recorder.create(path, layout=comparison_layout(), header=header).close()
    (only,) = read(path).values()
    assert only.sentences[0].startswith("0 trainings have ended")
