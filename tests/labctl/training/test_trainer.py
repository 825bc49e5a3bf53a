import dataclasses
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, get_args

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from labctl.errors import SaturatedError
from labctl.training.blackbox import Exposure, Response
from labctl.training.drift import Steady, Watch, Watching
from labctl.training.estimator import (
    ControlVariate,
    Correction,
    Cosine,
    Estimator,
    Gate,
    Given,
    HeldOutCosine,
    Stateless,
    Trust,
    Way,
    Ways,
)
from labctl.training.evidence import Probing
from labctl.training.journal import ProbeRows, Row, Status
from labctl.training.network import (
    ActivationSpec,
    DeviceSpec,
    Ends,
    LayerSpec,
    LinearSpec,
    Network,
    Recurrence,
    StandardiseSpec,
    build,
)
from labctl.training.plan import Course, Plan, plan
from labctl.training.readout import Task
from labctl.training.rehearsal import Rehearsal, Rehearsing
from labctl.training.surrogate.build import build as build_surrogate
from labctl.training.surrogate.fit import Fitter
from labctl.training.surrogate.model import Twin
from labctl.training.surrogate.settings import (
    FitTerm,
    OpticalLayout,
    Ports,
    SurrogateName,
    SurrogateSettings,
)
from labctl.training.trainer import (
    Optimisation,
    Parts,
    Purse,
    Samples,
    Settings,
    Trainer,
)

if TYPE_CHECKING:
    from tests.labctl.training.conftest import FakeDevice

ONE: list[LayerSpec] = [DeviceSpec(), StandardiseSpec(), LinearSpec()]
TWO: list[LayerSpec] = [
    DeviceSpec(),
    StandardiseSpec(),
    ActivationSpec("sigmoid"),
    DeviceSpec(),
    StandardiseSpec(),
    LinearSpec(),
]
THREE: list[LayerSpec] = [*TWO[:3], *TWO]
SERIES: list[LayerSpec] = [
    DeviceSpec(recurrent=Recurrence(2)),
    StandardiseSpec(),
    LinearSpec(),
]
XOR = Task("classification", 2)
TWIN = SurrogateSettings(
    "twin-modes", modes=32, fits_per_step=10, fit_batch=64, learning_rate=1e-2
)


def xor(count: int, seed: int = 0) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 4, generator=generator)
    return Samples(x, ((x[:, 0] > 0.5) ^ (x[:, 3] > 0.5)).long())


class Ear:
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.rows: list[Row] = []
        self.heard: list[ProbeRows] = []
        self.beats = 0

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def beat(self) -> None:
        self.beats += 1

    def digital(self) -> AbstractContextManager[None]:
        return nullcontext()

    def probes(self, rows: ProbeRows) -> None:
        self.heard.append(rows)

    def step(self, row: Row) -> None:
        self.rows.append(row)


class Lab:
    """Makes trainers that differ in what a test is about, and in nothing else."""

    def __init__(self, device: "FakeDevice") -> None:
        self.device = device
        device.dtype = torch.float32
        device.__post_init__()
        self.specs = ONE
        self.train = xor(96)
        self.surrogate: SurrogateSettings | None = TWIN
        self.task = XOR
        self.optimisation = Optimisation(batch=16)
        self.probing = Probing(noise_repeats=8, held_out_per_step=6)
        self.correction: Correction | None = None
        self.validation: Samples | None = None
        self.rehearsing: Rehearsing | None = None
        self.watching: Watching | None = None
        self.dark: Tensor | None = None
        self.purse: Purse | None = None

    def trainer(self, steps: int = 4, ear: Ear | None = None) -> Trainer:
        generator = torch.Generator().manual_seed(12)
        ends = Ends(self.train.x.shape[1], self.task.outputs)
        device = Steady(self.device, self.dark)
        network = build(self.specs, ends, device=device, generator=generator)
        fitter, estimate = self.learner(generator)
        watch = None
        if self.watching is not None:
            watch = Watch(self.watching, device, torch.Generator().manual_seed(2))
        return Trainer(
            Parts(
                network,
                device,
                estimate,
                fitter,
                rehearsal=self.rehearsal(network, fitter),
                watch=watch,
            ),
            self.train,
            Settings(self.task, steps, self.optimisation, self.probing, self.purse),
            validation=self.validation,
            listener=ear,
            generator=generator,
        )

    def rehearsal(self, network: Network, fitter: Fitter | None) -> Rehearsal | None:
        if self.rehearsing is None:
            return None
        assert fitter is not None
        twin = fitter.answering
        assert isinstance(twin, Twin)
        generator = torch.Generator().manual_seed(6)
        return Rehearsal(self.rehearsing, twin, network, self.task, generator)

    def learner(
        self, generator: torch.Generator
    ) -> tuple[Fitter | None, Callable[[Tensor | None], Estimator]]:
        if self.surrogate is None:
            return None, lambda _: Given(self.device.gradient)
        surrogate = build_surrogate(
            self.surrogate,
            Ports(
                self.device.pixels,
                self.device.outputs,
                layout=self.device.layout,
                optics=OpticalLayout((4, 6), 1, 0.1, (0, 0, 4, 6), (1, 5)),
            ),
            generator,
        )
        fitter = Fitter(surrogate, self.surrogate, generator)
        correction = self.correction
        if correction is None:
            return fitter, lambda _: Trust(fitter.answering)

        def corrected(noise: Tensor | None) -> Estimator:
            assert noise is not None
            return ControlVariate(
                fitter.answering,
                self.device,
                correction,
                noise=noise,
                generator=torch.Generator().manual_seed(9),
            )

        return fitter, corrected


@pytest.fixture
def lab(device: "FakeDevice") -> Lab:
    device.noise = True
    return Lab(device)


def weights(network: Network) -> list[Tensor]:
    return [value.clone() for value in network.state_dict().values()]


@pytest.mark.parametrize(
    ("specs", "exposures", "surveys"), [(TWO, 2, 1), (THREE, 3, 2), (SERIES, 2, 1)]
)
def test_the_course_spends_what_the_plan_says(
    lab: Lab, specs: list[LayerSpec], exposures: int, surveys: int
) -> None:
    lab.specs = specs
    lab.correction = Correction(probes=1)
    lab.validation = xor(20, seed=1)
    lab.optimisation = Optimisation(batch=16, validate_every=3)
    lab.probing = dataclasses.replace(
        lab.probing, paired_per_step=2, size_every=3, size_samples=5
    )
    if surveys == 2:
        lab.probing = dataclasses.replace(
            lab.probing, directions="random", dimensions=3
        )
    course = Course(
        train=96,
        validation=20,
        batch=16,
        exposures=exposures,
        noise_repeats=8,
        paired_per_step=2,
        held_out_per_step=6,
        probes_per_sample=1,
        validate_every=3,
        size_every=3,
        size_samples=5,
        surveys=surveys,
    )
    found = plan(1200, course)
    assert isinstance(found, Plan)
    result = lab.trainer(found.steps).run()
    assert result.status is Status.COMPLETED
    planned = {name: count for name, count in found.counts.items() if count}
    assert lab.device.spent() == planned
    assert result.shots == found.total == lab.device.shots


def test_the_listener_hears_the_course_in_order(lab: Lab) -> None:
    lab.probing = dataclasses.replace(lab.probing, paired_per_step=1)
    ear = Ear()
    lab.trainer(8, ear).run()
    assert ear.stages == [
        "noise repeats",
        "warm-up pass",
        "first fit",
        "training",
        "last readout",
    ]
    assert [row.step for row in ear.rows] == list(range(8))
    shots = [row.shots for row in ear.rows]
    assert shots == [16 + 96 + 6 + 23 * (n + 1) for n in range(8)]
    assert ear.rows[0].lr == 0.1
    assert ear.rows[4].lr == pytest.approx(0.05)
    assert math.isnan(ear.rows[5].cosine)
    assert math.isfinite(ear.rows[7].cosine_error)
    assert ear.beats >= 8
    kinds = [rows.kind for rows in ear.heard]
    assert kinds == ["paired"] * 6 + ["held-out", "paired"] * 8
    assert ear.heard[0].cotangent.isnan().all()
    assert ear.heard[6].d_f.shape == ear.heard[6].cotangent.shape == (3, 5)


def test_held_out_probes_and_their_bases_are_kept_from_fits(lab: Lab) -> None:
    seen: list[Tensor] = []
    trainer = lab.trainer(3, ear := Ear())
    fitter = trainer.parts.fitter
    assert fitter is not None
    observe = fitter.observe_values

    def spy(phase: Tensor, y: Tensor) -> None:
        seen.append(y)
        observe(phase, y)

    fitter.observe_values = spy  # type: ignore[method-assign]  # a spy
    trainer.run()
    fitted = {tuple(row) for y in seen for row in y.tolist()}
    assert len(fitted) == 96 + 3 * 13
    assert len(ear.heard) == 3


KINDS = ["twin", "corrected", "true", "deep", "series", "rehearsed", "watched"]


def kind_of(lab: Lab, kind: str) -> Lab:
    lab.probing = dataclasses.replace(lab.probing, paired_per_step=1)
    lab.surrogate = dataclasses.replace(TWIN, fits_per_step=3)
    if kind in {"corrected", "deep"}:
        # Before the state is taken, and after it.
        lab.probing = dataclasses.replace(lab.probing, size_every=4)
    if kind == "corrected":
        lab.correction = Correction()
    if kind == "true":
        lab.surrogate = None
    if kind == "deep":
        lab.specs = TWO
    if kind == "series":
        lab.specs = SERIES
    if kind == "rehearsed":
        lab.rehearsing = Rehearsing(3, 0.3)
    if kind == "watched":
        # Noise that is not known is taken for drift: it is always fitted again.
        lab.watching = Watching(3, 8, None, 1e-9, refit_shots=16, refit_steps=2)
        lab.probing = dataclasses.replace(lab.probing, noise_repeats=0)
    return lab


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_course_is_bit_identical(
    make_device: "type[FakeDevice]", kind: str
) -> None:
    ends = []
    for resumed in (False, True):
        lab = kind_of(Lab(make_device(noise=True, levels=256)), kind)
        trainer, ear = lab.trainer(10, Ear()), Ear()
        if resumed:
            trainer.prepare()
            for _ in range(5):
                trainer.step()
            state = trainer.state_dict()
            trainer.step()  # must not leak into the state that was taken
            lab.device.shots = state["evidence"]["shots"]
            trainer = lab.trainer(10, ear)
            trainer.load_state_dict(state)
        else:
            trainer = lab.trainer(10, ear)
        result = trainer.run()
        ends.append((weights(trainer.parts.network), ear.rows[-5:], result))
    (first, rows, result), (second, other_rows, other) = ends
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert repr(rows) == repr(other_rows)
    assert result == other


def turn_phases(device: "FakeDevice") -> None:
    """Let every macropixel drift, each by itself."""
    draw = torch.Generator().manual_seed(1)
    lag = 0.8 * torch.randn(device.pixels, generator=draw)
    device.field = device.field * torch.polar(torch.ones_like(lag), lag)


def test_a_device_that_drifts_is_learned_anew(lab: Lab) -> None:
    lab.watching = Watching(2, 24, refit_shots=40, refit_steps=5, refit_keep=0)
    trainer = lab.trainer(5, ear := Ear())
    trainer.prepare()
    for _ in range(3):
        trainer.step()
    assert not any("drift" in text for text in ear.stages)
    turn_phases(lab.device)
    trainer.step()
    trainer.step()
    assert [text for text in ear.stages if "fitted again" in text]
    # First looks, two checks, the fresh exposures, and a new first look.
    assert lab.device.spent()["drift-check"] == 24 * (2 + 2 + 2) + 40
    assert trainer.evidence.shots == lab.device.shots
    fitter = trainer.parts.fitter
    assert fitter is not None
    # Nothing of before is left: what was exposed afresh, and one step.
    assert len(fitter.state_dict()["values"]["columns"][0]) == 40 + 13


def dimmed(lab: Lab) -> tuple[Trainer, Watch, Tensor]:
    """A course whose light was halved and halved again, and its noise at the start."""
    lab.watching = Watching(2, 24)
    lab.correction = Correction()
    lab.probing = dataclasses.replace(lab.probing, noise_repeats=96)
    trainer = lab.trainer(8, ear := Ear())
    trainer.prepare()
    before = trainer.evidence.noise
    trainer.step()
    trainer.step()
    for _ in range(2):
        lab.device.field = lab.device.field * math.sqrt(0.5)
        trainer.step()
        trainer.step()
    assert sum("common to all patterns" in text for text in ear.stages) == 2
    watch = trainer.parts.watch
    assert watch is not None
    assert before is not None
    return trainer, watch, before


def test_noise_is_corrected_as_the_outputs_are(lab: Lab) -> None:
    trainer, watch, before = dimmed(lab)
    after, gain = trainer.evidence.noise, watch.device.gain
    assert after is not None
    assert gain.tolist() == pytest.approx([0.25] * 5, rel=0.2)
    assert torch.allclose(after, before / gain.to(before), rtol=1e-4)
    estimator = trainer.estimator
    assert isinstance(estimator, ControlVariate)
    assert torch.equal(estimator.noise, after)
    other = lab.trainer(8)
    other.load_state_dict(trainer.state_dict())
    estimator = other.estimator
    assert isinstance(estimator, ControlVariate)
    assert torch.equal(estimator.noise, after)


def test_noise_that_is_there_without_light_is_corrected_as_such(lab: Lab) -> None:
    lab.dark = torch.full((5,), 50.0)
    trainer, watch, before = dimmed(lab)
    after, gain = trainer.evidence.noise, watch.device.gain.to(before)
    assert after is not None
    expected = (before - 50) / gain + 50 / gain.square()
    assert torch.allclose(after, expected, rtol=1e-4)
    assert not torch.allclose(after, before / gain, rtol=0.2)


def test_noise_after_corrections_is_what_repeats_show(lab: Lab) -> None:
    trainer, _, _ = dimmed(lab)
    expected = trainer.evidence.noise
    assert expected is not None
    # The fake has the noise of light; the same patterns as those of the repeats.
    layer = trainer.parts.network.device_layers[0]
    layer.begin("repeat", step=-1)
    first, second = (layer(lab.train.x).detach() for _ in range(2))
    found = (first - second).square().mean(dim=0) / 2
    assert float(found.sum()) == pytest.approx(float(expected.sum()), rel=0.25)


def test_after_a_new_fit_held_out_probes_of_before_count_no_more(lab: Lab) -> None:
    lab.watching = Watching(2, 24, refit_shots=40, refit_steps=5)
    lab.correction = Correction()
    trainer = lab.trainer(5, ear := Ear())
    trainer.prepare()
    trainer.step()
    trainer.step()
    assert trainer.evidence.cosine.read().probes == 2 * 3
    estimator = trainer.estimator
    assert isinstance(estimator, ControlVariate)
    two_batches = estimator.state_dict()["weight"]
    turn_phases(lab.device)
    trainer.step()
    assert [text for text in ear.stages if "fitted again" in text]
    assert estimator.state_dict()["weight"] < 0.8 * two_batches
    assert trainer.evidence.cosine.read().probes == 3
    assert trainer.evidence.cosine.whole().probes == 3 * 3


def test_a_gate_says_that_a_new_fit_sends_it_back_to_the_correction(lab: Lab) -> None:
    lab.watching = Watching(2, 24, refit_shots=40, refit_steps=5)
    lab.correction = Correction()
    trainer = lab.trainer(5, ear := Ear())
    trainer.prepare()
    correct, fitter = trainer.estimator, trainer.parts.fitter
    assert correct is not None
    assert fitter is not None
    # It trusts whatever the cosine says, but for none at all.
    ways = Ways(Trust(fitter.answering), correct, correct, sure=-9.0, hopeless=-9.0)
    gate = trainer.estimator = Gate(ways)
    gate.hear(Cosine(0.9, 0.1, 50))
    assert gate.way is Way.TRUST
    trainer.step()
    trainer.step()
    turn_phases(lab.device)
    ear.stages.clear()
    trainer.step()
    assert ["fitted again" in text for text in ear.stages] == [True, False]
    assert ear.stages[1] == (
        "step 2: no held-out cosine after a new fit yet: from now on the surrogate, "
        "corrected by fresh probes"
    )


def test_a_device_that_drifts_too_far_ends_the_course_with_a_status(lab: Lab) -> None:
    lab.watching = Watching(2, 24, stop_above=0.2)
    trainer = lab.trainer(5)
    trainer.prepare()
    trainer.step()
    lab.device.field = lab.device.field * 0.5
    result = trainer.run()
    assert (result.status, result.steps) == (Status.DRIFTED, 2)


def test_a_course_whose_steps_differ_ends_where_the_next_may_not_be_paid(
    lab: Lab,
) -> None:
    lab.purse = Purse(shots=16 + 96 + 22 * 3 + 21, dearest=22)
    trainer = lab.trainer(50, ear := Ear())
    result = trainer.run()
    assert (result.status, result.steps) == (Status.COMPLETED, 3)
    # The schedule follows what is spent, not the steps that will never come.
    assert ear.rows[-1].lr < 0.02


def test_a_purse_that_pays_no_step_is_no_completed_course(lab: Lab) -> None:
    lab.purse = Purse(shots=16 + 96 + 21, dearest=22)
    result = lab.trainer(50).run()
    assert (result.status, result.steps) == (Status.NO_STEP_PAID, 0)


class Astray(Stateless):
    """Points anywhere."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(31)

    @override
    def __call__(self, exposure: Exposure, cotangent: Tensor) -> Tensor:
        del cotangent
        return torch.randn(exposure.response.shown.shape, generator=self.generator)


class Doubter(Astray):
    relies = False


@pytest.mark.parametrize(
    ("estimator", "held_out", "status"),
    [
        pytest.param(None, 14, Status.COMPLETED, id="a surrogate that learns"),
        pytest.param(Astray, 14, Status.COSINE_AT_ZERO, id="nothing"),
        pytest.param(Astray, 2, Status.COMPLETED, id="too few to tell"),
        pytest.param(Doubter, 14, Status.COMPLETED, id="goes on without"),
    ],
)
def test_a_cosine_that_stays_at_zero_is_told_by_the_status(
    lab: Lab, estimator: type[Astray] | None, held_out: int, status: Status
) -> None:
    lab.probing = dataclasses.replace(lab.probing, held_out_per_step=held_out)
    trainer = lab.trainer(20)
    if estimator is not None:
        trainer.parts = dataclasses.replace(
            trainer.parts, make_estimator=lambda _noise: estimator()
        )
    result = trainer.run()
    assert (result.status, result.steps, result.refitted) == (status, 20, True)
    assert result.status.is_whole
    assert result.whole.probes == 10 * held_out


@pytest.mark.parametrize(
    ("latest", "status"),
    [
        pytest.param(0.3, Status.COMPLETED, id="learned late"),
        pytest.param(0.15, Status.COSINE_AT_ZERO, id="never"),
        pytest.param(math.nan, Status.COSINE_AT_ZERO, id="hidden by noise"),
    ],
)
def test_a_cosine_that_is_seen_at_the_end_did_not_stay_at_zero(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, latest: float, status: Status
) -> None:
    lab.probing = dataclasses.replace(lab.probing, held_out_per_step=2)
    monkeypatch.setattr(HeldOutCosine, "whole", lambda _: Cosine(0.1, 0.1, 140))
    monkeypatch.setattr(HeldOutCosine, "read", lambda _: Cosine(latest, 0.1, 100))
    assert lab.trainer(2).run().status is status


@pytest.mark.parametrize("specs", [ONE, TWO, SERIES])
def test_between_rehearsals_the_device_only_judges(
    lab: Lab, specs: list[LayerSpec]
) -> None:
    lab.specs = specs
    lab.rehearsing = Rehearsing(0, 0.3)
    trainer = lab.trainer(3)
    trainer.prepare()
    before = weights(trainer.parts.network)
    trainer.step()
    assert all(map(torch.equal, before, weights(trainer.parts.network)))
    lab.rehearsing = Rehearsing(2, 0.3)
    shots = lab.device.shots
    trainer = lab.trainer(3)
    trainer.prepare()
    trainer.step()
    for theta in trainer.parts.network.theta():
        assert not any(torch.equal(theta, old) for old in before)
    # As many exposures as without: digital steps are free.
    assert lab.device.shots == 2 * shots


def test_a_warm_up_pass_may_show_a_part_of_the_samples(lab: Lab) -> None:
    lab.probing = dataclasses.replace(lab.probing, warm_up=40)
    trainer = lab.trainer(2)
    trainer.prepare()
    assert lab.device.spent() == {"repeat": 16, "warm-up": 40}
    course = Course(train=96, validation=0, batch=16, noise_repeats=8, warm_up=40)
    assert course.counts(0)["warm-up"] == 40
    assert trainer.run().status is Status.COMPLETED


def test_a_state_holds_tensors_and_plain_values_only(lab: Lab) -> None:
    trainer = lab.trainer()
    trainer.prepare()
    trainer.step()

    def look(value: Any) -> None:  # noqa: ANN401 - a tree of anything
        if isinstance(value, dict):
            assert all(isinstance(key, str | int) for key in value)
            for part in value.values():
                look(part)
        elif isinstance(value, list | tuple):
            for part in value:
                look(part)
        else:
            kinds = (Tensor, bool, int, float, str, type(None))
            assert isinstance(value, kinds), type(value)

    look(trainer.state_dict())


def test_a_state_before_preparing_is_refused(lab: Lab) -> None:
    trainer = lab.trainer()
    with pytest.raises(RuntimeError, match="state before prepare"):
        trainer.state_dict()
    with pytest.raises(RuntimeError, match="step before prepare"):
        trainer.step()


def test_a_state_of_another_kind_of_course_is_refused(lab: Lab) -> None:
    trainer = lab.trainer()
    trainer.prepare()
    state = trainer.state_dict()
    lab.surrogate = None
    with pytest.raises(ValueError, match="disagree about a surrogate"):
        lab.trainer().load_state_dict(state)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"optimisation": Optimisation(batch=97)}, "batch=97, expected 1 to 96"),
        ({"probing": Probing(held_out_per_step=18)}, "held_out_per_step=18"),
        ({"probing": Probing(held_out_per_step=3)}, "3, expected an even number"),
        ({"probing": Probing(noise_repeats=97)}, "noise_repeats=97"),
        (
            {"probing": Probing(size_every=2, size_samples=17)},
            "size_samples=17, expected 1 to 16",
        ),
        (
            {"optimisation": Optimisation(batch=16, validate_every=2)},
            "validate_every=2 without",
        ),
        ({"specs": [LinearSpec()]}, "no device layer"),
    ],
)
def test_settings_that_ask_for_more_than_there_is_are_refused(
    lab: Lab, broken: dict[str, Any], message: str
) -> None:
    for name, value in broken.items():
        setattr(lab, name, value)
    with pytest.raises(ValueError, match=message):
        lab.trainer()


def test_outputs_that_are_not_finite_end_the_course_before_it_begins(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        type(lab.device),
        "clean",
        lambda _, phase: phase.new_full((len(phase), 5), math.nan),
    )
    lab.device.noise = False
    trainer = lab.trainer()
    assert not trainer.prepare()
    result = trainer.run()
    assert (result.status, result.steps) == (Status.NOT_FINITE_OUTPUT, 0)


@pytest.mark.parametrize(
    "category", ["repeat", "warm-up", "train", "probe", "drift-check"]
)
def test_an_answer_that_is_not_finite_ends_the_course_whatever_it_was_for(
    lab: Lab, category: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = type(lab.device).__call__

    def sick(
        device: "FakeDevice", phase: Tensor, *, category: str, layer: int, step: int
    ) -> Response:
        found = answer(device, phase, category=category, layer=layer, step=step)
        if category == bad:
            found.y[0, 1] = math.nan
        return found

    bad = category
    monkeypatch.setattr(type(lab.device), "__call__", sick)
    lab.watching = Watching(2, 24, stop_above=0.2)
    result = lab.trainer(4, ear := Ear()).run()
    assert result.status is Status.NOT_FINITE_OUTPUT
    assert f"device: {category} exposures of layer 0, step " in ear.stages[-1]
    assert "not finite=1 of " in ear.stages[-1]


@pytest.mark.parametrize("category", ["warm-up", "train"])
def test_saturated_frames_end_the_course_with_their_number(
    lab: Lab, category: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = type(lab.device).__call__

    def bright(
        device: "FakeDevice", phase: Tensor, *, category: str, layer: int, step: int
    ) -> Response:
        if category == bad:
            raise SaturatedError("eye", saturated=40, frames=64, pixels=0.01)
        return answer(device, phase, category=category, layer=layer, step=step)

    bad = category
    monkeypatch.setattr(type(lab.device), "__call__", bright)
    result = lab.trainer(4, ear := Ear()).run()
    assert (result.status, result.steps) == (Status.SATURATED, 0)
    assert result.why == ear.stages[-1]
    assert "saturated=40 of 64 frames of the training (62%" in result.why


def test_a_loss_that_is_not_finite_ends_the_course_with_a_status(lab: Lab) -> None:
    trainer = lab.trainer()
    trainer.prepare()
    head = trainer.parts.network.head
    assert head is not None
    head.bias.data[0] = math.nan
    before = weights(trainer.parts.network)
    result = trainer.run()
    assert result.status is Status.NOT_FINITE_LOSS
    after = weights(trainer.parts.network)
    same = zip(before, after, strict=True)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in same)


def test_a_surrogate_that_diverged_ends_the_course_with_a_status(lab: Lab) -> None:
    trainer = lab.trainer()
    trainer.prepare()
    for layer in trainer.parts.network.device_layers:
        layer.estimate = lambda exposure, _: exposure.response.shown * math.inf
    assert trainer.run().status is Status.NOT_FINITE_GRADIENT


def test_a_surrogate_without_food_ends_the_course_with_a_status(lab: Lab) -> None:
    lab.surrogate = dataclasses.replace(TWIN, loss=(FitTerm("jvp"),))
    assert lab.trainer().run().status is Status.NOTHING_TO_FIT
    lab.probing = dataclasses.replace(lab.probing, paired_per_step=1)
    assert lab.trainer().run().status is Status.COMPLETED


@pytest.mark.parametrize("name", get_args(SurrogateName))
def test_every_surrogate_takes_part_in_a_course(lab: Lab, name: SurrogateName) -> None:
    lab.surrogate = SurrogateSettings(
        name, width=8, rank=4, modes=4, fits_per_step=2, fit_batch=16
    )
    lab.probing = dataclasses.replace(lab.probing, paired_per_step=4)
    before = lab.trainer().parts.network.theta()[0].detach().clone()
    trainer = lab.trainer(3, ear := Ear())
    assert trainer.run().status is Status.COMPLETED
    assert all(math.isfinite(row.loss_surrogate) for row in ear.rows)
    assert not torch.equal(trainer.parts.network.theta()[0], before)


def test_without_repeats_the_cosine_is_not_told(lab: Lab) -> None:
    lab.probing = dataclasses.replace(lab.probing, noise_repeats=0)
    result = lab.trainer(12).run()
    assert result.cosine.probes == 0
    assert math.isnan(result.cosine.value)


def test_every_training_starts_from_the_readouts_solution(lab: Lab) -> None:
    lab.device.noise = False
    lab.probing = dataclasses.replace(lab.probing, dither_rad=(0.0, 0.0))
    trainer = lab.trainer()
    trainer.prepare()
    test = xor(200, seed=5)
    assert trainer.score(test) == trainer.score_readout(test)
    assert lab.device.spent()["evaluate"] == 200 + 96 + 200


def test_the_last_readout_never_makes_the_training_loss_worse(lab: Lab) -> None:
    lab.optimisation = Optimisation(batch=16, learning_rate_digital=1.0)
    trainer = lab.trainer(12)
    trainer.prepare()
    for _ in range(12):
        trainer.step()
    head = trainer.parts.network.head
    assert head is not None
    hidden = torch.cat([part for part, _ in trainer._seen])
    target = torch.cat([part for _, part in trainer._seen])
    assert len(hidden) == 96
    before = XOR.loss(head(hidden), target)
    assert trainer.run().refitted
    assert XOR.loss(head(hidden), target) < before


def test_validation_is_told_in_its_step(lab: Lab) -> None:
    lab.validation = xor(20, seed=1)
    lab.optimisation = Optimisation(batch=16, validate_every=2)
    lab.trainer(4, ear := Ear()).run()
    told = [math.isfinite(row.score_validation) for row in ear.rows]
    assert told == [False, True, False, True]


def test_real_targets_are_trained_to_a_smaller_error(lab: Lab) -> None:
    lab.task = Task("regression", 1)
    x = xor(192).x
    lab.train = Samples(x, torch.sin(6 * x[:, :1]) * x[:, 3:])
    lab.surrogate = None
    lab.optimisation = Optimisation(batch=16, learning_rate_theta=0.05)
    trainer = lab.trainer(150)
    trainer.prepare()
    test = xor(300, seed=5).x
    split = Samples(test, torch.sin(6 * test[:, :1]) * test[:, 3:])
    before = trainer.score_readout(split)
    trainer.run()
    assert trainer.score(split) < before - 0.1


def test_a_device_that_answers_in_double_precision_trains_a_single_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = type(lab.device).__call__

    def double(self: Any, phase: Tensor, **what: Any) -> Response:  # noqa: ANN401 - a spy
        found = plain(self, phase, **what)
        return Response(found.y.double(), found.shown.double(), found.shot)

    monkeypatch.setattr(type(lab.device), "__call__", double)
    lab.probing = dataclasses.replace(lab.probing, paired_per_step=1)
    assert lab.trainer(2).run().status is Status.COMPLETED


@pytest.mark.parametrize("specs", [ONE, TWO])
def test_a_learned_backward_pass_beats_the_readout(
    make_device: "type[FakeDevice]", specs: list[LayerSpec]
) -> None:
    lab = Lab(make_device(outputs=3, noise=True))
    lab.specs = specs
    lab.train = xor(256)
    lab.optimisation = Optimisation(batch=32, learning_rate_theta=0.07)
    test = xor(500, seed=5)
    scores = {}
    for name, surrogate in (("learned", TWIN), ("true", None)):
        lab.surrogate = surrogate
        trainer = lab.trainer(70)
        trainer.prepare()
        scores["readout"] = trainer.score_readout(test)
        result = trainer.run()
        assert result.status is Status.COMPLETED
        scores[name] = trainer.score(test)
        scores[name + " cosine"] = result.cosine.value
    assert scores["learned"] > scores["readout"] + 0.1, scores
    assert scores["true"] > scores["learned"] - 0.1, scores
    assert scores["true cosine"] > 0.75, scores


@pytest.mark.parametrize("specs", [THREE, SERIES])
def test_a_learned_backward_pass_reaches_through_every_exposure(
    make_device: "type[FakeDevice]", specs: list[LayerSpec]
) -> None:
    lab = Lab(make_device(outputs=3, noise=True))
    lab.specs, lab.train = specs, xor(256)
    lab.optimisation = Optimisation(batch=32, learning_rate_theta=0.07)
    test = xor(500, seed=5)
    trainer = lab.trainer(70)
    trainer.prepare()
    readout = trainer.score_readout(test)
    assert trainer.run().status is Status.COMPLETED
    assert trainer.score(test) > readout + 0.1
    # The gradient on the inputs has come through all of them.
    network = trainer.parts.network
    x = test.x[:64].clone().requires_grad_()
    found = []
    for source in (trainer.estimator, Given(lab.device.gradient)):
        for layer in network.device_layers:
            layer.estimate = source
        lab.device.noise = False
        network.begin("evaluate", step=0)
        loss = lab.task.loss(network(x), test.y[:64])
        found.append(torch.autograd.grad(loss, x)[0].flatten())
    assert torch.cosine_similarity(found[0], found[1], dim=0) > 0.8
