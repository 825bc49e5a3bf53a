from typing import TYPE_CHECKING

import pytest
import torch
from torch import Generator

from labctl.training.surrogate.settings import FitTerm, Ports, SurrogateSettings
from labctl.training.surrogate.twin_modes import TwinModes

if TYPE_CHECKING:
    from tests.labctl.training.surrogate.conftest import Fit, Task


def test_finds_the_gradient_of_linear_optics(optics_task: "Task", fit: "Fit") -> None:
    settings = SurrogateSettings("twin-modes", modes=24, learning_rate=1e-2)
    fitter = fit(optics_task, settings, shots=2000, steps=500)
    assert optics_task.cosine(fitter) > 0.99


def test_finds_the_gradient_of_linear_optics_from_single_probes(
    optics_task: "Task", fit: "Fit"
) -> None:
    settings = SurrogateSettings(
        "twin-modes", modes=24, learning_rate=1e-2, average=0.98, loss=(FitTerm("mse"),)
    )
    fitter = fit(optics_task, settings, shots=2000, steps=300)
    assert optics_task.cosine(fitter) > 0.97


def test_finds_most_of_the_gradient_behind_a_kerr_medium(
    kerr_task: "Task", fit: "Fit"
) -> None:
    settings = SurrogateSettings("twin-modes", learning_rate=1e-2)
    fitter = fit(kerr_task, settings, shots=4000, steps=600)
    assert kerr_task.cosine(fitter) > 0.9


@pytest.mark.parametrize("modes", [2, 9])
def test_every_output_starts_with_variance_one(modes: int) -> None:
    generator = Generator().manual_seed(1)
    twin = TwinModes(Ports(40, 3), modes=modes, generator=generator)
    phase = 2 * torch.pi * torch.rand(4000, 40, generator=generator)
    with torch.no_grad():
        scaled = twin.predict(phase)
    assert scaled.mean(dim=0).abs().max() < 0.4
    torch.testing.assert_close(scaled.std(0), torch.ones(3), rtol=0, atol=0.4)


def test_predicts_the_sum_of_squared_modes() -> None:
    twin = TwinModes(Ports(5, 2), modes=4, generator=Generator().manual_seed(1))
    phase = torch.randn(3, 5, generator=Generator().manual_seed(2))
    with torch.no_grad():
        twin.offset.normal_(generator=Generator().manual_seed(3))
        real, imag = twin.weight.chunk(2, dim=1)
        offset_real, offset_imag = twin.offset.chunk(2)
        field = torch.exp(1j * phase) @ torch.complex(real, imag)
        field = field + torch.complex(offset_real, offset_imag)
        expected = field.abs().square() @ twin.mix + twin.bias
        torch.testing.assert_close(twin.predict(phase), expected)


@pytest.mark.parametrize(("modes", "circular"), [(0, True), (4, False)])
def test_refuses_no_mode_and_plain_numbers(modes: int, *, circular: bool) -> None:
    ports = Ports(5, 2, circular=circular)
    with pytest.raises(ValueError, match=f"modes={modes}, circular={circular}"):
        TwinModes(ports, modes=modes, generator=Generator().manual_seed(0))
