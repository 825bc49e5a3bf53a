"""YAML documents that a person writes: read, checked, every fault at once."""

import difflib
import hashlib
import inspect
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Final, Generic, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError
from typing_extensions import override

from labctl.errors import Fault, ProtocolError

T = TypeVar("T")
Scalar = str | int | float | bool | None
Tree = dict[str, Any] | list[Any] | Scalar
KeyPath = tuple[str | int, ...]
Folder = Literal["protocols", "calibrations"]

# A document that a person writes stays far below these. Together they bound the
# time: the slowest text of this size that we found takes 3 s to scan.
LARGEST_BYTES: Final = 1 << 20
MOST_NODES: Final = 20_000
DEEPEST: Final = 24
MOST_ALIASES: Final = 16
LONGEST_NUMBER: Final = 64
MOST_FAULTS: Final = 50

UNITS: Final = {
    "s": "s", "nm": "nm", "um": "um", "mw": "mW", "rad": "rad", "px": "pixels",
    "c": "°C", "db": "dB", "hz": "Hz", "e": "electrons", "dn": "camera counts",
    "days": "days",
}  # fmt: skip
# Units that people write and we do not use.
FOREIGN_UNITS: Final = {
    "ms", "us", "ns", "fs", "min", "mm", "m", "w", "uw", "kw", "deg", "mrad", "k",
    "khz", "mhz", "ghz", "percent", "sec", "seconds", "watt", "nanometers", "pixels",
}  # fmt: skip


class Schema(BaseModel):
    """A part of a document: frozen, finite numbers, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    @override
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        """Take the meaning of each key from the docstring."""
        schema = handler(core_schema)
        body = handler.resolve_ref_schema(schema)
        summary, meanings = _documented(cls)
        body["description"] = summary
        for name, value in body.get("properties", {}).items():
            value.pop("title", None)
            if name in meanings:
                value["description"] = meanings[name]
        return schema


@dataclass(frozen=True)
class Mark:
    """Where a piece of a document stands.

    Parameters
    ----------
    where
        The document, or the override that it comes from.
    line, column
        Counted from 1; None in an override.
    """

    where: str
    line: int | None = None
    column: int | None = None


@dataclass
class Node:
    """A value of a document and where it stands.

    Parameters
    ----------
    value
        A scalar, or nodes by key, or nodes in order.
    mark
        Where the value starts.
    keys
        Where each key of a map stands.
    """

    value: "Scalar | dict[str, Node] | list[Node]"
    mark: Mark
    keys: dict[str, Mark] = field(default_factory=dict)

    def plain(self) -> Tree:
        """Give the same without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def child(self, item: str | int) -> "Node | None":
        """Return what is under a key or an index, if anything."""
        if isinstance(self.value, dict):
            return self.value.get(str(item))
        if isinstance(self.value, list):
            index = _index(item)
            if index is not None and index < len(self.value):
                return self.value[index]
        return None

    def place(self, path: Sequence[str | int], *, at_key: bool = False) -> Mark:
        """Find where a path stands, or the nearest that is there above it.

        Parameters
        ----------
        path
            Keys and indices from here.
        at_key
            Whether the key is meant, not its value.

        Returns
        -------
        mark
            The place.
        """
        node = self
        for depth, item in enumerate(path):
            child = node.child(item)
            if child is None:
                break
            if at_key and depth == len(path) - 1 and str(item) in node.keys:
                return node.keys[str(item)]
            node = child
        return node.mark


@dataclass(frozen=True)
class Document(Generic[T]):
    """A document that passed every check.

    Parameters
    ----------
    value
        The validated model.
    path
        Where it was read from; None for text.
    text
        As given.
    data
        The plain tree after overrides, before defaults.
    sha256
        Hash of the bytes as given.
    root
        The tree with its places.
    """

    value: T
    path: Path | None
    text: str
    data: dict[str, Any]
    sha256: str
    root: Node = field(repr=False, compare=False)

    def fault(self, key: str, text: str) -> Fault:
        """Say what is wrong with a key, where it stands.

        Parameters
        ----------
        key
            Dotted path, such as ``model.0.encoding``; a key that is not there
            takes the place of the section above it.
        text
            What was got, what was expected, what to do.

        Returns
        -------
        fault
            Ready for a :class:`ProtocolError`.
        """
        return _fault(self.root.place(key.split(".")), key, text)


def read(
    path: Path, model: type[T] | TypeAdapter[T], *, overrides: Sequence[str] = ()
) -> Document[T]:
    """Read a document from a file and check it.

    Parameters
    ----------
    path
        The file.
    model
        The model that it must fit.
    overrides
        Changes ``key.path=value``, applied before the check.

    Returns
    -------
    document
        The model, the text and their places.

    Raises
    ------
    ProtocolError
        The file cannot be read, or something in it is wrong: every fault.
    """
    found = parse(_text(path), model, where=str(path), overrides=overrides)
    return replace(found, path=path)


def parse(
    text: str,
    model: type[T] | TypeAdapter[T],
    *,
    where: str,
    overrides: Sequence[str] = (),
) -> Document[T]:
    """Check a document that is given as text.

    Parameters
    ----------
    text
        YAML 1.2: maps, lists and scalars.
    model
        The model that it must fit.
    where
        What messages call it.
    overrides
        Changes ``key.path=value``, applied before the check; the value is YAML,
        list items are counted from 0: ``model.0.modes=64``.

    Returns
    -------
    document
        The model, the text and their places.

    Raises
    ------
    ProtocolError
        Something is wrong: every fault.
    """
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    root, faults = _tree(text, where)
    for change in overrides:
        faults += _apply(root, change)
    refused = {fault.key for fault in faults}
    values, found = _check(adapter, root)
    # A key that was already refused needs no second sentence.
    faults += [fault for fault in found if not _is_under(fault.key, refused)]
    if faults:
        raise ProtocolError(_in_order(faults))
    data = root.plain()
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return Document(values[0], None, text, data, digest, root)  # type: ignore[arg-type]  # a root that is no map was refused


def keys(path: Path) -> tuple[str, ...]:
    """Name the top-level keys of a document, to tell kinds of documents apart.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    names
        In the order of the document.

    Raises
    ------
    ProtocolError
        The file cannot be read, or is no YAML map.
    """
    root, _ = _tree(_text(path), str(path))
    return tuple(root.value) if isinstance(root.value, dict) else ()


def find(name: str | Path, folder: Folder) -> Path:
    """Find a protocol or bench file by name.

    Parameters
    ----------
    name
        A file's path; or a name, with or without ``.yaml``, in the current
        directory's folder or among those that labctl ships.
    folder
        Where names are looked up.

    Returns
    -------
    path
        The file, there and readable or not.

    Raises
    ------
    ProtocolError
        There is none; says which there are.
    """
    for candidate in (Path(name), Path(f"{name}.yaml")):
        if candidate.is_file():
            return candidate
    there = available(folder)
    wanted = PurePath(name).as_posix().removesuffix(".yaml")
    if wanted in there:
        return there[wanted]
    raise ProtocolError([Fault(str(name), None, None, "", _no_such(wanted, there))])


def find_bench(name: str | Path) -> Path:
    """Find a bench file by the name of its bench.

    Parameters
    ----------
    name
        Name of a bench, such as ``sim``; or the path of a bench file or of its
        folder.

    Returns
    -------
    path
        The bench file.

    Raises
    ------
    ProtocolError
        There is none; says which there are.
    """
    for candidate in (Path(name), Path(name) / "bench.yaml"):
        if candidate.is_file():
            return candidate
    there = benches()
    if str(name) in there:
        return there[str(name)]
    raise ProtocolError([Fault(str(name), None, None, "", _no_such(str(name), there))])


def available(folder: Folder) -> dict[str, Path]:
    """List the documents that can be found by name.

    Parameters
    ----------
    folder
        Where to look: in the current directory first, then what labctl ships.

    Returns
    -------
    there
        Path by name, without ``.yaml``.
    """
    there: dict[str, Path] = {}
    for home in (Path(folder), _shipped(folder)):
        for path in sorted(home.rglob("*.yaml")):
            name = path.relative_to(home).with_suffix("").as_posix()
            there.setdefault(name, path)
    return there


def benches() -> dict[str, Path]:
    """List the bench files that can be found by name.

    Returns
    -------
    there
        Path of the bench file by name of the bench.
    """
    end = "/bench"
    return {
        name.removesuffix(end): path
        for name, path in available("calibrations").items()
        if name.endswith(end)
    }


def json_schema(model: type[Any] | TypeAdapter[Any]) -> dict[str, Any]:
    """Describe a document for an editor.

    Parameters
    ----------
    model
        The model of the document.

    Returns
    -------
    schema
        JSON schema, draft 2020-12.
    """
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **adapter.json_schema(),
    }


def _shipped(folder: Folder) -> Path:
    package = Path(__file__).parent
    checkout = package.parent / folder
    if (package.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    return package / "shipped" / folder


def _no_such(wanted: str, there: Mapping[str, Path]) -> str:
    listed = ", ".join(there) if there else "none"
    return (
        f"no such file, expected a path or one of: {listed}.{_nearest(wanted, there)}"
    )


def _text(path: Path) -> str:
    """Read a file of bounded size.

    Raises
    ------
    ProtocolError
        It is no file, too large, or no UTF-8.
    """
    where = str(path)
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        text = f"{got}, expected a YAML file. Check the path."
        raise ProtocolError([Fault(where, None, None, "", text)])
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_BYTES + 1)
    except OSError as err:
        text = f"cannot be read: {err.strerror}. Check its permissions."
        raise ProtocolError([Fault(where, None, None, "", text)]) from err
    if len(raw) > LARGEST_BYTES:
        raise ProtocolError([Fault(where, None, None, "", _TOO_LARGE)])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        text = f"byte {raw[err.start]:#04x}, expected UTF-8 text. Save it as UTF-8."
        raise ProtocolError([Fault(where, line, None, "", text)]) from err


# Text to tree ----------------------------------------------------------------

_TOO_LARGE: Final = f"larger than {LARGEST_BYTES} bytes, expected a short document."
# The core schema of YAML 1.2.2, section 10.3.2.
_NULL: Final = re.compile(r"~|null|Null|NULL|")
_BOOL: Final = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Builder:
    """Turns the events of one document into nodes, within the limits."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self.faults: list[Fault] = []
        self._events = self._read(text)
        self._anchors: dict[str, Node] = {}
        self._nodes = 0
        self._aliases = 0

    def root(self) -> Node:
        """Build the one document that the text may hold."""
        root: Node | None = None
        for event in self._events:
            if not isinstance(event, DocumentStartEvent):
                continue
            mark = self._mark(event)
            if root is not None:
                raise self._stop(
                    mark, "a second document, expected one. Split the file."
                )
            if event.version not in {None, (1, 2)}:
                said = f"YAML {'.'.join(map(str, event.version))}, expected 1.2."
                raise self._stop(mark, f"{said} Remove the %YAML line.")
            root = self._node(next(self._events), ())
        if root is None or root.value is None:
            raise self._stop(Mark(self.where), "is empty, expected a map of keys.")
        return root

    def _read(self, text: str) -> Iterator[Event]:
        if len(text) > LARGEST_BYTES:
            raise self._stop(Mark(self.where), _TOO_LARGE)
        try:
            yield from YAML(typ="safe", pure=True).parse(text)
        except MarkedYAMLError as err:
            at = err.problem_mark or err.context_mark
            mark = Mark(self.where, at.line + 1, at.column + 1)
            raise self._stop(mark, _syntax(err)) from err
        except ReaderError as err:
            before = text[: err.position]
            line = before.count("\n")
            mark = Mark(self.where, line + 1, len(before) - before.rfind("\n"))
            said = f"character U+{ord(text[err.position]):04X} is not allowed in YAML."
            raise self._stop(mark, f"{said} Remove it.") from err
        except (YAMLError, ValueError, OverflowError) as err:
            said = (
                "an escape or directive that YAML does not know, expected plain text."
            )
            raise self._stop(Mark(self.where), said) from err

    def _mark(self, event: Event) -> Mark:
        start = event.start_mark
        return Mark(self.where, start.line + 1, start.column + 1)

    def _stop(self, mark: Mark, text: str) -> ProtocolError:
        return ProtocolError([*self.faults, _fault(mark, "", text)])

    def _count(self, mark: Mark, nodes: int, depth: int) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            text = f"more than {MOST_NODES} values, expected a short document."
            raise self._stop(mark, f"{text} Put data into a file of its own.")
        if depth > DEEPEST:
            text = f"more than {DEEPEST} levels deep, expected fewer. Make it flatter."
            raise self._stop(mark, text)

    def _node(self, event: Event, path: KeyPath) -> Node:
        mark = self._mark(event)
        self._count(mark, 1, len(path))
        if isinstance(event, AliasEvent):
            return self._alias(event, mark, path)
        if not isinstance(event, ScalarEvent | CollectionStartEvent):
            raise self._stop(mark, "is no value, expected one.")
        if event.tag is not None:
            text = f"tag {event.tag}, expected a plain value. Remove the tag."
            self.faults.append(_fault(mark, _dotted(path), _printable(text)))
        node = Node(None, mark)
        if isinstance(event, MappingStartEvent):
            self._map(node, path)
        elif isinstance(event, SequenceStartEvent):
            node.value = self._list(path)
        elif isinstance(event, ScalarEvent):
            node.value = self._scalar(event, mark, path)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: AliasEvent, mark: Mark, path: KeyPath) -> Node:
        self._aliases += 1
        if self._aliases > MOST_ALIASES:
            text = f"more than {MOST_ALIASES} aliases, expected fewer. Write them out."
            raise self._stop(mark, text)
        if event.anchor not in self._anchors:
            text = f"alias *{event.anchor} has no anchor above it. Write the value out."
            raise self._stop(mark, _printable(text))
        return self._copy(self._anchors[event.anchor], mark, len(path))

    def _copy(self, node: Node, mark: Mark, depth: int) -> Node:
        # Overrides change nodes in place, so an alias must not share them.
        self._count(mark, 1, depth)
        value = node.value
        if isinstance(value, dict):
            value = {k: self._copy(v, mark, depth + 1) for k, v in value.items()}
        elif isinstance(value, list):
            value = [self._copy(v, mark, depth + 1) for v in value]
        return Node(value, mark, dict(node.keys))

    def _list(self, path: KeyPath) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            items.append(self._node(event, (*path, len(items))))
        return items

    def _map(self, node: Node, path: KeyPath) -> None:
        items: dict[str, Node] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            mark = self._mark(event)
            if not isinstance(event, ScalarEvent) or not event.value:
                text = "a key that is no word, expected key: value."
                raise self._stop(mark, text)
            key = event.value
            here = (*path, key)
            value = self._node(next(self._events), here)
            if key in items:
                text = f"is there twice, first on line {node.keys[key].line}. Keep one."
                self.faults.append(_fault(mark, _dotted(here), text))
                continue
            items[key], node.keys[key] = value, mark
        node.value = items

    def _scalar(self, event: ScalarEvent, mark: Mark, path: KeyPath) -> Scalar:
        value = _resolved(event.value) if event.implicit[0] else event.value
        if isinstance(value, _Refusal):
            self.faults.append(_fault(mark, _dotted(path), value.text))
            return None
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            text = (
                "half a surrogate pair, expected whole characters. Remove the escape."
            )
            self.faults.append(_fault(mark, _dotted(path), text))
            return None
        return value


@dataclass(frozen=True)
class _Refusal:
    text: str


def _resolved(word: str) -> Scalar | _Refusal:
    """Give an unquoted word its type."""
    if _NULL.fullmatch(word):
        return None
    if _BOOL.fullmatch(word):
        return word.lower() == "true"
    if _NOT_FINITE.fullmatch(word):
        return _Refusal(f"got {word}, expected a finite number.")
    if _INT.fullmatch(word) or _FLOAT.fullmatch(word):
        return _number(word)
    return word


def _number(word: str) -> int | float | _Refusal:
    if len(word) > LONGEST_NUMBER:
        return _Refusal(
            f"got a number of {len(word)} characters, expected at most "
            f"{LONGEST_NUMBER}. Quote it if it is text."
        )
    if _INT.fullmatch(word):
        base = {"0o": 8, "0x": 16}.get(word[:2], 10)
        whole = int(word, base)
        if not -(2**63) <= whole < 2**63:
            return _Refusal(f"got {word}, expected a whole number within 64 bits.")
        return whole
    value = float(word)
    if math.isinf(value):
        return _Refusal(f"got {word}, expected a number below 1.8e308.")
    return value


def _syntax(err: MarkedYAMLError) -> str:
    problem = str(err.problem)
    if "'\\t'" in problem:
        return "a tab, expected blanks. Indent with blanks."
    context = f" ({err.context})" if err.context else ""
    return _printable(f"is not YAML: {problem}{context}. Check indents and quotes.")


def _tree(text: str, where: str) -> tuple[Node, list[Fault]]:
    """Turn a text into nodes.

    Raises
    ------
    ProtocolError
        There is no tree: what stops it, and what was found before.
    """
    builder = _Builder(text, where)
    root = builder.root()
    if not isinstance(root.value, dict):
        text = (
            f"got {_shown(root.plain())}, expected a map of keys, such as kind: train."
        )
        raise ProtocolError([*builder.faults, _fault(root.mark, "", text)])
    return root, builder.faults


# Overrides -------------------------------------------------------------------


def _apply(root: Node, change: str) -> list[Fault]:
    """Change a tree; what cannot be done is a fault."""
    mark = Mark(f"--set {_short(_printable(change))}")
    key, equals, text = change.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        return [_fault(mark, "", "is no change, expected key.path=value.")]
    try:
        builder = _Builder(text, mark.where)
        value = builder.root() if text.strip() else Node(None, mark)
    except ProtocolError as err:
        return [replace(fault, line=None, column=None) for fault in err.faults]
    _move(value, mark)
    parent = root
    for depth, item in enumerate(path[:-1]):
        if isinstance(parent.value, dict) and _is_open(parent.child(item)):
            parent.value[item] = Node({}, mark)
            parent.keys.setdefault(item, mark)
        child = parent.child(item)
        if child is None:
            return [_no_place(mark, path[: depth + 1], parent)]
        parent = child
    return _put(parent, path, value, mark)


def _is_open(node: Node | None) -> bool:
    return node is None or node.value is None


def _put(parent: Node, path: list[str], value: Node, mark: Mark) -> list[Fault]:
    if isinstance(parent.value, dict):
        parent.value[path[-1]] = value
        parent.keys[path[-1]] = mark
        return []
    index = _index(path[-1])
    if (
        isinstance(parent.value, list)
        and index is not None
        and index < len(parent.value)
    ):
        parent.value[index] = value
        return []
    return [_no_place(mark, path, parent)]


def _no_place(mark: Mark, path: list[str], parent: Node) -> Fault:
    if isinstance(parent.value, list):
        last = len(parent.value) - 1
        text = f"is not in the list, expected an item from 0 to {last}."
    else:
        above = _dotted(path[:-1])
        text = f"has no place: {above} is {_shown(parent.plain())}, expected a section."
    return _fault(mark, _dotted(path), text)


def _move(node: Node, mark: Mark) -> None:
    node.mark = mark
    node.keys = dict.fromkeys(node.keys, mark)
    if isinstance(node.value, dict):
        for child in node.value.values():
            _move(child, mark)
    elif isinstance(node.value, list):
        for child in node.value:
            _move(child, mark)


def _index(item: str | int) -> int | None:
    if isinstance(item, int):
        return item
    # Six digits are more than any list holds, and int() of thousands is slow.
    return int(item) if re.fullmatch(r"[0-9]{1,6}", item) else None


# Tree to model ---------------------------------------------------------------


def _check(adapter: TypeAdapter[T], root: Node) -> tuple[list[T], list[Fault]]:
    """Validate a tree; one value, or none and why in plain sentences."""
    # As JSON, because there strictness means: no number from text, no whole
    # number from true, but lists for tuples and text for dates.
    text = json.dumps(root.plain(), allow_nan=False)
    try:
        return [adapter.validate_json(text, strict=True)], []
    except ValidationError as err:
        teller = _Teller(root, adapter.json_schema())
        told = [teller.tell(error) for error in err.errors(include_url=False)]
    newer = [fault for fault in told if fault.text.endswith(_UPDATE)]
    return [], newer or told


_UPDATE: Final = "It was written for a newer labctl: update."


class _Teller:
    """Tells what pydantic found in sentences, with places and suggestions."""

    def __init__(self, root: Node, schema: dict[str, Any]) -> None:
        self._root = root
        self._schema = schema
        self._known = dict(_leaves(schema, schema))

    def tell(self, error: ErrorDetails) -> Fault:
        """Tell one error."""
        path, above, here = _follow(error["loc"], self._schema)
        kind = error["type"]
        if kind == "extra_forbidden":
            return self._say(path, self._unknown(path, above), at_key=True)
        if kind in {"union_tag_not_found", "union_tag_invalid"}:
            path = (*path, here["discriminator"]["propertyName"])
            tags = {"enum": list(here["discriminator"]["mapping"])}
            return self._say(path, self._bad(path, tags))
        if kind == "missing":
            text = f"is missing, expected {_expected(here, self._schema)}."
            return self._say(path, text)
        if kind in {"value_error", "assertion_error"}:
            text = str(error["ctx"]["error"]) if "ctx" in error else error["msg"]
            return self._say(path, text if text.endswith(".") else f"{text}.")
        return self._say(path, self._bad(path, here))

    def _say(self, path: KeyPath, text: str, *, at_key: bool = False) -> Fault:
        return _fault(self._root.place(path, at_key=at_key), _dotted(path), text)

    def _bad(self, path: KeyPath, schema: dict[str, Any]) -> str:
        node: Node | None = self._root
        for item in path:
            node = node.child(item) if node is not None else None
        expected = _expected(schema, self._schema)
        if node is None:
            return f"is missing, expected {expected}."
        got = node.plain()
        text = f"got {_shown(got)}, expected {expected}."
        if path == ("schema_version",) and isinstance(got, int) and got > 0:
            return f"{text} {_UPDATE}"
        words = [word for word in schema.get("enum", ()) if isinstance(word, str)]
        return text + (_nearest(got, words) if isinstance(got, str) else "")

    def _unknown(self, path: KeyPath, section: dict[str, Any]) -> str:
        name = str(path[-1])
        names = section.get("properties", {})
        twin = next((key for key in names if _stem(key) == _stem(name)), None)
        if twin is not None:
            unit = UNITS.get(_unit(twin))
            return f"is not known, expected {twin}{f' in {unit}' if unit else ''}."
        near = _nearest(name, names)
        if near:
            return f"is not known.{near}"
        elsewhere = sorted(key for key in self._known if key.split(".")[-1] == name)
        if elsewhere:
            return f"is not known here. Did you mean {' or '.join(elsewhere[:3])}?"
        return f"is not known, expected one of {', '.join(names)}."


def _follow(
    loc: Sequence[str | int], schema: dict[str, Any]
) -> tuple[KeyPath, dict[str, Any], dict[str, Any]]:
    """Walk the schema along pydantic's location; leave out names of union members.

    Returns
    -------
    path, above, here
        Path in the document; schema of the section above and of the place.
    """
    path: list[str | int] = []
    above, here = schema, _opened(schema, schema)
    for item in loc:
        if "discriminator" in here:
            here = _opened({"$ref": here["discriminator"]["mapping"][item]}, schema)
            continue
        if "anyOf" in here:
            continue
        above, here = here, _opened(_inside(here, item), schema)
        path.append(item)
    return tuple(path), above, here


def _inside(here: dict[str, Any], item: str | int) -> dict[str, Any]:
    if isinstance(item, int):
        several = here.get("prefixItems", ())
        inner: Any = several[item] if item < len(several) else here.get("items")
    else:
        inner = here.get("properties", {}).get(item, here.get("additionalProperties"))
    return inner if isinstance(inner, dict) else {}


def _opened(here: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow references, and leave out that a value may be nothing."""
    while True:
        some = [one for one in here.get("anyOf", ()) if one.get("type") != "null"]
        if "$ref" in here:
            here = schema["$defs"][here["$ref"].rpartition("/")[2]]
        elif len(some) == 1:
            here = some[0]
        else:
            return here


def _leaves(
    here: dict[str, Any], schema: dict[str, Any], above: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every key that a document may have, with its schema."""
    here = _opened(here, schema)
    for member in here.get("discriminator", {}).get("mapping", {}).values():
        yield from _leaves({"$ref": member}, schema, above)
    if isinstance(here.get("items"), dict):
        yield from _leaves(here["items"], schema, f"{above}0.")
    for name, value in here.get("properties", {}).items():
        yield f"{above}{name}", value
        yield from _leaves(value, schema, f"{above}{name}.")


_TYPES: Final = {
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "object": "a section",
    "null": "nothing",
}


def _expected(here: dict[str, Any], schema: dict[str, Any]) -> str:
    """Say in words what a place takes."""
    here = _opened(here, schema)
    if "anyOf" in here:
        return ", or ".join(_expected(one, schema) for one in here["anyOf"])
    if here.get("type") == "array":
        return _expected_list(here, schema)
    if "properties" in here or "discriminator" in here:
        return f"a section with {_keys(here)}"
    if "enum" in here or "const" in here:
        return _listed(here.get("enum", [here.get("const")]))
    return _expected_text(here) or _TYPES.get(here.get("type", ""), "a value") + _range(
        here
    )


def _expected_text(here: dict[str, Any]) -> str:
    if "pattern" in here:
        return f"text like {here['pattern']}"
    if here.get("format") == "date-time":
        return "a date and time such as 2031-04-02T10:00:00Z"
    return ""


def _expected_list(here: dict[str, Any], schema: dict[str, Any]) -> str:
    several = here.get("prefixItems")
    if several:
        kinds = [_expected(one, schema) for one in several]
        if len(set(kinds)) == 1:
            return f"a list of {len(kinds)}, each {kinds[0]}"
        return f"a list of {len(kinds)}: {'; '.join(kinds)}"
    least = here.get("minItems", 0)
    size = f"at least {least}" if least else "any length"
    return f"a list of {size}, each {_expected(here.get('items', {}), schema)}"


def _range(here: dict[str, Any]) -> str:
    bounds = [
        f"{word} {here[name]}"
        for name, word in (
            ("exclusiveMinimum", "above"),
            ("minimum", "at least"),
            ("exclusiveMaximum", "below"),
            ("maximum", "at most"),
        )
        if name in here
    ]
    return f" {' and '.join(bounds)}" if bounds else ""


def _keys(here: dict[str, Any]) -> str:
    if "discriminator" in here:
        tag = here["discriminator"]
        return f"{tag['propertyName']}: {_listed(tag['mapping'])}"
    return ", ".join(here.get("required", ()) or here["properties"])


# Words -----------------------------------------------------------------------


def _fault(mark: Mark, key: str, text: str) -> Fault:
    return Fault(mark.where, mark.line, mark.column, key, text)


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(_printable(str(item)) for item in path)


def _printable(text: str) -> str:
    """Escape what could steer a terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def _short(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _shown(value: Tree) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        # A word as it was typed; quotes show that it is text.
        return _short(f'"{_printable(value)}"')
    return _short(json.dumps(value))


def _listed(words: Mapping[str, Any] | Sequence[Any]) -> str:
    shown = [str(word) for word in words]
    return shown[0] if len(shown) == 1 else f"one of {', '.join(shown)}"


def _nearest(got: str, words: Mapping[str, Any] | Sequence[str]) -> str:
    """Suggest the likeliest word, with a leading blank; empty where none is near."""
    if len(got) > LONGEST_NUMBER:
        return ""
    near = difflib.get_close_matches(got, list(words), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _unit(key: str) -> str:
    return key.rpartition("_")[2]


def _stem(key: str) -> str:
    name, _, unit = key.rpartition("_")
    return name if name and (unit in UNITS or unit in FOREIGN_UNITS) else key


def _is_under(key: str, others: set[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in others)


def _in_order(faults: Sequence[Fault]) -> list[Fault]:
    """Sort by place, overrides last, each once, and no more than a screenful."""
    single = dict.fromkeys(faults)
    ordered = sorted(single, key=lambda f: (f.line is None, f.line or 0, f.column or 0))
    more = len(ordered) - MOST_FAULTS
    if more > 0:
        rest = Fault(ordered[0].where, None, None, "", f"and {more} more faults.")
        return [*ordered[:MOST_FAULTS], rest]
    return ordered


def _documented(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """Read the summary and the meaning of each key from numpydoc docstrings."""
    meanings: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, Schema) and base is not Schema:
            meanings |= _parameters(inspect.cleandoc(base.__doc__ or ""))
    summary = inspect.cleandoc(model.__doc__ or "").split("\n\n")[0]
    return " ".join(summary.split()), meanings


def _parameters(text: str) -> dict[str, str]:
    _, _, section = text.partition("Parameters\n----------\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.split("\n\n")[0].splitlines():
        if not line.startswith(" "):
            names = [name.strip() for name in line.split(",")]
            continue
        for name in names:
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found
