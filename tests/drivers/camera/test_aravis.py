"""Proved on the GigE Vision camera that aravis simulates, with real packets."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from labctl.bench import RealClock
from labctl.devices import Camera, Edge
from labctl.errors import DeviceError, FrameError, OutOfRangeError

pytestmark = pytest.mark.peer
Start = Callable[..., Any]


@pytest.fixture
def library(need_module: Callable[..., ModuleType]) -> ModuleType:
    return need_module("drivers.camera.aravis")


def made(library: ModuleType, **options: object) -> Camera:
    named: dict[str, Any] = {
        "shape": [2048, 2048],
        "pixel_um": 5.5,
        "clock": RealClock(),
        "pixel_format": "Mono8",
        "camera": "127.0.0.1",
    }
    camera: Camera = library.aravis(**named | options)
    return camera


@pytest.fixture
def camera(library: ModuleType, gige: Start) -> Iterator[Camera]:
    gige()
    with made(library) as opened:
        yield opened


def shots(camera: Camera, count: int, **settings: Any) -> list[Any]:  # noqa: ANN401
    camera.configure(region=(2, 4, 120, 160), **settings)
    camera.arm(count)
    frames = []
    for _ in range(count):
        camera.trigger()
        frames.append(camera.frame(5.0))
    camera.disarm()
    return frames


def test_a_gain_that_stays_automatic_is_refused(
    library: ModuleType, gige: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = library.Aravis.Auto
    gige()
    with made(library):
        pass
    monkeypatch.setattr(
        library.Aravis.Camera, "get_gain_auto", lambda _: auto.CONTINUOUS
    )
    with pytest.raises(DeviceError, match="GainAuto"):
        made(library).open()


def test_exposure_changes_the_frame(camera: Camera) -> None:
    dim, bright = (
        np.mean(shots(camera, 1, exposure_s=exposure_s)[0].data)
        for exposure_s in (0.002, 0.006)
    )
    assert bright > 2 * dim


def test_padding_is_checked_and_no_part_of_the_bits(
    library: ModuleType, gige: Start
) -> None:
    assert made(library, pixel_format="Mono16", padding=4).bit_depth == 12
    gige()
    with (
        made(library, padding=2) as camera,
        pytest.raises(DeviceError, match="it is not left-justified"),
    ):
        shots(camera, 1, exposure_s=0.006)


def test_a_gain_without_a_unit_stays_at_its_least(camera: Camera) -> None:
    assert camera.gain_limits_db == (0.0, 0.0)
    with pytest.raises(OutOfRangeError, match="gain_db"):
        camera.configure(exposure_s=0.002, gain_db=6.0)


def test_a_gain_in_steps_is_in_db_by_the_data_sheet(
    library: ModuleType, gige: Start
) -> None:
    gige()
    with made(library, gain={"db_per_step": 0.6}) as camera:
        assert camera.gain_limits_db == pytest.approx((0.0, 6.0))
        dim, loud = (
            np.mean(shots(camera, 1, exposure_s=0.002, gain_db=gain_db)[0].data)
            for gain_db in (0.0, 5.4)
        )
        assert loud > dim
        assert camera._sensor._camera.get_gain() == 9  # type: ignore[attr-defined]
        with pytest.raises(DeviceError, match="read back"):
            camera.configure(exposure_s=0.002, gain_db=0.3)  # between two steps


def test_whenever_it_is_triggered_its_frame_comes_after_the_exposure(
    camera: Camera,
) -> None:
    camera.configure(exposure_s=0.02, region=(2, 4, 120, 160))
    camera.arm(12)
    for number in range(1, 13):
        # At every part of the 40 ms after which it looks for triggers.
        RealClock().sleep(0.04 * number / 13)
        camera.trigger()
        assert camera.frame(5.0).trigger == number


def test_armed_for_edges_it_heeds_its_line_and_software_again(camera: Camera) -> None:
    camera.configure(exposure_s=0.002, region=(2, 4, 120, 160))
    assert list(camera.edge_lines) == ["Line0"]
    assert max(camera.edge_delay_limits_s) == 0  # it has no delay
    camera.arm_for_edges(1, Edge("Line0", is_rising=True, delay_s=0.0))
    camera.trigger()
    with pytest.raises(FrameError, match="no frame within"):
        camera.frame(0.3)
    with pytest.raises(OutOfRangeError, match="delay_s"):
        camera.arm_for_edges(1, Edge("Line0", is_rising=True, delay_s=0.01))
    assert shots(camera, 1, exposure_s=0.002)[0].trigger == 1


def test_settings_of_the_factory_after_a_restart_are_noticed(camera: Camera) -> None:
    camera.configure(exposure_s=0.002, region=(2, 4, 120, 160))
    inner = camera._sensor._camera  # type: ignore[attr-defined]  # the driver's own
    inner.set_exposure_time(5000)
    with pytest.raises(DeviceError, match="it was away and forgot"):
        camera.arm(1)
    with pytest.raises(DeviceError, match="it was away and forgot"):
        camera.arm_for_edges(1, Edge("Line0", is_rising=True, delay_s=0.0))


def test_what_an_old_stream_holds_is_never_handed_out(camera: Camera) -> None:
    camera.configure(exposure_s=0.002, region=(2, 4, 120, 160))
    sensor = camera._sensor  # type: ignore[attr-defined]  # the driver's own
    sensor.start(1)
    old = sensor._stream
    sensor.start(1)
    assert sensor._stream is not old
    sensor.stop()


def test_a_camera_that_no_longer_knows_whose_it_is_counts_as_removed(
    camera: Camera,
) -> None:
    camera.configure(exposure_s=0.002, region=(2, 4, 120, 160))
    camera.arm(1)
    device = camera._sensor._camera.get_device()  # type: ignore[attr-defined]
    device.leave_control()
    with pytest.raises(FrameError) as caught:
        camera.trigger()
    assert caught.value.kind == "removed"
    device.take_control()


@pytest.mark.slow
def test_no_frame_is_lost_where_the_counter_wraps(camera: Camera) -> None:
    # It starts near 65,400, so that 65,535 is followed by 1 within these.
    frames = shots(camera, 150, exposure_s=0.001)
    ids = [frame.frame_id for frame in frames]
    assert ids[0] > 65_385
    assert ids[-1] < 100
    assert [frame.trigger for frame in frames] == list(range(1, 151))


def test_a_lost_packet_is_an_incomplete_frame(library: ModuleType, gige: Start) -> None:
    gige(gvsp_lost_ratio=0.5)
    with made(library) as camera:
        camera.configure(exposure_s=0.001, region=(0, 0, 512, 512))
        camera.arm(1)
        camera.trigger()
        with pytest.raises(FrameError) as caught:
            camera.frame(5.0)
    assert caught.value.kind in {"incomplete", "timeout"}


def test_what_is_out_of_range_is_refused_by_the_library_too(
    library: ModuleType, camera: Camera
) -> None:
    inner = camera._sensor._camera  # type: ignore[attr-defined]  # the driver's own
    with pytest.raises(DeviceError), library.vendor_errors("camera", "configure"):
        inner.set_region(0, 0, 99_999, 16)


def test_who_is_not_there_is_told(library: ModuleType, gige: Start) -> None:
    gige()
    with pytest.raises(DeviceError, match="camera: open: "):
        made(library, camera="Aravis-S9").open()
    with pytest.raises(DeviceError, match=r"shape=\[2048, 2048\], expected \[1000"):
        made(library, shape=[1000, 2048]).open()
    with pytest.raises(ValueError, match="pixel_format='Mono9'"):
        made(library, pixel_format="Mono9")


def test_what_is_plugged_in_is_found(library: ModuleType, gige: Start) -> None:
    gige()
    (found,) = library.find()
    assert (found.driver, found.serial) == ("aravis.camera", "S1")
    assert "Aravis-Fake-S1" in found.lines()
