"""Everything in the file before the first row: groups, datasets, attributes.

After the switch to SWMR nothing can be created: HDF5 raises no error then and the
file is damaged. So all of it stands here, driven by the layout.
"""

from pathlib import Path

import h5py
import numpy as np

from labctl.recording import layout, tree
from labctl.recording.columns import h5_dtype, row_dtype
from labctl.recording.header import Value, Written, check_name
from labctl.recording.layout import Column, Layout, Rows, Scalar, Table

_PAGE_BYTES = 4096


def create(path: Path, plan: Layout, written: Written, version: str) -> h5py.File:
    """Make the file, declare everything, switch SWMR on.

    Parameters
    ----------
    path
        The file; must not exist.
    plan
        What grows.
    written
        What is known already.
    version
        Version of labctl.

    Returns
    -------
    file
        Open; readers may open it too.
    """
    # v110, not latest: the oldest format that allows SWMR, read by every tool.
    # Paged space: survived a kill at every write boundary, where others did not.
    file = h5py.File(
        path, "x", libver="v110", fs_strategy="page", fs_page_size=_PAGE_BYTES
    )
    try:
        entry = _root(file, path)
        _known(entry, written)
        tree.dataset(entry, "program_name").attrs["version"] = version
        entry.attrs["default"] = plan.default
        for table in plan.tables:
            _table(entry, table)
        for rows in plan.rows:
            _rows(entry, rows)
        _blob(entry)
        _links(entry)
        file.flush()
        file.swmr_mode = True
        file.flush()
    except BaseException:
        file.close()
        path.unlink()
        raise
    return file


def _root(file: h5py.File, path: Path) -> h5py.Group:
    file.attrs.update(
        {
            "NX_class": "NXroot",
            "default": "entry",
            "creator": "labctl",
            "file_name": path.name,
            "HDF5_Version": h5py.version.hdf5_version,
            "h5py_version": h5py.version.version,
        }
    )
    entry = file.create_group("entry")
    entry.attrs["NX_class"] = "NXentry"
    return entry


def _known(entry: h5py.Group, written: Written) -> None:
    for own in layout.GROUPS:
        entry.create_group(own.path).attrs["NX_class"] = own.nx_class
    for group in written.groups:
        made = entry.create_group(group.path)
        made.attrs["NX_class"] = group.nx_class
        if group.kind:
            made.attrs["kind"] = group.kind
    for scalar, value in written.scalars:
        _scalar(entry, scalar, value)


def _scalar(entry: h5py.Group, scalar: Scalar, value: Value) -> None:
    if scalar.dtype == "str":
        dataset = entry.create_dataset(
            scalar.path, data=value, dtype=h5py.string_dtype()
        )
    elif scalar.dtype.startswith("S"):
        text = np.array(str(value).encode(), dtype=h5_dtype(scalar.dtype))
        dataset = entry.create_dataset(scalar.path, data=text)
    else:
        dataset = entry.create_dataset(
            scalar.path, data=np.asarray(value, scalar.dtype)
        )
    _label(dataset, scalar.text, scalar.units)


def _table(entry: h5py.Group, table: Table) -> None:
    group = entry.create_group(table.name)
    group.attrs["NX_class"] = table.nx_class
    group.attrs["title"] = table.title
    if table.signal:
        group.attrs["signal"] = table.signal
        group.attrs["axes"] = list(table.axes)
    if table.auxiliary:
        group.attrs["auxiliary_signals"] = list(table.auxiliary)
    for axis in table.fixed:
        values = np.arange(axis.start, axis.start + axis.length, dtype=np.int32)
        _label(group.create_dataset(axis.name, data=values), axis.text, axis.units)
    for column in table.columns:
        _column(group, column)


def _column(group: h5py.Group, column: Column) -> None:
    zipped = column.compression == "gzip"
    dataset = group.create_dataset(
        check_name(column.name),
        shape=(0, *column.shape),
        maxshape=(None, *column.shape),
        chunks=column.chunk,
        dtype=h5_dtype(column.dtype),
        fillvalue=np.nan if column.dtype.startswith("f") else None,
        compression="gzip" if zipped else None,
        compression_opts=1 if zipped else None,
        shuffle=zipped,
    )
    _label(dataset, column.text, column.units)
    if column.image:
        dataset.attrs["interpretation"] = "image"


def _rows(entry: h5py.Group, rows: Rows) -> None:
    dataset = entry.create_dataset(
        rows.path,
        shape=(0,),
        maxshape=(None,),
        chunks=(rows.chunk,),
        dtype=row_dtype(rows),
    )
    _label(dataset, rows.text, "")


def _blob(entry: h5py.Group) -> None:
    blob = entry.create_dataset(
        layout.BLOB_PATH,
        shape=(0,),
        maxshape=(None,),
        chunks=(layout.BLOB_CHUNK,),
        dtype=layout.BLOB.dtype,
    )
    _label(blob, layout.BLOB.text, "")


def _links(entry: h5py.Group) -> None:
    if "shots" in entry:
        entry["data"] = h5py.SoftLink("/entry/shots")
    if "shots/frames" in entry and "instrument/camera" in entry:
        entry["instrument/camera/data"] = h5py.SoftLink("/entry/shots/frames")


def _label(dataset: h5py.Dataset, text: str, units: str) -> None:
    dataset.attrs["long_name"] = text
    if units:
        dataset.attrs["units"] = units
