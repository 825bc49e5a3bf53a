"""What a model takes, in words."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, TypeAdapter, model_validator

from labctl.calibration import Sentence
from labctl.document import Schema, parse
from labctl.document.teller import expected, wrong
from labctl.errors import ProtocolError


class _Pair(Schema):
    low: float
    high: float

    @model_validator(mode="after")
    def _in_order(self) -> "_Pair":
        if self.low > self.high:
            text = f"got {self.low:g}, expected at most high={self.high:g}. Swap them."
            raise wrong(("low", text), ("high", "see low."))
        return self


class _Several(Schema):
    pairs: list[_Pair]
    table: dict[str, float] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (TypeAdapter(int), "a whole number"),
        (TypeAdapter(str), "text"),
        (TypeAdapter(bool), "true or false"),
        (TypeAdapter(float | None), "a number"),
        (TypeAdapter(Literal["one"]), "one"),
        (TypeAdapter(Literal["one", 2]), "one of one, 2"),
        (
            TypeAdapter(Annotated[float, Field(gt=0, le=1)]),
            "a number above 0 and at most 1",
        ),
        (TypeAdapter(Annotated[int, Field(ge=1, le=9)]), "a whole number from 1 to 9"),
        (TypeAdapter(tuple[int, int]), "a list of 2, each a whole number"),
        (TypeAdapter(tuple[int, str]), "a list of 2: a whole number; text"),
        (TypeAdapter(list[str]), "a list of any length, each text"),
        (TypeAdapter(int | str), "a whole number, or text"),
        (TypeAdapter(dict[str, int]), "a section"),
        (TypeAdapter(_Pair), "a section with low, high"),
        (TypeAdapter(Sentence), "a sentence"),
    ],
)
def test_says_what_is_expected(model: TypeAdapter[object], words: str) -> None:
    schema = model.json_schema()
    assert expected(schema, schema) == words


def test_a_validator_names_the_keys_that_are_wrong() -> None:
    text = "pairs:\n  - {low: 1, high: 2}\n  - {low: 4, high: 3}\n"
    with pytest.raises(ProtocolError) as caught:
        parse(text, _Several, where="p")
    assert str(caught.value).splitlines() == [
        "p line 3 column 11: pairs.1.low: got 4, expected at most high=3. Swap them.",
        "p line 3 column 20: pairs.1.high: see low.",
    ]


def test_a_validator_tells_python_the_same() -> None:
    with pytest.raises(ValueError, match="low: got 4, expected at most high=3"):
        _Pair(low=4, high=3)


def test_values_of_free_keys_are_told() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse("pairs: []\ntable: {a: x}", _Several, where="p")
    assert (
        str(caught.value) == 'p line 2 column 12: table.a: got "x", expected a number.'
    )


class _Free(Schema):
    sides: dict[Literal["left", "right"], int] = Field(default_factory=dict)
    named: dict[
        Annotated[str, Field(pattern=r"^[a-z]+$", max_length=8)], dict[str, int]
    ] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "sides: {up: 1}",
            "line 1 column 9: sides.up: is not known, expected one of left, right.",
        ),
        (
            "sides: {lefd: 1}",
            "line 1 column 9: sides.lefd: is not known, expected one of left, right. "
            "Did you mean left?",
        ),
        (
            "named: {Up: {a: 1}}",
            "line 1 column 9: named.Up: cannot be the name of anything, expected one "
            "of the form ^[a-z]+$ and of at most 8 characters.",
        ),
        # A key that is called as pydantic calls keys, with a wrong value.
        (
            'named: {up: {"[key]": x}}',
            'line 1 column 23: named.up.[key]: got "x", expected a value.',
        ),
    ],
)
def test_a_key_that_cannot_be_is_told_where_it_stands(text: str, said: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(text, _Free, where="p")
    assert str(caught.value) == f"p {said}"


def test_a_document_that_is_all_wrong_gets_no_suggestions() -> None:
    text = "pairs: []\n" + "".join(f"pair{n}: 1\n" for n in range(1000))
    with pytest.raises(ProtocolError) as caught:
        parse(text, _Several, where="p")
    assert caught.value.faults[0].text == "is not known."
