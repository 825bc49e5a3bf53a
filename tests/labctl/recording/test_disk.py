import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from labctl.errors import InputError, RecordError
from labctl.recording import disk
from labctl.recording.layout import Layout

Usage = namedtuple("Usage", "total used free")


def test_a_full_disk_is_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = disk.RESERVE_BYTES + 3 * 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))
    disk.check_room(tmp_path / "new" / "run.h5", 3 * 2**20)
    with pytest.raises(InputError, match=r"size=4\.0 MiB.*at most 3\.0 MiB"):
        disk.check_room(tmp_path / "run.h5", 4 * 2**20)


def test_the_estimate_counts_every_column(plan: Layout) -> None:
    empty = disk.estimate_bytes(plan, 0, 0, 0, 0, 0)
    shot = disk.estimate_bytes(plan, 1000, 0, 0, 0, 0) - empty
    # Frame, outputs, levels and the row number alone, and 5 % of slack.
    assert shot > 1000 * (5 * 7 * 2 + 6 * 4 + 15 + 8) * 1.05
    probe = disk.estimate_bytes(plan, 0, 0, 1000, 0, 0) - empty
    assert probe > 1000 * (2 * 6 * 8 + 5 * 8)
    assert disk.estimate_bytes(plan, 0, 0, 0, 2, 10**6) - empty > 2 * 10**6


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder=.*missing, expected one that exists"):
        disk.check_target(tmp_path / "missing" / "run.h5")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder, expected a file name"):
        disk.check_target(tmp_path, overwrite=True)


def test_a_name_that_no_disk_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"name=x+\.h5, expected one that this disk"):
        disk.check_target(tmp_path / f"{'x' * 300}.h5")
    disk.check_room(tmp_path / f"{'x' * 300}.h5", 1)


def test_a_file_that_is_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"exists, expected a new file.*--overwrite"):
        disk.check_target(path)
    with pytest.raises(InputError, match="no record, expected one"):
        disk.check_target(path, overwrite=True)
    assert [item.name for item in tmp_path.iterdir()] == ["notes.txt"]


def test_the_reserve_takes_room_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    reserve = disk.Reserve(path, 12345)
    assert path.stat().st_size == 12345
    reserve.release()
    reserve.release()
    assert not path.exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("Unable: errno = 28, error"), r"no space \(errno 28\)"),
        (RuntimeError("file write failed, errno = 27"), "at its size limit"),
        (OSError(122, "quota"), r"quota \(errno 122\)"),
        (RuntimeError("something else"), "something else, expected a disk that works"),
    ],
)
def test_errors_of_the_disk_become_ours(
    tmp_path: Path, error: Exception, message: str
) -> None:
    reserve = disk.Reserve(tmp_path / "reserve", 10)
    with (
        pytest.raises(RecordError, match=message),
        disk.disk_errors(Path("run.h5"), reserve),
    ):
        raise error
    assert not (tmp_path / "reserve").exists()


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="mine"), disk.disk_errors(Path("run.h5")):
        raise ValueError("mine")


def test_stops_while_there_is_room_to_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.check_water(tmp_path / "run.h5")
    usage = shutil.disk_usage(tmp_path)._replace(free=disk.LOW_WATER_BYTES - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(RecordError, match=r"free=16\.0 MiB .* --resume"):
        disk.check_water(tmp_path / "run.h5")
