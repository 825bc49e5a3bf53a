import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labctl.errors import InputError, RecordError
from labctl.recording.header import Header
from labctl.recording.layout import Layout
from labctl.recording.reader import Record
from labctl.recording.writer import Recorder

MakeRows = Callable[[Layout, str, int], dict[str, Any]]
RunPython = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def template(
    tmp_path_factory: pytest.TempPathFactory,
    plan: Layout,
    header: Header,
    make_rows: MakeRows,
) -> Path:
    """Write a small record, once."""
    path = tmp_path_factory.mktemp("template") / "run.h5"
    shots = make_rows(plan, "shots", 4)
    shots["category"] = np.array(["train", "train", "probe", "probe"])
    shots["quality"] = np.array(["ok", "ok", "ok", "stale"])
    with Recorder.create(path, layout=plan, header=header) as recorder:
        recorder.append_shots(**shots)
        recorder.append("training", **make_rows(plan, "training", 3))
        recorder.event("info", "test", "hello")
        for step in (1, 2):
            recorder.checkpoint(step, "step", {"step": step, "w": torch.ones(2, 3)})
        recorder.set_result({"score_test": 0.5})
    return path


@pytest.fixture
def record_file(template: Path, record_path: Path) -> Path:
    """A record of one's own, to read and to damage."""
    return Path(shutil.copy(template, record_path))


def test_everything_in_the_header_comes_back(record_file: Path, header: Header) -> None:
    with Record.open(record_file) as record:
        assert record.path == record_file
        assert (record.title, record.kind) == (header.title, "train")
        assert (record.status, record.simulated) == ("complete", True)
        assert record.notice == "SIMULATED"
        assert record.protocol_text == header.protocol_text
        assert record.resolved == header.protocol_resolved
        assert (record.bench_name, record.bench_text) == ("sim", "name: sim\n")
        assert record.seeds == header.seeds
        assert record.start_time < record.end_time
        assert record.result == {"score_test": 0.5}
        assert record.environment["packages"]["h5py"] == h5py.version.version
        assert record.reservoir["bins"].tolist() == [2, 3]
        assert record.reservoir["exposure_s"] == 1e-3
        assert record.text("bench/sha256") == "0" * 64


def test_devices_and_calibrations_come_back(record_file: Path) -> None:
    with Record.open(record_file) as record:
        slm = record.instrument["slm"]
        assert slm["model"] == "SimSLM"
        assert slm["settings"] == {"ideal": False, "note": None}
        assert slm["shape"].tolist() == [12, 20]
        assert "data" not in record.instrument["camera"]
        phase = record.calibrations["slm-phase"]
        assert phase["phase_rad"].shape == (256,)
        assert phase["figure_of_merit"] == {"rms_rad": 0.01}
        assert phase["source"] == "slm-phase.yaml"
        assert record.calibrations["settle"]["settle_s"] == 0.05


def test_the_ledger_counts_what_was_accepted(record_file: Path) -> None:
    with Record.open(record_file) as record:
        assert record.ledger() == {"train": 2, "probe": 1, "refunded": 1}


def test_tables_list_what_grows(record_file: Path) -> None:
    with Record.open(record_file) as record:
        assert set(record.tables) == {"shots", "shots_meta", "training", "probes"}
        assert set(record.tables["shots"]) == {"shot", "frames", "outputs"}
        assert record.axis("shots", "x").tolist() == [6, 7, 8, 9, 10, 11, 12]
        assert record.table("probes")["df"].shape == (0, 6)


def test_a_slice_reads_only_those_rows(record_file: Path) -> None:
    with Record.open(record_file) as record:
        whole = record.column("shots", "frames")
        part = record.column("shots", "frames", slice(-2, None))
        np.testing.assert_array_equal(part, whole[2:])
        assert record.column("shots", "frames", slice(3, 1)).shape == (0, 5, 7)
        assert record.column("shots_meta", "category")[-1] == "probe"


def test_what_is_not_there_is_named(record_file: Path) -> None:
    with Record.open(record_file) as record:
        with pytest.raises(InputError, match="training/los is not there, expected one"):
            record.column("training", "los")
        with pytest.raises(InputError, match="points is not there, expected one of"):
            record.table("points")
        with pytest.raises(InputError, match="points/value is not there"):
            record.column("points", "value")
        with pytest.raises(InputError, match="expected text"):
            record.text("simulated")


def test_checkpoints_come_back(record_file: Path) -> None:
    with Record.open(record_file) as record:
        step, kind, state = record.checkpoint()
        assert (step, kind, state["step"]) == (2, "step", 2)
        assert torch.equal(state["w"], torch.ones(2, 3))
        assert record.checkpoint(0)[2]["step"] == 1
        assert [entry.step for entry in record.checkpoints()] == [1, 2]
        with pytest.raises(InputError, match="checkpoint=2, expected one of 2"):
            record.checkpoint(2)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(record_file: Path) -> None:
    with h5py.File(record_file, "r+") as file:
        file["entry/checkpoints/blob"][-1] ^= 1
    with Record.open(record_file) as record:
        assert record.checkpoint()[0] == 1
        with pytest.raises(RecordError, match="checkpoint=1 is damaged"):
            record.checkpoint(1)


def test_bytes_that_are_no_checkpoint_are_an_error(record_file: Path) -> None:
    with h5py.File(record_file, "r+") as file:
        size = len(file["entry/checkpoints/blob"])
        file["entry/checkpoints/blob"][()] = 0
        rows = file["entry/checkpoints/index"][()]
        rows["offset"], rows["nbytes"] = 0, size
        rows["crc32"] = zlib.crc32(bytes(size))
        file["entry/checkpoints/index"][()] = rows
    with (
        Record.open(record_file) as record,
        pytest.raises(RecordError, match="expected what a checkpoint was packed into"),
    ):
        record.checkpoint()


def test_a_result_that_is_no_json_is_refused(record_file: Path) -> None:
    with h5py.File(record_file, "r+") as file:
        place = file["entry/result"]
        place[()] = np.array(b"{", dtype=place.dtype)
    with (
        Record.open(record_file) as record,
        pytest.raises(InputError, match="expected JSON"),
    ):
        _ = record.result


def test_writers_tell_process_and_time(record_file: Path) -> None:
    with Record.open(record_file) as record:
        (writer,) = record.writers()
        assert writer["reason"] == "create"
        assert writer["end_s"] >= writer["start_s"]


def test_rows_beyond_the_last_commit_do_not_exist(record_file: Path) -> None:
    with h5py.File(record_file, "r+") as file:
        commits = file["entry/commits"]
        rows = commits[()]
        rows["shots"] = np.minimum(rows["shots"], 3)
        commits[()] = rows
    with Record.open(record_file) as record:
        assert record.column("shots", "frames").shape == (3, 5, 7)
        assert sum(record.ledger().values()) == 3


@pytest.mark.parametrize("field", ["time_s", "shots"])
def test_a_torn_commit_row_does_not_count(record_file: Path, field: str) -> None:
    with h5py.File(record_file, "r+") as file:
        commits = file["entry/commits"]
        whole = commits[-1]
        commits.resize(len(commits) + 1, axis=0)
        commits[-1] = whole
        torn = whole.copy()
        torn[field] = 0
        commits[-1] = torn
    with Record.open(record_file) as record:
        assert record.lengths["shots"] == 4


def test_rows_that_are_missing_are_an_error(record_file: Path) -> None:
    with h5py.File(record_file, "r+") as file:
        file["entry/training/loss"].resize(2, axis=0)
    with (
        Record.open(record_file) as record,
        pytest.raises(RecordError, match=r"has 2 rows, expected the 3 that were"),
    ):
        record.column("training", "loss")


def test_a_newer_layout_is_refused(record_file: Path) -> None:
    with h5py.File(record_file, "r+") as file:
        file["entry/layout_version"][()] = 2
    with pytest.raises(InputError, match=r"layout_version=2, expected 1 to 1"):
        Record.open(record_file)


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not there, expected a record"):
        Record.open(tmp_path / "none.h5")
    with pytest.raises(InputError, match="not there, expected a record"):
        Record.open(tmp_path / f"{'x' * 300}.h5")
    with pytest.raises(InputError, match="a folder, expected a record"):
        Record.open(tmp_path)
    text = tmp_path / "text.h5"
    text.write_text("hello")
    with pytest.raises(InputError, match="no HDF5 file, expected a record"):
        Record.open(text)
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["entry/x"] = 1
    with pytest.raises(InputError, match="HDF5, but no record"):
        Record.open(foreign)
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(foreign.read_bytes()[:100])
    with pytest.raises(InputError, match="starts otherwise than a record"):
        Record.open(damaged)


def test_a_record_that_leads_out_of_itself_is_refused(record_file: Path) -> None:
    with h5py.File(record_file, "r+") as file:
        file["entry/more"] = h5py.ExternalLink("other.h5", "/x")
    with pytest.raises(InputError, match="/entry/more is an external link"):
        Record.open(record_file)


def test_reading_loads_no_torch(record_file: Path, run_python: RunPython) -> None:
    code = """
import sys
from labctl.recording.reader import Record
with Record.open(sys.argv[1]) as record:
    record.table("training"), record.events(), record.ledger()
assert "torch" not in sys.modules
"""
    done = run_python(code, str(record_file))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[1]", "1e999999999x"])
@pytest.mark.parametrize(
    ("place", "field"),
    [
        ("protocol/resolved", "resolved"),
        ("environment/seeds", "seeds"),
        ("environment/packages", "environment"),
        ("instrument/slm/settings", "instrument"),
        ("calibration/settle/figure_of_merit", "calibrations"),
    ],
)
def test_json_from_a_stranger_is_refused_in_words(
    record_file: Path, place: str, field: str, text: str
) -> None:
    with h5py.File(record_file, "r+") as file:
        file[f"entry/{place}"][()] = text
    with (
        Record.open(record_file) as record,
        pytest.raises(InputError, match=f"{place}.*expected "),
    ):
        getattr(record, field)


@pytest.mark.parametrize("odd", [np.arange(3.0), "text"])
def test_commits_that_are_none_are_told(record_file: Path, odd: Any) -> None:  # noqa: ANN401
    with h5py.File(record_file, "r+") as file:
        del file["entry/commits"]
        file["entry/commits"] = odd
    with pytest.raises(RecordError, match="expected rows with time_s"):
        Record.open(record_file)


@given(start=st.integers(0, 2**16), bits=st.integers(1, 255))
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_damaged_checkpoint_is_never_taken_for_a_whole_one(
    template: Path, tmp_path: Path, start: int, bits: int
) -> None:
    with Record.open(template) as record:
        entry = record.checkpoints()[-1]
    path = tmp_path / "run.h5"
    shutil.copy(template, path)
    with h5py.File(path, "r+") as file:
        blob = file["entry/checkpoints/blob"]
        blob[entry.offset + start % entry.nbytes] ^= bits
    with Record.open(path) as record:
        assert record.checkpoint()[0] == 1
        with pytest.raises(RecordError, match="damaged"):
            record.checkpoint(1)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9])
def test_a_truncated_record_is_refused_in_words(
    record_file: Path, run_python: RunPython, share: float
) -> None:
    # In a process of its own: what is cut short may hang or crash a reader.
    whole = record_file.read_bytes()
    record_file.write_bytes(whole[: int(share * len(whole))])
    code = """
import sys
from labctl.errors import LabctlError
from labctl.recording.reader import Record
try:
    with Record.open(sys.argv[1]) as record:
        record.table("shots")
except LabctlError as err:
    print(err)
"""
    done = run_python(code, str(record_file))
    assert done.returncode == 0, done.stderr
    assert "expected" in done.stdout
