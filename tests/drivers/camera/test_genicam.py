"""Proved on the producer that GenICam ships, and on nodes of a camera of aravis'.

The producer streams and knows no exposure and no trigger: what it lacks is lent to it.
The nodes are those of a GigE Vision camera, read over the network by GenICam's own
library; there the buffers do not come from harvesters (``tests/conftest.py``).
"""

import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from labctl.bench import RealClock
from labctl.devices import Camera, Edge
from labctl.errors import (
    DeviceError,
    DeviceTimeoutError,
    FrameError,
    LabctlError,
    OutOfRangeError,
)

pytestmark = pytest.mark.peer
Start = Callable[..., Any]
REGION = (0, 0, 200, 300)


@pytest.fixture
def library(need_module: Callable[..., ModuleType]) -> ModuleType:
    need_module("harvesters.core")
    return need_module("drivers.camera.genicam")


@pytest.fixture
def viky(library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only producer that is installed."""
    file = Path(library.genapi.__file__).with_name("viky.cti")
    assert file.is_file()
    monkeypatch.setenv(library.PRODUCERS, str(file.parent))
    return file


def made(library: ModuleType, **options: object) -> Camera:
    named: dict[str, Any] = {
        "shape": [800, 800],
        "pixel_um": 5.5,
        "clock": RealClock(),
        "pixel_format": "Mono8",
        "trigger": "start",
        "camera": "1",
    }
    camera: Camera = library.genicam(**named | options)
    return camera


@pytest.fixture
def streaming(
    library: ModuleType, viky: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Camera]:
    """A camera of the producer, with an exposure time lent to it."""
    del viky
    own = library.GenTLSensor._first
    lent = SimpleNamespace(min=10.0, max=1e6, value=1e3)
    lent.get_value = lambda *how: lent.value if any(how) else None

    def first(sensor: object, *names: str) -> object:
        return lent if "ExposureTime" in names else own(sensor, *names)

    monkeypatch.setattr(library.GenTLSensor, "_first", first)
    with made(library) as camera:
        yield camera


def test_producers_and_their_cameras_are_found_with_the_lines_to_paste(
    library: ModuleType, viky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.cti").write_text("no library")
    monkeypatch.setenv(library.PRODUCERS, f"{tmp_path}:{viky.parent}")
    broken, producer, first, second, third = library.find()
    assert broken.what.startswith(f"GenTL producer {tmp_path / 'broken.cti'}: genicam")
    assert producer.what == f"GenTL producer {viky}"
    assert [each.serial for each in (first, second, third)] == ["0", "1", "2"]
    assert second.what == "Machine Vision Games Ltd. Viky (1)"
    assert second.lines() == (
        'camera: {driver: genicam.camera, serial: "1", options: {camera: "1", '
        f'producer: "{viky}"}}}}'
    )
    monkeypatch.delenv(library.PRODUCERS)
    assert library.find() == []


def test_frames_come_from_a_producer_by_others(
    streaming: Camera, library: ModuleType
) -> None:
    camera = streaming
    assert camera.identity().model == "Viky"
    assert camera.identity().serial == "1"
    camera.configure(exposure_s=1e-3, region=REGION)
    camera.arm(3)
    frames = []
    for _ in range(3):
        camera.trigger()
        frames.append(camera.frame(3.0))
    assert [frame.frame_id for frame in frames] == [1, 2, 3]
    assert {frame.data.shape for frame in frames} == {(200, 300)}
    # A dark ball and its shadow in a bright field.
    assert all(frame.data.min() < 100 < 200 < np.median(frame.data) for frame in frames)
    with pytest.raises(FrameError, match="timeout"):
        camera.frame(0.01)
    with pytest.raises(DeviceError, match="camera=1: 0 of those plugged in"):
        made(library).open()


def test_a_buffer_that_harvesters_discards_is_an_incomplete_frame(
    streaming: Camera, library: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = streaming
    camera.configure(exposure_s=1e-3, region=REGION)
    camera.arm(2)
    with monkeypatch.context() as patch:
        patch.setattr(library.gentl.Buffer, "is_complete", lambda _: False)
        camera.trigger()
        with pytest.raises(FrameError, match="incomplete"):
            camera.frame(3.0)
    camera.trigger()
    assert camera.frame(3.0).trigger == 2


def test_another_format_in_a_buffer_is_no_frame(streaming: Camera) -> None:
    camera = streaming
    camera.configure(exposure_s=1e-3, region=REGION)
    camera.arm(1)
    nodes = camera._sensor._nodes  # type: ignore[attr-defined]  # the driver's own
    nodes.PixelFormat.value = "RGBa8"
    camera.trigger()
    with pytest.raises(FrameError, match="RGBa8, expected Mono8"):
        camera.frame(3.0)


def test_a_camera_that_has_not_what_a_bench_needs_is_refused(
    library: ModuleType, viky: Path
) -> None:
    for options, text in (
        ({}, "no ExposureTime, expected one"),
        ({"pixel_format": "Mono12"}, "PixelFormat"),
        ({"camera": ""}, r"camera=any: 3 of those plugged in \(0, 1, 2\)"),
        ({"camera": "4711"}, "camera=4711: 0 of those"),
        ({"producer": str(viky.with_name("no.cti"))}, "no such file"),
    ):
        with pytest.raises(DeviceError, match=text):
            made(library, **options).open()
    with pytest.raises(ValueError, match="expected Software, a line, or start"):
        made(library, trigger="")


def test_without_a_producer_it_says_where_it_looked(
    library: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(library.PRODUCERS, raising=False)
    with pytest.raises(DeviceError, match="GENICAM_GENTL64_PATH names no producer"):
        made(library).open()


def test_a_trigger_that_the_camera_does_not_know_is_refused(
    streaming: Camera, library: ModuleType
) -> None:
    streaming.close()
    for trigger in ("Software", "Line1"):
        with pytest.raises(DeviceError, match=f"no TriggerSource, expected {trigger}"):
            made(library, trigger=trigger).open()


def test_what_warnings_are_shown_stays_what_it_was(library: ModuleType) -> None:
    code = (
        "import warnings, numpy; before = list(warnings.filters); "
        f"import {library.__name__}; print(warnings.filters == before)"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def test_an_interrupt_stays_what_it_was(streaming: Camera) -> None:
    assert streaming.identity().model == "Viky"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def wired(library: ModuleType, gentl: Start) -> Callable[..., Camera]:
    """Nodes of a camera on the network."""

    def start(gige: dict[str, object] | None = None, **options: object) -> Camera:
        gentl(**gige or {})
        named = {"shape": [2048, 2048], "trigger": "Software", "producer": "lent.cti"}
        return made(library, camera="S1", **named | options)

    return start


def test_counters_of_sixteen_bits_are_known_by_the_camera(
    wired: Callable[..., Camera],
) -> None:
    with wired(pixel_format="Mono16") as camera:
        assert camera.frame_id_modulus == 65_535
        assert camera.gain_limits_db == (0.0, 0.0)  # its gain has no unit
        taken = camera.configure(exposure_s=0.0015, region=(6, 4, 30, 20))
        assert taken.region == (6, 4, 30, 20)
        camera.arm(1)
        camera.trigger()
        assert camera.frame(5.0).data.max() > 255


@pytest.mark.soak
def test_no_frame_is_lost_where_the_counter_wraps(wired: Callable[..., Camera]) -> None:
    with wired() as camera:
        camera.configure(exposure_s=0.001, region=(2, 4, 120, 160))
        camera.arm(150)
        ids = []
        for _ in range(150):
            camera.trigger()
            ids.append(camera.frame(5.0).frame_id)
    assert ids[0] > 65_385
    assert ids[-1] < 100


def test_a_lost_packet_is_an_incomplete_frame(wired: Callable[..., Camera]) -> None:
    with wired({"gvsp_lost_ratio": 0.5}) as camera:
        camera.configure(exposure_s=0.001, region=(0, 0, 512, 512))
        camera.arm(1)
        camera.trigger()
        with pytest.raises(FrameError) as caught:
            camera.frame(5.0)
    assert caught.value.kind in {"incomplete", "timeout"}


def test_a_line_without_an_edge_gives_no_frame(wired: Callable[..., Camera]) -> None:
    with wired(trigger="Line0") as camera:
        camera.configure(exposure_s=0.001, region=(0, 0, 16, 16))
        camera.arm(1)
        assert camera.frame_id_modulus is None
        camera.trigger()
        nodes = camera._sensor._nodes  # type: ignore[attr-defined]  # the driver's own
        assert (nodes.TriggerMode.value, nodes.TriggerSource.value) == ("On", "Line0")
        with pytest.raises(FrameError, match="timeout"):
            camera.frame(0.1)


def test_armed_for_edges_the_line_starts_exposures_and_software_again(
    wired: Callable[..., Camera],
) -> None:
    with wired() as camera:
        camera.configure(exposure_s=0.001, region=(0, 0, 16, 16))
        assert camera.edge_lines == ("Line0",)
        assert camera.edge_delay_limits_s == (0.0, 0.0)  # it has no delay
        camera.arm_for_edges(1, Edge("Line0", is_rising=True, delay_s=0.0))
        nodes = camera._sensor._nodes  # type: ignore[attr-defined]  # the driver's own
        assert nodes.TriggerSource.value == "Line0"
        assert nodes.TriggerActivation.value == "RisingEdge"
        camera.trigger()  # an edge may come from now on, and none does
        with pytest.raises(FrameError, match="no frame within"):
            camera.frame(0.1)
        with pytest.raises(OutOfRangeError, match="delay_s"):
            camera.arm_for_edges(1, Edge("Line0", is_rising=True, delay_s=0.01))
        with pytest.raises(OutOfRangeError, match="line=Line9"):
            camera.arm_for_edges(1, Edge("Line9", is_rising=True, delay_s=0.0))
        # An edge that it does not know is refused, and not taken for another.
        with pytest.raises(DeviceError, match="arm for edges"):
            camera.arm_for_edges(1, Edge("Line0", is_rising=False, delay_s=0.0))
        camera.arm(1)
        assert nodes.TriggerSource.value == "Software"
        camera.trigger()
        assert camera.frame(5.0).trigger == 1


@pytest.mark.parametrize("is_whole", [False, True])
def test_the_delay_after_an_edge_is_rounded_up_and_taken_away_again(
    wired: Callable[..., Camera],
    library: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    is_whole: bool,
) -> None:
    with wired() as camera:
        camera.configure(exposure_s=0.001, region=(0, 0, 16, 16))
        sensor = camera._sensor  # type: ignore[attr-defined]  # the driver's own
        delay = SimpleNamespace(value=0.0, min=0.0, max=1e5)
        monkeypatch.setattr(sensor, "_delay", lambda: delay)
        if is_whole:
            monkeypatch.setattr(library.genapi, "IInteger", SimpleNamespace)
        assert camera.edge_delay_limits_s == pytest.approx((0, 0.1))
        camera.arm_for_edges(1, Edge("Line0", is_rising=True, delay_s=0.0123456))
        assert delay.value == 12_346
        assert isinstance(delay.value, int)
        camera.arm(1)
        assert delay.value == 0


def test_started_for_each_frame_it_would_miss_edges(
    wired: Callable[..., Camera],
) -> None:
    with wired(trigger="start") as camera:
        assert camera.edge_lines == ()
        camera.configure(exposure_s=0.001, region=(0, 0, 16, 16))
        with pytest.raises(DeviceError):
            camera.arm_for_edges(1, Edge("Line0", is_rising=True, delay_s=0.0))


def test_a_camera_that_answers_no_more_was_removed(
    wired: Callable[..., Camera], library: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        text = "no such device"
        raise library.gentl.IoException(text, "file", 1)

    with wired() as camera:
        camera.arm(1)
        sensor = camera._sensor  # type: ignore[attr-defined]  # the driver's own
        with monkeypatch.context() as patch:
            patch.setattr(sensor, "_exposure", SimpleNamespace(get_value=gone))
            with pytest.raises(FrameError, match="removed: no longer there"):
                camera.frame(0.01)
        with pytest.raises(FrameError, match="removed: no longer there"):
            camera.trigger()


def test_every_error_of_its_libraries_becomes_ours(library: ModuleType) -> None:
    kinds = [
        each
        for module in (library.genapi, library.gentl)
        for name, each in vars(module).items()
        if name.endswith("Exception") and isinstance(each, type)
    ]
    assert len(kinds) > 20
    for kind in kinds:
        error = kind("x", "file", 1)
        with pytest.raises(LabctlError) as caught, library.vendor_errors("c", "a"):
            raise error
        late = kind.__name__ == "TimeoutException"
        assert isinstance(caught.value, DeviceTimeoutError) is late


def test_a_gain_in_factors_is_in_db_by_the_data_sheet(
    wired: Callable[..., Camera],
) -> None:
    with wired(pixel_format="Mono16", gain={"unity": 1}) as camera:
        low, high = camera.gain_limits_db
        assert low == 0.0
        assert high == pytest.approx(20.0)  # its numbers end at 10
        taken = camera.configure(exposure_s=0.0015, gain_db=20 * math.log10(4))
        assert taken.gain_db == pytest.approx(12.04, abs=0.01)
        nodes = camera._sensor._nodes  # type: ignore[attr-defined]  # the driver's own
        assert nodes.GainRaw.value == 4
