"""Everything that checks refuse is told in one error."""

import pytest

from labctl import document
from labctl.errors import CalibrationError, Fault, InputError, ProtocolError
from labctl.protocol import ADAPTER
from labctl.run.refusal import Refusals, placed

TEXT = """\
schema_version: 1
kind: scan
sweep: reservoir.power_mw
values: [1.0]
patterns: {count: 2}
"""


def refuse(error: Exception) -> None:
    raise error


def test_faults_of_several_checks_come_in_the_order_of_the_document() -> None:
    given = document.parse(TEXT, ADAPTER, where="s.yaml", overrides=("repeats=2",))
    refusals = Refusals()
    refusals.add([given.fault("repeats", "few"), given.fault("patterns.count", "odd")])
    low = given.fault("values", "low")
    for error in (InputError("no disk"), ProtocolError([low, low])):
        with refusals.gathered():
            refuse(error)
    assert refusals.keys == {"repeats", "patterns.count", "values"}
    with pytest.raises(ProtocolError) as caught:
        refusals.tell()
    assert str(caught.value).splitlines() == [
        "s.yaml line 4 column 9: values: low",
        "s.yaml line 5 column 19: patterns.count: odd",
        "--set repeats=2: repeats: few",
        "no disk",
    ]


def test_what_is_refused_alone_stays_what_it_is() -> None:
    Refusals().tell()
    with pytest.raises(CalibrationError, match=r"^stale$"):
        Refusals([CalibrationError("stale")]).tell()
    fault = Fault("a", 1, None, "k", "t")
    with pytest.raises(ProtocolError, match="a line 1: k: t"):
        Refusals([ProtocolError([fault])]).tell()


def test_a_failure_is_no_refusal() -> None:
    refusals = Refusals()
    with pytest.raises(ZeroDivisionError), refusals.gathered():
        refuse(ZeroDivisionError())
    assert refusals.errors == ()


@pytest.mark.parametrize(
    ("said", "key", "text"),
    [
        ("patterns: count=2, expected 3", "patterns.count", "count=2, expected 3"),
        ("patterns: too many", "patterns", "too many"),
        ("device: too many", "repeats", "device: too many"),
        ("too many", "repeats", "too many"),
    ],
)
def test_a_message_is_shown_at_the_key_it_names(said: str, key: str, text: str) -> None:
    given = document.parse(TEXT, ADAPTER, where="s.yaml")
    fault = placed(given, "repeats", ValueError(said))
    assert (fault.key, fault.text) == (key, text)
