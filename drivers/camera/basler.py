"""Basler cameras, through pylon.

The camera itself queues frames, so every grab strategy can hand out stale ones: each
frame answers a trigger of its own.
"""

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, final

from typing_extensions import override

from drivers.camera.triggered import (
    Buffer,
    GainScale,
    Sensor,
    TriggeredCamera,
    activation_of,
    bits_of,
    check_taken,
    lines_of,
    scale_of_gain,
    the_one,
)
from labctl.devices import CameraSettings, Clock, Edge, Found, Identity
from labctl.errors import DeviceError, DeviceTimeoutError, FrameError

# By name: whether the library is installed makes no difference to a type checker.
pylon: Final[Any] = importlib.import_module("pypylon.pylon")
genicam: Final[Any] = importlib.import_module("pypylon.genicam")

_EVENT: Final = "EventExposureEndData"
READY_S: Final = 0.5  # until the next trigger is accepted


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
class _Ends(pylon.CameraEventHandler):  # type: ignore[misc]  # pylon has no types
    """Hears that exposures are over, while results are retrieved."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[int] = []

    def OnCameraEvent(self, camera: Any, number: int, node: Any) -> None:  # noqa: ANN401, N802 - pylon's name, without types
        del number, node
        self.heard.append(int(camera.EventExposureEndFrameID.Value))


def count_without_end(camera: Any) -> int | None:  # noqa: ANN401 - pylon has no types
    """Have frames counted with 64 bits; the only way there is over USB.

    Parameters
    ----------
    camera
        pylon's, open.

    Returns
    -------
    modulus
        Frames after which its counter starts again; None where it does not. On
        Ethernet it counts with 16 bits unless told otherwise, and leaves 0 out
        (docs.baslerweb.com, GrabResult, BlockID).
    """
    if not camera.IsGigE():
        return None
    for name in ("GevGVSPExtendedIDMode", "BslGevGVSPExtendedIDMode"):
        node = getattr(camera, name)  # also of a camera that has none
        if genicam.IsWritable(node):
            node.Value = "On"
        if genicam.IsReadable(node) and node.Value == "On":
            return None
    return 65_535


def _first(camera: Any, *names: str) -> Any:  # noqa: ANN401 - pylon has no types
    """Give the first of these nodes that the camera has; None where it has none.

    Cameras of SFNC 1, such as an ace on Ethernet, have other names than those of 2.
    """
    nodes = (getattr(camera, name) for name in names)
    return next((node for node in nodes if genicam.IsImplemented(node)), None)


@final
class BaslerSensor(Sensor):
    """A camera that pylon knows.

    Parameters
    ----------
    name
        Name in the bench file.
    pixel_format
        As :data:`drivers.camera.triggered.BITS` names it.
    wanted
        Serial number of the one to open; empty for the only one there is.
    told
        What its gain counts in, where the camera does not say.
    tells_exposure_end
        Whether it is to report that an exposure is over.
    """

    def __init__(
        self,
        name: str,
        pixel_format: str,
        wanted: str,
        told: GainScale | None = None,
        *,
        tells_exposure_end: bool,
    ) -> None:
        self._name, self._format, self._wanted = name, pixel_format, wanted
        self._told, self._scale = told, told
        self._exposure: Any = None
        self._gain: Any = None
        self._delay: Any = None
        self.modulus: int | None = None
        self.tells_exposure_end = tells_exposure_end
        self._camera: Any = None
        self._ends: _Ends | None = None
        self._waits_for_edges = False
        # Frames that came together with what was asked for: of an exposure that is
        # waited for, and of the one before, whose frame nobody has taken yet.
        self._early: list[Any] = []

    @override
    def open(self) -> tuple[int, int]:
        with vendor_errors(self._name, "open"):
            factory = pylon.TlFactory.GetInstance()
            device = the_one(
                self._name,
                self._wanted,
                factory.EnumerateDevices(),
                lambda each: [each.GetSerialNumber()],
            )
            self._camera = pylon.InstantCamera(factory.CreateDevice(device))
            # Before it is open: it then makes room for them.
            self._camera.GrabCameraEvents.Value = self.tells_exposure_end
            self._camera.Open()
            self._prepare(self._camera)
            self.modulus = count_without_end(self._camera)
            if self.tells_exposure_end:
                self._listen(self._camera)
            return int(self._camera.Height.Max), int(self._camera.Width.Max)

    def _prepare(self, camera: Any) -> None:  # noqa: ANN401 - pylon has no types
        """Switch off everything automatic, and take software triggers."""
        for offset in (camera.OffsetX, camera.OffsetY):
            offset.Value = offset.Min
        camera.PixelFormat.Value = self._format
        for node in ("ExposureAuto", "GainAuto"):
            self._switch(camera, node, "Off")
        self._switch(camera, "GammaEnable", False)
        self._prepare_exposure(camera)
        self._delay = _first(camera, "TriggerDelay", "TriggerDelayAbs")
        camera.AcquisitionMode.Value = "Continuous"
        camera.TriggerSelector.Value = "FrameStart"
        self._heed("Software", 0.0)
        camera.TriggerMode.Value = "On"
        camera.MaxNumBuffer.Value = 4

    def _prepare_exposure(self, camera: Any) -> None:  # noqa: ANN401 - pylon has no types
        """Find exposure and gain, and put the gain to its least.

        Raises
        ------
        DeviceError
            It has no exposure.
        """
        self._exposure = _first(camera, "ExposureTime", "ExposureTimeAbs")
        if self._exposure is None:
            text = "no ExposureTime, expected one. It cannot be used on a bench."
            raise DeviceError(self._name, "open", text)
        self._gain = _first(camera, "Gain", "GainRaw")
        if self._gain is not None:
            unit = str(self._gain.Unit)
            self._scale = scale_of_gain(self._name, unit, self._told)
            self._gain.Value = self._gain.Min

    def _heed(self, source: str, delay_us: float) -> float:
        """Set what starts an exposure, after how long; return what it took, in us."""
        camera = self._camera
        camera.TriggerSource.Value = source
        check_taken(self._name, "TriggerSource", camera.TriggerSource.Value, source)
        self._waits_for_edges = source != "Software"
        if self._delay is None or not genicam.IsWritable(self._delay):
            return 0.0
        self._delay.Value = delay_us
        return float(self._delay.Value)

    def _listen(self, camera: Any) -> None:  # noqa: ANN401 - pylon has no types
        """Have the end of each exposure reported.

        Raises
        ------
        DeviceError
            It does not report that, or its rows are exposed one after the other: then
            the first to end says nothing of the last.
        """
        shutter = "Global"
        if genicam.IsReadable(camera.SensorShutterMode):
            shutter = str(camera.SensorShutterMode.Value)
        tells = genicam.IsWritable(camera.EventSelector) and genicam.IsImplemented(
            camera.EventExposureEndFrameID
        )
        if not shutter.startswith("Global") or not tells:
            text = (
                f"SensorShutterMode={shutter}: it does not report the end of an "
                "exposure of all rows. Remove tells_exposure_end from its options."
            )
            raise DeviceError(self._name, "open", text)
        self._ends = _Ends()
        camera.RegisterCameraEventHandler(
            self._ends,
            _EVENT,
            0,
            pylon.RegistrationMode_ReplaceAll,
            pylon.Cleanup_None,
        )
        camera.EventSelector.Value = "ExposureEnd"
        self._switch(camera, "EventNotification", "On")

    def _switch(self, camera: Any, node: str, wanted: str | bool) -> None:  # noqa: ANN401
        """Set something where the camera has it, and read it back."""
        at = getattr(camera, node)
        if genicam.IsWritable(at):
            at.Value = wanted
            check_taken(self._name, node, at.Value, wanted)

    @override
    def close(self) -> None:
        camera, self._camera = self._camera, None
        if camera is not None:
            with vendor_errors(self._name, "close"):
                camera.StopGrabbing()
                ends, self._ends, self._early = self._ends, None, []
                if ends is not None:  # before it is forgotten, or the process crashes
                    camera.DeregisterCameraEventHandler(ends, _EVENT)
                camera.Close()
                camera.DestroyDevice()

    @override
    def identity(self) -> Identity:
        with vendor_errors(self._name, "identity"):
            info = self._camera.GetDeviceInfo()
            return Identity(
                info.GetVendorName(),
                info.GetModelName(),
                info.GetSerialNumber(),
                str(self._camera.DeviceFirmwareVersion.Value),
            )

    @property
    @override
    def exposure_limits_s(self) -> tuple[float, float]:
        with vendor_errors(self._name, "exposure limits"):
            return 1e-6 * self._exposure.Min, 1e-6 * self._exposure.Max

    @property
    @override
    def gain_limits_db(self) -> tuple[float, float]:
        if self._gain is None or self._scale is None:
            return 0.0, 0.0
        with vendor_errors(self._name, "gain limits"):
            return self._scale.limits_db(float(self._gain.Min), float(self._gain.Max))

    @property
    @override
    def steps(self) -> tuple[int, int, int, int]:
        camera = self._camera
        with vendor_errors(self._name, "region"):
            nodes = (camera.OffsetY, camera.OffsetX, camera.Height, camera.Width)
            row, column, height, width = (int(node.Inc) for node in nodes)
            return row, column, height, width

    @override
    def apply(
        self, exposure_s: float, gain_db: float, region: tuple[int, int, int, int]
    ) -> CameraSettings:
        camera = self._camera
        row, column, height, width = region
        with vendor_errors(self._name, "configure"):
            camera.OffsetX.Value = camera.OffsetY.Value = 0  # else no room
            camera.Width.Value, camera.Height.Value = width, height
            camera.OffsetX.Value, camera.OffsetY.Value = column, row
            self._exposure.Value = 1e6 * exposure_s
            gain_db = self._amplify(gain_db)
            return CameraSettings(
                1e-6 * float(self._exposure.Value),
                gain_db,
                (
                    int(camera.OffsetY.Value),
                    int(camera.OffsetX.Value),
                    int(camera.Height.Value),
                    int(camera.Width.Value),
                ),
            )

    def _amplify(self, gain_db: float) -> float:
        """Set the gain, where it is known what it counts in; return what it took."""
        if self._gain is None or self._scale is None:
            return 0.0
        number = self._scale.as_number(gain_db)
        whole = isinstance(self._gain, pylon.IntegerParameter)
        self._gain.Value = round(number) if whole else number
        return self._scale.as_db(float(self._gain.Value))

    @override
    def start(self, frames: int) -> None:
        with vendor_errors(self._name, "arm"):
            if self._waits_for_edges:
                self._heed("Software", 0.0)
            self._grab()

    def _grab(self) -> None:
        self._early = []
        self._camera.StartGrabbing(pylon.GrabStrategy_OneByOne)
        self.forget_exposures()

    @property
    @override
    def edge_lines(self) -> tuple[str, ...]:
        with vendor_errors(self._name, "lines"):
            return lines_of(self._camera.TriggerSource.Symbolics)

    @property
    @override
    def edge_delay_limits_s(self) -> tuple[float, float]:
        with vendor_errors(self._name, "delay limits"):
            node = self._delay
            if node is None or not genicam.IsWritable(node):
                return 0.0, 0.0
            return 1e-6 * node.Min, 1e-6 * node.Max

    @override
    def start_for_edges(self, frames: int, edge: Edge) -> float:
        action = "arm for edges"
        with vendor_errors(self._name, action):
            camera = self._camera
            camera.LineSelector.Value = edge.line
            # One that is an input alone may not be written.
            if genicam.IsWritable(camera.LineMode):
                camera.LineMode.Value = "Input"
            check_taken(self._name, "LineMode", camera.LineMode.Value, "Input", action)
            # Rounded up: the pattern has settled then.
            delay_us = self._heed(edge.line, math.ceil(1e6 * edge.delay_s))
            wanted = activation_of(edge)
            camera.TriggerActivation.Value = wanted
            got = camera.TriggerActivation.Value
            check_taken(self._name, "TriggerActivation", got, wanted, action)
            self._grab()
            return 1e-6 * delay_us

    @override
    def stop(self) -> None:
        self._early = []
        with vendor_errors(self._name, "disarm"):
            self._camera.StopGrabbing()

    @override
    def fire(self) -> None:
        with vendor_errors(self._name, "trigger"):
            # A trigger that comes too early is lost without a word.
            ready = self._camera.WaitForFrameTriggerReady(
                int(1000 * READY_S), pylon.TimeoutHandling_Return
            )
            if not ready:
                text = f"not ready within {READY_S} s. Look at its cable."
                raise FrameError(self._name, "trigger_refused", text)
            self._camera.ExecuteSoftwareTrigger()

    @override
    def fetch(self, timeout_s: float) -> Buffer | None:
        with vendor_errors(self._name, "frame"):
            if self._early:
                result = self._early.pop(0)
            else:
                result = self._camera.RetrieveResult(
                    max(1, math.ceil(1000 * timeout_s)), pylon.TimeoutHandling_Return
                )
            if result is None or not result.IsValid():
                return None
            with result:
                good = result.GrabSucceeded()
                return Buffer(
                    number=int(result.BlockID),
                    data=result.Array.copy() if good else None,
                    problem=str(result.ErrorDescription or "a failed buffer"),
                    device_time_s=1e-9 * float(result.TimeStamp),
                )

    @override
    def forget_exposures(self) -> None:
        if self._ends is not None:
            with vendor_errors(self._name, "trigger"):
                self._hear(0.0)
            self._ends.heard.clear()

    @override
    def exposed(self, timeout_s: float) -> int | None:
        with vendor_errors(self._name, "wait for the end of an exposure"):
            self._hear(timeout_s)
        heard = [] if self._ends is None else self._ends.heard
        return heard.pop(0) if heard else None

    def _hear(self, timeout_s: float) -> None:
        """Wait for a report, and have it told: that is part of retrieving results."""
        waiting = self._camera.GetCameraEventWaitObject()
        if waiting.Wait(math.ceil(1000 * timeout_s)):
            result = self._camera.RetrieveResult(0, pylon.TimeoutHandling_Return)
            if result is not None and result.IsValid():
                self._early.append(result)

    @override
    def is_removed(self) -> bool:
        # It still says that it is open, and even delivers.
        return bool(self._camera.IsCameraDeviceRemoved())


def basler(  # noqa: PLR0913 - one parameter an option
    *,
    shape: Sequence[int],
    pixel_um: float,
    clock: Clock,
    name: str = "camera",
    pixel_format: str = "Mono12",
    camera: str = "",
    padding: int = 0,
    gain: Mapping[str, float] | None = None,
    tells_exposure_end: bool = False,
) -> TriggeredCamera:
    """Make a camera that pylon knows, over USB or Ethernet.

    Parameters
    ----------
    shape
        Rows and columns of its sensor; compared with what it says.
    pixel_um
        Distance between pixels.
    clock
        Time of the frames.
    name
        Name in the bench file.
    pixel_format
        As :data:`drivers.camera.triggered.BITS` names it.
    camera
        Serial number of the one to open; empty for the only one there is.
    padding
        Low bits of each count that are always 0: counts of 12 bits, left-justified in
        ``Mono16``, have 4. They are checked, and taken away.
    gain
        What its numbers of gain are, where the camera counts in no dB (an ace on
        Ethernet): ``{db_per_step: 0.0359}`` or ``{unity: 136}``, from its data sheet.
        None leaves such a gain at its least.
    tells_exposure_end
        Whether it is to report that an exposure is over, so that the next pattern is
        written while its frame is read out. Only for global shutters.

    Returns
    -------
    camera
        Not open.

    Raises
    ------
    ValueError
        An option is impossible.
    """
    return TriggeredCamera(
        name,
        BaslerSensor(
            name,
            pixel_format,
            camera,
            GainScale.of(name, gain),
            tells_exposure_end=tells_exposure_end,
        ),
        clock=clock,
        shape=shape,
        pixel_um=pixel_um,
        bits=bits_of(name, pixel_format, padding),
        padding=padding,
    )


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
