"""A training most of whose frames are saturated does not pass for one that is not."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from labctl.errors import OutcomeError, SafetyError, SaturatedError
from labctl.recording.reader import Record
from labctl.run import saturation
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.saturation import LEAST_FRAMES, Sighted
from labctl.run.setting import Options, Outcome
from labctl.training.blackbox import Response

Alter = Callable[[str, str], Path]
# As if somebody had taken the filter away that is before the camera.
FULL = ("photons_per_s: 2.698e+6", "photons_per_s: 2.698e+10")
QUICK = (
    "reference.oracle=false",
    "record.frames=binned",
    "training.validate_every=0",
    "data.test=20",
    "method.pretrain_fits=5",
    "method.digital_steps=5",
)


def run(small: Path, bench: Path, *overrides: str) -> Outcome:
    options = Options(
        bench=str(bench), overrides=(*QUICK, *overrides), out=Path("s.h5")
    )
    return execute(prepare(str(small), options), Silent())


@pytest.mark.parametrize(
    ("overrides", "seen"),
    [
        ((), "warm-up"),
        # So few samples are not judged before the twin is shown more of them.
        (("data.train=32", "method.name=calibrate-deploy"), "warm-up"),
        (
            ("data.train=32", "probes.noise_repeats=0", "surrogate.first_fits=2"),
            "train",
        ),
    ],
    ids=["warm-up", "before training", "in training"],
)
def test_a_training_of_saturated_frames_ends_and_says_how_many_there_were(
    small: Path, alter: Alter, overrides: tuple[str, ...], seen: str
) -> None:
    told = r"training stopped at step \d+: camera: saturated=(\d+) of \1 frames.*100%"
    with pytest.raises(OutcomeError, match=told):
        run(small, alter(*FULL), *overrides)
    with Record.open("s.h5") as record:
        assert record.status == "failed"
        assert record.result["outcome"] == "saturated"
        assert record.result["saturated_frames"] == 1
        assert record.result["score_test"] is None
        category = record.column("shots_meta", "category").tolist()
        level, text = next(
            (event.level, event.text)
            for event in reversed(record.events())
            if event.source == "training" and event.level == "error"
        )
    assert level == "error"
    assert "Lower reservoir.exposure_s" in text
    # It did not go on for long, and what was exposed is kept.
    learnt = [name for name in category if name != "evaluate"]
    assert learnt[-1] == seen
    assert LEAST_FRAMES <= len(learnt) < LEAST_FRAMES + 20


def test_some_saturated_frames_are_told_with_the_result(
    small: Path, alter: Alter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saturation, "FRAMES", 1.0)
    outcome = run(small, alter(*FULL), "method.name=readout")
    assert outcome.status == "complete"
    assert outcome.result["saturated_frames"] == 1
    assert "saturated: 100.0 % of the frames of the training" in outcome.summary


def test_without_saturation_nothing_is_said_of_it(trained: Outcome) -> None:
    assert trained.result["saturated_frames"] == 0
    assert "saturated" not in trained.summary


def test_where_the_bench_file_says_stop_the_first_pixel_stops(
    small: Path, alter: Alter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The bench is latched by that; other tests have one of the same name.
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    bench = alter(*FULL)
    text = bench.read_text(encoding="utf-8")
    limit = "  exposure_s: 0.02\n"
    assert limit in text
    bench.write_text(
        text.replace(limit, f"{limit}  on_saturation: stop\n"), encoding="utf-8"
    )
    with pytest.raises(SafetyError, match=r"saturated_px=\d+, expected 0"):
        run(small, bench, "allow_uncalibrated=true")


class Rows:
    """A bench and its record: each call adds rows of a number of saturated pixels."""

    def __init__(self, *saturated_px: int, quality: bytes = b"ok") -> None:
        self.saturated_px, self.quality = list(saturated_px), quality
        self.shots = 0
        self.categories: list[bytes] = []
        self.entry = None
        region = SimpleNamespace(region=(0, 0, 20, 10))
        self.bench = SimpleNamespace(
            bins=lambda _: region, camera=SimpleNamespace(name="eye")
        )

    def __call__(self, phase: Tensor, *, category: str, **_: int) -> Response:
        self.shots += len(phase)
        self.categories += [category.encode()] * len(phase)
        return Response(phase, phase, torch.arange(len(phase)))

    def read(self, table: str, name: str, rows: slice) -> Any:  # noqa: ANN401 - any column
        assert table == "shots_meta"
        assert rows.stop <= self.shots
        columns: dict[str, list[Any]] = {
            "category": self.categories,
            "quality": [self.quality] * self.shots,
            "saturated_px": self.saturated_px,
        }
        return np.asarray(columns[name][rows])


def sighted(rows: Rows) -> Sighted:
    stand_in: Any = rows
    return Sighted(stand_in, stand_in)


def expose(eye: Sighted, count: int, category: str = "train") -> None:
    eye(torch.zeros(count, 3), category=category, layer=0, step=0)


def test_more_than_half_of_the_frames_end_it_once_there_are_enough() -> None:
    # Of 200 pixels: two are not more than a hundredth.
    eye = sighted(Rows(*[3] * 32, *[2] * 32, 3, 2))
    for _ in range(2):
        expose(eye, 32)
    assert (eye.frames, eye.share) == (64, 0.5)
    with pytest.raises(SaturatedError, match=r"eye: saturated=33 of 65 .*51%; more"):
        expose(eye, 1)


def test_few_frames_and_those_that_nothing_learns_from_do_not_count() -> None:
    eye = sighted(Rows(*[200] * 163))
    expose(eye, 63)
    expose(eye, 100, "evaluate")
    assert (eye.frames, eye.saturated) == (63, 63)
    eye = sighted(Rows(*[200] * 100, quality=b"stale"))
    expose(eye, 100)
    assert eye.frames == 0


def test_a_resumed_run_counts_what_was_recorded_before() -> None:
    rows = Rows(*[200] * 70, *[0] * 30)
    expose(fresh := sighted(rows), 32)
    assert fresh.frames == 32
    rows(torch.zeros(28, 3), category="train")
    # Another process, which begins behind 60 shots.
    with pytest.raises(SaturatedError, match="saturated=64 of 64"):
        expose(sighted(rows), 4)
