"""Which kernel is taken, and when none but torch is."""

import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from labctl.optics import harmonic, kernel
from labctl.optics.fused import build
from labctl.optics.fused.build import Built
from labctl.optics.fused.crossing import Derivatives, FusedMedium
from labctl.optics.fused.library import Library
from labctl.optics.fused.plan import FusedPlan
from labctl.optics.medium import SaturableKerr, SecondHarmonic
from labctl.optics.propagation import Plan, plan, propagate

SHAPE = (16, 32)


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    """No test loads the library of the one before."""
    kernel.loaded.cache_clear()
    yield
    kernel.loaded.cache_clear()


@pytest.fixture
def ready() -> Plan:
    return plan(SaturableKerr(b=3.0, saturation=1.0), SHAPE, 4.0)


def test_torch_is_taken_without_a_look_at_compilers(
    ready: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    chosen = kernel.choose(ready, "torch")
    assert chosen.crossing is ready
    assert (chosen.kernel, chosen.build, chosen.note) == ("torch", "", "")


@pytest.mark.parametrize("wanted", ["fused", "auto"])
def test_the_compiled_kernel_is_taken_and_named_to_the_bit(
    ready: Plan, compiled: Built, wanted: kernel.Kernel
) -> None:
    chosen = kernel.choose(ready, wanted)
    assert isinstance(chosen.crossing, FusedPlan)
    assert chosen.crossing.chunk == ready.chunk
    assert (chosen.kernel, chosen.build, chosen.note) == ("fused", compiled.key, "")


def test_without_a_compiler_fused_is_refused_and_auto_says_why(
    ready: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"kernel='fused': no C\+\+ .* kernel: auto"):
        kernel.choose(ready, "fused")
    chosen = kernel.choose(ready, "auto")
    assert chosen.crossing is ready
    assert chosen.kernel == "torch"
    assert "no-such-compiler" in chosen.note


def test_media_that_it_does_not_know_are_torchs() -> None:
    pair = harmonic.plan(SecondHarmonic(kappa=1.0), SHAPE, 4.0)
    with pytest.raises(ValueError, match="crosses Kerr media and free space only"):
        kernel.choose(pair, "fused")
    assert kernel.choose(pair, "auto").crossing is pair
    odd = plan(SaturableKerr(b=3.0), (16, 24), 4.0)
    assert "powers of two" in kernel.choose(odd, "auto").note


def test_a_kernel_that_computes_something_else_is_not_taken(
    ready: Plan, compiled: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel.disagreement(Library(compiled.path)) < 1e-5
    through = FusedPlan.through
    monkeypatch.setattr(
        FusedPlan, "through", lambda plan, field: through(plan, field) * 1.001
    )
    with pytest.raises(ValueError, match=r"differs from torch by 1\.0e-03"):
        kernel.choose(ready, "fused")


def test_a_kernel_that_comes_back_another_way_is_not_taken(
    ready: Plan,
    compiled: Built,  # noqa: ARG001 - skips where there is none
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back = FusedMedium.back

    def wrong(
        medium: FusedMedium, gradient: Tensor, course: Tensor, *, inner: bool
    ) -> Derivatives:
        found = back(medium, gradient, course, inner=inner)
        assert found.length is not None
        return found._replace(length=1.01 * found.length)

    monkeypatch.setattr(FusedMedium, "back", wrong)
    with pytest.raises(ValueError, match=r"differs from torch by 1\.0e-02"):
        kernel.choose(ready, "fused")


def test_a_damaged_library_is_named(
    ready: Plan, compiled: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = compiled.path.with_name("damaged.so")
    damaged.write_bytes(b"half a library")
    monkeypatch.setattr(build, "built", lambda: Built(damaged, compiled.key))
    with pytest.raises(ValueError, match=r"damaged\.so.* Delete it"):
        kernel.choose(ready, "fused")


def held_bytes(work: Callable[[], object], trace: Path) -> int:
    """Most that torch held at once beside what it held before."""
    with torch.profiler.profile(profile_memory=True) as seen:
        work()
    seen.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    told = [each["args"] for each in events if each.get("name") == "[memory]"]
    return max(itertools.accumulate(int(each["Bytes"]) for each in told))


@pytest.mark.parametrize(("wanted", "most"), [("torch", 7.5), ("fused", 2.5)])
def test_a_crossing_holds_a_few_fields_for_each_of_a_chunk(
    compiled: Built,  # noqa: ARG001 - skips where there is none
    tmp_path: Path,
    wanted: kernel.Kernel,
    most: float,
) -> None:
    for shape in ((32, 64), (128, 256)):
        medium = SaturableKerr(b=3.0, saturation=1.0, steps=4, edge=1.0)
        crossing = kernel.choose(plan(medium, shape, 4.0), wanted).crossing
        one = torch.randn((crossing.chunk, *shape), dtype=torch.complex64)
        many = one.repeat(4, 1, 1)
        for field, beside in ((one, 0), (many, 2 * many.nbytes)):
            with torch.no_grad():
                held = held_bytes(
                    partial(propagate, field, crossing),
                    tmp_path / "trace.json",
                )
            # Of more than a chunk, the results stand twice while they are joined.
            assert held < most * one.nbytes + beside, (shape, held / one.nbytes)
            assert held > 0.9 * one.nbytes
