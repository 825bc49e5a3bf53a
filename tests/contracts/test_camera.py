"""What every camera must do."""

import math

import numpy as np
import pytest

from labctl.devices import Camera
from labctl.errors import DeviceError, FrameError, OutOfRangeError


def test_declares_a_sensor(camera: Camera) -> None:
    assert len(camera.shape) == 2
    assert camera.pixel_um > 0
    with camera:
        assert isinstance(camera, Camera)
        low, high = camera.exposure_limits_s
        assert 0 < low < high
        assert camera.gain_limits_db[0] <= camera.gain_limits_db[1]
    assert 0 < camera.saturation_dn < 2**camera.bit_depth
    assert camera.frame_id_modulus is None or camera.frame_id_modulus > 1


def test_what_was_set_reads_back(camera: Camera) -> None:
    with camera:
        taken = camera.configure(exposure_s=0.002, region=(1, 2, 5, 9))
        assert taken.exposure_s == pytest.approx(0.002, rel=0.01)
        assert taken.region == (1, 2, 5, 9)
        assert camera.settings()["exposure_s"] == taken.exposure_s
        assert camera.configure(exposure_s=0.002).region == (0, 0, *camera.shape)


def test_refuses_settings_beyond_limits_and_keeps_the_old(camera: Camera) -> None:
    rows, columns = camera.shape
    with camera:
        exposure_s, gain_db = camera.exposure_limits_s[1], camera.gain_limits_db[1]
        camera.configure(exposure_s=0.002)
        before = camera.settings()
        for wrong in (exposure_s * 2, 0.0, -1.0, math.nan):
            with pytest.raises(OutOfRangeError, match="exposure_s"):
                camera.configure(exposure_s=wrong)
        with pytest.raises(OutOfRangeError, match="gain_db"):
            camera.configure(exposure_s=0.002, gain_db=gain_db + 1)
        for region in (
            (0, 0, rows + 1, 1),
            (0, 0, 1, columns + 1),
            (-1, 0, 2, 2),
            (0, 0, 0, 1),
            (rows - 1, 0, 2, 2),
        ):
            with pytest.raises(OutOfRangeError, match="region"):
                camera.configure(exposure_s=0.002, region=region)
        assert camera.settings() == before


def test_a_frame_has_the_promised_shape_type_and_owner(camera: Camera) -> None:
    with camera:
        camera.configure(exposure_s=0.001, region=(1, 2, 5, 9))
        camera.arm(2)
        camera.trigger()
        first = camera.frame(5.0)
        kept = first.data.copy()
        camera.trigger()
        second = camera.frame(5.0)
    assert first.data.shape == (5, 9)
    assert first.data.dtype == np.uint16
    assert first.data.flags.c_contiguous
    assert np.array_equal(first.data, kept)
    assert not np.shares_memory(first.data, second.data)
    assert (first.trigger, second.trigger) == (1, 2)
    assert second.frame_id == first.frame_id + 1
    assert first.exposure_start_s < first.exposure_end_s <= first.host_time_s
    assert second.exposure_start_s >= first.exposure_end_s


def test_an_exposure_lies_where_its_frame_says(camera: Camera) -> None:
    with camera:
        exposure_s = camera.configure(exposure_s=0.002).exposure_s
        camera.arm(1)
        promised_s = camera.time_error_s
        camera.trigger()
        frame = camera.frame(5.0)
    assert 0 <= frame.time_error_s <= promised_s < math.inf
    told_s = frame.exposure_end_s - frame.exposure_start_s
    assert told_s >= exposure_s - 2 * frame.time_error_s - 1e-9


def test_the_end_of_an_exposure_is_told_before_its_frame_or_not_at_all(
    camera: Camera,
) -> None:
    with camera:
        camera.configure(exposure_s=0.002)
        camera.arm(2)
        if not camera.tells_exposure_end:
            camera.trigger()
            with pytest.raises(DeviceError, match="does not tell"):
                camera.wait_exposed(1.0)
            return
        for _ in range(2):
            camera.trigger()
            camera.wait_exposed(5.0)
            frame = camera.frame(5.0)
            assert frame.exposure_start_s < frame.exposure_end_s < frame.host_time_s


def test_arming_starts_the_count_of_triggers_again(camera: Camera) -> None:
    with camera:
        camera.configure(exposure_s=0.001)
        for _ in range(2):
            camera.arm(1)
            camera.trigger()
            assert camera.frame(5.0).trigger == 1
            camera.disarm()


def test_a_frame_of_before_arming_is_never_returned(camera: Camera) -> None:
    with camera:
        camera.configure(exposure_s=0.001)
        camera.arm(1)
        camera.trigger()
        camera.arm(1)
        with pytest.raises(FrameError) as caught:
            camera.frame(0.01)
        assert caught.value.kind == "timeout"


def test_refuses_a_trigger_that_it_is_not_armed_for(camera: Camera) -> None:
    with camera:
        with pytest.raises(FrameError) as caught:
            camera.trigger()
        assert caught.value.kind == "trigger_refused"
        camera.arm(1)
        camera.trigger()
        with pytest.raises(FrameError) as caught:
            camera.trigger()
        assert caught.value.kind == "trigger_refused"
        camera.disarm()
        camera.disarm()
        with pytest.raises(FrameError):
            camera.trigger()


def test_a_frame_without_a_trigger_times_out(camera: Camera) -> None:
    with camera:
        camera.arm(1)
        with pytest.raises(FrameError) as caught:
            camera.frame(0.01)
        assert caught.value.kind == "timeout"


def test_refuses_to_be_configured_while_armed(camera: Camera) -> None:
    with camera:
        camera.arm(1)
        with pytest.raises(DeviceError, match="armed"):
            camera.configure(exposure_s=0.001)


def test_refuses_to_be_armed_for_nothing_or_while_closed(camera: Camera) -> None:
    with camera, pytest.raises(OutOfRangeError, match="frames=0"):
        camera.arm(0)
    with pytest.raises(DeviceError, match="not open"):
        camera.arm(1)
