"""GigE Vision and USB3 Vision cameras of any maker, through aravis.

Its checks of ranges are off until they are asked for; a frame with a packet lost is
handed out like any other, and refused here; its counter has 16 bits and skips 0.
"""

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, final

import numpy as np
from typing_extensions import override

from drivers.camera.triggered import (
    BITS,
    Buffer,
    GainScale,
    Sensor,
    TriggeredCamera,
    activation_of,
    bits_of,
    check_taken,
    lines_of,
    scale_of_gain,
)
from labctl.devices import CameraSettings, Clock, Edge, Found, Identity
from labctl.errors import DeviceError, DeviceTimeoutError

gi: Final[Any] = importlib.import_module("gi")
try:
    gi.require_version("Aravis", "0.8")
except ValueError as absent:  # the bindings are there, the library is not
    raise ImportError(str(absent)) from absent
Aravis: Final[Any] = importlib.import_module("gi.repository.Aravis")
GLib: Final[Any] = importlib.import_module("gi.repository.GLib")

BUFFERS: Final = 4
LOOKS: Final = 3  # a camera that is busy, or boots, answers the next call for all
SOFTWARE: Final = "Software"


@contextmanager
def vendor_errors(where: str, action: str) -> Iterator[None]:
    """Turn aravis' errors into ours.

    Parameters
    ----------
    where
        Name of the camera.
    action
        What it was asked to do.

    Raises
    ------
    DeviceTimeoutError
        It does not answer: unplugged, frozen, or without power.
    DeviceError
        Anything else.
    """
    try:
        yield
    except GLib.Error as err:
        text = f"{err.message}. Look at cable, power and network address."
        if err.matches(Aravis.device_error_quark(), Aravis.DeviceError.TIMEOUT):
            raise DeviceTimeoutError(where, action, text) from err
        raise DeviceError(where, action, text) from err


@final
class AravisSensor(Sensor):
    """A camera that aravis knows.

    Parameters
    ----------
    name
        Name in the bench file.
    camera
        Network address, or name as ``labctl devices`` prints it; empty for the only
        one there is.
    pixel_format
        As :data:`drivers.camera.triggered.BITS` names it.
    told
        What its gain is in dB, where it does not count in dB.
    """

    modulus = 65_535  # 16 bits: 65,535 is followed by 1

    def __init__(
        self, name: str, camera: str, pixel_format: str, told: GainScale | None
    ) -> None:
        self._name, self._wanted, self._format = name, camera, pixel_format
        self._told = told
        self._scale: GainScale | None = None
        self._camera: Any = None
        self._stream: Any = None
        self._taken: CameraSettings | None = None
        self._is_whole = self._waits_for_edges = False

    @override
    def open(self) -> tuple[int, int]:
        with vendor_errors(self._name, "open"):
            self._camera = self._found()
            device = self._camera.get_device()
            device.set_range_check_policy(Aravis.RangeCheckPolicy.ENABLE)
            camera = self._camera
            self._switch_off_what_is_automatic(camera)
            self._scale = None
            if camera.is_gain_available():
                self._prepare_gain(camera)
            camera.set_pixel_format_from_string(self._format)
            camera.set_trigger(SOFTWARE)
            columns, rows = camera.get_sensor_size()
            return int(rows), int(columns)

    def _switch_off_what_is_automatic(self, camera: Any) -> None:  # noqa: ANN401 - no types
        """Leave exposure and gain as they are set, and counts as they are."""
        off = Aravis.Auto.OFF
        if camera.is_exposure_auto_available():
            camera.set_exposure_time_auto(off)
            check_taken(
                self._name, "ExposureAuto", camera.get_exposure_time_auto(), off
            )
        if camera.is_gain_auto_available():
            camera.set_gain_auto(off)
            check_taken(self._name, "GainAuto", camera.get_gain_auto(), off)
        device = camera.get_device()
        if self._may_write(device, "GammaEnable"):
            device.set_boolean_feature_value("GammaEnable", False)
            got = device.get_boolean_feature_value("GammaEnable")
            check_taken(self._name, "GammaEnable", got, False)

    @staticmethod
    def _may_write(device: Any, feature: str) -> bool:  # noqa: ANN401 - no types
        """Tell whether the camera has something, and lets it be set now."""
        if not device.is_feature_available(feature):
            return False
        access = device.get_feature(feature).get_actual_access_mode()
        return bool(access == Aravis.GcAccessMode.RW)

    def _found(self) -> Any:  # noqa: ANN401 - no types
        """Look for the camera; each look is given up after a second or two.

        Raises
        ------
        GLib.Error
            It is not there, or does not let itself be taken.
        """
        for _ in range(LOOKS - 1):
            try:
                return Aravis.Camera.new(self._wanted or None)
            except GLib.Error as err:
                kind = Aravis.DeviceError.NOT_FOUND
                if not err.matches(Aravis.device_error_quark(), kind):
                    raise
        return Aravis.Camera.new(self._wanted or None)

    def _prepare_gain(self, camera: Any) -> None:  # noqa: ANN401 - no types
        """Find out what its gain counts in, and put it to its least."""
        node = camera.get_device().get_feature("Gain")
        # aravis takes a raw gain for one in dB.
        is_real = isinstance(node, Aravis.GcFloat)
        unit = str(node.get_unit() or "") if is_real else ""
        self._is_whole = not is_real
        self._scale = scale_of_gain(self._name, unit, self._told)
        low, _ = camera.get_gain_bounds()
        camera.set_gain(low)

    @override
    def close(self) -> None:
        camera, self._camera = self._camera, None
        stream, self._stream = self._stream, None
        if camera is not None and stream is not None:
            with vendor_errors(self._name, "close"):
                camera.stop_acquisition()

    @override
    def identity(self) -> Identity:
        with vendor_errors(self._name, "identity"):
            camera = self._camera
            return Identity(
                camera.get_vendor_name() or "",
                camera.get_model_name() or "",
                camera.get_device_serial_number() or "",
                "",
            )

    @property
    @override
    def exposure_limits_s(self) -> tuple[float, float]:
        with vendor_errors(self._name, "exposure limits"):
            low, high = self._camera.get_exposure_time_bounds()
        return 1e-6 * low, 1e-6 * high

    @property
    @override
    def gain_limits_db(self) -> tuple[float, float]:
        if self._scale is None:
            return 0.0, 0.0
        with vendor_errors(self._name, "gain limits"):
            low, high = self._camera.get_gain_bounds()
        return self._scale.limits_db(float(low), float(high))

    @property
    @override
    def steps(self) -> tuple[int, int, int, int]:
        camera = self._camera
        with vendor_errors(self._name, "region"):
            return (
                int(camera.get_y_offset_increment()),
                int(camera.get_x_offset_increment()),
                int(camera.get_height_increment()),
                int(camera.get_width_increment()),
            )

    @override
    def apply(
        self, exposure_s: float, gain_db: float, region: tuple[int, int, int, int]
    ) -> CameraSettings:
        camera = self._camera
        row, column, height, width = region
        with vendor_errors(self._name, "configure"):
            camera.set_region(column, row, width, height)
            camera.set_exposure_time(1e6 * exposure_s)
            if self._scale is not None:
                number = self._scale.as_number(gain_db)
                camera.set_gain(round(number) if self._is_whole else number)
            self._taken = self._read()
            return self._taken

    def _read(self) -> CameraSettings:
        camera = self._camera
        left, top, wide, high = camera.get_region()
        return CameraSettings(
            1e-6 * float(camera.get_exposure_time()),
            0.0 if self._scale is None else self._scale.as_db(camera.get_gain()),
            (int(top), int(left), int(high), int(wide)),
        )

    @override
    def start(self, frames: int) -> None:
        with vendor_errors(self._name, "arm"):
            self._check_settings()
            if self._waits_for_edges:
                self._heed(SOFTWARE, 0.0)
            self._stream_out()

    def _stream_out(self) -> None:
        # A new stream: what an old one still holds is never handed out.
        self._stream = self._camera.create_stream(None, None)
        payload = self._camera.get_payload()
        for _ in range(BUFFERS):
            self._stream.push_buffer(Aravis.Buffer.new_allocate(payload))
        self._camera.start_acquisition()

    def _heed(self, source: str, delay_us: float) -> float:
        """Set what starts an exposure, after how long; return what it took, in us."""
        self._waits_for_edges = source != SOFTWARE
        self._set("TriggerSource", source)
        device, delay = self._camera.get_device(), self._delay()
        if not delay:
            return 0.0
        device.set_float_feature_value(delay, delay_us)
        return float(device.get_float_feature_value(delay))

    def _set(self, node: str, wanted: str) -> None:
        device = self._camera.get_device()
        device.set_string_feature_value(node, wanted)
        got = device.get_string_feature_value(node)
        check_taken(self._name, node, got, wanted, "arm")

    def _delay(self) -> str:
        device = self._camera.get_device()
        names = ("TriggerDelay", "TriggerDelayAbs")
        return next((each for each in names if device.is_feature_available(each)), "")

    @property
    @override
    def edge_lines(self) -> tuple[str, ...]:
        with vendor_errors(self._name, "lines"):
            return lines_of(self._camera.dup_available_trigger_sources())

    @property
    @override
    def edge_delay_limits_s(self) -> tuple[float, float]:
        with vendor_errors(self._name, "delay limits"):
            delay = self._delay()
            if not delay:
                return 0.0, 0.0
            low, high = self._camera.get_device().get_float_feature_bounds(delay)
            return 1e-6 * low, 1e-6 * high

    @override
    def start_for_edges(self, frames: int, edge: Edge) -> float:
        with vendor_errors(self._name, "arm for edges"):
            self._check_settings()
            # Rounded up: the pattern has settled then.
            delay_us = self._heed(edge.line, math.ceil(1e6 * edge.delay_s))
            self._set("TriggerActivation", activation_of(edge))
            self._stream_out()
            return 1e-6 * delay_us

    def _check_settings(self) -> None:
        """Refuse a camera that restarted: it answers, with settings of the factory.

        Raises
        ------
        DeviceError
            It has not those that it took.
        """
        got = self._read()
        if got != self._taken:
            text = (
                f"{got} read back, expected {self._taken}: it was away and forgot. "
                "Look at its power, then open it again."
            )
            raise DeviceError(self._name, "arm", text)

    @override
    def stop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with vendor_errors(self._name, "disarm"):
                self._camera.stop_acquisition()

    @override
    def fire(self) -> None:
        with vendor_errors(self._name, "trigger"):
            self._camera.software_trigger()

    @override
    def fetch(self, timeout_s: float) -> Buffer | None:
        buffer = self._stream.timeout_pop_buffer(max(1, int(1e6 * timeout_s)))
        if buffer is None:
            self._ask_after()
            return None
        try:
            status = buffer.get_status()
            good = status == Aravis.BufferStatus.SUCCESS
            return Buffer(
                number=int(buffer.get_frame_id()),
                data=self._pixels(buffer) if good else None,
                problem=f"{status.value_nick}, expected a whole frame",
                device_time_s=1e-9 * float(buffer.get_timestamp()),
            )
        finally:
            self._stream.push_buffer(buffer)

    def _ask_after(self) -> None:
        """Ask a silent camera something: only that tells a slow one from a dead one."""
        with vendor_errors(self._name, "frame"):
            self._camera.get_exposure_time()

    def _pixels(self, buffer: Any) -> Any:  # noqa: ANN401 - aravis has no types
        rows, columns = buffer.get_image_height(), buffer.get_image_width()
        kind = np.uint8 if BITS[self._format] == 8 else np.uint16
        data = np.frombuffer(buffer.get_data(), dtype=kind, count=rows * columns)
        return data.reshape(rows, columns).copy()

    @override
    def is_removed(self) -> bool:
        # Whoever was away for a second no longer knows whose it is, and answers all the
        # same. Others tell by an error, of whatever is asked next.
        device = self._camera.get_device()
        return isinstance(device, Aravis.GvDevice) and not device.is_controller()


def aravis(  # noqa: PLR0913 - one parameter an option
    *,
    shape: Sequence[int],
    pixel_um: float,
    clock: Clock,
    name: str = "camera",
    pixel_format: str = "Mono12",
    camera: str = "",
    padding: int = 0,
    gain: Mapping[str, float] | None = None,
) -> TriggeredCamera:
    """Make a GigE Vision or USB3 Vision camera.

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
        Network address, or name as ``labctl devices`` prints it; empty for the only
        one there is.
    padding
        Low bits of each count that are always 0: counts of 12 bits, left-justified in
        ``Mono16``, have 4. They are checked, and taken away.
    gain
        What its own numbers of gain are in dB, where it does not count in dB:
        ``{db_per_step: 0.0359, zero: 0}`` or, for factors, ``{unity: 32}``. Without it
        such a gain stays at its least.

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
        AravisSensor(name, camera, pixel_format, GainScale.of(name, gain)),
        clock=clock,
        shape=shape,
        pixel_um=pixel_um,
        bits=bits_of(name, pixel_format, padding),
        padding=padding,
    )


def find() -> list[Found]:
    """List the cameras that aravis sees; opens none of them.

    Returns
    -------
    found
        With what a bench file needs, but for shape and pixel_um.
    """
    Aravis.update_device_list()
    return [
        Found(
            what=f"{Aravis.get_device_vendor(at)} {Aravis.get_device_model(at)} "
            f"({Aravis.get_device_id(at)})",
            role="camera",
            driver="aravis.camera",
            options={"camera": Aravis.get_device_id(at)},
            serial=Aravis.get_device_serial_nbr(at) or "",
        )
        for at in range(Aravis.get_n_devices())
    ]
