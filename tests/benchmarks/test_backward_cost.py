"""What a gradient costs: each surrogate beside a Jacobian that is measured.

``make bench`` prints it. With ``LABCTL_WRITE_TABLES=1`` the section of
``docs/reference/comparison.md`` is written anew.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Final, get_args

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from labctl import bench
from labctl.run import model
from labctl.training.surrogate.build import build
from labctl.training.surrogate.settings import Ports, SurrogateName, SurrogateSettings

Section = Callable[[str, str, str], None]
BENCH: Final = "sim-small"
BATCH, ROUNDS = 64, 15
MATRIX: Final = "a measured Jacobian, one a pattern"
SHOTS: Final = 10_000
"""Of a training in the tables of the page."""


def fourier(shape: object, *args: object, out_shape: object = None) -> int:
    """Count a Fourier transform over two axes, of which PyTorch knows no count."""
    del args, out_shape
    assert isinstance(shape, (tuple, torch.Size))
    *some, rows, columns = shape
    points = rows * columns
    return round(5 * math.prod(some) * points * math.log2(points))


COUNTED: Final = {torch.ops.aten._fft_c2c: fourier}


def ports_of(settings: SurrogateSettings) -> Ports:
    file = bench.load(BENCH).file
    return model.ports(file, file.reservoir, settings)


def operations(answer: Callable[[], Tensor]) -> int:
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        answer()
    return int(counter.get_total_flops())


@pytest.mark.bench
def test_a_gradient_of_a_surrogate_beside_a_measured_jacobian(section: Section) -> None:
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    settings = [SurrogateSettings(name=name) for name in get_args(SurrogateName)]
    ports = [ports_of(each) for each in settings]
    pixels, outputs = ports[0].pixels, ports[0].outputs
    cotangent = torch.randn(BATCH, outputs, generator=draw)
    phase = 6 * torch.rand(BATCH, pixels, generator=draw)
    # A Jacobian of its own for each pattern, as probes along every macropixel give it.
    measured = torch.randn(BATCH, outputs, pixels, generator=draw)

    answers: dict[str, Callable[[], Tensor]] = {
        MATRIX: lambda: torch.bmm(cotangent[:, None], measured).squeeze(1)
    }
    weights = {MATRIX: pixels * outputs}
    for each, own in zip(settings, ports, strict=True):
        surrogate = build(each, own, draw)
        surrogate.calibrate(torch.rand(BATCH, outputs, generator=draw))
        answers[each.name] = partial(surrogate.vjp, cotangent, phase)
        weights[each.name] = sum(p.numel() for p in surrogate.parameters()) or sum(
            buffer.numel() for buffer in surrogate.buffers()
        )
    spent: dict[str, list[float]] = {name: [] for name in answers}
    for _ in range(ROUNDS):
        for name, answer in answers.items():
            start_s = time.perf_counter()
            answer()
            spent[name].append(time.perf_counter() - start_s)

    base_s = median(spent[MATRIX])
    rows = []
    for name, answer in answers.items():
        per = operations(answer) / BATCH
        ratio = median(spent[name]) / base_s
        rows.append(f"| {name} | {weights[name]:,} | {per:,.0f} | {ratio:.1f} |")
    section(
        "comparison",
        "What a gradient costs",
        f"`{BENCH}`: {pixels} macropixels, {outputs} outputs, surrogates with their "
        "default sizes. Operations are those of matrix products and Fourier "
        "transforms for one vector-Jacobian product; the time of a batch of "
        f"{BATCH} is told in units of the first row's, median of {ROUNDS} rounds on "
        f"one thread. A Jacobian is measured with {pixels + 1} shots, and again for "
        "every pattern and whenever `theta` moves: with the "
        f"{SHOTS:,} shots of a whole training it is known at {SHOTS // (pixels + 1)} "
        "patterns. So what a surrogate saves is shots; its arithmetic is dearer than "
        "the product with a matrix that is there. Fits are not in the table, their "
        "seconds are in the tables above (*digital s*). Made by "
        "`LABCTL_WRITE_TABLES=1 pytest tests/benchmarks/test_backward_cost.py -m "
        "bench`.\n\n"
        "| backward pass | weights | operations a gradient | time |\n"
        "|---|---|---|---|\n" + "\n".join(rows),
    )
    assert SHOTS // (pixels + 1) < BATCH
