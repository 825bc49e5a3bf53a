"""What is known before the first shot: turned into the scalars of the layout."""

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labctl.devices import Identity, Settings
from labctl.recording import layout
from labctl.recording.environment import Environment
from labctl.recording.layout import Scalar

Value = str | int | float | bool | list[int] | list[float] | NDArray[Any]
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_UNIT_NAMES = {
    "s": "s",
    "nm": "nm",
    "um": "um",
    "mw": "mW",
    "rad": "rad",
    "c": "degC",
    "px": "pixel",
    "db": "dB",
    "hz": "Hz",
    "e": "electron",
    "dn": "counts",
}


@dataclass(frozen=True)
class DeviceEntry:
    """One device as the record keeps it.

    Parameters
    ----------
    identity
        Who it is; None for what has no identity, such as the beam.
    settings
        Snapshot at the start.
    fields
        Fields of ``layout.INSTRUMENT`` for this role; those not given are left
        out.
    """

    identity: Identity | None = None
    settings: Settings = field(default_factory=dict)
    fields: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class CalibrationEntry:
    """One calibration that was applied, with its numbers.

    Parameters
    ----------
    values
        Its values and arrays; names end in their unit. None is left out.
    source, source_sha256
        The file it came from and that file's hash.
    created
        When it was made, ISO 8601.
    figure_of_merit
        Named figures that judge it.
    """

    values: Mapping[str, Value | None]
    source: str
    source_sha256: str
    created: str
    figure_of_merit: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Header:
    """What is known of a run before its first shot.

    Parameters
    ----------
    title
        Title of the protocol.
    kind
        Kind of the protocol; the layout's.
    protocol_text
        The file as given.
    protocol_resolved
        The same with every default, plain values.
    bench_name, bench_text, bench_sha256
        The bench file.
    simulated
        Whether the light is simulated.
    notice
        What a reader must know first; empty when nothing.
    seeds
        Every seed by name.
    instrument
        Devices by role; ``beam`` is one of them.
    calibrations
        Calibrations that were applied, by kind.
    reservoir
        The operating point: every field of ``layout.RESERVOIR``; empty where no
        device takes part.
    protocol_path
        Where the protocol was read from; empty for text.
    fit_card
        Graphics card that the surrogate is fitted on; empty where none is.
    fit_kernel
        Build of the compiled kernel that computes its light; empty where none does.
    """

    title: str
    kind: layout.Kind
    protocol_text: str
    protocol_resolved: Mapping[str, Any]
    bench_name: str
    bench_text: str
    bench_sha256: str
    simulated: bool
    notice: str
    seeds: Mapping[str, int]
    instrument: Mapping[str, DeviceEntry]
    calibrations: Mapping[str, CalibrationEntry]
    reservoir: Mapping[str, Value]
    protocol_path: str = ""
    fit_card: str = ""
    fit_kernel: str = ""


@dataclass(frozen=True)
class HeaderGroup:
    """A group that the header fills.

    Parameters
    ----------
    path
        Path under ``/entry``.
    nx_class
        Its NeXus class.
    kind
        Name as given where the path could not keep it; else empty.
    """

    path: str
    nx_class: str
    kind: str = ""


@dataclass(frozen=True)
class Written:
    """Everything that a header puts into a file.

    Parameters
    ----------
    groups
        Groups beside those of ``layout.GROUPS``.
    scalars
        Each value with its declaration.
    """

    groups: tuple[HeaderGroup, ...]
    scalars: tuple[tuple[Scalar, Value], ...]


def compose(header: Header, environment: Environment) -> Written:
    """Turn a header into groups and scalars.

    Parameters
    ----------
    header
        What is known of the run.
    environment
        Where it runs.

    Returns
    -------
    written
        In the order of the layout.

    Raises
    ------
    ValueError
        A name is not allowed, or a field is unknown or missing.
    """
    own = _own(header, environment)
    scalars: list[tuple[Scalar, Value]] = [(s, own[s.path]) for s in layout.SCALARS]
    scalars += _reservoir(header.reservoir)
    groups: list[HeaderGroup] = []
    for role, entry in header.instrument.items():
        base = f"instrument/{check_name(role)}"
        declared = layout.INSTRUMENT.get(role, layout.OTHER_DEVICE)
        groups.append(HeaderGroup(base, declared.nx_class))
        scalars += _device(base, declared, entry)
    for kind, calibration in header.calibrations.items():
        base = f"calibration/{check_name(kind.replace('-', '_'))}"
        groups.append(HeaderGroup(base, "NXcollection", kind))
        scalars += _calibration(base, calibration)
    return Written(tuple(groups), tuple(scalars))


def check_name(name: str) -> str:
    """Return the name, if a record may hold it.

    Raises
    ------
    ValueError
        It is not made of small letters, digits and underscores.
    """
    if not _NAME.fullmatch(name):
        text = f"record: name={name!r}, expected small letters, digits and underscores."
        raise ValueError(text)
    return name


def unit(name: str) -> str:
    """Return the unit that a name ends in; empty where it has none."""
    return _UNIT_NAMES.get(name.rpartition("_")[2], "") if "_" in name else ""


def _own(header: Header, environment: Environment) -> dict[str, Value]:
    given = header.protocol_text.encode()
    return {
        "title": header.title,
        "kind": header.kind,
        "start_time": datetime.now(UTC).isoformat(),
        "run_uuid": str(uuid.uuid4()),
        "program_name": "labctl",
        "layout_version": layout.VERSION,
        "simulated": header.simulated,
        "notice": header.notice,
        "status": "running",
        "end_time": "",
        "result": "{}",
        "protocol/type": "application/yaml",
        "protocol/data": header.protocol_text,
        "protocol/path": header.protocol_path,
        "protocol/resolved": json.dumps(header.protocol_resolved),
        "protocol/sha256": hashlib.sha256(given).hexdigest(),
        "bench/name": header.bench_name,
        "bench/type": "application/yaml",
        "bench/data": header.bench_text,
        "bench/sha256": header.bench_sha256,
        "environment/python": environment.python,
        "environment/packages": environment.packages,
        "environment/git_commit": environment.git_commit,
        "environment/git_diff": environment.git_diff,
        "environment/git_dirty": environment.git_dirty,
        "environment/hostname": environment.hostname,
        "environment/platform": environment.platform,
        "environment/argv": environment.argv,
        "environment/threads": environment.threads,
        "environment/fit_card": header.fit_card,
        "environment/fit_kernel": header.fit_kernel,
        "environment/seeds": json.dumps(dict(header.seeds)),
    }


def _reservoir(given: Mapping[str, Value]) -> Iterator[tuple[Scalar, Value]]:
    if not given:
        return
    expected = [scalar.path for scalar in layout.RESERVOIR]
    if sorted(given) != sorted(expected):
        text = f"record: reservoir={sorted(given)}, expected {sorted(expected)}."
        raise ValueError(text)
    for scalar in layout.RESERVOIR:
        yield _under("reservoir", scalar), given[scalar.path]


def _device(
    base: str, declared: layout.DeviceFields, entry: DeviceEntry
) -> Iterator[tuple[Scalar, Value]]:
    if entry.identity is not None:
        for name in layout.IDENTITY:
            text = f"{name.capitalize()}, as read from the device"
            yield Scalar(f"{base}/{name}", "str", text), getattr(entry.identity, name)
    settings = json.dumps(dict(entry.settings))
    yield Scalar(f"{base}/settings", "str", "Settings at the start, JSON"), settings
    known = {scalar.path: scalar for scalar in declared.fields}
    unknown = sorted(set(entry.fields) - set(known))
    if unknown:
        text = f"record: {base}={unknown}, expected some of {sorted(known)}."
        raise ValueError(text)
    for name, scalar in known.items():
        if name in entry.fields:
            yield _under(base, scalar), entry.fields[name]


def _calibration(base: str, entry: CalibrationEntry) -> Iterator[tuple[Scalar, Value]]:
    merit = json.dumps(dict(entry.figure_of_merit))
    own = (entry.source, entry.source_sha256, entry.created, merit)
    for scalar, value in zip(layout.CALIBRATION, own, strict=True):
        yield _under(base, scalar), value
    for name, content in entry.values.items():
        if content is None:
            continue
        dtype = "str" if isinstance(content, str) else np.asarray(content).dtype.str
        path = f"{base}/{check_name(name)}"
        yield Scalar(path, dtype, "Value of the calibration", unit(name)), content


def _under(base: str, scalar: Scalar) -> Scalar:
    return Scalar(f"{base}/{scalar.path}", scalar.dtype, scalar.text, scalar.units)
