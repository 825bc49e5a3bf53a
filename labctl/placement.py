"""Which pixels of the sensor make which output, where the camera truly is.

A bench file says where the bins are as the bench was drawn. Behind a lens a pixel is a
direction of the light, so the drawing and the calibration ``mapping`` are both maps
from directions to pixels, and one after the other they move the bins to where their
light falls::

    pixel as drawn --drawing, inverted--> direction --mapping--> pixel of the sensor
"""

from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from labctl.calibration import CalibrationRecord, Drawing, PanelMap, ReservoirEntry
from labctl.errors import CalibrationError

Region = tuple[int, int, int, int]
Frames = NDArray[np.uint16]
Array = NDArray[np.float64]
# A pixel on the edge of a bin is shared among so many parts along each side: shares are
# whole numbers of parts, so that sums are exact in any order.
PARTS = 8
# Cameras read out blocks of so many rows and columns, or of a part of that.
BLOCK_PX = 16
# Points along each side of the region whose places tell how much is read out.
OUTLINE = 65
# Pixels whose parts are looked up in one go.
_CHUNK_PX = 16_384
# Rounding in a map must not read out another row.
_ROUNDING_PX = 1e-6


class Bins(Protocol):
    """Sums of pixels: the outputs before they are in electrons.

    Attributes
    ----------
    region
        Row, column, height and width on the sensor that is read out.
    area_px
        Pixels of each output, ``(output,)``.
    """

    region: Region
    area_px: Array

    def sums(self, frames: Frames) -> Array:
        """Sum ``(shot, row, column)`` of the region to ``(shot, output)``, exactly."""
        ...

    def spread(self, cotangent: Array) -> Array:
        """Pull a gradient on the sums back to the pixels: the transpose."""
        ...


def _edges(size: int, bins: int) -> NDArray[np.int64]:
    edges: NDArray[np.int64] = np.linspace(0, size, bins + 1).round().astype(np.int64)
    return edges


class UprightBins:
    """Bins of whole pixels, side by side in the region.

    Parameters
    ----------
    entry
        Region and bins.
    """

    def __init__(self, entry: ReservoirEntry) -> None:
        self.region: Region = entry.region
        _, _, height, width = entry.region
        self._rows = _edges(height, entry.bins[0])
        self._columns = _edges(width, entry.bins[1])
        area = np.outer(np.diff(self._rows), np.diff(self._columns))
        self.area_px: Array = area.ravel().astype(np.float64)

    def sums(self, frames: Frames) -> Array:
        """Sum ``(shot, row, column)`` of the region to ``(shot, output)``, exactly."""
        # Whole rows first, and in 32 bits, which hold 65,536 of them: seven times as
        # fast as both axes in 64.
        rows = [
            frames[:, top:end].sum(axis=1, dtype=np.uint32)
            for top, end in pairwise(self._rows)
        ]
        sums = np.add.reduceat(
            np.stack(rows, axis=1), self._columns[:-1], axis=2, dtype=np.int64
        )
        flat: Array = sums.reshape(len(frames), self.area_px.size).astype(np.float64)
        return flat

    def spread(self, cotangent: Array) -> Array:
        """Pull a gradient on the sums back to the pixels: the transpose."""
        rows, columns = len(self._rows) - 1, len(self._columns) - 1
        bins = cotangent.reshape(-1, rows, columns)
        return bins.repeat(np.diff(self._rows), axis=1).repeat(
            np.diff(self._columns), axis=2
        )


class MovedBins:
    """Bins whose light a map puts elsewhere: shifted, turned, mirrored, scaled.

    They are numbered as they are drawn. A pixel that an edge crosses is shared.

    Parameters
    ----------
    entry
        Region and bins, in pixels as drawn.
    drawing
        Where a direction lies on the sensor as drawn.
    mapped
        Where it truly lies.
    sensor
        Rows and columns of pixels; None where that is not known.

    Raises
    ------
    CalibrationError
        The map cannot be inverted there, or puts bins beyond the sensor or between
        its pixels.
    """

    def __init__(
        self,
        entry: ReservoirEntry,
        drawing: Drawing,
        mapped: PanelMap,
        sensor: tuple[int, int] | None = None,
    ) -> None:
        self._entry, self._drawing, self._mapped = entry, drawing, mapped
        self.region: Region = _in_blocks(self._reach(), sensor)
        # By output, then by pixel: each output is one stretch.
        self._output, self._pixel, self._parts = self._shares()
        outputs = entry.bins[0] * entry.bins[1]
        self._starts = np.searchsorted(self._output, np.arange(outputs))
        parts = np.bincount(self._output, self._parts, minlength=outputs)
        if not parts.all():
            at = int(np.argmin(parts))
            text = (
                f"calibration mapping: bin {at} of {outputs} falls between the pixels "
                "of the camera, expected at least a part of one in each. Use fewer "
                "bins, or bring the camera back to where the bench file draws it."
            )
            raise CalibrationError(text)
        self.area_px: Array = parts / PARTS**2

    def sums(self, frames: Frames) -> Array:
        """Sum ``(shot, row, column)`` of the region to ``(shot, output)``, exactly."""
        flat = frames.reshape(len(frames), -1)
        sums = np.empty((len(frames), self.area_px.size))
        for number, frame in enumerate(flat):  # in the memory of one frame
            weighed = frame[self._pixel] * self._parts
            sums[number] = np.add.reduceat(weighed, self._starts)
        return sums / PARTS**2

    def spread(self, cotangent: Array) -> Array:
        """Pull a gradient on the sums back to the pixels: the transpose."""
        _, _, height, width = self.region
        spread = np.zeros((len(cotangent), height * width))
        for number, of_one in enumerate(cotangent):
            shares = of_one[self._output] * self._parts / PARTS**2
            spread[number] = np.bincount(self._pixel, shares, minlength=height * width)
        return spread.reshape(-1, height, width)

    def _reach(self) -> Region:
        """Return the pixels that the region's outline goes around."""
        top, left, height, width = self._entry.region
        along = np.linspace(0, 1, OUTLINE)
        low, high = np.zeros(OUTLINE), np.ones(OUTLINE)
        rows = np.concatenate([low, high, along, along]) * height + top - 0.5
        columns = np.concatenate([along, along, low, high]) * width + left - 0.5
        drawn = np.stack([rows, columns], axis=1)
        places = self._mapped.places(self._drawing.mapping.tilts(drawn)) + 0.5
        first = np.floor(places.min(axis=0) + _ROUNDING_PX).astype(int)
        last = np.ceil(places.max(axis=0) - _ROUNDING_PX).astype(int)
        sides = np.maximum(last - first, 1)
        return int(first[0]), int(first[1]), int(sides[0]), int(sides[1])

    def _shares(self) -> NDArray[np.int64]:
        """Output, pixel and parts of each share, ``(3, share)``."""
        top, left, height, width = self.region
        band = max(1, _CHUNK_PX // width)
        part = (np.arange(PARTS) + 0.5) / PARTS - 0.5
        found = []
        for start in range(0, height, band):  # in the memory of some rows
            rows = np.arange(start, min(start + band, height))
            row = (top + rows[:, None] + part).reshape(-1)
            column = (left + np.arange(width)[:, None] + part).reshape(-1)
            at = np.meshgrid(row, column, indexing="ij")
            output = self._outputs(np.stack([each.ravel() for each in at], axis=1))
            pixel = np.add.outer(
                rows.repeat(PARTS) * width, np.arange(width).repeat(PARTS)
            ).ravel()
            inside = output >= 0
            found.append(np.stack([output[inside], pixel[inside]]))
        both = np.concatenate(found, axis=1)
        pairs, parts = np.unique(both, axis=1, return_counts=True)
        return np.vstack([pairs, parts])

    def _outputs(self, places: Array) -> NDArray[np.int64]:
        """Bin of each place on the sensor, ``(place,)``; -1 outside of all."""
        drawn = self._drawing.mapping.places(self._mapped.tilts(places))
        numbers = []
        for axis in (0, 1):
            first, size = self._entry.region[axis], self._entry.region[2 + axis]
            edges = _edges(size, self._entry.bins[axis]) + first - 0.5
            number = np.searchsorted(edges, drawn[:, axis], side="right") - 1
            numbers.append(np.where(number < self._entry.bins[axis], number, -1))
        rows, columns = numbers
        output: NDArray[np.int64] = np.where(
            (rows < 0) | (columns < 0), -1, rows * self._entry.bins[1] + columns
        )
        return output


def _in_blocks(reach: Region, sensor: tuple[int, int] | None) -> Region:
    """Grow a region to what cameras read out.

    Raises
    ------
    CalibrationError
        It is not on the sensor.
    """
    first, size = np.array(reach[:2]), np.array(reach[2:])
    most = first + size if sensor is None else np.array(sensor)
    if (first < 0).any() or (first + size > most).any():
        text = (
            f"calibration mapping: the light of reservoir.region is at {list(reach)}, "
            f"expected within {int(most[0])} x {int(most[1])} (the sensor). Move the "
            "camera so that it sees all of it and calibrate again, or make the region "
            "smaller."
        )
        raise CalibrationError(text)
    last = -(-(first + size) // BLOCK_PX) * BLOCK_PX
    if sensor is not None:
        last = np.minimum(last, most)
    first = first // BLOCK_PX * BLOCK_PX
    height, width = last - first
    return int(first[0]), int(first[1]), int(height), int(width)


def placed(
    entry: ReservoirEntry, drawing: Drawing | None, record: CalibrationRecord | None
) -> Bins:
    """Find the pixels of the outputs.

    Parameters
    ----------
    entry
        Region and bins.
    drawing
        Of the bench file; None for a region that is meant in pixels of the sensor,
        wherever their light comes from.
    record
        The calibration ``mapping`` in force; None for none.

    Returns
    -------
    bins
        What a decoder sums.

    Raises
    ------
    CalibrationError
        There is a drawing and no calibration, or it puts the bins beyond the sensor.
    """
    if drawing is None:
        return UprightBins(entry)
    if record is None or not isinstance(record.values, PanelMap):
        text = (
            "calibration mapping=none, expected one in force: the bench file has a "
            "drawing, so its region moves with the camera. Run labctl calibrate, or "
            "say allow_uncalibrated: true in the protocol."
        )
        raise CalibrationError(text)
    if record.values == drawing.mapping:  # as it stands, also in a camera's own steps
        return UprightBins(entry)
    return MovedBins(entry, drawing, record.values, record.geometry.get("camera"))
