import pytest
import torch
from torch import Generator

from labctl.training.surrogate.layers import dense_layer, feature_count, features, net
from labctl.training.surrogate.settings import Ports


def test_features_are_the_same_a_turn_apart() -> None:
    ports = Ports(3, 2)
    phase = torch.tensor([[0.1, 2.0, -1.0], [0.0, 1.0, 5.0]], dtype=torch.float64)
    got = features(phase, ports)
    assert got.shape == (2, feature_count(ports))
    torch.testing.assert_close(got, features(phase + 2 * torch.pi, ports))


def test_plain_numbers_pass_as_they_are() -> None:
    ports = Ports(3, 2, circular=False)
    numbers = torch.tensor([[1.0, 20.0, -3.0]])
    assert torch.equal(features(numbers, ports), numbers)
    assert feature_count(ports) == 3


def test_layer_keeps_the_variance_of_its_inputs() -> None:
    generator = Generator().manual_seed(1)
    layer = dense_layer(300, 200, generator)
    out = layer(torch.randn(500, 300, generator=generator))
    assert float(out.detach().std()) == pytest.approx(1, abs=0.05)


def test_net_refuses_to_have_no_outputs() -> None:
    with pytest.raises(ValueError, match=r"sizes=\[3\]"):
        net([3], Generator().manual_seed(0))
