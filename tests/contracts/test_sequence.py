"""What every sequence must do: the same as stepping, or refuse."""

from typing import Any

import numpy as np
import pytest

from labctl.errors import DeviceError, OutOfRangeError


def patterns(slm: Any, count: int) -> Any:  # noqa: ANN401 - arrays of levels
    source = np.random.default_rng(2)
    return source.integers(0, 256, (count, *slm.shape)).astype(np.uint8)


def test_returns_a_row_for_each_pattern(sequence: Any) -> None:  # noqa: ANN401 - see conftest
    sequence.camera.configure(exposure_s=0.001, region=(1, 2, 5, 9))
    played = sequence.capability.play(patterns(sequence.slm, 3), settle_s=0.01)
    assert played.frames.shape == (3, 5, 9)
    assert played.frames.dtype == np.uint16
    whole = (played.pattern_id, played.checksum, played.frame_id, played.trigger)
    for column in whole:
        assert column.shape == (3,)
        assert column.dtype == np.int64
    assert played.trigger.tolist() == [1, 2, 3]
    assert np.unique(played.checksum).size == 3
    assert (np.diff(played.pattern_id) == 1).all()
    assert (np.diff(played.frame_id) == 1).all()
    assert (played.exposure_start_s >= played.written_s + 0.01 - 1e-9).all()
    assert (played.exposure_end_s > played.exposure_start_s).all()
    assert (played.host_time_s >= played.exposure_end_s).all()
    assert (played.written_s[1:] >= played.exposure_end_s[:-1]).all()


def test_numbers_agree_with_stepping(sequence: Any) -> None:  # noqa: ANN401 - see conftest
    shown = patterns(sequence.slm, 2)
    played = sequence.capability.play(shown, settle_s=0.01)
    written = sequence.slm.write(shown[1])
    assert written.checksum == played.checksum[1]
    assert written.pattern_id == played.pattern_id[1] + 1
    sequence.camera.arm(1)
    sequence.camera.trigger()
    frame = sequence.camera.frame(1.0)
    assert frame.frame_id == played.frame_id[1] + 1
    assert frame.data.shape == played.frames[1].shape


def test_leaves_the_camera_idle(sequence: Any) -> None:  # noqa: ANN401 - see conftest
    sequence.capability.play(patterns(sequence.slm, 1), settle_s=0.0)
    sequence.camera.configure(exposure_s=0.001)


def test_refuses_what_does_not_fit_and_shows_nothing(sequence: Any) -> None:  # noqa: ANN401 - see conftest
    play, slm = sequence.capability.play, sequence.slm
    good = patterns(slm, 2)
    before = sequence.clock.now()
    with pytest.raises(OutOfRangeError):
        play(good.transpose(0, 2, 1), settle_s=0.0)
    with pytest.raises(OutOfRangeError):
        play(good[0], settle_s=0.0)
    with pytest.raises(OutOfRangeError):
        play(good.astype(np.uint16), settle_s=0.0)
    with pytest.raises(OutOfRangeError):
        play(good[:0], settle_s=0.0)
    with pytest.raises(OutOfRangeError):
        play(good, settle_s=-1.0)
    too_many = np.broadcast_to(good[:1], (sequence.capability.longest + 1, *slm.shape))
    with pytest.raises(OutOfRangeError, match="patterns"):
        play(too_many, settle_s=0.0)
    assert sequence.clock.now() == before


def test_refuses_closed_devices(sequence: Any) -> None:  # noqa: ANN401 - see conftest
    shown = patterns(sequence.slm, 1)
    sequence.camera.close()
    with pytest.raises(DeviceError, match="not open"):
        sequence.capability.play(shown, settle_s=0.0)
