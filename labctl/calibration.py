"""Schema of bench files and of calibration records."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from labctl.document import Schema

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
View = Literal["far_field", "image", "through_medium"]
Dark = Literal["emission_off", "shutter_closed"]


class DriverEntry(Schema):
    """One device, or one capability, of a bench.

    Parameters
    ----------
    driver
        Entry-point name ``<family>.<role>``, such as ``sim.slm``.
    serial
        Serial number that the device must report; None accepts any.
    options
        Keyword arguments of the driver.
    """

    driver: Annotated[str, Field(pattern=r"^[a-z0-9_-]+\.[a-z0-9_-]+$")]
    serial: str | None = None
    options: dict[str, JsonValue] = {}


class Devices(Schema):
    """The devices of a bench by role."""

    slm: DriverEntry
    laser: DriverEntry
    camera: DriverEntry
    meter: DriverEntry | None = None
    shutter: DriverEntry | None = None
    attenuator: DriverEntry | None = None


class Limits(Schema):
    """What no protocol may exceed.

    Parameters
    ----------
    power_mw
        Greatest laser power.
    exposure_s
        Greatest exposure time.
    """

    power_mw: Positive
    exposure_s: Positive


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

    macropixels: tuple[Count, Count]
    region: tuple[
        Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Count, Count
    ]
    bins: tuple[Count, Count]
    exposure_s: Positive
    gain_db: NotNegative = 0.0
    power_mw: Positive

    @model_validator(mode="after")
    def _bins_fit_region(self) -> "ReservoirEntry":
        _, _, height, width = self.region
        if self.bins[0] > height or self.bins[1] > width:
            text = (
                f"bins={list(self.bins)}, expected at most one bin a pixel of "
                f"region {height} x {width}"
            )
            raise ValueError(text)
        return self


class Twin(Schema):
    """The simulated stand-in of a real bench, for ``--simulate`` and ``fallback``.

    Parameters
    ----------
    world, slm, laser, camera, meter
        Options of the simulated light path and devices.
    """

    world: dict[str, JsonValue] = {}
    slm: dict[str, JsonValue] = {}
    laser: dict[str, JsonValue] = {}
    camera: dict[str, JsonValue] = {}
    meter: dict[str, JsonValue] | None = None


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
    limits
        What no protocol may exceed.
    reservoir
        The operating point and the outputs.
    view
        Where the camera looks.
    dark
        What dark means on this bench.
    discrete
        The simulated grid is a device of its own, not an approximation of
        continuous optics: the grid check is recorded, not enforced.
    twin
        The simulated stand-in of a real bench.
    fallback
        ``sim`` opens the twin when the devices do not answer.
    """

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    note: str = ""
    world: DriverEntry | None = None
    devices: Devices
    sequence: DriverEntry | None = None
    oracle: DriverEntry | None = None
    limits: Limits
    reservoir: ReservoirEntry
    view: View = "far_field"
    dark: Dark = "emission_off"
    discrete: bool = False
    twin: Twin | None = None
    fallback: Literal["sim"] | None = None

    @property
    def simulated(self) -> bool:
        """Whether the light of this bench is simulated."""
        return self.world is not None

    @model_validator(mode="after")
    def _is_consistent(self) -> "BenchFile":
        if self.dark == "shutter_closed" and self.devices.shutter is None:
            text = "dark=shutter_closed, expected a shutter under devices"
            raise ValueError(text)
        if self.fallback == "sim" and self.twin is None:
            text = "fallback=sim, expected a twin section that describes the stand-in"
            raise ValueError(text)
        if self.oracle is not None and self.world is None:
            text = "oracle is there without world: only simulated light has one"
            raise ValueError(text)
        return self


class ArrayFile(Schema):
    """An array that lies beside a calibration record.

    Parameters
    ----------
    file
        Name of the ``.npy`` file, in the record's folder.
    sha256
        Hash of the file.
    """

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.npy$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PhaseCurve(Schema):
    """Gray level to phase: kind ``slm-phase``.

    Parameters
    ----------
    phase_rad
        Phase of each gray level, rising; an array file or a straight line.
    span_rad
        Phase between level 0 and one level beyond the last, where the curve is
        a straight line.
    """

    kind: Literal["slm-phase"]
    phase_rad: ArrayFile | None = None
    span_rad: Positive | None = None

    @model_validator(mode="after")
    def _names_one(self) -> "PhaseCurve":
        if (self.phase_rad is None) == (self.span_rad is None):
            text = "expected either phase_rad or span_rad"
            raise ValueError(text)
        return self


class Settle(Schema):
    """Time between a complete write and a settled panel: kind ``settle``."""

    kind: Literal["settle"]
    settle_s: NotNegative


class CameraResponse(Schema):
    """Counts to electrons: kind ``camera``.

    Parameters
    ----------
    offset_dn
        Mean count of a pixel in the dark at no exposure.
    dark_dn_per_s
        Growth of that with exposure time.
    gain_dn_per_e
        Counts an electron at 0 dB.
    read_noise_e
        Noise of a pixel at no light.
    """

    kind: Literal["camera"]
    offset_dn: NotNegative
    dark_dn_per_s: NotNegative
    gain_dn_per_e: Positive
    read_noise_e: NotNegative


Values = Annotated[
    PhaseCurve | Settle | CameraResponse, Field(discriminator="kind")
]


class CalibrationRecord(Schema):
    """What was measured, or given, about a bench; never changed afterwards.

    Parameters
    ----------
    schema_version
        Version of this format.
    origin
        ``given`` (declared by whoever made the bench; valid as long as the
        bench file is the same) or ``measured``.
    created
        UTC date and time.
    valid_days
        How long it holds; None without limit.
    bench_sha256
        Hash of the bench file it belongs to.
    serials
        Serial numbers by role that it was made with.
    wavelength_nm
        Wavelength that it was made at; None where that does not matter.
    figure_of_merit
        Named figures that judge it.
    values
        The calibration itself, by kind.
    """

    schema_version: Literal[1]
    origin: Literal["given", "measured"]
    created: datetime
    valid_days: Positive | None = None
    bench_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    serials: dict[str, str] = {}
    wavelength_nm: Positive | None = None
    figure_of_merit: dict[str, float] = {}
    values: Values


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
    records: list[Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9._-]*\.yaml$")]]
