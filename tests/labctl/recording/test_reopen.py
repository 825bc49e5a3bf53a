"""A record that was left unfinished is cut, compared and continued."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from labctl.errors import InputError, RecordError
from labctl.recording import reopen
from labctl.recording.header import Header
from labctl.recording.layout import Layout
from labctl.recording.reader import Record
from labctl.recording.repair import rewrite
from labctl.recording.writer import Recorder

MakeRows = Callable[[Layout, str, int], dict[str, Any]]
STATE = {"step": 2, "w": np.arange(3.0)}


def write(recorder: Recorder, plan: Layout, make_rows: MakeRows, steps: range) -> None:
    """Do the same script from one step to another."""
    for step in steps:
        recorder.append_shots(**make_rows(plan, "shots", 8 + step))
        recorder.commit()
        recorder.append("training", **make_rows(plan, "training", 1))
        if step == 1:
            recorder.checkpoint(2, "step", STATE)
        recorder.event("info", "test", f"step {step}")
        recorder.commit()


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory,
    plan: Layout,
    header: Header,
    make_rows: MakeRows,
) -> Path:
    """Leave what a kill leaves in the third step, shots without their row."""
    folder = tmp_path_factory.mktemp("killed")
    live, copy = folder / "live.h5", folder / "run.h5"
    with Recorder.create(live, layout=plan, header=header) as recorder:
        write(recorder, plan, make_rows, range(2))
        recorder.append_shots(**make_rows(plan, "shots", 10))
        recorder.commit()
        recorder.append_shots(**make_rows(plan, "shots", 3))
        shutil.copy(live, copy)
    return copy


@pytest.fixture
def left(killed: Path, record_path: Path) -> Path:
    """An unfinished record of one's own."""
    return Path(shutil.copy(killed, record_path))


def test_going_on_ends_as_if_never_interrupted(
    left: Path, plan: Layout, header: Header, make_rows: MakeRows, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.h5"
    with Recorder.create(whole, layout=plan, header=header) as recorder:
        write(recorder, plan, make_rows, range(4))
    with Recorder.resume(left, layout=plan) as recorder:
        assert recorder.lengths["shots"] == 27
        recorder.rewind({})
        assert recorder.replaying
        write(recorder, plan, make_rows, range(4))
        assert recorder.lengths["steps"] == 4
    with Record.open(left) as one, Record.open(whole) as other:
        assert one.status == "complete"
        assert one.tables == other.tables
        for table, names in one.tables.items():
            for name in names:
                ours, theirs = one.column(table, name), other.column(table, name)
                assert ours.tobytes() == theirs.tobytes(), f"{table}/{name}"
        assert [e.text for e in one.events()] == [e.text for e in other.events()]
        assert one.checkpoints()[0].crc32 == other.checkpoints()[0].crc32
        assert len(one.checkpoints()) == 1
        assert [row["reason"] for row in one.writers()] == ["create", "resume"]


def test_going_on_from_a_checkpoint_compares_only_what_follows(
    left: Path, plan: Layout, make_rows: MakeRows
) -> None:
    with Recorder.resume(left, layout=plan) as recorder:
        lengths = recorder.lengths
        recorder.rewind({**lengths, "shots": 17})
        assert recorder.replaying
        write(recorder, plan, make_rows, range(2, 4))
    with Record.open(left) as record:
        assert record.lengths["shots"] == 8 + 9 + 10 + 11
        assert record.lengths["steps"] == 4


def test_a_record_can_be_left_again_while_it_replays(
    left: Path, plan: Layout, make_rows: MakeRows
) -> None:
    with pytest.raises(KeyboardInterrupt), Recorder.resume(left, layout=plan) as twice:
        twice.rewind({})
        write(twice, plan, make_rows, range(1))
        raise KeyboardInterrupt
    with Record.open(left) as record:
        assert record.lengths["shots"] == 27
        assert record.status == "interrupted"
    with Recorder.resume(left, layout=plan) as recorder:
        recorder.rewind({})
        write(recorder, plan, make_rows, range(4))
    with Record.open(left) as record:
        assert record.lengths["shots"] == 8 + 9 + 10 + 11
        assert record.ledger() == {"train": 38, "refunded": 0}


def test_another_bit_stops_the_replay(
    left: Path, plan: Layout, make_rows: MakeRows
) -> None:
    rows = make_rows(plan, "shots", 8)
    rows["levels"] = rows["levels"].copy()
    rows["levels"][5, 2] ^= 1
    text = r"replay diverged at step 0: shots_meta/levels row 5 differs"
    with Recorder.resume(left, layout=plan) as recorder:
        recorder.rewind({})
        with pytest.raises(RecordError, match=text):
            recorder.append_shots(**rows)
        recorder.set_status("failed")
    with Record.open(left) as record:
        assert record.lengths["shots"] == 27


def test_another_state_stops_the_replay(left: Path, plan: Layout) -> None:
    with Recorder.resume(left, layout=plan) as recorder:
        recorder.rewind({})
        with pytest.raises(RecordError, match="replay diverged"):
            recorder.checkpoint(2, "step", {**STATE, "w": np.arange(3.0) + 1e-16})
            recorder.checkpoint(2, "step", {**STATE, "w": np.arange(3.0) - 1e-6})


def test_a_checkpoint_beyond_the_end_is_refused(left: Path, plan: Layout) -> None:
    with Recorder.resume(left, layout=plan) as recorder:
        with pytest.raises(RecordError, match="shots=27 rows, expected 28"):
            recorder.rewind({"shots": 28})
        recorder.set_status("interrupted")


def test_a_live_writer_is_left_alone(
    record_path: Path, plan: Layout, header: Header
) -> None:
    with (
        Recorder.create(record_path, layout=plan, header=header),
        pytest.raises(InputError, match="locked by another process"),
    ):
        Recorder.resume(record_path, layout=plan)


def test_a_complete_record_is_not_continued(
    record_path: Path, plan: Layout, header: Header
) -> None:
    Recorder.create(record_path, layout=plan, header=header).__exit__(None, None, None)
    with pytest.raises(InputError, match="status=complete, expected a run that was"):
        Recorder.resume(record_path, layout=plan)
    with Record.open(record_path) as record:
        assert record.status == "complete"


def test_a_record_of_another_layout_is_refused(
    left: Path, layouts: dict[str, Layout]
) -> None:
    rewrite(left)
    before = left.read_bytes()
    with pytest.raises(InputError, match="kind=train, expected scan"):
        Recorder.resume(left, layout=layouts["scan"])
    with pytest.raises(InputError, match=r"levels is uint8 .*, expected uint16"):
        Recorder.resume(left, layout=layouts["train-gzip"])
    assert len(left.read_bytes()) == len(before)
    with Record.open(left) as record:
        assert (record.status, record.lengths["shots"]) == ("running", 27)


def test_missing_rows_are_told_by_name(left: Path, plan: Layout) -> None:
    rewrite(left)
    with h5py.File(left, "r+", libver="v110") as file:
        file["entry/shots_meta/levels"].resize(20, axis=0)
    with pytest.raises(RecordError, match="shots_meta/levels has 20 of 27"):
        Recorder.resume(left, layout=plan)


def test_cutting_makes_it_plain_and_says_interrupted(left: Path) -> None:
    rewrite(left)
    counts = reopen.cut(left)
    assert counts["shots"] == 27
    with h5py.File(left) as file:
        assert file["entry/shots/frames"].shape[0] == 27
        assert file["entry/status"][()] == b"interrupted"


def test_a_record_killed_before_it_held_anything_says_so(left: Path) -> None:
    rewrite(left)
    with h5py.File(left, "r+", libver="v110") as file:
        file["entry/commits"].resize(0, axis=0)
    with pytest.raises(InputError, match="killed before it held anything"):
        reopen.cut(left)


def test_what_leads_out_of_the_file_is_refused_before_it_is_followed(
    left: Path, plan: Layout, tmp_path: Path
) -> None:
    rewrite(left)
    with h5py.File(left, "r+", libver="v110") as file:
        file["entry/extra"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
    with pytest.raises(InputError, match="external link"):
        Recorder.resume(left, layout=plan)


def test_mending_is_safe_to_repeat(left: Path) -> None:
    first = reopen.mend(left)
    assert (first.was_flagged, first.status) == (True, "interrupted")
    assert first.counts["shots"] == 27
    before = left.read_bytes()
    again = reopen.mend(left)
    assert (again.was_flagged, again.status) == (False, "interrupted")
    assert left.read_bytes() == before


def test_mending_leaves_a_live_record_alone(
    record_path: Path, plan: Layout, header: Header
) -> None:
    with (
        Recorder.create(record_path, layout=plan, header=header),
        pytest.raises(InputError, match="its writer lives"),
    ):
        reopen.mend(record_path)


def test_a_run_that_nearly_fills_the_disk_ends_well_and_goes_on(
    record_path: Path,
    plan: Layout,
    header: Header,
    make_rows: MakeRows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage(record_path.parent)
    with (
        pytest.raises(RecordError, match=r"free=1\.0 MiB .*Make room"),
        Recorder.create(record_path, layout=plan, header=header) as recorder,
    ):
        full = usage._replace(free=2**20)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: full)
        for _ in range(70):
            recorder.append_shots(**make_rows(plan, "shots", 1))
            recorder.commit()
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with Record.open(record_path) as record:
        assert (record.status, record.lengths["shots"]) == ("failed", 63)
    with pytest.raises(InputError, match="Its run is failed: go on with labctl run"):
        Recorder.create(record_path, layout=plan, header=header)
    Recorder.resume(record_path, layout=plan).__exit__(None, None, None)
    with Record.open(record_path) as record:
        assert (record.status, record.lengths["shots"]) == ("complete", 63)
