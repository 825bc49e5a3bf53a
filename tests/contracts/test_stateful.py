"""Whatever keeps state goes on from a checkpoint as if nothing had happened.

To put a part in, add a line to ``PARTS``: a function that makes it, always the same,
as a context manager of an object with four methods

``step()``
    do something that depends on everything before, and return numbers of it;
``state()``
    give the state, in the forms that a checkpoint keeps;
``restore(state)``
    take it up, in an object that was just made.

The part then has to go on the same from a checkpoint after any step, from bytes, in
a new object and in a new process; its state must not change with it afterwards.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest
import torch
from torch import Generator, Tensor
from typing_extensions import override

from labctl import bench as benches
from labctl.recording.checkpoint import pack, unpack
from labctl.reservoir import Ledger, Reservoir
from labctl.training import drift
from labctl.training.blackbox import Device, Exposure, Response
from labctl.training.contestant import twin
from labctl.training.contestant.build import SEARCHES, Method, MethodName
from labctl.training.contestant.dfa import DirectFeedback
from labctl.training.contestant.forward_gradient import forward_gradient
from labctl.training.contestant.search import Search
from labctl.training.contestant.twin import Pretraining
from labctl.training.drift import Steady, Watch
from labctl.training.estimator import (
    ControlVariate,
    Correction,
    Cosine,
    Estimator,
    Gate,
    Given,
    Trust,
    Ways,
)
from labctl.training.evidence import Evidence, Probing
from labctl.training.journal import Silent
from labctl.training.network import (
    DeviceSpec,
    Ends,
    LinearSpec,
    Network,
    Recurrence,
    StandardiseSpec,
)
from labctl.training.network import build as build_network
from labctl.training.readout import Task
from labctl.training.rehearsal import Rehearsal, Rehearsing
from labctl.training.surrogate.build import build
from labctl.training.surrogate.fit import Fitter
from labctl.training.surrogate.model import Twin
from labctl.training.surrogate.replay import Ring
from labctl.training.surrogate.settings import (
    FitTerm,
    OpticalLayout,
    Ports,
    SurrogateSettings,
)
from labctl.training.trainer import Optimisation, Parts, Samples, Settings, Trainer

STEPS = 6
XOR = Task("classification", 2)


class Stateful(Protocol):
    """A part as the contract sees it."""

    def step(self) -> list[float]: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


@dataclass
class Searching:
    """A contestant on a bowl; theta belongs to the network and is kept beside it."""

    search: Search
    theta: Tensor = field(
        default_factory=lambda: torch.linspace(-1, 1, 7, dtype=torch.float64)
    )

    def step(self) -> list[float]:
        candidates = self.search.ask(self.theta)
        losses = (candidates - 0.3).square().sum(dim=1)
        self.theta = self.search.tell(self.theta, candidates, losses)
        self.search.done += 1
        return [float(value) for value in self.theta]

    def state(self) -> dict[str, Any]:
        return {"search": self.search.state_dict(), "theta": self.theta.clone()}

    def restore(self, state: dict[str, Any]) -> None:
        self.search.load_state_dict(state["search"])
        self.theta = state["theta"]


def exposures(number: int) -> dict[str, Tensor]:
    """What a device would have answered at a step."""
    draw = Generator().manual_seed(number)
    return {
        "phase": torch.randn(9, 6, generator=draw),
        "y": 100 + torch.randn(9, 4, generator=draw),
        "d_alpha": torch.randn(9, 3, 6, generator=draw),
        "d_f": torch.randn(9, 3, 4, generator=draw),
        "cotangent": torch.randn(9, 4, generator=draw),
    }


@dataclass
class Fitting:
    """A surrogate with its optimiser and its replay."""

    fitter: Fitter
    number: int = 0

    def step(self) -> list[float]:
        seen = exposures(self.number)
        self.number += 1
        self.fitter.observe_values(seen["phase"], seen["y"])
        self.fitter.observe_probes(seen["phase"], seen["d_alpha"], seen["d_f"])
        self.fitter.observe_cotangents(seen["cotangent"])
        loss = self.fitter.step(3)
        answer = self.fitter.answering.vjp(seen["cotangent"], seen["phase"])
        return [loss, *map(float, answer.detach().flatten())]

    def state(self) -> dict[str, Any]:
        return {"fitter": self.fitter.state_dict(), "number": self.number}

    def restore(self, state: dict[str, Any]) -> None:
        self.fitter.load_state_dict(state["fitter"])
        self.number = state["number"]


@dataclass
class Replaying:
    """A ring that overflows, and the generator that draws from it."""

    ring: Ring
    draw: Generator
    number: int = 0

    def step(self) -> list[float]:
        self.ring.append(exposures(self.number)["phase"])
        self.number += 1
        (rows,) = self.ring.draw(5, self.draw, recency=0.5)
        return [float(value) for value in rows.flatten()]

    def state(self) -> dict[str, Any]:
        generator = self.draw.get_state()
        return {
            "ring": self.ring.state_dict(),
            "draw": generator,
            "number": self.number,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.ring.load_state_dict(state["ring"])
        self.draw.set_state(state["draw"])
        self.number = state["number"]


@dataclass
class Spending:
    """A ledger with a budget, rejected frames, and tests outside the budget."""

    ledger: Ledger

    def step(self) -> list[float]:
        self.ledger.book("train", 7)
        self.ledger.refund(2)
        with self.ledger.outside_budget():
            self.ledger.book("evaluate", 3)
            self.ledger.refund(1)
        left = self.ledger.left
        return [self.ledger.spent, self.ledger.total, -1 if left is None else left]

    def state(self) -> dict[str, Any]:
        return self.ledger.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        self.ledger.load_state_dict(state)


@dataclass
class Optimising:
    """A digital layer, its optimiser, and the order of its samples."""

    layer: torch.nn.Linear
    adam: torch.optim.AdamW
    order: Generator

    def step(self) -> list[float]:
        x = exposures(0)["phase"][torch.randperm(9, generator=self.order)[:4]]
        self.adam.zero_grad()
        torch.autograd.backward(self.layer(x).square().mean())
        self.adam.step()
        return [float(value) for value in self.layer.weight.detach().flatten()]

    def state(self) -> dict[str, Any]:
        return unpack(
            pack(
                {
                    "layer": dict(self.layer.state_dict()),
                    "adam": self.adam.state_dict(),
                    "order": self.order.get_state(),
                }
            )
        )

    def restore(self, state: dict[str, Any]) -> None:
        self.layer.load_state_dict(state["layer"])
        self.adam.load_state_dict(state["adam"])
        self.order.set_state(state["order"])


@dataclass
class Exposing:
    """A simulated bench: its clock, drift, noise and shot numbers."""

    reservoir: Reservoir
    number: int = 0

    def step(self) -> list[float]:
        draw = Generator().manual_seed(self.number)
        self.number += 1
        phase = 6 * torch.rand(3, self.reservoir.pixels, generator=draw)
        answer = self.reservoir(phase.double(), category="train").y
        return [self.reservoir.bench.clock.now(), *map(float, answer.flatten())]

    def state(self) -> dict[str, Any]:
        world = self.reservoir.bench.world
        assert world is not None
        return {
            "world": world.state(),
            "ledger": self.reservoir.ledger.state_dict(),
            "number": self.number,
        }

    def restore(self, state: dict[str, Any]) -> None:
        world = self.reservoir.bench.world
        assert world is not None
        world.restore(state["world"])
        self.reservoir.ledger.load_state_dict(state["ledger"])
        self.number = state["number"]


@dataclass
class Light(Device):
    """Twenty-four macropixels, five outputs, noise by the number of the shot."""

    shots: int = 0

    @property
    @override
    def layout(self) -> tuple[int, int]:
        return (4, 6)

    @property
    @override
    def pixels(self) -> int:
        return 24

    @property
    @override
    def outputs(self) -> int:
        return 5

    @override
    def __call__(
        self, phase: Tensor, *, category: str, layer: int, step: int
    ) -> Response:
        del category, layer, step
        shown = torch.remainder(phase.detach(), 2 * torch.pi)
        shot = torch.arange(self.shots, self.shots + len(phase))
        self.shots += len(phase)
        noise = torch.sin(12.9898 * shot[:, None] + torch.arange(5.0))
        return Response(100 + 9 * shown.cos() @ self.field + noise, shown, shot)

    @property
    def field(self) -> Tensor:
        """How much of each macropixel comes to each output."""
        return torch.randn(24, 5, generator=Generator().manual_seed(10))

    def gradient(self, shown: Tensor, cotangent: Tensor) -> Tensor:
        """The true one."""
        return -9 * shown.sin() * (cotangent @ self.field.T)

    @property
    def ports(self) -> Ports:
        """What a surrogate of it is told."""
        optics = OpticalLayout((4, 6), 1, 0.1, (0, 0, 4, 6), (1, 5))
        return Ports(self.pixels, self.outputs, layout=self.layout, optics=optics)


@dataclass
class Gathering:
    """The evidence of a course: probes, what is held out, and the fits between."""

    evidence: Evidence
    light: Light
    number: int = 0

    def step(self) -> list[float]:
        draw = Generator().manual_seed(self.number)
        phase = 6 * torch.rand(9, self.light.pixels, generator=draw)
        made = Exposure(
            layer=0,
            step=self.number,
            category="train",
            response=self.light(phase, category="train", layer=0, step=self.number),
            cotangent=torch.randn(9, self.light.outputs, generator=draw),
            gradient=torch.randn(9, self.light.pixels, generator=draw),
        )
        self.evidence.gather([made], self.number, torch.arange(9))
        self.number += 1
        moments = self.evidence.cosine.state_dict()["moments"]
        sizes = (self.evidence.paired_rad, self.evidence.held_out_rad)
        told = (self.evidence.fit(3), self.evidence.shots, *sizes)
        return [*told, *moments.flatten().tolist()]

    def state(self) -> dict[str, Any]:
        return {
            "evidence": self.evidence.state_dict(),
            "shots": self.light.shots,
            "number": self.number,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.evidence.load_state_dict(state["evidence"])
        self.light.shots, self.number = state["shots"], state["number"]


@dataclass
class Training:
    """A whole course, at the boundaries of its steps."""

    trainer: Trainer
    light: Light
    before: Pretraining | None = None

    def _prepare(self) -> None:
        if not self.trainer.prepared:
            assert self.trainer.prepare()
            if self.before is not None:
                twin.expose(self.trainer, self.before)
                twin.fit(self.trainer, self.before)

    def step(self) -> list[float]:
        self._prepare()
        row = self.trainer.step()
        theta = torch.cat(
            [each.detach() for each in self.trainer.parts.network.theta()]
        )
        told = [row.loss, row.loss_surrogate, row.cosine, row.shots, *theta.tolist()]
        return [-1.0 if math.isnan(number) else number for number in told]

    def state(self) -> dict[str, Any]:
        self._prepare()
        return {"trainer": self.trainer.state_dict(), "shots": self.light.shots}

    def restore(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state["trainer"])
        self.light.shots = state["shots"]


class Deploying(Training):
    """A twin that was trained before; each step trains on it and asks the device."""

    @override
    def step(self) -> list[float]:
        self._prepare()
        twin.descend(self.trainer, 2)
        twin.deploy(self.trainer)
        network = self.trainer.parts.network
        assert network.head is not None
        numbers = [*network.theta(), network.head.weight, network.head.bias]
        flat = [value for each in numbers for value in each.detach().flatten().tolist()]
        return [self.light.shots, self.trainer.evidence.shots, *flat]


class Fading(Device):
    """A device whose light fades from look to look."""

    def __init__(self) -> None:
        self.looks = 0

    @property
    @override
    def layout(self) -> tuple[int, int]:
        return (2, 3)

    @property
    @override
    def pixels(self) -> int:
        return 6

    @property
    @override
    def outputs(self) -> int:
        return 4

    @override
    def __call__(
        self, phase: Tensor, *, category: str, layer: int, step: int
    ) -> Response:
        y = phase.double()[:, :4].cos() + phase.double()[:, 2:].sin()
        self.looks += 1
        shot = torch.arange(len(phase))
        return Response(y * (1 + 0.9**self.looks), phase, shot)


@dataclass
class Watching:
    """A watch over a device that drifts, and is corrected for it."""

    watch: Watch
    device: Fading

    def step(self) -> list[float]:
        if self.watch.shots == 0:
            self.watch.begin()
        found = self.watch.check(0, None)
        gain = self.watch.device.gain
        return [found.share, found.left, *map(float, gain)]

    def state(self) -> dict[str, Any]:
        return {"watch": self.watch.state_dict(), "looks": self.device.looks}

    def restore(self, state: dict[str, Any]) -> None:
        self.watch.load_state_dict(state["watch"])
        self.device.looks = state["looks"]


@dataclass
class Choosing:
    """A gate that hears better and better of its surrogate, with fresh probes."""

    gate: Gate
    device: Fading
    number: int = 0

    def step(self) -> list[float]:
        self.number += 1
        self.gate.hear(Cosine(0.3 * self.number - 0.8, 0.1, 50))
        seen = exposures(0)
        phase = seen["phase"].double()
        response = Response(seen["y"].double(), phase, torch.arange(len(phase)))
        exposure = Exposure(0, 0, "train", response)
        with torch.no_grad():
            found = self.gate(exposure, seen["cotangent"].double())
        return [float(value) for value in found.flatten()]

    def state(self) -> dict[str, Any]:
        looks, number = self.device.looks, self.number
        return {"gate": self.gate.state_dict(), "looks": looks, "number": number}

    def restore(self, state: dict[str, Any]) -> None:
        self.gate.load_state_dict(state["gate"])
        self.device.looks, self.number = state["looks"], state["number"]


Make = Callable[[], AbstractContextManager[Stateful]]


def searching(name: str) -> Make:
    @contextmanager
    def make() -> Iterator[Stateful]:
        method = Method(name=name, candidates=4)  # type: ignore[arg-type]
        search = method.search(STEPS, Generator().manual_seed(5))
        assert search is not None
        yield Searching(search)

    return make


def fitting(settings: SurrogateSettings) -> Make:
    @contextmanager
    def make() -> Iterator[Stateful]:
        draw = Generator().manual_seed(6)
        optics = OpticalLayout((4, 6), 2, 0.1, (0, 0, 4, 6), (2, 2))
        ports = Ports(pixels=6, outputs=4, layout=(2, 3), optics=optics)
        made = build(settings, ports, draw)
        yield Fitting(Fitter(made, settings, draw))

    return make


@contextmanager
def replaying() -> Iterator[Stateful]:
    yield Replaying(Ring(20), Generator().manual_seed(7))


@contextmanager
def spending() -> Iterator[Stateful]:
    yield Spending(Ledger(1000))


@contextmanager
def optimising() -> Iterator[Stateful]:
    torch.manual_seed(8)
    layer = torch.nn.Linear(6, 2)
    adam = torch.optim.AdamW(layer.parameters(), lr=0.1)
    yield Optimising(layer, adam, Generator().manual_seed(9))


def exposing(*overrides: str) -> Make:
    @contextmanager
    def make() -> Iterator[Stateful]:
        with benches.open(benches.load("sim-small", overrides), seed=3) as bench:
            yield Exposing(Reservoir(bench))

    return make


@contextmanager
def gathering() -> Iterator[Stateful]:
    light, draw = Light(), Generator().manual_seed(11)
    # Differences, too: else secants would be kept and fit nothing.
    settings = replace(MODES, loss=(FitTerm("value"), FitTerm("jvp")))
    fitter = Fitter(build(settings, light.ports, draw), settings, draw)
    probing = Probing(
        held_out_per_step=2,
        paired_per_step=2,
        window=9,
        directions="random",
        dimensions=3,
        secant_rad=10.0,
        size_every=2,
        size_samples=4,
    )
    evidence = Evidence(
        light, fitter, probing, listener=Silent(), generator=draw, samples=9
    )
    evidence.noise = torch.ones(light.outputs)
    yield Gathering(evidence, light)


Moves = Literal["trust", "control-variate", "forward-gradient", "oracle", "dfa"]


@dataclass(frozen=True)
class Way:
    """What courses differ in.

    Parameters
    ----------
    settings
        Of the surrogate; None for none.
    search
        What finds theta by losses alone.
    moves
        Whose gradient moves theta.
    device
        The device layer.
    before
        What a twin learns before the first step.
    rehearses, deploys
        Whether theta is trained on a twin, between steps or in their place.
    size_every
        Steps between two choices of the probes' sizes.
    """

    settings: SurrogateSettings | None = None
    search: MethodName = "surrogate"
    moves: Moves = "trust"
    device: DeviceSpec = field(default_factory=DeviceSpec)
    before: Pretraining | None = None
    rehearses: bool = False
    deploys: bool = False
    size_every: int = 0


def training(way: Way) -> Make:
    """Make courses that differ in what moves theta."""

    @contextmanager
    def make() -> Iterator[Stateful]:
        light, draw = Light(), Generator().manual_seed(12)
        network = build_network(
            [way.device, StandardiseSpec(), LinearSpec()],
            Ends(4, XOR.outputs),
            device=light,
            generator=draw,
        )
        fitter, settings = None, way.settings
        if settings is not None:
            fitter = Fitter(build(settings, light.ports, draw), settings, draw)
        own = Generator().manual_seed(13)
        search = Method(name=way.search, candidates=4).search(STEPS, own)
        rehearsal = None
        if way.rehearses:
            assert fitter is not None
            assert isinstance(fitter.answering, Twin)
            how = Rehearsing(digital_steps=2, radius_rad=0.1)
            rehearsal = Rehearsal(how, fitter.answering, network, XOR, own)
        x = torch.rand(24, 4, generator=draw)
        samples = Samples(x, ((x[:, 0] > 0.5) ^ (x[:, 3] > 0.5)).long())
        probing = Probing(
            held_out_per_step=2,
            paired_per_step=1,
            window=20,
            noise_repeats=4,
            size_every=way.size_every,
            size_samples=4,
        )
        trainer = Trainer(
            Parts(
                network,
                light,
                estimator(light, network, fitter, moves=way.moves),
                fitter,
                search,
                rehearsal,
            ),
            samples,
            Settings(XOR, STEPS, Optimisation(batch=8), probing),
            generator=draw,
        )
        kind = Deploying if way.deploys else Training
        yield kind(trainer, light, way.before)

    return make


def estimator(
    light: Light, network: Network, fitter: Fitter | None, *, moves: Moves
) -> Callable[[Tensor | None], Estimator]:
    draw = Generator().manual_seed(14)
    made: dict[Moves, Callable[[Tensor], Estimator]] = {
        "oracle": lambda _noise: Given(light.gradient),
        "forward-gradient": lambda _noise: forward_gradient(
            light, probes=2, rms_rad=0.3, generator=draw
        ),
        "dfa": lambda _noise: DirectFeedback(
            network, outputs=XOR.outputs, pixels=light.pixels, generator=draw
        ),
    }
    if fitter is not None:
        surrogate, how = fitter.answering, Correction(probes=2, rms_rad=0.3)
        made |= {
            "trust": lambda _noise: Trust(surrogate),
            "control-variate": lambda noise: ControlVariate(
                surrogate, light, how, noise=noise, generator=draw
            ),
        }

    def make(noise: Tensor | None) -> Estimator:
        assert noise is not None
        # A search asks for no gradient, whatever is there.
        return made.get(moves, made["dfa"])(noise)

    return make


MODES = SurrogateSettings("twin-modes", modes=5, fits_per_step=2, fit_batch=16)
OPTICS = SurrogateSettings(
    "twin-optics", screens=2, fits_per_step=2, fit_batch=16, keep_every=4
)
BEFORE = Pretraining(samples=16, rms_rad=0.5, fits=3)
SERIES = DeviceSpec(recurrent=Recurrence(steps=2, feedback_rad=0.5))


@contextmanager
def watching() -> Iterator[Stateful]:
    device = Fading()
    how = drift.Watching(1, 12, recentre_above=1e-3, refit_above=None)
    watch = Watch(how, Steady(device), Generator().manual_seed(10))
    yield Watching(watch, device)


@contextmanager
def choosing() -> Iterator[Stateful]:
    device, draw = Fading(), Generator().manual_seed(11)
    made = build(SURROGATES["twin-modes"], Ports(6, 4), draw).double()
    correct = ControlVariate(
        made, device, Correction(), noise=torch.zeros(4), generator=draw
    )
    free = forward_gradient(device, probes=1, rms_rad=0.1, generator=draw)
    ways = Ways(Trust(made), correct, free, sure=0.5, hopeless=0.1)
    yield Choosing(Gate(ways), device)


SURROGATES = {
    "jacobian": SurrogateSettings("jacobian"),
    "dense": SurrogateSettings("dense", width=8, loss=(FitTerm("cos"),)),
    "log-lin-exp": SurrogateSettings("log-lin-exp", width=8),
    "linear": SurrogateSettings("linear", width=8, rank=3),
    "twin-dense": SurrogateSettings("twin-dense", width=8, loss=(FitTerm("jvp"),)),
    "twin-modes": SurrogateSettings("twin-modes", modes=5, average=0.9),
    "twin-pairs": SurrogateSettings("twin-pairs", reach=1.5),
    "twin-fields": SurrogateSettings("twin-fields", modes=5),
    "twin-optics": SurrogateSettings("twin-optics", screens=2, fit_batch=16),
}
PARTS: dict[str, Make] = {
    **{f"contestant {name}": searching(name) for name in SEARCHES},
    **{f"surrogate {name}": fitting(made) for name, made in SURROGATES.items()},
    "replay": replaying,
    "ledger": spending,
    "optimiser and order of data": optimising,
    "simulated bench": exposing(),
    "simulated bench that remembers": exposing("world.options.medium.memory_rad=0.5"),
    "watch over drift": watching,
    "gate": choosing,
    "evidence": gathering,
    "training": training(Way(MODES)),
    "training, control variate": training(Way(MODES, moves="control-variate")),
    "training, rehearsed": training(Way(OPTICS, rehearses=True)),
    "training, sizes chosen": training(Way(MODES, size_every=2)),
    "training, a series": training(Way(MODES, device=SERIES)),
    "training, a series by losses": training(Way(search="spsa", device=SERIES)),
    "training by losses": training(Way(search="spsa")),
    "training by feedback": training(Way(moves="dfa")),
    "training by forward gradients": training(Way(moves="forward-gradient")),
    "training by the true gradient": training(Way(moves="oracle")),
    "training on a frozen twin (pat)": training(
        Way(replace(MODES, fits_per_step=0), before=BEFORE)
    ),
    "training on a corrected twin (dat)": training(Way(MODES, before=BEFORE)),
    "deployment (calibrate-deploy)": training(Way(MODES, before=BEFORE, deploys=True)),
}


def told(part: Stateful, steps: int) -> list[list[float]]:
    return [part.step() for _ in range(steps)]


@cache
def checkpoints(name: str) -> tuple[list[list[float]], list[bytes]]:
    """What an undisturbed part tells, and a checkpoint before each of its steps."""
    said, blobs = [], []
    with PARTS[name]() as part:
        for _ in range(STEPS):
            kept = part.state()
            said.append(part.step())
            # Packed after the step: a state must not change with its part.
            blobs.append(pack(kept))
    return said, blobs


@pytest.mark.parametrize("name", PARTS)
def test_goes_on_from_any_checkpoint(name: str) -> None:
    said, blobs = checkpoints(name)
    assert said[0] != said[-1]
    for number in range(0, STEPS, 1 if "bench" not in name else 3):
        with PARTS[name]() as part:
            part.restore(unpack(blobs[number]))
            assert told(part, STEPS - number) == said[number:], number


@pytest.mark.slow
def test_every_part_goes_on_in_a_new_process(
    tmp_path: Path, fork: Callable[[Path], BaseProcess]
) -> None:
    half = STEPS // 2
    expected: dict[str, list[list[float]]] = {}
    for number, name in enumerate(PARTS):
        said, blobs = checkpoints(name)
        expected[name] = said[half:]
        (tmp_path / str(number)).write_bytes(blobs[half])
    # Nothing of this process is there, nor did anything run before: only imports did.
    script = tmp_path / "new.py"
    script.write_text(NEW.format(file=__file__, folder=str(tmp_path)), encoding="utf-8")
    process = fork(script)
    process.join(300)
    assert process.exitcode == 0
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert [name for name in expected if found[name] != expected[name]] == []


NEW = """
import runpy, sys
sys.argv = ["test_stateful.py", {folder!r}]
runpy.run_path({file!r}, run_name="__main__")
"""


def go_on(folder: Path) -> dict[str, list[list[float]]]:
    """Go on with every part from its checkpoint; the body of the new process."""
    found = {}
    for number, (name, make) in enumerate(PARTS.items()):
        with make() as part:
            part.restore(unpack((folder / str(number)).read_bytes()))
            found[name] = told(part, STEPS - STEPS // 2)
    return found


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "found.json").write_text(json.dumps(go_on(place)), encoding="utf-8")
