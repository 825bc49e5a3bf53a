"""A comparison becomes trainings that stand on their own."""

import json
from pathlib import Path

import pytest

from labctl.comparison import job as rooms
from labctl.comparison.run import ComparisonJob, check, choose
from labctl.errors import ProtocolError
from labctl.run import convergence
from labctl.run.setting import Options
from labctl.run.validate import validate


def _prepared(path: Path, *overrides: str) -> ComparisonJob:
    job = choose(str(path), None, Options(out=Path("x.h5"), overrides=overrides))
    assert isinstance(job, ComparisonJob)
    return job


def test_maps_are_laid_over_key_by_key_and_lists_as_a_whole() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}
    assert rooms.merged(base, {"a": {"y": 5}, "b": [7], "d": {"z": 1}}) == {
        "a": {"x": 1, "y": 5},
        "b": [7],
        "c": 3,
        "d": {"z": 1},
    }
    assert base == {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}


def test_every_pair_seed_and_budget_is_a_training(tiny: Path) -> None:
    jobs = _prepared(tiny, "budgets=[200, 300]").jobs
    assert len(jobs) == len({job.out for job in jobs}) == 8
    tree = json.loads(jobs[0].text)
    assert tree["kind"] == "train"
    assert tree["training"] == {"batch": 16, "weight_decay": 0.1}
    assert tree["method"] == {"name": "readout"}
    # All methods of one seed come first: an early look compares them.
    assert [(job.seed, job.budget, job.method) for job in jobs[:4]] == [
        (0, 200, "still"),
        (0, 200, "walk"),
        (0, 300, "still"),
        (0, 300, "walk"),
    ]


def test_a_method_with_a_budget_of_its_own_is_trained_once_a_seed(tiny: Path) -> None:
    overrides = ("budgets=[200, 300]", "methods.walk.budget={shots: 500}")
    jobs = _prepared(tiny, *overrides).jobs
    assert [(job.budget, job.method) for job in jobs if job.seed == 1] == [
        (200, "still"),
        (500, "walk"),
        (300, "still"),
    ]
    for job in jobs:
        assert json.loads(job.text)["budget"] == {"shots": job.budget}


def test_another_setting_has_another_record(tiny: Path) -> None:
    first = {job.out for job in _prepared(tiny).jobs}
    other = {job.out for job in _prepared(tiny, "base.training.batch=8").jobs}
    assert first.isdisjoint(other)


def test_the_oracle_and_readout_are_found_by_their_kind(tiny: Path) -> None:
    protocol = _prepared(tiny).setting.protocol
    assert dict(rooms.kinds(protocol)) == {"still": "readout", "walk": "spsa"}


def test_a_data_file_is_found_from_the_folder_of_the_jobs(tmp_path: Path) -> None:
    tree = {"data": {"file": "own.csv", "task": "classification"}}
    rooms._place_data(tree, tmp_path)
    assert tree["data"]["file"] == str((tmp_path / "own.csv").resolve())


@pytest.mark.parametrize(
    ("override", "line", "message"),
    [
        ("methods.walk.method.candidates=3", "methods.walk", "an even number"),
        ("methods.walk.method.name=spas", "methods.walk", "Did you mean"),
        ("tasks.narrow.training.weight_decay=-1", "tasks.narrow", "narrow"),
        ("base.model=[]", "base", "model"),
        ("budgets=[20]", "budgets", "expected at least"),
        ("base.budget={shots: 3}", "base", "has budget"),
        ("tasks.narrow.budget={shots: 3}", "tasks.narrow", "has budget"),
        ("methods.walk.budget={shots: 0}", "methods.walk.budget", "is no budget"),
        ("methods.walk.budget={shots: 20}", "methods.walk.budget", "at least"),
        ("seeds=[1, 1]", "seeds", "twice"),
        ("tasks={}", "tasks", "tasks"),
    ],
)
def test_a_fault_is_shown_where_the_comparison_has_it(
    tiny: Path, override: str, line: str, message: str
) -> None:
    with pytest.raises(ProtocolError) as caught:
        _prepared(tiny, override)
    assert any(
        fault.key.startswith(line) and message in str(fault)
        for fault in caught.value.faults
    ), str(caught.value)
    assert list(tiny.parent.iterdir()) == [tiny]


def test_faults_of_bench_methods_and_budgets_are_told_at_once(tiny: Path) -> None:
    overrides = (
        "reservoir.power_mw=99",
        "budgets=[20]",
        "methods.walk.method.candidates=3",
        "tasks.narrow.training={batch: 99}",
    )
    with pytest.raises(ProtocolError) as caught:
        _prepared(tiny, *overrides)
    keys = {fault.key for fault in caught.value.faults}
    assert keys == {
        "reservoir.power_mw",
        "budgets",
        "methods.walk.method.candidates",
        "tasks.narrow.training.batch",
    }
    told = validate([str(tiny)], check)
    assert told.faults == ()


def test_light_that_is_not_converged_is_told_once_a_task_and_may_be_accepted(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convergence, "GATE_WARNS", 1e-9)
    with pytest.raises(ProtocolError) as caught:
        _prepared(tiny)
    (fault,) = caught.value.faults
    assert "step_gate=" in fault.text
    assert fault.text.endswith("in the protocol. (task narrow)")
    accepted = _prepared(tiny, "accept_unconverged=true")
    trees = [json.loads(job.text) for job in accepted.jobs]
    assert all(tree["accept_unconverged"] for tree in trees)
    monkeypatch.undo()
    monkeypatch.chdir(tiny.parent)
    # Unsaid, it changes no name of a record.
    assert all("accept_unconverged" not in job.text for job in _prepared(tiny).jobs)
