"""Drift of a known size is found, told apart, and answered."""

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from labctl.training.blackbox import Device, Response
from labctl.training.drift import Finding, Remedy, Steady, Watch, Watching

if TYPE_CHECKING:
    from tests.labctl.training.conftest import FakeDevice

NOISE = torch.full((5,), 200.0)


class Drifting(Device):
    """A device whose phases, gain and offset are moved by hand."""

    def __init__(self, device: "FakeDevice") -> None:
        self.device, self.gain, self.offset = device, 1.0, 0.0
        self.lag = torch.zeros(device.pixels)

    @property
    @override
    def layout(self) -> tuple[int, int]:
        return self.device.layout

    @property
    @override
    def pixels(self) -> int:
        return self.device.pixels

    @property
    @override
    def outputs(self) -> int:
        return self.device.outputs

    @override
    def __call__(
        self, phase: Tensor, *, category: str, layer: int, step: int
    ) -> Response:
        lagged = phase + self.lag
        found = self.device(lagged, category=category, layer=layer, step=step)
        return found._replace(y=self.gain * found.y + self.offset)

    def turn(self, rms_rad: float) -> None:
        draw = torch.Generator().manual_seed(5)
        self.lag = rms_rad * torch.randn(self.pixels, generator=draw)


def watched(
    make_device: "type[FakeDevice]", how: Watching | None = None
) -> tuple[Watch, Drifting]:
    drifting = Drifting(make_device(noise=True))
    how = Watching(every=4, patterns=64) if how is None else how
    watch = Watch(how, Steady(drifting), torch.Generator().manual_seed(3))
    watch.begin()
    return watch, drifting


def test_a_device_that_stays_is_left_alone(make_device: "type[FakeDevice]") -> None:
    watch, drifting = watched(make_device)
    found = watch.check(3, NOISE)
    assert found.remedy is Remedy.NONE
    assert abs(found.share) < 0.03
    assert abs(found.left) < 0.03
    assert drifting.device.spent() == {"drift-check": 3 * 64}
    assert watch.shots == 3 * 64


def test_noise_that_is_not_known_counts_as_drift(
    make_device: "type[FakeDevice]",
) -> None:
    watch, _ = watched(make_device)
    assert watch.check(3, None).share > watch.check(3, NOISE).share


class Faint(Device):
    """Outputs of unequal strength, some of them all noise; the drift is known.

    ``y_k = a_k w_k . (cos phase) + noise``; after a turn w_k is
    ``cos(turn) w_k + sin(turn) v_k`` with v_k orthogonal to w_k and as long, so that
    the mean square change is ``2 - 2 cos(turn)`` of the variance.
    """

    def __init__(self, seed: int) -> None:
        self.draw = torch.Generator().manual_seed(seed)
        self.turn = 0.0
        basis = torch.linalg.qr(torch.randn(24, 24, generator=self.draw).double())[0]
        self.w, self.v = basis[:, :9], basis[:, 9:18]
        strength = [3, 3, 3, 2, 2, 2, 1, 0.1, 0.01]
        self.strength = torch.tensor(strength, dtype=torch.float64)

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
        return 9

    @override
    def __call__(
        self, phase: Tensor, *, category: str, layer: int, step: int
    ) -> Response:
        turn = torch.tensor(self.turn, dtype=torch.float64)
        weight = turn.cos() * self.w + turn.sin() * self.v
        y = self.strength * (phase.double().cos() @ weight)
        noise = torch.randn(y.shape, generator=self.draw, dtype=y.dtype)
        return Response(y + 0.3 * noise, phase, torch.arange(len(phase)))


def test_few_patterns_and_faint_outputs_tell_a_known_drift() -> None:
    noise = torch.full((9,), 0.3**2)
    truth = 2 - 2 * math.cos(0.5)
    still: list[float] = []
    moved: list[float] = []
    for seed in range(100):
        device = Faint(seed)
        watch = Watch(Watching(1, 6), Steady(device), device.draw)
        watch.begin()
        still.append(watch.check(0, noise).share)
        device.turn = 0.5
        moved.append(watch.check(1, noise).share)
    shares = torch.tensor([still, moved])
    mean, spread = shares.mean(dim=1), shares.std(dim=1)
    assert abs(float(mean[0])) < 0.005
    assert float(mean[1]) == pytest.approx(truth, rel=0.15)
    assert float(spread[0]) < 0.02
    assert float(spread[1]) < 0.6 * truth


def test_patterns_that_differ_by_noise_alone_tell_nothing() -> None:
    device = Faint(0)
    device.strength = torch.zeros(9, dtype=torch.float64)
    watch = Watch(Watching(1, 6), Steady(device), device.draw)
    watch.begin()
    found = watch.check(0, torch.full((9,), 9.0))
    assert math.isnan(found.share)
    assert found.remedy is Remedy.NONE


def test_noise_that_a_correction_enlarges_is_no_drift(
    make_device: "type[FakeDevice]",
) -> None:
    how = Watching(every=4, patterns=600)
    watch, drifting = watched(make_device, how)
    drifting.gain = 0.2
    watch.check(3, torch.zeros(5))  # The fake scales its noise with its light.
    found = watch.check(7, torch.full((5,), 200.0))
    assert found.remedy is Remedy.NONE
    assert abs(found.share) < 0.01


def test_after_a_new_first_look_only_what_was_corrected_since_counts(
    make_device: "type[FakeDevice]",
) -> None:
    drifting = Drifting(make_device(noise=True, mean_e=20.0))
    how = Watching(every=4, patterns=600)
    watch = Watch(how, Steady(drifting), torch.Generator().manual_seed(3))
    watch.begin()
    drifting.gain = 0.2
    assert watch.check(3, torch.full((5,), 20.0)).remedy is Remedy.RECENTRE
    watch.begin()
    assert abs(watch.check(7, torch.full((5,), 20.0)).share) < 0.02


def test_noise_without_light_grows_faster_than_that_of_light(
    make_device: "type[FakeDevice]",
) -> None:
    dark = torch.tensor([0.0, 40.0, 240.0, 300.0, 40.0])
    steady = Steady(make_device(), dark)
    noise, one = torch.full((5,), 240.0), torch.ones(5)
    gain = torch.tensor([0.5, 0.5, 0.5, 0.5, 2.0])
    after = steady.noise(noise, one, gain)
    # What is more than there is in all is all that there is.
    assert after.tolist() == [480.0, 400 + 160.0, 960.0, 960.0, 100 + 10.0]
    there = steady.noise(noise, one, gain.sqrt())
    assert torch.allclose(steady.noise(there, gain.sqrt(), gain), after)
    assert torch.allclose(steady.noise(after, gain, one), noise)


def test_noise_of_a_camera_that_a_correction_enlarges_is_no_drift(
    make_device: "type[FakeDevice]",
) -> None:
    class Read(Drifting):
        @override
        def __call__(
            self, phase: Tensor, *, category: str, layer: int, step: int
        ) -> Response:
            found = super().__call__(phase, category=category, layer=layer, step=step)
            return found._replace(y=found.y + 20 * draw(found.y))

    generator = torch.Generator().manual_seed(8)

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    read = Read(make_device())
    steady = Steady(read, torch.full((5,), 400.0))
    how = Watching(every=4, patterns=600)
    watch = Watch(how, steady, torch.Generator().manual_seed(3))
    watch.begin()
    read.gain = 0.3
    assert watch.check(3, torch.full((5,), 400.0)).remedy is Remedy.RECENTRE
    # What repeats would show now: the camera's alone, divided by the gain.
    found = watch.check(7, 400 / steady.gain.square())
    assert found.remedy is Remedy.NONE
    assert abs(found.share) < 0.02


@pytest.mark.parametrize("gain", [0.0, 1e-6, 0.05, -1.0, 20.0])
def test_light_that_is_missing_or_wrong_is_not_corrected(
    make_device: "type[FakeDevice]", gain: float
) -> None:
    watch, drifting = watched(make_device)
    drifting.gain = gain
    assert watch.check(3, NOISE).remedy is Remedy.REFIT
    assert torch.equal(watch.device.gain, torch.ones(5, dtype=torch.float64))


def test_common_drift_is_taken_out_and_nothing_is_forgotten(
    make_device: "type[FakeDevice]",
) -> None:
    watch, drifting = watched(make_device)
    drifting.gain, drifting.offset = 0.7, -20.0
    found = watch.check(3, NOISE)
    assert found.remedy is Remedy.RECENTRE
    assert found.share > 0.05
    assert abs(found.left) < 0.03
    again = watch.check(7, NOISE)
    assert again.remedy is Remedy.NONE
    # On top of the first correction, not in its place.
    drifting.gain, drifting.offset = 0.5, -20.0
    watch.check(11, NOISE)
    assert watch.check(15, NOISE).remedy is Remedy.NONE
    expected = torch.full((5,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(watch.device.gain, expected, rtol=0.1, atol=0)


def test_phases_that_drift_ask_for_a_new_fit(make_device: "type[FakeDevice]") -> None:
    watch, drifting = watched(make_device)
    drifting.turn(0.1)
    small = watch.check(3, NOISE)
    drifting.turn(0.4)
    large = watch.check(7, NOISE)
    assert small.share < large.share
    assert large.remedy is Remedy.REFIT
    assert "fitted again" in str(large)
    # A new reference: what the device is now is where it is compared from.
    watch.begin()
    assert watch.check(7, NOISE).remedy is Remedy.NONE


def test_what_a_correction_would_make_worse_is_not_common() -> None:
    told = str(Finding(0.073, 0.021, Remedy.RECENTRE))
    assert "drift is 7.3 % of the outputs' variance, 2.1 % not common" in told
    worse = str(Finding(0.073, 132.5, Remedy.REFIT))
    assert "7.3 % of the outputs' variance, nothing of it common to all" in worse
    assert "13250" not in worse


@pytest.mark.parametrize(
    ("how", "remedy"),
    [
        (Watching(1, 64, None, None), Remedy.NONE),
        (Watching(1, 64, None, 0.01), Remedy.REFIT),
        (Watching(1, 64, 0.01, None), Remedy.RECENTRE),
        (Watching(1, 64, 0.01, 0.01, stop_above=0.01), Remedy.STOP),
    ],
)
def test_the_protocol_says_what_follows(
    make_device: "type[FakeDevice]", how: Watching, remedy: Remedy
) -> None:
    watch, drifting = watched(make_device, how)
    drifting.gain = 0.7
    assert watch.check(0, NOISE).remedy is remedy


def test_the_first_look_and_every_later_one_are_counted_beforehand() -> None:
    assert Watching(every=4, patterns=10).shots(11) == 10 * (2 + 2)
    assert Watching().shots(11) == 0


def test_looks_are_due_between_steps_and_not_before_the_first(
    make_device: "type[FakeDevice]",
) -> None:
    watch, _ = watched(make_device)
    assert [done for done in range(10) if watch.is_due(done)] == [4, 8]


def test_outputs_are_untouched_until_something_is_corrected(
    make_device: "type[FakeDevice]",
) -> None:
    watch, drifting = watched(make_device)
    assert (watch.device.layout, watch.device.pixels) == ((4, 6), 24)
    phase = torch.ones(2, 24)
    before = drifting.device.shots
    raw = drifting(phase, category="train", layer=0, step=0).y
    drifting.device.shots = before
    assert torch.equal(watch.device(phase, category="train", layer=0, step=0).y, raw)


def test_a_watch_goes_on_from_its_state(make_device: "type[FakeDevice]") -> None:
    watch, drifting = watched(make_device)
    drifting.gain = 0.7
    watch.check(3, NOISE)
    state, shots = watch.state_dict(), drifting.device.shots
    expected = watch.check(7, NOISE)
    other, fresh = watched(make_device)
    fresh.gain, fresh.device.shots = 0.7, shots
    other.load_state_dict(state)
    assert other.finding.remedy is Remedy.RECENTRE
    assert other.check(7, NOISE) == expected
