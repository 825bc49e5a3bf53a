import math

import torch

from labctl.optics.kicks import Waves


def test_a_transfer_is_what_a_transform_there_and_back_needs() -> None:
    shape, length = (6, 8), torch.tensor(0.7, dtype=torch.float64)
    rows, columns = (
        2 * math.pi * torch.fft.fftfreq(side, dtype=torch.float64) for side in shape
    )
    transfer = Waves(-(rows**2) / 2, -(columns**2) / 2).transfer(length)
    # A plane wave of two periods down and one across keeps its size and is late.
    y, x = torch.arange(6)[:, None] / 6, torch.arange(8) / 8
    wave = torch.polar(torch.ones(shape), 2 * math.pi * (2 * y + x)).to(
        torch.complex128
    )
    there = torch.fft.ifft2(torch.fft.fft2(wave) * transfer, norm="forward")
    late = (2 * math.pi) ** 2 * ((2 / 6) ** 2 + (1 / 8) ** 2) / 2
    expected = wave * torch.exp(-1j * length * late)
    torch.testing.assert_close(there, expected.to(there.dtype), atol=1e-6, rtol=1e-6)
