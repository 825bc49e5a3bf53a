"""A record, opened for reading: running, closed or left by a crash.

Rows beyond the last commit do not exist: every length comes from the last valid
row of ``commits``, never from the shape of a dataset. A record may come from
anywhere, so nothing in it is followed out of the file and nothing is unpickled.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from labctl.document import is_file
from labctl.errors import InputError, RecordError
from labctl.recording import layout, packed, repair, tree
from labctl.recording.repair import Image, is_written

# Rewritten in place while a run goes on.
_STATE = ("status", "end_time", "result")
BESIDE = (".lock", ".reserve")
"""Ends of the names of files that a writer keeps beside its record."""


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Parameters
    ----------
    time_s
        Seconds since 1970.
    level
        ``info``, ``warning`` or ``error``.
    source
        Who says it.
    text
        What happened.
    """

    time_s: float
    level: str
    source: str
    text: str


@dataclass(frozen=True)
class CheckpointEntry:
    """Where a checkpoint lies.

    Parameters
    ----------
    step
        Step that it goes on from.
    kind
        What for.
    offset, nbytes
        Place in the blob.
    crc32
        Checksum of its bytes.
    time_s
        When it was written, seconds since 1970.
    """

    step: int
    kind: str
    offset: int
    nbytes: int
    crc32: int
    time_s: float


def is_hdf5(path: Path) -> bool:
    """Tell whether there is an HDF5 file, a record or not.

    Parameters
    ----------
    path
        Where it would be.
    """
    return is_file(path) and bool(h5py.is_hdf5(path))


class Record:
    """One record. Made by :meth:`open`, closed by a ``with`` block.

    What it shows is the state at the moment of opening; open again to see more
    of a running record.

    Parameters
    ----------
    path
        The record.
    file
        The open HDF5 file.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self._path, self._file = path, file
        self._entry = tree.group(file, "entry")
        version = self._scalar("layout_version")
        if not isinstance(version, int) or not 1 <= version <= layout.VERSION:
            is_newer = isinstance(version, int) and version > layout.VERSION
            todo = (
                "Read it with a newer labctl."
                if is_newer
                else "Restore the file from a copy."
            )
            text = (
                f"{path}: layout_version={version!r}, expected 1 to {layout.VERSION}. "
                f"{todo}"
            )
            raise InputError(text)
        # Before the lengths: what follows a commit must not look older than it.
        self._state = {name: self.text(name) for name in _STATE}
        _, self._counts = last_commit(tree.dataset(self._entry, layout.COMMITS))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a record for reading.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        record
            As of the last commit.

        Raises
        ------
        InputError
            No such file, no record, a newer layout, or one that leads out of
            the file.
        """
        source = Path(path)
        file = _open(source)
        try:
            tree.check_self_contained(file)
            check_creator(source, file)
            return cls(source, file)
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def title(self) -> str:
        """Title of the protocol."""
        return self.text("title")

    @property
    def kind(self) -> str:
        """Kind of the run, such as ``train`` or ``calibrate``."""
        return self.text("kind")

    @property
    def status(self) -> str:
        """One of ``layout.STATUSES``."""
        return self._state["status"]

    @property
    def is_written(self) -> bool:
        """Whether a run writes it at this moment.

        Raises
        ------
        InputError
            That cannot be told: its lock cannot be asked.
        """
        return is_written(self._path)

    @property
    def start_time(self) -> str:
        """Start, ISO 8601."""
        return self.text("start_time")

    @property
    def end_time(self) -> str:
        """End, ISO 8601; empty while it runs."""
        return self._state["end_time"]

    @property
    def simulated(self) -> bool:
        """Whether the light was simulated."""
        return bool(self._scalar("simulated"))

    @property
    def notice(self) -> str:
        """What a reader must know first; empty when nothing."""
        return self.text("notice")

    @property
    def result(self) -> dict[str, Any]:
        """Summary of the run; empty before there is one."""
        return self._parsed("result", self._state["result"])

    @property
    def protocol_text(self) -> str:
        """Protocol as it was given."""
        return self.text("protocol/data")

    @property
    def resolved(self) -> dict[str, Any]:
        """Protocol with every default."""
        return self._json("protocol/resolved")

    @property
    def protocol_path(self) -> str:
        """Where the protocol was read from; empty when not known."""
        there = tree.names(tree.group(self._entry, "protocol"))
        return self.text("protocol/path") if "path" in there else ""

    @property
    def bench_sha256(self) -> str:
        """Hash of the bench file."""
        return self.text("bench/sha256")

    @property
    def bench_name(self) -> str:
        """Name of the bench."""
        return self.text("bench/name")

    @property
    def bench_text(self) -> str:
        """Bench file as it was given."""
        return self.text("bench/data")

    @property
    def seeds(self) -> dict[str, int]:
        """Every seed by name."""
        return self._json("environment/seeds")

    @property
    def environment(self) -> dict[str, Any]:
        """Interpreter, packages, source and computer, by name.

        Raises
        ------
        InputError
            Packages, arguments or seeds are missing, or no JSON.
        """
        found = self._fields("environment")
        for name, read in (
            ("packages", self._parsed),
            ("argv", self._loaded),
            ("seeds", self._parsed),
        ):
            if name not in found:
                text = (
                    f"{self._path}: environment/{name} is missing, expected JSON. "
                    "Restore the file from a copy."
                )
                raise InputError(text)
            found[name] = read(f"environment/{name}", str(found[name]))
        return found

    @property
    def reservoir(self) -> dict[str, Any]:
        """The operating point, by name."""
        return self._fields("reservoir")

    @property
    def instrument(self) -> dict[str, dict[str, Any]]:
        """Fields of each device by role; ``settings`` as a dict."""
        devices = {}
        for role in tree.names(tree.group(self._entry, "instrument")):
            fields = self._fields(f"instrument/{role}")
            where = f"instrument/{role}/settings"
            fields["settings"] = self._parsed(where, str(fields.get("settings", "")))
            devices[role] = fields
        return devices

    @property
    def calibrations(self) -> dict[str, dict[str, Any]]:
        """Values and arrays of each calibration that was applied, by kind."""
        found = {}
        group = tree.group(self._entry, "calibration")
        for name in tree.names(group):
            with tree.damages(self._path):
                kind = _text(tree.group(group, name).attrs.get("kind", name))
            fields = self._fields(f"calibration/{name}")
            where = f"calibration/{name}/figure_of_merit"
            merit = str(fields.get("figure_of_merit", ""))
            fields["figure_of_merit"] = self._parsed(where, merit)
            found[kind] = fields
        return found

    @property
    def lengths(self) -> dict[str, int]:
        """Committed rows by counter, such as ``shots`` and ``steps``."""
        return dict(self._counts)

    @cached_property
    def tables(self) -> dict[str, tuple[str, ...]]:
        """Names of the columns of each table."""
        return {
            name: tree.columns(tree.group(self._entry, name))
            for name in tree.names(self._entry)
            if name in COUNTERS
        }

    def text(self, path: str) -> str:
        """Return a text under ``/entry``.

        Parameters
        ----------
        path
            Such as ``protocol/sha256``.

        Returns
        -------
        text
            The text.

        Raises
        ------
        InputError
            There is none at that path.
        """
        value = self._scalar(path)
        if isinstance(value, str):
            return value
        message = f"{self._path}: {path}={value!r}, expected text."
        raise InputError(message)

    def column(self, table: str, name: str, rows: slice = slice(None)) -> NDArray[Any]:
        """Read one column, committed rows only.

        Parameters
        ----------
        table
            Name of the table.
        name
            Name of the column.
        rows
            Which of the committed rows.

        Returns
        -------
        values
            One row each; text as ``str``.

        Raises
        ------
        InputError
            The record has no such table or column.
        RecordError
            The file has fewer rows than were committed.
        """
        if name not in self.tables.get(table, ()):
            text = (
                f"{self._path}: {table}/{name} is not there, expected one of "
                f"{', '.join(self.tables.get(table, tuple(self.tables)))}. "
                "Name one of them, or restore the file from a copy."
            )
            raise InputError(text)
        count = self._counts[COUNTERS[table]]
        dataset = tree.dataset(self._entry, f"{table}/{name}")
        return _decoded(self._cut(dataset, count, rows))

    def axis(self, table: str, name: str) -> NDArray[np.int32]:
        """Read a fixed axis of a table, such as ``x`` of ``shots``.

        Raises
        ------
        InputError
            The record has no such axis.
        """
        return tree.values(tree.dataset(self._entry, f"{table}/{name}"))

    def table(self, name: str) -> dict[str, NDArray[Any]]:
        """Read every column of a table, committed rows only.

        Parameters
        ----------
        name
            Name of the table; frames of many shots take their room in memory.

        Returns
        -------
        columns
            Equally long arrays by name.

        Raises
        ------
        InputError
            The record has no such table.
        """
        if name not in self.tables:
            text = (
                f"{self._path}: {name} is not there, expected one of "
                f"{', '.join(self.tables)}. "
                "Name one of them, or restore the file from a copy."
            )
            raise InputError(text)
        return {column: self.column(name, column) for column in self.tables[name]}

    def ledger(self) -> dict[str, int]:
        """Count the shots of each category, and those that were refunded.

        Returns
        -------
        ledger
            Accepted shots by category, and ``refunded``.
        """
        categories = self.column("shots_meta", "category")
        accepted = self.column("shots_meta", "quality") == "ok"
        counts = Counter(str(name) for name in categories[accepted])
        return {**counts, "refunded": int(np.sum(~accepted))}

    def events(self) -> list[Event]:
        """Everything that happened, in order; continued texts joined."""
        events: list[Event] = []
        for time_s, level, source, text in self._rows(layout.EVENTS.path, "events"):
            if level == "more" and events:
                last = events.pop()
                text = last.text + text
                events.append(Event(last.time_s, last.level, last.source, text))
            else:
                events.append(Event(time_s, level, source, text))
        return events

    def writers(self) -> list[dict[str, Any]]:
        """Return the processes that wrote the record, in order."""
        names = [name for name, _ in layout.WRITERS.fields]
        rows = self._rows(layout.WRITERS.path, "writers")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def checkpoints(self) -> list[CheckpointEntry]:
        """Where each committed checkpoint lies, in order."""
        rows = self._rows(layout.CHECKPOINT_INDEX.path, "ckpts")
        return [CheckpointEntry(*row) for row in rows]

    def checkpoint(
        self, index: int = -1, *, as_arrays: bool = False
    ) -> tuple[int, str, dict[str, Any]]:
        """Read a checkpoint.

        Parameters
        ----------
        index
            Which, in order; the last, -1, falls back to the one before as long
            as the checksum is wrong.
        as_arrays
            Hand out arrays for tensors, and do not load torch.

        Returns
        -------
        step
            Step that it goes on from: tells which one was taken.
        kind
            What for.
        state
            What was handed to the recorder; tensors on the processor, or arrays.

        Raises
        ------
        InputError
            The record holds no such checkpoint.
        RecordError
            Its bytes are damaged.
        """
        entries = self.checkpoints()
        if not -len(entries) <= index < len(entries):
            text = (
                f"{self._path}: checkpoint={index}, expected one of "
                f"{len(entries)} in this record."
            )
            raise InputError(text)
        wanted = entries[::-1] if index == -1 else [entries[index]]
        for entry in wanted:
            blob = self._blob(entry)
            if packed.checksum(blob) == entry.crc32:
                try:
                    return entry.step, entry.kind, _unpacked(blob, as_arrays=as_arrays)
                except ValueError as err:
                    message = f"{self._path}: {err}"
                    raise RecordError(message) from err
        text = (
            f"{self._path}: checkpoint={index} is damaged (checksum), expected the "
            "bytes that were written. Take another one, or restore the file."
        )
        raise RecordError(text)

    def _blob(self, entry: CheckpointEntry) -> bytes:
        place = slice(entry.offset, entry.offset + entry.nbytes)
        blob = tree.dataset(self._entry, layout.BLOB_PATH)
        return self._cut(blob, self._counts[layout.BLOB.name], place).tobytes()

    def _scalar(self, path: str) -> str | int | float:
        return _plain(tree.scalar(tree.dataset(self._entry, path)))

    def _json(self, path: str) -> dict[str, Any]:
        return self._parsed(path, self.text(path))

    def _parsed(self, path: str, text: str) -> dict[str, Any]:
        value = self._loaded(path, text)
        if not isinstance(value, dict):
            message = f"{self._path}: {path}, expected a JSON object."
            raise InputError(message)
        return value

    def _loaded(self, path: str, text: str) -> Any:  # noqa: ANN401 - any JSON
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as err:
            message = f"{self._path}: {path}: {err}, expected JSON."
            raise InputError(message) from err

    def _fields(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        group = tree.group(self._entry, path)
        for name in tree.names(group):
            # The soft link from the camera to its frames is no field of it.
            if isinstance(group.get(name, getlink=True), h5py.HardLink):
                found[name] = _content(tree.dataset(group, name))
        return found

    def _rows(self, path: str, counter: str) -> list[tuple[Any, ...]]:
        dataset = tree.dataset(self._entry, path)
        rows = self._cut(dataset, self._counts[counter], slice(None))
        return [tuple(_plain(value) for value in row) for row in rows.tolist()]

    def _cut(self, dataset: h5py.Dataset, count: int, rows: slice) -> NDArray[Any]:
        with tree.damages(self._path):
            if len(dataset) < count:
                dataset.refresh()
            held = len(dataset)
        if held < count:
            text = (
                f"{self._path}: {dataset.name} has {held} rows, expected the {count} "
                "that were committed. Restore the file from a copy."
            )
            raise RecordError(text)
        start, stop, step = rows.indices(count)
        return tree.values(dataset, slice(start, max(start, stop), step))


# Every table of every layout, with its counter.
COUNTERS: Mapping[str, str] = {
    table.name: table.counter
    for plan in (
        layout.train_layout(layout.ShotSpec(1, 1)),
        layout.evaluate_layout(layout.ShotSpec(1, 1), n_predictions=1, n_targets=1),
        layout.scan_layout(layout.ShotSpec(1, 1)),
        layout.comparison_layout(),
        layout.study_layout(()),
        layout.calibrate_layout((1, 1), (1, 1), "u1"),
    )
    for table in plan.tables
}


def _open(path: Path) -> h5py.File:
    if not is_file(path):
        there = "a folder" if os.path.isdir(path) else "not there"  # noqa: PTH112 - never raises
        text = f"{path}: {there}, expected a record. Check the name."
        raise InputError(text)
    if not h5py.is_hdf5(path):
        text = f"{path}: no HDF5 file, expected a record. Name another file."
        raise InputError(text)
    _check_begun(path)
    try:
        return h5py.File(path, "r")
    except OSError as err:
        # Flagged as being written: by a live recorder, or by one that was killed.
        flagged = _check_flagged(path)
        refused = err
    try:
        if not flagged:
            # Nothing is wrong with it, or its writer has closed it meanwhile.
            return _again(path, refused)
        if is_written(path):
            return h5py.File(path, "r", swmr=True, libver="v110")
        # SWMR reads again and again what has a wrong checksum, in case that it is
        # being written: where nobody writes it would wait for ever.
        return h5py.File(Image(path), "r")
    except OSError as err:
        raise InputError(_unreadable(path, err)) from err


def _check_begun(path: Path) -> None:
    try:
        if not repair.is_bare(path):
            return
    except RecordError:  # other HDF5, of which is told what it is
        return
    if is_written(path):
        text = (
            f"{path}: holds no group yet, expected a record: its run has only begun. "
            "Ask again in a moment."
        )
        raise InputError(text)
    raise InputError(repair.bare(path))


def _again(path: Path, refused: OSError) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError:
        raise refused from None


def _check_flagged(path: Path) -> bool:
    try:
        # A kill may fall between the new end and the bytes up to it: only a file
        # that was closed must be as long as it says.
        flagged = repair.is_flagged(path)
        whole = flagged or repair.is_whole(path)
    except RecordError as error:
        raise InputError(str(error)) from error
    if not whole:
        text = (
            f"{path}: size={path.stat().st_size} bytes, expected more: it was cut "
            "short. Restore the file from a copy."
        )
        raise InputError(text)
    return flagged


def _unreadable(path: Path, err: OSError) -> str:
    return (
        f"{path}: cannot be opened ({err}), expected a record. "
        "Restore the file from a copy."
    )


def check_creator(path: Path, file: h5py.File) -> None:
    """Refuse an HDF5 file that labctl did not write.

    Raises
    ------
    InputError
        It says of itself that something else did.
    """
    with tree.damages(path):
        creator = _text(file.attrs.get("creator", ""))
    if creator != "labctl":
        text = (
            f"{path}: HDF5, but no record, expected one that labctl wrote. "
            "Name another file."
        )
        raise InputError(text)


def last_commit(commits: h5py.Dataset) -> tuple[int, dict[str, int]]:
    """Find the last commit that counts.

    Parameters
    ----------
    commits
        The dataset.

    Returns
    -------
    rows
        Rows up to it; 0 when nothing was ever committed.
    counts
        Committed rows by counter.

    Raises
    ------
    RecordError
        They are not as labctl writes them.
    """
    # HDF5 remembers the length from when the file was searched for links.
    with tree.damages(commits.file.filename):
        commits.refresh()
    rows = tree.values(commits)
    if rows.ndim != 1 or "time_s" not in (rows.dtype.names or ()):
        text = (
            f"{commits.file.filename}: {layout.COMMITS} is {rows.dtype} of shape "
            f"{rows.shape}, expected rows with time_s. Restore the file from a copy."
        )
        raise RecordError(text)
    names = [name for name in rows.dtype.names or () if name != "time_s"]
    # A row is written whole, and no torn one was ever seen; still the last one
    # counts only when its time is there and no counter goes back.
    for number in range(len(rows) - 1, -1, -1):
        row, before = rows[number], rows[max(0, number - 1)]
        rising = all(row[name] >= max(0, before[name]) for name in names)
        if row["time_s"] > 0 and rising:
            return number + 1, {name: int(row[name]) for name in names}
    return 0, dict.fromkeys(names, 0)


def _unpacked(blob: bytes, *, as_arrays: bool) -> dict[str, Any]:
    if as_arrays:
        return packed.arrays(blob)
    # Only who wants tensors waits for torch to load.
    from labctl.recording import checkpoint  # noqa: PLC0415 - start-up time

    return checkpoint.unpack(blob)


def _content(dataset: h5py.Dataset) -> object:
    if dataset.shape == ():
        return _plain(tree.scalar(dataset))
    return tree.values(dataset)


def _plain(value: object) -> str | int | float:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int | float):
        return value
    return _text(value)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("utf-8", "replace")
    return str(value)


def _decoded(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8")
    return array
