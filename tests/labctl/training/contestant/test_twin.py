"""A twin learns before the device does, and stands in for it."""

from typing import TYPE_CHECKING

import pytest
import torch

from labctl.training.contestant.twin import (
    Pretraining,
    TwinDevice,
    deploy,
    descend,
    expose,
    fit,
)
from labctl.training.estimator import Trust
from labctl.training.evidence import Probing
from labctl.training.network import (
    DeviceSpec,
    Ends,
    LinearSpec,
    StandardiseSpec,
    build,
)
from labctl.training.readout import Task
from labctl.training.surrogate.fit import Fitter
from labctl.training.surrogate.model import Twin
from labctl.training.surrogate.settings import Ports, SurrogateSettings
from labctl.training.surrogate.twin_modes import TwinModes
from labctl.training.trainer import Optimisation, Parts, Samples, Settings, Trainer

if TYPE_CHECKING:
    from tests.labctl.training.conftest import FakeDevice

QUIET = Probing(
    dither_rad=(0.0, 0.0),
    paired_per_step=0,
    held_out_per_step=0,
    noise_repeats=0,
)


def _trainer(device: "FakeDevice", *, fitted: bool = True) -> Trainer:
    device.dtype = torch.float32
    device.__post_init__()
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(80, 4, generator=generator)
    train = Samples(x, ((x[:, 0] > 0.5) ^ (x[:, 3] > 0.5)).long())
    specs = (DeviceSpec(), StandardiseSpec(), LinearSpec())
    network = build(specs, Ends(4, 2), device=device, generator=generator)
    settings = SurrogateSettings("twin-modes", fits_per_step=0, learning_rate=1e-2)
    twin = TwinModes(
        Ports(device.pixels, device.outputs), modes=16, generator=generator
    )
    fitter = Fitter(twin, settings, generator) if fitted else None
    return Trainer(
        Parts(network, device, lambda _noise: Trust(twin), fitter),
        train,
        Settings(Task("classification", 2), 0, Optimisation(batch=16), QUIET),
        generator=generator,
    )


def test_pretraining_books_its_exposures_and_brings_the_twin_near(
    device: "FakeDevice",
) -> None:
    trainer = _trainer(device)
    trainer.prepare()
    fitter = trainer.parts.fitter
    assert fitter is not None
    phase = torch.rand(50, device.pixels) * 0.6
    true = device.clean(phase)

    def error() -> float:
        twin = fitter.answering
        assert isinstance(twin, Twin)
        with torch.no_grad():
            return float((twin(phase) - true).square().mean())

    before = error()
    how = Pretraining(samples=200, rms_rad=1.0, fits=300)
    expose(trainer, how)
    assert error() == before
    fit(trainer, how)
    assert device.spent() == {"warm-up": 80 + 200}
    assert trainer.evidence.shots == 280
    assert error() < 0.5 * before


def test_deploying_costs_one_pass_and_lowers_the_loss(device: "FakeDevice") -> None:
    trainer = _trainer(device)
    trainer.prepare()
    split, network = trainer.train, trainer.parts.network

    def loss() -> float:
        hidden = trainer.features(split)
        answer = network.finish(hidden)
        return float(trainer.settings.task.loss(answer, split.y).detach())

    how = Pretraining(samples=400, rms_rad=1.0, fits=400)
    expose(trainer, how)
    fit(trainer, how)
    before, theta = loss(), network.theta()[0].detach().clone()
    device.calls.clear()
    descend(trainer, 150)
    assert device.spent() == {}
    deploy(trainer)
    assert device.spent() == {"train": len(split)}
    assert not torch.equal(theta, network.theta()[0])
    assert network.device_layers[0].device is device
    assert loss() < before


def test_without_a_twin_both_are_refused(device: "FakeDevice") -> None:
    trainer = _trainer(device, fitted=False)
    trainer.prepare()
    with pytest.raises(ValueError, match="expected a twin"):
        expose(trainer, Pretraining(10, 1.0, 1))
    with pytest.raises(TypeError, match="needs a twin"):
        descend(trainer, 1)


def test_without_a_head_nothing_is_deployed(device: "FakeDevice") -> None:
    trainer = _trainer(device)
    trainer.parts.network.layers[-1] = torch.nn.Identity()
    with pytest.raises(ValueError, match="needs a linear layer at the end"):
        deploy(trainer)


def test_a_twin_as_a_device_has_no_shot_numbers() -> None:
    twin = TwinModes(Ports(12, 5), modes=3, generator=torch.Generator())
    twin.calibrate(torch.rand(4, 5))
    device = TwinDevice(twin, (3, 4))
    answer = device(torch.zeros(2, 12), category="train", layer=0, step=0)
    assert (device.pixels, device.outputs, device.layout) == (12, 5, (3, 4))
    assert answer.y.shape == (2, 5)
    assert answer.shot.tolist() == [-1, -1]
    assert not answer.y.requires_grad
