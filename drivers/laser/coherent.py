"""Coherent lasers: Sapphire, OBIS and Chameleon, which have three languages."""

import re
from dataclasses import replace
from functools import partial
from typing import Final

from drivers.laser.dialect import Dialect, Faults, Query, State, TextHead, laser
from drivers.laser.wired import POLL_S, WiredLaser
from drivers.wire import Framing, Line, Monotonic
from labctl.devices import Clock
from labctl.errors import DeviceError, DeviceTimeoutError, OutOfRangeError

# Its prompt is switched on, not off: it alone tells where a reply ends, for with the
# echo off the head still echoes every line end, and a setter may add a note.
SAPPHIRE: Final = Dialect(
    vendor="Coherent",
    framing=Framing(done=re.compile(rb"Sapphire:\d+-> ?")),
    line=Line(baudrate=19_200),
    end=r"\s*Sapphire:\d+->",
    accepted=r"(?:Note: [^\r\n]*\s+)?Sapphire:\d+->",
    shouts=(">=1", "E=0"),
    identify=Query(ask="?HID", reply=r"(\d+\.\d+)"),
    serial=Query(ask="?HID", reply=r"(\d+\.\d+)"),
    model="Sapphire",
    wavelength=Query(ask="?WAVE"),
    least=Query(ask="?MINLP"),  # it cannot be set to nothing: 10 % is the least
    most=Query(ask="?MAXLP"),
    power="P={mw:.3}",
    setpoint=Query(ask="?SP"),
    measured=Query(ask="?P"),
    on=("L=1",),
    off=("L=0",),
    emitting=State(ask="?L", reply="([01])"),
    interlocks=(State(ask="?K", reply="([01])", when="0", says="key in standby"),),
    faults=Faults(
        ask="?FF",
        reply=r"(\d+)",
        bits={
            0: "external interlock",
            1: "diode temperature",
            2: "base plate temperature",
            3: "controller temperature",
            4: "diode current",
            5: "analog interface",
            6: "base plate temperature",
            7: "diode temperature",
            9: "head memory",
            10: "controller memory",
        },
    ),
)
sapphire = partial(laser, SAPPHIRE, start_s=10.0)

# With handshaking on every reply ends in OK or ERR; without it setters say nothing.
# "EXT DIG" would give light only while a TTL is high, so constant power is selected.
OBIS: Final = Dialect(
    vendor="Coherent",
    framing=Framing(done=re.compile(rb"(?:^|\n)(?:OK|ERR-?\d+)\r\n")),
    end=r"\s+OK",
    accepted="OK",
    shouts=("SYST:COMM:HAND ON",),
    identify=Query(ask="SYST:INF:SNUM?", reply=r"(\S+)"),
    start=("SYST:AUT OFF", "SOUR:AM:INT CWP"),
    tries=("SOUR:TEMP:APR ON",),
    unknown="ERR-100",
    checks=(
        State(
            ask="SYST:AUT?",
            reply="(ON|OFF)",
            when="OFF",
            says="It would emit when its key turns: a switch of its remote overrides "
            "the command. Set that one off.",
        ),
    ),
    serial=Query(ask="SYST:INF:SNUM?", reply=r"(\S+)"),
    model=Query(ask="SYST:INF:MOD?", reply=r"([^\r\n]+)"),
    wavelength=Query(ask="SYST:INF:WAV?"),
    least=Query(ask="SOUR:POW:LIM:LOW?", scale=1000.0),
    most=Query(ask="SOUR:POW:LIM:HIGH?", scale=1000.0),
    power="SOUR:POW:LEV:IMM:AMPL {w:.5}",
    setpoint=Query(ask="SOUR:POW:LEV:IMM:AMPL?", scale=1000.0),
    measured=Query(ask="SOUR:POW:LEV?", scale=1000.0),
    on=("SOUR:AM:STAT ON",),
    off=("SOUR:AM:STAT OFF",),
    emitting=State(ask="SOUR:AM:STAT?", reply="(ON|OFF)", when="ON"),
    interlocks=(
        State(ask="SYST:LOCK?", reply="(ON|OFF)", when="OFF", says="interlock open"),
    ),
    # The bits are not named: the manual at hand decides what each means.
    faults=Faults(ask="SYST:FAUL?", reply=r"([0-9A-Fa-f]+)", fine="0+"),
)
obis = partial(laser, OBIS, start_s=10.0)

TUNE_S: Final = 20.0  # how long it may take from one end of its range to the other
_TUNING, _WAVELENGTH = Query(ask="?TS", reply=r"(\d)"), Query(ask="?VW")
_RANGE: Final = (Query(ask="?TMIN"), Query(ask="?TMAX"))
# Its pump takes minutes, so dark is the shutter; the power is what it is.
CHAMELEON: Final = Dialect(
    vendor="Coherent",
    line=Line(baudrate=19_200),
    shouts=("PROMPT=0", "ECHO=0", "HEARTBEAT=0"),
    accepted="",
    identify=Query(ask="?SN", reply=r"(\S+)"),
    serial=Query(ask="?SN", reply=r"(\S+)"),
    model="Chameleon",
    firmware=Query(ask="?SV", reply=r"(\S+)"),
    wavelength=_WAVELENGTH,
    least=0.0,
    most=0.0,
    power="",
    setpoint=0.0,
    measured=Query(ask="?UF"),
    on=("SHUTTER=1",),
    off=("SHUTTER=0",),
    emitting=State(ask="?S", reply="([01])"),
    interlocks=(
        State(ask="?K", reply="([01])", when="0", says="key off"),
        State(ask="?TS", reply=r"(\d)", when="[1-9]", says="not tuned yet"),
    ),
    # Several at once stand between ampersands.
    faults=Faults(ask="?F", reply=r"(\d+(?:&\d+)*)", between="&"),
)


def tuned(head: TextHead, name: str, tune_nm: int, clock: Clock) -> None:
    """Send a Chameleon to its wavelength and wait until it is there.

    Raises
    ------
    OutOfRangeError
        It cannot go there; nothing was sent.
    DeviceTimeoutError
        It does not arrive.
    DeviceError
        It is somewhere else.
    """
    low, high = (head.number(each) for each in _RANGE)
    if not low <= tune_nm <= high:
        raise OutOfRangeError(name, "tune_nm", tune_nm, low=low, high=high)
    head.tell(f"WAVELENGTH={tune_nm}")
    due = clock.now() + TUNE_S
    while head.number(_TUNING) != 0:
        if clock.now() >= due:
            text = f"tune_nm={tune_nm} not reached within {TUNE_S:g} s."
            raise DeviceTimeoutError(name, "tune", text)
        clock.sleep(POLL_S)
    got = head.number(_WAVELENGTH)
    if got != tune_nm:
        text = f"wavelength_nm={got:g} read back, expected {tune_nm}."
        raise DeviceError(name, "tune", text)


def chameleon(  # noqa: PLR0913 - one parameter an option
    *,
    address: str,
    power_mw: float,
    name: str = "laser",
    clock: Clock | None = None,
    tune_nm: int | None = None,
    timeout_s: float = 0.4,
    tolerance: float | None = None,
    repetition_rate_hz: float = 80e6,
    pulse_width_fs: float = 140.0,
) -> WiredLaser:
    """Make a Chameleon: a pulsed laser of fixed power behind its own shutter.

    Parameters
    ----------
    address
        Serial port, ``socket://host:port`` or VISA resource.
    power_mw
        What it gives at the wavelength used, measured; it cannot be set.
    name
        Name in the bench file.
    clock
        Time; None takes the computer's.
    tune_nm
        Wavelength that it is told to go to, whole nanometres; None leaves it. It goes
        there when it opens, with its shutter closed.
    timeout_s
        Greatest time to a reply.
    tolerance
        Greatest distance of the measured power from power_mw, as a share of it.
    repetition_rate_hz, pulse_width_fs
        Of its pulses.

    Returns
    -------
    laser
        Not open.

    Raises
    ------
    ValueError
        power_mw or tune_nm is impossible.
    """
    if not power_mw > 0:
        text = f"{name}: power_mw={power_mw}, expected more than 0"
        raise ValueError(text)
    if tune_nm is not None and tune_nm not in range(1, 100_000):
        text = f"{name}: tune_nm={tune_nm!r}, expected whole nanometres"
        raise ValueError(text)
    dialect = replace(
        CHAMELEON,
        least=power_mw,
        most=power_mw,
        setpoint=power_mw,
    )
    time = clock or Monotonic()
    head = TextHead(
        name,
        dialect,
        address,
        timeout_s=timeout_s,
        clock=time,
        set_up=lambda head: (
            None if tune_nm is None else tuned(head, name, tune_nm, time)
        ),
    )
    return WiredLaser(
        name,
        head,
        clock=time,
        tolerance=tolerance,
        repetition_rate_hz=repetition_rate_hz,
        pulse_width_fs=pulse_width_fs,
    )
