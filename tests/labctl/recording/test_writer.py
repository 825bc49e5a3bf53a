import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from labctl.errors import InputError, RecordError, SafetyError
from labctl.recording import disk
from labctl.recording.header import Header
from labctl.recording.layout import Layout
from labctl.recording.reader import Record
from labctl.recording.writer import Recorder

MakeRows = Callable[[Layout, str, int], dict[str, Any]]
NO_ROOM = "unable to write: errno = 28, error message = no space"
GONE = "disk gone"
Create = Callable[[], Recorder]
RunPython = Callable[..., subprocess.CompletedProcess[str]]

# A reader in a process of its own: reopens until the record says complete, and
# checks each time that what is committed is whole.
LIVE_READER = """
import sys
from labctl.recording.reader import Record

last, polls = 0, 0
print("ready", flush=True)
while True:
    with Record.open(sys.argv[1]) as record:
        status, count = record.status, record.lengths["shots"]
        frames = record.column("shots", "frames")
        steps = record.column("shots_meta", "step")
        shots = record.column("shots", "shot")
    assert count >= last, (count, last)
    assert len(frames) == len(steps) == len(shots) == count
    assert (frames == shots[:, None, None]).all()
    assert (steps == shots).all()
    last, polls = count, polls + 1
    if status == "complete":
        break
print(last, flush=True)
"""


@pytest.fixture
def create(record_path: Path, plan: Layout, header: Header) -> Create:
    """Make a recorder; the test closes it."""
    return lambda: Recorder.create(record_path, layout=plan, header=header)


def test_rows_come_back_as_they_were(
    create: Create, plan: Layout, make_rows: MakeRows, record_path: Path
) -> None:
    shots, steps = make_rows(plan, "shots", 5), make_rows(plan, "training", 2)
    with create() as recorder:
        assert recorder.append_shots(**shots) == slice(0, 5)
        assert recorder.append_shots(**shots) == slice(5, 10)
        assert recorder.append("training", **steps) == slice(0, 2)
        assert recorder.lengths["shots"] == 10
    with Record.open(record_path) as record:
        kept = record.table("shots") | record.table("shots_meta")
        for name, values in shots.items():
            np.testing.assert_array_equal(kept[name], np.concatenate([values, values]))
        assert kept["shot"].tolist() == list(range(10))
        np.testing.assert_array_equal(record.column("training", "loss"), steps["loss"])


def test_plain_h5py_opens_it_after_closing(create: Create, record_path: Path) -> None:
    with create():
        pass
    with h5py.File(record_path, "r") as file:
        assert file["entry/status"][()] == b"complete"
        assert len(file["entry/end_time"][()]) > len("2031-04-02")
        assert file["entry/program_name"].attrs["version"]
        assert file["entry/writers"][0]["pid"] == os.getpid()
        assert file["entry/writers"][0]["end_s"] >= file["entry/writers"][0]["start_s"]


def test_nothing_can_be_added_while_recording(
    create: Create, plan: Layout, make_rows: MakeRows
) -> None:
    rows = make_rows(plan, "shots", 1)
    with create() as recorder:
        with pytest.raises(ValueError, match="table=extra, expected one of"):
            recorder.append("extra", value=[1.0])
        with pytest.raises(ValueError, match=r"unknown=\['extra'\]"):
            recorder.append_shots(**rows, extra=[1.0])
        assert recorder.lengths["shots"] == 0


def test_a_refused_append_leaves_nothing(
    create: Create, plan: Layout, make_rows: MakeRows, record_path: Path
) -> None:
    rows = make_rows(plan, "shots", 2)
    with create() as recorder:
        with pytest.raises(ValueError, match="values beyond uint8"):
            recorder.append_shots(**rows | {"levels": np.full((2, 15), 300)})
        recorder.append_shots(**rows)
    with Record.open(record_path) as record:
        assert record.lengths["shots"] == 2


def test_a_live_reader_sees_committed_rows_only(
    create: Create,
    plan: Layout,
    make_rows: MakeRows,
    record_path: Path,
    run_python: RunPython,
) -> None:
    count = "import sys; from labctl.recording.reader import Record\n"
    count += "with Record.open(sys.argv[1]) as r: print(r.status, r.lengths['shots'])"
    rows = make_rows(plan, "shots", 3)
    with create() as recorder:
        recorder.append_shots(**rows)
        recorder.commit()
        recorder.append_shots(**rows)
        # Flushed, as HDF5 may do at any time, and still not committed.
        recorder._file.flush()
        assert run_python(count, str(record_path)).stdout == "running 3\n"


def test_a_live_reader_beside_a_fast_writer_sees_whole_rows(
    create: Create, plan: Layout, make_rows: MakeRows, record_path: Path
) -> None:
    rows = make_rows(plan, "shots", 2)
    recorder = create()
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", LIVE_READER, str(record_path)],
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        with recorder:
            for number in range(0, 300, 2):
                shots = np.arange(number, number + 2)
                frames = np.broadcast_to(shots[:, None, None], (2, 5, 7))
                own = {"frames": frames.astype("u2"), "step": shots}
                recorder.append_shots(**rows | own)
                recorder.commit()
        assert reader.stdout.read() == "300\n"
    assert reader.returncode == 0


# A recorder in a process of its own: eight shots committed, two more appended,
# and then what the test asks for.
WRITER = """
import os, signal, sys
import numpy as np
from labctl.recording.header import Header
from labctl.recording.layout import ShotSpec, train_layout
from labctl.recording.writer import Recorder

plan = train_layout(ShotSpec(2, 3, frame_shape=(40, 50)))
point = dict(exposure_s=1.0, gain_db=0.0, power_mw=1.0)
point |= dict(region=[0, 0, 4, 5], bins=[1, 3], macropixels=[1, 2])
header = Header(
    title="", kind="train", protocol_text="", protocol_resolved={}, bench_name="",
    bench_text="", bench_sha256="", simulated=True, notice="", seeds={},
    instrument={}, calibrations={}, reservoir=point,
)

def rows(start):
    shots = np.arange(start, start + 2)
    values = {}
    for table in plan.together("shots"):
        for column in table.columns:
            shape = (2, *column.shape)
            one = shots.reshape(2, *[1] * len(column.shape))
            text = column.dtype.startswith("S")
            full = np.full(shape, "ok") if text else np.broadcast_to(one, shape)
            values[column.name] = full if text else full.astype(column.dtype)
    del values["shot"]
    return values

recorder = Recorder.create(sys.argv[1], layout=plan, header=header)
for start in range(0, 8, 2):
    recorder.append_shots(**rows(start))
    recorder.commit()
recorder.append_shots(**rows(8))
"""


def committed(path: Path) -> list[int]:
    with Record.open(path) as record:
        frames = record.column("shots", "frames")
        shots = record.column("shots", "shot")
        assert (frames == shots[:, None, None]).all()
        assert (record.column("shots_meta", "levels") == shots[:, None]).all()
        return [int(shot) for shot in shots]


def test_a_crash_loses_nothing_that_was_committed(
    record_path: Path, header: Header, plan: Layout, run_python: RunPython
) -> None:
    assert run_python(WRITER + "os._exit(9)", str(record_path)).returncode == 9
    with Record.open(record_path) as record:
        assert record.status == "running"
    assert committed(record_path) == list(range(8))
    # The lock of a process that died holds nobody up.
    Recorder.create(record_path, layout=plan, header=header, overwrite=True).close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the file's size")
def test_a_file_at_its_limit_keeps_what_was_committed(
    record_path: Path, run_python: RunPython
) -> None:
    fill = """
import resource
from labctl.errors import RecordError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = os.path.getsize(sys.argv[1]) + 200_000
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
start = 10
try:
    while True:
        recorder.commit()
        print(start, flush=True)
        recorder.append_shots(**rows(start))
        start += 2
except RecordError as err:
    print(err, flush=True)
    # Without room HDF5 cannot close: leave as a kill would.
    os._exit(5)
"""
    done = run_python(WRITER + fill, str(record_path))
    assert done.returncode == 5, done.stderr
    *acknowledged, message = done.stdout.splitlines()
    assert "the file is at its size limit (errno 27)" in message
    assert committed(record_path) == list(range(int(acknowledged[-1])))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("broken"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (SafetyError("too hot"), "stopped"),
    ],
)
def test_the_status_tells_how_it_ended(
    create: Create,
    plan: Layout,
    make_rows: MakeRows,
    record_path: Path,
    error: BaseException,
    status: str,
) -> None:
    with pytest.raises(type(error)), create() as recorder:
        recorder.append_shots(**make_rows(plan, "shots", 2))
        raise error
    with Record.open(record_path) as record:
        assert record.status == status
        assert record.lengths["shots"] == 2
        assert type(error).__name__ in record.events()[-1].text


@pytest.mark.parametrize(
    ("first", "status"), [(True, "interrupted"), (False, "complete")]
)
def test_ctrl_c_while_it_closes_does_not_cut_the_last_word_off(
    create: Create,
    record_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: bool,
    status: str,
) -> None:
    recorder = create()
    said = recorder.set_status

    def disturbed(status: str) -> None:
        signal.raise_signal(signal.SIGINT)
        said(status)

    monkeypatch.setattr(recorder, "set_status", disturbed)
    with pytest.raises(KeyboardInterrupt), recorder:
        if first:
            raise KeyboardInterrupt
    with Record.open(record_path) as record:
        assert record.status == status


def test_a_status_that_was_set_stays(create: Create, record_path: Path) -> None:
    with pytest.raises(RuntimeError), create() as recorder:
        recorder.set_status("stopped")
        raise RuntimeError
    with Record.open(record_path) as record:
        assert record.status == "stopped"


def test_an_unknown_status_is_refused(create: Create) -> None:
    with (
        create() as recorder,
        pytest.raises(ValueError, match=r"status=done, expected one of running, "),
    ):
        recorder.set_status("done")


def test_the_result_is_rewritten_in_place(create: Create, record_path: Path) -> None:
    with create() as recorder:
        recorder.set_result({"score_test": 0.5, "note": "ünïcode"})
        recorder.set_result({"score_test": 0.75, "score_oracle": None})
    with Record.open(record_path) as record:
        assert record.result == {"score_test": 0.75, "score_oracle": None}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"a": "x" * 9000}, "result=90.. bytes, expected at most 8192"),
        ({"a": float("nan")}, "expected finite numbers"),
    ],
)
def test_a_result_that_cannot_be_kept_is_refused(
    create: Create, result: dict[str, Any], message: str
) -> None:
    with create() as recorder, pytest.raises(RecordError, match=message):
        recorder.set_result(result)


def test_a_long_event_goes_on_in_further_rows(
    create: Create, record_path: Path
) -> None:
    text = "ä" * 333 + "ok"
    with create() as recorder:
        recorder.event("info", "bench", "short")
        recorder.event("warning", "guard", text)
        assert recorder.lengths["events"] == 5
    with Record.open(record_path) as record:
        events = [(event.level, event.source, event.text) for event in record.events()]
        assert events == [("info", "bench", "short"), ("warning", "guard", text)]


def test_a_record_that_exists_is_replaced_only_when_told(
    create: Create, record_path: Path, plan: Layout, header: Header
) -> None:
    create().close()
    before = record_path.read_bytes()
    with pytest.raises(InputError, match="exists, expected a new file"):
        create()
    assert record_path.read_bytes() == before
    new = replace(header, title="new")
    Recorder.create(record_path, layout=plan, header=new, overwrite=True).close()
    with Record.open(record_path) as record:
        assert record.title == "new"


def test_a_second_writer_is_refused(
    create: Create, record_path: Path, plan: Layout, header: Header
) -> None:
    with create():
        with pytest.raises(InputError, match="locked by another process"):
            Recorder.create(record_path, layout=plan, header=header, overwrite=True)
        assert record_path.exists()
    Recorder.create(record_path, layout=plan, header=header, overwrite=True).close()


def test_a_missing_folder_is_refused_and_nothing_made(
    tmp_path: Path, plan: Layout, header: Header
) -> None:
    with pytest.raises(InputError, match="expected one that exists"):
        Recorder.create(tmp_path / "no" / "run.h5", layout=plan, header=header)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_leave_to_write_is_refused(
    create: Create, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("labctl.recording.writer.FileLock.acquire", refuse)
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\)"):
        create()
    assert list(tmp_path.iterdir()) == []


def test_header_and_layout_are_of_one_kind(
    record_path: Path, header: Header, layouts: dict[str, Layout]
) -> None:
    with pytest.raises(ValueError, match=r"kind=train, expected scan"):
        Recorder.create(record_path, layout=layouts["scan"], header=header)
    assert not record_path.exists()


def test_a_failed_start_leaves_no_record(
    create: Create, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(NO_ROOM)

    monkeypatch.setattr("labctl.recording.declare._links", fail)
    with pytest.raises(RecordError, match="no space"):
        create()
    assert [path.name for path in tmp_path.iterdir()] in ([], ["run.h5.lock"])


def test_no_room_gives_the_reserve_back_and_closes_well(
    create: Create,
    plan: Layout,
    make_rows: MakeRows,
    record_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = make_rows(plan, "shots", 2)
    written: list[str] = []
    extend = Recorder.append.__globals__["_extend"]

    def full(dataset: h5py.Dataset, start: int, array: NDArray[Any]) -> None:
        written.append(dataset.name)
        if len(written) == 5:
            raise RuntimeError(NO_ROOM)
        extend(dataset, start, array)

    with pytest.raises(RecordError, match=r"no space \(errno 28\)"):
        with create() as recorder:
            recorder.append_shots(**rows)
            recorder.commit()
            reserve = record_path.with_name("run.h5.reserve")
            assert reserve.stat().st_size == disk.RESERVE_BYTES
            monkeypatch.setattr("labctl.recording.writer._extend", full)
            recorder.append_shots(**rows)
        assert not reserve.exists()
    with h5py.File(record_path, "r") as file:
        assert file["entry/status"][()] == b"failed"
        assert {len(item) for item in file["entry/shots_meta"].values()} == {2}
    with Record.open(record_path) as record:
        assert record.lengths["shots"] == 2


def test_rows_that_could_not_be_flushed_never_become_true(
    create: Create,
    plan: Layout,
    make_rows: MakeRows,
    record_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError(NO_ROOM)

    rows = make_rows(plan, "shots", 2)
    with pytest.raises(RecordError, match="no space"), create() as recorder:
        recorder.append_shots(**rows)
        recorder.commit()
        recorder.append_shots(**rows)
        with monkeypatch.context() as patch:
            patch.setattr(recorder, "_flush", full)
            recorder.commit()
    with Record.open(record_path) as record:
        assert record.status == "failed"
        assert record.lengths["shots"] == 2


def test_trouble_while_closing_goes_with_the_first_error(
    create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RecordError(GONE)

    with pytest.raises(RuntimeError, match="first") as caught, create() as recorder:
        monkeypatch.setattr(recorder, "commit", fail)
        raise RuntimeError("first")
    assert set(caught.value.__notes__) == {"and then: disk gone"}
    with pytest.raises(RecordError, match="closed, expected open"):
        recorder.event("info", "test", "too late")


def test_trouble_while_closing_is_an_error_of_its_own(
    create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RecordError(GONE)

    with pytest.raises(RecordError, match="disk gone"), create() as recorder:
        monkeypatch.setattr(recorder, "commit", fail)


def test_closing_twice_is_closing_once(create: Create, tmp_path: Path) -> None:
    with create() as recorder:
        recorder.close()
        recorder.close()
    assert not (tmp_path / "run.h5.reserve").exists()
    with pytest.raises(RecordError, match="closed, expected open"):
        recorder.event("info", "test", "too late")


def test_the_disk_is_waited_for_when_asked(
    create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with create() as recorder:
        recorder.commit(fsync=True)
    assert len(synced) == 2


def test_the_estimate_is_above_the_file_and_near(
    create: Create, plan: Layout, make_rows: MakeRows, record_path: Path
) -> None:
    with create() as recorder:
        for _ in range(30):
            recorder.append_shots(**make_rows(plan, "shots", 64))
            recorder.append("training", **make_rows(plan, "training", 1))
            recorder.append("probes", **make_rows(plan, "probes", 2))
            recorder.commit()
        recorder.checkpoint(30, "step", {"a": np.zeros(10_000)})
    size = record_path.stat().st_size
    estimate = disk.estimate_bytes(plan, 30 * 64, 30, 60, 1, 80_000)
    assert size < estimate < 2 * size + 2**20


def test_the_header_is_json_and_text_that_others_can_read(
    create: Create, record_path: Path
) -> None:
    create().close()
    with h5py.File(record_path) as file:
        entry = file["entry"]
        assert entry["title"].asstr()[()] == "Digits, ünïcode"
        assert json.loads(entry["environment/seeds"].asstr()[()])["run"] == 2**62
        assert entry["reservoir/region"][()].tolist() == [4, 6, 5, 7]
        assert entry["instrument/slm/lut"].shape == (256,)
        assert entry["instrument/beam/incident_wavelength"].attrs["units"] == "nm"


def test_a_record_that_is_closed_while_it_is_opened_is_read(
    create: Create, record_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, usual = create(), h5py.File
    before = [recorder.close]

    def closing(path: Any, *given: Any, **named: Any) -> h5py.File:  # noqa: ANN401 - passed on
        if before:
            # As another process is told while the file is still written.
            before.pop()()
            text = "file is already open for write"
            raise OSError(text)
        return usual(path, *given, **named)

    monkeypatch.setattr(h5py, "File", closing)
    with Record.open(record_path) as record:
        assert record.path == record_path
    assert not before
