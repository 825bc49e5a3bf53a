import math

import pytest
import torch
from torch import Generator, Tensor

from labctl.training.surrogate.build import build
from labctl.training.surrogate.fit import Fitter, FitterState
from labctl.training.surrogate.settings import FitTerm, SurrogateSettings

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
    surrogate = build(
        settings,
        pixels=PIXELS,
        outputs=OUTPUTS,
        generator=generator,
        layout=LAYOUT,
    )
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
