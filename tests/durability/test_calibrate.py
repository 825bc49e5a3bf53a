"""``labctl calibrate``, killed while it measures: what is in force stays so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import labctl.bench as benches
from labctl.recording.reader import Record

Nursery = Callable[..., tuple[int, str]]
SIM = Path(__file__).parents[2] / "calibrations" / "sim"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_a_killed_measurement_changes_nothing_and_is_made_anew(
    labctl_nursery: Nursery, tmp_path: Path
) -> None:
    folder, told = tmp_path / "calibrations" / "sim", tmp_path / "told"
    shutil.copytree(SIM, folder)
    before = contents(folder)

    def calibrate(**kill: float) -> int:
        told.unlink(missing_ok=True)
        code, said = labctl_nursery(
            do="labctl",
            words=["calibrate", "camera", "--bench", "sim"],
            folder=str(tmp_path),
            told=str(told),
            temporary=str(tmp_path),
            **kill,
        )
        assert code in {0, -9}, said
        return code

    for commits in (2, 9):
        assert calibrate(kill_at=commits, kill_after_s=0.01) == -9
        assert contents(folder) == before
        safe = json.loads(told.read_text().splitlines()[-1])
        (path,) = (tmp_path / "records").glob("*.h5")
        with Record.open(path) as record:
            assert record.status == "running"
            assert record.lengths["shots"] >= safe["shots"] > 0
        path.unlink()
    assert calibrate() == 0
    (path,) = (tmp_path / "records").glob("*.h5")
    with Record.open(path) as record:
        assert record.status == "complete"
        made = record.ledger()["calibrate"]
        assert record.lengths["shots"] == made
    found = benches.load(str(folder / "bench.yaml")).records()["camera"]
    assert found.conditions["exposures"] == made
