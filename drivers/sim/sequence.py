"""The simulated sequence: many patterns in one call, rendered in batches."""

from typing import Any, final

import numpy as np
from typing_extensions import override

from drivers.sim.camera import SimCamera
from drivers.sim.slm import SimSLM
from drivers.sim.world import Shot, World
from labctl.devices import SLM, Camera, Counts, Levels, Played, Sequence
from labctl.errors import OutOfRangeError

_NAME = "sequence"
_LONGEST = 4096
# Exposures held before they are rendered: enough to fill the chunks of the
# light path, few enough to stay small.
_HELD = 32


@final
class SimSequence(Sequence):
    """Plays patterns on the simulated panel and camera, frame by frame.

    Parameters
    ----------
    slm, camera
        Simulated devices.
    world
        Their light path.

    Raises
    ------
    TypeError
        A device is not simulated, or of another light path.
    """

    def __init__(self, *, slm: SLM, camera: Camera, world: World) -> None:
        if not isinstance(slm, SimSLM) or not isinstance(camera, SimCamera):
            text = (
                "sequence: expected the simulated slm and camera (sim.slm, sim.camera)"
            )
            raise TypeError(text)
        if slm.world is not world or camera.world is not world:
            text = "sequence: slm and camera are in another world than the sequence"
            raise TypeError(text)
        self._slm, self._camera, self._world = slm, camera, world

    @property
    @override
    def longest(self) -> int:
        return _LONGEST

    @override
    def play(self, levels: Levels, *, settle_s: float) -> Played:
        self._slm.check(levels, stacked=True)
        count = len(levels)
        if not 1 <= count <= _LONGEST:
            raise OutOfRangeError(_NAME, "patterns", count, low=1, high=_LONGEST)
        if not settle_s >= 0:
            raise OutOfRangeError(_NAME, "settle_s", settle_s, low=0, high="any")
        self._camera.arm(count)
        try:
            return self._collect(levels, settle_s)
        finally:
            self._camera.disarm()

    def _collect(self, levels: Levels, settle_s: float) -> Played:
        rows: list[tuple[float, ...]] = []
        frames: list[Counts] = []
        held: list[Shot] = []
        for pattern in levels:
            row, shot = self._step(pattern, settle_s)
            rows.append(row)
            held.append(shot)
            if len(held) == _HELD:
                frames.append(self._world.render(held))
                held.clear()
        if held:
            frames.append(self._world.render(held))
        columns: list[Any] = list(zip(*rows, strict=True))
        whole = [np.array(column, dtype=np.int64) for column in columns[:4]]
        times = [np.array(column, dtype=np.float64) for column in columns[4:]]
        return Played(
            frames=np.concatenate(frames),
            pattern_id=whole[0],
            checksum=whole[1],
            frame_id=whole[2],
            trigger=whole[3],
            written_s=times[0],
            device_time_s=times[1],
            host_time_s=times[2],
            exposure_start_s=times[1].copy(),
            exposure_end_s=times[3],
            power_mw=times[4],
        )

    def _step(self, pattern: Levels, settle_s: float) -> tuple[tuple[float, ...], Shot]:
        clock = self._world.clock
        written = self._slm.write(pattern)
        clock.sleep(settle_s)
        trigger, shot = self._camera.start()
        wait = self._world.arrival_s(shot) - clock.now()
        if wait > 0:
            clock.sleep(wait)
        row = (
            written.pattern_id,
            written.checksum,
            self._world.next_frame_id(),
            trigger,
            written.written_s,
            shot.start_s,
            clock.now(),
            shot.end_s,
            self._world.power_reading().value,
        )
        return row, shot
