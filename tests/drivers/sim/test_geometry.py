from collections.abc import Callable

import numpy as np
import pytest
import torch

from drivers.sim.geometry import PanelGrid, Sees, SensorGrid, overlap, seen_by
from drivers.sim.options import Options, parse


def test_a_grid_of_the_panels_own_shape_sees_every_pixel() -> None:
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert PanelGrid((3, 4), (3, 4)).sample(levels) is levels


@pytest.mark.parametrize("panel", [(12, 20), (18, 30), (6, 40)])
def test_blocks_of_the_panel_come_back_on_the_grid(panel: tuple[int, int]) -> None:
    macropixels = np.arange(6, dtype=np.uint8).reshape(3, 2)
    rows, columns = (
        np.arange(side) * count // side
        for side, count in zip(panel, (3, 2), strict=True)
    )
    levels = macropixels[np.ix_(rows, columns)]
    seen = PanelGrid(panel, (12, 8)).sample(levels)
    assert np.array_equal(seen, macropixels.repeat(4, axis=0).repeat(4, axis=1))


def test_patterns_are_sampled_as_one_is() -> None:
    source = np.random.default_rng(0)
    levels = source.integers(0, 256, (2, 9, 7)).astype(np.uint8)
    grid = PanelGrid((9, 7), (4, 12))
    all_seen = grid.sample_all(torch.from_numpy(levels)).numpy()
    assert np.array_equal(all_seen, np.stack([grid.sample(each) for each in levels]))


def test_the_gradient_of_a_sampled_pattern_lies_on_the_pixels_that_were_seen() -> None:
    levels = torch.zeros(1, 6, 9, requires_grad=True)
    seen = PanelGrid((6, 9), (2, 3)).sample_all(levels)
    (slope,) = torch.autograd.grad(seen.sum(), levels)
    assert slope[0].nonzero().tolist() == [
        [row, column] for row in (1, 4) for column in (1, 4, 7)
    ]


@pytest.mark.parametrize(("pixels", "points"), [(10, 4), (4, 10), (7, 7), (1, 5)])
def test_no_light_is_lost_between_grid_and_sensor(pixels: int, points: int) -> None:
    share = overlap(pixels, points)
    assert share.shape == (pixels, points)
    np.testing.assert_allclose(share.sum(axis=0), 1, rtol=1e-14)
    np.testing.assert_allclose(share.sum(axis=1), points / pixels, rtol=1e-14)


def test_a_region_is_a_part_of_the_whole_sensor() -> None:
    light = torch.rand(3, 8, 12, dtype=torch.float64)
    sensor = SensorGrid((20, 18), (8, 12))
    whole = sensor.crop(light, (0, 0, 20, 18))
    assert torch.allclose(whole.sum((1, 2)), light.sum((1, 2)), rtol=1e-13)
    part = sensor.crop(light, (3, 5, 10, 6))
    assert torch.equal(part, whole[:, 3:13, 5:11])


def test_a_batch_falls_on_the_sensor_as_its_fields_do() -> None:
    light = torch.rand(5, 16, 12)
    sensor = SensorGrid((50, 34), (16, 12))
    together = sensor.crop(light, (4, 4, 40, 20))
    alone = [sensor.crop(field[None], (4, 4, 40, 20))[0] for field in light]
    assert torch.equal(together, torch.stack(alone))


# ---- a camera that is not where it was drawn ------------------------------------


def stands(**sensor: object) -> Sees:
    return seen_by(parse(Options, {"grid": [16, 24], "sensor": sensor}))


def light(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 16, 24, generator=torch.Generator().manual_seed(1))


WHOLE = (0, 0, 16, 24)


def test_a_camera_that_is_where_it_was_drawn_is_upright() -> None:
    assert isinstance(stands(), SensorGrid)


@pytest.mark.parametrize(
    ("sensor", "seen"),
    [
        ({"mirrored": True}, lambda field: field.flip(-1)),
        ({"turn_deg": 180}, lambda field: field.flip(-1, -2)),
        ({"turn_deg": 180, "mirrored": True}, lambda field: field.flip(-2)),
        (
            {"shift_row_px": 3, "shift_column_px": -2},
            lambda field: torch.nn.functional.pad(field, (0, 2, 3, 0))[:, :16, 2:],
        ),
    ],
)
def test_whole_pixels_are_moved_exactly(
    sensor: dict[str, object], seen: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    field = light()
    assert torch.equal(stands(**sensor).crop(field, WHOLE), seen(field))


def test_a_turn_goes_from_rows_towards_columns() -> None:
    spot = torch.zeros(1, 16, 24)
    spot[0, 12, 12] = 1.0  # four rows below the middle
    where = stands(turn_deg=90).crop(spot, WHOLE)[0].nonzero()
    assert where.tolist() == [[7, 16]]


def test_no_light_is_lost_but_beside_the_sensor() -> None:
    inner = torch.zeros(2, 16, 24)
    inner[:, 5:11, 9:15] = light(2)[:, 5:11, 9:15]
    turned = stands(turn_deg=33, mirrored=True, shift_row_px=0.7)
    seen = turned.crop(inner, WHOLE)
    assert seen.sum(dim=(1, 2)) == pytest.approx(inner.sum(dim=(1, 2)))
    far = stands(shift_column_px=40)
    assert far.crop(inner, WHOLE).sum() == 0


def test_a_turned_picture_does_not_depend_on_how_a_batch_is_split() -> None:
    sees, field = stands(turn_deg=7.5, shift_row_px=1.3), light()
    region = (2, 3, 9, 14)
    whole = sees.crop(field, region)
    each = torch.cat([sees.crop(one[None], region) for one in field])
    assert torch.equal(whole, each)
    assert torch.equal(whole, sees.crop(field, WHOLE)[:, 2:11, 3:17])


def test_the_gradient_of_a_turned_picture_is_its_transpose() -> None:
    sees, field = stands(turn_deg=20, mirrored=True), light(1).requires_grad_()
    weight = torch.rand(1, 16, 24, generator=torch.Generator().manual_seed(2))
    weighed = (sees.crop(field, WHOLE) * weight).sum()
    (slope,) = torch.autograd.grad(weighed, field)
    assert (slope * field).sum().item() == pytest.approx(weighed.item(), rel=1e-5)
