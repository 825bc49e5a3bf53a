"""The error at the end reaches the phase by a fixed matrix."""

import pytest
import torch

from labctl.training import network
from labctl.training.blackbox import Exposure, Response
from labctl.training.contestant.dfa import DirectFeedback

PIXELS, CLASSES = 12, 4


def _model() -> network.Network:
    return network.Network([torch.nn.Linear(5, CLASSES)])


def _exposure(layer: int) -> Exposure:
    shown = torch.zeros(3, PIXELS)
    return Exposure(
        layer, 0, "train", Response(torch.zeros(3, 5), shown, torch.arange(3))
    )


def test_the_error_is_projected_and_the_cotangent_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network.Network, "device_layers", [0, 1])
    model = _model()
    estimate = DirectFeedback(
        model,
        outputs=CLASSES,
        pixels=PIXELS,
        generator=torch.Generator().manual_seed(0),
    )
    answer = model(torch.ones(3, 5))
    weight = torch.arange(12.0).reshape(3, CLASSES)
    torch.autograd.backward((answer * weight).sum())
    for layer in (0, 1):
        found = estimate(_exposure(layer), torch.full((3, 5), torch.nan))
        assert torch.allclose(found, weight @ estimate.feedback[layer])
    assert not torch.equal(estimate.feedback[0], estimate.feedback[1])


def test_without_a_backward_pass_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.Network, "device_layers", [0])
    estimate = DirectFeedback(
        _model(), outputs=CLASSES, pixels=PIXELS, generator=torch.Generator()
    )
    with pytest.raises(RuntimeError, match="no error yet"):
        estimate(_exposure(0), torch.zeros(3, 5))


def test_the_matrices_are_in_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.Network, "device_layers", [0])
    one, two = (
        DirectFeedback(
            _model(),
            outputs=CLASSES,
            pixels=PIXELS,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (0, 1)
    )
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.feedback, two.feedback)
