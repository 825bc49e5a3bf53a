"""Any camera with a GenTL producer, the file ``.cti`` that its vendor brings along.

Through harvesters, which looks for nothing by itself: the producers are those that the
vendors' set-ups name in ``GENICAM_GENTL64_PATH``, or the one that the options name. It
waits for ever unless it is told how long, discards incomplete buffers without a word
but to whoever listens, and takes Ctrl-C for itself; none of that gets out of here.
"""

import importlib
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
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
with warnings.catch_warnings():  # it has everybody's warnings shown
    harvesters: Final[Any] = importlib.import_module("harvesters.core")
genapi: Final[Any] = importlib.import_module("genicam.genapi")
gentl: Final[Any] = importlib.import_module("genicam.gentl")

PRODUCERS: Final = "GENICAM_GENTL64_PATH"  # of the GenTL standard: folders
BUFFERS: Final = 4
READY_S: Final = 0.5  # until the next trigger is accepted
SOFTWARE: Final = "Software"
#: No trigger at all: acquisition is started for each frame.
START: Final = "start"


@contextmanager
def vendor_errors(where: str, action: str) -> Iterator[None]:
    """Turn errors of node map, producer and harvesters into ours.

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
    except (genapi.TimeoutException, gentl.TimeoutException) as err:
        raise DeviceTimeoutError(where, action, f"{err}. Look at its cable.") from err
    except (genapi.GenericException, gentl.GenericException, RuntimeError) as err:
        # The last is what a producer's error becomes inside of the node map.
        raise DeviceError(where, action, f"{err}. Look at its cable.") from err


@contextmanager
def _own_interrupt() -> Iterator[None]:
    """Keep what Ctrl-C does: harvesters would only let its camera go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def producers() -> list[Path]:
    """List the GenTL producers that are installed.

    Returns
    -------
    files
        In the order of the folders in ``GENICAM_GENTL64_PATH``.
    """
    folders = os.environ.get(PRODUCERS, "").split(os.pathsep)
    return [
        file
        for folder in dict.fromkeys(filter(None, folders))
        for file in sorted(Path(folder).glob("*.cti"))
    ]


def _add(library: Any, where: str, file: Path) -> None:  # noqa: ANN401 - no types
    """Add a producer.

    Raises
    ------
    DeviceError
        It is not there, or does not load.
    """
    try:
        # Without the checks a broken one is as good as none.
        library.add_file(str(file), check_existence=True, check_validity=True)
    except OSError as err:
        text = f"producer={file}: {str(err) or 'no such file'}. Install it again."
        raise DeviceError(where, "find", text) from err


def _library(where: str, files: Sequence[Path]) -> Any:  # noqa: ANN401 - no types
    """Load producers, and look for their cameras.

    Raises
    ------
    DeviceError
        A producer is not there, or does not load.
    """
    library = harvesters.Harvester()
    try:
        for file in files:
            _add(library, where, file)
        with vendor_errors(where, "find"):
            library.update()
    except BaseException:
        library.reset()
        raise
    return library


@final
class _Spoilt(harvesters.Callback):  # type: ignore[misc]  # harvesters has no types
    """Hears of the buffers that harvesters discards."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, context: object = None) -> None:
        del context
        self.count += 1


@final
class GenTLSensor(Sensor):
    """A camera that a GenTL producer knows.

    Parameters
    ----------
    name
        Name in the bench file.
    pixel_format
        As :data:`drivers.camera.triggered.BITS` names it.
    wanted
        Serial number or identifier of the one to open; empty for the only one there
        is.
    producer
        File of the producer; empty for all that are installed.
    trigger
        ``Software``; a line, such as ``Line1``; or ``start``.
    told
        What its gain is in dB, where it does not count in dB.
    """

    def __init__(
        self,
        name: str,
        pixel_format: str,
        wanted: str,
        producer: str,
        trigger: str,
        told: GainScale | None,
    ) -> None:
        self._name, self._format, self._wanted = name, pixel_format, wanted
        self._producer, self._source = producer, trigger
        self.modulus: int | None = None
        self._library: Any = None
        self._camera: Any = None
        self._nodes: Any = None
        self._exposure: Any = None
        self._gain: Any = None
        self._told = told
        self._scale: GainScale | None = None
        self._spoilt = _Spoilt()
        self._shots = 0
        self._is_running = self._is_gone = self._waits_for_edges = False

    @override
    def open(self) -> tuple[int, int]:
        files = [Path(self._producer)] if self._producer else producers()
        if not files:
            text = f"{PRODUCERS} names no producer, expected one. Install the vendor's."
            raise DeviceError(self._name, "open", text)
        self._library = _library(self._name, files)
        with vendor_errors(self._name, "open"), _own_interrupt():
            device = the_one(
                self._name,
                self._wanted,
                self._library.device_info_list,
                lambda each: [_serial(each), each.id_],
            )
            self._camera = self._library.create(device)
            self._nodes = self._camera.remote_device.node_map
            self._spoilt, self._is_gone = _Spoilt(), False
            spoilt = self._camera.Events.INCOMPLETE_BUFFER
            self._camera.add_callback(spoilt, self._spoilt)
            self._camera.num_buffers = max(BUFFERS, self._camera.min_num_buffers)
            self._prepare()
            return int(self._nodes.Height.max), int(self._nodes.Width.max)

    def _prepare(self) -> None:
        """Switch off everything automatic, take triggers, and find exposure and gain.

        Raises
        ------
        DeviceError
            It lacks what a bench needs, or does not take it.
        """
        if len(self._camera.data_streams) != 1:
            text = f"{len(self._camera.data_streams)} streams, expected one."
            raise DeviceError(self._name, "open", text)
        for axis in ("OffsetX", "OffsetY"):
            if self._has(axis):
                self._nodes.get_node(axis).value = self._nodes.get_node(axis).min
        self._set("PixelFormat", self._format)
        for node, off in (
            ("ExposureAuto", "Off"),
            ("GainAuto", "Off"),
            ("GammaEnable", False),
            ("ExposureMode", "Timed"),
        ):
            if self._has(node) and genapi.is_writable(self._nodes.get_node(node)):
                self._set(node, off)
        self._exposure = self._first("ExposureTime", "ExposureTimeAbs")
        if self._exposure is None:
            text = "no ExposureTime, expected one. It cannot be used on a bench."
            raise DeviceError(self._name, "open", text)
        self._gain = self._first("Gain", "GainRaw")
        if self._gain is not None:
            unit = str(getattr(self._gain, "unit", ""))
            self._scale = scale_of_gain(self._name, unit, self._told)
            self._gain.value = self._gain.min
        self._prepare_trigger()
        self._prepare_counter()

    def _prepare_trigger(self) -> None:
        if self._source == START:
            if self._has("TriggerMode"):
                self._set("TriggerMode", "Off")
        else:
            if self._has("TriggerSelector"):
                self._set("TriggerSelector", "FrameStart")
            self._set("TriggerSource", self._source)
            self._set("TriggerMode", "On")
        self._set("AcquisitionMode", "Continuous")

    def _prepare_counter(self) -> None:
        # GigE Vision 1 counts with 16 bits, and skips 0; 2 may count with 64.
        is_long = (
            self._has("GevGVSPExtendedIDMode")
            and str(self._nodes.GevGVSPExtendedIDMode.value) == "On"
        )
        is_gige = str(self._camera.device.tl_type) == "GEV"
        short = is_gige and not is_long and self._source == SOFTWARE
        self.modulus = 65_535 if short else None

    def _has(self, node: str) -> bool:
        if not self._nodes.has_node(node):
            return False
        return bool(genapi.is_available(self._nodes.get_node(node)))

    def _first(self, *names: str) -> Any:  # noqa: ANN401 - harvesters has no types
        return next((self._nodes.get_node(n) for n in names if self._has(n)), None)

    def _set(self, node: str, wanted: str | bool) -> None:
        """Set something, and read it back.

        Raises
        ------
        DeviceError
            It has no such thing.
        """
        if not self._has(node):
            text = f"no {node}, expected {wanted}. Choose another trigger, or camera."
            raise DeviceError(self._name, "open", text)
        at = self._nodes.get_node(node)
        if at.value == wanted:
            return  # what has one value only may not be written
        at.value = wanted
        check_taken(self._name, node, at.value, wanted)

    @override
    def close(self) -> None:
        camera, self._camera = self._camera, None
        library, self._library = self._library, None
        self._nodes = self._exposure = self._gain = None
        self._scale = None
        self._is_running = False
        with vendor_errors(self._name, "close"):
            try:
                if camera is not None:
                    camera.destroy()
            finally:
                if library is not None:
                    library.reset()

    @override
    def identity(self) -> Identity:
        with vendor_errors(self._name, "identity"):
            device = self._camera.device
            return Identity(
                self._said("DeviceVendorName") or str(device.vendor or ""),
                self._said("DeviceModelName") or str(device.model or ""),
                self._said("DeviceSerialNumber", "DeviceID") or _serial(device),
                self._said("DeviceFirmwareVersion", "DeviceVersion")
                or str(device.version or ""),
            )

    def _said(self, *names: str) -> str:
        node = self._first(*names)
        return "" if node is None else str(node.value)

    @property
    @override
    def exposure_limits_s(self) -> tuple[float, float]:
        with vendor_errors(self._name, "exposure limits"):
            return 1e-6 * self._exposure.min, 1e-6 * self._exposure.max

    @property
    @override
    def gain_limits_db(self) -> tuple[float, float]:
        if self._scale is None:
            return 0.0, 0.0
        with vendor_errors(self._name, "gain limits"):
            return self._scale.limits_db(float(self._gain.min), float(self._gain.max))

    @property
    @override
    def steps(self) -> tuple[int, int, int, int]:
        def step(name: str, alone: int) -> int:
            return int(self._nodes.get_node(name).inc) if self._has(name) else alone

        with vendor_errors(self._name, "region"):
            height, width = step("Height", 1), step("Width", 1)
            # Without an offset a region begins at 0: in steps of the whole sensor.
            rows, columns = int(self._nodes.Height.max), int(self._nodes.Width.max)
            return step("OffsetY", rows), step("OffsetX", columns), height, width

    @override
    def apply(
        self, exposure_s: float, gain_db: float, region: tuple[int, int, int, int]
    ) -> CameraSettings:
        row, column, height, width = region
        nodes = self._nodes
        with vendor_errors(self._name, "configure"):
            offsets = {"OffsetX": column, "OffsetY": row}
            there = {name: at for name, at in offsets.items() if self._has(name)}
            for name in there:
                nodes.get_node(name).value = 0  # else no room
            nodes.Width.value, nodes.Height.value = width, height
            for name, at in there.items():
                nodes.get_node(name).value = at
            self._exposure.value = self._as_node(self._exposure, 1e6 * exposure_s)
            if self._scale is not None:
                number = self._scale.as_number(gain_db)
                whole = isinstance(self._gain.value, int)
                self._gain.value = round(number) if whole else number
            read = {
                name: int(nodes.get_node(name).value) if name in there else 0
                for name in offsets
            }
            return CameraSettings(
                1e-6 * float(self._exposure.value),
                0.0 if self._scale is None else self._scale.as_db(self._gain.value),
                (
                    read["OffsetY"],
                    read["OffsetX"],
                    int(nodes.Height.value),
                    int(nodes.Width.value),
                ),
            )

    @staticmethod
    def _as_node(node: Any, value: float) -> float | int:  # noqa: ANN401
        return round(value) if isinstance(node, genapi.IInteger) else value

    @override
    def start(self, frames: int) -> None:
        del frames
        self._shots = 0
        if self._waits_for_edges:
            with vendor_errors(self._name, "arm"):
                self._heed(self._source, 0.0)
        if self._source == SOFTWARE:
            self._run("arm")

    def _heed(self, source: str, delay_us: float) -> float:
        """Set what starts an exposure, after how long; return what it took, in us."""
        self._waits_for_edges = source != self._source
        self._set("TriggerSource", source)
        node = self._delay()
        if node is None:
            return 0.0
        node.value = self._as_node(node, delay_us)
        return float(node.value)

    def _delay(self) -> Any:  # noqa: ANN401 - harvesters has no types
        return self._first("TriggerDelay", "TriggerDelayAbs")

    @property
    @override
    def edge_lines(self) -> tuple[str, ...]:
        # Started for each frame it would miss edges.
        if self._source != SOFTWARE:
            return ()
        with vendor_errors(self._name, "lines"):
            return lines_of(self._nodes.TriggerSource.symbolics)

    @property
    @override
    def edge_delay_limits_s(self) -> tuple[float, float]:
        with vendor_errors(self._name, "delay limits"):
            node = self._delay()
            return (0.0, 0.0) if node is None else (1e-6 * node.min, 1e-6 * node.max)

    @override
    def start_for_edges(self, frames: int, edge: Edge) -> float:
        self._shots = 0
        with vendor_errors(self._name, "arm for edges"):
            # Rounded up: the pattern has settled then.
            delay_us = self._heed(edge.line, math.ceil(1e6 * edge.delay_s))
            self._set("TriggerActivation", activation_of(edge))
        self._run("arm for edges")
        return 1e-6 * delay_us

    def _run(self, action: str) -> None:
        with vendor_errors(self._name, action):
            self._spoilt.count = 0
            self._camera.start()
            self._is_running = True

    @override
    def stop(self) -> None:
        was, self._is_running = self._is_running, False
        if was:
            with vendor_errors(self._name, "disarm"):
                self._camera.stop()  # its buffers are taken back: no old frame is left

    @override
    def fire(self) -> None:
        if self._source != SOFTWARE:
            # It exposes at the next edge of the line, or at once; never before now.
            self.stop()
            self._run("trigger")
            return
        with vendor_errors(self._name, "trigger"):
            self._wait_ready()
            self._nodes.TriggerSoftware.execute()

    def _wait_ready(self) -> None:
        """Wait until a trigger is accepted, where the camera tells.

        Raises
        ------
        FrameError
            ``trigger_refused``
        """
        if not self._has("AcquisitionStatusSelector"):
            return
        end_s = time.monotonic() + READY_S
        self._nodes.AcquisitionStatusSelector.value = "FrameTriggerWait"
        while not self._nodes.AcquisitionStatus.value:
            if time.monotonic() > end_s:
                text = f"not ready within {READY_S} s. Look at its cable."
                raise FrameError(self._name, "trigger_refused", text)

    @override
    def fetch(self, timeout_s: float) -> Buffer | None:
        if not self._is_running:
            return None
        with vendor_errors(self._name, "frame"):
            # It waits for ever for 0.
            buffer = self._camera.try_fetch(timeout=max(1e-3, timeout_s))
            if buffer is not None:
                with buffer:
                    taken = self._taken(buffer)
                return self._counted(taken)  # once the producer has its buffer back
        if self._spoilt.count:
            self._spoilt.count -= 1
            problem = "incomplete, expected a whole frame. Look at its cable."
            return self._counted(Buffer(None, None, problem))
        self._ask_after()
        return None

    def _taken(self, buffer: Any) -> Buffer:  # noqa: ANN401 - harvesters has no types
        parts = buffer.payload.components
        problem = ""
        if len(parts) != 1 or parts[0].data_format != self._format:
            formats = ", ".join(str(part.data_format) for part in parts) or "nothing"
            problem = f"{formats}, expected {self._format}"
        data = None if problem else parts[0].represent_pixel_location()
        return Buffer(
            number=int(buffer.module.frame_id),
            data=None if data is None else data.copy(),
            problem=problem or "no data, expected a whole frame",
            device_time_s=_stamped_s(buffer.module),
        )

    def _counted(self, buffer: Buffer) -> Buffer:
        """Return a buffer with a counter that goes on.

        Started for each frame, a camera's own begins again at each.
        """
        if self._source == SOFTWARE:
            return buffer
        self._shots += 1
        self.stop()  # else it would go on
        return Buffer(self._shots, buffer.data, buffer.problem, buffer.device_time_s)

    def _ask_after(self) -> None:
        """Ask a silent camera something: only that tells a slow one from a dead one.

        Raises
        ------
        DeviceTimeoutError
            It does not answer either.
        """
        try:
            with vendor_errors(self._name, "frame"):
                self._exposure.get_value(False, True)  # from the camera, not memory
        except DeviceTimeoutError:
            raise
        except DeviceError:
            self._is_gone = True

    @override
    def is_removed(self) -> bool:
        return self._is_gone


def _stamped_s(buffer: Any) -> float:  # noqa: ANN401 - genicam has no types
    try:
        return 1e-9 * float(buffer.timestamp_ns)
    except gentl.GenericException:  # it is recorded, and proves nothing
        return 0.0


def _serial(device: Any) -> str:  # noqa: ANN401 - harvesters has no types
    try:
        return str(device.serial_number or "")
    except gentl.GenericException:  # not every producer tells it before it is open
        return ""


def genicam(  # noqa: PLR0913 - one parameter an option
    *,
    shape: Sequence[int],
    pixel_um: float,
    clock: Clock,
    name: str = "camera",
    pixel_format: str = "Mono12",
    camera: str = "",
    producer: str = "",
    trigger: str = SOFTWARE,
    padding: int = 0,
    gain: Mapping[str, float] | None = None,
) -> TriggeredCamera:
    """Make a camera that a GenTL producer knows.

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
        Serial number or identifier of the one to open; empty for the only one there
        is.
    producer
        File of the producer; empty for all that are installed.
    trigger
        ``Software``; a line, such as ``Line1``, on which an edge from outside starts
        the exposure; or ``start``, for a camera that takes no trigger: acquisition is
        started for each frame.
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
    if not trigger:
        text = f"{name}: trigger='', expected Software, a line, or start"
        raise ValueError(text)
    return TriggeredCamera(
        name,
        GenTLSensor(
            name, pixel_format, camera, producer, trigger, GainScale.of(name, gain)
        ),
        clock=clock,
        shape=shape,
        pixel_um=pixel_um,
        bits=bits_of(name, pixel_format, padding),
        padding=padding,
    )


def find() -> list[Found]:
    """List the producers that are installed, and the cameras that they see.

    Returns
    -------
    found
        With what a bench file needs, but for shape and pixel_um; a producer that does
        not load says so in its line.
    """
    found: list[Found] = []
    for file in producers():
        try:
            library = _library("genicam", [file])
        except DeviceError as err:
            found.append(Found(what=f"GenTL producer {file}: {err}"))
            continue
        found.append(Found(what=f"GenTL producer {file}"))
        try:
            found += [_described(each, file) for each in library.device_info_list]
        finally:
            library.reset()
    return found


def _described(device: Any, file: Path) -> Found:  # noqa: ANN401 - no types
    serial = _serial(device)
    return Found(
        what=f"{device.vendor} {device.model} ({serial or device.id_})",
        role="camera",
        driver="genicam.camera",
        options={"camera": serial or str(device.id_), "producer": str(file)},
        serial=serial,
    )
