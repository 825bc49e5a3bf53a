"""A room with a bench in it whose every part is real, but the light.

::

    second monitor --an X client of its own--> levels --labctl.optics--> counts
    counts --aravis' GigE Vision camera, real packets--> whoever reads the camera
    a serial port --a Cobolt simulator by others--> power and emission

Its own process, so that nothing is shared with labctl but the display, the network and
the serial port; the laser is another (``laser.py``), which it starts. It says ``ready``
on standard output, then answers one line of JSON to each line of standard input
(:func:`main` lists them), and ends with it.
"""

import ctypes
import gc
import importlib
import json
import math
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from drivers.camera.aravis import Aravis
from labctl.optics import lens, propagation
from labctl.optics.medium import SaturableKerr
from tests.conftest import camera_port
from tests.gobject import address
from tests.loopback import laser

# By name: whether a peer is installed makes no difference to a type checker.
mss: Final[Any] = importlib.import_module("mss")

ROOT: Final = Path(__file__).parents[2]
PANEL: Final = {"left": 640, "top": 0, "width": 800, "height": 600}
GRID: Final = (48, 64)
MACROPIXEL: Final = 4.0  # grid points
MEDIUM: Final = SaturableKerr(b=2.0, saturation=1.0, fresnel=0.1, steps=8)
BEAM: Final = 0.6  # radius of exp(-2) of the intensity, of half the window's width
NOMINAL_MW: Final = 50.0
COUNTS_PER_S: Final = 1.0e4  # of the mean intensity at nominal power
OFFSET_DN: Final = 4
# Of the camera, when it is told to have noise.
GAIN_DN_PER_E: Final = 0.25
READ_NOISE_E: Final = 4.0
SENSOR: Final = (2048, 2048)
SCALE: Final = 4  # sensor pixels along a point of the far field
WAIT_S: Final = 60.0


def beam(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Amplitude of the laser on the panel, 1 in the middle."""
    row, column = (np.arange(side) - (side - 1) / 2 for side in shape)
    squared = (row[:, None] ** 2 + column[None] ** 2) / (BEAM * shape[1] / 2) ** 2
    amplitude: NDArray[np.float64] = np.exp(-squared)
    return amplitude


class Light:
    """From levels on the panel to counts on the sensor."""

    def __init__(self) -> None:
        self._noise = np.random.default_rng(1)
        self._turns = np.exp(2j * math.pi * np.arange(256) / 256)
        self._plan = propagation.plan(MEDIUM, GRID, MACROPIXEL, dtype=torch.complex128)

    def counts(
        self,
        levels: NDArray[np.uint8],
        power_mw: float,
        exposure_s: float,
        *,
        noisy: bool = False,
    ) -> NDArray[np.uint8]:
        """Counts of the lit part of the sensor, right-justified 8 bits."""
        field = self._turns[levels]
        edges = [
            np.linspace(0, side, points + 1).round().astype(int)
            for side, points in zip(levels.shape, GRID, strict=True)
        ]
        sums = np.add.reduceat(field, edges[0][:-1], axis=0)
        sums = np.add.reduceat(sums, edges[1][:-1], axis=1)
        area = np.outer(np.diff(edges[0]), np.diff(edges[1]))
        power = power_mw / NOMINAL_MW
        entrance = torch.from_numpy(sums / area * beam(GRID) * math.sqrt(power))
        light = lens.far_intensity(self._plan.through(entrance[None]))[0].numpy()
        if noisy:
            return self._noisy(COUNTS_PER_S * exposure_s * light)
        counts = OFFSET_DN + COUNTS_PER_S * exposure_s * light
        pixels = np.minimum(counts, 255).astype(np.uint8)
        return pixels.repeat(SCALE, axis=0).repeat(SCALE, axis=1)

    def _noisy(self, light: NDArray[np.float64]) -> NDArray[np.uint8]:
        mean_e = (light / GAIN_DN_PER_E).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        seen_e = self._noise.poisson(np.minimum(mean_e, 1e6)).astype(np.float64)
        seen_e += READ_NOISE_E * self._noise.standard_normal(seen_e.shape)
        counts = np.rint(OFFSET_DN + GAIN_DN_PER_E * seen_e)
        return np.clip(counts, 0, 255).astype(np.uint8)


def levels_on(client: Any) -> NDArray[np.uint8]:  # noqa: ANN401 - a peer has no types
    """Levels that the display gives to the panel; none of a monitor that is off."""
    try:
        seen: NDArray[np.uint8] = np.asarray(client.grab(PANEL))[..., 1]
    except mss.ScreenShotError:
        return np.zeros((PANEL["height"], PANEL["width"]), dtype=np.uint8)
    return seen


def placed(
    lit: NDArray[np.uint8], row: int, column: int, height: int, width: int
) -> NDArray[np.uint8]:
    """Cut a region out of a sensor whose middle is lit."""
    top, left = (
        (whole - part) // 2 for whole, part in zip(SENSOR, lit.shape, strict=True)
    )
    sensor = np.full((height, width), OFFSET_DN, dtype=np.uint8)
    rows = slice(max(row, top), min(row + height, top + lit.shape[0]))
    columns = slice(max(column, left), min(column + width, left + lit.shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        sensor[
            rows.start - row : rows.stop - row,
            columns.start - column : columns.stop - column,
        ] = lit[
            rows.start - top : rows.stop - top,
            columns.start - left : columns.stop - left,
        ]
    return sensor


GOBJECT: Final = ctypes.CDLL("libgobject-2.0.so.0")
for call in (GOBJECT.g_object_ref, GOBJECT.g_object_unref):
    call.argtypes = [ctypes.c_void_p]
    call.restype = ctypes.c_void_p


Exposure = tuple[float, "queue.Queue[NDArray[np.uint8] | None]"]


class Laser:
    """The process of ``laser.py``.

    Parameters
    ----------
    process
        Started, and ready.
    beam
        What it does.
    """

    def __init__(self, process: "subprocess.Popen[str]", beam: laser.Beam) -> None:
        self._process, self.beam = process, beam

    def ask(self, word: str) -> None:
        """Tell it to do something; return once it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        json.loads(self._process.stdout.readline())


@contextmanager
def laser_in(folder: Path) -> Iterator[Laser]:
    """Start the laser, its port and its beam in a folder; end it."""
    with subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "tests.loopback.laser", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Laser(process, laser.Beam(folder / laser.NAME))


class Room:
    """Everything between the panel, the laser's beam and the camera's socket.

    Parameters
    ----------
    source
        The laser.
    """

    def __init__(self, source: Laser) -> None:
        self._laser = source
        self.noisy = False
        self.frames = 0
        self._passes, self._held = threading.Event(), threading.Event()
        self._passes.set()
        self.errors: list[str] = []
        self._asked: queue.Queue[Exposure | None] = queue.Queue()
        # One thread with one connection: the camera's own is another for every frame.
        self._worker = threading.Thread(target=self._expose, daemon=True)
        self._worker.start()
        self._fill = self._callback()
        self._camera: Any = None
        self._fake: Any = None
        self.plug_camera()

    def _expose(self) -> None:
        light = Light()
        with mss.MSS() as client:
            while (asked := self._asked.get()) is not None:
                exposure_s, answer = asked
                try:
                    seen = levels_on(client)
                    is_on, power_mw = self._laser.beam.seen()
                    power_mw = power_mw if is_on else 0.0
                    noisy = self.noisy
                    answer.put(light.counts(seen, power_mw, exposure_s, noisy=noisy))
                except Exception as error:  # noqa: BLE001 - told, not lost in a thread
                    self.errors.append(f"{type(error).__name__}: {error}")
                    answer.put(None)

    def _callback(self) -> Any:  # noqa: ANN401 - ctypes
        kind = ctypes.CFUNCTYPE(
            None, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_uint32] * 3
        )
        library = ctypes.CDLL("libaravis-0.8.so.0")
        self._library = library
        library.arv_buffer_get_data.restype = ctypes.c_void_p
        size = ctypes.POINTER(ctypes.c_size_t)
        library.arv_buffer_get_data.argtypes = [ctypes.c_void_p, size]
        library.arv_fake_camera_set_fill_pattern.argtypes = [
            ctypes.c_void_p,
            kind,
            ctypes.c_void_p,
        ]

        def fill(
            buffer: int, user: int, exposure_us: int, gain: int, pixel_format: int
        ) -> None:
            del user, gain, pixel_format
            answer: queue.Queue[NDArray[np.uint8] | None] = queue.Queue()
            self._asked.put((1e-6 * exposure_us, answer))
            time.sleep(1e-6 * exposure_us)  # it would send at its next tick
            lit = answer.get(timeout=WAIT_S)
            if not self._passes.is_set():
                self._held.set()
                self._passes.wait(WAIT_S)
            if lit is not None:
                self._store(buffer, lit)
                self.frames += 1

        return kind(fill)

    def _store(self, buffer: int, lit: NDArray[np.uint8]) -> None:
        # Not the camera itself: its last reference, here, would wait for this thread.
        fake = self._fake
        if fake is None:
            return
        row, column, height, width = (
            fake.read_register(getattr(Aravis, f"FAKE_CAMERA_REGISTER_{name}"))[1]
            for name in ("Y_OFFSET", "X_OFFSET", "HEIGHT", "WIDTH")
        )
        data = np.ascontiguousarray(placed(lit, row, column, height, width))
        if data.nbytes != fake.get_payload():
            self.errors.append(f"{data.nbytes} bytes, expected {fake.get_payload()}")
            return
        length = ctypes.c_size_t()
        to = self._library.arv_buffer_get_data(buffer, ctypes.byref(length))
        ctypes.memmove(to, data.ctypes.data, data.nbytes)

    def plug_camera(self) -> None:
        """Put the camera on the network; nothing happens if it is."""
        if self._camera is not None:
            return
        self._camera = Aravis.GvFakeCamera(
            interface_name="127.0.0.1", serial_number="loopback"
        )
        GOBJECT.g_object_ref(address(self._camera))
        self._fake = self._camera.get_fake_camera()
        fake = address(self._fake)
        self._library.arv_fake_camera_set_fill_pattern(fake, self._fill, None)

    def unplug_camera(self) -> None:
        """Take it off the network."""
        if self._camera is None:
            return
        camera, self._camera, self._fake = address(self._camera), None, None
        gc.collect()
        # Its last reference: ctypes lets the other threads go on while its own ends.
        GOBJECT.g_object_unref(camera)

    def hold(self) -> dict[str, object]:
        """Keep the next frame in the camera; answer once it was exposed."""
        self._held.clear()
        self._passes.clear()
        return {"held": self._held.wait(WAIT_S)}

    def let_go(self) -> None:
        """Send what is kept."""
        self._passes.set()

    def make_noise(self, noisy: bool) -> None:
        """Let the camera count photons, and add noise of its own."""
        self.noisy = noisy

    def as_it_was(self) -> None:
        """Plug everything in, and let nothing be out of the ordinary."""
        self._laser.ask("plug")
        self.plug_camera()
        self.let_go()
        self.noisy = False

    def state(self) -> dict[str, object]:
        """Tell what only somebody in the room can see."""
        is_on, power_mw = self._laser.beam.seen()
        return {
            "light": is_on,
            "power_mw": power_mw,
            "frames": self.frames,
            "errors": self.errors,
        }


def main() -> None:
    """Serve until standard input ends."""
    folder = Path(sys.argv[1])
    wait_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    with ExitStack() as stack:
        try:
            stack.enter_context(camera_port(wait_s))
        except TimeoutError as error:
            sys.stdout.write(f"room: {error}\n")
            sys.exit(1)
        folder.mkdir(mode=0o700, exist_ok=True)
        source = stack.enter_context(laser_in(folder))
        room = Room(source)
        done: dict[str, Callable[[], object]] = {
            "state": room.state,
            "unplug laser": partial(source.ask, "unplug"),
            "plug laser": partial(source.ask, "plug"),
            "unplug camera": room.unplug_camera,
            "plug camera": room.plug_camera,
            "hold": room.hold,
            "let go": room.let_go,
            "noise": partial(room.make_noise, True),
            "no noise": partial(room.make_noise, False),
            "as it was": room.as_it_was,
        }
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for line in sys.stdin:
            sys.stdout.write(json.dumps(done[line.strip()]()) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
