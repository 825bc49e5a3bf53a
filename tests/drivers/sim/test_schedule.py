import numpy as np
import pytest

from drivers.sim.faults import parse_faults
from drivers.sim.noise import Stream
from drivers.sim.schedule import Schedule

KINDS = ("dropped", "late")


def scheduled(*entries: dict[str, object], seed: int = 3) -> Schedule:
    faults = parse_faults(entries, KINDS, "camera")
    return Schedule(faults, seed, Stream.CAMERA_FAULTS)


def kinds(schedule: Schedule, shots: int, step_s: float = 0.1) -> list[str]:
    met = [schedule.at(shot, shot * step_s) for shot in range(shots)]
    return ["" if fault is None else fault.kind for fault in met]


def test_a_fault_meets_the_shots_it_names() -> None:
    schedule = scheduled({"kind": "dropped", "at_shot": 2, "count": 2})
    assert kinds(schedule, 5) == ["", "", "dropped", "dropped", ""]


def test_a_fault_lasts_as_long_as_it_says() -> None:
    schedule = scheduled({"kind": "late", "at_s": 0.15, "duration_s": 0.2})
    assert kinds(schedule, 5) == ["", "", "late", "late", ""]


def test_of_two_the_first_counts() -> None:
    schedule = scheduled(
        {"kind": "late", "at_shot": 1}, {"kind": "dropped", "at_shot": 0, "count": 3}
    )
    assert kinds(schedule, 3) == ["dropped", "late", "dropped"]


def test_without_entries_nothing_breaks() -> None:
    assert not scheduled()
    assert kinds(scheduled(), 3) == [""] * 3


def test_what_ended_a_run_does_so_once() -> None:
    entries = [
        {"kind": "hung", "at_shot": 2, "count": 3},
        {"kind": "hung", "probability": 0.5},
        {"kind": "late", "at_shot": 1},
    ]
    faults = parse_faults(entries, ("hung", "late"), "camera")

    def met(spared: int) -> list[str]:
        schedule = Schedule(faults, 3, Stream.CAMERA_FAULTS, ending=("hung",))
        found = [schedule.at(shot, 0.0, spared) for shot in range(40)]
        return ["" if fault is None else fault.kind for fault in found]

    before, after = met(-1), met(2)
    assert before[2:5] == ["hung"] * 3
    # Up to the third exposure nothing ends the run; the rest of the entry is over
    # too, while chance goes on.
    assert after[:3] == ["", "late", ""]
    assert after[5:] == before[5:]
    assert "hung" in after
    assert met(40) == ["", "late", *[""] * 38]


def test_chance_is_seeded_and_as_frequent_as_it_says() -> None:
    entry = {"kind": "dropped", "probability": 0.1}
    met = np.array(kinds(scheduled(entry), 4000)) == "dropped"
    assert met.mean() == pytest.approx(0.1, abs=0.015)
    # One fault says nothing about the next.
    assert (met[1:] & met[:-1]).mean() == pytest.approx(0.01, abs=0.006)
    again = np.array([scheduled(entry).at(shot, 0.0) for shot in range(40)])
    assert np.array_equal(again != None, met[:40])  # noqa: E711 - element by element
    other = np.array(kinds(scheduled(entry, seed=4), 4000)) == "dropped"
    assert not np.array_equal(met, other)
