"""A section knows whether anything stands under its heading."""

import pytest

from labctl.report.section import Explorer, Section, Table


def test_a_heading_alone_is_empty() -> None:
    assert Section("a", "A").is_empty


@pytest.mark.parametrize(
    "section",
    [
        Section("a", "A", ("text",)),
        Section("a", "A", table=Table(("head",), ())),
        Section("a", "A", listings=(("caption", "text"),)),
        Section("a", "A", explorer=Explorer("loss-fields", "{}")),
    ],
)
def test_anything_under_a_heading_counts(section: Section) -> None:
    assert not section.is_empty


def test_a_table_of_many_columns_is_wide() -> None:
    assert not Table(("head",) * 8, ()).is_wide
    assert Table(("head",) * 9, ()).is_wide


def test_tables_of_words_are_stacked_on_a_narrow_page() -> None:
    assert not Table(("what", "value"), ()).is_stacked
    assert Table(("claim", "measured", "verdict"), ()).is_stacked
    assert not Table(("head",) * 9, ()).is_stacked
    assert not Table(("head",) * 3, (), sortable=True).is_stacked
