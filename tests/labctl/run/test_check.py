"""A training is compared with data, bench, method and budget before anything opens."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labctl.comparison.run import check as check_any
from labctl.errors import InputError, ProtocolError
from labctl.recording.layout import train_layout
from labctl.run import check
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options, opened, resolve, shot_spec
from labctl.run.train import METRICS, TrainJob
from labctl.run.validate import validate


def refused(path: Path, *overrides: str) -> dict[str, str]:
    """Prepare what must be refused; give place and text by key."""
    with pytest.raises(ProtocolError) as caught:
        prepare(str(path), Options(overrides=overrides))
    return {fault.key: str(fault) for fault in caught.value.faults}


@pytest.mark.parametrize(
    ("overrides", "key", "text"),
    [
        (
            ("probes.noise_repeats=500", "budget.shots=2000"),
            "probes.noise_repeats",
            "noise_repeats=500, expected at most 96 (training samples)",
        ),
        (
            ("probes.held_out_per_step=30", "budget.shots=2000"),
            "probes.held_out_per_step",
            "expected at most 16 together",
        ),
        (
            ("probes.paired_per_step=14", "budget.shots=2000"),
            "probes.paired_per_step",
            "held_out_per_step=4 and paired_per_step=14, expected at most 16 together",
        ),
        (("training.batch=97",), "training.batch", "batch=97, expected 1 to 96"),
        (("surrogate.starts=2",), "surrogate.starts", "starts=2 with model=TwinModes"),
        (
            ("data.train=9999", "budget.shots=9000"),
            "data.train",
            "train=9999, expected 1 to 1200",
        ),
    ],
)
def test_what_a_trainer_would_refuse_is_refused_before_it_opens(
    small: Path, overrides: tuple[str, ...], key: str, text: str
) -> None:
    found = refused(small, *overrides)
    assert list(found) == [key]
    assert found[key].startswith(f"--set {overrides[0]}: {key}: ")
    assert text in found[key]
    assert list(small.parent.iterdir()) == [small]


@pytest.mark.parametrize(
    ("directions", "dimensions", "text"),
    [
        ("random", 257, "dimensions=257, expected at most 256"),
        ("modes", 256, "dimensions=256, expected at most 255"),
    ],
)
def test_more_directions_than_a_panel_has_are_refused(
    small: Path, directions: str, dimensions: int, text: str
) -> None:
    given = f"probes={{directions: {directions}, dimensions: {dimensions}}}"
    found = refused(small, given)
    assert list(found) == ["probes.dimensions"]
    assert text in found["probes.dimensions"]


@pytest.mark.parametrize(
    "overrides",
    [
        ("estimator.name=gate", "estimator.probes=500"),
        ("drift.every=5", "drift.refit_shots=9000"),
    ],
)
def test_a_budget_without_one_step_at_its_dearest_is_refused(
    small: Path, overrides: tuple[str, ...]
) -> None:
    found = refused(small, *overrides, "budget.shots=2000")
    assert list(found) == ["budget.shots"]
    least = int(
        re.findall(r"shots=2000, expected at least (\d+): a", found["budget.shots"])[0]
    )
    job = prepare(str(small), Options(overrides=(*overrides, f"budget.shots={least}")))
    assert isinstance(job, TrainJob)
    assert job.planned.least == 1
    assert f"steps: 1 to {job.planned.steps}, as" in job.forecast.note
    told = refused(small, *overrides, f"budget.shots={least - 1}")
    assert f"expected at least {least}: a" in told["budget.shots"]


@pytest.mark.parametrize(
    ("directions", "dimensions", "expected"), [("all", 3, "0"), ("random", 0, "1 or")]
)
def test_directions_are_counted_where_they_are_some(
    small: Path, directions: str, dimensions: int, expected: str
) -> None:
    given = f"probes={{directions: {directions}, dimensions: {dimensions}}}"
    with pytest.raises(InputError, match=rf"probes.dimensions.* expected {expected}"):
        prepare(str(small), Options(overrides=(given,)))


def test_own_data_without_validation_is_refused_with_validations(small: Path) -> None:
    x, y = np.linspace(0, 1, 48).reshape(24, 2), np.arange(24) % 2
    np.savez(small.with_name("own.npz"), x_train=x, y_train=y, x_test=x, y_test=y)
    own = "data={file: own.npz, task: classification}"
    found = refused(small, own, "training.batch=8")
    assert list(found) == ["training.validate_every"]
    assert "small.yaml line 12" in found["training.validate_every"]
    text = "validate_every=5 without a validation split"
    assert text in found["training.validate_every"]
    job = prepare(
        str(small),
        Options(overrides=(own, "training={batch: 8, validate_every: 0}")),
    )
    assert job.forecast.shots["evaluate"] > 0


def test_faults_of_every_layer_are_told_at_once(small: Path) -> None:
    overrides = (
        "reservoir.power_mw=100",
        "reservoir.bins=[900, 1]",
        "budget.shots=5",
        "training.batch=1000",
        "probes.paired_per_step=3000",
        "probes.noise_repeats=200",
        "surrogate.starts=2",
        "estimator.name=control-variate",
        "data.test=4000",
    )
    found = refused(small, *overrides)
    assert set(found) == {
        "reservoir.power_mw",
        "reservoir.bins",
        "budget.shots",
        "training.batch",
        "probes.paired_per_step",
        "probes.noise_repeats",
        "surrogate.starts",
        "data.test",
    }
    # What is mended to the nearest legal value tells what the budget needs then.
    assert "shots=5, expected at least" in found["budget.shots"]


def test_a_record_in_the_way_is_told_with_the_rest(small: Path) -> None:
    small.with_name("there.h5").write_bytes(b"")
    with pytest.raises(ProtocolError) as caught:
        options = Options(out=Path("there.h5"), overrides=("budget.shots=5",))
        prepare(str(small), options)
    budget, out = str(caught.value).splitlines()
    assert "budget.shots" in budget
    assert out.startswith("there.h5: exists")


def test_a_method_and_its_budget_are_refused_together(small: Path) -> None:
    found = refused(small, "method.name=spsa", "method.candidates=3", "budget.shots=9")
    assert set(found) == {"method.candidates", "budget.shots"}


def test_missing_data_hide_no_fault_that_needs_none(small: Path) -> None:
    own = "data={file: no.npz, task: classification}"
    found = refused(small, own, "reservoir.power_mw=100", "surrogate.starts=2")
    assert set(found) == {"data.file", "reservoir.power_mw", "surrogate.starts"}


def test_a_bench_that_is_not_there_is_shown_in_the_protocol(small: Path) -> None:
    text = small.read_text(encoding="utf-8")
    small.write_text(text.replace("sim-small", "sim-smal"), encoding="utf-8")
    found = refused(small)
    assert "small.yaml line 4 column" in found["bench"]
    assert "Did you mean sim-small?" in found["bench"]


def test_validate_tells_what_a_run_would(small: Path) -> None:
    text = small.read_text(encoding="utf-8").replace("shots: 400", "shots: 5")
    text = text.replace("noise_repeats: 4", "noise_repeats: 400")
    small.write_text(text + "reservoir: {power_mw: 100, bins: [900, 1]}\n", "utf-8")
    told = validate([str(small)]).faults
    assert [fault.key for fault in told] == [
        "probes.noise_repeats",
        "budget.shots",
        "reservoir.power_mw",
        "reservoir.bins",
    ]
    assert all(fault.line and fault.column for fault in told)
    assert {fault.key: str(fault) for fault in told} == refused(small)


def test_validate_needs_no_place_for_a_record(small: Path) -> None:
    Path("records").write_text("a file", encoding="utf-8")
    check_any(small)
    with pytest.raises(InputError, match="records"):
        prepare(str(small), Options())


def test_a_sound_training_says_what_it_was_found_to_be(small: Path) -> None:
    setting: Any = resolve(str(small), Options())
    sound = check.training(setting)
    assert (len(sound.dataset.train), sound.planned.total <= 400) == (96, True)


def test_a_setting_with_faults_never_opens(small: Path) -> None:
    setting: Any = resolve(str(small), Options())
    bad = replace(setting, refused=(InputError("power"),))
    layout = train_layout(shot_spec(bad), metrics=METRICS)
    with pytest.raises(InputError, match="power"), opened(bad, layout, Silent()):
        pass
    assert list(small.parent.iterdir()) == [small]


def test_a_card_that_is_not_there_is_refused_where_it_is_asked_for(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    text = small.read_text(encoding="utf-8").replace("modes: 8,", "device: cuda,")
    small.write_text(text, encoding="utf-8")
    found = refused(small)
    assert list(found) == ["surrogate.device"]
    told = found["surrogate.device"]
    assert re.search(r"device='cuda': torch .* no CUDA device, expected one", told)
    assert told.endswith("Install a torch for CUDA and its driver, or set device: cpu")
    (fault,) = validate([str(small)]).faults
    assert (fault.key, fault.line) == ("surrogate.device", 10)
    # A method that fits nothing needs none, and says so.
    free = Options(overrides=("method.name=spsa", "probes.held_out_per_step=0"))
    setting: Any = resolve(str(small), free)
    sound = check.training(setting)
    assert sound.setting.protocol.surrogate.device == "cpu"
