"""A comparison whose surrogates were fitted on several cards says so."""

import json
from dataclasses import replace
from typing import Any

import h5py
import pytest

from labctl.comparison import fitted
from labctl.comparison.job import Job
from labctl.comparison.run import ComparisonJob, execute
from labctl.recording.reader import Record
from tests.labctl.comparison.test_run import Ear

CARD, SURROGATE = {"device": "cuda"}, {"method": {"name": "surrogate"}}


def on_card(training: Job, card: str, **own: Any) -> Job:  # noqa: ANN401 - a tree
    """The same training as if its surrogate had been fitted on a card."""
    with h5py.File(training.out, "r+", libver="v110") as file:
        file["entry/environment/fit_card"][()] = card
    tree = json.loads(training.text)
    tree["surrogate"] = {**tree["surrogate"], **CARD}
    return replace(training, text=json.dumps({**tree, **own}))


def test_trainings_on_one_card_have_nothing_to_tell(finished: ComparisonJob) -> None:
    jobs = [on_card(training, "NVIDIA A", **SURROGATE) for training in finished.jobs]
    assert fitted.apart(jobs, "NVIDIA A") == ""
    assert fitted.apart(jobs, "") == ""
    assert fitted.apart([], "NVIDIA A") == ""


def test_trainings_on_another_card_than_the_one_now_are_named(
    finished: ComparisonJob,
) -> None:
    cards = ("NVIDIA A", "NVIDIA B", "NVIDIA A", "")
    jobs = [
        on_card(training, card, **SURROGATE)
        for training, card in zip(finished.jobs, cards, strict=True)
    ]
    first, second, third, unnamed = (training.name for training in jobs)
    told = fitted.apart(jobs[:3], "NVIDIA B")
    assert f"fitted on NVIDIA A ({first}; {third}), and what is left is fitted on NVIDI"
    assert second not in told
    told = fitted.apart(jobs, "")
    assert f"NVIDIA A ({first}; {third}) and NVIDIA B ({second}) and a card" in told
    assert unnamed in told
    assert "what is left" not in told


def test_only_what_fits_a_surrogate_on_a_card_has_one(
    finished: ComparisonJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitted, "card", lambda name: f"the {name} card")
    readout, walk = finished.jobs[:2]
    on_processor = replace(walk, text=walk.text.replace('"spsa"', '"surrogate"'))
    idle = [on_card(readout, "NVIDIA A"), on_card(walk, "NVIDIA B"), on_processor]
    assert fitted.here(idle) == ""
    assert fitted.apart(idle, "NVIDIA C") == ""
    assert fitted.here([*idle, on_card(walk, "", **SURROGATE)]) == "the cuda card"


def test_a_comparison_tells_it_once_and_its_record_keeps_it(
    finished: ComparisonJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitted, "_is_on_card", lambda _: True)
    monkeypatch.setattr(fitted, "card", lambda _: "NVIDIA B")
    for training in finished.jobs:
        on_card(training, "NVIDIA A")
    finished.jobs[-1].out.unlink()
    outcome = execute(finished, ear := Ear())
    assert outcome.status == "complete"
    told = [text for text in ear.said if "NVIDIA" in text]
    assert len(told) == 1
    for training in finished.jobs:
        assert (training.name in told[0]) == (training is not finished.jobs[-1])
    with Record.open(outcome.record) as record:
        events = [(e.level, e.source, e.text) for e in record.events()]
    assert [("warning", "surrogate", told[0].removeprefix("warning: surrogate: "))] == [
        event for event in events if "NVIDIA" in event[2]
    ]
    assert "NVIDIA" not in outcome.summary
