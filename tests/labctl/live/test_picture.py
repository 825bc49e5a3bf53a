"""Frames on a page: nothing saturated is hidden, nothing else looks so."""

import json
import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from labctl.live import picture


def test_one_saturated_pixel_of_a_large_frame_is_seen() -> None:
    frame = np.full((1200, 1920), 4094, np.uint16)
    frame[701, 1303] = 4095
    made = picture.of(frame, 4095)
    assert made.block == 4
    assert made.pixels.shape == (300, 480)
    assert np.argwhere(made.pixels == picture.SATURATED).tolist() == [[175, 325]]
    assert (made.most, made.median) == (4095, 4094)
    assert made.saturated == 1 / frame.size


def test_the_histogram_counts_every_pixel() -> None:
    frame = np.array([[0, 63, 64], [128, 4032, 4095]], np.uint16)
    made = picture.of(frame, 4095)
    assert sum(made.histogram) == 6
    assert [made.histogram[at] for at in (0, 1, 2, 63)] == [2, 1, 1, 2]
    assert made.pixels.tolist() == [[0, 3, 3], [7, 251, 255]]


def test_a_message_holds_words_and_pixels() -> None:
    made = picture.of(np.array([[1, 2, 255]], np.uint16), 255)
    message = picture.packed(made, {"number": 7})
    (size,) = struct.unpack("<I", message[:4])
    said = json.loads(message[4 : 4 + size])
    assert said["number"] == 7
    assert said["picture"]["shape"] == [1, 3]
    assert list(message[4 + size :]) == [1, 2, 255]


@settings(deadline=None)
@given(
    frame=arrays(
        np.uint16, array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 900)
    ),
    saturation_dn=st.integers(1, 900),
)
def test_its_numbers_are_those_of_the_frame(
    frame: NDArray[np.uint16], saturation_dn: int
) -> None:
    made = picture.of(frame, saturation_dn)
    assert made.median == np.median(frame)
    assert made.most == frame.max()
    assert made.saturated == (frame >= saturation_dn).mean()
    edges = np.arange(1, picture.BARS) * (saturation_dn + 1) / picture.BARS
    parts = np.searchsorted(edges, frame.ravel(), side="right")
    assert made.histogram == np.bincount(parts, minlength=picture.BARS).tolist()
