"""How the pixels of panel and sensor lie on the grid of the fields."""

import math
from functools import reduce
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from drivers.sim.options import Options

Shape = tuple[int, int]
Region = tuple[int, int, int, int]
# A grid point is so many parts along each side where the camera is turned or shifted.
PARTS = 8
# Grid points whose parts are looked up in one go.
_CHUNK = 16_384


class Sees(Protocol):
    """How the light of the grid falls on the pixels of the sensor."""

    def crop(
        self, light: Float[Tensor, "field row column"], region: Region
    ) -> Float[Tensor, "field out_row out_column"]:
        """Light on each pixel of a region; differentiable.

        Parameters
        ----------
        light
            On the grid.
        region
            Row, column, height and width, in pixels.

        Returns
        -------
        light
            On the pixels.
        """
        ...


def seen_by(options: Options) -> Sees:
    """Say how a specimen's camera stands in the light.

    Parameters
    ----------
    options
        What is simulated.

    Returns
    -------
    sees
        For cropping; upright unless the options say otherwise.
    """
    made = options.sensor
    shift_px = (made.shift_row_px, made.shift_column_px)
    if not made.mirrored and made.turn_deg == 0 and not any(shift_px):
        return SensorGrid(options.pixels, options.grid)
    turn = (made.mirrored, math.radians(made.turn_deg), shift_px)
    return MovedSensor(options.pixels, options.grid, *turn)


class PanelGrid:
    """Which pixel of the panel each grid point sees.

    The grid covers the whole panel and looks at the pixel in the middle of each
    point: a pattern of macropixels that are at least a point wide is seen as it
    is, a finer one is not seen.

    Parameters
    ----------
    panel
        Rows and columns of pixels.
    grid
        Rows and columns of grid points.
    """

    def __init__(self, panel: Shape, grid: Shape) -> None:
        self._is_same = panel == grid
        self._panel = panel
        self._rows, self._columns = (
            ((np.arange(points) + 0.5) * pixels / points).astype(np.intp)
            for pixels, points in zip(panel, grid, strict=True)
        )

    def sample(self, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Take what the grid sees of ``(row, column)``."""
        if self._is_same:
            return levels
        return levels[np.ix_(self._rows, self._columns)]

    def sample_all(
        self, levels: Float[Tensor, "field row column"]
    ) -> Float[Tensor, "field grid_row grid_column"]:
        """Take what the grid sees of several patterns; differentiable."""
        if self._is_same:
            return levels
        rows, columns = (
            torch.from_numpy(kept).to(levels.device)
            for kept in (self._rows, self._columns)
        )
        return levels.index_select(-2, rows).index_select(-1, columns)


class SensorGrid:
    """How the light of the grid falls on the pixels of the sensor.

    The grid covers the whole sensor; a pixel takes of each point the share that it
    covers, so that no light is lost.

    Parameters
    ----------
    sensor
        Rows and columns of pixels.
    grid
        Rows and columns of grid points.
    """

    def __init__(self, sensor: Shape, grid: Shape) -> None:
        self._is_same = sensor == grid
        self._rows, self._columns = (
            _terms(overlap(pixels, points))
            for pixels, points in zip(sensor, grid, strict=True)
        )

    def crop(
        self,
        light: Float[Tensor, "field row column"],
        region: Region,
    ) -> Float[Tensor, "field out_row out_column"]:
        """Light on each pixel of a region; differentiable.

        Parameters
        ----------
        light
            On the grid.
        region
            Row, column, height and width, in pixels.

        Returns
        -------
        light
            On the pixels.
        """
        row, column, height, width = region
        if self._is_same:
            return light[:, row : row + height, column : column + width]
        # Term by term: the sums of a matrix product may have another order where more
        # is computed beside them.
        down = reduce(
            torch.add,
            (
                light.index_select(1, points[row : row + height].to(light.device))
                * shares[row : row + height, None].to(light)
                for points, shares in self._rows
            ),
        )
        return reduce(
            torch.add,
            (
                down.index_select(2, points[column : column + width].to(light.device))
                * shares[column : column + width].to(light)
                for points, shares in self._columns
            ),
        )


def _terms(share: NDArray[np.float64]) -> list[tuple[Tensor, Tensor]]:
    """Take apart the sum of each pixel: its first point and its share, its second."""
    most = int((share > 0).sum(axis=1).max())
    points = np.argsort(share <= 0, axis=1, kind="stable")[:, :most]
    shares = np.take_along_axis(share, points, axis=1)
    pairs = zip(points.T.copy(), shares.T.copy(), strict=True)
    return [(torch.from_numpy(at), torch.from_numpy(part)) for at, part in pairs]


def overlap(pixels: int, points: int) -> NDArray[np.float64]:
    """Share of each point that each pixel covers, along one axis.

    Parameters
    ----------
    pixels, points
        How many of each divide the same length.

    Returns
    -------
    share
        ``(pixel, point)``; over the pixels it sums to 1.
    """
    pixel, point = np.arange(pixels)[:, None], np.arange(points)[None]
    # In units of the length over pixels * points: whole numbers, so exact.
    low = np.maximum(pixel * points, point * pixels)
    high = np.minimum((pixel + 1) * points, (point + 1) * pixels)
    share: NDArray[np.float64] = np.maximum(high - low, 0) / pixels
    return share


class MovedSensor:
    """A sensor that is mirrored, turned or shifted in the light.

    Without that the grid covers the whole sensor. A point is a square of light, and a
    pixel takes what falls on it; what falls beside the sensor is lost.

    Parameters
    ----------
    sensor
        Rows and columns of pixels.
    grid
        Rows and columns of grid points.
    mirrored
        Whether left and right are exchanged.
    turn_rad
        How far the picture is turned about the middle, from rows towards columns.
    shift_px
        How far it is shifted after that, along rows and columns, in pixels.
    """

    def __init__(
        self,
        sensor: Shape,
        grid: Shape,
        mirrored: bool,
        turn_rad: float,
        shift_px: tuple[float, float],
    ) -> None:
        self._sensor, self._grid = sensor, grid
        self._mirrored, self._turn_rad, self._shift_px = mirrored, turn_rad, shift_px
        pixel, point, share = self._shares()
        # As many points for each pixel as the one with most takes: a sum along them
        # has the same order whatever is computed beside it.
        first = np.searchsorted(pixel, pixel)
        place = np.arange(len(pixel)) - first
        most = int(place.max(initial=0)) + 1
        points = np.zeros((sensor[0] * sensor[1], most), dtype=np.int64)
        shares = np.zeros(points.shape)
        points[pixel, place], shares[pixel, place] = point, share
        self._points = torch.from_numpy(points).reshape(*sensor, most)
        self._shares_of = torch.from_numpy(shares).reshape(*sensor, most)

    def crop(
        self, light: Float[Tensor, "field row column"], region: Region
    ) -> Float[Tensor, "field out_row out_column"]:
        """Light on each pixel of a region; differentiable.

        Parameters
        ----------
        light
            On the grid.
        region
            Row, column, height and width, in pixels.

        Returns
        -------
        light
            On the pixels.
        """
        row, column, height, width = region
        inside = (slice(row, row + height), slice(column, column + width))
        points = self._points[inside].to(light.device)
        shares = self._shares_of[inside].to(light)
        # One field at a time: a product of many may be summed in another order.
        return torch.stack(
            [(field.reshape(-1)[points] * shares).sum(dim=-1) for field in light]
        )

    def _shares(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Pixel, point and share of the point in the pixel; by pixel, then point."""
        rows, columns = self._grid
        band, found = max(1, _CHUNK // columns), []
        for start in range(0, rows, band):
            row = np.arange(start * PARTS, min(start + band, rows) * PARTS)
            column = np.arange(columns * PARTS)
            y, x = np.meshgrid(row, column, indexing="ij")
            pixel = self._pixels(
                (y + 0.5) / (rows * PARTS) - 0.5, (x + 0.5) / (columns * PARTS) - 0.5
            )
            point = y // PARTS * columns + x // PARTS
            found.append(np.stack([pixel[pixel >= 0], point[pixel >= 0]]))
        pairs, parts = np.unique(np.hstack(found), axis=1, return_counts=True)
        return pairs[0], pairs[1], parts / PARTS**2

    def _pixels(
        self, y: NDArray[np.float64], x: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Pixel that a place on the grid falls on; -1 beside the sensor."""
        height, width = self._sensor
        down, across = y * height, (-x if self._mirrored else x) * width
        cosine, sine = math.cos(self._turn_rad), math.sin(self._turn_rad)
        turned = (cosine * down - sine * across, sine * down + cosine * across)
        row, column = (
            np.floor(at + shift + side / 2).astype(np.int64)
            for at, shift, side in zip(
                turned, self._shift_px, self._sensor, strict=True
            )
        )
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        pixel: NDArray[np.int64] = np.where(inside, row * width + column, -1)
        return pixel
