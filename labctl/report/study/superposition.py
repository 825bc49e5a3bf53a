"""Figures of the study ``superposition``."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from labctl.protocol import Superposition
from labctl.recording.reader import Record
from labctl.report import figure, scale
from labctl.report.figure import Drawing
from labctl.report.section import Section
from labctl.studies.superposition import changes, over_power

Rows = dict[str, NDArray[Any]]


def sections(record: Record) -> Iterator[Section]:
    """Show the defect over the power, its harmonics, and the frames.

    Parameters
    ----------
    record
        Of the study.

    Yields
    ------
    section
        With figures.
    """
    spec = Superposition.model_validate(record.resolved["study"])
    rows = record.table("fits")
    bins = tuple(int(number) for number in record.reservoir["bins"])
    frames = _frames(rows, spec, bins, scale.bin_um(record))
    drawings = (_defect(rows, spec), _harmonics(rows, spec), frames)
    yield Section("light", "Does light add up?", drawings=drawings)


def _defect(rows: Rows, spec: Superposition) -> Drawing:
    known = [
        (number, power)
        for number, power in enumerate(spec.powers_mw)
        if (rows["power_mw"] == power).any()
    ]
    places = np.array([power for _, power in known])

    def curve(column: str) -> NDArray[np.float64]:
        found = over_power(spec, rows, column)
        return _square([found[number] for number, _ in known])

    def draw(drawn: Figure) -> None:
        field, model = drawn.subplots(1, 2)
        shares = 100 * curve("defect").T
        figure.spread(field, places, shares, marker="o", markersize=4, label="defect")
        floor = 100 * curve("floor").mean(axis=1)
        style = {"color": "C1", "linestyle": ":", "linewidth": 1.2}
        field.plot(places, floor, label="noise, taken out", **style)
        field.set_ylabel("beyond the first harmonic (%)")
        field.legend()
        answers = 100 * curve("model_defect").T
        figure.spread(
            model, places, answers, color="C2", marker="o", markersize=4, label="model"
        )
        found = changes(spec, rows)
        moved = 100 * _square([found[number] for number, _ in known]).T
        figure.spread(
            model, places, moved, color="C3", marker="s", markersize=4, label="frame"
        )
        model.set_ylabel("not linear, or changed (%)")
        model.legend(loc="center right")
        for axis in (field, model):
            axis.set(xlabel="power (mW)", ylim=(0, None))

    return Drawing(
        "defect",
        "The defect over the power",
        "Left: share of the interference of the two halves of the panel that no linear "
        "medium would leave; what stands at the weakest power comes of crosstalk and "
        "phase curve. Right: share of the model's answers that is not linear in its "
        "inputs (encoding and camera included), and change of the frame against the "
        "weakest power. Mean over the seeds and its 95 % interval.",
        f"Curves over the power from {places[0]:g} to {places[-1]:g} mW: the defect "
        f"goes from {100 * curve('defect')[0].mean():.3g} to "
        f"{100 * curve('defect')[-1].mean():.3g} %.",
        (7.2, 3.2),
        draw,
    )


def _square(found: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Stack what all have: a study that runs has fewer seeds at the last powers."""
    count = min(map(len, found))
    return np.array([values[:count] for values in found])


def _harmonics(rows: Rows, spec: Superposition) -> Drawing:
    order = np.arange(1, spec.steps // 2)

    def draw(drawn: Figure) -> None:
        axis = drawn.subplots()
        for number, power in enumerate((spec.powers_mw[0], spec.powers_mw[-1])):
            some = rows["power_mw"] == power
            if not some.any():
                continue
            share = rows["spectrum"][some].mean(axis=0)
            # What noise was taken out of may fall below 0, where it is nothing.
            shown = np.where(share > 0, share, np.nan)
            label = f"{power:g} mW"
            axis.plot(order, shown, f"C{number}{'os'[number]}-", lw=1, label=label)
        axis.set(
            xlabel="harmonic of the stepped phase",
            ylabel="share of the interference",
            yscale="log",
        )
        axis.yaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend()

    return Drawing(
        "harmonics",
        "Harmonics of the interference",
        "Weakest and strongest power, mean over the seeds; noise is taken out, and "
        "what it leaves below zero is not drawn.",
        f"Points of {len(order)} harmonics at two powers.",
        (7.2, 2.9),
        draw,
    )


def _frames(
    rows: Rows, spec: Superposition, bins: tuple[int, ...], cell_um: scale.Size
) -> Drawing:
    seed = rows["seed"].min()
    powers = [
        power
        for power in spec.powers_mw
        if ((rows["power_mw"] == power) & (rows["seed"] == seed)).any()
    ]
    frames = [
        rows["frame"][(rows["power_mw"] == power) & (rows["seed"] == seed)][0]
        for power in powers
    ]

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(2, len(powers), squeeze=False)
        top = max(frame.max() for frame in frames)
        far = max(np.abs(frame - frames[0]).max() for frame in frames) or 1.0
        image = apart = None
        for column, (power, frame) in enumerate(zip(powers, frames, strict=True)):
            above, below = axes[:, column]
            image = above.imshow(
                frame.reshape(bins) / top, cmap=figure.INTENSITY, vmin=0, vmax=1
            )
            change = (frame - frames[0]).reshape(bins) / far
            apart = below.imshow(change, cmap=figure.SIGNED, vmin=-1, vmax=1)
            above.set_title(f"{power:g} mW")
            for axis in (above, below):
                axis.set_xticks([])
                axis.set_yticks([])
                axis.grid(visible=False)
        if cell_um is not None:
            axes[0, 0].set_title(f"{powers[0]:g} mW", loc="left")
            axes[0, 0].set_title("")
            figure.scale_bar(axes[0, 0], bins[1], cell_um[1])
        axes[0, 0].set_ylabel("frame")
        axes[1, 0].set_ylabel("less the weakest")
        for row, picture in ((0, image), (1, apart)):
            if picture is not None:
                drawn.colorbar(picture, ax=axes[row], label="over largest", pad=0.01)

    return Drawing(
        "frames",
        "The same pattern at every power",
        "Camera frames of one random pattern, each over its sum, first seed; below, "
        "the difference to the weakest power (blue less, red more). A linear medium "
        "gives the same picture at every power.",
        f"Camera frames at {len(powers)} powers, and their differences.",
        (7.2, 3.6 if len(powers) < 5 else 2.9),
        draw,
    )
