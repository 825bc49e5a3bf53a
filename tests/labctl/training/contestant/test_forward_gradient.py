"""The model-free gradient is unbiased and as good as theory says."""

import math

import pytest
import torch
from torch import Tensor

from labctl.training.blackbox import Exposure, Response
from labctl.training.contestant.forward_gradient import Nothing, forward_gradient

PIXELS, OUTPUTS = 12, 5


class Line:
    """``y = A x``: its gradient is known."""

    layout = (3, 4)
    pixels = PIXELS
    outputs = OUTPUTS

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(8)
        self.matrix = torch.randn(OUTPUTS, PIXELS, generator=generator).double()
        self.shots = 0

    def __call__(
        self, phase: Tensor, *, category: str, layer: int, step: int
    ) -> Response:
        del category, layer, step
        self.shots += len(phase)
        return Response(phase @ self.matrix.T, phase, torch.arange(len(phase)))


def _exposed(device: Line, batch: int) -> Exposure:
    response = device(
        torch.zeros(batch, PIXELS).double(), category="train", layer=0, step=0
    )
    return Exposure(0, 0, "train", response)


@pytest.mark.parametrize("probes", [1, 6, 24])
def test_cosine_follows_the_law(probes: int) -> None:
    device, batch = Line(), 3000
    generator = torch.Generator().manual_seed(9)
    estimate = forward_gradient(device, probes=probes, rms_rad=0.1, generator=generator)
    cotangent = torch.ones(batch, OUTPUTS).double()
    found = estimate(_exposed(device, batch), cotangent)
    true = cotangent @ device.matrix
    cosine = torch.cosine_similarity(found, true, dim=1)
    # <g.t>^2 / (<|g|^2> |t|^2): the law is one of second moments.
    power = found.square().sum(dim=1).mean().sqrt()
    mean = (found * true).sum(dim=1).mean() / (power * true[0].norm())
    law = math.sqrt(probes / (PIXELS + probes + 1))
    assert float(mean) == pytest.approx(law, rel=0.03)
    assert float(cosine.mean()) == pytest.approx(law, rel=0.12)
    assert device.shots == batch * (probes + 1)


def test_it_is_right_on_average() -> None:
    device, batch = Line(), 20_000
    estimate = forward_gradient(
        device, probes=1, rms_rad=0.1, generator=torch.Generator().manual_seed(1)
    )
    cotangent = torch.ones(batch, OUTPUTS).double()
    found = estimate(_exposed(device, batch), cotangent).mean(dim=0)
    true = cotangent[0] @ device.matrix
    spread = float(true.norm()) * math.sqrt(2 / batch)
    assert (found - true).abs().max() < 4 * spread


def test_nothing_answers_zero() -> None:
    phase = torch.ones(2, PIXELS)
    assert not Nothing().vjp(torch.ones(2, OUTPUTS), phase).any()
