"""How fast light crosses the simulated medium: ratios for the docs.

Every way of crossing runs in one process of one thread, in turns, and is compared
with complex128 before it is timed. ``make bench`` prints the tables; with
``LABCTL_WRITE_TABLES=1`` they are written into
``docs/reference/simulated-bench-speed.md``.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labctl.optics.fused.build import Built
from labctl.optics.fused.library import Library

Section = Callable[[str, str, str], None]

CHILD = Path(__file__).with_name("propagation.py")
PAGE = "simulated-bench-speed"
SIZES = {64: 8, 128: 4, 256: 1}
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
        side: run(tmp_path, "contest", "--side", str(side), "--count", str(count))
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
    for each in found.values():
        shots = each["shots"]
        assert {"torch", "fused"} <= set(shots)
        floors = {("torch", "torchoptics"): 2.0, ("torch", "LightPipes"): 2.0}
        floors |= {("torch", "naive torch"): 2.0, ("torch", "NLSE"): 1.8}
        if Library(compiled.path).lanes == 16:
            floors |= {("fused", "JAX"): 2.0, ("fused", "FFTW only"): 1.0}
        for (ours, other), floor in floors.items():
            if other in shots:
                assert shots[ours] / shots[other] >= floor, (ours, other)


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


@pytest.mark.bench
def test_two_processes_do_nearly_twice_as_much(
    compiled: Built,  # noqa: ARG001 - skips where there is none
    section: Section,
    tmp_path: Path,
) -> None:
    lines = ["| kernel | two processes over one |", "|---|---|"]
    ratios = []
    for kernel in ("torch", "fused"):
        words = ("alone", "--kernel", kernel, "--rounds", "15")
        one = run(tmp_path, *words)["alone"]
        pair = [started(tmp_path, *words) for _ in range(2)]
        ratios.append(sum(result(child)["alone"] for child in pair) / one)
        lines.append(f"| {kernel} | {ratios[-1]:.2f} |")
    text = "Shots per CPU second, of both processes together.\n\n" + "\n".join(lines)
    section(PAGE, "Two processes on two cores", text)
    assert min(ratios) > 1.6


@pytest.mark.bench
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much it takes")
def test_memory_of_a_crossing_is_a_few_fields(
    compiled: Built,  # noqa: ARG001 - skips where there is none
    section: Section,
    tmp_path: Path,
) -> None:
    lines = ["| kernel | fields |", "|---|---|"]
    for kernel in ("torch", "fused"):
        fields = run(tmp_path, "memory", "--kernel", kernel)["fields"]
        lines.append(f"| {kernel} | {fields:.1f} |")
        assert fields < 14
    text = (
        "Most memory that crossing one field takes beside it, in fields of the same "
        "size (8 bytes a point); the result is one of them. Torch needs it for each "
        "field of a chunk, which has at most 16 fields and 32,768 points (or one "
        "field); the compiled kernel needs its result for each field of a chunk and "
        "the rest once.\n\n" + "\n".join(lines)
    )
    section(PAGE, "Memory", text)
