"""The process that holds the laser and turns it off when the run dies.

::

    run                          pipes, one JSON object a line                guard
    GuardedLaser.open     -->    {"id": 1, "call": "start", "args": {...}} --> builds
                          <--    {"id": 1, "result": {...}}                    and opens
    GuardedLaser.emission -->    {"id": 2, "call": "emission", "args": [true]}
                          <--    {"id": 2, "error": {"type", "message", "fields"}}
    GuardedLaser.beat     -->    {"call": "beat"}                              no answer
    GuardedLaser.deadline -->    {"call": "deadline", "seconds": 30}           no answer
                          <--    {"id": 0, "error": {...}}  stopped, and nobody asked

The guard goes dark and ends when the pipe from the run closes (the run returned,
raised, was killed), when its parent is another process than the one that started
it, on a signal, and on an error of its own. A laser call that does not return in
time, a heartbeat that stops while the laser emits, a fault that the laser reports
(an open interlock, a trip), and a latch on the bench (:mod:`labctl.state`) make it
dark as well; it then refuses emission until the bench is opened again. Where the
laser has a watchdog of its own, the guard kicks it for as long as it may be lit, so
that a frozen guard ends dark too.

Where a bench limits its duty, the guard keeps when the beam was open
(:class:`labctl.state.LitLog`): the run says so before and after (``beam``), and the
guard notes the end where the run no longer can.

It runs ``python -m labctl.guard`` in its own process group, so a Ctrl-C meant for
the run does not reach it. By itself it imports neither torch nor h5py nor pydantic
nor numpy, so it is there soon. Its timers use real time on every bench.
"""

import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final, NoReturn, final

from typing_extensions import override

from labctl import errors, registry, state
from labctl.devices import Identity, Laser, Settings, Watchdog
from labctl.errors import (
    DeviceError,
    DeviceTimeoutError,
    InputError,
    InterlockError,
    LabctlError,
    OutOfRangeError,
    SafetyError,
    SilentRunError,
)

BEAT_LIMIT_S: Final = 5.0  # a bench may ask for less, never for more
DARK_S: Final = 1.0  # patience with a call that makes dark: half of the 2 s promised
TICK_S: Final = 0.1  # how often the timers are looked at
AWAY_S: Final = 0.5  # after which a guard that had no turn reads before it judges
FAULTS_S: Final = 0.5  # how often a lit laser is asked for its faults
UNREAD: Final = 2  # so many times in a row without an answer count as a fault
# The guard acts before the promised time is over: the rest is for the laser's call.
ACT_AT: Final = 0.75
# A sign of life so soon after another tells nothing new, as a share of the heartbeat.
# Silence is told too early by as much: a tenth of what the run has to spare (the guard
# acts after .75 of the heartbeat, a wait for a frame takes .7 of it).
APART_SHARE: Final = 0.005
LONGEST_SILENCE_S: Final = 600.0  # of a digital phase that was announced, in the dark
MARGIN_S: Final = 5.0  # the guard's own deadline comes first, then its try at dark
CALLS: Final = frozenset({"emission", "faults", "is_emitting", "power_mw"}) | {
    "set_power_mw",
    "setpoint_mw",
    "settings",
}


def laser_fault(name: str, faults: Sequence[str], outcome: str) -> SafetyError:
    """Say that a laser reports faults.

    Parameters
    ----------
    name
        Name in the bench file.
    faults
        What it reports, in words.
    outcome
        Whether it is dark now, in words.

    Returns
    -------
    error
        Of the class that the faults belong to.
    """
    text = (
        f"{name}: faults={', '.join(faults)}, expected none; {outcome}. "
        "Find the cause at the laser."
    )
    opened = any("interlock" in fault.lower() for fault in faults)
    return InterlockError(text) if opened else SafetyError(text)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the guard waits for what, in real time.

    Parameters
    ----------
    start_s
        Until the driver is imported and the laser is open.
    call_s
        Until a laser call returns; heads that delay emission by law need 5 s.
    heartbeat_s
        The laser is dark so long after the last sign of life of the run, at most
        5 s; the guard acts after three quarters of it. None asks for none.
    """

    start_s: float = 30.0
    call_s: float = 10.0
    heartbeat_s: float | None = None

    def __post_init__(self) -> None:
        beat = self.heartbeat_s
        if beat is not None and not 0 < beat <= BEAT_LIMIT_S:
            text = (
                f"guard: heartbeat_s={beat}, expected more than 0 and at most "
                f"{BEAT_LIMIT_S:g}. Lower it."
            )
            raise InputError(text)

    @property
    def silence_s(self) -> float:
        """Silence while the laser emits at which the guard acts."""
        return math.inf if self.heartbeat_s is None else ACT_AT * self.heartbeat_s

    @property
    def apart_s(self) -> float:
        """Least time between two signs of life that are sent."""
        return APART_SHARE * (self.heartbeat_s or BEAT_LIMIT_S)


@final
class GuardedLaser(Laser):
    """A laser whose driver lives in the guard's process.

    Parameters
    ----------
    name
        Name in the bench file.
    driver
        Entry-point name of the laser's driver.
    options
        Its keyword arguments, as JSON has them.
    beam
        File that a simulated laser publishes its state in; None for a real one.
    patience
        How long to wait for what; None for the defaults.
    bench
        Name of the bench whose latch is obeyed; None for no bench.
    keeps_lit
        Whether when its beam was open is kept over runs; needs a bench.
    """

    def __init__(  # noqa: PLR0913 - one parameter an option
        self,
        name: str,
        driver: str,
        options: Mapping[str, Any],
        *,
        beam: Path | None = None,
        patience: Patience | None = None,
        bench: str | None = None,
        keeps_lit: bool = False,
    ) -> None:
        self._name = name
        self._patience = patience or Patience()
        self._start = {
            "name": name,
            "driver": driver,
            "options": dict(options),
            "beam": None if beam is None else str(beam),
            "patience": asdict(self._patience),
            "bench": bench,
            "keeps_lit": keeps_lit,
        }
        self._bench, self._keeps_lit = bench, keeps_lit
        self._link: _Link | None = None
        self._facts: dict[str, Any] = {}
        self._stopped: SafetyError | None = None
        self._end = ""
        # When the last sign of life was sent, by the clock that the guard goes by.
        self._beat_s = -math.inf

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    def is_open(self) -> bool:
        """Whether a guard holds the laser, as far as the run knows."""
        return self._link is not None

    @property
    def pid(self) -> int:
        """Process id of the guard; open only."""
        return self._linked("pid").process.pid

    @override
    def open(self) -> None:
        if self._link is not None:
            raise DeviceError(self._name, "open", "is open already. Close it first.")
        link = _Link()
        try:
            facts = link.ask("start", [self._start], self._patience.start_s)
        except BaseException as err:
            link.end()
            if isinstance(err, _GuardGoneError):
                raise DeviceError(self._name, "open", str(err)) from None
            raise
        self._link, self._facts, self._stopped, self._end = link, facts, None, ""
        self._beat_s = -math.inf

    @override
    def close(self) -> None:
        link, self._link, self._facts = self._link, None, {}
        if link is None:
            return
        try:
            link.ask("close", [], self._patience.call_s)
        except _GuardGoneError as err:
            raise DeviceError(self._name, "close", self._rescue(err)) from None
        finally:
            link.end()

    @override
    def identity(self) -> Identity:
        return Identity(**self._fact("identity"))

    @override
    def settings(self) -> Settings:
        settings: Settings = self._call("settings")
        return settings

    @property
    @override
    def wavelength_nm(self) -> float:
        return float(self._fact("wavelength_nm"))

    @property
    @override
    def power_limits_mw(self) -> tuple[float, float]:
        low, high = self._fact("power_limits_mw")
        return float(low), float(high)

    @property
    @override
    def repetition_rate_hz(self) -> float | None:
        rate: float | None = self._fact("repetition_rate_hz")
        return rate

    @property
    @override
    def pulse_width_fs(self) -> float | None:
        width: float | None = self._fact("pulse_width_fs")
        return width

    @override
    def set_power_mw(self, power_mw: float) -> None:
        self._call("set_power_mw", power_mw)

    @override
    def setpoint_mw(self) -> float:
        return float(self._call("setpoint_mw"))

    @override
    def power_mw(self) -> float:
        return float(self._call("power_mw"))

    @override
    def emission(self, on: bool) -> None:
        self._call("emission", on)

    @override
    def is_emitting(self) -> bool:
        return bool(self._call("is_emitting"))

    @override
    def faults(self) -> list[str]:
        return [str(fault) for fault in self._call("faults")]

    @property
    def lit_spans(self) -> list[tuple[float, float]]:
        """When the beam was open before, in s of :func:`time.monotonic`; open only.

        Empty where that is not kept.
        """
        return [(start_s, end_s) for start_s, end_s in self._fact("lit_spans")]

    @property
    def lit_doubt(self) -> str:
        """Why that is not known; empty where it is. Open only."""
        return str(self._fact("lit_doubt"))

    def beam(self, is_open: bool) -> None:
        """Say that the beam is about to be open, or is shut; for the duty alone.

        Nothing where that is not kept.

        Parameters
        ----------
        is_open
            Which.

        Raises
        ------
        DeviceError
            It cannot be written down: keep the beam shut.
        """
        if self._keeps_lit:
            self._call("beam", is_open)

    def beat(self) -> None:
        """Tell the guard that the run is alive; any call does so as well.

        Two that follow each other at once are sent as one, which costs a shot on quick
        devices little. Whether the guard stopped the run, or is gone, is asked each
        time.

        Raises
        ------
        SafetyError
            The guard has made the laser dark meanwhile.
        DeviceError
            The guard is gone.
        """
        now = time.monotonic()
        is_due = now - self._beat_s >= self._patience.apart_s
        if is_due or self._linked("beat").has_ended:
            self._tell("beat", {"call": "beat"})
            self._beat_s = now
        stopped = self.stopped()
        if stopped is not None:
            raise stopped

    def deadline(self, seconds: float) -> None:
        """Announce a digital phase without signs of life.

        The beam has to be blocked meanwhile; the next sign of life ends it.

        Parameters
        ----------
        seconds
            Greatest length of it.

        Raises
        ------
        ValueError
            Longer than the guard accepts.
        """
        if not 0 < seconds <= LONGEST_SILENCE_S:
            text = (
                f"{self._name}: deadline seconds={seconds}, expected more than 0 and "
                f"at most {LONGEST_SILENCE_S:g}. Beat in between."
            )
            raise ValueError(text)
        self._tell("deadline", {"call": "deadline", "seconds": seconds})
        self._beat_s = -math.inf  # the next one ends it, so it is sent

    def stopped(self) -> SafetyError | None:
        """Tell why the guard made the laser dark without being asked, if it did."""
        if self._link is not None:
            self._stopped = self._stopped or self._link.stopped()
        return self._stopped

    def _tell(self, action: str, message: Mapping[str, Any]) -> None:
        try:
            self._linked(action).send(message)
        except _GuardGoneError as err:
            self._lost(action, err)

    def _linked(self, action: str) -> "_Link":
        if self._link is None:
            # Whoever heard of the end may have had something graver to tell.
            text = self._end or "is not open. Open the bench first."
            raise DeviceError(self._name, action, text)
        return self._link

    def _fact(self, name: str) -> Any:  # noqa: ANN401 - JSON, narrowed by the caller
        self._linked(name)
        return self._facts[name]

    def _call(self, action: str, *args: float) -> Any:  # noqa: ANN401 - as _fact
        try:
            return self._linked(action).ask(action, list(args), self._patience.call_s)
        except _GuardGoneError as err:
            self._lost(action, err)

    def _lost(self, action: str, story: Exception) -> NoReturn:
        self._linked(action).end()
        self._link, self._facts = None, {}
        self._end = self._rescue(story)
        raise DeviceError(self._name, action, self._end) from None

    def _rescue(self, story: Exception) -> str:
        # A laser is dark after open, so a new guard that opens it makes it dark.
        link = _Link()
        try:
            link.ask("start", [self._start], self._patience.start_s)
            link.ask("close", [], self._patience.call_s)
        except (LabctlError, _GuardGoneError) as err:
            return (
                f"{story} Making the laser dark from a new guard failed: {err} "
                "Turn the laser's key by hand."
            )
        finally:
            link.end()
            if self._bench is not None:
                state.guards(self._bench)  # removes what the dead one left
        return f"{story} A new guard made the laser dark. Open the bench again."


class _GuardGoneError(Exception):
    """The guard ended or went silent; the text says all that is known."""


@final
class _Link:
    """The run's end of the pipes, and the guard's process."""

    def __init__(self) -> None:
        # A file, not a pipe: nobody need read it for the guard to go on.
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - end() closes it
        self.process = _spawn(self._stderr)
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._asked = 0
        self._stopped: SafetyError | None = None
        #: Whether the guard has closed its end: it is gone, or about to be.
        self.has_ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, message: Mapping[str, Any]) -> None:
        try:
            _pipe(self.process.stdin).write(_line(message))
        except OSError:  # closed pipe: EPIPE, on Windows EINVAL
            raise _GuardGoneError(self._obituary()) from None

    def ask(self, action: str, args: list[Any], patience_s: float) -> Any:  # noqa: ANN401 - JSON
        self._asked += 1
        self.send({"id": self._asked, "call": action, "args": args})
        due = time.monotonic() + patience_s + MARGIN_S
        while True:
            answer = self._answer(due)
            if answer["id"] == self._asked:  # else late, to a question given up
                break
        if "error" in answer:
            raise _unpacked(answer["error"])
        return answer["result"]

    def end(self) -> None:
        """Close the pipe, at which the guard goes dark; wait for it, then kill."""
        if self._stderr.closed:
            return
        _pipe(self.process.stdin).close()
        try:
            self.process.wait(MARGIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        _pipe(self.process.stdout).close()
        self._stderr.close()

    def _answer(self, due: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=max(0.0, due - time.monotonic()))
        except queue.Empty:
            self.process.kill()
            text = "the guard did not answer in time and was killed."
            raise _GuardGoneError(text) from None
        if not line:
            raise _GuardGoneError(self._obituary())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _read(self) -> None:
        for line in _pipe(self.process.stdout):
            answer = json.loads(line)
            if answer["id"] == 0:
                error = _unpacked(answer["error"])
                self._stopped = error if isinstance(error, SafetyError) else None
            else:
                self._answers.put(line)
        self.has_ended = True
        self._answers.put(b"")

    def stopped(self) -> SafetyError | None:
        """Why the guard made dark by itself; every other line waits for its ask."""
        return self._stopped

    def _obituary(self) -> str:
        try:
            code: int | str = self.process.wait(MARGIN_S)
        except subprocess.TimeoutExpired:
            code = "none yet"
        self._stderr.seek(0)
        last_words = self._stderr.read()[-4000:].decode(errors="replace").strip()
        return (
            f"the guard ended (exit code {code}). It said: {last_words or 'nothing'}."
        )


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:  # cannot be: Popen was asked for pipes
        text = "guard: pipe=None, expected a stream"
        raise TypeError(text)
    return stream


def _spawn(stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    # Its own process group: Ctrl-C in the terminal is for the run, whose end then
    # closes the pipe. start_new_session is ignored on Windows, the flag is 0 elsewhere.
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
    else:
        flags = 0
    return subprocess.Popen(
        # -P: modules of the current folder must not stand in for installed ones.
        [sys.executable, "-P", "-m", "labctl.guard"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
        creationflags=flags,
        start_new_session=True,
    )


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _plain(function: Callable[..., Any], args: list[Any]) -> Any:  # noqa: ANN401 - JSON
    result = function(*args)
    json.dumps(result)  # TypeError here, where it is the driver's fault
    return result


def given_to_laser(name: str, beam: Path | str | None) -> dict[str, Any]:
    """Give what every driver of a laser is constructed with, besides its options.

    Parameters
    ----------
    name
        Its name.
    beam
        File through which a simulated laser lights the simulated world; None for a
        real one.

    Returns
    -------
    own
        Keyword arguments. Its clock is the computer's.
    """
    own: dict[str, Any] = {"name": name, "clock": None}
    return own if beam is None else own | {"beam": Path(beam)}


def _packed(error: LabctlError) -> dict[str, Any]:
    known = next(
        kind for kind in type(error).mro() if kind.__module__ == errors.__name__
    )
    fields = json.loads(json.dumps(vars(error), default=str))
    return {"type": known.__name__, "message": str(error), "fields": fields}


def _unpacked(error: Mapping[str, Any]) -> LabctlError:
    kind: type[LabctlError] = getattr(errors, error["type"])
    # Not through __init__, which builds the message that is here already.
    made = kind.__new__(kind, error["message"])
    made.args = (error["message"],)
    vars(made).update(error["fields"])
    return made


@dataclass(frozen=True)
class _Heard:
    """A line from the run; empty at the end of the pipe."""

    line: bytes


@dataclass(frozen=True)
class _Done:
    """A laser call that returned."""

    future: Future[Any]


@dataclass(frozen=True)
class _Stop:
    """A reason to end that came from outside the pipe."""

    reason: str


@dataclass(frozen=True)
class _Pending:
    """A laser call on its way."""

    number: int
    action: str
    args: list[Any]
    future: Future[Any]
    due: float

    @property
    def is_asked(self) -> bool:
        """Whether the run waits for it; a kick or a look is the guard's own."""
        return self.number > 0

    def is_emission(self, *, on: bool) -> bool:
        return self.action == "emission" and self.args == [on]


@final
class _Guard:
    """The guard's end: one loop in the main thread, laser calls in another."""

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self._source, self._sink = source, sink
        self._events: queue.SimpleQueue[_Heard | _Done | _Stop] = queue.SimpleQueue()
        self._lane = ThreadPoolExecutor(1)
        self._laser: Laser | None = None
        self._watchdog: Watchdog | None = None
        self._name = "laser"
        self._patience = Patience()
        self._parent = os.getppid()
        self._waiting: deque[dict[str, Any]] = deque()
        self._pending: _Pending | None = None
        self._heard_s = self._watched_s = time.monotonic()
        self._is_excused = False
        self._quiet_until_s = 0.0
        self._kicked_s = self._looked_s = 0.0
        self._unread = 0
        self._lit = False
        self._refused: SafetyError | None = None
        self._bench: str | None = None
        self._presence: state.Presence | None = None
        self._lit_log: state.LitLog | None = None
        self._running = True

    def run(self) -> int:
        """Serve until the run is gone; 0 if the laser was left dark."""
        # SimpleQueue.put is reentrant, as a signal handler needs it.
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._signalled)
        threading.Thread(target=self._read, daemon=True).start()
        try:
            while self._running:
                self._step()
        finally:
            dark = self._release()
        return 0 if dark else 3

    def _signalled(self, number: int, frame: object) -> None:
        del frame
        self._events.put(_Stop(signal.Signals(number).name))

    def _read(self) -> None:
        for line in self._source:
            self._events.put(_Heard(line))
        self._events.put(_Heard(b""))

    def _step(self) -> None:
        try:
            event = self._events.get(timeout=TICK_S)
        except queue.Empty:
            self._watch()
            return
        if isinstance(event, _Stop):
            _say(f"stopped by {event.reason}")
            self._running = False
        elif isinstance(event, _Done):
            self._finish(event.future)
        elif event.line:
            self._heard_s, self._quiet_until_s = time.monotonic(), 0.0
            self._take(json.loads(event.line))
        else:
            self._running = False
        self._watch()

    def _take(self, message: dict[str, Any]) -> None:
        if message["call"] == "beat":
            return
        if message["call"] == "deadline":
            seconds = min(float(message["seconds"]), LONGEST_SILENCE_S)
            self._quiet_until_s = self._heard_s + seconds
            return
        # A run that was interrupted while it waited may ask again before the
        # answer is there: one call at a time, in order.
        self._waiting.append(message)
        self._next()

    def _next(self) -> None:
        while self._pending is None and self._waiting:
            message = self._waiting.popleft()
            try:
                if message["call"] == "beam":
                    self._note_beam(is_open=message["args"][0] is True)
                    self._send({"id": message["id"], "result": None})
                else:
                    self._begin(message["id"], message["call"], message["args"])
            except LabctlError as err:
                self._send({"id": message["id"], "error": _packed(err)})

    def _note_beam(self, *, is_open: bool) -> None:
        """Note when the beam is open.

        Raises
        ------
        DeviceError
            It cannot be written.
        """
        if self._lit_log is None:
            return
        note = self._lit_log.begin if is_open else self._lit_log.end
        try:
            note(time.monotonic())
        except InputError as err:
            raise DeviceError(self._name, "beam", str(err)) from err

    def _note_dark(self) -> None:
        """Note an end that the run may not have seen."""
        try:
            self._note_beam(is_open=False)
        except LabctlError as err:  # the file says open: the next run rests
            _say(str(err))

    def _begin(self, number: int, action: str, args: list[Any]) -> None:
        patience_s = self._patience.call_s
        function: Callable[..., Any]
        if action == "start":
            patience_s, function = args[0]["patience"]["start_s"], self._open
        elif self._laser is None:
            raise DeviceError(self._name, action, "is not open. Open the bench first.")
        elif action == "close":
            function = self._laser.close
        elif action == "emission" and args == [True]:
            function = self._lighting(self._laser)
        elif action in CALLS:
            function = getattr(self._laser, action)
        else:
            raise DeviceError(self._name, action, "is no call of a laser.")
        future = self._lane.submit(_plain, function, args)
        due = time.monotonic() + patience_s
        self._pending = _Pending(number, action, args, future, due)
        future.add_done_callback(lambda done: self._events.put(_Done(done)))

    def _lighting(self, laser: Laser) -> Callable[[bool], None]:
        """Get ready for emission: lit from now on, not from the answer on.

        Raises
        ------
        SafetyError
            It is refused.
        """
        if self._refused is not None:
            raise self._refused
        was_lit = self._lit
        self._set_lit(on=True)
        # After it was told that the laser may be lit: whoever sets a latch later waits
        # for this guard, whoever set it before is seen here.
        latched = self._latch()
        if latched is not None:
            self._set_lit(on=was_lit)
            raise latched
        watchdog, timeout_s = self._watchdog, self._patience.heartbeat_s
        self._kicked_s = time.monotonic()

        def light(on: bool) -> None:
            # Before there is light: nothing may come between it and its watchdog.
            if watchdog is not None and timeout_s is not None:
                self._arm(watchdog, timeout_s)
            laser.emission(on)

        return light

    def _arm(self, watchdog: Watchdog, timeout_s: float) -> None:
        """Start the laser's own watchdog.

        Raises
        ------
        DeviceError
            It does not start, or cannot be set to the heartbeat.
        """
        try:
            watchdog.arm(timeout_s)
        except OutOfRangeError as error:
            text = (
                f"heartbeat_s={timeout_s:g} (limits of the bench file) is not for the "
                f"laser's own watchdog ({error}). Correct heartbeat_s."
            )
            raise DeviceError(self._name, "watchdog", text) from error

    def _latch(self) -> SafetyError | None:
        found = None if self._bench is None else state.latched(self._bench)
        return None if found is None else found.error()

    def _set_lit(self, *, on: bool) -> None:
        self._lit = on
        if self._presence is not None:
            self._presence.tell(dark=not on)
        if not on:
            self._note_dark()

    def _refuse(self, told: Callable[[str], SafetyError]) -> SafetyError:
        """Go dark, refuse emission from now on, and tell a run that did not ask.

        The error is told whether the laser is dark now.
        """
        self._refused = error = told(_state(dark=False))
        if self._dark(str(error)):
            self._refused = error = told(_state(dark=True))
        self._send({"id": 0, "error": _packed(error)})
        return error

    def _spoil(self, why: str) -> None:
        text = (
            f"{self._name}: emission=on is refused: {why}. "
            "Find out why, then open the bench again."
        )
        self._refused = SafetyError(text)

    def _open(self, order: dict[str, Any]) -> dict[str, Any]:
        self._name = order["name"]
        self._patience = Patience(**order["patience"])
        laser: Laser = registry.build(
            order["driver"],
            where="devices.laser",
            role=Laser,
            arguments=order["options"],
            own=given_to_laser(self._name, order["beam"]),
        )
        self._laser = laser
        self._watchdog = laser if isinstance(laser, Watchdog) else None
        if order["bench"] is not None:
            self._bench = order["bench"]
            self._presence = state.Presence(order["bench"])
        laser.open()
        if self._presence is not None:
            self._presence.tell(dark=True)
        log = None
        if self._bench is not None and order["keeps_lit"]:
            # It is dark now: what a killed guard left open ends here.
            log = self._lit_log = state.LitLog(self._bench, time.monotonic())
        return {
            "lit_spans": [] if log is None else log.spans,
            "lit_doubt": "" if log is None else log.doubt,
            "identity": asdict(laser.identity()),
            "wavelength_nm": laser.wavelength_nm,
            "power_limits_mw": laser.power_limits_mw,
            "repetition_rate_hz": laser.repetition_rate_hz,
            "pulse_width_fs": laser.pulse_width_fs,
        }

    def _finish(self, future: Future[Any]) -> None:
        pending = self._pending
        if pending is None or pending.future is not future:
            self._dark("a call returned after it was given up")
            return
        self._pending = None
        error = future.exception()
        if not pending.is_asked:
            self._found(pending, error)
            self._next()
            return
        self._heard_s = time.monotonic()
        if error is not None:
            answer = {"id": pending.number, "error": self._reported(pending, error)}
        else:
            if pending.action == "close" or pending.is_emission(on=False):
                self._set_lit(on=False)
            answer = {"id": pending.number, "result": future.result()}
        self._send(answer)
        self._next()

    def _found(self, pending: _Pending, error: BaseException | None) -> None:
        """Judge what the guard asked by itself: nobody else waits for it."""
        if error is not None and not isinstance(error, LabctlError):
            _say("".join(traceback.format_exception(error)))
            what = f"its driver failed with {type(error).__name__}: {error}"
            self._stop(
                lambda outcome: SafetyError(
                    f"{self._name}: {pending.action}: {what}; {outcome}. Report it."
                )
            )
        elif pending.action != "faults":
            return  # a watchdog that cannot be kicked makes dark by itself
        elif error is not None:
            self._unread += 1
            if self._unread >= UNREAD:
                self._stop(
                    lambda outcome: SafetyError(
                        f"{self._name}: faults cannot be read ({error}), expected an "
                        f"answer; {outcome}. Look at its cable and power."
                    )
                )
        else:
            self._unread = 0
            found = [str(fault) for fault in pending.future.result()]
            if found and self._lit:
                self._stop(lambda outcome: laser_fault(self._name, found, outcome))

    def _stop(self, told: Callable[[str], SafetyError]) -> None:
        """Go dark for safety; the latch holds also if the run dies of it."""
        if self._refused is None:
            error = self._refuse(told)
            if self._bench is not None:
                state.latch(self._bench, str(error))

    def _reported(self, pending: _Pending, error: BaseException) -> dict[str, Any]:
        if isinstance(error, LabctlError):
            return _packed(error)
        # The driver is at fault: what the laser does now is not known.
        why = f"its driver failed with {type(error).__name__}"
        self._spoil(why)
        dark = self._dark(why)
        trace = "".join(traceback.format_exception(error))
        text = f"its driver failed; {_state(dark=dark)}. Report this:\n{trace}"
        return _packed(DeviceError(self._name, pending.action, text))

    def _watch(self) -> None:
        now = time.monotonic()
        if os.getppid() != self._parent:
            _say("the run is gone")
            self._running = False
            return
        if self._was_away(now):
            return
        if self._pending is not None and now > self._due(self._pending):
            if self._pending.is_asked or now > self._pending.due:
                self._give_up(self._pending)
            else:
                self._fall_silent()
        if self._refused is None:
            self._look(now)
        if self._lit and self._pending is None:
            self._kick(now)
        if self._lit and self._pending is None and self._refused is None:
            self._ask_faults(now)

    def _was_away(self, now: float) -> bool:
        """Whether the guard had no turn for long, and has yet to read what came.

        On a busy computer its own silence would count as that of the run. Once only:
        at its next turn it judges, however late that is.
        """
        away = now - self._watched_s > AWAY_S
        self._watched_s = now
        self._is_excused = away and not self._is_excused
        return self._is_excused

    def _due(self, pending: _Pending) -> float:
        # While it emits, a call that hangs is as bad as a run that does. A head that
        # is told to emit may take its time: by law some wait for seconds.
        if not self._lit or pending.is_emission(on=True):
            return pending.due
        return min(pending.due, self._heard_s + self._patience.silence_s)

    def _look(self, now: float) -> None:
        if self._pending is not None and self._pending.action == "start":
            return  # a laser that opens is dark, and the latch is there when it is open
        latched = self._latch()
        if latched is not None:
            if self._pending is not None:
                self._give_up(self._pending)
            self._refuse(lambda _: latched)
        elif self._pending is None and self._is_silent(now):
            self._refuse(self._silence)

    def _fall_silent(self) -> None:
        """Act on a silent run, whatever the guard itself was just asking the laser."""
        self._pending = None
        self._lane = ThreadPoolExecutor(1)  # nobody knows how long it will take
        self._refuse(self._silence)
        self._next()

    def _silence(self, outcome: str) -> SilentRunError:
        beat = self._patience.heartbeat_s
        text = (
            f"{self._name}: the run was silent for more than heartbeat_s={beat:g} "
            f"(bench file), or than it had announced; {outcome}. "
            "Nothing is wrong with the bench: run again, or resume."
        )
        return SilentRunError(text)

    def _is_silent(self, now: float) -> bool:
        if self._quiet_until_s:
            return now > self._quiet_until_s
        return self._lit and now - self._heard_s > self._patience.silence_s

    def _kick(self, now: float) -> None:
        if (
            self._watchdog is None
            or now - self._kicked_s < self._patience.silence_s / 4
        ):
            return
        self._kicked_s = now
        self._ask("kick", self._watchdog.kick)

    def _ask_faults(self, now: float) -> None:
        if self._laser is not None and now - self._looked_s >= FAULTS_S:
            self._looked_s = now
            self._ask("faults", self._laser.faults)

    def _ask(self, action: str, function: Callable[[], object]) -> None:
        """Ask the laser by itself; beats of the run do not hide that it hangs."""
        future = self._lane.submit(function)
        patience_s = min(self._patience.call_s, self._patience.silence_s)
        due = time.monotonic() + patience_s
        self._pending = _Pending(0, action, [], future, due)
        future.add_done_callback(lambda done: self._events.put(_Done(done)))

    def _give_up(self, pending: _Pending) -> None:
        self._pending = None
        why = f"{pending.action} did not return in time"
        self._spoil(why)
        self._lane = ThreadPoolExecutor(1)  # the old one is stuck
        dark = self._dark(why)
        text = (
            f"no answer in time; {_state(dark=dark)}. Close the bench, check the laser."
        )
        if pending.is_asked:
            error = _packed(DeviceTimeoutError(self._name, pending.action, text))
            self._send({"id": pending.number, "error": error})
        else:  # nobody asked, so nobody would be told
            story = SafetyError(f"{self._name}: {pending.action}: {text}")
            self._refused = story
            self._send({"id": 0, "error": _packed(story)})
        self._next()

    def _dark(self, why: str) -> bool:
        if self._laser is None:
            return True
        _say(f"dark: {why}")
        dark = self._bounded(self._laser.emission, False)
        if dark:
            self._set_lit(on=False)
        elif self._bench is not None:
            state.latch(self._bench, f"the laser could not be made dark ({why}).")
        return dark

    def _release(self) -> bool:
        """Dark, then closed, whatever the laser is busy with."""
        if self._pending is not None and not self._pending.future.done():
            wait([self._pending.future], DARK_S / 2)
            if not self._pending.future.done():
                self._lane = ThreadPoolExecutor(1)
        if self._laser is None:
            return True
        dark = not self._lit or self._dark("the guard ends")
        dark = self._bounded(self._laser.close) or dark
        if dark:
            self._note_dark()
        if self._presence is not None:
            self._presence.end()
        return dark

    def _bounded(self, function: Callable[..., None], *args: object) -> bool:
        future = self._lane.submit(function, *args)
        wait([future], DARK_S)
        if not future.done():
            _say("no answer in time")
            self._lane = ThreadPoolExecutor(1)
            return False
        error = future.exception()
        if error is not None:
            _say("".join(traceback.format_exception(error)))
        return error is None

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._sink.write(_line(message))
        except OSError:  # the run is gone; the end of its pipe says so as well
            self._running = False


def _state(*, dark: bool) -> str:
    return f"the laser {'was' if dark else 'could not be'} made dark" + (
        "" if dark else ": turn its key"
    )


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _main() -> NoReturn:
    # A driver or vendor library that prints or reads must not touch the pipes.
    source = os.fdopen(os.dup(0), "rb", buffering=0)
    sink = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    code = 1
    try:
        code = _Guard(source, sink).run()
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        # Not sys.exit: it would wait for threads that hang in a driver.
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _main()
