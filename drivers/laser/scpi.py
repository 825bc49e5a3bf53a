"""Any laser that speaks text, by a map of commands in the bench file: no Python."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final

from drivers.laser.dialect import Dialect, Faults, Query, State, laser
from drivers.laser.wired import WiredLaser
from drivers.wire import (
    PARITIES,
    STOPBITS,
    Framing,
    Line,
    fault,
    is_baudrate,
    is_command,
    is_done,
    is_one_of,
    is_pattern,
    is_sent,
    refuse,
    wrong_keys,
)
from labctl.devices import Clock
from labctl.errors import Fault, ProtocolError

_Judge = Callable[[str, object], Iterator[Fault]]


def dialect(commands: Mapping[str, Any]) -> Dialect:
    """Read a map of commands.

    Parameters
    ----------
    commands
        Keys of :class:`drivers.laser.dialect.Dialect`: a query is a mapping of
        ``ask``, ``reply``, ``scale``; ``on`` and ``off`` are lists of commands;
        ``send`` and ``done`` say how commands and replies end, ``baudrate``,
        ``parity`` and ``stopbits`` how a serial line is set.

    Returns
    -------
    dialect
        The language.

    Raises
    ------
    ProtocolError
        A key is unknown or missing, or a value cannot be read: every one.
    """
    refuse(_judged("commands", commands, _KEYS, _NEEDED))
    given = dict(commands)
    line = {key: given.pop(key) for key in _LINE_KEYS if key in given}
    framing: dict[str, Any] = {}
    if "send" in given:
        framing["send"] = given.pop("send").encode("ascii")
    if "done" in given:
        framing["done"] = re.compile(given.pop("done").encode("ascii"))
        framing["last"] = framing.get("send", b"")[-1:] or b"\n"
    given = {key: _read(key, value) for key, value in given.items()}
    made = {"vendor": "", "line": Line(**line), "framing": Framing(**framing), **given}
    try:
        return Dialect(**made)
    except ValueError as err:  # a command that has no place for a power, or two
        text = f"{err}. Correct the bench file."
        raise ProtocolError([Fault("", None, None, "commands.power", text)]) from err


def _read(key: str, value: Any) -> object:  # noqa: ANN401 - judged before
    if key == "interlocks":
        return tuple(State(**each) for each in value)
    if key in _LISTS:
        return tuple(value) if isinstance(value, list) else (value,)
    if isinstance(value, Mapping):
        given = dict(value)
        if "bits" in given:
            given["bits"] = {int(bit): words for bit, words in given["bits"].items()}
        return _KINDS.get(key, Query)(**given)
    return value


def _judged(
    key: str, given: object, judges: Mapping[str, _Judge], needed: list[str]
) -> Iterator[Fault]:
    """Judge a map, key by key."""
    if not isinstance(given, Mapping):
        yield fault(key, given, f"a section with {', '.join(needed)}")
        return
    yield from wrong_keys(key, given, judges, needed)
    for name, value in given.items():
        if name in judges:
            yield from judges[name](f"{key}.{name}", value)


def _is_text(key: str, value: object) -> Iterator[Fault]:
    if not isinstance(value, str):
        yield fault(key, value, "text")


def _is_number(key: str, value: object) -> Iterator[Fault]:
    if not (type(value) in {int, float} and math.isfinite(value)):  # type: ignore[arg-type]  # one of the two
        yield fault(key, value, "a number")


def _is_scale(key: str, value: object) -> Iterator[Fault]:
    wrong = list(_is_number(key, value))
    yield from wrong
    if not wrong and not value > 0:  # type: ignore[operator]  # it is a number
        yield fault(key, value, "a number above 0")


def _is_amount(key: str, value: object) -> Iterator[Fault]:
    wrong = list(_is_number(key, value))
    yield from wrong
    if not wrong and value < 0:  # type: ignore[operator]  # it is a number
        yield fault(key, value, "a number of 0 or more")


def _is_whole(low: int, high: int) -> _Judge:
    def judge(key: str, value: object) -> Iterator[Fault]:
        if type(value) is not int or not low <= value <= high:
            yield fault(key, value, f"a whole number from {low} to {high}")

    return judge


def _is_bit(key: str, value: object) -> Iterator[Fault]:
    if value is not None:
        yield from _is_whole(0, _HIGHEST_BIT)(key, value)


def _is_map(judge: _Judge) -> _Judge:
    """Judge each value of a map of the device's own words."""

    def judge_map(key: str, value: object) -> Iterator[Fault]:
        if not isinstance(value, Mapping):
            yield fault(key, value, "a section: what it says, and what that means")
            return
        for name, each in value.items():
            yield from judge(f"{key}.{name}", each)

    return judge_map


def _are_bits(key: str, value: object) -> Iterator[Fault]:
    yield from _is_map(_is_text)(key, value)
    names = [str(name) for name in value] if isinstance(value, Mapping) else []
    for name in names:
        if not name.isdecimal() or int(name) > _HIGHEST_BIT:
            yield fault(f"{key}.{name}", name, f"a bit from 0 to {_HIGHEST_BIT}")


def _is_reply(key: str, value: object) -> Iterator[Fault]:
    yield from is_pattern(key, value, 1)


def _is_query(judges: Mapping[str, _Judge]) -> _Judge:
    def judge(key: str, value: object) -> Iterator[Fault]:
        yield from _judged(key, value, judges, ["ask"])

    return judge


def _is_query_or(judge: _Judge) -> _Judge:
    """Judge a question, or the answer itself."""

    def judge_either(key: str, value: object) -> Iterator[Fault]:
        asked = isinstance(value, Mapping)
        yield from (_is_query(_QUERY) if asked else judge)(key, value)

    return judge_either


def _are_interlocks(key: str, value: object) -> Iterator[Fault]:
    if not isinstance(value, list):
        yield fault(key, value, "a list of questions")
        return
    for number, each in enumerate(value):
        yield from _is_query(_STATE)(f"{key}.{number}", each)


def _are_commands(least: int) -> _Judge:
    def judge(key: str, value: object) -> Iterator[Fault]:
        if not isinstance(value, list):
            yield from is_command(key, value)
            return
        if len(value) < least:
            yield fault(key, value, "a list of one command or more")
        for number, each in enumerate(value):
            yield from is_command(f"{key}.{number}", each)

    return judge


def _is_accepted(key: str, value: object) -> Iterator[Fault]:
    if value is not None:
        yield from is_pattern(key, value)


_HIGHEST_BIT: Final = 63
_LISTS: Final = ("on", "off", "shouts", "start")
_LINE_KEYS: Final = ("baudrate", "parity", "stopbits")
_KINDS: Final[dict[str, type[Query]]] = {"emitting": State, "faults": Faults}
_QUERY: Final[dict[str, _Judge]] = {
    "ask": is_command,
    "reply": _is_reply,
    "scale": _is_scale,
    "named": _is_map(_is_number),
}
_STATE: Final[dict[str, _Judge]] = {
    **_QUERY,
    "when": is_pattern,
    "bit": _is_bit,
    "says": _is_text,
}
_FAULTS: Final[dict[str, _Judge]] = {
    **_QUERY,
    "fine": is_pattern,
    "words": _is_map(_is_text),
    "bits": _are_bits,
    "base": _is_whole(2, 36),
}
_KEYS: Final[dict[str, _Judge]] = {
    "vendor": _is_text,
    "identify": _is_query(_QUERY),
    "model": _is_query_or(_is_text),
    "serial": _is_query_or(_is_text),
    "firmware": _is_query_or(_is_text),
    "wavelength": _is_query_or(_is_scale),
    "least": _is_query_or(_is_amount),
    "most": _is_query_or(_is_scale),
    "power": is_sent,
    "setpoint": _is_query_or(_is_amount),
    "measured": _is_query(_QUERY),
    "on": _are_commands(1),
    "off": _are_commands(1),
    "emitting": _is_query(_STATE),
    "interlocks": _are_interlocks,
    "faults": _is_query(_FAULTS),
    "shouts": _are_commands(0),
    "start": _are_commands(0),
    "end": is_pattern,
    "accepted": _is_accepted,
    "gap_s": _is_amount,
    "send": is_sent,
    "done": is_done,
    "baudrate": is_baudrate,
    "parity": lambda key, value: is_one_of(key, value, PARITIES),
    "stopbits": lambda key, value: is_one_of(key, value, STOPBITS),
}
_NEEDED: Final = [
    each.name
    for each in fields(Dialect)
    if each.default is MISSING
    and each.default_factory is MISSING
    and each.name != "vendor"
]


def scpi(  # noqa: PLR0913 - one parameter an option
    *,
    address: str,
    commands: Mapping[str, Any],
    name: str = "laser",
    clock: Clock | None = None,
    wavelength_nm: float | None = None,
    timeout_s: float = 0.4,
    start_s: float = 8.0,
    tolerance: float | None = 0.05,
    repetition_rate_hz: float | None = None,
    pulse_width_fs: float | None = None,
) -> WiredLaser:
    """Make a laser of a map of commands.

    Parameters
    ----------
    address
        Serial port, ``socket://host:port`` or VISA resource.
    commands
        The map, as :func:`dialect` reads it.
    name
        Name in the bench file.
    clock
        Time; None takes the computer's.
    wavelength_nm
        Wavelength; None asks the head.
    timeout_s
        Greatest time to a reply.
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
    return laser(
        dialect(commands),
        address=address,
        name=name,
        clock=clock,
        wavelength_nm=wavelength_nm,
        timeout_s=timeout_s,
        start_s=start_s,
        tolerance=tolerance,
        repetition_rate_hz=repetition_rate_hz,
        pulse_width_fs=pulse_width_fs,
    )
