"""iBeam smart by scripts of bytes: unproved on a peer."""

from typing import Any

import pytest

from drivers.laser.toptica import ibeam
from labctl.errors import DeviceError


def reply(*said: str) -> str:
    """Frame lines as the head does: a blank line, they, [OK]."""
    return "\r\n".join(["", *said, "[OK]"])


OPEN = [
    ("echo off", "iBEAM smart, echo off\r\n[OK]"),  # a banner before it as well
    ("prom off", reply()),
    ("talk usual", reply()),
    ("serial", reply("SN: iBEAM-SMART-515-S-A3-11111")),
    ("serial", reply("SN: iBEAM-SMART-515-S-A3-11111")),
    ("ver", reply("iBPs-001A01-05")),
    ("sh sat", reply("satellite", "  Pmax: 125 mW", "  Imax: 200 mA")),
]
DARK = [
    ("la off", reply()),
    ("di 0", reply()),
    ("sta la", reply("OFF")),
    ("ch 2 pow 0 mic", reply()),
]


def test_ibeam_byte_by_byte(script: Any, lines: Any) -> None:  # noqa: ANN401
    script.expect(*lines([*OPEN[:4], *DARK[:3], *OPEN[4:], DARK[3]]))
    laser = ibeam(address="x", wavelength_nm=515, clock=script.clock)
    laser.open()
    assert laser.power_limits_mw == (0.0, 125.0)
    assert laser.identity().serial == "iBEAM-SMART-515-S-A3-11111"
    script.expect(
        *lines(
            [
                ("ch 2 pow 12500 mic", reply()),
                ("sh level power", reply("CH1, PWR:  2.000 mW", "CH2, PWR: 12.500 mW")),
                ("en 2", reply()),
                ("la on", reply()),
                ("sta la", reply("ON")),
                ("sh pow", reply("PIC  = 012480 uW  ")),
                ("sh level power", reply("CH2, PWR: 12500 uW")),
            ]
        )
    )
    laser.set_power_mw(12.5)
    laser.emission(True)
    note = "%SYS-I-077, scaled"
    script.expect(*lines([("sh pow", reply(note, "PIC  = 012480 uW  "))]))
    # The decimals and the unit count: pymeasure reads 12 here.
    assert laser.power_mw() == pytest.approx(12.48)
    script.expect(*lines(DARK))
    laser.close()


def test_an_ok_behind_an_error_is_a_refusal(script: Any, lines: Any) -> None:  # noqa: ANN401
    script.expect(*lines([*OPEN[:4], *DARK[:3], *OPEN[4:], DARK[3]]))
    laser = ibeam(address="x", wavelength_nm=515, clock=script.clock)
    laser.open()
    again: list[tuple[str, str]] = []  # after a refusal it asks who is there
    for level in "EWF":
        wrong = reply(f"%SYS-{level}-035, power out of range")
        script.expect(*lines([*again, ("ch 2 pow 90000 mic", wrong)]))
        again = [("serial", reply("SN: iBEAM-SMART-515-S-A3-11111"))]
        with pytest.raises(DeviceError, match=f"%SYS-{level}-035"):
            laser.set_power_mw(90)
    script.expect(*lines([("serial", reply("SN: iBEAM-SMART-515-S-A3-11111")), *DARK]))
    laser.close()


def test_both_switches_are_tried_where_one_refuses(script: Any, lines: Any) -> None:  # noqa: ANN401
    script.expect(*lines([*OPEN[:4], *DARK[:3], *OPEN[4:], DARK[3]]))
    laser = ibeam(address="x", wavelength_nm=515, clock=script.clock)
    laser.open()
    refused, serial = reply("%SYS-E-001, not now"), OPEN[3]
    script.expect(*lines([("la off", refused), serial, DARK[1]]))
    with pytest.raises(DeviceError, match="not now"):
        laser.emission(False)
    script.expect(*lines(DARK))
    laser.close()
