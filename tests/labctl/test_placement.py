"""Bins go where a map says their light is, exactly where pixels allow it."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from labctl.calibration import CalibrationRecord, Drawing, PanelMap, ReservoirEntry
from labctl.errors import CalibrationError
from labctl.placement import BLOCK_PX, MovedBins, UprightBins, placed

Array = NDArray[np.float64]
SENSOR = (64, 80)
DRAWING = Drawing(matrix_px=((64.0, 0.0), (0.0, 80.0)), offset_px=(32.0, 40.0))
ENTRY = ReservoirEntry(
    macropixels=(16, 16),
    region=(20, 28, 18, 24),
    bins=(2, 3),
    exposure_s=0.01,
    power_mw=1.0,
)


def mapping(
    *, turn_deg: float = 0, scale: float = 1, flip: int = 1, shift: Array | None = None
) -> PanelMap:
    """Map of a camera that is turned about pixel (32, 40), mirrored, scaled, moved."""
    cosine, sine = (f(math.radians(turn_deg)) for f in (math.cos, math.sin))
    turn = scale * np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([1, flip])
    matrix = turn @ np.array(DRAWING.matrix_px)
    offset = np.array(DRAWING.offset_px) + (0 if shift is None else shift)
    (a, b), (c, d) = matrix.tolist()
    return PanelMap(
        kind="mapping",
        matrix_px=((a, b), (c, d)),
        offset_px=(float(offset[0]), float(offset[1])),
        mirrored=flip < 0,
    )


def record(values: PanelMap) -> CalibrationRecord:
    return CalibrationRecord(
        schema_version=1,
        origin="measured",
        created=datetime.now(UTC),
        bench_sha256="0" * 64,
        geometry={"camera": SENSOR},
        values=values,
    )


def cut(frames: NDArray[np.uint16], region: tuple[int, ...]) -> NDArray[np.uint16]:
    row, column, height, width = region
    return frames[:, row : row + height, column : column + width]


def random_frames(count: int = 3) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 60_000, (count, *SENSOR), np.uint16)


def test_a_region_without_a_drawing_is_where_it_stands() -> None:
    assert isinstance(placed(ENTRY, None, record(mapping(flip=-1))), UprightBins)


def test_a_camera_that_is_where_it_was_drawn_reads_out_the_region_itself() -> None:
    assert placed(ENTRY, DRAWING, record(DRAWING.mapping)).region == ENTRY.region


@pytest.mark.parametrize(
    ("mapped", "back"),
    [
        (mapping(), lambda frames: frames),
        (
            mapping(shift=np.array([5.0, -7.0])),
            lambda frames: np.roll(frames, (-5, 7), axis=(1, 2)),
        ),
        # About pixel 40 of 80 the first column has no partner: roll it into place.
        (mapping(flip=-1), lambda f: np.roll(f[:, :, ::-1], 1, axis=2)),
        (mapping(turn_deg=180), lambda f: np.roll(f[:, ::-1, ::-1], (1, 1), (1, 2))),
    ],
)
def test_bins_of_whole_pixels_are_moved_exactly(mapped: PanelMap, back: object) -> None:
    frames = random_frames()
    moved = MovedBins(ENTRY, DRAWING, mapped, SENSOR)
    upright = UprightBins(ENTRY)
    assert callable(back)
    expected = upright.sums(cut(back(frames), upright.region))
    assert np.array_equal(moved.sums(cut(frames, moved.region)), expected)
    assert np.array_equal(moved.area_px, upright.area_px)


@pytest.mark.parametrize("flip", [1, -1])
def test_light_of_a_turned_and_scaled_camera_stays_in_its_bins(flip: int) -> None:
    mapped = mapping(turn_deg=23, scale=1.3, flip=flip, shift=np.array([2.4, -1.7]))

    def light(tilts: Array) -> Array:
        """Of each direction: smooth, and without any symmetry."""
        y, x = tilts.T * 9
        spot: Array = np.exp(-((y - 0.4) ** 2) - (x + 0.3 * y) ** 2)
        ripple: Array = 1.5 + np.sin(2 * x)
        return spot * ripple

    def frame(of: PanelMap) -> NDArray[np.uint16]:
        # A pixel of a larger picture holds less of the same light.
        rows, columns = np.indices(SENSOR)
        at = np.stack([rows.ravel(), columns.ravel()], axis=1).astype(float)
        density = 20_000 / abs(np.linalg.det(np.array(of.matrix_px))) * 64 * 80
        picture = density * light(of.tilts(at)).reshape(1, *SENSOR)
        counts: NDArray[np.uint16] = picture.round().astype(np.uint16)
        return counts

    upright = UprightBins(ENTRY)
    moved = MovedBins(ENTRY, DRAWING, mapped, SENSOR)
    expected = upright.sums(cut(frame(DRAWING.mapping), upright.region))
    got = moved.sums(cut(frame(mapped), moved.region))
    assert got == pytest.approx(expected, rel=0.02)
    # Bins that stay where they are drawn hold other light.
    stay = upright.sums(cut(frame(mapped), upright.region))
    assert np.abs(stay / expected - 1).max() > 0.2


def test_spread_is_the_transpose_of_the_sums() -> None:
    bins = MovedBins(ENTRY, DRAWING, mapping(turn_deg=40, flip=-1), SENSOR)
    frames = cut(random_frames(2), bins.region)
    cotangent = np.random.default_rng(1).normal(size=(2, 6))
    assert (bins.sums(frames) * cotangent).sum() == pytest.approx(
        (bins.spread(cotangent) * frames).sum()
    )


def test_what_is_read_out_are_blocks_that_every_camera_can() -> None:
    bins = MovedBins(ENTRY, DRAWING, mapping(turn_deg=10), SENSOR)
    assert all(side % BLOCK_PX == 0 for side in bins.region)


def test_a_bent_map_is_inverted() -> None:
    bent = PanelMap(
        kind="mapping",
        matrix_px=((64.0, 3.0), (-2.0, -80.0)),
        offset_px=(32.0, 40.0),
        bend_px=[(8.0, -3.0), (2.0, 1.0), (-5.0, 6.0)],
        mirrored=True,
    )
    tilts = np.random.default_rng(2).uniform(-0.2, 0.2, (50, 2))
    assert bent.tilts(bent.places(tilts)) == pytest.approx(tilts, abs=1e-7)


def test_a_map_that_folds_is_refused() -> None:
    folded = PanelMap(
        kind="mapping",
        matrix_px=((1.0, 0.0), (0.0, 1.0)),
        offset_px=(0.0, 0.0),
        bend_px=[(50.0, 0.0), (0.0, 0.0), (0.0, 50.0)],
        mirrored=False,
    )
    with pytest.raises(CalibrationError, match="bend_px is so great"):
        folded.tilts(np.array([[-3.0, -3.0]]))


def test_a_drawing_without_a_calibration_is_refused() -> None:
    with pytest.raises(CalibrationError, match="mapping=none, expected one in force"):
        placed(ENTRY, DRAWING, None)


def test_light_beyond_the_sensor_is_refused() -> None:
    mapped = mapping(shift=np.array([0.0, 60.0]))
    expected = r"is at \[20, 88, 18, 24\], expected within 64 x 80 \(the sensor\)"
    with pytest.raises(CalibrationError, match=expected):
        placed(ENTRY, DRAWING, record(mapped))


def test_bins_between_the_pixels_of_a_camera_are_refused() -> None:
    fine = ENTRY.model_copy(update={"bins": (18, 24)})
    with pytest.raises(CalibrationError, match="falls between the pixels"):
        MovedBins(fine, DRAWING, mapping(scale=0.05), SENSOR)
