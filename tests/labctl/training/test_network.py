from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from labctl.training.blackbox import DeviceLayer
from labctl.training.estimator import Given
from labctl.training.network import (
    ACTIVATIONS,
    Activation,
    ActivationSpec,
    DeviceSpec,
    Ends,
    LayerSpec,
    LinearSpec,
    Network,
    Recurrence,
    Recurrent,
    Standardise,
    StandardiseSpec,
    build,
)

if TYPE_CHECKING:
    from tests.labctl.training.conftest import FakeDevice

DEEP: list[LayerSpec] = [
    DeviceSpec(),
    StandardiseSpec(),
    LinearSpec(6),
    ActivationSpec("sin"),
    DeviceSpec(encoding="modes", modes=7),
    StandardiseSpec(),
    LinearSpec(),
]


def deep(device: "FakeDevice", seed: int = 0) -> Network:
    generator = torch.Generator().manual_seed(seed)
    return build(DEEP, Ends(4, 3), device=device, generator=generator)


def test_layers_are_built_in_order_with_fitting_sizes(device: "FakeDevice") -> None:
    network = deep(device)
    assert [layer.index for layer in network.device_layers] == [0, 1]
    assert [len(theta) for theta in network.theta()] == [24, 7]
    assert network.head is not None
    assert network.head.weight.shape == (3, 5)
    assert len(network.digital()) == 4


def test_one_seed_makes_one_network_whatever_the_global_state(
    device: "FakeDevice",
) -> None:
    torch.manual_seed(1)
    first = deep(device).state_dict()
    torch.manual_seed(2)
    second = deep(device).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = deep(device, seed=5).state_dict()
    assert not torch.equal(first["layers.0.theta"], other["layers.0.theta"])


def test_a_model_that_misses_the_task_is_refused(
    device: "FakeDevice", generator: torch.Generator
) -> None:
    with pytest.raises(ValueError, match=r"gives 5 outputs, expected 3"):
        build([DeviceSpec()], Ends(4, 3), device=device, generator=generator)


def test_a_model_may_end_with_the_device(
    device: "FakeDevice", generator: torch.Generator
) -> None:
    network = build([DeviceSpec()], Ends(4, 5), device=device, generator=generator)
    assert network.head is None
    assert network(torch.rand(2, 4)).shape == (2, 5)


def test_encodings_are_chosen_by_name(device: "FakeDevice") -> None:
    sizes = {
        "additive": 24,
        "split": 12,
        "modes": 9,
    }
    for name, size in sizes.items():
        spec = DeviceSpec(encoding=name, modes=9)  # type: ignore[arg-type]  # from a table
        assert spec.encode(4, device.layout).theta_size == size


def test_standardise_is_set_once_and_then_fixed(generator: torch.Generator) -> None:
    layer = Standardise(3)
    x = 50 + torch.rand(80, 3, generator=generator) * torch.tensor([1.0, 9.0, 0.0])
    with pytest.raises(RuntimeError, match="used before it was set"):
        layer(x)
    layer.settle(x)
    y = layer(x)
    assert torch.allclose(y.mean(dim=0), torch.zeros(3), atol=1e-4)
    assert torch.allclose(y.std(dim=0, correction=0)[:2], torch.ones(2), atol=1e-4)
    assert (y[:, 2] == 0).all()
    with pytest.raises(RuntimeError, match="set twice"):
        layer.settle(x)
    copy = Standardise(3)
    copy.load_state_dict(layer.state_dict())
    assert torch.equal(copy(x), y)


@pytest.mark.parametrize("function", sorted(ACTIVATIONS))
def test_activations_differentiate(function: str) -> None:
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None].requires_grad_()
    assert torch.autograd.gradcheck(Activation(function), (x + 0.05,))


def test_body_and_head_make_the_whole(device: "FakeDevice") -> None:
    network = deep(device)
    for layer in network.layers:
        if isinstance(layer, Standardise):
            layer.settle(torch.rand(9, len(layer.mean)))
    x = torch.rand(2, 4)
    assert torch.equal(network.finish(network.body(x)), network(x))
    network.begin("evaluate", step=3)
    network(x)
    assert {e.category for d in network.device_layers for e in d.tape} == {"evaluate"}


# ---- depth and series -----------------------------------------------------------

THREE: list[LayerSpec] = [
    DeviceSpec(),
    StandardiseSpec(),
    ActivationSpec("sigmoid"),
    DeviceSpec(encoding="modes", modes=7),
    StandardiseSpec(),
    ActivationSpec("sigmoid"),
    DeviceSpec(encoding="split"),
    StandardiseSpec(),
    LinearSpec(),
]
SERIES: list[LayerSpec] = [
    DeviceSpec(recurrent=Recurrence(3, feedback_rad=0.7)),
    StandardiseSpec(),
    LinearSpec(),
]


def settled(specs: list[LayerSpec], ends: Ends, device: "FakeDevice") -> Network:
    """Build a model in double precision, with the true gradient, every scale set."""
    generator = torch.Generator().manual_seed(8)
    network = build(specs, ends, device=device, generator=generator).double()
    hidden = torch.rand(40, ends.features, generator=generator, dtype=torch.float64)
    for layer in network.layers:
        if isinstance(layer, Recurrent):
            hidden = layer.unroll(hidden, layer.layer)
            continue
        if isinstance(layer, Standardise):
            layer.settle(hidden.detach())
        hidden = layer(hidden)
    for layer in network.device_layers:
        layer.estimate = Given(device.gradient)
    network.begin("train", step=0)
    return network


def replaced(network: Network, device: "FakeDevice", x: Tensor) -> Tensor:
    """Answer as the model does, the device an ordinary function of torch."""

    def respond(layer: DeviceLayer, features: Tensor) -> Tensor:
        return device.clean(layer.encoding(features, layer.theta))

    hidden = x
    for layer in network.layers:
        if isinstance(layer, DeviceLayer):
            hidden = respond(layer, hidden)
        elif isinstance(layer, Recurrent):
            hidden = layer.unroll(hidden, partial(respond, layer.layer))
        else:
            hidden = layer(hidden)
    return hidden


@pytest.mark.parametrize(
    ("specs", "ends"),
    [
        pytest.param(THREE, Ends(4, 3), id="three device layers"),
        pytest.param(SERIES, Ends(6, 3), id="series"),
        pytest.param(
            [*SERIES[:2], ActivationSpec("sigmoid"), *SERIES[:2], LinearSpec()],
            None,
            id="series into a series",
        ),
    ],
)
def test_true_gradients_chain_to_that_of_torch_through_the_device(
    make_device: "type[FakeDevice]", specs: list[LayerSpec], ends: Ends | None
) -> None:
    device = make_device() if ends else make_device(outputs=3)
    ends = ends or Ends(6, 3)
    network = settled(specs, ends, device)
    generator = torch.Generator().manual_seed(1)
    shape = (7, ends.features)
    x = torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()
    leaves = [x, *network.parameters()]
    weight = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad((network(x) * weight).sum(), leaves)
    wanted = torch.autograd.grad((replaced(network, device, x) * weight).sum(), leaves)
    for one, other in zip(found, wanted, strict=True):
        assert one.abs().max() > 0
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)
    passed = sum(len(layer.tape) for layer in network.device_layers)
    assert passed == network.exposures


def test_a_series_shows_each_step_with_the_state_that_it_left(
    device: "FakeDevice",
) -> None:
    network = settled(SERIES, Ends(6, 3), device)
    (layer,) = network.device_layers
    recurrent = network.layers[0]
    assert isinstance(recurrent, Recurrent)
    x = torch.rand(4, 6, dtype=torch.float64)
    hidden = recurrent(x)
    assert len(layer.tape) == network.exposures == 3
    states = [recurrent.state(exposure.response.y) for exposure in layer.tape]
    assert torch.equal(hidden, states[-1])
    for step, exposure in enumerate(layer.tape):
        # Two inputs a step, each shown twice beside the five outputs.
        u = x[:, 2 * step : 2 * step + 2].repeat(1, 2)
        before = states[step - 1] if step else torch.zeros_like(states[0])
        given = torch.cat((u, before * (0.7 / torch.pi)), dim=1)
        phase = layer.encoding(given, layer.theta)
        assert torch.allclose(
            exposure.response.shown, torch.remainder(phase, 2 * torch.pi)
        )


def test_a_state_remembers_earlier_inputs_only_by_feedback(
    device: "FakeDevice",
) -> None:
    network = settled(SERIES, Ends(6, 3), device)
    deaf = settled(
        [DeviceSpec(recurrent=Recurrence(3, feedback_rad=0.0)), *SERIES[1:]],
        Ends(6, 3),
        device,
    )
    x = torch.rand(2, 6, dtype=torch.float64)
    other = x.clone()
    other[:, :2] = 1 - other[:, :2]
    assert not torch.allclose(network(x), network(other))
    assert torch.equal(deaf(x), deaf(other))


def test_a_series_keeps_one_theta_and_no_digital_weights(device: "FakeDevice") -> None:
    network = settled(SERIES, Ends(6, 3), device)
    assert [len(theta) for theta in network.theta()] == [24]
    assert [tuple(part.shape) for part in network.digital()] == [(3, 5), (3,)]


def test_a_series_that_does_not_part_into_steps_is_refused(
    device: "FakeDevice", generator: torch.Generator
) -> None:
    with pytest.raises(ValueError, match="7 inputs in 3 time steps, expected as many"):
        build(SERIES, Ends(7, 3), device=device, generator=generator)


def test_a_batch_never_sets_the_scale_of_a_state(
    device: "FakeDevice", generator: torch.Generator
) -> None:
    network = build(SERIES, Ends(6, 3), device=device, generator=generator)
    with pytest.raises(RuntimeError, match="used before it was set"):
        network(torch.rand(2, 6))
    assert device.shots == 0
