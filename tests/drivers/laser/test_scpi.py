"""A laser by a map in the bench file: what is wrong in it is told, key by key."""

from collections.abc import Callable
from typing import Any

import pytest

from drivers.laser.scpi import dialect, scpi

MAP: dict[str, Any] = {
    "vendor": "acme",
    "identify": {"ask": "*IDN?", "reply": "(ACME,.*)"},
    "model": "A1",
    "serial": {"ask": "*IDN?", "reply": "ACME,[^,]*,([^,]*),.*"},
    "wavelength": 633.0,
    "most": {"ask": "POW? MAX", "scale": 1000},
    "power": "POW {w:.4}",
    "setpoint": {"ask": "POW?", "scale": 1000},
    "measured": {"ask": "MEAS:POW?", "scale": 1000},
    "on": ["OUTP ON"],
    "off": ["OUTP OFF"],
    "emitting": {"ask": "OUTP?", "reply": "([01])"},
    "interlocks": [{"ask": "LOCK?", "reply": "([01])", "when": "0", "says": "door"}],
    "faults": {"ask": "STAT?", "reply": r"(\d+)", "bits": {"4": "hot"}},
    "send": "\n",
    "done": "\n",
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


def without(key: str) -> Callable[[], dict[str, Any]]:
    return lambda: {name: value for name, value in MAP.items() if name != key}


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        (without("off"), r"missing \['off'\]"),
        (lambda: MAP | {"of": ["x"]}, r"unknown \['of'\]"),
        (lambda: MAP | {"setpoint": {"ask": "POW?", "replay": "x"}}, "replay"),
        (lambda: MAP | {"setpoint": {"reply": "(.)"}}, "ask"),
        (lambda: MAP | {"setpoint": {"ask": "P?", "reply": "x"}}, "one group"),
        (lambda: MAP | {"setpoint": {"ask": "P?", "reply": "(x"}}, "is no pattern"),
        (lambda: MAP | {"interlocks": ["LOCK?"]}, "expected ask and reply"),
        (lambda: MAP | {"done": "["}, "is no pattern"),
        (lambda: MAP | {"power": "POW 5"}, "expected a command with one of"),
    ],
)
def test_a_fault_in_a_map_is_told(
    commands: Callable[[], dict[str, Any]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        scpi(address="COM3", commands=commands())
