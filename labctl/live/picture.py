"""A frame made small enough for a page, and the numbers that one aligns by."""

import json
import struct
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from labctl.devices import Counts

LONGEST_PX: Final = 512
BARS: Final = 64
SATURATED: Final = 255


@dataclass(frozen=True, eq=False)
class Picture:
    """What the page draws of a frame.

    Parameters
    ----------
    pixels
        Brightness ``(row, column)``, 0 to 254 of full scale; 255 is saturated, and only
        that. A pixel of it is the brightest of a block, so that no saturated one hides.
    block
        Rows and columns of the frame in a pixel of it.
    histogram
        Pixels of the frame in each of :data:`BARS` equal parts of full scale.
    median, most
        Counts.
    saturated
        Share of the frame's pixels.
    """

    pixels: NDArray[np.uint8]
    block: int
    histogram: list[int]
    median: float
    most: int
    saturated: float


def of(frame: Counts, saturation_dn: int) -> Picture:
    """Make the picture of a frame.

    Parameters
    ----------
    frame
        Counts ``(row, column)``.
    saturation_dn
        Counts from which a pixel is saturated.

    Returns
    -------
    picture
        What the page draws.
    """
    block = -(-max(frame.shape) // LONGEST_PX)
    starts = [np.arange(0, side, block) for side in frame.shape]
    small = np.maximum.reduceat(frame, starts[0], axis=0)
    small = np.maximum.reduceat(small, starts[1], axis=1).astype(np.int64)
    pixels = small * SATURATED // saturation_dn
    pixels = np.where(small >= saturation_dn, SATURATED, np.minimum(pixels, 254))
    # All else follows from how many pixels have each count: one pass over the frame.
    having = np.bincount(frame.ravel(), minlength=saturation_dn + 1)
    part = np.minimum(np.arange(len(having)) * BARS // (saturation_dn + 1), BARS - 1)
    histogram = np.zeros(BARS, dtype=np.int64)
    np.add.at(histogram, part, having)
    return Picture(
        pixels=pixels.astype(np.uint8),
        block=block,
        histogram=histogram.tolist(),
        median=_median(having),
        most=int(np.flatnonzero(having)[-1]),
        saturated=float(having[saturation_dn:].sum() / frame.size),
    )


def _median(having: NDArray[np.int64]) -> float:
    """Median of counts, from how many pixels have each."""
    upto = np.cumsum(having)
    middle = [(upto[-1] - 1) // 2, upto[-1] // 2]
    return float(np.searchsorted(upto, middle, side="right").mean())


def packed(picture: Picture, state: dict[str, Any]) -> bytes:
    """Put a picture and what is known beside it into one message.

    Parameters
    ----------
    picture
        The picture.
    state
        What JSON can say.

    Returns
    -------
    message
        Length of the JSON (4 bytes, little-endian), the JSON, the pixels.
    """
    about = {k: v for k, v in asdict(picture).items() if k != "pixels"}
    about["shape"] = list(picture.pixels.shape)
    head = json.dumps({**state, "picture": about}).encode()
    return struct.pack("<I", len(head)) + head + picture.pixels.tobytes()
