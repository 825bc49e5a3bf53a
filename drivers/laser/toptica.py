"""Toptica iBeam smart: two switches, and an ``[OK]`` behind a refusal too."""

import re
from functools import partial
from typing import Final

from drivers.laser.dialect import NUMBER, Dialect, Query, State, laser
from drivers.wire import Framing

_POWER: Final = NUMBER + r"\s*(?P<unit>[mu]W)"
# Every reply is a blank line, lines, [OK]; a refusal is a line %SYS-E before it.
IBEAM: Final = Dialect(
    vendor="Toptica",
    framing=Framing(done=re.compile(rb"\[OK\]\r\n")),
    end=r"\s+\[OK\]",
    accepted=r"(?:%SYS-I[^\r\n]*\s+)?\[OK\]",
    shouts=("echo off", "prom off", "talk usual"),
    identify=Query(ask="serial", reply=r"SN: (\S+)"),
    serial=Query(ask="serial", reply=r"SN: (\S+)"),
    model="iBeam smart",
    firmware=Query(ask="ver", reply=r"(\S+)"),
    least=0.0,
    # Not 200 mW for every head: each knows its own.
    most=Query(ask="sh sat", reply=rf"(?s:.*)Pmax:\s*{_POWER}(?s:.*?)"),
    power="ch 2 pow {uw:.0} mic",
    setpoint=Query(ask="sh level power", reply=rf"CH2, PWR:\s*{_POWER}"),
    measured=Query(ask="sh pow", reply=rf"PIC\s*=\s*{_POWER}"),
    on=("en 2", "la on"),
    off=("la off", "di 0"),
    emitting=State(ask="sta la", reply="(ON|OFF)", when="ON"),
)
ibeam = partial(laser, IBEAM)
