"""The words that faults are told in: names, values, suggestions."""

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

Scalar = str | int | float | bool | None
Tree = dict[str, Any] | list[Any] | Scalar
KeyPath = tuple[str | int, ...]

UNITS: Final = {
    "s": "seconds", "nm": "nm", "um": "um", "mw": "mW", "rad": "rad", "px": "pixels",
    "c": "°C", "db": "dB", "hz": "Hz", "e": "electrons", "dn": "camera counts",
    "days": "days",
}  # fmt: skip
# Units that people write and we do not use.
FOREIGN_UNITS: Final = {
    "ms", "us", "ns", "fs", "min", "mm", "m", "w", "uw", "kw", "deg", "mrad", "rads",
    "k", "khz", "mhz", "ghz", "percent", "sec", "seconds", "watt", "nanometers",
}  # fmt: skip
# A longer word is no slip of a key, and comparing is quadratic.
LONGEST_WORD: Final = 64


def printable(text: str) -> str:
    """Escape what could steer a terminal."""
    return "".join(
        letter
        if letter.isprintable()
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def short(text: str, longest: int = 60) -> str:
    """Cut a text that is too long for a line, and show that it was cut."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def dotted(path: Sequence[str | int]) -> str:
    """Write a path as people do: ``model.0.encoding``."""
    return ".".join(printable(short(str(item))) for item in path)


def shown(value: Tree) -> str:
    """Write a value as it would stand in a document, short."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        # Quotes show that it is text, where a number was expected.
        return f'"{printable(short(value))}"'
    return short(json.dumps(value))


def listed(words: Iterable[Any]) -> str:
    """Offer a choice of words."""
    offered = [str(word) for word in words]
    return offered[0] if len(offered) == 1 else f"one of {', '.join(offered)}"


def nearest(got: str, words: Iterable[str]) -> str:
    """Suggest the likeliest word, with a leading blank; nothing if none is near."""
    if len(got) > LONGEST_WORD:
        return ""
    near = difflib.get_close_matches(got, list(words), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def unit_of(key: str) -> str:
    """Name the unit that a key ends in; empty where it has none."""
    return UNITS.get(key.rpartition("_")[2], "")


def stem(key: str) -> str:
    """Leave out the unit that a key ends in, right or wrong."""
    name, _, end = key.rpartition("_")
    return name if name and (end in UNITS or end in FOREIGN_UNITS) else key
