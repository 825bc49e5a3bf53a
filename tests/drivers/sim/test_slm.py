import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from drivers.sim.clock import VirtualClock
from drivers.sim.slm import SimSLM
from labctl.errors import DeviceError, DeviceTimeoutError


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


@pytest.mark.parametrize(
    ("kind", "shows"), [("lost", [0, 0, 0]), ("behind", [0, 1, 2])]
)
def test_a_panel_that_fails_reads_back_what_it_shows(
    kind: str, shows: list[int], build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    lit = build()
    faults = [{"kind": kind, "at_s": 1.0, "duration_s": 1.0}]
    slm = SimSLM(world=lit.world, clock=lit.world.clock, faults=faults)
    slm.open()
    shown = patterns(lit, 4)
    slm.write(shown[0])
    lit.world.clock.sleep(1.0)
    written = [slm.write(each) for each in shown[1:]]
    sums = [zlib.crc32(each.tobytes()) for each in shown]
    assert [each.checksum for each in written] == [sums[at] for at in shows]
    lit.world.clock.sleep(1.0)
    assert slm.write(shown[2]).checksum == sums[2]


def test_a_write_that_hangs_ends_in_time(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    lit = build()
    faults = [{"kind": "hung", "at_shot": 0}]
    slm = SimSLM(world=lit.world, clock=lit.world.clock, faults=faults)
    slm.open()
    before = lit.world.clock.now()
    with pytest.raises(DeviceTimeoutError, match="no answer within 5"):
        slm.write(patterns(lit, 1)[0])
    assert lit.world.clock.now() == pytest.approx(before + 5)


def test_a_panel_that_is_gone_says_so(
    build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    lit = build()
    faults = [{"kind": "removed", "at_shot": 0}]
    slm = SimSLM(world=lit.world, clock=lit.world.clock, faults=faults)
    slm.open()
    with pytest.raises(DeviceError, match="no longer there"):
        slm.write(patterns(lit, 1)[0])


@pytest.mark.parametrize("kind", ["lost", "behind"])
def test_a_resumed_panel_fails_as_it_would_have(
    kind: str, build: Callable[..., Any], patterns: Callable[..., Any]
) -> None:
    sums, kept = [], build()
    shown = patterns(kept, 3)
    for resumed in (False, True):
        lit = build()
        faults = [{"kind": kind, "at_shot": 0, "count": 5}]
        slm = SimSLM(world=lit.world, clock=lit.world.clock, faults=faults)
        slm.open()
        if resumed:
            lit.world.restore(kept.world.state())
        else:
            slm.write(shown[0])
            slm.write(shown[1])
            kept.world.restore(lit.world.state())
        sums.append(slm.write(shown[2]).checksum)
    assert sums[0] == sums[1]
