import dataclasses
import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from labctl.training.blackbox import Device, Exposure, Response
from labctl.training.evidence import FITS_AT_ONCE, Evidence, Probing
from labctl.training.journal import ProbeRows, Row
from labctl.training.probe import (
    SURVEY_SHOTS,
    DirectionName,
    Directions,
    Size,
    noise_variance,
    paired,
    rows,
)
from labctl.training.surrogate.build import build
from labctl.training.surrogate.fit import Fitter
from labctl.training.surrogate.settings import FitTerm, Ports, SurrogateSettings
from tests.labctl.training.conftest import Bent

if TYPE_CHECKING:
    from tests.labctl.training.conftest import FakeDevice

PROBING = Probing(paired_per_step=2, held_out_per_step=4)
TWIN = SurrogateSettings(
    "twin-modes",
    modes=8,
    fit_batch=16,
    loss=(FitTerm("value"), FitTerm("jvp")),
)


class Ear:
    def __init__(self) -> None:
        self.beats = self.rests = 0
        self.heard: list[ProbeRows] = []

    def stage(self, text: str) -> None: ...

    def step(self, row: Row) -> None: ...

    def beat(self) -> None:
        self.beats += 1

    def digital(self) -> AbstractContextManager[None]:
        self.rests += 1
        return nullcontext()

    def probes(self, rows: ProbeRows) -> None:
        self.heard.append(rows)


class Log:
    """Stands where the fitter's doors are, and writes down what passes."""

    def __init__(self, fitter: Fitter) -> None:
        self.values: list[Tensor] = []
        self.probes: list[Tensor] = []
        self.cotangents: list[Tensor] = []
        fitter.observe_values = self._value  # type: ignore[method-assign]  # a spy
        fitter.observe_probes = self._probe  # type: ignore[method-assign]  # a spy
        fitter.observe_cotangents = self._cotangent  # type: ignore[method-assign]  # a spy

    def _value(self, phase: Tensor, y: Tensor) -> None:
        assert len(phase) == len(y)
        self.values.append(y)

    def _probe(self, phase: Tensor, d_alpha: Tensor, d_f: Tensor) -> None:
        assert d_alpha.shape == (len(phase), 1, phase.shape[1])
        assert d_f.shape[:2] == (len(phase), 1)
        self.probes.append(d_f)

    def _cotangent(self, cotangent: Tensor) -> None:
        self.cotangents.append(cotangent)


def fitter_of(device: "FakeDevice") -> Fitter:
    generator = torch.Generator().manual_seed(8)
    surrogate = build(TWIN, Ports(device.pixels, device.outputs), generator)
    return Fitter(surrogate, TWIN, generator)


def evidence_of(
    device: "FakeDevice",
    fitter: Fitter | None,
    ear: Ear,
    probing: Probing = PROBING,
) -> Evidence:
    generator = torch.Generator().manual_seed(4)
    evidence = Evidence(device, fitter, probing, listener=ear, generator=generator)
    evidence.noise = torch.zeros(device.outputs)
    return evidence


def exposed(device: "FakeDevice", layer: int = 0, batch: int = 11) -> Exposure:
    generator = torch.Generator().manual_seed(2 + layer)
    phase = 6 * torch.rand(batch, device.pixels, generator=generator)
    response = device(phase, category="train", layer=layer, step=6)
    made = Exposure(layer, 6, "train", Response(response.y, phase, response.shot))
    made.cotangent = torch.randn(batch, device.outputs, generator=generator)
    made.gradient = device.gradient(phase.double(), made.cotangent.double())
    return made


def test_each_shot_goes_where_it_may(device: "FakeDevice") -> None:
    fitter, ear = fitter_of(device), Ear()
    log, evidence = Log(fitter), evidence_of(device, fitter, ear)
    evidence.gather([exposed(device)], step=6)
    assert [len(y) for y in log.values] == [9, 2]
    assert [len(d_f) for d_f in log.probes] == [2]
    assert [len(c) for c in log.cotangents] == [9]
    assert [(r.kind, len(r.shot_plus)) for r in ear.heard] == [
        ("held-out", 2),
        ("paired", 2),
    ]
    assert evidence.shots == device.shots == 11 + 6
    # Both exposures of a held-out probe are its own.
    assert ear.heard[0].shot_base.tolist() == [11, 12]
    assert ear.heard[0].shot_plus.tolist() == [13, 14]


def test_a_sample_that_comes_again_is_a_probe_without_an_exposure(
    device: "FakeDevice",
) -> None:
    fitter, ear = fitter_of(device), Ear()
    log = Log(fitter)
    probing = dataclasses.replace(PROBING, paired_per_step=0, secant_rad=0.5)
    evidence = Evidence(
        device,
        fitter,
        probing,
        listener=ear,
        generator=torch.Generator().manual_seed(4),
        samples=20,
    )
    sample = torch.arange(11) + 3
    first = exposed(device)
    evidence.gather([first], 6, sample)
    assert log.probes == []
    phase = first.response.shown + 0.1
    response = device(phase, category="train", layer=0, step=7)
    again = Exposure(0, 7, "train", Response(response.y, phase, response.shot))
    evidence.gather([again], 7, sample)
    # Samples that were held out at either step stay out.
    fitted = [
        {row for row, y in enumerate(made.response.y) if (y == seen).all(1).any()}
        for made, seen in zip((first, again), log.values, strict=True)
    ]
    heard = ear.heard[-1]
    assert (heard.kind, heard.step) == ("secant", 7)
    assert set(heard.shot_base.tolist()) == fitted[0] & fitted[1]
    assert 7 <= len(heard.shot_base) == len(log.probes[0]) <= 9
    assert evidence.shots == device.shots == 11 + 4 + 11
    # Rows that are no samples of the split are compared with nothing.
    evidence.gather([again], 8)
    assert len(log.probes) == 1
    evidence.forget(4)
    evidence.gather([again], 9, sample)
    assert len(log.probes) == 1


def test_paired_probes_keep_to_their_directions(device: "FakeDevice") -> None:
    fitter = fitter_of(device)
    seen: list[Tensor] = []
    fitter.observe_probes = lambda _, d_alpha, __: seen.append(d_alpha)  # type: ignore[method-assign, assignment]  # a spy
    probing = dataclasses.replace(
        PROBING, paired_per_step=6, directions="coordinates", dimensions=2
    )
    evidence_of(device, fitter, Ear(), probing).gather([exposed(device)], step=6)
    (d_alpha,) = seen
    touched = (d_alpha[:, 0].abs() > 1e-6).any(dim=0)
    assert int(touched.sum()) == 2


def test_probes_take_turns_over_the_layers(device: "FakeDevice") -> None:
    ear = Ear()
    evidence = evidence_of(device, None, ear)
    for step in (6, 7):
        evidence.gather([exposed(device, 0), exposed(device, 1)], step)
    assert [rows.layer for rows in ear.heard] == [0, 0, 1, 1]
    assert evidence.shots == device.shots


def test_probes_of_held_out_samples_that_the_estimator_took_stay_hidden(
    device: "FakeDevice", generator: torch.Generator
) -> None:
    fitter, ear = fitter_of(device), Ear()
    log, made = Log(fitter), exposed(device)
    index = torch.arange(11).repeat_interleave(2)
    fresh = paired(device, rows(made.response, index), Size(0.1, generator), made)
    made.probes = (fresh, torch.zeros(22, device.outputs))
    evidence = evidence_of(device, fitter, ear)
    evidence.gather([made], step=0)
    answers = zip(made.response.y, made.response.shot, strict=True)
    bases = {float(y[0]): int(shot) for y, shot in answers}
    learned = {bases[float(y[0])] for y in log.values[0]}
    assert len(learned) == 9
    allowed = [n for n, base in enumerate(fresh.shot_base.tolist()) if base in learned]
    assert torch.equal(log.probes[0][:, 0], fresh.d_f[allowed])
    assert [rows.kind for rows in ear.heard] == [
        "held-out",
        "control-variate",
        "paired",
    ]
    assert evidence.shots == device.shots


def test_a_warm_up_pass_is_learned_from_whole(device: "FakeDevice") -> None:
    fitter, ear = fitter_of(device), Ear()
    log, evidence = Log(fitter), evidence_of(device, fitter, ear)
    made = exposed(device)
    made.cotangent = made.gradient = None
    evidence.warm_up(made)
    assert [len(y) for y in log.values] == [11, 2]
    assert log.cotangents == []
    assert ear.heard[0].cotangent.isnan().all()


def test_a_true_gradient_reads_as_one(device: "FakeDevice") -> None:
    probing = dataclasses.replace(
        PROBING, held_out_per_step=18, held_out_rad=1e-3, paired_per_step=0
    )
    device.dtype = torch.float64
    evidence = evidence_of(device, None, Ear(), probing)
    for step in range(6):
        made = exposed(device)
        shown = made.response.shown.double()
        made.response = device(shown, category="train", layer=0, step=step)
        evidence.gather([made], step)
    found = evidence.cosine.read()
    assert found.value == pytest.approx(1.0, abs=1e-3)
    assert found.probes == 54


def test_a_true_gradient_reads_as_one_under_noise_that_the_loss_has_seen(
    make_device: "type[FakeDevice]",
) -> None:
    """The light is noisy, its noise grows with it, and the cotangent knows it."""
    read = []
    probing = Probing(held_out_per_step=16, paired_per_step=0, window=160)
    for seed in range(8):
        device = make_device(noise=True, shots=2000 * seed)
        generator = torch.Generator().manual_seed(seed)
        evidence = Evidence(device, None, probing, listener=Ear(), generator=generator)
        phase = 6 * torch.rand(32, device.pixels, generator=generator).double()
        first, second = (
            device(phase, category="repeat", layer=0, step=0).y for _ in range(2)
        )
        evidence.noise = noise_variance(first, second)
        for step in range(20):
            phase = 6 * torch.rand(16, device.pixels, generator=generator).double()
            response = device(phase, category="train", layer=0, step=step)
            made = Exposure(0, step, "train", response)
            # Of a loss that is nearly met: it points where the noise does.
            made.cotangent = response.y - device.clean(response.shown) + 3
            made.gradient = device.gradient(response.shown, made.cotangent)
            evidence.gather([made], step)
        read.append(evidence.cosine.read())
    values = torch.tensor([found.value for found in read])
    assert {found.probes for found in read} == {160}
    # Curvature over .3 rad takes a little; noise neither adds to it nor takes away.
    assert values.mean().item() == pytest.approx(0.97, abs=0.05)
    spread = float(values.std())
    assert 0.4 * spread < sum(found.error for found in read) / 8 < 2.5 * spread


def test_every_fit_step_comes_with_a_sign_of_life(device: "FakeDevice") -> None:
    fitter, ear = fitter_of(device), Ear()
    evidence = evidence_of(device, fitter, ear)
    enough = [evidence.is_enough]
    evidence.warm_up(exposed(device))
    enough.append(evidence.is_enough)
    assert enough == [False, True]
    assert math.isfinite(evidence.fit(2 * FITS_AT_ONCE + 1))
    assert (ear.beats, ear.rests, fitter.steps) == (21, 0, 21)
    assert math.isnan(evidence.fit(0))
    assert math.isnan(evidence_of(device, None, ear).fit(5))


def test_slow_fits_are_announced_and_the_device_rests(
    device: "FakeDevice", monkeypatch: pytest.MonkeyPatch
) -> None:
    fitter, ear = fitter_of(device), Ear()
    monkeypatch.setattr(type(fitter.surrogate), "slow", True)
    evidence = evidence_of(device, fitter, ear)
    evidence.warm_up(exposed(device))
    assert math.isfinite(evidence.fit(3))
    # A sign of life would end the announced phase.
    assert (ear.beats, ear.rests, fitter.steps) == (0, 1, 3)


def test_what_is_forgotten_is_not_fitted_again(device: "FakeDevice") -> None:
    fitter = fitter_of(device)
    evidence = evidence_of(device, fitter, Ear())
    evidence.warm_up(exposed(device))
    evidence.forget(0)
    assert not evidence.is_enough
    evidence_of(device, None, Ear()).forget(0)


def test_evidence_goes_on_from_its_state(make_device: "type[FakeDevice]") -> None:
    found: list[tuple[float, object]] = []
    for resumed in (False, True):
        device, ear = make_device(), Ear()
        evidence = evidence_of(device, fitter_of(device), ear)
        evidence.gather([exposed(device)], step=0)
        evidence.fit(4)
        if resumed:
            state = evidence.state_dict()
            evidence = evidence_of(device, fitter_of(device), ear)
            evidence.load_state_dict(state)
        evidence.gather([exposed(device)], step=1)
        moments = evidence.cosine.state_dict()["moments"].tolist()
        found.append((evidence.fit(4), (moments, evidence.shots)))
    assert found[0] == found[1]


def test_tells_what_a_first_fit_leaves_of_the_kept_shots(device: "FakeDevice") -> None:
    settings = dataclasses.replace(TWIN, keep_every=4, learning_rate=0.03)
    generator = torch.Generator().manual_seed(8)
    ports = Ports(device.pixels, device.outputs)
    fitter = Fitter(build(settings, ports, generator), settings, generator)
    evidence = evidence_of(device, fitter, Ear())
    phase = 6 * torch.rand(400, device.pixels, generator=generator)
    fitter.observe_values(phase, device(phase, category="warm-up", layer=0, step=-1).y)
    said = evidence.told_fit()
    share = float(said.split()[2])
    assert share > 50
    assert "expected less than 5 %: this surrogate does not hold this bench" in said
    fitter.step(600)
    later = evidence.told_fit()
    assert float(later.split()[2]) < share / 2
    evidence.noise = None
    assert evidence.told_fit().endswith("% of the variance unexplained")


def test_less_than_nothing_unexplained_is_told_as_nothing(
    device: "FakeDevice", monkeypatch: pytest.MonkeyPatch
) -> None:
    fitter = fitter_of(device)
    evidence = evidence_of(device, fitter, Ear())
    monkeypatch.setattr(fitter, "unexplained", lambda _: -0.1)
    assert evidence.told_fit().startswith("kept shots: nothing of the variance")


def test_tells_nothing_of_a_fit_that_nothing_judges(device: "FakeDevice") -> None:
    evidence = evidence_of(device, fitter_of(device), Ear())
    evidence.gather([exposed(device)], step=6)
    assert evidence.told_fit() == evidence_of(device, None, Ear()).told_fit() == ""


class Mirror(Device):
    """``y_k = x_k + bend |x|^2 / 2 + twist x_0^3 / 6 + noise`` around 3 rad."""

    def __init__(self) -> None:
        self.bend, self.noise, self.shots = 0.5, 0.3, 0
        self.draw = torch.Generator().manual_seed(5)

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
        x = phase.double() - 3.0
        bent = self.bend * x.square().sum(dim=1) / 2 + x[:, 0] ** 3
        y = x[:, :5] + bent[:, None]
        y = y + self.noise * torch.randn(y.shape, generator=self.draw, dtype=y.dtype)
        shot = torch.arange(self.shots, self.shots + len(y))
        self.shots += len(y)
        return Response(y, phase, shot)

    @property
    def best_rad(self) -> float:
        return float((8 * self.noise**2 / (self.bend**2 * (24**2 + 48))) ** 0.25)


def test_sizes_are_chosen_and_chosen_again_when_noise_and_curvature_change() -> None:
    probing = dataclasses.replace(PROBING, size_every=2, size_samples=8)
    device = Mirror()
    generator = torch.Generator().manual_seed(4)
    evidence = Evidence(device, None, probing, listener=Ear(), generator=generator)

    def gather(steps: range) -> None:
        for step in steps:
            phase = torch.full((16, 24), 3.0, dtype=torch.float64)
            response = device(phase, category="train", layer=0, step=step)
            evidence.gather([Exposure(0, step, "train", response)], step)

    gather(range(8))
    # Four choices, 8 samples each; two paired probes a step.
    assert evidence.shots == device.shots == 8 * 16 + 4 * 8 * SURVEY_SHOTS + 8 * 2
    first = device.best_rad
    assert evidence.paired_rad == pytest.approx(first, rel=0.15)
    device.bend = 4.5
    gather(range(8, 16))
    assert evidence.paired_rad == pytest.approx(first / 3, rel=0.15)
    device.noise = 1.2
    gather(range(16, 24))
    assert evidence.paired_rad == pytest.approx(2 * first / 3, rel=0.15)
    # A state holds them.
    fresh = Evidence(device, None, probing, listener=Ear(), generator=generator)
    fresh.load_state_dict(evidence.state_dict())
    assert fresh.paired_rad == evidence.paired_rad
    assert fresh.held_out_rad == evidence.held_out_rad


@pytest.mark.parametrize(("name", "many"), [("coordinates", 1), ("random", 3)])
def test_the_size_of_directed_probes_is_that_of_their_least_error(
    name: DirectionName, many: int
) -> None:
    """Curvature along a few directions is less than along all."""
    device = Bent(bend=1.5, twist=2.0, noise=0.3)
    probing = dataclasses.replace(
        PROBING,
        paired_per_step=3,
        directions=name,
        dimensions=many,
        size_every=1,
        size_samples=30,
    )
    generator = torch.Generator().manual_seed(4)
    evidence = Evidence(device, None, probing, listener=Ear(), generator=generator)
    assert probing.surveys == 2
    point = torch.full((40, 24), 3.0, dtype=torch.float64)
    for step in range(6):
        response = device(point, category="train", layer=0, step=step)
        evidence.gather([Exposure(0, step, "train", response)], step)
    # No cotangent, so no held-out probe.
    assert evidence.shots == device.shots == 6 * (40 + 2 * 30 * SURVEY_SHOTS + 3)
    point = torch.full((4000, 24), 3.0, dtype=torch.float64)
    base = device(point, category="train", layer=0, step=0)

    def error(rms_rad: float) -> float:
        size = Size(rms_rad, generator, Directions(name, many, device.layout))
        probes = paired(device, base, size, Exposure(0, 0, "train", base))
        wrong = probes.d_f - probes.d_alpha[:, :5]
        return float(wrong.square().mean()) / rms_rad**2

    least = min(error(0.05 * 1.2**power) for power in range(20))
    assert error(evidence.paired_rad) < 1.2 * least
    # What is chosen for all directions would be several times as wrong.
    assert evidence.estimator_rad == pytest.approx(device.paired_rad(), rel=0.2)
    assert error(evidence.estimator_rad) > 2.5 * least
    assert evidence.held_out_rad == pytest.approx(device.central_rad, rel=0.35)
    # A state holds them.
    fresh = Evidence(device, None, probing, listener=Ear(), generator=generator)
    fresh.load_state_dict(evidence.state_dict())
    assert fresh.paired_rad == evidence.paired_rad
    assert fresh.estimator_rad == evidence.estimator_rad
