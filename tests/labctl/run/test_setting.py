"""What a run starts from is checked together, and closed together."""

import gc
import os
import re
import shutil
import statistics
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from labctl import bench as benches
from labctl.bench import Bench
from labctl.calibrate import store
from labctl.errors import CalibrationError, InputError, ProtocolError
from labctl.optics.kernel import loaded
from labctl.protocol import AnyProtocol, TrainProtocol
from labctl.recording.layout import train_layout
from labctl.recording.reader import Record
from labctl.recording.writer import Recorder
from labctl.reservoir import Ledger
from labctl.run.execute import execute
from labctl.run.progress import Silent
from labctl.run.resume import unfinished
from labctl.run.setting import (
    Forecast,
    Options,
    Outcome,
    Session,
    Setting,
    check_calibrations,
    opened,
    resolve,
    shot_seconds,
    shot_spec,
)

METRICS = ("score_validation",)


def resolved(small: Path, **options: object) -> Setting[AnyProtocol]:
    found = resolve(str(small), Options(**options))  # type: ignore[arg-type] # a test's names
    assert isinstance(found, Setting)
    return found


def test_options_go_over_the_protocol_and_the_seed_over_all(small: Path) -> None:
    setting = resolved(small, seed=9, overrides=("title=mine", "seed=4"))
    assert setting.overrides == ("title=mine", "seed=4", "seed=9")
    assert (setting.protocol.title, setting.protocol.seed) == ("mine", 9)
    assert setting.folder == small.parent
    assert setting.where == str(small)


def test_the_protocol_replaces_part_of_the_operating_point(small: Path) -> None:
    setting = resolved(small, overrides=("reservoir.exposure_s=0.002",))
    given = setting.source.file.reservoir
    assert setting.entry == given.model_copy(update={"exposure_s": 0.002})


def test_what_the_bench_refuses_is_kept_to_be_told_with_the_rest(small: Path) -> None:
    overrides = ("reservoir.power_mw=9", "reservoir.exposure_s=1")
    setting = resolved(small, overrides=overrides)
    (error,) = setting.refused
    assert isinstance(error, ProtocolError)
    assert [fault.key for fault in error.faults] == [
        "reservoir.power_mw",
        "reservoir.exposure_s",
    ]
    # What is refused is as the bench has it for the checks that come.
    assert setting.entry == setting.source.file.reservoir


def test_records_are_named_after_protocol_and_time(small: Path) -> None:
    setting = resolved(small)
    assert setting.out.parent == Path("records")
    assert setting.out.name.startswith("small-")
    assert not Path("records").exists()


def test_a_file_in_the_way_of_records_is_refused(small: Path) -> None:
    Path("records").write_text("a file", encoding="utf-8")
    (error,) = resolved(small).refused
    assert "records, expected one that exists" in str(error)


def test_a_folder_that_refuses_files_is_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    (error,) = resolved(small).refused
    assert "can be written to (Permission denied)" in str(error)


def test_a_bench_without_calibrations_is_refused(small: Path) -> None:
    shipped = benches.load("sim-small").path
    alone = small.parent / "alone" / "bench.yaml"
    alone.parent.mkdir()
    alone.write_bytes(shipped.read_bytes())
    source = benches.load(alone)
    with pytest.raises(CalibrationError, match="calibration slm-phase=none"):
        check_calibrations(source, benches.construct(source))


def test_a_run_on_a_bench_without_calibrations_must_be_asked_for(small: Path) -> None:
    alone = small.parent / "alone" / "bench.yaml"
    alone.parent.mkdir()
    alone.write_bytes(benches.load("sim-small").path.read_bytes())
    (error,) = resolved(small, bench=str(alone)).refused
    assert isinstance(error, CalibrationError)
    assert "or say allow_uncalibrated: true in the protocol" in str(error)
    overrides = ("allow_uncalibrated=true",)
    setting = resolved(small, bench=str(alone), out=Path("s.h5"), overrides=overrides)
    layout = train_layout(shot_spec(setting), metrics=METRICS)
    with opened(setting, layout, Silent()) as session:
        reservoir = session.reservoir(setting.entry, Ledger(None))
        reservoir(torch.zeros(1, reservoir.pixels), category="evaluate")
    with Record.open("s.h5") as record:
        told = {e.source: e.text for e in record.events() if e.level == "warning"}
        assert record.resolved["allow_uncalibrated"] is True
    for kind in ("slm-phase", "settle", "camera"):
        assert told[f"calibration {kind}"] == (
            "none is in force. The run goes on (allow_uncalibrated)."
        )


DRAWN = {"matrix_px": [[32.0, 0.0], [0.0, 32.0]], "offset_px": [16.0, 16.0]}


@pytest.fixture
def drawn(small: Path) -> Path:
    """Write a bench whose region moves with the camera, calibrated but for that."""
    folder = small.parent / "drawn"
    shutil.copytree(benches.load("sim-small").path.parent, folder)
    path = folder / "bench.yaml"
    tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    tree["drawing"] = DRAWN
    with path.open("w", encoding="utf-8") as stream:
        YAML().dump(tree, stream)
    digest = benches.load(path).sha256.encode()
    for record in folder.glob("*-*.yaml"):
        given = rb"bench_sha256: [0-9a-f]{64}"
        raw = re.sub(given, b"bench_sha256: " + digest, record.read_bytes())
        record.write_bytes(raw)
    return path


def put(bench: Path, name: str, **values: object) -> None:
    made = {
        "schema_version": 1,
        "created": datetime.now(UTC),
        "bench_sha256": benches.load(bench).sha256,
        "geometry": {"camera": (32, 32)},
    }
    store.install(bench.parent, name, made, values)


def put_mapping(bench: Path, name: str, *offset_px: float) -> None:
    own = {**DRAWN, "offset_px": offset_px, "mirrored": False}
    put(bench, name, kind="mapping", **own)


def test_a_drawing_asks_for_a_mapping_or_is_believed_aloud(
    small: Path, drawn: Path
) -> None:
    (error,) = resolved(small, bench=str(drawn)).refused
    assert isinstance(error, CalibrationError)
    assert "calibration mapping=none, expected one in force" in str(error)
    overrides = ("allow_uncalibrated=true",)
    setting = resolved(small, bench=str(drawn), out=Path("s.h5"), overrides=overrides)
    assert setting.refused == ()
    layout = train_layout(shot_spec(setting), metrics=METRICS)
    with opened(setting, layout, Silent()) as session:
        reservoir = session.reservoir(setting.entry, Ledger(None))
        reservoir(torch.zeros(1, reservoir.pixels), category="evaluate")
    with Record.open("s.h5") as record:
        told = {e.source: e.text for e in record.events() if e.level == "warning"}
        assert record.calibrations["mapping"]["offset_px"].tolist() == [16, 16]
    assert told["calibration mapping"].startswith("none is in force. The run goes on")


def test_a_record_holds_the_mapping_and_a_resumed_run_holds_to_it(
    small: Path, drawn: Path
) -> None:
    put_mapping(drawn, "mapping-first", 17.0, 15.5)
    setting = resolved(small, bench=str(drawn), out=Path("s.h5"))
    layout = train_layout(shot_spec(setting), metrics=METRICS)
    with (
        pytest.raises(KeyboardInterrupt),
        opened(setting, layout, Silent()) as session,
    ):
        reservoir = session.reservoir(setting.entry, Ledger(None))
        reservoir(torch.zeros(2, reservoir.pixels), category="evaluate")
        raise KeyboardInterrupt
    with Record.open("s.h5") as record:
        found = record.calibrations["mapping"]
        assert found["offset_px"].tolist() == [17, 15.5]
        assert found["matrix_px"].tolist() == DRAWN["matrix_px"]
        # Whole blocks of pixels, with the region of 27 by 27 in them.
        assert record.column("shots", "frames").shape == (2, 32, 32)
        assert record.instrument["camera"]["roi"].tolist() == [0, 0, 32, 32]
    put_mapping(drawn, "mapping-second", 17.0, 15.4)
    with pytest.raises(InputError, match="mapping: another offset_px, expected that"):
        execute(unfinished(Path("s.h5"), bench=str(drawn)), Silent())


def test_a_resumed_run_misses_a_calibration_that_is_gone(
    small: Path, drawn: Path
) -> None:
    put_mapping(drawn, "mapping-told", 16.0, 16.0)
    current = drawn.parent / "current.yaml"
    without = current.read_bytes()
    put(drawn, "crosstalk-told", kind="crosstalk", sigma_px=0.5, most_px=0.6)
    setting = resolved(small, bench=str(drawn), out=Path("s.h5"))
    layout = train_layout(shot_spec(setting), metrics=METRICS)
    with pytest.raises(KeyboardInterrupt), opened(setting, layout, Silent()):
        raise KeyboardInterrupt
    current.write_bytes(without)
    with pytest.raises(InputError, match="crosstalk=none, expected the one in force"):
        execute(unfinished(Path("s.h5"), bench=str(drawn)), Silent())


def test_a_shot_takes_its_exposure_and_the_settling(small: Path) -> None:
    setting = resolved(small)
    assert shot_seconds(setting.source, setting.entry) == pytest.approx(0.051)


@pytest.mark.parametrize(("frames", "shape"), [("full", (27, 27)), ("binned", None)])
def test_the_record_has_room_for_what_a_shot_leaves(
    small: Path, frames: str, shape: tuple[int, int] | None
) -> None:
    spec = shot_spec(resolved(small, overrides=(f"record.frames={frames}",)))
    assert (spec.n_macropixels, spec.n_outputs) == (256, 9)
    assert spec.frame_shape == shape


def test_a_forecast_adds_up() -> None:
    forecast = Forecast({"train": 30, "probe": 0, "evaluate": 10}, 0.05, True, 2**21)
    assert forecast.text().splitlines() == [
        "shots: 40 (train 30, evaluate 10)",
        "time:  2 s of virtual time, not of yours (50.0 ms a shot)",
        "bytes: 2.0 MiB",
    ]
    assert forecast.as_json()["bench_s"] == pytest.approx(2.0)


def test_an_outcome_is_what_json_prints() -> None:
    outcome = Outcome(Path("r.h5"), "complete", {"steps": 3}, {"train": 4}, "done")
    assert outcome.as_json() == {
        "record": "r.h5",
        "status": "complete",
        "result": {"steps": 3},
        "shots": {"train": 4},
    }


# --- an open session


@pytest.fixture
def session(small: Path) -> Iterator[Session]:
    setting = resolved(small, out=Path("s.h5"))
    layout = train_layout(shot_spec(setting), metrics=METRICS)
    with opened(setting, layout, Silent()) as session:
        yield session


def test_every_shot_goes_into_the_record(session: Session) -> None:

    reservoir = session.reservoir(session.setting.entry, Ledger(None))
    reservoir(torch.zeros(3, reservoir.pixels), category="evaluate", step=7)
    with Record.open("s.h5") as record:
        assert record.column("shots_meta", "category").tolist() == ["evaluate"] * 3
        assert record.column("shots_meta", "step").tolist() == [7, 7, 7]
        assert record.column("shots", "frames").shape == (3, 27, 27)


def test_a_warning_is_told_once_for_each_source(session: Session) -> None:
    session.warn("camera", "too bright")
    session.warn("camera", "too bright again")
    session.recorder.commit()
    with Record.open("s.h5") as record:
        told = [event.text for event in record.events() if event.level == "warning"]
    assert told == ["too bright"]


@pytest.mark.slow
def test_memory_stays_as_it_is_over_a_long_run(session: Session) -> None:
    # Of Python and numpy; torch's own is that of one chunk of fields.
    # In a short run what other tests left counts as well, once: 300 kB were seen.
    long = os.environ.get("LABCTL_SOAK") == "1"
    batches, most = (1563, 40) if long else (12, 300)
    reservoir = session.reservoir(session.setting.entry, Ledger(None))
    phase = torch.zeros(64, reservoir.pixels)
    taken = []
    gc.freeze()  # what was there before: to look at it again takes most of the time
    tracemalloc.start()
    try:
        for _ in range(batches + 8):
            reservoir(phase, category="evaluate")
            gc.collect()
            taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    assert session.bench.world is not None
    assert session.bench.world.shots >= 64 * batches
    # A frame is 1,458 bytes: none stays.
    grown = [after - before for before, after in pairwise(taken[7:])]
    typical = sum(grown) / len(grown) if long else statistics.median(grown)
    assert typical < most * 64
    # What a batch leaves every time, whatever came once.
    assert np.median(np.diff(taken[7:])) < 40 * 64


def test_a_run_says_when_torch_stands_in_for_the_compiled_kernel(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    loaded.cache_clear()
    setting = resolved(small, out=Path("s.h5"))
    asked = benches.load("sim-small", ["world.options.kernel=auto"])
    layout = train_layout(shot_spec(setting), metrics=METRICS)
    with opened(replace(setting, source=asked), layout, Silent()):
        pass
    with Record.open("s.h5") as record:
        (told,) = [event.text for event in record.events() if event.level == "warning"]
        assert record.instrument["world"]["settings"]["kernel"] == "torch"
    assert told.startswith("torch computes the light: no C++ compiler")
    refused = benches.load("sim-small", ["world.options.kernel=fused"])
    with pytest.raises(InputError, match=r"Install g\+\+ .* set kernel: auto"):
        benches.construct(refused)


def test_a_bench_on_a_graphics_processor_is_refused_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    asked = benches.load("sim-small", ["world.options.device=cuda"])
    with pytest.raises(InputError, match=r"finds no CUDA device, .* set device: cpu"):
        benches.construct(asked)


def test_the_header_says_what_is_known_before_the_first_shot(session: Session) -> None:
    with Record.open("s.h5") as record:
        assert record.title == "small"
        assert record.seeds == {"run": 0}
        assert record.resolved["bench"] == "sim-small"
        assert record.resolved["reservoir"]["power_mw"] == 5.0
        assert set(record.instrument) >= {"laser", "slm", "camera", "meter", "world"}
        assert set(record.calibrations) == {"slm-phase", "settle", "camera"}
        assert isinstance(session.setting.protocol, TrainProtocol)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (RuntimeError("lost"), "failed"),
        (None, "complete"),
    ],
)
def test_light_goes_off_before_the_record_is_closed(
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException | None,
    status: str,
) -> None:
    seen: list[bool] = []
    benches_open: list[Bench] = []
    leave = Recorder.__exit__

    def watched(recorder: Recorder, *how: Any) -> None:  # noqa: ANN401 - handed on
        seen.append(benches_open[0].laser.is_emitting())
        leave(recorder, *how)

    monkeypatch.setattr(Recorder, "__exit__", watched)
    setting = resolved(small, out=Path("s.h5"))
    layout = train_layout(shot_spec(setting), metrics=METRICS)

    def run() -> None:
        with opened(setting, layout, Silent()) as session:
            benches_open.append(session.bench)
            reservoir = session.reservoir(setting.entry, Ledger(None))
            reservoir(torch.zeros(1, reservoir.pixels), category="evaluate")
            assert session.bench.laser.is_emitting()
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(type(error)):
            run()
    assert seen == [False]
    with Record.open("s.h5") as record:
        assert record.status == status


def test_nothing_stays_when_the_bench_does_not_open(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_bench: Bench) -> None:
        text = "taken"
        raise InputError(text)

    monkeypatch.setattr(Bench, "open", refuse)
    setting = resolved(small, out=Path("s.h5"))
    layout = train_layout(shot_spec(setting), metrics=METRICS)
    with pytest.raises(InputError, match="taken"), opened(setting, layout, Silent()):
        pass
    assert not Path("s.h5").exists()
