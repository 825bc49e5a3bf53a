"""The simulated twin of a real bench: its shapes, limits and timing.

::

    bench file, drivers that are not open --stand_in--> bench file of simulated devices
    what the simulated light path says of itself --calibrations--> records in force

What the bench file's ``twin`` section says comes first; the rest is taken from the
bench: shapes, pitches and settling from its drivers, or from the options that the bench
file gives them where their library is not installed; light from its operating point.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NoReturn, TypeGuard

from labctl.calibration import (
    BenchFile,
    CalibrationRecord,
    CameraResponse,
    Devices,
    DriverEntry,
    PhaseCurve,
    ReservoirEntry,
    Settle,
    Twin,
)
from labctl.devices import SLM, Camera, Settings
from labctl.errors import (
    CalibrationError,
    DeviceError,
    InputError,
    MissingLibraryError,
)

# What a simulated light path says of its sensor, for the calibration of a camera.
SENSOR: Final = (
    "sensor.offset_dn",
    "dark_e_per_s",
    "sensor.gain_dn_per_e",
    "sensor.read_noise_e",
)
# Grid points along a macropixel, and the finest grid that is made unasked.
_POINTS: Final = 4
_FINEST: Final = 512
# A pixel that took a full step of 8 bits is within half a level after so many time
# constants; a vanishing step is as much faster as in Oton 2009 (physics of the
# simulated bench).
_SETTLED: Final = math.log(510)
_SLOWNESS: Final = 520 / 128
# Light: speckle reaches about ten times its mean, and a full well holds 15,000
# electrons; four in five photons make one.
_MEAN_E: Final = 750.0
_EFFICIENCY: Final = 0.8
_IN_REGION: Final = 0.95

Options = dict[str, Any]


def stand_in(
    file: BenchFile,
    path: Path,
    *,
    slm: Callable[[], SLM],
    camera: Callable[[], Camera],
) -> BenchFile:
    """Describe the simulated twin of a real bench.

    Parameters
    ----------
    file
        The bench.
    path
        Where it lies, for messages.
    slm, camera
        Construct the drivers that the bench names; they are not opened. Called
        only where the twin section leaves something open.

    Returns
    -------
    file
        A bench of simulated devices with the same name, limits and operating
        point.

    Raises
    ------
    ProtocolError
        A driver or its options are refused.
    InputError
        A shape is not known before a device is open, the grid would be too fine,
        or the simulated bench cannot look where this one does.
    """
    twin = file.twin or Twin()
    panel, sensor = (_part(twin.world, key, path) for key in ("panel", "sensor"))
    entry = file.reservoir
    known: dict[str, Options] = {"slm": {}, "camera": {}}
    if "shape" not in panel:
        device = _driver(slm, file.devices.slm, path, "slm", "panel")
        panel = _of_panel(device, path) | panel
        known["slm"] = _known(device, "pitch_um")
    if "shape" not in sensor:
        device = _driver(camera, file.devices.camera, path, "camera", "sensor")
        sensor = {"shape": list(_shape(device, path, "camera", "sensor"))} | sensor
        known["camera"] = _known(device, "pixel_um")
    world = {
        "nominal_mw": entry.power_mw,
        "view": _view(file, path),
        **({} if "grid" in twin.world else _grid(entry, path)),
        **twin.world,
        "panel": panel,
        "sensor": {"photons_per_s": _brightness(entry)} | sensor,
    }
    laser = {"power_limits_mw": [0.0, file.limits.power_mw], **twin.laser}
    shutter, meter = file.devices.shutter, twin.meter
    return file.model_copy(
        update={
            "world": DriverEntry(driver="sim.world", options=world),
            "devices": Devices(
                slm=_simulated("slm", known["slm"] | twin.slm),
                laser=_simulated("laser", laser),
                camera=_simulated("camera", known["camera"] | twin.camera),
                meter=None if meter is None else _simulated("meter", meter),
                shutter=None if shutter is None else _simulated("shutter", {}),
            ),
            "sequence": DriverEntry(driver="sim.sequence"),
            "oracle": DriverEntry(driver="sim.oracle"),
            "wiring": None,
            # Its camera is where the drawing has it: the region is where it stands.
            "drawing": None,
        }
    )


def unlike(file: BenchFile) -> str:
    """Name what a bench has and its twin has not.

    Parameters
    ----------
    file
        The bench.

    Returns
    -------
    text
        A part of a sentence; empty where it lacks nothing.
    """
    twin = file.twin or Twin()
    lacking = []
    if file.devices.meter is not None and twin.meter is None:
        guarded = "" if file.limits.meter is None else ", whose limits then do not hold"
        lacking.append(f"a meter (twin.meter{guarded})")
    if file.devices.thermometer is not None:
        guarded = (
            "" if file.limits.thermometer is None else ", whose limits do not hold"
        )
        lacking.append(f"a thermometer{guarded}")
    if file.devices.attenuator is not None:
        lacking.append("an attenuator")
    return f"It has not {' nor '.join(lacking)}." if lacking else ""


def calibrations(
    name: str, bench_sha256: str, settle_s: float, described: Settings
) -> dict[str, CalibrationRecord]:
    """Give what a twin has by construction: its bench's own do not hold for it.

    Parameters
    ----------
    name
        Name of the bench, for messages.
    bench_sha256
        Hash of its file.
    settle_s
        The simulated panel's worst case of settling.
    described
        What the simulated light path says of itself.

    Returns
    -------
    records
        By kind: one turn over all levels, the settling, and the sensor's response.

    Raises
    ------
    CalibrationError
        The light path does not describe its sensor.
    """
    sensor = {key: described.get(key) for key in SENSOR}
    offset, dark, gain, noise = (
        value if isinstance(value, (int, float)) else math.nan
        for value in sensor.values()
    )
    if math.isnan(offset + dark + gain + noise):
        text = (
            f"bench {name}: the twin describes its sensor as {sensor}, "
            "expected a number for each. Install drivers of this version of labctl."
        )
        raise CalibrationError(text)
    values = (
        PhaseCurve(kind="slm-phase", span_rad=2 * math.pi),
        Settle(kind="settle", settle_s=settle_s),
        CameraResponse(
            kind="camera",
            offset_dn=offset,
            dark_dn_per_s=dark * gain,
            gain_dn_per_e=gain,
            read_noise_e=noise,
        ),
    )
    now = datetime.now(UTC)
    return {
        each.kind: CalibrationRecord(
            schema_version=1,
            origin="given",
            created=now,
            bench_sha256=bench_sha256,
            values=each,
        )
        for each in values
    }


def _simulated(role: str, options: Options) -> DriverEntry:
    return DriverEntry(driver=f"sim.{role}", options=options)


def _part(world: Mapping[str, Any], key: str, path: Path) -> Options:
    part = world.get(key, {})
    if not isinstance(part, Mapping):
        text = f"{path}: twin.world.{key}={part!r}, expected keys and values."
        raise InputError(text)
    return dict(part)


def _driver(
    make: Callable[[], Any], entry: DriverEntry, path: Path, role: str, part: str
) -> Any:  # noqa: ANN401 - SLM, camera, or what the bench file says of either
    """Construct a driver; where its library is missing, take its options for it.

    Raises
    ------
    ProtocolError
        The driver or its options are refused.
    InputError
        Its library is missing, and the bench file does not tell its shape.
    """
    try:
        return make()
    except MissingLibraryError as error:
        shape = entry.options.get("shape")
        if not _is_shape(shape):
            _unknown(path, role, part, str(error), error)
        return SimpleNamespace(**entry.options | {"shape": tuple(shape)})


def _is_shape(value: object) -> TypeGuard[list[int]]:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(size, int) and size >= 1 for size in value)
    )


def _known(device: Any, name: str) -> Options:  # noqa: ANN401 - SLM or camera
    # What only shows once it is open stays the simulated device's own.
    with suppress(DeviceError):
        value = getattr(device, name, None)
        if isinstance(value, int | float) and value > 0:
            return {name: float(value)}
    return {}


def _shape(device: Any, path: Path, role: str, part: str) -> tuple[int, int]:  # noqa: ANN401 - SLM or camera
    try:
        height, width = device.shape
    except DeviceError as error:
        _unknown(path, role, part, f"{role} tells it once it is open", error)
    return height, width


def _unknown(path: Path, role: str, part: str, why: str, cause: Exception) -> NoReturn:
    text = (
        f"{path}: twin.world.{part}.shape is missing, expected rows and columns of the "
        f"{role} ({why}). Add twin: {{world: {{{part}: {{shape: [HEIGHT, WIDTH]}}}}}}, "
        "or use --bench sim."
    )
    raise InputError(text) from cause


def _of_panel(slm: Any, path: Path) -> Options:  # noqa: ANN401 - SLM or its options
    made: Options = {"shape": list(_shape(slm, path, "slm", "panel"))}
    for settle_s in _known(slm, "settle_s").values():
        slow_s = settle_s / _SETTLED
        made |= {"slow_s": slow_s, "fast_s": slow_s / _SLOWNESS}
    return made


def _grid(entry: ReservoirEntry, path: Path) -> Options:
    rows, columns = (max(8, _POINTS * count) for count in entry.macropixels)
    if max(rows, columns) > _FINEST:
        text = (
            f"{path}: reservoir.macropixels={list(entry.macropixels)}, expected at "
            f"most {_FINEST // _POINTS} along a side of a twin whose grid is not "
            "given. Add twin: {world: {grid: [ROWS, COLUMNS]}}."
        )
        raise InputError(text)
    return {"grid": [rows, columns], "macropixel_px": _POINTS}


def _view(file: BenchFile, path: Path) -> str:
    if file.view == "through_medium" and "view" not in (file.twin or Twin()).world:
        text = (
            f"{path}: view=through_medium, expected far_field or image for a twin. "
            "Add twin: {world: {view: image}}."
        )
        raise InputError(text)
    return file.view


def _brightness(entry: ReservoirEntry) -> float:
    _, _, height, width = entry.region
    electrons = _MEAN_E * height * width / _IN_REGION
    return electrons / (_EFFICIENCY * entry.exposure_s)
