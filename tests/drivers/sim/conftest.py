"""A simulated bench in one process, lit, for the tests of its parts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from drivers.sim.camera import SimCamera
from drivers.sim.laser import SimLaser
from drivers.sim.meter import SimMeter
from drivers.sim.oracle import SimOracle
from drivers.sim.sequence import SimSequence
from drivers.sim.slm import SimSLM
from drivers.sim.world import World

# Small, not square, everything on; the world takes a tenth of sim's time.
SMALL: dict[str, Any] = {
    "grid": [16, 24],
    "macropixel_px": 2,
    "medium": {"steps": 8, "screens": 4},
    "sensor": {"photons_per_s": 5e6},
}


@dataclass
class Lit:
    """Open devices that share a world."""

    world: World
    laser: SimLaser
    slm: SimSLM
    camera: SimCamera
    meter: SimMeter
    sequence: SimSequence
    oracle: SimOracle

    def step(
        self, pattern: NDArray[np.uint8], settle_s: float
    ) -> tuple[NDArray[np.uint16], tuple[float, ...]]:
        """One pattern by software, and everything that came with its frame."""
        written = self.slm.write(pattern)
        self.world.clock.sleep(settle_s)
        self.camera.trigger()
        frame = self.camera.frame(1.0)
        numbers = (
            written.pattern_id,
            written.checksum,
            written.written_s,
            frame.frame_id,
            frame.trigger,
            frame.device_time_s,
            frame.host_time_s,
            frame.exposure_start_s,
            frame.exposure_end_s,
            self.meter.reading().value,
        )
        return frame.data, numbers


Build = Callable[..., Lit]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """Make a lit bench; keywords replace those of the small one."""
    made: list[Lit] = []

    def start(seed: int = 7, power_mw: float = 5.0, **parts: object) -> Lit:
        beam = tmp_path / f"beam-{len(made)}"
        world = World(seed=seed, beam=beam, **(SMALL | parts))
        clock = world.clock
        laser = SimLaser(beam=beam)
        slm = SimSLM(world=world, clock=clock)
        camera = SimCamera(world=world, clock=clock)
        meter = SimMeter(world=world, clock=clock)
        for device in (laser, slm, camera, meter):
            device.open()
        laser.set_power_mw(power_mw)
        laser.emission(on=True)
        lit = Lit(
            world,
            laser,
            slm,
            camera,
            meter,
            SimSequence(slm=slm, camera=camera, world=world),
            SimOracle(world=world, slm=slm, camera=camera),
        )
        made.append(lit)
        return lit

    yield start
    for lit in made:
        lit.laser.close()
        lit.world.close()


@pytest.fixture
def patterns() -> Callable[..., NDArray[np.uint8]]:
    """Random patterns of macropixels for a bench."""

    def make(lit: Lit, count: int, seed: int = 1) -> NDArray[np.uint8]:
        side = lit.world.options.macropixel_px
        rows, columns = lit.world.shape
        source = np.random.default_rng(seed)
        blocks = source.integers(0, 256, (count, rows // side, columns // side))
        return blocks.astype(np.uint8).repeat(side, 1).repeat(side, 2)

    return make
