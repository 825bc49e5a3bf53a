"""Basler cameras, through pylon: one software trigger a frame, nothing stale.

The camera itself queues frames, so every grab strategy can hand out stale ones; each
frame here answers a trigger of its own, and one that arrives before its exposure can
have ended is refused. A removed camera still says that it is open, and even delivers:
it is asked whether it was removed.
"""

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, final

import numpy as np
from typing_extensions import override

from labctl.devices import (
    Camera,
    CameraSettings,
    Clock,
    Found,
    Frame,
    Identity,
    Settings,
)
from labctl.errors import (
    DeviceError,
    DeviceTimeoutError,
    FrameError,
    OutOfRangeError,
)

# By name: whether the library is installed makes no difference to a type checker.
pylon: Final[Any] = importlib.import_module("pypylon.pylon")
genicam: Final[Any] = importlib.import_module("pypylon.genicam")

READY_S: Final = 0.5  # until the next trigger is accepted
BITS: Final = {"Mono8": 8, "Mono10": 10, "Mono12": 12, "Mono16": 16}


@contextmanager
def vendor_errors(where: str, action: str) -> Iterator[None]:
    """Turn pylon's errors into ours, the most specific first.

    Parameters
    ----------
    where
        Name of the camera.
    action
        What it was asked to do.

    Raises
    ------
    DeviceTimeoutError
        It took too long.
    DeviceError
        Anything else.
    """
    try:
        yield
    except genicam.TimeoutException as err:
        raise DeviceTimeoutError(where, action, f"{err}. Look at its cable.") from err
    except genicam.GenericException as err:
        raise DeviceError(where, action, f"{err}. Look at its cable.") from err


@final
class BaslerCamera(Camera):
    """A camera that pylon knows, over USB or Ethernet.

    Parameters
    ----------
    shape
        Rows and columns of its sensor; compared with what it says.
    pixel_um
        Distance between pixels.
    name
        Name in the bench file.
    clock
        Time of the frames.
    pixel_format
        One of :data:`BITS`.
    camera
        Serial number of the one to open; empty for the only one there is.

    Raises
    ------
    ValueError
        An option is impossible.
    """

    def __init__(
        self,
        *,
        shape: Sequence[int],
        pixel_um: float,
        clock: Clock,
        name: str = "camera",
        pixel_format: str = "Mono12",
        camera: str = "",
    ) -> None:
        if len(shape) != 2 or min(shape) < 1 or not pixel_um > 0:
            text = (
                f"{name}: shape={list(shape)}, pixel_um={pixel_um}, expected rows and "
                "columns, and more than 0"
            )
            raise ValueError(text)
        if pixel_format not in BITS:
            text = (
                f"{name}: pixel_format={pixel_format!r}, expected one of "
                f"{', '.join(BITS)}"
            )
            raise ValueError(text)
        self._name, self._clock, self._wanted = name, clock, camera
        self._shape, self._pixel_um = (int(shape[0]), int(shape[1])), float(pixel_um)
        self._format = pixel_format
        self._camera: Any = None
        self._taken = CameraSettings(0.0, 0.0, (0, 0, *self._shape))
        self._armed, self._left, self._triggers, self._frames = False, 0, 0, 0
        self._last_id: int | None = None
        self._started_s: list[float] = []

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self._shape

    @property
    @override
    def bit_depth(self) -> int:
        return BITS[self._format]

    @property
    @override
    def pixel_um(self) -> float:
        return self._pixel_um

    @property
    @override
    def exposure_limits_s(self) -> tuple[float, float]:
        node = self._opened("exposure limits").ExposureTime
        return 1e-6 * node.Min, 1e-6 * node.Max

    @property
    @override
    def gain_limits_db(self) -> tuple[float, float]:
        node = self._opened("gain limits").Gain
        return float(node.Min), float(node.Max)

    @property
    @override
    def saturation_dn(self) -> int:
        return (1 << self.bit_depth) - 1

    @property
    @override
    def frame_id_modulus(self) -> int | None:
        return None  # gaps are judged here, and the count is ours

    @override
    def open(self) -> None:
        if self._camera is not None:
            raise DeviceError(self._name, "open", "already open. Close it first.")
        with vendor_errors(self._name, "open"):
            device = self._found()
            self._camera = pylon.InstantCamera(
                pylon.TlFactory.GetInstance().CreateDevice(device)
            )
        try:
            with vendor_errors(self._name, "open"):
                self._camera.Open()
                self._prepare(self._camera)
        except BaseException:
            self.close()
            raise

    def _found(self) -> Any:  # noqa: ANN401 - pylon has no types
        """Choose the camera.

        Raises
        ------
        DeviceError
            None or several are there.
        """
        there = pylon.TlFactory.GetInstance().EnumerateDevices()
        hits = [d for d in there if self._wanted in {"", d.GetSerialNumber()}]
        if len(hits) != 1:
            serials = ", ".join(d.GetSerialNumber() for d in there) or "none"
            text = (
                f"camera={self._wanted or 'any'}: {len(hits)} of those plugged in "
                f"({serials}), expected one. Name its serial number in the options, or "
                "look at plug, power and network address."
            )
            raise DeviceError(self._name, "open", text)
        return hits[0]

    def _prepare(self, camera: Any) -> None:  # noqa: ANN401 - pylon has no types
        """Switch off everything automatic, and take software triggers.

        Raises
        ------
        DeviceError
            It has another sensor than the bench file says.
        """
        for offset in (camera.OffsetX, camera.OffsetY):
            offset.Value = offset.Min
        shape = (int(camera.Height.Max), int(camera.Width.Max))
        if shape != self._shape:
            text = (
                f"shape={list(shape)}, expected {list(self._shape)} (bench file). "
                "Correct the options of the camera."
            )
            raise DeviceError(self._name, "open", text)
        camera.PixelFormat.Value = self._format
        for node in ("ExposureAuto", "GainAuto"):
            self._switch(camera, node, "Off")
        self._switch(camera, "GammaEnable", False)
        camera.AcquisitionMode.Value = "Continuous"
        camera.TriggerSelector.Value = "FrameStart"
        camera.TriggerSource.Value = "Software"
        camera.TriggerMode.Value = "On"
        camera.MaxNumBuffer.Value = 4
        self._apply(1e-6 * float(camera.ExposureTime.Value), 0.0, (0, 0, *shape))

    def _switch(self, camera: Any, node: str, wanted: str | bool) -> None:  # noqa: ANN401
        """Set something where the camera has it, and read it back.

        Raises
        ------
        DeviceError
            It did not take it.
        """
        at = getattr(camera, node)
        if not genicam.IsWritable(at):
            return
        at.Value = wanted
        if at.Value != wanted:
            text = f"{node}={at.Value} read back, expected {wanted}."
            raise DeviceError(self._name, "open", text)

    @override
    def close(self) -> None:
        camera, self._camera, self._armed = self._camera, None, False
        if camera is None:
            return
        with vendor_errors(self._name, "close"):
            camera.StopGrabbing()
            camera.Close()
            camera.DestroyDevice()

    def _opened(self, action: str) -> Any:  # noqa: ANN401 - pylon has no types
        """Return the camera; a node of a closed one still answers, so this is asked.

        Raises
        ------
        DeviceError
            It is not open.
        FrameError
            It was unplugged.
        """
        if self._camera is None:
            raise DeviceError(self._name, action, "not open. Open it first.")
        if self._camera.IsCameraDeviceRemoved():
            text = "no longer there. Look at plug and power."
            raise FrameError(self._name, "removed", text)
        return self._camera

    @override
    def identity(self) -> Identity:
        camera = self._opened("identity")
        with vendor_errors(self._name, "identity"):
            info = camera.GetDeviceInfo()
            firmware = camera.DeviceFirmwareVersion.Value
            return Identity(
                info.GetVendorName(),
                info.GetModelName(),
                info.GetSerialNumber(),
                str(firmware),
            )

    @override
    def settings(self) -> Settings:
        self._opened("settings")
        return {
            "shape": list(self._shape),
            "bit_depth": self.bit_depth,
            "pixel_um": self._pixel_um,
            "pixel_format": self._format,
            "exposure_s": self._taken.exposure_s,
            "gain_db": self._taken.gain_db,
            "region": list(self._taken.region),
        }

    @override
    def configure(
        self,
        *,
        exposure_s: float,
        gain_db: float = 0.0,
        region: tuple[int, int, int, int] | None = None,
    ) -> CameraSettings:
        self._opened("configure")
        if self._armed:
            raise DeviceError(self._name, "configure", "armed. Disarm it first.")
        self._check("exposure_s", exposure_s, self.exposure_limits_s)
        self._check("gain_db", gain_db, self.gain_limits_db)
        full = (0, 0, *self._shape)
        wanted = full if region is None else region
        self._check_region(wanted)
        with vendor_errors(self._name, "configure"):
            return self._apply(exposure_s, gain_db, wanted)

    def _check(self, quantity: str, got: float, limits: tuple[float, float]) -> None:
        low, high = limits
        if not low <= got <= high:
            raise OutOfRangeError(self._name, quantity, got, low=low, high=high)

    def _check_region(self, region: tuple[int, int, int, int]) -> None:
        """Refuse a region that is not on the sensor, or not in its steps.

        Raises
        ------
        OutOfRangeError
            Nothing was sent.
        """
        camera = self._opened("configure")
        row, column, height, width = region
        inside = (
            row >= 0
            and column >= 0
            and height >= camera.Height.Min
            and width >= camera.Width.Min
            and row + height <= self._shape[0]
            and column + width <= self._shape[1]
        )
        steps = (
            (row, camera.OffsetY.Inc),
            (column, camera.OffsetX.Inc),
            (height, camera.Height.Inc),
            (width, camera.Width.Inc),
        )
        if not inside or any(value % step for value, step in steps):
            raise OutOfRangeError(
                self._name,
                "region",
                region,
                low=(0, 0, camera.Height.Min, camera.Width.Min),
                high=(0, 0, *self._shape),
                source=f"device, in steps of {[int(step) for _, step in steps]}",
            )

    def _apply(
        self, exposure_s: float, gain_db: float, region: tuple[int, int, int, int]
    ) -> CameraSettings:
        """Send settings and read them back.

        Raises
        ------
        DeviceError
            The camera took something else.
        """
        camera = self._camera
        row, column, height, width = region
        camera.OffsetX.Value = camera.OffsetY.Value = 0  # else no room for the size
        camera.Width.Value, camera.Height.Value = width, height
        camera.OffsetX.Value, camera.OffsetY.Value = column, row
        camera.ExposureTime.Value = 1e6 * exposure_s
        camera.Gain.Value = gain_db
        self._taken = CameraSettings(
            1e-6 * float(camera.ExposureTime.Value),
            float(camera.Gain.Value),
            (
                int(camera.OffsetY.Value),
                int(camera.OffsetX.Value),
                int(camera.Height.Value),
                int(camera.Width.Value),
            ),
        )
        close = (
            math.isclose(self._taken.exposure_s, exposure_s, rel_tol=0.01, abs_tol=2e-6)
            and abs(self._taken.gain_db - gain_db) <= 0.1
            and self._taken.region == region
        )
        if not close:
            text = (
                f"read back {self._taken}, expected exposure_s={exposure_s:g}, "
                f"gain_db={gain_db:g}, region={region}."
            )
            raise DeviceError(self._name, "configure", text)
        return self._taken

    @override
    def arm(self, frames: int) -> None:
        camera = self._opened("arm")
        if frames < 1:
            raise OutOfRangeError(self._name, "frames", frames, low=1, high="any")
        self.disarm()
        with vendor_errors(self._name, "arm"):
            camera.StartGrabbing(pylon.GrabStrategy_OneByOne)
        self._armed, self._left = True, frames
        self._triggers = self._frames = 0
        self._last_id, self._started_s = None, []

    @override
    def trigger(self) -> None:
        camera = self._opened("trigger")
        if not self._armed or self._left == 0:
            text = "no trigger left since arm. Arm it for more frames."
            raise FrameError(self._name, "trigger_refused", text)
        with vendor_errors(self._name, "trigger"):
            # A trigger that comes too early is lost without a word.
            ready = camera.WaitForFrameTriggerReady(
                int(1000 * READY_S), pylon.TimeoutHandling_Return
            )
            if not ready:
                text = f"not ready within {READY_S} s. Look at its cable."
                raise FrameError(self._name, "trigger_refused", text)
            self._started_s.append(self._clock.now())
            self._left -= 1
            self._triggers += 1
            camera.ExecuteSoftwareTrigger()

    @override
    def frame(self, timeout_s: float) -> Frame:
        camera = self._opened("frame")
        if not self._armed:
            raise FrameError(self._name, "timeout", "not armed. Arm it first.")
        with vendor_errors(self._name, "frame"):
            result = camera.RetrieveResult(
                max(1, math.ceil(1000 * timeout_s)), pylon.TimeoutHandling_Return
            )
        self._opened("frame")  # a removed camera may still deliver
        if result is None or not result.IsValid():
            text = f"no frame within {timeout_s} s"
            raise FrameError(self._name, "timeout", text)
        with result:
            host_s = self._clock.now()
            return self._framed(result, host_s)

    def _framed(self, result: Any, host_s: float) -> Frame:  # noqa: ANN401 - pylon
        """Make a frame of a buffer.

        Raises
        ------
        FrameError
            It is incomplete, another was lost before it, or it came too early.
        DeviceError
            Its counts are not right-justified.
        """
        number = int(result.BlockID)
        before, self._last_id = self._last_id, number
        self._frames += 1
        if not result.GrabSucceeded():
            text = f"{result.ErrorDescription or 'a failed buffer'}"
            raise FrameError(self._name, "incomplete", text)
        if before is not None and number != before + 1:
            text = f"frame {number} after {before}, expected the next one"
            raise FrameError(self._name, "gap", text)
        if self._frames > self._triggers:
            text = f"{self._frames} frames for {self._triggers} triggers"
            raise FrameError(self._name, "stale", text)
        start_s = self._started_s[self._frames - 1]
        if host_s - start_s < self._taken.exposure_s:
            text = (
                f"here {host_s - start_s:.6f} s after its trigger, expected at least "
                f"the exposure of {self._taken.exposure_s:g} s"
            )
            raise FrameError(self._name, "stale", text)
        data = np.array(result.Array, dtype=np.uint16, order="C")
        if data.shape != self._taken.region[2:]:
            text = f"{data.shape}, expected {self._taken.region[2:]}"
            raise FrameError(self._name, "wrong_shape", text)
        if data.max() > self.saturation_dn:
            text = (
                f"a count of {data.max()}, expected at most {self.saturation_dn}: it "
                "is left-justified. Choose another pixel_format."
            )
            raise DeviceError(self._name, "frame", text)
        return Frame(
            data=data,
            frame_id=number,
            trigger=self._frames,
            device_time_s=1e-9 * float(result.TimeStamp),
            host_time_s=host_s,
            exposure_start_s=start_s,
            exposure_end_s=start_s + self._taken.exposure_s,
        )

    @override
    def disarm(self) -> None:
        self._armed = False
        if self._camera is not None:
            with vendor_errors(self._name, "disarm"):
                self._camera.StopGrabbing()


def find() -> list[Found]:
    """List the cameras that pylon sees; opens none of them.

    Returns
    -------
    found
        With what a bench file needs, but for shape and pixel_um.
    """
    with vendor_errors("basler", "find"):
        there = pylon.TlFactory.GetInstance().EnumerateDevices()
    return [
        Found(
            what=f"{d.GetVendorName()} {d.GetModelName()} ({d.GetSerialNumber()})",
            role="camera",
            driver="basler.camera",
            options={"camera": d.GetSerialNumber()},
            serial=d.GetSerialNumber(),
        )
        for d in there
    ]
