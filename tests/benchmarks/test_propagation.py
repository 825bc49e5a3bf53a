"""How fast light crosses the simulated medium: ratios for the docs.

Every way of crossing runs in one process of one thread, in turns, and is compared
with complex128 before it is timed. ``make bench`` prints the tables; with
``LABCTL_WRITE_TABLES=1`` they are written into
``docs/reference/simulated-bench-speed.md``.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from labctl.optics.fused.build import Built
from labctl.optics.fused.library import Library

Section = Callable[[str, str, str], None]

CHILD = Path(__file__).with_name("propagation.py")
PAGE = "simulated-bench-speed"
SIZES = {64: 16, 128: 16, 256: 4}
# Shots per CPU second of one way over those of another, on every grid. The compiled
# kernel's are those of registers of 512 bits.
FLOORS = {
    ("torch", "naive torch"): 3.0,
    ("torch", "torchoptics"): 5.0,
    ("torch", "LightPipes"): 4.5,
    ("torch", "NLSE"): 2.0,
    ("fused", "FFTW only"): 1.4,
    ("fused", "JAX"): 3.0,
    ("fused", "NLSE"): 10.0,
    ("fused", "torchoptics"): 25.0,
    ("fused", "LightPipes"): 25.0,
}
WIDE = 16
ROUNDS = 24
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}


def started(folder: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, str(CHILD), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,  # one of the ways writes files where it runs
        env={**os.environ, **ONE_THREAD},
    )


def result(child: "subprocess.Popen[str]") -> dict[str, Any]:
    out, _ = child.communicate()
    assert child.returncode == 0
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def run(folder: Path, *words: str) -> dict[str, Any]:
    return result(started(folder, *words))


@pytest.mark.bench
def test_torch_and_the_compiled_kernel_against_other_ways(
    compiled: Built, section: Section, tmp_path: Path
) -> None:
    found = {
        side: run(
            tmp_path,
            *("contest", "--side", str(side), "--count", str(count), "--rounds", "21"),
        )
        for side, count in SIZES.items()
    }
    names = list(found[64]["shots"])
    lines = [
        "| way | "
        + " | ".join(f"{s} x {s}" for s in SIZES)
        + " | error at 128 x 128 |",
        "|---|" + "---|" * (len(SIZES) + 1),
    ]
    for name in names:
        cells = " | ".join(
            f"{f['shots'][name] / f['shots']['torch']:.2g}"
            if name in f["shots"]
            else "–"
            for f in found.values()
        )
        error = found[128]["errors"].get(name)
        told = "no physics" if error is None else f"{error:.0e}"
        lines.append(f"| {name} | {cells} | {told} |")
    rates = ", ".join(f"{f['shots']['torch']:.0f}" for f in found.values())
    lines.append(f"\nShots per CPU second of torch in the same run: {rates}.")
    if found[64]["absent"]:
        lines.append(f"Not there: {', '.join(found[64]['absent'])}.")
    section(PAGE, "One thread, shots per CPU second over torch's", "\n".join(lines))
    wide = Library(compiled.path).lanes == WIDE
    for side, each in found.items():
        shots = each["shots"]
        assert {"torch", "fused"} <= set(shots)
        for (ours, other), floor in FLOORS.items():
            if other in shots and (wide or ours == "torch"):
                assert shots[ours] / shots[other] >= floor, (side, ours, other)


@pytest.mark.bench
def test_growth_with_batch_grid_and_steps(
    compiled: Built,  # noqa: ARG001 - skips where there is none
    section: Section,
    tmp_path: Path,
) -> None:
    found = {
        name: run(tmp_path, "growth", "--kernel", name) for name in ("torch", "fused")
    }
    lines = ["| case | torch | fused |", "|---|---|---|"]
    for case in found["torch"]:
        cells = [each[case] / each["batch 8"] for each in found.values()]
        lines.append(f"| {case} | {cells[0]:.2g} | {cells[1]:.2g} |")
    text = (
        "Shots per CPU second over those of a batch of 8 on 64 x 64 in 16 steps, from "
        "which each case differs in what it names.\n\n" + "\n".join(lines)
    )
    section(PAGE, "Growth", text)
    for each in found.values():
        assert each["batch 64"] > 0.7 * each["batch 8"]
        assert each["8 steps"] > 1.4 * each["batch 8"] > 2 * each["32 steps"]


class Worker:
    """A process that crosses the same fields whenever it is told to."""

    def __init__(self, folder: Path, kernel: str) -> None:
        words = ("alone", "--kernel", kernel)
        self._child = started(folder, *words)
        assert self._child.stdout is not None
        assert self._child.stdin is not None
        self._asked, self._told = self._child.stdin, self._child.stdout
        assert self._told.readline() == "ready\n"

    def start(self) -> None:
        self._asked.write("go\n")
        self._asked.flush()

    def taken(self) -> tuple[float, float]:
        wall_s, cpu_s = json.loads(self._told.readline())
        return float(wall_s), float(cpu_s)

    def end(self) -> None:
        self._asked.close()
        self._told.close()
        assert self._child.wait() == 0


def scaling(folder: Path, kernel: str) -> NDArray[np.float64]:
    """Work of two processes over that of one, by clock and by processor time.

    Quartiles over the rounds, ``(quartile, time)``: in each one process and two have
    the same moment of a computer that others use as well.
    """
    workers = [Worker(folder, kernel) for _ in range(2)]
    gained = []
    for _ in range(ROUNDS):
        spent = []
        for count in (1, 2):
            asked = workers[:count]
            for worker in asked:
                worker.start()
            spent.append(np.max([worker.taken() for worker in asked], axis=0))
        gained.append(2 * spent[0] / spent[1])
    for worker in workers:
        worker.end()
    return np.asarray(np.percentile(gained, [25, 50, 75], axis=0))


@pytest.mark.bench
def test_two_processes_do_nearly_twice_as_much(
    compiled: Built,  # noqa: ARG001 - skips where there is none
    section: Section,
    tmp_path: Path,
) -> None:
    found = {kernel: scaling(tmp_path, kernel) for kernel in ("torch", "fused")}
    lines = ["| kernel | by the clock | by processor time |", "|---|---|---|"]
    for name, quartiles in found.items():
        cells = [f"{mid:.2f} ({low:.2f} to {top:.2f})" for low, mid, top in quartiles.T]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    text = (
        "Fields of two processes in the time of one: 256 fields of 64 x 64 each, one "
        f"process and two in turns, the median of {ROUNDS} rounds and the quartiles. "
        "By the clock it needs two cores that nobody else uses; by processor time it "
        "shows what is left when both work, caches and memory shared. Load of the "
        f"computer at the end: {load}, on {os.cpu_count()} cores.\n\n"
    )
    section(PAGE, "Two processes on two cores", text + "\n".join(lines))
    assert min(quartiles[1, 1] for quartiles in found.values()) > 1.6


@pytest.mark.bench
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much it takes")
def test_memory_of_a_crossing_is_a_few_fields(
    compiled: Built,  # noqa: ARG001 - skips where there is none
    section: Section,
    tmp_path: Path,
) -> None:
    found = {
        name: run(tmp_path, "memory", "--kernel", name) for name in ("torch", "fused")
    }
    sides = list(found["torch"]["allocated"])
    head = " | ".join(f"{side} x {side}" for side in sides)
    lines = [
        f"| kernel | {head} | resident, 1024 x 1024 |",
        "|---|" + "---|" * (len(sides) + 1),
    ]
    for name, each in found.items():
        cells = " | ".join(f"{fields:.1f}" for fields in each["allocated"].values())
        lines.append(f"| {name} | {cells} | {each['resident']['1024']:.1f} |")
        assert max(each["allocated"].values()) < 8
        assert each["resident"]["1024"] < 14
    text = (
        "Most memory that crossing takes beside the fields, in fields of the "
        "same size (8 bytes a point): what torch allocates for a chunk, for each field "
        "of it, and what the system sees of one large field. The result is one of "
        "them. A chunk has at most 16 fields and 32,768 points, or one field; so more "
        "fields take no more than this and their results.\n\n" + "\n".join(lines)
    )
    section(PAGE, "Memory", text)


@pytest.mark.bench
def test_noise_costs_less_than_propagation(
    compiled: Built,  # noqa: ARG001 - skips where there is none
    section: Section,
    tmp_path: Path,
) -> None:
    found = run(tmp_path, "shot", "--rounds", "15")
    medium = {name: found[f"medium, {name}"] for name in ("torch", "fused")}
    lines = ["| part of a shot of `sim` | torch | fused |", "|---|---|---|"]
    for name in ("medium", "panel and beam", "lens", "noise", "whole"):
        cells = [
            found.get(f"{name}, {kernel}", found.get(name, math.nan)) / crossing
            for kernel, crossing in medium.items()
        ]
        lines.append(f"| {name} | {cells[0]:.2g} | {cells[1]:.2g} |")
    rates = ", ".join(f"{1e6 / found[f'whole, {name}']:.0f}" for name in medium)
    text = (
        "CPU time over that of the medium, for a settled panel, everything on, played "
        "as a sequence by the drivers (no guard, no record). The whole is more than "
        "its parts: the liquid crystal, identities and times of each frame are in "
        "it. Noise takes a normal and a uniform number for every pixel.\n\n"
        f"{chr(10).join(lines)}\n\n"
        f"Whole shots per CPU second: {rates}."
    )
    section(PAGE, "A whole shot", text)
    assert found["noise"] < 0.4 * medium["torch"]
    # As dear as the compiled kernel, whose ratio to it varies from run to run.
    assert found["noise"] < 1.5 * medium["fused"]
