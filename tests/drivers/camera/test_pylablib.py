"""Unproved on a peer: pylablib simulates no camera. One is written here below it.

Waiting, counting, indexing and what is skipped are pylablib's own.
"""

from collections import namedtuple
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typing_extensions import override

from labctl.devices import Camera, Clock
from labctl.errors import DeviceError, FrameError

pytestmark = pytest.mark.peer
Info = namedtuple("Info", "model serial_number")
Make = Callable[..., Camera]


class Time(Clock):
    """Time that passes with every look at it."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    @override
    def now(self) -> float:
        self.passed_s += 1.0
        return self.passed_s

    @override
    def sleep(self, seconds: float) -> None:
        self.passed_s += seconds


class Chip:
    """Six rows of ten pixels that count frames; goes below classes of pylablib's."""

    _default_image_indexing = "rct"

    def __init__(self) -> None:
        super().__init__()
        self.exposure_s, self.roi, self.mode = 0.01, (0, 10, 0, 6), "int"
        self.acquired, self.is_running, self.late = 0, False, 0
        self.total = 0

    def open(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def is_opened(self) -> bool:
        return True

    def get_device_info(self) -> Info:
        return Info("Chip", "C1")

    def get_detector_size(self) -> tuple[int, int]:
        return (10, 6)

    def set_trigger_mode(self, mode: str) -> None:
        self.mode = mode

    def get_trigger_mode(self) -> str:
        return self.mode

    def get_exposure(self) -> float:
        return self.exposure_s

    def set_exposure(self, exposure: float) -> None:
        self.exposure_s = exposure

    def get_roi(self) -> tuple[int, ...]:
        return self.roi

    def set_roi(
        self, hstart: int = 0, hend: int = 0, vstart: int = 0, vend: int = 0
    ) -> None:
        self.roi = (hstart, hend, vstart, vend)

    def _get_data_dimensions_rc(self) -> tuple[int, int]:
        return (self.roi[3] - self.roi[2], self.roi[1] - self.roi[0])

    def setup_acquisition(self, nframes: int = 100) -> None:
        super().setup_acquisition(nframes=nframes)  # type: ignore[misc]  # pylablib's
        self._frame_counter.reset(nframes)  # type: ignore[attr-defined]  # pylablib's

    def start_acquisition(self, *args: object, **kwargs: object) -> None:
        super().start_acquisition(*args, **kwargs)  # type: ignore[misc]  # pylablib's
        self.acquired, self.is_running = 0, True
        if self.mode == "int":
            self.expose()

    def stop_acquisition(self) -> None:
        self.is_running = False

    def acquisition_in_progress(self) -> bool:
        return self.is_running

    def send_software_trigger(self) -> None:
        self.expose()

    def expose(self) -> None:
        if self.late:
            self.late -= 1
        else:
            self.acquired += 1
            self.total += 1

    def _get_acquired_frames(self) -> int:
        return self.acquired

    def _wait_for_next_frame(self, timeout: float = 0, idx: int | None = None) -> None:
        """Come back at once."""

    def _read_frames(
        self, rng: tuple[int, int], return_info: bool = False
    ) -> tuple[list[Any], None]:
        del return_info
        left, right, top, bottom = self.roi
        rows, columns = np.indices((6, 10))
        seen = (1000 * self.total + 10 * rows + columns).astype(np.uint16)
        part = seen[top:bottom, left:right]
        turned = self._convert_indexing(part, "rct")  # type: ignore[attr-defined]  # pylablib's
        return [turned for _ in range(*rng)], None


@pytest.fixture
def kind(need_module: Callable[..., ModuleType]) -> Any:  # noqa: ANN401 - pylablib's
    base = need_module("pylablib.devices.interface.camera")
    return type("Camera", (Chip, base.IROICamera, base.IExposureCamera), {})


@pytest.fixture
def make(
    kind: Any,  # noqa: ANN401 - pylablib's
    need_module: Callable[..., ModuleType],
    monkeypatch: pytest.MonkeyPatch,
) -> Make:
    library = need_module("drivers.camera.pylablib")
    module = need_module("pylablib.devices.interface")
    monkeypatch.setattr(module, "Chip", kind, raising=False)

    def made(**options: object) -> Camera:
        named: dict[str, Any] = {
            "camera": "interface.Chip",
            "shape": [6, 10],
            "pixel_um": 6.5,
            "bits": 14,
            "clock": Time(),
        }
        camera: Camera = library.pylablib(**named | options)
        return camera

    return made


def vendor(camera: Camera) -> Any:  # noqa: ANN401 - pylablib's
    return camera._sensor._camera  # type: ignore[attr-defined]  # the driver's own


@pytest.mark.parametrize("trigger", ["start", "software"])
def test_each_trigger_has_its_frame_by_rows_and_columns(
    make: Make, trigger: str
) -> None:
    with make(trigger=trigger) as camera:
        assert camera.identity().serial == "C1"
        taken = camera.configure(exposure_s=0.02, region=(1, 2, 3, 5))
        assert (taken.exposure_s, taken.region) == (0.02, (1, 2, 3, 5))
        camera.arm(3)
        frames = []
        for _ in range(3):
            camera.trigger()
            frames.append(camera.frame(1.0))
        assert [int(frame.data[0, 0]) for frame in frames] == [1012, 2012, 3012]
        assert frames[0].data[2].tolist() == [1032, 1033, 1034, 1035, 1036]
        assert [frame.frame_id for frame in frames] == [1, 2, 3]
        with pytest.raises(FrameError, match="timeout"):
            camera.frame(0.0)


@pytest.mark.parametrize("trigger", ["start", "software"])
def test_a_frame_of_before_arming_is_never_returned(make: Make, trigger: str) -> None:
    with make(trigger=trigger) as camera:
        camera.configure(exposure_s=0.02)
        camera.arm(1)
        camera.trigger()
        camera.arm(1)
        with pytest.raises(FrameError, match="timeout"):
            camera.frame(0.0)


def test_frames_that_were_lost_are_told(make: Make) -> None:
    with make(trigger="software") as camera:
        camera.configure(exposure_s=0.02)
        camera.arm(1)
        camera.trigger()
        for _ in range(6):  # two more than it holds
            vendor(camera).expose()
        with pytest.raises(FrameError, match=r"[0-9] frames were lost, expected none"):
            camera.frame(1.0)


def test_a_camera_that_stopped_by_itself_is_an_error(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(trigger="software") as camera:
        camera.arm(1)
        camera.trigger()
        monkeypatch.setattr(vendor(camera), "_get_acquired_frames", lambda: None)
        with pytest.raises(DeviceError, match="while acquisition is stopped"):
            camera.frame(1.0)


def test_padding_is_taken_away(make: Make) -> None:
    with make(bits=12, padding=4) as camera:
        camera.configure(exposure_s=0.02, region=(0, 0, 1, 1))
        vendor(camera).total = 15  # the sixteenth: 16000 = 16 x 1000
        camera.arm(1)
        camera.trigger()
        assert camera.frame(1.0).data.tolist() == [[1000]]


def test_another_camera_or_trigger_is_refused(
    make: Make,
    kind: Any,  # noqa: ANN401 - pylablib's
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(DeviceError, match=r"shape=\[6, 10\], expected \[10, 6\]"):
        make(shape=[10, 6]).open()
    with pytest.raises(DeviceError, match="camera: open: AttributeError"):
        make(camera="interface.NoSuch").open()
    for wrong in ({"camera": "Chip"}, {"camera": "a b.C"}, {"trigger": "ext"}):
        with pytest.raises(ValueError, match=r"expected module\.Class"):
            make(**wrong)
    monkeypatch.setattr(kind, "get_trigger_mode", lambda _: "int")
    with pytest.raises(DeviceError, match="trigger mode=int read back"):
        make(trigger="software").open()
    monkeypatch.delattr(Chip, "set_trigger_mode")
    with pytest.raises(DeviceError, match="takes no software trigger"):
        make(trigger="software").open()


def test_rows_come_from_the_top_whatever_the_camera_was_set_to(
    make: Make,
    kind: Any,  # noqa: ANN401 - pylablib's
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = kind.__init__

    def left_over(camera: Any) -> None:  # noqa: ANN401 - pylablib's
        begin(camera)
        camera.set_image_indexing("xyb")

    monkeypatch.setattr(kind, "__init__", left_over)
    with make(trigger="software") as camera:
        camera.configure(exposure_s=0.02)
        camera.arm(1)
        camera.trigger()
        data = camera.frame(1.0).data
    assert data.shape == (6, 10)
    assert data[2, :3].tolist() == [1020, 1021, 1022]


def test_a_camera_that_bins_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make() as camera:
        vendor_camera = vendor(camera)
        monkeypatch.setattr(vendor_camera, "get_roi", lambda: (0, 10, 0, 6, 2, 1))
        with pytest.raises(DeviceError, match=r"binned by \[2, 1\], expected 1"):
            camera.configure(exposure_s=0.02)
