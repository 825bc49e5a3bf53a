from typing import TYPE_CHECKING

import pytest
import torch

from labctl.training.network import (
    ACTIVATIONS,
    Activation,
    ActivationSpec,
    DeviceSpec,
    Ends,
    LayerSpec,
    LinearSpec,
    Network,
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
