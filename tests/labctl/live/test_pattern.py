"""Patterns for alignment, on a panel that is not square."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from numpy.typing import NDArray

from labctl.errors import InputError
from labctl.live import pattern
from labctl.reservoir import PhaseScale

SHAPE = (6, 10)
SCALE = PhaseScale(2 * np.pi * np.arange(256) / 256).levels


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(
    kind: int,
    bits: int,
    bytes_each: float,
    fill: int = 255,
    size: tuple[int, int] = SHAPE,
) -> bytes:
    """Make a PNG of any kind, with the same byte everywhere."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", size[1], size[0], bits, kind, 0, 0, 0)
    line = b"\0" + bytes([fill]) * int(SHAPE[1] * bytes_each)
    body = zlib.compress(line * SHAPE[0])
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", body), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def promising(*shape: int) -> bytes:
    """Make the head of an array, and nothing behind it."""
    file = io.BytesIO()
    head = {"descr": "<i8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)
    return file.getvalue()


def test_a_grating_rises_along_its_angle() -> None:
    along = pattern.grating(SHAPE, SCALE, 4, 0)
    assert along[3, :5].tolist() == [0, 64, 128, 192, 0]
    assert (along == along[:1]).all()
    down = pattern.grating(SHAPE, SCALE, 4, 90)
    assert down[:5, 7].tolist() == [0, 64, 128, 192, 0]


def test_a_checker_has_squares_of_half_a_turn() -> None:
    levels = pattern.checker(SHAPE, SCALE, 3)
    assert levels[0].tolist() == [0] * 3 + [128] * 3 + [0] * 3 + [128]
    assert levels[3].tolist() == [128] * 3 + [0] * 3 + [128] * 3 + [0]


@pytest.mark.parametrize(("bits", "level"), [(8, 255), (10, 1023)])
def test_a_level_is_one_of_the_panel(bits: int, level: int) -> None:
    assert (pattern.flat(SHAPE, bits, level) == level).all()
    with pytest.raises(InputError, match=f"level={level + 1}, expected 0 to {level}"):
        pattern.flat(SHAPE, bits, level + 1)


def test_levels_of_a_file_are_shown_as_they_are() -> None:
    wanted = np.arange(60).reshape(SHAPE) * 4
    assert (pattern.from_file("a.npy", npy(wanted), SHAPE, 8) == wanted).all()
    file = io.BytesIO()
    gray = np.repeat(wanted[..., np.newaxis], 3, axis=-1).astype(np.uint8)
    image.imsave(file, gray, format="png")
    assert (pattern.from_file("a.png", file.getvalue(), SHAPE, 8) == wanted).all()
    for kind, bytes_each in ((0, 1), (2, 3), (4, 2), (6, 4)):
        data = png(kind, 8, bytes_each)
        assert (pattern.from_file("a.png", data, SHAPE, 8) == 255).all()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.npy", npy(np.zeros((10, 6), int)), r"shape=\[10, 6\].*expected \[6, 10\]"),
        ("a.npy", npy(np.full(SHAPE, 256)), "levels 256 to 256.*0 to 255"),
        ("a.npy", npy(np.zeros(SHAPE)), "dtype=float64, expected whole numbers"),
        ("a.npy", npy(np.array(None)), "dtype=object, expected whole numbers"),
        ("a.npy", b"no", "whole numbers"),
        ("a.png", b"no", "it is no PNG.*gray"),
        ("a.png", png(0, 8, 1)[:40], "gray"),
        ("a.png", png(0, 16, 2), "it has 16 bits a level, expected 8"),
        ("a.png", png(0, 4, 0.5), "it has 4 bits a level, expected 8"),
        ("a.png", png(4, 8, 2, fill=254), "it is transparent"),
        ("a.png", png(6, 8, 4, fill=254), "it is transparent"),
        ("a.png", png(0, 8, 1, size=(60_000, 60_000)), r"shape=\[60000, 60000\]"),
        ("a.npy", promising(10**6, 10**6), r"shape=\[1000000, 1000000\]"),
        ("a.npy", promising(*SHAPE), "whole numbers"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        pattern.from_file(name, data, SHAPE, 8)


def test_a_picture_with_colours_is_refused() -> None:
    file = io.BytesIO()
    image.imsave(file, np.arange(60).reshape(SHAPE), cmap="viridis", format="png")
    with pytest.raises(InputError, match="colours"):
        pattern.from_file("a.png", file.getvalue(), SHAPE, 8)
