"""IPG by scripts of bytes: unproved on a peer."""

from typing import Any

import pytest

from drivers.laser.ipg import ipg
from labctl.errors import DeviceError

OPEN = [
    ("RSN", "RSN: PLMP21"),
    ("RSN", "RSN: PLMP21"),
    ("RFV", "RFV: 1.0.6"),
    ("RNP", "RNP: 0.5"),
    ("RMP", "RMP: 10.0"),
]
DARK = [("EMOFF", "EMOFF"), ("STA", "STA: 4096"), ("SPS 0.500", "SPS: 0.5")]


def opened(script: Any, lines: Any) -> Any:  # noqa: ANN401
    script.expect(*lines([OPEN[0], *DARK[:2], *OPEN[1:], DARK[2]], "\r", "\r"))
    laser = ipg(address="x", wavelength_nm=1064, clock=script.clock)
    laser.open()
    return laser


def test_ipg_byte_by_byte(script: Any, lines: Any) -> None:  # noqa: ANN401
    laser = opened(script, lines)
    assert laser.power_limits_mw == (500.0, 10_000.0)
    talk = [
        ("SPS 2.000", "SPS: 2.0"),
        ("RPS", "RPS: 2.0"),
        ("STA", "STA: 4096"),
        ("EMON", "EMON"),
        ("STA", "STA: 4098"),  # start-up: three seconds by law
        ("STA", "STA: 4097"),
        ("ROP", "ROP: Low"),
        ("RPS", "RPS: 2.0"),
        ("STA", "STA: 4097"),
        ("ROP", "ROP: 1.99"),
        ("RPS", "RPS: 2.0"),
        ("ROP", "ROP: Low"),
        ("ROP", "ROP: Off"),
    ]
    script.expect(*lines(talk, "\r", "\r"))
    laser.set_power_mw(2000)
    laser.emission(True)
    assert [laser.power_mw(), laser.power_mw()] == [0.0, 0.0]
    script.expect(*lines(DARK, "\r", "\r"))
    laser.close()


def test_back_reflection_is_a_fault_in_words(script: Any, lines: Any) -> None:  # noqa: ANN401
    laser = opened(script, lines)
    script.expect(*lines([("STA", f"STA: {1 << 17 | 1 << 12}")] * 2, "\r", "\r"))
    assert laser.faults() == ["back reflection"]
    with pytest.raises(DeviceError, match="back reflection"):
        laser.emission(True)
    script.expect(*lines([("SPS 2.000", "ERR")], "\r", "\r"))
    with pytest.raises(DeviceError, match="refused with 'ERR'"):
        laser.set_power_mw(2000)
    script.expect(*lines([OPEN[0], *DARK], "\r", "\r"))
    laser.close()
