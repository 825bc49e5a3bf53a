from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Generator, Tensor

from labctl.optics.lens import far_field, intensity
from labctl.optics.medium import SaturableKerr, radius_squared
from labctl.optics.panel import blur, modulate
from labctl.optics.propagation import plan, propagate
from labctl.training.surrogate import twin_optics
from labctl.training.surrogate.build import build
from labctl.training.surrogate.fit import GOOD, Fitter
from labctl.training.surrogate.settings import OpticalLayout, Ports, SurrogateSettings
from labctl.training.surrogate.twin_optics import TwinOptics

if TYPE_CHECKING:
    from collections.abc import Callable

LAYOUT, GRID = (4, 6), (8, 12)
OPTICS = OpticalLayout(GRID, 4, 0.15, (1, 2, 6, 8), (2, 3))
PORTS = Ports(24, 6, layout=LAYOUT, optics=OPTICS)
SETTINGS = SurrogateSettings(
    "twin-optics",
    screens=2,
    learning_rate=0.03,
    schedule="one-cycle",
    keep_every=8,
    starts=3,
    fit_batch=48,
)


def raised(coarse: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(coarse[None], size=GRID, mode="bicubic")[0]


MEDIUM = SaturableKerr(b=3.0, saturation=0.8, fresnel=0.1, steps=4, edge=1.5)


def bench(screens: Tensor, medium: SaturableKerr) -> "Callable[[Tensor], Tensor]":
    """Return a bench made of the house's optics, in electrons."""
    placed = dict(zip((0.25, 0.75), raised(screens), strict=True))
    ready = plan(medium, GRID, 2.0, screens=placed)
    beam = torch.exp(-radius_squared(GRID) / (0.6 * 8) ** 2).float()
    edges = (0, 3, 5, 8)  # 8 columns in 3 bins, as a decoder divides them

    def function(phase: Tensor) -> Tensor:
        panel = torch.remainder(phase, 2 * torch.pi).view(-1, *LAYOUT)
        panel = panel.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        field = modulate(blur(panel, 0.6), 0.04) * beam
        light = intensity(far_field(propagate(field, ready)))[:, 1:7, 2:10]
        parts = [
            light[:, 3 * row : 3 * row + 3, edges[k] : edges[k + 1]].sum(dim=(1, 2))
            for row in range(2)
            for k in range(3)
        ]
        return 7 * torch.stack(parts, dim=1)

    return function


@pytest.fixture
def generator() -> Generator:
    return Generator().manual_seed(4)


@pytest.fixture
def screens(generator: Generator) -> Tensor:
    return 0.3 * torch.randn(2, *LAYOUT, generator=generator)


def cosine(twin: TwinOptics, truth: "Callable[[Tensor], Tensor]") -> float:
    """Mean cosine of the answer with the true gradient, at fresh points."""
    generator = Generator().manual_seed(99)
    turns = torch.rand(200, 24, generator=generator)
    phase = (2 * torch.pi * turns).requires_grad_()
    cotangent = torch.randn(200, 6, generator=generator)
    (true,) = torch.autograd.grad(truth(phase), phase, cotangent)
    got = twin.vjp(cotangent, phase.detach()).detach()
    return float(torch.nn.functional.cosine_similarity(true, got).mean())


def test_is_the_bench_where_its_numbers_are_the_bench(
    screens: Tensor, generator: Generator
) -> None:
    twin = TwinOptics(PORTS, screens=2, generator=generator)
    with torch.no_grad():
        twin.screen.copy_(screens)
        for name, value in (
            ("b", 3.0),
            ("log_saturation", 0.8),
            ("log_fresnel", 0.1 / 0.15),
            ("log_edge", 1.5),
            ("log_radius", 0.6),
            ("log_crosstalk", 0.3),
        ):
            number = torch.tensor(value)
            getattr(twin, name).copy_(number.log() if name[:3] == "log" else number)
        # Behind the pixels' share of the amplitude.
        twin.zero_order.copy_(torch.tensor([(0.04 / 0.96) ** 0.5, 0.0]))
    phase = 7 * torch.randn(5, 24, generator=generator)
    # The twin has the pixels' share of the power in its brightness, and so in the
    # strength of its medium: the bench with that much less of both is the same.
    medium = replace(MEDIUM, b=3.0 / 0.96, saturation=0.8 * 0.96)
    torch.testing.assert_close(
        7 * 0.96 * twin.light(phase).detach(),
        bench(screens, medium)(phase),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.slow
@pytest.mark.parametrize("b", [3.0, -2.0])
def test_finds_the_gradient_of_a_bench_it_knows_the_layout_of(
    b: float, screens: Tensor, generator: Generator
) -> None:
    truth = bench(screens, replace(MEDIUM, b=b))
    twin = build(SETTINGS, PORTS, generator)
    assert isinstance(twin, TwinOptics)
    fitter = Fitter(twin, SETTINGS, generator)
    phase = 2 * torch.pi * torch.rand(800, 24, generator=generator)
    fitter.observe_values(phase, truth(phase))
    noise = torch.zeros(6)
    fitter.first(300, noise=noise)
    assert fitter.unexplained(noise) < GOOD
    answering = fitter.answering
    assert isinstance(answering, TwinOptics)
    assert cosine(answering, truth) > 0.97


def test_starts_again_elsewhere_and_keeps_the_scales(generator: Generator) -> None:
    twin = TwinOptics(PORTS, screens=2, generator=generator)
    twin.calibrate(200 + torch.randn(20, 6, generator=generator))
    before = {name: value.clone() for name, value in twin.state_dict().items()}
    twin.restart(generator)
    after = twin.state_dict()
    assert not torch.equal(after["screen"], before["screen"])
    assert not torch.equal(after["b"], before["b"])
    assert torch.equal(after["brightness"], before["brightness"])
    assert torch.equal(after["y_mean"], before["y_mean"])


def test_is_as_bright_as_the_device_before_any_fit(
    screens: Tensor, generator: Generator
) -> None:
    twin = TwinOptics(PORTS, screens=2, generator=generator)
    phase = 2 * torch.pi * torch.rand(200, 24, generator=generator)
    y = bench(screens, MEDIUM)(phase)
    twin.calibrate(y)
    assert float(twin(phase).detach().mean()) == pytest.approx(float(y.mean()), rel=0.2)


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        (replace(PORTS, optics=None), "optics=None"),
        (replace(PORTS, circular=False), "and phases"),
        (replace(PORTS, optics=replace(OPTICS, grid=(8, 13))), "multiples"),
        (replace(PORTS, optics=replace(OPTICS, region=(3, 2, 6, 8))), "within the"),
        (replace(PORTS, optics=replace(OPTICS, bins=(2, 2))), "outputs=6"),
    ],
)
def test_refuses_optics_that_do_not_fit(ports: Ports, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TwinOptics(ports, screens=2, generator=Generator())


GUESSED = OpticalLayout.guess(LAYOUT, (2, 3), points=2, lens=True)


@pytest.mark.slow
def test_finds_where_the_bins_are_and_the_gradient_of_a_bench_it_knows_nothing_of(
    screens: Tensor, generator: Generator
) -> None:
    truth = bench(screens, MEDIUM)
    settings = replace(SETTINGS, optics="learned", starts=4)
    twin = build(settings, replace(PORTS, optics=GUESSED), generator)
    assert isinstance(twin, TwinOptics)
    fitter = Fitter(twin, settings, generator)
    phase = 2 * torch.pi * torch.rand(800, 24, generator=generator)
    fitter.observe_values(phase, truth(phase))
    noise = torch.zeros(6)
    fitter.first(400, noise=noise)
    assert fitter.unexplained(noise) < GOOD
    found = fitter.answering
    assert isinstance(found, TwinOptics)
    assert found.region is not None
    # The bench's rows 1 to 7 of 8, and columns 2 to 10 of 12.
    torch.testing.assert_close(
        found.region.middle.detach(), torch.tensor([0.5, 0.5]), rtol=0, atol=0.03
    )
    torch.testing.assert_close(
        found.region.log_size.exp().detach(),
        torch.tensor([6 / 8, 8 / 12]),
        rtol=0,
        atol=0.1,
    )
    assert cosine(found, truth) > 0.95


def test_bins_of_a_guess_are_those_it_would_be_told(generator: Generator) -> None:
    told = TwinOptics(PORTS, screens=2, generator=generator)
    guess = replace(PORTS, optics=replace(OPTICS, guessed=True))
    guessed = TwinOptics(guess, screens=2, generator=generator)
    assert guessed.region is not None
    down, across = (part.detach() for part in guessed.region())
    torch.testing.assert_close(down, told.row_bins)
    # Eight columns in three bins are told in whole ones, and guessed in equal parts.
    torch.testing.assert_close(across.sum(dim=0), told.column_bins.sum(dim=0))
    torch.testing.assert_close(across.sum(dim=1), torch.full((3,), 8 / 3))


def test_another_start_of_a_guess_is_elsewhere(generator: Generator) -> None:
    ports = replace(PORTS, optics=GUESSED)
    twin = TwinOptics(ports, screens=2, generator=generator)
    assert twin.region is not None
    sizes, lengths = [], []
    for _ in range(40):
        twin.restart(generator)
        sizes.append(float(twin.region.log_size[0].detach().exp()))
        lengths.append(float(twin.log_fresnel.detach().exp()))
    assert 0.4 <= min(sizes) < 0.5 < 0.9 < max(sizes) <= 1
    assert 0.3 <= min(lengths) < 0.5 < 2 < max(lengths) <= 3


@pytest.mark.parametrize("points", [2, 4])
def test_a_guess_lies_in_the_middle_of_a_grid_of_whole_macropixels(points: int) -> None:
    found = OpticalLayout.guess((4, 6), (2, 3), points=points, lens=False)
    assert found.grid == (4 * points, 6 * points)
    for axis in (0, 1):
        start, length = found.region[axis], found.region[2 + axis]
        assert start >= 0
        assert abs(2 * start + length - found.grid[axis]) <= 1
    assert (found.bins, found.lens, found.guessed) == ((2, 3), False, True)


@pytest.mark.parametrize("coarse", [(2, 3), LAYOUT])
def test_a_card_interpolates_by_products_what_the_processor_does(
    coarse: tuple[int, int], generator: Generator
) -> None:
    rise = twin_optics._Raise(coarse, GRID)
    points = torch.randn(3, *coarse, generator=generator)
    plain = torch.nn.functional.interpolate(points[None], size=GRID, mode="bicubic")[0]
    assert torch.equal(rise(points), plain)
    assert torch.allclose(rise.by_product(points), plain, atol=1e-6)


def test_crosstalk_at_the_border_goes_on_as_it_ends() -> None:
    sigma = torch.tensor(1.3, requires_grad=True)
    table = twin_optics._blur(6, sigma, 4)
    weight = torch.exp(-(torch.arange(-4, 5) ** 2) / (2 * sigma**2))
    expected = torch.zeros(6, 6)
    for to in range(6):
        for offset, each in zip(range(-4, 5), weight / weight.sum(), strict=True):
            expected[to, min(5, max(0, to + offset))] += each
    assert torch.allclose(table, expected, atol=1e-6)
    by = torch.randn(6, 6, generator=Generator().manual_seed(2))
    (slope,) = torch.autograd.grad((table * by).sum(), sigma, retain_graph=True)
    (wanted,) = torch.autograd.grad((expected * by).sum(), sigma)
    assert float(slope) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("guessed", [False, True])
def test_the_compiled_kernel_answers_and_fits_as_torch_does(
    guessed: bool,
    generator: Generator,
) -> None:
    layout = OpticalLayout((16, 32), 4, 0.15, (2, 4, 12, 20), (2, 3), guessed=guessed)
    ports = Ports(128, 6, layout=(8, 16), optics=layout)
    phase = 2 * torch.pi * torch.rand(60, 128, generator=generator)
    y = 200 + 30 * torch.randn(60, 6, generator=generator)
    cotangent = torch.randn(60, 6, generator=generator)
    found = []
    for kernel in ("torch", "fused"):
        settings = replace(
            SETTINGS,
            kernel=kernel,
            panel_lag=True,
            optics="learned" if guessed else "told",
        )
        draw = Generator().manual_seed(6)
        fitter = Fitter(build(settings, ports, draw), settings, draw)
        fitter.observe_values(phase, y)
        fitter.first(20, noise=None)
        fitter.step(3)
        twin = fitter.answering
        assert isinstance(twin, TwinOptics)
        answers = twin.vjp(cotangent, phase), twin(phase), twin.jvp(phase, phase)
        found.append([*answers, *fitter.surrogate.state_dict().values()])
    for plain, mine in zip(*found, strict=True):
        plain, mine = plain.detach(), mine.detach()
        if plain.dtype == torch.bool:
            assert torch.equal(plain, mine)
            continue
        # Adam's first steps are of one size whatever the gradient's: rounding grows.
        apart = torch.linalg.vector_norm(mine - plain)
        assert float(apart) <= 2e-3 * float(torch.linalg.vector_norm(plain))
