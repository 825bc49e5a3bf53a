"""Cameras that slmsuite knows, where asking one for an image exposes it.

slmsuite asks again after any error, so that a frame may belong to an earlier trigger;
it clips what is out of range, and averages where it was told to. All of that is off
here. Cameras that hand out whatever they have (webcams, Xenics), that only pass on what
another computer says, or that take colours are not opened.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import numpy as np
from typing_extensions import override

from drivers.camera.triggered import Buffer, Sensor, TriggeredCamera
from labctl.devices import CameraSettings, Clock, Identity
from labctl.errors import DeviceError, vendor_errors

CAMERAS: Final = "slmsuite.hardware.cameras"
importlib.import_module(CAMERAS)  # refused here, with the extra's name, if it is absent
LONGEST_S: Final = 10.0
ANSWER_S: Final = 2.0  # beyond the exposure
#: Classes that trigger, or start, an exposure for each image, by what slmsuite 0.5
#: does in their ``_get_image_hw``.
TRIGGERED: Final = (
    "alliedvision.AlliedVision",
    "basler.Basler",
    "flir.FLIR",
    "imagingsource.ImagingSource",
    "mindvision.MindVision",
    "mmcore.MMCore",
    "pylablib.PyLabLib",
    "simulated.SimulatedCamera",
    "thorlabs.ThorCam",
)


@final
class SlmsuiteSensor(Sensor):
    """A camera behind a class of slmsuite's.

    Parameters
    ----------
    name
        Name in the bench file.
    kind
        One of :data:`TRIGGERED`.
    arguments
        Keyword arguments of that class.
    bits
        Bits a pixel; compared with what it says.
    """

    modulus = None  # images are counted here

    def __init__(
        self, name: str, kind: str, arguments: Mapping[str, Any], bits: int
    ) -> None:
        self._name, self._kind, self._bits = name, kind, bits
        self._arguments = dict(arguments)
        self._camera: Any = None
        self._image: Any = None
        self._images = 0
        self._has_failed = False

    @override
    def open(self) -> tuple[int, int]:
        module, _, label = self._kind.rpartition(".")
        with vendor_errors(self._name, "open"):
            kind = getattr(importlib.import_module(f"{CAMERAS}.{module}"), label)
            camera = self._camera = kind(**self._arguments)
            self._has_failed = False
            camera.capture_attempts = 1
            self._check(camera)
            camera.set_woi(None)
            rows, columns = camera.sensor_shape
            return int(rows), int(columns)

    def _check(self, camera: Any) -> None:  # noqa: ANN401 - slmsuite has no types
        """Refuse another camera than the bench file describes.

        Raises
        ------
        DeviceError
            Its bits differ, its pixels are binned, or it waits for nobody's trigger.
        """
        bits = int(camera.bitdepth)
        binned = tuple(camera.binning) != (1, 1)
        is_free = getattr(camera, "profile", "single") != "single"
        if bits != self._bits or binned or is_free:
            text = (
                f"bitdepth={bits}, binning={tuple(camera.binning)}, profile="
                f"{getattr(camera, 'profile', 'single')}, expected {self._bits} (bench "
                "file), (1, 1), single. Correct the options of the camera."
            )
            raise DeviceError(self._name, "open", text)

    @override
    def close(self) -> None:
        camera, self._camera, self._image = self._camera, None, None
        if camera is not None:
            with vendor_errors(self._name, "close"):
                camera.close()

    @override
    def identity(self) -> Identity:
        label = str(getattr(self._camera, "name", ""))
        serial = str(getattr(self._camera, "serial", "") or label or self._kind)
        return Identity("slmsuite", self._kind, serial, "")

    @property
    @override
    def exposure_limits_s(self) -> tuple[float, float]:
        bounds = self._camera.exposure_bounds_s
        if bounds is None:  # it does not tell; what it took is read back
            return 1e-6, LONGEST_S
        return max(1e-6, float(bounds[0])), min(LONGEST_S, float(bounds[1]))

    @property
    @override
    def gain_limits_db(self) -> tuple[float, float]:
        return 0.0, 0.0  # slmsuite has none for all: name it in the arguments

    @property
    @override
    def steps(self) -> tuple[int, int, int, int]:
        return 1, 1, 1, 1  # it does not tell; what it took is read back

    @override
    def apply(
        self, exposure_s: float, gain_db: float, region: tuple[int, int, int, int]
    ) -> CameraSettings:
        row, column, height, width = region
        with vendor_errors(self._name, "configure"):
            left, wide, top, high = self._camera.set_woi((column, width, row, height))
            taken_s = float(self._camera.set_exposure(exposure_s))
        return CameraSettings(
            taken_s, gain_db, (int(top), int(left), int(high), int(wide))
        )

    @override
    def start(self, frames: int) -> None:
        self._image = None
        if self._has_failed:
            # What it had not handed out in time may still be there.
            with vendor_errors(self._name, "arm"):
                self._camera.flush()
            self._has_failed = False

    @override
    def stop(self) -> None:
        self._image = None

    @override
    def fire(self) -> None:
        self._has_failed, self._image = True, None
        with vendor_errors(self._name, "trigger"):
            # It adds the exposure to the time by itself.
            image = self._camera.get_image(
                timeout_s=ANSWER_S, hdr=False, averaging=False
            )
        self._image, self._has_failed = np.asarray(image), False
        self._images += 1

    @override
    def fetch(self, timeout_s: float) -> Buffer | None:
        del timeout_s  # it has been waited for
        image, self._image = self._image, None
        if image is None:
            return None
        if image.dtype.kind != "u":
            problem = f"{image.dtype}, expected counts as they are. No colours, please"
            return Buffer(self._images, None, problem)
        return Buffer(self._images, image)

    @override
    def is_removed(self) -> bool:
        return False  # it tells by an error, of whatever is asked next


def slmsuite(  # noqa: PLR0913 - one parameter an option
    *,
    shape: Sequence[int],
    pixel_um: float,
    bits: int,
    camera: str,
    clock: Clock,
    name: str = "camera",
    arguments: Mapping[str, Any] | None = None,
) -> TriggeredCamera:
    """Make a camera that slmsuite knows.

    Parameters
    ----------
    shape
        Rows and columns of its sensor; compared with what it says.
    pixel_um
        Distance between pixels.
    bits
        Bits a pixel; compared with what it says.
    camera
        Module and class below ``slmsuite.hardware.cameras``: one of
        :data:`TRIGGERED`.
    clock
        Time of the frames.
    name
        Name in the bench file.
    arguments
        Keyword arguments of that class.

    Returns
    -------
    camera
        Not open.

    Raises
    ------
    ValueError
        An option is impossible.
    """
    if camera not in TRIGGERED:
        text = (
            f"{name}: camera={camera!r}, expected one that is triggered: "
            f"{', '.join(TRIGGERED)}"
        )
        raise ValueError(text)
    return TriggeredCamera(
        name,
        SlmsuiteSensor(name, camera, arguments or {}, bits),
        clock=clock,
        shape=shape,
        pixel_um=pixel_um,
        bits=bits,
    )
