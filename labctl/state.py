"""What outlives a run, in the state folder: owner, latch, and guards at work.

::

    <bench>.lock, <bench>.owner.json    one owner a bench: pid and host beside the lock
    instrument.<place>.*                the same of an instrument (labctl.claim)
    <bench>.latch.json                  dark until a person lifts it: who, when, why
    <bench>.guard-<pid>.json, .lock     a guard at work, and whether its laser is dark
    <bench>.lit.json                    when its beam was open lately, for the duty

The latch is a file and a command at once. A guard looks for it several times a
second: while it is there the guard keeps the laser dark and refuses emission. So
``labctl dark`` needs no port and no pipe, and works during a run from any terminal
of the same user.
"""

import getpass
import json
import math
import os
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self, final

from filelock import FileLock, Timeout
from typing_extensions import override

from labctl import duty
from labctl.duty import Lit, Span
from labctl.errors import InputError, LatchedError

STATE: Final = "LABCTL_STATE"
# More than the greatest history; a longer file is none of ours.
_LIT_BYTES: Final = 1 << 18


def folder() -> Path:
    """Where all of it lies: LABCTL_STATE, else the state folder of this user.

    Returns
    -------
    folder
        A folder that may not be there yet.
    """
    named = os.environ.get(STATE, "")
    if named:
        return Path(named).absolute()
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Application Support"
    else:
        state = os.environ.get("XDG_STATE_HOME", "")
        home = Path(state) if state else Path.home() / ".local" / "state"
    return home / "labctl"


@dataclass(frozen=True)
class Owner:
    """The process that has a bench, or had it and died.

    Parameters
    ----------
    pid
        Its process id.
    host
        Its computer.
    """

    pid: int
    host: str

    @classmethod
    def me(cls) -> Self:
        """Give this process."""
        return cls(os.getpid(), socket.gethostname())

    @override
    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@final
class Ownership:
    """The one lock of a bench, held by this process until released.

    Parameters
    ----------
    name
        Name of the bench; of an instrument, that of its files.
    instrument
        What it is, where it is an instrument.

    Raises
    ------
    InputError
        Another process has it.
    """

    def __init__(self, name: str, instrument: str = "") -> None:
        self._owner = _made() / f"{name}.owner.json"
        self._lock = _lock(_made() / f"{name}.lock")
        try:
            self._lock.acquire(timeout=0)
        except PermissionError as err:
            raise InputError(_not_shared(name, err)) from err
        except Timeout:
            owner = _owner(self._owner) or "another process"
            text = (
                f"{instrument or f'bench {name}'}: lock={self._lock.lock_file} is held "
                f"by {owner}, expected it free: one "
                f"{'process' if instrument else 'run'} at a time. Wait for that "
                f"{'process' if instrument else 'run'}, or end it."
            )
            raise InputError(text) from None
        # The operating system lets go of the lock of a process that died, so a
        # file that is still there tells of one that could not clean up.
        self.stale = _owner(self._owner)
        _write(self._owner, asdict(Owner.me()))

    def release(self) -> None:
        """Give it back."""
        self._owner.unlink(missing_ok=True)
        self._lock.release()


@dataclass(frozen=True)
class Latch:
    """Why a bench stays dark until a person lifts it.

    Parameters
    ----------
    bench
        Name of the bench.
    who
        User, process and computer that set it.
    when
        UTC date and time.
    why
        What happened.
    """

    bench: str
    who: str
    when: str
    why: str

    def error(self) -> LatchedError:
        """Refuse emission, for this reason."""
        text = (
            f"bench {self.bench}: latched dark since {self.when} by {self.who}: "
            f"{self.why} Look at the bench, then lift it with: labctl clear --bench "
            f"{self.bench} --reason TEXT"
        )
        return LatchedError(text)


def latched(name: str) -> Latch | None:
    """Read the latch of a bench.

    Parameters
    ----------
    name
        Name of the bench.

    Returns
    -------
    latch
        None if the bench is free. A latch that cannot be read is one.
    """
    path = _latch(name)
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return Latch(**{key: str(read[key]) for key in ("bench", "who", "when", "why")})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Latch(name, "nobody knows", "?", f"{path} cannot be read ({error}).")


def latch(name: str, why: str) -> Latch:
    """Keep a bench dark from now on; the first reason stays.

    Parameters
    ----------
    name
        Name of the bench.
    why
        What happened.

    Returns
    -------
    latch
        The one in force.
    """
    there = latched(name)
    if there is not None:
        return there
    who = f"{getpass.getuser()}, {Owner.me()}"
    made = Latch(name, who, _now(), " ".join(why.split()))
    _made()
    _write(_latch(name), asdict(made))
    return made


def clear(name: str, reason: str) -> Latch:
    """Lift the latch of a bench, and keep it with the reason in a log.

    Parameters
    ----------
    name
        Name of the bench.
    reason
        Why a person thinks that it is safe.

    Returns
    -------
    latch
        The one that was lifted.

    Raises
    ------
    InputError
        There is none, or no reason was given.
    """
    there = latched(name)
    if there is None:
        text = f"bench {name}: latch=none, expected one. There is nothing to clear."
        raise InputError(text)
    if not reason.strip():
        text = (
            f"bench {name}: reason is empty, expected a sentence. Say what was wrong."
        )
        raise InputError(text)
    lifted = {"cleared": _now(), "by": f"{getpass.getuser()}, {Owner.me()}"}
    row = asdict(there) | lifted | {"reason": reason.strip()}
    log = _made() / f"{name}.cleared.jsonl"
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        _share(log)
        _latch(name).unlink(missing_ok=True)
    except PermissionError as err:
        raise InputError(_not_shared(name, err)) from err
    return there


@final
class Presence:
    """A guard at work tells here whether its laser is dark.

    Parameters
    ----------
    name
        Name of the bench.
    """

    def __init__(self, name: str) -> None:
        self._path = _made() / f"{name}.guard-{os.getpid()}.json"
        self._lock = _lock(self._path.with_suffix(".lock"))
        self._lock.acquire(timeout=0)
        self._told: bool | None = None
        self.tell(dark=False)

    def tell(self, *, dark: bool) -> None:
        """Write the state down, where it changed.

        Parameters
        ----------
        dark
            Whether the laser is known to be dark.
        """
        if dark != self._told:
            _write(self._path, asdict(Owner.me()) | {"dark": dark})
            self._told = dark

    def end(self) -> None:
        """Take the file away."""
        self._path.unlink(missing_ok=True)
        self._lock.release()
        # On Windows another process may be looking at it just now.
        with suppress(OSError):
            Path(self._lock.lock_file).unlink(missing_ok=True)


def lit_guards(name: str) -> list[Owner]:
    """Find guards that are alive and have not said that their laser is dark.

    Parameters
    ----------
    name
        Name of the bench.

    Returns
    -------
    guards
        Empty if every laser of that bench is dark, as far as its guard knows.
    """
    return [owner for owner, dark in guards(name).items() if not dark]


def guards(name: str) -> dict[Owner, bool]:
    """Find guards that are alive, and whether their laser is dark.

    Parameters
    ----------
    name
        Name of the bench.

    Returns
    -------
    guards
        What each said last; one whose word cannot be read is not dark. What dead ones
        left is removed.
    """
    found: dict[Owner, bool] = {}
    for path in sorted(folder().glob(f"{name}.guard-*.json")):
        lock = _lock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except (Timeout, PermissionError):
            owner = _owner(path)
            if owner is not None:
                found[owner] = _read(path).get("dark") is True
            elif path.exists():
                found[_unread(path)] = False
            continue
        path.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
    return found


@final
class LitLog:
    """When the beam of a bench was open, kept over runs by its guard: it sees it end.

    Times are of :func:`time.monotonic`, which nobody can set and which all processes of
    a computer share. A beam of which nobody noted the end counts as open for as long as
    any window reaches, until now: make the laser dark first.

    Parameters
    ----------
    name
        Name of the bench.
    now_s
        Time.

    Raises
    ------
    InputError
        It cannot be written.
    """

    def __init__(self, name: str, now_s: float) -> None:
        self._path = _made() / f"{name}.lit.json"
        self.doubt = ""
        try:
            spans = _lit_spans(self._path, now_s)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
            RecursionError,
        ) as err:
            # No file can tell of more light than this.
            spans = [(now_s - duty.LONGEST_S, now_s)]
            self.doubt = (
                f"bench {name}: {self._path} cannot be read ({err}), expected when its "
                "beam was open: it is taken to have been open until now, and written "
                "anew."
            )
        self._lit = Lit(spans)
        try:
            self._keep()
        except PermissionError as err:
            raise InputError(_not_shared(name, err)) from err
        except OSError as err:
            raise InputError(self._unkept(err)) from err

    @property
    def spans(self) -> tuple[Span, ...]:
        """Start and end of each time that the beam was open, in s."""
        return self._lit.spans

    def begin(self, now_s: float) -> None:
        """Note that the beam opens; before it does.

        Parameters
        ----------
        now_s
            Time.

        Raises
        ------
        InputError
            It cannot be written: the beam has to stay shut.
        """
        if self._lit.since_s is not None:
            return
        self._lit.begin(now_s)
        try:
            self._keep()
        except OSError as err:
            self._lit.end(now_s)
            raise InputError(self._unkept(err)) from err

    def end(self, now_s: float) -> None:
        """Note that the beam is shut.

        Parameters
        ----------
        now_s
            Time.

        Raises
        ------
        InputError
            It cannot be written: whoever reads the file takes the beam for open.
        """
        if self._lit.since_s is None:
            return
        self._lit.end(now_s)
        try:
            self._keep()
        except OSError as err:
            raise InputError(self._unkept(err)) from err

    def _keep(self) -> None:
        content = {
            "host": Owner.me().host,
            "spans": self._lit.spans,
            "since_s": self._lit.since_s,
        }
        _write(self._path, content)

    def _unkept(self, error: OSError) -> str:
        return (
            f"{self._path}: {error}, expected a file for when the beam was open "
            f"(limits.duty). Make room, or set {STATE} to another folder."
        )


def _lit_spans(path: Path, now_s: float) -> list[Span]:
    """Read when a beam was open, on the clock of this computer.

    Raises
    ------
    ValueError
        It is no such file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LIT_BYTES + 1)
    except FileNotFoundError:
        return []
    if len(data) > _LIT_BYTES:
        text = f"more than {_LIT_BYTES} bytes"
        raise ValueError(text)
    read = json.loads(data)
    since_s = read["since_s"]
    known = read["host"] == Owner.me().host
    spans = [(float(start_s), float(end_s)) for start_s, end_s in read["spans"]]
    times = [time_s for span in spans for time_s in span]
    if since_s is not None:
        times.append(float(since_s))
    if not all(map(math.isfinite, times)) or times != sorted(times):
        text = "times that are no numbers, or not in order"
        raise ValueError(text)
    if since_s is not None:
        # Run and guard died at once, and the computer may have restarted since.
        return [(now_s - duty.LONGEST_S, now_s)]
    return duty.aged(spans, now_s, known=known)


def _made() -> Path:
    made = folder()
    try:
        made.mkdir(parents=True, exist_ok=True)
        writable = os.access(made, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        text = (
            f"state folder {made}: cannot be written, expected a folder for locks and "
            f"latches. Set {STATE} to one that can."
        )
        raise InputError(text)
    return made


def _latch(name: str) -> Path:
    return folder() / f"{name}.latch.json"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _mode() -> int:
    # Whoever may put files into the folder may read and change those that are there:
    # a bench that several users share has one lock, and a latch that all of them see.
    return folder().stat().st_mode & 0o666


def _share(path: Path) -> None:
    with suppress(OSError):  # somebody else's, who shared it when it was made
        path.chmod(_mode())


def _lock(path: Path) -> FileLock:
    # Of the process, not of a thread: after a call that hangs another thread lets go.
    return FileLock(path, mode=_mode(), thread_local=False)


def _not_shared(name: str, error: OSError) -> str:
    return (
        f"bench {name}: {error.filename} belongs to another user ({error.strerror}), "
        f"expected a file that all users of the bench may change. Let {folder()} "
        "belong to a group that they are in, with mode 2770, and remove that file "
        "while no run has the bench."
    )


def _write(path: Path, content: Mapping[str, object]) -> None:
    # Whole or not at all, for whoever reads meanwhile.
    handle, made = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(content, file)
    _share(Path(made))
    Path(made).replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # gone, or about to be written
        return {}
    return read if isinstance(read, dict) else {}


def _owner(path: Path) -> Owner | None:
    read = _read(path)
    try:
        return Owner(int(read["pid"]), str(read["host"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _unread(path: Path) -> Owner:
    # <bench>.guard-<pid>.json
    number = path.stem.rpartition("-")[2]
    pid = int(number) if number.isascii() and number.isdigit() else 0
    return Owner(pid, f"an unknown host, as {path} cannot be read")
