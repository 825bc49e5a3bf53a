"""What a person, or a script, gets from the command line."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

import h5py
import pytest
from silx.io.nxdata.parse import get_default
from silx.io.utils import open as silx_open
from typer.testing import CliRunner, Result

import labctl
from drivers.sim.beam import Beam
from labctl import cli, document
from labctl.bench import Bench
from labctl.errors import (
    BudgetError,
    CalibrationError,
    DeviceError,
    Fault,
    InputError,
    InterlockError,
    LabctlError,
    LaserStillOnError,
    OutcomeError,
    ProtocolError,
    RecordError,
    SafetyError,
)
from labctl.recording.reader import Record

Package = Callable[[str, str, Mapping[str, str]], Path]
Cli = Callable[..., Result]

SMALL = """\
schema_version: 1
kind: train
title: small
bench: sim-small
data: {set: digits, train: 48, validation: 8, test: 16}
model:
  - {layer: device}
  - {layer: standardise}
  - {layer: linear}
surrogate: {name: twin-modes, modes: 8, fits_per_step: 1}
probes: {held_out_per_step: 2, noise_repeats: 4}
training: {batch: 16, validate_every: 3}
budget: {shots: 160}
"""
NO_CAMERA = """\
schema_version: 1
name: blind
devices:
  slm: {driver: acme.slm}
  laser: {driver: acme.laser}
limits: {power_mw: 1, exposure_s: 1}
reservoir: {macropixels: [4, 4], region: [0, 0, 4, 4], bins: [2, 2],
            exposure_s: 0.1, power_mw: 1}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder that holds one protocol."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LABCTL_BENCH", raising=False)
    (folder / "small.yaml").write_text(SMALL, encoding="utf-8")
    return folder


@pytest.fixture
def call() -> Cli:
    """Type a command; nothing of it is a terminal."""

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli.app, list(words))

    return run


@pytest.fixture
def no_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when a process is started: without a guard no laser can emit."""

    def refuse(*_args: object, **_options: object) -> None:
        text = "a process was started"
        raise AssertionError(text)

    monkeypatch.setattr(subprocess, "Popen", refuse)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def last_json(result: Result) -> dict[str, object]:
    content = json.loads(result.stdout.splitlines()[-1])
    assert isinstance(content, dict)
    return content


# --- every way a command can end


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("where: got, expected."), 2),
        (ProtocolError([Fault("p.yaml", 3, 1, "seed", "is no number.")]), 2),
        (CalibrationError("bench b: none in force."), 2),
        (BudgetError("train", 9, 1, 10), 2),
        (DeviceError("camera", "open", "no answer. Plug it in."), 3),
        (InterlockError("laser: open. Close the door."), 4),
        (LaserStillOnError("laser: still on. Turn the key."), 4),
        (RecordError("r.h5: no room."), 5),
        (OutcomeError("training: stopped."), 6),
    ],
)
def test_each_branch_of_errors_has_its_exit_code(
    here: Path,
    call: Cli,
    monkeypatch: pytest.MonkeyPatch,
    error: LabctlError,
    code: int,
) -> None:
    def fail(*_args: object) -> None:
        raise error

    monkeypatch.setattr(document, "find", fail)
    result = call("run", "small.yaml", "--json")
    assert result.exit_code == code
    assert result.stderr == f"labctl: {error}\n"
    assert last_json(result) == {"error": str(error), "exit_code": code}
    assert names(here) == {"small.yaml"}


def test_what_else_failed_is_told_below(
    here: Path, call: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        error = DeviceError("camera", "frame", "no answer.")
        error.add_note("while closing: slm: close: stuck.")
        raise error

    monkeypatch.setattr(document, "find", fail)
    result = call("run", "small.yaml")
    assert result.stderr.splitlines()[1] == "  while closing: slm: close: stuck."
    assert names(here) == {"small.yaml"}


def test_a_bug_shows_its_traceback(
    here: Path, call: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(document, "find", fail)
    result = call("run", "small.yaml", "--json")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "this is a bug" in result.stderr
    assert last_json(result) == {"error": "KeyError: 'lost'", "exit_code": 1}
    assert names(here) == {"small.yaml"}


# --- a run that goes well


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("done")
    (folder / "small.yaml").write_text(SMALL, encoding="utf-8")
    words = ["run", "small.yaml", "--seed", "3", "--json", "--set", "title=mine"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.stderr
    return folder, result


def test_a_run_leaves_its_record_in_records(done: tuple[Path, Result]) -> None:
    folder, result = done
    (record,) = (folder / "records").glob("*.h5")
    assert re.fullmatch(r"small-\d{8}T\d{6}Z\.h5", record.name)
    assert last_json(result)["record"] == str(record.relative_to(folder))
    with Record.open(record) as opened:
        assert opened.status == "complete"
        assert opened.simulated


def test_the_first_line_names_the_bench_and_why(done: tuple[Path, Result]) -> None:
    first = done[1].stdout.splitlines()[0]
    assert first == "bench: sim-small (named by the protocol), SIMULATED"


def test_off_a_terminal_there_are_plain_lines(done: tuple[Path, Result]) -> None:
    text = done[1].stdout
    assert re.search(r"^training \d+/\d+  shots \d+ of 160  loss ", text, re.MULTILINE)
    assert "\x1b" not in text
    assert "\r" not in text.replace(os.linesep, "\n")


def test_the_summary_names_the_next_command(done: tuple[Path, Result]) -> None:
    lines = done[1].stdout.splitlines()
    assert lines[-2].startswith("next:   labctl report records")
    assert "readout only" in done[1].stdout


def test_json_of_a_run_holds_its_result_and_shots(done: tuple[Path, Result]) -> None:
    content = last_json(done[1])
    assert (content["status"], content["exit_code"]) == ("complete", 0)
    result, shots = content["result"], content["shots"]
    assert isinstance(result, dict)
    assert isinstance(shots, dict)
    assert {"metric", "direction", "score_test", "score_readout"} <= set(result)
    assert result["score_oracle"] is None
    assert shots["train"] > 0


def test_options_are_in_the_record(done: tuple[Path, Result]) -> None:
    (record,) = (done[0] / "records").glob("*.h5")
    with Record.open(record) as opened:
        assert opened.resolved["seed"] == 3
        assert opened.resolved["title"] == "mine"


def test_a_record_opens_in_silx_at_the_loss_curve(done: tuple[Path, Result]) -> None:
    (record,) = (done[0] / "records").glob("*.h5")
    with silx_open(str(record)) as file:  # type: ignore[no-untyped-call] # silx has no types
        curve = get_default(file)
        assert curve is not None
        assert curve.is_valid
        assert curve.is_curve
        assert curve.signal_dataset_name == "loss"
        assert curve.axes_dataset_names == ["step"]
        assert curve.signal is not None
        assert len(curve.signal) > 1


def test_a_record_opens_in_plain_h5py(done: tuple[Path, Result]) -> None:
    (record,) = (done[0] / "records").glob("*.h5")
    with h5py.File(record) as file:
        entry = file["entry"]
        assert entry.attrs["NX_class"] == "NXentry"
        assert len(entry["training/loss"]) == len(entry["training/step"]) > 1
        assert entry["shots/outputs"].shape[1] == 9


@pytest.mark.parametrize(
    ("command", "option"), [("report", "--png"), ("report", "--out"), ("run", "--out")]
)
def test_a_place_without_a_name_is_refused(
    here: Path, call: Cli, command: str, option: str
) -> None:
    result = call(command, "run.h5", option, "")
    assert result.exit_code == 2
    assert f"Invalid value for '{option}': empty, expected a name" in result.stderr
    assert not list(here.glob("*.png"))


def test_report_draws_the_record_of_a_run(
    done: tuple[Path, Result], call: Cli, tmp_path: Path
) -> None:
    (record,) = (done[0] / "records").glob("*.h5")
    page = tmp_path / "page.html"
    result = call("report", str(record), "--out", str(page), "--json")
    assert result.exit_code == 0, result.stderr
    assert last_json(result) == {"report": str(page), "exit_code": 0}
    assert "trained device" in page.read_text(encoding="utf-8")


def test_an_existing_record_is_replaced_only_on_demand(
    done: tuple[Path, Result], here: Path, call: Cli
) -> None:
    (record,) = (done[0] / "records").glob("*.h5")
    target = here / "run.h5"
    target.write_bytes(record.read_bytes())
    before = target.read_bytes()
    refused = call("run", "small.yaml", "--out", "run.h5")
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert target.read_bytes() == before
    replaced = call("run", "small.yaml", "--out", "run.h5", "--overwrite")
    assert replaced.exit_code == 0, replaced.stderr
    assert target.read_bytes() != before


LOUD = "surrogate.learning_rate=1e30"


def test_a_training_that_fails_exits_6_and_keeps_its_record(
    here: Path, call: Cli
) -> None:
    words = ("run", "small.yaml", "--out", "bad.h5")
    result = call(*words, "--set", LOUD)
    assert result.exit_code == 6
    assert "training stopped at step" in result.stderr
    assert "not finite" in result.stderr
    with Record.open(here / "bad.h5") as record:
        assert record.status == "failed"
        shots = len(record.column("shots_meta", "attempt"))
    # What came of it is in the line for scripts as well.
    told = json.loads(
        call(*words, "--overwrite", "--json", "--set", LOUD).stdout.splitlines()[-1]
    )
    assert (told["exit_code"], told["status"]) == (6, "failed")
    assert told["result"]["outcome"].startswith("not finite")
    assert "not finite" in told["error"]
    assert sum(told["shots"].values()) == shots


# --- checks that open nothing


@pytest.mark.usefixtures("no_guard")
def test_a_dry_run_opens_and_creates_nothing(
    here: Path, call: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        text = "a bench was opened"
        raise AssertionError(text)

    monkeypatch.setattr(Bench, "open", refuse)
    result = call("run", "small.yaml", "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:5]] == [
        "bench",
        "shots",
        "time",
        "bytes",
        "steps",
    ]
    content = last_json(result)
    assert content["dry_run"] is True
    shots = content["shots"]
    assert isinstance(shots, dict)
    assert sum(shots.values()) > 160  # the final tests lie outside the budget
    assert names(here) == {"small.yaml"}


@pytest.mark.parametrize("named", ["option", "environment"])
@pytest.mark.usefixtures("no_guard")
def test_who_named_the_bench_is_told(
    here: Path, call: Cli, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    text = SMALL.replace("bench: sim-small\n", "")
    (here / "small.yaml").write_text(text, encoding="utf-8")
    words = ["--bench", "sim-ideal"] if named == "option" else []
    if named == "environment":
        monkeypatch.setenv("LABCTL_BENCH", "sim-ideal")
    result = call("run", "small.yaml", "--dry-run", *words)
    by = {"option": "--bench", "environment": "LABCTL_BENCH"}[named]
    expected = f"bench: sim-ideal (named by {by}), SIMULATED"
    assert result.stdout.splitlines()[0] == expected


@pytest.mark.usefixtures("no_guard")
def test_without_a_name_the_simulated_bench_is_taken(here: Path, call: Cli) -> None:
    text = SMALL.replace("bench: sim-small\n", "")
    (here / "small.yaml").write_text(text, encoding="utf-8")
    result = call("run", "small.yaml", "--dry-run")
    first = result.stdout.splitlines()[0]
    assert first == "bench: sim (no real bench in calibrations), SIMULATED"


def test_validate_prints_good_files_and_every_fault(here: Path, call: Cli) -> None:
    bad = SMALL.replace("batch:", "bach:").replace("shots: 160", "shots: many")
    (here / "bad.yaml").write_text(bad, encoding="utf-8")
    result = call("validate", "small.yaml", "bad.yaml", "sim", "--json")
    assert result.exit_code == 2
    assert "small.yaml: a valid protocol" in result.stdout
    assert "sim: a valid bench file" in result.stdout
    content = last_json(result)
    faults = content["faults"]
    assert isinstance(faults, list)
    assert [fault["key"] for fault in faults] == ["training.bach", "budget.shots"]
    assert [fault["line"] for fault in faults] == [12, 13]
    good = call("validate", "small.yaml", "--json")
    assert good.exit_code == 0
    assert last_json(good) == {"valid": ["small.yaml"], "faults": [], "exit_code": 0}


@pytest.mark.parametrize("name", ["small.yaml", ".", "..", "/"])
def test_report_refuses_what_is_no_record(here: Path, call: Cli, name: str) -> None:
    result = call("report", name, "--json")
    assert result.exit_code == 2
    assert name in result.stderr
    assert names(here) == {"small.yaml"}


def test_version_is_printed(call: Cli) -> None:
    result = call("--version")
    assert result.stdout == f"labctl {labctl.__version__}\n"
    assert result.exit_code == 0


def test_version_is_told_as_json_too(here: Path, call: Cli) -> None:
    for words in (["--version", "--json"], ["--json", "--version"]):
        result = call(*words)
        assert result.exit_code == 0, result.stderr
        assert result.stdout.startswith(f"labctl {labctl.__version__}\n")
        assert last_json(result) == {"version": labctl.__version__, "exit_code": 0}
    for words in (["--json"], ["--json", "validate", "small.yaml"]):
        result = call(*words)
        assert result.exit_code == 2
        assert "'--json': expected after the command" in result.stderr
    assert names(here) == {"small.yaml"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "--nope"], "labctl: run: No such option: --nope. "),
        (["runn", "x"], "labctl: No such command 'runn'. Did you mean 'run'? "),
        (["clear"], "labctl: clear: Missing option '--reason'. "),
        (["run", "small.yaml", "--seed", "x"], "labctl: run: Invalid value for "),
    ],
)
def test_words_that_are_no_command_are_refused_like_all_else(
    here: Path, call: Cli, words: list[str], told: str
) -> None:
    result = call(*words, "--json")
    assert result.exit_code == 2
    assert result.stderr.startswith(told)
    assert result.stderr.endswith("--help.\n")
    assert last_json(result) == {"error": result.stderr[8:-1], "exit_code": 2}
    assert call(*words).stdout == ""
    assert names(here) == {"small.yaml"}


def test_a_reader_who_leaves_ends_no_run(here: Path) -> None:
    words = [sys.executable, "-m", "labctl", "run", "small.yaml", "--out", "r.h5"]
    with subprocess.Popen(  # noqa: S603 - our own words
        words,
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"bench: sim-small")
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (0, b"")
    with Record.open(here / "r.h5") as record:
        assert record.status == "complete"


def test_without_words_the_commands_are_listed(call: Cli) -> None:
    result = call()
    assert result.exit_code == 2
    assert "calibrate" in result.stdout


def test_live_prints_its_address_and_gives_the_bench_back(
    call: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labctl.live.session.Session.run", lambda _: None)
    result = call("live", "--bench", "sim-small", "--json")
    assert re.search(r"live: open http://127\.0\.0\.1:\d+/\S{30,}/\n", result.stdout)
    assert last_json(result) == {"bench": "sim-small", "frames": 0, "exit_code": 0}


def test_live_ends_as_a_run_does_where_a_limit_stops_it(
    call: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path))

    def stop(_: object) -> None:
        text = "camera: saturated_px=3, expected 0."
        raise SafetyError(text)

    monkeypatch.setattr("labctl.live.session.Session.run", stop)
    result = call("live", "--bench", "sim-small")
    assert result.exit_code == 4
    assert "saturated_px=3" in result.stderr
    assert "labctl clear --bench sim-small" in result.stderr


def test_every_command_has_help(call: Cli) -> None:
    top = call("--help")
    assert top.exit_code == 0
    for command in cli.app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        page = call(name, "--help")
        assert page.exit_code == 0
        assert "--json" in page.stdout, name


# --- bad input: exit 2, one message, nothing created, no laser


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        pytest.param(
            ("batch:", "bach:"),
            (),
            r"small\.yaml line 12 column \d+: training\.bach: .*Did you mean batch\?",
            id="misspelt key",
        ),
        pytest.param(
            ("probes: {", "reservoir: {power_w: 0.004}\nprobes: {"),
            (),
            r"line 11 .*reservoir\.power_w: .*expected power_mw",
            id="wrong unit",
        ),
        pytest.param(
            None,
            ("--set", "reservoir.power_mw=100"),
            r"power_mw=100, expected 0 to 8 \(bench sim-small\)",
            id="power",
        ),
        pytest.param(
            None,
            ("--set", "reservoir.exposure_s=100"),
            r"exposure_s=100, expected 0 to 0\.02",
            id="exposure",
        ),
        pytest.param(
            None, ("--bench", "odd.yaml"), r"acme\.slm.*sim\.slm", id="unknown driver"
        ),
        pytest.param(
            None,
            ("--bench", "blind.yaml"),
            r"blind\.yaml line 4 .*devices\.camera: is missing",
            id="no camera",
        ),
        pytest.param(
            None,
            ("--set", "reservoir.macropixels=[40, 30]"),
            r"40 x 30, expected at most 32 x 32",
            id="panel smaller than the encoding",
        ),
        pytest.param(
            None,
            ("--set", "budget.shots=50"),
            r"shots=50, expected at least \d+ for one epoch",
            id="budget below one epoch",
        ),
        pytest.param(
            None,
            ("--out", "small.yaml/run.h5"),
            r"folder=.*small\.yaml",
            id="output below a file",
        ),
        pytest.param(
            None, ("--out", "nowhere/run.h5"), r"folder=.*nowhere", id="no folder"
        ),
        pytest.param(
            None,
            ("--out", "/proc/run.h5"),
            r"run\.h5: folder=.*proc.* expected one that can be written to",
            id="unwritable",
            marks=pytest.mark.skipif(
                sys.platform != "linux", reason="needs a folder that refuses root too"
            ),
        ),
        pytest.param(
            None, ("--out", "small.yaml"), r"exists, expected a new", id="existing"
        ),
        pytest.param(
            None,
            ("--out", "small.yaml", "--overwrite"),
            r"small\.yaml: no record",
            id="overwriting what is no record",
        ),
        pytest.param(
            None, ("--bench", "nowhere"), r"nowhere: .*sim-small", id="no such bench"
        ),
        pytest.param(
            None, ("--set", "data.set=missing.npz"), r"missing\.npz", id="no data file"
        ),
        pytest.param(None, ("--set", "seed"), r"--set seed", id="no change"),
        pytest.param(None, ("--sead", "3"), r"No such option", id="unknown option"),
        pytest.param(
            None,
            ("--seed", "-1"),
            r"--set seed=-1: seed: got -1, expec",
            id="negative seed",
        ),
    ],
)
@pytest.mark.usefixtures("no_guard")
def test_bad_input_is_refused_before_anything_happens(
    here: Path,
    call: Cli,
    change: tuple[str, str] | None,
    words: tuple[str, ...],
    message: str,
) -> None:
    if change is not None:
        (here / "small.yaml").write_text(SMALL.replace(*change), encoding="utf-8")
    (here / "blind.yaml").write_text(NO_CAMERA, encoding="utf-8")
    camera = "devices:\n  camera: {driver: sim.camera}\n"
    odd = NO_CAMERA.replace("devices:\n", camera)
    (here / "odd.yaml").write_text(odd, encoding="utf-8")
    before = names(here)
    result = call("run", "small.yaml", *words)
    assert result.exit_code == 2
    assert re.search(message, " ".join(result.stderr.split())), result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    if "No such" not in result.stderr:
        assert result.stderr.count("labctl: ") == 1
    assert names(here) == before


@pytest.mark.usefixtures("no_guard")
def test_a_missing_protocol_is_refused_with_what_there_is(
    here: Path, call: Cli
) -> None:
    result = call("run", "smal.yaml")
    assert result.exit_code == 2
    assert "smal.yaml: no such file" in result.stderr
    assert "quickstart" in result.stderr
    assert names(here) == {"small.yaml"}


# --- Ctrl-C, and what ends a run from outside


def test_a_second_signal_cuts_no_ending_short(
    capfd: pytest.CaptureFixture[str],
) -> None:
    now_s = [1e6]
    interrupt = cli._Interrupt(lambda: now_s[0])
    with pytest.raises(KeyboardInterrupt, match="SIGINT"):
        interrupt(signal.SIGINT, None)
    assert capfd.readouterr().err == ""
    now_s[0] += 0.99 * cli.ENDING_S
    interrupt(signal.SIGTERM, None)
    assert "ending" in capfd.readouterr().err
    now_s[0] += 0.02 * cli.ENDING_S
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        interrupt(signal.SIGTERM, None)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["validate", "sim"], "labctl: interrupted.\n"),
        (["devices", "--bench", "sim"], "labctl: interrupted; the bench is dark.\n"),
    ],
)
def test_only_who_has_a_bench_says_that_it_is_dark(
    monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("labctl.run.validate.validate", stop)
    monkeypatch.setattr("labctl.inventory.call", stop)
    result = CliRunner().invoke(cli.app, words)
    assert (result.exit_code, result.stderr) == (130, told)


def beams_of_a_training(run: BaseProcess, folder: Path) -> list[Path]:
    """Wait until it says that it trains."""
    out = folder / "out.txt"
    while not (out.exists() and "\ntraining " in out.read_text(encoding="utf-8")):
        assert run.is_alive(), (folder / "err.txt").read_text(encoding="utf-8")
        time.sleep(0.01)  # another process is watched
    return list((folder / "temporary").glob("labctl-*/beam"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_leaves_the_bench_dark_and_the_record_readable(
    here: Path, typed: Callable[..., BaseProcess]
) -> None:
    (temporary := here / "temporary").mkdir()
    long = ("--set", "budget.shots=100000", "--set", "training.validate_every=0")
    words = ("run", "small.yaml", "--out", "run.h5", "--bench", "sim-small", *long)
    run = typed(here, *words, "--json", temporary=temporary)
    try:
        (path,) = beams_of_a_training(run, here)
        with Beam.open(path) as beam:
            assert beam.read().emission
            assert run.pid is not None
            os.kill(run.pid, signal.SIGINT)
            run.join(60)
            deadline = time.monotonic() + 10
            while beam.read().emission and time.monotonic() < deadline:
                pass
            assert not beam.read().emission
    finally:
        run.kill()
        run.join()
    said = (here / "err.txt").read_text(encoding="utf-8")
    assert run.exitcode == 130, said
    assert "Traceback" not in said
    # A bench that was named for this run alone is named for the next one too.
    assert "next:   labctl run --resume run.h5 --bench sim-small\n" in said
    told = (here / "out.txt").read_text(encoding="utf-8").splitlines()
    assert json.loads(told[-1])["exit_code"] == 130
    with Record.open(here / "run.h5") as record:
        assert record.status == "interrupted"
        assert len(record.column("training", "loss")) > 0
    assert list(temporary.glob("labctl-*")) == []
