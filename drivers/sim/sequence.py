"""The simulated sequence: many patterns in one call, rendered in batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn, final

import numpy as np
from typing_extensions import override

from drivers.sim.camera import Delivery, SimCamera
from drivers.sim.faults import NO_RETURN, never_return
from drivers.sim.slm import SimSLM
from drivers.sim.world import Shot, World
from labctl import devices
from labctl.devices import SLM, Camera, Counts, Levels, Played, Written
from labctl.errors import DeviceError, FrameError, OutOfRangeError

_NAME = "sequence"
_LONGEST = 4096
# Grid points times steps that are computed in one call: it returns in a fraction of
# a second, and whoever asked gives a sign of life in between.
_WORK: Final = {"cpu": 2**21, "cuda": 2**26}
# Exposures held before they are rendered: enough to fill the chunks of the
# light path, few enough to stay small.
_HELD = 32
# How long it waits for frames that never come.
_TIMEOUT_S = 5.0
_BROKEN: Final = {"truncated": "incomplete", "wrong_shape": "wrong_shape"}


@final
class SimSequence(devices.Sequence):
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
        rows, columns = world.shape
        cost = rows * columns * world.options.medium.steps
        self._longest = max(1, min(_LONGEST, _WORK[world.options.device] // cost))

    @property
    @override
    def longest(self) -> int:
        return self._longest

    @override
    def play(self, levels: Levels, *, settle_s: float) -> Played:
        self._slm.check(levels, stacked=True)
        count = len(levels)
        if not 1 <= count <= self._longest:
            raise OutOfRangeError(_NAME, "patterns", count, low=1, high=self._longest)
        if not settle_s >= 0:
            raise OutOfRangeError(_NAME, "settle_s", settle_s, low=0, high="any")
        self._camera.arm(count)
        try:
            return self._collect(levels, settle_s)
        finally:
            self._camera.disarm()

    def _collect(self, levels: Levels, settle_s: float) -> Played:
        steps: list[_Step] = []
        frames: list[Counts] = []
        held: list[Shot] = []
        held_at_most = max(_HELD, self._world.light.chunk)
        for pattern in levels:
            steps.append(self._step(pattern, settle_s, len(steps)))
            held.append(steps[-1].made.shot)
            if len(held) == held_at_most:
                frames.append(self._world.render(held))
                held.clear()
        if held:
            frames.append(self._world.render(held))
        rows = self._arrived(steps)
        device_s = [
            self._camera.device_time_s(steps[row].made.shot.start_s) for row in rows
        ]
        played = _played(steps, rows, np.concatenate(frames))
        return replace(played, device_time_s=np.array(device_s))

    def _step(self, pattern: Levels, settle_s: float, exposed: int) -> "_Step":
        clock = self._world.clock
        try:
            written = self._slm.write(pattern)
            clock.sleep(settle_s)
            made = self._camera.start()
            exposed += 1
        except DeviceError as error:
            error.exposed = exposed
            raise
        wait = made.arrival_s - clock.now()
        if wait > 0:
            clock.sleep(wait)
        return _Step(
            written,
            made,
            self._camera.deliveries(made),
            clock.now(),
            self._metered(exposed),
        )

    def _metered(self, exposed: int) -> float | None:
        try:
            reading = self._world.metered()
        except DeviceError as error:
            error.exposed = exposed
            raise
        return None if reading is None else reading.value

    def _arrived(self, steps: "list[_Step]") -> list[int]:
        """Find which exposure's frame came first, second, and so on.

        Raises
        ------
        FrameError
            One is missing, or not whole.
        """
        end_s, count = self._world.clock.now(), len(steps)
        if any(step.made.kind == NO_RETURN for step in steps):
            never_return()
        if any(step.made.kind == "hung" for step in steps):
            self._world.clock.sleep(_TIMEOUT_S)
            self._refuse("timeout", f"no frames within {_TIMEOUT_S} s", count)
        known = {id(step.made.shot): row for row, step in enumerate(steps)}
        order = sorted(
            (
                (sent.arrival_s, at, known[id(sent.shot)])
                for at, step in enumerate(steps)
                for sent in step.sent
                # What an earlier batch left on its way is known by its counter.
                if id(sent.shot) in known and sent.arrival_s <= end_s
            ),
            key=lambda each: each[:2],
        )
        rows = list(dict.fromkeys(row for _, _, row in order))
        for row in rows:
            kind = steps[row].made.kind
            if kind in _BROKEN:
                self._refuse(_BROKEN[kind], f"row {row} came {kind}", count)
        if len(rows) < count:
            missing = min(set(range(count)) - set(rows))
            kind = "gap" if steps[missing].made.kind == "dropped" else "late"
            text = f"{len(rows)} frames, expected {count}: row {missing} is missing"
            self._refuse(kind, text, count)
        return rows

    def _refuse(self, kind: str, text: str, exposed: int) -> NoReturn:
        raise FrameError(self._camera.name, kind, text, exposed=exposed)


@dataclass(frozen=True, eq=False)
class _Step:
    """One pattern: what was written, exposed and sent, and what it cost."""

    written: Written
    made: Delivery
    sent: list[Delivery]
    host_time_s: float
    power_mw: float | None


def _played(steps: Sequence[_Step], rows: Sequence[int], frames: Counts) -> Played:
    # Patterns and powers in the order of the writes, frames in that of arrival.
    came = [steps[row] for row in rows]
    shots = [step.made.shot for step in came]
    start_s = np.array([shot.start_s for shot in shots])
    power_mw = [step.power_mw for step in steps if step.power_mw is not None]
    in_order = list(rows) == list(range(len(steps)))
    return Played(
        frames=frames if in_order else frames[np.array(rows)],
        pattern_id=np.array([step.written.pattern_id for step in steps]),
        checksum=np.array([step.written.checksum for step in steps]),
        written_s=np.array([step.written.written_s for step in steps]),
        frame_id=np.array([step.made.frame_id for step in came]),
        trigger=np.array([step.made.trigger for step in came]),
        device_time_s=start_s,
        host_time_s=np.array([step.host_time_s for step in came]),
        # By the bench clock, which triggers them, and not by the camera's.
        exposure_start_s=start_s.copy(),
        exposure_end_s=np.array([shot.end_s for shot in shots]),
        # Of every exposure, or of none.
        power_mw=np.array(power_mw) if len(power_mw) == len(steps) else None,
    )
