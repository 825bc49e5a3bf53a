"""From a record that was left unfinished to a job that goes on with it.

Everything comes from the record itself: protocol and operating point. The bench
must be the one that it names, byte for byte, with the same devices and calibrations.
On a simulated bench what was recorded is done again and compared: the run ends bit by
bit as if it had never been interrupted. On a real one it goes on from what was
recorded (:mod:`labctl.run.recall`).
"""

import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import torch

from labctl import bench as benches
from labctl import document
from labctl.bench import BenchSource
from labctl.errors import InputError
from labctl.protocol import ADAPTER, AnyProtocol, StudyProtocol
from labctl.recording.reader import Record
from labctl.recording.writer import take
from labctl.run import checkpoint, prepare
from labctl.run.convergence import Light
from labctl.run.prepare import Job, job_of
from labctl.run.setting import (
    Desk,
    Fitting,
    Options,
    Setting,
    Unfinished,
    operating_point,
)

# Another version of these may round otherwise.
NUMERICS = ("torch", "numpy")


def choose(protocol: str | None, path: Path | None, options: Options) -> Job:
    """Prepare a new run, or the rest of an old one.

    Parameters
    ----------
    protocol
        Name of a protocol, for a new run.
    path
        Record of the old one.
    options
        What the command line adds; an old run takes the bench only.

    Returns
    -------
    job
        To be executed; nothing was opened or changed.

    Raises
    ------
    InputError
        Neither, both, or something is refused.
    """
    if path is None and protocol is not None:
        return prepare.prepare(protocol, options)
    if path is None or protocol is not None or options != Options(bench=options.bench):
        text = (
            "run: expected a protocol, or --resume RUN.h5 with no other option than "
            "--bench: the record knows the rest."
        )
        raise InputError(text)
    return unfinished(path, bench=options.bench)


def unfinished(path: Path, *, bench: str | None = None) -> Job:
    """Read an unfinished record and check that it can go on here.

    Parameters
    ----------
    path
        The record.
    bench
        Where the bench file is, if its name does not tell; None looks for the
        name in the record.

    Returns
    -------
    job
        To be executed; nothing was opened or changed.

    Raises
    ------
    InputError
        It is no record, is complete, its writer lives, or bench or software
        are not those that it began with.
    """
    with Record.open(path) as record:
        # A record is taken for a moment: who lives keeps it.
        take(path).release()
        if record.status == "complete":
            text = (
                f"{path}: status=complete, expected a run that was interrupted. There "
                "is nothing to go on with; look at it with labctl report."
            )
            raise InputError(text)
        if record.kind == "study" and not record.bench_name:
            return job_of(_desk(record, bench))
        source = _bench(record, bench)
        _check_software(record)
        _check_card(record)
        return job_of(_setting(record, source))


def _desk(record: Record, bench: str | None) -> Desk:
    """Go on with a study that has no bench: what stands is not done again.

    Raises
    ------
    InputError
        A bench is named, or the software is not that it began with.
    """
    if bench is not None:
        text = f"{record.path}: --bench with a study that has none. Leave it out."
        raise InputError(text)
    _check_software(record)
    where = f"{record.path}: protocol"
    found = document.parse(json.dumps(record.resolved), StudyProtocol, where=where)
    given = Path(record.protocol_path) if record.protocol_path else None
    return Desk(
        replace(found, text=record.protocol_text, path=given),
        record.path,
        Options(out=record.path),
        unfinished=True,
    )


def _bench(record: Record, name: str | None) -> BenchSource:
    source = benches.load(name or record.bench_name)
    if source.sha256 != record.bench_sha256:
        text = (
            f"{record.path}: bench {source.path} has sha256 {source.sha256[:12]}, "
            f"expected {record.bench_sha256[:12]} as the run began with. Restore the "
            "file, or name it with --bench."
        )
        raise InputError(text)
    return source


def _check_software(record: Record) -> None:
    packages = record.environment["packages"]
    for name in NUMERICS:
        have, want = metadata.version(name), packages.get(name)
        if have != want:
            text = (
                f"{record.path}: {name}={have}, expected {want} as the run began "
                f"with: another version rounds otherwise. Install {name}=={want}, or "
                "run the protocol anew."
            )
            raise InputError(text)


def _check_card(record: Record) -> None:
    """Refuse a run that was fitted on a card where there is none.

    Raises
    ------
    InputError
        It is said of the record: what its protocol asks for cannot be changed.
    """
    # Records of before say nothing of a card, for there was none.
    want = str(record.environment.get("fit_card", ""))
    if want and not torch.cuda.is_available():
        text = (
            f"{record.path}: torch finds no graphics card, expected {want}, which the "
            "surrogate was fitted on when the run began: the processor rounds "
            "otherwise. Resume where there is one, or run the protocol anew with "
            "surrogate.device: cpu."
        )
        raise InputError(text)


def _setting(record: Record, source: BenchSource) -> Setting[AnyProtocol]:
    # The resolved protocol has the overrides in it, which the text has not.
    where = f"{record.path}: protocol"
    found = document.parse(json.dumps(record.resolved), ADAPTER, where=where)
    given = Path(record.protocol_path) if record.protocol_path else None
    simulate = record.simulated and not source.file.simulated
    made = benches.construct(source, simulate=simulate) if record.simulated else None
    light = "SIMULATED" if record.simulated else "real devices"
    return Setting(
        document=replace(found, text=record.protocol_text, path=given),
        source=source,
        entry=operating_point(found, source),
        out=record.path,
        options=Options(out=record.path, simulate=simulate),
        overrides=(),
        light=None if made is None else Light.among([made]),
        headline=f"bench: {source.file.name} (as {record.path} began), {light}",
        unfinished=Unfinished(
            simulated=record.simulated,
            instrument=record.instrument,
            calibrations=record.calibrations,
            threads=int(record.environment["threads"]),
            # Records of before say nothing of a card or a kernel: there was none.
            fitting=Fitting(
                card=str(record.environment.get("fit_card", "")),
                kernel=str(record.environment.get("fit_kernel", "")),
            ),
            checkpoint=checkpoint.newest(record),
        ),
    )
