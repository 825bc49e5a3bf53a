from pathlib import Path

import h5py
import pytest

from labctl import bench as benches
from labctl.bench import Bench
from labctl.errors import ProtocolError
from labctl.run import convergence
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options

SCAN = """\
schema_version: 1
kind: scan
bench: {bench}
sweep: {sweep}
values: {values}
patterns: {{count: 2}}
"""


def write(
    folder: Path, bench: str, sweep: str = "reservoir.power_mw", values: str = "[5.0]"
) -> str:
    path = folder / "scan.yaml"
    text = SCAN.format(bench=bench, sweep=sweep, values=values)
    path.write_text(text, encoding="utf-8")
    return str(path)


def constructed(name: str, *overrides: str) -> Bench:
    return benches.construct(benches.load(name, overrides))


@pytest.mark.parametrize(
    "name",
    [
        "sim",
        "sim-small",
        "sim-ideal",
        "sim-fine",
        "rubidium-vapour",
        "grin-fibre",
        "chi2-slab",
        "powder",
    ],
)
def test_the_shipped_benches_are_converged_where_they_work(name: str) -> None:
    bench = constructed(name)
    verdict = convergence.judge(bench, bench.file.reservoir)
    assert verdict is not None
    assert verdict.refusals == verdict.warnings == ()
    assert bool(verdict.exempt) == bench.file.discrete
    assert verdict.found.step_gate < 0.02


def test_too_few_steps_are_refused_with_the_number_that_would_do() -> None:
    bench = constructed(
        "sim",
        "world.options.medium.b=10",
        "world.options.medium.screens=0",
        "world.options.medium.steps=2",
    )
    verdict = convergence.judge(bench, bench.file.reservoir)
    assert verdict is not None
    (text,) = verdict.refusals
    assert text.startswith("bench sim: step_gate=")
    enough = verdict.found.enough_steps
    assert "with 2 steps, expected at most 0.05. " in text
    assert f"Set world.options.medium.steps to {enough} in the bench file" in text


def test_pure_focusing_needs_far_more_steps_than_saturation() -> None:
    gates = []
    for kind in ("kerr", "kerr_sat"):
        bench = constructed(
            "sim", f"world.options.medium.kind={kind}", "world.options.medium.b=10"
        )
        verdict = convergence.judge(bench, bench.file.reservoir)
        assert verdict is not None
        assert bool(verdict.refusals) == (kind == "kerr")
        assert verdict.found.power_over_critical > 100
        gates.append(verdict.found.step_gate)
    assert gates[0] > 20 * gates[1]


def test_small_macropixels_are_refused_with_the_grid_that_would_do() -> None:
    bench = constructed("sim", "world.options.panel.crosstalk_macropixels=0.1")
    entry = bench.file.reservoir.model_copy(update={"macropixels": (32, 32)})
    verdict = convergence.judge(bench, entry)
    assert verdict is not None
    (text,) = verdict.refusals
    assert text.startswith("bench sim: nyquist_share=0.011, exit_share=0.018, ")
    assert (
        "expected at most 0.001: the grid under-samples the panel and the far field. "
        "Set world.options.grid to [256, 256]"
    ) in text


def test_a_far_field_wider_than_the_grid_is_doubted_then_refused_or_exempt() -> None:
    strong = ("world.options.medium.b=10", "world.options.medium.steps=32")
    seen = {}
    for name, overrides in {
        "doubted": strong,
        "refused": (*strong, "world.options.medium.saturation=1.5"),
        "exempt": (*strong, "discrete=true"),
    }.items():
        bench = constructed("sim", *overrides)
        verdict = convergence.judge(bench, bench.file.reservoir)
        assert verdict is not None
        seen[name] = verdict
    (doubt,), (refusal,) = seen["doubted"].warnings, seen["refused"].refusals
    for text in (doubt, refusal):
        assert "exit_share=" in text
        assert (
            "under-samples the far field. Set world.options.grid to [128, 128]" in text
        )
    assert seen["doubted"].refusals == seen["exempt"].refusals == ()
    assert "does not resolve the far field" in seen["exempt"].exempt
    assert "exit_share=" in seen["exempt"].text()


def test_real_light_is_not_judged() -> None:
    bench = constructed("sim")
    bench.world = None
    assert convergence.judge(bench, bench.file.reservoir) is None


def test_a_run_is_refused_before_anything_opens_unless_the_protocol_accepts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = "bench_file.world.options.medium.b"
    name = write(tmp_path, "sim-small", sweep, "[3.0, 200.0]")
    with pytest.raises(ProtocolError, match=r"step_gate=.*accept_unconverged: true"):
        prepare(name, Options())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.yaml"]
    accepted = Options(out=tmp_path / "a.h5", overrides=("accept_unconverged=true",))
    execute(prepare(name, accepted), Silent())
    with h5py.File(tmp_path / "a.h5") as record:
        events = record["entry/events"]
        assert isinstance(events, h5py.Dataset)
        rows = [
            (row["level"], row["text"])
            for row in events[:]
            if row["source"] == b"convergence"
        ]
    told = [level for level, _ in rows if level != b"more"]
    assert told == [b"info", b"info", b"info", b"warning", b"info"]
    assert b"step_gate=" in rows[0][1]
    assert any(b"discrete: true" in text for _, text in rows)
