from typing import TYPE_CHECKING

import pytest
import torch
from torch import Generator

from labctl.training.surrogate.settings import Ports, SurrogateSettings
from labctl.training.surrogate.twin_pairs import TwinPairs, offsets

if TYPE_CHECKING:
    from tests.labctl.training.surrogate.conftest import Fit, Task


def test_finds_the_gradient_of_linear_optics(optics_task: "Task", fit: "Fit") -> None:
    # All pairs: this device knows no neighbours.
    settings = SurrogateSettings("twin-pairs", reach=5.0, learning_rate=1e-2)
    fitter = fit(optics_task, settings, shots=600, steps=500)
    assert optics_task.cosine(fitter) > 0.99


def test_needs_fewer_shots_than_modes_behind_a_kerr_medium(
    kerr_task: "Task", fit: "Fit"
) -> None:
    found = {}
    for name in ("twin-pairs", "twin-modes"):
        settings = SurrogateSettings(name, learning_rate=1e-2)
        fitter = fit(kerr_task, settings, shots=150, steps=300)
        found[name] = kerr_task.cosine(fitter)
    assert found["twin-pairs"] > found["twin-modes"] + 0.1


def test_lists_every_pair_within_reach_once() -> None:
    assert offsets(1.5) == [(0, 1), (1, -1), (1, 0), (1, 1)]
    assert len(offsets(2.0)) == 6


def test_predicts_the_sum_over_pairs() -> None:
    twin = TwinPairs(Ports(6, 2, layout=(2, 3)), reach=9.0)
    generator = Generator().manual_seed(1)
    torch.nn.init.normal_(twin.weight, generator=generator)
    phase = torch.randn(4, 6, generator=generator)
    # All pairs of six macropixels, and the six alone.
    assert twin.weight.shape[1] == 2 * (15 + 6)
    field = torch.exp(1j * phase)
    # Right of a macropixel, then around the corner, as the offsets come.
    right = field.view(-1, 2, 3)[:, :, :2] * field.view(-1, 2, 3)[:, :, 1:].conj()
    terms = twin.terms(phase)
    torch.testing.assert_close(terms[:, :6], field.real)
    torch.testing.assert_close(terms[:, 6:12], field.imag)
    torch.testing.assert_close(terms[:, 12:16], right.real.flatten(1))
    torch.testing.assert_close(terms[:, 16:20], right.imag.flatten(1))


@pytest.mark.parametrize(
    ("ports", "reach"),
    [
        (Ports(6, 2), 2.0),
        (Ports(6, 2, layout=(2, 3), circular=False), 2.0),
        (Ports(6, 2, layout=(2, 3)), 0.5),
    ],
)
def test_refuses_no_layout_plain_numbers_and_no_pair(
    ports: Ports, reach: float
) -> None:
    with pytest.raises(ValueError, match="twin-pairs: reach="):
        TwinPairs(ports, reach=reach)
