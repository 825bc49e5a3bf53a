import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from drivers.sim.clock import VirtualClock
from drivers.sim.slm import SimSLM


def test_write_takes_its_time_and_returns_when_the_panel_has_it(
    build: Callable[..., Any],
) -> None:
    lit = build()
    before = lit.world.clock.now()
    levels = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24).astype(np.uint8)
    written = lit.slm.write(levels)
    assert written.written_s == lit.world.clock.now() == before + 0.002
    assert written.pattern_id == 1
    assert written.checksum == zlib.crc32(levels.tobytes())
    assert lit.slm.write(levels).pattern_id == 2


def test_a_view_is_written_as_it_reads(build: Callable[..., Any]) -> None:
    lit = build()
    wide = np.random.default_rng(1).integers(0, 256, (24, 16)).astype(np.uint8)
    written = lit.slm.write(wide.T)
    assert written.checksum == zlib.crc32(wide.T.tobytes())


def test_close_leaves_a_flat_panel(build: Callable[..., Any]) -> None:
    lit = build()
    lit.slm.write(np.full((16, 24), 200, dtype=np.uint8))
    lit.slm.close()
    assert not lit.world.state()["panel_goal"].any()


def test_counts_patterns_from_one_after_every_opening(
    build: Callable[..., Any],
) -> None:
    lit = build()
    lit.slm.write(np.zeros((16, 24), dtype=np.uint8))
    lit.slm.close()
    lit.slm.open()
    assert lit.slm.write(np.zeros((16, 24), dtype=np.uint8)).pattern_id == 1


def test_refuses_a_strange_clock_and_pitch(build: Callable[..., Any]) -> None:
    world = build().world
    with pytest.raises(ValueError, match="another clock"):
        SimSLM(world=world, clock=VirtualClock())
    with pytest.raises(ValueError, match="pitch_um=0, expected more than 0"):
        SimSLM(world=world, clock=world.clock, pitch_um=0)
