import gc
import weakref
from typing import TYPE_CHECKING, Literal

import pytest
import torch
from torch import Tensor, nn

from labctl.training.blackbox import (
    Device,
    DeviceLayer,
    Estimate,
    Exposure,
    Response,
    Start,
)
from labctl.training.encoding import Additive

if TYPE_CHECKING:
    from tests.labctl.training.conftest import FakeDevice


def true_gradient(device: "FakeDevice") -> Estimate:
    def estimate(exposure: Exposure, cotangent: Tensor) -> Tensor:
        return device.gradient(exposure.response.shown, cotangent)

    return estimate


def layer_of(
    device: Device, features: int = 4, index: int = 0, estimate: Estimate | None = None
) -> DeviceLayer:
    encoding = Additive(features, device.layout, input_scale_rad=2.0)
    generator = torch.Generator().manual_seed(5 + index)
    layer = DeviceLayer(device, encoding, index=index, generator=generator)
    layer.estimate = estimate
    return layer.double()


def true_layer(device: "FakeDevice", features: int = 4, index: int = 0) -> DeviceLayer:
    return layer_of(device, features, index, true_gradient(device))


def inputs(batch: int = 3, features: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, features, generator=generator, dtype=torch.float64)


def test_backward_hands_theta_and_inputs_the_estimators_gradient(
    device: "FakeDevice",
) -> None:
    layer = true_layer(device)
    x = inputs().requires_grad_()
    weight = torch.linspace(-1, 1, 5, dtype=torch.float64)
    (layer(x) @ weight).sum().backward()
    assert x.grad is not None
    assert layer.theta.grad is not None
    found = x.grad.clone(), layer.theta.grad.clone()
    truth = (device.clean(layer.encoding(x, layer.theta)) @ weight).sum()
    wanted = torch.autograd.grad(truth, (x, layer.theta))
    assert torch.allclose(found[0], wanted[0])
    assert torch.allclose(found[1], wanted[1])


def test_the_gradient_agrees_with_finite_differences(device: "FakeDevice") -> None:
    layer = true_layer(device)
    assert torch.autograd.gradcheck(layer, (inputs(2).requires_grad_(),))


def test_two_device_layers_chain_with_digital_layers(
    make_device: "type[FakeDevice]",
) -> None:
    device = make_device()
    first, second = true_layer(device), true_layer(device, features=5, index=1)
    mix = nn.Linear(5, 5)
    mix.weight.data.mul_(0.01)
    model = nn.Sequential(first, mix, nn.Sigmoid(), second).double()
    assert torch.autograd.gradcheck(model, (inputs(2).requires_grad_(),))
    assert {layer for _, layer, _, _ in device.calls} == {0, 1}


def test_nothing_is_estimated_where_no_gradient_is_needed(device: "FakeDevice") -> None:
    layer = true_layer(device)
    asked: list[int] = []

    def estimate(exposure: Exposure, cotangent: Tensor) -> Tensor:
        asked.append(len(cotangent))
        return torch.zeros_like(exposure.response.shown)

    layer.estimate = estimate
    layer.theta.requires_grad = False
    digital = nn.Linear(5, 1).double()
    digital(layer(inputs())).sum().backward()
    assert asked == []
    assert layer.tape[0].cotangent is None
    assert digital.weight.grad is not None


def test_no_grad_exposes_and_keeps_no_graph(device: "FakeDevice") -> None:
    layer = true_layer(device)
    with torch.no_grad():
        y = layer(inputs())
    assert not y.requires_grad
    assert device.shots == 3


def test_a_second_derivative_is_refused_with_a_reason(device: "FakeDevice") -> None:
    layer = true_layer(device)
    x = inputs().requires_grad_()
    (first,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative was asked for"):
        torch.autograd.backward(first.square().sum())


def test_create_graph_alone_gives_the_same_gradient(device: "FakeDevice") -> None:
    layer = true_layer(device)
    x = inputs().requires_grad_()
    (first,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(layer(x).sum(), x)
    assert torch.equal(first.detach(), second)


def test_backward_without_an_estimator_says_what_to_set(device: "FakeDevice") -> None:
    layer = true_layer(device)
    layer.estimate = None
    with pytest.raises(RuntimeError, match="estimator=None"):
        layer(inputs()).sum().backward()


def test_the_tape_holds_what_was_shown_answered_and_asked_back(
    make_device: "type[FakeDevice]",
) -> None:
    device = make_device(levels=64)
    layer = true_layer(device)
    layer.begin("train", step=7)
    y = layer(inputs())
    weight = torch.linspace(0, 1, 5, dtype=torch.float64).expand(3, 5)
    y.backward(weight)
    (exposure,) = layer.tape
    assert (exposure.category, exposure.step, exposure.layer) == ("train", 7, 0)
    assert torch.equal(exposure.response.y, y.detach())
    assert exposure.cotangent is not None
    assert torch.equal(exposure.cotangent, weight)
    assert exposure.gradient is not None
    assert exposure.response.shot.tolist() == [0, 1, 2]
    steps = exposure.response.shown * 64 / (2 * torch.pi)
    assert torch.allclose(steps, steps.round())
    layer.begin("evaluate", step=8)
    assert layer.tape == []


def test_a_layer_used_twice_in_a_pass_keeps_both_exposures(
    device: "FakeDevice",
) -> None:
    layer = true_layer(device, features=5)
    hidden = layer(inputs(features=5)) / 400
    layer(hidden).sum().backward()
    assert [exposure.cotangent is None for exposure in layer.tape] == [False, False]


def test_memory_of_a_pass_is_freed_without_the_collector(device: "FakeDevice") -> None:
    layer = true_layer(device)
    gc.disable()
    try:
        y = layer(inputs())
        kept = weakref.ref(layer.tape[0])
        layer.begin("train", step=0)
        del y
        assert kept() is None
    finally:
        gc.enable()


def test_dither_comes_from_the_layers_own_generator(
    make_device: "type[FakeDevice]",
) -> None:
    shown = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        layer = true_layer(make_device())
        layer.begin("train", step=0, dither_rad=0.3)
        layer(inputs(200))
        shown.append(layer.tape[0].response.shown)
    assert torch.equal(*shown)
    plain = layer.encoding(inputs(200), layer.theta)
    difference = torch.remainder(shown[0] - plain + torch.pi, 2 * torch.pi) - torch.pi
    assert difference.std().item() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize(
    ("distribution", "low", "high"),
    [("zeros", 0.0, 0.0), ("uniform", 0.0, 0.5), ("normal", -2.5, 2.5)],
)
def test_theta_starts_as_told(
    distribution: Literal["uniform", "normal", "zeros"],
    low: float,
    high: float,
    generator: torch.Generator,
) -> None:
    theta = Start(distribution, 0.5).draw(600, generator)
    assert theta.min() >= low
    assert theta.max() <= high
    if distribution != "zeros":
        assert theta.std() > 0.1


def test_a_device_that_answers_in_another_shape_is_refused(
    device: "FakeDevice",
) -> None:
    class Wrong:
        pixels, layout, outputs = device.pixels, device.layout, device.outputs

        def __init__(self, response: Response) -> None:
            self.response = response

        def __call__(
            self, phase: Tensor, *, category: str, layer: int, step: int
        ) -> Response:
            del phase, category, layer, step
            return self.response

    phase, shot = torch.zeros(3, 24), torch.arange(3)
    y = torch.zeros(3, 5)
    for response, message in (
        (Response(torch.zeros(3, 4), phase, shot), r"y.shape=\(3, 4\)"),
        (Response(y, torch.zeros(3, 23), shot), r"shown.shape=\(3, 23\)"),
    ):
        layer = layer_of(Wrong(response))
        with pytest.raises(ValueError, match=message):
            layer(inputs())
