"""A table of commands is read as it is written."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.laser.cobolt import COBOLT
from drivers.laser.coherent import CHAMELEON, OBIS, SAPPHIRE
from drivers.laser.dialect import (
    Dialect,
    Faults,
    Query,
    State,
    TextHead,
    demand,
    laser,
)
from drivers.laser.ipg import IPG
from drivers.laser.mpb import MPB
from labctl.errors import DeviceError

PLAIN: dict[str, Any] = {
    "vendor": "acme",
    "identify": Query(ask="sn?", reply=r"(\d+)"),
    "model": "A1",
    "serial": Query(ask="sn?", reply=r"(\d+)"),
    "wavelength": 633.0,
    "most": 10.0,
    "power": "p {mw:.2}",
    "setpoint": Query(ask="p?"),
    "measured": Query(ask="l?"),
    "on": ("on",),
    "off": ("off",),
    "emitting": State(ask="e?", reply=r"(\w+)", when="YES"),
}


@pytest.mark.parametrize(
    ("template", "command"),
    [
        ("p {w:.5}", "p 0.01250"),
        ("P={mw:.3}", "P=12.500"),
        ("ch 2 pow {uw:.0} mic", "ch 2 pow 12500 mic"),
        ("p {mw}", "p 12.5000"),
    ],
)
def test_a_demand_is_in_the_unit_of_the_head(template: str, command: str) -> None:
    assert demand(template, 12.5) == command


@settings(deadline=None)  # real time says nothing here
@given(power_mw=st.floats(0, 1e5))
def test_a_demand_never_has_an_exponent_and_says_the_power(power_mw: float) -> None:
    said = demand("p {w:.6}", power_mw)
    assert "e" not in said
    assert float(said[2:]) * 1000 == pytest.approx(power_mw, abs=6e-4)


@pytest.mark.parametrize("template", ["p", "p {0}", "p {w!r}", "{w} {mw}", "{x:.2}"])
def test_a_power_without_its_place_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="expected a command with one of"):
        Dialect(**PLAIN | {"power": template})


def head(script: Any, lines: Any, **changed: Any) -> TextHead:  # noqa: ANN401
    script.expect(*lines([("sn?", "7"), ("sn?", "7")]))
    made = TextHead("laser", Dialect(**PLAIN | changed), "x", clock=script.clock)
    made.connect()
    made.inquire()
    return made


def test_units_names_and_scales_of_a_reply(script: Any, lines: Any) -> None:  # noqa: ANN401
    made = head(
        script,
        lines,
        setpoint=Query(ask="p?", reply=r"([\d.]+) (?P<unit>[mu]?W)"),
        measured=Query(ask="l?", reply=r"(Off|[\d.]+)", scale=1000, named={"Off": 0}),
    )
    talk = [("p?", "2 W"), ("p?", "2.5 mW"), ("p?", "2500 uW"), ("l?", "0.5")]
    script.expect(*lines([*talk, ("l?", "Off")]))
    assert [made.setpoint_mw() for _ in range(3)] == [2000.0, 2.5, 2.5]
    assert [made.power_mw(), made.power_mw()] == [500.0, 0.0]


def test_faults_by_word_by_bit_and_unknown(script: Any, lines: Any) -> None:  # noqa: ANN401
    words = Faults(ask="f?", reply=r"(\d+)", words={"3": "interlock"})
    made = head(script, lines, faults=words)
    script.expect(*lines([("f?", "0"), ("f?", "3"), ("f?", "9")]))
    assert [made.faults() for _ in range(3)] == [[], ["interlock"], ["fault 9"]]
    bits = Faults(ask="f?", reply=r"(\w+)", base=16, bits={0: "hot", 5: "wet"})
    made = head(script, lines, faults=bits)
    script.expect(*lines([("f?", "21"), ("f?", "zz")]))
    assert made.faults() == ["hot", "wet"]
    with pytest.raises(DeviceError, match="got 'zz', expected a number"):
        made.faults()


def test_an_answer_that_is_not_foreseen_is_no_darkness(script: Any, lines: Any) -> None:  # noqa: ANN401
    made = head(script, lines, emitting=State(ask="e?", reply="(YES|NO)", when="YES"))
    script.expect(*lines([("e?", "MAYBE"), ("sn?", "7"), ("e?", "MAYBE")]))
    with pytest.raises(DeviceError, match="got 'MAYBE'"):
        made.is_emitting()


def test_a_head_that_cannot_tell_its_wavelength_must_be_told() -> None:
    with pytest.raises(ValueError, match="wavelength_nm is missing"):
        laser(Dialect(**PLAIN | {"wavelength": None}), address="COM3")
    laser(Dialect(**PLAIN | {"wavelength": None}), address="COM3", wavelength_nm=532)


# What the manuals say of each answer; None where it is no fault.
FAULTS: list[tuple[Dialect, str, list[str]]] = [
    (COBOLT, "0\r\n", []),
    (COBOLT, "1\r\n", ["temperature"]),
    (COBOLT, "3\r\n", ["interlock"]),
    (COBOLT, "4\r\n", ["constant power time-out"]),
    (COBOLT, "9\r\n", ["fault 9"]),
    (SAPPHIRE, "0\r\nSapphire:0->", []),
    (SAPPHIRE, "1\r\nSapphire:0->", ["external interlock"]),
    (SAPPHIRE, "18\r\nSapphire:0->", ["diode temperature", "diode current"]),
    (SAPPHIRE, "1024\r\nSapphire:0->", ["controller memory"]),
    (CHAMELEON, "0\r\n", []),
    (CHAMELEON, "6\r\n", ["fault 6"]),
    (IPG, f"STA: {1 << 12}\r", []),
    (IPG, f"STA: {1 << 16}\r", ["too hot"]),
    (IPG, f"STA: {1 << 17 | 1 << 20}\r", ["back reflection", "seed failed"]),
    (IPG, f"STA: {1 << 19}\r", ["unexpected emission"]),
    (MPB, "7\rD >", []),
    (MPB, "8\rF >", ["fault"]),
]


def head_of(dialect: Dialect, script: Any) -> TextHead:  # noqa: ANN401
    made = TextHead("laser", dialect, "x", wavelength_nm=1.0, clock=script.clock)
    made._wire.open()
    return made


def sent(dialect: Dialect, command: str) -> bytes:
    return command.encode() + dialect.framing.send


@pytest.mark.parametrize(("dialect", "reply", "words"), FAULTS)
def test_faults_are_told_in_the_words_of_the_manual(
    dialect: Dialect,
    reply: str,
    words: list[str],
    script: Any,  # noqa: ANN401
) -> None:
    head = head_of(dialect, script)
    assert dialect.faults is not None
    script.expect((sent(dialect, dialect.faults.ask), reply.encode()))
    assert head.faults() == words


def test_a_cobolt_is_given_time_between_two_commands(script: Any) -> None:  # noqa: ANN401
    head = head_of(COBOLT, script)
    start_s = script.clock.now()
    script.expect(*[(sent(COBOLT, "p?"), b"0.050\r\n")] * 3)
    for _ in range(3):
        assert head.setpoint_mw() == 50.0
    assert script.clock.now() - start_s >= 0.2


@pytest.mark.parametrize(
    ("dialect", "baudrate"),
    [
        (COBOLT, 115_200),
        (OBIS, 115_200),
        (SAPPHIRE, 19_200),
        (CHAMELEON, 19_200),
        (IPG, 57_600),
        (MPB, 9_600),
    ],
)
def test_a_serial_line_is_as_fast_as_the_manual_says(
    dialect: Dialect, baudrate: int
) -> None:
    line = dialect.line
    assert (line.baudrate, line.parity, line.stopbits) == (baudrate, "N", 1)
