"""Spots tell the map and its parity; mirrored, turned and shuffled ones are refused."""

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from labctl.bench import load
from labctl.bench import open as open_bench
from labctl.calibrate.execute import Outcome
from labctl.calibrate.mapping import (
    ASTRAY,
    HELD_OUT,
    SPOTS,
    fit_map,
    in_line,
    judged,
    lengthened,
    middle,
    require_parity,
    residual,
)
from labctl.calibration import PanelMap
from labctl.errors import OutcomeError
from labctl.recording.reader import Record
from labctl.reservoir import Reservoir

MakeBench = Callable[..., Path]
Calibrate = Callable[..., Outcome]
Known = Callable[..., None]
Array = NDArray[np.float64]

MATRIX = np.array([[310.0, 12.0], [-9.0, -420.0]])
OFFSET = np.array([150.0, 230.0])


def spots(
    rng: np.random.Generator, error_px: float, bend: float = 0.0
) -> tuple[Array, Array]:
    tilts = rng.uniform(-0.2, 0.2, (SPOTS + HELD_OUT, 2))
    places = OFFSET + tilts @ MATRIX.T + bend * (tilts**2) @ np.array([[1, 2], [0, 1]])
    return tilts, places + error_px * rng.standard_normal(places.shape)


def test_a_map_comes_back_with_its_errors_and_its_parity() -> None:
    rng = np.random.default_rng(1)
    pulls = []
    for _ in range(60):
        tilts, places = spots(rng, 0.05)
        found, rest = judged(tilts, places)
        assert found.is_mirrored
        assert rest < 0.15
        pulls.append((found.terms[1, 0] - MATRIX[0, 0]) / math.sqrt(found.spread[1, 1]))
    assert np.std(pulls) == pytest.approx(1, abs=0.3)


def test_the_certainty_of_the_parity_is_that_of_the_determinant() -> None:
    # Tilts reach farther along columns, and neither axis of the camera is that of
    # the panel: no term of the matrix may count for another.
    matrix = np.array([[100.0, 20.0], [200.0, -60.0]])
    rng = np.random.default_rng(8)
    tilts = rng.uniform(-0.2, 0.2, (SPOTS, 2)) * [0.1, 1.0]
    places = OFFSET + tilts @ matrix.T
    fits = [
        fit_map(tilts, places + 0.5 * rng.standard_normal(places.shape))
        for _ in range(600)
    ]
    spread = np.std([np.linalg.det(each.matrix) for each in fits])
    wanted = abs(np.linalg.det(matrix)) / spread
    assert np.median([each.certainty for each in fits]) == pytest.approx(
        wanted, rel=0.12
    )


def test_terms_of_second_order_are_taken_in_where_they_pay() -> None:
    rng = np.random.default_rng(2)
    straight, _ = judged(*spots(rng, 0.05))
    assert len(straight.terms) == 3
    tilts, places = spots(rng, 0.05, bend=40.0)
    bent, rest = judged(tilts, places)
    assert len(bent.terms) == 6
    assert rest < 0.2


@pytest.mark.parametrize(
    "changed",
    [
        lambda tilts: tilts * [1, -1],
        lambda tilts: -tilts,
        lambda tilts: tilts[:, ::-1],
        lambda tilts: tilts[:, ::-1] * [1, -1],
    ],
    ids=["mirrored", "half a turn", "transposed", "a quarter turn"],
)
def test_a_map_that_is_mirrored_or_turned_is_refused(
    changed: Callable[[Array], Array],
) -> None:
    tilts, places = spots(np.random.default_rng(3), 0.05)
    wrong = fit_map(changed(tilts), places)
    with pytest.raises(OutcomeError, match="map fits the held-out spots as well"):
        require_parity(wrong, tilts, places)
    assert residual(wrong, tilts, places) > 20


def test_spots_that_are_somewhere_else_are_left_out() -> None:
    tilts, places = spots(np.random.default_rng(6), 0.05)
    assert in_line(tilts, places, 2).all()
    for lost in (1, 2, 3):
        moved = places.copy()
        moved[5 : 5 + lost] += np.array([[-18.0, 3], [4, 11], [9, -9]])[:lost]
        found = np.flatnonzero(~in_line(tilts, moved, 2))
        # Not more of them: then it is the map that is wrong.
        assert len(found) == min(lost, ASTRAY)
        assert set(found) <= set(range(5, 5 + lost))


def test_arrows_are_as_long_as_they_can_be_without_crossing() -> None:
    places = np.array([[0.0, 0.0], [0.0, 4.0], [10.0, 0.0]])
    gap = np.array([[0.0, 0.03], [0.01, 0.0], [0.0, 0.0]])
    # Half of the way from one to the next is 2, which 50 times .03 is not beyond.
    assert lengthened(places, gap) == 50
    assert lengthened(places, gap * 10) == 5
    assert lengthened(places, gap * 0) == 1


def test_spots_that_are_shuffled_prove_no_parity() -> None:
    rng = np.random.default_rng(4)
    tilts, places = spots(rng, 0.05)
    with pytest.raises(OutcomeError, match="mapping: parity is not certain"):
        judged(tilts, rng.permutation(places))


def test_the_middle_of_a_spot_is_found_between_pixels() -> None:
    rows, columns = np.mgrid[0:20, 0:31]
    frame = 500 * np.exp(-((rows - 7.3) ** 2 + (columns - 21.6) ** 2) / 1.5)
    place, share = middle(frame, 3)
    assert place == pytest.approx([7.3, 21.6], abs=0.02)
    assert share > 0.99


def test_a_record_whose_parity_was_changed_is_refused() -> None:
    made = {"kind": "mapping", "matrix_px": MATRIX.tolist(), "offset_px": [1.0, 2.0]}
    whole = PanelMap.model_validate({**made, "mirrored": True}, strict=False)
    tilts = np.array([[0.1, -0.05]])
    assert whole.places(tilts)[0] == pytest.approx(
        np.array([1.0, 2.0]) + MATRIX @ tilts[0]
    )
    with pytest.raises(ValueError, match="the determinant of matrix_px is"):
        PanelMap.model_validate({**made, "mirrored": False}, strict=False)


# ---- on the bench ----------------------------------------------------------------


PART = {
    "calibrate.region": [3, 7, 26, 35],
    "reservoir.region": [3, 7, 24, 33],
    "calibrate.reach_cycles_px": 0.11,
}


@pytest.mark.slow
@pytest.mark.parametrize("part", [{}, PART], ids=["all", "part of the sensor"])
def test_directions_of_a_panel_that_is_not_square_are_found(
    make_bench: MakeBench,
    calibrate: Calibrate,
    known: Known,
    part: Mapping[str, object],
) -> None:
    changes = {
        **part,
        "world.options.sensor.photons_per_s": 2e7,
        "world.options.panel.crosstalk_macropixels": 0.1,
    }
    path = make_bench(changes)
    curve = {"kind": "slm-phase", "span_rad": 6.4}
    known(path, {"kind": "settle", "settle_s": 0.06}, curve)
    (row,) = calibrate("mapping").rows
    assert (row.status, row.why) == ("passed", "")
    record = load(path).records()["mapping"]
    assert isinstance(record.values, PanelMap)
    # In the far field one cycle a pixel is the whole grid.
    (a, b), (c, d) = record.values.matrix_px
    assert (abs(a), abs(d)) == pytest.approx((32, 48), rel=0.03)
    assert (b, c) == pytest.approx((0, 0), abs=0.5)
    assert record.values.offset_px == pytest.approx((16, 24), abs=0.6)
    assert record.figure_of_merit["residual_px"] < 0.1
    if part:
        assert row.record is not None
        with Record.open(row.record) as raw:
            assert raw.column("shots", "frames").shape[1:] == (26, 35)


# The far field of the quick bench: one cycle a pixel is the whole grid, on which there
# are four pixels of this camera a point.
DRAWN = {"matrix_px": [[64.0, 0.0], [0.0, 96.0]], "offset_px": [32.5, 48.5]}
BRIGHT = {
    "world.options.sensor.photons_per_s": 2e7,
    "world.options.panel.crosstalk_macropixels": 0.1,
    "world.options.sensor.shape": [64, 96],
    "reservoir.region": [11, 18, 42, 60],
    "drawing": DRAWN,
}
MOVED = {
    "world.options.sensor.mirrored": True,
    "world.options.sensor.turn_deg": 5.0,
    "world.options.sensor.shift_row_px": 4.6,
    "world.options.sensor.shift_column_px": -3.2,
}


def answered(path: Path) -> Array:
    """Outputs of some patterns on the bench, by the calibrations in force."""
    with open_bench(load(path), allow_uncalibrated=True) as bench:
        reservoir = Reservoir(bench)
        draw = torch.Generator().manual_seed(5)
        phase = 6 * torch.rand(40, reservoir.pixels, generator=draw)
        answer = reservoir(phase, category="evaluate")
        return answer.y.double().numpy()


def distance(outputs: Array, expected: Array) -> float:
    """Difference of outputs over how patterns differ, rms."""
    spread = expected - expected.mean(axis=0)
    return float(np.linalg.norm(outputs - expected) / np.linalg.norm(spread))


@pytest.mark.slow
def test_outputs_follow_a_camera_that_was_mirrored_turned_and_shifted(
    make_bench: MakeBench, calibrate: Calibrate, known: Known
) -> None:
    told = {"kind": "settle", "settle_s": 0.06}, {"kind": "slm-phase", "span_rad": 6.4}
    path = make_bench({**BRIGHT, **MOVED})
    known(path, *told)
    before = answered(path)
    (row,) = calibrate("mapping").rows
    assert (row.status, row.why) == ("passed", "")
    after = answered(path)
    shutil.rmtree(path.parent)
    straight = make_bench(BRIGHT)
    known(straight, *told)
    expected = answered(straight)
    assert distance(after, expected) < 0.25
    assert distance(before, expected) > 0.8
