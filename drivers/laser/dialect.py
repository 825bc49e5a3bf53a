"""The language of a laser that speaks text, as data: a table, and who reads it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, final

from typing_extensions import override

from drivers.laser.wired import Head, WiredLaser
from drivers.wire import Framing, Line, Wire, link, number
from labctl.devices import Clock, Identity
from labctl.errors import DeviceError

NUMBER: Final = r"([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
# mW of each unit that a command or a reply may use.
UNITS: Final = {"w": 1000.0, "mw": 1.0, "uw": 0.001}
_FIELD: Final = re.compile(r"\{(w|mw|uw)(?::\.(\d))?\}")


@dataclass(frozen=True, kw_only=True)
class Query:
    """A question, and what its answer means.

    Parameters
    ----------
    ask
        The command.
    reply
        Pattern of the whole reply: its first group is the answer; a group named
        ``unit`` holds the unit of a power.
    scale
        Factor that makes milliwatts, or nanometres, of a number.
    named
        Words that stand for a number.
    """

    ask: str
    reply: str = NUMBER
    scale: float = 1.0
    named: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class State(Query):
    """A question with a few answers.

    Parameters
    ----------
    when
        Pattern of the answer for which it is true: it emits, it is open.
    bit
        The bit of the answer that says so, where it is a number of bits.
    says
        What that means, in words.
    """

    when: str = "1"
    bit: int | None = None
    says: str = ""


@dataclass(frozen=True, kw_only=True)
class Faults(Query):
    """A question after faults.

    Parameters
    ----------
    fine
        Pattern of the answer where there is none.
    words
        What each answer means.
    bits
        What each bit of the answer means; other bits are no fault.
    base
        Of the number that holds the bits.
    between
        What stands between several answers; empty where there is one.
    """

    fine: str = "0"
    words: Mapping[str, str] = field(default_factory=dict)
    bits: Mapping[int, str] = field(default_factory=dict)
    base: int = 10
    between: str = ""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What a head understands, command by command.

    Parameters
    ----------
    vendor
        Who makes it.
    identify
        Question whose answer no other question has; asked first, and again to find
        the way back after a fault.
    model, serial, firmware
        Questions, or the answer itself where there is none.
    wavelength
        Question, or the wavelength in nm; None where the bench file says it.
    least, most
        Questions after the limits of the power, or the limits in mW.
    power
        Command that demands a power: ``{w:.5}``, ``{mw:.3}`` or ``{uw:.0}`` stands
        for it; empty where the power is fixed.
    setpoint, measured
        Questions after what is demanded, and after the light.
    on, off
        Commands, in order.
    emitting
        Question.
    interlocks
        Questions after what keeps it from emitting: interlock, key.
    faults
        Question.
    shouts
        First words after connecting, whose replies are not known.
    start
        Commands once it is dark: no start by itself, mode.
    tries, unknown
        Commands after those that some heads do not know, and the pattern of what these
        say to them.
    checks
        Questions after what they set; ``says`` is what to do where it is not so.
    end
        What ends every reply, as a pattern on its end once its blanks are stripped.
    accepted
        Pattern of the reply to a command; None where there is none.
    framing
        How commands and replies end.
    line
        How a serial line is set.
    gap_s
        Least time between two commands.
    """

    vendor: str
    identify: Query
    model: Query | str
    serial: Query | str
    firmware: Query | str = ""
    wavelength: Query | float | None = None
    least: Query | float = 0.0
    most: Query | float
    power: str
    setpoint: Query | float
    measured: Query
    on: tuple[str, ...]
    off: tuple[str, ...]
    emitting: State
    interlocks: tuple[State, ...] = ()
    faults: Faults | None = None
    shouts: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    tries: tuple[str, ...] = ()
    unknown: str = ""
    checks: tuple[State, ...] = ()
    end: str = ""
    accepted: str | None = None
    framing: Framing = field(default_factory=Framing)
    line: Line = field(default_factory=Line)
    gap_s: float = 0.0

    def __post_init__(self) -> None:
        if self.power and len(_FIELD.findall(self.power)) != 1:
            text = (
                f"power={self.power!r}, expected a command with one of {{w:.5}}, "
                "{mw:.3}, {uw:.0}"
            )
            raise ValueError(text)


def demand(template: str, power_mw: float) -> str:
    """Write the command that demands a power.

    Parameters
    ----------
    template
        With the place of the power, as in :class:`Dialect`.
    power_mw
        The power.

    Returns
    -------
    command
        Never in exponents, which some heads do not read.
    """

    def written(found: re.Match[str]) -> str:
        return f"{power_mw / UNITS[found[1]]:.{found[2] or 4}f}"

    return _FIELD.sub(written, template)


@final
class TextHead(Head):
    """A head that speaks a dialect.

    Parameters
    ----------
    name
        Name of the laser in the bench file.
    dialect
        Its language.
    address
        Serial port, socket or VISA resource.
    timeout_s
        Greatest time to a reply.
    gap_s
        Least time between two commands; None takes the dialect's.
    wavelength_nm
        Wavelength; None asks the head.
    clock
        Time; None takes the computer's.
    set_up
        Done with the head once it is dark, before it is asked for more.

    Raises
    ------
    ValueError
        The address is none, or the wavelength is not known.
    """

    def __init__(  # noqa: PLR0913 - one parameter an option
        self,
        name: str,
        dialect: Dialect,
        address: str,
        *,
        timeout_s: float = 0.4,
        gap_s: float | None = None,
        wavelength_nm: float | None = None,
        clock: Clock | None = None,
        set_up: Callable[["TextHead"], None] = lambda _: None,
    ) -> None:
        self._name, self._dialect, self._set_up = name, dialect, set_up
        wavelength = dialect.wavelength if wavelength_nm is None else wavelength_nm
        if wavelength is None:
            text = f"{name}: wavelength_nm is missing: this head cannot tell it"
            raise ValueError(text)
        self._wavelength: Query | float = wavelength
        self._wavelength_nm = 0.0
        self._signature = ""
        self._identity = Identity(dialect.vendor, "", "", "")
        self._limits_mw = (0.0, 0.0)
        end = dialect.framing.last
        self._wire = Wire(
            name,
            link(address, line=dialect.line, last=end, timeout_s=timeout_s),
            framing=dialect.framing,
            identify=(dialect.identify.ask, dialect.identify.reply + dialect.end),
            timeout_s=timeout_s,
            gap_s=dialect.gap_s if gap_s is None else gap_s,
            clock=clock,
        )

    @override
    def connect(self) -> None:
        self._wire.open()
        for command in self._dialect.shouts:
            self._wire.shout(command)
        self._signature = self._match(self._dialect.identify)[0]
        self._wire.recognise(re.escape(self._signature))

    @property
    @override
    def signature(self) -> str:
        return self._signature

    @override
    def inquire(self) -> None:
        for command in self._dialect.start:
            self.tell(command)
        for command in self._dialect.tries:
            known = self._dialect.accepted
            self._wire.tell(command, f"(?:{known})|(?:{self._dialect.unknown})")
        for check in self._dialect.checks:
            self._check(check)
        self._set_up(self)
        table = self._dialect
        self._identity = Identity(
            table.vendor,
            *(self._text(each) for each in (table.model, table.serial, table.firmware)),
        )
        self._limits_mw = (self.number(table.least), self.number(table.most))
        self._wavelength_nm = self.number(self._wavelength)

    def _check(self, state: State) -> None:
        """Refuse a head that did not do what it was told, and acknowledged.

        Raises
        ------
        DeviceError
            It says so.
        """
        answer = self._match(state)[1]
        if re.fullmatch(state.when, answer) is None:
            text = f"got {answer!r}, expected {state.when!r}. {state.says}"
            raise DeviceError(self._name, state.ask, text)

    @override
    def close(self) -> None:
        self._wire.close()

    @property
    @override
    def identity(self) -> Identity:
        return self._identity

    @property
    @override
    def wavelength_nm(self) -> float:
        return self._wavelength_nm

    @property
    @override
    def limits_mw(self) -> tuple[float, float]:
        return self._limits_mw

    @override
    def set_power_mw(self, power_mw: float) -> None:
        if self._dialect.power:
            self.tell(demand(self._dialect.power, power_mw))

    @override
    def setpoint_mw(self) -> float:
        return self.number(self._dialect.setpoint)

    @override
    def power_mw(self) -> float:
        return self.number(self._dialect.measured)

    @override
    def switch(self, on: bool) -> None:
        if on:
            for command in self._dialect.on:
                self.tell(command)
            return
        # Each of its switches, whatever the one before answers.
        refused: list[DeviceError] = []
        for command in self._dialect.off:
            try:
                self.tell(command)
            except DeviceError as error:
                refused.append(error)
        if refused:
            raise refused[0]

    @override
    def is_emitting(self) -> bool:
        return self._is_true(self._dialect.emitting)

    @override
    def interlock(self) -> str:
        found = [each.says for each in self._dialect.interlocks if self._is_true(each)]
        return ", ".join(found)

    @override
    def faults(self) -> list[str]:
        asked = self._dialect.faults
        if asked is None:
            return []
        answer = self._match(asked)[1]
        if re.fullmatch(asked.fine, answer):
            return []
        if asked.bits:
            value = self._whole(asked, answer, asked.base)
            return [words for bit, words in asked.bits.items() if value >> bit & 1]
        each = answer.split(asked.between) if asked.between else [answer]
        return [asked.words.get(one, f"fault {one}") for one in each]

    def tell(self, command: str) -> None:
        """Send a command, and see it accepted."""
        self._wire.tell(command, self._dialect.accepted)

    def number(self, query: Query | float) -> float:
        """Ask for a number; one that is known already is itself."""
        if not isinstance(query, Query):
            return float(query)
        match = self._match(query)
        if match[1] in query.named:
            return query.named[match[1]]
        value = number(match, self._name, query.ask)
        unit = match.groupdict().get("unit")
        return value * (query.scale if unit is None else UNITS[unit.lower()])

    def _match(self, query: Query) -> re.Match[str]:
        return self._wire.ask(query.ask, query.reply + self._dialect.end)

    def _is_true(self, state: State) -> bool:
        answer = self._match(state)[1]
        if state.bit is not None:
            return bool(self._whole(state, answer) >> state.bit & 1)
        return re.fullmatch(state.when, answer) is not None

    def _text(self, query: Query | str) -> str:
        return query if isinstance(query, str) else self._match(query)[1].strip()

    def _whole(self, query: Query, answer: str, base: int = 10) -> int:
        try:
            return int(answer, base)
        except ValueError as err:
            text = f"got {answer!r}, expected a number. Look at the cable."
            raise DeviceError(self._name, query.ask, text) from err


def laser(  # noqa: PLR0913 - one parameter an option
    dialect: Dialect,
    *,
    address: str,
    name: str = "laser",
    clock: Clock | None = None,
    wavelength_nm: float | None = None,
    timeout_s: float = 0.4,
    gap_s: float | None = None,
    start_s: float = 8.0,
    tolerance: float | None = 0.05,
    repetition_rate_hz: float | None = None,
    pulse_width_fs: float | None = None,
) -> WiredLaser:
    """Make a laser of a dialect; what a bench file's options say.

    Parameters
    ----------
    dialect
        Its language.
    address
        Serial port, ``socket://host:port`` or VISA resource.
    name
        Name in the bench file.
    clock
        Time; None takes the computer's.
    wavelength_nm
        Wavelength; None asks the head.
    timeout_s
        Greatest time to a reply.
    gap_s
        Least time between two commands; None takes the dialect's.
    start_s
        How long emission may take to start.
    tolerance
        Greatest distance of the measured from the demanded power, as a share of the
        greatest power; None does not compare.
    repetition_rate_hz, pulse_width_fs
        Of a pulsed laser.

    Returns
    -------
    laser
        Not open.
    """
    head = TextHead(
        name,
        dialect,
        address,
        timeout_s=timeout_s,
        gap_s=gap_s,
        wavelength_nm=wavelength_nm,
        clock=clock,
    )
    return WiredLaser(
        name,
        head,
        clock=clock,
        start_s=start_s,
        tolerance=tolerance,
        repetition_rate_hz=repetition_rate_hz,
        pulse_width_fs=pulse_width_fs,
    )
