"""The command line: parse, call, print, exit code; no logic of its own.

torch, h5py, matplotlib and scikit-learn are imported only by the commands that
need them, so that ``labctl --help`` answers at once.
"""

import errno
import io
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NoReturn, TextIO

import typer
from typer.core import TyperGroup
from typing_extensions import override

import labctl
from labctl import lane
from labctl.errors import LabctlError

EXIT_INTERRUPTED = 130
# A command that was asked to end has so long to do it before it is asked once more.
ENDING_S = 10.0
# What a pipe answers whose reader left; Windows says EINVAL.
READER_LEFT = frozenset({errno.EPIPE, errno.EINVAL})
# A device, a limit, the record or a person ended the run: it can go on.
RESUMABLE = frozenset({3, 4, 5, EXIT_INTERRUPTED})


class _Outlet(io.TextIOWrapper):
    """Standard output or error; a reader who leaves (``| head``) ends no run.

    What nobody reads any more goes to the null device.
    """

    @override
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    @override
    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop(error)
            super().flush()

    def _drop(self, error: OSError) -> None:
        """Write to nowhere from now on.

        Raises
        ------
        OSError
            Another error than that of a reader who left.
        """
        if error.errno not in READER_LEFT:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def _outlet(stream: TextIO) -> TextIO:
    """Make a standard stream outlive its reader."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    how = stream.encoding, stream.errors, None
    return _Outlet(stream.detach(), *how, line_buffering=stream.line_buffering)


class _Commands(TyperGroup):
    """The commands; words that are none of them are refused as all else is."""

    @override
    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: object,
    ) -> object:
        words = sys.argv[1:] if args is None else list(args)
        try:
            end: object = super().main(
                args,
                prog_name,
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except typer.TyperException as error:
            end = _refuse_words(words, error)
        if standalone_mode:
            sys.exit(end if isinstance(end, int) else 0)
        return end


def _refuse_words(words: Sequence[str], error: typer.TyperException) -> int:
    """Say which word of a command line is wrong; the exit code."""
    ctx = getattr(error, "ctx", None)
    path = "labctl" if ctx is None else " ".join(ctx.command_path.split())
    if ctx is not None and not words:
        typer.echo(ctx.get_help())
        return error.exit_code
    told = error.format_message().strip()
    told = told if told.endswith((".", "?")) else f"{told}."
    where = path.removeprefix("labctl").strip()
    message = f"{where}: {told}" if where else told
    message = f"{message} Type {path} --help."
    typer.echo(f"labctl: {message}", err=True)
    if "--json" in words:
        content = {"error": message, "exit_code": error.exit_code}
        typer.echo(json.dumps(content))
    return error.exit_code


app = typer.Typer(
    name="labctl",
    cls=_Commands,
    help="Train a physical nonlinear-optics reservoir whose Jacobian nobody knows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line.")
]
BenchOption = Annotated[
    str | None,
    typer.Option(
        "--bench",
        metavar="NAME|FILE",
        help="Bench to use; else the protocol's, else $LABCTL_BENCH, else the only "
        "real bench there is, else sim.",
    ),
]


@dataclass
class _Answer:
    """What ``--json`` prints, filled in as a command goes on."""

    wanted: bool
    record: Path | None = None
    bench: str | None = None
    content: dict[str, object] = field(default_factory=dict)


@app.callback(invoke_without_command=True)
def _top(
    ctx: typer.Context,
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.")
    ] = False,
    json_wanted: Annotated[
        bool, typer.Option("--json", help="With --version; else after the command.")
    ] = False,
) -> None:
    """Print the version, where it is asked for.

    Raises
    ------
    Exit
        It was.
    BadParameter
        ``--json`` stands before a command, or alone.
    """
    if version:
        with _answering(json_wanted) as answer:
            typer.echo(f"labctl {labctl.__version__}")
            answer.content["version"] = labctl.__version__
        raise typer.Exit
    if json_wanted:
        text = "expected after the command, or with --version. Move it."
        raise typer.BadParameter(text, ctx=ctx, param_hint="'--json'")


def _tell_record(answer: _Answer, code: int) -> None:
    """Name the record that a run left before its end, and how to go on."""
    if answer.record is None or not answer.record.exists():
        return
    answer.content["record"] = str(answer.record)
    if code in RESUMABLE:
        bench = "" if answer.bench is None else f" --bench {answer.bench}"
        typer.echo(f"next:   labctl run --resume {answer.record}{bench}", err=True)


@contextmanager
def _answering(json_wanted: bool, *, opens: bool = False) -> Iterator[_Answer]:
    """Turn errors into a message and an exit code; print the JSON line last.

    Parameters
    ----------
    json_wanted
        Whether that line is wanted.
    opens
        Whether it opens a bench, and has left it dark where it is interrupted.

    Raises
    ------
    Exit
        With the code, unless all went well.
    """
    answer = _Answer(json_wanted)
    code = 0
    try:
        yield answer
    except LabctlError as error:
        code = error.exit_code
        answer.content.update(error.told)
        answer.content["error"] = str(error)
        typer.echo(f"labctl: {error}", err=True)
        for note in getattr(error, "__notes__", ()):
            typer.echo(f"  {note}", err=True)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
        answer.content["error"] = "interrupted"
        dark = "; the bench is dark" if opens else ""
        typer.echo(f"labctl: interrupted{dark}.", err=True)
    except Exception as error:  # noqa: BLE001 - the edge of the program: a bug
        code = 1
        answer.content["error"] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
        typer.echo("labctl: this is a bug; please report the lines above.", err=True)
    if code:
        _tell_record(answer, code)
    if answer.wanted:
        typer.echo(json.dumps({**answer.content, "exit_code": code}))
    if code:
        raise typer.Exit(code)


def _place(text: str) -> Path:
    """Take the name of a file or folder; an empty one would mean this folder.

    Raises
    ------
    BadParameter
        It is empty.
    """
    if not text:
        message = "empty, expected a name. Write one, or leave the option out."
        raise typer.BadParameter(message)
    return Path(text)


@app.command()
def run(  # noqa: PLR0913 - one parameter an option
    protocol: Annotated[str | None, typer.Argument(help="Protocol file.")] = None,
    *,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="RUN.h5",
            help="Go on with a run that was interrupted; takes --bench only.",
        ),
    ] = None,
    bench: BenchOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="RUN.h5", help="Record to write.", parser=_place),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a record that exists.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Replace the protocol's seed.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace one value."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check, print the forecast, open nothing."),
    ] = False,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Use the bench's simulated twin.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="ADDRESS",
            help="Dask scheduler for the trainings of a comparison.",
        ),
    ] = None,
    json_wanted: JsonOption = False,
) -> None:
    """Run a protocol on a bench and leave a record."""
    with _answering(json_wanted, opens=True) as answer:
        # Imported here: this is what --help must not pay for.
        from labctl.comparison import run as room  # noqa: PLC0415
        from labctl.run.progress import shown_on  # noqa: PLC0415

        options = room.Options(
            bench=bench,
            out=out,
            overwrite=overwrite,
            seed=seed,
            overrides=tuple(overrides or ()),
            simulate=simulate,
        )
        job = room.choose(protocol, resume, options, cluster=cluster)
        typer.echo(job.headline)
        if dry_run:
            typer.echo(job.forecast.text())
            answer.content.update(job.forecast.as_json())
            return
        # A comparison goes on by the same command, not by --resume.
        if job.setting.protocol.kind != "comparison":
            answer.record, answer.bench = job.setting.out, bench
        with shown_on(sys.stdout) as progress:
            outcome = room.execute(job, progress)
        typer.echo(outcome.summary)
        answer.content.update(outcome.as_json())
        outcome.raise_failure()


@app.command()
def calibrate(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KIND]...", help="Kinds; none for all that are due."),
    ] = None,
    *,
    bench: BenchOption = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Measure again, say what moved, install nothing."),
    ] = False,
    json_wanted: JsonOption = False,
) -> None:
    """Measure a bench, judge the measurement, keep the record."""
    with _answering(json_wanted, opens=True) as answer:
        from labctl.calibrate import execute as room  # noqa: PLC0415 - help is quick
        from labctl.run.progress import shown_on  # noqa: PLC0415

        options = room.Options(kinds=tuple(kinds or ()), bench=bench, check=check)
        job = room.prepare(options)
        typer.echo(job.headline)
        ask = typer.confirm if sys.stdin.isatty() else None
        with shown_on(sys.stdout) as progress:
            outcome = room.execute(job, progress, ask)
        answer.content.update(outcome.as_json())
        typer.echo(outcome.summary)
        outcome.raise_failures()


@app.command()
def validate(
    files: Annotated[list[str], typer.Argument(help="Protocol and bench files.")],
    *,
    json_wanted: JsonOption = False,
) -> None:
    """Check protocols and bench files; print every fault with line and remedy."""
    with _answering(json_wanted) as answer:
        from labctl.calibrate import section  # noqa: PLC0415 - help is quick
        from labctl.comparison import run as runs  # noqa: PLC0415 - help is quick
        from labctl.run import validate as room  # noqa: PLC0415 - help is quick

        report = room.validate(files, runs.check, section.faults)
        answer.content.update(report.as_json())
        for line in report.lines():
            typer.echo(line)
        report.raise_faults()


@app.command()
def repair(
    record: Annotated[Path, typer.Argument(help="Record whose writer was killed.")],
    *,
    json_wanted: JsonOption = False,
) -> None:
    """Make a record readable by any program again whose writer was killed."""
    with _answering(json_wanted) as answer:
        from labctl.recording import reopen  # noqa: PLC0415 - help is quick

        mended = reopen.mend(record)
        answer.content.update(
            {"record": str(record), "status": mended.status, "rows": mended.counts}
        )
        done = "repaired" if mended.was_flagged else "nothing to repair"
        shots = mended.counts.get("shots", 0)
        typer.echo(f"{record}: {done}; status {mended.status}, {shots} shots")
        if mended.status != "complete":
            typer.echo(f"next:   labctl run --resume {record}")


@app.command()
def report(
    record: Annotated[Path, typer.Argument(help="Record to draw.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE.html", help="Page to write.", parser=_place
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option("--png", metavar="DIR", help="Figures as PNG too.", parser=_place),
    ] = None,
    json_wanted: JsonOption = False,
) -> None:
    """Make one self-contained page of figures and numbers from a record."""
    with _answering(json_wanted) as answer:
        from labctl.report import page as room  # noqa: PLC0415 - help is quick

        written = room.write(record, out or record.parent / f"{record.stem}.html", png)
        answer.content.update({"report": str(written)})
        typer.echo(f"report: {written}")


@app.command()
def devices(*, bench: BenchOption = None, json_wanted: JsonOption = False) -> None:
    """Tell what is installed and plugged in; with --bench, how each device is."""
    with _answering(json_wanted, opens=bench is not None) as answer:
        from labctl import inventory  # noqa: PLC0415 - help is quick

        if bench is None:
            there = inventory.take()
            answer.content.update(there.as_json())
            typer.echo(there.text())
            return
        from labctl import bench as benches  # noqa: PLC0415 - help is quick

        called = inventory.call(benches.load(bench))
        answer.content.update(called.as_json())
        typer.echo(called.text())
        called.raise_failures()


@app.command()
def live(
    *,
    bench: BenchOption = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of the page; 0 for any.")
    ] = 0,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Use the bench's simulated twin.")
    ] = False,
    json_wanted: JsonOption = False,
) -> None:
    """Align a bench: a page with camera, pattern and power, within its limits."""
    with _answering(json_wanted, opens=True) as answer:
        from labctl import bench as benches  # noqa: PLC0415 - help is quick
        from labctl.live import server, session  # noqa: PLC0415

        name, reason = benches.choose(None, bench)
        typer.echo(f"bench: {name} ({reason})")
        source = benches.load(name)
        with benches.open(source, simulate=simulate, allow_uncalibrated=True) as table:
            if table.takeover:
                typer.echo(table.takeover)
            hand = session.Session(table)
            answer.content["bench"] = source.file.name
            with server.serve(hand, port) as served:
                typer.echo(f"{table.notice or 'live'}: open {served.address}")
                typer.echo("Ctrl-C, or its last button, gives the bench back, dark.")
                hand.run()
            answer.content["frames"] = hand.frames
        typer.echo("the bench is dark and given back.")


@app.command()
def dark(
    *,
    bench: Annotated[
        str | None,
        typer.Option(
            "--bench",
            metavar="NAME|FILE",
            help="Bench to make dark; else $LABCTL_BENCH, else every real bench there "
            "is, else sim.",
        ),
    ] = None,
    json_wanted: JsonOption = False,
) -> None:
    """Make a bench dark now, also during a run, and keep it so until labctl clear."""
    with _answering(json_wanted) as answer:
        from labctl import stop  # noqa: PLC0415 - help is quick

        targets = stop.targets(bench)
        for line in targets.lines():
            typer.echo(line)
        made = targets.dark()
        answer.content.update(made.as_json())
        if made.made:
            typer.echo(made.text())
        made.raise_failures()


@app.command()
def clear(
    *,
    bench: BenchOption = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why it is safe again.")
    ],
    json_wanted: JsonOption = False,
) -> None:
    """Lift the latch that a safety stop or labctl dark left on a bench."""
    with _answering(json_wanted) as answer:
        from labctl import bench as benches  # noqa: PLC0415 - help is quick
        from labctl import stop  # noqa: PLC0415

        name, why = benches.choose(None, bench)
        typer.echo(f"bench: {name} ({why})")
        latch = stop.clear(benches.load(name), reason)
        answer.content.update({"bench": latch.bench, "cleared": latch.why})
        typer.echo(f"cleared: latched since {latch.when} by {latch.who}: {latch.why}")


class _Interrupt:
    """A handler that ends the command in order, as Ctrl-C does.

    The bench is made dark and the record closed on the way out; a second signal
    (somebody presses Ctrl-C again) must not cut that short. It is answered with a line,
    until ``ENDING_S`` have passed: by then the first one was lost, or something hangs.

    Parameters
    ----------
    clock
        Time in seconds that only grows.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked_s = -math.inf

    def __call__(self, number: int, frame: object) -> None:
        """End the command, or say that it is ending.

        Raises
        ------
        KeyboardInterrupt
            The first time, and again after ``ENDING_S``.
        """
        del frame
        now_s = self._clock()
        if now_s - self._asked_s < ENDING_S:
            # sys.stderr may be in the middle of a line: a handler does not enter it.
            with suppress(OSError):
                os.write(2, b"labctl: ending; dark comes first, then the record.\n")
            return
        self._asked_s = now_s
        raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> NoReturn:
    """Run the command line and exit with its code.

    Raises
    ------
    SystemExit
        Always.
    """
    interrupt = _Interrupt()
    # A shell's background job has Ctrl-C ignored, and keeps it so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), interrupt)
    sys.stdout, sys.stderr = _outlet(sys.stdout), _outlet(sys.stderr)
    try:
        app(prog_name="labctl")
    except SystemExit as end:
        lane.leave(end.code if isinstance(end.code, int) else 0)
        raise
    sys.exit(0)
