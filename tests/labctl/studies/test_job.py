"""Numbers are told with their interval, and verdicts are sentences."""

import pytest

from labctl.calibration import ReservoirEntry
from labctl.protocol import Superposition
from labctl.studies.job import (
    Verdict,
    above,
    at_power,
    own_point,
    power_jobs,
    power_points,
    together,
    told,
    verdict,
)

SPEC = Superposition(name="superposition", powers_mw=(0.5, 5.0))
ENTRY = ReservoirEntry(
    macropixels=(3, 5), region=(0, 0, 4, 6), bins=(4, 6), exposure_s=0.01, power_mw=2
)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "none"),
        ([float("nan")], "none"),
        ([0.25], "0.25"),
        ([1.0, 1.0, float("nan")], "1 [1, 1]"),
        ([0.1 + 0.2 - 0.4, 0.1], "0 [-0.1, 0.1]"),  # 0 but for rounding
    ],
)
def test_a_mean_is_told_with_the_interval_that_it_has(
    values: list[float], said: str
) -> None:
    assert told(values) == said


def test_the_interval_lies_around_the_mean() -> None:
    assert told([0.0, 1.0, 2.0, 3.0], ".2f").startswith("1.50 [0.")


def test_an_answer_becomes_a_verdict() -> None:
    assert (verdict(held=True), verdict(held=False)) == (Verdict.HELD, Verdict.FAILED)
    assert str(Verdict.CONDITIONS) == "holds under conditions"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.2, 0.3, 0.4], Verdict.HELD),
        ([-0.2, -0.3, -0.4], Verdict.FAILED),
        ([0.0, 0.0], Verdict.FAILED),
        ([-0.2, 0.3, 0.0], Verdict.OPEN),
        ([0.3], Verdict.OPEN),  # one seed has no interval
    ],
)
def test_an_interval_decides_or_leaves_open(values: list[float], kind: Verdict) -> None:
    assert above(values) is kind


@pytest.mark.parametrize(
    ("kinds", "sum_up"),
    [
        ([], Verdict.OPEN),
        ([Verdict.OPEN, Verdict.OPEN], Verdict.OPEN),
        ([Verdict.HELD, Verdict.HELD], Verdict.HELD),
        ([Verdict.HELD, Verdict.OPEN], Verdict.CONDITIONS),
        ([Verdict.HELD, Verdict.FAILED], Verdict.CONDITIONS),
        ([Verdict.FAILED, Verdict.OPEN], Verdict.FAILED),
    ],
)
def test_what_was_found_at_several_places_is_summed_up(
    kinds: list[Verdict], sum_up: Verdict
) -> None:
    assert together(kinds) is sum_up


def test_every_power_has_the_energy_of_the_operating_point() -> None:
    weak, strong = power_points(SPEC, ENTRY).values()
    assert own_point(SPEC, ENTRY) == {"name": ENTRY}
    assert (weak.power_mw, strong.power_mw) == (0.5, 5)
    assert weak.exposure_s == pytest.approx(0.04)
    assert strong.exposure_s == pytest.approx(0.004)
    assert at_power(ENTRY, 2).exposure_s == ENTRY.exposure_s


def test_jobs_follow_the_powers_seed_by_seed() -> None:
    names = [job.name for job in power_jobs(SPEC, [3, 4])]
    assert names == ["0.5 mW seed 3", "5 mW seed 3", "0.5 mW seed 4", "5 mW seed 4"]
