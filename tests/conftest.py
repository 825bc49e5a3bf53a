"""What every test shares: folders, a compiled kernel, peers that somebody wrote.

A peer is a counterpart of a driver that we did not write: a vendor's emulator, a
protocol simulator, a display server; or of a method, its author's program. A test that
needs one carries the mark ``peer`` and asks for it in a fixture with
:func:`need_module` or :func:`need_program`. Where the peer is absent the test skips
and says how to get it; with ``LABCTL_REQUIRE_PEERS=1``, as in ``.ci/run``, absence is
a failure.
"""

import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import pickle
import re
import runpy
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache, partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO, Any, Final, NoReturn, Self

# Before anything loads OpenMP. Tests share the processors: a thread that waits at a
# barrier for another that nothing runs makes seconds of training take many minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import pytest
from filelock import FileLock, Timeout

from labctl import guard
from labctl.optics.fused import build

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = ROOT / "docs" / "reference"
Section = Callable[[str, str, str], None]
Once = Callable[[str, Callable[[Path], Any]], Any]
# Before pypylon is imported anywhere: so many cameras that its vendor emulates.
os.environ.setdefault("PYLON_CAMEMU", "1")
REQUIRED: Final = os.environ.get("LABCTL_REQUIRE_PEERS") == "1"
INSTALL: Final = "make peers installs it"
# Shared by every checkout and every user of this computer.
PORT: Final = Path(tempfile.gettempdir()) / "labctl-gige"
PORT_S: Final = 600.0


def _absent(name: str, hint: str) -> NoReturn:
    text = f"peer absent: {name}; {hint}"
    if REQUIRED:
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def _module(name: str, hint: str = INSTALL) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - a broken wheel or library is absent too
        _absent(name, f"{hint} ({type(error).__name__}: {error})")


def _program(name: str, hint: str) -> str:
    return shutil.which(name) or _absent(name, hint)


@pytest.fixture(scope="session")
def need_module() -> Callable[..., ModuleType]:
    """Import a peer's module, or skip."""
    return _module


@pytest.fixture(scope="session")
def need_program() -> Callable[[str, str], str]:
    """Find a peer's program, or skip."""
    return _program


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let nobody opt out of a required peer by skipping in another way."""
    del call
    report = yield
    by_hand = REQUIRED and report.skipped and not hasattr(report, "wasxfail")
    if by_hand and item.get_closest_marker("peer"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: {why} (LABCTL_REQUIRE_PEERS=1)"
    return report


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave the long forms to ``make soak``."""
    if os.environ.get("LABCTL_SOAK") == "1":
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


def pytest_collection_finish() -> None:
    """Let no collection of garbage look again at what lives until the end.

    Modules, tests and their parameters are a million objects; to walk through them
    takes processor time, and finds nothing.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all workers."""
    root = tmp_path_factory.getbasetemp()
    # The workers of pytest-xdist share the folder above their own.
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


@pytest.fixture(scope="session")
def once(shared: Path) -> Once:
    """Make something that takes long once, in a folder of its own, for all workers."""

    def made(name: str, make: Callable[[Path], Any]) -> Any:  # noqa: ANN401
        folder = shared / "once" / name
        folder.mkdir(parents=True, exist_ok=True)
        result = folder / "made.pickle"
        with FileLock(folder / "lock"):
            if not result.exists():
                result.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(result.read_bytes())  # noqa: S301 - ours of just now

    return made


@pytest.fixture(scope="session", autouse=True)
def _own_state(
    tmp_path_factory: pytest.TempPathFactory, shared: Path
) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABCTL_STATE", str(tmp_path_factory.mktemp("state")))
        # Shared as by the programs of one user: a kernel is compiled once.
        patch.setenv("LABCTL_CACHE", str(shared / "cache"))
        yield


FORKED: Final = Path(__file__).with_name("forked")


@cache
def _server() -> ForkServerContext:
    """Start what forks processes that begin with all of labctl imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm"])
    with pytest.MonkeyPatch.context() as patch:
        # Not this folder: it has a labctl as well.
        patch.setenv("PYTHONPATH", str(FORKED), prepend=os.pathsep)
        forkserver.ensure_running()
    return context


@pytest.fixture(scope="session")
def fork(_own_state: None) -> Callable[[Path], BaseProcess]:
    """Run a script in a process that begins with all of labctl imported."""
    if sys.platform == "win32":
        pytest.skip("forks processes")

    def start(script: Path) -> BaseProcess:
        process = _server().Process(
            target=runpy.run_path, args=(str(script),), kwargs={"run_name": "__main__"}
        )
        process.start()
        return process

    return start


class Forked:
    """A guard in a process that begins with its imports done, in the shape of Popen.

    Parameters
    ----------
    stderr
        Where it says what goes wrong.
    """

    def __init__(self, stderr: IO[bytes]) -> None:
        hears, tells = os.pipe()
        heard, says = os.pipe()
        # Connections, since these are handed to another process by its number.
        ends = (
            Connection(hears, writable=False),
            Connection(says, readable=False),
            Connection(os.dup(stderr.fileno())),
        )
        given = {"GIVEN": (ends, dict(os.environ), str(Path.cwd()))}
        self._process = _server().Process(
            target=runpy.run_path,
            args=(str(FORKED / "guard.py"),),
            kwargs={"init_globals": given, "run_name": "__main__"},
            daemon=True,
        )
        self._process.start()
        for end in ends:
            end.close()
        self.stdin, self.stdout = os.fdopen(tells, "wb", 0), os.fdopen(heard, "rb", 0)
        self.pid, self.kill = self._process.pid, self._process.kill

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises
        ------
        TimeoutExpired
            It goes on.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("guard", timeout or 0.0)
        return self._process.exitcode


COLD: Final = guard._spawn


@pytest.fixture(scope="session", autouse=True)
def _quick_guards(_own_state: None) -> Iterator[None]:
    """Have the guards of benches that tests open begin with their imports done.

    It is as long as all else of opening a bench. Guards begin as for everybody in the
    tests of the guard, in every process that tests start, and in the long form.
    """
    with pytest.MonkeyPatch.context() as patch:
        shared = "PYTEST_XDIST_WORKER" in os.environ
        if shared and sys.platform == "linux" and os.environ.get("LABCTL_SOAK") != "1":
            patch.setattr(guard, "_spawn", Forked)
        yield


@pytest.fixture
def cold_guards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have guards begin as for everybody."""
    monkeypatch.setattr(guard, "_spawn", COLD)


TYPED: Final = """
import os, sys, tempfile
os.chdir({folder!r})
os.environ.update({ours!r})
tempfile.tempdir = {temporary!r}
for number, name in enumerate(("out.txt", "err.txt"), start=1):
    said = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(said, number)
sys.stdout = open(1, "w", buffering=1, closefd=False)
sys.stderr = open(2, "w", buffering=1, closefd=False)
sys.argv = ["labctl", *{words!r}]
from labctl.cli import main
if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="session")
def typed(fork: Callable[[Path], BaseProcess]) -> Callable[..., BaseProcess]:
    """Begin a command in a folder, in a process that begins with all imported.

    What it says is in ``out.txt`` and ``err.txt`` there.
    """

    def begin(folder: Path, *words: str, temporary: Path | None = None) -> BaseProcess:
        script = folder / "typed.py"
        place = None if temporary is None else str(temporary)
        ours = {
            name: value
            for name, value in os.environ.items()
            if name == "DISPLAY" or name.startswith("LABCTL_")
        }
        text = TYPED.format(folder=str(folder), words=words, temporary=place, ours=ours)
        script.write_text(text, encoding="utf-8")
        return fork(script)

    return begin


@pytest.fixture(scope="session")
def compiled() -> build.Built:
    """Build the kernel of this computer, where there is a compiler.

    Raises
    ------
    ValueError
        There is one, and it fails.
    """
    try:
        return build.built()
    except ValueError as error:
        if "no C++ compiler" not in str(error):
            raise
        pytest.skip(str(error))


def instrument(module: Any, name: str) -> Any:  # noqa: ANN401 - a peer has no types
    """Make an instrument that its authors wrote.

    A Cobolt is taught the one command that every generation of heads knows and the
    simulator does not: ``cp``, constant power, which is the only mode that it has.

    Parameters
    ----------
    module
        ``microscope.testsuite.mock_devices``.
    name
        Of a class there.
    """
    made = getattr(module, name)()
    if name == "CoboltLaserMock":
        handle = made.handle

        def heard(command: bytes) -> None:
            handle(b"?" if command.strip() == b"cp" else command)

        made.handle = heard
    return made


class Bridge:
    """A pseudo-terminal with a mock of a serial instrument at its other end.

    Parameters
    ----------
    mock
        An instrument of ``microscope.testsuite.mock_devices``.
    """

    def __init__(self, mock: Any) -> None:  # noqa: ANN401 - a peer has no types
        self.mock = mock
        mock.timeout = 0
        tty = _module("tty", "this computer has no pseudo-terminals")
        self._master, self._slave = os.openpty()
        self._asleep, self._wake = os.pipe()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        ends = [self._master, self._asleep]
        while self._asleep not in select.select(ends, [], [])[0]:
            for byte in os.read(self._master, 256):
                answer = self._answer(bytes((byte,)))
                if answer:
                    os.write(self._master, answer)

    def _answer(self, byte: bytes) -> bytes:
        try:
            self.mock.write(byte)
        except NotImplementedError:  # without the reset it poisons the next command
            self.mock.out_pending_bytes = 0
            return b"Syntax error: illegal command\r\n"
        answer: bytes = self.mock.read(4096)
        return answer

    def unplug(self) -> None:
        """Take the port away, as a pulled cable does; may be called twice."""
        if self._thread.is_alive():
            os.write(self._wake, b"x")
            self._thread.join()
            # Not the slave: it keeps the number, which would be the next port's of any
            # process, and a driver that asks for its head by name would take that one.
            for end in (self._master, self._asleep, self._wake):
                os.close(end)


@pytest.fixture
def bridge(need_module: Callable[..., ModuleType]) -> Iterator[Callable[[str], Bridge]]:
    """Put a mock of microscope's behind a serial port of its own."""
    with ExitStack() as stack:

        def make(mock: str) -> Bridge:
            module = need_module("microscope.testsuite.mock_devices")
            made = Bridge(instrument(module, mock))
            stack.callback(made.unplug)
            return made

        yield make


@pytest.fixture
def section(capsys: pytest.CaptureFixture[str]) -> Section:
    """Print a measured section of a page; with LABCTL_WRITE_TABLES=1 write it there."""

    def show(page: str, heading: str, text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n## {heading}\n\n{text.strip()}\n")
        if os.environ.get("LABCTL_WRITE_TABLES") != "1":
            return
        path = PAGES / f"{page}.md"
        before = path.read_text(encoding="utf-8")
        own = re.compile(rf"^## {re.escape(heading)}\n.*?(?=^## |\Z)", re.M | re.S)
        made = f"## {heading}\n\n{text.strip()}\n\n"
        after, found = own.subn(lambda _: made, before)
        if not found:
            after = f"{before.rstrip()}\n\n{made}"
        path.write_text(after.rstrip() + "\n", encoding="utf-8", newline="\n")

    return show


XORG = """
Section "ServerFlags"
  Option "AutoAddDevices" "false"
  Option "AutoEnableDevices" "false"
EndSection
Section "Device"
  Identifier "card"
  Driver "dummy"
  VideoRam 256000
EndSection
Section "Monitor"
  Identifier "any"
  HorizSync 5-1000
  VertRefresh 5-200
EndSection
Section "Screen"
  Identifier "both"
  Device "card"
  Monitor "any"
  DefaultDepth 24
  SubSection "Display"
    Depth 24
    Virtual 3840 1200
  EndSubSection
EndSection
"""


class Desktop:
    """An X server of two monitors, 640 x 480 and 800 x 600, the second the panel.

    Parameters
    ----------
    display
        Its name.
    xrandr
        The program that sets its monitors.
    """

    corner = (640, 0)

    def __init__(self, display: str, xrandr: str) -> None:
        self.display, self._xrandr = display, xrandr

    def set(self, *words: str) -> None:
        """Change a monitor, in the words of xrandr."""
        # The second call asks for everything: until somebody does, other clients are
        # told of monitors as they were.
        for arguments in (words, ["--query"]):
            subprocess.run(  # noqa: S603 - a program that was looked for
                [self._xrandr, "--display", self.display, *arguments],
                check=True,
                capture_output=True,
            )

    def reset(self) -> None:
        """Set both monitors as they were."""
        self.set("--output", "DUMMY0", "--mode", "640x480", "--pos", "0x0")
        words = ("--mode", "800x600", "--pos", "640x0", "--gamma", "1")
        self.set("--output", "DUMMY1", *words)


@pytest.fixture(scope="session")
def x_server(
    need_program: Callable[[str, str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Desktop]:
    """Start an X server without a screen, on a display of its own."""
    hint = "apt-get install xserver-xorg-core xserver-xorg-video-dummy"
    server = need_program("Xorg", hint)
    xrandr = need_program("xrandr", "apt-get install x11-xserver-utils")
    folder = tmp_path_factory.mktemp("x")
    (folder / "xorg.conf").write_text(XORG, encoding="utf-8")
    ready, tells = os.pipe()
    options = ["-nolisten", "tcp", "-noreset", "-novtswitch", "-sharevts", "vt7"]
    files = ["-config", str(folder / "xorg.conf"), "-logfile", str(folder / "log")]
    with subprocess.Popen(  # noqa: S603 - a program that was looked for
        [server, "-displayfd", str(tells), *files, *options],
        pass_fds=[tells],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(tells)
        with os.fdopen(ready) as said:
            number = said.readline().strip()  # it says so once it is ready
        assert number, (folder / "log").read_text(errors="replace")[-2000:]
        desktop = Desktop(f":{number}", xrandr)
        desktop.set("--addmode", "DUMMY1", "800x600")
        desktop.set("--addmode", "DUMMY1", "640x480")
        yield desktop
        process.terminate()


@pytest.fixture
def desktop(x_server: Desktop, monkeypatch: pytest.MonkeyPatch) -> Desktop:
    """Two monitors as they should be, and the display that this test sees."""
    x_server.reset()
    monkeypatch.setenv("DISPLAY", x_server.display)
    return x_server


@contextmanager
def camera_port(wait_s: float, port: Path = PORT) -> Iterator[None]:
    """Hold the port of GigE Vision cameras: the standard knows one a computer.

    Whoever has it may have the loopback bench as well, whose place is as fixed.

    Parameters
    ----------
    wait_s
        How long it may be somebody else's.
    port
        Where the files lie that tell so.

    Raises
    ------
    TimeoutError
        It still is; told is whose.
    """
    lock = FileLock(port.with_suffix(".lock"), mode=0o666)
    holder = port.with_suffix(".txt")
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "somebody"
        text = (
            f"the port of GigE Vision cameras on this computer belongs to {who}, "
            "expected it free: one camera, or one loopback bench, at a time. End that, "
            "or wait for it."
        )
        raise TimeoutError(text) from None
    try:
        began = time.strftime("%H:%M:%S")
        text = f"process {os.getpid()} in {Path.cwd()} since {began}"
        with suppress(PermissionError):  # of another user, whose process was killed
            holder.write_text(text, encoding="utf-8")
        yield
    finally:
        with suppress(PermissionError):
            holder.unlink(missing_ok=True)
        lock.release()


@pytest.fixture(name="camera_port")
def give_camera_port() -> Callable[..., AbstractContextManager[None]]:
    """Give :func:`camera_port`."""
    return camera_port


@pytest.fixture
def gige(need_module: Callable[..., ModuleType]) -> Iterator[Callable[..., None]]:
    """Start a GigE Vision camera that others simulated; it takes options of its own."""
    hint = "apt-get install gir1.2-aravis-0.8, then make peers"
    need_module("drivers.camera.aravis", hint)
    with camera_port(PORT_S), ExitStack() as stack:

        def start(**options: object) -> None:
            named = {"interface_name": "127.0.0.1", "serial_number": "S1"}
            process = stack.enter_context(
                subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-m", "tests.gige", json.dumps(named | options)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                )
            )
            assert process.stdin is not None
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said == "ready\n", said
            stack.callback(ended, process)

        yield start


def ended(process: "subprocess.Popen[str]") -> None:
    """End a process that ends with its standard input."""
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0  # an interpreter ends, on a busy computer


def _description(device: Any) -> str:  # noqa: ANN401 - aravis has no types
    """Read the description of a camera's nodes; its bindings read on after its end."""
    from tests.gobject import address  # noqa: PLC0415 - a copy of this file has none

    read = ctypes.CDLL("libaravis-0.8.so.0").arv_device_get_genicam_xml
    read.restype = ctypes.c_void_p
    read.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)]
    size = ctypes.c_size_t()
    text = read(address(device), ctypes.byref(size))
    return ctypes.string_at(text, size.value).decode()


class Passed:
    """A buffer of aravis', as harvesters hands them out."""

    def __init__(self, buffer: Any, stream: Any) -> None:  # noqa: ANN401 - no types
        self._buffer, self._stream = buffer, stream
        self.module = SimpleNamespace(
            frame_id=buffer.get_frame_id(), timestamp_ns=buffer.get_timestamp()
        )
        data = buffer.get_data()
        shape = (buffer.get_image_height(), buffer.get_image_width())
        counts = np.frombuffer(data, f"u{len(data) // (shape[0] * shape[1])}")
        # Nothing of it refers to itself: the stream must end with its last buffer.
        part = SimpleNamespace(
            data_format={0x01080001: "Mono8", 0x01100007: "Mono16"}[
                buffer.get_image_pixel_format()
            ],
            represent_pixel_location=partial(counts.reshape, shape),
        )
        self.payload = SimpleNamespace(components=[part])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.push_buffer(self._buffer)


class Lent:
    """What harvesters gives of a camera, of one that aravis simulates.

    GenICam's own node map reads its registers over the network. Only the buffers are
    passed on here: those of harvesters are tried on a producer by others.

    Parameters
    ----------
    aravis, genapi
        The libraries.
    """

    Events = SimpleNamespace(INCOMPLETE_BUFFER=4)
    min_num_buffers = num_buffers = 1

    def __init__(self, aravis: Any, genapi: Any) -> None:  # noqa: ANN401 - no types
        self._aravis = aravis
        self._camera = aravis.Camera.new("127.0.0.1")
        # Whatever still had the camera would keep it from the next one.
        held = self._held = [self._camera.get_device()]

        class Registers(genapi.AbstractPort):  # type: ignore[misc]  # no types
            def get_access_mode(self) -> Any:  # noqa: ANN401 - genapi's
                return genapi.EAccessMode.RW

            def read(self, address: int, length: int) -> bytes:
                ends = range(address, address + length, 4)
                words = [int(held[0].read_register(at)) for at in ends]
                return b"".join(word.to_bytes(4, "big") for word in words)[:length]

            def write(self, address: int, data: bytes) -> None:
                held[0].write_register(address, int.from_bytes(data, "big"))

        self._registers = Registers()
        nodes = genapi.NodeMap()
        nodes.load_xml_from_string(_description(held[0]))
        nodes.connect(self._registers, "Device")
        self.remote_device = SimpleNamespace(node_map=nodes)
        self.device = SimpleNamespace(tl_type="GEV", serial_number="", id_="lent")
        self.data_streams = [self]
        self._stream: Any = None

    def add_callback(self, event: int, heard: Any) -> None:  # noqa: ANN401 - no types
        assert event == self.Events.INCOMPLETE_BUFFER
        self._heard = heard

    def start(self) -> None:
        self._stream = self._camera.create_stream(None, None)
        size = self._camera.get_payload()
        for _ in range(self.num_buffers):
            self._stream.push_buffer(self._aravis.Buffer.new_allocate(size))
        self.remote_device.node_map.AcquisitionStart.execute()

    def stop(self) -> None:
        if self._stream is not None:
            self.remote_device.node_map.AcquisitionStop.execute()
        self._stream = None

    def destroy(self) -> None:
        self.stop()
        self.remote_device.node_map.disconnect()
        self._held.clear()
        self._camera = None

    def try_fetch(self, *, timeout: float) -> Passed | None:
        buffer = self._stream.timeout_pop_buffer(int(1e6 * timeout))
        if buffer is None:
            return None
        if buffer.get_status() != self._aravis.BufferStatus.SUCCESS:
            self._stream.push_buffer(buffer)
            self._heard.emit()
            return None
        return Passed(buffer, self._stream)


class Library:
    """What stands in for a library of harvesters with one producer.

    Parameters
    ----------
    aravis, genapi
        The libraries.
    """

    def __init__(self, aravis: Any, genapi: Any) -> None:  # noqa: ANN401 - no types
        self._made = partial(Lent, aravis, genapi)
        self.device_info_list = [SimpleNamespace(serial_number="S1", id_="lent")]

    def add_file(self, path: str, **checks: bool) -> None:
        assert checks == {"check_existence": True, "check_validity": True}
        assert path

    def update(self) -> None:
        pass

    def create(self, device: object) -> Lent:
        assert device is self.device_info_list[0]
        return self._made()

    def reset(self) -> None:
        pass


@pytest.fixture
def gentl(
    gige: Callable[..., None],
    need_module: Callable[..., ModuleType],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., None]:
    """Start a GigE Vision camera as :func:`gige` does, behind GenICam's node map."""
    for peer in ("harvesters.core", "genicam.genapi"):
        need_module(peer)
    driver = need_module("drivers.camera.genicam")
    aravis = need_module("drivers.camera.aravis").Aravis
    library = partial(Library, aravis, driver.genapi)
    monkeypatch.setattr(driver.harvesters, "Harvester", library)
    return gige
