"""Cameras that pylablib knows, where a user has installed it: it is GPL, and no extra.

Its ``snap`` waits for whichever frame comes next, and frames that were lost are left
out without a word: here each frame is waited for and read one by one, and what was
skipped is told.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import numpy as np
from typing_extensions import override

from drivers.camera.triggered import (
    Buffer,
    Sensor,
    TriggeredCamera,
    check_taken,
)
from labctl.devices import CameraSettings, Clock, Identity
from labctl.errors import DeviceError, vendor_errors

DEVICES: Final = "pylablib.devices"
importlib.import_module(DEVICES)
LONGEST_S: Final = 10.0
BUFFERS: Final = 4
SOFTWARE: Final = "software"
#: No trigger at all: acquisition is started for each frame.
START: Final = "start"


@final
class PylablibSensor(Sensor):
    """A camera behind a class of pylablib's.

    Parameters
    ----------
    name
        Name in the bench file.
    kind
        Module and class below ``pylablib.devices``.
    arguments
        Keyword arguments of that class.
    trigger
        ``software`` or ``start``.
    """

    modulus = None  # frames are counted here; what it skipped is asked

    def __init__(
        self, name: str, kind: str, arguments: Mapping[str, Any], trigger: str
    ) -> None:
        self._name, self._kind, self._source = name, kind, trigger
        self._arguments = dict(arguments)
        self._camera: Any = None
        self._frames = 0

    @override
    def open(self) -> tuple[int, int]:
        module, _, label = self._kind.rpartition(".")
        with vendor_errors(self._name, "open"):
            kind = getattr(importlib.import_module(f"{DEVICES}.{module}"), label)
            camera = self._camera = kind(**self._arguments)
            camera.set_image_indexing("rct")  # rows from the top
            camera.set_frame_format("list")
            if hasattr(camera, "set_trigger_mode"):
                wanted = SOFTWARE if self._source == SOFTWARE else "int"
                camera.set_trigger_mode(wanted)
                got = str(camera.get_trigger_mode())
                check_taken(self._name, "trigger mode", got, wanted)
            elif self._source == SOFTWARE:
                text = "it takes no software trigger. Say trigger: start."
                raise DeviceError(self._name, "open", text)
            columns, rows = camera.get_detector_size()
            return int(rows), int(columns)

    @override
    def close(self) -> None:
        camera, self._camera = self._camera, None
        if camera is not None:
            with vendor_errors(self._name, "close"):
                try:
                    camera.stop_acquisition()
                finally:
                    camera.close()

    @override
    def identity(self) -> Identity:
        told: Any = None
        with vendor_errors(self._name, "identity"):
            if hasattr(self._camera, "get_device_info"):
                told = self._camera.get_device_info()
        serials = (getattr(told, key, "") for key in ("serial_number", "serial"))
        serial = next((str(each) for each in serials if each), self._kind)
        model = str(getattr(told, "model", "") or self._kind)
        return Identity("pylablib", model, serial, "")

    @property
    @override
    def exposure_limits_s(self) -> tuple[float, float]:
        return 1e-6, LONGEST_S  # it does not tell; what it took is read back

    @property
    @override
    def gain_limits_db(self) -> tuple[float, float]:
        return 0.0, 0.0  # each camera has a unit of its own

    @property
    @override
    def steps(self) -> tuple[int, int, int, int]:
        if not hasattr(self._camera, "set_roi"):
            return *self._camera.get_detector_size()[::-1], 1, 1
        return 1, 1, 1, 1  # what it took is read back

    @override
    def apply(
        self, exposure_s: float, gain_db: float, region: tuple[int, int, int, int]
    ) -> CameraSettings:
        row, column, height, width = region
        camera = self._camera
        with vendor_errors(self._name, "configure"):
            camera.stop_acquisition()
            if hasattr(camera, "set_roi"):
                camera.set_roi(column, column + width, row, row + height)
                left, right, top, bottom, *binned = camera.get_roi()
                if any(int(factor) != 1 for factor in binned):
                    text = f"binned by {binned}, expected 1."
                    raise DeviceError(self._name, "configure", text)
            else:
                right, bottom = camera.get_detector_size()
                left = top = 0
            camera.set_exposure(exposure_s)
            taken_s = float(camera.get_exposure())
        region = (int(top), int(left), int(bottom - top), int(right - left))
        return CameraSettings(taken_s, gain_db, region)

    @override
    def start(self, frames: int) -> None:
        self._frames = 0
        if self._source == SOFTWARE:
            self._run("arm")

    def _run(self, action: str) -> None:
        with vendor_errors(self._name, action):
            self._camera.clear_acquisition()  # with it every frame of before
            self._camera.setup_acquisition(nframes=BUFFERS)
            self._camera.start_acquisition()

    @override
    def stop(self) -> None:
        with vendor_errors(self._name, "disarm"):
            self._camera.stop_acquisition()

    @override
    def fire(self) -> None:
        if self._source == START:
            self.stop()
            self._run("trigger")
            return
        with vendor_errors(self._name, "trigger"):
            self._camera.send_software_trigger()

    @override
    def fetch(self, timeout_s: float) -> Buffer | None:
        camera = self._camera
        if not camera.acquisition_in_progress():
            return None
        with vendor_errors(self._name, "frame"):
            try:
                # Not from now: it may be here already. Of a stopped one it says nothing
                # unless it is asked to.
                camera.wait_for_frame(
                    since="lastread", timeout=timeout_s, error_on_stopped=True
                )
            except camera.TimeoutError as err:
                # Of some the class of all errors: told apart by what has come.
                if camera.get_frames_status().unread or str(err):
                    raise
                return None
            skipped = camera.get_frames_status().skipped
            image = camera.read_oldest_image()
            self._frames += 1
            if self._source == START:
                camera.stop_acquisition()  # else it would go on
        if image is None or skipped:
            problem = f"{skipped} frames were lost, expected none"
            return Buffer(self._frames, None, problem)
        return Buffer(self._frames, np.asarray(image))

    @override
    def is_removed(self) -> bool:
        return False  # it tells by an error, of whatever is asked next


def pylablib(  # noqa: PLR0913 - one parameter an option
    *,
    shape: Sequence[int],
    pixel_um: float,
    bits: int,
    camera: str,
    clock: Clock,
    name: str = "camera",
    arguments: Mapping[str, Any] | None = None,
    trigger: str = START,
    padding: int = 0,
) -> TriggeredCamera:
    """Make a camera that pylablib knows.

    Parameters
    ----------
    shape
        Rows and columns of its sensor; compared with what it says.
    pixel_um
        Distance between pixels.
    bits
        Bits a pixel, without the padding.
    camera
        Module and class below ``pylablib.devices``, such as ``DCAM.DCAMCamera``.
    clock
        Time of the frames.
    name
        Name in the bench file.
    arguments
        Keyword arguments of that class.
    trigger
        ``software`` for a camera that takes such triggers; ``start`` starts the
        acquisition for each frame.
    padding
        Low bits of each count that are always 0; they are checked, and taken away.

    Returns
    -------
    camera
        Not open.

    Raises
    ------
    ValueError
        An option is impossible.
    """
    module, _, label = camera.rpartition(".")
    named = all(part.isidentifier() for part in (*module.split("."), label))
    if not named or trigger not in {SOFTWARE, START}:
        text = (
            f"{name}: camera={camera!r}, trigger={trigger!r}, expected module.Class, "
            "as DCAM.DCAMCamera, software or start"
        )
        raise ValueError(text)
    return TriggeredCamera(
        name,
        PylablibSensor(name, camera, arguments or {}, trigger),
        clock=clock,
        shape=shape,
        pixel_um=pixel_um,
        bits=bits,
        padding=padding,
    )
