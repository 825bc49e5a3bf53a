"""Surrogates without structure: fair sizes, the best start, an honest climb."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labctl import document
from labctl.protocol import ADAPTER, RestoreJacobian, StudyProtocol
from labctl.recording.layout import LONGEST_CLAIM_BYTES
from labctl.studies.job import Job, Rows, Verdict
from labctl.studies.restore_free import MARKS, METHODS, Task, claims, jobs, measure
from labctl.training.surrogate.build import build
from labctl.training.surrogate.settings import Ports, SurrogateSettings

ROOT = Path(__file__).parents[3]
SPEC = RestoreJacobian(
    name="restore-jacobian",
    fit_steps=96,
    probes=2048,
    starts=2,
    rates=(0.01, 1e-9),
    reach=(2, 3),
    reach_steps=240,
)


@pytest.mark.parametrize("part", ["linear", "product"])
@pytest.mark.parametrize("dim", [2, 5, 8])
def test_both_methods_have_as_many_parameters(part: str, dim: int) -> None:
    task = Task(part, "dense", dim, 1.0, 100, 1)
    counts = []
    for method in METHODS:
        width = replace(task, method=method).width(1000)
        settings = SurrogateSettings(
            name="dense" if method == "dense" else "log-lin-exp", width=width
        )
        model = build(
            settings, Ports(task.pixels, dim, circular=False), torch.Generator()
        )
        counts.append(sum(parameter.numel() for parameter in model.parameters()))
    assert counts[0] == pytest.approx(counts[1], rel=0.1)


def _job(method: str, **changes: float | str) -> Job:
    usual = {"part": "linear", "method": method, "axis": "dimension"}
    return Job("one", 0, {**usual, "dim": 3, "share": 1.0, "probes": 2048, **changes})


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    return measure(SPEC, _job("log-lin-exp"))


def test_the_start_with_the_least_held_out_loss_goes_on(fitted: dict[str, Any]) -> None:
    # The second start stands still.
    assert fitted["start_loss"][0] < fitted["start_loss"][1]
    assert fitted["start_cosine"][0] == fitted["cosine"][3]
    assert fitted["cosine"][-1] > fitted["start_cosine"].max()
    assert fitted["loss"][-1] < fitted["loss"][0]


def test_every_start_gets_all_steps_where_they_are_judged_at_the_end() -> None:
    # The first stands still; the second is chosen, by what it is at the end.
    late = SPEC.model_copy(update={"judged": 1.0, "rates": (1e-9, 0.01)})
    found = measure(late, _job("log-lin-exp"))
    assert found["start_cosine"][1] == found["cosine"][-1]
    assert found["start_cosine"][0] < found["start_cosine"][1]
    assert len(found["cosine"]) == MARKS


def test_time_of_the_starts_that_were_left_counts(fitted: dict[str, Any]) -> None:
    assert fitted["seconds"][0] > 0
    assert (np.diff(fitted["seconds"]) > 0).all()
    assert fitted["digital_s"] == fitted["seconds"][-1]
    assert fitted["steps"].tolist() == [4 * mark for mark in range(MARKS)]


def test_a_start_that_diverged_is_a_failure_and_not_chosen() -> None:
    wild = SPEC.model_copy(update={"rates": (1e6, 0.01), "fit_steps": 48})
    found = measure(wild, _job("log-lin-exp"))
    assert found["start_cosine"][0] == 0
    assert np.isinf(found["start_loss"][0])
    assert found["cosine"][-1] > 0.3


def test_a_climb_ends_where_the_gradient_is_not_found() -> None:
    high = SPEC.model_copy(update={"reach_steps": 24})
    found = measure(high, _job("dense", part="product", axis="reach"))
    assert (found["reached"], found["dim"]) == (0, 2)
    assert np.isnan(found["reach_s"]).all()


def test_a_climb_stops_a_fit_that_has_arrived() -> None:
    easy = SPEC.model_copy(
        update={"reach": (2,), "reach_steps": 720, "rates": (0.02,), "starts": 1}
    )
    job = _job("log-lin-exp", part="product", axis="reach", probes=4096)
    short = measure(easy, job)
    assert short["reached"] == 2
    assert short["cosine"][-1] >= 0.99
    assert short["reach_s"][0] == short["seconds"][-1] == short["digital_s"]
    assert short["steps"][-1] < 720  # it stopped once it had arrived


def test_a_climb_takes_the_first_start_that_arrives() -> None:
    # Judged at the end, where one that had arrived may have left again.
    late = {"judged": 1.0, "starts": 3, "rates": (1e-9, 0.02, 0.02)}
    sizes = {"reach": (2,), "reach_steps": 720}
    found = measure(
        SPEC.model_copy(update={**late, **sizes}),
        _job("log-lin-exp", part="product", axis="reach", probes=4096),
    )
    assert found["reached"] == 2
    assert found["cosine"][-1] == found["start_cosine"][1] >= 0.99
    assert np.isnan(found["start_cosine"][2])
    assert found["steps"][-1] < 720
    assert found["seconds"][0] > 0  # the first start went to its end


def _full() -> RestoreJacobian:
    path = ROOT / "protocols" / "studies" / "restore-jacobian-full.yaml"
    found = document.read(path, ADAPTER).value
    assert isinstance(found, StudyProtocol)
    assert isinstance(found.study, RestoreJacobian)
    return found.study


def _rows(ahead: float) -> Rows:
    """Rows of the full size, log-lin-exp so far ahead."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(3):
        for job in jobs(_full(), seed):
            far = job.settings["method"] == "log-lin-exp"
            score = 0.55 + ahead * far + 0.01 * rng.normal()
            cost = {"parameters": 1000, "digital_s": 123.4567}
            reached = 4 + (4 if ahead > 0 else -2) * far
            rows.append({**job.settings, "seed": seed, "score": score, **cost})
            rows[-1]["reached"] = reached if job.settings["axis"] == "reach" else -1
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


@pytest.mark.parametrize(
    ("ahead", "kind"), [(0.4, Verdict.HELD), (-0.4, Verdict.FAILED)]
)
def test_claims_are_judged_by_seeds_and_fit_the_record(
    ahead: float, kind: Verdict
) -> None:
    found = claims(_full(), _rows(ahead))
    assert [claim.verdict for claim in found[:5]] == [kind] * 5
    for claim in found:
        assert len(claim.measured.encode()) <= LONGEST_CLAIM_BYTES, claim.measured
        assert len(claim.text.encode()) <= 320
    assert "failures (below 0.5): 0 and" in found[0].measured


def test_a_small_difference_decides_nothing() -> None:
    kinds = {claim.verdict for claim in claims(_full(), _rows(0.0))[:2]}
    assert Verdict.HELD not in kinds
