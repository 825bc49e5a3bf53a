"""Records beside the bench file: never changed, and one list that is in force."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labctl import bench as benches
from labctl.calibrate import store
from labctl.calibration import FailedCalibration, PhaseCurve, Settle
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
