"""A model tried on a tree: what does not fit, in plain sentences."""

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from labctl.document.tree import Node
from labctl.document.words import (
    KeyPath,
    dotted,
    listed,
    nearest,
    shown,
    stem,
    unit_of,
)
from labctl.errors import Fault

T = TypeVar("T")
WRONG: Final = "labctl_wrong"
# What pydantic says last where not a value is wrong but the key that it stands under.
OF_A_KEY: Final = "[key]"
MOST_SUGGESTIONS: Final = 200


def check(adapter: TypeAdapter[T], root: Node) -> tuple[list[T], list[Fault]]:
    """Try a model on a tree.

    Parameters
    ----------
    adapter
        The model.
    root
        The tree.

    Returns
    -------
    values, faults
        One value and no fault; or no value and why.
    """
    # As JSON, because there strictness means: no number from text, no whole
    # number from true, but lists for tuples and text for dates.
    text = json.dumps(root.plain(), allow_nan=False)
    try:
        return [adapter.validate_json(text, strict=True)], []
    except ValidationError as err:
        errors = err.errors(include_url=False, include_input=False)
        # Comparing words takes time: not for a document that is all wrong.
        suggest = len(errors) <= MOST_SUGGESTIONS
        teller = _Teller(root, _schema(adapter), suggest=suggest)
        newer = teller.newer()
        if newer:
            return [], newer
        return [], [fault for error in errors for fault in teller.tell(error)]


def listing(
    adapter: TypeAdapter[Any], root: Node, path: Sequence[str]
) -> list[Any] | str | None:
    """Tell what a list is where the document leaves it out.

    Parameters
    ----------
    adapter
        The model.
    root
        The tree.
    path
        Keys that lead to the list.

    Returns
    -------
    items
        Those of its default; or, where it has none, what it takes, in words; None
        where the model has no list there.
    """
    schema = _schema(adapter)
    node: Node | None = root
    raw = schema
    here = _of_its_member(node, schema, schema)
    for item in path:
        index = _as_index(item) if here.get("type") == "array" else None
        raw = _inside(here, item if index is None else index)
        node = None if node is None else node.child(item)
        here = _of_its_member(node, opened(raw, schema), schema)
    if here.get("type") != "array":
        return None
    default = raw.get("default")
    return default if isinstance(default, list) else expected(here, schema)


def _as_index(item: str) -> int | None:
    return int(item) if item.isdecimal() else None


def _of_its_member(
    node: Node | None, here: dict[str, Any], schema: dict[str, Any]
) -> dict[str, Any]:
    """Choose the member of a union that the document names; nothing without."""
    if "discriminator" not in here:
        return here
    parts = here["discriminator"]
    tag = None if node is None else node.child(parts["propertyName"])
    ref = None if tag is None else parts["mapping"].get(str(tag.value))
    return {} if ref is None else opened({"$ref": ref}, schema)


@functools.lru_cache(maxsize=16)
def _schema(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    # Making it takes 20 ms, and nobody changes it.
    return adapter.json_schema()


def wrong(*faults: tuple[str, str]) -> PydanticCustomError:
    """Say what is wrong with a section as a whole; for validators to raise.

    Parameters
    ----------
    faults
        Key below the section, and what was got, what was expected, what to do.

    Returns
    -------
    error
        Told by :func:`check` as one fault each, where its key stands.
    """
    said = "; ".join(f"{key}: {text}" for key, text in faults)
    return PydanticCustomError(WRONG, "{said}", {"said": said, "faults": faults})


def _of_its_kind(root: Node, schema: dict[str, Any]) -> dict[str, Any]:
    # Keys of other kinds of document are no suggestion for this one.
    parts = schema.get("discriminator", {"propertyName": "", "mapping": {}})
    tag = root.child(parts["propertyName"])
    ref = parts["mapping"].get(str(tag.value)) if tag is not None else None
    own: dict[str, Any] = schema if ref is None else {"$ref": ref}
    return own


class _Teller:
    """Tells what pydantic found in sentences, with places and suggestions."""

    def __init__(self, root: Node, schema: dict[str, Any], *, suggest: bool) -> None:
        self._root = root
        self._schema = schema
        self._suggest = suggest
        self._known = dict(_leaves(_of_its_kind(root, schema), schema))

    def newer(self) -> list[Fault]:
        """Tell that the format is a later one: then nothing else means anything."""
        known = self._known.get("schema_version", {}).get("const")
        node = self._root.child("schema_version")
        got = node.value if node is not None else None
        if node is None or not isinstance(got, int) or known is None or got <= known:
            return []
        text = (
            f"got {got}, expected {known}. It was written for a newer labctl: update."
        )
        return [node.mark.fault("schema_version", text)]

    def tell(self, error: ErrorDetails) -> list[Fault]:
        """Tell one error; a check of a whole section may hold several."""
        path, above, here = _follow(error["loc"], self._schema)
        kind = error["type"]
        if error["loc"][-1:] == (OF_A_KEY,) and self._node(path) is None:
            path, above, _ = _follow(error["loc"][:-1], self._schema)
            return [self._say(path, _misnamed(str(path[-1]), above), at_key=True)]
        if kind == WRONG:
            faults = error.get("ctx", {})["faults"]
            return [self._say((*path, *key.split(".")), text) for key, text in faults]
        if kind == "extra_forbidden":
            return [self._say(path, self._unknown(path, above), at_key=True)]
        if kind in {"union_tag_not_found", "union_tag_invalid"}:
            path = (*path, here["discriminator"]["propertyName"])
            here = {"enum": list(here["discriminator"]["mapping"])}
        return [self._say(path, self._bad(path, here))]

    def _say(self, path: KeyPath, text: str, *, at_key: bool = False) -> Fault:
        return self._root.place(path, at_key=at_key).fault(dotted(path), text)

    def _node(self, path: KeyPath) -> Node | None:
        node: Node | None = self._root
        for item in path:
            node = node.child(item) if node is not None else None
        return node

    def _bad(self, path: KeyPath, schema: dict[str, Any]) -> str:
        node = self._node(path)
        wanted = expected(schema, self._schema)
        if node is None:
            return f"is missing, expected {wanted}."
        got = node.plain()
        text = f"got {shown(got)}, expected {wanted}."
        words = [word for word in schema.get("enum", ()) if isinstance(word, str)]
        return text + (nearest(got, words) if isinstance(got, str) else "")

    def _unknown(self, path: KeyPath, section: dict[str, Any]) -> str:
        if not self._suggest:
            return "is not known."
        name = str(path[-1])
        names = section.get("properties", {})
        twin = next((key for key in names if stem(key) == stem(name)), None)
        if twin is not None:
            unit = unit_of(twin)
            return f"is not known, expected {twin}{f' in {unit}' if unit else ''}."
        elsewhere = sorted(key for key in self._known if key.split(".")[-1] == name)
        if elsewhere:
            return f"is not known here. Did you mean {' or '.join(elsewhere[:3])}?"
        near = nearest(name, names)
        return f"is not known{near and '.'}{near or f', expected {listed(names)}.'}"


def _misnamed(name: str, section: dict[str, Any]) -> str:
    """Say which keys a section of free keys takes, where one is none of them."""
    names = section.get("propertyNames", {})
    if "enum" in names:
        options = names["enum"]
        return f"is not known, expected {listed(options)}.{nearest(name, options)}"
    forms = [f"of the form {form}" for form in section.get("patternProperties", ())]
    if "maxLength" in names:
        forms.append(f"of at most {names['maxLength']} characters")
    return f"cannot be the name of anything, expected one {' and '.join(forms)}."


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
    above, here = schema, opened(schema, schema)
    for item in loc:
        if "discriminator" in here:
            here = opened({"$ref": here["discriminator"]["mapping"][item]}, schema)
            continue
        if "anyOf" in here:
            continue
        above, here = here, opened(_inside(here, item), schema)
        path.append(item)
    return tuple(path), above, here


def _inside(here: dict[str, Any], item: str | int) -> dict[str, Any]:
    if isinstance(item, int):
        several = here.get("prefixItems", ())
        inner: Any = several[item] if item < len(several) else here.get("items")
    else:
        inner = here.get("properties", {}).get(item, here.get("additionalProperties"))
    return inner if isinstance(inner, dict) else {}


def opened(here: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow references, and leave out that a value may be nothing.

    Parameters
    ----------
    here
        JSON schema of a place.
    schema
        JSON schema of the document, for its references.

    Returns
    -------
    there
        JSON schema that says what the place takes.
    """
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
    here = opened(here, schema)
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


_BOUNDS: Final = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
}
# Every whole number keeps this one; naming it would only confuse.
_BEYOND_64_BITS: Final = 2**63


def expected(here: dict[str, Any], schema: dict[str, Any]) -> str:
    """Say in words what a place takes.

    Parameters
    ----------
    here
        JSON schema of the place.
    schema
        JSON schema of the document, for its references.

    Returns
    -------
    words
        Such as ``a whole number at least 1``.
    """
    here = opened(here, schema)
    if "anyOf" in here:
        return ", or ".join(expected(one, schema) for one in here["anyOf"])
    if here.get("type") == "array":
        return _expected_list(here, schema)
    if "properties" in here or "discriminator" in here:
        return f"a section with {_keys(here)}"
    if "enum" in here or "const" in here:
        return listed(here.get("enum", [here.get("const")]))
    return _expected_text(here) or _TYPES.get(here.get("type", ""), "a value") + _range(
        here
    )


_FORMATS: Final = {
    "date-time": "a date and time such as 2031-04-02T10:00:00Z",
    "sha256": "a SHA-256 hash, 64 hexadecimal digits",
    "sentence": "a sentence",
}


def _expected_text(here: dict[str, Any]) -> str:
    if "examples" in here:
        return f"a word such as {here['examples'][0]}"
    return _FORMATS.get(here.get("format", ""), "")


def _expected_list(here: dict[str, Any], schema: dict[str, Any]) -> str:
    several = here.get("prefixItems")
    if several:
        kinds = [expected(one, schema) for one in several]
        if len(set(kinds)) == 1:
            return f"a list of {len(kinds)}, each {kinds[0]}"
        return f"a list of {len(kinds)}: {'; '.join(kinds)}"
    least, most = here.get("minItems", 0), here.get("maxItems")
    size = f"at least {least}" if least else "any length"
    if most is not None:
        size = f"{least} to {most}"
    return f"a list of {size}, each {expected(here.get('items', {}), schema)}"


def _range(here: dict[str, Any]) -> str:
    if "minimum" in here and "maximum" in here:
        return f" from {here['minimum']} to {here['maximum']}"
    bounds = [
        f"{word} {here[name]}"
        for name, word in _BOUNDS.items()
        if here.get(name) not in {None, _BEYOND_64_BITS}
    ]
    return f" {' and '.join(bounds)}" if bounds else ""


def _keys(here: dict[str, Any]) -> str:
    if "discriminator" in here:
        tag = here["discriminator"]
        return f"{tag['propertyName']}: {listed(tag['mapping'])}"
    return ", ".join(here.get("required", ()) or here["properties"])
