import math

import pytest
import torch

from labctl.optics.medium import SaturableKerr
from labctl.optics.memory import relaxed, through
from labctl.optics.propagation import node_weights, plan, propagate

SHAPE = (24, 32)


def field(count: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(5)
    phase = 2 * math.pi * torch.rand((count, *SHAPE), generator=source)
    return torch.polar(torch.ones_like(phase), phase)


def test_what_nothing_was_written_into_is_the_medium_without_memory() -> None:
    ready = plan(SaturableKerr(b=3.0, saturation=1.0, steps=4, edge=1.0), SHAPE, 2.0)
    light = field(2)
    at_exit, exposed = through(light, ready, torch.zeros(5, *SHAPE))
    torch.testing.assert_close(at_exit, propagate(light, ready), rtol=1e-6, atol=1e-6)
    # At the entrance I = 1 everywhere, of which saturation leaves half.
    torch.testing.assert_close(exposed[0], torch.full(SHAPE, 0.5))


@pytest.mark.parametrize("saturation", [math.inf, 1.0])
def test_a_plane_wave_writes_the_phase_that_it_then_gets(saturation: float) -> None:
    medium = SaturableKerr(b=0.0, saturation=saturation, fresnel=0.0, steps=4)
    ready = plan(medium, SHAPE, 2.0, dtype=torch.complex128)
    wave = torch.full((1, *SHAPE), 1.5 + 0j, dtype=torch.complex128)
    weights = torch.tensor(node_weights(4), dtype=torch.float64)[:, None, None]
    written = torch.zeros(5, *SHAPE, dtype=torch.float64)
    for _ in range(3):
        at_exit, exposed = through(wave, ready, 0.8 * weights * written)
        written = relaxed(written, exposed, 50.0)
    response = 2.25 / (1 + 2.25 / saturation)
    angle = torch.angle(at_exit / wave)
    torch.testing.assert_close(angle, torch.full_like(angle, 0.8 * response))


def test_what_is_written_follows_in_its_time_constant() -> None:
    before, exposed = torch.ones(2, 3, 4), torch.full((2, 3, 4), 3.0)
    after = relaxed(before, exposed, 1.0)
    torch.testing.assert_close(after, 3 - 2 * math.exp(-1) * before)
    twice = relaxed(relaxed(before, exposed, 0.4), exposed, 0.6)
    torch.testing.assert_close(twice, after)
