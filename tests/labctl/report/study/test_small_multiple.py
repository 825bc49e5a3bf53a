"""Accuracies are ranked, told and drawn by task and depth, none of them made up."""

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from labctl.report.figure import render
from labctl.report.study.small_multiple import Scores


def make(**changed: Any) -> Scores:  # noqa: ANN401 - columns of any kind
    """Two names, two kinds; of the second task, the deeper nets are missing."""
    rows = {
        "task": np.array(["xor"] * 4 + ["spirals"] * 2),
        "depth": np.array([2, 2, 4, 4, 2, 2]),
        "seed": np.array([0, 1, 0, 1, 0, 1]),
    }
    accuracy = np.zeros((6, 2, 2))
    accuracy[:, 0, 0] = [0.6, 0.7, 0.5, 0.6, 0.9, 1.0]
    accuracy[:, 0, 1] = 0.3
    accuracy[:, 1, 0] = [0.9, 0.9, 0.8, 0.8, 0.4, 0.4]
    accuracy[:, 1, 1] = 0.75
    return Scores(
        "zoo",
        ("low", "high"),
        "way",
        ("one", "other"),
        rows,
        changed.get("accuracy", accuracy),
        rank=lambda means: means.max(axis=1),
    )


def drawn(scores: Scores, number: int = 0) -> Figure:
    figure = Figure()
    scores.drawing(number).draw(figure)
    return figure


def test_the_best_way_ranks_and_every_key_follows_that_order() -> None:
    scores = make()
    assert scores.order == [1, 0]
    keys = {key.label: key.values for key in scores.keys("best")}
    assert keys == {
        "best, mean": pytest.approx((0.75, 4.3 / 6)),
        "best on xor": pytest.approx((0.85, 0.6)),
        "best on spirals": pytest.approx((0.75, 0.95)),
        "best, depth 2": pytest.approx((0.75, 0.8)),
        "best, depth 4": pytest.approx((0.8, 0.55)),
        "mean accuracy, one": pytest.approx((0.7, 4.3 / 6)),
        "mean accuracy, other": pytest.approx((0.75, 0.3)),
    }


def test_panels_show_means_and_intervals_where_nets_were_trained() -> None:
    first, second = drawn(make()).axes
    assert [first.get_title(), second.get_title()] == ["xor", "spirals"]
    assert np.asarray(first.lines[0].get_ydata()) == pytest.approx([0.65, 0.55])
    low, high = np.asarray(first.collections[0].get_paths()[0].vertices)[:, 1]
    assert (low, high) == pytest.approx((0.6, 0.7))
    found = np.asarray(second.lines[0].get_ydata())
    assert found[0] == pytest.approx(0.95)
    assert np.isnan(found[1])


def test_all_share_one_scale() -> None:
    scores = make()
    limits = [
        axis.get_ylim() for number in (0, 1) for axis in drawn(scores, number).axes
    ]
    assert limits == [pytest.approx((0.25, 1.03))] * 4


def test_an_accuracy_that_is_no_number_comes_last_and_is_not_drawn() -> None:
    accuracy = make().accuracy.copy()
    accuracy[:, 1] = np.nan
    scores = make(accuracy=accuracy)
    assert scores.order == [0, 1]
    assert np.isnan(scores.keys("best")[0].values[1])
    assert render(scores.drawing(1), "light", "svg").startswith(b"<?xml")


def test_the_legend_shows_each_way_in_its_colour() -> None:
    picture = imread(io.BytesIO(render(make().legend(), "light", "png")))
    inks = {
        tuple(np.round(255 * ink[:3]).astype(int)) for ink in picture.reshape(-1, 4)
    }
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= inks
