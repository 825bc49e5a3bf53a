"""A run that was interrupted anywhere ends bit by bit as if it never had been."""

import hashlib
import json
import re
import shutil
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from ruamel.yaml import YAML

from labctl import bench as benches
from labctl.errors import DeviceError, InputError, RecordError
from labctl.optics.fused import build
from labctl.optics.kernel import loaded
from labctl.recording.reader import Record
from labctl.recording.writer import Recorder
from labctl.run import resume
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Desk, Options, Outcome
from tests.labctl.run.conftest import SERIES

Once = Callable[[str, Callable[[Path], Any]], Any]
TINY = """\
schema_version: 1
kind: train
title: tiny
bench: sim-small
data: {set: digits, train: 32, validation: 10, test: 20}
model:
  - {layer: device}
  - {layer: standardise}
  - {layer: linear}
surrogate: {name: twin-modes, modes: 4, fits_per_step: 2}
probes: {held_out_per_step: 2, paired_per_step: 2, noise_repeats: 4}
training: {batch: 16, validate_every: 3}
budget: {shots: 220}
record: {checkpoint_every: 2}
reference: {oracle: true}
"""
# Runs a protocol, or goes on, and kills itself right after a commit.
CHILD = """
import os, signal, torch
from pathlib import Path
from labctl.recording.writer import Recorder
from labctl.run import resume
from labctl.run.execute import execute
from labctl.run.progress import Silent
from labctl.run.setting import Options
protocol, record, commits = {first!r}, Path({out!r}), {commits}
torch.set_num_threads({threads})
commit, done = Recorder.commit, []
def counted(self, **how):
    commit(self, **how)
    done.append(self.lengths["shots"])
    if len(done) == commits:
        Path({told!r}).write_text(str(max(done)))
        os.kill(os.getpid(), signal.SIGKILL)
Recorder.commit = counted
if protocol:
    job = resume.choose(protocol, None, Options(out=record))
else:
    job = resume.choose(None, record, Options())
execute(job, Silent())
"""


def content(path: Path) -> dict[str, Any]:
    """Everything in a record that the wall clock has no part in."""
    with Record.open(path) as record:
        found: dict[str, Any] = {
            f"{table}/{name}": record.column(table, name).tobytes()
            for table, names in record.tables.items()
            for name in names
        }
        found["checkpoints"] = [
            (entry.step, entry.kind, entry.crc32) for entry in record.checkpoints()
        ]
        found["result"] = {
            name: value
            for name, value in record.result.items()
            if not name.endswith("_s")
        }
        found["status"] = record.status
    return found


def same(path: Path, other: Path) -> None:
    ours, theirs = content(path), content(other)
    assert [name for name in theirs if ours.get(name) != theirs[name]] == []
    assert ours.keys() == theirs.keys()


@pytest.fixture(scope="module")
def whole(once: Once) -> Outcome:
    """The run that nobody interrupts."""

    def make(folder: Path) -> Outcome:
        path = folder / "tiny.yaml"
        path.write_text(TINY, encoding="utf-8")
        return execute(prepare(str(path), Options(out=folder / "tiny.h5")), Silent())

    outcome: Outcome = once("resumed", make)
    return outcome


@pytest.fixture
def protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], None]:
    """Raise something right after a commit."""

    def after(commits: int, error: BaseException) -> None:
        commit, left = Recorder.commit, [commits]

        def counted(recorder: Recorder, *, fsync: bool = False) -> None:
            commit(recorder, fsync=fsync)
            left[0] -= 1
            if left[0] == 0:
                raise error

        monkeypatch.setattr(Recorder, "commit", counted)

    return after


@pytest.fixture
def cut_short(
    protocol: Path, failing: Callable[[int, BaseException], None]
) -> Callable[[int, BaseException], Path]:
    """Run the protocol until it fails."""

    def run(commits: int, error: BaseException) -> Path:
        out = protocol.with_suffix(".h5")
        failing(commits, error)
        with pytest.raises(type(error)):
            execute(prepare(str(protocol), Options(out=out)), Silent())
        return out

    return run


@pytest.mark.parametrize(
    ("commits", "error", "status", "checkpoints"),
    [
        (4, KeyboardInterrupt(), "interrupted", 0),
        (28, DeviceError("camera", "frame", "gone"), "failed", 4),
    ],
)
def test_goes_on_after_ctrl_c_and_after_an_error(
    cut_short: Callable[[int, BaseException], Path],
    whole: Outcome,
    commits: int,
    error: BaseException,
    status: str,
    checkpoints: int,
) -> None:
    out = cut_short(commits, error)
    with Record.open(out) as record:
        assert record.status == status
        assert len(record.checkpoints()) == checkpoints
        before = record.lengths["shots"]
    job = resume.unfinished(out)
    if checkpoints:
        assert not isinstance(job.setting, Desk)
        left = job.setting.unfinished
        assert left is not None
        assert left.checkpoint is not None
        digital_s, whole_s = left.checkpoint["spent_s"]
        assert 0 < digital_s < whole_s
        left.checkpoint["spent_s"] = (1000.0, 2000.0)
    outcome = execute(job, Silent())
    # What was spent before is not lost.
    assert (outcome.result["digital_s"] > 1000) is bool(checkpoints)
    assert (outcome.result["train_s"] > 2000) is bool(checkpoints)
    assert before < sum(outcome.shots.values())
    assert outcome.shots == whole.shots
    same(out, whole.record)
    with Record.open(out) as record:
        assert [row["reason"] for row in record.writers()] == ["create", "resume"]
        events = [event.text for event in record.events()]
    assert f"resumed after {before} shots" in events


@pytest.mark.parametrize(
    ("method", "kept", "stages"),
    [
        ("surrogate", 4, ["noise repeats", "warm-up pass", "first fit"]),
        (
            "calibrate-deploy",
            6,
            [
                "warm-up pass",
                "exposures for the twin",
                "fit of the twin",
                "training on the twin",
                "last readout",
            ],
        ),
    ],
)
def test_nothing_that_was_kept_is_done_again_however_few_steps_there_are(
    protocol: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    kept: int,
    stages: list[str],
) -> None:
    """With 50 steps between checkpoints and 7 or none: killed after each of them."""
    overrides = (
        f"method.name={method}",
        "method.pretrain_fits=3",
        "method.digital_steps=3",
        "record.checkpoint_every=50",
        "record.checkpoint_every_shots=60",
        "reference.oracle=false",
    )
    options = Options(overrides=overrides, out=Path("whole.h5"))
    whole = execute(prepare(str(protocol), options), Silent())
    commit, keep = Recorder.commit, Recorder.checkpoint
    fresh = [False]

    def marked(recorder: Recorder, step: int, kind: str, state: dict[str, Any]) -> None:
        keep(recorder, step, kind, state)
        fresh[0] = kind == "step"

    def killed(recorder: Recorder, *, fsync: bool = False) -> None:
        commit(recorder, fsync=fsync)
        if fresh[0]:
            fresh[0] = False
            raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "checkpoint", marked)
    monkeypatch.setattr(Recorder, "commit", killed)
    out = Path("cut.h5")
    job = prepare(str(protocol), Options(overrides=overrides, out=out))
    for number in range(kept):
        with pytest.raises(KeyboardInterrupt):
            execute(job, Silent())
        with Record.open(out) as record:
            assert len(record.checkpoints()) == number + 1
        job = resume.unfinished(out)
    execute(job, Silent())
    same(out, whole.record)
    with Record.open(out) as record:
        told = [event.text for event in record.events()]
    assert [told.count(text) for text in stages] == [1] * len(stages)


def test_a_series_goes_on_bit_by_bit(
    protocol: Path, failing: Callable[[int, BaseException], None]
) -> None:
    overrides = (*SERIES, "record.checkpoint_every=1", "data.test=5")
    options = Options(overrides=overrides, out=Path("whole.h5"))
    whole = execute(prepare(str(protocol), options), Silent())
    out = Path("cut.h5")
    job = prepare(str(protocol), Options(overrides=overrides, out=out))
    failing(44, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        execute(job, Silent())
    with Record.open(out) as record:
        assert 0 < len(record.column("training", "step")) < whole.result["steps"]
    assert execute(resume.unfinished(out), Silent()).shots == whole.shots
    same(out, whole.record)


@pytest.mark.slow
def test_what_ended_a_run_does_not_end_it_again(protocol: Path, whole: Outcome) -> None:
    """Faults that let nothing be exposed, and some after an exposure."""
    broken = protocol.parent / "calibrations" / "sim-small"
    shutil.copytree(benches.load("sim-small").path.parent, broken)
    bench = YAML(typ="safe").load(broken / "bench.yaml")
    for role, kind, at_shot in (
        ("camera", "trigger_refused", 20),
        ("camera", "hung", 45),
        ("slm", "removed", 90),
        ("camera", "wrong_shape", 150),
    ):
        options = bench["devices"][role].setdefault("options", {})
        options.setdefault("faults", []).append({"kind": kind, "at_shot": at_shot})
    text = json.dumps(bench)
    (broken / "bench.yaml").write_text(text, encoding="utf-8")
    given = hashlib.sha256(text.encode()).hexdigest()
    for path in broken.glob("*-2*.yaml"):
        kept = path.read_text(encoding="utf-8")
        kept = re.sub(r"bench_sha256: \S+", f"bench_sha256: {given}", kept)
        path.write_text(kept, encoding="utf-8")
    out = protocol.with_suffix(".h5")
    job, ends = prepare(str(protocol), Options(out=out)), list[str]()
    while len(ends) < 9:
        try:
            execute(job, Silent())
        except DeviceError as error:
            ends.append(error.device)
            job = resume.unfinished(out)
        else:
            break
    assert ends == ["camera", "camera", "slm", "camera"]
    # As on a bench that never broke.
    same(out, whole.record)
    with Record.open(out) as left:
        events = [event.text for event in left.events()]
    assert sum("had ended the run; they are made anew" in text for text in events) == 4


def rehearsed(kernel: str) -> str:
    """A protocol that rehearses on a twin."""
    return TINY.replace(
        "{name: twin-modes, modes: 4, fits_per_step: 2}",
        f"{{name: twin-optics, kernel: {kernel}, screens: 1, "
        "first_fits: 2, fits_per_step: 1,"
        " fit_batch: 4, schedule: one-cycle, keep_every: 4}\n"
        "estimator: {name: rehearse, digital_steps: 2}",
    ).replace("oracle: true", "oracle: false")


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["torch", "fused"])
def test_a_rehearsal_goes_on_with_its_twin_and_radius(
    protocol: Path,
    failing: Callable[[int, BaseException], None],
    request: pytest.FixtureRequest,
    kernel: str,
) -> None:
    key = request.getfixturevalue("compiled").key if kernel == "fused" else ""
    protocol.write_text(rehearsed(kernel), encoding="utf-8")
    first, out = protocol.with_name("whole.h5"), protocol.with_name("cut.h5")
    whole = execute(prepare(str(protocol), Options(out=first)), Silent())
    failing(20, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        execute(prepare(str(protocol), Options(out=out)), Silent())
    with Record.open(out) as record:
        assert len(record.checkpoints()) > 0
        assert record.environment["fit_kernel"] == key
    assert execute(resume.unfinished(out), Silent()).shots == whole.shots
    same(out, first)


@pytest.mark.slow
def test_where_its_compiler_is_gone_a_record_says_so(
    protocol: Path,
    cut_short: Callable[[int, BaseException], Path],
    compiled: build.Built,
) -> None:
    protocol.write_text(rehearsed("auto"), encoding="utf-8")
    out = cut_short(20, KeyboardInterrupt())
    text = rf"kernel='torch', expected '{compiled.key}' \(no C\+\+ compiler .*CXX\.\)"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "no-such-compiler")
        loaded.cache_clear()
        with pytest.raises(InputError, match=text):
            execute(resume.unfinished(out), Silent())
    loaded.cache_clear()
    execute(resume.unfinished(out), Silent())


def test_a_chain_of_kills_loses_nothing(
    protocol: Path, whole: Outcome, fork: Callable[[Path], BaseProcess]
) -> None:
    out, first = protocol.with_suffix(".h5"), str(protocol)
    script, told = protocol.with_name("child.py"), protocol.with_name("told")
    for commits in (11, 12):
        text = CHILD.format(
            first=first,
            out=str(out),
            commits=commits,
            told=str(told),
            threads=torch.get_num_threads(),
        )
        script.write_text(text, encoding="utf-8")
        child = fork(script)
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
        with Record.open(out) as record:
            assert record.status == "running"
            assert record.lengths["shots"] >= int(told.read_text())
        first = ""
    execute(resume.unfinished(out), Silent())
    same(out, whole.record)
    with Record.open(out) as record:
        assert len(record.writers()) == 3


def test_one_altered_bit_is_found(
    cut_short: Callable[[int, BaseException], Path],
) -> None:
    out = cut_short(12, KeyboardInterrupt())
    with h5py.File(out, "r+", libver="v110") as file:
        levels = file["entry/shots_meta/levels"]
        levels[-1, 3] ^= 1
    with pytest.raises(RecordError, match=r"replay diverged at step .*levels row"):
        execute(resume.unfinished(out), Silent())


def test_refuses_what_is_complete(whole: Outcome) -> None:
    with pytest.raises(InputError, match="status=complete, expected a run that was"):
        resume.unfinished(whole.record)


@pytest.fixture
def interrupted(whole: Outcome, tmp_path: Path) -> Path:
    """A copy of the whole record that says it was interrupted."""
    path = tmp_path / "run.h5"
    shutil.copy(whole.record, path)
    with h5py.File(path, "r+", libver="v110") as file:
        file["entry/status"][()] = b"interrupted"
    return path


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("bench/sha256", "0" * 64, "expected 000000000000 as the run began with"),
        ("environment/packages", '{"torch": "1.0"}', r"torch=.*, expected 1\.0"),
        ("protocol/resolved", '{"kind": "train"}', "schema_version"),
        ("bench/name", "nowhere", "nowhere"),
    ],
)
def test_refuses_another_bench_software_or_protocol(
    interrupted: Path, place: str, value: str, message: str
) -> None:
    with h5py.File(interrupted, "r+", libver="v110") as file:
        file[f"entry/{place}"][()] = value
    with pytest.raises(InputError, match=message):
        resume.unfinished(interrupted)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("instrument/world/settings", '{"kernel": "other"}', "kernel=torch, expected"),
        ("environment/threads", 7, "threads=1, expected 7"),
        ("environment/fit_card", "NVIDIA A", "card.*, expected '?NVIDIA A"),
        ("environment/fit_kernel", "0a1b", "kernel='torch', expected '0a1b'"),
    ],
)
def test_refuses_another_light_path_or_thread_count_before_any_shot(
    interrupted: Path, place: str, value: str | int, message: str
) -> None:
    with h5py.File(interrupted, "r+", libver="v110") as file:
        file[f"entry/{place}"][()] = value
    with pytest.raises(InputError, match=message):
        execute(resume.unfinished(interrupted), Silent())
    with Record.open(interrupted) as record:
        assert record.status == "interrupted"


def test_a_protocol_or_a_record_but_not_both(tmp_path: Path) -> None:
    for protocol, path, options in (
        (None, None, Options()),
        ("tiny.yaml", tmp_path / "run.h5", Options()),
        (None, tmp_path / "run.h5", Options(seed=1)),
    ):
        with pytest.raises(InputError, match=r"expected a protocol, or --resume"):
            resume.choose(protocol, path, options)
