"""Sizes of what pictures show, by what the record says of the instruments."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from labctl.recording.reader import Record
from labctl.report import scale

SLM = {"pitch_um": 8.0, "shape": (50, 70)}
CAMERA = {"y_pixel_size": 3.0, "x_pixel_size": 4.0}
RESERVOIR = {"macropixels": (12, 16), "region": (1, 2, 24, 30), "bins": (3, 5)}


def record(**changes: Any) -> Record:  # noqa: ANN401 - a part of a record
    told = {"instrument": {"slm": SLM, "camera": CAMERA}, "reservoir": RESERVOIR}
    return cast("Record", SimpleNamespace(**{**told, **changes}))


def test_pixels_of_the_panel_are_as_far_apart_as_it_says() -> None:
    assert scale.pitch_um(record()) == (8.0, 8.0)


def test_macropixels_are_whole_pixels_of_the_panel() -> None:
    assert scale.macropixel_um(record()) == (32.0, 32.0)


def test_bins_are_parts_of_the_region_of_the_camera() -> None:
    assert scale.pixel_um(record()) == (3.0, 4.0)
    assert scale.bin_um(record()) == (24.0, 24.0)


def test_bins_that_are_unlike_each_other_have_no_scale() -> None:
    uneven = {**RESERVOIR, "bins": (3, 4)}
    assert scale.bin_um(record(reservoir=uneven)) is None


@pytest.mark.parametrize(
    "measure",
    [scale.macropixel_um, scale.bin_um, scale.pixel_um, scale.pitch_um],
)
def test_what_the_record_does_not_say_has_no_scale(
    measure: Any,  # noqa: ANN401 - one of four functions
) -> None:
    assert measure(record(instrument={})) is None


@pytest.mark.parametrize(
    ("measure", "part"),
    [
        (scale.pitch_um, {"instrument": {"slm": {**SLM, "pitch_um": 0.0}}}),
        (scale.macropixel_um, {"instrument": {"slm": {**SLM, "pitch_um": np.nan}}}),
        (scale.pixel_um, {"instrument": {"camera": {**CAMERA, "x_pixel_size": -1}}}),
        (scale.bin_um, {"reservoir": {**RESERVOIR, "region": (0, 0, 0, 0)}}),
    ],
)
def test_a_size_that_nothing_has_is_no_scale(
    measure: Any,  # noqa: ANN401 - one of four functions
    part: dict[str, Any],
) -> None:
    assert measure(record(**part)) is None
