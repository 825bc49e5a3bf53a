import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Generator, Tensor

from labctl.training.surrogate.build import build
from labctl.training.surrogate.fit import Fitter, FitterState, try_out, unexplained
from labctl.training.surrogate.model import Twin
from labctl.training.surrogate.settings import (
    FitTerm,
    OpticalLayout,
    Ports,
    SurrogateSettings,
)

PIXELS, OUTPUTS, GROUPS, PROBES = 6, 4, 9, 3
LAYOUT = (2, 3)
SETTINGS = [
    SurrogateSettings("jacobian"),
    SurrogateSettings("dense", width=8, loss=(FitTerm("cos"), FitTerm("mse", 0.5))),
    SurrogateSettings("log-lin-exp", width=8),
    SurrogateSettings("linear", width=8, rank=3, loss=(FitTerm("gen", a=0.5),)),
    SurrogateSettings("twin-dense", width=8, loss=(FitTerm("jvp"), FitTerm("dot"))),
    SurrogateSettings("twin-modes", modes=5, average=0.0),
    SurrogateSettings("twin-pairs", reach=1.5),
    SurrogateSettings("twin-modes", modes=5, loss=(FitTerm("value"), FitTerm("jvp"))),
]


def fitter_of(settings: SurrogateSettings, seed: int = 0) -> Fitter:
    generator = Generator().manual_seed(seed)
    surrogate = build(settings, Ports(PIXELS, OUTPUTS, layout=LAYOUT), generator)
    return Fitter(surrogate, settings, generator)


def observe(fitter: Fitter, seed: int = 1) -> None:
    generator = Generator().manual_seed(seed)
    phase = torch.randn(GROUPS, PIXELS, generator=generator)
    d_alpha = torch.randn(GROUPS, PROBES, PIXELS, generator=generator)
    d_f = torch.randn(GROUPS, PROBES, OUTPUTS, generator=generator)
    fitter.observe_values(
        phase, 100 + torch.randn(GROUPS, OUTPUTS, generator=generator)
    )
    fitter.observe_probes(phase, d_alpha, d_f)
    fitter.observe_cotangents(torch.randn(GROUPS, OUTPUTS, generator=generator))


def tensors(state: FitterState) -> list[Tensor]:
    found: list[Tensor] = []
    todo: list[object] = [state]
    while todo:
        part = todo.pop()
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, dict):
            todo += part.values()
        elif isinstance(part, list):
            todo += part
    return found


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda own: own.name)
def test_resumed_fit_is_the_same_bit_by_bit(settings: SurrogateSettings) -> None:
    through = fitter_of(settings)
    observe(through)
    through.step(4)
    state = through.state_dict()
    again = fitter_of(settings, seed=5)
    again.load_state_dict(state)
    losses = []
    for fitter in (through, again):
        observe(fitter, seed=2)
        losses.append(fitter.step(3))
    assert losses[0] == losses[1]
    pairs = zip(tensors(through.state_dict()), tensors(again.state_dict()), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)


def test_state_is_a_copy() -> None:
    fitter = fitter_of(SurrogateSettings("twin-modes", modes=5))
    observe(fitter)
    fitter.step(2)
    state = fitter.state_dict()
    before = [part.clone() for part in tensors(state)]
    observe(fitter, seed=2)
    fitter.step(2)
    pairs = zip(before, tensors(state), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)


def test_average_answers_and_follows() -> None:
    fitter = fitter_of(SurrogateSettings("twin-dense", width=8, average=0.9))
    observe(fitter)
    start = fitter.surrogate.state_dict()["net.0.weight"].clone()
    fitter.step(30)
    averaged = fitter.answering.state_dict()["net.0.weight"]
    last = fitter.surrogate.state_dict()["net.0.weight"]
    assert fitter.answering is not fitter.surrogate
    assert 0 < (averaged - last).norm() < (start - last).norm()
    assert torch.equal(fitter.answering.y_scale, fitter.surrogate.y_scale)


def test_an_average_forgets_its_start_quickly_and_then_keeps_what_is_set() -> None:
    fitter = fitter_of(SurrogateSettings("twin-dense", width=8, average=0.2))
    observe(fitter)
    expected = fitter.answering.state_dict()["net.0.weight"].clone()
    for step in range(1, 6):
        fitter.step(1)
        last = fitter.surrogate.state_dict()["net.0.weight"]
        keep = min(0.2, step / (step + 9))
        expected = keep * expected + (1 - keep) * last
        found = fitter.answering.state_dict()["net.0.weight"]
        assert found == pytest.approx(expected, abs=1e-6)


def test_recency_has_young_shots_fitted_more_often() -> None:
    def levels(recency: float) -> Tensor:
        """Outputs of old shots are 0, of young ones 1: the twin learns their mean."""
        settings = SurrogateSettings(
            "twin-dense", width=8, average=0.0, recency=recency, fit_batch=64
        )
        fitter = fitter_of(settings)
        phase = torch.zeros(200, PIXELS)
        y = torch.cat((torch.zeros(160, OUTPUTS), torch.ones(40, OUTPUTS)))
        fitter.observe_values(phase, 100 + y)
        fitter.step(300)
        with torch.no_grad():
            answer = fitter.answering
            assert isinstance(answer, Twin)
            level: Tensor = answer(phase[:1]) - 100
        return level

    # Of ages that are u to the fourth, two thirds are within the youngest fifth.
    assert levels(0.0).mean() == pytest.approx(0.2, abs=0.1)
    assert levels(3.0).mean() == pytest.approx(0.2**0.25, abs=0.1)


def probed(fitter: Fitter, matrix: Tensor, groups: int, seed: int) -> None:
    generator = Generator().manual_seed(seed)
    d_alpha = 0.1 * torch.randn(groups, 1, PIXELS, generator=generator)
    fitter.observe_probes(torch.zeros(groups, PIXELS), d_alpha, d_alpha @ matrix.T)


def test_what_is_forgotten_of_a_device_is_forgotten_by_a_model_in_closed_form() -> None:
    """Nothing of the old device is left; what was to be kept weighs as before."""
    old = torch.randn(OUTPUTS, PIXELS, generator=Generator().manual_seed(2))
    fitter, fresh = (fitter_of(SurrogateSettings("jacobian")) for _ in range(2))
    probed(fitter, old, 500, seed=3)
    fitter.forget(0)
    probed(fitter, -old, 60, seed=4)
    probed(fresh, -old, 60, seed=4)
    found, expected = (
        each.answering.vjp(torch.eye(OUTPUTS), torch.zeros(OUTPUTS, PIXELS))
        for each in (fitter, fresh)
    )
    assert found == pytest.approx(expected, abs=1e-5)
    assert (found + old).norm() < 0.01 * old.norm()
    # The newest 60 of 90: those of one device, before those of another.
    probed(fitter, old, 30, seed=5)
    fitter.forget(60)
    probed(fitter, -old, 20, seed=6)
    kept = fitter_of(SurrogateSettings("jacobian"))
    probed(kept, -old, 60, seed=4)
    kept.forget(30)
    probed(kept, old, 30, seed=5)
    probed(kept, -old, 20, seed=6)
    assert fitter.surrogate.state_dict()["power"] == pytest.approx(
        kept.surrogate.state_dict()["power"], rel=1e-4, abs=1e-6
    )
    assert fitter.surrogate.state_dict()["cross"] == pytest.approx(
        kept.surrogate.state_dict()["cross"], rel=1e-4, abs=1e-6
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda own: own.name)
def test_a_surrogate_forgets_all_that_it_took_in_at_once(
    settings: SurrogateSettings,
) -> None:
    surrogate = fitter_of(settings).surrogate
    before = {name: value.clone() for name, value in surrogate.state_dict().items()}
    draw = Generator().manual_seed(1)
    surrogate.absorb(
        torch.randn(9, PIXELS, generator=draw), torch.randn(9, OUTPUTS, generator=draw)
    )
    surrogate.forget()
    after = surrogate.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_model_itself_answers_without_an_average() -> None:
    fitter = fitter_of(SurrogateSettings("twin-dense", width=8, average=0.0))
    assert fitter.answering is fitter.surrogate


def test_fit_of_values_alone_goes_on_while_probes_have_not_come() -> None:
    loss = (FitTerm("value"), FitTerm("jvp"))
    fitter = fitter_of(SurrogateSettings("twin-dense", width=8, loss=loss))
    fitter.observe_values(torch.randn(8, PIXELS), torch.randn(8, OUTPUTS))
    assert fitter.ready
    assert math.isfinite(fitter.step(2))


def test_nothing_is_learned_from_nothing() -> None:
    fitter = fitter_of(SurrogateSettings("dense", width=8))
    fitter.observe_values(torch.randn(8, PIXELS), torch.randn(8, OUTPUTS))
    assert not fitter.ready
    assert math.isnan(fitter.step(3))
    assert fitter.steps == 0


def test_zero_cotangents_are_left_out() -> None:
    fitter = fitter_of(SurrogateSettings("dense", width=8))
    observe(fitter)
    fitter.observe_cotangents(torch.zeros(50, OUTPUTS))
    assert math.isfinite(fitter.step(3))
    assert len(fitter.state_dict()["cotangents"]["columns"][0]) == GROUPS


def test_outputs_of_another_precision_are_taken() -> None:
    fitter = fitter_of(SurrogateSettings("twin-modes", modes=5))
    fitter.observe_values(torch.randn(8, PIXELS).double(), torch.randn(8, OUTPUTS))
    assert math.isfinite(fitter.step(2))


@pytest.mark.parametrize("term", ["value", "jvp"])
def test_refuses_terms_of_a_twin_for_another_model(term: str) -> None:
    terms = {"value": FitTerm("value"), "jvp": FitTerm("jvp")}
    with pytest.raises(ValueError, match=rf"loss=\['{term}'\] with model=Dense"):
        fitter_of(SurrogateSettings("dense", loss=(terms[term],)))


OPTICS = OpticalLayout((4, 6), 2, 0.1, (0, 0, 4, 6), (2, 2))
OWN = SurrogateSettings("twin-optics", screens=1, fit_batch=8, learning_rate=0.05)


@pytest.fixture
def generator() -> Generator:
    return Generator().manual_seed(7)


def a_twin(settings: SurrogateSettings, generator: Generator) -> Fitter:
    ports = Ports(PIXELS, OUTPUTS, layout=LAYOUT, optics=OPTICS)
    return Fitter(build(settings, ports, generator), settings, generator)


def observe_forty(fitter: Fitter, generator: Generator) -> None:
    phase = torch.rand(40, 6, generator=generator)
    y = 100 + 10 * torch.randn(40, 4, generator=generator)
    fitter.observe_values(phase, y)


def test_keeps_every_fourth_shot_from_fits_across_batches(generator: Generator) -> None:
    fitter = a_twin(replace(OWN, keep_every=4), generator)
    phase = torch.arange(20.0)[:, None].expand(-1, 6)
    y = torch.randn(20, 4, generator=generator)
    fitter.observe_values(phase[:7], y[:7])
    fitter.observe_values(phase[7:], y[7:])
    kept = fitter.state_dict()["kept"]["columns"][0][:, 0]
    assert kept.tolist() == [3, 7, 11, 15, 19]
    assert len(fitter.state_dict()["values"]["columns"][0]) == 15


def test_tries_another_start_until_one_explains_the_kept_shots(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitter = a_twin(replace(OWN, keep_every=4, starts=5), generator)
    observe_forty(fitter, generator)
    left = iter([0.5, 0.9, 0.04])
    ends: list[Tensor] = []

    def judged(_noise: Tensor | None) -> float:
        ends.append(fitter.surrogate.state_dict()["screen"].clone())
        return next(left)

    monkeypatch.setattr(fitter, "unexplained", judged)
    phases: list[str] = []

    @contextmanager
    def phase() -> Iterator[None]:
        phases.append("rests")
        yield
        phases.append("back")

    fitter.first(2, noise=torch.zeros(4), phase=phase)
    assert len(ends) == 3
    assert phases == ["rests", "back"] * 3
    assert torch.equal(fitter.surrogate.state_dict()["screen"], ends[2])


def test_keeps_the_best_of_starts_that_all_fail(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitter = a_twin(replace(OWN, keep_every=4, starts=3), generator)
    observe_forty(fitter, generator)
    left = iter([0.5, 0.3, 0.9])
    ends: list[Tensor] = []

    def judged(_noise: Tensor | None) -> float:
        ends.append(fitter.surrogate.state_dict()["screen"].clone())
        return next(left)

    monkeypatch.setattr(fitter, "unexplained", judged)
    fitter.first(2, noise=torch.zeros(4))
    assert torch.equal(fitter.surrogate.state_dict()["screen"], ends[1])


def test_a_cycle_ends_at_a_small_step_that_a_state_holds(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitter = a_twin(replace(OWN, schedule="one-cycle", keep_every=4), generator)
    observe_forty(fitter, generator)
    rates: list[float] = []

    step = fitter._step

    def watched() -> Tensor:
        (group,) = fitter.state_dict()["adam"]["param_groups"]
        rates.append(group["lr"])
        return step()

    monkeypatch.setattr(fitter, "_step", watched)
    fitter.first(20, noise=None)
    assert max(rates) == pytest.approx(0.05, rel=0.05)
    assert rates[-1] < 0.001
    watched()
    assert rates[-1] == pytest.approx(0.005)
    other = a_twin(fitter.settings, Generator())
    other.load_state_dict(fitter.state_dict())
    fitter.step(3)
    other.step(3)
    for mine, its in zip(
        fitter.answering.parameters(), other.answering.parameters(), strict=True
    ):
        assert torch.equal(mine, its)


def test_refuses_several_starts_that_nothing_judges(generator: Generator) -> None:
    with pytest.raises(ValueError, match="starts=2 with model=TwinOptics and keep_eve"):
        a_twin(replace(OWN, starts=2), generator)


def test_explains_all_of_a_device_that_is_the_twin_plus_noise(
    generator: Generator,
) -> None:
    fitter = a_twin(OWN, generator)
    observe_forty(fitter, generator)
    twin = fitter.surrogate
    assert isinstance(twin, Twin)
    phase = 6 * torch.rand(4000, 6, generator=generator)
    with torch.no_grad():
        clean = twin(phase)
    noise = clean.var(dim=0) * torch.tensor([0.2, 0.5, 1.0, 0.3])
    y = clean + noise.sqrt() * torch.randn(clean.shape, generator=generator)
    assert abs(unexplained(twin, phase, y, noise)) < 0.05
    assert unexplained(twin, phase, y, None) > 0.2
    assert unexplained(twin, phase, clean, None) < 1e-6
    shifted = clean + clean.std(dim=0)
    assert unexplained(twin, phase, shifted, None) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda own: own.name)
def test_a_fitter_is_tried_out_before_anything_was_measured(
    settings: SurrogateSettings,
) -> None:
    fitter = fitter_of(settings)
    try_out(fitter)
    assert fitter.steps == (0 if settings.name == "jacobian" else 2)


# ---- on a card -------------------------------------------------------------------

OPTICS = OpticalLayout((8, 12), 4, 0.1, (1, 1, 6, 10), (2, 2))
GUESS = OpticalLayout.guess(LAYOUT, (2, 2), points=4, lens=True)
ON_A_CARD = [
    *SETTINGS,
    SurrogateSettings("twin-fields", modes=5, recency=1.0),
    SurrogateSettings("twin-optics", screens=2, loss=(FitTerm("value"),)),
    SurrogateSettings(
        "twin-optics",
        optics="learned",
        screens=2,
        panel_lag=True,
        loss=(FitTerm("value"), FitTerm("jvp"), FitTerm("mse")),
    ),
]
on_a_card = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device here"
)


def fitter_on(device: Literal["cpu", "cuda"], settings: SurrogateSettings) -> Fitter:
    generator = Generator().manual_seed(0)
    optics = GUESS if settings.optics == "learned" else OPTICS
    ports = Ports(PIXELS, OUTPUTS, layout=LAYOUT, optics=optics)
    own = replace(settings, device=device)
    fitter = Fitter(build(own, ports, generator), own, generator)
    observe(fitter)
    return fitter


def answers(fitter: Fitter) -> list[Tensor]:
    generator = Generator().manual_seed(7)
    cotangent = torch.randn(5, OUTPUTS, generator=generator)
    phase = torch.randn(5, PIXELS, generator=generator)
    found = [fitter.answering.vjp(cotangent, phase)]
    if isinstance(fitter.answering, Twin):
        found += [fitter.answering(phase), fitter.answering.jvp(phase, phase)]
    return [part.detach() for part in found]


def apart(left: list[Tensor], right: list[Tensor]) -> float:
    """Greatest distance of answers, over the size of them."""
    pairs = zip(left, right, strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


@pytest.mark.gpu
@on_a_card
@pytest.mark.parametrize("settings", ON_A_CARD, ids=lambda own: own.name)
def test_a_card_fits_what_the_processor_does(settings: SurrogateSettings) -> None:
    there, here = fitter_on("cuda", settings), fitter_on("cpu", settings)
    assert there.surrogate.device.type == "cuda"
    losses = [fitter.step(5) for fitter in (there, here)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    found = answers(there)
    assert all(part.device.type == "cpu" for part in found)
    assert apart(found, answers(here)) < 1e-2
    shares = [fitter.unexplained(None) for fitter in (there, here)]
    assert shares[0] == pytest.approx(shares[1], rel=1e-2, nan_ok=True)


@pytest.mark.gpu
@on_a_card
@pytest.mark.parametrize("settings", ON_A_CARD, ids=lambda own: own.name)
def test_a_state_goes_from_a_card_to_the_processor_and_back(
    settings: SurrogateSettings,
) -> None:
    there, here = fitter_on("cuda", settings), fitter_on("cpu", settings)
    there.step(3)
    here.load_state_dict(there.state_dict())
    assert apart(answers(here), answers(there)) < 1e-3
    again = fitter_on("cuda", settings)
    again.load_state_dict(here.state_dict())
    # To the card and back no bit is lost.
    pairs = zip(answers(again), answers(there), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)
    losses = [fitter.step(3) for fitter in (there, again, here)]
    assert losses[0] == losses[1]
    assert losses[2] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.gpu
@on_a_card
@pytest.mark.parametrize("settings", ON_A_CARD, ids=lambda own: own.name)
def test_the_same_card_fits_the_same_bit_by_bit(settings: SurrogateSettings) -> None:
    one, two = fitter_on("cuda", settings), fitter_on("cuda", settings)
    assert one.step(20) == two.step(20)
    pairs = zip(tensors(one.state_dict()), tensors(two.state_dict()), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)


@pytest.mark.gpu
@on_a_card
def test_a_card_takes_other_starts_too() -> None:
    settings = SurrogateSettings(
        "twin-optics",
        optics="learned",
        screens=2,
        starts=3,
        keep_every=3,
        schedule="one-cycle",
    )
    there, here = fitter_on("cuda", settings), fitter_on("cpu", settings)
    losses = [fitter.first(6, noise=None) for fitter in (there, here)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    assert apart(answers(there), answers(here)) < 5e-2
