"""Options of the simulated light path: every imperfection with its size.

Each section is one dataclass; every effect has a neutral value that switches it
off, and ``ideal`` switches off all at once. Marks say where a default comes
from: [S] a published source, [G] a guess until a lab measures it, [D] a choice that
makes the bench what it is.
"""

import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Literal, TypeVar

T = TypeVar("T")
Kind = Literal["free", "kerr_sat", "kerr", "grin_kerr", "shg", "tm_shg"]


def _number(default: T, low: float, high: float) -> T:
    return field(default=default, metadata={"low": low, "high": high})


def _whole(default: int, low: int, high: int) -> int:
    return field(default=default, metadata={"low": low, "high": high})


# Knobs of one kind of medium alone; 0 leaves them out everywhere else.
_OWN_KNOBS = {
    "guide": "grin_kerr",
    "kappa": "shg",
    "mismatch": "shg",
    "conversion": "tm_shg",
    "domains": "shg",
}
# Media in which light may write an index that lasts.
_REMEMBERING = {"free", "kerr_sat", "kerr", "grin_kerr"}


@dataclass(frozen=True)
class MediumOptions:
    """The medium, by its dimensionless numbers; thin screens may disorder any.

    Parameters
    ----------
    kind
        Equation [D]: ``free`` (space), ``kerr_sat`` (saturable Kerr), ``kerr``,
        ``grin_kerr`` (saturable Kerr in a parabolic guide, as in a multimode
        fibre), ``shg`` (a chi(2) crystal), ``tm_shg`` (a thick scatterer that
        doubles the frequency: neither steps nor screens).
    b
        Nonlinear phase at I = 1 without saturation, in rad; positive focuses;
        here 3 [D], hot vapour reaches about 10 [S]. Kerr kinds only, 0 elsewhere.
    saturation
        Intensity at which the response has halved, in units of the peak at
        nominal power; null for none. Here 1 [D], vapour 0.75 [S]. ``kerr_sat`` and
        ``grin_kerr`` only, null elsewhere.
    fresnel
        Diffraction across one macropixel, L/(k w^2) [D].
    steps
        Steps of the split-step scheme: as many as the step gate wants [D].
    loss
        Absorption of the intensity, alpha L. Vapour: 0.2 [S]; here 0.
    bleaching
        Whether the absorption saturates as the nonlinear phase does.
    guide
        Phase in rad by which the guide lags one macropixel off the axis;
        ``grin_kerr`` only.
    kappa
        Conversion: the harmonic leaves with tanh(kappa)^2 at I = 1 without
        diffraction; ``shg`` only.
    mismatch
        Wavevector mismatch times length, in rad; ``shg`` only.
    conversion
        Power of the harmonic over that of a wave of I = 1; ``tm_shg`` only.
    transmission
        Of ``tm_shg``: ``dense`` (independent entries [S], at most 1,024 grid
        points) or ``structured`` (random phases and Fourier transforms [G]).
    wave
        What a filter lets through to the camera, of ``shg`` and ``tm_shg`` [D].
    edge
        Absorption at the window's edge, as an exponent of the amplitude [D].
    screens
        Thin random phase screens, evenly through the medium; ``steps`` must be
        a multiple of twice their number [G].
    screen_rad
        Phase of each screen, rms [G].
    screen_macropixels
        Correlation length of a screen, in macropixels [G].
    domains
        Layers of random domains, in which the conversion has either sign (random
        quasi-phase matching); 0 for a crystal of one domain; ``shg`` only [G].
        ``steps`` must be a multiple.
    domain_macropixels
        Their size across the beam, in macropixels [G].
    memory_rad
        Photorefractive memory: phase that the medium adds at I = 1, without
        saturation, when it has been exposed for long; 0 for none. Media of one
        wave only [G].
    memory_s
        Time in which that index follows the light [G].
    """

    kind: Kind = "kerr_sat"
    b: float = _number(3.0, -1e3, 1e3)
    saturation: float | None = _number(1.0, 1e-6, 1e9)
    fresnel: float = _number(0.1, 0.0, 1e3)
    steps: int = _whole(16, 1, 4096)
    loss: float = _number(0.0, 0.0, 50.0)
    bleaching: bool = False
    guide: float = _number(0.0, 0.0, 1e6)
    kappa: float = _number(0.0, -1e3, 1e3)
    mismatch: float = _number(0.0, -1e3, 1e3)
    conversion: float = _number(0.0, 0.0, 1e3)
    transmission: Literal["dense", "structured"] = "structured"
    wave: Literal["fundamental", "second"] = "second"
    edge: float = _number(2.0, 0.0, 1e3)
    screens: int = _whole(4, 0, 1024)
    screen_rad: float = _number(0.1, 0.0, 100.0)
    screen_macropixels: float = _number(1.0, 0.1, 1e3)
    domains: int = _whole(0, 0, 1024)
    domain_macropixels: float = _number(1.0, 0.1, 1e3)
    memory_rad: float = _number(0.0, -1e3, 1e3)
    memory_s: float = _number(10.0, 1e-3, 1e9)

    def __post_init__(self) -> None:
        for name, kind in _OWN_KNOBS.items():
            got = getattr(self, name)
            if got != 0 and self.kind != kind:
                text = f"{name}={got:g}, expected 0 unless kind is {kind}"
                raise ValueError(text)
        if self.memory_rad != 0 and self.kind not in _REMEMBERING:
            kinds = ", ".join(sorted(_REMEMBERING))
            text = f"memory_rad={self.memory_rad:g}, expected 0 unless kind is {kinds}"
            raise ValueError(text)
        needed = {"grin_kerr": "guide", "shg": "kappa", "tm_shg": "conversion"}
        name = needed.get(self.kind, "")
        if name and getattr(self, name) == 0:
            text = f"{name}=0, expected another number with kind {self.kind}"
            raise ValueError(text)

    def effective(self) -> "MediumOptions":
        """Return what is really simulated: what the equation lacks is neutral."""
        if self.kind in {"kerr_sat", "grin_kerr"}:
            return self
        b = self.b if self.kind == "kerr" else 0.0
        screens = 0 if self.kind == "tm_shg" else self.screens
        return replace(self, b=b, saturation=None, screens=screens)


@dataclass(frozen=True)
class LightOptions:
    """The beam on the panel.

    Parameters
    ----------
    radius
        Radius at which the intensity has fallen to exp(-2), as a fraction of
        the window's shorter side: four fifths of the macropixels get more than a
        tenth of the peak [D].
    power_noise
        Noise of the power from shot to shot, relative, rms [G].
    pointing_px
        Jitter of the beam's direction from shot to shot along each axis, in
        camera pixels, rms [G].
    """

    radius: float = _number(0.52, 0.05, 1e3)
    power_noise: float = _number(0.003, 0.0, 0.1)
    pointing_px: float = _number(0.05, 0.0, 10.0)


@dataclass(frozen=True)
class PanelOptions:
    """The liquid-crystal panel.

    Parameters
    ----------
    shape
        Rows and columns of pixels, over which the grid is laid; null for one
        pixel a grid point.
    lut_error
        Smooth error of the phase over the levels, rms, as a fraction of 2 pi
        [G].
    lut_overshoot
        Span of the levels beyond 2 pi, as a fraction [G].
    lut_unevenness
        Smooth variation of the phase over the panel, the same at all levels, as a
        fraction of it, rms: a liquid crystal that is not equally thick or warm [G].
    crosstalk_macropixels
        Gaussian blur of the phase, sigma in macropixels; the model is [S], the
        size [G].
    zero_order
        Share of the power that is not modulated [G]; 1: the panel does nothing.
    curvature_rad
        Bow of the backplane over the panel, rms: focus, astigmatism and coma of
        this specimen; 0.5 is usual [G].
    flicker_rad
        Amplitude of the common phase ripple; that there is one is [S], its size
        [G].
    flicker_hz
        Its frequency [G].
    fast_s, slow_s
        Time constants of the response to a vanishing and to a full step of
        level: a quarter of 1/130 s and of 1/32 s [S, our reading].
    told_settle_s
        Time to settle that the panel is sold with, right or wrong; null for the true
        one, of a full step to half a level [D].
    refresh_hz
        How often a panel on a display output takes up what was sent: a write waits
        for the next refresh, which come at whole multiples of the period; 0 for a
        panel that takes it up at once [D]. 60 is usual.
    write_s
        Time that a write takes, from that refresh on [G].
    """

    shape: tuple[int, int] | None = None
    lut_error: float = _number(0.02, 0.0, 0.05)
    lut_overshoot: float = _number(0.03, -0.5, 0.5)
    lut_unevenness: float = _number(0.0, 0.0, 0.2)
    crosstalk_macropixels: float = _number(0.25, 0.0, 2.0)
    zero_order: float = _number(0.03, 0.0, 1.0)
    curvature_rad: float = _number(0.0, 0.0, 10.0)
    flicker_rad: float = _number(0.05, 0.0, 1.0)
    flicker_hz: float = _number(120.0, 0.0, 1e6)
    fast_s: float = _number(1 / 520, 0.0, 10.0)
    slow_s: float = _number(1 / 128, 0.0, 10.0)
    told_settle_s: float | None = _number(None, 0.0, 100.0)
    refresh_hz: float = _number(0.0, 0.0, 1e6)
    write_s: float = _number(0.002, 0.0, 10.0)

    def __post_init__(self) -> None:
        if not self.fast_s <= self.slow_s or (self.fast_s == 0) != (self.slow_s == 0):
            text = (
                f"fast_s={self.fast_s:g}, expected more than 0 and at most slow_s="
                f"{self.slow_s:g}, or 0 for both"
            )
            raise ValueError(text)
        if 0 < self.refresh_hz < 1:
            text = f"refresh_hz={self.refresh_hz:g}, expected 0 for none, or at least 1"
            raise ValueError(text)


@dataclass(frozen=True)
class SensorOptions:
    """The camera's sensor, in the manner of a 16-bit scientific CMOS.

    Parameters
    ----------
    shape
        Rows and columns of pixels, on which the light of the grid falls; null
        for one pixel a grid point.
    photons_per_s
        Photons that would reach the whole sensor a second at nominal power
        through a medium without loss: the strength of the filter before it [G].
    quantum_efficiency
        Electrons a photon [G].
    prnu
        Fixed spread of the pixels' sensitivity, rms, relative [G].
    dsnu_e
        Fixed spread of the pixels' dark level, rms [G].
    mirrored
        Whether the camera sees the light as in a mirror, left and right exchanged [D].
    turn_deg
        How far the picture is turned about the sensor's middle, from rows towards
        columns; after the mirror [D].
    shift_row_px, shift_column_px
        How far it is shifted after that, in pixels before binning. Light that leaves
        the sensor is lost [D].
    binning
        Side of the square of pixels whose charge is added before it is read: the
        camera then has so many times fewer pixels along each axis, each with the
        wells of all and the read noise of one; 1 for none [D].
    dark_e_per_s
        Dark current of a pixel at 30 degrees Celsius [G].
    hot_pixels
        Share of the pixels that are hot, the same ones for ever; 1e-5 is usual
        [G].
    hot_e_per_s
        Dark current of a hot pixel at 30 degrees Celsius [G].
    temperature_c
        Of the sensor, in degrees Celsius; 30 is that of the reference simulator
        [S]. Below about -60 the law of the dark current is not known to hold.
    doubling_k
        Rise of temperature that doubles the dark current: 8 K [S].
    shot_noise
        Whether light comes in quanta [S].
    read_noise_e
        Noise of a pixel at no light, rms [G].
    well_e
        Full well: 15,000 electrons [S].
    gain_dn_per_e
        Counts an electron at 0 dB [G].
    offset_dn
        Counts in the dark [G].
    readout_s
        Time from the end of an exposure to the arrival of its frame [G].
    """

    shape: tuple[int, int] | None = None
    mirrored: bool = False
    turn_deg: float = _number(0.0, -360.0, 360.0)
    shift_row_px: float = _number(0.0, -65_536.0, 65_536.0)
    shift_column_px: float = _number(0.0, -65_536.0, 65_536.0)
    binning: int = _whole(1, 1, 64)
    photons_per_s: float = _number(2.5e6, 0.0, 1e18)
    quantum_efficiency: float = _number(0.8, 0.01, 1.0)
    prnu: float = _number(0.003, 0.0, 0.2)
    dsnu_e: float = _number(0.2, 0.0, 100.0)
    dark_e_per_s: float = _number(0.5, 0.0, 1e9)
    hot_pixels: float = _number(0.0, 0.0, 1.0)
    hot_e_per_s: float = _number(1e5, 0.0, 1e9)
    temperature_c: float = _number(30.0, -60.0, 80.0)
    doubling_k: float = _number(8.0, 1.0, 100.0)
    shot_noise: bool = True
    read_noise_e: float = _number(0.7, 0.0, 1e4)
    well_e: float = _number(15_000.0, 1.0, 1e9)
    gain_dn_per_e: float = _number(4.0, 1e-3, 1e4)
    offset_dn: float = _number(100.0, 0.0, 60_000.0)
    readout_s: float = _number(0.001, 0.0, 10.0)


@dataclass(frozen=True)
class MeterOptions:
    """The power meter beside the beam.

    Parameters
    ----------
    noise
        Relative noise of a reading, rms [G].
    """

    noise: float = _number(0.001, 0.0, 0.1)


@dataclass(frozen=True)
class DriftOptions:
    """Slow changes, each an Ornstein-Uhlenbeck process in virtual time.

    Sizes are rms of the stationary process, and 0 where it is off; times are
    those over which it forgets. Between two moments t apart a process changes by
    rms * sqrt(2 (1 - exp(-t / time))).

    Parameters
    ----------
    power, power_s
        Of the laser, relative; 0.01 over 100 s to hours is usual [G].
    pointing_px, pointing_s
        Of the beam's direction along each axis, in camera pixels; 0.05 is usual
        [G].
    medium, medium_s
        Of the medium's response, relative: its strength and its saturation
        together, as when temperature or detuning change. 0.01 over an hour is
        usual [G].
    sensor_k, sensor_s
        Of the sensor's temperature, in kelvin: its dark current goes with it. 0.5
        over some minutes is usual without a cooler [G].
    element_rad, element_s
        Of the phase of each macropixel, independently. With 0.3 and 750 s it has
        changed by 0.3 rad rms after 10,000 shots of sim: the drift regime [G].
    speckle, speckle_s
        Decorrelation of the medium's disorder, screens or scatterer: in each
        ``speckle_s`` it becomes sqrt(1 - speckle^2) of what it was and ``speckle``
        of another. 0.02 over 50 s, 1,000 shots of sim, is usual: form and size [G].
    """

    power: float = _number(0.0, 0.0, 0.1)
    power_s: float = _number(1000.0, 1e-3, 1e9)
    pointing_px: float = _number(0.0, 0.0, 10.0)
    pointing_s: float = _number(1000.0, 1e-3, 1e9)
    medium: float = _number(0.0, 0.0, 0.1)
    medium_s: float = _number(3600.0, 1e-3, 1e9)
    sensor_k: float = _number(0.0, 0.0, 10.0)
    sensor_s: float = _number(300.0, 1e-3, 1e9)
    element_rad: float = _number(0.0, 0.0, 10.0)
    element_s: float = _number(750.0, 1e-3, 1e9)
    speckle: float = _number(0.0, 0.0, 1.0)
    speckle_s: float = _number(50.0, 0.1, 1e9)


# Longer than the side of any panel or sensor.
_LARGEST_PX = 65_536
# More would not fit into a computer's memory with its medium.
_MOST_POINTS = 2048**2
# A dense matrix of more takes more than 16 MB, and there are two.
_DENSE_POINTS = 1024


@dataclass(frozen=True)
class Options:
    """All of a simulated light path.

    Parameters
    ----------
    grid
        Rows and columns of the fields, and of panel and sensor where these name
        no shape of their own [D].
    macropixel_px
        Side of a macropixel in grid points: the length that ``medium.fresnel``
        and the widths in macropixels are of [D].
    nominal_mw
        Power at which I = 1 in the middle of the beam [D].
    device_seed
        Makes this bench another specimen: its screens, curve and sensor [D].
    precision
        Precision of the fields [D].
    kernel
        What computes the light: ``torch``; ``fused``, a compiled kernel several
        times as fast, for Kerr media and free space on grids of powers of two in
        complex64; ``auto``, that one where it can be had and else torch. Their
        frames differ in rounding, so a record goes on with the one it began
        with [D].
    device
        Where torch computes the light: ``cpu``, or ``cuda``, the first graphics
        processor that torch can use. Frames differ in rounding [D].
    view
        Where the camera looks: behind a lens (``far_field``), or at the exit
        face (``image``, upright and at the panel's scale) [D].
    ideal
        Every imperfection of light, panel, sensor and meter off, and all drift,
        whatever their sections say.
    medium, light, panel, sensor, meter, drift
        The parts.
    """

    grid: tuple[int, int] = (64, 64)
    macropixel_px: int = _whole(4, 1, 1024)
    nominal_mw: float = _number(5.0, 1e-6, 1e6)
    device_seed: int = _whole(1, 0, 2**63 - 1)
    precision: Literal["complex64", "complex128"] = "complex64"
    kernel: Literal["torch", "fused", "auto"] = "torch"
    device: Literal["cpu", "cuda"] = "cpu"
    view: Literal["far_field", "image"] = "far_field"
    ideal: bool = False
    medium: MediumOptions = MediumOptions()
    light: LightOptions = LightOptions()
    panel: PanelOptions = PanelOptions()
    sensor: SensorOptions = SensorOptions()
    meter: MeterOptions = MeterOptions()
    drift: DriftOptions = DriftOptions()

    def __post_init__(self) -> None:
        # Multiples of 4 start every field at the same place of a vector
        # register: only then is a field computed alone bit for bit the same as
        # in the middle of a batch.
        if any(side < 8 or side % 4 for side in self.grid):
            text = f"grid={list(self.grid)}, expected multiples of 4 from 8"
            raise ValueError(text)
        if self.grid[0] * self.grid[1] > _MOST_POINTS:
            text = f"grid={list(self.grid)}, expected at most {_MOST_POINTS:,} points"
            raise ValueError(text)
        screens, steps = self.medium.screens, self.medium.steps
        scatters = self.medium.kind == "tm_shg"
        if screens and steps % (2 * screens) and not scatters:
            text = (
                f"medium.steps={steps}, expected a multiple of twice "
                f"medium.screens={screens}, such as {_multiple(steps, 2 * screens)}"
            )
            raise ValueError(text)
        domains = self.medium.domains
        if domains and steps % domains:
            text = (
                f"medium.steps={steps}, expected a multiple of medium.domains="
                f"{domains}, such as {_multiple(steps, domains)}"
            )
            raise ValueError(text)
        if self.drift.speckle > 0 and screens == 0 and not scatters:
            text = (
                f"drift.speckle={self.drift.speckle:g}, expected 0 where nothing is "
                "disordered (medium.screens=0)"
            )
            raise ValueError(text)
        points = self.grid[0] * self.grid[1]
        dense = scatters and self.medium.transmission == "dense"
        if dense and points > _DENSE_POINTS:
            text = (
                f"medium.transmission='dense' on {points} grid points, expected at "
                f"most {_DENSE_POINTS} (grid: [32, 32]), or 'structured'"
            )
            raise ValueError(text)
        if self.device == "cuda" and self.medium.memory_rad != 0:
            text = (
                f"device='cuda', expected cpu with medium.memory_rad="
                f"{self.medium.memory_rad:g}: what light has written is kept there"
            )
            raise ValueError(text)
        self._check_binning()
        self._check_turns()

    def _check_binning(self) -> None:
        binning = self.sensor.binning
        if any(side % binning for side in self.pixels):
            text = (
                f"sensor.binning={binning}, expected a number that divides both "
                f"sides of {list(self.pixels)} pixels"
            )
            raise ValueError(text)

    def _check_turns(self) -> None:
        fewest = fewest_steps(self.medium, self.grid, self.macropixel_px)
        for what, least in fewest.items():
            if self.medium.steps < least:
                text = (
                    f"medium.steps={self.medium.steps}, expected at least {least}: "
                    f"fewer under-sample the {what}"
                )
                raise ValueError(text)

    @property
    def panel_shape(self) -> tuple[int, int]:
        """Rows and columns of the panel."""
        return self.panel.shape or self.grid

    @property
    def pixels(self) -> tuple[int, int]:
        """Rows and columns of the sensor before binning."""
        return self.sensor.shape or self.grid

    @property
    def sensor_shape(self) -> tuple[int, int]:
        """Rows and columns of a whole frame."""
        rows, columns = self.pixels
        return rows // self.sensor.binning, columns // self.sensor.binning

    def effective(self) -> "Options":
        """Return what is really simulated: with ``ideal``, all that is neutral."""
        medium = self.medium.effective()
        if not self.ideal:
            return self if medium is self.medium else replace(self, medium=medium)
        return replace(
            self,
            medium=medium,
            light=replace(self.light, power_noise=0.0, pointing_px=0.0),
            panel=replace(
                self.panel,
                lut_error=0.0,
                lut_overshoot=0.0,
                lut_unevenness=0.0,
                crosstalk_macropixels=0.0,
                zero_order=0.0,
                curvature_rad=0.0,
                flicker_rad=0.0,
                fast_s=0.0,
                slow_s=0.0,
            ),
            sensor=replace(
                self.sensor,
                prnu=0.0,
                dsnu_e=0.0,
                dark_e_per_s=0.0,
                hot_pixels=0.0,
                shot_noise=False,
                read_noise_e=0.0,
                offset_dn=0.0,
            ),
            meter=replace(self.meter, noise=0.0),
            drift=DriftOptions(),
        )


def _multiple(least: int, of: int) -> int:
    return -(-least // of) * of


def fewest_steps(
    medium: MediumOptions, grid: tuple[int, int], side: int
) -> dict[str, int]:
    """Return the steps below which a grid sees another medium.

    From one grid point at the window's edge to the next a step may turn the guided
    light by less than half a turn; and so from one spatial frequency to the next,
    else the steepest light walks round half of the window in one step, past the
    absorber.

    Parameters
    ----------
    medium
        The medium.
    grid
        Rows and columns.
    side
        Of a macropixel, in grid points.

    Returns
    -------
    fewest
        By what would be under-sampled.
    """
    distance = medium.fresnel * side**2
    turns = {
        "guide": medium.guide * max(grid) / side**2,
        "diffraction": 2 * math.pi**2 * distance / min(grid),
    }
    return {what: math.floor(turn / math.pi) + 1 for what, turn in turns.items()}


def parse(kind: type[T], options: Mapping[str, object], where: str = "world") -> T:
    """Make options from a bench file's keys; nothing is guessed.

    Parameters
    ----------
    kind
        The dataclass wanted.
    options
        Keys and values as a bench file gives them.
    where
        Where they stand, for the messages.

    Returns
    -------
    options
        Checked.

    Raises
    ------
    TypeError
        A key is unknown or a value has the wrong type.
    ValueError
        A value is impossible.
    """
    hints = typing.get_type_hints(kind)
    known = {part.name: part for part in fields(kind)}  # type: ignore[arg-type]  # T is a dataclass
    taken: dict[str, object] = {}
    for key, got in options.items():
        if key not in known:
            text = f"{where}.{key} is not known, expected one of {sorted(known)}"
            raise TypeError(text)
        taken[key] = _checked(hints[key], got, f"{where}.{key}", known[key].metadata)
    try:
        return kind(**taken)
    except ValueError as error:
        text = f"{where}.{error}"
        raise ValueError(text) from error


def _checked(
    hint: object, got: object, where: str, bounds: Mapping[str, float]
) -> object:
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(got, Mapping):
            raise TypeError(_wrong(where, got, "keys and values"))
        return parse(hint, got, where)
    if got is None and type(None) in typing.get_args(hint):
        return None
    if tuple in (typing.get_origin(part) for part in (hint, *typing.get_args(hint))):
        return _shape(got, where)
    if typing.get_origin(hint) is Literal:
        if got not in typing.get_args(hint):
            choices = ", ".join(str(choice) for choice in typing.get_args(hint))
            raise ValueError(_wrong(where, got, f"one of {choices}"))
        return got
    return _scalar(hint, got, where, bounds)


def _scalar(
    hint: object, got: object, where: str, bounds: Mapping[str, float]
) -> float | bool | None:
    if hint is bool:
        if not isinstance(got, bool):
            raise TypeError(_wrong(where, got, "true or false"))
        return got
    whole = hint is int
    wanted = "a whole number" if whole else "a number"
    if isinstance(got, bool) or not isinstance(got, int if whole else (int, float)):
        raise TypeError(_wrong(where, got, wanted))
    low, high = bounds["low"], bounds["high"]
    if not (low <= got <= high and math.isfinite(got)):
        limits = f"{low:,} to {high:,}" if whole else f"{low:g} to {high:g}"
        raise ValueError(_wrong(where, got, f"{wanted} from {limits}"))
    return got if whole else float(got)


def _shape(got: object, where: str) -> tuple[int, int]:
    if (
        not isinstance(got, list | tuple)
        or len(got) != 2
        or any(isinstance(side, bool) or not isinstance(side, int) for side in got)
    ):
        raise TypeError(_wrong(where, got, "two whole numbers, rows and columns"))
    if not all(1 <= side <= _LARGEST_PX for side in got):
        raise ValueError(_wrong(where, got, f"two from 1 to {_LARGEST_PX}"))
    return (got[0], got[1])


def _wrong(where: str, got: object, expected: str) -> str:
    return f"{where}={got!r}, expected {expected}"
