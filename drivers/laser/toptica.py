"""Toptica iBeam smart: two switches, and an ``[OK]`` behind a refusal too."""

import re
from functools import partial
from typing import Final

from drivers.laser.dialect import NUMBER, Dialect, Query, State, laser
from drivers.wire import Framing

_POWER: Final = NUMBER + r"\s*(?P<unit>[mu]W)"
_NOTE: Final = r"(?:%SYS-I[^\r\n]*\s+)?"
# Every reply is a blank line, lines, [OK]; a refusal is a line %SYS-E before it.
IBEAM: Final = Dialect(
    vendor="Toptica",
    framing=Framing(done=re.compile(rb"\[OK\]\r\n")),
    end=r"\s+\[OK\]",
    accepted=_NOTE + r"\[OK\]",
    shouts=("echo off", "prom off", "talk usual"),
    identify=Query(ask="serial", reply=r"SN: (\S+)"),
    serial=Query(ask="serial", reply=r"SN: (\S+)"),
    model="iBeam smart",
    firmware=Query(ask="ver", reply=r"(\S+)"),
    least=0.0,
    # Not 200 mW for every head: each knows its own.
    most=Query(ask="sh sat", reply=rf"(?s:.*)Pmax:\s*{_POWER}(?s:.*?)"),
    power="ch 2 pow {uw:.0} mic",
    # It tells the level of each channel, a line each; only the second is ever enabled.
    setpoint=Query(ask="sh level power", reply=rf"(?s:.*)CH2, PWR:\s*{_POWER}"),
    measured=Query(ask="sh pow", reply=_NOTE + rf"PIC\s*=\s*{_POWER}"),
    on=("en 2", "la on"),
    off=("la off", "di 0"),
    emitting=State(ask="sta la", reply="(ON|OFF)", when="ON"),
)
ibeam = partial(laser, IBEAM)
