import struct
from pathlib import Path

import pytest

from drivers.sim.beam import Beam, BeamError, BeamState

LIT = BeamState(
    emission=True,
    shutter_open=True,
    power_setpoint_mw=4.5,
    since_s=1e9 + 0.25,
    power_mw=4.25,
)


def test_what_is_written_is_read_by_another_mapping(tmp_path: Path) -> None:
    path = tmp_path / "beam"
    with Beam.create(path) as beam, Beam.open(path) as reader:
        assert not reader.read().emission
        beam.write(LIT)
        assert reader.read() == LIT


def test_file_is_64_bytes_of_the_agreed_layout(tmp_path: Path) -> None:
    path = tmp_path / "beam"
    with Beam.create(path) as beam:
        beam.write(LIT)
    raw = path.read_bytes()
    assert len(raw) == 64
    magic, counter, flags, *numbers = struct.unpack_from("<8sIIddd", raw)
    assert (magic, counter % 2, flags) == (b"LABBEAM1", 0, 3)
    assert numbers == [4.5, 1e9 + 0.25, 4.25]


def test_creating_again_keeps_old_readers_and_goes_dark(tmp_path: Path) -> None:
    path = tmp_path / "beam"
    with Beam.create(path) as first:
        first.write(LIT)
        with Beam.open(path) as reader, Beam.create(path):
            assert not reader.read().emission


def test_missing_foreign_and_torn_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "beam"
    with pytest.raises(BeamError, match=r"no beam file.*Open the laser first"):
        Beam.open(path)
    path.write_bytes(b"short")
    with pytest.raises(BeamError, match="5 bytes, expected a beam file of 64"):
        Beam.open(path)
    path.write_bytes(bytes(64))
    with Beam.open(path) as beam, pytest.raises(BeamError, match="magic"):
        beam.read()
    path.write_bytes(struct.pack("<8sI", b"LABBEAM1", 7) + bytes(52))
    with Beam.open(path) as beam, pytest.raises(BeamError, match="half-written"):
        beam.read()


def test_a_writer_that_has_to_wait_for_a_processor_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "beam"
    with Beam.create(path) as writer, Beam.open(path) as reader:
        half = struct.pack("<8sI", b"LABBEAM1", 7)
        with path.open("r+b") as file:
            file.write(half)
        monkeypatch.setattr("time.sleep", lambda _: writer.write(LIT))
        assert reader.read() == LIT


def test_close_may_be_called_twice(tmp_path: Path) -> None:
    beam = Beam.create(tmp_path / "beam")
    beam.close()
    beam.close()
