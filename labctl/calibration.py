"""Schema of bench files and of calibration records."""

import hashlib
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

import numpy as np
from numpy.lib.format import read_array
from numpy.typing import NDArray
from pydantic import AwareDatetime, Field, JsonValue, model_validator

from labctl import document
from labctl.document import Schema
from labctl.document.page import reference_page, schema_text
from labctl.document.teller import wrong
from labctl.errors import CalibrationError, ProtocolError

T = TypeVar("T")
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# As long as a lab may last.
Days = Annotated[float, Field(gt=0, le=36500, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# More pixels than the side of any panel or sensor.
Pixels = Annotated[int, Field(ge=1, le=65_536)]
Place = Annotated[int, Field(ge=0, le=65_535)]
Sha256 = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$", json_schema_extra={"format": "sha256"})
]
View = Literal["far_field", "image", "through_medium"]
Sentence = Annotated[
    str, Field(pattern=r"\S", json_schema_extra={"format": "sentence"})
]
Dark = Literal["emission_off", "shutter_closed"]
# A grating spectrometer's line of a laser moves by less.
NEAR_NM: Final = 0.5
# A frame is waited for so long without a sign of life, as a share of the heartbeat.
FRAME_SHARE: Final = 0.2
# A map is inverted to so much of a pixel, in so many steps.
NEAR_PX: Final = 1e-6
INVERSIONS: Final = 30
# A 16-bit panel has curves of half a megabyte.
LARGEST_ARRAY_BYTES: Final = 64 << 20


class DriverEntry(Schema):
    """One device, or one capability, of a bench.

    Parameters
    ----------
    driver
        Entry-point name ``<family>.<role>``, such as ``sim.slm``.
    serial
        Serial number that the device must report; none accepts any.
    options
        Keyword arguments of the driver.
    """

    driver: Annotated[
        str, Field(pattern=r"^[a-z0-9_-]+\.[a-z0-9_-]+$", examples=["sim.slm"])
    ]
    serial: str | None = None
    options: dict[str, JsonValue] = Field(default_factory=dict)


class Devices(Schema):
    """The devices of a bench by role.

    Parameters
    ----------
    slm, laser, camera
        Every bench has these.
    meter
        Measures the optical power, where there is one.
    shutter
        Blocks the beam, where there is one.
    attenuator
        Dims the beam, where there is one.
    thermometer
        Measures a temperature that has to stay in range, where there is one: of the
        medium, the panel, the room.
    """

    slm: DriverEntry
    laser: DriverEntry
    camera: DriverEntry
    meter: DriverEntry | None = None
    shutter: DriverEntry | None = None
    attenuator: DriverEntry | None = None
    thermometer: DriverEntry | None = None


class MeterLimits(Schema):
    """What a meter must show while the laser emits; else the run stops, dark.

    Parameters
    ----------
    low, high
        Range of its readings, in its unit.
    oldest_s
        Greatest age of a reading: an older one counts as unsafe.
    """

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    oldest_s: Positive

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.low >= self.high:
            text = f"got {self.high:g}, expected more than low={self.low:g}. Swap them."
            raise wrong(("high", text))
        return self


class Limits(Schema):
    """What no protocol may exceed.

    Densities are those in the middle of a Gaussian beam: twice the mean.

    Parameters
    ----------
    power_mw
        Greatest laser power.
    exposure_s
        Greatest exposure time.
    heartbeat_s
        The laser is dark so long after the last sign of life of the run; none is 2 s
        on a real bench, and 5 s where the run has to compute the light as well.
    call_s
        Longest time of one call of a device, by the computer's clock: one that has
        not returned by then counts as hung, and the run ends. Opening may take 30 s.
    frame_s
        Longest time from the end of an exposure to its frame; none is a fifth of
        heartbeat_s. While a frame is waited for the run gives signs of life, and the
        light stays on: more is for cameras that are slow to read out.
    beam_diameter_um
        Diameter of the beam at the part that bears least, at exp(-2) of the
        intensity.
    repetition_rate_hz, pulse_width_fs
        Of a pulsed laser. A laser that reports a lower rate or a shorter pulse is
        refused.
    power_density_mw_per_mm2
        Greatest mean power density; needs beam_diameter_um.
    fluence_uj_per_mm2
        Greatest energy density of a pulse; needs repetition_rate_hz as well.
    pulse_density_w_per_mm2
        Greatest power density within a pulse; needs pulse_width_fs as well.
    ramp_mw_per_s
        Fastest change of power, up and down; none for at once.
    duty
        Greatest share of the time that the beam is open: a run rests in the dark
        in between, to within one batch of exposures. On a real bench light of earlier
        runs counts; in virtual time each run begins anew.
    duty_window_s
        Time over which that share is taken.
    meter
        Range and greatest age of the meter's readings.
    thermometer
        Range and greatest age of the thermometer's.
    on_saturation
        Whether saturated pixels warn, or stop the run and leave the bench dark. Either
        way a training most of whose frames are saturated in more than a hundredth of
        their pixels ends (exit 6).
    """

    power_mw: Positive
    exposure_s: Positive
    heartbeat_s: Annotated[float, Field(gt=0, le=5)] | None = None
    call_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    frame_s: Annotated[float, Field(gt=0, le=60)] | None = None
    beam_diameter_um: Positive | None = None
    repetition_rate_hz: Positive | None = None
    pulse_width_fs: Positive | None = None
    power_density_mw_per_mm2: Positive | None = None
    fluence_uj_per_mm2: Positive | None = None
    pulse_density_w_per_mm2: Positive | None = None
    ramp_mw_per_s: Positive | None = None
    duty: Annotated[float, Field(gt=0, lt=1)] | None = None
    duty_window_s: Annotated[float, Field(gt=0, le=300)] = 60.0
    meter: MeterLimits | None = None
    thermometer: MeterLimits | None = None
    on_saturation: Literal["warn", "stop"] = "warn"

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        beam = ("beam_diameter_um",)
        pulses = (*beam, "repetition_rate_hz")
        needs = {
            "power_density_mw_per_mm2": beam,
            "fluence_uj_per_mm2": pulses,
            "pulse_density_w_per_mm2": (*pulses, "pulse_width_fs"),
        }
        faults = [
            (key, f"cannot be checked, expected {other} beside it. Add limits.{other}.")
            for key, others in needs.items()
            for other in others
            if getattr(self, key) is not None and getattr(self, other) is None
        ]
        if faults:
            raise wrong(*faults)
        return self

    def densities(self, power_mw: float) -> dict[str, float]:
        """Densities of a power, of those that are limited.

        Parameters
        ----------
        power_mw
            Mean power of the laser.

        Returns
        -------
        densities
            By the name of their limit.
        """
        found: dict[str, float] = {}
        if self.beam_diameter_um is None:
            return found
        area_mm2 = math.pi * (self.beam_diameter_um / 1000) ** 2 / 8
        found["power_density_mw_per_mm2"] = power_mw / area_mm2
        if self.repetition_rate_hz is not None:
            pulse_mj = power_mw / self.repetition_rate_hz
            found["fluence_uj_per_mm2"] = 1000 * pulse_mj / area_mm2
            if self.pulse_width_fs is not None:
                pulse_w = 1e-3 * pulse_mj / (1e-15 * self.pulse_width_fs)
                found["pulse_density_w_per_mm2"] = pulse_w / area_mm2
        return {
            key: got for key, got in found.items() if getattr(self, key) is not None
        }

    def exceeded(
        self, *, power_mw: float | None = None, exposure_s: float | None = None
    ) -> list[tuple[str, float, float]]:
        """Compare values with the limits.

        Parameters
        ----------
        power_mw, exposure_s
            What is wanted; None is not checked.

        Returns
        -------
        exceeded
            Name, value and limit of each that is beyond; empty if all is well.
        """
        wanted: dict[str, float] = {}
        if power_mw is not None:
            wanted = {"power_mw": power_mw, **self.densities(power_mw)}
        if exposure_s is not None:
            wanted["exposure_s"] = exposure_s
        return [
            (key, got, getattr(self, key))
            for key, got in wanted.items()
            if not 0 <= got <= getattr(self, key)
        ]


class ReservoirEntry(Schema):
    """How the bench is used as a function; a protocol may replace any of it.

    Parameters
    ----------
    macropixels
        Rows and columns of equal blocks that the panel is divided into.
    region
        Row, column, height and width on the sensor that is decoded, in pixels.
    bins
        Rows and columns that the region is divided into: the outputs.
    exposure_s, gain_db
        Camera settings.
    power_mw
        Laser power.
    """

    macropixels: tuple[Pixels, Pixels]
    region: tuple[Place, Place, Pixels, Pixels]
    bins: tuple[Pixels, Pixels]
    exposure_s: Positive
    gain_db: NotNegative = 0.0
    power_mw: Positive

    @model_validator(mode="after")
    def _bins_fit_region(self) -> Self:
        _, _, height, width = self.region
        if self.bins[0] > height or self.bins[1] > width:
            text = (
                f"got {list(self.bins)}, expected at most one bin a pixel of region: "
                f"{height} x {width}. Take fewer bins, or a larger region."
            )
            raise wrong(("bins", text))
        return self


class OpticsEntry(Schema):
    """Where the optics of a bench are: what the surrogate ``twin-optics`` is told.

    Nothing in it says what the bench is like; that is learned.

    Parameters
    ----------
    grid
        Rows and columns of points over the panel; behind a lens they are the pixels
        of the sensor as well.
    steps
        Steps of the propagation through the medium.
    fresnel
        Diffraction across one macropixel as far as it is known: length of the medium
        over wavenumber and squared side of a macropixel.
    region
        Row, column, height and width of the decoded region in points of the grid;
        none where the sensor's pixels are the points.
    """

    grid: tuple[Pixels, Pixels]
    steps: Annotated[int, Field(ge=1, le=1024)] = 8
    fresnel: Positive = 0.1
    region: tuple[Place, Place, Pixels, Pixels] | None = None


class Twin(Schema):
    """The simulated twin of a real bench, for ``--simulate`` and ``fallback``.

    What is not said here is taken from the bench: the shapes of panel and sensor, their
    pitches and the settling, from its drivers where they know them before they are
    open, and from the options ``shape``, ``pitch_um``, ``pixel_um`` and ``settle_s`` of
    drivers whose library is not installed; the grid from the macropixels, four points
    each; the light from the operating point.

    Parameters
    ----------
    world, slm, laser, camera
        Options of the simulated light path and devices.
    meter
        Options of the simulated meter; a twin has none where this is missing.
    """

    world: dict[str, JsonValue] = Field(default_factory=dict)
    slm: dict[str, JsonValue] = Field(default_factory=dict)
    laser: dict[str, JsonValue] = Field(default_factory=dict)
    camera: dict[str, JsonValue] = Field(default_factory=dict)
    meter: dict[str, JsonValue] | None = None


class ExposureWire(Schema):
    """The cable whose edges start the exposures.

    Parameters
    ----------
    source
        Who gives the edges: ``slm``, one with every pattern that is shown, at an
        output of the panel.
    line
        Line of the camera that the cable ends at, in the camera's own word.
    edge
        Which edge starts an exposure.
    """

    source: Literal["slm"]
    line: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", examples=["Line1"])]
    edge: Literal["rising", "falling"] = "rising"


class Wiring(Schema):
    """Cables by which one device starts another.

    Parameters
    ----------
    exposure
        From the panel to the camera: batches are then played by the panel's edges,
        which software does otherwise.
    """

    exposure: ExposureWire


Regions = Annotated[int, Field(ge=1, le=4)]


class CalibrateEntry(Schema):
    """What ``labctl calibrate`` may assume of a bench, and what it must reach.

    Parameters
    ----------
    settle_s
        Wait after a write before settle is calibrated; none is twice what the panel
        says.
    views
        Views that a person can move the camera to, and how.
    limits
        Limits of figures of merit that replace the built-in ones, by kind and name,
        each above 0.
    valid_days
        How long a calibration holds, by kind, where not as built in.
    region
        Row, column, height and width of the part of the sensor that is looked at, in
        pixels; none is all of it, which for a large sensor is much to store. The
        outputs lie in it.
    reach_cycles_px
        Greatest tilt whose light the camera still sees, in cycles a panel pixel; much
        steeper ones are lost in crosstalk.
    phase_regions
        Number of rows and of columns of equal regions that the panel is divided into,
        up to 4 rows and up to 4 columns: ``slm-phase`` gives each region a curve of
        its own. 1 and 1 is one curve for all of the panel.
    lacks
        Kinds whose physics the bench does not have, and why: not measurable here.
    """

    settle_s: Positive | None = None
    views: dict[View, Sentence] = Field(default_factory=dict)
    limits: dict[str, dict[str, Positive]] = Field(default_factory=dict)
    valid_days: dict[str, Days] = Field(default_factory=dict)
    reach_cycles_px: Annotated[float, Field(gt=0, le=0.5)] = 0.14
    phase_regions: tuple[Regions, Regions] = (1, 1)
    lacks: dict[str, Sentence] = Field(default_factory=dict)
    region: tuple[Place, Place, Pixels, Pixels] | None = None


Pair = tuple[float, float]


class Drawing(Schema):
    """Where on the camera a direction of light lies, as the bench was drawn.

    With it ``reservoir.region`` means directions: the calibration ``mapping`` says
    where those truly lie, and the bins go there. Without it the region is a part of
    the sensor, whatever light falls on it.

    Parameters
    ----------
    matrix_px
        Change of row (first) and column (second) on the camera with the tilt along the
        panel's rows and columns, in pixels for one cycle a panel pixel: behind a lens
        wavelength times focal length over the pitches of panel and camera.
    offset_px
        Row and column of light that is not tilted.
    """

    matrix_px: tuple[Pair, Pair]
    offset_px: Pair

    @model_validator(mode="after")
    def _has_a_direction(self) -> Self:
        if abs(float(np.linalg.det(np.array(self.matrix_px)))) < 1e-9:
            text = "got determinant 0, expected each pixel to be one direction."
            raise wrong(("matrix_px", text))
        return self

    @property
    def mapping(self) -> "PanelMap":
        """The calibration of a camera that is where it was drawn."""
        turned = float(np.linalg.det(np.array(self.matrix_px)))
        return PanelMap(
            kind="mapping",
            matrix_px=self.matrix_px,
            offset_px=self.offset_px,
            mirrored=turned < 0,
        )


class BenchFile(Schema):
    """A bench: which devices, within which limits, used how.

    Parameters
    ----------
    schema_version
        Version of this format.
    name
        Name of the bench: that of its folder.
    note
        A line for people.
    world
        The simulated light path; a bench with one is simulated.
    devices
        The devices by role.
    sequence, oracle
        Drivers of the capabilities, where the bench has them.
    wiring
        Cables by which one device starts another, where there are any.
    limits
        What no protocol may exceed.
    reservoir
        The operating point and the outputs.
    view
        Where the camera looks.
    drawing
        What the region is in directions of light, so that it moves with the camera;
        in the view ``far_field`` only.
    calibrate
        What calibrations may assume and must reach.
    dark
        What dark means on this bench.
    discrete
        The simulated grid is a device of its own, not an approximation of
        continuous optics: the grid check is recorded, not enforced.
    twin
        What is known of the simulated twin of a real bench; the rest is taken
        from the bench itself.
    fallback
        ``sim`` opens the simulated twin when the devices do not answer, or the library
        of a driver is not installed; a run says so. Where calibrations are missing,
        devices that do answer are closed again, and the run is refused.
    """

    schema_version: Literal[1]
    name: Annotated[
        str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", examples=["sim-small"])
    ]
    note: str = ""
    world: DriverEntry | None = None
    devices: Devices
    sequence: DriverEntry | None = None
    oracle: DriverEntry | None = None
    wiring: Wiring | None = None
    limits: Limits
    reservoir: ReservoirEntry
    view: View = "far_field"
    drawing: Drawing | None = None
    calibrate: CalibrateEntry = CalibrateEntry()
    dark: Dark = "emission_off"
    discrete: bool = False
    optics: OpticsEntry | None = None
    twin: Twin | None = None
    fallback: Literal["sim"] | None = None

    @property
    def heartbeat_s(self) -> float:
        """The laser is dark so long after the last sign of life of the run."""
        return self.limits.heartbeat_s or (5.0 if self.simulated else 2.0)

    @property
    def frame_s(self) -> float:
        """Longest time from the end of an exposure to its frame."""
        return self.limits.frame_s or FRAME_SHARE * self.heartbeat_s

    @property
    def turn_s(self) -> float:
        """Longest time that is waited for a frame without a sign of life.

        At most half of the heartbeat is exposure, so the guard takes none for silence.
        """
        return self.limits.exposure_s + FRAME_SHARE * self.heartbeat_s

    @property
    def simulated(self) -> bool:
        """Whether the light of this bench is simulated."""
        return self.world is not None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        faults = []
        if self.dark == "shutter_closed" and self.devices.shutter is None:
            text = "got shutter_closed, expected a shutter under devices. Add it."
            faults.append(("dark", text))
        if self.oracle is not None and self.world is None:
            text = "only simulated light has one, expected a world. Remove oracle."
            faults.append(("oracle", text))
        if self.drawing is not None and self.view != "far_field":
            text = (
                f"there is no lens before the camera (view={self.view}), expected "
                "far_field: elsewhere a pixel is no direction. Remove drawing."
            )
            faults.append(("drawing", text))
        faults += self._plays_twice()
        faults += self._looks_elsewhere()
        faults += self._excess()
        if self.limits.exposure_s > self.heartbeat_s / 2:
            text = (
                f"got {self.limits.exposure_s:g}, expected at most half of heartbeat_s="
                f"{self.heartbeat_s:g}: a run says nothing while it exposes. Lower it."
            )
            faults.append(("limits.exposure_s", text))
        for role in ("meter", "thermometer"):
            if getattr(self.limits, role) and getattr(self.devices, role) is None:
                text = (
                    f"there is no {role} to read, expected one under devices. Add it."
                )
                faults.append((f"limits.{role}", text))
        if faults:
            raise wrong(*faults)
        return self

    def _plays_twice(self) -> list[tuple[str, str]]:
        if self.wiring is None or (self.world or self.sequence) is None:
            return []
        text = (
            "there is another way to play a batch, expected a bench with neither world "
            "nor sequence. Remove wiring."
        )
        return [("wiring", text)]

    def _looks_elsewhere(self) -> list[tuple[str, str]]:
        if self.world is None or self.world.driver != "sim.world":
            return []
        looks = self.world.options.get("view", "far_field")
        if looks == self.view:
            return []
        text = (
            f"got {self.view}, but world.options.view is {looks}, expected the same. "
            "Change either."
        )
        return [("view", text)]

    def _excess(self) -> list[tuple[str, str]]:
        faults = []
        entry = self.reservoir
        for key, got, most in self.limits.exceeded(
            power_mw=entry.power_mw, exposure_s=entry.exposure_s
        ):
            at = key if hasattr(entry, key) else "power_mw"
            given = "" if at == key else f"{entry.power_mw:g}, which is {key}="
            text = f"got {given}{got:g}, expected at most limits.{key}={most:g}. "
            faults.append((f"reservoir.{at}", text + "Lower it."))
        return faults


# Calibrations that a kind is measured with where they are in force, as a run applies
# them too; where they are not, it is measured without.
APPLIED: Final[Mapping[str, tuple[str, ...]]] = {"mapping": ("wavefront",)}


class ArrayFile(Schema):
    """An array that lies beside a calibration record.

    Parameters
    ----------
    file
        Name of the ``.npy`` file, in the record's folder.
    sha256
        Hash of the file.
    """

    file: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.npy$", examples=["slm-phase.npy"]),
    ]
    sha256: Sha256

    def load(self, folder: Path) -> NDArray[np.float64]:
        """Read the array and check that it is the one that was meant.

        Parameters
        ----------
        folder
            The folder of the record.

        Returns
        -------
        values
            Finite numbers, in double precision.

        Raises
        ------
        CalibrationError
            The file is missing, elsewhere, changed, or holds no finite numbers.
        """
        raw = _bytes(folder, self.file)
        got = hashlib.sha256(raw).hexdigest()
        where = f"calibration array {folder / self.file}"
        if got != self.sha256:
            text = (
                f"{where}: sha256={got[:12]}…, expected {self.sha256[:12]}…. The file "
                "was changed after it was measured: restore it, or measure again."
            )
            raise CalibrationError(text)
        try:
            # Not np.load, which would open an archive as well.
            values = read_array(io.BytesIO(raw), allow_pickle=False)
        except (ValueError, OSError, EOFError, MemoryError) as err:
            text = f"{where}: no numpy array ({err}), expected one. Measure again."
            raise CalibrationError(text) from err
        if values.dtype.kind not in "fiu":
            text = (
                f"{where}: no real numbers, expected an array of them. Measure again."
            )
            raise CalibrationError(text)
        numbers: NDArray[np.float64] = values.astype(np.float64)
        if not np.all(np.isfinite(numbers)):
            text = f"{where}: some are not finite, expected all to be. Measure again."
            raise CalibrationError(text)
        return numbers


def divides(regions: tuple[int, ...], panel: tuple[int, int]) -> bool:
    """Whether rows and columns of equal regions make up a panel.

    Parameters
    ----------
    regions
        Rows and columns of regions.
    panel
        Height and width, in pixels.
    """
    return all(side % count == 0 for side, count in zip(panel, regions, strict=True))


class PhaseCurve(Schema):
    """Gray level to phase: kind ``slm-phase``.

    Parameters
    ----------
    kind
        ``slm-phase``.
    phase_rad
        Phase of each gray level, rising; an array file of one curve, or of one for
        each of the regions that the panel is divided into, ``(row, column, level)``;
        or a straight line.
    span_rad
        Phase between level 0 and one level beyond the last, where the curve is
        a straight line.
    """

    kind: Literal["slm-phase"]
    phase_rad: ArrayFile | None = None
    span_rad: Positive | None = None

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if self.phase_rad is None and self.span_rad is None:
            text = "is missing, expected span_rad or phase_rad."
            raise wrong(("span_rad", text))
        if self.phase_rad is not None and self.span_rad is not None:
            text = "is there beside phase_rad, expected one. Remove either."
            raise wrong(("span_rad", text))
        return self

    def curve(self, bit_depth: int, folder: Path) -> NDArray[np.float64]:
        """Give the phase of every gray level.

        Parameters
        ----------
        bit_depth
            Bits a level of the panel.
        folder
            The bench's folder, where array files lie.

        Returns
        -------
        phase
            ``(level,)``, or ``(row, column, level)`` of regions; in rad, rising.

        Raises
        ------
        CalibrationError
            The array is missing, changed, of another panel, or does not rise.
        """
        levels = 2**bit_depth
        if self.phase_rad is None:
            # One of the two is there: the validator saw to it.
            step_rad = (self.span_rad or 0.0) / levels
            line: NDArray[np.float64] = np.arange(levels) * step_rad
            return line
        phase = self.phase_rad.load(folder)
        where = f"calibration slm-phase: {self.phase_rad.file}"
        if phase.ndim not in {1, 3} or phase.shape[-1] != levels or not phase.size:
            text = (
                f"{where}: shape={list(phase.shape)}, expected [{levels}], one phase a "
                f"level of {bit_depth} bits, or that for rows and columns of regions. "
                "Measure again on this panel."
            )
            raise CalibrationError(text)
        for curve in phase.reshape(-1, levels):
            if not np.all(np.diff(curve) > 0):
                level = int(np.argmin(np.diff(curve)))
                text = (
                    f"{where}: phase goes from {curve[level]:g} to "
                    f"{curve[level + 1]:g} rad at level {level + 1}, expected it to "
                    "rise. Measure again."
                )
                raise CalibrationError(text)
        return phase


class Settle(Schema):
    """Time between a complete write and a settled panel: kind ``settle``.

    Parameters
    ----------
    kind
        ``settle``.
    settle_s
        Time to wait.
    """

    kind: Literal["settle"]
    settle_s: NotNegative


class CameraResponse(Schema):
    """Counts to electrons: kind ``camera``.

    Parameters
    ----------
    kind
        ``camera``.
    offset_dn
        Mean count of a pixel in the dark at no exposure.
    dark_dn_per_s
        Growth of that with exposure time.
    gain_dn_per_e
        Counts an electron at 0 dB.
    read_noise_e
        Noise of a pixel at no light.
    saturation_dn
        Count at which the brightest pixels stop to grow, where it was reached.
    hot_px
        Row and column of the pixels that are bright in the dark.
    """

    kind: Literal["camera"]
    offset_dn: NotNegative
    dark_dn_per_s: NotNegative
    gain_dn_per_e: Positive
    read_noise_e: NotNegative
    saturation_dn: Positive | None = None
    hot_px: list[tuple[Place, Place]] = Field(default_factory=list)

    def electrons(
        self,
        frames: NDArray[np.uint16],
        exposure_s: float,
        corner: tuple[int, int] = (0, 0),
    ) -> NDArray[np.float64]:
        """Turn counts at 0 dB into electrons above the dark.

        Parameters
        ----------
        frames
            Counts, ``(..., row, column)``.
        exposure_s
            Exposure time.
        corner
            Row and column of the sensor at which they begin.

        Returns
        -------
        electrons
            Of the same shape; 0 where a pixel is hot.
        """
        dark_dn = self.offset_dn + self.dark_dn_per_s * exposure_s
        electrons = (frames.astype(np.float64) - dark_dn) / self.gain_dn_per_e
        height, width = frames.shape[-2:]
        for hot_row, hot_column in self.hot_px:
            row, column = hot_row - corner[0], hot_column - corner[1]
            if 0 <= row < height and 0 <= column < width:
                electrons[..., row, column] = 0.0
        return electrons


class LaserPower(Schema):
    """Power over setpoint: kind ``laser-power``.

    Parameters
    ----------
    kind
        ``laser-power``.
    setpoint_mw
        What was demanded, rising.
    power_mw
        What was metered for each, rising: halfway between going up and down.
    hysteresis_mw
        Greatest distance between going up and going down; 0 for none seen.
    warm_up_s
        How long the power takes after the light went on; 0 for none seen.
    """

    kind: Literal["laser-power"]
    setpoint_mw: Annotated[list[NotNegative], Field(min_length=2, max_length=1000)]
    power_mw: Annotated[list[NotNegative], Field(min_length=2, max_length=1000)]
    hysteresis_mw: NotNegative = 0.0
    warm_up_s: NotNegative = 0.0

    @model_validator(mode="after")
    def _rises(self) -> Self:
        for key in ("setpoint_mw", "power_mw"):
            steps = np.diff(getattr(self, key))
            if len(steps) != len(self.setpoint_mw) - 1 or not (steps > 0).all():
                text = "expected as many rising numbers as setpoint_mw. Measure again."
                raise wrong((key, text))
        return self

    def setpoint_for(self, power_mw: float) -> float:
        """Give the setpoint at which a power is metered.

        Parameters
        ----------
        power_mw
            Power that is wanted.

        Returns
        -------
        setpoint_mw
            By straight lines between the points measured.

        Raises
        ------
        CalibrationError
            Beyond what was measured.
        """
        low, high = self.power_mw[0], self.power_mw[-1]
        if not low <= power_mw <= high:
            text = (
                f"calibration laser-power: power_mw={power_mw:g}, expected "
                f"{low:.4g} to {high:.4g}, as far as it was measured. Ask for less, or "
                "measure again."
            )
            raise CalibrationError(text)
        return float(np.interp(power_mw, self.power_mw, self.setpoint_mw))


class PanelMap(Schema):
    """Directions of the panel on the camera: kind ``mapping``.

    Parameters
    ----------
    kind
        ``mapping``.
    matrix_px
        Change of row (first) and column (second) on the camera with the tilt along the
        panel's rows and columns, in pixels for one cycle a panel pixel.
    offset_px
        Row and column of light that is not tilted.
    bend_px
        Row and column for the tilts' squares along rows, product, and squares along
        columns, where they pay.
    mirrored
        Whether the determinant of the matrix is negative.
    """

    kind: Literal["mapping"]
    matrix_px: tuple[Pair, Pair]
    offset_px: Pair
    bend_px: list[Pair] = Field(default_factory=list)
    mirrored: bool

    @model_validator(mode="after")
    def _knows_its_parity(self) -> Self:
        found = float(np.linalg.det(np.array(self.matrix_px)))
        if found == 0 or (found < 0) != self.mirrored:
            got = str(self.mirrored).lower()
            text = (
                f"got {got}, but the determinant of matrix_px is {found:.4g}. The map "
                "was changed: measure again."
            )
            raise wrong(("mirrored", text))
        return self

    def places(self, tilts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the places on the camera of tilts.

        Parameters
        ----------
        tilts
            Cycles a panel pixel along rows and columns, ``(spot, 2)``.

        Returns
        -------
        places
            Row and column, ``(spot, 2)``.
        """
        rows, columns = tilts.T
        bends = np.stack([rows**2, rows * columns, columns**2], axis=1)
        straight: NDArray[np.float64] = (
            np.array(self.offset_px) + tilts @ np.array(self.matrix_px).T
        )
        if not self.bend_px:
            return straight
        bent: NDArray[np.float64] = straight + bends @ np.array(self.bend_px)
        return bent

    def tilts(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the tilts whose light is at places on the camera: the inverse.

        Parameters
        ----------
        places
            Row and column, ``(spot, 2)``.

        Returns
        -------
        tilts
            Cycles a panel pixel along rows and columns, ``(spot, 2)``.

        Raises
        ------
        CalibrationError
            The terms of second order are too great to tell.
        """
        inverse = np.linalg.inv(np.array(self.matrix_px)).T
        tilts: NDArray[np.float64] = (places - np.array(self.offset_px)) @ inverse
        if not self.bend_px:
            return tilts
        before = np.inf
        for _ in range(INVERSIONS):
            gap = places - self.places(tilts)
            most = float(np.abs(gap).max(initial=0.0))
            if most < NEAR_PX:
                return tilts
            if most >= before:
                break
            before, tilts = most, tilts + gap @ inverse
        text = (
            "calibration mapping: bend_px is so great that the map cannot be "
            "inverted, expected small terms. Measure again."
        )
        raise CalibrationError(text)


class Crosstalk(Schema):
    """Reach of a pixel's phase into its neighbours: kind ``crosstalk``.

    Parameters
    ----------
    kind
        ``crosstalk``.
    sigma_px
        Width of a Gaussian over the phase of the panel's pixels; 0 where none is seen.
    most_px
        What it is at most, with 95 % certainty.
    """

    kind: Literal["crosstalk"]
    sigma_px: NotNegative
    most_px: NotNegative


class Wavefront(Schema):
    """Phase that corrects the panel's wavefront: kind ``wavefront``.

    Parameters
    ----------
    kind
        ``wavefront``.
    phase_rad
        Phase to add on each pixel of the panel; an array file.
    modes_rad
        Size of each Zernike mode of it, rms.
    gain
        How many times as bright it makes a spot; 1 where it is flat.
    """

    kind: Literal["wavefront"]
    phase_rad: ArrayFile
    modes_rad: dict[str, float] = Field(default_factory=dict)
    gain: Positive


class NoiseFloor(Schema):
    """How well outputs repeat: kind ``noise-floor``.

    Parameters
    ----------
    kind
        ``noise-floor``.
    noise_e
        Noise of one output from frame to frame.
    noise_percent
        The same, of its mean.
    excess
        The same, over that of the light and the camera alone.
    step_rad
        Step of a probe on all macropixels that has the smallest error.
    """

    kind: Literal["noise-floor"]
    noise_e: NotNegative
    noise_percent: NotNegative
    excess: NotNegative
    step_rad: Positive


class DriftRate(Schema):
    """How outputs change over time: kind ``drift``.

    Parameters
    ----------
    kind
        ``drift``.
    common_percent_per_hour
        Of their sum.
    element_percent_per_hour
        Of each beyond that, rms.
    holds_s
        Time after which an answer has drifted by the noise of one frame.
    """

    kind: Literal["drift"]
    common_percent_per_hour: float
    element_percent_per_hour: NotNegative
    holds_s: Positive


Values = Annotated[
    PhaseCurve
    | Settle
    | CameraResponse
    | LaserPower
    | PanelMap
    | Crosstalk
    | Wavefront
    | NoiseFloor
    | DriftRate,
    Field(discriminator="kind"),
]


class RecordFile(Schema):
    """The HDF5 record that holds the raw frames of a calibration.

    Parameters
    ----------
    file
        Where it was written.
    sha256
        Hash of the file.
    """

    file: str
    sha256: Sha256


class Made(Schema):
    """How a calibration came about.

    Parameters
    ----------
    schema_version
        Version of this format.
    created
        UTC date and time.
    bench_sha256
        Hash of the bench file it belongs to.
    serials
        Serial numbers by role that it was made with.
    wavelength_nm
        Wavelength that it was made at; none where that does not matter.
    geometry
        Height and width of panel and sensor, by role.
    parents
        Hash of the record of each calibration that it was made with, by kind.
    conditions
        Numbers under which it was made, such as power and exposure.
    software
        Versions that made it.
    record
        The HDF5 record with the raw frames.
    figure_of_merit
        Named figures that judge it; ``NAME_error`` is the standard error of NAME.
    limits
        What those figures had to keep.
    """

    schema_version: Literal[1]
    created: AwareDatetime
    bench_sha256: Sha256
    serials: dict[str, str] = Field(default_factory=dict)
    wavelength_nm: Positive | None = None
    geometry: dict[str, tuple[Pixels, Pixels]] = Field(default_factory=dict)
    parents: dict[str, Sha256] = Field(default_factory=dict)
    conditions: dict[str, float] = Field(default_factory=dict)
    software: dict[str, str] = Field(default_factory=dict)
    record: RecordFile | None = None
    figure_of_merit: dict[str, float] = Field(default_factory=dict)
    limits: dict[str, float] = Field(default_factory=dict)


class FailedCalibration(Made):
    """A calibration that was not good enough: kept, never in force.

    Parameters
    ----------
    failed
        Its kind.
    why
        What was wrong, and what to do.
    """

    failed: str
    why: str


class CalibrationRecord(Made):
    """What was measured, or given, about a bench; never changed afterwards.

    Parameters
    ----------
    origin
        ``given`` (declared by whoever made the bench; valid as long as the
        bench file is the same) or ``measured``.
    valid_days
        How long it holds; none is without limit.
    quantities
        What was measured, each with its standard error.
    values
        The calibration itself, by kind.
    """

    origin: Literal["given", "measured"]
    valid_days: Positive | None = None
    quantities: dict[str, tuple[float, NotNegative]] = Field(default_factory=dict)
    values: Values

    def mismatch(
        self,
        serials: Mapping[str, str],
        wavelength_nm: float,
        geometry: Mapping[str, tuple[int, int]],
    ) -> str:
        """Compare with the devices of a bench.

        Parameters
        ----------
        serials
            Serial number that each device reports, by role.
        wavelength_nm
            Of the laser.
        geometry
            Height and width of panel and sensor, by role.

        Returns
        -------
        mismatch
            What differs, in a sentence; empty if nothing does.
        """
        for role, serial in self.serials.items():
            if serials.get(role) != serial:
                got = serials.get(role, "none")
                return f"{role} serial={got}, expected {serial}"
        wanted_nm = self.wavelength_nm
        if wanted_nm is not None and abs(wavelength_nm - wanted_nm) > NEAR_NM:
            return f"wavelength_nm={wavelength_nm:g}, expected {wanted_nm:g}"
        for role, shape in self.geometry.items():
            if role in geometry and tuple(geometry[role]) != shape:
                return f"{role} shape={list(geometry[role])}, expected {list(shape)}"
        return ""


class Current(Schema):
    """The calibration records in force on a bench.

    Parameters
    ----------
    schema_version
        Version of this format.
    records
        File names beside this one, at most one a kind.
    """

    schema_version: Literal[1]
    records: list[
        Annotated[
            str,
            Field(
                pattern=r"^[a-z0-9][A-Za-z0-9._-]*\.yaml$",
                examples=["settle-given.yaml"],
            ),
        ]
    ]


@dataclass(frozen=True)
class InForce:
    """A calibration record that ``current.yaml`` names.

    Parameters
    ----------
    record
        What it says.
    name
        Its file, beside the bench file.
    sha256
        Hash of that file.
    faults
        Why it does not hold, a sentence each; empty when it does.
    """

    record: CalibrationRecord
    name: str
    sha256: str
    faults: tuple[str, ...] = ()


def in_force(
    bench_path: Path, bench_sha256: str, *, now: datetime | None = None
) -> dict[str, InForce]:
    """Read the calibration records that are in force, and say which still hold.

    Parameters
    ----------
    bench_path
        The bench file; ``current.yaml`` and the records lie beside it. Without
        ``current.yaml`` none is in force.
    bench_sha256
        Hash of the bench file: records of origin ``given`` hold for it alone.
    now
        Date and time to judge them by; None for the computer's clock.

    Returns
    -------
    records
        By kind, such as ``slm-phase``.

    Raises
    ------
    CalibrationError
        A record or array is missing or damaged, or two are of one kind.
    """
    current = bench_path.parent / "current.yaml"
    if not current.is_file():
        return {}
    now = now or datetime.now(UTC)
    found: dict[str, InForce] = {}
    for name in _read(current, Current).records:
        raw = _bytes(bench_path.parent, name)  # there, and nowhere else
        record = _record(bench_path.parent / name, raw)
        kind = record.values.kind
        if kind in found:
            text = (
                f"{current}: two records of kind {kind}, expected one. Remove {name}."
            )
            raise CalibrationError(text)
        array = getattr(record.values, "phase_rad", None)
        if isinstance(array, ArrayFile):
            array.load(bench_path.parent)
        fault = _staleness(record, bench_sha256, now)
        digest = hashlib.sha256(raw).hexdigest()
        found[kind] = InForce(record, name, digest, (fault,) if fault else ())
    return {
        kind: replace(each, faults=(*each.faults, *_changed_parents(each, found)))
        for kind, each in found.items()
    }


def _changed_parents(each: InForce, found: Mapping[str, InForce]) -> Iterator[str]:
    kind, measured = each.record.values.kind, each.record.origin == "measured"
    for applied in APPLIED.get(kind, ()) if measured else ():
        there = found.get(applied)
        if (
            there is not None
            and applied not in each.record.parents
            and _is_of_the_same(there.record, each.record)
        ):
            yield f"{applied} is in force, and it was measured without."
    for parent, digest in each.record.parents.items():
        if parent not in found:
            yield f"parent {parent}=none, expected the one it was measured with."
        elif found[parent].sha256 != digest:
            yield f"parent {parent} was measured again since."


def _is_of_the_same(one: CalibrationRecord, other: CalibrationRecord) -> bool:
    """Tell whether two were measured on the same devices and at one wavelength."""
    mine_nm, theirs_nm = one.wavelength_nm, other.wavelength_nm
    if (
        mine_nm is not None
        and theirs_nm is not None
        and abs(mine_nm - theirs_nm) > NEAR_NM
    ):
        return False
    return all(
        mine[role] == theirs[role]
        for mine, theirs in (
            (one.serials, other.serials),
            (one.geometry, other.geometry),
        )
        for role in mine.keys() & theirs.keys()
    )


def load_records(
    bench_path: Path, bench_sha256: str, *, now: datetime | None = None
) -> dict[str, CalibrationRecord]:
    """Read the calibration records that are in force on a bench, and hold.

    Parameters
    ----------
    bench_path
        The bench file; ``current.yaml`` and the records lie beside it. Without
        ``current.yaml`` none is in force.
    bench_sha256
        Hash of the bench file: records of origin ``given`` hold for it alone.
    now
        Date and time to judge them by; None for the computer's clock.

    Returns
    -------
    records
        By kind, such as ``slm-phase``.

    Raises
    ------
    CalibrationError
        A record or array is missing, damaged, stale, or of another bench file; or
        two are of one kind.
    """
    found = in_force(bench_path, bench_sha256, now=now)
    for each in found.values():
        for fault in each.faults:
            text = (
                f"calibration {bench_path.parent / each.name}: {fault} Measure again: "
                "labctl calibrate. Or say allow_uncalibrated: true in the protocol."
            )
            raise CalibrationError(text)
    return {kind: each.record for kind, each in found.items()}


def _staleness(record: CalibrationRecord, bench_sha256: str, now: datetime) -> str:
    if record.origin == "given" and record.bench_sha256 != bench_sha256:
        return (
            f"bench_sha256={record.bench_sha256[:12]}…, expected "
            f"{bench_sha256[:12]}…: it was given for another bench file. Restore "
            "that file where the change was a mistake."
        )
    age = now - record.created
    # Clocks of two computers may differ a little.
    if age < timedelta(minutes=-10):
        return (
            f"created={record.created:%Y-%m-%d %H:%M} UTC, expected the past. Set the "
            "computer's clock where it is wrong."
        )
    if record.valid_days is not None and age > timedelta(days=record.valid_days):
        days = age.total_seconds() / 86400
        return f"age={days:.1f} days, expected at most {record.valid_days:g}."
    return ""


def _read(path: Path, model: type[T]) -> T:
    try:
        return document.read(path, model).value
    except ProtocolError as err:
        raise CalibrationError(str(err)) from err


@lru_cache(maxsize=64)
def _record(path: Path, raw: bytes) -> CalibrationRecord:
    """Read a record; the same bytes are checked once, as a run asks five times."""
    del raw  # It tells this record from another of the same name.
    return _read(path, CalibrationRecord)


def _bytes(folder: Path, name: str) -> bytes:
    """Read a file that must lie in this folder.

    Raises
    ------
    CalibrationError
        It is missing, too large, or a link out of the folder.
    """
    path = folder / name
    where = f"calibration file {path}"
    if not path.is_file():
        text = f"{where}: no such file, expected it. Restore it, or measure again."
        raise CalibrationError(text)
    if path.resolve().parent != folder.resolve():
        text = (
            f"{where}: leads out of its folder, expected a file in it. Copy it there."
        )
        raise CalibrationError(text)
    if path.stat().st_size > LARGEST_ARRAY_BYTES:
        text = (
            f"{where}: larger than {LARGEST_ARRAY_BYTES} bytes, expected less. "
            "Measure again."
        )
        raise CalibrationError(text)
    return path.read_bytes()


_INTRODUCTION: Final = """
What may stand in `calibrations/<bench>/bench.yaml`, in the calibration records beside
it and in `current.yaml`, made from the schema. Units are in the keys; unknown keys are
refused. `labctl validate FILE` names every fault with its line. Options of a driver are
described by the driver. Editors that know JSON schema take
[bench.schema.json](bench.schema.json).
"""


def write_schemas(folder: Path) -> None:
    """Write the editor's schema and the reference page of bench files.

    Parameters
    ----------
    folder
        Where they go: ``docs/reference`` of a checkout.
    """
    models = {
        "bench.yaml": BenchFile,
        "A calibration record": CalibrationRecord,
        "A calibration that failed": FailedCalibration,
        "current.yaml": Current,
    }
    page = reference_page("Bench files", _INTRODUCTION, models)
    for name, text in (
        ("bench.schema.json", schema_text(BenchFile)),
        ("bench-file.md", page),
    ):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
