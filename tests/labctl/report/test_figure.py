import re
import subprocess
import sys
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver, QuiverKey
from numpy.typing import NDArray

from labctl.report import figure
from labctl.report.figure import Drawing, Picture

X = ("shots", np.arange(7))


def test_long_curves_are_averaged_and_short_ones_kept() -> None:
    x = np.arange(1001.0)
    y = np.where(x % 2 == 0, 1.0, 3.0)
    y[:9] = np.nan
    place, middle = figure.thinned(x, y)
    assert len(place) == len(middle) == 334
    assert np.isnan(middle[:3]).all()
    assert place[3] == pytest.approx(10.0)
    assert middle[3] == pytest.approx(7 / 3)
    short, _ = figure.thinned(x[:7], y[:7])
    assert short.tolist() == x[:7].tolist()


def test_drawing_is_the_same_each_time_and_differs_by_theme() -> None:
    drawing = figure.bars("b", "t", "c", "shots", {"train": 12.0, "probe": 3.0})
    light = figure.render(drawing, "light", "svg")
    assert light == figure.render(drawing, "light", "svg")
    assert light != figure.render(drawing, "dark", "svg")
    assert figure.render(drawing, "light", "png").startswith(b"\x89PNG")
    assert drawing.alt == "Bars: train 12, probe 3."


def test_texts_are_drawn_as_they_are() -> None:
    broken = "$\\notatex{$<b>&"
    drawing = figure.curves(
        "c", "t", (broken, np.arange(3)), [(broken, np.arange(3.0))]
    )
    svg = figure.render(drawing, "light", "svg")
    assert b"<b>" not in svg


def test_rendering_changes_no_setting_of_the_reader() -> None:
    with mpl.rc_context({"font.size": 23.0}):
        before = dict(mpl.rcParams)
        figure.render(figure.bars("b", "t", "c", "x", {"a": 1.0}), "dark", "svg")
        assert dict(mpl.rcParams) == before


def test_figures_need_no_pyplot() -> None:
    code = "import sys, labctl.report.page; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("curve", [np.full(7, np.nan), np.linspace(0, 1, 7)])
def test_curves_without_numbers_are_drawn_too(curve: NDArray[np.float64]) -> None:
    drawing = figure.band(X, curve, np.full(7, 0.1))
    assert figure.render(drawing, "light", "svg")
    told = "is not known" if np.isnan(curve).all() else "goes from 0 to 1"
    assert told in drawing.alt


def test_pictures_tell_shape_and_range() -> None:
    drawing = figure.pictures(
        "p",
        "t",
        "c",
        [
            Picture("levels", np.arange(15).reshape(3, 5), "gray level", "gray"),
            Picture("theta", np.linspace(-1, 1, 4), "rad"),
        ],
    )
    assert figure.render(drawing, "dark", "svg")
    assert "levels, 3 x 5, 0 to 14 (gray level)" in drawing.alt
    assert "theta, 4, -1 to 1 (rad)" in drawing.alt


def test_dark_paper_needs_no_second_drawing() -> None:
    counts = np.array([[9, 1], [2, 8]])
    for drawing in (
        figure.bars("b", "t", "c", "shots", {"train": 12.0}),
        figure.confusion(counts),
        figure.curves("c", "t", X, [("one", np.arange(7.0)), ("two", np.arange(7.0))]),
    ):
        made = figure.recoloured(figure.render(drawing, "light", "svg"))
        drawn = figure.render(drawing, "dark", "svg")
        assert colours(made) == colours(drawn)
        assert colours(made) != colours(figure.render(drawing, "light", "svg"))


def colours(svg: bytes) -> list[bytes]:
    return re.findall(rb"#[0-9a-f]{6}\b", svg)


def test_names_from_a_record_are_fit_for_files() -> None:
    assert figure.slug("../../Yin-Yang, 2 <b>") == "yin-yang-2-b"


@pytest.mark.parametrize(
    ("width_um", "length_um"), [(15, 5), (64, 20), (1, 0.2), (9000, 2000), (7, 2)]
)
def test_a_scale_bar_is_round_and_a_third_of_the_width_at_most(
    width_um: float, length_um: float
) -> None:
    assert figure.bar_um(width_um) == pytest.approx(length_um)


@pytest.mark.parametrize("cell_um", [(2.0, 4.0), None])
def test_a_scale_bar_is_as_long_as_it_says(cell_um: tuple[float, float] | None) -> None:
    picture = Picture("frame", np.ones((3, 5)), "counts", cell_um=cell_um)
    drawing = figure.pictures("p", "t", "c", [picture])
    drawn = Figure()
    drawing.draw(drawn)
    bars, texts = drawn.axes[0].lines, [t.get_text() for t in drawn.axes[0].texts]
    if cell_um is None:
        assert not bars
        assert "μm" not in drawing.alt
        return
    (bar,) = bars
    (text,) = texts
    assert text == "5 μm"
    assert np.ptp(bar.get_xdata()) * 4.0 == pytest.approx(5.0)
    assert "6 x 20 μm" in drawing.alt
    assert drawn.axes[0].get_aspect() == 0.5


def test_counts_are_written_to_the_last_one() -> None:
    drawing = figure.bars("b", "t", "c", "shots", {"train": 28800.0, "share": 0.25})
    assert drawing.alt == "Bars: train 28800, share 0.25."


def test_every_series_of_a_figure_has_a_mark_and_a_colour_of_its_own() -> None:
    nothing = np.full(3, np.nan)
    x = np.arange(3.0)
    series = [
        figure.Points(str(n), x, x + n, nothing, nothing, nothing) for n in range(7)
    ]
    drawn = Figure()
    figure.fitted(("n", "t", "c"), ("x", "y"), series).draw(drawn)
    (axis,) = drawn.axes
    marks = [line.get_marker() for line in axis.get_lines()]
    assert len(set(marks)) == 7
    assert len({line.get_color() for line in axis.get_lines()}) == 7


def test_a_curve_has_the_colour_of_the_points_that_it_was_fitted_to() -> None:
    nothing = np.full(3, np.nan)
    x = np.arange(3.0)
    series = [
        figure.Points(name, x, x + n, nothing, nothing, nothing, name.endswith("fit"))
        for n, name in enumerate(("a", "b", "a, fit", "b, fit"))
    ]
    drawn = Figure()
    figure.fitted(("n", "t", "c"), ("x", "y"), series).draw(drawn)
    (axis,) = drawn.axes
    assert [line.get_color() for line in axis.get_lines()] == ["C0", "C1"] * 2
    # Beside the axes: nothing is behind it.
    (legend,) = drawn.legends
    drawn.set_layout_engine("constrained")
    drawn.draw_without_rendering()
    assert legend.get_window_extent().x0 > axis.get_window_extent().x1


def test_rows_of_an_image_go_downwards() -> None:
    nothing = np.full(3, np.nan)
    x = np.arange(3.0)
    series = [figure.Points("a", x, x, nothing, x, x)]
    drawn = Figure()
    figure.fitted(("n", "t", "c"), ("x", "y"), series, "image").draw(drawn)
    (axis,) = drawn.axes
    assert axis.yaxis_inverted()
    assert not axis.xaxis_inverted()


def test_an_arrow_is_as_long_as_the_axes_say_and_wholly_in_sight() -> None:
    x = np.arange(4.0)
    nothing = np.full(4, np.nan)
    series = [figure.Points("a", x, x, nothing, x + 5, x - 7)]
    drawn = Figure(figsize=(7.2, 3.4))
    figure.fitted(("n", "t", "c"), ("x", "y"), series).draw(drawn)
    (axis,) = drawn.axes
    (arrows,) = (each for each in axis.collections if isinstance(each, Quiver))
    assert (arrows.scale, arrows.scale_units, arrows.angles) == (1, "xy", "xy")
    drawn.draw_without_rendering()
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    assert left <= 0
    assert right >= 11
    assert low <= -7
    assert high >= 3


def test_short_arrows_are_drawn_longer_and_the_figure_says_by_how_much() -> None:
    x = np.arange(4.0)
    nothing = np.full(4, np.nan)
    series = [figure.Points("a", x, x, nothing, x / 60, 0 * x)]
    labels = ("column (px)", "row (px)")
    into = Figure(figsize=(7.2, 3.4))
    figure.fitted(("n", "t", "c"), labels, series, "image", arrows=20.0).draw(into)
    (axis,) = into.axes
    (arrows,) = (each for each in axis.collections if isinstance(each, Quiver))
    assert pytest.approx(x / 3) == arrows.U
    # The spots that they begin at are drawn as well.
    (spots,) = axis.get_lines()
    assert spots.get_xdata() == pytest.approx(x)
    assert spots.get_marker() == "o"
    (key,) = (each for each in axis.artists if isinstance(each, QuiverKey))
    assert key.text.get_text() == "0.05 px (arrows are drawn 20 times as long)"
    assert key.U == 1.0
    # It is in sight, above the axes.
    into.set_layout_engine("constrained")
    into.draw_without_rendering()
    box = key.text.get_window_extent()
    assert axis.get_window_extent().y1 < box.y0
    assert box.y1 < into.bbox.y1


def test_things_along_an_axis_have_their_names() -> None:
    nothing = np.full(3, np.nan)
    series = [figure.Points("a", np.arange(3.0), np.ones(3), nothing, nothing, nothing)]
    drawing = figure.fitted(
        ("n", "t", "c"), ("region", "y"), series, names=("0, 0", "0, 1", "1, 0")
    )
    (axis,) = drawn(drawing).axes
    assert {text.get_rotation() for text in axis.get_xticklabels()} == {0}
    labels = [text.get_text() for text in axis.get_xticklabels()]
    assert labels == ["0, 0", "0, 1", "1, 0"]
    assert axis.get_xticks() == pytest.approx([0, 1, 2])
    assert "region (0, 0, 0, 1, 1, 0)" in drawing.alt


def test_a_line_with_an_error_has_a_band_and_points_have_bars() -> None:
    nothing, x = np.full(3, np.nan), np.arange(3.0)
    error = np.array([0.1, 0.2, 0.3])
    line = figure.Points("a", x, x, error, nothing, nothing, is_line=True)
    points = figure.Points("b", x, x, error, nothing, nothing)
    into = Figure()
    figure.fitted(("n", "t", "c"), ("x", "y"), [line, points]).draw(into)
    (axis,) = into.axes
    (band,) = (each for each in axis.collections if isinstance(each, PolyCollection))
    corners = np.asarray(band.get_paths()[0].vertices)
    assert corners[:, 1].max() == pytest.approx(2.3)
    assert corners[:, 1].min() == pytest.approx(-0.1)
    (bars,) = (each for each in axis.collections if isinstance(each, LineCollection))
    assert np.ptp(bars.get_segments()[2][:, 1]) == pytest.approx(0.6)


@pytest.mark.parametrize(("count", "is_open"), [(60, True), (100, False)])
def test_few_points_are_open_so_that_those_below_are_seen(
    count: int, is_open: bool
) -> None:
    x, nothing = np.arange(float(count)), np.full(count, np.nan)
    points = figure.Points("a", x, x, nothing, nothing, nothing)
    into = Figure()
    figure.fitted(("n", "t", "c"), ("x", "y"), [points]).draw(into)
    (line,) = into.axes[0].get_lines()
    assert (line.get_markerfacecolor() == "none") == is_open


def drawn(drawing: Drawing) -> Figure:
    """Render a drawing; return the figure that it was drawn into."""
    kept: list[Figure] = []

    def draw(into: Figure) -> None:
        kept.append(into)
        drawing.draw(into)

    figure.render(replace(drawing, draw=draw), "light", "svg")
    return kept[0]


def test_a_panel_without_a_number_says_so_and_no_other() -> None:
    nothing = np.full((3, 4), np.nan)

    def draw(into: Figure) -> None:
        blank, image, line, shown, edge, level = into.subplots(2, 3).flat
        blank.grid(visible=True)
        image.imshow(nothing)
        line.plot(nothing[0])
        shown.imshow(np.eye(3))
        shown.plot(nothing[0])
        edge.plot(nothing[0], "o-")
        edge.plot([1], [1], "x", transform=edge.get_xaxis_transform())
        level.plot(nothing[0], "o-")
        level.axhline(1.0)

    axes = drawn(Drawing("n", "", "", "", (7.2, 5), draw)).axes
    told = [[text.get_text() for text in axis.texts] for axis in axes]
    none = ["no number"]
    assert told == [[], none, none, [], [], none]


def test_letters_that_the_usual_font_lacks_come_from_another() -> None:
    drawing = figure.bars("b", "t", "c", "Ⓐ, 漢字, हि", {"Ⓑ": 1.0})
    (axis,) = drawn(drawing).axes
    assert "STIXGeneral" in axis.xaxis.label.get_fontfamily()  # comes with matplotlib
    plain = drawn(figure.bars("b", "t", "c", "Å, Ω, Ж", {"B": 1.0})).axes[0]
    assert plain.xaxis.label.get_fontfamily() == ["sans-serif"]


def test_a_figure_without_room_is_refused() -> None:
    drawing = figure.bars("b", "t", "c", "shots", {"a" * 900: 1.0})
    with pytest.raises(ValueError, match="axes sizes collapsed"):
        figure.render(drawing, "light", "svg")


@pytest.mark.parametrize(("most", "whole"), [(2.0, True), (0.9, False)])
def test_counts_have_no_parts_on_their_axis(most: float, whole: bool) -> None:
    (axis,) = drawn(figure.bars("b", "t", "c", "x", {"a": most, "b": 0.0})).axes
    low, high = axis.get_xlim()
    ticks = [place for place in axis.get_xticks() if low <= place <= high]
    assert len(ticks) > 2
    assert all(float(place).is_integer() for place in ticks) is whole
