"""Check files of any kind, nothing opened: every fault of every file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from labctl import bench, document
from labctl.calibration import BenchFile, CalibrationRecord, Current, FailedCalibration
from labctl.errors import (
    CalibrationError,
    Fault,
    InputError,
    ProtocolError,
)
from labctl.protocol import ADAPTER
from labctl.run import prepare
from labctl.run.setting import check_fit


@dataclass(frozen=True)
class Checked:
    """What was found in the files.

    Parameters
    ----------
    good
        Files without a fault, with what each is.
    faults
        Every fault, in order.
    """

    good: tuple[tuple[str, str], ...]
    faults: tuple[Fault, ...]

    def lines(self) -> list[str]:
        """Give a line for each good file; :meth:`raise_faults` tells the others."""
        return [f"{name}: a valid {what}" for name, what in self.good]

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "valid": [name for name, _ in self.good],
            "faults": [
                {
                    "where": fault.where,
                    "line": fault.line,
                    "column": fault.column,
                    "key": fault.key,
                    "text": fault.text,
                }
                for fault in self.faults
            ],
        }

    def raise_faults(self) -> None:
        """Raise what was found, if anything was.

        Raises
        ------
        ProtocolError
            Every fault.
        """
        if self.faults:
            raise ProtocolError(self.faults)


Judge = Callable[[bench.BenchSource, bench.Bench | None], Sequence[Fault]]


def _says_nothing(
    source: bench.BenchSource, made: bench.Bench | None
) -> Sequence[Fault]:
    del source, made
    return ()


def validate(
    names: Sequence[str],
    check: Callable[[Path], None] = prepare.check,
    judge: Judge = _says_nothing,
) -> Checked:
    """Check protocols, bench files and calibration records.

    Parameters
    ----------
    names
        Paths, names of shipped protocols, or names of benches.
    check
        Compares a protocol with its data and its bench.
    judge
        Finds what is wrong with what a bench file says of calibrations; its bench is
        None where that cannot be made.

    Returns
    -------
    checked
        What was found.
    """
    good: list[tuple[str, str]] = []
    faults: list[Fault] = []
    for name in names:
        try:
            good.append((name, _check(name, check, judge)))
        except ProtocolError as error:
            faults += error.faults
        except InputError as error:
            faults.append(Fault(name, None, None, "", str(error)))
    return Checked(tuple(good), tuple(faults))


def _check(
    name: str,
    check: Callable[[Path], None],
    judge: Judge,
) -> str:
    path = _find(name)
    there = document.glance(path)
    kinds = [_KINDS[marker] for marker in _KINDS if marker in there]
    what, model = kinds[0] if kinds else ("protocol", ADAPTER)
    document.read(path, model)
    if what == "protocol":
        check(path)
    if what != "bench file":
        return what
    unchecked = _check_devices(path, judge)
    _check_records(path)
    return "; ".join([what, *(f"not checked: {each}" for each in unchecked)])


def _check_devices(path: Path, judge: Judge) -> list[str]:
    """Check drivers, their options and the operating point as a run does.

    Raises
    ------
    ProtocolError
        Every fault.
    """
    source = bench.load(path)
    faults, unchecked, made = bench.faults(source)
    if made is not None:
        try:
            check_fit(source.document, made, source.file.reservoir)
        except ProtocolError as error:
            faults += error.faults
    faults += judge(source, made)
    if faults:
        raise ProtocolError(document.in_order(faults))
    return unchecked


def _check_records(path: Path) -> None:
    if not path.with_name("current.yaml").exists():
        return
    try:
        bench.load(path).records()
    except CalibrationError as error:
        raise ProtocolError([Fault(str(path), None, None, "", str(error))]) from error


def _find(name: str) -> Path:
    if name in document.benches():
        return document.find_bench(name)
    return document.find(name, "protocols")


_KINDS: dict[str, tuple[str, TypeAdapter[Any] | type[Any]]] = {
    "devices": ("bench file", BenchFile),
    "failed": ("calibration that failed", FailedCalibration),
    "bench_sha256": ("calibration record", CalibrationRecord),
    "records": ("list of calibration records", Current),
}
