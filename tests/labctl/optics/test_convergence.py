import math

import pytest
import torch

from labctl.optics.convergence import critical_ratio, nyquist_share, step_gate


def test_gate_is_the_relative_change() -> None:
    fine = torch.ones(2, 3, 5)
    assert step_gate(fine * 1.02, fine) == pytest.approx(0.02, rel=1e-4)


def test_nyquist_share_counts_only_fast_waves() -> None:
    x = torch.arange(24).expand(20, 24)
    y = torch.arange(20)[:, None].expand(20, 24)
    slow = torch.polar(torch.ones(20, 24), 2 * math.pi * x * 2 / 24)
    fast_x = torch.polar(torch.ones(20, 24), 2 * math.pi * x * 11 / 24)
    fast_y = torch.polar(torch.ones(20, 24), 2 * math.pi * y * 9 / 20)
    assert nyquist_share(slow[None]) < 1e-9
    assert nyquist_share(fast_x[None]) == pytest.approx(1)
    assert nyquist_share((slow + fast_y)[None]) == pytest.approx(0.5, rel=1e-4)


def test_critical_ratio_of_a_gaussian_beam() -> None:
    # 2 k g P / 11.70 with P = pi w^2 / 2.
    side = torch.arange(96) - 48.0
    r2 = side[:80, None] ** 2 + side[None] ** 2
    beam = torch.exp(-2 * r2 / 10.0**2)
    want = 2 * 3 / 1.6 * math.pi * 100 / 2 / 11.70
    assert critical_ratio(beam, 3.0, 1.6) == pytest.approx(want, rel=1e-3)
    assert critical_ratio(beam, 3.0, 0.0) == math.inf
