"""Nets side by side start alike, and go apart."""

import torch

from labctl.studies.nets import Nets


def test_nets_start_alike_and_share_nothing() -> None:
    nets = Nets([3, 5, 2], 4, 2.0, torch.Generator().manual_seed(0))
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    y = nets(x, torch.tanh)
    assert y.shape == (4, 7, 2)
    assert torch.equal(y[0], y[3])
    torch.autograd.backward(y[1].sum())
    moved = [
        part.grad.flatten(1).abs().sum(dim=1)
        for part in nets.parameters
        if part.grad is not None
    ]
    assert len(moved) == 4
    for size in moved:
        assert size[1] > 0
        assert size[[0, 2, 3]].abs().max() == 0


def test_a_layer_multiplies_as_it_is_told() -> None:
    nets = Nets([3, 2], 1, 2.0, torch.Generator().manual_seed(0))
    x = torch.ones(4, 3)
    doubled = nets(x, torch.tanh, lambda y, theta: 2 * (y @ theta))
    assert torch.allclose(doubled, 2 * nets(x, torch.tanh))
