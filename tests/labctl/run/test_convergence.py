from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from labctl import bench as benches
from labctl.bench import Bench, BenchSource
from labctl.devices import Convergence, Levels, World
from labctl.errors import ProtocolError
from labctl.recording.reader import Record
from labctl.reservoir import Reservoir, Shots
from labctl.run.convergence import PATTERNS, Light, Show, Verdict
from labctl.run.execute import execute
from labctl.run.prepare import check, prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options, Unfinished, check_light
from labctl.run.train import TrainJob

SCAN = """\
schema_version: 1
kind: scan
bench: {bench}
sweep: {sweep}
values: {values}
patterns: {patterns}
"""
FLAT = "{source: flat}"
TRAIN = """\
schema_version: 1
kind: train
bench: sim-small
data: {set: yin-yang, train: 60, validation: 20, test: 20}
model:
  - {layer: linear, outputs: 3}
  - {layer: standardise}
  - {layer: device, theta_init: zeros, input_scale_rad: 0.01}
  - {layer: standardise}
  - {layer: linear}
surrogate: {name: twin-modes, modes: 8}
training: {batch: 20}
budget: {shots: 200}
"""
# A fibre that focuses what is smooth, and converges on all that is rough.
FOCUSING = tuple(
    f"world.options.{key}"
    for key in (
        "medium.kind=grin_kerr",
        "medium.b=0.6",
        "medium.saturation=null",
        "medium.fresnel=4",
        "medium.guide=0.6",
        "medium.steps=16",
        "medium.screens=0",
        "medium.edge=10",
        "light.radius=0.3",
    )
)


@pytest.fixture
def focusing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Make every bench file such a fibre, by changes that may grow."""
    load, changes = benches.load, list(FOCUSING)

    def focused(name: str | Path, overrides: Sequence[str] = ()) -> BenchSource:
        return load(name, (*changes, *overrides))

    monkeypatch.setattr(benches, "load", focused)
    monkeypatch.chdir(tmp_path)
    return changes


def write(
    folder: Path,
    bench: str,
    sweep: str = "reservoir.power_mw",
    values: str = "[5.0]",
    patterns: str = "{count: 2}",
) -> str:
    path = folder / "scan.yaml"
    text = SCAN.format(bench=bench, sweep=sweep, values=values, patterns=patterns)
    path.write_text(text, encoding="utf-8")
    return str(path)


def constructed(name: str, *overrides: str) -> Bench:
    return benches.construct(benches.load(name, overrides))


def judged(bench: Bench, show: Show | None = None) -> Verdict:
    return Light(bench).judge(Show(bench.file.reservoir) if show is None else show)


def flat(bench: Bench) -> Show:
    entry = bench.file.reservoir
    return Show(entry, torch.zeros(1, entry.macropixels[0] * entry.macropixels[1]))


def told(path: Path) -> list[tuple[str, str]]:
    with Record.open(path) as record:
        events = record.events()
    return [(each.level, each.text) for each in events if each.source == "convergence"]


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
    verdict = judged(bench)
    assert verdict.refusals == verdict.warnings == ()
    assert bool(verdict.exempt) == bench.file.discrete
    assert verdict.found.step_gate < 0.02


def test_too_few_steps_are_refused_with_the_number_that_would_do() -> None:
    verdict = judged(
        constructed(
            "sim",
            "world.options.medium.b=10",
            "world.options.medium.screens=0",
            "world.options.medium.steps=2",
        )
    )
    (text,) = verdict.refusals
    assert text.startswith("bench sim: step_gate=")
    enough = verdict.found.enough_steps
    assert "with 2 steps on 4 random patterns, expected at most 0.05. " in text
    assert f"Set world.options.medium.steps to {enough} in the bench file" in text


def test_pure_focusing_needs_far_more_steps_than_saturation() -> None:
    gates = []
    for kind in ("kerr", "kerr_sat"):
        verdict = judged(
            constructed(
                "sim", f"world.options.medium.kind={kind}", "world.options.medium.b=10"
            )
        )
        assert bool(verdict.refusals) == (kind == "kerr")
        assert verdict.found.power_over_critical > 100
        gates.append(verdict.found.step_gate)
    assert gates[0] > 20 * gates[1]


def test_small_macropixels_are_refused_with_the_grid_that_would_do() -> None:
    bench = constructed("sim", "world.options.panel.crosstalk_macropixels=0.1")
    entry = bench.file.reservoir.model_copy(update={"macropixels": (32, 32)})
    (text,) = judged(bench, Show(entry)).refusals
    on = "on 4 random patterns"
    assert text.startswith(
        f"bench sim: nyquist_share=0.011 {on}, exit_share=0.018 {on}, expected"
    )
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
        seen[name] = judged(constructed("sim", *overrides))
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
    assert Light.among([bench]) is None


# ---- the run's own patterns --------------------------------------------------------


def test_smooth_patterns_are_refused_where_random_ones_pass() -> None:
    bench = constructed("sim-small", *FOCUSING)
    assert judged(bench).refusals == ()
    verdict = judged(bench, flat(bench))
    (text,) = verdict.refusals
    on_random, on_own = (each.found for each in verdict.judged)
    assert on_random.step_gate < 0.02 < 0.05 < on_own.step_gate
    assert text.startswith(
        f"bench sim-small: step_gate={on_own.step_gate:.2g} with 16 steps on 1 of the "
        "run's own patterns, expected at most 0.05. Set world.options.medium.steps to "
        "32 in the bench file"
    )
    mended = constructed("sim-small", *FOCUSING, "world.options.medium.steps=32")
    assert judged(mended, flat(mended)).refusals == ()


def test_a_flat_panel_is_too_much_for_the_shipped_fibre() -> None:
    bench = constructed("grin-fibre")
    on_random, on_own = (each.found for each in judged(bench, flat(bench)).judged)
    assert on_random.step_gate == pytest.approx(0.008, abs=0.0005)
    assert on_own.step_gate == pytest.approx(0.25, abs=0.005)


def test_of_each_figure_the_worse_one_rules() -> None:
    bench = constructed("sim-small", *FOCUSING)
    verdict = judged(bench, flat(bench))
    on_random, on_own = (each.found for each in verdict.judged)
    assert verdict.found.step_gate == on_own.step_gate > on_random.step_gate
    for name in ("nyquist_share", "exit_share"):
        random, own = getattr(on_random, name), getattr(on_own, name)
        assert getattr(verdict.found, name) == random > own
    text = verdict.text()
    assert f"step_gate={on_random.step_gate:.2g}" in text.partition(";")[0]
    assert f"step_gate={on_own.step_gate:.2g}" in text.partition(";")[2]
    assert "on 4 random patterns; " in text
    assert text.endswith("on 1 of the run's own patterns")


GOOD = Convergence(
    steps=8,
    step_gate=0.001,
    nyquist_share=1e-5,
    nyquist_share_full_range=1e-5,
    exit_share=1e-5,
    power_over_critical=1.0,
    enough_steps=8,
    enough_grid=(32, 32),
)


class Answering:
    """A world that gives one answer after the other."""

    def __init__(self, *answers: Convergence) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Levels, float]] = []

    def convergence(self, levels: Levels, *, power_mw: float) -> Convergence:
        self.asked.append((levels, power_mw))
        return self.answers.pop(0)


def answering(*answers: Convergence) -> tuple[Bench, Answering]:
    bench, world = constructed("sim"), Answering(*answers)
    bench.world = cast("World", world)  # all of it that is asked
    return bench, world


def test_what_mends_one_kind_of_pattern_must_mend_the_other() -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"step_gate": 0.3, "enough_steps": None}, "No sensible number of steps does"),
        ({"step_gate": float("nan"), "enough_steps": 64}, "steps to 64 in"),
        ({"exit_share": 0.5, "enough_grid": None}, "No sensible grid does"),
        ({"nyquist_share": 0.5, "enough_grid": (96, 96)}, "grid to [96, 96] in"),
    )
    for worse, remedy in cases:
        bad = replace(GOOD, **worse)
        for whose, answers in (
            ("4 random patterns", (bad, GOOD)),
            ("1 of the run's own patterns", (GOOD, bad)),
        ):
            bench, _ = answering(*answers)
            (text,) = judged(bench, flat(bench)).refusals
            assert remedy in text
            assert f" on {whose}, expected at most" in text


def test_the_same_patterns_are_measured_once() -> None:
    bench, world = answering(GOOD, GOOD, GOOD, GOOD)
    light, show = Light(bench), flat(bench)
    many = replace(show, phase=torch.rand(9, 256))
    weak = replace(show, entry=show.entry.model_copy(update={"power_mw": 1.0}))
    texts = [light.judge(each).text() for each in (show, many, show, many)]
    assert texts[0] == texts[2] != texts[1] == texts[3]
    asked = [(len(levels), power_mw) for levels, power_mw in world.asked]
    assert asked == [(PATTERNS, 5.0), (1, 5.0), (PATTERNS, 5.0)]
    world.answers += [GOOD]
    light.judge(weak)
    asked = [(len(levels), power_mw) for levels, power_mw in world.asked[3:]]
    assert asked == [(PATTERNS, 1.0), (1, 1.0)]


def test_levels_are_those_that_the_run_will_show() -> None:
    phase = torch.linspace(-9, 9, 256)[None]
    bench, world = answering(GOOD, GOOD)
    Light(bench).judge(Show(bench.file.reservoir, phase))
    seen: list[Shots] = []
    with benches.open(bench.source) as running:
        reservoir = Reservoir(running, sink=seen.append)
        reservoir(phase, category="evaluate")
        shown = reservoir.blocks.expand(seen[0].levels)
    (_, _), (own, _) = world.asked
    assert np.array_equal(own, shown)


# ---- in a run ----------------------------------------------------------------------


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
    rows = told(tmp_path / "a.h5")
    assert [level for level, _ in rows] == ["info"] * 3 + ["warning", "info"]
    assert "step_gate=" in rows[0][1]
    assert any("discrete: true" in text for _, text in rows)


@pytest.mark.usefixtures("focusing")
def test_a_scan_of_flat_patterns_is_refused_where_random_ones_may_run(
    tmp_path: Path,
) -> None:
    values = "[0.1, 5.0]"
    prepare(write(tmp_path, "sim-small", values=values), Options())
    name = write(tmp_path, "sim-small", values=values, patterns=FLAT)
    with pytest.raises(ProtocolError, match="1 of the run's own patterns") as caught:
        prepare(name, Options())
    (fault,) = caught.value.faults
    assert fault.key == "values.1"
    assert "Set world.options.medium.steps to 32" in fault.text
    with pytest.raises(ProtocolError, match="1 of the run's own patterns"):
        check(Path(name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.yaml"]
    accepted = Options(out=tmp_path / "a.h5", overrides=("accept_unconverged=true",))
    execute(prepare(name, accepted), Silent())
    infos = [text for level, text in told(tmp_path / "a.h5") if level == "info"]
    # The figures of each power, each with what the grid is excused from.
    assert len(infos) == 4
    for text, power_mw in zip((infos[0], infos[2]), (0.1, 5.0), strict=True):
        assert text.startswith(f"16 steps at power_mw={power_mw:g}: step_gate=")
        assert "on 4 random patterns; step_gate=" in text
        assert text.endswith("on 1 of the run's own patterns")
    (doubt,) = (text for level, text in told(tmp_path / "a.h5") if level == "warning")
    assert "on 1 of the run's own patterns, expected at most 0.05" in doubt


@pytest.mark.usefixtures("focusing")
def test_a_training_that_starts_smooth_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(TRAIN, encoding="utf-8")
    with pytest.raises(ProtocolError, match="on 4 of the run's own patterns") as caught:
        prepare(str(path), Options())
    (fault,) = caught.value.faults
    assert fault.key == "accept_unconverged"
    prepare(str(path), Options(overrides=("model.2.theta_init=uniform",)))


def test_what_cannot_be_shown_is_judged_by_random_patterns_with_all_other_faults(
    focusing: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(TRAIN, encoding="utf-8")
    focusing += ["world.options.medium.b=20"]
    with pytest.raises(ProtocolError) as caught:
        prepare(str(path), Options(overrides=("budget.shots=3",)))
    keys = [fault.key for fault in caught.value.faults]
    assert sorted(keys) == ["accept_unconverged", "budget.shots"]
    assert "on 4 random patterns" in str(caught.value)


@pytest.mark.usefixtures("focusing")
def test_a_run_that_was_begun_goes_on_whatever_its_light_is(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(TRAIN, encoding="utf-8")
    job = prepare(str(path), Options(overrides=("accept_unconverged=true",)))
    assert isinstance(job, TrainJob)
    given = job.setting.document
    strict = given.value.model_copy(update={"accept_unconverged": False})
    setting = replace(job.setting, document=replace(given, value=strict))
    with pytest.raises(ProtocolError):
        check_light(setting, [job.show])
    left = Unfinished(simulated=True, instrument={}, calibrations={}, threads=1)
    check_light(replace(setting, unfinished=left), [job.show])
