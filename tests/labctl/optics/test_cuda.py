"""Crossing on a CUDA device; most of it is told on the processor, by a stand-in."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import pytest
import torch
from torch import Tensor

from labctl.optics import cuda, harmonic, scatterer
from labctl.optics.medium import SaturableKerr, SecondHarmonic, ThickScatterer
from labctl.optics.propagation import Crossing, plan, propagate

SHAPE = (16, 24)


def media() -> dict[str, Crossing]:
    kerr = SaturableKerr(b=3.0, saturation=1.0, steps=4, edge=1.0, loss=0.2)
    screen = 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    pair = SecondHarmonic(kappa=1.0, steps=4, edge=1.0)
    domains = torch.ones((2, *SHAPE), dtype=torch.float64)
    phase = torch.rand((2, *SHAPE), generator=torch.Generator().manual_seed(2))
    normal = torch.randn((2, 384, 384), generator=torch.Generator().manual_seed(3))
    return {
        "kerr": plan(kerr, SHAPE, 2.0, screens={0.5: screen}),
        "pair": harmonic.plan(pair, SHAPE, 2.0, domains=domains),
        "structured": scatterer.plan(
            ThickScatterer(), SHAPE, *[scatterer.structured(phase)] * 2
        ),
        "dense": scatterer.plan(
            ThickScatterer(), SHAPE, *[scatterer.dense(normal)] * 2
        ),
    }


MEDIA = media()


def some_fields(count: int) -> Tensor:
    source = torch.Generator().manual_seed(4)
    return torch.randn((count, *SHAPE), dtype=torch.complex64, generator=source)


class StandIn:
    """Records as a graph does, on the processor: one shape, its own memory."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, work: cuda.Work, example: Tensor) -> cuda.Work:
        self.recorded += 1
        given, made = example.detach().clone(), work(example)

        def replay(field: Tensor) -> Tensor:
            self.replayed += 1
            given.copy_(field)
            made.copy_(work(given))
            return made.clone()

        return replay


def tensors(part: object) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, tuple):
        for each in part:
            yield from tensors(each)
    elif is_dataclass(part):
        for each in fields(part):
            yield from tensors(getattr(part, each.name))


def test_without_a_device_it_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device='cuda': torch .* set device: cpu"):
        cuda.device_of("cuda")
    assert cuda.device_of("cpu") == torch.device("cpu")


@pytest.mark.parametrize("medium", MEDIA)
def test_every_table_of_a_medium_is_moved(medium: str) -> None:
    # The meta device is everywhere, and holds no numbers.
    there = cuda.moved(MEDIA[medium], torch.device("meta"))
    kept, moved = list(tensors(MEDIA[medium])), list(tensors(there))
    assert len(kept) == len(moved) > 1
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert [tensor.shape for tensor in moved] == [tensor.shape for tensor in kept]
    assert there.chunk == MEDIA[medium].chunk


@pytest.mark.parametrize("medium", MEDIA)
def test_whole_chunks_are_replayed_and_others_cross_plainly(medium: str) -> None:
    ready, record = MEDIA[medium], StandIn()
    recorded = cuda.Recorded(ready, SHAPE, record)
    assert recorded.chunk == cuda.FIELDS
    given = some_fields(2 * cuda.FIELDS + 5)
    with torch.no_grad():
        seen = propagate(given, recorded)
        assert torch.equal(seen, propagate(given, ready))
    assert (record.recorded, record.replayed) == (1, 2)


def test_what_is_replayed_is_not_written_over_by_the_next() -> None:
    recorded = cuda.Recorded(MEDIA["kerr"], SHAPE, StandIn())
    given = some_fields(cuda.FIELDS)
    with torch.no_grad():
        first = recorded.through(given)
        kept = first.clone()
        assert not torch.equal(recorded.through(given.flip(0)), kept)
    assert torch.equal(first, kept)


def test_a_large_grid_is_crossed_in_smaller_chunks() -> None:
    large = cuda.Recorded(MEDIA["kerr"], (512, 1024), StandIn())
    assert large.chunk == 8


def test_gradients_are_those_of_the_medium() -> None:
    record = StandIn()
    recorded = cuda.Recorded(MEDIA["kerr"], SHAPE, record)
    given, slopes = some_fields(cuda.FIELDS).requires_grad_(), []
    for crossing in (recorded, MEDIA["kerr"]):
        (pulled,) = torch.autograd.grad(crossing.through(given).abs().sum(), given)
        slopes.append(pulled)
    assert record.recorded == 0
    assert torch.equal(*slopes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("medium", MEDIA)
def test_a_graph_gives_what_the_processor_gives(medium: str) -> None:
    there = torch.device("cuda")
    ready = cuda.moved(MEDIA[medium], there)
    recorded = cuda.Recorded(ready, SHAPE, cuda.graph)
    given = some_fields(2 * cuda.FIELDS)
    with torch.no_grad():
        seen = propagate(given.to(there), recorded)
        want = propagate(given, MEDIA[medium])
        swapped = propagate(given.flip(0).to(there), recorded)
    assert (seen.cpu() - want).abs().max() < 2e-4 * want.abs().max()
    # Where a field is in a chunk changes no bit of it.
    assert torch.equal(swapped.flip(0), seen)
