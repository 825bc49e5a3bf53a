"""How the pixels of panel and sensor lie on the grid of the fields."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Shape = tuple[int, int]


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
            torch.from_numpy(overlap(pixels, points))
            for pixels, points in zip(sensor, grid, strict=True)
        )

    def crop(
        self,
        light: Float[Tensor, "field row column"],
        region: tuple[int, int, int, int],
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
        rows = self._rows[row : row + height].to(light)
        columns = self._columns[column : column + width].to(light).T
        # One field at a time: a product of many may be summed in another order.
        return torch.stack([rows @ field @ columns for field in light])


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
