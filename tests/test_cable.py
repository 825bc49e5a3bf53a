"""A bench file that declares a cable, from the file to the frames.

The panel is slmsuite's simulated one, the camera pylon's emulator, the laser others'.
What carries the edge between panel and camera stands in for copper: nobody has a peer
for that. It waits as the camera was told to, and has the emulator expose what the panel
shows then.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from labctl import bench, inventory
from labctl.bench import Bench
from labctl.errors import DeviceError, FrameError
from labctl.reservoir import Batch, Exposer, Ledger
from labctl.wired import WiredSequence
from tests.conftest import Bridge

pytestmark = pytest.mark.peer
FILE = """
schema_version: 1
name: cable
devices:
  laser:
    driver: cobolt.laser
    options: {{address: {port}, wavelength_nm: 561, timeout_s: 2.0}}
  slm:
    driver: slmsuite.slm
    options:
      panel: simulated.SimulatedSLM
      arguments: {{resolution: [32, 24]}}
      shape: [24, 32]
      pitch_um: 8
      settle_s: 0.009
      gives_edges: true
  camera:
    driver: basler.camera
    options:
      shape: [4096, 4096]
      pixel_um: 3.45
      pixel_format: Mono8
      tells_exposure_end: true
wiring: {{exposure: {{source: slm, line: Line1, edge: falling}}}}
limits: {{power_mw: 50, exposure_s: 0.01, heartbeat_s: 5, frame_s: 30}}
reservoir:
  macropixels: [6, 8]
  region: [0, 0, 60, 90]
  bins: [2, 3]
  exposure_s: 0.001
  power_mw: 20
"""
SHOWN = np.array([0, 1, 1, 0, 1, 0, 0, 0, 1, 1], dtype=np.uint8)
GREY = 96  # of the emulator without a picture


class Cable:
    """Carries the panel's edges to the camera."""

    def __init__(self) -> None:
        self.vendor: Any = None  # pylon's camera
        self.refusal: type[Exception] = Exception  # pylon's own
        self.edges = 0
        self.lost: set[int] = set()
        self.more: set[int] = set()  # before these comes one of nobody
        self.sources: list[str] = []
        self.delays_us: list[float] = []
        self._late: list[threading.Timer] = []

    def give(self, level: int) -> None:
        """Let an edge come, of a pattern that is on the panel."""
        vendor = self.vendor
        if vendor is None or vendor.TriggerSource.Value == "Software":
            return
        self.edges += 1
        self.sources.append(
            f"{vendor.TriggerSource.Value} {vendor.TriggerActivation.Value}"
        )
        self.delays_us.append(vendor.TriggerDelay.Value)
        picture = "Testimage1" if level else "Off"
        if self.edges in self.more:
            self._expose(picture)
        if self.edges not in self.lost:
            # The emulator exposes in no time: that passes before, too.
            after_us = self.delays_us[-1] + vendor.ExposureTime.Value
            later = threading.Timer(1e-6 * after_us, self._expose, args=[picture])
            self._late.append(later)
            later.start()

    def _expose(self, picture: str) -> None:
        """Let the camera see an edge; one that does not wait for it takes no notice."""
        vendor = self.vendor
        try:
            if self._waited_for():
                vendor.WaitForFrameTriggerReady(2000)
                vendor.TestImageSelector.Value = picture
                vendor.ExecuteSoftwareTrigger()
        except self.refusal:
            if self._waited_for():
                raise

    def _waited_for(self) -> bool:
        vendor = self.vendor
        return bool(vendor.IsGrabbing()) and vendor.TriggerSource.Value != "Software"

    def clear(self) -> None:
        self.edges = 0
        self.sources.clear()
        self.delays_us.clear()

    def end(self) -> None:
        for each in self._late:
            each.join()


@pytest.fixture
def cable(
    need_module: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cable]:
    """A panel with an output, and what is plugged into it."""
    for peer in ("pypylon.pylon", "drivers.slmsuite", "drivers.camera.basler"):
        need_module(peer)
    panel = need_module("slmsuite.hardware.slms.simulated").SimulatedSLM
    made, show = Cable(), panel.set_phase
    made.refusal = need_module("pypylon.genicam").GenericException

    def shown(slm: Any, levels: NDArray[np.uint8], **options: Any) -> Any:  # noqa: ANN401 - slmsuite's
        sent = show(slm, levels, **options)
        if levels is not None:  # slmsuite's own first picture
            made.give(int(levels[0, 0]))
        return sent

    monkeypatch.setattr(panel, "set_output_trigger", lambda *_: None)
    monkeypatch.setattr(panel, "set_phase", shown)
    yield made
    made.end()


@pytest.fixture
def source(
    bridge: Callable[[str], Bridge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> bench.BenchSource:
    monkeypatch.chdir(tmp_path)
    port = bridge("CoboltLaserMock").port
    path = tmp_path / "calibrations/cable/bench.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(FILE.format(port=port), encoding="utf-8")
    return bench.load("cable")


@pytest.fixture
def table(source: bench.BenchSource, cable: Cable) -> Iterator[Bench]:
    with bench.open(source, allow_uncalibrated=True) as opened:
        cable.vendor = opened.camera.driver._sensor._camera  # type: ignore[attr-defined]
        yield opened
        cable.end()
        cable.vendor = None  # unplugged, before the panel is flat and the camera away


def exposed(table: Bench) -> tuple[NDArray[np.uint16], list[Batch]]:
    taken = table.configure_camera(exposure_s=0.001, region=(0, 0, 60, 90))
    exposer = Exposer(table, Ledger(None), taken, table.slm.settle_s)
    batches: list[Batch] = []

    def accepted(batch: Batch) -> NDArray[np.uint16]:
        batches.append(batch)
        return batch.played.frames[batch.accepted]

    panel = np.zeros((len(SHOWN), 24, 32), dtype=np.uint8)
    panel[:, 0, 0] = SHOWN
    with exposer.booked("calibrate", len(panel)), table.dark_after():
        table.light(20)
        return exposer.expose(panel, "calibrate", accepted), batches


def pictures(frames: NDArray[np.uint16]) -> list[int]:
    return [int((frame != GREY).any()) for frame in frames]


def test_a_batch_is_played_by_the_edges_of_the_cable_that_the_file_declares(
    table: Bench, cable: Cable
) -> None:
    assert isinstance(table.sequence, WiredSequence)
    for _ in range(50):  # a write that lasts longer than the settling proves nothing
        cable.clear()
        frames, batches = exposed(table)
        if len(batches) == 1:
            break
        assert set(batches[0].quality) == {"stale"}
    (batch,) = batches
    assert pictures(frames) == SHOWN.tolist()
    assert set(batch.quality) == {"ok"}
    assert cable.edges == len(SHOWN)
    assert set(cable.sources) == {"Line1 FallingEdge"}
    assert set(cable.delays_us) == {9000}
    played = batch.played
    assert (played.exposure_start_s >= played.written_s + 0.009).all()
    assert (played.exposure_end_s[:-1] <= played.written_s[1:]).all()


def test_a_cable_that_comes_loose_ends_it_and_names_the_line(
    table: Bench, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    cable.lost = {4}
    monkeypatch.setattr(table.sequence, "_patience_s", 0.3)
    with pytest.raises(FrameError, match="after pattern 4: no edge came on Line1"):
        exposed(table)
    assert not table.laser.is_emitting()


def test_a_batch_with_an_edge_of_nobody_is_refused_and_stepped_by_software(
    table: Bench, cable: Cable
) -> None:
    cable.more = {3}
    frames, batches = exposed(table)
    assert len(batches) == 2
    assert "ok" not in batches[0].quality
    assert set(batches[1].quality) == {"ok"}
    assert len(frames) == len(SHOWN)


def test_the_roll_call_looks_at_the_cable(
    source: bench.BenchSource, cable: Cable
) -> None:
    assert cable.vendor is None
    said = inventory.call(source)
    said.raise_failures()
    (wire,) = [each for each in said.answers if each.role == "wiring"]
    assert (wire.driver, wire.error) == ("slm to Line1", "")
    assert "takes falling ones and waits up to 0.01 s" in wire.health
    text = source.path.read_text(encoding="utf-8")
    source.path.write_text(text.replace("line: Line1", "line: Line7"), "utf-8")
    said = inventory.call(bench.load("cable"))
    with pytest.raises(DeviceError, match="wiring: no good answer"):
        said.raise_failures()
    assert "line=Line7, expected one of Line1, Line2, Line3" in said.text()
