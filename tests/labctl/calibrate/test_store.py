"""Records beside the bench file: never changed, and one list that is in force."""

import hashlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labctl import bench as benches
from labctl.calibrate import store
from labctl.calibration import (
    CalibrationRecord,
    FailedCalibration,
    PhaseCurve,
    Settle,
)
from labctl.document import read
from labctl.errors import CalibrationError, InputError

MakeBench = Callable[..., Path]
NOW = datetime.now(UTC).replace(microsecond=0)


def made(path: Path) -> dict[str, Any]:
    digest = benches.load(path).sha256
    return {"schema_version": 1, "created": NOW, "bench_sha256": digest}


def test_a_record_is_in_force_once_it_is_installed(make_bench: MakeBench) -> None:
    path = make_bench()
    values = {"kind": "settle", "settle_s": 0.03}
    store.install(path.parent, "settle-1", made(path), values)
    records = benches.load(path).records()
    assert records["settle"].values == Settle(kind="settle", settle_s=0.03)
    assert records["settle"].origin == "measured"
    # Another kind goes beside it, another record of its kind in its place.
    span = {"kind": "slm-phase", "span_rad": 6.4}
    store.install(path.parent, "slm-phase-1", made(path), span)
    store.install(
        path.parent, "settle-2", made(path), {"kind": "settle", "settle_s": 0.04}
    )
    found = benches.load(path).in_force()
    assert {kind: each.name for kind, each in found.items()} == {
        "settle": "settle-2.yaml",
        "slm-phase": "slm-phase-1.yaml",
    }
    assert (path.parent / "settle-1.yaml").is_file()


def test_arrays_lie_beside_the_record_with_their_hash(make_bench: MakeBench) -> None:
    path = make_bench()
    curve = np.linspace(0, 6.4, 256)
    values = {"kind": "slm-phase", "phase_rad": curve}
    store.install(path.parent, "slm-phase-1", made(path), values)
    loaded = benches.load(path).records()["slm-phase"].values
    assert isinstance(loaded, PhaseCurve)
    np.testing.assert_array_equal(loaded.curve(8, path.parent), curve)
    raw = (path.parent / "slm-phase-1.npy").read_bytes()
    assert loaded.phase_rad is not None
    assert loaded.phase_rad.sha256 == hashlib.sha256(raw).hexdigest()


def test_a_record_is_never_changed(make_bench: MakeBench) -> None:
    path = make_bench()
    values = {"kind": "settle", "settle_s": 0.03}
    store.install(path.parent, "settle-1", made(path), values)
    before = (path.parent / "settle-1.yaml").read_bytes()
    with pytest.raises(CalibrationError, match=r"settle-1\.yaml: there already"):
        store.install(path.parent, "settle-1", made(path), values)
    assert (path.parent / "settle-1.yaml").read_bytes() == before


def test_a_failure_is_kept_and_not_in_force(make_bench: MakeBench) -> None:
    path = make_bench()
    fields = {**made(path), "failed": "settle"}
    kept = store.keep(path.parent, "settle-1", fields, "settle: dark. Light it.")
    assert kept.name == "settle-1-failed.yaml"
    assert read(kept, FailedCalibration).value.why == "settle: dark. Light it."
    assert benches.load(path).records() == {}


def test_a_changed_parent_ends_what_was_measured_with_it(
    make_bench: MakeBench,
) -> None:
    path = make_bench()
    values = {"kind": "settle", "settle_s": 0.03}
    store.install(path.parent, "settle-1", made(path), values)
    parent = benches.load(path).in_force()["settle"]
    child = {**made(path), "parents": {"settle": parent.sha256}}
    store.install(
        path.parent, "slm-phase-1", child, {"kind": "slm-phase", "span_rad": 6.4}
    )
    assert set(benches.load(path).records()) == {"settle", "slm-phase"}
    store.install(path.parent, "settle-2", made(path), values | {"settle_s": 0.05})
    with pytest.raises(CalibrationError, match="parent settle was measured again"):
        benches.load(path).records()
    assert benches.load(path).in_force()["settle"].faults == ()


def test_a_shipped_bench_is_copied_to_where_one_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = benches.load("sim")
    source, note = store.home(shipped)
    assert source.path == Path("calibrations/sim/bench.yaml")
    assert source.path.read_bytes() == shipped.path.read_bytes()
    assert "a copy of the bench that labctl ships" in note
    assert set(source.records()) == {"camera", "settle", "slm-phase"}
    # From here its name means the copy, which needs no other.
    again, note = store.home(benches.load("sim"))
    assert again.path == source.path
    assert note == ""


def test_a_folder_in_the_way_of_the_copy_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = benches.load("sim")
    (tmp_path / "calibrations" / "sim").mkdir(parents=True)
    with pytest.raises(InputError, match="there already, expected no such folder"):
        store.home(shipped)


# Puts a record in force in one folder after the other, and is killed right before the
# n-th time that it opens a file to write or puts it in its place, n as the folder says.
KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
import numpy as np
from labctl import bench as benches
from labctl.calibrate import store
folders = sorted(Path(sys.argv[1]).iterdir(), key=lambda each: int(each.name))
for folder in folders:
    digest = benches.load(folder / "bench.yaml").sha256
    made = {"schema_version": 1, "created": datetime.now(UTC), "bench_sha256": digest}
    values = {"kind": "slm-phase", "phase_rad": np.linspace(0, 6.4, 256)}
    if (child := os.fork()) == 0:
        left = [int(folder.name)]
        def count(event, arguments):
            if event == "os.rename" or (event == "open" and "w" in str(arguments[1])):
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
        sys.addaudithook(count)
        store.install(folder, "slm-phase-2", made, values)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills by signals")
def test_killed_anywhere_the_one_in_force_stays_or_the_new_one_is(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    path = make_bench()
    old = {"kind": "slm-phase", "span_rad": 6.3}
    store.install(path.parent, "slm-phase-1", made(path), old)
    for number in range(8):
        shutil.copytree(path.parent, tmp_path / "kills" / str(number))
    words = [sys.executable, "-c", KILLED, str(tmp_path / "kills")]
    done = subprocess.run(  # noqa: S603 - our own code
        words, capture_output=True, text=True, check=True, timeout=300
    )
    codes = [int(line) for line in done.stdout.split()]
    # An array, a record and the list, each opened and then put in its place.
    assert codes == [-signal.SIGKILL] * 6 + [0] * 2
    for number, code in enumerate(codes):
        folder = tmp_path / "kills" / str(number)
        source = benches.load(folder / "bench.yaml")
        record = source.records()["slm-phase"]
        assert isinstance(record.values, PhaseCurve)
        assert (record.values.span_rad == 6.3) == (code != 0)
        # What is there by its name is whole.
        for each in folder.glob("slm-phase-2.yaml"):
            read(each, CalibrationRecord)
        # Running again works, also where half of a file was left.
        for each in folder.glob("*.new"):
            each.write_bytes(b"half")
        again = {"kind": "slm-phase", "phase_rad": np.linspace(0, 6.5, 256)}
        store.install(folder, "slm-phase-3", made(path), again)
        values = source.records()["slm-phase"].values
        assert isinstance(values, PhaseCurve)
        assert values.curve(8, folder)[-1] == 6.5
