"""Cobolt lasers (Hübner): the command set that all generations understand.

Powers go out in watts, the greatest comes back in milliwatts. ``ilk?`` answers 1 where
the interlock is *open*. Heads that start by themselves are told not to (``@cobas 0``);
they refuse ``l1`` until then. ``cp`` is constant power: a head that somebody left in
constant current gives what it likes.
"""

import re
from functools import partial
from typing import Final

from drivers.laser.dialect import Dialect, Faults, Query, State, laser
from drivers.wire import Framing

# With a point: the 1 or 0 of another answer is no power.
_WATTS: Final = r"(\d*\.\d+)"
COBOLT: Final = Dialect(
    vendor="Cobolt",
    framing=Framing(send=b"\r", done=re.compile(rb"\r\n")),
    gap_s=0.1,  # what pycobolt leaves; heads lose commands that come faster
    identify=Query(ask="sn?", reply=r"(\d+)"),
    start=("@cobas 0", "cp"),
    accepted="OK",
    serial=Query(ask="sn?", reply=r"(\d+)"),
    # Some heads do not know the question.
    model=Query(ask="gcn?", reply=r"(?:Syntax error.*)?(.*)"),
    firmware=Query(ask="gfv?", reply=r"([\d.]+)"),
    least=0.0,
    most=Query(ask="gmlp?"),
    power="p {w:.5}",
    setpoint=Query(ask="p?", reply=_WATTS, scale=1000.0),
    measured=Query(ask="pa?", reply=_WATTS, scale=1000.0),
    on=("l1",),
    off=("l0",),
    emitting=State(ask="l?", reply="([01])"),
    interlocks=(State(ask="ilk?", reply="([01])", says="interlock open"),),
    faults=Faults(
        ask="f?",
        reply=r"(\d+)",
        words={"1": "temperature", "3": "interlock", "4": "constant power time-out"},
    ),
)
cobolt = partial(laser, COBOLT)
