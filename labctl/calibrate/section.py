"""What a bench file says of calibrations, judged before anything is measured."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from labctl.bench import Bench, BenchSource
from labctl.calibrate.kind import Kind
from labctl.calibrate.kinds import KINDS
from labctl.calibration import divides
from labctl.errors import DeviceError, Fault


def faults(
    source: BenchSource, bench: Bench | None, kinds: Sequence[Kind] = KINDS
) -> list[Fault]:
    """Find what is wrong in the section ``calibrate`` of a bench file.

    Parameters
    ----------
    source
        The bench file.
    bench
        Its bench, open or not: what a driver only knows once it is open is compared
        then. None where it cannot be made.
    kinds
        Which there are.

    Returns
    -------
    faults
        Kinds, and merits of kinds, that are not known; limits that cannot be meant;
        and what does not fit panel, sensor and outputs; at their lines.
    """
    found = [*_unknown(source, kinds), *_senseless(source, kinds)]
    return found if bench is None else [*found, *misfits(source, bench, kinds)]


def misfits(
    source: BenchSource, bench: Bench, kinds: Sequence[Kind] = KINDS
) -> list[Fault]:
    """Compare regions of panel and sensor with these and with the outputs.

    Parameters
    ----------
    source
        The bench file.
    bench
        Its bench, open or not.
    kinds
        Which there are.

    Returns
    -------
    faults
        At their lines; of a driver that does not know its shape yet there is none.
    """
    found = list(_elsewhere(source, kinds))
    entry = source.file.calibrate
    with suppress(DeviceError):  # what only the open device knows
        rows, columns = bench.camera.shape
        region = entry.region
        if region is not None and (
            region[0] + region[2] > rows or region[1] + region[3] > columns
        ):
            text = (
                f"region={list(region)}, expected within {rows} x {columns} (the "
                "sensor). Move it, or make it smaller."
            )
            found.append(source.document.fault("calibrate.region", text))
    with suppress(DeviceError):
        regions, panel = entry.phase_regions, bench.slm.shape
        if not divides(regions, panel):
            text = (
                f"phase_regions={list(regions)}, expected numbers that divide "
                f"{list(panel)}, the rows and columns of the panel. Correct it."
            )
            found.append(source.document.fault("calibrate.phase_regions", text))
    return found


def _elsewhere(source: BenchSource, kinds: Sequence[Kind]) -> Iterator[Fault]:
    """Tell a region that does not hold the outputs, where nothing moves them."""
    entry, outputs = source.file.calibrate, source.file.reservoir.region
    # With a drawing they lie where mapping says.
    if entry.region is None or source.file.drawing is not None:
        return
    looking = [
        kind.name
        for kind in kinds
        if kind.looks_at_outputs and kind.name not in entry.lacks
    ]
    top, left, height, width = (
        inner - outer for inner, outer in zip(outputs, entry.region, strict=True)
    )
    if looking and (min(top, left) < 0 or top + height > 0 or left + width > 0):
        text = (
            f"region={list(entry.region)}, expected the outputs within: "
            f"reservoir.region is {list(outputs)}. Make it larger, or say under "
            f"calibrate.lacks why {' and '.join(looking)} cannot be measured."
        )
        yield source.document.fault("calibrate.region", text)


def _senseless(source: BenchSource, kinds: Sequence[Kind]) -> Iterator[Fault]:
    """Tell limits that a figure keeps always, or never."""
    entry = source.file.calibrate
    for kind in kinds:
        limits = entry.limits.get(kind.name, {})
        for name in sorted(limits.keys() & kind.least.keys()):
            least = kind.least[name]
            if limits[name] < least:
                text = (
                    f"got {limits[name]:g}, expected at least {least:g}: the figure "
                    "is never below. Raise it, or leave it out."
                )
                key = f"calibrate.limits.{kind.name}.{name}"
                yield source.document.fault(key, text)


def _unknown(source: BenchSource, kinds: Sequence[Kind]) -> Iterator[Fault]:
    """Tell kinds, and merits of kinds, that are named and nobody has."""
    entry = source.file.calibrate
    known = {kind.name: kind for kind in kinds}

    def judge(key: str, names: Iterable[str], expected: Iterable[str]) -> list[Fault]:
        options, found = list(expected), []
        for name in sorted(set(names) - set(options)):
            close = difflib.get_close_matches(name, options, 1)
            meant = f" Did you mean {close[0]}?" if close else ""
            text = f"{name} is not known, expected one of {', '.join(options)}.{meant}"
            found.append(source.document.fault(f"calibrate.{key}.{name}", text))
        return found

    yield from judge("lacks", entry.lacks, known)
    yield from judge("valid_days", entry.valid_days, known)
    yield from judge("limits", entry.limits, known)
    for name in sorted(entry.limits.keys() & known.keys()):
        limits = sorted(known[name].limits)
        yield from judge(f"limits.{name}", entry.limits[name], limits)
