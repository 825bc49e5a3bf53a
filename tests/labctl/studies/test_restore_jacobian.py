"""A Jacobian comes out of scalar relations, and what is kept says how."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labctl.protocol import RestoreJacobian
from labctl.studies.job import Rows, Verdict
from labctl.studies.restore_jacobian import (
    _contrary,
    claims,
    columns,
    jobs,
    measure,
)

Once = Callable[[str, Callable[[Path], Any]], Any]
SPEC = RestoreJacobian(
    name="restore-jacobian",
    dims=(3, 5),
    losses=("mse", "cos"),
    effort=24,
    learning_rate=0.1,
    linear=(2,),
    product=(2,),
    fit_steps=48,
    probes=512,
    starts=2,
    axes_dim=2,
    shares=(0.5,),
    probe_counts=(128,),
    reach=(2,),
    reach_steps=48,
)


@pytest.fixture(scope="module")
def rows(once: Once) -> Rows:
    def make(_: Path) -> Rows:
        found = [
            {"job": job.name, "seed": job.seed, **measure(SPEC, job)}
            for job in jobs(SPEC, range(2))
        ]
        return {key: np.array([row[key] for row in found]) for key in found[0]}

    rows: Rows = once("restore-jacobian", make)
    return rows


def test_mse_restores_the_matrix_itself(rows: Rows) -> None:
    some = (rows["part"] == "structured") & (rows["method"] == "mse")
    last, truth = rows["matrix"][some][:, -1], rows["truth"][some]
    assert rows["score"][some].min() > 0.99
    assert np.nanmax(np.abs(last - truth)) < 0.3 * np.nanmax(np.abs(truth))


def test_cos_finds_the_direction_but_not_the_scale(rows: Rows) -> None:
    found = {claim.text: claim.verdict for claim in claims(SPEC, rows)}
    assert found["cos cannot find the scale of the Jacobian"] is Verdict.HELD
    some = (rows["part"] == "structured") & (rows["method"] == "cos")
    assert rows["score"][some].min() > 0.8


def test_every_job_leaves_every_column(rows: Rows) -> None:
    for column in columns(SPEC):
        assert rows[column.name].shape[1:] == column.shape, column.name


def test_matrices_fill_only_their_own_size(rows: Rows) -> None:
    small = (rows["part"] == "structured") & (rows["dim"] == 3)
    frame = rows["matrix"][small][0, 0]
    assert np.isfinite(frame[:3, :3]).all()
    assert np.isnan(frame[3:]).all()
    assert np.isnan(frame[:, 3:]).all()


def test_what_is_given_costs_less_than_what_is_learned(rows: Rows) -> None:
    given = rows["part"] == "structured"
    assert (rows["parameters"][given] == rows["dim"][given] ** 2).all()
    assert rows["parameters"][~given].min() > rows["parameters"][given].min()
    assert (rows["digital_s"] > 0).all()
    assert set(rows["axis"][~given]) == {"dimension", "parameters", "probes", "reach"}


def test_surrogates_start_from_nothing_and_learn(rows: Rows) -> None:
    dense = (rows["part"] == "linear") & (rows["method"] == "dense")
    gained = rows["cosine"][dense][:, -1] - rows["cosine"][dense][:, 0]
    assert gained.mean() > 0.1


def test_a_loss_that_rises_while_signs_improve_is_seen() -> None:
    wide = SPEC.model_copy(
        update={"dims": (6,), "losses": ("log-mse",), "learning_rate": 0.3}
    )
    found = [
        {"seed": job.seed, **measure(wide, job)}
        for job in jobs(wide, range(2))
        if job.settings["part"] == "structured"
    ]
    some = {key: np.array([row[key] for row in found]) for key in found[0]}
    claim = _contrary(wide, some)
    assert claim.verdict in {Verdict.HELD, Verdict.CONDITIONS}
    assert some["contrary"].mean() > 0
