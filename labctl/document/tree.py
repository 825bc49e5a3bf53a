"""Text to a tree of nodes that know their places, within limits on everything."""

import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

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

from labctl.document.words import KeyPath, Scalar, Tree, dotted, printable, short, shown
from labctl.errors import Fault, ProtocolError

# A document that a person writes stays far below these. Together they bound the
# time: the slowest text of this size that we found takes 3 s to scan.
LARGEST_BYTES: Final = 1 << 20
MOST_NODES: Final = 10_000
DEEPEST: Final = 24
MOST_ALIASES: Final = 16
LONGEST_NUMBER: Final = 64


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

    def fault(self, key: str, text: str) -> Fault:
        """Say what is wrong here.

        Parameters
        ----------
        key
            Dotted path of the key.
        text
            What was got, what was expected, what to do.

        Returns
        -------
        fault
            Ready for a :class:`~labctl.errors.ProtocolError`.
        """
        return Fault(self.where, self.line, self.column, key, text)


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

    def copied(self) -> "Node":
        """Give the same once more: whoever changes it changes no other."""
        value = self.value
        if isinstance(value, dict):
            value = {key: node.copied() for key, node in value.items()}
        elif isinstance(value, list):
            value = [node.copied() for node in value]
        return Node(value, self.mark, dict(self.keys))

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


TOO_LARGE: Final = f"larger than {LARGEST_BYTES} bytes, expected a short document."
# The core schema of YAML 1.2.2, section 10.3.2.
_NULL: Final = re.compile(r"~|null|Null|NULL|")
_BOOL: Final = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_HALF: Final = "half a surrogate pair, expected whole characters. Remove the escape."
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
        """Build the one document that the text may hold; nothing if it is empty."""
        root: Node | None = None
        for event in self._events:
            if not isinstance(event, DocumentStartEvent):
                continue
            mark = self._mark(event)
            if root is not None:
                text = "a second document, expected one. Split the file."
                raise self._stop(mark, text)
            if event.version not in {None, (1, 2)}:
                got = ".".join(str(part) for part in event.version)
                text = f"YAML {got}, expected 1.2. Remove the line that says so."
                raise self._stop(mark, text)
            root = self._node(next(self._events), ())
        return root if root is not None else Node(None, Mark(self.where))

    def _read(self, text: str) -> Iterator[Event]:
        if len(text) > LARGEST_BYTES:
            raise self._stop(Mark(self.where), TOO_LARGE)
        try:
            yield from YAML(typ="safe", pure=True).parse(text)
        except MarkedYAMLError as err:
            mark = Mark(self.where)
            if err.problem_mark is not None:
                at = err.problem_mark
                mark = Mark(self.where, at.line + 1, at.column + 1)
            raise self._stop(mark, _syntax(err)) from err
        except ReaderError as err:
            before = text[: err.position]
            line = before.count("\n")
            mark = Mark(self.where, line + 1, len(before) - before.rfind("\n"))
            said = f"character U+{ord(text[err.position]):04X} is not allowed in YAML."
            raise self._stop(mark, f"{said} Remove it.") from err
        except (YAMLError, ValueError, OverflowError) as err:
            # Such as the escape of a character beyond Unicode, or %YAML 9.
            said = "is not YAML: an escape or directive that it has not. Remove it."
            raise self._stop(Mark(self.where), said) from err

    def _mark(self, event: Event) -> Mark:
        start = event.start_mark
        return Mark(self.where, start.line + 1, start.column + 1)

    def _stop(self, mark: Mark, text: str) -> ProtocolError:
        return ProtocolError([*self.faults, mark.fault("", text)])

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
            tag = short(printable(str(event.tag)))
            text = f"tag {tag}, expected a plain value. Remove the tag."
            self.faults.append(mark.fault(dotted(path), text))
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
            name = short(printable(str(event.anchor)))
            text = f"alias *{name} has no anchor above it. Write the value out."
            raise self._stop(mark, text)
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
            key = _whole(event.value)
            if isinstance(key, _Refusal):
                raise self._stop(mark, key.text)
            here = (*path, key)
            value = self._node(next(self._events), here)
            if key in items:
                text = f"is there twice, first on line {node.keys[key].line}. Keep one."
                self.faults.append(mark.fault(dotted(here), text))
                continue
            items[key], node.keys[key] = value, mark
        node.value = items

    def _scalar(self, event: ScalarEvent, mark: Mark, path: KeyPath) -> Scalar:
        value = _resolved(event.value) if event.implicit[0] else _whole(event.value)
        if isinstance(value, _Refusal):
            self.faults.append(mark.fault(dotted(path), value.text))
            return None
        return value


@dataclass(frozen=True)
class _Refusal:
    text: str


def _whole(text: str) -> str | _Refusal:
    """Join the halves of a character, which JSON writes as two escapes."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        return _Refusal(_HALF)


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
    said = short(printable(f"{problem}{context}"), 200)
    return f"is not YAML: {said}. Check indents and quotes."


def build(text: str, where: str) -> tuple[Node, list[Fault]]:
    """Turn the text of a document into nodes.

    Parameters
    ----------
    text
        YAML 1.2: maps, lists and scalars.
    where
        What messages call it.

    Returns
    -------
    root, faults
        A map, and what is wrong in it: such values are left out.

    Raises
    ------
    ProtocolError
        There is no map: what stops it, and what was found before.
    """
    root, faults = _built(text, where)
    return root.copied(), list(faults)


# The same files are read again and again: a bench and its calibrations by whatever
# is compared with them. Scanning takes nearly all of the time of reading.
@functools.lru_cache(maxsize=128)
def _built(text: str, where: str) -> tuple[Node, tuple[Fault, ...]]:
    """Build what :func:`build` hands out in copies.

    Raises
    ------
    ProtocolError
        There is no map.
    """
    builder = _Builder(text, where)
    root = builder.root()
    if not isinstance(root.value, dict):
        got = "is empty" if root.value is None else f"got {shown(root.plain())}"
        text = f"{got}, expected a map of keys, such as schema_version: 1."
        raise ProtocolError([*builder.faults, root.mark.fault("", text)])
    return root, tuple(builder.faults)


def _takes_none(path: Sequence[str]) -> None:
    del path


def apply(
    root: Node,
    change: str,
    listing: Callable[[Sequence[str]], list[Any] | str | None] = _takes_none,
) -> list[Fault]:
    """Change a tree in place.

    Parameters
    ----------
    root
        The tree.
    change
        ``key.path=value``; sections on the way are made where there are none, and
        lists with the items of their default.
    listing
        Of a key that is left out, the items of its default; or, of a list without
        one, what it takes, in words; or None where the key takes no list.

    Returns
    -------
    faults
        What cannot be done; empty if all is well.
    """
    mark = Mark(f"--set {printable(short(change))}")
    key, equals, text = change.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path) or len(path) > DEEPEST:
        return [mark.fault("", "is no change, expected key.path=value.")]
    builder = _Builder(text, mark.where)
    try:
        value = builder.root()
    except ProtocolError as err:
        return [_moved(fault, path) for fault in err.faults]
    _move(value, mark)
    parent = root
    for depth, item in enumerate(path[:-1]):
        if isinstance(parent.value, dict) and _is_open(parent.child(item)):
            is_item = _index(path[depth + 1]) is not None
            made = listing(path[: depth + 1]) if is_item else None
            if isinstance(made, str):
                return [_no_items(mark, path[: depth + 1], made)]
            parent.value[item] = _grown({} if made is None else made, mark)
            parent.keys.setdefault(item, mark)
        child = parent.child(item)
        if child is None:
            return [_no_place(mark, path[: depth + 1], parent)]
        parent = child
    refused = [_moved(fault, path) for fault in builder.faults]
    return refused + _put(parent, path, value, mark)


def _no_items(mark: Mark, path: list[str], wanted: str) -> Fault:
    key = dotted(path)
    text = f"is left out and has no items to change, expected {wanted}."
    return mark.fault(key, f"{text} Set all of it: --set {key}=[...].")


def _grown(value: Tree, mark: Mark) -> Node:
    """Make nodes of a plain value, all of one place."""
    if isinstance(value, dict):
        nodes = {key: _grown(each, mark) for key, each in value.items()}
        return Node(nodes, mark, dict.fromkeys(nodes, mark))
    if isinstance(value, list):
        return Node([_grown(each, mark) for each in value], mark)
    return Node(value, mark)


def _moved(fault: Fault, path: list[str]) -> Fault:
    """Give a fault of a value the place of the change it came with."""
    key = ".".join(part for part in (dotted(path), fault.key) if part)
    return replace(fault, line=None, column=None, key=key)


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
        above = dotted(path[:-1])
        text = f"has no place: {above} is {shown(parent.plain())}, expected a section."
    return mark.fault(dotted(path), text)


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
