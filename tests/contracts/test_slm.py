"""What every spatial light modulator must do."""

import zlib

import numpy as np
import pytest

from labctl.devices import SLM, Levels
from labctl.errors import DeviceError, OutOfRangeError


def random(slm: SLM) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(1).integers(0, 256, slm.shape).astype(np.uint8)


def test_declares_a_panel(slm: SLM) -> None:
    assert isinstance(slm, SLM)
    assert len(slm.shape) == 2
    assert 1 <= slm.bit_depth <= 16
    assert slm.pitch_um > 0
    assert slm.settle_s >= 0


def test_every_write_has_its_number_checksum_and_time(slm: SLM) -> None:
    with slm:
        levels = random(slm)
        first, second = slm.write(levels), slm.write(levels[::-1])
    assert (first.pattern_id, second.pattern_id) == (1, 2)
    assert first.checksum == zlib.crc32(levels.tobytes())
    assert second.checksum == zlib.crc32(levels[::-1].tobytes())
    assert second.written_s >= first.written_s


def test_leaves_the_levels_alone(slm: SLM) -> None:
    levels = random(slm)
    before = levels.copy()
    with slm:
        slm.write(levels)
    assert np.array_equal(levels, before)


def test_refuses_levels_that_do_not_fit_and_sends_nothing(slm: SLM) -> None:
    rows, columns = slm.shape
    wrong: list[Levels] = [
        np.zeros((columns, rows), dtype=np.uint8),
        np.zeros((rows + 1, columns), dtype=np.uint8),
        np.zeros((1, rows, columns), dtype=np.uint8),
        np.zeros((rows, columns), dtype=np.uint16),
    ]
    with slm:
        for levels in wrong:
            with pytest.raises(OutOfRangeError):
                slm.write(levels)
        assert slm.write(random(slm)).pattern_id == 1


def test_refuses_a_write_while_closed(slm: SLM) -> None:
    with pytest.raises(DeviceError, match="not open"):
        slm.write(random(slm))
