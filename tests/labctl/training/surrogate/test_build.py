import dataclasses
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Generator

from labctl import protocol
from labctl.optics.fused.build import Built
from labctl.optics.kernel import Choice, Kernel
from labctl.training.surrogate.build import BUILDERS, build, kernel_of, weights
from labctl.training.surrogate.settings import (
    FitTerm,
    OpticalLayout,
    Ports,
    SurrogateName,
    SurrogateSettings,
    TermName,
)


def test_settings_have_the_fields_and_defaults_of_the_protocol() -> None:
    ours = {
        field.name: field.default for field in dataclasses.fields(SurrogateSettings)
    }
    theirs = protocol.SurrogateEntry(name="dense").model_dump()
    assert list(ours) == list(theirs)
    del ours["name"], theirs["name"]
    assert {**ours, "loss": list(SurrogateSettings("dense").loss)} == theirs


def test_names_are_those_of_the_protocol() -> None:
    entry: Any = protocol.SurrogateEntry.model_fields["name"].annotation
    term: Any = protocol.FitLoss.model_fields["name"].annotation
    assert set(BUILDERS) == set(get_args(SurrogateName)) == set(get_args(entry))
    assert set(get_args(TermName)) == set(get_args(term))
    fields = [field.name for field in dataclasses.fields(FitTerm)]
    assert fields == list(protocol.FitLoss.model_fields)


PORTS = Ports(
    6, 4, layout=(2, 3), optics=OpticalLayout((4, 6), 2, 0.1, (0, 0, 4, 6), (2, 2))
)


@pytest.mark.parametrize("name", list(BUILDERS))
def test_start_depends_on_the_generator_alone(name: SurrogateName) -> None:
    settings = SurrogateSettings(name, width=8, rank=3, modes=6)
    before = torch.random.get_rng_state()
    one, two = (build(settings, PORTS, Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    for left, right in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("name", get_args(SurrogateName))
def test_weights_are_counted_before_they_are_made(name: SurrogateName) -> None:
    settings = SurrogateSettings(name, width=40, depth=3, rank=5, modes=30)
    made = build(settings, PORTS, Generator().manual_seed(0))
    held = sum(part.numel() for part in made.state_dict().values())
    assert 0.4 < weights(settings, PORTS) / held < 2.5
    wide = Ports(40_000, 900, layout=(200, 200), optics=PORTS.optics)
    greedy = replace(settings, width=10**7, rank=10**5, modes=10**7, reach=900.0)
    if name != "twin-optics":  # bounded by the panel
        with pytest.raises(
            ValueError, match=rf"{name} would have .* weights, expected"
        ):
            build(greedy, wide, Generator())


def test_refuses_an_unknown_model() -> None:
    settings = SurrogateSettings("dense")
    # Around the check of the annotations, which runs in tests only.
    object.__setattr__(settings, "name", "twin-mode")
    with pytest.raises(ValueError, match="name='twin-mode', expected one of jacobian"):
        build(settings, Ports(6, 4), Generator().manual_seed(0))


def test_refuses_a_card_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = SurrogateSettings("twin-modes", device="cuda")
    text = r"surrogate: device='cuda': torch .* no CUDA device, .* set device: cpu"
    with pytest.raises(ValueError, match=text):
        build(settings, PORTS, Generator())


OPTICAL = Ports(
    64, 4, layout=(8, 8), optics=OpticalLayout((16, 16), 2, 0.1, (0, 0, 16, 16), (2, 2))
)


def test_the_compiled_kernel_is_that_of_twin_optics_on_the_processor(
    compiled: Built,
) -> None:
    def taken(name: SurrogateName, wanted: Kernel, ports: Ports = OPTICAL) -> Choice:
        return kernel_of(SurrogateSettings(name, kernel=wanted), ports)

    assert taken("twin-optics", "torch") == Choice("torch")
    for wanted in ("fused", "auto"):
        assert taken("twin-optics", wanted) == Choice("fused", compiled.key)
    # Who asks for it where there is a kernel takes nothing amiss where there is none.
    assert taken("twin-pairs", "auto") == Choice("torch")
    text = r"kernel='fused' with name=twin-pairs and device=cpu, expected twin-optics"
    with pytest.raises(ValueError, match=text):
        build(SurrogateSettings("twin-pairs", kernel="fused"), OPTICAL, Generator())
    odd = taken("twin-optics", "auto", PORTS)
    assert odd.kernel == "torch"
    assert "grid=[4, 6], expected powers of two" in odd.note
    with pytest.raises(ValueError, match=r"surrogate: kernel='fused': .*grid=\[4, 6\]"):
        build(SurrogateSettings("twin-optics", kernel="fused"), PORTS, Generator())


def test_the_compiled_kernel_does_nothing_on_a_card() -> None:
    settings = SurrogateSettings("twin-optics", kernel="auto", device="cuda")
    assert kernel_of(settings, OPTICAL) == Choice("torch")
    with pytest.raises(ValueError, match="device=cuda, expected twin-optics on cpu"):
        kernel_of(replace(settings, kernel="fused"), OPTICAL)
