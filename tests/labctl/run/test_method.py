"""Every method trains on the bench, pays for what it does, and says what it was."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from labctl.errors import InputError
from labctl.recording.reader import Record
from labctl.run import method
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options
from labctl.run.train import TrainJob
from labctl.training.plan import Course, Plan, TooSmall
from tests.labctl.run.conftest import SERIES

QUICK = (
    "reference.oracle=false",
    "record.frames=binned",
    "training.validate_every=0",
    "data.test=20",
    "method.pretrain_fits=5",
    "method.digital_steps=5",
    "budget.shots=500",
)
SPECIAL = {
    "jacobian": ("probes.paired_per_step=2",),
    "cma-es": ("method.candidates=4",),
    "forward-gradient": ("method.probes=2",),
}
# Noise that is not known is taken for drift.
DRIFTING = (
    "drift={every: 2, patterns: 3, refit_above: 1.0e-9, refit_shots: 20}",
    "probes.noise_repeats=0",
)
METHODS = (
    "readout",
    "oracle",
    "forward-gradient",
    "jacobian",
    "pat",
    "dat",
    "calibrate-deploy",
    "dfa",
    "finite-difference",
    "spsa",
    "annealing",
    "pepg",
    "cma-es",
)


@pytest.mark.parametrize("name", METHODS)
def test_every_exposure_of_a_method_is_planned_booked_and_recorded(
    small: Path, name: str
) -> None:
    overrides = (*QUICK, f"method.name={name}", *SPECIAL.get(name, ()))
    job = prepare(str(small), Options(overrides=overrides, out=Path("m.h5")))
    outcome = execute(job, Silent())
    with Record.open(outcome.record) as record:
        rows = Counter(record.column("shots_meta", "category"))
        patterns = record.column("shots_meta", "pattern_id")
        resolved = record.resolved
    made = {key: count for key, count in outcome.shots.items() if count}
    assert made == dict(rows)
    # The panel counted as many writes: nothing was exposed beside the ledger.
    assert patterns.tolist() == list(range(1, sum(rows.values()) + 1))
    assert isinstance(job, TrainJob)
    assert job.forecast.shots == {key: outcome.shots[key] for key in job.forecast.shots}
    assert job.planned.total <= 500
    assert outcome.result["method"] == resolved["method"]["name"] == name
    assert outcome.result["digital_s"] >= 0


@pytest.mark.parametrize(
    "overrides",
    [
        ("method.name=dfa",),
        ("method.name=calibrate-deploy", "method.digital_steps=3"),
        ("method.name=pat", "method.pretrain_samples=16", "method.pretrain_fits=3"),
        ("method.name=spsa",),
        ("estimator.name=control-variate",),
        ("estimator={name: rehearse, digital_steps: 2}",),
    ],
    ids=lambda found: found[0].partition("name")[2].strip("=: }"),
)
def test_every_step_of_a_series_is_planned_booked_and_recorded(
    small: Path, overrides: tuple[str, ...]
) -> None:
    own = ("budget.shots=520", "training.batch=8", "surrogate.fits_per_step=1")
    options = Options(overrides=(*SERIES, *own, *overrides), out=Path("s.h5"))
    job = prepare(str(small), options)
    outcome = execute(job, Silent())
    assert isinstance(job, TrainJob)
    with Record.open(outcome.record) as record:
        rows = Counter(record.column("shots_meta", "category"))
        patterns = record.column("shots_meta", "pattern_id")
    made = {key: count for key, count in outcome.shots.items() if count}
    assert made == dict(rows)
    assert patterns.tolist() == list(range(1, sum(rows.values()) + 1))
    assert job.forecast.shots == {key: outcome.shots[key] for key in job.forecast.shots}
    assert job.planned.total <= 520


@pytest.mark.parametrize(
    "overrides",
    [
        ("estimator.name=control-variate",),
        ("estimator.name=gate",),
        ("estimator={name: rehearse, digital_steps: 2}",),
        ("drift={every: 2, patterns: 3, refit_above: 1.0e-9, refit_shots: 20}",),
    ],
    ids=lambda found: found[0].split(":")[0],
)
def test_every_exposure_of_an_estimator_or_a_watch_is_booked_and_recorded(
    small: Path, overrides: tuple[str, ...]
) -> None:
    job = prepare(str(small), Options(overrides=(*QUICK, *overrides), out=Path("e.h5")))
    outcome = execute(job, Silent())
    with Record.open(outcome.record) as record:
        rows = Counter(record.column("shots_meta", "category"))
        steps = len(record.column("training", "step"))
    made = {key: count for key, count in outcome.shots.items() if count}
    assert made == dict(rows)
    outside = made.get("evaluate", 0)
    assert sum(made.values()) - outside <= 500
    assert steps > 1
    assert isinstance(job, TrainJob)
    if "drift" in overrides[0]:
        # Where a look led to a new fit there were fresh exposures and a new first look.
        assert made["drift-check"] > 3 * (1 + steps // 2)
        # Of three patterns it is mostly noise, of either sign.
        assert math.isfinite(outcome.result["drift"])


def test_readout_leaves_theta_where_it_started(small: Path) -> None:
    theta = {}
    for name in ("readout", "spsa"):
        overrides = (*QUICK, f"method.name={name}", "record.checkpoint_every=1")
        out = Path(f"{name}.h5")
        execute(prepare(str(small), Options(overrides=overrides, out=out)), Silent())
        with Record.open(out) as record:
            theta[name] = [
                record.checkpoint(number)[2]["network"]["layers.0.theta"]
                for number in (0, -1)
            ]
    assert (theta["readout"][0] == theta["readout"][1]).all()
    assert (theta["spsa"][0] == theta["readout"][0]).all()
    assert (theta["spsa"][0] != theta["spsa"][1]).any()


@pytest.mark.parametrize(
    ("name", "own", "goes_on"),
    [
        ("pat", (), False),
        ("pat", DRIFTING, False),
        ("dat", (), True),
    ],
)
def test_a_twin_that_was_trained_before_is_frozen_with_pat_and_learns_on_with_dat(
    small: Path, name: str, own: tuple[str, ...], *, goes_on: bool
) -> None:
    overrides = (*QUICK, f"method.name={name}", "record.checkpoint_every=1", *own)
    out = Path("twin.h5")
    execute(prepare(str(small), Options(overrides=overrides, out=out)), Silent())
    with Record.open(out) as record:
        states = [
            record.checkpoint(number)[2]
            for number, entry in enumerate(record.checkpoints())
            if entry.kind == "step"
        ]
        losses = record.column("training", "loss_surrogate")
    assert len(states) == len(losses) > 3
    # It was trained before the first step: QUICK has 5 fits for that.
    fits = [state["course"]["evidence"]["fitter"]["steps"] for state in states]
    first, last = (states[number]["surrogate"] for number in (0, -1))
    moved = [key for key in first if not np.array_equal(first[key], last[key])]
    theta = [state["network"]["layers.0.theta"] for state in states]
    assert not np.array_equal(theta[0], theta[-1])
    if goes_on:
        # After two fits for each of the 6 batches of the warm-up pass; then two a step.
        assert fits == [12 + 5 + 2 * (number + 1) for number in range(len(states))]
        assert moved
        assert np.isfinite(losses).all()
    else:
        assert fits == [5] * len(states)
        assert moved == []
        assert np.isnan(losses).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("method.name=spsa", "method.candidates=3"), "expected an even number"),
        (("method.name=cma-es",), "candidates=2, expected at least 4"),
        (("method.name=pat", "surrogate.name=dense"), "expected a twin"),
        (("method.name=jacobian",), "paired_per_step=0"),
        (
            ("method.name=dfa", "estimator.name=control-variate"),
            "expected trust with method dfa",
        ),
        (
            ("method.name=calibrate-deploy", "budget.shots=200"),
            "expected at least 208 ",
        ),
        (("method.name=spas",), "Did you mean"),
        (
            ("surrogate.name=dense", "surrogate.width=60000", "surrogate.depth=8"),
            r"dense would have 2\.5e\+10 weights, expected at most 2\.7e\+08.*width",
        ),
    ],
)
def test_contradictions_are_refused_before_anything_opens(
    small: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare(str(small), Options(overrides=overrides))
    assert list(small.parent.iterdir()) == [small]


def test_a_search_that_no_memory_would_hold_is_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method, "MOST_NUMBERS", 40_000)
    for overrides, message in (
        (("method.name=cma-es", "method.candidates=4"), "with 256 phases, .*most 200"),
        (("method.name=spsa", "method.candidates=1000"), "256 phases each, .*most 156"),
    ):
        with pytest.raises(InputError, match=message):
            prepare(str(small), Options(overrides=overrides))


def test_a_deployment_is_planned_without_steps() -> None:
    course = Course(train=50, validation=0, batch=10, pretrain=40, refits=1)
    planned = method.deployed(140, course)
    assert isinstance(planned, Plan)
    assert (planned.steps, planned.total) == (0, 140)
    assert planned.counts["warm-up"] == 90
    assert isinstance(method.deployed(139, course), TooSmall)
