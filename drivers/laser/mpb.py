"""MPB fibre lasers (VFL): a value line, then a letter and ``>``."""

import re
from functools import partial
from typing import Final

from drivers.laser.dialect import NUMBER, Dialect, Faults, Query, State, laser
from drivers.wire import Framing, Line

# "getpower" is the setpoint, "power" the light.
MPB: Final = Dialect(
    vendor="MPB",
    framing=Framing(send=b"\r", done=re.compile(rb"[A-Z] >"), last=b">"),
    line=Line(baudrate=9_600),
    # D and F are what healthy heads were seen to say; any other letter is refused.
    end=r"\s*[DF] >",
    accepted=r"[DF] >",
    identify=Query(ask="getsn", reply=r"(\S+)"),
    start=("powerenable 1",),  # constant power, not constant current
    serial=Query(ask="getsn", reply=r"(\S+)"),
    model=Query(ask="getmodel", reply=r"([^\r\n]*?)"),
    least=Query(ask="getpowersetptlim 0", reply=rf"{NUMBER}\s+[\d.]+"),
    most=Query(ask="getpowersetptlim 0", reply=rf"[\d.]+\s+{NUMBER}"),
    power="setpower 0 {mw:.1}",
    setpoint=Query(ask="getpower 0"),
    measured=Query(ask="power 0"),
    on=("setldenable 1",),
    off=("setldenable 0",),
    emitting=State(ask="getldenable", reply="([01])"),
    interlocks=(
        State(ask="getlaserstate", reply=r"(\d+)", when="6", says="key off"),
        State(ask="getlaserstate", reply=r"(\d+)", when="7", says="interlock open"),
    ),
    faults=Faults(
        ask="getlaserstate", reply=r"(\d+)", fine="[0-7]", words={"8": "fault"}
    ),
)
mpb = partial(laser, MPB)
