"""Patterns for alignment, on a panel that is not square."""

import io
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
    png = io.BytesIO()
    gray = np.repeat(wanted[..., np.newaxis], 3, axis=-1).astype(np.uint8)
    image.imsave(png, gray, format="png")
    assert (pattern.from_file("a.png", png.getvalue(), SHAPE, 8) == wanted).all()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.npy", npy(np.zeros((10, 6), int)), r"shape=\[10, 6\].*expected \[6, 10\]"),
        ("a.npy", npy(np.full(SHAPE, 256)), "levels 256 to 256.*0 to 255"),
        ("a.npy", npy(np.zeros(SHAPE)), "dtype=float64, expected whole numbers"),
        ("a.npy", npy(np.array(None)), "allow_pickle=False"),
        ("a.npy", b"no", "whole numbers"),
        ("a.png", b"no", "gray"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        pattern.from_file(name, data, SHAPE, 8)


def test_a_picture_with_colours_is_refused() -> None:
    png = io.BytesIO()
    image.imsave(png, np.arange(60).reshape(SHAPE), cmap="viridis", format="png")
    with pytest.raises(InputError, match="colours"):
        pattern.from_file("a.png", png.getvalue(), SHAPE, 8)
