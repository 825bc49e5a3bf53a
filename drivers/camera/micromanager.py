"""Cameras that Micro-Manager has an adapter for, through its core.

One snap a trigger, and never its sequences: there a region that changes is accepted
without a word, and an overflow is a flag that one has to look for.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, final

from typing_extensions import override

from drivers.camera.triggered import Buffer, Sensor, TriggeredCamera
from labctl.devices import CameraSettings, Clock, Identity
from labctl.errors import DeviceError

pymmcore: Final[Any] = importlib.import_module("pymmcore")

LABEL: Final = "camera"
LONGEST_S: Final = 10.0


@contextmanager
def vendor_errors(where: str, action: str) -> Iterator[None]:
    """Turn the core's errors into ours.

    Parameters
    ----------
    where
        Name of the camera.
    action
        What it was asked to do.

    Raises
    ------
    DeviceError
        Always, of an error of its.
    """
    try:
        yield
    except RuntimeError as err:  # all that the core raises
        text = f"{err}. Look at cable, power and the adapter's own requirements."
        raise DeviceError(where, action, text) from err


@final
class CoreSensor(Sensor):
    """A camera behind a Micro-Manager adapter.

    Parameters
    ----------
    name
        Name in the bench file.
    adapter, device
        Names of the adapter's library and of the device in it.
    folder
        Where the adapters are.
    properties
        Properties of the device, set at open in this order and read back.
    """

    modulus = None  # snaps are counted here

    def __init__(
        self,
        name: str,
        adapter: str,
        device: str,
        folder: str,
        properties: Mapping[str, str],
    ) -> None:
        self._name, self._adapter, self._device = name, adapter, device
        self._folder, self._properties = folder, dict(properties)
        self._core: Any = None
        self._snaps = 0
        self._waits = False

    @override
    def open(self) -> tuple[int, int]:
        with vendor_errors(self._name, "open"):
            core = self._core = pymmcore.CMMCore()
            core.setDeviceAdapterSearchPaths([self._folder])
            core.loadDevice(LABEL, self._adapter, self._device)
            core.initializeDevice(LABEL)
            core.setCameraDevice(LABEL)
            core.setTimeoutMs(int(1000 * LONGEST_S))
            for key, value in self._properties.items():
                self._set(core, key, str(value))
            core.clearROI()
            return int(core.getImageHeight()), int(core.getImageWidth())

    def _set(self, core: Any, key: str, value: str) -> None:  # noqa: ANN401
        """Set a property and read it back.

        Raises
        ------
        DeviceError
            It did not take it.
        """
        core.setProperty(LABEL, key, value)
        got = str(core.getProperty(LABEL, key))
        if got != value and not _same(got, value):
            text = f"{key}={got} read back, expected {value}."
            raise DeviceError(self._name, "open", text)

    @override
    def close(self) -> None:
        core, self._core, self._waits = self._core, None, False
        if core is not None:
            with vendor_errors(self._name, "close"):
                core.reset()

    @override
    def identity(self) -> Identity:
        with vendor_errors(self._name, "identity"):
            return Identity(
                "Micro-Manager",
                f"{self._adapter} {self._core.getDeviceName(LABEL)}",
                self._serial(),
                str(self._core.getVersionInfo()),
            )

    def _serial(self) -> str:
        for key in ("CameraID", "Serial Number", "SerialNumber"):
            if self._core.hasProperty(LABEL, key):
                return str(self._core.getProperty(LABEL, key))
        return f"{self._adapter}/{self._device}"

    @property
    @override
    def exposure_limits_s(self) -> tuple[float, float]:
        core = self._core
        if core.hasPropertyLimits(LABEL, "Exposure"):
            low = core.getPropertyLowerLimit(LABEL, "Exposure")
            high = core.getPropertyUpperLimit(LABEL, "Exposure")
            return max(1e-6, 1e-3 * low), 1e-3 * high
        return 1e-6, LONGEST_S  # the adapter does not tell; what it took is read back

    @property
    @override
    def gain_limits_db(self) -> tuple[float, float]:
        return 0.0, 0.0  # each adapter has a unit of its own: set it by properties

    @property
    @override
    def steps(self) -> tuple[int, int, int, int]:
        return 1, 1, 1, 1  # the adapter does not tell; what it took is read back

    @override
    def apply(
        self, exposure_s: float, gain_db: float, region: tuple[int, int, int, int]
    ) -> CameraSettings:
        core = self._core
        row, column, height, width = region
        with vendor_errors(self._name, "configure"):
            core.clearROI()
            if (height, width) != (core.getImageHeight(), core.getImageWidth()):
                core.setROI(column, row, width, height)
            core.setExposure(1000 * exposure_s)
            left, top, wide, high = core.getROI()
            return CameraSettings(
                1e-3 * float(core.getExposure()),
                0.0,
                (int(top), int(left), int(high), int(wide)),
            )

    @override
    def start(self, frames: int) -> None:
        self._waits = False

    @override
    def stop(self) -> None:
        self._waits = False

    @override
    def fire(self) -> None:
        with vendor_errors(self._name, "trigger"):
            self._core.snapImage()
        self._snaps += 1
        self._waits = True

    @override
    def fetch(self, timeout_s: float) -> Buffer | None:
        if not self._waits:
            return None
        self._waits = False
        with vendor_errors(self._name, "frame"):
            return Buffer(number=self._snaps, data=self._core.getImage())

    @override
    def is_removed(self) -> bool:
        return False  # it tells by an error, of whatever is asked next


def _same(got: str, wanted: str) -> bool:
    try:
        return float(got) == float(wanted)
    except ValueError:
        return False


def micromanager(  # noqa: PLR0913 - one parameter an option
    *,
    shape: Sequence[int],
    pixel_um: float,
    bits: int,
    adapter: str,
    device: str,
    folder: str,
    clock: Clock,
    name: str = "camera",
    properties: Mapping[str, str] | None = None,
    padding: int = 0,
) -> TriggeredCamera:
    """Make a camera that Micro-Manager has an adapter for.

    Parameters
    ----------
    shape
        Rows and columns of its sensor; compared with what it says.
    pixel_um
        Distance between pixels.
    bits
        Bits a pixel, without the padding.
    adapter, device
        Names of the adapter's library and of the device in it.
    folder
        Where the adapters are: that of Micro-Manager.
    clock
        Time of the frames.
    name
        Name in the bench file.
    properties
        Properties of the device, set at open in this order and read back.
    padding
        Low bits of each count that are always 0, where counts are left-justified. They
        are checked, and taken away.

    Returns
    -------
    camera
        Not open.
    """
    return TriggeredCamera(
        name,
        CoreSensor(name, adapter, device, folder, properties or {}),
        clock=clock,
        shape=shape,
        pixel_um=pixel_um,
        bits=bits,
        padding=padding,
    )
