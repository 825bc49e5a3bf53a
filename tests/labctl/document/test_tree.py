"""Text to nodes: types, places and limits."""

import pytest

from labctl.document.tree import apply, build
from labctl.errors import ProtocolError


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("12", 12),
        ("-7", -7),
        ("+7", 7),
        ("007", 7),
        ("0o17", 15),
        ("0xff", 255),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2031-04-02", "2031-04-02"),
        ("'12'", "12"),
        ('"true"', "true"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("<<", "<<"),
    ],
)
def test_words_have_the_types_of_yaml_1_2(word: str, value: object) -> None:
    root, faults = build(f"key: {word}", "p")
    assert root.plain() == {"key": value}
    assert type(root.plain()) is dict
    assert faults == []


def test_every_value_and_key_knows_its_place() -> None:
    root, _ = build("a: 1\nb:\n  - x\n  - {c: 2}\n", "p")
    value, key = root.place(["b", 1, "c"]), root.place(["b", 1, "c"], at_key=True)
    assert (value.line, value.column) == (4, 9)
    assert (key.line, key.column) == (4, 6)
    above = root.place(["b", "5", "c"])
    assert (above.line, above.column) == (3, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 40 + "]" * 40, "more than 24 levels deep, expected fewer"),
        ("[" * 100_000, "more than 24 levels deep, expected fewer"),
        ("".join(f"{' ' * n}a:\n" for n in range(400)), "more than 24 levels deep"),
        ("a: [" + "1," * 10_000 + "]", "more than 10000 values, expected a short"),
        ("a: &a 1\nb: [" + "*a," * 17 + "]", "more than 16 aliases, expected fewer"),
        ("a: &a [1]\nb: *a\nc: &c [*a, *c]", r"alias \*c has no anchor above it"),
        ("a: " + "x" * (1 << 20), "larger than 1048576 bytes, expected a short"),
    ],
    ids=["flow", "open", "block", "many", "aliases", "loop", "large"],
)
def test_limits_stop_a_bomb(text: str, said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        build(text, "p")


def test_aliases_of_aliases_count_in_full() -> None:
    text = "a0: &a0 [" + "1," * 30 + "]\n"
    for n in range(1, 4):
        text += f"a{n}: &a{n} [" + f"*a{n - 1}," * 5 + "]\n"
    assert build(text, "p")[1] == []
    wide = text.replace("1," * 30, "1," * 150)
    with pytest.raises(ProtocolError, match="more than 10000 values"):
        build(wide, "p")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (".NaN", "got .NaN, expected a finite number."),
        ("-.inf", "got -.inf, expected a finite number."),
        ("9" * 5000, "got a number of 5000 characters, expected at most 64. Quote it"),
        ("-9223372036854775809", "expected a whole number within 64 bits."),
        ("1" * 60 + "e999", "expected a number below 1.8e308."),
        ('"\\udc00"', "half a surrogate pair, expected whole characters."),
    ],
)
def test_a_number_that_is_none_is_left_out(word: str, said: str) -> None:
    root, (fault,) = build(f"a:\n  b: {word}", "p")
    assert root.plain() == {"a": {"b": None}}
    assert (fault.key, fault.line, fault.column) == ("a.b", 2, 6)
    assert said in fault.text


def test_a_change_cannot_be_deeper_than_a_document() -> None:
    root, _ = build("a: 1", "p")
    (fault,) = apply(root, ".".join("x" * 9999) + "=1")
    assert fault.text == "is no change, expected key.path=value."
    assert root.plain() == {"a": 1}


def test_a_text_that_is_read_again_knows_nothing_of_changes_before() -> None:
    text = "a: {b: [1, {c: 2}]}\nd: .inf\n"
    first, faults = build(text, "p")
    plain = first.plain()
    assert apply(first, "a.b.1.c=3") == apply(first, "a.e=4") == []
    assert len(faults) == 1
    faults.clear()
    again, found = build(text, "p")
    assert first.plain() != plain
    assert again.plain() == plain
    assert again.place(["a", "e"], at_key=True) == again.place(["a"])
    assert len(found) == 1
    assert build(text, "q")[0].mark.where == "q"
