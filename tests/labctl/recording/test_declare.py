from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from silx.io.nxdata.parse import NXdata, get_default
from silx.io.utils import open as silx_open

from labctl.recording import columns, environment, layout
from labctl.recording.header import Header, compose
from labctl.recording.layout import Layout
from labctl.recording.writer import Recorder

MakeRows = Callable[[Layout, str, int], dict[str, Any]]
KINDS = ["train", "train-binned", "train-gzip", "evaluate", "scan"]
# Under a group of this name stand the things of a role or a kind.
OPEN_GROUPS = ("instrument/", "calibration/")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def record_path(tmp_path_factory: pytest.TempPathFactory, kind: str) -> Path:
    return tmp_path_factory.mktemp(kind) / "run.h5"


@pytest.fixture(scope="module")
def recorded(
    kind: str,
    layouts: dict[str, Layout],
    header: Header,
    make_rows: MakeRows,
    record_path: Path,
) -> Layout:
    """Write a record of each kind; return its layout."""
    plan = layouts[kind]
    own = replace(header, kind=plan.kind)
    with Recorder.create(record_path, layout=plan, header=own) as recorder:
        for table in {t.counter: t.name for t in plan.tables}.values():
            recorder.append(table, **make_rows(plan, table, 4))
        recorder.checkpoint(2, "step", {"a": np.arange(3)})
        recorder.commit()
    return plan


def walk(group: h5py.Group, base: str = "") -> Iterator[tuple[str, Any]]:
    for name in group:
        path = f"{base}{name}"
        if isinstance(group.get(name, getlink=True), h5py.SoftLink):
            continue
        yield path, group[name]
        if isinstance(group[name], h5py.Group):
            yield from walk(group[name], f"{path}/")


def declared(
    plan: Layout, header: Header
) -> dict[str, tuple[np.dtype[Any] | None, int]]:
    """Every path of the layout with its type (None is text) and its rank."""
    found: dict[str, tuple[np.dtype[Any] | None, int]] = {}
    for table, column in plan.columns():
        grows = columns.h5_dtype(column.dtype)
        found[f"{table.name}/{column.name}"] = grows, 1 + len(column.shape)
    for table in plan.tables:
        for axis in table.fixed:
            found[f"{table.name}/{axis.name}"] = np.dtype("i4"), 1
    for rows in plan.rows:
        found[rows.path] = columns.row_dtype(rows), 1
    found[layout.BLOB_PATH] = np.dtype("u1"), 1
    for scalar, value in compose(header, environment.capture()).scalars:
        kind = None if scalar.dtype == "str" else columns.h5_dtype(scalar.dtype)
        found[scalar.path] = kind, np.asarray(value).ndim
    return found


def test_the_file_holds_what_the_layout_says_and_nothing_else(
    recorded: Layout, header: Header, record_path: Path
) -> None:
    expected = declared(recorded, header)
    with h5py.File(record_path) as file:
        found = {p: x for p, x in walk(file["entry"]) if isinstance(x, h5py.Dataset)}
        assert set(found) == set(expected)
        for path, (kind, rank) in expected.items():
            dataset = found[path]
            assert dataset.ndim == rank, path
            if kind is None:
                assert h5py.check_string_dtype(dataset.dtype).length is None, path
            else:
                assert dataset.dtype == kind, path


def test_every_group_has_its_nexus_class(recorded: Layout, record_path: Path) -> None:
    with h5py.File(record_path) as file:
        groups = {p: x for p, x in walk(file["entry"]) if isinstance(x, h5py.Group)}
        known = {group.path: group.nx_class for group in layout.GROUPS}
        known |= {table.name: table.nx_class for table in recorded.tables}
        assert file.attrs["NX_class"] == "NXroot"
        assert file.attrs["default"] == "entry"
        assert file["entry"].attrs["NX_class"] == "NXentry"
        for path, group in groups.items():
            if not path.startswith(OPEN_GROUPS):
                assert group.attrs["NX_class"] == known.pop(path)
        assert groups["instrument/laser"].attrs["NX_class"] == "NXsource"
        assert groups["instrument/beam"].attrs["NX_class"] == "NXbeam"
        assert groups["instrument/camera"].attrs["NX_class"] == "NXdetector"
        assert groups["instrument/world"].attrs["NX_class"] == "NXcollection"
        assert groups["calibration/slm_phase"].attrs["kind"] == "slm-phase"
        assert known == {}


def test_every_dataset_has_its_name_unit_chunk_and_fill(
    recorded: Layout, record_path: Path
) -> None:
    with h5py.File(record_path) as file:
        for table, column in recorded.columns():
            dataset = file[f"entry/{table.name}/{column.name}"]
            assert dataset.attrs["long_name"] == column.text
            assert dataset.attrs.get("units", "") == column.units
            assert dataset.chunks == column.chunk
            assert dataset.maxshape == (None, *column.shape)
            assert dataset.compression == (
                "gzip" if column.compression == "gzip" else None
            )
            if column.dtype.startswith("f"):
                assert np.isnan(dataset.fillvalue)
        for _, item in walk(file["entry"]):
            if isinstance(item, h5py.Dataset):
                assert item.attrs["long_name"]


def test_what_grows_has_no_text_of_any_length(
    recorded: Layout, record_path: Path
) -> None:
    with h5py.File(record_path) as file:
        for path, item in walk(file["entry"]):
            if isinstance(item, h5py.Dataset) and item.maxshape[:1] == (None,):
                fields = item.dtype.fields or {"": (item.dtype,)}
                assert all(kind[0].kind != "O" for kind in fields.values()), path
    assert recorded.tables


def test_silx_finds_the_default_curve(
    recorded: Layout, record_path: Path, kind: str
) -> None:
    table = recorded.table(recorded.default)
    with silx_open(str(record_path)) as file:  # type: ignore[no-untyped-call] # silx has no types
        default = get_default(file)
        assert default is not None
        assert default.is_valid
        assert default.group.name == f"/entry/{recorded.default}"
        assert default.signal_dataset_name == table.signal
        assert default.axes_dataset_names == list(table.axes)
        assert default.auxiliary_signals_dataset_names == list(table.auxiliary)
        shots = NXdata(file["entry/shots"])
        assert shots.is_valid
        assert (shots.interpretation == "image") == (kind in {"train", "train-gzip"})
        for name in recorded.tables:
            if name.signal:
                assert NXdata(file[f"entry/{name.name}"]).is_valid


def test_the_frames_are_linked_from_the_camera(
    recorded: Layout, record_path: Path, kind: str
) -> None:
    with h5py.File(record_path) as file:
        assert file["entry/data"] == file["entry/shots"]
        kept = kind in {"train", "train-gzip"}
        assert ("data" in file["entry/instrument/camera"]) == kept
        if kept:
            frames = file["entry/instrument/camera/data"]
            assert frames == file["entry/shots/frames"]
            assert frames.attrs["interpretation"] == "image"
            assert file["entry/shots/y"][()].tolist() == [4, 5, 6, 7, 8]
            assert file["entry/shots/x"][()].tolist() == [6, 7, 8, 9, 10, 11, 12]
    assert recorded.tables
