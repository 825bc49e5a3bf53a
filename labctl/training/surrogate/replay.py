"""What was measured before and may be learned from again: rings of rows."""

from typing import TypedDict

import torch
from jaxtyping import Int64
from torch import Generator, Tensor

_FIRST_ROWS = 1024


class RingState(TypedDict):
    """Everything that a ring remembers.

    Attributes
    ----------
    columns
        The rows written so far, in the order of the buffer.
    cursor
        Row that is written next.
    """

    columns: list[Tensor]
    cursor: int


class Ring:
    """Rows of several tensors; when it is full the oldest row gives way.

    It serves value shots (phase, y), probe groups (phase, d_alpha, d_f) and
    cotangents alike.

    Parameters
    ----------
    capacity
        Greatest number of rows.

    Raises
    ------
    ValueError
        ``capacity`` is below 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            text = f"replay: capacity={capacity}, expected at least 1. Raise replay."
            raise ValueError(text)
        self.capacity = capacity
        self._columns: list[Tensor] = []
        self._size = 0
        self._cursor = 0

    def __len__(self) -> int:
        return self._size

    @torch.no_grad()
    def append(self, *columns: Tensor) -> None:
        """Add rows; their values are copied.

        Parameters
        ----------
        columns
            One tensor each, rows first, always of the same shapes.

        Raises
        ------
        ValueError
            The shapes differ from each other or from the rows before.
        """
        self._check(columns)
        rows = len(columns[0])
        if not rows:
            return
        self._reserve(min(self.capacity, self._size + rows), columns)
        # Of more rows than fit, the last ones stay.
        kept = min(rows, self.capacity)
        first = self._cursor + rows - kept
        where = torch.arange(first, first + kept) % self.capacity
        for buffer, column in zip(self._columns, columns, strict=True):
            buffer[where] = column[rows - kept :].detach()
        self._cursor = (self._cursor + rows) % self.capacity
        self._size = min(self.capacity, self._size + rows)

    def _check(self, columns: tuple[Tensor, ...]) -> None:
        got = [tuple(column.shape[1:]) for column in columns]
        lengths = {len(column) for column in columns}
        expected = [tuple(buffer.shape[1:]) for buffer in self._columns] or got
        if got != expected or len(lengths) != 1:
            text = (
                f"replay: rows={sorted(lengths)} of shapes={got}, expected one number "
                f"of rows of shapes {expected}. Observe the same kind every time."
            )
            raise ValueError(text)

    def _reserve(self, rows: int, columns: tuple[Tensor, ...]) -> None:
        room = len(self._columns[0]) if self._columns else 0
        if rows <= room:
            return
        room = min(self.capacity, max(rows, 2 * room, _FIRST_ROWS))
        grown = [column.new_empty((room, *column.shape[1:])) for column in columns]
        for new, old in zip(grown, self._columns, strict=False):
            new[: self._size] = old[: self._size]
        self._columns = grown

    def draw(
        self, count: int, generator: Generator, *, recency: float = 0.0
    ) -> tuple[Tensor, ...]:
        """Draw rows with replacement.

        Parameters
        ----------
        count
            Rows.
        generator
            Source of the choice.
        recency
            0 draws all rows alike; r draws the age as the share ``u^(1 + r)`` of
            all rows, u uniform, so that young rows come more often.

        Returns
        -------
        columns
            One tensor each, in the order of :meth:`append`.

        Raises
        ------
        ValueError
            The ring is empty.
        """
        if self._size == 0:
            text = "replay: rows=0, expected at least one. Observe shots first."
            raise ValueError(text)
        where = self._choose(count, generator, recency)
        return tuple(buffer[where] for buffer in self._columns)

    def _choose(
        self, count: int, generator: Generator, recency: float
    ) -> Int64[Tensor, " row"]:
        if recency == 0:
            return torch.randint(self._size, (count,), generator=generator)
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        age = (self._size * share ** (1 + recency)).long()
        return (self._cursor - 1 - age) % self._size

    @torch.no_grad()
    def forget(self, keep: int) -> None:
        """Drop all rows but the newest.

        Parameters
        ----------
        keep
            Rows that stay, if there are so many.
        """
        keep = min(keep, self._size)
        if keep == 0:
            self._columns, self._size, self._cursor = [], 0, 0
            return
        newest = (self._cursor - keep + torch.arange(keep)) % self.capacity
        self._columns = [buffer[newest].clone() for buffer in self._columns]
        self._size, self._cursor = keep, keep % self.capacity

    def rows(self) -> tuple[Tensor, ...]:
        """Return all rows.

        Returns
        -------
        columns
            One tensor each, in the order of the buffer.
        """
        return tuple(buffer[: self._size] for buffer in self._columns)

    def state_dict(self) -> RingState:
        """Copy everything that :meth:`load_state_dict` needs.

        Returns
        -------
        state
            Rows and cursor.
        """
        return {
            "columns": [buffer[: self._size].clone() for buffer in self._columns],
            "cursor": self._cursor,
        }

    def load_state_dict(self, state: RingState) -> None:
        """Go back to a state.

        Parameters
        ----------
        state
            As from :meth:`state_dict` of a ring of the same capacity.

        Raises
        ------
        ValueError
            It holds more rows than this ring.
        """
        columns = state["columns"]
        rows = len(columns[0]) if columns else 0
        if rows > self.capacity:
            text = (
                f"replay: rows={rows}, expected at most {self.capacity}. "
                "Resume with the replay that the run began with."
            )
            raise ValueError(text)
        self._columns = [column.clone() for column in columns]
        self._size, self._cursor = rows, state["cursor"]
