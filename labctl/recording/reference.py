"""The reference page of the record, written from the layout itself."""

from collections.abc import Iterable, Iterator, Sequence

from labctl.recording import layout
from labctl.recording.layout import Axis, Column, Layout, Rows, Scalar, Table

_SIZES = layout.ShotSpec(2, 3, frame_shape=(4, 5))
_HEAD = """# What a record holds

One run leaves one HDF5 file, in the manner of [NeXus](https://www.nexusformat.org):
silx, NeXpy and H5Web open it with its most telling curve, h5py reads it plainly.
This page is written by `labctl.recording.reference`; layout version {version}.

While a run goes on, read it with `silx view run.h5`, with
`h5py.File("run.h5", "r", swmr=True)` or with `labctl.recording.reader.Record`.
Rows beyond the last row of `commits` do not exist yet: take every length from
there. A column of `commits` counts each table, as said below. Names that NeXus does
not define end in their unit; the attribute `units` repeats it, `long_name` says what
a dataset is.

Beside a record lies an empty `run.h5.lock`: the run holds its lock, so that no second
writer opens the record. It is left there on purpose, as removing a lock while another
process waits for it lets two in. Delete it with the record, or whenever nothing writes.

Paths are relative to `/entry`, an NXentry whose `default` is the group that viewers
show first. Every group has its `NX_class`. In a type, `str` is text of any length,
written once; `S16` is UTF-8 of at most 16 bytes; the rest are NumPy's. `N` is the
number of rows, which grows.
"""
_RECORD_TEXTS = {
    "train": "Kind `train`: a training run",
    "evaluate": "Kind `evaluate`: a trained model, measured again",
    "scan": "Kind `scan`: a setting swept",
    "comparison": "Kind `comparison`: many trainings, each with a record of its own",
    "study": "Kind `study`: an experiment, job by job",
    "calibrate": "Kind `calibrate`: a calibration, with its raw frames",
}


def markdown() -> str:
    """Return the page ``docs/reference/record-layout.md``."""
    parts = [_HEAD.format(version=layout.VERSION)]
    parts += ["## Every record\n", _scalars(layout.SCALARS)]
    parts += ["### `reservoir/`: the operating point\n", _reservoir()]
    parts += _instrument()
    parts += [
        "### `calibration/<kind>/`: what was applied\n",
        "One NXcollection for each kind (`-` becomes `_`; the attribute `kind` has "
        "the name as given): its own values and arrays, and\n",
        _scalars(layout.CALIBRATION),
    ]
    plans = _plans()
    parts += ["### Rows that every record has\n"]
    parts += list(_rows(plans[0].rows[:-1]))
    parts += [_blob(), _links()]
    parts += [_table(table) for table in plans[0].tables[:2]]
    for plan in plans:
        parts += list(_kind(plan))
    return "\n".join(parts)


def _plans() -> tuple[Layout, ...]:
    return (
        layout.train_layout(_SIZES),
        layout.evaluate_layout(_SIZES, n_predictions=6, n_targets=7),
        layout.scan_layout(_SIZES),
        layout.comparison_layout(),
        layout.study_layout(()),
        layout.calibrate_layout((6, 7), (4, 5), "u1"),
    )


def _kind(plan: Layout) -> Iterator[str]:
    yield f"## {_RECORD_TEXTS[plan.kind]}\n"
    yield f"Viewers open `{plan.default}` first.\n"
    own = [table for table in plan.tables if table.counter != "shots"]
    if plan.kind == "calibrate":
        own = list(plan.tables)
    yield from (_table(table) for table in own)
    yield from _rows(plan.rows[-1:])


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _scalars(scalars: Iterable[Scalar]) -> str:
    rows = [(f"`{s.path}`", s.dtype, s.units, s.text) for s in scalars]
    return _grid(("path", "type", "unit", "what it is"), rows)


def _reservoir() -> str:
    return _scalars(layout.RESERVOIR)


def _instrument() -> Iterator[str]:
    yield "### `instrument/<role>/`: the devices\n"
    names = ", ".join(f"`{name}`" for name in layout.IDENTITY)
    yield (
        f"Every device has {names} (`str`, as read from it) and `settings` (`str`, "
        "JSON, a snapshot at the start); `beam` has no identity. Fields of their own, "
        "where the bench knows them (every other role is an NXcollection without):\n"
    )
    rows = [
        (f"`{role}/{s.path}`", fields.nx_class, s.dtype, s.units, s.text)
        for role, fields in layout.INSTRUMENT.items()
        for s in fields.fields
    ]
    yield _grid(("path", "class of the group", "type", "unit", "what it is"), rows)


def _rows(rows: Iterable[Rows]) -> Iterator[str]:
    for row in rows:
        counted = f", counted by `{row.counter}`" if row.counter else ""
        about = f"{row.text}. Compound, {row.chunk} rows a chunk{counted}"
        yield f"`{row.path}`: {about}.\n"
        yield _grid(("field", "type"), [(f"`{n}`", kind) for n, kind in row.fields])


def _blob() -> str:
    return (
        f"`{layout.BLOB_PATH}`: {layout.BLOB.text}. {layout.BLOB.dtype} [N], "
        f"{layout.BLOB_CHUNK} bytes a chunk, counted by `{layout.BLOB.name}`. One of "
        "a training holds the model, to be shown and to go on from, the surrogate and "
        "its average, Adam's two moments of each, and the numbers of the shots that "
        "fits remember; the last one, of kind `final`, holds model and surrogate "
        "alone. `labctl run --dry-run` counts them all.\n"
    )


def _links() -> str:
    return (
        "`data` is a soft link to `shots`, `instrument/camera/data` one to "
        "`shots/frames` where frames are kept.\n"
    )


def _table(table: Table) -> str:
    head = f"### `{table.name}/`: {table.title.lower()}\n"
    about = f"{table.nx_class}, counted by `{table.counter}`."
    if table.signal:
        axes = ", ".join(f"`{axis}`" for axis in table.axes)
        about += f" Signal `{table.signal}` over {axes}."
    if table.auxiliary:
        about += f" Auxiliary: {', '.join(f'`{name}`' for name in table.auxiliary)}."
    if table.name == "shots" and "outputs" in (c.name for c in table.columns):
        about += " With `record.frames: binned` there are no frames: `outputs` is"
        about += " the signal then, over `shot` and `output`."
    if table.name == "training":
        about += " Further metrics of a protocol stand beside these."
    if table.name == "fits":
        about += " Columns of the study itself stand beside these, see"
        about += " [studies.md](studies.md). A study on a bench has `shots` and"
        about += " `shots_meta` too; one without has no `reservoir` fields."
    rows = [_column(column) for column in table.columns]
    rows += [_axis(axis) for axis in table.fixed]
    grid = _grid(("column", "type", "unit", "what it is"), rows)
    return f"{head}\n{about}\n\n{grid}"


def _column(column: Column) -> tuple[str, str, str, str]:
    dims = ", ".join(("N", *column.dims))
    dtype = "u1 or u2" if column.name == "levels" else column.dtype
    return f"`{column.name}`", f"{dtype} [{dims}]", column.units, column.text


def _axis(axis: Axis) -> tuple[str, str, str, str]:
    return f"`{axis.name}`", "i4, fixed", axis.units, axis.text
