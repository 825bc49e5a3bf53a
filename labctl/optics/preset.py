"""Presets: media with the numbers of a publication, or marked as illustrative.

Marks: [S] a published source, [G] a guess. The bench files of the same names hold
the dimensionless numbers that follow; a test compares them.
"""

from dataclasses import dataclass

from labctl.optics import knob


@dataclass(frozen=True)
class RubidiumVapour:
    """Hot rubidium vapour: saturable, and defocusing on this side of the line.

    The example of the NLSE package [1]_; vapour as a learning machine: [2]_.

    Parameters
    ----------
    wavelength_m
        Of the D2 line [S].
    n2_m2_per_w
        -1.6e-9: defocusing [S].
    saturation_w_per_m2
        1e5 [S].
    absorption_per_m
        20, of the intensity [S]. That it saturates like the index is [G].
    length_m
        Of the cell, 10 mm [S].
    power_w, radius_m
        1.05 W in a beam of 2.23 mm [S].
    macropixel_m
        32 macropixels across a window in which the beam's radius is .52 [G].

    References
    ----------
    .. [1] T. Aladjidi, C. Piekarski, Q. Glorieux, "NLSE: a package to solve the
       nonlinear Schroedinger equation", github.com/Quantum-Optics-LKB/NLSE.
    .. [2] arXiv 2409.04312 and 2401.03791 (abstracts only).
    """

    wavelength_m: float = 780e-9
    n2_m2_per_w: float = -1.6e-9
    saturation_w_per_m2: float = 1e5
    absorption_per_m: float = 20.0
    length_m: float = 10e-3
    power_w: float = 1.05
    radius_m: float = 2.23e-3
    macropixel_m: float = 2.23e-3 / 0.52 / 32

    def knobs(self) -> dict[str, float]:
        """Return the dimensionless numbers: b, saturation, fresnel and loss."""
        peak = knob.peak_intensity_w_per_m2(self.power_w, self.radius_m)
        return {
            "b": knob.nonlinear_phase_rad(
                self.n2_m2_per_w, peak, self.length_m, self.wavelength_m
            ),
            "saturation": self.saturation_w_per_m2 / peak,
            "fresnel": knob.fresnel(
                self.length_m, self.wavelength_m, self.macropixel_m
            ),
            "loss": self.absorption_per_m * self.length_m,
        }


@dataclass(frozen=True)
class GradedIndexFibre:
    """A short multimode fibre with a parabolic index: ILLUSTRATIVE.

    Fibre values of [1]_, which also resolves time; here every instant of the pulse
    sees the peak power. Polarisation and chromatic dispersion are left out.

    Parameters
    ----------
    wavelength_m
        1030 nm [S].
    index
        On the axis, 1.44 [S]; n(r) = index (1 - contrast r^2 / core^2).
    n2_m2_per_w
        3.2e-20 [S].
    core_m
        Radius of the core, 25 um [S].
    contrast
        .01 [S].
    window_m
        54 um [S].
    length_m
        .8 mm, nearly three quarters of a pitch [G].
    power_w
        Within the pulse, 2.5 MW [G]: a nonlinear phase of about 1 rad.
    radius_m
        Of the beam at the entrance, .3 of the window [G].
    macropixel_m
        16 across the window [G].

    References
    ----------
    .. [1] U. Tegin et al., "Scalable optical learning operator", Nature
       Computational Science 1 (2021), doi 10.1038/s43588-021-00112-0.
    """

    wavelength_m: float = 1030e-9
    index: float = 1.44
    n2_m2_per_w: float = 3.2e-20
    core_m: float = 25e-6
    contrast: float = 0.01
    window_m: float = 54e-6
    length_m: float = 0.8e-3
    power_w: float = 2.5e6
    radius_m: float = 0.3 * 54e-6
    macropixel_m: float = 54e-6 / 16

    def knobs(self) -> dict[str, float]:
        """Return the dimensionless numbers: b, fresnel and guide."""
        peak = knob.peak_intensity_w_per_m2(self.power_w, self.radius_m)
        axis = knob.wavenumber_per_m(self.wavelength_m, self.index) * self.length_m
        return {
            "b": knob.nonlinear_phase_rad(
                self.n2_m2_per_w, peak, self.length_m, self.wavelength_m
            ),
            "fresnel": knob.fresnel(
                self.length_m, self.wavelength_m, self.macropixel_m, self.index
            ),
            "guide": knob.guide_rad(
                self.contrast, self.core_m, self.macropixel_m, axis
            ),
        }


@dataclass(frozen=True)
class QuadraticSlab:
    """A chi(2) crystal that doubles the frequency: ILLUSTRATIVE.

    Numbers of the size of poled lithium niobate, from memory: every one is [G].
    No walk-off, no dispersion, equal indices but for the mismatch.

    Parameters
    ----------
    wavelength_m
        Of the fundamental [G].
    index
        Of both waves [G].
    d_m_per_v
        Effective coefficient [G].
    length_m
        Of the crystal [G].
    power_w, radius_m
        Within the pulse, and of the beam [G].
    macropixel_m
        Side of a macropixel at the entrance face [G].
    mismatch_per_m
        Wavevector mismatch [G].
    """

    wavelength_m: float = 1064e-9
    index: float = 2.2
    d_m_per_v: float = 14e-12
    length_m: float = 10e-3
    power_w: float = 5e3
    radius_m: float = 0.52 * 16 * 50e-6
    macropixel_m: float = 50e-6
    mismatch_per_m: float = 200.0

    def knobs(self) -> dict[str, float]:
        """Return the dimensionless numbers: kappa, mismatch and fresnel."""
        peak = knob.peak_intensity_w_per_m2(self.power_w, self.radius_m)
        return {
            "kappa": knob.conversion(
                self.d_m_per_v, peak, self.length_m, self.wavelength_m, self.index
            ),
            "mismatch": self.mismatch_per_m * self.length_m,
            "fresnel": knob.fresnel(
                self.length_m, self.wavelength_m, self.macropixel_m, self.index
            ),
        }
