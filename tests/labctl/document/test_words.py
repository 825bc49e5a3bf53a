"""Names, values and suggestions in messages."""

import pytest

from labctl.document.words import dotted, nearest, printable, shown, stem, unit_of


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing"),
        (True, "true"),
        (3, "3"),
        (0.5, "0.5"),
        ("a", '"a"'),
        ("a\x1b\n\u202e", '"a\\x1b\\n\\u202e"'),
        ("x" * 99, '"' + "x" * 57 + '..."'),
        ([1, 2], "[1, 2]"),
        ([[1], 2, 3], "a list of 3"),
        ({"a": 1}, "a section"),
    ],
)
def test_shows_values_as_they_would_be_written(value: object, words: str) -> None:
    assert shown(value) == words  # type: ignore[arg-type]  # the table holds them all


@pytest.mark.parametrize(
    ("key", "name", "unit"),
    [
        ("exposure_s", "exposure", "seconds"),
        ("exposure_ms", "exposure", ""),
        ("exposure", "exposure", ""),
        ("read_noise_e", "read_noise", "electrons"),
        ("fit_batch", "fit_batch", ""),
        ("s", "s", "seconds"),
    ],
)
def test_units_are_told_from_names(key: str, name: str, unit: str) -> None:
    assert (stem(key), unit_of(key)) == (name, unit)


def test_suggests_only_what_is_near() -> None:
    assert nearest("encodng", ["encoding", "modes"]) == " Did you mean encoding?"
    assert nearest("zzz", ["encoding", "modes"]) == ""
    assert nearest("e" * 1000, ["e" * 999]) == ""


def test_paths_are_short_and_printable() -> None:
    assert dotted(("model", 0, "a\x00")) == "model.0.a\\x00"
    assert len(dotted(("x" * 1000,))) == 60
    assert printable("Å ° ß") == "Å ° ß"
