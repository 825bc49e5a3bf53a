"""IPG fibre lasers (YAR): the command comes back before its value."""

import re
from functools import partial
from typing import Final

from drivers.laser.dialect import NUMBER, Dialect, Faults, Query, State, laser
from drivers.wire import Framing, Line

_STATUS: Final = r"STA: (\d+)"
# RERR is not asked: it resets the errors that it seems to read.
IPG: Final = Dialect(
    vendor="IPG",
    framing=Framing(send=b"\r", done=re.compile(rb"\r"), last=b"\r"),
    line=Line(baudrate=57_600),
    accepted=r"(?!ERR)[A-Z]{3,5}(?:: .*)?",
    identify=Query(ask="RSN", reply=r"RSN: (\S+)"),
    serial=Query(ask="RSN", reply=r"RSN: (\S+)"),
    model="YAR",
    firmware=Query(ask="RFV", reply=r"RFV: (\S+)"),
    least=Query(ask="RNP", reply=f"RNP: {NUMBER}", scale=1000.0),
    most=Query(ask="RMP", reply=f"RMP: {NUMBER}", scale=1000.0),
    power="SPS {w:.3}",
    setpoint=Query(ask="RPS", reply=f"RPS: {NUMBER}", scale=1000.0),
    measured=Query(
        ask="ROP",
        reply=rf"ROP: ({NUMBER[1:-1]}|Off|Low)",
        scale=1000.0,
        named={"Off": 0.0, "Low": 0.0},
    ),
    on=("EMON",),
    off=("EMOFF",),
    emitting=State(ask="STA", reply=_STATUS, bit=0),
    faults=Faults(
        ask="STA",
        reply=_STATUS,
        bits={
            16: "too hot",
            17: "back reflection",
            19: "unexpected emission",
            20: "seed failed",
        },
    ),
)
ipg = partial(laser, IPG)
