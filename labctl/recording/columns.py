"""Values into arrays that a column takes, or a refusal that says why not."""

from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from labctl.recording.layout import Column, Rows, Table


def h5_dtype(dtype: str) -> np.dtype[Any]:
    """Return the type of a value in the file.

    Text is UTF-8 of fixed length: a growing column of variable length breaks live
    readers.
    """
    if dtype.startswith("S"):
        text: np.dtype[Any] = h5py.string_dtype("utf-8", int(dtype[1:]))
        return text
    return np.dtype(dtype)


def row_dtype(rows: Rows) -> np.dtype[np.void]:
    """Return the type of a row of a compound dataset in the file."""
    return np.dtype([(name, h5_dtype(dtype)) for name, dtype in rows.fields])


def row(rows: Rows, values: tuple[object, ...]) -> NDArray[np.void]:
    """Return one row of a compound dataset, as an array of length 1.

    Raises
    ------
    ValueError
        A text is longer than its field.
    """
    encoded: list[object] = []
    for (name, dtype), value in zip(rows.fields, values, strict=True):
        encoded.append(value.encode() if isinstance(value, str) else value)
        if isinstance(value, str) and len(value.encode()) > int(dtype[1:]):
            text = f"record: {rows.path}.{name}={value!r}, expected {dtype[1:]} bytes."
            raise ValueError(text)
    return np.array([tuple(encoded)], dtype=row_dtype(rows))


def parts(text: str, nbytes: int) -> Iterator[str]:
    """Cut a text into parts of so many bytes, never inside a character."""
    rest = text.encode()
    while len(rest) > nbytes:
        part = rest[:nbytes].decode("utf-8", "ignore")
        yield part
        rest = rest[len(part.encode()) :]
    yield rest.decode()


def arrays(
    tables: tuple[Table, ...], given: Mapping[str, ArrayLike], start: int
) -> dict[str, NDArray[Any]]:
    """Turn what was handed over into one array for each column.

    Parameters
    ----------
    tables
        The tables that grow together.
    given
        Values by name of the column.
    start
        Number of the first new row.

    Returns
    -------
    arrays
        By ``table/column``, equally long, columns filled by number included.

    Raises
    ------
    ValueError
        A column is missing, unknown, or of wrong shape or type.
    """
    where = tables[0].name
    own = [(table, column) for table in tables for column in table.columns]
    asked = {column.name for _, column in own if not column.filled}
    if set(given) != asked:
        text = (
            f"record: {where}: missing={sorted(asked - set(given))}, "
            f"unknown={sorted(set(given) - asked)}, expected every column once."
        )
        raise ValueError(text)
    found = {
        f"{table.name}/{column.name}": _convert(table, column, given[column.name])
        for table, column in own
        if not column.filled
    }
    count = _length(where, found)
    for table, column in own:
        if column.filled:
            numbers = np.arange(start, start + count, dtype=column.dtype)
            found[f"{table.name}/{column.name}"] = numbers
    return found


def _length(where: str, found: Mapping[str, NDArray[Any]]) -> int:
    lengths = {name: len(array) for name, array in found.items()}
    if len(set(lengths.values())) != 1:
        text = f"record: {where}: rows={lengths}, expected equally many."
        raise ValueError(text)
    return next(iter(lengths.values()))


def _convert(table: Table, column: Column, value: ArrayLike) -> NDArray[Any]:
    array = np.asarray(value)
    where = f"{table.name}/{column.name}"
    if array.ndim == 0 or array.shape[1:] != column.shape:
        text = (
            f"record: {where}: shape={array.shape}, expected "
            f"(rows, {', '.join(map(str, column.shape))})."
        )
        raise ValueError(text)
    if column.dtype.startswith("S"):
        return _strings(where, column, array)
    return _numbers(where, np.dtype(column.dtype), array)


def _numbers(where: str, target: np.dtype[Any], array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype == target:
        return array
    if array.dtype.kind not in ("iuf" if target.kind == "f" else "iu"):
        text = f"record: {where}: dtype={array.dtype}, expected {target}."
        raise ValueError(text)
    with np.errstate(over="ignore"):
        cast = array.astype(target)
    # Rounding a float is what a column of less precision is for; leaving its
    # range, or changing a whole number, is not.
    kept = np.isinf(cast) == np.isinf(array) if target.kind == "f" else cast == array
    if not np.all(kept):
        text = f"record: {where}: values beyond {target}, expected ones that fit."
        raise ValueError(text)
    return cast


def _strings(where: str, column: Column, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "US":
        text = f"record: {where}: dtype={array.dtype}, expected text."
        raise ValueError(text)
    encoded = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
    longest = encoded.dtype.itemsize
    room = np.dtype(column.dtype).itemsize
    if longest > room and int(np.char.str_len(encoded).max(initial=0)) > room:
        text = f"record: {where}: text={array.tolist()}, expected at most {room} bytes."
        raise ValueError(text)
    return encoded.astype(h5_dtype(column.dtype))
