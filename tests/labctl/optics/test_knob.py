import math

import pytest

from labctl.optics import knob


def test_the_published_vapour_gives_the_published_numbers() -> None:
    peak = knob.peak_intensity_w_per_m2(1.05, 2.23e-3)
    assert peak == pytest.approx(1.34e5, rel=5e-3)
    b = knob.nonlinear_phase_rad(-1.6e-9, peak, 10e-3, 780e-9)
    assert b == pytest.approx(-17, abs=0.5)
    assert b / (1 + peak / 1e5) == pytest.approx(-7.4, abs=0.05)


def test_diffraction_is_length_over_wavenumber_and_area() -> None:
    # 2 mm window of 16 macropixels at 1 um over 10 mm: F = .10 of physics tables.
    assert knob.fresnel(10e-3, 1e-6, 2e-3 / 16) == pytest.approx(0.102, abs=1e-3)
    assert knob.fresnel(10e-3, 1e-6, 2e-3 / 16, 2.0) == pytest.approx(0.051, abs=1e-3)


def test_guide_and_diffraction_agree_on_the_pitch() -> None:
    wavelength, index, core, contrast, macropixel = 1030e-9, 1.44, 25e-6, 0.01, 4e-6
    length = knob.pitch_m(contrast, core)
    axis = knob.wavenumber_per_m(wavelength, index) * length
    guide = knob.guide_rad(contrast, core, macropixel, axis)
    spread = knob.fresnel(length, wavelength, macropixel, index)
    # The ray equation x'' = -2 fresnel guide x turns once over the length.
    assert math.sqrt(2 * spread * guide) == pytest.approx(2 * math.pi)


def test_conversion_is_boyds() -> None:
    # Written out: 8 pi^2 d^2 L^2 I / (eps0 c n^3 lambda^2).
    got = knob.conversion(14e-12, 1e10, 10e-3, 1064e-9, 2.2)
    want = 8 * math.pi**2 * (14e-12 * 10e-3 / 1064e-9) ** 2 * 1e10
    want /= 8.8541878e-12 * 299792458 * 2.2**3
    assert got == pytest.approx(math.sqrt(want))
    assert knob.conversion(14e-12, 4e10, 10e-3, 1064e-9, 2.2) == pytest.approx(2 * got)
