import numpy as np
import pytest
import torch

from drivers.sim.geometry import PanelGrid, SensorGrid, overlap


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
