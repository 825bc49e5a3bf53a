"""What it costs that every device call has a deadline: ratios for the docs.

``make bench`` prints them. With ``LABCTL_WRITE_TABLES=1`` the section of
``docs/reference/reliability.md`` is written anew.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from labctl import bench as benches
from labctl.bench import Bench
from labctl.lane import Lane
from labctl.reservoir import Reservoir

Section = Callable[[str, str, str], None]

SHOTS, ROUNDS, CALLS = 32, 7, 2000
# What a shot of a fast panel and camera takes: settle, expose, read out.
SHOT_S = 0.01


def shortest(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Processor time of all threads: the rounds' least, on a shared computer."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def stepped(bench: Bench) -> tuple[float, float]:
    """Time of a stepped shot (beat, write, trigger, frame, meter), bounded and not."""
    bench.sequence = None
    reservoir = Reservoir(bench)
    source = np.random.default_rng(3)
    phase = torch.from_numpy(source.uniform(0, 6, (SHOTS, reservoir.pixels)))
    bounded = {role: getattr(bench, role) for role in ("slm", "camera", "meter")}

    def expose() -> None:
        reservoir(phase, category="probe")

    best = [math.inf, math.inf]
    for _ in range(ROUNDS):  # by turns, so that both meet the same disturbances
        for kind in range(2):
            for role, device in bounded.items():
                setattr(bench, role, device.driver if kind else device)
            best[kind] = min(best[kind], shortest(expose, 1))
    for role, device in bounded.items():
        setattr(bench, role, device)
    return best[0] / SHOTS, best[1] / SHOTS


@pytest.mark.bench
def test_a_deadline_for_every_call_costs_little(section: Section) -> None:
    lane = Lane("nothing")

    def nothing() -> None:
        return None

    def bounded() -> None:
        for _ in range(CALLS):
            lane.call("nothing", nothing, 10.0)

    call_s = shortest(bounded) / CALLS
    lane.end()
    with benches.open(benches.load("sim-small"), seed=5) as bench:
        with_s, without_s = stepped(bench)
    rows = [
        f"| stepped shot on `sim-small`, bounded over not | {with_s / without_s:.2f} |",
        f"| the four bounded calls, of a shot of 10 ms | {4 * call_s / SHOT_S:.3f} |",
    ]
    section(
        "reliability",
        "What a deadline for every device call costs",
        "Ratios of processor time, by `LABCTL_WRITE_TABLES=1 make bench`; the least of "
        "seven rounds. A stepped shot makes four bounded calls: write, trigger, frame, "
        "reading. Why it is done so: "
        "[decision 9](../explanations/decisions/0009-device-calls-have-deadlines.md)."
        "\n\n| | ratio |\n|---|---|\n" + "\n".join(rows),
    )
    assert with_s < 1.25 * without_s
    assert call_s < SHOT_S / 20
