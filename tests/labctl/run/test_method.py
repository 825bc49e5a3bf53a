"""Every method trains on the bench, pays for what it does, and says what it was."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from labctl.bench import Bench
from labctl.errors import InputError
from labctl.recording.reader import Record
from labctl.run import method
from labctl.run.execute import execute
from labctl.run.prepare import Job, prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options, Outcome
from labctl.run.train import TrainJob
from labctl.training.plan import Course, Plan, TooSmall
from tests.labctl.run.conftest import SERIES

QUICK = (
    "reference.oracle=false",
    "record.frames=binned",
    "training.validate_every=0",
    "data.train=64",
    "data.test=20",
    "method.pretrain_fits=5",
    "method.digital_steps=5",
    "budget.shots=350",
)
# Steps enough to pay for each thing that a method does, and frames enough to lose some.
LEAST = (*QUICK, "data.train=32", "data.test=10", "budget.shots=220")
SPECIAL = {
    "jacobian": (
        "probes.paired_per_step=2",
        "probes.directions=coordinates",
        "probes.dimensions=5",
        "probes.size_every=2",
        "probes.size_samples=3",
    ),
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


def planned(job: Job) -> dict[str, int]:
    """What was forecast, of the categories that have any."""
    return {name: count for name, count in job.forecast.shots.items() if count}


def conserved(job: Job, outcome: Outcome, opened: list[Bench]) -> dict[str, int]:
    """Hold the ledger to what the simulated world exposed, what it refunded with it.

    The camera loses frames. Gives the accepted exposures of each category.
    """
    assert isinstance(job, TrainJob)
    assert outcome.status == "complete"
    (bench,) = opened
    exposed: int = getattr(bench.world, "shots")  # noqa: B009 - this world counts
    with Record.open(outcome.record) as record:
        rows = Counter(record.column("shots_meta", "category"))
        patterns = record.column("shots_meta", "pattern_id")
        rejected = int((record.column("shots_meta", "quality") != "ok").sum())
        accepted = record.ledger()
    assert sum(outcome.shots.values()) == exposed
    assert {name: count for name, count in outcome.shots.items() if count} == dict(rows)
    # Each was written for itself; where no frame came, what was shown is not known.
    assert sorted(set(patterns) - {0}) == patterns[patterns > 0].tolist()
    assert accepted.pop("refunded") == rejected > 0
    inside = sum(n for name, n in accepted.items() if name != "evaluate")
    assert inside <= job.setting.protocol.budget.shots
    if job.planned.least is None:
        # What was refunded could be spent again, on what was planned.
        assert accepted == planned(job)
        assert f"; {job.planned.total} of the budget of " in outcome.summary
    return accepted


@pytest.mark.parametrize("name", ["surrogate", *METHODS])
def test_every_exposure_of_a_method_is_planned_booked_and_recorded(
    small: Path, lossy: Path, opened: list[Bench], name: str
) -> None:
    overrides = (*LEAST, f"method.name={name}", *SPECIAL.get(name, ()))
    options = Options(bench=str(lossy), overrides=overrides, out=Path("m.h5"))
    job = prepare(str(small), options)
    outcome = execute(job, Silent())
    conserved(job, outcome, opened)
    with Record.open(outcome.record) as record:
        resolved = record.resolved
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
    small: Path, lossy: Path, opened: list[Bench], overrides: tuple[str, ...]
) -> None:
    own = ("budget.shots=520", "training.batch=8", "surrogate.fits_per_step=1")
    overrides = (*SERIES, *own, *overrides)
    options = Options(bench=str(lossy), overrides=overrides, out=Path("s.h5"))
    job = prepare(str(small), options)
    conserved(job, execute(job, Silent()), opened)


@pytest.mark.parametrize(
    "overrides",
    [
        ("estimator.name=control-variate",),
        ("estimator.name=gate",),
        ("estimator={name: rehearse, digital_steps: 2}",),
        ("drift={every: 2, patterns: 3, refit_above: 1.0e-9, refit_shots: 20}",),
        ("probes.size_every=2", "probes.paired_per_step=1"),
        ("training.validate_every=2", "reference.oracle=true"),
    ],
    ids=lambda found: found[0].split(":")[0],
)
def test_every_exposure_of_an_estimator_or_a_watch_is_booked_and_recorded(
    small: Path, lossy: Path, opened: list[Bench], overrides: tuple[str, ...]
) -> None:
    overrides = (*QUICK, *overrides)
    options = Options(bench=str(lossy), overrides=overrides, out=Path("e.h5"))
    job = prepare(str(small), options)
    outcome = execute(job, Silent())
    accepted = conserved(job, outcome, opened)
    with Record.open(outcome.record) as record:
        steps = len(record.column("training", "step"))
    assert steps > 1
    if "drift" in overrides[-1]:
        # Where a look led to a new fit there were fresh exposures and a new first look.
        assert accepted["drift-check"] > 3 * (1 + steps // 2)
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
            if entry.kind == "step" and entry.step > 0
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
        # After two fits for each of the 4 batches of the warm-up pass; then two a step.
        assert fits == [8 + 5 + 2 * (number + 1) for number in range(len(states))]
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
