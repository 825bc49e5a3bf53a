"""How fast a surrogate is fitted, and rehearsed on: ratios for the docs.

Every way takes turns in one process. ``make bench`` skips the graphics card where torch
finds no CUDA device; ``LABCTL_WRITE_TABLES=1`` writes the tables into
``docs/reference/fit-speed.md``.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final, Literal

import numpy as np
import pytest
import torch
from torch import Generator

from labctl import bench
from labctl.run import model
from labctl.training.contestant.twin import TwinDevice
from labctl.training.network import DeviceSpec, Ends, LinearSpec, build
from labctl.training.readout import Task
from labctl.training.rehearsal import Rates, Rehearsal, Rehearsing
from labctl.training.surrogate.build import build as build_surrogate
from labctl.training.surrogate.fit import Fitter
from labctl.training.surrogate.model import Twin
from labctl.training.surrogate.settings import SurrogateSettings

Section = Callable[[str, str, str], None]
# Does so many steps.
Way = Callable[[int], object]
Steps = Callable[["Case"], Way]

PAGE: Final = "fit-speed"
BENCH: Final = "sim-small"
ROUNDS: Final = 5
ROUND_S: Final = 0.1
"""What a way should take in a round, at least, if one step does not take longer."""
SHOTS: Final = 2000
FEATURES, CLASSES = 64, 10
WAYS: Final[dict[str, tuple[Literal["cpu", "cuda"], int]]] = {
    "one": ("cpu", 1),
    "two": ("cpu", 2),
    "cuda": ("cuda", 1),
}
OPTICS = SurrogateSettings("twin-optics", optics="learned")
CASES: Final = {
    "twin-pairs": SurrogateSettings("twin-pairs"),
    "twin-fields": SurrogateSettings("twin-fields"),
    "twin-optics, 2 points": replace(OPTICS, points=2),
    "twin-optics, 4 points": replace(OPTICS, points=4),
}

COMPILED: Final = {
    "twin-optics, 2 points": ((64, 256), replace(OPTICS, points=2)),
    "twin-optics, 4 points": ((64,), replace(OPTICS, points=4)),
}

pytestmark = pytest.mark.bench
no_card = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no CUDA device here"
)


class Case:
    """A surrogate of the bench on a device, with shots to learn from.

    Parameters
    ----------
    settings
        Which; its device too.
    """

    def __init__(self, settings: SurrogateSettings) -> None:
        file, draw = bench.load(BENCH).file, Generator().manual_seed(0)
        ports = model.ports(file, file.reservoir, settings)
        self.settings, self.layout = settings, file.reservoir.macropixels
        self.fitter = Fitter(build_surrogate(settings, ports, draw), settings, draw)
        phase = 6 * torch.rand(SHOTS, ports.pixels, generator=draw)
        y = 200 + 30 * torch.randn(SHOTS, ports.outputs, generator=draw)
        self.fitter.observe_values(phase, y)


def fits(case: Case) -> Way:
    return case.fitter.step


def rehearsals(case: Case) -> Way:
    twin, draw = case.fitter.answering, Generator().manual_seed(1)
    assert isinstance(twin, Twin)
    network = build(
        [DeviceSpec(), LinearSpec()],
        Ends(FEATURES, CLASSES),
        device=TwinDevice(twin, case.layout),
        generator=draw,
    )
    x = torch.rand(SHOTS, FEATURES, generator=draw)
    target = torch.randint(CLASSES, (SHOTS,), generator=draw)
    noise = torch.full((twin.outputs,), 100.0)

    def rehearse(count: int) -> object:
        task = Task("classification", CLASSES)
        rehearsal = Rehearsal(Rehearsing(count), twin, network, task, draw)
        batch = case.settings.fit_batch
        rates = Rates(theta=0.01, digital=0.01)
        return rehearsal.rehearse(x, target, noise=noise, batch=batch, rates=rates)

    return rehearse


def timed(
    ways: Mapping[str, Way], clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Milliseconds a step of each round, in turns; two rounds before."""
    steps = dict.fromkeys(ways, 1)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 2):
        for name, way in ways.items():
            torch.set_num_threads(WAYS[name][1] if name in WAYS else 1)
            begun = clock()
            way(steps[name])
            took_s = clock() - begun
            if turn == 1:
                steps[name] = max(1, round(ROUND_S / took_s))
            if turn >= 2:
                spent[name].append(1e3 * took_s / steps[name])
    return spent


@pytest.fixture
def still() -> Iterator[None]:
    """Leave the number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def measured(heading: str, steps: Steps, section: Section) -> dict[str, float]:
    rows, gains = [], {}
    for name, settings in CASES.items():
        for batch in (64, 256):
            ways = {
                way: steps(Case(replace(settings, device=device, fit_batch=batch)))
                for way, (device, _) in WAYS.items()
            }
            spent = {way: np.array(each) for way, each in timed(ways).items()}
            one = spent["one"]
            cells = [f"{np.median(one):.2f} ({one.min():.2f} to {one.max():.2f})"]
            for way in ("two", "cuda"):
                gain = one / spent[way]
                lowest, highest = gain.min(), gain.max()
                told = f"{np.median(gain):.2g} ({lowest:.2g} to {highest:.2g})"
                cells.append(told)
            cells.append(f"{np.median(spent['cuda']):.2f}")
            gains[f"{name}, {batch}"] = float(np.median(one / spent["cuda"]))
            rows.append(f"| {name} | {batch} | {' | '.join(cells)} |")
    card = torch.cuda.get_device_name()
    text = (
        f"{card}, torch {torch.__version__}, one process, ways in turns: medians of "
        f"{ROUNDS} rounds, with the least and the greatest.\n\n"
        "| surrogate | batch | one thread, ms | two threads, times as fast | card, "
        "times as fast | card, ms |\n|---|---|---|---|---|---|\n" + "\n".join(rows)
    )
    section(PAGE, heading, text)
    return gains


@pytest.mark.gpu
@no_card
@pytest.mark.usefixtures("still")
def test_a_fit_step(section: Section) -> None:
    gains = measured("A fit step", fits, section)
    assert gains["twin-optics, 4 points, 256"] > 2


@pytest.mark.gpu
@no_card
@pytest.mark.usefixtures("still")
def test_a_step_of_a_rehearsal(section: Section) -> None:
    gains = measured("A step of a rehearsal", rehearsals, section)
    assert gains["twin-optics, 4 points, 256"] > 2


@pytest.mark.usefixtures("still", "compiled")
def test_the_compiled_kernel(section: Section) -> None:
    rows, gains = [], []
    works: dict[str, Steps] = {"fit": fits, "rehearsal": rehearsals}
    for work, steps in works.items():
        for name, (batches, settings) in COMPILED.items():
            for batch in batches:
                ways = {
                    kernel: steps(
                        Case(replace(settings, kernel=kernel, fit_batch=batch))
                    )
                    for kernel in ("torch", "fused")
                }
                spent = timed(ways, time.process_time)
                torchs, own = (np.array(each) for each in spent.values())
                gain = torchs / own
                rows.append(
                    f"| {work} | {name} | {batch} | {np.median(torchs):.1f} | "
                    f"{np.median(own):.1f} | {np.median(gain):.2g} "
                    f"({gain.min():.2g} to {gain.max():.2g}) |"
                )
                gains.append(float(np.median(gain)))
    text = (
        f"{ROUNDS} rounds on one thread, torch {torch.__version__}, kernels in turns, "
        "processor time: medians, with the least and the greatest.\n\n"
        "| step of a | surrogate | batch | torch, ms | fused, ms | times as fast |\n"
        "|---|---|---|---|---|---|\n" + "\n".join(rows)
    )
    section(PAGE, "The compiled kernel", text)
    assert min(gains) > 1.2
