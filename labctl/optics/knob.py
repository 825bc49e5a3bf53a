"""Dimensionless numbers of the media from what a lab measures, in SI units."""

import math

_LIGHT_M_PER_S = 299_792_458.0
_VACUUM_F_PER_M = 8.854_187_8128e-12


def wavenumber_per_m(wavelength_m: float, index: float = 1.0) -> float:
    """Wavenumber in a medium, k = 2 pi n / lambda.

    Parameters
    ----------
    wavelength_m
        In vacuum.
    index
        Refractive index.
    """
    return 2 * math.pi * index / wavelength_m


def peak_intensity_w_per_m2(power_w: float, radius_m: float) -> float:
    """Intensity in the middle of a Gaussian beam, 2 P / (pi w^2).

    Parameters
    ----------
    power_w
        Of a pulsed laser: within the pulse.
    radius_m
        Where the intensity has fallen to exp(-2).
    """
    return 2 * power_w / (math.pi * radius_m**2)


def nonlinear_phase_rad(
    n2_m2_per_w: float, intensity_w_per_m2: float, length_m: float, wavelength_m: float
) -> float:
    """Nonlinear phase without saturation, B = k0 n2 I0 L.

    Parameters
    ----------
    n2_m2_per_w
        Kerr index; negative defocuses.
    intensity_w_per_m2
        Where I = 1.
    length_m
        Of the medium.
    wavelength_m
        In vacuum.
    """
    phase = wavenumber_per_m(wavelength_m) * n2_m2_per_w * intensity_w_per_m2
    return phase * length_m


def fresnel(
    length_m: float, wavelength_m: float, macropixel_m: float, index: float = 1.0
) -> float:
    """Diffraction across one macropixel, F = L / (k w^2).

    Parameters
    ----------
    length_m
        Of the medium.
    wavelength_m
        In vacuum.
    macropixel_m
        Side of a macropixel where it is imaged onto the entrance face.
    index
        Refractive index.
    """
    return length_m / (wavenumber_per_m(wavelength_m, index) * macropixel_m**2)


def guide_rad(
    contrast: float, core_m: float, macropixel_m: float, axis_rad: float
) -> float:
    """Lag of a parabolic guide one macropixel off the axis.

    The index is n(r) = n0 (1 - contrast r^2 / core^2), so the phase lags by
    k0 n0 L contrast (w / core)^2.

    Parameters
    ----------
    contrast
        Relative index difference between axis and cladding.
    core_m
        Radius of the core.
    macropixel_m
        Side of a macropixel at the entrance face.
    axis_rad
        Phase along the axis, k0 n0 L.
    """
    return axis_rad * contrast * (macropixel_m / core_m) ** 2


def pitch_m(contrast: float, core_m: float) -> float:
    """Length after which a parabolic guide reproduces its input, 2 pi R/sqrt(2 D).

    Parameters
    ----------
    contrast
        Relative index difference between axis and cladding.
    core_m
        Radius of the core.
    """
    return 2 * math.pi * core_m / math.sqrt(2 * contrast)


def conversion(
    d_m_per_v: float,
    intensity_w_per_m2: float,
    length_m: float,
    wavelength_m: float,
    index: float,
) -> float:
    """Strength of second-harmonic generation, kappa.

    Its square is the undepleted efficiency of plane waves,
    8 pi^2 d^2 L^2 I0 / (eps0 c n^3 lambda^2).

    Parameters
    ----------
    d_m_per_v
        Effective coefficient of the crystal.
    intensity_w_per_m2
        Of the fundamental, where I = 1.
    length_m
        Of the crystal.
    wavelength_m
        Of the fundamental, in vacuum.
    index
        Of both waves.

    References
    ----------
    .. [1] R. W. Boyd, "Nonlinear Optics", 3rd ed. 2008, section 2.7.
    """
    swept = math.pi * d_m_per_v * length_m / wavelength_m
    electric = _VACUUM_F_PER_M * _LIGHT_M_PER_S * index**3
    return math.sqrt(8 * swept**2 * intensity_w_per_m2 / electric)
