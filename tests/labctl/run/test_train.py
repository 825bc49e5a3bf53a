"""A training leaves a whole record and an honest result."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typing_extensions import override

from labctl import bench as benches
from labctl.errors import InputError, OutcomeError
from labctl.optics.kernel import loaded
from labctl.recording.reader import Record
from labctl.reservoir import PhaseScale, Reservoir
from labctl.run import check, train
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options, Outcome
from labctl.run.train import TrainJob
from labctl.training.blackbox import Device, Exposure
from labctl.training.estimator import Stateless
from labctl.training.rehearsal import Rehearsal
from labctl.training.surrogate import build as builder
from labctl.training.surrogate.fit import Fitter
from tests.labctl.run.conftest import SERIES

# A training of a few steps.
FEW = ("data.train=48", "data.validation=10", "data.test=10", "budget.shots=260")


def test_every_exposure_is_on_the_ledger_and_in_the_record(trained: Outcome) -> None:
    with Record.open(trained.record) as record:
        rows = Counter(record.column("shots_meta", "category"))
        patterns = record.column("shots_meta", "pattern_id")
    assert {k: v for k, v in trained.shots.items() if v} == dict(rows)
    # The panel counted as many writes as there are rows: nothing was left out.
    assert patterns.tolist() == list(range(1, sum(rows.values()) + 1))


def test_the_budget_holds_and_is_used(trained: Outcome) -> None:
    job = prepare(str(trained.record.with_name("small.yaml")), Options())
    assert isinstance(job, TrainJob)
    assert job.forecast.shots == {
        name: trained.shots[name] for name in job.forecast.shots
    }
    assert 400 - 16 - 4 - 20 < job.planned.total <= 400


def test_result_has_all_lines(trained: Outcome) -> None:
    result = trained.result
    for name in ("score_test", "score_readout", "score_oracle"):
        assert 0 <= result[name] <= 1
    assert (result["metric"], result["direction"]) == ("accuracy", "up")
    with Record.open(trained.record) as record:
        assert record.result == result
        assert (record.status, record.simulated) == ("complete", True)


def test_recorded_outputs_follow_from_recorded_frames(trained: Outcome) -> None:
    with (
        benches.open(benches.load("sim-small")) as bench,
        Record.open(trained.record) as record,
    ):
        decoder = Reservoir(bench).decoder
        some = slice(100, 120)
        frames = record.column("shots", "frames", some)
        power = record.column("shots_meta", "power_mw", some)
        outputs = record.column("shots", "outputs", some)
    assert decoder.outputs(frames, power) == pytest.approx(outputs, rel=1e-6)


def test_probes_point_at_the_shots_that_made_them(trained: Outcome) -> None:
    with Record.open(trained.record) as record:
        base = record.column("probes", "shot_base")
        plus = record.column("probes", "shot_plus")
        outputs = record.column("shots", "outputs").astype(float)
        change = record.column("probes", "df")
        levels = record.column("shots_meta", "levels").astype(int)
        category = record.column("shots_meta", "category")
    assert set(category[plus]) == {"probe"}
    # Held out: both exposures are fresh, one on each side of the pattern.
    assert set(category[base]) == {"probe"}
    assert outputs[plus] - outputs[base] == pytest.approx(change, rel=1e-4, abs=1e-2)
    moved = np.abs(levels[plus] - levels[base])
    assert np.median(np.minimum(moved, 256 - moved)) < 20


def test_a_shot_shows_input_plus_theta_plus_dither(trained: Outcome) -> None:
    """The warm-up levels are those of the initial theta with dither of its size."""
    with Record.open(trained.record) as record:
        category = record.column("shots_meta", "category")
        levels = record.column("shots_meta", "levels")
        _, _, state = record.checkpoint(0)
    scale = PhaseScale(np.arange(256) * 2 * np.pi / 256)
    warm = scale.shown(levels[category == "warm-up"])
    assert warm.shape == (96, 256)
    theta = state["network"]["layers.0.theta"]
    # Half of the macropixels of a digit carry nothing: theta and dither alone.
    error = np.angle(np.exp(1j * (warm - theta.numpy())))
    assert 0.3 < np.median(np.abs(error)) < 1.5


def test_what_is_judged_before_it_opens_is_what_a_training_shows_first(
    trained: Outcome,
) -> None:
    job = prepare(str(trained.record.with_name("small.yaml")), Options())
    assert isinstance(job, TrainJob)
    light, phase = job.setting.light, job.show.phase
    assert light is not None
    assert phase is not None
    with Record.open(trained.record) as record:
        assert record.column("shots_meta", "category")[0] == "repeat"
        first = record.column("shots_meta", "levels")[: len(phase)]
        told = [each.text for each in record.events() if each.source == "convergence"]
    assert len(phase) == 4
    assert np.array_equal(first, light.levels(job.show.entry, phase))
    assert "on 4 of the run's own patterns" in "".join(told)


def test_training_curve_has_a_row_a_step(trained: Outcome) -> None:
    with Record.open(trained.record) as record:
        steps = record.column("training", "step")
        validation = record.column("training", "score_validation")
        cosine = record.column("training", "cosine")
    assert steps.tolist() == list(range(trained.result["steps"]))
    assert np.isfinite(validation[4::5]).all()
    assert np.isfinite(cosine[-1])


def test_same_seed_same_record_and_another_seed_another(
    small: Path, trained: Outcome
) -> None:
    loss = []
    for options in (Options(out=Path("a.h5")), Options(out=Path("b.h5"), seed=3)):
        quick = Options(out=options.out, seed=options.seed)
        outcome = execute(prepare(str(small), quick), Silent())
        with Record.open(outcome.record) as record:
            loss.append(record.column("training", "loss"))
    with Record.open(trained.record) as record:
        first = record.column("training", "loss")
    assert np.array_equal(first, loss[0])
    assert not np.array_equal(first, loss[1])


def test_threads_are_left_as_they_were(small: Path) -> None:
    before = torch.get_num_threads()
    overrides = ("reference.oracle=false", *FEW)
    job = prepare(str(small), Options(overrides=overrides, out=Path("t.h5")))
    torch.set_num_threads(2)
    try:
        execute(job, Silent())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_training_that_diverges_is_a_typed_failure(small: Path) -> None:
    overrides = ("surrogate.learning_rate=1e30", "reference.oracle=false")
    job = prepare(str(small), Options(overrides=overrides, out=Path("bad.h5")))
    with pytest.raises(OutcomeError, match="not finite"):
        execute(job, Silent())
    with Record.open("bad.h5") as record:
        assert record.status == "failed"
        assert any(event.level == "error" for event in record.events())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget.shots=100", "expected at least"),
        ("training.batch=97", "batch=97, expected 1 to 96"),
        ("reservoir.macropixels=[40, 40]", "expected at most 32 x 32"),
        ("reservoir.macropixels=[2, 2]", "features=64, expected 1 to 4"),
        ("reservoir.region=[10, 10, 30, 30]", "expected within 32 x 32"),
        ("reservoir.power_mw=9", "power_mw=9, expected 0 to 8"),
        ("reservoir.exposure_s=3", "exposure_s=3, expected 0 to 0.02"),
        ("reservoir.bins=[40, 3]", r"bins=\[40, 3\], expected at most"),
        ("surrogate.name=dense", "paired_per_step=0.* no baseline"),
        ("data.test=999", "999"),
    ],
)
def test_refuses_before_anything_opens(
    small: Path, override: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare(str(small), Options(overrides=(override,)))
    assert list(small.parent.iterdir()) == [small]


@pytest.mark.parametrize(
    "surrogate", ["jacobian", "dense", "log-lin-exp", "linear", "twin-dense"]
)
def test_every_surrogate_trains(small: Path, surrogate: str) -> None:
    overrides = (
        f"surrogate.name={surrogate}",
        "surrogate.width=16",
        "surrogate.first_fits=4",
        "surrogate.fit_batch=16",
        "probes.paired_per_step=2",
        "reference.oracle=false",
        *FEW,
    )
    job = prepare(str(small), Options(overrides=overrides, out=Path("s.h5")))
    outcome = execute(job, Silent())
    assert outcome.result["status"] == "The planned steps were done."


class Astray(Stateless):
    """Points anywhere."""

    def __init__(self, surrogate: object) -> None:
        del surrogate
        self.generator = torch.Generator().manual_seed(31)

    @override
    def __call__(self, exposure: Exposure, cotangent: torch.Tensor) -> torch.Tensor:
        del cotangent
        return torch.randn(exposure.response.shown.shape, generator=self.generator)


def test_a_cosine_that_stays_at_zero_is_told_and_all_is_kept(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "Trust", Astray)
    overrides = (
        "surrogate.fits_per_step=0",
        "probes.held_out_per_step=14",
        "probes.noise_repeats=32",
        "training.validate_every=0",
        "reference.oracle=false",
        "budget.shots=1600",
        "record.frames=binned",
    )
    options = Options(overrides=overrides, out=Path("zero.h5"))
    outcome = execute(prepare(str(small), options), Silent())
    assert outcome.status == "failed"
    assert outcome.result["outcome"] == "cosine at zero"
    assert outcome.result["score_test"] is not None
    assert "which cannot be told from zero" in outcome.summary
    with pytest.raises(OutcomeError, match=r"cosine=-?0\.\d\d ± .* expected more than"):
        outcome.raise_failure()
    with Record.open("zero.h5") as record:
        assert record.status == "failed"
        assert record.result == outcome.result
        assert record.checkpoint()[2]["network"]


def test_control_variate_pays_for_its_probes(small: Path) -> None:
    overrides = (
        "estimator.name=control-variate",
        "reference.oracle=false",
        "training.validate_every=0",
        "budget.shots=700",
    )
    job = prepare(str(small), Options(overrides=overrides, out=Path("c.h5")))
    outcome = execute(job, Silent())
    assert outcome.shots["probe"] > outcome.shots["train"]
    # So short a run leaves a single pair, which has no error.
    assert outcome.result["cosine_error"] is None
    assert re.search(r"cosine of the surrogate: -?\d\.\d\d\n", outcome.summary)


@pytest.mark.parametrize("depth", [2, 3])
def test_device_layers_share_the_bench(small: Path, depth: int) -> None:
    more = (
        "  - {layer: activation, function: sigmoid}\n"
        "  - {layer: device, encoding: modes, modes: 16}\n"
        "  - {layer: standardise}\n"
    )
    text = small.read_text(encoding="utf-8").replace(
        "  - {layer: linear}\n", (depth - 1) * more + "  - {layer: linear}\n"
    )
    small.write_text(text, encoding="utf-8")
    overrides = (
        "reference.oracle=false",
        f"budget.shots={450 * depth}",
        "data.train=64",
        "data.test=10",
        "record.frames=binned",
    )
    job = prepare(str(small), Options(overrides=overrides, out=Path("deep.h5")))
    assert isinstance(job, TrainJob)
    outcome = execute(job, Silent())
    with Record.open("deep.h5") as record:
        layer = record.column("shots_meta", "layer")
        category = record.column("shots_meta", "category")
        probed = record.column("probes", "layer")
    assert np.bincount(layer[category == "train"]).tolist() == (
        [16 * job.planned.steps] * depth
    )
    assert set(probed) == set(range(depth))
    assert job.forecast.shots == {key: outcome.shots[key] for key in job.forecast.shots}
    made = {key: count for key, count in outcome.shots.items() if count}
    assert made == dict(Counter(category))


def test_a_series_shows_every_step_with_one_theta(small: Path) -> None:
    options = Options(overrides=SERIES, out=Path("series.h5"))
    job = prepare(str(small), options)
    assert isinstance(job, TrainJob)
    outcome = execute(job, Silent())
    assert outcome.result["metric"] == "nrmse"
    assert job.show.phase is not None
    with Record.open("series.h5") as record:
        category = record.column("shots_meta", "category")
        steps = record.column("shots_meta", "step")[category == "train"]
        levels = record.column("shots_meta", "levels")
        state = record.checkpoint()[2]["network"]
    assert np.bincount(steps).tolist() == [4 * 16] * job.planned.steps
    assert [key for key in state if key.endswith("theta")] == ["layers.0.layer.theta"]
    scale = PhaseScale(np.arange(256) * 2 * np.pi / 256)
    first = scale.shown(levels[: len(job.show.phase)])
    apart = np.angle(np.exp(1j * (first - job.show.phase.numpy())))
    # The noise repeats are first steps: a state of zero, and nothing of dither.
    assert np.abs(apart).max() < 2 * np.pi / 256


def test_a_series_whose_steps_do_not_fit_is_refused(small: Path) -> None:
    overrides = (*SERIES, SERIES[0].replace("steps: 4", "steps: 3"))
    with pytest.raises(InputError, match="4 inputs in 3 time steps"):
        prepare(str(small), Options(overrides=overrides))


@pytest.fixture
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CXX", "no-such-compiler")
    loaded.cache_clear()
    yield
    loaded.cache_clear()


@pytest.mark.usefixtures("_no_compiler")
def test_a_twin_without_the_compiled_kernel_says_why_or_is_refused(
    small: Path,
) -> None:
    own = "name: twin-optics, screens: 1, first_fits: 2, fits_per_step: 1, fit_batch: 4"
    few = (*FEW, "estimator.name=trust", "reference.oracle=false")
    asked = (*few, f"surrogate={{{own}, kernel: auto}}")
    outcome = execute(prepare(str(small), Options(overrides=asked)), Silent())
    with Record.open(outcome.record) as record:
        told = [each.text for each in record.events() if each.source == "kernel"]
        assert record.environment["fit_kernel"] == ""
    assert len(told) == 1
    assert told[0].startswith("torch computes the fits of the surrogate: no C++")
    asked = (*few, f"surrogate={{{own}, kernel: fused}}")
    with pytest.raises(InputError, match=r"kernel: kernel='fused': no C\+\+ .* auto"):
        prepare(str(small), Options(overrides=asked))


@pytest.mark.parametrize("model", [(), SERIES[:2]], ids=["samples", "series"])
@pytest.mark.parametrize("name", ["trust", "rehearse"])
def test_a_card_loads_all_that_a_training_computes_before_the_bench_opens(
    small: Path, name: str, model: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    class OpenedError(Exception):
        pass

    def opening(*given: object, **named: object) -> None:
        del given, named
        raise OpenedError

    done: list[str] = []
    for owner, work in ((Fitter, "step"), (Rehearsal, "judge"), (Rehearsal, "_step")):
        usual = getattr(owner, work)

        def told(
            *given: Any,  # noqa: ANN401 - passed on
            work: str = work,
            usual: Callable[..., Any] = usual,
            **named: Any,  # noqa: ANN401 - passed on
        ) -> object:
            done.append(work)
            return usual(*given, **named)

        monkeypatch.setattr(owner, work, told)
    # No card is needed: only what is done, and when.
    monkeypatch.setattr(builder, "device_of", lambda _: torch.device("cpu"))
    monkeypatch.setattr(check, "card", lambda _: "a card")
    monkeypatch.setattr(train, "opened", opening)
    own = ("surrogate.device=cuda", f"estimator={{name: {name}}}", *model)
    budget = ("budget.shots=500", "reference.oracle=false", "record.frames=binned")
    job = prepare(str(small), Options(overrides=(*budget, *own)))
    assert done == []
    with pytest.raises(OpenedError):
        execute(job, Silent())
    rehearsed = ["judge", "_step", "_step"] if name == "rehearse" else []
    assert done == ["step", *rehearsed]


def test_drift_is_corrected_with_what_the_camera_shows_without_light(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []

    def watched(device: Device, dark: torch.Tensor) -> None:
        del device
        given.append(dark)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "Steady", watched)
    job = prepare(str(small), Options())
    with pytest.raises(KeyboardInterrupt):
        execute(job, Silent())
    # Nine bins of 81 pixels, whose read noise is .7 electrons.
    assert given[0].tolist() == pytest.approx([81 * 0.7**2] * 9, rel=0.05)


def test_less_than_nothing_left_is_told_as_within_the_noise() -> None:
    assert train._left(0.104) == (
        "left 10 % of the last batch's variance unexplained, beside its noise"
    )
    assert train._left(-0.104) == "explained the last batch to within its noise"


def test_secants_alone_are_refused_for_what_they_are(small: Path) -> None:
    own = ("surrogate.name=dense", "probes.secant_rad=0.3")
    with pytest.raises(InputError, match=r"paired_per_step=0.* beside paired probes"):
        prepare(str(small), Options(overrides=own))


def commanded(protocol: Path, device: str) -> tuple[int, str]:
    """Rehearse on a twin by the command; exit code and what it said."""
    own = (
        f"surrogate={{name: twin-optics, device: {device}, schedule: one-cycle, "
        "keep_every: 8, first_fits: 60, fits_per_step: 2, fit_batch: 32, "
        "learning_rate: 0.02}",
        "estimator={name: rehearse, digital_steps: 3}",
        "reference.oracle=false",
    )
    sets = [word for each in own for word in ("--set", each)]
    words = ["run", str(protocol), *sets, "--out", f"{device}.h5"]
    done = subprocess.run(  # noqa: S603 - words are ours, no shell
        [sys.executable, "-m", "labctl", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_training_is_fitted_and_rehearsed_on_a_card_by_the_command(
    small: Path,
) -> None:
    for device in ("cpu", "cuda"):
        code, said = commanded(small, device)
        assert code == 0, said
    with Record.open("cuda.h5") as there, Record.open("cpu.h5") as here:
        assert there.environment["fit_card"] == torch.cuda.get_device_name()
        assert here.environment["fit_card"] == ""
        assert there.resolved["surrogate"]["device"] == "cuda"
        found, expected = (
            record.column("training", "loss_surrogate") for record in (there, here)
        )
        # The first fit is the same to rounding, long before courses part.
        assert found[0] == pytest.approx(expected[0], rel=0.1)
