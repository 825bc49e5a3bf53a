"""A shutter by a map of commands, by scripts of bytes: unproved on a peer."""

from typing import Any

import pytest

from drivers.text import TextShutter
from labctl.errors import DeviceError, ProtocolError
from tests.contracts.models import SHUTTER_MAP as MAP


def opened(script: Any, lines: Any) -> TextShutter:  # noqa: ANN401
    talk = [("id?", "SC10 77"), ("ens=0", "ok"), ("closed?", "1")]
    script.expect(*lines(talk))
    shutter = TextShutter(address="x", commands=MAP, clock=script.clock)
    shutter.open()
    return shutter


def test_a_shutter_byte_by_byte(script: Any, lines: Any) -> None:  # noqa: ANN401
    shutter = opened(script, lines)
    assert shutter.identity().serial == "77"
    # Between both ends it is still moving, and counts as open.
    script.expect(*lines([("closed?", "2")]))
    assert shutter.is_open()
    talk = [("ens=1", "ok"), ("closed?", "1"), ("closed?", "2"), ("closed?", "0")]
    script.expect(*lines(talk))
    shutter.set_open(True)
    script.expect(*lines([("ens=0", "ok"), ("closed?", "1")]))
    shutter.close()
    shutter.close()


def test_a_blade_that_stays_is_an_error_in_bounded_time(
    script: Any,  # noqa: ANN401
    lines: Any,  # noqa: ANN401
) -> None:
    shutter = opened(script, lines)
    script.expect(*lines([("ens=1", "ok"), *[("closed?", "1")] * 18]))
    with pytest.raises(DeviceError, match=r"position='1' after 0.5 s, expected '0'"):
        shutter.set_open(True)
    script.expect(*lines([("ens=0", "ok"), ("closed?", "1")]))
    shutter.close()


def test_closing_is_insisted_on_through_a_fresh_connection_of_the_same_shutter(
    script: Any,  # noqa: ANN401
    lines: Any,  # noqa: ANN401
) -> None:
    shutter = opened(script, lines)
    again = [("ens=0", "no"), ("id?", "SC10 77"), ("ens=0", "ok"), ("closed?", "1")]
    script.expect(*lines(again))
    shutter.set_open(False)
    script.expect(*lines([("ens=0", "no"), ("id?", "SC10 78")]))
    with pytest.raises(DeviceError, match=r"serial=78 answers there.*Block the beam"):
        shutter.set_open(False)
    script.expect(*lines([("id?", "SC10 77"), ("ens=0", "ok"), ("closed?", "1")]))
    shutter.close()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("opens", "x", r"is not known, .*Did you mean open\?"),
        ("identify", "", "expected a command"),
        ("open", "\u00b5", "expected a command: text in ASCII"),
        ("identity", "(", "regular expression: .*unterminated"),
        ("identity", "SC10", "one group"),
        ("reply", "[01]", "one group"),
        ("is_open", "(", "regular expression: "),
        ("is_closed", "[", "regular expression: "),
        ("accepted", "(", "regular expression: "),
        ("accepted", 7, "got 7, expected a regular expression"),
    ],
)
def test_a_fault_in_the_map_is_told_with_its_key(
    key: str,
    value: Any,  # noqa: ANN401 - what a bench file may hold
    said: str,
) -> None:
    with pytest.raises(ProtocolError, match=said) as refused:
        TextShutter(address="x", commands=MAP | {key: value})
    assert [each.key for each in refused.value.faults] == [f"commands.{key}"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("send", "\u00b5", "expected text in ASCII"),
        ("done", "(", "regular expression: "),
        ("done", "", "needs one byte or more"),
        ("done", "\u00b5", "in ASCII"),
        ("move_s", 0.0, "a time above 0"),
        ("move_s", float("nan"), "a time above 0"),
        ("baudrate", -1, "from 50 to 12000000"),
        ("address", "nonsense::x", "a VISA resource"),
    ],
)
def test_an_option_that_cannot_be_is_refused(
    key: str,
    value: Any,  # noqa: ANN401 - what a bench file may hold
    said: str,
) -> None:
    options: dict[str, Any] = {"address": "x", "commands": MAP, key: value}
    with pytest.raises(ProtocolError, match=said) as refused:
        TextShutter(**options)
    assert [each.key for each in refused.value.faults] == [key]


def test_commands_that_are_missing_are_all_told() -> None:
    with pytest.raises(ProtocolError) as refused:
        TextShutter(address="x", commands={"open": "o"})
    missing = [each.key for each in refused.value.faults]
    assert missing == [
        f"commands.{key}" for key in MAP if key not in {"open", "accepted"}
    ]
