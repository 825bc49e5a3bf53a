"""Models of instruments that speak over a wire, as their manuals say, and broken wires.

They stand in for instruments that nobody else wrote a counterpart of: what passes here
is unproved on a peer all the same.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import pytest
import serial
from typing_extensions import override

from drivers import ell14, pm100, text
from drivers.laser import dialect, superk
from drivers.laser.coherent import chameleon, obis
from drivers.laser.ipg import ipg
from drivers.laser.mpb import mpb
from drivers.laser.scpi import scpi
from drivers.laser.thorlabs import diode
from drivers.laser.toptica import ibeam
from drivers.wire import Link
from labctl.devices import Clock

REPLY_S: Final = 0.01
LATE: Final = 1.5  # of the time that a reply has
#: As each fault can be: once, or from then on.
FAULTS: Final = (
    "late once",
    "late always",
    "half once",
    "half always",
    "garbage once",
    "garbage always",
    "silent always",
    "closed once",
    "closed always",
    "unplugged always",
)


class Time(Clock):
    """Time that passes only where somebody waits."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    @override
    def now(self) -> float:
        return self.passed_s

    @override
    def sleep(self, seconds: float) -> None:
        self.passed_s += seconds


Rule = str | Callable[..., str | None] | None


class Model:
    """An instrument that answers text.

    Parameters
    ----------
    send, end
        What ends a command, and a reply.
    rules
        Patterns of commands, and what is said to them: a text, nothing, or what the
        rule makes of the model and the groups of its pattern.
    """

    def __init__(self, send: str, end: str, rules: Mapping[str, Rule]) -> None:
        self._send, self._end, self._rules = send, end, rules
        self.lit, self.level = False, 0.0

    @property
    def measured(self) -> float:
        return self.level if self.lit else 0.0

    def light(self, is_on: bool) -> None:
        self.lit = is_on

    def hear(self, data: bytes) -> bytes:
        command = data.decode("ascii").removesuffix(self._send)
        for pattern, rule in self._rules.items():
            if match := re.fullmatch(pattern, command):
                said = rule(self, *match.groups()) if callable(rule) else rule
                return b"" if said is None else f"{said}{self._end}".encode()
        raise AssertionError(command)


class Mock:
    """An instrument of python-microscope's."""

    def __init__(self, mock: Any) -> None:  # noqa: ANN401 - a peer has no types
        self._mock = mock
        mock.timeout, mock.light = 0, False  # it lights up with its key

    @property
    def lit(self) -> bool:
        return bool(self._mock.light)

    def light(self, is_on: bool) -> None:
        self._mock.light = is_on

    def hear(self, data: bytes) -> bytes:
        said = b""
        for byte in data:
            self._mock.write(bytes((byte,)))
            said += self._mock.read(4096)
        return said


class Bus:
    """A SuperK Extreme: registers behind telegrams."""

    def __init__(self) -> None:
        self._registers = {0x61: b"\x60", 0x65: b"SN0042\0\0", 0x64: b"\x0e\1"}
        self._registers |= {0x66: b"\0\0", 0x32: b"\2\0", 0x36: b"\0", 0x37: b"\0\0"}
        self._registers[0x31] = b"\0\0"  # constant current, as somebody left it

    @property
    def lit(self) -> bool:
        return self._registers[0x66] != b"\0\0"

    def light(self, is_on: bool) -> None:
        self._registers[0x66] = b"\1\0" if is_on else b"\0\0"

    def hear(self, data: bytes) -> bytes:
        body = superk.unpack(data)
        device, host, kind, register = body[:4]
        if kind == 4:
            told = self._registers[register]
            return superk.pack(bytes((host, device, 8, register)) + told)
        if register == 0x30:
            self.light(body[4] != 0)
        else:
            self._registers[register] = body[4:]
        return superk.pack(bytes((host, device, 3, register)))


class Broken(Link):
    """A link to a model that breaks at one command.

    Parameters
    ----------
    model
        The instrument.
    fault
        One of :data:`FAULTS`; empty for none.
    at
        Number of the command, from 1.
    timeout_s
        How long its driver waits for a reply.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401
        fault: str = "",
        at: int = 0,
        timeout_s: float = 0.4,
    ) -> None:
        self.clock, self._late_s = Time(), LATE * timeout_s
        self.model, self._at = model, at
        self._kind, _, self._when = fault.partition(" ")
        self.commands = self.opened = 0
        #: Number of the command that made it dark.
        self.dark_at = 0
        self._said: list[tuple[float, bytes]] = []
        self._is_gone = False

    @property
    def _breaks(self) -> bool:
        if self._when == "once":
            return self.commands == self._at
        return 0 < self._at <= self.commands

    @override
    def open(self) -> None:
        self.opened += 1
        self._said = []
        if self._is_gone and self._when == "always":
            text = "[Errno 2] could not open port x: No such file"
            raise serial.SerialException(text)
        self._is_gone = False

    @override
    def close(self) -> None:
        self._said = []

    def _check_there(self) -> None:
        if self._is_gone:
            text = "[Errno 5] Input/output error"
            raise OSError(text)

    @override
    def write(self, data: bytes) -> None:
        self._check_there()
        self.commands += 1
        kind = self._kind if self._breaks else ""
        if kind == "closed":
            self._is_gone = True
            self._check_there()
        if kind == "unplugged":  # it went out, and nothing comes back any more
            self._is_gone = True
        if kind in {"silent", "unplugged"}:
            return
        was_lit = self.model.lit
        said = self.model.hear(data)
        if was_lit and not self.model.lit:
            self.dark_at = self.commands
        if kind == "half":
            said = said[: len(said) // 2]
        if kind == "garbage" and said:
            said = b"\xff\x00?\xfe" + said[-3:]
        wait_s = self._late_s if kind == "late" else REPLY_S
        self._said.append((self.clock.now() + wait_s, said))

    @override
    def read(self, timeout_s: float) -> bytes:
        if self._is_gone:
            text = "device reports readiness to read but returned no data"
            raise serial.SerialException(text)
        coming = [at_s for at_s, said in self._said if said]
        wait_s = max(0.0, coming[0] - self.clock.now()) if coming else timeout_s
        self.clock.sleep(min(wait_s, timeout_s))
        return self.drop()

    @override
    def drop(self) -> bytes:
        now_s = self.clock.now()
        said = b"".join(said for at_s, said in self._said if at_s <= now_s)
        self._said = [each for each in self._said if each[0] > now_s]
        return said


def setter(said: str | None) -> Callable[[Model, str], str | None]:
    def keep(model: Model, value: str) -> str | None:
        model.level = float(value)
        return said

    return keep


def switch(is_on: bool, said: str | None) -> Callable[[Model], str | None]:
    def turn(model: Model) -> str | None:
        model.light(is_on)
        return said

    return turn


def lit(on: str, off: str) -> Callable[[Model], str]:
    return lambda model: on if model.lit else off


def level(form: str) -> Callable[[Model], str]:
    return lambda model: form.format(model.level)


def measured(form: str) -> Callable[[Model], str]:
    return lambda model: form.format(model.measured)


def framed(*said: str) -> str:
    """Frame lines as an iBeam does: a blank line, they, [OK]."""
    return "\r\n".join(["", *said, "[OK]"])


LEVEL: Final = "source1:current:level:amplitude"
OBIS: Final[dict[str, Rule]] = {
    "SYST:COMM:HAND ON|SYST:AUT OFF|SOUR:AM:INT CWP|SOUR:TEMP:APR ON": "OK",
    r"SYST:AUT\?": "OFF\r\nOK",
    r"SYST:INF:SNUM\?": "O-1234\r\nOK",
    r"SYST:INF:MOD\?": "OBIS 660-75 LX\r\nOK",
    r"SYST:INF:WAV\?": "660\r\nOK",
    r"SOUR:POW:LIM:LOW\?": "0.00100\r\nOK",
    r"SOUR:POW:LIM:HIGH\?": "0.08250\r\nOK",
    r"SOUR:POW:LEV:IMM:AMPL ([\d.]+)": setter("OK"),
    r"SOUR:POW:LEV:IMM:AMPL\?": level("{:.5f}\r\nOK"),
    r"SOUR:POW:LEV\?": measured("{:.5f}\r\nOK"),
    "SOUR:AM:STAT ON": switch(True, "OK"),
    "SOUR:AM:STAT OFF": switch(False, "OK"),
    r"SOUR:AM:STAT\?": lit("ON\r\nOK", "OFF\r\nOK"),
    r"SYST:LOCK\?": "ON\r\nOK",
    r"SYST:FAUL\?": "00000000\r\nOK",
}
CHAMELEON: Final[dict[str, Rule]] = {
    "PROMPT=0|ECHO=0|HEARTBEAT=0": "",
    r"\?SN": "GDP.1",
    r"\?SV": "8.83",
    r"\?VW": "800",
    r"\?K": "1",
    r"\?(TS|F)": lambda model, name: "0",  # noqa: ARG005
    r"\?TMIN": "680",
    r"\?TMAX": "1080",
    "WAVELENGTH=800": "",
    "SHUTTER=1": switch(True, ""),
    "SHUTTER=0": switch(False, ""),
    r"\?S": lit("1", "0"),
    r"\?UF": lit("2900", "0"),
}
IBEAM: Final[dict[str, Rule]] = {
    "echo off": "iBEAM smart, echo off\r\n[OK]",
    "prom off|talk usual|en 2|di 0": framed(),
    "serial": framed("SN: iBEAM-SMART-515-S-A3-11111"),
    "ver": framed("iBPs-001A01-05"),
    "sh sat": framed("satellite", "  Pmax: 125 mW", "  Imax: 200 mA"),
    r"ch 2 pow (\d+) mic": setter(framed()),
    "sh level power": lambda model: framed(
        "CH1, PWR:  2.000 mW", f"CH2, PWR: {model.level:.0f} uW"
    ),
    "la on": switch(True, framed()),
    "la off": switch(False, framed()),
    "sta la": lit(framed("ON"), framed("OFF")),
    "sh pow": lambda model: framed(
        "%SYS-I-077, scaled", f"PIC  = {model.measured:06.0f} uW  "
    ),
}
DIODE: Final[dict[str, Rule]] = {
    r"\*IDN\?": "THORLABS,CLD1015,M00279876,1.3.0",
    "source1:function:mode current|source1:am:state off|output2:state on": None,
    rf"{LEVEL} ([\d.]+)": setter(None),
    rf"{LEVEL}\?": level("{:.6f}"),
    r"source1:current:limit:amplitude\?": "0.150000",
    "output1:state on": switch(True, None),
    "output1:state off": switch(False, None),
    r"output1:state\?": lit("1", "0"),
    r"sense3:current:data\?": measured("{:.6E}"),
    r"sense2:temperature:data\?": "25.013",
    r"source2:temperature:spoint\?": "25.000",
    r"outp:prot:\w+:trip\?": "0",
    r"output2:state\?": "1",
}
MPB: Final[dict[str, Rule]] = {
    "getsn": "B0042\rD >",
    "getmodel": "VFL-P-1500-560\rD >",
    "powerenable 1": "D >",
    "getpowersetptlim 0": "99 3050\rF >",
    r"setpower 0 ([\d.]+)": setter("D >"),
    "getpower 0": level("{:.1f}\rD >"),
    "power 0": measured("{:.1f}\rD >"),
    "getlaserstate": "1\rD >",
    "setldenable 1": switch(True, "D >"),
    "setldenable 0": switch(False, "D >"),
    "getldenable": lit("1\rD >", "0\rD >"),
}
IPG: Final[dict[str, Rule]] = {
    "RSN": "RSN: PLMP21",
    "RFV": "RFV: 1.0.6",
    "RNP": "RNP: 0.5",
    "RMP": "RMP: 10.0",
    r"SPS ([\d.]+)": lambda model, value: f"SPS: {setter(value)(model, value)}",
    "RPS": level("RPS: {}"),
    "ROP": measured("ROP: {}"),
    "EMON": switch(True, "EMON"),
    "EMOFF": switch(False, "EMOFF"),
    "STA": lit("STA: 4097", "STA: 4096"),
}
SCPI: Final[dict[str, Rule]] = {
    r"\*IDN\?": "ACME,A1,S77,0.1",
    r"POW\? MAX": "+1.0E-02",
    r"POW ([\d.]+)": setter(None),
    r"POW\?": level("{:.3E}"),
    r"MEAS:POW\?": measured("{:.3E}"),
    "OUTP ON": switch(True, None),
    "OUTP OFF": switch(False, None),
    r"OUTP\?": lit("1", "0"),
    r"LOCK\?": "1",
    r"STAT\?": "0",
}
MAP: Final[dict[str, Any]] = {
    "vendor": "acme",
    "identify": {"ask": "*IDN?", "reply": "(ACME,.*)"},
    "model": "A1",
    "serial": {"ask": "*IDN?", "reply": "ACME,[^,]*,([^,]*),.*"},
    "wavelength": 633.0,
    "most": {"ask": "POW? MAX", "scale": 1000},
    "power": "POW {w:.4}",
    "setpoint": {"ask": "POW?", "scale": 1000},
    "measured": {"ask": "MEAS:POW?", "scale": 1000},
    "on": ["OUTP ON"],
    "off": ["OUTP OFF"],
    "emitting": {"ask": "OUTP?", "reply": "([01])"},
    "interlocks": [{"ask": "LOCK?", "reply": "([01])", "when": "0", "says": "door"}],
    "faults": {"ask": "STAT?", "reply": r"(\d+)"},
    "send": "\n",
    "done": "\n",
}
Make = tuple[Callable[[], Any], Callable[..., Any], float]
CURVE: Final = [[0.04, 0.0], [0.1, 30.0], [0.2, 80.0]]
#: A model, its driver, and a power in mW that it can be set to.
LASERS: Final[dict[str, Make]] = {
    "obis": (partial(Model, "\r\n", "\r\n", OBIS), obis, 50.0),
    "chameleon": (
        partial(Model, "\r\n", "\r\n", CHAMELEON),
        partial(chameleon, power_mw=2900, tune_nm=800),
        2900.0,
    ),
    "ibeam": (
        partial(Model, "\r\n", "\r\n", IBEAM),
        partial(ibeam, wavelength_nm=515),
        12.5,
    ),
    "thorlabs": (
        partial(Model, "\r\n", "\r\n", DIODE),
        partial(diode, wavelength_nm=785, curve_a_mw=CURVE),
        15.0,
    ),
    "mpb": (partial(Model, "\r", "", MPB), partial(mpb, wavelength_nm=560), 500.0),
    "ipg": (partial(Model, "\r", "\r", IPG), partial(ipg, wavelength_nm=1064), 2000.0),
    "scpi": (partial(Model, "\n", "\n", SCPI), partial(scpi, commands=MAP), 5.0),
    "superk": (Bus, partial(superk.superk, full_mw=100, wavelength_nm=650), 50.0),
}


class Mount:
    """An ELL14: pulses of a turn, asked for and read back."""

    lit = False

    def __init__(self) -> None:
        self.pulses = 0

    def hear(self, data: bytes) -> bytes:
        command = data.decode("ascii")
        if command == "0in":
            return b"0IN0E1140012320231701016800023000\r\n"
        if command == "0ho0":
            self.pulses = 0
        elif command.startswith("0ma"):
            self.pulses = int(command[3:], 16)
        else:
            assert command == "0gp"
        return f"0PO{self.pulses:08X}\r\n".encode()


SHUTTER: Final[dict[str, Rule]] = {
    r"id\?": "SC10 77",
    "ens=1": switch(True, "ok"),
    "ens=0": switch(False, "ok"),
    r"closed\?": lit("0", "1"),
}
SHUTTER_MAP: Final = {
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
METER: Final[dict[str, Rule]] = {
    r"\*IDN\?": "Thorlabs,PM100D,P0012345,2.8.0",
    r"SYST:SENS:IDN\?": "S130C,14061234,21-Mar-2024,1,18,289",
    "SENS:POW:UNIT W|SENS:POW:RANG:AUTO ON|SENS:CORR:WAV 785": None,
    r"SENS:CORR:WAV\?": "7.85E+02",
    r"MEAS:POW\?": "1.234500E-03",
}


#: A model, its driver, and how long it waits for a reply, in s.
OTHERS: Final[dict[str, Make]] = {
    "text": (
        partial(Model, "\r\n", "\r\n", SHUTTER),
        partial(text.TextShutter, commands=SHUTTER_MAP),
        0.4,
    ),
    "ell14": (
        Mount,
        partial(ell14.ELL14, dark_deg=10, least=0.01, most=0.95),
        ell14.MOVE_S,
    ),
    "pm100": (
        partial(Model, "\n", "\n", METER),
        partial(pm100.PM100, wavelength_nm=785),
        1.0,
    ),
}
#: By entry point: what is there to stand in for instruments of which there is no peer.
STAND_INS: Final[dict[str, Make]] = {
    **{f"{name}.laser": each for name, each in LASERS.items() if name != "scpi"},
    "text.shutter": OTHERS["text"],
    "ell14.attenuator": OTHERS["ell14"],
    "pm100.meter": OTHERS["pm100"],
}


def put(monkeypatch: pytest.MonkeyPatch, link: Link) -> None:
    """Give every driver this link, whatever its address."""
    for module in (dialect, superk, ell14, pm100, text):
        monkeypatch.setattr(module, "link", lambda address, **options: link)  # noqa: ARG005
