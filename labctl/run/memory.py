"""What a surrogate remembers, kept in a checkpoint by the numbers of its shots.

The memory of a fit is made of exposures that the record holds already, so a
checkpoint only says which: 8 bytes a row instead of a thousand. Rows are found by
their content, and what comes back is compared before it is trusted; a memory that
is not made of recorded shots is kept whole.
"""

from abc import abstractmethod
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labctl.reservoir import Scale
from labctl.training.probe import wrap

State = dict[str, Any]
# Shots and probes that can be found again, in memories: a bound for long runs.
REACH = 4
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Rows(Protocol):
    """A record that is being written, and can be read back."""

    @property
    @abstractmethod
    def lengths(self) -> dict[str, int]:
        """Rows by counter."""

    @abstractmethod
    def read(self, table: str, name: str, rows: slice) -> NDArray[Any]:
        """Rows of a column."""


class Memory:
    """Packs the memory of a fitter, and gives it back.

    Parameters
    ----------
    rows
        The record.
    scale
        From gray levels to the phases that were fitted.
    capacity
        Greatest number of rows that a fitter remembers.
    """

    def __init__(self, rows: Rows, scale: Scale, capacity: int) -> None:
        self._rows, self._scale = rows, scale
        self._shots = _Index(REACH * capacity)
        self._probes = _Index(REACH * capacity)

    def pack(self, fitter: State) -> State:
        """Replace what the record holds by numbers.

        Parameters
        ----------
        fitter
            State of a fitter.

        Returns
        -------
        packed
            The same, smaller; the state that was given is not changed.
        """
        self._look()
        packed = dict(fitter)
        for name, find, restore in (
            ("values", self._find_values, self._values),
            ("kept", self._find_values, self._values),
            ("probes", self._find_probes, self._pairs),
        ):
            columns = fitter[name]["columns"]
            found = find(columns) if columns else None
            if found is None or (found < 0).any():
                continue
            if all(map(torch.equal, columns, restore(found, columns[0].dtype))):
                dtype = "float64" if columns[0].dtype == torch.float64 else "float32"
                cursor = fitter[name]["cursor"]
                packed[name] = {"shots": found, "dtype": dtype, "cursor": cursor}
        return packed

    def unpack(self, packed: State) -> State:
        """Read the rows again that :meth:`pack` replaced.

        Parameters
        ----------
        packed
            What it returned.

        Returns
        -------
        fitter
            Equal to the state that was packed.
        """
        fitter = dict(packed)
        for name, restore in (
            ("values", self._values),
            ("kept", self._values),
            ("probes", self._pairs),
        ):
            kept = packed[name]
            if "shots" in kept:
                columns = restore(kept["shots"], _DTYPES[kept["dtype"]])
                fitter[name] = {"columns": columns, "cursor": kept["cursor"]}
        return fitter

    def _look(self) -> None:
        lengths = self._rows.lengths
        new = slice(self._shots.seen, lengths["shots"])
        numbers = np.arange(new.start, new.stop)
        self._shots.add(self._rows.read("shots", "outputs", new), numbers)
        new = slice(self._probes.seen, lengths["probes"])
        change = self._rows.read("probes", "df", new).astype(np.float32)
        base = self._rows.read("probes", "shot_base", new)
        plus = self._rows.read("probes", "shot_plus", new)
        self._probes.add(change, np.stack([base, plus], axis=1))

    def _find_values(self, columns: list[Tensor]) -> NDArray[np.int64]:
        return self._shots.find(columns[1])

    def _find_probes(self, columns: list[Tensor]) -> NDArray[np.int64] | None:
        # More than one probe at a point is not what the record can give back.
        return self._probes.find(columns[2][:, 0]) if columns[2].shape[1] == 1 else None

    def _values(self, shots: NDArray[np.int64], dtype: torch.dtype) -> list[Tensor]:
        rows = slice(int(shots.min()), int(shots.max()) + 1)
        which = shots - rows.start
        levels = self._rows.read("shots_meta", "levels", rows)[which]
        outputs = self._rows.read("shots", "outputs", rows)[which]
        shown = torch.from_numpy(self._scale.shown(levels))
        return [shown.to(dtype), torch.from_numpy(outputs).to(dtype)]

    def _pairs(self, pairs: NDArray[np.int64], dtype: torch.dtype) -> list[Tensor]:
        base_shown, base_y = self._values(pairs[:, 0], dtype)
        plus_shown, plus_y = self._values(pairs[:, 1], dtype)
        moved, change = wrap(plus_shown - base_shown), plus_y - base_y
        return [base_shown, moved[:, None], change[:, None]]


class _Index:
    """Rows by their content; of equal ones the last, of many the youngest."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._numbers: dict[bytes, NDArray[np.int64]] = {}
        self._missing = np.array(-1)
        self.seen = 0

    def add(self, rows: NDArray[Any], numbers: NDArray[np.int64]) -> None:
        for row, number in zip(rows, numbers, strict=True):
            key = row.tobytes()
            self._numbers.pop(key, None)
            self._numbers[key] = number
        self.seen += len(rows)
        extra = len(self._numbers) - self._capacity
        for key in list(islice(self._numbers, max(0, extra))):
            del self._numbers[key]
        if numbers.ndim > 1:
            self._missing = np.full(numbers.shape[1:], -1)

    def find(self, rows: Tensor) -> NDArray[np.int64]:
        content = rows.to(torch.float32).numpy()
        found = [self._numbers.get(row.tobytes(), self._missing) for row in content]
        return np.array(found, dtype=np.int64)
