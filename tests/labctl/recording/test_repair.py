import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from filelock import FileLock

from labctl.errors import InputError, RecordError
from labctl.recording import reopen
from labctl.recording.header import Header
from labctl.recording.layout import Layout
from labctl.recording.reader import Record
from labctl.recording.repair import (
    Image,
    is_flagged,
    is_written,
    lookup3,
    mark_left,
    repair,
)
from labctl.recording.writer import Recorder

MakeRows = Callable[[Layout, str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def crashed(
    tmp_path_factory: pytest.TempPathFactory,
    plan: Layout,
    header: Header,
    make_rows: MakeRows,
) -> Path:
    """Leave the file that a kill between two commits leaves: a copy, mid-way."""
    folder = tmp_path_factory.mktemp("crashed")
    live, copy = folder / "live.h5", folder / "run.h5"
    with Recorder.create(live, layout=plan, header=header) as recorder:
        for _ in range(5):
            recorder.append_shots(**make_rows(plan, "shots", 8))
            recorder.commit()
        recorder.append_shots(**make_rows(plan, "shots", 8))
        shutil.copy(live, copy)
    return copy


@pytest.fixture
def damaged(crashed: Path, record_path: Path) -> Path:
    """A crashed record of one's own."""
    return Path(shutil.copy(crashed, record_path))


def test_the_checksum_is_that_of_jenkins() -> None:
    # From driver5 of lookup3.c, with initial value 0.
    assert lookup3(b"Four score and seven years ago") == 0x17770551


def test_a_crashed_record_opens_plainly_after_repair(damaged: Path) -> None:
    with pytest.raises(OSError, match=r"[Uu]nable|file"):
        h5py.File(damaged, "r")
    assert is_flagged(damaged)
    done = repair(damaged)
    assert done.flags == 5
    assert done.file_bytes == damaged.stat().st_size
    assert not is_flagged(damaged)
    with h5py.File(damaged, "r") as file:
        assert file["entry/status"][()] == b"running"
    with Record.open(damaged) as record:
        assert record.lengths["shots"] == 40
        assert record.column("shots", "frames").shape == (40, 5, 7)


def test_a_repaired_record_can_be_appended_to(damaged: Path) -> None:
    repair(damaged)
    with h5py.File(damaged, "r+", libver="v110") as file:
        loss = file["entry/training/loss"]
        loss.resize(3, axis=0)
        loss[:] = np.arange(3.0)
    with h5py.File(damaged, "r") as file:
        assert file["entry/training/loss"][()].tolist() == [0, 1, 2]
        assert file["entry/shots/frames"][:40].shape == (40, 5, 7)


def test_only_the_superblock_changes(damaged: Path) -> None:
    before = damaged.read_bytes()
    repair(damaged)
    after = damaged.read_bytes()
    assert after[48:] == before[48:]
    assert after[:8] == before[:8]


def test_repairing_twice_is_repairing_once(damaged: Path) -> None:
    repair(damaged)
    once = damaged.read_bytes()
    assert repair(damaged).flags == 0
    assert damaged.read_bytes() == once


def test_the_record_of_a_live_writer_is_refused(
    record_path: Path, plan: Layout, header: Header
) -> None:
    with (
        Recorder.create(record_path, layout=plan, header=header),
        pytest.raises(InputError, match="its writer lives"),
    ):
        repair(record_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not there, expected a record"):
        repair(tmp_path / "none.h5")


@pytest.mark.parametrize("size", [None, 96])
def test_a_record_killed_while_it_was_made_says_so_and_stays(
    damaged: Path, size: int | None
) -> None:
    content = bytearray(damaged.read_bytes())
    content[11] = 1  # as before SWMR is switched on
    content[28:36] = (4096).to_bytes(8, "little")
    content[44:48] = lookup3(bytes(content[:44])).to_bytes(4, "little")
    root = int.from_bytes(content[36:44], "little")
    content[root:4096] = bytes(4096 - root)
    damaged.write_bytes(content[:size])
    before = damaged.read_bytes()
    for read in (repair, reopen.mend, Record.open):
        with pytest.raises(InputError, match=r"before it held anything\. Run the prot"):
            read(damaged)
    lock = damaged.with_name(damaged.name + ".lock")
    with (
        FileLock(lock).acquire(timeout=0),
        pytest.raises(InputError, match="its run has only begun"),
    ):
        Record.open(damaged)
    assert damaged.read_bytes() == before


@pytest.mark.parametrize("place", [12, 30, 45])
def test_a_wrong_checksum_is_refused(damaged: Path, place: int) -> None:
    content = bytearray(damaged.read_bytes())
    content[place] ^= 0x10
    damaged.write_bytes(content)
    with pytest.raises(RecordError, match="checksum of the superblock"):
        repair(damaged)
    assert damaged.read_bytes() == bytes(content)


@pytest.mark.parametrize("how", ["user block", "old format", "short"])
def test_another_superblock_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "other.h5"
    options = {"userblock_size": 512, "libver": "v110"} if how == "user block" else {}
    with h5py.File(path, "w", **options) as file:
        file["x"] = 1
    if how == "short":
        path.write_bytes(path.read_bytes()[:20])
    before = path.read_bytes()
    with pytest.raises(RecordError, match="starts otherwise than a record"):
        repair(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("end", [2**31, 10 * 2**40, 2**62])
def test_an_end_that_no_writer_reached_is_refused(damaged: Path, end: int) -> None:
    block = bytearray(damaged.read_bytes())
    block[28:36] = end.to_bytes(8, "little")
    block[44:48] = lookup3(bytes(block[:44])).to_bytes(4, "little")
    damaged.write_bytes(block)
    with pytest.raises(RecordError, match=rf"{end} bytes, expected at most.*not trust"):
        repair(damaged)
    assert damaged.read_bytes() == block
    with pytest.raises(RecordError, match=r"do not trust it"):
        Record.open(damaged)


def test_a_record_that_cannot_grow_is_not_touched(damaged: Path) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no file-size limit")
    half = damaged.read_bytes()[: damaged.stat().st_size // 2]
    damaged.write_bytes(half)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(half), hard))
    try:
        with pytest.raises(RecordError, match=r"expected a file that can be written"):
            repair(damaged)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert damaged.read_bytes() == half


@pytest.mark.parametrize("how", ["folder", "link"])
def test_a_lock_that_is_no_file_is_refused_in_words(damaged: Path, how: str) -> None:
    lock = damaged.with_name(damaged.name + ".lock")
    lock.unlink(missing_ok=True)
    if how == "folder":
        lock.mkdir()
    else:
        try:
            lock.symlink_to(damaged.with_name("elsewhere"))
        except OSError:
            pytest.skip("this user may not make links here")
    with pytest.raises(InputError, match=r"cannot be locked.*Remove what is there"):
        repair(damaged)
    assert not damaged.with_name("elsewhere").exists()


def test_a_crashed_record_is_read_without_being_touched(damaged: Path) -> None:
    before = damaged.read_bytes()
    with h5py.File(Image(damaged), "r") as file:
        assert file["entry/shots/frames"].shape[0] >= 40
        assert file["entry/status"][()] == b"running"
    with Record.open(damaged) as record:
        assert record.column("shots", "frames").shape == (40, 5, 7)
    assert damaged.read_bytes() == before


def test_bytes_that_a_kill_kept_from_the_file_are_read_as_zeros(damaged: Path) -> None:
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-100])
    image = Image(damaged)
    image.seek(len(whole) - 150)
    part = bytearray(150)
    assert image.readinto(part) == 150
    assert part == whole[-150:-100] + bytes(100)
    image.close()


def test_only_a_live_writer_is_one(
    record_path: Path, plan: Layout, header: Header
) -> None:
    with Recorder.create(record_path, layout=plan, header=header):
        assert is_written(record_path)
    assert not is_written(record_path)


def test_a_record_from_elsewhere_is_written_by_nobody(damaged: Path) -> None:
    assert not is_written(damaged)
    assert not damaged.with_name(damaged.name + ".lock").exists()


AsStranger = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def as_stranger(tmp_path: Path) -> AsStranger:
    """Give a way to be another user for a while."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs two users: root")
    for each in (tmp_path, *tmp_path.parents):
        if not each.stat().st_mode & 0o001:
            each.chmod(0o711)

    @contextmanager
    def being() -> Iterator[None]:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return being


def test_whoever_may_only_read_can_tell_whether_somebody_writes(
    record_path: Path, plan: Layout, header: Header, as_stranger: AsStranger
) -> None:
    with Recorder.create(record_path, layout=plan, header=header), as_stranger():
        assert is_written(record_path)
        with Record.open(record_path) as record:
            assert record.status == "running"
    with as_stranger():
        assert not is_written(record_path)
        with pytest.raises(InputError, match="may not be used by you"):
            repair(record_path)


def test_a_lock_that_may_not_be_read_is_not_taken_for_a_writer(
    damaged: Path, as_stranger: AsStranger
) -> None:
    damaged.with_name(damaged.name + ".lock").touch(mode=0o600)
    message = r"nobody can tell .*may not be used by you.*Ask its owner"
    with as_stranger():
        with pytest.raises(InputError, match=message):
            is_written(damaged)
        with pytest.raises(InputError, match=message):
            Record.open(damaged)
    assert not is_written(damaged)


@pytest.mark.skipif(sys.platform == "win32", reason="asks another way")
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOLCK, "expected a drive that knows locks. Copy .* to a local disk"),
        (errno.EROFS, "may not be used by you"),
        (errno.EIO, "Remove what is there"),
    ],
)
def test_a_drive_without_locks_is_told_from_a_writer(
    damaged: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    damaged.with_name(damaged.name + ".lock").touch()
    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(InputError, match=rf"nobody can tell .*{told}"):
        is_written(damaged)
    with pytest.raises(InputError, match=told):
        repair(damaged)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX files")
def test_what_stands_in_for_a_lock_is_neither_followed_nor_waited_for(
    damaged: Path, tmp_path: Path
) -> None:
    lock = damaged.with_name(damaged.name + ".lock")
    os.mkfifo(lock)
    assert not is_written(damaged)  # no lock that a writer makes
    lock.unlink()
    (tmp_path / "elsewhere").touch()
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"nobody can tell .*Remove what is there"):
        is_written(damaged)


def test_a_record_closed_without_room_is_one_that_was_left(
    record_path: Path, plan: Layout, header: Header, make_rows: MakeRows
) -> None:
    with Recorder.create(record_path, layout=plan, header=header) as recorder:
        recorder.append_shots(**make_rows(plan, "shots", 8))
    whole = record_path.read_bytes()
    mark_left(record_path)
    assert record_path.read_bytes() == whole
    # Beyond the last byte that matters nothing is missed.
    record_path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match="it was cut short"):
        Record.open(record_path)
    mark_left(record_path)
    assert is_flagged(record_path)
    with Record.open(record_path) as record:
        assert record.lengths["shots"] == 8
