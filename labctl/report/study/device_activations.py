"""Figures of the study ``device-activations``: the device beside the zoo."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from labctl.protocol import DeviceActivations
from labctl.recording.reader import Record
from labctl.report.figure import Drawing
from labctl.report.section import Section, Table
from labctl.report.study.activations import HEADS
from labctl.studies.zoo import MEASURES, SHOWN, measures

Rows = dict[str, NDArray[Any]]
_ACROSS = 3
_MOST = 9  # outputs drawn one by one
_KNOWN = ("sin", "relu", "polynomial-3", "perlin", "jeff-12")


def sections(record: Record) -> Iterator[Section]:
    """Show each output over the input, and its measures beside the zoo's.

    Parameters
    ----------
    record
        Of the study.

    Yields
    ------
    section
        The plots and the table.
    """
    spec = DeviceActivations.model_validate(record.resolved["study"])
    rows = record.table("fits")
    drawings = (_responses(rows, spec), _measured(rows, spec))
    title = "The device as an activation"
    yield Section("device-zoo", title, table=_table(rows, spec), drawings=drawings)


def _responses(rows: Rows, spec: DeviceActivations) -> Drawing:
    seed = rows["seed"].min()
    count = min(_MOST, rows["curves"].shape[1])
    x = np.linspace(-4, 4, SHOWN)

    def draw(drawn: Figure) -> None:
        down = -(-count // _ACROSS)
        axes = drawn.subplots(down, _ACROSS, squeeze=False, sharex=True, sharey=True)
        for number, axis in enumerate(axes.flat):
            axis.set_visible(number < count)
            if number >= count:
                continue
            for kind, power in enumerate(spec.powers_mw):
                some = (rows["power_mw"] == power) & (rows["seed"] == seed)
                for curve in rows["curves"][some][:, number]:
                    label = f"{power:g} mW" if number == 0 else None
                    axis.plot(x, curve, color=f"C{kind}", linewidth=1.2, label=label)
            axis.set_title(f"output {number}", fontsize=9)
        drawn.supxlabel("input (rad)", fontsize=9)
        drawn.supylabel("output, in units of its spread", fontsize=9)
        drawn.legend(loc="outside upper center", ncols=len(spec.powers_mw))

    return Drawing(
        "responses",
        "Each output over one swept input",
        "First seed: the other inputs and theta rest. Drawn are the harmonics that "
        "stand out of the noise; the input is periodic in 2π.",
        f"Curves of {count} outputs from -4 to 4 rad at {len(spec.powers_mw)} powers.",
        (7.2, 0.9 + 1.35 * -(-count // _ACROSS)),
        draw,
    )


def _measured(rows: Rows, spec: DeviceActivations) -> Drawing:
    names = ("largest", "oscillation", "complexity")

    def draw(drawn: Figure) -> None:
        axes = drawn.subplots(1, len(names))
        for axis, name in zip(axes, names, strict=True):
            place = MEASURES.index(name)
            for kind, power in enumerate(spec.powers_mw):
                some = rows["power_mw"] == power
                values = np.sort(rows["measures"][some][..., place].ravel())
                share = np.arange(1, len(values) + 1) / max(len(values), 1)
                axis.step(values, share, where="post", color=f"C{kind}")
            known = measures("sin")[name]
            axis.axvline(known, color="C3", linestyle=":", linewidth=1)
            axis.text(known, 1.02, " sin", fontsize=7)
            axis.set(xlabel=HEADS[name], ylim=(0, 1.1))
        axes[0].set_ylabel("share of the outputs below")
        handles = [
            axes[0].plot([], [], color=f"C{kind}", label=f"{power:g} mW")[0]
            for kind, power in enumerate(spec.powers_mw)
        ]
        drawn.legend(handles=handles, loc="outside upper center", ncols=len(handles))

    return Drawing(
        "device-measures",
        "Measures of all outputs",
        "Share of the outputs, over all seeds, whose measure is below a value; dotted "
        "is the sine.",
        "Rising curves of three measures, one a power.",
        (7.2, 2.9),
        draw,
    )


def _table(rows: Rows, spec: DeviceActivations) -> Table:
    cells = []
    for power in spec.powers_mw:
        some = rows["power_mw"] == power
        if not some.any():
            continue
        means = rows["measures"][some].mean(axis=(0, 1))
        beyond = 100 * rows["beyond"][some].mean()
        told = [f"{value:.3g}" for value in means]
        cells.append((f"device, {power:g} mW", *told, f"{beyond:.3g} %"))
    for name in _KNOWN:
        told = [f"{value:.3g}" for value in measures(name).values()]
        cells.append((name, *told, "–"))
    heads = ("activation", *(HEADS[name] for name in MEASURES), "beyond one harmonic")
    note = (
        "Of the device: means over outputs and seeds, outputs in units of their spread "
        "and an input of 1 being 1 rad; monotone is the share of the outputs that are. "
        "Measured from -4 to 4."
    )
    return Table(heads, tuple(cells), note, sortable=True)
