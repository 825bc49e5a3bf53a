"""A laser by a map in the bench file: what is wrong in it is told, key by key."""

import copy
from typing import Any, Final

import pytest

from drivers.laser.scpi import dialect, scpi
from labctl.errors import ProtocolError
from tests.contracts import models

MAP: dict[str, Any] = models.MAP | {
    "faults": {"ask": "STAT?", "reply": r"(\d+)", "bits": {"4": "hot"}},
    "baudrate": 9600,
}


def test_a_map_is_a_laser_byte_by_byte(script: Any, lines: Any) -> None:  # noqa: ANN401
    idn = ("*IDN?", "ACME,A1,S77,0.1")
    dark = [("OUTP OFF", None), ("OUTP?", "0"), ("POW 0.0000", None)]
    opening = [idn, *dark[:2], idn, ("POW? MAX", "+1.0E-02"), dark[2]]
    script.expect(*lines(opening, "\n", "\n"))
    laser = scpi(address="x", commands=MAP, clock=script.clock)
    laser.open()
    assert laser.identity().serial == "S77"
    assert laser.power_limits_mw == (0.0, 10.0)
    talk = [
        ("POW 0.0050", None),
        ("POW?", "5.0E-03"),
        ("LOCK?", "1"),
        ("STAT?", "0"),
        ("OUTP ON", None),
        ("OUTP?", "1"),
        ("MEAS:POW?", "4.98E-03"),
        ("POW?", "5.0E-03"),
    ]
    script.expect(*lines(talk, "\n", "\n"))
    laser.set_power_mw(5)
    laser.emission(True)
    script.expect(*lines(dark, "\n", "\n"))
    laser.close()


def test_how_a_serial_line_is_set_comes_from_the_map() -> None:
    made = dialect(MAP)
    assert made.line.baudrate == 9600
    assert (made.framing.send, made.framing.last) == (b"\n", b"\n")
    assert made.faults is not None
    assert made.faults.bits == {4: "hot"}


DELETED: Final = object()


def changed(key: str, value: object) -> dict[str, Any]:
    """Change one key, dotted, of a copy of the map; or leave it out."""
    made = copy.deepcopy(MAP)
    *above, last = key.split(".")
    here: Any = made
    for name in above:
        here = here[int(name) if isinstance(here, list) else name]
    if value is DELETED:
        del here[last]
    else:
        here[int(last) if isinstance(here, list) else last] = value
    return made


@pytest.mark.parametrize(
    ("key", "value", "told", "said"),
    [
        ("off", DELETED, "off", "is missing"),
        ("of", ["x"], "of", r"is not known, .*Did you mean off\?"),
        ("framing", 1, "framing", "is not known"),
        ("line", 1, "line", "is not known"),
        ("setpoint.aks", "x", "setpoint.aks", r"is not known, .*Did you mean ask\?"),
        ("setpoint.ask", DELETED, "setpoint.ask", "is missing"),
        ("setpoint.ask", "", "setpoint.ask", "got '', expected a command"),
        (
            "setpoint.ask",
            "P\u00b5?",
            "setpoint.ask",
            "expected a command: text in ASCII",
        ),
        ("setpoint.reply", "x", "setpoint.reply", "one group"),
        ("setpoint.reply", "(x", "setpoint.reply", "expression: .*unterminated"),
        ("setpoint.scale", "1000", "setpoint.scale", "got '1000', expected a number"),
        ("setpoint.scale", 0, "setpoint.scale", "got 0, expected a number above 0"),
        ("setpoint.scale", True, "setpoint.scale", "got True, expected a number"),
        ("setpoint.named", ["x"], "setpoint.named", "expected a section"),
        ("setpoint.named", {"OFF": "0"}, "setpoint.named.OFF", "expected a number"),
        ("setpoint", "P?", "setpoint", "got 'P[?]', expected a number"),
        ("identify", "*IDN?", "identify", "expected a section with ask"),
        ("measured", 5, "measured", "expected a section with ask"),
        ("model", 7, "model", "got 7, expected text"),
        ("model", {"ask": "M?", "reply": ")"}, "model.reply", "expression"),
        ("wavelength", "633", "wavelength", "got '633', expected a number"),
        ("wavelength", 0, "wavelength", "expected a number above 0"),
        ("least", -1, "least", "expected a number of 0 or more"),
        ("most", float("nan"), "most", "expected a number"),
        ("power", "POW 5", "power", "expected a command with one of"),
        ("power", 5, "power", "expected text in ASCII"),
        ("on", [1], "on.0", "got 1, expected a command"),
        ("on", [], "on", "expected a list of one command or more"),
        ("off", [], "off", "expected a list of one command or more"),
        ("off", [""], "off.0", "expected a command"),
        ("off", None, "off", "got None, expected a command"),
        ("start", {"a": 1}, "start", "expected a command"),
        ("emitting.when", "(", "emitting.when", "regular expression: "),
        ("emitting.bit", 64, "emitting.bit", "from 0 to 63"),
        ("emitting.says", 1, "emitting.says", "expected text"),
        ("interlocks", "LOCK?", "interlocks", "expected a list"),
        ("interlocks.0", "LOCK?", "interlocks.0", "expected a section with ask"),
        ("interlocks.0.wehn", "1", "interlocks.0.wehn", r"Did you mean when\?"),
        ("faults.fine", "(", "faults.fine", "regular expression: "),
        ("faults.words", {"1": 2}, "faults.words.1", "expected text"),
        ("faults.bits", {"four": "hot"}, "faults.bits.four", "a bit from 0 to 63"),
        ("faults.bits", ["hot"], "faults.bits", "expected a section"),
        ("faults.base", 1, "faults.base", "from 2 to 36"),
        ("end", "[", "end", "regular expression: "),
        ("accepted", 7, "accepted", "got 7, expected a regular expression"),
        ("vendor", 7, "vendor", "expected text"),
        ("gap_s", -0.1, "gap_s", "expected a number of 0 or more"),
        ("send", "\u00b5", "send", "expected text in ASCII"),
        ("done", "\u00b5", "done", "expected a regular expression in ASCII"),
        ("done", "[", "done", "regular expression: "),
        ("done", "\n?", "done", "needs one byte or more"),
        ("baudrate", -1, "baudrate", "from 50 to 12000000"),
        ("baudrate", "fast", "baudrate", "got 'fast', expected a whole number"),
        ("parity", "X", "parity", "expected one of N, E, O"),
        ("stopbits", 1.5, "stopbits", "expected one of 1, 2"),
    ],
)
def test_a_fault_in_a_map_is_told_with_its_key(
    key: str, value: object, told: str, said: str
) -> None:
    with pytest.raises(ProtocolError, match=said) as refused:
        scpi(address="COM3", commands=changed(key, value))
    assert [each.key for each in refused.value.faults] == [f"commands.{told}"]


def test_every_fault_of_a_map_is_told() -> None:
    with pytest.raises(ProtocolError) as refused:
        scpi(address="COM3", commands=MAP | {"off": [], "when": 1, "done": "("})
    keys = [each.key for each in refused.value.faults]
    assert keys == ["commands.when", "commands.off", "commands.done"]


def test_a_reply_ends_where_a_command_does_even_if_nothing_ends_that() -> None:
    made = dialect(MAP | {"send": ""})
    assert (made.framing.send, made.framing.last) == (b"", b"\n")
