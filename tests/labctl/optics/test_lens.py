import math

import pytest
import torch

from labctl.optics.lens import far_field, far_intensity, intensity


@pytest.mark.parametrize("shape", [(16, 24), (15, 21), (24, 16)])
@pytest.mark.parametrize(("periods_y", "periods_x"), [(0, 0), (3, 0), (0, -5), (2, 4)])
def test_grating_deflects_by_its_number_of_periods(
    shape: tuple[int, int], periods_y: int, periods_x: int
) -> None:
    rows, columns = shape
    y = torch.arange(rows)[:, None] / rows
    x = torch.arange(columns)[None] / columns
    phase = 2 * math.pi * (periods_y * y + periods_x * x)
    spot = intensity(far_field(torch.polar(torch.ones_like(phase), phase)[None]))[0]
    peak = divmod(int(spot.argmax()), columns)
    assert peak == (rows // 2 + periods_y, columns // 2 + periods_x)
    assert float(spot.max()) == pytest.approx(rows * columns, rel=1e-5)


def test_power_stays() -> None:
    generator = torch.Generator().manual_seed(1)
    field = torch.randn(2, 12, 20, dtype=torch.complex64, generator=generator)
    torch.testing.assert_close(
        intensity(far_field(field)).sum(), intensity(field).sum()
    )


@pytest.mark.parametrize("shape", [(3, 16, 24), (1, 15, 21)])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_far_intensity_is_that_of_the_far_field_to_the_bit(
    shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    field = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=dtype)
    assert torch.equal(far_intensity(field), intensity(far_field(field)))
