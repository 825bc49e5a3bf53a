"""Hardened text and byte transport over serial ports, sockets and VISA.

Every instrument that talks a command language is spoken to through a :class:`Wire`:
one lock, a deadline around every exchange, a pattern for every reply. After a reply
that is late or foreign the line is suspect: what waits is thrown away and the device
is asked who it is, until the answer to that question comes, so that a late reply is
never taken for the answer to the next question. Queries are repeated once; nothing
that changes the device ever is. Two silences in a row fail the wire.

This module knows no device.
"""

import difflib
import math
import os
import re
import socket
import sys
import threading
import time
import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, NoReturn, Protocol, final

import pyvisa
import serial
from pyvisa.constants import InterfaceType, StatusCode
from pyvisa.highlevel import list_backends
from pyvisa.rname import InvalidResourceName, ResourceName
from serial.tools.list_ports import comports
from typing_extensions import override

from labctl.claim import Claim
from labctl.devices import Clock, Found
from labctl.errors import (
    DeviceError,
    DeviceTimeoutError,
    Fault,
    MissingLibraryError,
    ProtocolError,
)

QUIET_S: Final = 0.05  # so long without a byte, and a line counts as silent
KEPT: Final = 12  # lines of the transcript that an error tells
LONGEST_REPLY: Final = 65_536
# Slower is no serial line; faster no converter goes.
BAUD: Final = (50, 12_000_000)
USB_EXTRA: Final = "pip install 'labctl[usb]'"
PARITIES: Final = ("N", "E", "O")
STOPBITS: Final = (1, 2)
# What a port or a library raises that cannot be set as asked. POSIX ports raise
# termios.error, which is no OSError; the module is there where pyserial needs it.
_IMPOSSIBLE: Final[tuple[type[Exception], ...]] = (
    ValueError,
    TypeError,
    *((sys.modules["termios"].error,) if "termios" in sys.modules else ()),
)


@final
class Monotonic(Clock):
    """The computer's own clock, where a driver is given none."""

    @override
    def now(self) -> float:
        return time.monotonic()

    @override
    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def fault(key: str, got: object, expected: str) -> Fault:
    """Say what is wrong with an option; the registry puts its place before it.

    Parameters
    ----------
    key
        Option, or a dotted path below one: ``commands.identify.reply``.
    got, expected
        For the message.

    Returns
    -------
    fault
        For :func:`refuse`.
    """
    text = f"got {got!r}, expected {expected}. Correct the bench file."
    return Fault("", None, None, key, text)


def refuse(faults: Iterable[Fault]) -> None:
    """Refuse options, if anything is wrong with them.

    Parameters
    ----------
    faults
        Every one.

    Raises
    ------
    ProtocolError
        There is one.
    """
    found = list(faults)
    if found:
        raise ProtocolError(found)


def is_command(key: str, value: object) -> Iterator[Fault]:
    """Judge a command: text that is not empty, in ASCII, as it is sent."""
    if not isinstance(value, str) or not value or not value.isascii():
        yield fault(key, value, "a command: text in ASCII")


def is_pattern(key: str, value: object, groups: int = 0) -> Iterator[Fault]:
    """Judge a regular expression, and how many groups it has at least."""
    if not isinstance(value, str):
        yield fault(key, value, "a regular expression")
        return
    try:
        found = re.compile(value).groups
    except (re.error, OverflowError, RecursionError) as err:
        yield fault(key, value, f"a regular expression: {err}")
        return
    if found < groups:
        yield fault(key, value, "a regular expression with one group in it")


def is_sent(key: str, value: object) -> Iterator[Fault]:
    """Judge what ends a command: ASCII, perhaps nothing."""
    if not isinstance(value, str) or not value.isascii():
        yield fault(key, value, "text in ASCII")


def is_done(key: str, value: object) -> Iterator[Fault]:
    """Judge what ends a reply: a pattern in ASCII that nothing does not match."""
    if not isinstance(value, str) or not value.isascii():
        yield fault(key, value, "a regular expression in ASCII")
        return
    wrong = list(is_pattern(key, value))
    yield from wrong
    if not wrong and re.search(value, "") is not None:
        yield fault(key, value, "a regular expression that needs one byte or more")


def is_baudrate(key: str, value: object) -> Iterator[Fault]:
    """Judge the speed of a serial line."""
    low, high = BAUD
    if type(value) is not int or not low <= value <= high:
        yield fault(key, value, f"a whole number from {low} to {high} (bits a second)")


def is_one_of(key: str, value: object, words: Iterable[object]) -> Iterator[Fault]:
    """Judge a choice."""
    offered = list(words)
    # 1 is not true, here: a bool equals a number.
    if not any(type(value) is type(word) and value == word for word in offered):
        listed = ", ".join(str(word) for word in offered)
        yield fault(key, value, f"one of {listed}")


def wrong_keys(
    key: str, given: Iterable[object], known: Iterable[str], needed: Iterable[str]
) -> Iterator[Fault]:
    """Judge the keys of a map: none unknown, none missing.

    Parameters
    ----------
    key
        Where the map stands.
    given
        Its keys.
    known, needed
        Those that it may have, and those of them that it must have.

    Yields
    ------
    fault
        One a key.
    """
    words, there = list(known), [str(each) for each in given]
    for name in there:
        if name not in words:
            close = difflib.get_close_matches(name, words, n=1)
            hint = f"Did you mean {close[0]}?" if close else "Correct the bench file."
            text = f"is not known, expected one of {', '.join(words)}. {hint}"
            yield Fault("", None, None, f"{key}.{name}", text)
    for name in needed:
        if name not in there:
            text = "is missing. Add it to the bench file."
            yield Fault("", None, None, f"{key}.{name}", text)


class Link(Protocol):
    """Bytes to and from a device; raises what its library raises."""

    @property
    def place(self) -> str:
        """What to claim, where a second process would be let in; else empty."""
        return ""

    @abstractmethod
    def open(self) -> None:
        """Connect; a port that nobody answers behind fails here, if it can."""

    @abstractmethod
    def close(self) -> None:
        """Let go; may be called twice."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send all of it."""

    @abstractmethod
    def read(self, timeout_s: float) -> bytes:
        """Return what is there, or comes within the time; empty if nothing does."""

    @abstractmethod
    def drop(self) -> bytes:
        """Throw away what waits already, without waiting for more."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """How a serial line is set; a pseudo-terminal and a socket ignore it.

    Parameters
    ----------
    baudrate
        Bits a second.
    parity
        ``N``, ``E`` or ``O``.
    stopbits
        1 or 2.

    Raises
    ------
    ProtocolError
        No line can be set so.
    """

    baudrate: int = 115_200
    parity: str = "N"
    stopbits: int = 1

    def __post_init__(self) -> None:
        refuse(
            [
                *is_baudrate("baudrate", self.baudrate),
                *is_one_of("parity", self.parity, PARITIES),
                *is_one_of("stopbits", self.stopbits, STOPBITS),
            ]
        )


@final
class SerialLink(Link):
    """A serial port, taken for this process alone.

    Parameters
    ----------
    port
        Name such as ``/dev/ttyUSB0`` or ``COM3``, or any address of pyserial's.
    line
        How it is set.
    timeout_s
        Greatest time that a write may take.
    """

    def __init__(self, port: str, line: Line, timeout_s: float) -> None:
        self._port, self._line, self._timeout_s = port, line, timeout_s
        self._serial: Any = None

    @override
    def open(self) -> None:
        made = serial.serial_for_url(
            self._port,
            do_not_open=True,
            baudrate=self._line.baudrate,
            parity=self._line.parity,
            stopbits=self._line.stopbits,
            timeout=0,
            write_timeout=self._timeout_s,
            exclusive=True,
        )
        made.open()
        self._serial = made

    @override
    def close(self) -> None:
        held, self._serial = self._serial, None
        if held is not None:
            held.close()

    @override
    def write(self, data: bytes) -> None:
        self._serial.write(data)

    @override
    def read(self, timeout_s: float) -> bytes:
        self._serial.timeout = timeout_s
        first: bytes = self._serial.read(1)
        if not first:
            return b""
        return first + self.drop()

    @override
    def drop(self) -> bytes:
        waiting = self._serial.in_waiting
        self._serial.timeout = 0
        data: bytes = self._serial.read(waiting) if waiting else b""
        return data


@final
class SocketLink(Link):
    """A TCP connection, to a device or to a serial server; nothing is delayed.

    Parameters
    ----------
    host, port
        Where it listens.
    timeout_s
        Greatest time that connecting and a write may take.
    """

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._place, self._timeout_s = (host, port), timeout_s
        self._socket: socket.socket | None = None

    @property
    @override
    def place(self) -> str:
        host, port = self._place
        return f"socket {host.lower()}:{port}"

    @override
    def open(self) -> None:
        made = socket.create_connection(self._place, self._timeout_s)
        # Without it a write and the next one wait 40 ms for an acknowledgement.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = made

    @override
    def close(self) -> None:
        held, self._socket = self._socket, None
        if held is not None:
            held.close()

    def _connected(self) -> socket.socket:
        if self._socket is None:
            text = "the connection is closed"
            raise ConnectionError(text)
        return self._socket

    @override
    def write(self, data: bytes) -> None:
        connected = self._connected()
        connected.settimeout(self._timeout_s)
        connected.sendall(data)

    @override
    def read(self, timeout_s: float) -> bytes:
        connected = self._connected()
        connected.settimeout(max(timeout_s, 1e-6))  # 0 would mean: do not block
        try:
            data = connected.recv(4096)
        except TimeoutError:
            return b""
        if not data:
            text = "the other end closed the connection"
            raise ConnectionError(text)
        return data

    @override
    def drop(self) -> bytes:
        connected, dropped = self._connected(), b""
        connected.settimeout(0)
        while True:
            try:
                data = connected.recv(4096)
            except BlockingIOError:
                return dropped
            if not data:
                text = "the other end closed the connection"
                raise ConnectionError(text)
            dropped += data


@final
class VisaLink(Link):
    """A VISA resource: USBTMC, GPIB, LXI or a raw socket.

    Parameters
    ----------
    resource
        Its name, such as ``USB0::0x1313::0x804F::M00000001::INSTR``.
    library
        VISA library; ``@py`` is pyvisa-py, which needs none from a vendor.
    last
        Last byte of a reply.
    timeout_s
        Greatest time that opening and a write may take.
    """

    def __init__(
        self, resource: str, library: str, last: bytes, timeout_s: float
    ) -> None:
        self._resource, self._library = resource, library
        self._last, self._timeout_s = last, timeout_s
        self._manager: Any = None
        self._session: Any = None

    @property
    @override
    def place(self) -> str:
        return f"VISA resource {self._resource.upper()}"

    @override
    def open(self) -> None:
        self._check_usb()
        self._manager = pyvisa.ResourceManager(self._library)
        with self._usb_errors():
            session = self._manager.open_resource(
                self._resource, open_timeout=int(self._timeout_s * 1000)
            )
        session.read_termination = self._last.decode("latin-1")
        session.write_termination = ""
        self._session = session
        self._hurry()

    @property
    def _is_usb(self) -> bool:
        return self._library == "@py" and self._resource.upper().startswith("USB")

    @contextmanager
    def _usb_errors(self) -> Iterator[None]:
        """Tell an instrument on USB that is not there from what cannot be set.

        pyvisa-py says both by ValueError, with its own words or those of libusb.

        Raises
        ------
        ConnectionError
            It is not plugged in, may not be used, or went away.
        ValueError
            The latter.
        """
        try:
            yield
        except ValueError as err:
            words = str(err).rstrip(".")
            if not self._is_usb or type(err) is not ValueError:  # no libusb at all
                raise
            text = (
                f"{self._resource} is not on USB ({words}). Plug it in and switch it "
                "on; labctl devices lists what is seen. On Linux the account must be "
                "allowed to use it (a udev rule), on Windows it needs WinUSB"
            )
            raise ConnectionError(text) from err

    def _check_usb(self) -> None:
        """Look whether the library that speaks to USB is there.

        Raises
        ------
        ModuleNotFoundError
            Names the extra to install.
        """
        if self._is_usb:
            why = usb_issue()
            if why:
                text = f"{self._resource} is on USB: {USB_EXTRA}"
                raise ModuleNotFoundError(text)

    def _hurry(self) -> None:
        # Setting the VISA attribute raises (its setter is wired to another method),
        # so the socket of pyvisa-py itself is set: 44 ms become 0.2 ms.
        sessions = getattr(self._manager.visalib, "sessions", {})
        inner = getattr(sessions.get(self._session.session), "interface", None)
        if isinstance(inner, socket.socket):
            # It also connects without looking at the answer: refused shows here.
            refused = inner.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if refused:
                text = f"not connected: {os.strerror(refused)}"
                raise ConnectionError(text)
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @override
    def close(self) -> None:
        session, self._session = self._session, None
        manager, self._manager = self._manager, None
        if session is not None:
            session.close()
        if manager is not None:
            manager.close()

    @override
    def write(self, data: bytes) -> None:
        self._session.timeout = self._timeout_s * 1000
        with self._usb_errors():
            self._session.write_raw(data)

    @override
    def read(self, timeout_s: float) -> bytes:
        self._session.timeout = max(1, int(timeout_s * 1000))
        try:
            with self._usb_errors():
                data: bytes = self._session.read_raw()
        except pyvisa.VisaIOError as error:
            if error.error_code == StatusCode.error_timeout:
                return b""
            raise
        return data

    @override
    def drop(self) -> bytes:
        return b""  # it tells nothing without waiting; resync clears it


def link(address: str, *, line: Line, last: bytes, timeout_s: float) -> Link:
    """Make the link that an address of a bench file asks for; nothing is opened.

    Parameters
    ----------
    address
        A serial port (``COM3``, ``/dev/ttyUSB0``), ``socket://host:port`` or a VISA
        resource (``USB0::0x1313::...::INSTR``), which a VISA library may precede:
        ``@ivi;GPIB0::9::INSTR``.
    line
        How a serial line is set.
    last
        Last byte of a reply.
    timeout_s
        Greatest time that connecting and a write may take.

    Returns
    -------
    link
        Not open.

    Raises
    ------
    ProtocolError
        The address has none of these forms.
    """
    refuse(_is_address(address))
    if "::" in address:
        library, _, resource = address.rpartition(";")
        return VisaLink(resource, library or "@py", last, timeout_s)
    if address.startswith("socket://"):
        host, _, port = address.removeprefix("socket://").rpartition(":")
        return SocketLink(host, int(port), timeout_s)
    return SerialLink(address, line, timeout_s)


def _is_address(address: str) -> Iterator[Fault]:
    if not address.strip() or not address.isprintable() or address != address.strip():
        wanted = "a serial port, socket://host:port or a VISA resource"
        yield fault("address", address, wanted)
    elif "::" in address:
        yield from _is_resource(address)
    elif address.startswith("socket://"):
        host, _, port = address.removeprefix("socket://").rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            wanted = "socket://host:port, the port from 1 to 65535"
            yield fault("address", address, wanted)
    elif "://" in address:
        scheme = address.partition("://")[0]
        # Those that pyserial brings; asking for one imports nothing.
        known = scheme.isidentifier() and find_spec(
            f"serial.urlhandler.protocol_{scheme}"
        )
        if not known:
            wanted = "socket://host:port, or another kind that pyserial has"
            yield fault("address", address, wanted)


def _is_resource(address: str) -> Iterator[Fault]:
    library, _, resource = address.rpartition(";")
    try:
        ResourceName.from_string(resource)
    except InvalidResourceName as err:
        story = " ".join(str(err).split())
        wanted = f"a VISA resource such as USB0::0x1313::0x804F::M1::INSTR ({story})"
        yield fault("address", address, wanted)
    if library.startswith("@") and library[1:] not in list_backends():
        wanted = f"a VISA library: @{', @'.join(list_backends())}, or a path"
        yield fault("address", address, wanted)


@contextmanager
def link_errors(where: str, action: str) -> Iterator[None]:
    """Turn what a link's library raises into ours, the most specific first.

    Parameters
    ----------
    where
        Name of the device.
    action
        What it was asked to do.

    Raises
    ------
    DeviceTimeoutError
        A write did not get away in time.
    DeviceError
        The port is taken, closed, gone, or cannot be set so.
    """
    try:
        yield
    except (serial.SerialTimeoutException, TimeoutError) as err:
        text = f"nothing went out in time ({err}). Look at plug and power."
        raise DeviceTimeoutError(where, action, text) from err
    except (serial.SerialException, pyvisa.Error, OSError) as err:
        # OSError: a refused or broken connection, and EIO of a port that vanished.
        words = str(err).rstrip(".")
        text = f"{words}. Look at address, plug and power, and who else has it."
        raise DeviceError(where, action, text) from err
    except ModuleNotFoundError as err:
        raise DeviceError(where, action, f"{err}. Then open it again.") from err
    except _IMPOSSIBLE as err:
        # A port or a library that cannot be set as asked: no libusb, no parity.
        text = f"{err}. Correct the address, or install what it asks for."
        raise DeviceError(where, action, text) from err


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How commands and replies begin and end.

    Parameters
    ----------
    send
        What ends a command.
    done
        Pattern on the bytes so far; a reply is complete where it first matches.
    last
        Last byte of a reply, where the library itself looks for it (VISA).
    strip
        What is taken from both ends of a reply before it is judged.
    """

    send: bytes = b"\r\n"
    done: re.Pattern[bytes] = re.compile(rb"\r\n")
    last: bytes = b"\n"
    strip: str = "\r\n "


@final
class Wire:
    """A conversation with one device: a command, its reply, never another's.

    Parameters
    ----------
    name
        Name of the device, for messages.
    link
        Bytes to and from it.
    framing
        How commands and replies end.
    identify
        A query, and the pattern of its reply, that finds the way back after a reply
        was late or foreign; its reply is another than that of every other query.
    timeout_s
        Greatest time between a command and its complete reply.
    gap_s
        Least time between two commands.
    clock
        Time; None takes the computer's.
    """

    def __init__(  # noqa: PLR0913 - one parameter an option
        self,
        name: str,
        link: Link,
        *,
        framing: Framing,
        identify: tuple[str, str],
        timeout_s: float = 0.4,
        gap_s: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        if not timeout_s > 0 or not gap_s >= 0:
            text = f"timeout_s={timeout_s}, gap_s={gap_s}, expected above 0, 0 or more"
            raise ValueError(text)
        self.name, self._link, self._framing = name, link, framing
        self._identify, self._timeout_s, self._gap_s = identify, timeout_s, gap_s
        self._clock = clock or Monotonic()
        self._lock = threading.Lock()
        self._claim: Claim | None = None
        self._is_open, self._suspect, self._silences = False, False, 0
        self._rest = b""
        self._sent_s = -1e9
        self._fault = ""  # what it was given up after
        self._seen: deque[str] = deque(maxlen=KEPT)

    @property
    def is_open(self) -> bool:
        """Whether it may be spoken to."""
        return self._is_open

    @property
    def transcript(self) -> str:
        """The last lines in both directions, oldest first."""
        return " ".join(self._seen)

    def open(self) -> None:
        """Connect, and throw away whatever waits.

        Raises
        ------
        DeviceError
            Nobody is there, or somebody else has it.
        """
        if self._is_open:
            raise DeviceError(self.name, "open", "already open. Close it first.")
        if self._link.place and self._claim is None:
            self._claim = Claim(self.name, self._link.place)
        try:
            with link_errors(self.name, "open"):
                self._link.open()
        except BaseException:
            self._let_go()
            raise
        self._is_open, self._suspect, self._silences = True, False, 0
        self._rest, self._fault = b"", ""
        self._seen.clear()

    def close(self) -> None:
        """Let go of the port; may be called twice, and after a failure."""
        self._is_open = False  # what it was given up after is still true
        try:
            with link_errors(self.name, "close"):
                self._link.close()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()

    def shout(self, command: str) -> None:
        """Send a command whose reply is not known yet, and hear it out.

        For the first words after opening: echo off, prompt off.

        Parameters
        ----------
        command
            Without its end.
        """
        with self._held(command):
            self._send(command)
            self._hush()

    def tell(self, command: str, reply: str | None = None) -> None:
        """Change the device; sent once, whatever comes back.

        Parameters
        ----------
        command
            Without its end.
        reply
            Pattern of the acknowledgement; None where the device gives none.

        Raises
        ------
        DeviceTimeoutError
            No acknowledgement came: whether it was done is not known.
        DeviceError
            It was refused.
        """
        if reply is not None:
            self.command(command, reply)
            return
        with self._held(command):
            self._settle_down()
            self._send(command)

    def command(self, command: str, reply: str) -> re.Match[str]:
        """Change the device, sent once, and take what it answers.

        Parameters
        ----------
        command
            Without its end.
        reply
            Pattern of the answer.

        Returns
        -------
        match
            The answer.

        Raises
        ------
        DeviceTimeoutError
            No answer came: whether it was done is not known.
        DeviceError
            It was refused.
        """
        with self._held(command):
            self._settle_down()
            self._send(command)
            got = self._reply(command)
            match = re.fullmatch(reply, got)
            if match is None:
                self._suspect = True
                self._fail(command, f"refused with {got!r}, expected {reply!r}.")
            return match

    def ask(self, command: str, reply: str) -> re.Match[str]:
        """Query the device; repeated once if no fitting reply comes.

        Parameters
        ----------
        command
            Without its end.
        reply
            Pattern of the whole reply.

        Returns
        -------
        match
            The reply.

        Raises
        ------
        DeviceTimeoutError
            No complete reply came in time, twice.
        DeviceError
            A reply came that does not fit, twice.
        """
        with self._held(command):
            try:
                return self._asked(command, reply)
            except DeviceError:
                if not self._is_open:
                    raise
                return self._asked(command, reply)

    def _asked(self, command: str, reply: str) -> re.Match[str]:
        self._settle_down()
        self._send(command)
        got = self._reply(command)
        match = re.fullmatch(reply, got)
        if match is None:
            self._suspect = True
            self._fail(command, f"got {got!r}, expected {reply!r}.")
        return match

    @contextmanager
    def _held(self, action: str) -> Iterator[None]:
        # Bounded: whoever wants the laser dark does not wait for a lock for ever.
        if not self._lock.acquire(timeout=4 * self._timeout_s + self._gap_s):
            text = "another exchange does not end. Close it."
            raise DeviceTimeoutError(self.name, action, text)
        try:
            with link_errors(self.name, action):
                self._check_open(action)
                yield
        except DeviceTimeoutError:
            raise
        except DeviceError as error:
            if error.__cause__ is not None:  # the link itself: nothing more goes out
                self._is_open, self._fault = False, error.detail.rstrip(".")
            raise
        finally:
            self._lock.release()

    def _check_open(self, action: str) -> None:
        if not self._is_open:
            why = f": given up after a fault ({self._fault})" if self._fault else ""
            text = f"not open{why}. Open it first."
            raise DeviceError(self.name, action, text)

    def recognise(self, reply: str) -> None:
        """Take as identity from now on exactly what the device answered to it.

        Parameters
        ----------
        reply
            Pattern of the reply to the query that identifies it.
        """
        self._identify = (self._identify[0], reply)

    def _send(self, command: str) -> None:
        wait_s = self._sent_s + self._gap_s - self._clock.now()
        if wait_s > 0:
            self._clock.sleep(wait_s)
        self._note("<<", self._rest + self._link.drop())
        self._rest = b""
        data = command.encode("ascii") + self._framing.send
        self._note(">", data)
        self._link.write(data)
        self._sent_s = self._clock.now()

    def _reply(self, command: str) -> str:
        """Read one reply.

        Raises
        ------
        DeviceTimeoutError
            It is not complete in time.
        """
        due = self._clock.now() + self._timeout_s
        got = self._rest
        while (found := self._framing.done.search(got)) is None:
            left_s = due - self._clock.now()
            if left_s <= 0 or len(got) > LONGEST_REPLY:
                self._rest = b""
                self._note("<", got)
                self._silent(command, got)
            got += self._link.read(left_s)
        self._rest = got[found.end() :]
        self._silences = 0
        self._note("<", got[: found.end()])
        # Latin-1 takes every byte, so garbage reaches the pattern, which refuses it.
        return got[: found.end()].decode("latin-1").strip(self._framing.strip)

    def _silent(self, command: str, got: bytes) -> NoReturn:
        self._suspect = True
        self._silences += 1
        text = f"half a reply, {got!r}" if got else "no reply"
        if self._silences > 1:
            self._is_open, self._fault = False, f"{text} to {command!r}"
            text += ", twice in a row: taken for gone"
        text += f" within {self._timeout_s:g} s"
        self._fail(command, f"{text}.", DeviceTimeoutError)

    def _fail(
        self, command: str, text: str, kind: type[DeviceError] = DeviceError
    ) -> NoReturn:
        story = f"{text} Look at plug and power. On the wire: {self.transcript}"
        raise kind(self.name, command, story)

    def _hush(self) -> None:
        """Hear the device out: until it is silent, but not for ever."""
        due = self._clock.now() + self._timeout_s
        dropped = self._rest
        self._rest = b""
        while self._clock.now() < due:
            data = self._link.read(QUIET_S)
            if not data:
                break
            dropped += data
        self._note("<<", dropped)

    def _settle_down(self) -> None:
        """Find the way back, where a reply is late or foreign.

        Raises
        ------
        DeviceError
            Nobody answers to the question who it is: the wire has failed.
        """
        if not self._suspect:
            return
        command, reply = self._identify
        self._hush()
        self._send(command)
        due = self._clock.now() + 2 * self._timeout_s
        try:
            while re.fullmatch(reply, self._reply(command)) is None:
                if self._clock.now() > due:
                    self._fail(command, "only foreign replies.")
        except DeviceError as error:
            self._is_open = False
            self._fault = self._fault or error.detail.rstrip(".")
            raise
        self._suspect = False

    def _note(self, arrow: str, data: bytes) -> None:
        if data:
            self._seen.append(f"{arrow} {data[:80]!r}")


def number(match: re.Match[str], where: str, quantity: str) -> float:
    """Take the number out of a reply.

    Parameters
    ----------
    match
        A reply, with the number as its first group.
    where
        Name of the device.
    quantity
        What it is, for the message.

    Returns
    -------
    number
        A finite number.

    Raises
    ------
    DeviceError
        It is none.
    """
    text = match[1]
    try:
        value = float(text)
    except ValueError as err:
        story = f"got {text!r}, expected a number. Look at the cable."
        raise DeviceError(where, quantity, story) from err
    if not math.isfinite(value):
        story = f"got {text!r}, expected a finite number. Look at the device."
        raise DeviceError(where, quantity, story)
    return value


def find() -> list[Found]:
    """List serial ports and VISA resources but those on USB; opens none of them.

    Returns
    -------
    found
        Nothing tells which laser is behind a port: a person names the driver.
    """
    found = [
        Found(what=f"serial port {port.device}: {port.description}")
        for port in sorted(comports(), key=lambda port: port.device)
    ]
    # Serial ports are listed above, with what they say of themselves.
    others = [
        each
        for each in _resources()
        if "ASRL" not in each and not each.startswith("USB")
    ]
    return [*found, *(Found(what=f"VISA resource {each}") for each in others)]


def find_usb() -> list[Found]:
    """List instruments on USB (USBTMC), as VISA names them; opens none of them.

    Returns
    -------
    found
        A person names the driver.

    Raises
    ------
    MissingLibraryError
        What speaks to USB is not installed.
    """
    if usb_issue():
        text = f"USB instruments ({USB_EXTRA})"
        raise MissingLibraryError(text)
    there = [each for each in _resources() if each.startswith("USB")]
    return [Found(what=f"VISA resource {each}") for each in there]


def usb_issue() -> str:
    """Say why pyvisa-py has no USB; empty where it has."""
    # Quick for those who need no VISA; it tries all its libraries when imported.
    from pyvisa_py.sessions import Session  # noqa: PLC0415

    issues = Session.iter_session_classes_issues()
    return next((why for (kind, _), why in issues if kind is InterfaceType.usb), "")


def _resources() -> list[str]:
    manager = pyvisa.ResourceManager("@py")
    try:
        with warnings.catch_warnings():
            # It warns that without more libraries it looks at one network only.
            warnings.simplefilter("ignore", UserWarning)
            return list(manager.list_resources("?*"))
    finally:
        manager.close()
