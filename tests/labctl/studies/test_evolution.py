"""Evolution is judged against the readout, seed by seed."""

import numpy as np
import pytest

from labctl.protocol import Evolution
from labctl.studies.evolution import MARKS, _marked, _sections, claims, jobs, scores
from labctl.studies.job import Rows

SPEC = Evolution(name="evolution", budgets=(100, 400))


def rows(gain: float) -> Rows:
    """Annealing is ahead of the readout by the gain; the oracle by .5."""
    ahead = {
        "readout": 0.0,
        "selection": gain / 2,
        "annealing": gain,
        "surrogate": 0.4,
        "oracle": 0.5,
    }
    every = [
        (method, budget, seed, 0.3 + ahead[method] + 0.01 * seed)
        for method in SPEC.methods
        for budget in SPEC.budgets
        for seed in (0, 1)
    ]
    method, budget, seed, score = (
        np.array(column) for column in zip(*every, strict=True)
    )
    return {"method": method, "budget": budget, "seed": seed, "score": score}


@pytest.mark.parametrize(
    ("gain", "verdicts"),
    [
        (0.2, ["held", "held", "held"]),
        (-0.1, ["did not hold", "did not hold", "held"]),
        (0.45, ["held", "held", "did not hold"]),
    ],
)
def test_claims_compare_methods_seed_by_seed(gain: float, verdicts: list[str]) -> None:
    found = claims(SPEC, rows(gain))
    assert [str(claim.verdict) for claim in found] == verdicts
    assert f"{gain / 0.5:.2f} of the oracle's gain" in found[0].measured


def test_methods_that_were_left_out_are_not_judged() -> None:
    spec = SPEC.model_copy(update={"methods": ("readout", "annealing")})
    (claim,) = claims(spec, rows(0.2))
    assert "oracle" not in claim.measured


def test_selection_is_annealing_whose_variations_stay_as_wide() -> None:
    found = {
        job.settings["method"]: _sections(SPEC, job)["method"]
        for job in jobs(SPEC, [0])
    }
    assert found["selection"]["name"] == found["annealing"]["name"] == "annealing"
    assert found["selection"]["step_rad"] == SPEC.radius_rad
    assert found["annealing"]["step_rad"] == SPEC.step_rad
    assert found["oracle"] == {"name": "oracle"}


def test_a_curve_is_averaged_into_its_marks() -> None:
    long = _marked(np.arange(4.0 * MARKS))
    assert long[:2].tolist() == [1.5, 5.5]
    short = _marked(np.array([3.0, 4.0]))
    assert short[:2].tolist() == [3, 4]
    assert np.isnan(short[2:]).all()
    assert np.isnan(_marked(np.zeros(0))).all()


def test_scores_are_in_the_order_of_the_seeds() -> None:
    assert scores(rows(0.2), "readout", 400) == pytest.approx([0.3, 0.31])
