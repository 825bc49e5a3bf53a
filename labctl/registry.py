"""Entry-point name to driver: the one door through which drivers come in.

A driver is named ``<family>.<role>`` in the entry-point group ``labctl.drivers``
of any installed package, this one or another. It is imported when a bench names
it and not before, so a missing vendor library breaks only the bench that needs it.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from labctl.errors import InputError, OutOfRangeError

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
    return {
        entry.name: entry
        for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)
    }


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
        No package offers that name, two do, or its import fails.
    """
    hits = list(entry_points(group=group, name=key))
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
    key: str, *, where: str, role: type | None = None, arguments: Mapping[str, Any]
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
        Keyword arguments of the factory.

    Returns
    -------
    driver
        What the factory made.

    Raises
    ------
    InputError
        As :func:`load`; or an argument is unknown, missing or refused; or what
        was made does not fulfil the role.
    """
    factory = load(key)
    _check_names(factory, key, where, arguments)
    try:
        driver = factory(**arguments)
    except (TypeError, ValueError, OutOfRangeError) as err:
        text = (
            f"{where}: {key} refused its options: {err}. "
            f"Correct {where}.options in the bench file."
        )
        raise InputError(text) from err
    if role is not None:
        _check_role(driver, key, where, role)
    return driver


def _imported(entry: EntryPoint) -> Callable[..., Any]:
    try:
        factory = entry.load()
    except ModuleNotFoundError as err:
        text = (
            f"driver={entry.name}: the module {err.name} is missing, which "
            f"{entry.value} imports. {_remedy(entry)}"
        )
        raise InputError(text) from err
    except (ImportError, AttributeError, OSError) as err:  # OSError: a missing DLL
        text = (
            f"driver={entry.name}: importing {entry.value} failed: {err}. "
            f"{_remedy(entry)}"
        )
        raise InputError(text) from err
    if not callable(factory):
        text = (
            f"driver={entry.name}: {entry.value} is {type(factory).__name__}, "
            f"expected a class or function. Correct the entry point of {_owner(entry)}."
        )
        raise InputError(text)
    return factory  # type: ignore[no-any-return]  # EntryPoint.load is untyped


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unnamed package"


def _remedy(entry: EntryPoint) -> str:
    family = entry.name.partition(".")[0]
    extras: list[str] = []
    if entry.dist is not None:
        extras = entry.dist.metadata.get_all("Provides-Extra") or []
    if family in extras:
        return f"Install it: pip install '{_owner(entry)}[{family}]'."
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


def _check_names(
    factory: Callable[..., Any], key: str, where: str, arguments: Mapping[str, Any]
) -> None:
    takes = inspect.signature(factory).parameters
    named = [
        name
        for name, parameter in takes.items()
        if parameter.kind in {parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD}
    ]
    if not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        for name, value in arguments.items():
            if name not in named:
                close = difflib.get_close_matches(name, named, n=1)
                hint = f" Did you mean {close[0]}?" if close else ""
                text = (
                    f"{where}.options: {name}={value!r}, expected one of "
                    f"{', '.join(named)} ({key}).{hint} Correct the bench file."
                )
                raise InputError(text)
    missing = [
        name
        for name in named
        if name not in arguments and takes[name].default is inspect.Parameter.empty
    ]
    if missing:
        text = (
            f"{where}.options: {', '.join(missing)} missing, {key} expects it. "
            "Add it to the bench file."
        )
        raise InputError(text)


def _check_role(driver: object, key: str, where: str, role: type) -> None:
    # Looked up statically: a property of a device that is not open may raise.
    wanted = getattr(role, "__abstractmethods__", frozenset[str]())
    absent = [
        name
        for name in sorted(wanted)
        if inspect.getattr_static(driver, name, None) is None
    ]
    if absent:
        text = (
            f"{where}: driver={key}, expected a driver of the role {role.__name__}: "
            f"{', '.join(absent)} missing. Name another driver in the bench file."
        )
        raise InputError(text)
