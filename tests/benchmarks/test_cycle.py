"""What a shot takes beside its devices, and how near the cycle is to its ideal.

``make bench`` prints it. With ``LABCTL_WRITE_TABLES=1`` the tables of
``docs/reference/cycle-time.md`` are written anew. The same two instruments are behind
labctl's roles, slmsuite's classes and a bluesky detector. Their times pass by a clock
that shows the processor time of this process and what was slept: whoever computes while
an instrument is busy saves it, whoever computes in between pays for it, and what else
this computer does counts for nobody.
"""

import logging
import math
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typing_extensions import override

from labctl import bench as benches
from labctl.bench import Bench
from labctl.bounded import BoundedCamera, BoundedSLM
from labctl.calibration import Settle
from labctl.devices import (
    SLM,
    Camera,
    CameraSettings,
    Clock,
    Frame,
    Identity,
    Levels,
    Settings,
    Written,
)
from labctl.errors import FrameError
from labctl.recording.header import Header
from labctl.recording.layout import ShotSpec, train_layout
from labctl.recording.writer import Recorder
from labctl.reservoir import Exposer, Ledger, Reservoir, Shots, calibration
from labctl.run.setting import Session, Setting

Section = Callable[[str, str, str], None]
NeedModule = Callable[[str, str], Any]
Work = Callable[[], object]

PANEL: Final = (1024, 1024)
SENSOR: Final = (512, 512)
SHOTS, ROUNDS = 64, 3
LEAST_EFFICIENCY: Final = 0.9
INSTALL: Final = "make bench installs it"
PEERS: Final = ("slmsuite", "bluesky")


@dataclass(frozen=True)
class Times:
    """What the devices of a bench take.

    Parameters
    ----------
    write_s, settle_s, exposure_s, readout_s
        In s.
    """

    write_s: float = 0.0
    settle_s: float = 0.0
    exposure_s: float = 0.0
    readout_s: float = 0.0

    @property
    def ideal_s(self) -> float:
        """Cycle of a bench that does all at once that can be done at once."""
        return max(self.settle_s + self.exposure_s, self.readout_s, self.write_s)


NULL: Final = Times()
# A fast liquid-crystal panel on PCIe and a camera of 60 frames a second.
FAST: Final = Times(0.001, 0.03, 0.005, 0.015)
# One on a monitor of 60 Hz, and a long exposure.
SLOW: Final = Times(0.004, 0.06, 0.02, 0.03)


class Counted(Clock):
    """A clock of what this process computes, and of what it waits for."""

    def __init__(self) -> None:
        self._slept_s = 0.0

    @override
    def now(self) -> float:
        return self._slept_s + time.process_time()

    @override
    def sleep(self, seconds: float) -> None:
        self._slept_s += seconds


CLOCK: Final = Counted()


@dataclass
class Room:
    """The instruments themselves: what any of the three packages talks to.

    Parameters
    ----------
    times
        What they take.
    """

    times: Times
    frame: NDArray[np.uint16] = field(
        default_factory=lambda: np.full(SENSOR, 700, dtype=np.uint16)
    )

    def write(self) -> None:
        CLOCK.sleep(self.times.write_s)

    def expose(self) -> tuple[float, float]:
        """Start an exposure; return when it ends, and when its frame is there."""
        end_s = CLOCK.now() + self.times.exposure_s
        return end_s, end_s + self.times.readout_s


def until(moment_s: float) -> None:
    CLOCK.sleep(max(0.0, moment_s - CLOCK.now()))


class _Quiet:
    """What the two devices below have in common."""

    def __init__(self, room: Room) -> None:
        self.room = room

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def identity(self) -> Identity:
        return Identity("labctl", self.name, "1", "1")

    def settings(self) -> Settings:
        return {}


class Panel(_Quiet, SLM):
    """A panel that takes its time."""

    shape, bit_depth, pitch_um, settle_s = PANEL, 8, 17.0, 0.0
    written = 0

    @override
    def write(self, levels: Levels) -> Written:
        there_s = CLOCK.now() + self.room.times.write_s
        checksum = zlib.crc32(np.ascontiguousarray(levels).data)  # on its way meanwhile
        until(there_s)
        self.written += 1
        return Written(self.written, checksum, CLOCK.now())


class Eye(_Quiet, Camera):
    """A camera that takes its time, and may say when an exposure is over."""

    shape, bit_depth, pixel_um, saturation_dn = SENSOR, 12, 5.5, 4095
    exposure_limits_s, gain_limits_db = (0.0, 1.0), (0.0, 0.0)
    frame_id_modulus, tells_exposure_end = None, True
    taken = CameraSettings(0.001, 0.0, (0, 0, *SENSOR))

    def __init__(self, room: Room) -> None:
        super().__init__(room)
        self._begun_s = self._end_s = self._here_s = math.nan
        self._number = self._triggers = 0

    @override
    def configure(
        self,
        *,
        exposure_s: float,
        gain_db: float = 0.0,
        region: tuple[int, int, int, int] | None = None,
    ) -> CameraSettings:
        self.taken = CameraSettings(
            exposure_s, gain_db, (0, 0, *SENSOR) if region is None else region
        )
        return self.taken

    @override
    def arm(self, frames: int) -> None:
        self._triggers = 0

    @override
    def trigger(self) -> None:
        self._begun_s = CLOCK.now()
        self._end_s, self._here_s = self.room.expose()
        self._triggers += 1
        self._number += 1

    @override
    def wait_exposed(self, timeout_s: float) -> None:
        until(self._end_s)

    @override
    def frame(self, timeout_s: float) -> Frame:
        if math.isnan(self._here_s):
            raise FrameError(self.name, "timeout", "no trigger")
        until(self._here_s)
        top, left, height, width = self.taken.region
        data = self.room.frame[top : top + height, left : left + width].copy()
        here_s = CLOCK.now()
        return Frame(
            data=data,
            frame_id=self._number,
            trigger=self._triggers,
            device_time_s=self._begun_s,
            host_time_s=here_s,
            exposure_start_s=self._begun_s,
            exposure_end_s=max(self._end_s, self._begun_s),
        )

    @override
    def disarm(self) -> None:
        pass


@contextmanager
def bench_of(room: Room) -> Iterator[Bench]:
    """A bench whose guard, laser and lanes are real, with the room's two devices."""
    source = benches.load("sim-small")
    times = room.times
    entry = source.file.reservoir.model_copy(
        update={
            "macropixels": (16, 16),
            "region": (0, 0, *SENSOR),
            "bins": (3, 3),
            "exposure_s": max(times.exposure_s, 1e-6),
        }
    )
    limits = source.file.limits.model_copy(update={"exposure_s": 0.5})
    file = source.file.model_copy(update={"reservoir": entry, "limits": limits})
    with benches.open(replace(source, file=file), seed=5) as bench, ExitStack() as more:
        settle = calibration(bench, Settle)
        (kind,) = (k for k, r in bench.calibrations.items() if r.values is settle)
        bench.calibrations[kind] = bench.calibrations[kind].model_copy(
            update={"values": settle.model_copy(update={"settle_s": times.settle_s})}
        )
        bench.light(entry.power_mw)  # by the virtual clock of its laser
        bench.clock, bench.sequence, bench.meter = CLOCK, None, None
        with pytest.MonkeyPatch.context() as patch:
            for role, device in (
                ("slm", BoundedSLM(Panel(room), 10.0)),
                ("camera", BoundedCamera(Eye(room), 10.0)),
            ):
                more.enter_context(device)
                patch.setattr(bench, role, device)
            yield bench


@contextmanager
def recorded(bench: Bench, path: Path) -> Iterator[Reservoir]:
    """A reservoir whose shots go to a record, as in a training run."""
    entry = bench.file.reservoir
    pixels, bins = math.prod(entry.macropixels), math.prod(entry.bins)
    protocol = SimpleNamespace(record=SimpleNamespace(frames="none"))
    header = Header(
        title="cycle",
        kind="train",
        protocol_text="kind: train\n",
        protocol_resolved={},
        bench_name=bench.file.name,
        bench_text="",
        bench_sha256="0" * 64,
        simulated=True,
        notice="",
        seeds={},
        instrument={},
        calibrations={},
        reservoir=entry.model_dump(mode="json"),
    )
    layout = train_layout(ShotSpec(pixels, bins))
    with Recorder.create(path, layout=layout, header=header) as recorder:
        session = Session(
            cast("Setting[Any]", SimpleNamespace(protocol=protocol)),
            bench,
            recorder,
            cast("Any", None),
        )
        yield session.reservoir(entry, Ledger(None))


def phases(reservoir: Reservoir) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return math.tau * torch.rand(SHOTS, reservoir.pixels, generator=generator)


def patterns() -> Levels:
    source = np.random.default_rng(3)
    blocks = source.integers(0, 256, (SHOTS, 16, 16)).astype(np.uint8)
    return blocks.repeat(PANEL[0] // 16, 1).repeat(PANEL[1] // 16, 2)


def by_turns(
    bench: Bench, works: dict[str, Work], rounds: int = ROUNDS
) -> dict[str, float]:
    """Least time a shot of each, in s; by turns, so that all meet the same noise."""
    best = dict.fromkeys(works, math.inf)
    for _ in range(rounds):
        for name, work in works.items():
            # Nobody else gives the guard a sign of life.
            with bench.digital(60.0) if name in PEERS else nullcontext():
                start_s = CLOCK.now()
                work()
                best[name] = min(best[name], (CLOCK.now() - start_s) / SHOTS)
    return best


def panel_of_slmsuite(room: Room, need_module: NeedModule) -> Any:  # noqa: ANN401 - has no types
    """Its own class of panels, on the room's."""
    module = need_module("slmsuite.hardware.slms.slm", INSTALL)
    logging.getLogger("slmsuite").handlers.clear()  # it writes after the test's end
    module.time = SimpleNamespace(perf_counter=CLOCK.now, sleep=CLOCK.sleep)

    class Shown(module.SLM):  # type: ignore[misc, name-defined]  # has no types
        def __init__(self) -> None:
            settle_s = room.times.settle_s
            super().__init__(PANEL[::-1], settle_time_s=settle_s, pitch_um=(17, 17))

        def close(self) -> None:
            pass

        def _set_phase_hw(self, display: object) -> None:
            del display
            room.write()

    return Shown()


def camera_of_slmsuite(room: Room, need_module: NeedModule) -> Any:  # noqa: ANN401 - has no types
    """Its own class of cameras, on the room's."""
    module = need_module("slmsuite.hardware.cameras.camera", INSTALL)

    class Seen(module.Camera):  # type: ignore[misc, name-defined]  # has no types
        def __init__(self) -> None:
            super().__init__(SENSOR[::-1], bitdepth=12, pitch_um=(5.5, 5.5))

        def close(self) -> None:
            pass

        def _get_exposure_hw(self) -> float:
            return room.times.exposure_s

        def _set_exposure_hw(self, exposure_s: float) -> None:
            pass

        def _get_image_hw(self, timeout_s: float) -> NDArray[np.uint16]:
            del timeout_s
            until(room.expose()[1])
            return room.frame.copy()

    return Seen()


def with_slmsuite(room: Room, need_module: NeedModule) -> Work:
    """Its loop: set a phase, wait for it to settle, get an image."""
    slm, shown = panel_of_slmsuite(room, need_module), patterns()
    camera = camera_of_slmsuite(room, need_module)

    def loop() -> None:
        for levels in shown:
            slm.set_phase(levels, phase_correct=False, settle=True)
            camera.get_image(timeout_s=1)

    return loop


class _Done:
    """A bluesky status that was finished when it was made."""

    done = success = True

    def add_callback(self, call: Callable[[Any], None]) -> None:
        call(self)

    def exception(self, timeout: float | None = 0.0) -> None:
        del timeout


class Detector:
    """A bluesky detector that shows its next pattern and takes its frame."""

    name, parent = "detector", None

    def __init__(self, room: Room) -> None:
        self._room, self._shown, self._count = room, patterns(), 0

    def trigger(self) -> _Done:
        # In RunEngine's own loop: a thread for each would only cost more.
        np.ascontiguousarray(self._shown[self._count % SHOTS])
        self._count += 1
        self._room.write()
        CLOCK.sleep(self._room.times.settle_s)
        until(self._room.expose()[1])
        self._mean = float(self._room.frame.copy()[0, 0])
        return _Done()

    def read(self) -> dict[str, Any]:
        return {self.name: {"value": self._mean, "timestamp": time.time()}}

    def describe(self) -> dict[str, Any]:
        return {self.name: {"source": "room", "dtype": "number", "shape": []}}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}


def with_bluesky(room: Room, need_module: NeedModule) -> Work:
    """Its plan ``count``, whose detector does a whole shot."""
    plans = need_module("bluesky.plans", INSTALL)
    engine = need_module("bluesky.run_engine", INSTALL).RunEngine({})
    detector = Detector(room)

    def loop() -> None:
        engine(plans.count([detector], num=SHOTS))

    return loop


def others(room: Room, need_module: NeedModule) -> dict[str, Work]:
    """The loops of the other two; importing them takes seconds."""
    return {
        "slmsuite": with_slmsuite(room, need_module),
        "bluesky": with_bluesky(room, need_module),
    }


@pytest.mark.bench
@pytest.mark.filterwarnings("default")  # of the peers
def test_own_time_of_a_shot(
    section: Section, need_module: NeedModule, tmp_path: Path
) -> None:
    room = Room(NULL)
    peers = others(room, need_module)
    with bench_of(room) as bench, recorded(bench, tmp_path / "run.h5") as reservoir:
        phase, entry = phases(reservoir), bench.file.reservoir
        kept = list[Shots]()
        bare = Reservoir(bench, sink=kept.append)
        bare(phase, category="probe")
        levels = bare._panel.levels(phase.double().numpy())
        panel = bare.blocks.expand(levels)
        taken = bench.camera.driver.taken  # type: ignore[attr-defined]  # our own
        exposer = Exposer(bench, Ledger(None), taken, 0.0)
        frames = np.repeat(room.frame[None], SHOTS, axis=0)
        power_mw = np.full(SHOTS, entry.power_mw)

        def expose() -> None:
            with exposer.booked("probe", SHOTS):
                exposer.expose(panel, "probe", lambda batch: batch)

        found = by_turns(
            bench,
            {
                "all": lambda: reservoir(phase, category="probe"),
                "encode": lambda: bare.blocks.expand(
                    bare._panel.levels(phase.double().numpy())
                ),
                "expose": expose,
                "decode": lambda: bare.decoder.outputs(frames, power_mw),
                "record": lambda: reservoir._sink(kept[0]),  # type: ignore[misc]  # there is one
                **peers,
            },
            2 * ROUNDS,
        )
    own_s = found["all"]
    parts = {
        "encode: phases to levels on the panel": found["encode"],
        "write, trigger, fetch, judge": found["expose"],
        "decode: frame to outputs": found["decode"],
        "record, and make it safe": found["record"],
    }
    rows = [f"| {name} | {part / own_s:.2f} |" for name, part in parts.items()]
    peer = {name: found[name] / own_s for name in PEERS}
    rows += [
        f"| slmsuite: set and grab, nothing else | {peer['slmsuite']:.2f} |",
        f"| bluesky: `count`, its documents unread | {peer['bluesky']:.2f} |",
    ]
    section(
        "cycle-time",
        "What labctl itself takes",
        f"A shot on devices that take no time, a panel of {PANEL[0]} x {PANEL[1]} and "
        f"frames of {SENSOR[0]} x {SENSOR[1]}: {1000 * own_s:.1f} ms where this was "
        "written, the least of six rounds, as shares of it. Each part is measured by "
        "itself, so they do not add up exactly. The other two are handed levels, judge "
        "nothing and keep nothing.\n\n"
        "| | of labctl's shot |\n|---|---|\n" + "\n".join(rows),
    )
    # Of the fast bench's shot: what is left over for the write, with ten per cent.
    assert own_s < FAST.ideal_s / LEAST_EFFICIENCY - FAST.ideal_s


@pytest.mark.bench
@pytest.mark.filterwarnings("default")  # of the peers
def test_the_cycle_is_near_its_ideal(
    section: Section, need_module: NeedModule, tmp_path: Path
) -> None:
    rows, ratios = list[str](), list[tuple[float, ...]]()
    for name, times in (("fast", FAST), ("slow", SLOW)):
        room = Room(times)
        peers = others(room, need_module)
        with (
            bench_of(room) as bench,
            recorded(bench, tmp_path / f"{name}.h5") as reservoir,
            pytest.MonkeyPatch.context() as patch,
        ):
            phase = phases(reservoir)

            def expose(*, tells: bool) -> None:
                patch.setattr(Eye, "tells_exposure_end", tells)
                reservoir(phase, category="probe")  # noqa: B023 - called here

            found = by_turns(
                bench,
                {
                    "overlapped": lambda: expose(tells=True),
                    "stepped": lambda: expose(tells=False),
                    **peers,
                },
            )
        cycle_s = found["overlapped"]
        ratios.append(
            (
                times.ideal_s / cycle_s,
                *(found[each] / cycle_s for each in ("stepped", "slmsuite", "bluesky")),
            )
        )
        told = " / ".join(
            f"{1000 * part:g}"
            for part in (
                times.write_s,
                times.settle_s,
                times.exposure_s,
                times.readout_s,
            )
        )
        rows.append(f"| {told} | " + " | ".join(f"{x:.2f}" for x in ratios[-1]) + " |")
    section(
        "cycle-time",
        "How near the cycle is to its ideal",
        "Efficiency is the ideal, the greatest of settle + exposure, readout and "
        f"write, over the cycle that was measured; a batch of {SHOTS} patterns, "
        "encoded, decoded and recorded, with its last readout. Beside it, as multiples "
        "of that cycle, the same shots by a camera that does not tell when an exposure "
        "is over, by slmsuite's loop and by bluesky's `count`, which are handed levels "
        "and keep nothing. The least of three rounds, by turns.\n\n"
        "| write / settle / expose / read out, ms | efficiency | camera tells nothing "
        "| slmsuite | bluesky |\n|---|---|---|---|---|\n" + "\n".join(rows),
    )
    for efficiency, *multiples in ratios:
        assert efficiency >= LEAST_EFFICIENCY
        assert min(multiples) > 1
