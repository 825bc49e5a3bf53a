"""Nets side by side start alike, and go apart."""

import torch

from labctl.protocol import Activations
from labctl.studies.nets import Nets, right, train


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


def test_complex_weights_count_twice_and_are_multiplied_as_such() -> None:
    rng = torch.Generator().manual_seed(0)
    nets = Nets([2, 3], 2, 2.0, rng, torch.complex64)
    assert nets.numbers == 2 * (2 * 3 + 3)
    assert Nets([2, 3], 2, 2.0, rng).numbers == 2 * 3 + 3
    x = torch.ones(1, 2)
    y = nets(x, torch.tanh)
    assert torch.allclose(y[0, 0], nets.thetas[0][0].sum(dim=0))
    assert y.imag.abs().max() > 0


def test_a_net_that_diverged_counts_as_chance_and_spoils_no_other() -> None:
    rng = torch.Generator().manual_seed(0)
    nets = Nets([2, 2], 2, 1.0, rng)
    with torch.no_grad():
        nets.thetas[0][1] = float("nan")
    x = torch.randn(60, 2, generator=rng)
    label = (x[:, 0] > 0).long()
    course = Activations(name="activations", batch=20, steps=40, learning_rate=0.1)
    train(nets, lambda some: nets(some, torch.tanh), (x, label), course, rng)
    accuracy, lost = right(nets(x, torch.tanh), label, 2)
    assert lost.tolist() == [False, True]
    assert accuracy[0] > 0.9
    assert accuracy[1] == 0.5
