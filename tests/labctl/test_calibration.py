"""Bench files and calibration records: what they refuse, and what is in force."""

import hashlib
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl import calibration, document
from labctl.calibration import (
    ArrayFile,
    BenchFile,
    CalibrationRecord,
    Current,
    PhaseCurve,
    Settle,
    load_records,
)
from labctl.errors import CalibrationError, Fault, ProtocolError

BENCH = """\
schema_version: 1
name: my-bench
devices:
  slm: {driver: acme.slm, serial: "4711"}
  laser: {driver: acme.laser}
  camera: {driver: acme.camera, options: {port: COM3}}
limits: {power_mw: 10, exposure_s: 0.1}
reservoir:
  macropixels: [4, 6]
  region: [10, 20, 30, 60]
  bins: [3, 5]
  exposure_s: 0.01
  power_mw: 2
"""
NOW = datetime(2031, 4, 2, 10, tzinfo=UTC)
THIS, OTHER = "a" * 64, "b" * 64
REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bench.yaml").write_text(BENCH)
    return tmp_path


def install(folder: Path, *records: str) -> None:
    """Put records in force, each the lines that differ from a given settle time."""
    names = []
    for number, change in enumerate(records):
        lines = {
            "schema_version": "1",
            "origin": "given",
            "created": "2031-04-01T10:00:00Z",
            "bench_sha256": THIS,
            "values": "{kind: settle, settle_s: 0.02}",
        }
        lines |= dict(line.split(": ", 1) for line in change.splitlines())
        text = "".join(f"{key}: {value}\n" for key, value in lines.items())
        names.append(f"record-{number}.yaml")
        (folder / names[-1]).write_text(text)
    listed = ", ".join(names)
    (folder / "current.yaml").write_text(f"schema_version: 1\nrecords: [{listed}]\n")


def load(folder: Path) -> dict[str, CalibrationRecord]:
    return load_records(folder / "bench.yaml", THIS, now=NOW)


def curve(folder: Path, values: object, name: str = "phase.npy") -> PhaseCurve:
    path = folder / name
    with path.open("wb") as stream:
        np.save(stream, np.asarray(values))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PhaseCurve(kind="slm-phase", phase_rad=ArrayFile(file=name, sha256=digest))


def test_a_bench_file_is_read() -> None:
    bench = document.parse(BENCH, BenchFile, where="b").value
    assert bench.devices.camera.options == {"port": "COM3"}
    assert bench.reservoir.region == (10, 20, 30, 60)
    assert not bench.simulated


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["dark=shutter_closed"], "dark: got shutter_closed, expected a shutter under"),
        (["oracle={driver: a.oracle}"], "oracle: only simulated light has one, expect"),
        (
            ["world={driver: sim.world, options: {view: image}}"],
            "view: got far_field, but world.options.view is image, expected the",
        ),
        (
            ["reservoir.power_mw=11"],
            "reservoir.power_mw: got 11, expected at most limi",
        ),
        (
            ["reservoir.exposure_s=1"],
            "reservoir.exposure_s: got 1, expected at most li",
        ),
        (
            ["reservoir.bins=[31, 5]"],
            "reservoir.bins: got [31, 5], expected at most on",
        ),
        (
            ["devices.slm.driver=slm"],
            'devices.slm.driver: got "slm", expected a word s',
        ),
        (["devices.slm.serial=4711"], "devices.slm.serial: got 4711, expected text."),
        (["devices.camera="], "devices.camera: got nothing, expected a section with d"),
        (["name=My Bench"], 'name: got "My Bench", expected a word such as sim-small.'),
        (
            ["limits.power_w=1"],
            "limits.power_w: is not known, expected power_mw in mW.",
        ),
    ],
)
def test_refuses_a_bench_that_cannot_be(changes: list[str], said: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        document.parse(BENCH, BenchFile, where="b", overrides=changes)
    (fault,) = caught.value.faults
    assert f"{fault.key}: {fault.text}".startswith(said)


def test_says_all_that_contradicts_itself() -> None:
    changes = ["dark=shutter_closed", "reservoir.power_mw=11"]
    with pytest.raises(ProtocolError) as caught:
        document.parse(BENCH, BenchFile, where="b", overrides=changes)
    assert [fault.key for fault in caught.value.faults] == [
        "dark",
        "reservoir.power_mw",
    ]


def test_without_a_list_none_is_in_force(folder: Path) -> None:
    assert load(folder) == {}


def test_records_in_force_are_read_by_kind(folder: Path) -> None:
    install(folder, "", "values: {kind: slm-phase, span_rad: 6.5}")
    records = load(folder)
    assert set(records) == {"settle", "slm-phase"}
    assert records["settle"].values == Settle(kind="settle", settle_s=0.02)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (
            [f"bench_sha256: {OTHER}"],
            "bench_sha256=bbbbbbbbbbbb…, expected aaaaaaaaaaaa",
        ),
        (
            [f"origin: measured\nbench_sha256: {OTHER}\nvalid_days: 0.5"],
            "age=1.0 days, expected at most 0.5. Measure again",
        ),
        (
            ["created: 2031-04-02T11:00:00Z"],
            "created=2031-04-02 11:00 UTC, expected the",
        ),
        (["", ""], "two records of kind settle, expected one. Remove record-1.yaml."),
        (["created: 2031-04-01"], 'created: got "2031-04-01", expected a date and tim'),
        (["values: {kind: settle}"], "values.settle_s: is missing, expected a number"),
        (
            ["values: {kind: lut}"],
            'values.kind: got "lut", expected one of camera, ',
        ),
        (["bench_sha256: abc"], 'bench_sha256: got "abc", expected a SHA-256 hash, 64'),
    ],
)
def test_refuses_a_record_that_does_not_hold(
    folder: Path, records: list[str], said: str
) -> None:
    install(folder, *records)
    with pytest.raises(CalibrationError) as caught:
        load(folder)
    assert said in str(caught.value)
    assert "record-" in str(caught.value)


def test_a_measured_record_outlives_a_change_of_the_bench_file(folder: Path) -> None:
    install(folder, f"origin: measured\nbench_sha256: {OTHER}\nvalid_days: 30")
    assert load(folder)["settle"].origin == "measured"
    with pytest.raises(CalibrationError, match=r"age=31\.0 days, expected at most 30"):
        load_records(folder / "bench.yaml", THIS, now=NOW + timedelta(days=30))


def test_refuses_a_record_that_is_missing_or_elsewhere(folder: Path) -> None:
    install(folder, "")
    (folder / "record-0.yaml").unlink()
    with pytest.raises(CalibrationError, match=r"record-0\.yaml: no such file"):
        load(folder)
    (folder / "current.yaml").write_text("schema_version: 1\nrecords: [../a.yaml]\n")
    with pytest.raises(CalibrationError, match=r'got "\.\./a\.yaml", expected a word'):
        load(folder)


def test_refuses_a_record_that_is_a_link_out_of_the_folder(folder: Path) -> None:
    inside = folder / "inside"
    inside.mkdir()
    install(folder, "")
    try:
        (inside / "record-0.yaml").symlink_to(folder / "record-0.yaml")
    except OSError:
        pytest.skip("this account may not make links")
    (folder / "current.yaml").rename(inside / "current.yaml")
    with pytest.raises(CalibrationError, match="leads out of its folder"):
        load_records(inside / "bench.yaml", THIS, now=NOW)


def test_a_straight_curve_ends_one_level_before_its_span(tmp_path: Path) -> None:
    line = PhaseCurve(kind="slm-phase", span_rad=8.0)
    phase = line.curve(4, tmp_path)
    assert phase.shape == (16,)
    np.testing.assert_allclose(phase, np.arange(16) * 0.5)


def test_a_measured_curve_is_read(folder: Path) -> None:
    wanted = np.cumsum(np.linspace(0.1, 0.3, 16)).astype(np.float32)
    measured = curve(folder, wanted)
    phase = measured.curve(4, folder)
    assert phase.dtype == np.float64
    np.testing.assert_array_equal(phase, wanted)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            np.arange(15.0),
            r"shape=\[15\], expected \[16\], one phase a level of 4 bits",
        ),
        (np.ones((16, 1)), r"shape=\[16, 1\], expected \[16\]"),
        (np.r_[0:8.0, 7:15.0], "goes from 7 to 7 rad at level 8, expected it to rise"),
        (np.r_[0:15.0, np.nan], "some are not finite, expected all to be"),
        (np.array(["a"] * 16), "no real numbers, expected an array of them"),
        (np.arange(16) + 1j, "no real numbers, expected an array of them"),
        (np.array([None] * 16), "no numpy array .*, expected one"),
    ],
)
def test_refuses_a_curve_that_is_none(folder: Path, values: object, said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        curve(folder, values).curve(4, folder)


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"x" * 99])
def test_refuses_a_file_that_is_no_array(folder: Path, raw: bytes) -> None:
    (folder / "a.npy").write_bytes(raw)
    array = ArrayFile(file="a.npy", sha256=hashlib.sha256(raw).hexdigest())
    with pytest.raises(CalibrationError, match=r"a\.npy: no numpy array"):
        array.load(folder)


def test_refuses_an_array_that_was_changed(folder: Path) -> None:
    measured = curve(folder, np.arange(16.0))
    curve(folder, np.arange(16.0) + 0.1)
    with pytest.raises(CalibrationError, match="The file was changed after it was"):
        measured.curve(4, folder)


def test_a_changed_array_is_noticed_when_its_record_is_read(folder: Path) -> None:
    assert curve(folder, np.arange(16.0)).phase_rad is not None
    wrong = f"{{kind: slm-phase, phase_rad: {{file: phase.npy, sha256: {OTHER}}}}}"
    install(folder, f"values: {wrong}")
    with pytest.raises(CalibrationError, match="sha256="):
        load(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("values: {kind: slm-phase}", "values.span_rad: is missing, expected span_rad"),
        (
            "values: {kind: slm-phase, span_rad: 6, phase_rad: {file: a.npy, sha256: "
            f"{THIS}}}}}",
            "values.span_rad: is there beside phase_rad, expected one",
        ),
    ],
)
def test_a_curve_is_an_array_or_a_line(folder: Path, change: str, said: str) -> None:
    install(folder, change)
    with pytest.raises(CalibrationError, match=said):
        load(folder)


def test_every_shipped_bench_is_valid_with_its_records() -> None:
    for path in (Path(__file__).parents[2] / "calibrations").glob("*/bench.yaml"):
        bench = document.read(path, BenchFile)
        assert bench.value.name == path.parent.name
        load_records(path, bench.sha256)


def test_reference_pages_are_current(tmp_path: Path) -> None:
    calibration.write_schemas(tmp_path)
    command = (
        'python -c "from pathlib import Path; from labctl import calibration; '
        "calibration.write_schemas(Path('docs/reference'))\""
    )
    for path in tmp_path.iterdir():
        committed = (REFERENCE / path.name).read_bytes()
        assert committed == path.read_bytes(), f"{path.name} is old: run {command}"


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(["../../etc/passwd", "/etc/passwd", "a\x00b", "sim.slm", "*a", ""]),
    st.text(max_size=20),
)
TREES = st.recursive(
    HOSTILE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=8), inner, max_size=4),
    ),
    max_leaves=12,
)
PLACES = (
    "name", "devices", "devices.slm", "devices.slm.driver", "devices.camera.options",
    "limits", "limits.power_mw", "limits.heartbeat_s", "limits.call_s", "limits.duty",
    "limits.meter", "reservoir.region", "reservoir.bins", "reservoir.power_mw",
    "world", "twin", "dark", "fallback",
)  # fmt: skip


def told(text: str, model: type, *overrides: str) -> Any:  # noqa: ANN401 - any of three
    """Read a document: its value, or nothing where every fault was told in words."""
    faults: tuple[Fault, ...] = ()
    value: Any = None
    try:
        value = document.parse(text, model, where="b", overrides=overrides).value
    except ProtocolError as error:
        faults = error.faults
    assert all(str(fault).isprintable() for fault in faults)
    return value


@given(st.sampled_from(PLACES), TREES)
@settings(deadline=None, max_examples=80)
def test_any_bench_file_is_refused_in_words_or_keeps_its_limits(
    place: str, tree: object
) -> None:
    file = told(BENCH, BenchFile, f"{place}={tree!r}")
    if file is None:
        return
    assert 0 < file.heartbeat_s <= 5
    assert 0 < file.limits.call_s <= 60
    assert 0 < file.reservoir.power_mw <= file.limits.power_mw < math.inf
    assert file.limits.exposure_s <= file.heartbeat_s / 2
    assert not set(file.name) & set("/\\.")


@given(st.sampled_from([BenchFile, CalibrationRecord, Current]), TREES)
@settings(deadline=None, max_examples=80)
def test_any_tree_is_no_bench_file_and_no_record(model: type, tree: object) -> None:
    assert told(repr(tree), model) is None
    listed = told(f"schema_version: 1\nrecords: {tree!r}\n", model)
    assert listed is None or all("/" not in name for name in listed.records)


def test_a_key_that_stands_twice_is_refused() -> None:
    twice = BENCH.replace(
        "limits: {power_mw: 10,", "limits: {power_mw: 10, power_mw: 99,"
    )
    with pytest.raises(ProtocolError, match="power_mw"):
        document.parse(twice, BenchFile, where="b")
