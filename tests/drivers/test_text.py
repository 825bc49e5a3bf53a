"""A shutter by a map of commands, by scripts of bytes: unproved on a peer."""

from typing import Any

import pytest

from drivers.text import TextShutter
from labctl.errors import DeviceError

MAP = {
    "identify": "id?",
    "identity": r"SC10 (\S+)",
    "open": "ens=1",
    "close": "ens=0",
    "position": "closed?",
    "reply": "([012])",
    "is_open": "0",
    "is_closed": "1",
    "accepted": "ok",
}


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


def test_a_fault_in_the_map_is_told() -> None:
    def made(**changed: str) -> None:
        TextShutter(address="x", commands=MAP | changed)

    with pytest.raises(ValueError, match=r"unknown \['opens'\]"):
        made(opens="x")
    with pytest.raises(ValueError, match="expected one group"):
        made(reply="[01]")
    with pytest.raises(ValueError, match=r"missing \['close', 'identify'"):
        TextShutter(address="x", commands={"open": "o"})
