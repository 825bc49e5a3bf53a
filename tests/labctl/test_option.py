"""Options of another type are told where they stand."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from labctl import option
from labctl.errors import ProtocolError


class Vendor:
    """Known to no document."""


def made(  # noqa: PLR0913 - one parameter a kind of option
    *,
    watts: float,
    curve: Sequence[Sequence[float]] = (),
    port: str | None = None,
    words: Mapping[str, str] | None = None,
    size: tuple[int, int] = (1, 1),
    count: "int" = 1,
    sdk: Vendor | None = None,
) -> None:
    del watts, curve, port, words, size, count, sdk


@pytest.mark.parametrize(
    ("key", "value", "told", "said"),
    [
        ("watts", "1", "watts", 'got "1", expected a number'),
        ("watts", True, "watts", "got true, expected a number"),
        ("curve", [1, [2, 3]], "curve.0", "got 1, expected a list"),
        ("curve", [[1, "x"]], "curve.0.1", 'got "x", expected a number'),
        ("port", 7, "port", "got 7, expected text"),
        ("words", {"a": 7}, "words.a", "got 7, expected text"),
        ("words", ["a"], "words", "expected a section"),
        ("size", [1, 2.5], "size.1", "got 2.5, expected a whole number"),
    ],
)
def test_an_option_of_another_type_is_refused_where_it_stands(
    key: str, value: object, told: str, said: str
) -> None:
    with pytest.raises(ProtocolError, match=re.escape(said)) as refused:
        option.check(made, "devices.lamp", {"watts": 1, key: value})
    keys = [each.key for each in refused.value.faults]
    assert keys == [f"devices.lamp.options.{told}"]


def test_what_fits_and_what_no_annotation_tells_is_left_to_the_driver() -> None:
    good: dict[str, Any] = {"watts": 2, "port": None, "size": [3, 4], "words": {}}
    option.check(made, "x", good | {"count": "x", "sdk": 1, "unknown": 1})
