"""The light path without noise: panel levels in, light on the sensor out."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from drivers.sim.noise import Stream, generator
from drivers.sim.options import Options
from labctl.optics import cuda, harmonic, scatterer
from labctl.optics.kernel import Chosen, choose
from labctl.optics.lens import far_intensity, intensity
from labctl.optics.medium import SaturableKerr, SecondHarmonic, ThickScatterer
from labctl.optics.panel import PhaseCurve, blur, modulate
from labctl.optics.propagation import Crossing, Plan, plan, propagate

LEVELS = 256


@dataclass(frozen=True, eq=False)
class Illumination:
    """How each field is lit.

    Parameters
    ----------
    power
        Power over nominal power.
    tilt_px
        Direction of the beam along rows and columns, in camera pixels; None
        for straight ahead.
    ripple_rad
        Common phase of the panel; None for none.
    element_rad
        Phase added to each point of the panel; None for none.
    """

    power: Float[Tensor, " field"]
    tilt_px: Float[Tensor, "field axis"] | None = None
    ripple_rad: Float[Tensor, " field"] | None = None
    element_rad: Float[Tensor, "field row column"] | None = None


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: as fast on these sizes, and bit for bit the same."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class LightPath:
    """Panel, beam, medium and lens of one specimen.

    Parameters
    ----------
    options
        What is simulated.

    Raises
    ------
    ValueError
        The curve of the panel would fall somewhere, or the kernel or the device
        cannot be had.
    """

    def __init__(self, options: Options) -> None:
        self.shape = options.grid
        self.device = cuda.device_of(options.device)
        self.dtype = (
            torch.complex128 if options.precision == "complex128" else torch.complex64
        )
        self.real = torch.float64 if self.dtype == torch.complex128 else torch.float32
        self.curve = phase_curve(options)
        uneven = unevenness(options, self.real)
        self._uneven = None if uneven is None else uneven.to(self.device)
        self.sigma_px = options.panel.crosstalk_macropixels * options.macropixel_px
        self.zero_order = options.panel.zero_order
        bow = curvature(options, self.real)
        self.curvature_rad = None if bow is None else bow.to(self.device)
        beam = gaussian(self.shape, options.light.radius).to(self.dtype)
        self.beam = beam.to(self.device)
        self.chosen = crossing(options, self.dtype)
        self.plan = self.chosen.crossing
        self.chunk = self.plan.chunk
        # What is recorded for one shape computes no other.
        self.is_whole = isinstance(self.plan, cuda.Recorded)
        self._view = options.view
        # Places along the rows, then along the columns, and which axis each is of.
        self._at = torch.cat(
            [torch.arange(side, dtype=self.real) / side - 0.5 for side in self.shape]
        ).to(self.device)
        self._axis = torch.tensor([0] * self.shape[0] + [1] * self.shape[1])
        self._axis = self._axis.to(self.device)
        # Two threads would add in another order.
        with one_thread():
            self._total = float(intensity(self.beam).double().sum())

    @property
    def device_name(self) -> str:
        """Which graphics processor computes; empty for none."""
        cpu = self.device.type == "cpu"
        return "" if cpu else f"cuda ({torch.cuda.get_device_name(self.device)})"

    def entrance(
        self, levels: Float[Tensor, "field row column"], lit: Illumination
    ) -> Tensor:
        """Fields at the entrance of the medium.

        Parameters
        ----------
        levels
            Gray levels, fractions included.
        lit
            How each field is lit.

        Returns
        -------
        field
            Complex, ``(field, row, column)``.
        """
        phase = self.curve(levels / LEVELS)
        if self._uneven is not None:
            phase = phase * self._uneven
        if lit.element_rad is not None:
            phase = phase + lit.element_rad
        phase = blur(phase, self.sigma_px)
        if self.curvature_rad is not None:
            phase = phase + self.curvature_rad
        if lit.ripple_rad is not None:
            phase = phase + lit.ripple_rad[:, None, None]
        beam = self.beam * lit.power.sqrt()[:, None, None]
        if lit.tilt_px is not None:
            lean = 2 * math.pi * lit.tilt_px[:, self._axis] * self._at
            ramps = torch.polar(torch.ones_like(lean), lean)
            rows, columns = ramps.tensor_split([self.shape[0]], dim=1)
            beam = beam * rows[:, :, None] * columns[:, None, :]
        return modulate(phase, self.zero_order) * beam

    def fraction(
        self,
        levels: Float[Tensor, "field row column"],
        lit: Illumination,
        plan: Crossing | None = None,
    ) -> Float[Tensor, "field row column"]:
        """Light on each pixel of the sensor, at most one chunk of fields.

        Parameters
        ----------
        levels
            Gray levels, fractions included.
        lit
            How each field is lit.
        plan
            The medium as it is at the time; None for as it was made.

        Returns
        -------
        fraction
            In units of all the light on the panel at nominal power.
        """
        return self.on_sensor(self.entrance(levels, lit), plan or self.plan)

    def on_sensor(
        self, field: Complex[Tensor, "field row column"], plan: Crossing
    ) -> Float[Tensor, "field row column"]:
        """Light on each pixel of the sensor, from fields at the entrance.

        Parameters
        ----------
        field
            As :meth:`entrance` gives them.
        plan
            The medium: this light path's, or the same in another number of
            steps.

        Returns
        -------
        fraction
            In units of all the light on the panel at nominal power.
        """
        return self.seen(propagate(field, plan))

    def seen(
        self, at_exit: Complex[Tensor, "field row column"]
    ) -> Float[Tensor, "field row column"]:
        """Light on each pixel of the sensor, from fields at the exit face.

        Parameters
        ----------
        at_exit
            As the medium lets them out.

        Returns
        -------
        fraction
            In units of all the light on the panel at nominal power.
        """
        far = self._view == "far_field"
        return (far_intensity(at_exit) if far else intensity(at_exit)) / self._total


def gaussian(shape: tuple[int, int], radius: float) -> Float[Tensor, "row column"]:
    """Amplitude of the beam, 1 in the middle.

    Parameters
    ----------
    shape
        Grid ``(height, width)``.
    radius
        Of exp(-2) in intensity, as a fraction of the shorter side.

    Returns
    -------
    amplitude
        In float64.
    """
    rows, columns = (
        torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in shape
    )
    r2 = rows[:, None] ** 2 + columns[None] ** 2
    return torch.exp(-r2 / (radius * min(shape)) ** 2)


def curvature(options: Options, dtype: torch.dtype) -> Tensor | None:
    """Bow of this specimen's backplane.

    Parameters
    ----------
    options
        What is simulated.
    dtype
        Precision.

    Returns
    -------
    phase
        In rad, mean 0, ``(row, column)``; None for a flat one.
    """
    size = options.panel.curvature_rad
    if size == 0:
        return None
    y, x = np.meshgrid(
        *(np.linspace(-1, 1, side) for side in options.grid), indexing="ij"
    )
    r2 = x**2 + y**2
    # Zernike's, of unit variance on the disc: focus, two of astigmatism, of coma.
    modes = [
        math.sqrt(3) * (2 * r2 - 1),
        math.sqrt(6) * (x**2 - y**2),
        math.sqrt(6) * 2 * x * y,
        math.sqrt(8) * (3 * r2 - 2) * x,
        math.sqrt(8) * (3 * r2 - 2) * y,
    ]
    weights = generator(options.device_seed, Stream.CURVATURE).standard_normal(5)
    bow = sum(weight * mode for weight, mode in zip(weights, modes, strict=True))
    bow = bow - np.mean(bow)
    return torch.from_numpy(bow * (size / np.std(bow))).to(dtype)


def unevenness(options: Options, dtype: torch.dtype) -> Tensor | None:
    """How much more or less than its mean curve each pixel of this specimen shifts.

    Parameters
    ----------
    options
        What is simulated.
    dtype
        Precision.

    Returns
    -------
    factor
        Of mean 1, ``(row, column)``; None for an even panel.
    """
    size = options.panel.lut_unevenness
    if size == 0:
        return None
    y, x = np.meshgrid(
        *(np.linspace(-1, 1, side) for side in options.grid), indexing="ij"
    )
    weights = generator(options.device_seed, Stream.UNEVENNESS).standard_normal(5)
    shapes = (y, x, x * y, x**2 - y**2, x**2 + y**2)
    field = sum(w * shape for w, shape in zip(weights, shapes, strict=True))
    field = field - np.mean(field)
    return torch.from_numpy(1 + field * (size / np.std(field))).to(dtype)


def phase_curve(options: Options) -> PhaseCurve:
    """Phase curve of this specimen's panel.

    Parameters
    ----------
    options
        What is simulated.

    Returns
    -------
    curve
        With its own smooth error.

    Raises
    ------
    ValueError
        The error is so great that the phase would fall somewhere.
    """
    panel = options.panel
    bow, skew = generator(options.device_seed, Stream.CURVE).standard_normal(2)
    u = np.arange(LEVELS) / LEVELS
    bend = bow * u * (1 - u) + skew * u * (1 - u) * (1 - 2 * u)
    scale = panel.lut_error / float(np.sqrt(np.mean(bend**2)))
    span = 1 + panel.lut_overshoot
    at = np.linspace(0, 1, LEVELS + 1)
    fall = bow * (2 * at - 1) + skew * (6 * at * (1 - at) - 1)
    steepest = scale * float(np.max(fall))
    if steepest >= span:
        most = panel.lut_error * span / steepest
        text = (
            f"panel.lut_error={panel.lut_error:g}, expected less than {most:.3g}: the "
            f"phase of specimen {options.device_seed} would fall somewhere"
        )
        raise ValueError(text)
    return PhaseCurve(
        2 * math.pi * span, float(bow * scale) / span, float(skew * scale) / span
    )


def crossing(
    options: Options, dtype: torch.dtype, grain: NDArray[np.float64] | None = None
) -> Chosen:
    """Medium of this specimen with the kernel that crosses it.

    Parameters
    ----------
    options
        What is simulated.
    dtype
        Precision.
    grain
        As for :func:`medium_plan`.

    Returns
    -------
    chosen
        Of which kernel, and why.
    """
    made = options.medium
    lacking = f"medium.memory_rad={made.memory_rad:g}, expected 0"
    if options.device == "cuda":
        lacking = "device='cuda', expected cpu"
    elif made.memory_rad == 0:
        lacking = ""
    ready = medium_plan(options, made.steps, dtype, grain)
    chosen = choose(ready, options.kernel, lacking)
    if options.device == "cpu":
        return chosen
    there = cuda.moved(chosen.crossing, cuda.device_of(options.device))
    return replace(chosen, crossing=cuda.Recorded(there, options.grid, cuda.graph))


def medium_plan(
    options: Options,
    steps: int,
    dtype: torch.dtype,
    grain: NDArray[np.float64] | None = None,
) -> Crossing:
    """Medium of this specimen, in any number of steps.

    Parameters
    ----------
    options
        What is simulated.
    steps
        Steps; another number than the options' shows how converged those are.
    dtype
        Precision.
    grain
        Numbers that its disorder is made of, where they are not those of
        :func:`specimen_grain`.

    Returns
    -------
    plan
        For :func:`labctl.optics.propagation.propagate`.
    """
    if options.medium.kind == "tm_shg":
        return _scatter_plan(options, dtype, grain)
    if options.medium.kind == "shg":
        return _pair_plan(options, steps, dtype, grain)
    return kerr_plan(options, steps, dtype, grain)


def specimen_grain(options: Options) -> NDArray[np.float64]:
    """Draw the normal numbers that the disorder of this specimen is made of.

    Parameters
    ----------
    options
        What is simulated.

    Returns
    -------
    grain
        Of the screens ``(screen, row, column)``, or of the scatterer's two
        transmissions.
    """
    rows, columns = options.grid
    if options.medium.kind != "tm_shg":
        source = generator(options.device_seed, Stream.SCREENS)
        return source.standard_normal((options.medium.screens, rows, columns))
    if options.medium.transmission == "dense":
        return np.stack([_entries(options, n) for n in _TRANSMISSIONS])
    phase = np.stack([_phases(options, n) for n in _TRANSMISSIONS])
    # Complex normal numbers whose phases are those.
    source = generator(options.device_seed, Stream.SCREENS, 1 + max(_TRANSMISSIONS))
    size = np.sqrt(2 * source.standard_exponential(phase.shape))
    return np.stack([size * np.cos(phase), size * np.sin(phase)], axis=1)


def kerr_plan(
    options: Options,
    steps: int,
    dtype: torch.dtype,
    grain: NDArray[np.float64] | None = None,
) -> Plan:
    """Medium of one wave: free space, Kerr, saturable Kerr, guide.

    Parameters
    ----------
    options
        What is simulated.
    steps
        Steps.
    dtype
        Precision.
    grain
        Numbers that its screens are made of, where they are not the specimen's.

    Returns
    -------
    plan
        For :func:`labctl.optics.propagation.propagate`.
    """
    made = options.medium
    medium = SaturableKerr(
        b=made.b,
        saturation=math.inf if made.saturation is None else made.saturation,
        fresnel=made.fresnel,
        steps=steps,
        loss=made.loss,
        edge=made.edge,
        guide=made.guide,
        bleaching=made.bleaching,
    )
    size, screens = options.macropixel_px, _placed_screens(options, grain)
    return plan(medium, options.grid, size, screens=screens, dtype=dtype)


def _pair_plan(
    options: Options,
    steps: int,
    dtype: torch.dtype,
    grain: NDArray[np.float64] | None,
) -> harmonic.PairPlan:
    made = options.medium
    medium = SecondHarmonic(
        kappa=made.kappa,
        mismatch=made.mismatch,
        fresnel=made.fresnel,
        steps=steps,
        loss=made.loss,
        edge=made.edge,
        harmonic=_HARMONIC[made.wave],
    )
    size, screens = options.macropixel_px, _placed_screens(options, grain)
    return harmonic.plan(
        medium,
        options.grid,
        size,
        screens=screens,
        domains=_domains(options),
        dtype=dtype,
    )


_HARMONIC = {"fundamental": 1, "second": 2}
_ROUNDS = 2


# Shot is the counter that a specimen's numbers do not use otherwise.
_TRANSMISSIONS = (1, 2)


def _scatter_plan(
    options: Options, dtype: torch.dtype, grain: NDArray[np.float64] | None
) -> scatterer.ScatterPlan:
    made = options.medium
    medium = ThickScatterer(made.conversion, _HARMONIC[made.wave])
    first, second = (
        _transmission(options, n, dtype, None if grain is None else grain[at])
        for at, n in enumerate(_TRANSMISSIONS)
    )
    return scatterer.plan(medium, options.grid, first, second)


def _transmission(
    options: Options, number: int, dtype: torch.dtype, grain: NDArray[np.float64] | None
) -> scatterer.Transmission:
    if options.medium.transmission == "dense":
        normal = _entries(options, number) if grain is None else grain
        return scatterer.dense(torch.from_numpy(normal), dtype)
    phase = (
        _phases(options, number) if grain is None else np.arctan2(grain[1], grain[0])
    )
    return scatterer.structured(torch.from_numpy(phase), dtype)


def _entries(options: Options, number: int) -> NDArray[np.float64]:
    points = options.grid[0] * options.grid[1]
    source = generator(options.device_seed, Stream.SCREENS, number)
    return source.standard_normal((2, points, points))


def _phases(options: Options, number: int) -> NDArray[np.float64]:
    source = generator(options.device_seed, Stream.SCREENS, number)
    return source.uniform(0, 2 * math.pi, (_ROUNDS, *options.grid))


def _placed_screens(
    options: Options, grain: NDArray[np.float64] | None
) -> dict[float, Tensor]:
    made = options.medium
    if made.screens == 0:
        return {}
    white = specimen_grain(options) if grain is None else grain
    screens = _smooth(white, made.screen_macropixels * options.macropixel_px)
    screens *= made.screen_rad / screens.std(axis=(1, 2), keepdims=True)
    places = [(j + 0.5) / made.screens for j in range(made.screens)]
    return dict(zip(places, torch.from_numpy(screens), strict=True))


def _smooth(white: NDArray[np.float64], length: float) -> NDArray[np.float64]:
    # A Gaussian spectrum gives a Gaussian correlation of this length.
    rows, columns = white.shape[-2:]
    f2 = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.fftfreq(columns)[None] ** 2
    smooth = np.fft.ifft2(
        np.fft.fft2(white) * np.exp(-((np.pi * length) ** 2) * f2 / 2)
    ).real
    level: NDArray[np.float64] = smooth - smooth.mean(axis=(1, 2), keepdims=True)
    return level


def _domains(options: Options) -> Tensor | None:
    made = options.medium
    if made.domains == 0:
        return None
    source = generator(options.device_seed, Stream.DOMAINS)
    white = source.standard_normal((made.domains, *options.grid))
    smooth = _smooth(white, made.domain_macropixels * options.macropixel_px)
    return torch.from_numpy(np.where(smooth < 0, -1.0, 1.0))
