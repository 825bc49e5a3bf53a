import math

import pytest
import torch

from labctl.training.encoding import (
    Additive,
    Basis,
    Encoding,
    Modes,
    Split,
    feature_grid,
    functions,
    spread,
)


@pytest.mark.parametrize(
    ("features", "layout", "grid"),
    [
        (64, (16, 16), (8, 8)),
        (4, (16, 16), (2, 2)),
        (2, (16, 12), (1, 2)),
        (40, (16, 16), (5, 8)),
        (7, (6, 8), (3, 3)),
        (16, (2, 32), (2, 8)),
        (1, (3, 5), (1, 1)),
        (15, (3, 5), (3, 5)),
    ],
)
def test_features_form_a_near_square_grid(
    features: int, layout: tuple[int, int], grid: tuple[int, int]
) -> None:
    assert feature_grid(features, layout) == grid


def test_every_feature_count_that_fits_is_laid_out_whole() -> None:
    for layout in [(3, 7), (7, 3), (1, 9), (4, 4)]:
        for features in range(1, layout[0] * layout[1] + 1):
            index, used = spread(features, layout)
            assert set(index[used].tolist()) == set(range(features))


@pytest.mark.parametrize("features", [0, 16])
def test_features_beyond_the_macropixels_are_refused(features: int) -> None:
    with pytest.raises(ValueError, match=rf"features={features}.*3 x 5"):
        feature_grid(features, (3, 5))


def test_four_features_fill_quadrants_of_an_oblong_panel() -> None:
    encoding = Additive(4, (4, 6), input_scale_rad=1.0)
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    phase = encoding(x, torch.zeros(24)).reshape(4, 6)
    assert (phase[:2, :3] == 1).all()
    assert (phase[:2, 3:] == 2).all()
    assert (phase[2:, :3] == 3).all()
    assert (phase[2:, 3:] == 4).all()


def test_empty_cells_show_theta_alone() -> None:
    encoding = Additive(7, (6, 9), input_scale_rad=2.0)
    _, used = spread(7, (6, 9))
    theta = torch.arange(54.0)
    phase = encoding(torch.ones(1, 7), theta)[0]
    assert torch.equal(phase, theta + 2.0 * used)
    assert not used.all()


def test_additive_adds_theta_to_scaled_inputs() -> None:
    encoding = Additive(2, (2, 4), input_scale_rad=math.pi)
    theta = torch.linspace(0, 1, 8)
    phase = encoding(torch.tensor([[0.5, 1.0], [0.0, 0.25]]), theta)
    blocks = torch.tensor([0.5, 0.5, 1.0, 1.0] * 2) * math.pi
    assert torch.allclose(phase[0], blocks + theta)
    assert phase.shape == (2, 8)
    assert encoding.theta_size == 8


def test_split_gives_inputs_the_left_and_theta_the_right() -> None:
    encoding = Split(2, (2, 5), input_scale_rad=3.0, share=0.4)
    assert encoding.theta_size == 6
    theta = torch.arange(10.0, 16.0)
    phase = encoding(torch.tensor([[1.0, 2.0]]), theta).reshape(2, 5)
    assert torch.equal(phase[:, :2], torch.tensor([[3.0, 6.0], [3.0, 6.0]]))
    assert torch.equal(phase[:, 2:], theta.reshape(2, 3))


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_split_without_a_column_on_one_side_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=rf"split={share}.*expected 1 to 4"):
        Split(1, (3, 5), input_scale_rad=1.0, share=share)


def test_split_names_the_macropixels_that_inputs_have() -> None:
    with pytest.raises(ValueError, match=r"features=9.*2 x 4"):
        Split(9, (2, 8), input_scale_rad=1.0, share=0.5)


BASES: list[tuple[Basis, int, tuple[int, int]]] = [
    ("fourier", 34, (5, 7)),
    ("fourier", 23, (4, 6)),
    ("fourier", 11, (4, 6)),
    ("hadamard", 31, (4, 8)),
    ("hadamard", 5, (8, 2)),
    ("zernike", 14, (6, 9)),
]


@pytest.mark.parametrize(("basis", "modes", "layout"), BASES)
def test_bases_are_orthonormal_and_without_a_constant(
    basis: Basis, modes: int, layout: tuple[int, int]
) -> None:
    rows = functions(basis, modes, layout)
    eye = torch.eye(modes, dtype=torch.float64)
    assert torch.allclose(rows @ rows.T, eye, atol=1e-12)
    assert rows.sum(dim=1).abs().max() < 1e-12


def test_fourier_starts_with_the_slowest_wave_of_the_longer_side() -> None:
    rows = functions("fourier", 2, (4, 6)).reshape(2, 4, 6)
    wave = torch.cos(2 * torch.pi * torch.arange(6, dtype=torch.float64) / 6)
    expected = wave.expand(4, 6) / wave.expand(4, 6).norm()
    assert torch.allclose(rows[0], expected)


def test_hadamard_rows_have_one_size_and_rising_sign_changes() -> None:
    rows = functions("hadamard", 7, (2, 4)).reshape(7, 2, 4)
    assert torch.allclose(rows.abs(), torch.tensor(8**-0.5, dtype=torch.float64))
    across = (rows[:, :, 1:] != rows[:, :, :-1]).sum(dim=(1, 2)) / 2
    down = (rows[:, 1:] != rows[:, :-1]).sum(dim=(1, 2)) / 4
    assert torch.equal(across + down, (across + down).sort().values)


def test_hadamard_refuses_a_side_that_is_no_power_of_two() -> None:
    with pytest.raises(ValueError, match=r"side of 6.*power of two"):
        functions("hadamard", 3, (4, 6))


def test_zernike_follows_nolls_order() -> None:
    rows = functions("zernike", 5, (40, 40)).reshape(5, 40, 40)
    column = torch.arange(40.0, dtype=torch.float64) - 19.5
    x, y = column[None, :].expand(40, 40), column[:, None].expand(40, 40)
    named = [x, y, x**2 + y**2, x * y, x**2 - y**2]  # Noll's j = 2 to 6
    for row, name in zip(rows, named, strict=True):
        wanted = name - name.mean()
        cosine = (row * wanted).sum() / row.norm() / wanted.norm()
        assert cosine > 0.999


def test_zernike_refuses_more_polynomials_than_the_layout_tells_apart() -> None:
    with pytest.raises(ValueError, match=r"modes=11 Zernike.*2 x 6"):
        functions("zernike", 11, (2, 6))


@pytest.mark.parametrize("modes", [0, 24])
def test_modes_beyond_the_layout_are_refused(modes: int) -> None:
    with pytest.raises(ValueError, match=rf"modes={modes}, expected 1 to 23"):
        functions("fourier", modes, (4, 6))


def test_modes_of_rms_s_make_a_phase_of_rms_s() -> None:
    encoding = Modes(4, (8, 6), input_scale_rad=1.0, basis="fourier", modes=12)
    theta = torch.full((12,), 0.7)
    phase = encoding(torch.zeros(1, 4), theta)
    assert phase.square().mean().sqrt().item() == pytest.approx(0.7, rel=1e-5)


@pytest.mark.parametrize(
    "encoding",
    [
        Additive(3, (4, 6), input_scale_rad=2.0),
        Split(3, (4, 6), input_scale_rad=2.0, share=0.5),
        Modes(3, (4, 6), input_scale_rad=2.0, basis="zernike", modes=4),
    ],
)
def test_encodings_differentiate_to_inputs_and_theta(encoding: Encoding) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    theta = torch.rand(
        encoding.theta_size, generator=generator, dtype=torch.float64
    ).requires_grad_()
    assert torch.autograd.gradcheck(encoding, (x, theta))
