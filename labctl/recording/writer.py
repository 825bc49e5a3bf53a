"""The recorder: writes one record, live, so that a kill loses nothing committed.

The file is HDF5 of format v110 with paged space, written under SWMR (single
writer, multiple readers). Everything is declared before the switch to SWMR,
because HDF5 raises nothing when something is created after it and the file is
damaged then; so a :class:`Recorder` holds a closed list of datasets. Rows become
true by a row in ``commits``, written after the data and before anyone is told.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import ArrayLike, NDArray

from labctl.errors import InputError, RecordError, SafetyError
from labctl.recording import (
    columns,
    declare,
    disk,
    environment,
    layout,
    packed,
    reopen,
    repair,
    tree,
)
from labctl.recording.header import Header, compose
from labctl.recording.lastword import undisturbed
from labctl.recording.layout import Layout, Rows

_EVENT_TEXT_BYTES = 200
# Commits between two looks at the room on the disk.
_LOOK_EVERY = 64
# Exposures of one batch, at most, that end a run.
_FORGOTTEN = 4096


class Recorder:
    """Writes one record. Made by :meth:`create`, closed by a ``with`` block.

    One process and one thread write. On leaving the block by an exception the
    status becomes ``failed``, ``stopped`` (safety) or ``interrupted``, otherwise
    ``complete``, unless :meth:`set_status` said more before.

    Parameters
    ----------
    path
        The record.
    file
        The open HDF5 file, everything declared, SWMR on.
    plan
        What it holds.
    lock
        Held until the record is closed.
    reserve
        Released when the record is closed.
    """

    def __init__(
        self,
        path: Path,
        file: h5py.File,
        plan: Layout,
        lock: FileLock,
        reserve: disk.Reserve,
    ) -> None:
        self._path, self._layout = path, plan
        self._file, self._is_open = file, True
        self._lock, self._reserve = lock, reserve
        self._counts = dict.fromkeys(plan.counters, 0)
        # Rows that are there already: they are compared, not written again.
        self._kept = dict(self._counts)
        self._committed, self._commits = dict(self._counts), 0
        self._status = "running"
        # Of real light: a value that differs is told, once a column, and stands.
        self._measured, self._differing = False, set[str]()
        # Exposures that ended a run, and were let go when it was resumed.
        self.forgotten = 0
        # The closed list: every dataset that may change from now on.
        entry = tree.group(file, "entry")
        names = [f"{table.name}/{column.name}" for table, column in plan.columns()]
        names += [rows.path for rows in plan.rows]
        names += [layout.BLOB_PATH, "status", "end_time", "result"]
        self._closed_list = {name: tree.dataset(entry, name) for name in names}

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        layout: Layout,
        header: Header,
        overwrite: bool = False,
    ) -> Self:
        """Make a new record, ready for rows, readable from now on.

        Parameters
        ----------
        path
            The file; its folder must exist.
        layout
            What it holds.
        header
            What is known of the run.
        overwrite
            Replace a record that is there.

        Returns
        -------
        recorder
            Open; the caller closes it.

        Raises
        ------
        InputError
            The path cannot be written, is taken, or another process writes it;
            nothing was created.
        RecordError
            The disk failed.
        ValueError
            Header and layout do not fit.
        """
        target = Path(path)
        disk.check_target(target, overwrite=overwrite)
        if header.kind != layout.kind:
            text = f"record: kind={header.kind}, expected {layout.kind} (layout)."
            raise ValueError(text)
        machine = environment.capture()
        written = compose(header, machine)
        lock = take(target)
        try:
            reserve = _replace(target)
            with disk.disk_errors(target, reserve):
                file = declare.create(target, layout, written, machine.version)
            recorder = cls(target, file, layout, lock, reserve)
            recorder._start(machine, "create")
        except BaseException:
            target.with_name(target.name + ".reserve").unlink(missing_ok=True)
            lock.release()
            raise
        return recorder

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        *,
        layout: Layout,
        measured: bool = False,
        forget: Collection[str] = (),
    ) -> Self:
        """Open a record that was left unfinished, to go on with it.

        It is repaired if its writer was killed, and cut to its last commit. All
        its rows are taken as appended; :meth:`rewind` says otherwise.

        Parameters
        ----------
        path
            The record.
        layout
            What it holds.
        measured
            Whether the light was real. What is made of it again may then differ,
            by the rounding of another processor: an event tells, and what was
            recorded stands. Otherwise a difference is an error.
        forget
            Qualities of exposures that end a run. The last ones, where they are
            such, are let go: their patterns are shown anew.

        Returns
        -------
        recorder
            Open; the caller closes it.

        Raises
        ------
        InputError
            It is no record of that layout, is complete, or its writer lives.
        RecordError
            It is damaged, or the disk failed.
        """
        target = Path(path)
        if not target.is_file():
            text = f"{target}: not there, expected a record. Check the name."
            raise InputError(text)
        machine = environment.capture()
        lock = take(target)
        try:
            repair.rewrite(target)
            file, commits, counts = reopen.reopen(target, layout)
            try:
                reserve = _reserve(target)
            except BaseException:
                file.close()
                raise
            recorder = cls(target, file, layout, lock, reserve)
            recorder._counts, recorder._kept = dict(counts), dict(counts)
            recorder._committed, recorder._commits = dict(counts), commits
            recorder._measured = measured
            recorder._forget(forget)
            recorder._start(machine, "resume")
            with recorder._working():
                file.swmr_mode = True
                file.flush()
        except BaseException:
            target.with_name(target.name + ".reserve").unlink(missing_ok=True)
            lock.release()
            raise
        return recorder

    def _forget(self, qualities: Collection[str]) -> None:
        name, counter = "shots_meta/quality", "shots"
        if not qualities or name not in self._closed_list:
            return
        made = self._counts[counter]
        with self._working():
            told = self._closed_list[name].asstr()[max(0, made - _FORGOTTEN) : made]
        good = np.flatnonzero(~np.isin(told, list(qualities)))
        self.forgotten = len(told) - (int(good[-1]) + 1 if len(good) else 0)
        if self.forgotten:
            self._counts[counter] -= self.forgotten
            self._kept[counter] -= self.forgotten
            self.commit()  # first what is true,
            self._cut()  # then the rows: a kill in between leaves both

    @property
    def path(self) -> Path:
        """The record."""
        return self._path

    @property
    def lengths(self) -> dict[str, int]:
        """Rows appended so far, by counter; committed or not."""
        return dict(self._counts)

    @property
    def replaying(self) -> bool:
        """Whether rows that come next are in the record already."""
        own = {table.counter for table in self._layout.tables}
        return any(self._counts[name] < self._kept[name] for name in own)

    def to_come(self, counter: str) -> slice:
        """Rows that are in the record already and were not passed yet."""
        return slice(self._counts[counter], self._length(counter))

    def pass_over(self, counter: str, rows: int) -> None:
        """Take rows that are there as appended, without making them again.

        Parameters
        ----------
        counter
            Of which tables.
        rows
            How many.

        Raises
        ------
        ValueError
            So many are not there.
        """
        ahead = self.to_come(counter)
        if rows > ahead.stop - ahead.start:
            text = (
                f"record: rows={rows} to pass over, expected at most "
                f"{ahead.stop - ahead.start} of {counter}."
            )
            raise ValueError(text)
        self._counts[counter] += rows

    def rewind(self, lengths: Mapping[str, int]) -> None:
        """Go back to earlier lengths; nothing in the file is changed.

        Rows that come next are compared with those that are there, bit by bit,
        for as long as there are any; after the last one they are appended again.

        Parameters
        ----------
        lengths
            By counter; those not given, other than of events and writers, are 0.

        Raises
        ------
        RecordError
            The record is shorter than that.
        """
        fixed = (layout.EVENTS.counter, layout.WRITERS.counter)
        wanted = {
            name: lengths.get(name, 0) for name in self._counts if name not in fixed
        }
        for name, length in wanted.items():
            if not 0 <= length <= self._kept[name]:
                text = (
                    f"{self._path}: {name}={self._kept[name]} rows, expected {length} "
                    "by its checkpoint. Restore the file from a copy."
                )
                raise RecordError(text)
        self._counts |= wanted

    def append(self, table: str, **values: ArrayLike) -> slice:
        """Append rows to a table and to those that grow with it.

        Parameters
        ----------
        table
            Name of the table.
        **values
            Every column that the recorder does not fill itself, equally long.

        Returns
        -------
        rows
            Numbers of the new rows.

        Raises
        ------
        ValueError
            A column is missing, unknown, or of wrong shape or type; nothing
            was written.
        RecordError
            The disk failed, or the record is closed.
        """
        tables = self._layout.together(table)
        counter = tables[0].counter
        start = self._counts[counter]
        arrays = columns.arrays(tables, values, start)
        stop = start + len(next(iter(arrays.values())))
        there = min(max(self._kept[counter] - start, 0), stop - start)
        for name, array in arrays.items():
            self._compare(name, start, array[:there])
        if there < stop - start:
            with self._working():
                for name, array in arrays.items():
                    _extend(self._closed_list[name], start + there, array[there:])
        self._counts[counter] = stop
        return slice(start, stop)

    def append_shots(self, **values: ArrayLike) -> slice:
        """Append shots: ``shots`` and ``shots_meta`` in one call.

        Parameters
        ----------
        **values
            Every column of both but ``shot``.

        Returns
        -------
        rows
            Numbers of the shots.

        Raises
        ------
        ValueError
            A column is missing, unknown, or of wrong shape or type.
        RecordError
            The disk failed, or the record is closed.
        """
        return self.append("shots", **values)

    def read(self, table: str, name: str, rows: slice) -> NDArray[Any]:
        """Read rows of a column that were appended, or that are there already.

        Parameters
        ----------
        table
            Name of the table.
        name
            Name of the column.
        rows
            Which, from start to stop.

        Returns
        -------
        values
            One row each.

        Raises
        ------
        RecordError
            The disk failed, or the record is closed.
        """
        with self._working():
            return np.asarray(self._closed_list[f"{table}/{name}"][rows])

    def event(self, level: str, source: str, text: str) -> None:
        """Note that something happened.

        Parameters
        ----------
        level
            ``info``, ``warning`` or ``error``.
        source
            Who says it, at most 32 bytes.
        text
            What happened; long texts continue in rows of level ``more``. While
            replaying only errors are new.

        Raises
        ------
        ValueError
            Level or source is too long.
        RecordError
            The disk failed, or the record is closed.
        """
        if self.replaying and level != "error":
            return
        self.note(level, source, text)

    def note(self, level: str, source: str, text: str) -> None:
        """Write an event of this process, also while what was recorded is replayed.

        Parameters
        ----------
        level, source, text
            As :meth:`event` takes them.

        Raises
        ------
        ValueError
            Level or source is too long.
        RecordError
            The disk failed, or the record is closed.
        """
        now = time.time()
        parts = columns.parts(text, _EVENT_TEXT_BYTES)
        for number, part in enumerate(parts):
            row = (now, "more" if number else level, source, part)
            self._append_row(layout.EVENTS, row)

    def checkpoint(self, step: int, kind: str, state: Mapping[str, Any]) -> None:
        """Append a checkpoint; the next commit makes it true.

        Parameters
        ----------
        step
            Step that it goes on from.
        kind
            What for, at most 16 bytes.
        state
            Nested dicts, lists and tuples of tensors, arrays and plain values.

        Raises
        ------
        TypeError
            Something in the state has no checkpoint form.
        RecordError
            The disk failed, the record is closed, or while replaying the state
            is another than the record has.
        """
        # Only who writes a checkpoint waits for torch to load.
        from labctl.recording import checkpoint  # noqa: PLC0415 - start-up time

        content = checkpoint.pack(state)
        blob = np.frombuffer(content, dtype=np.uint8)
        offset = self._counts[layout.BLOB.name]
        row = (step, kind, offset, blob.size, packed.checksum(content), time.time())
        if offset < self._kept[layout.BLOB.name]:
            self._check_checkpoint(row)
            return
        with self._working():
            _extend(self._closed_list[layout.BLOB_PATH], offset, blob)
        self._append_row(layout.CHECKPOINT_INDEX, row)
        self._counts[layout.BLOB.name] = offset + blob.size

    def _check_checkpoint(self, row: tuple[Any, ...]) -> None:
        counter = layout.CHECKPOINT_INDEX.counter
        index = self._closed_list[layout.CHECKPOINT_INDEX.path]
        known = index[self._counts[counter]].tolist()
        if known[0] != row[0] or known[2:5] != row[2:5]:
            self._differ(layout.BLOB_PATH, row[2])
        self._counts[counter] += 1
        self._counts[layout.BLOB.name] = known[2] + known[3]

    def _compare(self, name: str, start: int, array: NDArray[Any]) -> None:
        """Compare rows with those that are there.

        Raises
        ------
        RecordError
            A bit differs.
        """
        if not len(array):
            return
        known = self._closed_list[name][start : start + len(array)]
        if known.tobytes() == array.astype(known.dtype).tobytes():
            return
        same = [a.tobytes() == b.tobytes() for a, b in zip(known, array, strict=True)]
        self._differ(name, start + same.index(False))

    def _differ(self, name: str, row: int) -> None:
        """Say that what came again is not what was recorded.

        Raises
        ------
        RecordError
            The light was simulated: nothing may differ.
        """
        step = self._counts.get("steps", 0)
        text = f"replay diverged at step {step}: {name} row {row} differs"
        if not self._measured:
            text = (
                f"{self._path}: {text}, expected what was recorded. The data, the "
                "bench or the software is another than it was: restore it, or run "
                "the protocol anew."
            )
            raise RecordError(text)
        # The bench's clock went on meanwhile.
        if name not in self._differing and not name.endswith("/time_s"):
            self._differing.add(name)
            text = f"{text}; going on from what was recorded, also where it does again"
            self.note("warning", "replay", text)

    def commit(self, *, fsync: bool = False) -> None:
        """Make everything appended so far true; return when a kill cannot undo it.

        Parameters
        ----------
        fsync
            Also wait for the disk, against loss of power.

        Raises
        ------
        RecordError
            The disk failed, or the record is closed.
        """
        reached = {name: self._length(name) for name in self._layout.counters}
        if self.replaying and reached == self._committed:
            return
        with self._working():
            self._flush(fsync=fsync)  # first the data,
            rows = self._layout.rows[-1]
            row = columns.row(rows, (time.time(), *reached.values()))
            _extend(self._closed_list[rows.path], self._commits, row)
            self._flush(fsync=fsync)  # then the row that makes it true
        self._commits += 1
        self._committed = reached
        if self._commits % _LOOK_EVERY == 0 and self._status in layout.OPEN_STATUSES:
            disk.check_water(self._path)

    def _length(self, counter: str) -> int:
        return max(self._counts[counter], self._kept[counter])

    def set_status(self, text: str) -> None:
        """Commit, then rewrite the status.

        Parameters
        ----------
        text
            One of ``layout.STATUSES``.

        Raises
        ------
        ValueError
            It is none of them.
        RecordError
            The disk failed, or the record is closed.
        """
        if text not in layout.STATUSES:
            options = ", ".join(layout.STATUSES)
            message = f"record: status={text}, expected one of {options}."
            raise ValueError(message)
        # Whoever reads "complete" finds everything.
        self.commit()
        self._rewrite("status", text)
        self._status = text

    def set_result(self, result: Mapping[str, Any]) -> None:
        """Rewrite the result.

        Parameters
        ----------
        result
            Plain values, finite numbers.

        Raises
        ------
        RecordError
            As JSON it is longer than its place or holds numbers that are not
            finite, or the disk failed, or the record is closed.
        """
        try:
            text = json.dumps(dict(result), allow_nan=False)
        except ValueError as err:
            message = (
                f"{self._path}: result: {err}, expected finite numbers. "
                "Give null for what could not be measured."
            )
            raise RecordError(message) from err
        if len(text) > layout.RESULT_BYTES:
            message = (
                f"{self._path}: result={len(text)} bytes, expected at most "
                f"{layout.RESULT_BYTES}. Keep details in a table."
            )
            raise RecordError(message)
        self._rewrite("result", text)

    def set_end_time(self) -> None:
        """Write the end: now.

        Raises
        ------
        RecordError
            The disk failed, or the record is closed.
        """
        self._rewrite("end_time", datetime.now(UTC).isoformat())
        last = self._counts["writers"] - 1
        with self._working():
            writers = self._closed_list[layout.WRITERS.path]
            row = writers[last]
            row["end_s"] = time.time()
            writers[last] = row
            self._file.flush()

    def close(self) -> None:
        """Commit what is appended, write the end, close, give up the lock.

        May be called twice.

        Raises
        ------
        RecordError
            The disk failed; the file may still look like a running one.
        """
        if not self._is_open:
            return
        try:
            self._cut()
            self.commit()
            self.set_end_time()
        finally:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with undisturbed() as came:
            failures = [*self._try(lambda: self._end(error)), *self._try(self.close)]
        # What the run died of is told first; the record's trouble goes with it.
        first = error if error is not None else next(iter(failures), None)
        for failure in failures:
            if first is not None and failure is not first:
                first.add_note(f"and then: {failure}")
        if error is None and first is not None:
            raise first
        if came and error is None:
            raise KeyboardInterrupt(signal.Signals(came[0]).name)

    def _end(self, error: BaseException | None) -> None:
        if not self._is_open or self._status not in layout.OPEN_STATUSES:
            return
        self._cut()
        if error is not None:
            self.event("error", "run", f"{type(error).__name__}: {error}")
        self.set_status(_outcome(error))

    def _try(self, action: Callable[[], None]) -> list[RecordError]:
        try:
            action()
        except RecordError as err:
            return [err]
        return []

    def _release(self) -> None:
        try:
            with self._working():
                self._file.close()
        finally:
            self._is_open = False
            self._reserve.release()
            try:
                repair.mark_left(self._path)
            finally:
                self._lock.release()

    def _start(self, machine: environment.Environment, reason: str) -> None:
        row = (
            time.time(),
            np.nan,
            machine.hostname[:64],
            os.getpid(),
            machine.git_commit,
            reason,
        )
        self._append_row(layout.WRITERS, row)
        self.commit()

    @contextmanager
    def _working(self) -> Iterator[None]:
        if not self._is_open:
            text = f"{self._path}: closed, expected open. Append before closing."
            raise RecordError(text)
        try:
            with disk.disk_errors(self._path, self._reserve):
                yield
        except RecordError:
            # What was appended since the last commit may be written in part: a
            # commit while closing must not make it true.
            self._counts = dict(self._committed)
            raise

    def _flush(self, *, fsync: bool) -> None:
        self._file.flush()
        if fsync:
            os.fsync(self._file.id.get_vfd_handle())

    def _append_row(self, rows: Rows, values: tuple[object, ...]) -> None:
        row = columns.row(rows, values)
        start = self._counts[rows.counter]
        with self._working():
            _extend(self._closed_list[rows.path], start, row)
        self._counts[rows.counter] = start + 1

    def _rewrite(self, name: str, text: str) -> None:
        with self._working():
            place = self._closed_list[name]
            place[()] = np.array(text.encode(), dtype=place.dtype)
            self._file.flush()

    def _cut(self) -> None:
        # After a failed append some columns are longer than others, and on a
        # full disk their chunks would be tried again at every flush.
        with self._working():
            for table, column in self._layout.columns():
                dataset = self._closed_list[f"{table.name}/{column.name}"]
                _shrink(dataset, self._length(table.counter))
            for rows in self._layout.rows[:-1]:
                _shrink(self._closed_list[rows.path], self._length(rows.counter))
            blob = self._closed_list[layout.BLOB_PATH]
            _shrink(blob, self._length(layout.BLOB.name))
            _shrink(self._closed_list[layout.COMMITS], self._commits)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "complete"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "stopped" if isinstance(error, SafetyError) else "failed"


def take(path: Path) -> FileLock:
    """Lock a record against every other writer.

    Parameters
    ----------
    path
        The record, which need not exist.

    Returns
    -------
    lock
        Held; the caller releases it.

    Raises
    ------
    InputError
        Another process holds it, or the folder cannot be written.
    """
    # thread_local=False: whoever closes the record gives the lock up.
    lock = FileLock(path.with_name(path.name + ".lock"), thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as err:
        text = (
            f"{path}: locked by another process, expected a record that nobody "
            "writes. Wait for it to end, or choose another file with --out."
        )
        raise InputError(text) from err
    except OSError as err:
        text = (
            f"{path}: cannot be written ({err.strerror}), expected a folder with "
            "leave to write. Choose another with --out."
        )
        raise InputError(text) from err
    return lock


def _replace(path: Path) -> disk.Reserve:
    return _reserve(path, replaced=path)


def _reserve(path: Path, replaced: Path | None = None) -> disk.Reserve:
    name = path.with_name(path.name + ".reserve")
    try:
        if replaced is not None:
            replaced.unlink(missing_ok=True)
        return disk.Reserve(name)
    except OSError as err:
        name.unlink(missing_ok=True)
        text = (
            f"{path}: cannot be replaced, or no room for a reserve of "
            f"{disk.RESERVE_BYTES // 2**20} MiB ({err.strerror}). Close what reads "
            "it, make room, or choose another file with --out."
        )
        raise InputError(text) from err


def _extend(dataset: h5py.Dataset, start: int, array: NDArray[Any]) -> None:
    stop = start + len(array)
    dataset.resize(stop, axis=0)
    if stop > start:
        dataset[start:stop] = array


def _shrink(dataset: h5py.Dataset, length: int) -> None:
    if dataset.shape[0] > length:
        dataset.resize(length, axis=0)
