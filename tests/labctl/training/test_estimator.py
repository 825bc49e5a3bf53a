import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from labctl.training.blackbox import Exposure, Probes, Response
from labctl.training.contestant.forward_gradient import forward_gradient
from labctl.training.estimator import (
    ControlVariate,
    Correction,
    Cosine,
    Gate,
    Given,
    HeldOutCosine,
    Trust,
    Way,
    Ways,
)

if TYPE_CHECKING:
    from tests.labctl.training.conftest import FakeDevice

DOUBLE = torch.float64


class Leaning:
    """A surrogate whose answer has a given cosine to the truth."""

    def __init__(self, device: "FakeDevice", cosine: float) -> None:
        self.device, self.cosine = device, cosine
        self.generator = torch.Generator().manual_seed(4)

    def vjp(self, cotangent: Tensor, phase: Tensor) -> Tensor:
        true = self.device.gradient(phase, cotangent)
        other = torch.randn(true.shape, generator=self.generator, dtype=true.dtype)
        other = other - (other * true).sum(1, True) / true.square().sum(1, True) * true
        other = other * true.norm(dim=1, keepdim=True) / other.norm(dim=1, keepdim=True)
        side: Tensor = math.sqrt(1 - self.cosine**2) * other
        return self.cosine * true + side


def exposed(device: "FakeDevice", batch: int) -> tuple[Exposure, Tensor]:
    generator = torch.Generator().manual_seed(2)
    phase = 6 * torch.rand(batch, device.pixels, generator=generator, dtype=DOUBLE)
    response = device(phase, category="train", layer=0, step=0)
    cotangent = torch.randn(batch, 5, generator=generator, dtype=DOUBLE)
    return Exposure(0, 0, "train", response), cotangent


def error(found: Tensor, true: Tensor) -> float:
    return float((found - true).square().sum() / true.square().sum())


def no_noise() -> Tensor:
    return torch.zeros(5, dtype=DOUBLE)


def test_trust_and_given_answer_at_the_phase_that_was_shown(
    make_device: "type[FakeDevice]",
) -> None:
    device = make_device(levels=16)
    exposure, cotangent = exposed(device, 3)
    true = device.gradient(exposure.response.shown, cotangent)
    assert torch.equal(Trust(Leaning(device, 1.0))(exposure, cotangent), true)
    assert torch.equal(Given(device.gradient)(exposure, cotangent), true)


def variate(
    device: "FakeDevice",
    correction: Correction,
    *,
    cosine: float = 0.7,
    noise: Tensor | None = None,
) -> ControlVariate:
    return ControlVariate(
        Leaning(device, cosine),
        device,
        correction,
        noise=no_noise() if noise is None else noise,
        generator=torch.Generator().manual_seed(6),
    )


def test_a_full_correction_is_unbiased(device: "FakeDevice") -> None:
    exposure, cotangent = exposed(device, 2)
    true = device.gradient(exposure.response.shown, cotangent)
    estimator = variate(device, Correction(probes=6000, rms_rad=1e-3, gain=1.0))
    assert error(estimator(exposure, cotangent), true) < 0.01


def test_a_full_correction_by_one_probe_wrecks_a_good_gradient_and_the_best_does_not(
    device: "FakeDevice",
) -> None:
    exposure, cotangent = exposed(device, 200)
    true = device.gradient(exposure.response.shown, cotangent)
    trusted = error(Leaning(device, 0.7).vjp(cotangent, exposure.response.shown), true)
    full = variate(device, Correction(probes=1, rms_rad=1e-3, gain=1.0))
    best = variate(device, Correction(probes=1, rms_rad=1e-3))
    assert error(full(exposure, cotangent), true) > 5 * trusted
    assert error(best(exposure, cotangent), true) < trusted


# Of small probes a response is nearly all noise: little of it is to be believed.
@pytest.mark.parametrize("rms_rad", [0.2, 0.01])
@pytest.mark.parametrize("probes", [1, 8])
def test_the_best_gain_is_the_one_of_least_error(
    make_device: "type[FakeDevice]", probes: int, rms_rad: float
) -> None:
    device = make_device(noise=True)
    exposure, cotangent = exposed(device, 300)
    noise = exposure.response.y.mean(dim=0)
    # The base is free of noise here, so that the truth is known.
    exposure.response = exposure.response._replace(
        y=device.clean(exposure.response.shown)
    )
    true = device.gradient(exposure.response.shown, cotangent)

    def with_gain(gain: float | None) -> float:
        correction = Correction(probes=probes, rms_rad=rms_rad, gain=gain)
        estimator = variate(device, correction, noise=noise / 2)
        return error(estimator(exposure, cotangent), true)

    best = with_gain(None)
    gains = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6)
    assert best < 1.03 * min(with_gain(g) for g in gains)


def test_nothing_is_corrected_where_noise_explains_the_residual(
    device: "FakeDevice",
) -> None:
    exposure, cotangent = exposed(device, 20)
    noise = torch.full((5,), 1e9, dtype=DOUBLE)
    estimator = variate(device, Correction(probes=2), noise=noise)
    found = estimator(exposure, cotangent)
    assert torch.equal(
        found, Leaning(device, 0.7).vjp(cotangent, exposure.response.shown)
    )


def test_fresh_probes_are_booked_and_kept_with_their_cotangents(
    device: "FakeDevice",
) -> None:
    exposure, cotangent = exposed(device, 3)
    variate(device, Correction(probes=4))(exposure, cotangent)
    assert device.spent() == {"train": 3, "probe": 12}
    assert exposure.probes is not None
    probes, kept = exposure.probes
    assert torch.equal(kept, cotangent.repeat_interleave(4, dim=0))
    assert probes.shot_base.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_a_control_variate_goes_on_from_its_state(
    make_device: "type[FakeDevice]",
) -> None:
    found = []
    for resumed in (False, True):
        device = make_device()
        exposure, cotangent = exposed(device, 5)
        estimator = variate(device, Correction())
        estimator(exposure, cotangent)
        if resumed:
            state = estimator.state_dict()
            estimator = variate(device, Correction())
            estimator.load_state_dict(state)
        # The same answers of the surrogate in both turns.
        estimator.surrogate = Leaning(device, 0.7)
        found.append(estimator(exposure, cotangent))
    assert torch.equal(*found)


def probes_of(d_alpha: Tensor, d_f: Tensor) -> Probes:
    count = torch.arange(len(d_alpha))
    response = Response(d_f, d_alpha, count)
    return Probes(torch.zeros_like(d_alpha), d_alpha, d_f, count, count, response)


def measured(
    cosine: float,
    *,
    sigma: float,
    seed: int,
    count: int = 400,
    into: HeldOutCosine | None = None,
) -> HeldOutCosine:
    """A linear device of 24 inputs and 5 outputs with noise; g leans from the truth."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=DOUBLE)

    matrix = normal(5, 24)
    cotangent = normal(count, 5) * torch.logspace(-3, 3, count, dtype=DOUBLE)[:, None]
    true = cotangent @ matrix
    other = normal(count, 24)
    other = other - (other * true).sum(1, True) / true.square().sum(1, True) * true
    other = other * (true.norm(dim=1) / other.norm(dim=1))[:, None]
    gradient = 7 * (cosine * true + math.sqrt(1 - cosine**2) * other)
    d_alpha = 0.3 * normal(count, 24)
    d_f = d_alpha @ matrix.T + sigma * (normal(count, 5) - normal(count, 5))
    window = HeldOutCosine(window=count) if into is None else into
    window.add(
        probes_of(d_alpha, d_f),
        gradient=gradient,
        cotangent=cotangent,
        noise=torch.full((5,), sigma**2, dtype=DOUBLE),
    )
    return window


def test_a_true_cosine_of_nine_tenths_reads_so_under_noise_within_its_error() -> None:
    # sigma 1.04: as much noise in d_f as signal.
    read = [measured(0.9, sigma=1.04, seed=seed).read() for seed in range(40)]
    values = torch.tensor([r.value for r in read])
    errors = torch.tensor([r.error for r in read])
    assert values.mean().item() == pytest.approx(0.9, abs=0.03)
    assert errors.mean().item() == pytest.approx(values.std().item(), rel=0.35)
    inside = ((values - 0.9).abs() < 2 * errors).double().mean()
    assert inside > 0.85


def test_uncorrected_noise_would_have_hidden_it() -> None:
    window = measured(0.9, sigma=1.04, seed=0, count=4000)
    moments = window.state_dict()["moments"]
    plain = HeldOutCosine(window=4000)
    plain.load_state_dict({**window.state_dict(), "moments": moments[:, :3]})
    assert plain.read().value == pytest.approx(0.64, abs=0.04)
    assert window.read().value == pytest.approx(0.9, abs=0.04)


def test_noise_that_was_measured_by_few_repeats_makes_the_error_wider() -> None:
    window = measured(0.9, sigma=1.04, seed=0, count=4000)
    state = window.state_dict()
    told = {}
    for repeats in (0, 8, 32):
        other = HeldOutCosine(window=4000, repeats=repeats)
        other.load_state_dict(state)
        told[repeats] = other.read()
    assert told[8].value == told[0].value == window.read().value
    assert told[0].error < told[32].error < told[8].error
    # As much noise as signal, five outputs alike: a share of sqrt(2 / (5 R)) of it,
    # and half as much of the cosine.
    extra = math.sqrt(told[8].error ** 2 - told[0].error ** 2)
    assert extra == pytest.approx(0.9 / 2 * math.sqrt(2 / 40), rel=0.15)


@pytest.mark.parametrize("cosine", [0.0, 0.5, 1.0, -0.7])
def test_the_cosine_is_right_without_noise(cosine: float) -> None:
    found = measured(cosine, sigma=0.0, seed=1, count=3000).read()
    assert found.value == pytest.approx(cosine, abs=0.05)
    assert found.probes == 3000


def test_too_few_probes_or_too_much_noise_give_no_number() -> None:
    assert math.isnan(measured(0.9, sigma=0.0, seed=0, count=19).read().value)
    assert not math.isnan(measured(0.9, sigma=0.0, seed=0, count=20).read().value)
    window = measured(0.9, sigma=0.0, seed=0)
    moments = window.state_dict()["moments"]
    moments[:, 3] += 1e9
    window.load_state_dict({**window.state_dict(), "moments": moments})
    assert math.isnan(window.read().value)


def test_the_window_moves_and_goes_on_from_its_state() -> None:
    window = HeldOutCosine(window=100)
    for seed in range(3):
        moments = measured(0.5, sigma=0.0, seed=seed, count=60).state_dict()["moments"]
        probes = probes_of(torch.ones(60, 1, dtype=DOUBLE), moments[:, :1].contiguous())
        window.add(
            probes,
            gradient=torch.ones(60, 1, dtype=DOUBLE),
            cotangent=torch.ones(60, 1, dtype=DOUBLE),
            noise=torch.zeros(1, dtype=DOUBLE),
        )
    assert window.read().probes == 100
    other = HeldOutCosine(window=100)
    other.load_state_dict(window.state_dict())
    assert other.read() == window.read()


def test_the_window_keeps_the_youngest_probes() -> None:
    window = measured(0.0, sigma=0.0, seed=1, count=200)
    measured(0.9, sigma=0.0, seed=2, count=120, into=window)
    measured(0.9, sigma=0.0, seed=3, count=80, into=window)
    assert window.read().probes == 200
    assert window.read().value == pytest.approx(0.9, abs=0.1)


@pytest.mark.parametrize("cosine", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("repeats", [0, 8])
def test_the_cosine_of_all_probes_is_that_of_a_window_as_long(
    cosine: float, repeats: int
) -> None:
    state = measured(cosine, sigma=1.04, seed=3, count=500).state_dict()
    window = HeldOutCosine(window=500, repeats=repeats)
    window.load_state_dict(state)
    part, whole = window.read(), window.whole()
    assert whole.probes == part.probes == 500
    assert whole.value == pytest.approx(part.value)
    assert whole.error == pytest.approx(part.error, rel=0.03)


def test_the_cosine_of_all_probes_forgets_none_and_goes_on_from_its_state() -> None:
    one = torch.ones(60, 1, dtype=DOUBLE)
    window = HeldOutCosine(window=20)
    for answer in (one, one, -one):
        window.add(
            probes_of(one, answer),
            gradient=one,
            cotangent=one,
            noise=torch.zeros(1, dtype=DOUBLE),
        )
    assert window.read().value == -1
    assert window.whole().value == pytest.approx(1 / 3)
    other = HeldOutCosine(window=20)
    other.load_state_dict(window.state_dict())
    assert other.whole() == window.whole()


@pytest.mark.parametrize(
    ("cosine", "count", "is_zero"),
    [
        pytest.param(0.0, 500, True, id="none"),
        pytest.param(-0.5, 500, True, id="the wrong way"),
        pytest.param(0.5, 500, False, id="some"),
        pytest.param(0.0, 25, False, id="too few to tell"),
    ],
)
def test_a_cosine_is_zero_where_one_that_mattered_would_have_shown(
    cosine: float, count: int, *, is_zero: bool
) -> None:
    window = measured(cosine, sigma=0.5, seed=2, count=count)
    assert window.whole().is_zero is is_zero


def test_a_surrogate_that_answers_nothing_has_a_cosine_of_zero() -> None:
    one = torch.ones(60, 1, dtype=DOUBLE)
    window = HeldOutCosine()
    window.add(
        probes_of(one, one),
        gradient=torch.zeros_like(one),
        cotangent=one,
        noise=torch.zeros(1, dtype=DOUBLE),
    )
    assert window.whole().is_zero
    assert not HeldOutCosine().whole().is_zero


def test_a_probe_without_cotangent_has_no_direction_and_is_left_out() -> None:
    window = HeldOutCosine()
    one = torch.ones(2, 3, dtype=DOUBLE)
    window.add(
        probes_of(one, torch.ones(2, 5, dtype=DOUBLE)),
        gradient=one,
        cotangent=torch.zeros(2, 5, dtype=DOUBLE),
        noise=no_noise(),
    )
    assert window.read().probes == 0


def gate_of(device: "FakeDevice", *, cosine: float = 0.7) -> Gate:
    free = forward_gradient(
        device, probes=2, rms_rad=0.1, generator=torch.Generator().manual_seed(7)
    )
    ways = Ways(
        Trust(Leaning(device, cosine)),
        variate(device, Correction(probes=2)),
        free,
        sure=0.5,
        hopeless=0.2,
    )
    return Gate(ways)


@pytest.mark.parametrize(
    ("value", "error", "way", "probes"),
    [
        (math.nan, math.nan, Way.CORRECT, 6),
        (0.8, 0.1, Way.TRUST, 0),
        (0.55, 0.1, Way.CORRECT, 6),
        (0.15, 0.1, Way.CORRECT, 6),
        (0.05, 0.1, Way.FREE, 6),
        (-0.4, 0.1, Way.FREE, 6),
    ],
)
def test_a_gate_pays_for_probes_only_where_the_surrogate_needs_them(
    device: "FakeDevice", value: float, error: float, way: Way, probes: int
) -> None:
    gate = gate_of(device)
    said = gate.hear(Cosine(value, error, 50))
    assert gate.way is way
    assert (way.value in said) == (way is not Way.CORRECT)
    exposure, cotangent = exposed(device, 3)
    gate(exposure, cotangent)
    assert device.spent().get("probe", 0) == probes


def test_a_gate_without_trust_still_has_the_surrogate_judged(
    device: "FakeDevice",
) -> None:
    gate = gate_of(device)
    gate.hear(Cosine(-0.5, 0.1, 50))
    exposure, cotangent = exposed(device, 3)
    handed = gate(exposure, cotangent)
    own = Leaning(device, 0.7).vjp(cotangent, exposure.response.shown)
    assert exposure.judged is not None
    assert torch.equal(exposure.judged, own)
    assert not torch.equal(handed, own)
    # It comes back as soon as its answers are good again.
    assert "the surrogate alone" in gate.hear(Cosine(0.9, 0.1, 50))


def test_a_gate_that_begins_anew_corrects_and_has_no_error_of_before(
    device: "FakeDevice",
) -> None:
    gate = gate_of(device)
    corrected = gate.ways.correct
    gate(*exposed(device, 3))
    assert corrected.state_dict()["weight"] > 0
    said = gate.hear(Cosine(0.9, 0.1, 50))
    assert Way.TRUST.value in said
    again = gate.renew()
    assert gate.way is Way.CORRECT
    assert "new fit" in again
    assert Way.CORRECT.value in again
    assert gate.renew() == ""
    assert (corrected.state_dict()["excess"], corrected.state_dict()["weight"]) == (
        0.0,
        0.0,
    )


def test_a_gate_tells_all_its_ways_of_another_noise(device: "FakeDevice") -> None:
    gate = gate_of(device)
    gate.expect(torch.full((5,), 7.0))
    for way in (gate.ways.correct, gate.ways.free):
        assert isinstance(way, ControlVariate)
        assert way.noise.tolist() == [7.0] * 5


def test_a_gate_goes_on_from_its_state(make_device: "type[FakeDevice]") -> None:
    found = []
    for resumed in (False, True):
        device = make_device()
        exposure, cotangent = exposed(device, 4)
        gate = gate_of(device)
        gate(exposure, cotangent)
        gate.hear(Cosine(0.0, 0.1, 50))
        if resumed:
            state = gate.state_dict()
            gate = gate_of(device)
            gate.load_state_dict(state)
        found.append(gate(exposure, cotangent))
    assert torch.equal(*found)
