"""A sample that is exposed again is a probe, where it moved a little."""

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from labctl.training.blackbox import Response
from labctl.training.secant import Secants
from labctl.training.surrogate.jacobian import Jacobian
from labctl.training.surrogate.settings import Ports

if TYPE_CHECKING:
    from tests.labctl.training.conftest import FakeDevice


def shown(device: "FakeDevice", phase: Tensor) -> Response:
    return device(phase, category="train", layer=0, step=0)


def test_only_samples_that_were_seen_and_moved_a_little_are_probes(
    device: "FakeDevice",
) -> None:
    secants = Secants(6, limit_rad=0.2)
    phase = torch.linspace(0.1, 6.2, 6 * 24, dtype=torch.float64).view(6, 24)
    first = shown(device, phase[:4])
    assert len(secants.pair(0, torch.arange(4), first).d_f) == 0
    # Moved a little, too far, not at all, and never seen; over the end of the circle.
    sample = torch.tensor([3, 1, 2, 5])
    moved = torch.tensor([0.1, 0.3, 0.0, 0.1])[:, None]
    again = shown(device, phase[sample] + moved)
    found = secants.pair(0, sample, again)
    assert found.shot_base.tolist() == [3]
    assert found.shot_plus.tolist() == [4]
    assert torch.allclose(found.d_alpha, torch.full((1, 24), 0.1, dtype=torch.float64))
    assert torch.equal(found.d_f, again.y[:1] - first.y[3:])
    assert torch.equal(found.base, first.shown[3:])
    # What was too far is where the next one starts.
    third = secants.pair(0, torch.tensor([1]), shown(device, phase[1:2] + 0.35))
    assert third.shot_base.tolist() == [5]
    assert float(third.d_alpha.mean()) == pytest.approx(0.05)


def test_passes_of_a_step_are_compared_apart(device: "FakeDevice") -> None:
    secants = Secants(3, limit_rad=1.0)
    phase, sample = torch.ones(3, 24, dtype=torch.float64), torch.arange(3)
    for number in (0, 1):
        assert len(secants.pair(number, sample, shown(device, phase)).d_f) == 0
    later = secants.pair(1, sample, shown(device, phase + 0.1))
    assert later.shot_base.tolist() == [3, 4, 5]


def test_a_device_that_changed_has_no_past(device: "FakeDevice") -> None:
    secants = Secants(3, limit_rad=1.0)
    phase, sample = torch.ones(3, 24, dtype=torch.float64), torch.arange(3)
    secants.pair(0, sample, shown(device, phase))
    secants.forget()
    assert len(secants.pair(0, sample, shown(device, phase + 0.1)).d_f) == 0


def test_secants_alone_find_a_matrix() -> None:
    draw = torch.Generator().manual_seed(2)
    matrix = torch.randn(3, 8, generator=draw)
    secants = Secants(5, limit_rad=0.5)
    jacobian = Jacobian(Ports(8, 3), ridge=1e-6, forgetting=1.0)
    theta = torch.zeros(8)
    x = torch.randn(5, 8, generator=draw)
    for step in range(12):
        phase = x + theta
        response = Response(phase @ matrix.T, phase, 5 * step + torch.arange(5))
        found = secants.pair(0, torch.arange(5), response)
        if len(found.d_f):
            jacobian.update(found.d_alpha, found.d_f)
        theta = theta + 0.2 * torch.randn(8, generator=draw)
    # Every sample moves by the same step of theta: eleven steps span eight dimensions.
    torch.testing.assert_close(jacobian.matrix, matrix, rtol=0, atol=0.02)
