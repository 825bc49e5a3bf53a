"""Dark on every way out: a real run is ended in every way that we know.

The light is read from the beam file, which outlives run and guard; the time is that
since the last heartbeat of the run, which it writes down for this test. With
``LABCTL_WRITE_TABLES=1`` and ``-p no:xdist`` the section of
``docs/reference/reliability.md`` is written anew.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from drivers.sim.beam import Beam, BeamState
from labctl import state
from labctl.recording.reader import Record

if sys.platform == "win32":
    pytest.skip("needs POSIX signals", allow_module_level=True)
pytestmark = pytest.mark.slow
Section = Callable[[str, str, str], None]
SHIPPED = Path(__file__).parents[1] / "calibrations" / "sim-small"
HEARTBEAT_S: Final = 2.0
PATIENCE_S: Final = 120.0  # of this test, on a busy computer
PROTOCOL = """\
schema_version: 1
kind: train
title: out
bench: lab
data: {set: moons, train: 16, validation: 4, test: 8}
model:
  - {layer: device}
  - {layer: standardise}
  - {layer: linear}
surrogate: {name: twin-modes, modes: 4, fits_per_step: 1}
probes: {held_out_per_step: 2, noise_repeats: 4}
training: {batch: 8, validate_every: 0}
budget: {shots: 100000}
"""
# What runs in the process that is ended: the command line, and a note of each beat.
CHILD = """
import os, signal, struct, sys, tempfile, time
# Whoever starts tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.chdir({home!r})
tempfile.tempdir = {home!r} + "/temporary"
os.environ["LABCTL_STATE"] = {home!r} + "/state"
said = os.open("said.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
os.dup2(said, 1), os.dup2(said, 2)
sys.stdout = open(1, "w", buffering=1, closefd=False)
sys.stderr = open(2, "w", buffering=1, closefd=False)
from labctl.bench import Bench
from labctl.guard import GuardedLaser
beat, beats = Bench.beat, os.open("beats", os.O_CREAT | os.O_WRONLY)
emit = GuardedLaser.emission
def noted(self):
    beat(self)
    os.pwrite(beats, struct.pack("<d", time.time()), 0)
def told(self, on):
    emit(self, on)
    if on:  # a sign of life as well
        os.pwrite(beats, struct.pack("<d", time.time()), 0)
Bench.beat, GuardedLaser.emission = noted, told
count = [0]
def at_beat(number, do):
    known = Bench.beat
    def counted(self):
        known(self)
        count[0] += 1
        if count[0] == number:
            do(self)
    Bench.beat = counted
{first}
sys.argv = ["labctl", *{words!r}]
from labctl.cli import main
main()
"""


@dataclass
class Run:
    """A run that can be ended, and what is known of it from outside."""

    home: Path
    process: BaseProcess
    beam: Beam | None = None
    lit_s: float = 0.0

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def guard(self) -> int:
        (owner,) = (self.home / "state").glob("lab.guard-*.json")
        return int(re.findall(r"guard-(\d+)", owner.name)[0])

    def said(self) -> str:
        path = self.home / "said.txt"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def wait(self, is_so: Callable[[], bool], what: str) -> None:
        due = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < due, f"{what}: {self.said()[-2000:]}"
            time.sleep(0.005)  # another process on real time is watched

    def wait_lit(self) -> None:
        """Wait until there is light, or was: a run may end before anybody looks."""

        def lit() -> bool:
            if self.beam is None:
                for path in (self.home / "temporary").glob("labctl-*/beam"):
                    if path.read_bytes().startswith(b"LABBEAM1"):  # it was written
                        self.beam = Beam.open(path)
            return self.light().emission or not self.process.is_alive()

        self.wait(lit, "never lit")
        assert self.beam is not None, self.said()[-2000:]
        state = self.light()
        self.lit_s = state.since_s if state.emission else 0.0

    def light(self) -> BeamState:
        if self.beam is None:
            return BeamState(False, False, 0.0, 0.0, 0.0)
        return self.beam.read()

    def wait_dark(self) -> float:
        """Time from the last heartbeat until it is dark."""
        self.wait(lambda: not self.light().emission, "not dark")
        raw = (self.home / "beats").read_bytes()
        # Where it was not even told so, its light was the last sign of life.
        last_s = struct.unpack("<d", raw)[0] if raw else self.lit_s
        assert last_s > 0, f"it was never lit: {self.said()[-2000:]}"
        return self.light().since_s - float(last_s)

    def wait_training(self) -> None:
        self.wait_lit()
        self.wait(lambda: "\ntraining " in self.said(), "does not train")

    def signal(self, *names: str) -> None:
        for name in names:
            os.kill(self.pid, getattr(signal, name))

    def end(self) -> int:
        self.process.join(PATIENCE_S)
        assert self.process.exitcode is not None, self.said()[-2000:]
        return self.process.exitcode


@dataclass(frozen=True)
class Way:
    """A way out: what ends the run, and how it has to end.

    Parameters
    ----------
    what, by
        The row of the table: what happens, and what makes dark.
    act
        Done from outside once there is light; None where it happens inside.
    bench
        Changes to the bench file.
    first
        Run in the process, before the command.
    words
        More words of the command.
    code, status
        Exit code and status of the record; None where nobody can tell.
    said
        What the run says.
    latched
        Whether the bench stays latched.
    """

    what: str
    by: str
    act: Callable[[Run], None] | None = None
    bench: Mapping[str, Any] = field(default_factory=dict)
    first: str = ""
    words: tuple[str, ...] = ()
    code: int | None = None
    status: str | None = "failed"
    said: str = ""
    latched: bool = False


def sent(*names: str) -> Callable[[Run], None]:
    def act(run: Run) -> None:
        run.wait_training()
        run.signal(*names)

    return act


def freeze(run: Run) -> None:
    run.wait_training()
    run.signal("SIGSTOP")
    run.wait_dark()
    run.signal("SIGCONT")


def kill_guard(run: Run) -> None:
    run.wait_training()
    os.kill(run.guard, signal.SIGKILL)


def freeze_guard(run: Run) -> None:
    run.wait_training()
    guard = run.guard
    os.kill(guard, signal.SIGSTOP)
    run.wait_dark()
    os.kill(guard, signal.SIGKILL)  # else the run waits 15 s for its answer


def kill_both(run: Run) -> None:
    run.wait_training()
    guard = run.guard
    os.kill(guard, signal.SIGSTOP)
    run.signal("SIGKILL")
    os.kill(guard, signal.SIGKILL)


def call_dark(run: Run) -> None:
    run.wait_training()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABCTL_STATE", str(run.home / "state"))
        state.latch("lab", "a person asked for dark.")  # what labctl dark does first


def twice(run: Run) -> None:
    run.wait_training()
    run.signal("SIGINT")
    run.wait_dark()
    run.signal("SIGINT")


def broken(role: str, **fault: object) -> dict[str, Any]:
    """A bench whose device breaks; nothing that hangs is waited for long."""
    options = {"faults": [fault]}
    return {"devices": {role: {"options": options}}, "limits": {"call_s": 1.0}}


METER = {"meter": {"low": 1.0, "high": 9.0, "oldest_s": 2.0}}
OUT_OF_RANGE = {"meter": {"low": 7.0, "high": 9.0, "oldest_s": 2.0}}
# A degree each second of the bench's time.
WARM = {
    "devices": {
        "thermometer": {
            "driver": "sim.meter",
            "options": {"shows": "temperature", "k_per_h": 3600.0},
        }
    },
    "limits": {"thermometer": {"low": 15.0, "high": 28.0, "oldest_s": 2.0}},
}
STOP = {"limits": {"on_saturation": "stop"}}
BRIGHT = ("--set", "reservoir.exposure_s=0.02", "--set", "reservoir.gain_db=24")
SILENT = f"was silent for more than heartbeat_s={HEARTBEAT_S:g}"
RAISE = "def fail(bench):\n    raise ZeroDivisionError\nat_beat(40, fail)\n"
SLEEP = "at_beat(40, lambda bench: time.sleep(HEARTBEAT_S + 1))\n".replace(
    "HEARTBEAT_S", str(HEARTBEAT_S)
)
DIGITAL = """
def work(bench):
    with bench.digital(30.0):
        print("digital")
        time.sleep(1.0)
at_beat(40, work)
"""
# Ctrl-C once more, in the moment in which the record begins to be closed.
AGAIN = """
from labctl.recording import writer
quiet = writer.undisturbed
def again():
    signal.raise_signal(signal.SIGINT)
    return quiet()
writer.undisturbed = again
"""
FULL = """
import resource, signal
def fill(bench):
    size = os.stat("run.h5").st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4096, size + 4096))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
at_beat(40, fill)
"""
# The share on which the record lies is gone: every write fails from now on.
GONE = """
def unplug(bench):
    for name in os.listdir("/proc/self/fd"):
        link = "/proc/self/fd/" + name
        if os.path.islink(link) and os.readlink(link).endswith("run.h5"):
            os.dup2(os.open(os.devnull, os.O_RDONLY), int(name))
at_beat(40, unplug)
"""


def finish_digital(run: Run) -> None:
    """Dark while it computes, lit again afterwards; then it is ended."""
    run.wait_lit()
    run.wait(lambda: "digital" in run.said(), "no digital phase")
    assert not run.light().emission
    run.wait_lit()
    run.signal("SIGTERM")


WAYS = {
    "end": Way(
        "the protocol ends", "the run", words=("--set", "budget.shots=80"),
        code=0, status="complete",
    ),
    "bug": Way(
        "an exception anywhere", "the run", first=RAISE, code=1,
        said="ZeroDivisionError",
    ),
    "sigint": Way(
        "Ctrl-C", "the run", sent("SIGINT"), code=130, status="interrupted",
    ),
    "sigint-twice": Way(
        "Ctrl-C twice", "the run", twice, code=130, status="interrupted",
    ),
    "sigint-closing": Way(
        "Ctrl-C, and again as the record is closed", "the run", sent("SIGINT"),
        first=AGAIN, code=130, status="interrupted", said="ending; dark comes first",
    ),
    "sigterm": Way(
        "SIGTERM", "the run", sent("SIGTERM"), code=130, status="interrupted",
    ),
    "sighup": Way(
        "SIGHUP", "the run", sent("SIGHUP"), code=130, status="interrupted",
    ),
    "kill": Way(
        "`kill -9` of the run", "the closing pipe", sent("SIGKILL"),
        code=-9, status="running",
    ),
    "frozen": Way(
        "the run is frozen (SIGSTOP), later goes on", "the heartbeat", freeze,
        code=4, status="stopped", said=SILENT,
    ),
    "hung-camera": Way(
        "a read of the camera never returns", "the run, after `call_s` (1 s here)",
        bench=broken("camera", kind="no_return", at_shot=120),
        code=3, said="no answer within",
    ),
    "hung-panel": Way(
        "a write to the panel never returns", "the run, after `call_s` (1 s here)",
        bench=broken("slm", kind="no_return", at_shot=120),
        code=3, said="no answer within",
    ),
    "hung-laser": Way(
        "a call of the laser never returns", "the guard's deadline",
        bench=broken("laser", kind="no_return", at_command=30),
        code=3, said="no answer in time; the laser was made dark",
    ),
    "guard-killed": Way(
        "the guard, which holds the laser, is killed", "a new guard", kill_guard,
        code=3, said="A new guard made the laser dark",
    ),
    "guard-frozen": Way(
        "the guard is frozen", "the laser's watchdog", freeze_guard, code=3,
    ),
    "both": Way(
        "run and guard are killed in one moment", "the laser's watchdog", kill_both,
        code=-9, status="running",
    ),
    "digital": Way(
        "a long digital phase, announced; then SIGTERM", "the run", finish_digital,
        first=DIGITAL, code=130, status="interrupted",
    ),
    "silent": Way(
        "a long digital phase, not announced", "the heartbeat", first=SLEEP,
        code=4, status="stopped", said=SILENT,
    ),
    "full": Way(
        "the disk is full", "the run", first=FULL, code=5, status=None,
    ),
    "gone": Way(
        "the record's disk is gone", "the run", first=GONE, code=5, status="running",
    ),
    "dark": Way(
        "`labctl dark` from another terminal", "the latch", call_dark,
        code=4, status="stopped", said="latched dark since", latched=True,
    ),
    "interlock": Way(
        "the interlock opens", "the laser; the guard sees it",
        bench=broken("laser", kind="interlock", after_s=1.0),
        code=4, status="stopped", said="faults=interlock open", latched=True,
    ),
    "trip": Way(
        "the laser trips", "the laser; the guard sees it",
        bench=broken("laser", kind="trip", after_s=1.0),
        code=4, status="stopped", said="faults=tripped: over-temp", latched=True,
    ),
    "meter-silent": Way(
        "the meter falls silent", "the run",
        bench={
            **broken("meter", kind="silent", at_shot=120, count=100_000),
            "limits": METER,
        },
        code=4, status="stopped", said="meter: no reading", latched=True,
    ),
    "meter-hung": Way(
        "a reading of the meter never returns", "the run, after `call_s` (1 s here)",
        bench={
            **broken("meter", kind="no_return", at_shot=120, count=100_000),
            "limits": {**METER, "call_s": 1.0},
        },
        code=4, status="stopped", said="meter: no reading", latched=True,
    ),
    "meter-garbage": Way(
        "the meter answers with what is no number", "the run",
        bench={
            **broken("meter", kind="garbage", at_shot=120, count=100_000),
            "limits": METER,
        },
        code=4, status="stopped", said="meter: no reading", latched=True,
    ),
    "meter-stale": Way(
        "the meter repeats an old value", "the run",
        bench={
            **broken("meter", kind="frozen", at_shot=120, count=100_000),
            "limits": METER,
        },
        code=4, status="stopped", said="stale counts as unsafe", latched=True,
    ),
    "meter-range": Way(
        "the meter is out of range", "the run", bench={"limits": OUT_OF_RANGE},
        code=4, status="stopped", said="expected 7 to 9", latched=True,
    ),
    "too-warm": Way(
        "the thermometer is out of range", "the run", bench=WARM,
        code=4, status="stopped", said="expected 15 to 28", latched=True,
    ),
    "saturated": Way(
        "a frame saturates, and the bench says stop", "the run", bench=STOP,
        words=BRIGHT, code=4, status="stopped", said="saturated_px=", latched=True,
    ),
}  # fmt: skip


def merged(tree: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        inner = isinstance(value, Mapping) and isinstance(tree.get(key), dict)
        tree[key] = merged(tree[key], value) if inner else value
    return tree


def made(home: Path, changes: Mapping[str, Any]) -> None:
    """Write protocol and bench; what was given for the shipped bench holds here."""
    folder = home / "calibrations" / "lab"
    shutil.copytree(SHIPPED, folder)
    tree = YAML(typ="safe").load(folder / "bench.yaml")
    merged(tree, {"name": "lab", "limits": {"heartbeat_s": HEARTBEAT_S}})
    text = json.dumps(merged(tree, changes))
    (folder / "bench.yaml").write_text(text, encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    for path in folder.glob("*-2*.yaml"):
        given = path.read_text(encoding="utf-8")
        path.write_text(
            re.sub(r"bench_sha256: \S+", f"bench_sha256: {digest}", given),
            encoding="utf-8",
        )
    (home / "out.yaml").write_text(PROTOCOL, encoding="utf-8")
    (home / "temporary").mkdir()


@pytest.fixture
def start(
    tmp_path: Path, fork: Callable[[Path], BaseProcess]
) -> Iterator[Callable[[Way], Run]]:
    runs: list[Run] = []

    def begin(way: Way) -> Run:
        made(tmp_path, way.bench)
        words = ["run", "out.yaml", "--out", "run.h5", *way.words]
        script = tmp_path / "child.py"
        script.write_text(
            CHILD.format(home=str(tmp_path), first=way.first, words=words)
        )
        runs.append(Run(tmp_path, fork(script)))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.is_alive():
            run.process.kill()
        run.process.join()
        if run.beam is not None:
            run.beam.close()


MEASURED: dict[str, str] = {}


@pytest.mark.parametrize("name", WAYS)
def test_dark_on_every_way_out(
    start: Callable[[Way], Run],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    way = WAYS[name]
    run = start(way)
    run.wait_lit()
    if way.act is not None:
        way.act(run)
    dark_s = run.wait_dark()
    code = run.end()
    assert not run.light().emission, "it lit up again"
    assert code == way.code, run.said()[-3000:]
    assert re.search(way.said, run.said()), run.said()[-3000:]
    assert dark_s <= HEARTBEAT_S
    if way.status is not None:
        with Record.open(run.home / "run.h5") as record:
            assert record.status == way.status
            # A meter that was wrong before the first shot lets none be made.
            assert record.lengths["shots"] > 0 or name == "meter-range"
    monkeypatch.setenv("LABCTL_STATE", str(run.home / "state"))
    assert (state.latched("lab") is not None) == way.latched
    assert state.guards("lab") == {}, "a guard is left"
    latch = "yes" if way.latched else "–"
    exit_code = "–" if code < 0 else code
    MEASURED[name] = (
        f"| {way.what} | {way.by} | {max(0.0, dark_s):.2f} s | {exit_code} "
        f"| {way.status or '–'} | {latch} |"
    )
    if os.environ.get("LABCTL_WRITE_TABLES") == "1":
        with capsys.disabled():
            sys.stdout.write(f"\n{MEASURED[name]}\n")


PAGE = Path(__file__).parents[1] / "docs" / "reference" / "reliability.md"


def test_the_page_has_a_row_for_every_way_out_and_no_other() -> None:
    page = PAGE.read_text(encoding="utf-8")
    lines = page.partition("## Dark on every way out\n")[2].splitlines()
    table = [line for line in lines if line.startswith("|")][2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [[*row[:2], *row[3:]] for row in rows] == [
        [
            way.what,
            way.by,
            "–" if way.code is None or way.code < 0 else str(way.code),
            way.status or "–",
            "yes" if way.latched else "–",
        ]
        for way in WAYS.values()
    ]
    assert all(0 <= float(row[2].removesuffix(" s")) <= HEARTBEAT_S for row in rows)
    # The list of what goes wrong overnight names them.
    named = re.findall(r"`test_ways_out\.py`: (.*?)[;|]", page)
    assert {name for some in named for name in re.findall(r"`([\w-]+)`", some)} <= {
        *WAYS
    }
    assert named


def test_the_table_of_the_ways_out(section: Section) -> None:
    if os.environ.get("LABCTL_WRITE_TABLES") != "1":
        pytest.skip("the table is written with LABCTL_WRITE_TABLES=1")
    assert list(MEASURED) == list(WAYS), "some way was not taken: -p no:xdist"
    section(
        "reliability",
        "Dark on every way out",
        "A training on a copy of `sim-small`, ended in every way that we know. *Dark "
        "after* is the time from the run's last heartbeat until the beam file says "
        f"dark; promised is `heartbeat_s`, {HEARTBEAT_S:g} s here. Made by "
        "`LABCTL_WRITE_TABLES=1 pytest -p no:xdist tests/test_ways_out.py`.\n\n"
        "| what happens | what makes dark | dark after | exit | record | latched |\n"
        "|---|---|---|---|---|---|\n" + "\n".join(MEASURED.values()),
    )
