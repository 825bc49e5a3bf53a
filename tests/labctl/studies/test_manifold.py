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
    job = Job("x", 3, {"target": target, "network": "digital", "width": 32})
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
    width = np.where(net == "digital", SPEC.width, 0)
    named = {"target": target, "network": net, "width": width, "seed": seed}
    return {**named, "error": error}


@pytest.mark.parametrize(
    ("last", "verdict"),
    [(0.1, "held"), (0.8, "holds under conditions"), (1.2, "did not hold")],
)
def test_claims_ask_for_half_the_distance(last: float, verdict: str) -> None:
    found = claims(SPEC, rows(1.0, last))
    assert [str(claim.verdict) for claim in found] == [verdict, verdict]
    assert "knot: 1 [1, 1] before" in found[0].measured


ONE = SPEC.model_copy(update={"targets": ("knot",)})
NARROW = ONE.model_copy(update={"narrower": (2,)})


@pytest.mark.parametrize(
    ("narrow", "verdict"),
    [(0.4, "held"), (0.1, "did not hold"), (0.05, "did not hold")],
)
def test_more_parameters_are_asked_to_come_closer(narrow: float, verdict: str) -> None:
    wide = rows(1.0, 0.1)
    some = (wide["target"] == "knot") & (wide["network"] == "digital")
    thin = {key: value[some].copy() for key, value in wide.items()}
    thin["width"][:] = 2
    thin["error"][:, -1] = narrow
    both = {key: np.concatenate([wide[key], thin[key]]) for key in wide}
    _, claim, _ = claims(NARROW, both)
    assert claim.text == "a function of more parameters sculpts more surfaces"
    assert str(claim.verdict) == verdict
    assert f"units a layer 2: {narrow:g} [" in claim.measured
    # Narrow nets have no say in what the widest does.
    assert claims(NARROW, both)[0] == claims(ONE, wide)[0]


def test_narrow_nets_have_their_width() -> None:
    names = [job.name for job in jobs(NARROW, [5])]
    expected = ["knot digital seed 5", "knot digital width 2 seed 5"]
    assert names == [*expected, "knot device seed 5"]
    (thin,) = (job for job in jobs(NARROW, [5]) if "width 2" in job.name)
    assert thin.settings["width"] == 2


@pytest.mark.parametrize("narrower", [(32,), (2, 2), (64,)])
def test_widths_are_below_the_widest_and_differ(narrower: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected other widths below it, each once"):
        Manifold(name="manifold", narrower=narrower)


def test_a_narrow_net_ends_farther_from_the_line(desk: Any) -> None:  # noqa: ANN401
    knot = {"target": "knot", "network": "digital"}
    ends = [
        measure(SPEC, Job("x", 3, knot | {"width": width}), desk)["error"][-1]
        for width in (1, 32)
    ]
    assert ends[0] > 1.5 * ends[1]


def test_jobs_cover_every_cloud_and_net() -> None:
    names = [job.name for job in jobs(SPEC, [5])]
    assert names == [
        "knot digital seed 5",
        "knot device seed 5",
        "saddle digital seed 5",
        "saddle device seed 5",
    ]
