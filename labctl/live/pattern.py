"""Patterns for alignment: what a person wants to see on a panel.

Levels are ``(row, column)`` of the panel. Phase is in rad and becomes the nearest level
of the panel's curve, as in a run.
"""

import io
import math
import struct
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from matplotlib import image
from numpy.typing import NDArray

from labctl.devices import Levels
from labctl.errors import InputError

# From phases to gray levels, as labctl.reservoir.pixel_scale makes them.
Scale = Callable[[NDArray[np.float64]], Levels]
_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
# Magic, length and name of the first chunk; columns, rows, bits, kind of colour.
_PNG_HEAD: Final = struct.Struct(">16sIIBB")
_PALETTE: Final = 3


def flat(shape: tuple[int, int], bit_depth: int, level: int) -> Levels:
    """Show one level everywhere.

    Parameters
    ----------
    shape
        Rows and columns of the panel.
    bit_depth
        Bits a level.
    level
        Which one.

    Returns
    -------
    levels
        The pattern.

    Raises
    ------
    InputError
        There is no such level.
    """
    most = (1 << bit_depth) - 1
    if not 0 <= level <= most:
        text = f"pattern: level={level}, expected 0 to {most}. Choose one of these."
        raise InputError(text)
    return _typed(np.full(shape, level), most)


def grating(
    shape: tuple[int, int], scale: Scale, period_px: float, angle_deg: float
) -> Levels:
    """Show a blaze: the spot moves one way, the zero order stays.

    Parameters
    ----------
    shape
        Rows and columns of the panel.
    scale
        Phases to levels.
    period_px
        Pixels a turn of the phase, along the rise.
    angle_deg
        Where the phase rises to: 0 is towards higher columns, 90 towards higher rows.

    Returns
    -------
    levels
        The pattern.
    """
    row, column = np.indices(shape, dtype=np.float64)
    angle = math.radians(angle_deg)
    way = column * math.cos(angle) + row * math.sin(angle)
    return scale(math.tau * way / period_px)


def checker(shape: tuple[int, int], scale: Scale, size_px: int) -> Levels:
    """Show squares of phase 0 and half a turn: their edges show focus and scale.

    Parameters
    ----------
    shape
        Rows and columns of the panel.
    scale
        Phases to levels.
    size_px
        Side of a square.

    Returns
    -------
    levels
        The pattern.
    """
    row, column = np.indices(shape)
    odd = (row // size_px + column // size_px) % 2
    return scale(math.pi * odd.astype(np.float64))


def from_file(name: str, data: bytes, shape: tuple[int, int], bit_depth: int) -> Levels:
    """Read levels from a file, as they are.

    Parameters
    ----------
    name
        Its name: ``.npy`` of whole numbers, or ``.png`` of gray.
    data
        Its content.
    shape
        Rows and columns of the panel.
    bit_depth
        Bits a level; a PNG has 8.

    Returns
    -------
    levels
        The pattern.

    Raises
    ------
    InputError
        It is no such file, or does not fit the panel: nothing is scaled or cut.
    """
    try:
        read = _png if name.lower().endswith(".png") else _npy
        got = read(data, shape)
    except (ValueError, OSError, SyntaxError, EOFError) as err:
        text = f"{name}: {err}. Give an array of whole numbers (.npy), or a gray .png."
        raise InputError(text) from err
    most = (1 << bit_depth) - 1
    if got.min() < 0 or got.max() > most:
        text = (
            f"{name}: levels {got.min()} to {got.max()}, expected 0 to {most} (the "
            "panel). Make it fit."
        )
        raise InputError(text)
    return _typed(got, most)


def _typed(levels: NDArray[Any], most: int) -> Levels:
    kind = np.uint8 if most < 256 else np.uint16
    typed: Levels = levels.astype(kind)
    return typed


def _npy(data: bytes, shape: tuple[int, int]) -> NDArray[Any]:
    """Read an array of whole numbers.

    Raises
    ------
    ValueError
        It is another thing, or of another shape: told by its head, before room is made
        for what the head promises.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    heads = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in heads:  # only for arrays with named fields
        text = f"format {version[0]}.{version[1]}, expected whole numbers"
        raise ValueError(text)
    got, _, kind = heads[version](file)
    if kind.kind not in "iu":
        text = f"dtype={kind}, expected whole numbers"
        raise ValueError(text)
    _check_shape(got, shape)
    levels: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return levels


def _png(data: bytes, shape: tuple[int, int]) -> NDArray[Any]:
    """Read the levels of a gray picture of 8 bits.

    Raises
    ------
    ValueError
        It has colours, transparency, or other bits: its levels would not be kept. Or
        it is of another shape.
    """
    head = data[: _PNG_HEAD.size]
    if len(head) < _PNG_HEAD.size or not head.startswith(_PNG_MAGIC):
        text = "it is no PNG"
        raise ValueError(text)
    _, columns, rows, bits, kind = _PNG_HEAD.unpack(head)
    if bits != 8 and kind != _PALETTE:  # whose colours have 8
        text = f"it has {bits} bits a level, expected 8; other bits go into a .npy"
        raise ValueError(text)
    _check_shape((rows, columns), shape)
    got = image.imread(io.BytesIO(data), format="png")
    if got.ndim == 3 and got.shape[2] == 4:
        if (got[..., 3] != 1).any():
            text = "it is transparent, expected levels alone"
            raise ValueError(text)
        got = got[..., :3]
    if got.ndim == 3 and (got == got[..., :1]).all():
        got = got[..., 0]
    if got.ndim != 2:
        text = "it has colours, expected gray"
        raise ValueError(text)
    levels: NDArray[Any] = np.rint(255 * got).astype(np.int64)
    return levels


def _check_shape(got: tuple[int, ...], shape: tuple[int, int]) -> None:
    """Refuse another shape than that of the panel.

    Raises
    ------
    ValueError
        It is another.
    """
    if got != shape:
        text = f"shape={list(got)}, expected {list(shape)} (the panel)"
        raise ValueError(text)
