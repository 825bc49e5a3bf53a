import numpy as np
import pytest
import torch

from drivers.sim.convergence import measure
from drivers.sim.light import Illumination, LightPath, medium_plan
from drivers.sim.options import DriftOptions, MediumOptions, Options, PanelOptions
from labctl.devices import Convergence


def blocks(side: int, grid: tuple[int, int] = (32, 48)) -> torch.Tensor:
    source = np.random.default_rng(4)
    levels = source.integers(0, 256, (4, grid[0] // side, grid[1] // side))
    return torch.from_numpy(levels.repeat(side, 1).repeat(side, 2))


def found(levels: torch.Tensor, power: float = 1.0, **parts: object) -> Convergence:
    parts = {"grid": (levels.shape[1], levels.shape[2])} | parts
    options = Options(**parts).effective()  # type: ignore[arg-type]  # options of any type
    return measure(options, LightPath(options), levels, power)


def test_the_default_light_path_is_converged() -> None:
    got = found(blocks(4))
    assert got.step_gate < 0.02
    assert got.enough_steps == got.steps == 16
    assert got.nyquist_share < 1e-3 < got.nyquist_share_full_range * 10
    assert 0 < got.exit_share < 1e-3
    assert got.enough_grid == (32, 48)
    assert got.power_over_critical > 1


@pytest.mark.parametrize(("b", "steps"), [(3.0, 8), (3.0, 16), (-3.0, 16)])
def test_the_gate_tells_the_true_error(b: float, steps: int) -> None:
    options = Options(grid=(32, 48), medium=MediumOptions(b=b, steps=steps)).effective()
    light = LightPath(options)
    lit = Illumination(torch.ones(4))
    with torch.no_grad():
        field = light.entrance(blocks(4).float(), lit)
        coarse, truth = (
            light.on_sensor(field, medium_plan(options, count, light.dtype))
            for count in (steps, 256)
        )
    error = float(
        torch.linalg.vector_norm(coarse - truth) / torch.linalg.vector_norm(truth)
    )
    gate = measure(options, light, blocks(4), 1.0).step_gate
    assert 0.5 < gate / error < 1.05


def test_too_few_steps_are_found_and_how_many_would_do() -> None:
    medium = MediumOptions(b=10.0, steps=2, screens=0)
    got = found(blocks(4), medium=medium)
    assert got.step_gate > 0.05
    assert got.enough_steps is not None
    again = found(
        blocks(4), medium=MediumOptions(b=10.0, steps=got.enough_steps, screens=0)
    )
    assert again.step_gate <= 0.02


def test_filaments_of_pure_focusing_converge_with_no_number_of_steps() -> None:
    medium = MediumOptions(kind="kerr", b=40.0, steps=64, screens=0, fresnel=0.5)
    got = found(blocks(4), medium=medium)
    assert got.step_gate > 0.05
    assert got.enough_steps is None


def test_small_blocks_need_a_finer_grid() -> None:
    got = found(blocks(2), macropixel_px=2)
    assert got.nyquist_share > 1e-3
    assert got.enough_grid == (64, 96)
    drifting = found(blocks(2), macropixel_px=2, drift=DriftOptions(speckle=0.1))
    assert drifting == got


def test_macropixels_between_the_points_of_the_grid_are_not_overlooked() -> None:
    # On a panel of four times as many pixels a side, of which the grid sees few.
    fine = blocks(4, (128, 192))
    got = found(fine, grid=(32, 48), macropixel_px=2)
    assert got.nyquist_share > 1e-3
    assert got.enough_grid == (64, 96)
    again = found(fine, grid=(64, 96), macropixel_px=4)
    assert max(again.nyquist_share, again.exit_share) < 1e-3


def test_hard_edges_are_resolved_by_no_sensible_grid() -> None:
    panel = PanelOptions(crosstalk_macropixels=0.0)
    got = found(blocks(4), panel=panel, macropixel_px=4)
    assert got.nyquist_share > 0.01
    assert got.enough_grid is None


def test_power_matters_as_it_does_in_the_medium() -> None:
    medium = MediumOptions(kind="kerr", b=3.0, steps=4, screens=0)
    weak, strong = (found(blocks(4), power, medium=medium) for power in (0.1, 1.0))
    assert strong.step_gate > 2 * weak.step_gate
    assert strong.power_over_critical == pytest.approx(10 * weak.power_over_critical)


def test_a_scatterer_has_no_steps_to_converge() -> None:
    got = found(blocks(4), medium=MediumOptions(kind="tm_shg", conversion=0.1))
    assert got.step_gate == got.power_over_critical == got.exit_share == 0


def test_a_strong_medium_needs_a_finer_grid_for_its_far_field() -> None:
    medium = MediumOptions(b=10.0, steps=32)
    got = found(blocks(2), medium=medium)
    assert got.nyquist_share < 1e-3 < got.exit_share
    assert got.enough_grid == (64, 96)
    finer = blocks(2).repeat_interleave(2, 1).repeat_interleave(2, 2)
    again = found(finer, medium=medium, macropixel_px=8)
    assert again.exit_share < 1e-3
