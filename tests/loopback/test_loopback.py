"""The whole chain without a photon: every frame is the one that its pattern makes.

What it should be is computed here once more, in another way, from what was asked for.
"""

import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import override

from labctl import bench, state, stop
from labctl.bench import Bench, RealClock
from labctl.calibrate import execute as calibration
from labctl.calibrate import settle
from labctl.calibration import CameraResponse, PanelMap, PhaseCurve, Settle
from labctl.devices import SLM
from labctl.errors import DeviceError, FrameError, SafetyError
from labctl.identity import REPEATABLE
from labctl.recording.reader import Record
from labctl.reservoir import Batch, Exposer, Ledger
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options

pytestmark = [pytest.mark.peer, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
SHAPE, MACROPIXELS, GRID = (600, 800), (12, 16), (48, 64)
REGION = (976, 960, 96, 128)
NEAR_DN = 1  # the room rounds after another order of sums
Image = NDArray[np.uint8]


class Room(Protocol):
    """The process in ``conftest.py``."""

    desktop: Any

    def ask(self, words: str) -> dict[str, Any]: ...


def expected(blocks: NDArray[Any], power_mw: float, exposure_s: float) -> Image:
    """Compute a frame from macropixels, with nothing of labctl."""
    phase = np.kron(blocks.reshape(MACROPIXELS), np.ones((4, 4))) * math.tau / 256
    y, x = (np.arange(side) - (side - 1) / 2 for side in GRID)
    radius = 0.6 * GRID[1] / 2
    beam = np.exp(-(y[:, None] ** 2 + x[None] ** 2) / radius**2)
    field = math.sqrt(power_mw / 50) * beam * np.exp(1j * phase)
    ky, kx = (math.tau * np.fft.fftfreq(side) for side in GRID)
    free = np.exp(-0.5j * (ky[:, None] ** 2 + kx[None] ** 2) * 0.1 * 4**2 / 8)
    for step in range(9):
        response = np.abs(field) ** 2
        share = (0.5 if step in {0, 8} else 1) / 8
        field = field * np.exp(2j * share * response / (1 + response))
        if step < 8:
            field = np.fft.ifft2(np.fft.fft2(field) * free)
    far = np.fft.fftshift(np.abs(np.fft.fft2(field, norm="ortho")) ** 2)
    counts = np.minimum(4 + 1e4 * exposure_s * far, 255).astype(np.uint8)
    sensor = np.full((2048, 2048), 4, np.uint8)
    sensor[928:1120, 896:1152] = counts.repeat(4, axis=0).repeat(4, axis=1)
    row, column, height, width = REGION
    return sensor[row : row + height, column : column + width]


def wrong(frames: NDArray[Any], wanted: list[Image]) -> int:
    """Count the frames that are not those wanted."""
    far = np.abs(frames.astype(int) - np.stack(wanted)).max(axis=(1, 2))
    return int((far > NEAR_DN).sum())


def patterns(count: int, seed: int) -> Image:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 192)).astype(np.uint8)


def panel(blocks: Image) -> Image:
    return np.kron(blocks.reshape(MACROPIXELS), np.ones((50, 50), np.uint8))


@pytest.fixture(autouse=True)
def as_it_was(room: Room) -> Iterator[None]:
    """Leave neither a pulled cable nor a latch to the next test."""
    yield
    room.ask("as it was")
    if state.latched("loopback") is not None:
        stop.clear(bench.load("loopback"), "a test is over")
    room.desktop.reset()


@pytest.fixture
def table(room: Room) -> Iterator[Bench]:
    """The loopback bench, open and dark."""
    room.desktop.reset()
    with bench.open(bench.load("loopback")) as opened:
        yield opened


def exposed(table: Bench, blocks: Image, exposure_s: float) -> NDArray[np.uint16]:
    """Show patterns and take their frames, as a run does."""
    taken = table.configure_camera(exposure_s=exposure_s, region=REGION)
    exposer = Exposer(table, Ledger(None), taken, settle_s=0.01)

    def accepted(batch: Batch) -> NDArray[np.uint16]:
        return batch.played.frames[batch.accepted]

    with exposer.booked("calibrate", len(blocks)):
        return exposer.expose(np.stack([*map(panel, blocks)]), "calibrate", accepted)


def test_each_frame_is_that_of_its_pattern_power_and_exposure(
    room: Room, table: Bench
) -> None:
    blocks = patterns(6, 1)
    dark = exposed(table, blocks[:1], 0.005)
    assert (dark == 4).all()
    for power_mw, exposure_s in ((50.0, 0.005), (20.0, 0.02)):
        with table.dark_after():
            table.light(power_mw)
            frames = exposed(table, blocks, exposure_s)
            measured_mw = table.laser.power_mw()
        wanted = [expected(each, measured_mw, exposure_s) for each in blocks]
        assert wrong(frames, wanted) == 0
        # What proves nothing: frames that hardly differ.
        assert wrong(frames, [*wanted[1:], wanted[0]]) == len(blocks)
    assert room.ask("state")["light"] is False
    assert (exposed(table, blocks[:1], 0.005) == 4).all()


def test_a_run_trains_and_every_recorded_frame_is_right(
    room: Room, tmp_path: Path
) -> None:
    out = tmp_path / "run.h5"
    room.desktop.reset()
    ran = execute(prepare("protocols/loopback.yaml", Options(out=out)), Silent())
    assert ran.as_json()["status"] == "complete"
    assert room.ask("state")["light"] is False
    with Record.open(out) as record:
        shots = record.table("shots") | record.table("shots_meta")
    # A busy computer loses packets: such a frame is told, and exposed again.
    quality = np.array([*map(str, shots["quality"])])
    assert set(quality) <= {"ok", *REPEATABLE}
    taken = np.flatnonzero(quality == "ok")
    assert len(taken) > 40
    wanted = [
        expected(shots["levels"][row], shots["power_mw"][row], 0.005) for row in taken
    ]
    assert wrong(shots["frames"][taken], wanted) == 0


@pytest.fixture
def home(room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the bench to calibrate, and a camera that counts photons."""
    room.desktop.reset()
    folder = tmp_path / "calibrations" / "loopback"
    shutil.copytree(ROOT / "calibrations" / "loopback", folder)
    monkeypatch.chdir(tmp_path)
    room.ask("noise")
    yield folder
    room.ask("no noise")


def calibrated(*kinds: str) -> dict[str, str]:
    """Calibrate the copy: how each kind ended."""
    asked = calibration.Options(kinds=kinds, bench="loopback")
    outcome = calibration.execute(calibration.prepare(asked), Silent())
    return {row.kind: f"{row.status} {row.why}".strip() for row in outcome.rows}


def test_a_calibration_passes_whose_physics_the_bench_has(
    room: Room, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, few in (("REFERENCES", 4), ("REPEATS", 2), ("FRESH", 3), ("SETTLED", 2)):
        monkeypatch.setattr(settle, name, few)
    monkeypatch.setattr(settle, "STEPS", settle.STEPS[:1])
    # The given curve holds, of a camera without noise: its gain is told here.
    known = (home / "camera-20261126T150000Z.yaml").read_text(encoding="utf-8")
    told = known.replace("gain_dn_per_e: 1.0", "gain_dn_per_e: 0.25")
    told = told.replace("read_noise_e: 0.0", "read_noise_e: 4.0")
    (home / "camera-20261126T150000Z.yaml").write_text(told, encoding="utf-8")
    ends = calibrated("laser-power", "settle", "crosstalk")
    assert ends.pop("laser-power") == "not measurable here the bench has no meter"
    assert ends.pop("crosstalk").startswith("not measurable here the room sees means")
    assert ends == {"settle": "passed"}
    found = bench.load(str(home / "bench.yaml")).records()["settle"].values
    # The frame buffer changes at once.
    assert found == Settle(kind="settle", settle_s=0.0)
    assert room.ask("state")["light"] is False


@pytest.mark.soak  # some quarter of an hour, as drift takes its time
def test_every_calibration_passes_whose_physics_the_bench_has(
    room: Room, home: Path
) -> None:
    ends = calibrated()
    lacking = {kind for kind, end in ends.items() if "not measurable here" in end}
    assert lacking == {"laser-power", "crosstalk"}
    assert {end for kind, end in ends.items() if kind not in lacking} == {"passed"}
    source = bench.load(str(home / "bench.yaml"))
    records = source.records()
    camera = records["camera"].values
    assert isinstance(camera, CameraResponse)
    assert camera.gain_dn_per_e == pytest.approx(0.25, rel=0.06)
    mapped = records["mapping"].values
    assert isinstance(mapped, PanelMap)
    # One cycle a panel pixel is 600 / 48 points of 4 pixels for each of 48, and so on.
    assert np.array(mapped.matrix_px) == pytest.approx(
        np.diag([2400.0, 3200.0]), abs=60
    )
    curve = records["slm-phase"].values
    assert isinstance(curve, PhaseCurve)
    gap = curve.curve(8, source.path.parent) - math.tau * np.arange(256) / 256
    assert float((gap - gap.mean()).std()) < 0.03
    assert room.ask("state")["light"] is False


class Running:
    """The camera as nobody should use it: running free, its buffers in a queue."""

    def __init__(self, library: ModuleType) -> None:
        self._aravis = library.Aravis
        self._camera = self._aravis.Camera.new("127.0.0.1")
        row, column, height, width = REGION
        self._camera.set_pixel_format_from_string("Mono8")
        self._camera.set_region(column, row, width, height)
        self._camera.set_exposure_time(5000)
        self._camera.clear_triggers()
        self._camera.set_frame_rate(20)
        self._stream = self._camera.create_stream(None, None)
        # Packets of a frame may come as late as they please.
        self._stream.set_property("frame-retention", 60_000_000)
        for _ in range(12):
            size = self._camera.get_payload()
            self._stream.push_buffer(self._aravis.Buffer.new_allocate(size))
        self._camera.start_acquisition()

    def next(self) -> Image:
        """The oldest buffer there is."""
        buffer = self._stream.timeout_pop_buffer(60_000_000)
        assert buffer.get_status() == self._aravis.BufferStatus.SUCCESS
        data = np.frombuffer(buffer.get_data(), np.uint8, REGION[2] * REGION[3])
        frame = data.reshape(REGION[2:]).copy()
        self._stream.push_buffer(buffer)
        return frame

    def drain(self) -> None:
        """Empty the queue."""
        while (buffer := self._stream.try_pop_buffer()) is not None:
            self._stream.push_buffer(buffer)

    def wait_for(self, count: int) -> None:
        """Return once so many are in the queue."""
        while self._stream.get_n_buffers()[1] < count:
            time.sleep(0.01)  # others' threads fill it

    def stop(self) -> None:
        self._camera.stop_acquisition()
        self._stream = self._camera = None


@pytest.fixture
def running(
    room: Room, need_module: Callable[..., ModuleType]
) -> Iterator[tuple[SLM, Running]]:
    """A lit panel, and a camera that runs free."""
    room.desktop.reset()
    file = bench.load("loopback").file
    slm = need_module("drivers.screen").ScreenSLM(
        **file.devices.slm.options, clock=RealClock()
    )
    port = file.devices.laser.options["address"]
    laser = need_module("drivers.laser.cobolt").cobolt(
        address=port, wavelength_nm=561, name="laser"
    )
    with slm, laser:
        laser.set_power_mw(50)
        laser.emission(True)
        camera = Running(need_module("drivers.camera.aravis"))
        yield slm, camera
        camera.stop()


def test_the_chain_fails_who_takes_the_next_buffer_of_a_queue(
    running: tuple[SLM, Running],
) -> None:
    slm, camera = running
    blocks = patterns(8, 2)
    frames = []
    camera.wait_for(3)
    for each in blocks:
        slm.write(panel(each))
        camera.wait_for(3)  # two of them were there before, so that the next is old
        frames.append(camera.next())
    wanted = [expected(each, 50, 0.005) for each in blocks]
    assert wrong(np.stack(frames), wanted) == len(blocks)


def test_the_chain_fails_who_drains_and_takes_the_frame_in_flight(
    room: Room, running: tuple[SLM, Running]
) -> None:
    slm, camera = running
    blocks = patterns(8, 3)
    frames = []
    for each in blocks:
        assert room.ask("hold")["held"]  # exposed, and not here yet
        slm.write(panel(each))
        camera.drain()
        room.ask("let go")
        frames.append(camera.next())
    wanted = [expected(each, 50, 0.005) for each in blocks]
    assert wrong(np.stack(frames), wanted) == len(blocks)
    assert wrong(np.stack(frames[1:]), wanted[:-1]) == 0  # of the pattern before


def bound_s(idle_s: float) -> float:
    """How long something may take; how quick an idle computer is, a soak asks."""
    return idle_s if os.environ.get("LABCTL_SOAK") == "1" else 120


@contextmanager
def ends_dark(room: Room, idle_s: float) -> Iterator[None]:
    """What fails inside is over soon, and leaves no light."""
    start_s = time.monotonic()
    yield
    assert time.monotonic() - start_s < bound_s(idle_s)
    assert room.ask("state")["light"] is False


class Fault(threading.Thread):
    """Takes a part away once so many frames of a burst were made."""

    def __init__(self, room: Room, fault: Callable[[], object]) -> None:
        super().__init__()
        self._room, self._fault = room, fault
        self._begun = room.ask("state")["frames"]
        self._is_over = threading.Event()
        self.frames: int | None = None

    @override
    def run(self) -> None:
        while not self._is_over.wait(0.02):  # the burst is others' threads
            if self._room.ask("state")["frames"] >= self._begun + 3:
                self._fault()
                self.frames = self._room.ask("state")["frames"]
                return

    def end(self) -> int:
        """Return how many frames there were when the part was away."""
        self._is_over.set()
        self.join()
        assert self.frames is not None, "the burst ended before the fault"
        return self.frames


def lit_until_it_fails(room: Room, fault: Callable[[], object]) -> None:
    """A burst on a bench that loses a part in the middle of it."""
    room.desktop.reset()
    with bench.open(bench.load("loopback")) as table, table.dark_after():
        table.light(50)
        assert room.ask("state")["light"] is True
        # The burst is endless: the fault comes at any moment of a shot.
        later = Fault(room, fault)
        later.start()
        try:
            while True:
                exposed(table, patterns(20, 4), 0.005)
        finally:
            before = later.end()
            # That which was under way, and none after it.
            assert room.ask("state")["frames"] <= before + 1


def test_a_monitor_that_goes_off_ends_the_burst_dark(room: Room) -> None:
    off = partial(room.desktop.set, "--output", "DUMMY1", "--off")
    with ends_dark(room, 10), pytest.raises(DeviceError, match="DUMMY1 is gone"):
        lit_until_it_fails(room, off)


def test_the_frame_of_a_monitor_that_goes_off_meanwhile_is_not_let_in(
    room: Room, table: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the last one: no write after it would find out."""
    taken = table.configure_camera(exposure_s=0.005, region=REGION)
    ledger = Ledger(None)
    exposer = Exposer(table, ledger, taken, settle_s=0.01)
    frame, seen = table.camera.frame, list[list[str]]()

    def late(timeout_s: float) -> object:
        came = frame(timeout_s)
        room.desktop.set("--output", "DUMMY1", "--off")
        return came

    monkeypatch.setattr(table.camera, "frame", late)
    with (
        ends_dark(room, 10),
        table.dark_after(),
        exposer.booked("calibrate", 1),
        pytest.raises(DeviceError, match="check: the monitor DUMMY1 is gone"),
    ):
        table.light(50)
        panels = np.stack([*map(panel, patterns(1, 8))])
        exposer.expose(
            panels, "calibrate", lambda batch: seen.append(batch.quality.tolist())
        )
    assert seen == [["removed"]]
    assert (ledger.total, ledger.refunded) == (1, 1)


def test_a_camera_that_is_removed_ends_the_burst_dark_and_comes_back(
    room: Room,
) -> None:
    with ends_dark(room, 20), pytest.raises(DeviceError) as caught:
        lit_until_it_fails(room, partial(room.ask, "unplug camera"))
    assert caught.value.device == "camera"
    room.ask("plug camera")  # with the settings of the factory: all are sent again
    with bench.open(bench.load("loopback")) as table:
        assert (exposed(table, patterns(1, 5), 0.005) == 4).all()


def test_a_camera_that_restarted_is_not_used_with_settings_of_the_factory(
    room: Room, table: Bench
) -> None:
    exposed(table, patterns(1, 7), 0.005)
    room.ask("unplug camera")
    room.ask("plug camera")
    with pytest.raises(DeviceError, match=r"away and forgot|no longer there"):
        table.camera.arm(1)
    end_s = time.monotonic() + 60
    with pytest.raises(FrameError, match="no longer there"):
        while time.monotonic() < end_s:
            table.camera.settings()
            time.sleep(0.1)  # the library looks once a second


def test_a_run_whose_guard_is_killed_notices_it_and_ends_dark(
    room: Room, typed: Callable[..., BaseProcess], tmp_path: Path
) -> None:
    """The laser has no watchdog: the run itself takes the port and makes it dark."""
    room.desktop.reset()
    begun, out = room.ask("state")["frames"], tmp_path / "run.h5"
    words = ("run", str(ROOT / "protocols/loopback.yaml"), "--out", str(out))
    run = typed(tmp_path, *words)
    try:
        while not (now := room.ask("state"))["light"] or now["frames"] < begun + 5:
            assert run.is_alive()
            time.sleep(0.02)  # another process trains
        (guard,) = state.guards("loopback")
        os.kill(guard.pid, signal.SIGKILL)
        run.join(bound_s(60))
    finally:
        run.kill()
        run.join()
    said = (tmp_path / "err.txt").read_text(encoding="utf-8")
    assert run.exitcode == 3, said
    assert "the guard ended (exit code -9)" in said
    assert "A new guard made the laser dark" in said
    assert room.ask("state")["light"] is False
    # No latch: nothing is wrong with the bench. Nobody is left at it either.
    assert state.latched("loopback") is None
    assert state.guards("loopback") == {}
    with Record.open(out) as record:
        assert record.status == "failed"
        assert record.lengths["shots"] > 0
    with bench.open(bench.load("loopback")) as table:
        assert not table.laser.is_emitting()


def test_a_laser_that_cannot_be_asked_counts_as_lit_and_latches(room: Room) -> None:
    room.desktop.reset()
    start_s = time.monotonic()
    with (
        pytest.raises(SafetyError) as caught,
        bench.open(bench.load("loopback")) as table,
        table.dark_after(),
    ):
        table.light(50)
        assert room.ask("state")["light"] is True
        room.ask("unplug laser")
        while True:
            table.laser.power_mw()
    assert time.monotonic() - start_s < bound_s(20)
    assert "by hand" in str(caught.value)
    assert state.latched("loopback") is not None
    assert room.ask("state")["light"] is True  # as labctl feared
    room.ask("plug laser")
    stop.clear(bench.load("loopback"), "its cable is in again")
    with bench.open(bench.load("loopback")):
        assert room.ask("state")["light"] is False
