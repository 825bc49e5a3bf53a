"""A training inside a study is a training: checked, counted and taught alike."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labctl.errors import ProtocolError
from labctl.run.setting import Options, Setting, resolve
from labctl.studies import lesson

PROTOCOLS = Path(__file__).parents[3] / "protocols" / "studies"
SECTIONS: dict[str, Any] = {
    "data": {"set": "yin-yang", "train": 48, "validation": 4, "test": 30},
    "model": [{"layer": "device"}, {"layer": "standardise"}, {"layer": "linear"}],
    "surrogate": {"name": "twin-modes"},
    "probes": {"noise_repeats": 2},
    "training": {"batch": 16},
    "budget": {"shots": 200},
}


@pytest.fixture(scope="module")
def setting() -> Setting[Any]:
    found = resolve(str(PROTOCOLS / "evolution-smoke.yaml"), Options())
    assert isinstance(found, Setting)
    return found


def test_a_lesson_is_a_training_at_the_operating_point_of_the_study(
    setting: Setting[Any],
) -> None:
    job = lesson.lesson(setting, SECTIONS, 7)
    assert job.setting.entry == setting.entry
    assert job.setting.protocol.seed == 7
    counts = lesson.shots(job)
    assert counts["evaluate"] == 30
    assert sum(counts.values()) - 30 <= 200
    assert counts["train"] > 0


def test_a_lesson_that_cannot_be_paid_is_refused(setting: Setting[Any]) -> None:
    with pytest.raises(ProtocolError, match="budget"):
        lesson.lesson(setting, {**SECTIONS, "budget": {"shots": 20}}, 7)


def test_who_listens_keeps_the_guard_awake_and_watches() -> None:
    beats: list[int] = []
    bench = SimpleNamespace(beat=lambda: beats.append(1))
    lab: Any = SimpleNamespace(session=SimpleNamespace(bench=bench))
    seen: list[object] = []
    listener = lesson._Listener(lab, seen.append)
    row: Any = SimpleNamespace(shots=16, loss=0.5)
    listener.step(row)
    assert seen == []  # no trainer yet
    trainer: Any = object()
    listener.trainer = trainer
    listener.step(row)
    listener.beat()
    assert (seen, beats) == ([trainer], [1])
    assert listener.rows == [(16, 0.5), (16, 0.5)]
