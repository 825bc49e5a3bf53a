from typing import TYPE_CHECKING

import pytest
import torch
from torch import Generator

from labctl.training.surrogate.settings import Ports, SurrogateSettings
from labctl.training.surrogate.twin_fields import TwinFields
from labctl.training.surrogate.twin_modes import TwinModes

if TYPE_CHECKING:
    from tests.labctl.training.surrogate.conftest import Fit, Task


@pytest.mark.slow
def test_finds_most_of_the_gradient_behind_a_kerr_medium(
    kerr_task: "Task", fit: "Fit"
) -> None:
    settings = SurrogateSettings("twin-fields", modes=24, learning_rate=1e-2)
    fitter = fit(kerr_task, settings, shots=4000, steps=500)
    # .74 measured; twin-modes with as many modes has .82: products bring nothing here.
    assert kerr_task.cosine(fitter) > 0.65


def test_starts_as_the_twin_of_modes() -> None:
    ports = Ports(12, 3)
    fields = TwinFields(ports, modes=5, generator=Generator().manual_seed(1))
    modes = TwinModes(ports, modes=5, generator=Generator().manual_seed(1))
    phase = 6 * torch.rand(50, 12, generator=Generator().manual_seed(2))
    with torch.no_grad():
        modes.weight.copy_(torch.cat(list(fields.weight), dim=1))
        torch.testing.assert_close(
            fields.predict(phase), modes.predict(phase), rtol=1e-4, atol=2e-3
        )


def test_fields_multiply_and_add_as_exponents_and_sums_say() -> None:
    twin = TwinFields(Ports(4, 1), modes=2, generator=Generator().manual_seed(1))
    phase = torch.rand(9, 4, generator=Generator().manual_seed(2))
    with torch.no_grad():
        twin.offset.copy_(torch.tensor([[2.0, 2.0], [0.5, 0.0]]))
        # The first product is a_0^2 a_1, the second a_1; they are added.
        twin.exponent[0] = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
        twin.sum[0] = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        twin.mix.copy_(torch.tensor([[1.0], [0.0]]))
        twin.bias.zero_()
        weight = torch.complex(*twin.weight)
        field = torch.exp(1j * phase) @ weight + torch.complex(*twin.offset)
        expected = (field[:, 0] ** 2 * field[:, 1] + field[:, 1]).abs().square()
        found = twin.predict(phase)[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("modes", "circular"), [(0, True), (4, False)])
def test_refuses_no_mode_and_plain_numbers(modes: int, *, circular: bool) -> None:
    ports = Ports(5, 2, circular=circular)
    with pytest.raises(ValueError, match=f"modes={modes}, circular={circular}"):
        TwinFields(ports, modes=modes, generator=Generator().manual_seed(0))
