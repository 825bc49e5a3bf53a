"""What is rehearsed on a twin that is known to be right, or known to be wrong."""

import copy
import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Generator, Tensor
from typing_extensions import override

from labctl.training.network import (
    DeviceSpec,
    Ends,
    LayerSpec,
    LinearSpec,
    Network,
    StandardiseSpec,
    build,
)
from labctl.training.readout import Task
from labctl.training.rehearsal import (
    Rates,
    Rehearsal,
    Rehearsing,
    Verdict,
    try_out,
)
from labctl.training.surrogate.model import Twin
from labctl.training.surrogate.settings import FitTerm, Ports
from labctl.training.surrogate.twin_modes import TwinModes

if TYPE_CHECKING:
    from tests.labctl.training.conftest import FakeDevice

XOR = Task("classification", 2)
RATES = Rates(theta=0.1, digital=0.02)


class Known(Twin):
    """The fake device itself, or one whose light is off by a factor."""

    default_losses = (FitTerm("value"),)

    def __init__(self, device: "FakeDevice", error: float = 0.0) -> None:
        super().__init__(Ports(device.pixels, device.outputs))
        self._clean, self._error = device.clean, error

    @override
    def predict(self, phase: Tensor) -> Tensor:
        clean = self._clean(phase.double()).float()
        return clean + self._error * (clean - 200)


@pytest.fixture
def network(device: "FakeDevice", generator: Generator) -> Network:
    specs: list[LayerSpec] = [DeviceSpec(), StandardiseSpec(), LinearSpec()]
    network = build(specs, Ends(4, 2), device=device, generator=generator)
    _, standardise, _ = network.layers
    phase = 6 * torch.rand(200, device.pixels, generator=generator)
    standardise.settle(device.clean(phase.double()).float())  # type: ignore[operator]  # torch types it as Module
    return network


@pytest.fixture
def samples(generator: Generator) -> tuple[Tensor, Tensor]:
    x = torch.rand(300, 4, generator=generator)
    return x, ((x[:, 0] > 0.5) ^ (x[:, 3] > 0.5)).long()


def rehearsal_of(
    network: Network, twin: Twin, how: Rehearsing, seed: int = 5
) -> Rehearsal:
    return Rehearsal(how, twin, network, XOR, Generator().manual_seed(seed))


def practise(
    rehearsal: Rehearsal, samples: tuple[Tensor, Tensor], rates: Rates = RATES
) -> float:
    noise = torch.full((5,), 100.0)
    return rehearsal.rehearse(*samples, noise=noise, batch=32, rates=rates)


@torch.no_grad()
def loss_on(network: Network, samples: tuple[Tensor, Tensor]) -> float:
    """Mean loss on the device that serves the network."""
    network.begin("evaluate", step=0)
    return float(XOR.loss(network(samples[0]), samples[1]))


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.01, 1.0), (0.1, 0.5), (0.3, 0.25), (math.nan, 0.25), (-0.02, 1.0)],
)
def test_the_radius_follows_what_is_left_unexplained(
    share: float, expected: float
) -> None:
    assert Rehearsing().next_radius(0.5, share) == expected


def test_the_radius_has_bounds() -> None:
    how = Rehearsing(widest_rad=0.8, narrowest_rad=0.3)
    assert how.next_radius(0.5, 0.0) == 0.8
    assert how.next_radius(0.5, 0.9) == 0.3


@pytest.mark.parametrize(("error", "expected"), [(0.0, 1.0), (0.8, 0.25)])
def test_a_new_batch_says_how_far_the_twin_is_trusted(
    error: float,
    expected: float,
    device: "FakeDevice",
    network: Network,
    generator: Generator,
) -> None:
    rehearsal = rehearsal_of(network, Known(device, error), Rehearsing(radius_rad=0.5))
    phase = 6 * torch.rand(64, device.pixels, generator=generator)
    clean = device.clean(phase.double()).float()
    noisy = clean + 10 * torch.randn(clean.shape, generator=generator)
    rehearsal.judge(phase, noisy, torch.full((5,), 100.0))
    assert rehearsal.radius_rad == expected


def test_learns_for_the_device_without_an_exposure(
    device: "FakeDevice", network: Network, samples: tuple[Tensor, Tensor]
) -> None:
    before = loss_on(network, samples)
    spent = device.shots
    rehearsal = rehearsal_of(network, Known(device), Rehearsing(150, 3.0))
    practise(rehearsal, samples)
    assert device.shots == spent
    assert loss_on(network, samples) < 0.7 * before


def test_theta_ends_on_the_rim_when_it_would_go_further(
    device: "FakeDevice", network: Network, samples: tuple[Tensor, Tensor]
) -> None:
    (theta,) = network.theta()
    start = theta.detach().clone()
    practise(rehearsal_of(network, Known(device), Rehearsing(20, 0.05)), samples)
    moved = float((theta.detach() - start).square().mean().sqrt())
    assert moved == pytest.approx(0.05, rel=1e-3)


def test_the_device_takes_back_what_made_it_worse(
    device: "FakeDevice", network: Network, samples: tuple[Tensor, Tensor]
) -> None:
    rehearsal = rehearsal_of(network, Known(device), Rehearsing(5, 0.4))
    losses = 1 + 0.1 * torch.arange(16.0).cos()
    assert rehearsal.confirm(losses) is Verdict.FIRST
    before = {name: value.clone() for name, value in network.state_dict().items()}
    practise(rehearsal, samples)
    (theta,) = network.theta()
    assert not torch.equal(theta, before["layers.0.theta"])
    assert rehearsal.confirm(losses + 1) is Verdict.TAKEN_BACK
    assert rehearsal.radius_rad == 0.2
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_difference_within_doubt_is_confirmed(
    device: "FakeDevice", network: Network
) -> None:
    rehearsal = rehearsal_of(network, Known(device), Rehearsing())
    losses = torch.arange(16.0) / 4
    error = float(losses.std()) / 4
    rehearsal.confirm(losses)
    assert rehearsal.confirm(losses + 1.9 * 2**0.5 * error) is Verdict.CONFIRMED
    assert rehearsal.confirm(losses - 3) is Verdict.CONFIRMED


def test_a_readout_of_the_twin_suits_the_device(
    device: "FakeDevice", network: Network, samples: tuple[Tensor, Tensor]
) -> None:
    rehearsal = rehearsal_of(network, Known(device), Rehearsing())
    before = loss_on(network, samples)
    found = rehearsal.readout(*samples, noise=torch.full((5,), 100.0), draws=2)
    assert network.head is not None
    found.put_into(network.head)
    assert loss_on(network, samples) < before


def test_goes_on_bit_by_bit(
    device: "FakeDevice", network: Network, samples: tuple[Tensor, Tensor]
) -> None:
    twin, how = Known(device), Rehearsing(6, 0.4)
    rehearsal = rehearsal_of(network, twin, how)
    rehearsal.confirm(torch.ones(4))
    practise(rehearsal, samples)
    state, there = rehearsal.state_dict(), network.state_dict()
    there = {name: value.clone() for name, value in there.items()}
    practise(rehearsal, samples)
    rehearsal.confirm(torch.ones(4) + 9)
    practise(rehearsal, samples)
    whole = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(there)
    again = rehearsal_of(network, twin, how, seed=77)
    again.load_state_dict(state)
    practise(again, samples)
    again.confirm(torch.ones(4) + 9)
    practise(again, samples)
    for name, value in network.state_dict().items():
        assert torch.equal(value, whole[name])


def test_a_rehearsal_is_tried_out_before_anything_was_measured(
    device: "FakeDevice", samples: tuple[Tensor, Tensor], generator: Generator
) -> None:
    class Watched(Known):
        @override
        def predict(self, phase: Tensor) -> Tensor:
            asked.add((len(phase), torch.is_grad_enabled()))
            return super().predict(phase)

    asked = set[tuple[int, bool]]()
    specs: list[LayerSpec] = [DeviceSpec(), StandardiseSpec(), LinearSpec()]
    network = build(specs, Ends(4, 2), device=device, generator=generator)
    rehearsal = rehearsal_of(network, Watched(device), Rehearsing())
    try_out(rehearsal, *samples, batch=16)
    # A batch that judges, digital steps with their derivative, and a readout.
    assert asked == {(16, False), (16, True), (64, False)}
    steps = [
        state["step"] for state in rehearsal.state_dict()["adam"]["state"].values()
    ]
    assert {int(step) for step in steps} == {2}
    assert device.shots == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_twin_on_a_card_moves_theta_as_one_on_the_processor(
    device: "FakeDevice", network: Network, samples: tuple[Tensor, Tensor]
) -> None:
    ports = Ports(device.pixels, device.outputs)
    start = copy.deepcopy(network.state_dict())
    moved = []
    for where in ("cuda", "cpu"):
        network.load_state_dict(start)
        twin = TwinModes(ports, modes=8, generator=Generator().manual_seed(3))
        twin.calibrate(200 + torch.randn(20, 5, generator=Generator().manual_seed(4)))
        rehearsal = rehearsal_of(network, twin.to(where), Rehearsing(5, 3.0))
        practise(rehearsal, samples)
        (theta,) = network.theta()
        assert theta.device.type == "cpu"
        moved.append(theta.detach() - start["layers.0.theta"])
    assert float(moved[1].norm()) > 0.1
    assert float((moved[0] - moved[1]).norm() / moved[1].norm()) < 1e-2
