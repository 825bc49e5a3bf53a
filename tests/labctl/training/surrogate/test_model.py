import pytest
import torch
from torch import Generator

from labctl.training.surrogate.build import BUILDERS, build
from labctl.training.surrogate.model import Surrogate, Twin
from labctl.training.surrogate.settings import (
    OpticalLayout,
    Ports,
    SurrogateName,
    SurrogateSettings,
)

PIXELS, OUTPUTS = 6, 4
LAYOUT = (2, 3)
OPTICS = OpticalLayout((4, 6), 2, 0.1, (0, 0, 4, 6), (2, 2))


@pytest.fixture
def generator() -> Generator:
    return Generator().manual_seed(2)


@pytest.fixture(params=list(BUILDERS))
def surrogate(request: pytest.FixtureRequest, generator: Generator) -> Surrogate:
    name: SurrogateName = request.param
    model = build(
        SurrogateSettings(name, width=16, rank=3, modes=8),
        Ports(PIXELS, OUTPUTS, layout=LAYOUT, optics=OPTICS),
        generator,
    )
    model.calibrate(200 + 30 * torch.randn(20, OUTPUTS, generator=generator))
    d_alpha = torch.randn(9, PIXELS, generator=generator)
    d_f = torch.randn(9, OUTPUTS, generator=generator)
    model.calibrate_probes(d_alpha, d_f)
    model.absorb(d_alpha, d_f)
    if name == "twin-pairs":
        # It starts at zero, and so does its answer.
        torch.nn.init.normal_(next(model.parameters()), std=0.1, generator=generator)
    return model


@pytest.fixture(
    params=["twin-dense", "twin-modes", "twin-pairs", "twin-fields", "twin-optics"]
)
def twin(request: pytest.FixtureRequest, generator: Generator) -> Twin:
    name: SurrogateName = request.param
    model = build(
        SurrogateSettings(name, width=16, modes=8),
        Ports(PIXELS, OUTPUTS, layout=LAYOUT, optics=OPTICS),
        generator,
    ).double()
    if name == "twin-pairs":
        # It starts at zero, and so does its derivative.
        torch.nn.init.normal_(next(model.parameters()), std=0.1, generator=generator)
    assert isinstance(model, Twin)
    model.calibrate(200 + 30 * torch.randn(20, OUTPUTS, generator=generator).double())
    return model


@pytest.fixture
def phase(generator: Generator) -> torch.Tensor:
    return torch.randn(5, PIXELS, generator=generator)


@pytest.fixture
def cotangent(generator: Generator) -> torch.Tensor:
    return torch.randn(5, OUTPUTS, generator=generator)


def test_answer_is_homogeneous_in_the_cotangent(
    surrogate: Surrogate, cotangent: torch.Tensor, phase: torch.Tensor
) -> None:
    one = surrogate.vjp(cotangent, phase)
    assert one.abs().max() > 0
    # A power of two scales without rounding, so the answers are equal, not close.
    assert torch.equal(surrogate.vjp(2.0**-40 * cotangent, phase), 2.0**-40 * one)
    size = float(one.detach().abs().max())
    torch.testing.assert_close(
        surrogate.vjp(3 * cotangent, phase), 3 * one, rtol=2e-5, atol=1e-5 * size
    )


def test_zero_cotangent_gives_zero_beside_others(
    surrogate: Surrogate, cotangent: torch.Tensor, phase: torch.Tensor
) -> None:
    cotangent[1] = 0
    answer = surrogate.vjp(cotangent, phase)
    assert torch.equal(answer[1], torch.zeros(PIXELS))
    assert torch.isfinite(answer).all()


def test_rows_are_answered_apart(
    surrogate: Surrogate, cotangent: torch.Tensor, phase: torch.Tensor
) -> None:
    whole = surrogate.vjp(cotangent, phase)
    parts = [
        surrogate.vjp(cotangent[rows], phase[rows])
        for rows in (slice(0, 2), slice(2, 5))
    ]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_works_without_gradients_and_in_float64(
    surrogate: Surrogate, cotangent: torch.Tensor, phase: torch.Tensor
) -> None:
    single = surrogate.vjp(cotangent, phase)
    with torch.no_grad():
        double = surrogate.double().vjp(cotangent.double(), phase.double())
    assert not double.requires_grad
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)


def test_jvp_of_a_twin_agrees_with_finite_differences(
    twin: Twin, phase: torch.Tensor, generator: Generator
) -> None:
    point = phase.double()
    direction = torch.randn(5, PIXELS, generator=generator).double()
    with torch.no_grad():
        slope = twin.jvp(point, direction)
        step = 1e-5
        ahead, back = (twin(point + sign * step * direction) for sign in (1, -1))
    torch.testing.assert_close(slope, (ahead - back) / (2 * step), rtol=1e-6, atol=1e-5)


def test_vjp_of_a_twin_is_the_adjoint_of_its_jvp(
    twin: Twin, phase: torch.Tensor, cotangent: torch.Tensor, generator: Generator
) -> None:
    point, cotangent = phase.double(), cotangent.double()
    direction = torch.randn(5, PIXELS, generator=generator).double()
    with torch.no_grad():
        left = (twin.vjp(cotangent, point) * direction).sum(dim=1)
        right = (cotangent * twin.jvp(point, direction)).sum(dim=1)
    torch.testing.assert_close(left, right)


def test_predictions_start_around_the_first_outputs(
    twin: Twin, generator: Generator
) -> None:
    phase = 2 * torch.pi * torch.rand(200, PIXELS, generator=generator).double()
    with torch.no_grad():
        y = twin(phase)
    assert float(y.mean()) == pytest.approx(200, abs=30)


def test_scale_is_set_once(surrogate: Surrogate, generator: Generator) -> None:
    before = surrogate.y_mean.clone(), surrogate.y_scale.clone()
    surrogate.calibrate(torch.randn(7, OUTPUTS, generator=generator))
    surrogate.calibrate_probes(torch.ones(3, PIXELS), torch.ones(3, OUTPUTS))
    assert torch.equal(surrogate.y_mean, before[0])
    assert torch.equal(surrogate.y_scale, before[1])


def test_an_output_that_never_varies_keeps_scale_one(generator: Generator) -> None:
    model = build(SurrogateSettings("twin-dense"), Ports(3, 2), generator)
    y = torch.randn(9, 2, generator=generator)
    y[:, 1] = 7
    model.calibrate(y)
    assert model.y_scale[1] == 1
    assert model.y_mean[1] == 7


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.ones(1, OUTPUTS), "y has rows=1, expected at least 2"),
        (torch.full((3, OUTPUTS), torch.nan), "not finite"),
    ],
)
def test_refuses_to_calibrate_on_unusable_outputs(
    y: torch.Tensor, message: str, generator: Generator
) -> None:
    model = build(SurrogateSettings("dense"), Ports(3, OUTPUTS), generator)
    with pytest.raises(ValueError, match=message):
        model.calibrate(y)


def test_a_fit_sees_the_derivative_of_every_parameter(
    surrogate: Surrogate, phase: torch.Tensor, cotangent: torch.Tensor
) -> None:
    """Which fits rest on: the answer's slope along a direction of all parameters."""
    surrogate.double()
    leaves = [leaf for leaf in surrogate.parameters() if leaf.requires_grad]
    if not leaves:  # a Jacobian is solved for, not descended to
        assert type(surrogate).__name__ == "Jacobian"
        return
    generator = Generator().manual_seed(5)
    point, weight = phase.double(), cotangent.double()
    wish = torch.randn(5, PIXELS, generator=generator).double()
    direction = [
        torch.randn(leaf.shape, generator=generator).to(leaf) for leaf in leaves
    ]

    def merit() -> torch.Tensor:
        return (surrogate.vjp(weight, point) * wish).sum()

    found = torch.autograd.grad(merit(), leaves, materialize_grads=True)
    slope = sum(
        float((gradient * part).sum())
        for gradient, part in zip(found, direction, strict=True)
    )
    step, sides = 1e-6, []
    with torch.no_grad():
        for sign in (1, -2):  # from the middle ahead, and from there back
            for leaf, part in zip(leaves, direction, strict=True):
                leaf.add_(part, alpha=sign * step)
            sides.append(float(merit()))
    assert slope == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-5)


NET_NAMES = [name for name in BUILDERS if name != "jacobian"]  # in closed form


@pytest.mark.parametrize("surrogate", NET_NAMES, indirect=True)
def test_all_that_a_model_makes_itself_is_on_its_device(surrogate: Surrogate) -> None:
    # meta has no numbers, but refuses a partner on the processor as a card does.
    surrogate.to("meta")
    there = torch.device("meta")
    assert surrogate.device == there
    cotangent = torch.zeros(3, OUTPUTS, device=there)
    phase = torch.zeros(3, PIXELS, device=there)
    assert surrogate.unit_vjp(cotangent, phase).device == there
    assert surrogate.vjp(cotangent, phase).device == there
    if isinstance(surrogate, Twin):
        assert surrogate.predict(phase).device == there
        assert surrogate.jvp(phase, phase).device == there


@pytest.mark.parametrize("surrogate", NET_NAMES, indirect=True)
def test_answers_come_back_to_where_the_question_was(surrogate: Surrogate) -> None:
    surrogate.to("meta")
    cotangent, phase = torch.zeros(3, OUTPUTS), torch.zeros(3, PIXELS)
    # It was computed there, and only the way back fails: there are no numbers.
    with pytest.raises(NotImplementedError, match="copy out of meta tensor"):
        surrogate.vjp(cotangent, phase)
    if isinstance(surrogate, Twin):
        with pytest.raises(NotImplementedError, match="copy out of meta tensor"):
            surrogate(phase)
        with pytest.raises(NotImplementedError, match="copy out of meta tensor"):
            surrogate.jvp(phase, phase)
