"""A net is filmed at equal moments, and judged by how close it comes."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from labctl import data
from labctl.protocol import Manifold
from labctl.studies.job import Job, Rows
from labctl.studies.manifold import (
    CLOUD,
    POINTS,
    SIDE,
    claims,
    columns,
    grid,
    jobs,
    measure,
)

SPEC = Manifold(name="manifold", samples=200, frames=3, steps=300)


@pytest.fixture
def desk() -> Any:  # noqa: ANN401 - of a lab, as much as a digital net needs
    entry = SimpleNamespace(macropixels=(3, 5), bins=(2, 3))
    return SimpleNamespace(entry=entry, digital=nullcontext, number=0)


@pytest.mark.parametrize("target", ["knot", "saddle"])
def test_a_digital_net_comes_close_and_is_filmed(desk: Any, target: str) -> None:  # noqa: ANN401
    job = Job("x", 3, {"target": target, "network": "digital"})
    row = {"seed": 3, **measure(SPEC, job, desk)}
    for column in columns(SPEC, desk.entry):
        assert np.shape(row[column.name]) == column.shape, column.name
    assert row["step"].tolist() == [0, 150, 300]
    assert row["error"][-1] < 0.5 * row["error"][0]
    assert row["distance"][-1] < 0.5 * row["distance"][0]
    in_plane = np.isnan(row["points"][..., 2]).all()
    assert in_plane == (target == "knot")


def test_the_grid_runs_along_the_line_and_over_the_sheet() -> None:
    assert grid("knot").shape == (POINTS, 1)
    sheet = grid("saddle").reshape(SIDE, SIDE, 2)
    assert (np.diff(sheet[..., 0], axis=0) > 0).all()
    assert (np.diff(sheet[..., 1], axis=1) > 0).all()
    line = data.manifold("knot", grid("knot"))
    assert line[0] == pytest.approx(line[-1])
    assert CLOUD <= 2000


def rows(first: float, last: float) -> Rows:
    every = [(t, n, s) for t in SPEC.targets for n in SPEC.networks for s in (0, 1)]
    target, net, seed = (np.array(column) for column in zip(*every, strict=True))
    error = np.tile([first, (first + last) / 2, last], (len(every), 1))
    return {"target": target, "network": net, "seed": seed, "error": error}


@pytest.mark.parametrize(
    ("last", "verdict"),
    [(0.1, "held"), (0.8, "holds under conditions"), (1.2, "did not hold")],
)
def test_claims_ask_for_half_the_distance(last: float, verdict: str) -> None:
    found = claims(SPEC, rows(1.0, last))
    assert [str(claim.verdict) for claim in found] == [verdict, verdict]
    assert "knot: 1 [1, 1] before" in found[0].measured


def test_jobs_cover_every_cloud_and_net() -> None:
    names = [job.name for job in jobs(SPEC, [5])]
    assert names == [
        "knot digital seed 5",
        "knot device seed 5",
        "saddle digital seed 5",
        "saddle device seed 5",
    ]
