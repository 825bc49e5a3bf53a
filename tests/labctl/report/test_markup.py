"""Markup in every text of a record of any kind is shown as text.

Nothing here knows what a record holds: the file is walked, so that a text that is new
is marked as well.
"""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
from typing_extensions import override

from labctl.errors import InputError
from labctl.recording.layout import Kind
from labctl.recording.reader import Record
from labctl.report import content, page
from labctl.report.figure import Drawing, Format
from labctl.report.section import Page
from labctl.report.study.course import FIGURES

# Opens an element; where quotes are not escaped, an attribute; short enough for the
# narrowest text that a record has.
MARK = "<b>&\"x='"
SEEN = "<b>&"  # listings escape quotes as JSON and a shell do
KINDS: tuple[Kind, ...] = ("evaluate", "scan", "comparison", "calibrate")
NAMED = ("instrument", "calibration", "reservoir", "environment")
# A page chooses by these what to draw: each is marked alone, and may be refused.
COLUMNS = (
    *("axis", "directions", "loss", "method"),
    *("network", "part", "target", "task"),
)
CHOOSERS = ("kind", "protocol/resolved", *(f"fits/{name}" for name in COLUMNS))
KEPT = ("study", "layer", "encoding")  # of the resolved protocol
ATTRIBUTES = {
    *("alt", "class", "content", "href", "http-equiv", "id", "lang", "name", "role"),
    *("charset", "data-head", "data-keys", "data-start", "media", "scope", "src"),
    *("autocomplete", "hidden", "label"),
    *("tabindex", "type", "width", "height", "for", "value", "min", "max", "step"),
    *("aria-label", "aria-labelledby", "aria-describedby", "aria-hidden", "aria-live"),
}
Texts = np.ndarray[Any, Any]


class Seen(HTMLParser):
    """Elements, attributes and text of a page, as a browser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.said: list[str] = []
        self.images: list[bytes] = []
        self.feed(html)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}
        found = {name: value or "" for name, value in attrs}
        self.said += [found.get(name, "") for name in ("alt", "aria-label")]
        if "src" in found:
            kind, _, packed = found["src"].partition(",")
            assert kind == "data:image/svg+xml;base64"
            self.images.append(base64.b64decode(packed))

    @override
    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def check(self) -> None:
        """No element and no attribute but those of the page itself."""
        assert "b" not in self.tags
        assert self.names <= ATTRIBUTES
        for image in self.images:
            tags = {each.tag for each in ElementTree.fromstring(image).iter()}  # noqa: S314 - ours
            assert not {tag for tag in tags if tag.endswith("}b")}


def plain(text: str) -> str:
    return " ".join(text.split())


class Marker:
    """Puts markup into texts of a file, and keeps what stood there.

    Parameters
    ----------
    chooser
        Mark this one only; by default all but those.
    """

    def __init__(self, chooser: str = "") -> None:
        self.kept = () if chooser else KEPT
        self.chooser = chooser
        self.texts: list[str] = []

    def mark(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            entry = file["entry"]
            if self.chooser:
                self._dataset(entry[self.chooser])
                return
            places: list[h5py.Group | h5py.Dataset] = [file]
            file.visititems(lambda _, found: places.append(found))
            for place in places:
                self._attributes(place)
                name = place.name.removeprefix("/entry/")
                if isinstance(place, h5py.Dataset) and (
                    name not in CHOOSERS or name == "protocol/resolved"
                ):
                    self._dataset(place)
            for group in (entry[name] for name in NAMED):
                for child in list(group):
                    group.copy(child, group, child + MARK)

    def _attributes(self, place: h5py.Group | h5py.Dataset) -> None:
        for name, value in place.attrs.items():
            if isinstance(value, str) and name != "creator":
                place.attrs[name] = value + MARK

    def _dataset(self, place: h5py.Dataset) -> None:
        for name in place.dtype.names or ():
            if place.dtype[name].kind == "S":
                rows = place[:]
                rows[name] = self._column(rows[name])
                place[...] = rows
        if place.dtype.kind == "S" and place.shape:
            place[...] = self._column(place[...])
        elif place.dtype.kind in "SO" and not place.shape:
            room = place.dtype.itemsize if place.dtype.kind == "S" else None
            text = place[()].rstrip(b"\0").decode()
            place[()] = self._text(text, room).encode()

    def _column(self, rows: Texts) -> Texts:
        room = rows.dtype.itemsize
        flat = [self._word(text.decode(), room).encode() for text in rows.ravel()]
        return np.array(flat, rows.dtype).reshape(rows.shape)

    def _text(self, text: str, room: int | None) -> str:
        tree: object = None
        if text.startswith(("{", "[")):
            tree = json.loads(text)
        if tree is None:
            return self._word(text, room)
        found = json.dumps(self._tree(tree))
        assert room is None or len(found) <= room
        return found

    def _word(self, text: str, room: int | None = None) -> str:
        if room is not None and len((text + MARK).encode()) > room:
            return MARK[:room]
        self.texts.append(plain(text))
        return text + MARK

    def _tree(self, tree: object) -> object:
        if isinstance(tree, str):
            return self._word(tree)
        if isinstance(tree, list):
            return [self._tree(item) for item in tree]
        if not isinstance(tree, dict) or not tree:
            return tree
        found = {
            key: item if key in self.kept else self._tree(item)
            for key, item in tree.items()
        }
        *_, (last, item) = found.items()
        return {**found, last + MARK: item}


def told(part: object) -> Iterator[str]:
    """Every text that a page is made of, in whole."""
    if isinstance(part, str):
        yield plain(part)
    elif isinstance(part, tuple):
        for item in part:
            yield from told(item)
    elif is_dataclass(part):
        for field in fields(part):
            yield from told(getattr(part, field.name))


def read(record: Path) -> Page:
    with Record.open(record) as source:
        return page._read(source)


def check_shown(record: Path, folder: Path) -> None:
    """Mark all that is not chosen by; what was shown is shown with its mark."""
    before = list(told(read(record)))
    copy, marker = folder / "run.h5", Marker()
    shutil.copy(record, copy)
    marker.mark(copy)
    made = read(copy)
    # The items of a gallery are drawn alike: the first of each is.
    alike = {
        drawing.name
        for part in made.sections
        if part.gallery
        for item in part.gallery.items[1:]
        for drawing in item.drawings
    }

    def draw(drawing: Drawing, form: Format) -> bytes:
        if drawing.name in alike:
            return b"<svg/>"
        return page._rendered(f"{copy}", "any", drawing, form)

    seen = Seen(page._html(made, copy.name, draw))
    seen.check()
    whole, text = " ".join(before), plain(" ".join(seen.said))
    # A short word may stand there for another reason.
    shown = {
        each
        for each in marker.texts
        if len(each) > 6 and (each in before or (len(each) > 12 and each in whole))
    }
    assert len(shown) > 8
    ends = (SEEN, f" {SEEN}")  # the last line of a listing has an end
    assert [each for each in shown if not any(each + e in text for e in ends)] == []


def unasked(drawing: Drawing, form: Format) -> bytes:
    raise AssertionError(drawing.name, form)


def check_choosers(record: Path, folder: Path) -> None:
    """Mark each that is chosen by: a page without it, or a sentence."""
    copy, names = folder / "run.h5", []
    for name in CHOOSERS:
        with h5py.File(record) as file:
            if name not in file["entry"]:
                continue
        shutil.copy(record, copy)
        Marker(name).mark(copy)
        names.append(name)
        said = ""
        try:
            made = read(copy)
            # The figures' ink is the other test's.
            bare = tuple(
                replace(part, drawings=(), gallery=None) for part in made.sections
            )
            Seen(page._html(replace(made, sections=bare), "run.h5", unasked)).check()
        except InputError as error:
            said = str(error)
        assert not said or (", expected " in said and "\n" not in said)
    assert names[:2] == ["kind", "protocol/resolved"]


@pytest.mark.parametrize("kind", KINDS)
def test_markup_in_a_record_is_shown_as_text(
    kind: Kind, write_record: Callable[..., Path], tmp_path: Path
) -> None:
    record = write_record(kind)
    check_shown(record, tmp_path)
    check_choosers(record, tmp_path)


def test_markup_in_a_training_is_shown_as_text(
    training_record: Path, tmp_path: Path
) -> None:
    check_shown(training_record, tmp_path)
    check_choosers(training_record, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_markup_in_a_study_is_shown_as_text(
    name: str, make_study: Callable[[str], Path], tmp_path: Path
) -> None:
    record = make_study(name)
    check_shown(record, tmp_path)
    check_choosers(record, tmp_path)


def test_a_stranger_is_refused_whatever_it_is_called(
    empty_record: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run.h5"
    shutil.copy(empty_record, copy)
    with h5py.File(copy, "r+") as file:
        file.attrs["creator"] += MARK
    with pytest.raises(InputError, match="expected one that labctl wrote"):
        content.read(Record.open(copy))
