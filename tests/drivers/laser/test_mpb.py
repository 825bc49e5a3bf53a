"""MPB by scripts of bytes: unproved on a peer."""

from typing import Any

import pytest

from drivers.laser.mpb import mpb
from labctl.errors import DeviceError, InterlockError

OPEN = [
    ("getsn", "B0042\rD >"),
    ("powerenable 1", "D >"),
    ("getmodel", "VFL-P-1500-560\rD >"),
    ("getsn", "B0042\rD >"),
    ("getpowersetptlim 0", "99 3050\rF >"),
    ("getpowersetptlim 0", "99 3050\rF >"),
]
DARK = [
    ("setldenable 0", "D >"),
    ("getldenable", "0\rD >"),
    ("setpower 0 99.0", "D >"),
]


def opened(script: Any, lines: Any) -> Any:  # noqa: ANN401
    script.expect(*lines([OPEN[0], *DARK[:2], *OPEN[1:], DARK[2]], "\r", ""))
    laser = mpb(address="x", wavelength_nm=560, clock=script.clock)
    laser.open()
    return laser


def test_mpb_byte_by_byte(script: Any, lines: Any) -> None:  # noqa: ANN401
    laser = opened(script, lines)
    assert laser.power_limits_mw == (99.0, 3050.0)
    who = laser.identity()
    assert (who.model, who.serial) == ("VFL-P-1500-560", "B0042")
    talk = [
        ("setpower 0 500.0", "D >"),
        ("getpower 0", "500.0\rD >"),
        ("getlaserstate", "1\rD >"),
        ("getlaserstate", "1\rD >"),
        ("getlaserstate", "1\rD >"),
        ("setldenable 1", "D >"),
        ("getldenable", "1\rD >"),
        ("power 0", "498.2\rD >"),
        ("getpower 0", "500.0\rD >"),
    ]
    script.expect(*lines(talk, "\r", ""))
    laser.set_power_mw(500)
    laser.emission(True)
    script.expect(*lines(DARK, "\r", ""))
    laser.close()


def test_the_key_is_named_and_another_letter_refused(script: Any, lines: Any) -> None:  # noqa: ANN401
    laser = opened(script, lines)
    for state, said in (("6", "key off"), ("7", "interlock open")):
        script.expect(*lines([("getlaserstate", f"{state}\rD >")] * 2, "\r", ""))
        with pytest.raises(InterlockError, match=said):
            laser.emission(True)
    script.expect(*lines([("setpower 0 500.0", "E >")], "\r", ""))
    with pytest.raises(DeviceError, match="refused with 'E >'"):
        laser.set_power_mw(500)
    script.expect(*lines([OPEN[0], *DARK], "\r", ""))
    laser.close()


def test_an_answer_that_ends_in_another_letter_is_none(script: Any, lines: Any) -> None:  # noqa: ANN401
    laser = opened(script, lines)
    bad = ("getlaserstate", "8\rE >")
    script.expect(*lines([bad, OPEN[0], bad], "\r", ""))
    with pytest.raises(DeviceError, match=r"got '8\\rE >'"):
        laser.faults()
    script.expect(*lines([OPEN[0], *DARK], "\r", ""))
    laser.close()
