"""A panel that is a monitor: HDMI and DVI phase modulators, with exact levels.

The pattern is a texture that every pixel of a full-screen window fetches: nothing is
scaled, blended or interpolated. What changes levels or where they land behind the
program's back is looked at before every pattern and after every exposure: the gamma
ramp, which no screenshot shows, the mode, which tells nobody when it changes, and
whether the monitor is still there.

Any program may open a window over that of another, unnoticed: a monitor is claimed for
as long as it is open.
"""

import importlib
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, final

import numpy as np
from typing_extensions import override

from labctl.claim import Claim
from labctl.devices import (
    SLM,
    Clock,
    Found,
    Identity,
    Levels,
    Settings,
    Written,
    check_levels,
)
from labctl.errors import DeviceError

# By name: whether a library is installed makes no difference to a type checker.
glfw: Final[Any] = importlib.import_module("glfw")
moderngl: Final[Any] = importlib.import_module("moderngl")

LEVELS: Final = 256
#: What a colour may carry: nothing, the low and the high byte of a level.
BYTES: Final = "-lh"
# Drivers count ramps to 1 in several ways; a visible gamma differs by far more.
RAMP: Final = 1 / 128
_VERTEX: Final = """
#version 330
void main() {
    vec2 corner = vec2((gl_VertexID & 1) * 4 - 1, (gl_VertexID & 2) * 2 - 1);
    gl_Position = vec4(corner, 0, 1);
}
"""
# Row 0 of a pattern is the top of the panel, row 0 of OpenGL the bottom.
_FRAGMENT: Final = """
#version 330
uniform sampler2D levels;
uniform int rows;
uniform ivec3 bytes;
out vec4 shown;
void main() {
    ivec2 at = ivec2(gl_FragCoord.xy);
    vec2 level = texelFetch(levels, ivec2(at.x, rows - 1 - at.y), 0).rg;
    float parts[3] = float[3](0, level.r, level.g);
    shown = vec4(parts[bytes.r], parts[bytes.g], parts[bytes.b], 1);
}
"""


@contextmanager
def vendor_errors(where: str, action: str) -> Iterator[None]:
    """Turn errors of window and graphics into ours.

    Parameters
    ----------
    where
        Name of the panel.
    action
        What it was asked to do.

    Raises
    ------
    DeviceError
        Always, of an error of theirs.
    """
    before, glfw.ERROR_REPORTING = glfw.ERROR_REPORTING, "exception"
    try:
        yield
    except (glfw.GLFWError, moderngl.Error) as err:
        text = f"{err}. Look at the monitor's cable and the graphics driver."
        raise DeviceError(where, action, text) from err
    finally:
        glfw.ERROR_REPORTING = before


@contextmanager
def _session(where: str, action: str) -> Iterator[None]:
    """Start the window library, if there is a display.

    Raises
    ------
    DeviceError
        There is none.
    """
    with vendor_errors(where, action):
        try:
            started, why = glfw.init(), "it does not start"
        except glfw.GLFWError as err:
            started, why = False, str(err)
        if not started:
            text = (
                f"no display (DISPLAY={os.environ.get('DISPLAY', '')!r}): {why}. Run "
                "it on the desktop that the panel belongs to, or set DISPLAY."
            )
            raise DeviceError(where, action, text)
        yield


@final
class ScreenSLM(SLM):
    """A phase panel on a monitor output.

    Everything is done in the thread that opens it.

    Parameters
    ----------
    shape
        Rows and columns of the panel: the mode that the monitor must have.
    pitch_um
        Distance between pixels.
    settle_s
        Worst-case settling time of the panel, by its vendor.
    name
        Name in the bench file.
    clock
        Time of the writes.
    monitor
        Name of the monitor; empty takes the only one that has the shape.
    position
        Column and row of its corner on the desktop, where two have one name.
    bit_depth
        Bits a level: more than 8 where ``channels`` say where the high byte goes.
    channels
        What red, green and blue carry: ``l`` the low byte of a level, ``h`` the high
        one, ``-`` nothing. ``lll`` is a panel that looks at any of them, ``hl-`` one
        of up to 16 bits that puts a level together of red and green.

    Raises
    ------
    ValueError
        An option is impossible.
    """

    def __init__(  # noqa: PLR0913 - one parameter an option
        self,
        *,
        shape: Sequence[int],
        pitch_um: float,
        settle_s: float,
        clock: Clock,
        name: str = "slm",
        monitor: str = "",
        position: Sequence[int] | None = None,
        bit_depth: int = 8,
        channels: str = "lll",
    ) -> None:
        sizes = len(shape) == 2 and min(shape) >= 1
        if not sizes or not pitch_um > 0 or not settle_s >= 0:
            text = (
                f"{name}: shape={list(shape)}, pitch_um={pitch_um}, settle_s="
                f"{settle_s}, expected rows and columns, more than 0, 0 or more"
            )
            raise ValueError(text)
        fits = 1 <= bit_depth <= 8 if "h" not in channels else 8 < bit_depth <= 16
        is_known = len(channels) == 3 and set(channels) <= set(BYTES)
        if not is_known or not fits or "l" not in channels:
            text = (
                f"{name}: channels={channels!r}, bit_depth={bit_depth}, expected three "
                f"of {', '.join(BYTES)}: l with 1 to 8 bits, l and h with 9 to 16"
            )
            raise ValueError(text)
        self._bits, self._channels = bit_depth, channels
        self._name, self._clock = name, clock
        self._shape = (int(shape[0]), int(shape[1]))
        self._pitch_um, self._settle_s = float(pitch_um), float(settle_s)
        self._monitor, self._position = monitor, None
        if position is not None:
            self._position = (int(position[0]), int(position[1]))
        self._claim: Claim | None = None
        self._window: Any = None
        self._context: Any = None
        self._texture: Any = None
        self._vertices: Any = None
        self._place: tuple[str, tuple[int, int]] = ("", (0, 0))
        self._period_s = 0.0
        self._patterns = 0

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self._shape

    @property
    @override
    def bit_depth(self) -> int:
        return self._bits

    @property
    @override
    def pitch_um(self) -> float:
        return self._pitch_um

    @property
    @override
    def settle_s(self) -> float:
        return self._settle_s

    @override
    def open(self) -> None:
        if self._window is not None:
            raise DeviceError(self._name, "open", "already open. Close it first.")
        try:
            with _session(self._name, "open"):
                self._take(self._chosen())
            self._patterns = 0
            self._show(self._flat())
        except BaseException:
            self._let_go()
            raise

    def _flat(self) -> Levels:
        kind = np.uint8 if self._bits <= 8 else np.uint16
        return np.zeros(self._shape, dtype=kind)

    def _chosen(self) -> Any:  # noqa: ANN401 - glfw has no types
        """Choose the monitor.

        Raises
        ------
        DeviceError
            None or several fit.
        """
        there = [(each, *_described(each)) for each in glfw.get_monitors()]
        hits = [
            monitor
            for monitor, label, position, size in there
            if self._monitor in {"", label}
            and self._position in {None, position}
            and size == self._shape
        ]
        if len(hits) == 1:
            return hits[0]
        seen = "; ".join(
            f"{label} at {list(position)} shows {list(size)}"
            for _, label, position, size in there
        )
        text = (
            f"monitor={self._monitor or 'any'} with shape={list(self._shape)}: "
            f"{len(hits)} of {seen or 'none'}, expected one. Set its resolution, or "
            "correct monitor and position in the bench file."
        )
        raise DeviceError(self._name, "open", text)

    def _take(self, monitor: Any) -> None:  # noqa: ANN401 - glfw has no types
        label, position, _ = _described(monitor)
        self._place = (label, position)
        display = f" of display {_display()}" if _display() else ""
        place = f"monitor {label} at {list(position)}{display}"
        self._claim = Claim(self._name, place)
        self._check_ramp(monitor, "open")
        refresh_hz = glfw.get_video_mode(monitor).refresh_rate
        self._period_s = 1 / refresh_hz if refresh_hz > 0 else 1 / 60
        for hint in (glfw.DECORATED, glfw.AUTO_ICONIFY, glfw.RESIZABLE):
            glfw.window_hint(hint, glfw.FALSE)
        rows, columns = self._shape
        self._window = glfw.create_window(columns, rows, "labctl", monitor, None)
        glfw.set_input_mode(self._window, glfw.CURSOR, glfw.CURSOR_HIDDEN)
        glfw.make_context_current(self._window)
        glfw.swap_interval(1)
        self._context = moderngl.create_context()
        program = self._context.program(
            vertex_shader=_VERTEX, fragment_shader=_FRAGMENT
        )
        program["rows"].value = rows
        program["bytes"].value = tuple(map(BYTES.index, self._channels))
        size = (columns, rows)
        bytes_each = self._flat().itemsize
        self._texture = self._context.texture(size, bytes_each, alignment=1)
        self._vertices = self._context.vertex_array(program, [])
        self._check_size()

    def _check_ramp(
        self,
        monitor: Any,  # noqa: ANN401 - glfw has no types
        action: str,
    ) -> None:
        """Refuse a gamma ramp: it changes levels after everything else.

        Raises
        ------
        DeviceError
            A level would come out as another.
        """
        ramp = glfw.get_gamma_ramp(monitor)
        for colour in (ramp.red, ramp.green, ramp.blue):
            got = np.asarray(list(colour))
            straight = np.linspace(0, 1, len(got))
            worst = int(np.abs(got - straight).argmax())
            if abs(got[worst] - straight[worst]) > RAMP:
                text = (
                    f"the gamma ramp makes {got[worst]:.3f} of {straight[worst]:.3f}, "
                    "expected a straight one. Reset it (colour profile, night light, "
                    "xrandr --gamma 1)."
                )
                raise DeviceError(self._name, action, text)

    def _check_size(self) -> None:
        """Refuse a scaled window.

        Raises
        ------
        DeviceError
            A pixel of it is no pixel of the panel.
        """
        size = glfw.get_framebuffer_size(self._window)
        if (size[1], size[0]) != self._shape:
            text = (
                f"the window has {[size[1], size[0]]} pixels, expected "
                f"{list(self._shape)}. Set the scaling of the desktop to 100 %."
            )
            raise DeviceError(self._name, "open", text)

    def _check_there(self, action: str) -> None:
        """Refuse a monitor that is gone, has moved, or has another mode or ramp.

        Raises
        ------
        DeviceError
            The pattern would not be on the panel, pixel by pixel and level by level.
        """
        glfw.poll_events()
        label, position = self._place
        now = [
            size for name, at, size in _still_there() if (name, at) == (label, position)
        ]
        # A window that lost its monitor stays without, also when it is back.
        monitor = glfw.get_window_monitor(self._window)
        if not now or not monitor:
            text = f"the monitor {label} is gone. Look at plug and power, open again."
            raise DeviceError(self._name, action, text)
        if now[0] != self._shape:
            text = (
                f"the monitor {label} shows {list(now[0])}, expected "
                f"{list(self._shape)}. Set its resolution, then open again."
            )
            raise DeviceError(self._name, action, text)
        self._check_ramp(monitor, action)

    @override
    def close(self) -> None:
        if self._window is None:
            return
        try:
            self._show(self._flat())
        finally:
            self._let_go()

    def _let_go(self) -> None:
        window, self._window = self._window, None
        context, self._context = self._context, None
        self._texture = self._vertices = None
        claim, self._claim = self._claim, None
        try:
            with vendor_errors(self._name, "close"):
                if context is not None:
                    context.release()
                if window is not None:
                    glfw.destroy_window(window)
                glfw.terminate()
        finally:
            if claim is not None:
                claim.release()

    def _check_open(self, action: str) -> None:
        if self._window is None:
            raise DeviceError(self._name, action, "not open. Open it first.")

    @override
    def identity(self) -> Identity:
        self._check_open("identity")
        label, position = self._place
        renderer = str(self._context.info["GL_RENDERER"])
        place = f"{label}@{position[0]},{position[1]}"
        return Identity("monitor", label, place, renderer)

    @override
    def settings(self) -> Settings:
        self._check_open("settings")
        return {
            "shape": list(self._shape),
            "bit_depth": self.bit_depth,
            "pitch_um": self._pitch_um,
            "settle_s": self._settle_s,
            "monitor": self._place[0],
            "position": list(self._place[1]),
            "channels": self._channels,
            "refresh_hz": 1 / self._period_s,
        }

    @override
    def write(self, levels: Levels) -> Written:
        self._check_open("write")
        check_levels(self, levels)
        self._check_there_now("write")
        self._show(levels)
        self._patterns += 1
        return Written(
            pattern_id=self._patterns,
            checksum=zlib.crc32(levels.tobytes()),
            written_s=self._clock.now(),
        )

    @override
    def check_shown(self) -> None:
        self._check_open("check")
        self._check_there_now("check")

    def _check_there_now(self, action: str) -> None:
        with vendor_errors(self._name, action):
            self._check_there(action)

    def _show(self, levels: Levels) -> None:
        with vendor_errors(self._name, "write"):
            # Low byte first, whatever this computer does.
            kind = levels.dtype.newbyteorder("<")
            self._texture.write(np.ascontiguousarray(levels, dtype=kind).tobytes())
            self._texture.use(0)
            self._context.screen.use()
            self._vertices.render(moderngl.TRIANGLES, vertices=3)
            glfw.swap_buffers(self._window)
            self._context.finish()
            glfw.poll_events()
        # A panel is scanned line by line over one refresh: the last line counts.
        self._clock.sleep(self._period_s)


def _display() -> str:
    """Name the display of this session, without the screen that it may end in."""
    name = os.environ.get("DISPLAY", "")
    return re.sub(r"(:\d+)\.\d+$", r"\1", name)


def _still_there() -> Iterator[tuple[str, tuple[int, int], tuple[int, int]]]:
    """Describe the monitors, without one that is switched off at this moment."""
    for monitor in glfw.get_monitors():
        try:
            yield _described(monitor)
        except glfw.GLFWError:  # listed, and without a mode: its event is on its way
            continue


def _described(
    monitor: Any,  # noqa: ANN401 - glfw has no types
) -> tuple[str, tuple[int, int], tuple[int, int]]:
    """Name, corner and (height, width) of a monitor, as it is set now."""
    label = glfw.get_monitor_name(monitor)
    mode, corner = glfw.get_video_mode(monitor), glfw.get_monitor_pos(monitor)
    text = label.decode(errors="replace") if isinstance(label, bytes) else str(label)
    return (
        text,
        (int(corner[0]), int(corner[1])),
        (int(mode.size.height), int(mode.size.width)),
    )


def find() -> list[Found]:
    """List the monitors; opens no window.

    Returns
    -------
    found
        With what a bench file needs, but for pitch_um and settle_s.
    """
    with _session("screen", "find"):
        there = [_described(each) for each in glfw.get_monitors()]
        glfw.terminate()
    return [
        Found(
            what=f"monitor {label} at {list(position)}: {size[0]} x {size[1]}",
            role="slm",
            driver="screen.slm",
            options={"monitor": label, "shape": list(size), "position": list(position)},
        )
        for label, position, size in there
    ]
