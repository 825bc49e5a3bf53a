import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from labctl.training.blackbox import Exposure, Response
from labctl.training.probe import (
    ALL,
    LARGEST_RAD,
    SMALLEST_RAD,
    SURVEY_SHOTS,
    DirectionName,
    Directions,
    Dither,
    Size,
    Survey,
    central,
    noise_of_target,
    noise_variance,
    paired,
    rows,
    share_out,
    survey,
    toward,
    wrap,
)
from tests.labctl.training.conftest import Bent

if TYPE_CHECKING:
    from tests.labctl.training.conftest import FakeDevice


def exposed(device: "FakeDevice", batch: int = 7) -> Exposure:
    generator = torch.Generator().manual_seed(2)
    shape = (batch, device.pixels)
    phase = 6 * torch.rand(shape, generator=generator, dtype=torch.float64)
    response = device(phase, category="train", layer=1, step=4)
    return Exposure(1, 4, "train", response)


def test_differences_are_taken_into_the_half_open_turn() -> None:
    pi = torch.pi
    given = [0.0, pi, -pi, 1.5 * pi, -1.5 * pi, 0.25, 2 * pi]
    wanted = [0.0, pi, pi, -0.5 * pi, 0.5 * pi, 0.25, 0.0]
    found = wrap(torch.tensor(given, dtype=torch.float64))
    assert found.tolist() == pytest.approx(wanted)


def test_paired_probes_hold_what_was_shown_not_what_was_asked(
    make_device: "type[FakeDevice]", generator: torch.Generator
) -> None:
    device = make_device(levels=32)
    made = exposed(device)
    base = rows(made.response, torch.tensor([5, 2]))
    probes = paired(device, base, Size(0.3, generator), made)
    steps = probes.d_alpha * 32 / (2 * torch.pi)
    assert torch.allclose(steps, steps.round(), atol=1e-9)
    assert torch.equal(probes.d_f, probes.plus.y - made.response.y[[5, 2]])
    assert probes.shot_base.tolist() == [5, 2]
    assert probes.shot_plus.tolist() == [7, 8]
    assert device.calls[-1] == ("probe", 1, 4, 2)
    assert probes.d_alpha.abs().max() < torch.pi


def test_small_probes_agree_with_the_directional_derivative(
    device: "FakeDevice", generator: torch.Generator
) -> None:
    made = exposed(device)
    probes = paired(device, made.response, Size(1e-6, generator), made)
    cotangent = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    gradient = device.gradient(probes.base, cotangent)
    s = (gradient * probes.d_alpha).sum(dim=1)
    t = (cotangent * probes.d_f).sum(dim=1)
    assert torch.allclose(s, t, rtol=1e-3, atol=1e-6)


def test_central_probes_are_free_of_curvature(
    device: "FakeDevice", generator: torch.Generator
) -> None:
    made = exposed(device)
    cotangent = torch.ones(7, 5, dtype=torch.float64)

    def error(d_alpha: Tensor, d_f: Tensor) -> float:
        gradient = device.gradient(made.response.shown, cotangent)
        s, t = (gradient * d_alpha).sum(dim=1), (cotangent * d_f).sum(dim=1)
        return float((s - t).norm() / t.norm())

    one = paired(device, made.response, Size(0.02, generator), made)
    two = central(device, made.response.shown, Size(0.01, generator), made)
    assert error(two.d_alpha, two.d_f) < 0.1 * error(one.d_alpha, one.d_f)
    assert len(two.shot_plus) == 7
    assert device.spent() == {"train": 7, "probe": 21}
    assert set(two.shot_base.tolist()).isdisjoint(two.shot_plus.tolist())


def test_dither_goes_straight_from_first_to_last() -> None:
    dither = Dither(0.5, 0.2, 4)
    rms = [dither.rms_rad(step) for step in range(4)]
    assert rms == pytest.approx([0.5, 0.4, 0.3, 0.2])
    assert Dither(0.5, 0.2, 1).rms_rad(0) == 0.5


def test_held_out_samples_are_kept_from_fits(generator: torch.Generator) -> None:
    shares = share_out(9, held_out=2, paired=3, generator=generator)
    held, fitted = set(shares.held_out.tolist()), set(shares.fitted.tolist())
    assert held | fitted == set(range(9))
    assert not held & fitted
    assert set(shares.paired.tolist()) <= fitted
    assert len(shares.paired) == 3


def test_more_probes_than_samples_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="held_out=3 and paired=2, expected at most 4"):
        share_out(4, held_out=3, paired=2, generator=generator)


def test_repeats_measure_the_noise_of_one_exposure(
    generator: torch.Generator,
) -> None:
    sigma = torch.tensor([1.0, 3.0, 10.0], dtype=torch.float64)
    mean = 100 * torch.rand(4000, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, 4000, 3, generator=generator, dtype=torch.float64) * sigma
    found = noise_variance(mean + noise[0], mean + noise[1])
    assert torch.allclose(found, sigma**2, rtol=0.1)


def test_noise_without_a_repeat_is_refused() -> None:
    with pytest.raises(ValueError, match="noise_repeats=0"):
        noise_variance(torch.zeros(0, 3), torch.zeros(0, 3))


def test_noise_of_a_target_counts_both_exposures() -> None:
    cotangent = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    found = noise_of_target(cotangent, torch.tensor([5.0, 7.0]))
    assert found.tolist() == [2 * (5 + 28), 2 * 63]


def test_rows_keep_shots_with_their_samples() -> None:
    response = Response(
        torch.arange(6.0).reshape(3, 2), torch.zeros(3, 4), torch.tensor([8, 9, 10])
    )
    some = rows(response, torch.tensor([2, 0]))
    assert some.shot.tolist() == [10, 8]
    assert some.y.tolist() == [[4.0, 5.0], [0.0, 1.0]]


def _surveyed(
    device: Bent, rms_rad: float, samples: int, directions: Directions = ALL
) -> Survey:
    phase = torch.full((samples, 24), 3.0, dtype=torch.float64)
    base = device(phase, category="train", layer=0, step=0)
    made = Exposure(0, 0, "train", base)
    return survey(device, base, Size(rms_rad, device.draw, directions), made)


def test_a_survey_finds_the_sizes_of_least_error_and_pays_five_exposures() -> None:
    device = Bent(bend=0.5, twist=2.0, noise=0.3)
    found = _surveyed(device, 0.3, 2000)
    assert device.shots == 2000 * (1 + SURVEY_SHOTS)
    assert found.rms_rad == pytest.approx(0.3, rel=0.02)
    assert found.noise == pytest.approx(5 * 0.3**2, rel=0.05)
    assert found.paired_rad == pytest.approx(device.paired_rad(), rel=0.05)
    assert found.central_rad == pytest.approx(device.central_rad, rel=0.1)


@pytest.mark.parametrize(("name", "many"), [("coordinates", 1), ("random", 3)])
def test_a_survey_along_directions_finds_their_size(
    name: DirectionName, many: int
) -> None:
    device = Bent(bend=2.0, twist=0.0, noise=0.3)
    found = _surveyed(device, 0.3, 2000, Directions(name, many, device.layout))
    assert found.rms_rad == pytest.approx(0.3, rel=0.03)
    assert found.paired_rad == pytest.approx(device.paired_rad(many), rel=0.06)


def test_every_pattern_of_a_survey_has_directions_of_its_own() -> None:
    """So that it tells of all that may be drawn, not of one that was."""
    device = Bent(bend=2.0, twist=0.0, noise=0.3)
    size = Size(0.3, device.draw, Directions("coordinates", 1))
    phase = torch.zeros(200, 24)
    moved = size.draw_apart(phase) != 0
    assert (moved.sum(dim=1) == 1).all()
    assert moved.any(dim=0).all()
    together = size.draw(phase) != 0
    assert int(together.any(dim=0).sum()) == 1


def test_the_size_of_least_error_has_the_least_error() -> None:
    """The slope along probes is known: what they answer beside it is their error."""
    device = Bent(bend=0.5, twist=0.0, noise=0.3)
    best = _surveyed(device, 0.3, 2000).paired_rad
    phase = torch.full((4000, 24), 3.0, dtype=torch.float64)
    base = device(phase, category="train", layer=0, step=0)
    made = Exposure(0, 0, "train", base)
    error = []
    for rms_rad in (best / 1.6, best, best * 1.6):
        probes = paired(device, base, Size(rms_rad, device.draw), made)
        wrong = probes.d_f - probes.d_alpha[:, :5]
        error.append(float(wrong.square().mean()) / rms_rad**2)
    assert error[1] < 0.9 * min(error[0], error[2])


def test_a_size_without_curvature_grows_and_one_without_noise_shrinks() -> None:
    straight = _surveyed(Bent(bend=0.0, twist=0.0, noise=0.0), 0.3, 4)
    assert straight.second <= 1e-20
    still = _surveyed(Bent(bend=0.5, twist=2.0, noise=0.0), 0.3, 4)
    assert (still.paired_rad, still.central_rad) == (0.0, 0.0)
    assert toward(0.3, math.inf) == 0.6
    assert toward(0.3, 0.0) == 0.15
    assert toward(0.3, 0.4) == 0.4
    assert toward(0.8, math.inf) == LARGEST_RAD
    assert toward(0.012, 0.0) == SMALLEST_RAD


def test_a_survey_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="size_samples=0, expected at least 1"):
        _surveyed(Bent(0.5, 2.0, 0.3), 0.3, 0)


@pytest.mark.parametrize("name", ["coordinates", "random", "modes"])
def test_directions_are_orthonormal_and_as_many_as_asked(
    name: DirectionName, generator: torch.Generator
) -> None:
    ways = Directions(name, 5, (4, 6)).draw(24, generator).float()
    torch.testing.assert_close(ways @ ways.T, torch.eye(5), rtol=0, atol=1e-5)
    again = Directions(name, 5, (4, 6)).draw(24, generator).float()
    # Modes are always the same.
    assert torch.equal(ways, again) == (name == "modes")
    if name == "coordinates":
        assert ((ways == 0) | (ways == 1)).all()


@pytest.mark.parametrize("name", ["coordinates", "random", "modes"])
def test_perturbations_lie_in_their_directions_and_have_their_size(
    name: DirectionName, generator: torch.Generator
) -> None:
    size = Size(0.3, generator, Directions(name, 4, (4, 6)))
    drawn = size.draw(torch.zeros(400, 24, dtype=torch.float64))
    assert torch.linalg.matrix_rank(drawn, rtol=1e-5) == 4
    along = drawn.square().sum(dim=1).mean().sqrt()
    assert float(along) == pytest.approx(0.3 * 4**0.5, rel=0.05)


def test_coordinates_taken_in_turns_are_isotropic(
    generator: torch.Generator,
) -> None:
    size = Size(1.0, generator, Directions("coordinates", 6, (4, 6)))
    drawn = torch.cat([size.draw(torch.zeros(4, 24)) for _ in range(4000)])
    square = drawn.T @ drawn / len(drawn)
    torch.testing.assert_close(square, torch.eye(24) / 4, rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("name", "dimensions"),
    [("all", 3), ("random", 0), ("random", 25), ("coordinates", 25), ("modes", 24)],
)
def test_directions_that_a_panel_has_not_are_refused(
    name: DirectionName, dimensions: int, generator: torch.Generator
) -> None:
    with pytest.raises(ValueError, match=f"directions={name} .*expected 1 to"):
        Directions(name, dimensions, (4, 6)).draw(24, generator)
