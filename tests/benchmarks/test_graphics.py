"""How fast a graphics processor simulates the bench: ratios for the docs.

Every way takes turns in one process. ``make bench`` skips it where torch finds no CUDA
device; ``LABCTL_WRITE_TABLES=1`` writes the tables into
``docs/reference/simulated-bench-speed.md``.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ruamel.yaml import YAML
from torch import Tensor

from drivers.sim.camera import SimCamera
from drivers.sim.laser import SimLaser
from drivers.sim.sequence import SimSequence
from drivers.sim.slm import SimSLM
from drivers.sim.world import World
from labctl.optics import cuda
from labctl.optics.medium import SaturableKerr
from labctl.optics.propagation import Crossing, plan, propagate

Section = Callable[[str, str, str], None]
Way = Callable[[], object]

PAGE = "simulated-bench-speed"
BENCH = Path(__file__).parents[2] / "calibrations" / "sim" / "bench.yaml"
SIDES = (64, 128, 256, 512)
CHUNKS = (8, 32, 64, 256)
COUNT = 256
STEPS = 16
LONGEST = 64
GAIN_DN_PER_E = 4
ROUNDS = 9

pytestmark = [
    pytest.mark.bench,
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="torch finds no CUDA device here"
    ),
]


def timed(ways: Mapping[str, Way], rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds by the clock, the median of the rounds, in turns; two rounds before."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 2):
        for name, way in ways.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            way()
            torch.cuda.synchronize()
            if turn >= 2:
                spent[name].append(time.perf_counter() - start)
    return {name: float(np.median(each)) for name, each in spent.items()}


def case(side: int, count: int) -> tuple[Tensor, SaturableKerr]:
    """Beams behind random macropixels, and the medium of the other tables."""
    source = np.random.default_rng(11)
    phase = np.pi * source.random((count, 8, 8))
    phase = phase.repeat(side // 8, 1).repeat(side // 8, 2)
    at = 4 * np.linspace(-0.5, 0.5, side, endpoint=False)
    beam = np.exp(-(at[:, None] ** 2 + at[None] ** 2))
    pitch_m, wavenumber = 4e-3 / side, 2 * np.pi / 1.064e-6
    fresnel = 50e-3 / (wavenumber * pitch_m**2)
    fields = torch.from_numpy((beam * np.exp(1j * phase)).astype(np.complex64))
    return fields, SaturableKerr(b=3.0, saturation=1.0, fresnel=fresnel, steps=STEPS)


def there_and_back(fields: Tensor, crossing: Crossing) -> Tensor:
    """What the bench does: fields go there, what comes out comes back."""
    return propagate(fields.to("cuda"), crossing).cpu()


def without_a_graph(work: cuda.Work, _: Tensor) -> cuda.Work:
    """Launch every step of every chunk anew."""
    return work


@pytest.fixture
def still() -> Any:  # noqa: ANN401 - a generator fixture
    """One thread, no gradients."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("still")
def test_crossing(section: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, gains = [], {}
    for side in SIDES:
        fields, medium = case(side, COUNT)
        ready = plan(medium, (side, side), 1.0)
        moved = cuda.moved(ready, torch.device("cuda"))
        few = fields[: max(2, 256 * 64 * 64 // side**2 // 8)]
        ways: dict[str, Way] = {"torch": partial(propagate, few, ready)}
        ways["steps"] = partial(
            there_and_back,
            fields,
            cuda.Recorded(moved, (side, side), without_a_graph),
        )
        for chunk in CHUNKS:
            monkeypatch.setattr(cuda, "FIELDS", chunk)
            monkeypatch.setattr(cuda, "_POINTS", 2**40)
            recorded = cuda.Recorded(moved, (side, side), cuda.graph)
            ways[f"graph {chunk}"] = partial(there_and_back, fields, recorded)
        monkeypatch.undo()
        recorded = cuda.Recorded(moved, (side, side), cuda.graph)
        ways["graph"] = partial(there_and_back, fields, recorded)
        seen = there_and_back(few, recorded)
        exact = propagate(
            few.to(torch.complex128),
            plan(medium, (side, side), 1.0, dtype=torch.complex128),
        )
        error = float((seen - exact).abs().max() / exact.abs().max())
        seconds = timed(ways)
        one = seconds.pop("torch") / len(few)
        gains[side] = {name: one / (each / COUNT) for name, each in seconds.items()}
        cells = " | ".join(f"{each:.3g}" for each in gains[side].values())
        rows.append(f"| {side} x {side} | {1 / one:.0f} | {cells} | {error:.0e} |")
        assert error < 1e-3
    head = " | ".join(f"graphs of {chunk}" for chunk in CHUNKS)
    text = (
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}. Fields that cross "
        f"the medium of the tables above, {COUNT} at once, sent there and fetched "
        "back, by the clock: how many times as many as one thread of the processor "
        "beside it, with the torch kernel, in the same run. *No graph* launches each "
        "step anew; *as shipped* is the graph of the chunk that the bench takes. "
        f"Medians of {ROUNDS} rounds.\n\n"
        f"| grid | torch, fields per s | no graph | {head} | as shipped | error |\n"
        f"|---|---|{'---|' * (len(CHUNKS) + 3)}\n" + "\n".join(rows)
    )
    section(PAGE, "On a graphics processor: crossing", text)
    for side, each in gains.items():
        assert each["graph"] > 5, (side, each)


def lit(device: str, side: int, folder: Path) -> SimSequence:
    """The bench `sim`, open and lit, on a grid of some size."""
    file = YAML(typ="safe").load(BENCH.read_text(encoding="utf-8"))
    settings = file["reservoir"]
    options = file["world"]["options"] | {"device": device, "grid": [side, side]}
    options["macropixel_px"] = side // 16
    world = World(seed=1, beam=folder, **options)
    slm = SimSLM(world=world, clock=world.clock)
    camera = SimCamera(world=world, clock=world.clock)
    laser = SimLaser(beam=folder)
    for each in (laser, slm, camera):
        each.open()
    laser.set_power_mw(settings["power_mw"])
    laser.emission(on=True)
    region = [part * side // 64 for part in settings["region"]]
    camera.configure(exposure_s=settings["exposure_s"], region=tuple(region))
    return SimSequence(slm=slm, camera=camera, world=world)


def play(sequence: SimSequence, shown: NDArray[np.uint8]) -> NDArray[np.int64]:
    """As many patterns as the sequence takes, one sequence after the other."""
    most = min(LONGEST, sequence.longest)
    parts = [shown[at : at + most] for at in range(0, len(shown), most)]
    frames = [sequence.play(part, settle_s=0.06).frames for part in parts]
    return np.concatenate(frames).astype(np.int64)


@pytest.mark.usefixtures("still")
def test_whole_shots(
    section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, gains = [], {}
    for side, count in ((64, 256), (128, 128), (256, 64)):
        source = np.random.default_rng(8)
        levels = source.integers(0, 256, (count, 16, 16), dtype=np.uint8)
        shown = levels.repeat(side // 16, 1).repeat(side // 16, 2)
        ways: dict[str, Way] = {}
        taken = {}
        for name, fields in (
            ("cpu", 0),
            ("cuda 16", 16),
            ("cuda 32", 32),
            ("cuda 64", 64),
        ):
            monkeypatch.setattr(cuda, "FIELDS", fields)
            sequence = lit(name.split()[0], side, tmp_path / f"{name}-{side}")
            taken[name] = play(sequence, shown)
            ways[name] = partial(play, sequence, shown)
        # Noise is the same numbers: an electron more where rounding falls another way.
        apart = np.abs(taken["cuda 64"] - taken["cpu"])
        assert apart.max() <= GAIN_DN_PER_E
        seconds = timed(ways, 5)
        one = seconds.pop("cpu")
        gains[side] = {name: one / each for name, each in seconds.items()}
        cells = " | ".join(f"{each:.2g}" for each in gains[side].values())
        wrong = np.mean(apart > 0)
        rows.append(f"| {side} x {side} | {count / one:.0f} | {cells} | {wrong:.1e} |")
    text = (
        f"Shots of `sim`, played by the drivers {LONGEST} at a time (as a training "
        "does; fewer where a sequence takes fewer), everything on, by one thread, in "
        "the same run: how many times as many as the processor with its torch kernel. "
        "The number is the fields of a chunk. The liquid crystal and the noise are "
        "computed by the processor in all. *Counts that differ*: the share of camera "
        "pixels, by an electron, of frames taken with the same seed.\n\n"
        "| grid | cpu, shots per s | cuda 16 | cuda 32 | cuda 64 | counts that differ "
        "|\n|---|---|---|---|---|---|\n" + "\n".join(rows)
    )
    section(PAGE, "On a graphics processor: a whole shot", text)
    assert gains[256]["cuda 64"] > 2
