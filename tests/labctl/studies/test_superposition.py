"""Claims on superposition are judged by what grows with the power."""

import numpy as np
import pytest

from labctl.protocol import Superposition
from labctl.studies.job import Rows
from labctl.studies.superposition import changes, claims

SPEC = Superposition(name="superposition", powers_mw=(0.5, 5))


def rows(weak: float, strong: float, frame: float = 0.2) -> Rows:
    still = np.array([0.6, 0.4])
    moved = still + frame * np.array([1, -1])
    return {
        "power_mw": np.array([0.5, 5, 0.5, 5]),
        "seed": np.array([0, 0, 1, 1]),
        "defect": np.array([weak, strong, weak, 1.1 * strong]),
        "frame": np.array([still, moved, still, moved]),
        "frame_noise": np.zeros(4),
        "model_defect": np.full(4, 0.6),
    }


@pytest.mark.parametrize(
    ("weak", "strong", "verdict"),
    [
        (0.001, 0.02, "held"),
        (0.015, 0.02, "holds under conditions"),
        (0.02, 0.01, "did not hold"),
        (0.02, 0.0195, "not decided"),
    ],
)
def test_superposition_is_lost_where_the_defect_grows(
    weak: float, strong: float, verdict: str
) -> None:
    lost, moved, model = claims(SPEC, rows(weak, strong))
    assert lost.verdict == verdict
    assert moved.verdict == "held"
    assert model.verdict == "did not hold"
    assert "5 mW: 60" in model.measured


def test_a_frame_that_stays_has_not_changed() -> None:
    still = changes(SPEC, rows(0.1, 0.2, frame=0.0))
    assert [value.tolist() for value in still] == [[0, 0], [0, 0]]
    moved = changes(SPEC, rows(0.1, 0.2, frame=0.1))[-1]
    assert moved == pytest.approx(2 * 0.01 / 0.52)
