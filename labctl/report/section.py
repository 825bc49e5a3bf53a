"""What a page consists of: headings with text, tables and figures under them."""

from dataclasses import dataclass

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
    """

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    table: Table | None = None
    drawings: tuple[Drawing, ...] = ()
    listings: tuple[tuple[str, str], ...] = ()
    explorer: Explorer | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands under the heading."""
        parts = (self.table, self.drawings, self.listings, self.explorer)
        return not (self.sentences or any(parts))


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
