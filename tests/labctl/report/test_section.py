"""A section knows whether anything stands under its heading, and what is drawn."""

import json
import math

import pytest
from matplotlib.figure import Figure

from labctl.report.figure import Drawing
from labctl.report.section import Explorer, Gallery, Item, Key, Section, Table


def drawing(name: str) -> Drawing:
    return Drawing(name, "", "", "", (1, 1), Figure.clear)


GALLERY = Gallery(
    "birds",
    "Birds",
    "Small ones.",
    drawing("legend"),
    (Item("wren", (drawing("wren"),)), Item("owl", (drawing("owl"), drawing("ears")))),
    (
        Key("number", "weight", (9.5, math.nan), ".1f"),
        Key("number", "eggs", (6.0, 3.0)),
        Key("word", "name", ("wren", "owl")),
        Key("word", "order", ("passerine", "strigiform")),
    ),
    drawing("all"),
)


def test_a_heading_alone_is_empty() -> None:
    assert Section("a", "A").is_empty


@pytest.mark.parametrize(
    "section",
    [
        Section("a", "A", ("text",)),
        Section("a", "A", table=Table(("head",), ())),
        Section("a", "A", listings=(("caption", "text"),)),
        Section("a", "A", explorer=Explorer("loss-fields", "{}")),
        Section("a", "A", gallery=GALLERY),
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


def test_a_page_shows_the_items_of_a_gallery_and_a_paper_the_whole() -> None:
    section = Section("a", "A", drawings=(drawing("more"),), gallery=GALLERY)
    shown = [each.name for each in section.on_page]
    assert shown == ["legend", "wren", "owl", "ears", "more"]
    assert [each.name for each in section.on_paper] == ["all", "more"]


def test_keys_are_listed_by_group() -> None:
    assert GALLERY.groups == [
        ("number", ["weight", "eggs"]),
        ("word", ["name", "order"]),
    ]


def test_a_script_reads_what_is_not_known_and_no_name_twice() -> None:
    assert json.loads(GALLERY.data) == [
        {"label": "weight", "values": [9.5, None], "texts": ["9.5", "not known"]},
        {"label": "eggs", "values": [6.0, 3.0], "texts": ["6", "3"]},
        {"label": "name", "values": ["wren", "owl"], "texts": ["", ""]},
        {
            "label": "order",
            "values": ["passerine", "strigiform"],
            "texts": ["passerine", "strigiform"],
        },
    ]
