"""What a page consists of: headings with text, tables and figures under them."""

import json
import math
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from labctl.report.figure import Drawing

_COLUMNS = 8


@dataclass(frozen=True)
class Table:
    """Rows of text under column heads.

    Parameters
    ----------
    heads
        One a column.
    rows
        As many cells each.
    note
        What a reader must know of it; empty when nothing.
    sortable
        Whether a click on a head sorts it.
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    sortable: bool = False

    @property
    def is_wide(self) -> bool:
        """Whether it has more columns than a page shows in its usual letters."""
        return len(self.heads) > _COLUMNS

    @property
    def is_stacked(self) -> bool:
        """Whether a narrow page shows its cells below each other."""
        return 2 < len(self.heads) <= _COLUMNS and not self.sortable


@dataclass(frozen=True)
class Explorer:
    """An interactive figure: a template of its own, and a script of the same name.

    Parameters
    ----------
    name
        ``templates/<name>.html`` and ``templates/<name>.js``.
    data
        What the script starts from, JSON.
    """

    name: str
    data: str


@dataclass(frozen=True)
class Item:
    """One of the things that a gallery shows.

    Parameters
    ----------
    name
        Its heading.
    drawings
        Small figures, side by side where there is room.
    """

    name: str
    drawings: tuple[Drawing, ...]


@dataclass(frozen=True)
class Key:
    """What a gallery can be ordered by.

    Parameters
    ----------
    group
        Under which it is listed.
    label
        What it is.
    values
        Numbers or words, one an item; no number where not known.
    form
        How a number is written.
    """

    group: str
    label: str
    values: tuple[float, ...] | tuple[str, ...]
    form: str = ".3g"

    def as_json(self, names: tuple[str, ...]) -> dict[str, object]:
        """Say it in a way that a script can read.

        Parameters
        ----------
        names
            Of the items: a text that only repeats one is left empty.
        """
        known = [
            value if isinstance(value, str) or math.isfinite(value) else None
            for value in self.values
        ]
        texts = [
            "" if text == name else text
            for text, name in zip(self.texts, names, strict=True)
        ]
        return {"label": self.label, "values": known, "texts": texts}

    @property
    def texts(self) -> list[str]:
        """Each value in words."""
        return [self._said(value) for value in self.values]

    def _said(self, value: float | str) -> str:
        if isinstance(value, str):
            return value
        return f"{value:{self.form}}" if math.isfinite(value) else "not known"


@dataclass(frozen=True)
class Gallery:
    """Many small figures of one kind, in an order that the reader chooses.

    Parameters
    ----------
    name
        Anchor in the page.
    title
        Heading above it.
    caption
        What it shows, for who sees it.
    legend
        What colours and marks mean, above the items.
    items
        Ordered by the first key, which is a number: from the highest.
    keys
        What they can be ordered by, those of a group together.
    whole
        The same as one figure in one order: for papers, not for the page.
    """

    name: str
    title: str
    caption: str
    legend: Drawing
    items: tuple[Item, ...]
    keys: tuple[Key, ...]
    whole: Drawing

    @property
    def drawings(self) -> tuple[Drawing, ...]:
        """Every figure that the page shows of it."""
        return self.legend, *(each for item in self.items for each in item.drawings)

    @property
    def groups(self) -> list[tuple[str, list[str]]]:
        """Each group of keys, with their labels."""
        return [
            (group, [key.label for key in keys])
            for group, keys in groupby(self.keys, attrgetter("group"))
        ]

    @property
    def data(self) -> str:
        """What the script orders by, JSON."""
        names = tuple(item.name for item in self.items)
        return json.dumps([key.as_json(names) for key in self.keys], allow_nan=False)


@dataclass(frozen=True)
class Section:
    """One heading of the page and what stands under it.

    Parameters
    ----------
    name
        Anchor in the page.
    title
        The heading.
    sentences
        Text, one paragraph each.
    table
        A table, if there is one.
    drawings
        Figures, in order.
    listings
        Caption and text of what is shown as it is.
    explorer
        An interactive figure, if there is one.
    gallery
        Small figures to be ordered, if there are such.
    """

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    table: Table | None = None
    drawings: tuple[Drawing, ...] = ()
    listings: tuple[tuple[str, str], ...] = ()
    explorer: Explorer | None = None
    gallery: Gallery | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands under the heading."""
        parts = (
            self.table,
            self.drawings,
            self.listings,
            self.explorer,
            self.gallery,
        )
        return not (self.sentences or any(parts))

    @property
    def on_page(self) -> tuple[Drawing, ...]:
        """Every figure that the page shows."""
        return (*(self.gallery.drawings if self.gallery else ()), *self.drawings)

    @property
    def on_paper(self) -> tuple[Drawing, ...]:
        """Every figure that a paper may show."""
        return (*((self.gallery.whole,) if self.gallery else ()), *self.drawings)


@dataclass(frozen=True)
class Page:
    """Everything that a page says.

    Parameters
    ----------
    title
        What was run.
    status
        How it ended.
    simulated
        Whether the light was simulated.
    notice
        What a reader must know first; empty when nothing.
    sections
        In order, none empty.
    """

    title: str
    status: str
    simulated: bool
    notice: str
    sections: tuple[Section, ...]
