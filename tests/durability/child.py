"""What the tests of durability do in processes of their own.

As a program it is a nursery: it imports everything once and forks a child for each
order that it reads, so that a file which hangs or crashes its reader costs nobody
else anything. A child that takes too long is ended by the kernel, wherever it is.

Every value of the record is a function of its row, so that whoever finds a row
knows what must be in it.
"""

import importlib
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from labctl import cli
from labctl.errors import InputError, LabctlError
from labctl.recording import environment, reopen
from labctl.recording.header import Header
from labctl.recording.layout import ShotSpec, train_layout
from labctl.recording.reader import Record
from labctl.recording.writer import Recorder

# Frames of a page each, a row of levels of odd length, gzip nowhere.
PLAN = train_layout(ShotSpec(7, 3, frame_shape=(32, 64)))
HEADER = Header(
    title="durability",
    kind="train",
    protocol_text="",
    protocol_resolved={},
    bench_name="",
    bench_text="",
    bench_sha256="",
    simulated=True,
    notice="",
    seeds={},
    instrument={},
    calibrations={},
    reservoir={
        "exposure_s": 1.0,
        "gain_db": 0.0,
        "power_mw": 1.0,
        "region": [0, 0, 32, 64],
        "bins": [1, 3],
        "macropixels": [1, 7],
    },
)
BATCH = 5
TABLES = ("shots", "training", "probes")
# Large enough to be written in pieces, of a size that is no multiple of a page.
STATE_BYTES = 20_011
# A busy computer gives a child so much less than all of its time.
PATIENCE = 15


def expect(holds: bool, text: object) -> None:
    """Assert, also where Python was told to leave assertions out.

    Raises
    ------
    AssertionError
        It does not hold.
    """
    if not holds:
        raise AssertionError(text)


def values(table: str, start: int, stop: int) -> dict[str, NDArray[Any]]:
    """Everything that belongs into some rows of a table and its companions."""
    number = np.arange(start, stop)
    found: dict[str, NDArray[Any]] = {}
    for grows in PLAN.together(table):
        for column in grows.columns:
            if column.filled:
                continue
            shape = (len(number), *column.shape)
            if column.dtype.startswith("S"):
                found[column.name] = np.full(shape, "train")
                continue
            wide = number.reshape(-1, *[1] * len(column.shape)) * 7 + 1
            inner = np.arange(max(1, int(np.prod(column.shape)))).reshape(
                (1, *column.shape)
            )
            row = (wide + inner if column.shape else wide) % 251
            found[column.name] = np.broadcast_to(row, shape).astype(column.dtype)
    return found


def state(step: int) -> dict[str, Any]:
    """What the checkpoint of a step holds."""
    return {"step": step, "bytes": np.full(STATE_BYTES, step % 256, dtype=np.uint8)}


def one_round(recorder: Recorder, told: Callable[[Recorder], None]) -> None:
    """Do what a training step does: shots, probes, a row, at times a checkpoint."""
    lengths = recorder.lengths
    step = lengths["steps"]
    for table, count in (("shots", BATCH), ("probes", 2), ("training", 1)):
        counter = PLAN.together(table)[0].counter
        start = lengths[counter]
        recorder.append(table, **values(table, start, start + count))
        if table == "shots":
            recorder.commit()
            told(recorder)
    if step % 2:
        recorder.checkpoint(step + 1, "step", state(step + 1))
    recorder.event("info", "test", f"step {step}")
    recorder.commit()
    told(recorder)


def write(path: Path, rounds: int, descriptor: int) -> None:
    """Begin a record or go on with it; say on a descriptor what is safe."""

    def told(recorder: Recorder) -> None:
        os.write(descriptor, json.dumps(recorder.lengths).encode() + b"\n")

    made = (
        Recorder.resume(path, layout=PLAN)
        if path.exists()
        else Recorder.create(path, layout=PLAN, header=HEADER)
    )
    with made as recorder:
        told(recorder)
        done = 0
        while done != rounds:
            one_round(recorder, told)
            done += 1


def verify(path: Path, acknowledged: Mapping[str, int]) -> dict[str, int]:
    """Read all of a record, and compare every value with what belongs there."""
    with Record.open(path) as record:
        lengths = record.lengths
        for name, least in acknowledged.items():
            text = f"{name}: {lengths[name]} rows, expected at least {least}"
            expect(lengths[name] >= least, text)
        for table in TABLES:
            expected = values(table, 0, lengths[PLAN.together(table)[0].counter])
            for grows in PLAN.together(table):
                for column in grows.columns:
                    found = record.column(grows.name, column.name)
                    wanted = expected.get(column.name, np.arange(len(found)))
                    np.testing.assert_array_equal(found, wanted, column.name)
        for number, entry in enumerate(record.checkpoints()):
            _, _, kept = record.checkpoint(number)
            np.testing.assert_array_equal(kept["bytes"], state(entry.step)["bytes"])
        record.events()
        record.writers()
    return lengths


def check(path: Path, acknowledged: Mapping[str, int]) -> None:
    """Read what a kill left; go on with it; read it again, plainly too."""
    before = verify(path, acknowledged)
    with Record.open(path) as record:
        complete = record.status == "complete"
    if complete:  # killed after the last word: refused, and nothing lost
        try:
            Recorder.resume(path, layout=PLAN).close()
        except InputError as error:
            expect("nothing to go on with" in str(error), error)
        else:
            expect(holds=False, text="a complete record was gone on with")
        expect(verify(path, before) == before, "rows were lost")
        return
    with Recorder.resume(path, layout=PLAN) as recorder:
        one_round(recorder, lambda _: None)
    after = verify(path, before)
    expect(after["shots"] == before["shots"] + BATCH, (before, after))
    with h5py.File(path, "r") as file:
        expect(file["entry/status"][()] == b"complete", "not complete")


def check_empty(path: Path) -> None:
    """Read and go on with what holds nothing yet: a refusal in words, no more."""
    for attempt in (
        lambda: verify(path, {}),
        lambda: Recorder.resume(path, layout=PLAN).close(),
    ):
        try:
            attempt()
        except LabctlError as error:
            expect("expected" in str(error), error)


def read_everything(path: Path) -> None:
    """Ask a record for all that a report may ask."""
    with Record.open(path) as record:
        for table in record.tables:
            record.table(table)
        for number in range(len(record.checkpoints())):
            record.checkpoint(number)
        for name in ("title", "notice", "resolved", "result", "seeds", "environment"):
            getattr(record, name)
        for name in ("reservoir", "instrument", "calibrations", "protocol_path"):
            getattr(record, name)
        record.events()
        record.writers()
        record.ledger()


def check_strange(path: Path) -> None:
    """Do everything with bytes that somebody else made: it works, or is refused."""
    content = path.read_bytes()
    for attempt in (
        lambda: read_everything(path),
        lambda: reopen.mend(path),
        lambda: Recorder.resume(path, layout=PLAN).close(),
    ):
        path.write_bytes(content)
        try:
            attempt()
        except LabctlError as error:
            expect("expected" in str(error), error)


def run_labctl(words: Sequence[str], told: Path, temporary: str) -> None:
    """Do what the command does; say after each commit what is safe."""
    commit = Recorder.commit
    descriptor = os.open(told, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def telling(self: Recorder, *, fsync: bool = False) -> None:
        commit(self, fsync=fsync)
        os.write(descriptor, json.dumps(self.lengths).encode() + b"\n")

    Recorder.commit = telling  # type: ignore[method-assign]
    tempfile.tempdir = temporary
    sys.argv = ["labctl", *words]
    cli.main()


def obey(order: Mapping[str, Any]) -> None:
    """Do one order, in the child."""
    os.chdir(order.get("folder", "."))
    if order["do"] == "labctl":
        run_labctl(order["words"], Path(order["told"]), order["temporary"])
    path = Path(order["path"])
    if order["do"] == "write":
        told = os.open(order["told"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        write(path, order.get("rounds", -1), told)
    elif order["do"] == "verify":
        verify(path, order["acknowledged"])
    elif order["do"] == "check":
        check(path, order["acknowledged"])
    elif order["do"] == "check_strange":
        check_strange(path)
    else:
        check_empty(path)


def fork(order: Mapping[str, Any]) -> int:
    """Start a child for an order."""
    child = os.fork()
    if child:
        return child
    code, limit_s = 1, int(order["limit_s"])
    try:
        # Of its own time, for what turns in circles; of everybody's, for what waits.
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
        signal.alarm(PATIENCE * limit_s)
        obey(order)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - told to whoever ordered it
        Path(order["error"]).write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)


def main() -> None:
    """Start a child for each line: print its number, and how it ended."""
    # What a child of a fork must not pay for, and what has no part in this.
    from labctl.recording import checkpoint  # noqa: PLC0415 - a second of torch

    checkpoint.pack({})
    environment._git = lambda _root: ("", "", False)  # type: ignore[assignment]
    environment.capture()
    if "labctl" in sys.argv:
        from labctl.comparison import run  # noqa: PLC0415 - some more seconds

        importlib.import_module("sklearn.datasets")
        torch = sys.modules["torch"]
        # Its first use loads a second's worth of it.
        torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
        expect(callable(run.choose), run)
    print("ready", flush=True)  # noqa: T201 - the parent waits for it
    for line in sys.stdin:
        child = fork(json.loads(line))
        print("started", child, flush=True)  # noqa: T201
        _, status = os.waitpid(child, 0)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    if len(sys.argv) > 2:
        write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
