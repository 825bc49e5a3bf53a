"""Where calibrations are kept: immutable records, and the list of those in force."""

import hashlib
import io
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue
from pydantic_core import to_json
from ruamel.yaml import YAML

from labctl import bench as benches
from labctl import document
from labctl.bench import FOLDER, BenchSource
from labctl.calibration import (
    CalibrationRecord,
    Current,
    FailedCalibration,
    RecordFile,
    in_force,
)
from labctl.errors import CalibrationError, InputError

CURRENT = "current.yaml"


def home(source: BenchSource) -> tuple[BenchSource, str]:
    """Find where the records of a bench go: beside its file, or beside a copy of it.

    A bench that labctl ships is package data, which nobody writes to: its folder is
    copied to ``calibrations/<bench>`` in the current directory, where its name finds
    it first from then on. The bench file stays the same, byte by byte.

    Parameters
    ----------
    source
        The bench file.

    Returns
    -------
    source, note
        The bench file beside which records go; a sentence if that is a copy.

    Raises
    ------
    InputError
        Nothing can be written there.
    """
    folder = source.path.parent
    if not document.is_shipped(source.path):
        _check_writable(folder)
        return source, ""
    copy = Path(FOLDER) / source.file.name
    if copy.exists():
        text = (
            f"{copy}: there already, expected no such folder: the bench that labctl "
            f"ships would be copied there. Calibrate it by --bench {copy}, or move it."
        )
        raise InputError(text)
    try:
        copy.parent.mkdir(exist_ok=True)
        shutil.copytree(folder, copy)
    except OSError as error:
        text = (
            f"{copy}: cannot be made ({error.strerror}), expected a place for the "
            "records. Call labctl where you may write."
        )
        raise InputError(text) from error
    moved = replace(source, path=copy / source.path.name)
    note = (
        f"records: {copy} (a copy of the bench that labctl ships; from here "
        f"--bench {source.file.name} means it)"
    )
    return moved, note


def _check_writable(folder: Path) -> None:
    probe = folder / ".labctl-writable"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        text = (
            f"{folder}: cannot be written to ({error.strerror}), expected a place for "
            "calibration records. Copy the bench's folder to where you may write."
        )
        raise InputError(text) from error


def install(
    folder: Path,
    stem: str,
    made: Mapping[str, Any],
    values: Mapping[str, Any],
) -> Path:
    """Write a record that is in force from now on.

    Parameters
    ----------
    folder
        The bench's folder.
    stem
        Name of the record, without ``.yaml``.
    made
        Fields of :class:`labctl.calibration.CalibrationRecord`.
    values
        Its values with ``kind``; arrays are written beside it.

    Returns
    -------
    path
        The record.

    Raises
    ------
    CalibrationError
        It is there already, or cannot be written.
    """
    plain: dict[str, JsonValue] = {}
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            file = f"{stem}.npy" if name == "phase_rad" else f"{stem}-{name}.npy"
            plain[name] = _write_array(folder / file, value)
        else:
            plain[name] = value
    fields = {**made, "origin": "measured", "values": plain}
    record = CalibrationRecord.model_validate_json(_json(fields))
    path = folder / f"{stem}.yaml"
    _write_new(path, _yaml(record.model_dump(mode="json", exclude_defaults=True)))
    put_in_force(folder, str(plain["kind"]), path.name)
    return path


def keep(folder: Path, stem: str, made: Mapping[str, Any], why: str) -> Path:
    """Write a calibration that failed: kept, and not in force.

    Parameters
    ----------
    folder
        The bench's folder.
    stem
        Its name, which becomes ``<stem>-failed.yaml``.
    made
        Fields of :class:`labctl.calibration.FailedCalibration`, ``why`` left out.
    why
        What was wrong.

    Returns
    -------
    path
        The record.
    """
    failed = FailedCalibration.model_validate_json(_json({**made, "why": why}))
    path = folder / f"{stem}-failed.yaml"
    _write_new(path, _yaml(failed.model_dump(mode="json", exclude_defaults=True)))
    return path


def put_in_force(folder: Path, kind: str, name: str) -> None:
    """Name a record in ``current.yaml``, instead of another of its kind.

    Parameters
    ----------
    folder
        The bench's folder.
    kind
        Kind of the record.
    name
        Its file.
    """
    path = folder / CURRENT
    head, records = "# The calibration records in force.", []
    if path.is_file():
        bench_path = folder / "bench.yaml"
        digest = benches.load(bench_path).sha256
        found = in_force(bench_path, digest)
        records = [each.name for key, each in found.items() if key != kind]
    current = Current(schema_version=1, records=[*records, name])
    text = f"{head}\n{_yaml(current.model_dump(mode='json')).decode()}"
    _write_whole(path, text.encode())


def hash_of(path: Path) -> RecordFile:
    """Name a file with its hash."""
    with path.open("rb") as stream:  # it may be larger than the memory
        digest = hashlib.file_digest(stream, "sha256")
    return RecordFile(file=path.as_posix(), sha256=digest.hexdigest())


def _write_array(path: Path, array: np.ndarray[Any, Any]) -> dict[str, JsonValue]:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array, dtype=np.float64), allow_pickle=False)
    raw = buffer.getvalue()
    _write_new(path, raw)
    return {"file": path.name, "sha256": hashlib.sha256(raw).hexdigest()}


def _write_new(path: Path, raw: bytes) -> None:
    """Write a file that is there whole or not at all.

    Raises
    ------
    CalibrationError
        It is there already, or cannot be written.
    """
    if path.exists():
        text = f"{path}: there already, expected none: records never change. Move it."
        raise CalibrationError(text)
    try:
        _write_whole(path, raw)
    except OSError as error:
        text = f"{path}: cannot be written ({error.strerror}). Make room there."
        raise CalibrationError(text) from error


def _write_whole(path: Path, raw: bytes) -> None:
    # Whoever reads finds what was there before or all of this, also after a kill; what
    # a killed one left is written over.
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as stream:
        stream.write(raw)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(new, path)  # noqa: PTH105 - says what happens


def _json(fields: Mapping[str, Any]) -> bytes:
    return to_json(dict(fields))


def _yaml(tree: Mapping[str, Any]) -> bytes:
    writer = YAML()
    writer.default_flow_style = False
    writer.width = 88
    stream = io.BytesIO()
    writer.dump(dict(tree), stream)
    return stream.getvalue()
