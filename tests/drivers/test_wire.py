"""A wire never takes another's reply for its own, and never waits for ever."""

import math
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest
import pyvisa
import serial
from hypothesis import given, settings
from hypothesis import strategies as st
from pyvisa.attributes import AttributesByID
from pyvisa.constants import InterfaceType, ResourceAttribute, StatusCode
from pyvisa_py.sessions import Session, UnknownAttribute
from serial.tools.list_ports_common import ListPortInfo
from typing_extensions import override

from drivers import wire
from drivers.wire import (
    Framing,
    Line,
    Link,
    SerialLink,
    SocketLink,
    VisaLink,
    Wire,
    link,
    link_errors,
    number,
)
from labctl.errors import (
    DeviceError,
    DeviceTimeoutError,
    MissingLibraryError,
    ProtocolError,
)
from tests.contracts.models import Time

TIMEOUT_S = 0.1
LINE = Line()


class Talk(Link):
    """A link in this process: each command has its pieces and when they come.

    A piece is bytes and the time after the command at which it arrives.
    """

    def __init__(self, clock: Time, replies: dict[str, list[list[object]]]) -> None:
        self.clock, self.replies = clock, replies
        self.sent: list[str] = []
        self.on_its_way: list[tuple[float, bytes]] = []

    @override
    def open(self) -> None:
        self.on_its_way.clear()

    @override
    def close(self) -> None:
        pass

    @override
    def write(self, data: bytes) -> None:
        command = data.decode("latin-1").strip()
        self.sent.append(command)
        plans = self.replies[command]
        plan = plans.pop(0) if len(plans) > 1 else plans[0]
        for piece in plan:
            assert isinstance(piece, tuple)
            at_s, what = piece
            self.on_its_way.append((self.clock.now() + at_s, what))
        self.on_its_way.sort(key=lambda each: each[0])

    @override
    def read(self, timeout_s: float) -> bytes:
        due = self.clock.now() + timeout_s
        if not self.on_its_way or self.on_its_way[0][0] > due:
            self.clock.passed_s = due
            return b""
        self.clock.passed_s = max(self.clock.now(), self.on_its_way[0][0])
        return self.drop()

    @override
    def drop(self) -> bytes:
        came = [data for at, data in self.on_its_way if at <= self.clock.now()]
        self.on_its_way = self.on_its_way[len(came) :]
        return b"".join(came)


def wired(**replies: list[list[object]]) -> tuple[Wire, Talk]:
    clock = Time()
    table: dict[str, list[list[object]]] = {"sn?": [[(0.01, b"SN 7\r\n")]]}
    table |= {f"{key}?": value for key, value in replies.items()}
    table["p"] = [[(0.01, b"OK\r\n")], [(0.01, b"no\r\n")]]
    talk = Talk(clock, table)
    wire = Wire(
        "laser",
        talk,
        framing=Framing(),
        identify=("sn?", r"SN \d"),
        timeout_s=TIMEOUT_S,
        clock=clock,
    )
    wire.open()
    return wire, talk


def test_asks_and_tells() -> None:
    wire, talk = wired(power=[[(0.01, b"0.05"), (0.02, b"0\r"), (0.03, b"\n")]])
    assert wire.ask("power?", r"([\d.]+)")[1] == "0.050"
    wire.tell("p", "OK")
    assert talk.sent == ["power?", "p"]


def test_a_late_reply_is_never_the_answer_to_the_next_question() -> None:
    wire, talk = wired(
        power=[[(1.5 * TIMEOUT_S, b"111\r\n")], [(0.01, b"222\r\n")]],
        current=[[(0.01, b"333\r\n")]],
    )
    assert wire.ask("power?", r"(\d+)")[1] == "222"
    assert wire.ask("current?", r"(\d+)")[1] == "333"
    assert talk.sent == ["power?", "sn?", "power?", "current?"]


def test_a_reply_that_comes_later_still_is_skipped_up_to_the_identity() -> None:
    wire, talk = wired(
        power=[[(2.2 * TIMEOUT_S, b"111\r\n")], [(0.01, b"222\r\n")]],
        sn=[[(0.09, b"SN 7\r\n")]],
    )
    assert wire.ask("power?", r"(\d+)")[1] == "222"
    assert talk.sent == ["power?", "sn?", "power?"]
    assert "< b'111" in wire.transcript


def test_who_does_not_say_who_it_is_in_time_is_given_up() -> None:
    wire, _ = wired(
        power=[[(2.2 * TIMEOUT_S, b"111\r\n")]],
        sn=[[(1.9 * TIMEOUT_S, b"SN 7\r\n")]],
    )
    with pytest.raises(DeviceTimeoutError, match=r"sn\?: no reply"):
        wire.ask("power?", r"(\d+)")
    assert not wire.is_open


def test_who_only_says_something_else_is_given_up() -> None:
    chatter: list[object] = [(0.05 * n, b"heartbeat\r\n") for n in range(1, 40)]
    wire, talk = wired(power=[[]], sn=[chatter])
    with pytest.raises(DeviceError, match=r"sn\?: only foreign replies"):
        wire.ask("power?", r"(\d+)")
    assert talk.clock.now() < 5 * TIMEOUT_S
    assert not wire.is_open


def test_a_setter_is_sent_once_whatever_comes_back() -> None:
    wire, talk = wired()
    wire.tell("p", "OK")
    with pytest.raises(DeviceError, match="refused with 'no', expected 'OK'"):
        wire.tell("p", "OK")
    assert talk.sent == ["p", "p"]


def test_a_setter_without_acknowledgement_in_time_is_not_repeated() -> None:
    wire, talk = wired(ack=[[]])
    with pytest.raises(DeviceTimeoutError, match="no reply"):
        wire.tell("ack?", "OK")
    assert talk.sent == ["ack?"]


@pytest.mark.parametrize(
    "reply",
    [b"garb\xff\x00age\r\n", b"\r\n", b"OK\r\n", b"SN 7\r\n", b"0.0.5\r\n"],
)
def test_a_foreign_reply_is_no_value(reply: bytes) -> None:
    wire, talk = wired(power=[[(0.01, reply)]])
    with pytest.raises(DeviceError, match="expected"):
        wire.ask("power?", r"(\d+\.\d+)")
    # Asked again once, after it said who it is.
    assert talk.sent == ["power?", "sn?", "power?"]


def test_half_a_reply_is_a_time_out_and_shown() -> None:
    wire, _ = wired(power=[[(0.01, b"0.05")], [(0.01, b"0.050\r\n")]])
    assert wire.ask("power?", r"(\d+\.\d+)")[1] == "0.050"
    wire, _ = wired(power=[[(0.01, b"0.05")]])
    with pytest.raises(DeviceTimeoutError, match=r"half a reply, b'0.05'"):
        wire.ask("power?", r"(\d+\.\d+)")


def test_a_second_reply_to_one_question_is_thrown_away() -> None:
    wire, _ = wired(power=[[(0.01, b"111\r\n222\r\n")]], current=[[(0.01, b"333\r\n")]])
    assert wire.ask("power?", r"(\d+)")[1] == "111"
    assert wire.ask("current?", r"(\d+)")[1] == "333"


def test_two_silences_in_a_row_are_a_device_that_is_gone() -> None:
    wire, talk = wired(power=[[]], sn=[[]])
    start_s = talk.clock.now()
    with pytest.raises(DeviceTimeoutError, match="taken for gone"):
        wire.ask("power?", r"(\d+)")
    assert talk.clock.now() - start_s < 5 * TIMEOUT_S
    after = r"given up after a fault \(no reply to '.+'\)\. Open it first"
    with pytest.raises(DeviceError, match=after):
        wire.ask("power?", r"(\d+)")
    wire.close()  # which changes nothing about that
    with pytest.raises(DeviceError, match=after):
        wire.ask("power?", r"(\d+)")


def test_who_was_closed_in_order_is_only_not_open() -> None:
    wire, _ = wired()
    wire.close()
    with pytest.raises(DeviceError, match=r"not open\. Open it first"):
        wire.ask("power?", r"(\d+)")


def test_leaves_a_gap_between_commands() -> None:
    clock = Time()
    talk = Talk(clock, {"sn?": [[(0.01, b"SN 7\r\n")]]})
    identify = ("sn?", r"SN \d")
    wire = Wire("l", talk, framing=Framing(), identify=identify, gap_s=0.3, clock=clock)
    wire.open()
    for _ in range(3):
        wire.ask("sn?", r"SN \d")
    assert clock.now() == pytest.approx(0.61)


def test_a_message_shows_what_went_over_the_wire() -> None:
    wire, _ = wired(power=[[(0.01, b"?\r\n")]])
    with pytest.raises(DeviceError) as caught:
        wire.ask("power?", r"(\d+)")
    assert r"> b'power?\r\n'" in str(caught.value)
    assert r"< b'?\r\n'" in str(caught.value)


Pieces = st.lists(st.binary(max_size=6), max_size=4)


@settings(deadline=None)  # real time says nothing here
@given(before=Pieces, noise=Pieces)
def test_whatever_comes_a_value_is_only_what_the_pattern_says(
    before: list[bytes], noise: list[bytes]
) -> None:
    wire, talk = wired(power=[[(0.01 * i, piece) for i, piece in enumerate(noise)]])
    talk.on_its_way = [(0.0, piece) for piece in before]
    try:
        match = wire.ask("power?", r"(\d+\.\d+)")
    except DeviceError:
        assert talk.clock.now() < 10 * TIMEOUT_S
    else:
        # It stands in what came as the answer, not in what waited before.
        assert match[1].encode() in b"".join(noise)


@settings(deadline=None)  # real time says nothing here
@given(value=st.floats(allow_nan=False, allow_infinity=False), cut=st.integers(1, 30))
def test_a_number_survives_being_cut_into_pieces(value: float, cut: int) -> None:
    text = f"{value!r}\r\n".encode()
    pieces: list[object] = [(0.01, text[:cut]), (0.02, text[cut:])]
    wire, _ = wired(power=[pieces])
    assert number(wire.ask("power?", "(.+)"), "laser", "power") == value


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "ten", "0x1", "1,5"])
def test_what_is_no_finite_number_is_refused(text: str) -> None:
    match = re.fullmatch("(.*)", text)
    assert match is not None
    with pytest.raises(DeviceError, match=f"got '{text}'"):
        number(match, "laser", "power")


def test_an_address_says_how_to_get_there() -> None:
    def made(address: str) -> Link:
        return link(address, line=LINE, last=b"\n", timeout_s=1)

    assert isinstance(made("COM3"), SerialLink)
    assert isinstance(made("/dev/ttyUSB0"), SerialLink)
    assert isinstance(made("socket://10.0.0.2:5025"), SocketLink)
    assert isinstance(made("TCPIP0::10.0.0.2::INSTR"), VisaLink)
    assert isinstance(made("@ivi;GPIB0::9::INSTR"), VisaLink)
    assert isinstance(made("@py;USB0::0x1313::0x8078::P1::INSTR"), VisaLink)
    assert isinstance(made("rfc2217://10.0.0.2:4000"), SerialLink)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "got '', expected a serial port, socket://host:port or a VISA"),
        ("  ", "expected a serial port"),
        ("COM3\n", "expected a serial port"),
        ("socket://nowhere", "expected socket://host:port, the port from 1 to 65535"),
        ("socket://:9", "the port from 1 to 65535"),
        ("socket://h:0", "the port from 1 to 65535"),
        ("socket://h:65536", "the port from 1 to 65535"),
        ("nonsense::x", r"expected a VISA resource such as USB0::.*nonsense"),
        ("USB0::0x1313::INSTR", "expected a VISA resource such as"),
        ("@nivi;GPIB0::9::INSTR", "expected a VISA library: @.*py, .*or a path"),
        ("tcp://h:9", "another kind that pyserial has"),
        ("a.b://h:9", "another kind that pyserial has"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_before_anything_opens(
    address: str, said: str
) -> None:
    with pytest.raises(ProtocolError, match=said) as refused:
        link(address, line=LINE, last=b"\n", timeout_s=1)
    assert [each.key for each in refused.value.faults] == ["address"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("baudrate", -1, "got -1, expected a whole number from 50 to 12000000"),
        ("baudrate", 0, "expected a whole number"),
        ("baudrate", 9600.0, "expected a whole number"),
        ("baudrate", True, "expected a whole number"),
        ("parity", "X", "got 'X', expected one of N, E, O"),
        ("stopbits", 3, "got 3, expected one of 1, 2"),
        ("stopbits", True, "expected one of 1, 2"),
    ],
)
def test_a_serial_line_that_cannot_be_is_refused(
    key: str,
    value: Any,  # noqa: ANN401 - what a bench file may hold
    said: str,
) -> None:
    with pytest.raises(ProtocolError, match=said) as refused:
        Line(**{key: value})
    assert [each.key for each in refused.value.faults] == [key]


def test_every_error_of_the_libraries_becomes_ours() -> None:
    def kinds(module: ModuleType) -> list[type[Exception]]:
        return [
            each
            for label, each in vars(module).items()
            if not label.startswith("_")
            and isinstance(each, type)
            and issubclass(each, Exception)
            and not issubclass(each, Warning)
        ]

    found = {*kinds(serial), *kinds(pyvisa.errors), *kinds(socket)}
    assert {serial.SerialException, pyvisa.VisaIOError, TimeoutError} <= found
    for kind in found:
        # Not through constructors, which all differ.
        error = kind.__new__(kind)
        error.args = (-1073807339,)
        vars(error).update(error_code=-1073807339)
        with pytest.raises(DeviceError) as caught, link_errors("laser", "ask"):
            raise error
        assert caught.value.__cause__ is error


# ---- the same over a real port and a real connection


class Server:
    """A device on a pseudo-terminal, or on a TCP port of this computer."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.answer, self.got = answer, b""

    def take(self, data: bytes) -> bytes:
        """Answer whole lines."""
        self.got += data
        out = b""
        while b"\n" in self.got:
            command, _, self.got = self.got.partition(b"\n")
            out += self.answer(command.strip())
        return out


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def on_tcp(server: Server, stack: ExitStack) -> int:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                while True:
                    try:
                        data = peer.recv(256)
                        if not data:
                            break
                        peer.sendall(server.take(data))
                    except OSError:
                        break

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def serve_end(server: Server, master: int, ended: int, closed: list[int]) -> None:
    """Answer at the master's end until the other pipe speaks."""
    while not closed:
        ready, _, _ = select.select([master, ended], [], [])
        if ended in ready:
            return
        try:
            answer = server.take(os.read(master, 256))
            if not closed:
                os.write(master, answer)
        except OSError:
            return


def on_pty(server: Server, stack: ExitStack) -> tuple[str, Callable[[], None]]:
    tty = pytest.importorskip("tty")  # not on Windows
    master, slave = os.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    ended, end = os.pipe()
    closed: list[int] = []

    thread = threading.Thread(
        target=serve_end, args=(server, master, ended, closed), daemon=True
    )

    def unplug() -> None:
        if closed:
            return
        closed.append(1)
        os.write(end, b".")
        # First: it would read from whoever has the number of the closed end next.
        if thread is not threading.current_thread():
            thread.join(10)
        for each in (master, ended, end):
            os.close(each)

    thread.start()
    # The slave is kept: else the next port of any process would have its number.
    stack.callback(unplug)
    return os.ttyname(slave), unplug


def healthy(command: bytes) -> bytes:
    return {b"sn?": b"SN 7\r\n", b"power?": b"222\r\n", b"p": b"OK\r\n"}[command]


def speaking(address: str, timeout_s: float = 2.0) -> Wire:
    wire = Wire(
        "laser",
        link(address, line=LINE, last=b"\n", timeout_s=timeout_s),
        framing=Framing(),
        identify=("sn?", r"SN \d"),
        timeout_s=timeout_s,
    )
    wire.open()
    return wire


@pytest.fixture(params=["pty", "socket", "visa-serial", "visa-socket"])
def place(request: pytest.FixtureRequest, stack: ExitStack) -> Callable[[Server], str]:
    def make(server: Server) -> str:
        if request.param in {"pty", "visa-serial"}:
            port, _ = on_pty(server, stack)
            return port if request.param == "pty" else f"ASRL{port}::INSTR"
        number = on_tcp(server, stack)
        if request.param == "socket":
            return f"socket://127.0.0.1:{number}"
        return f"TCPIP0::127.0.0.1::{number}::SOCKET"

    return make


def test_speaks_over_every_kind_of_link(place: Callable[[Server], str]) -> None:
    wire = speaking(place(Server(healthy)))
    try:
        assert wire.ask("power?", r"(\d+)")[1] == "222"
        wire.tell("p", "OK")
        assert wire.ask("sn?", r"SN (\d)")[1] == "7"
    finally:
        wire.close()
    with pytest.raises(DeviceError, match="not open"):
        wire.ask("power?", r"(\d+)")


def test_recovers_from_a_late_reply_over_every_kind_of_link(
    place: Callable[[Server], str],
) -> None:
    asked: list[bytes] = []

    def answer(command: bytes) -> bytes:
        asked.append(command)
        if asked == [b"power?"]:
            return b""
        # The answer to the first question comes when the next one is asked.
        late = b"111\r\n" if len(asked) == 2 else b""
        return late + healthy(command)

    wire = speaking(place(Server(answer)), timeout_s=0.6)
    try:
        assert wire.ask("power?", r"(\d+)")[1] == "222"
        assert wire.ask("sn?", r"SN (\d)")[1] == "7"
    finally:
        wire.close()
    assert asked == [b"power?", b"sn?", b"power?", b"sn?"]


def test_an_unplugged_port_is_told_in_mid_command(stack: ExitStack) -> None:
    def answer(command: bytes) -> bytes:
        if command == b"power?":
            unplug()
        return healthy(command)

    server = Server(answer)
    port, unplug = on_pty(server, stack)
    wire = speaking(port)
    start_s = time.monotonic()
    with pytest.raises(DeviceError, match="Look at"):
        wire.ask("power?", r"(\d+)")
    assert time.monotonic() - start_s < 10
    with pytest.raises(DeviceError, match=r"given up after a fault \(.*Look at"):
        wire.tell("p", "OK")
    assert not wire.is_open
    wire.close()


def test_a_connection_that_is_closed_is_told(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    wire = speaking(f"socket://127.0.0.1:{listener.getsockname()[1]}")
    peer, _ = listener.accept()
    peer.close()
    with pytest.raises(DeviceError, match=r"closed the connection|reset|[Bb]roken"):
        wire.ask("power?", r"(\d+)")
    wire.close()


@pytest.mark.parametrize(
    "form", ["socket://127.0.0.1:{}", "TCPIP0::127.0.0.1::{}::SOCKET"]
)
def test_a_port_that_nobody_listens_at_is_refused_at_open(form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    with pytest.raises(DeviceError, match="laser: open: "):
        speaking(form.format(number))


@pytest.mark.parametrize(
    "address", ["/dev/no-such-port", "GPIB0::99::INSTR", "ASRL/dev/no-such::INSTR"]
)
def test_a_port_that_is_not_there_is_refused_at_open(address: str) -> None:
    with pytest.raises(DeviceError, match="laser: open: "):
        speaking(address)


@pytest.mark.parametrize(
    "address", ["socket://127.0.0.1:{}", "TCPIP0::127.0.0.1::{}::SOCKET"]
)
def test_a_command_over_the_network_waits_for_no_acknowledgement(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = link(
            address.format(server.getsockname()[1]),
            line=LINE,
            last=b"\n",
            timeout_s=2.0,
        )
        made.open()
        try:
            if isinstance(made, VisaLink):
                sessions = made._manager.visalib.sessions
                inner = sessions[made._session.session].interface
            else:
                assert isinstance(made, SocketLink)
                inner = made._connected()
            assert inner.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        finally:
            made.close()


def test_a_device_that_babbles_is_not_listened_to_for_ever() -> None:
    babble = b"x" * (wire.LONGEST_REPLY // 2 + 1)
    pieces: list[object] = [(0.01 * n, babble) for n in range(1, 6)]
    talking, _ = wired(babble=[[*pieces, (0.06, b"\r\n")]])
    with pytest.raises(DeviceTimeoutError, match="half a reply"):
        talking.tell("babble?", "x*")


def test_a_serial_port_is_taken_for_one_alone(stack: ExitStack) -> None:
    port, _ = on_pty(Server(healthy), stack)
    wire = speaking(port)
    with pytest.raises(DeviceError, match=r"open: .*lock"):
        speaking(port)
    wire.close()


def test_a_parity_that_the_port_cannot_have_is_an_error_of_ours(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, _ = on_pty(Server(healthy), stack)
    monkeypatch.setattr(wire, "PARITIES", ("X",))
    talk = Wire(
        "laser",
        link(port, line=Line(parity="X"), last=b"\n", timeout_s=0.1),
        framing=Framing(),
        identify=("sn?", ".*"),
    )
    with pytest.raises(DeviceError, match="laser: open: "):
        talk.open()


def test_options_that_make_no_sense_are_refused() -> None:
    def made(**wrong: Any) -> Wire:  # noqa: ANN401 - any option
        other = SocketLink("127.0.0.1", 1, 1.0)
        return Wire("laser", other, framing=Framing(), identify=("a", "b"), **wrong)

    for wrong in ({"timeout_s": 0.0}, {"timeout_s": math.nan}, {"gap_s": -1.0}):
        with pytest.raises(ValueError, match="expected above 0"):
            made(**wrong)


def test_ports_and_resources_are_listed_and_none_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Manager:
        def __init__(self, library: str) -> None:
            assert library == "@py"

        def list_resources(self, query: str) -> tuple[str, ...]:
            assert query == "?*"
            warnings.warn("one network only", UserWarning, stacklevel=1)
            return (
                "PRLGX-ASRL::/dev/ttyS0::INTFC",
                "TCPIP0::10.0.0.2::INSTR",
                "USB0::0x1313::0x804F::M1::INSTR",
            )

        def close(self) -> None:
            pass

    monkeypatch.setattr(pyvisa, "ResourceManager", Manager)
    port = ListPortInfo("/dev/ttyUSB7")
    port.description = "FT232R"
    monkeypatch.setattr(wire, "comports", lambda: [port])
    assert [each.what for each in wire.find()] == [
        "serial port /dev/ttyUSB7: FT232R",
        "VISA resource TCPIP0::10.0.0.2::INSTR",
    ]
    monkeypatch.setattr(wire, "usb_issue", lambda: "")
    assert [each.what for each in wire.find_usb()] == [
        "VISA resource USB0::0x1313::0x804F::M1::INSTR"
    ]


@pytest.fixture
def no_usb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide PyUSB as pyvisa-py does where it is not installed."""
    # Once it is imported, what it registered is put back at the end.
    monkeypatch.setattr(Session, "_session_classes", dict(Session._session_classes))
    for resource in ("INSTR", "RAW"):
        Session._session_classes.pop((InterfaceType.usb, resource), None)
        Session.register_unavailable(InterfaceType.usb, resource, "no PyUSB")


@pytest.mark.usefixtures("no_usb")
def test_usb_that_cannot_be_looked_for_is_said_with_the_extra() -> None:
    with pytest.raises(
        MissingLibraryError, match=r"^USB instruments \(pip install 'labctl\[usb\]'\)$"
    ):
        wire.find_usb()


@pytest.mark.usefixtures("no_usb")
@pytest.mark.parametrize("library", ["", "@py;"])
def test_an_instrument_on_usb_without_its_library_names_the_extra(library: str) -> None:
    address = f"{library}USB0::0x1313::0x8078::P1::INSTR"
    with pytest.raises(DeviceError, match=r"laser: open: .*'labctl\[usb\]'"):
        speaking(address)


OPEN = """
import sys
from drivers.wire import Framing, Line, Wire, link
from labctl.errors import DeviceError
made = link(sys.argv[1], line=Line(), last=b"\\n", timeout_s=2.0)
wire = Wire("other", made, framing=Framing(), identify=("sn?", ".*"), timeout_s=2.0)
try:
    wire.open()
    print(wire.ask("sn?", "SN 7")[0])
except DeviceError as err:
    print(err)
finally:
    wire.close()
"""


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("socket://127.0.0.1:{}", "socket 127.0.0.1:{}"),
        (
            "TCPIP0::127.0.0.1::{}::SOCKET",
            "VISA resource TCPIP0::127.0.0.1::{}::SOCKET",
        ),
    ],
)
def test_a_second_process_is_not_let_in_where_the_computer_would(
    stack: ExitStack, address: str, place: str
) -> None:
    """It would go dark, or light up, under the hands of the first."""
    port = on_tcp(Server(lambda _: b"SN 7\r\n"), stack)
    address = address.format(port)

    def elsewhere() -> str:
        done = subprocess.run(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", OPEN, address],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    mine = speaking(address)
    said = elsewhere()
    assert said.startswith(f"other: open: {place.format(port)}: lock=")
    assert f"is held by process {os.getpid()} on " in said
    assert mine.ask("sn?", "SN 7")[0] == "SN 7"
    # After a call that hung another thread closes it, and it may be opened anew.
    closer = threading.Thread(target=mine.close)
    closer.start()
    closer.join()
    mine.open()
    assert mine.ask("sn?", "SN 7")[0] == "SN 7"
    mine.close()
    assert elsewhere() == "SN 7"


def test_what_could_not_be_opened_is_not_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for _ in range(2):
        with pytest.raises(DeviceError, match="laser: open: ") as caught:
            speaking(f"socket://127.0.0.1:{port}")
        assert "is held by" not in str(caught.value)


class Usb(Session):  # type: ignore[misc]  # pyvisa-py has no types
    """An instrument on USB, and what pyvisa-py 0.8 with PyUSB 1.3 says without it."""

    there, said = True, b""

    def _get_attribute(self, attribute: Any) -> Any:  # noqa: ANN401 - of VISA
        raise UnknownAttribute(attribute)

    def _set_attribute(self, attribute: Any, value: Any) -> Any:  # noqa: ANN401
        del value
        raise UnknownAttribute(attribute)

    def after_parsing(self) -> None:
        if not self.there:
            text = "No device found."
            raise ValueError(text)
        for each in (ResourceAttribute.termchar, ResourceAttribute.termchar_enabled):
            self.attrs[each] = AttributesByID[each].default

    def close(self) -> StatusCode:
        return StatusCode.success

    def write(self, data: bytes) -> tuple[int, StatusCode]:
        if not self.there:
            text = "[Errno 19] No such device (it may have been disconnected)"
            raise ValueError(text)
        self.said = b"SN 7\r\n"
        return len(data), StatusCode.success

    def read(self, count: int) -> tuple[bytes, StatusCode]:
        del count
        return self.said, StatusCode.success


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Plug an instrument in, or out."""
    monkeypatch.setattr(Session, "_session_classes", dict(Session._session_classes))
    for resource in ("INSTR", "RAW"):
        Session._session_classes.pop((InterfaceType.usb, resource), None)
    Session.register(InterfaceType.usb, "INSTR")(Usb)
    return lambda is_in: monkeypatch.setattr(Usb, "there", is_in)


def test_an_instrument_that_is_not_on_usb_says_what_to_do(
    plugged: Callable[[bool], None],
) -> None:
    address = "USB0::0x1313::0x804F::M00279876::INSTR"
    told = (
        r"laser: {}: USB0::0x1313::0x804F::M00279876::INSTR is not on USB \({}\)\. "
        r"Plug it in and switch it on; labctl devices lists what is seen\. On Linux "
        r".* udev rule.*WinUSB\. Look at "
    )
    plugged(False)  # or nobody may use it: pyvisa-py says the same
    with pytest.raises(DeviceError, match=told.format("open", "No device found")):
        speaking(address)
    plugged(True)
    talking = speaking(address)
    assert talking.ask("sn?", r"SN (\d)")[1] == "7"
    plugged(False)
    away = told.format(r"sn\?", r"\[Errno 19\] No such device .*")
    with pytest.raises(DeviceError, match=away):
        talking.ask("sn?", r"SN (\d)")
    assert not talking.is_open
    talking.close()


def test_whoever_waits_for_another_exchange_does_not_wait_for_ever() -> None:
    """Dark is asked for by another thread than the one whose call hangs."""
    begun, ends = threading.Event(), threading.Event()

    class Stuck(Talk):
        """A library that does not come back from a read, whatever its timeout."""

        @override
        def read(self, timeout_s: float) -> bytes:
            begun.set()
            ends.wait()
            return super().read(timeout_s)

    clock = Time()
    talk = Stuck(clock, {"p?": [[(0.01, b"1.0\r\n")]], "l0": [[(0.01, b"OK\r\n")]]})
    made = Wire(
        "l",
        talk,
        framing=Framing(),
        identify=("sn?", ".*"),
        timeout_s=0.05,
        clock=clock,
    )
    made.open()
    told: list[DeviceError] = []

    def darken() -> None:
        try:
            made.tell("l0", "OK")
        except DeviceError as error:
            told.append(error)

    hung = threading.Thread(target=made.ask, args=("p?", "(.*)"), daemon=True)
    other = threading.Thread(target=darken, daemon=True)
    hung.start()
    assert begun.wait(20)
    other.start()
    other.join(20)
    is_waiting = other.is_alive()
    ends.set()
    hung.join(20)
    other.join(20)
    assert not is_waiting
    (error,) = told
    assert isinstance(error, DeviceTimeoutError)
    assert "l0: another exchange does not end" in str(error)
    assert talk.sent == ["p?"]  # nothing came between a question and its answer
    made.tell("l0", "OK")
