"""Any laser that speaks text, by a map of commands in the bench file: no Python."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Final

from drivers.laser.dialect import Dialect, Faults, Query, State, laser
from drivers.laser.wired import WiredLaser
from drivers.wire import Framing, Line
from labctl.devices import Clock

# What a key of the map is read as; every other is taken as it stands.
_QUERIES: Final = {
    "identify": Query,
    "model": Query,
    "serial": Query,
    "firmware": Query,
    "wavelength": Query,
    "least": Query,
    "most": Query,
    "setpoint": Query,
    "measured": Query,
    "emitting": State,
    "faults": Faults,
}
_LISTS: Final = ("on", "off", "shouts", "start")
_LINE_KEYS: Final = ("baudrate", "parity", "stopbits")


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
    ValueError
        A key is unknown or missing, or a value cannot be read.
    """
    given = dict(commands)
    line = {key: given.pop(key) for key in _LINE_KEYS if key in given}
    framing: dict[str, Any] = {}
    if "send" in given:
        framing["send"] = str(given.pop("send")).encode("ascii")
    if "done" in given:
        pattern = str(given.pop("done")).encode("ascii")
        framing["done"] = _compiled("done", pattern)
        framing["last"] = framing.get("send", b"\n")[-1:]
    given = {key: _read(key, value) for key, value in given.items()}
    made = {"vendor": "", "line": Line(**line), "framing": Framing(**framing), **given}
    known = {each.name: each for each in fields(Dialect)}
    unknown = sorted(set(made) - set(known))
    missing = sorted(
        name
        for name, each in known.items()
        if each.default is MISSING
        and each.default_factory is MISSING
        and name not in made
    )
    if unknown or missing:
        text = (
            f"commands: unknown {unknown or 'none'}, missing {missing or 'none'}, "
            f"expected {', '.join(sorted(known))}"
        )
        raise ValueError(text)
    return Dialect(**made)


def _read(key: str, value: object) -> object:
    if key == "interlocks" and isinstance(value, list):
        return tuple(_query(key, State, each) for each in value)
    if key in _LISTS:
        return tuple(value) if isinstance(value, list) else (str(value),)
    if key in _QUERIES and isinstance(value, Mapping):
        return _query(key, _QUERIES[key], value)
    return value


def _query(key: str, kind: type[Query], value: object) -> Query:
    """Read one query.

    Raises
    ------
    ValueError
        A key is unknown, or its pattern has no group.
    """
    if not isinstance(value, Mapping):
        text = f"commands.{key}={value!r}, expected ask and reply"
        raise ValueError(text)  # noqa: TRY004 - the registry reports a ValueError's text
    given = dict(value)
    if "bits" in given:
        given["bits"] = {int(bit): words for bit, words in given["bits"].items()}
    try:
        made = kind(**given)
    except TypeError as err:
        text = f"commands.{key}: {err}"
        raise ValueError(text) from err
    if _compiled(key, made.reply).groups < 1:
        text = f"commands.{key}.reply={made.reply!r}, expected one group in it"
        raise ValueError(text)
    return made


def _compiled(key: str, pattern: Any) -> re.Pattern[Any]:  # noqa: ANN401 - text or bytes
    try:
        return re.compile(pattern)
    except re.error as err:
        text = f"commands.{key}: {pattern!r} is no pattern: {err}"
        raise ValueError(text) from err


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
