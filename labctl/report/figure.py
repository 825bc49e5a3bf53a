"""Figures of a record: what is drawn, in words and in ink.

A :class:`Drawing` knows how to draw itself into any figure; :func:`render` gives
it a theme and a format. Matplotlib's object interface is used, never pyplot, so
that a report changes nothing in a notebook that makes one.
"""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from labctl.training.interval import bootstrap

Theme = Literal["light", "dark"]
Format = Literal["svg", "png"]

# Colours of Okabe and Ito, told apart with any colour vision; on dark paper the
# darkest two are lightened. Then three of Tol for figures of more curves.
_CYCLE: dict[Theme, list[str]] = {
    "light": [
        *("#0072B2", "#D55E00", "#009E73", "#AA6699", "#997700"),
        *("#332288", "#882255", "#666666"),
    ],
    "dark": [
        *("#56B4E9", "#F0883E", "#33C79C", "#CC99BB", "#D9B93B"),
        *("#9988FF", "#EE6688", "#AAAAAA"),
    ],
}
_MARKS = "osD^vPX*"
_INK: dict[Theme, str] = {"light": "#1b1f24", "dark": "#e6e8eb"}
# Not quite white, so that what a figure paints white stays so on dark paper.
_PAPER: dict[Theme, str] = {"light": "#fffffe", "dark": "#16191d"}
_GRID: dict[Theme, str] = {"light": "#d9dde2", "dark": "#363c44"}
_POINTS = 400  # of a curve: more cannot be told apart on a page
_FEW = 20  # points that are marked one by one
_OPEN = 60  # points that are drawn open: what lies under them is seen
_LONG = 72  # letters that have room side by side along an axis
INTENSITY = "viridis"
# Perceptually uniform and safe for colour-blind readers; zero is dark.
SIGNED = "berlin"
PHASE = "twilight"


@dataclass(frozen=True)
class Drawing:
    """A figure that is not drawn yet.

    Parameters
    ----------
    name
        Stem of its file.
    title
        Heading above it.
    caption
        What it shows, for who sees it.
    alt
        What it shows, for who does not.
    size
        Width and height, in inches.
    draw
        Draws into an empty figure.
    """

    name: str
    title: str
    caption: str
    alt: str
    size: tuple[float, float]
    draw: Callable[[Figure], None]


def render(drawing: Drawing, theme: Theme, kind: Format) -> bytes:
    """Draw a figure.

    Parameters
    ----------
    drawing
        What to draw.
    theme
        Colours of ink and paper.
    kind
        Format of the file.

    Returns
    -------
    content
        The bytes of the file; the same for the same input.

    Raises
    ------
    ValueError
        It cannot be drawn as it should be, such as for want of room.

    Notes
    -----
    What is no number leaves a gap, and a panel without one says so. Letters that the
    usual font lacks are taken from any other font of the computer.
    """
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    buffer = io.BytesIO()
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", "Attempting to set identical", UserWarning)
        # Numbers that are none are gaps; letters that no font has are boxes.
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        # Whatever the reader's own settings are, pages look alike.
        mpl.rcdefaults()
        mpl.rcParams.update(_settings(theme))
        figure = Figure(figsize=drawing.size, layout="constrained")
        try:
            drawing.draw(figure)
            _mark_blank(figure)
            _spell(figure)
            figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
        except UserWarning as err:
            raise ValueError(str(err)) from err
    return buffer.getvalue()


def _mark_blank(figure: Figure) -> None:
    """Say in every panel that shows no number that it shows none."""
    for axis in figure.axes:
        if axis.axison and axis.has_data() and not _shows(axis):
            axis.text(
                *(0.5, 0.5, "no number"),
                transform=axis.transAxes,
                ha="center",
                va="center",
                fontsize="small",
            )


def _shows(axis: Axes) -> bool:
    """Whether a panel has a number in it, or a mark at its edge for one."""
    images: list[NDArray[Any]] = [
        np.ma.filled(np.ma.asarray(each.get_array(), float), np.nan)
        for each in axis.get_images()
    ]
    # Marks at an edge, such as failures, have no place among the numbers.
    marks = [
        np.asarray(line.get_xydata(), float)
        for line in axis.lines
        if line.get_marker() not in {"", "None", None}
    ]
    if any(np.isfinite(values).all(axis=-1).any() for values in marks):
        return True
    if images:
        return any(np.isfinite(values).any() for values in images)
    return bool(np.isfinite(axis.dataLim.get_points()).all())


def _spell(figure: Figure) -> None:
    """Take letters that the usual font lacks from another one that is installed."""
    texts = cast("list[Text]", figure.findobj(Text))
    usual = get_font(fontManager.findfont(FontProperties())).get_charmap()
    lacked = {letter for text in texts for letter in text.get_text()} - {"\n"}
    lacked = {letter for letter in lacked if ord(letter) not in usual}
    if not lacked:
        return
    others: list[str] = []
    for entry in sorted(fontManager.ttflist, key=lambda each: each.fname):
        known = get_font(entry.fname).get_charmap()
        found = {letter for letter in lacked if ord(letter) in known}
        if found and entry.name != "Last Resort High-Efficiency":
            others.append(entry.name)
            lacked -= found
    for text in texts:
        text.set_fontfamily([*text.get_fontfamily(), *others])


def recoloured(svg: bytes) -> bytes:
    """Turn a drawing for light paper into the same for dark paper.

    Parameters
    ----------
    svg
        What :func:`render` makes for the theme ``light``.

    Returns
    -------
    svg
        What it would make for ``dark``, without drawing again.
    """
    pairs = [(tone["light"], tone["dark"]) for tone in (_INK, _PAPER, _GRID)]
    pairs += zip(_CYCLE["light"], _CYCLE["dark"], strict=True)
    dark = {old.lower().encode(): new.lower().encode() for old, new in pairs}
    return re.sub(rb"#[0-9a-f]{6}\b", lambda m: dark.get(m[0], m[0]), svg)


def _settings(theme: Theme) -> dict[Any, Any]:
    ink, paper, grid = _INK[theme], _PAPER[theme], _GRID[theme]
    return {
        # Texts of a record are drawn as they are: "$" starts no formula.
        "text.parse_math": False,
        "axes.formatter.use_mathtext": False,
        "svg.hashsalt": "labctl",
        "svg.fonttype": "path",
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.prop_cycle": cycler(color=_CYCLE[theme]),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": grid,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "figure.facecolor": paper,
        "axes.facecolor": paper,
        "savefig.facecolor": paper,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
    }


def thinned(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Average neighbours until a curve has no more points than a page shows.

    Parameters
    ----------
    x, y
        The curve, ``(point,)``; what is not a number is left out of averages.

    Returns
    -------
    x, y
        The same curve with fewer points.
    """
    size = max(1, -(-len(x) // _POINTS))
    return _averaged(x, size), _averaged(y, size)


def _averaged(values: NDArray[Any], size: int) -> NDArray[np.float64]:
    starts = range(0, len(values), size)
    parts = [np.asarray(values[start : start + size], float) for start in starts]
    known = [part[~np.isnan(part)] for part in parts]
    return np.array([part.mean() if part.size else np.nan for part in known])


def curves(
    name: str,
    title: str,
    x: tuple[str, NDArray[Any]],
    panels: Sequence[tuple[str, NDArray[Any]]],
    levels: Mapping[str, float] | None = None,
) -> Drawing:
    """Draw curves over one axis, each in a panel of its own.

    Parameters
    ----------
    name, title
        Of the drawing.
    x
        Label and values of the axis that all share.
    panels
        Label and values of each curve.
    levels
        What the last curve is to be compared with: words and height of each line.

    Returns
    -------
    drawing
        Not drawn yet.
    """
    label, values = x
    levels = levels or {}

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for text, height in levels.items():
            axes[-1].axhline(height, color="gray", linestyle="--", linewidth=0.8)
            axes[-1].annotate(
                text.partition(",")[0].partition(":")[0],
                (0.01, height),
                xycoords=("axes fraction", "data"),
                fontsize="x-small",
                va="bottom",
                color="dimgray",
            )
        for number, (axis, (text, curve)) in enumerate(zip(axes, panels, strict=True)):
            axis.plot(
                *thinned(values, curve),
                color=f"C{number}",
                linewidth=1.2,
                marker="o" if len(values) < _FEW else "",
            )
            axis.set(xlabel=label, ylabel=text)
            axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))

    told = "; ".join(f"{text} {_course(curve)}" for text, curve in panels)
    lines = ", ".join(f"{text} {height:.3g}" for text, height in levels.items())
    told += f". Lines: {lines}" if lines else ""
    return Drawing(
        name,
        title,
        f"Over {label}: {', '.join(text for text, _ in panels)}."
        + (f" Dashed, on the test split: {lines}." if lines else "")
        + (" Neighbours are averaged." if len(values) > _POINTS else ""),
        f"Curves over {label}: {told}.",
        (7.2, 2.9),
        draw,
    )


def _course(curve: NDArray[Any]) -> str:
    known = np.asarray(curve, float)[np.isfinite(np.asarray(curve, float))]
    if not known.size:
        return "is not known"
    return f"goes from {known[0]:.3g} to {known[-1]:.3g}"


def band(
    x: tuple[str, NDArray[Any]],
    cosine: NDArray[Any],
    error: NDArray[Any],
) -> Drawing:
    """Draw the surrogate's held-out cosine with its error.

    Parameters
    ----------
    x
        Label and values of the axis.
    cosine, error
        The cosine and its standard error, ``(step,)``.

    Returns
    -------
    drawing
        Not drawn yet.
    """
    label, values = x

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        place, middle = thinned(values, cosine)
        _, spread = thinned(values, error)
        axis.fill_between(
            place, middle - spread, middle + spread, alpha=0.3, linewidth=0
        )
        axis.plot(place, middle, linewidth=1.4)
        axis.axhline(1.0, color="C1", linewidth=0.8, linestyle="--")
        axis.set(xlabel=label, ylabel="held-out cosine", ylim=(None, 1.05))

    return Drawing(
        "cosine",
        "How well the surrogate knows the way down",
        "Cosine between the surrogate's gradient and the true one, from probes that "
        "no fit has seen; the band is one standard error, 1 (dashed) is perfect.",
        f"Curve over {label}: the held-out cosine {_course(cosine)}.",
        (7.2, 2.7),
        draw,
    )


def spread(axis: Axes, x: NDArray[Any], rows: NDArray[Any], **style: Any) -> None:  # noqa: ANN401 - matplotlib's
    """Draw the mean of curves and the 95 % interval of that mean.

    Parameters
    ----------
    axis
        Where.
    x
        Place of each point.
    rows
        One curve a seed, ``(seed, point)``.
    **style
        Of the line; the band takes its colour.
    """
    style.setdefault("linewidth", 1.2)
    (line,) = axis.plot(x, np.mean(rows, axis=0), **style)
    bounds = np.array([bootstrap(column.tolist()) for column in rows.T])
    if np.isfinite(bounds).all():
        axis.fill_between(
            x,
            bounds[:, 0],
            bounds[:, 1],
            alpha=0.2,
            linewidth=0,
            color=line.get_color(),
        )


def bars(
    name: str,
    title: str,
    caption: str,
    axis_label: str,
    values: dict[str, float],
) -> Drawing:
    """Draw one horizontal bar for each number, with the number beside it.

    Parameters
    ----------
    name, title, caption
        Of the drawing.
    axis_label
        What the numbers are, with unit.
    values
        The numbers by name.

    Returns
    -------
    drawing
        Not drawn yet.
    """

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        drawn = axis.barh(
            range(len(values)), list(values.values()), color="C0", height=0.7
        )
        axis.bar_label(drawn, list(map(_number, values.values())), padding=3)
        axis.set_yticks(range(len(values)), list(values))
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.margins(x=0.12)
        if all(float(value).is_integer() for value in values.values()):
            axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axis.set_xlabel(axis_label)

    told = ", ".join(f"{key} {_number(value)}" for key, value in values.items())
    height = 0.9 + 0.32 * len(values)
    return Drawing(name, title, caption, f"Bars: {told}.", (7.2, height), draw)


def _number(value: float) -> str:
    """Write counts to the last one, other numbers with four digits."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"


def whiskers(
    name: str,
    title: str,
    caption: str,
    axis_label: str,
    values: dict[str, tuple[float, float, float]],
) -> Drawing:
    """Draw one point with its interval for each number.

    Parameters
    ----------
    name, title, caption
        Of the drawing.
    axis_label
        What the numbers are.
    values
        Number, lower and upper bound by name; bounds that are not numbers are left
        out.

    Returns
    -------
    drawing
        Not drawn yet.
    """
    middle, low, high = np.array(list(values.values()), dtype=float).T

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        place = np.arange(len(values))
        known = np.isfinite(low) & np.isfinite(high)
        axis.hlines(place[known], low[known], high[known], color="C0", linewidth=2)
        axis.plot(middle, place, "o", color="C0")
        axis.set_yticks(place, list(values))
        axis.set_ylim(len(values) - 0.5, -0.5)
        axis.margins(x=0.08)
        axis.set_xlabel(axis_label)

    told = ", ".join(
        f"{key} {value[0]:.3g} ({value[1]:.3g} to {value[2]:.3g})"
        for key, value in values.items()
    )
    height = 0.9 + 0.32 * len(values)
    return Drawing(name, title, caption, f"Points: {told}.", (7.2, height), draw)


def slug(text: str) -> str:
    """Make a text of a record fit for the name of a file.

    Parameters
    ----------
    text
        Any text.
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


@dataclass(frozen=True, eq=False)
class Picture:
    """An array shown as an image, or as bars where it is a list.

    Parameters
    ----------
    title
        Above it.
    values
        ``(row, column)``, or ``(number,)``.
    unit
        What the colours mean.
    colours
        Name of the colour map.
    limits
        Ends of the colours; None takes the array's own.
    cell_um
        Height and width of an element on the device, in um; None draws no scale bar.
    """

    title: str
    values: NDArray[Any]
    unit: str
    colours: str = INTENSITY
    limits: tuple[float, float] | None = None
    cell_um: tuple[float, float] | None = None


def pictures(name: str, title: str, caption: str, shown: Sequence[Picture]) -> Drawing:
    """Draw arrays side by side, each with its scale.

    Parameters
    ----------
    name, title, caption
        Of the drawing.
    shown
        The arrays.

    Returns
    -------
    drawing
        Not drawn yet.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for axis, picture in zip(axes, shown, strict=True):
            _picture(figure, axis, picture)

    told = "; ".join(
        f"{picture.title}, {' x '.join(map(str, picture.values.shape))}, "
        f"{_reach(picture.values)} ({picture.unit}){_told_size(picture)}"
        for picture in shown
    )
    size = (min(7.2, 3.6 * len(shown)), max(map(_height, shown)))
    return Drawing(name, title, caption, f"Images: {told}.", size, draw)


def _reach(values: NDArray[Any]) -> str:
    known = values[np.isfinite(values)]
    return f"{known.min():.3g} to {known.max():.3g}" if known.size else "no number"


def _height(picture: Picture) -> float:
    if picture.values.ndim == 1:
        return 2.9
    rows, columns = picture.values.shape
    # 2.3 inches are what titles and scale leave of the width.
    return min(6.0, 0.9 + 2.3 * float(rows / columns))


def _picture(figure: Figure, axis: Axes, picture: Picture) -> None:
    # At the left, where no scale bar is.
    axis.set_title(picture.title, loc="left" if picture.cell_um else "center")
    if picture.values.ndim == 1:
        axis.bar(range(len(picture.values)), picture.values)
        axis.set(xlabel="number", ylabel=picture.unit)
        return
    low, high = picture.limits or (None, None)
    tall, wide = picture.cell_um or (1.0, 1.0)
    image = axis.imshow(
        picture.values,
        aspect=tall / wide,
        cmap=picture.colours,
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    axis.grid(visible=False)
    axis.set(xlabel="column", ylabel="row")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    # Beside the image and as high as it, whatever its shape.
    scale = figure.colorbar(
        image, cax=axis.inset_axes((1.04, 0.0, 0.05, 1.0)), label=picture.unit
    )
    if picture.colours == PHASE:
        scale.set_ticks([0.0, np.pi, 2 * np.pi], labels=["0", "π", "2π"])
    if picture.cell_um is not None:
        scale_bar(axis, picture.values.shape[1], wide)


def bar_um(width_um: float) -> float:
    """Choose how long a scale bar is: 1, 2 or 5 times a power of ten.

    Parameters
    ----------
    width_um
        Width of the picture, in um; above 0.

    Returns
    -------
    length
        In um, the longest that takes at most a third of the width.
    """
    return _round(width_um / 3)


def _round(most: float) -> float:
    """Give the greatest of 1, 2 and 5 times a power of ten that is no more."""
    power = 10.0 ** np.floor(np.log10(most))
    # 1e-9: a third of 15 is 5, rounding apart.
    return float(max(n * power for n in (1, 2, 5) if n * power <= most * (1 + 1e-9)))


def scale_bar(axis: Axes, columns: int, wide_um: float) -> None:
    """Draw a length above the right end of an image.

    Parameters
    ----------
    axis
        Where the image is.
    columns
        Elements in a row.
    wide_um
        Width of one on the device, in um.
    """
    length = bar_um(columns * wide_um)
    across = axis.get_xaxis_transform()
    right = columns - 0.5
    left = right - length / wide_um
    axis.plot(
        [left, right],
        [1.03, 1.03],
        transform=across,
        lw=3,
        clip_on=False,
        color=axis.xaxis.label.get_color(),
        solid_capstyle="butt",
    )
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} μm"
    axis.text(right, 1.05, text, transform=across, ha="right", va="bottom", fontsize=8)


def _told_size(picture: Picture) -> str:
    if picture.cell_um is None:
        return ""
    tall, wide = (
        n * um for n, um in zip(picture.values.shape, picture.cell_um, strict=True)
    )
    return f", {tall:.4g} x {wide:.4g} μm"


def scan(
    setting: str, values: Sequence[str], points: NDArray[Any], outputs: NDArray[Any]
) -> Drawing:
    """Draw the outputs over a setting that was swept.

    Parameters
    ----------
    setting
        Key of the setting.
    values
        What it was set to, in words, one each point.
    points
        The same as numbers, ``(point,)``.
    outputs
        Mean outputs, ``(point, output)``.

    Returns
    -------
    drawing
        Not drawn yet.
    """

    def draw(figure: Figure) -> None:
        single, total = figure.subplots(1, 2)
        colours = mpl.colormaps[INTENSITY](np.linspace(0.05, 0.9, outputs.shape[1]))
        for number, colour in enumerate(colours):
            single.plot(
                points,
                outputs[:, number],
                marker="o",
                markersize=3,
                color=colour,
                label=f"{number}",
            )
        total.plot(points, outputs.sum(axis=1), marker="o", markersize=3)
        single.set(ylabel="each output (electron)")
        total.set(ylabel="all outputs together (electron)")
        for axis in (single, total):
            axis.set_xlabel(setting)
            if len(values) <= 8:
                axis.set_xticks(points, values, rotation=30, ha="right")

    return Drawing(
        "scan",
        "Outputs over the setting",
        f"Each output (dark to bright: first to last), averaged over patterns and "
        f"repeats, and their sum, over {setting}.",
        f"Curves of {outputs.shape[1]} outputs at {len(values)} values of {setting}.",
        (7.2, 3.2),
        draw,
    )


def confusion(counts: NDArray[np.int64]) -> Drawing:
    """Draw which class was taken for which.

    Parameters
    ----------
    counts
        ``(true class, class answered)``.

    Returns
    -------
    drawing
        Not drawn yet.
    """

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axis.imshow(share, cmap=INTENSITY, vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                ink = "black" if share[row, column] > 0.6 else "white"
                axis.text(column, row, str(count), ha="center", va="center", color=ink)
        axis.grid(visible=False)
        classes = range(len(counts))
        axis.set_xticks(classes)
        axis.set_yticks(classes)
        axis.set(xlabel="class answered", ylabel="true class")
        cax = axis.inset_axes((1.04, 0.0, 0.05, 1.0))
        figure.colorbar(image, cax=cax, label="share of the true class")

    right = int(np.trace(counts))
    return Drawing(
        "confusion",
        "Which class was taken for which",
        "Samples of the test split by true class (row) and answer (column).",
        f"Table of {counts.sum()} answers, {right} of them right.",
        (5.4, 4.4),
        draw,
    )


@dataclass(frozen=True, eq=False)
class Points:
    """Measured points, a fitted curve, or arrows.

    Parameters
    ----------
    name
        In the legend.
    x, y
        Places, ``(point,)``.
    error
        Standard error of y; no number where not known.
    u, v
        Arrow from each point; no number for none.
    is_line
        Draw a line through them; the error is a band about it.
    """

    name: str
    x: NDArray[Any]
    y: NDArray[Any]
    error: NDArray[Any]
    u: NDArray[Any]
    v: NDArray[Any]
    is_line: bool = False


def fitted(
    named: tuple[str, str, str],
    labels: tuple[str, str],
    series: Sequence[Points],
    scale: Literal["linear", "loglog", "logy", "image"] = "linear",
    names: Sequence[str] = (),
    arrows: float = 1.0,
) -> Drawing:
    """Draw what was measured and what was fitted to it.

    Parameters
    ----------
    named
        Name, title and caption of the drawing.
    labels
        Of the horizontal and the vertical axis.
    series
        What is drawn. A curve named as points are, and "fit", has their colour.
    scale
        Of the axes; those of an image have their rows downwards.
    names
        Of 0, 1 and so on along the horizontal axis; empty for numbers.
    arrows
        How many times as long as they are arrows are drawn.

    Returns
    -------
    drawing
        Not drawn yet.
    """
    name, title, caption = named
    unit = labels[0].rpartition("(")[2].rstrip(")") if "(" in labels[0] else ""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        kinds = list(dict.fromkeys(each.name.removesuffix(", fit") for each in series))
        for each in series:
            number = kinds.index(each.name.removesuffix(", fit"))
            _draw_points(axis, each, number)
        _draw_arrows(axis, series, arrows, unit)
        axis.set(xlabel=labels[0], ylabel=labels[1])
        _scale_axes(axis, scale)
        if names:
            _name_places(axis, names)
        if len(series) > 2:
            figure.legend(loc="outside right upper")
        elif len(series) > 1:
            axis.legend()

    told = "; ".join(f"{each.name} {_course(each.y)}" for each in series)
    along = f" ({', '.join(names)})" if names else ""
    alt = f"{labels[1]} over {labels[0]}{along}: {told}."
    size = (7.2, 5.0 if scale == "image" else 3.4)
    return Drawing(name, title, caption, alt, size, draw)


def _name_places(axis: Axes, names: Sequence[str]) -> None:
    turned = len(names) * max(map(len, names)) > _LONG
    axis.set_xticks(
        range(len(names)),
        list(names),
        rotation=20 if turned else 0,
        ha="right" if turned else "center",
    )
    axis.set_xlim(-0.5, len(names) - 0.5)


def _draw_points(axis: Axes, each: Points, number: int) -> None:
    """Draw points, or a line: no two series look alike, as far as there are looks."""
    colour = f"C{number % len(_CYCLE['light'])}"
    known = np.isfinite(each.error).any()
    if each.is_line:
        dashes = ("-", "--", ":", "-.")[number // len(_CYCLE["light"]) % 4]
        axis.plot(each.x, each.y, dashes, color=colour, lw=1.2, label=each.name)
        if known:
            low, high = each.y - each.error, each.y + each.error
            axis.fill_between(each.x, low, high, color=colour, alpha=0.2, lw=0)
        return
    is_open = len(each.x) <= _OPEN
    axis.errorbar(
        each.x,
        each.y,
        each.error if known else None,
        fmt=_MARKS[number % len(_MARKS)],
        markersize=5 if is_open else 3,
        markerfacecolor="none" if is_open else colour,
        capsize=2 if is_open else 0,
        color=colour,
        label=each.name,
    )


def _draw_arrows(axis: Axes, series: Sequence[Points], times: float, unit: str) -> None:
    """Draw arrows where there are any; above the axes one whose length is said."""
    drawn, longest = [], 0.0
    for number, each in enumerate(series):
        if not each.u.size or not np.isfinite(each.u).all():
            continue
        u, v = times * each.u, times * each.v
        # As long as the axes say, and none beyond them.
        arrows = axis.quiver(
            each.x,
            each.y,
            u,
            v,
            color=f"C{number % len(_CYCLE['light'])}",
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.003,
        )
        drawn.append(arrows)
        axis.update_datalim(np.stack([each.x + u, each.y + v], axis=1))
        axis.set_aspect("equal", adjustable="datalim")
        axis.autoscale_view()
        longest = max(longest, float(np.hypot(each.u, each.v).max()))
    if longest and times != 1:
        length = _round(longest)
        text = f"{length:g} {unit} (arrows are drawn {times:g} times as long)"
        # No layout makes room for a key; it does for a title.
        axis.set_title(" ")
        axis.quiverkey(drawn[0], 0.02, 1.03, times * length, text, labelpos="E")


def _scale_axes(
    axis: Axes, scale: Literal["linear", "loglog", "logy", "image"]
) -> None:
    if scale == "image":
        axis.invert_yaxis()
    if scale in {"loglog", "logy"}:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
    if scale == "loglog":
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
