"""The device is judged by what is asked of an activation."""

import numpy as np

from labctl.protocol import DeviceActivations
from labctl.studies.device_activations import claims, over_power
from labctl.studies.job import Rows
from labctl.studies.zoo import MEASURES, measures

SPEC = DeviceActivations(name="device-activations", powers_mw=(0.5, 5))


def rows(weak: str, strong: str) -> Rows:
    """Two outputs and two seeds, all as functions of the zoo are."""
    each = [list(measures(name).values()) for name in (weak, strong)]
    return {
        "power_mw": np.array([0.5, 5, 0.5, 5]),
        "seed": np.array([0, 0, 1, 1]),
        "measures": np.array([[row, row] for row in (*each, *each)]),
    }


def test_a_device_like_the_sine_is_all_that_is_asked() -> None:
    found = claims(SPEC, rows("sin", "sin"))
    assert [claim.verdict for claim in found] == ["held"] * 3
    assert all("sin" in claim.measured for claim in found[1:])


def test_a_device_like_a_threshold_is_not() -> None:
    bounded, oscillates, simple = claims(SPEC, rows("threshold", "jeff-48"))
    assert bounded.verdict == "did not hold"
    assert oscillates.verdict == "holds under conditions"
    assert simple.verdict == "holds under conditions"


def test_measures_are_means_over_outputs_by_power() -> None:
    weak, strong = over_power(SPEC, rows("sin", "relu"), "oscillation")
    known = measures("sin")["oscillation"]
    assert weak.tolist() == [known, known]
    assert strong.tolist() == [0, 0]
    assert MEASURES.index("oscillation") == 3
