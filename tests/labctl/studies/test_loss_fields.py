"""Fields are gradients of the losses of the training, and claims can fail."""

import numpy as np
import pytest
import torch

from labctl.protocol import LossFields, LossName
from labctl.studies.job import Job, Rows, Verdict
from labctl.studies.loss_fields import Field, claims, columns, jobs, measure
from labctl.training import loss as losses

SPEC = LossFields(name="loss-fields", grid=3, starts=2, steps=20, step_size=0.1)


def run(*names: LossName, spec: LossFields = SPEC) -> Rows:
    given = spec.model_copy(update={"losses": names})
    rows = [{"seed": job.seed, **measure(given, job)} for job in jobs(given, range(2))]
    return {
        key: np.array([row[key] for row in rows], dtype=object)
        if key == "loss"
        else np.array([row[key] for row in rows])
        for key in rows[0]
    }


def test_a_field_is_the_gradient_of_single_vectors() -> None:
    x, y = torch.randn(2, 7, 2, dtype=torch.float64)
    gx, gy, value = Field(losses.log_mse)(x, y)
    apart = (x - y).square().sum(dim=1)
    expected = 2 * (x - y) / apart[:, None]
    assert torch.allclose(gx, expected)
    assert torch.allclose(gy, -expected)
    assert torch.allclose(value, apart.log())


def test_a_job_leaves_every_column() -> None:
    (job,) = jobs(SPEC.model_copy(update={"losses": ("mse",)}), [3])
    found = measure(SPEC, job)
    declared = {column.name: column.shape for column in columns(SPEC)}
    assert set(found) == {"score", *declared}
    for name, shape in declared.items():
        assert np.shape(found[name]) == shape, name


def test_the_same_seed_gives_the_same_numbers() -> None:
    job = Job("mse seed 1", 1, {"loss": "mse", "a": float("nan")})
    one, two = measure(SPEC, job), measure(SPEC, job)
    assert np.array_equal(one["paths"], two["paths"])
    assert not np.array_equal(
        one["target"], measure(SPEC, Job("x", 2, job.settings))["target"]
    )


def test_gen_has_a_job_for_each_exponent() -> None:
    names = [job.name for job in jobs(SPEC, [0])]
    assert [name for name in names if name.startswith("gen")] == [
        "gen(0.5) seed 0",
        "gen(1) seed 0",
        "gen(1.5) seed 0",
    ]


def test_what_the_document_saw_is_seen_here() -> None:
    found = {
        claim.text.partition(":")[0]: claim.verdict
        for claim in claims(SPEC, run("sign", "mse", "log-mse", "gen"))
    }
    assert found["mse"] is Verdict.HELD
    assert found["sign as written"] is Verdict.HELD
    overshoots = "log mse overshoots through the optimum instead of converging calmly"
    assert found[overshoots] is Verdict.HELD


def test_a_claim_fails_where_the_numbers_are_against_it() -> None:
    rows = run("cos", "cos+mse")
    assert Verdict.FAILED not in {claim.verdict for claim in claims(SPEC, rows)}
    spoilt = {**rows, "slope_x": np.zeros_like(rows["slope_x"])}
    failed = [c.text for c in claims(SPEC, spoilt) if c.verdict is Verdict.FAILED]
    assert failed == ["cos: the gradient explodes as x comes close to 0"]


@pytest.mark.parametrize("name", ["cos", "sign"])
def test_claims_are_judged_only_where_their_losses_were_measured(
    name: LossName,
) -> None:
    judged = {claim.text for claim in claims(SPEC, run(name))}
    others = {claim.text for claim in claims(SPEC, run("mse"))}
    assert not judged & others


def test_a_similarity_that_is_not_squared_runs_off() -> None:
    rows = run("dot", "mse")
    of_dot = rows["loss"] == "dot"
    # One step moves <x, y>/<y, y> by the step over |y|^2.
    size = np.linalg.norm(rows["target"], axis=1)
    moved = SPEC.steps * SPEC.step_size / size**2
    assert rows["run_off"][of_dot] == pytest.approx(moved[of_dot], rel=1e-9)
    assert np.isnan(rows["run_off"][~of_dot]).all()
    said = {c.text: c.verdict for c in claims(SPEC, run("dot"))}
    assert [v for text, v in said.items() if text.startswith("1 - <x, y>")] == ["held"]


def test_opposite_is_rare_in_many_dimensions() -> None:
    share = run("cos")["near_opposite"]
    # In the plane, the sine is below a tenth on 2 asin(.1) of the circle's 2 pi.
    assert share[:, 0] == pytest.approx(np.arcsin(0.1) / np.pi, abs=0.004)
    # In four, the cap of that angle has (2t - sin 2t) / 2 pi of the sphere.
    angle = np.arcsin(0.1)
    cap = (2 * angle - np.sin(2 * angle)) / (2 * np.pi)
    assert share[:, 1] == pytest.approx(cap, abs=2.5e-4)
    assert (share[:, 2:] == 0).all()
    assert (run("mse")["near_opposite"] == 0).all()


def test_the_pull_of_cos_is_one_over_the_norm() -> None:
    rows = run("cos")
    assert rows["slope_x"] == pytest.approx(-1)
    assert rows["y_blind"] == pytest.approx(0, abs=1e-12)
