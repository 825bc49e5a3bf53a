"""Entry-point name to driver: the one door through which drivers come in.

A driver is named ``<family>.<role>`` in the entry-point group ``labctl.drivers``
of any installed package, this one or another. It is imported when a bench names
it and not before, so a missing vendor library breaks only the bench that needs it.
"""

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from labctl.errors import (
    Fault,
    InputError,
    MissingLibraryError,
    OutOfRangeError,
    ProtocolError,
)

GROUP = "labctl.drivers"
# Functions without arguments that look for instruments: labctl.inventory calls them.
FINDERS = "labctl.finders"


def installed(group: str = GROUP) -> Mapping[str, EntryPoint]:
    """Every driver that is installed, by name; nothing is imported.

    Parameters
    ----------
    group
        Drivers, or finders.

    Returns
    -------
    drivers
        Name to entry point, in alphabetical order. Of a name that two packages
        claim only one is listed; :func:`load` refuses it.
    """
    return {entry.name: entry for entry in _offered(group, tuple(sys.path))}


@functools.lru_cache(maxsize=8)
def _offered(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Read what all packages offer, by name: a bench asks for many, one at a time."""
    del path  # where packages lie; with it another folder is looked through
    return tuple(sorted(entry_points(group=group), key=lambda entry: entry.name))


def _hits(key: str, group: str) -> list[EntryPoint]:
    def found() -> list[EntryPoint]:
        offered = _offered(group, tuple(sys.path))
        return [entry for entry in offered if entry.name == key]

    hits = found()
    if not hits:  # it may have been installed a moment ago
        _offered.cache_clear()
        hits = found()
    return hits


def load(key: str, group: str = GROUP) -> Callable[..., Any]:
    """Import the driver, or the finder, of a name.

    Parameters
    ----------
    key
        Name such as ``sim.slm``.
    group
        Drivers, or finders.

    Returns
    -------
    factory
        What the entry point names: called with keyword arguments only.

    Raises
    ------
    InputError
        No package offers that name, two do, or what it names is no factory.
    MissingLibraryError
        Its import fails.
    """
    hits = _hits(key, group)
    if not hits:
        raise InputError(_unknown(key))
    if len(hits) > 1:
        owners = ", ".join(sorted(_owner(entry) for entry in hits))
        text = (
            f"driver={key}, expected one package that offers it, got {len(hits)}: "
            f"{owners}. Uninstall all but one."
        )
        raise InputError(text)
    return _imported(hits[0])


def build(
    key: str,
    *,
    where: str,
    role: type | None = None,
    arguments: Mapping[str, Any],
    own: Mapping[str, Any] = MappingProxyType({}),
) -> Any:  # noqa: ANN401 - a driver of any role; the caller names the role it takes
    """Import a driver and construct it; no device is touched.

    Parameters
    ----------
    key
        Name such as ``sim.slm``.
    where
        Place in the bench file, for the message: ``devices.slm``.
    role
        Role that the driver must fulfil; None asks for none.
    arguments
        Keyword arguments of the factory, as the bench file has them.
    own
        Those that the bench sets by itself, such as the clock.

    Returns
    -------
    driver
        What the factory made.

    Raises
    ------
    ProtocolError
        The driver is not known or of another role, or an option is unknown, missing
        or refused: every fault, under ``where``, without file and line.
    MissingLibraryError
        Its import fails.
    """
    factory = check(key, where=where, role=role, arguments=arguments, own=own)
    try:
        driver = factory(**{**own, **arguments})
    except ProtocolError as err:  # a driver that says which option, by its key
        raise ProtocolError(
            [replace(each, key=f"{where}.options.{each.key}") for each in err.faults]
        ) from err
    except (TypeError, ValueError, OutOfRangeError) as err:
        text = f"{key} refused its options: {err}. Correct them in the bench file."
        raise ProtocolError([_fault(f"{where}.options", text)]) from err
    if role is not None:
        _check_role(driver, key, where, role)
    return driver


def check(
    key: str,
    *,
    where: str,
    role: type | None = None,
    arguments: Mapping[str, Any],
    own: Mapping[str, Any] = MappingProxyType({}),
) -> Callable[..., Any]:
    """Check all that shows before a driver is constructed.

    Parameters
    ----------
    key, where, role, arguments, own
        As for :func:`build`.

    Returns
    -------
    factory
        What constructs the driver.

    Raises
    ------
    ProtocolError
        The driver is not known or of another role, or its options are refused.
    MissingLibraryError
        Its import fails.
    """
    try:
        factory = load(key)
    except MissingLibraryError:
        raise
    except InputError as err:
        text = f"got {str(err).removeprefix('driver=')}"
        raise ProtocolError([_fault(f"{where}.driver", text)]) from err
    if role is not None:
        _check_class(factory, key, where, role)
    faults = list(_wrong_names(factory, key, f"{where}.options", arguments, own))
    if faults:
        raise ProtocolError(faults)
    return factory


def _fault(key: str, text: str) -> Fault:
    return Fault("", None, None, key, text)


def _imported(entry: EntryPoint) -> Callable[..., Any]:
    try:
        factory = entry.load()
    except ModuleNotFoundError as err:
        text = (
            f"driver={entry.name}: the module {err.name} is missing, which "
            f"{entry.value} imports. {_remedy(entry, err.name or '')}"
        )
        raise MissingLibraryError(text) from err
    except (ImportError, OSError) as err:  # OSError: a missing DLL
        raise MissingLibraryError(_failed(entry, err)) from err
    except AttributeError as err:
        raise InputError(_failed(entry, err)) from err
    if not callable(factory):
        text = (
            f"driver={entry.name}: {entry.value} is {type(factory).__name__}, "
            f"expected a class or function. Correct the entry point of {_owner(entry)}."
        )
        raise InputError(text)
    return factory  # type: ignore[no-any-return]  # EntryPoint.load is untyped


def _failed(entry: EntryPoint, error: Exception) -> str:
    return (
        f"driver={entry.name}: importing {entry.value} failed: {error}. "
        f"{_remedy(entry)}"
    )


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unnamed package"


def _remedy(entry: EntryPoint, missing: str = "") -> str:
    family = entry.name.partition(".")[0]
    extras: list[str] = []
    if entry.dist is not None:
        extras = entry.dist.metadata.get_all("Provides-Extra") or []
    if family in extras:
        return f"Install it: pip install '{_owner(entry)}[{family}]'."
    if missing.partition(".")[0] == family:  # left to the user, as its licence may ask
        return f"Install it: pip install {family}."
    return f"Install what {_owner(entry)} asks for, or name another driver."


def _unknown(key: str) -> str:
    names = list(installed())
    close = difflib.get_close_matches(key, names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    listed = ", ".join(names) if names else "none"
    return (
        f"driver={key}, expected one of the installed drivers: {listed}.{hint} "
        "Correct the bench file, or install the package that offers it."
    )


def _wrong_names(
    factory: Callable[..., Any],
    key: str,
    where: str,
    arguments: Mapping[str, Any],
    own: Mapping[str, Any],
) -> Iterator[Fault]:
    takes = inspect.signature(factory).parameters
    named = [
        name
        for name, parameter in takes.items()
        if parameter.kind in {parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD}
    ]
    free = [name for name in named if name not in own]
    is_open = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    for name, value in arguments.items():
        if name in own:
            text = f"got {value!r}, expected no such option: the bench sets it. "
            yield _fault(f"{where}.{name}", f"{text}Remove it from the bench file.")
        elif name not in named and not is_open:
            close = difflib.get_close_matches(name, free, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            text = (
                f"is not known, expected one of {', '.join(free) or 'none'} "
                f"({key}).{hint} Correct the bench file."
            )
            yield _fault(f"{where}.{name}", text)
    for name in own:
        if name not in named and not is_open:
            text = (
                f"{key} takes no {name}, which the bench gives every driver of this "
                "role. Name a driver of this role."
            )
            yield _fault(f"{where.removesuffix('.options')}.driver", text)
    missing = [
        name
        for name in free
        if name not in arguments and takes[name].default is inspect.Parameter.empty
    ]
    if missing:
        text = f"{', '.join(missing)} missing, {key} expects it. Add it."
        yield _fault(where, text)


def _check_class(factory: Callable[..., Any], key: str, where: str, role: type) -> None:
    """Refuse a driver of another role by its class, where a class is known.

    Only methods are looked for: what an instance sets itself, its class may lack.
    """
    made: Any = factory
    if not inspect.isclass(made):
        made = inspect.signature(factory).return_annotation
    if not inspect.isclass(made) or made in {inspect.Signature.empty, object}:
        return
    _refuse_role(
        key,
        where,
        role,
        [
            name
            for name in _members(role)
            if inspect.isfunction(inspect.getattr_static(role, name, None))
            and inspect.getattr_static(made, name, None) is None
        ],
    )


def _check_role(driver: object, key: str, where: str, role: type) -> None:
    # Looked up statically: a property of a device that is not open may raise.
    _refuse_role(
        key,
        where,
        role,
        [
            name
            for name in _members(role)
            if inspect.getattr_static(driver, name, None) is None
        ],
    )


def _members(role: type) -> list[str]:
    return sorted(getattr(role, "__abstractmethods__", frozenset[str]()))


def _refuse_role(key: str, where: str, role: type, absent: Sequence[str]) -> None:
    """Refuse a driver that lacks what its role has.

    Raises
    ------
    ProtocolError
        It lacks something.
    """
    if absent:
        text = (
            f"got {key}, expected a driver of the role {role.__name__}: "
            f"{', '.join(absent)} missing. Name another driver."
        )
        raise ProtocolError([_fault(f"{where}.driver", text)])
