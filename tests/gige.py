"""A GigE Vision camera that aravis simulates, in a process of its own.

In one with whoever reads it, both would wait for the same interpreter lock: on a busy
computer the camera then answers later than its reader waits. Options come as JSON in
the first argument; it says ``ready``, and ends with standard input.
"""

import ctypes
import json
import sys
import time
from typing import Any

from drivers.camera.aravis import Aravis
from tests.gobject import address


class Exposing:
    """Makes a camera that aravis simulates take the time of an exposure.

    By itself it sends its frame at the next of its ticks, 25 a second: whoever triggers
    just before one has the frame before its exposure can be over. The picture is the
    one that it makes by itself, of a second one with the same registers.

    Parameters
    ----------
    camera
        One that aravis simulates.
    """

    def __init__(self, camera: Any) -> None:  # noqa: ANN401 - no types
        self._library = ctypes.CDLL("libaravis-0.8.so.0")
        self._size = Aravis.FAKE_CAMERA_MEMORY_SIZE - 4
        self._painter = Aravis.FakeCamera.new("painter")
        self._first, self._second = map(
            address, (camera.get_fake_camera(), self._painter)
        )
        filled = ctypes.CFUNCTYPE(
            None, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_uint32] * 3
        )
        self._fill = filled(self._expose)
        self._set(self._fill)

    def _set(self, fill: Any) -> None:  # noqa: ANN401 - ctypes
        call = self._library.arv_fake_camera_set_fill_pattern
        call.argtypes = [ctypes.c_void_p] * 3
        call(self._first, fill, None)

    def _expose(
        self, buffer: int, user: int, exposure_us: int, gain: int, pixel_format: int
    ) -> None:
        del user, gain, pixel_format
        time.sleep(1e-6 * exposure_us)
        registers = ctypes.create_string_buffer(self._size)
        for name, camera in (("read", self._first), ("write", self._second)):
            copy = getattr(self._library, f"arv_fake_camera_{name}_memory")
            copy.argtypes = [ctypes.c_void_p, *[ctypes.c_uint32] * 2, ctypes.c_void_p]
            copy(camera, 0, self._size, registers)
        paint = self._library.arv_fake_camera_fill_buffer
        paint.argtypes = [ctypes.c_void_p] * 3
        paint(self._second, buffer, None)

    def stop(self) -> None:
        """Leave it as it was: its thread must not need ours while it ends."""
        self._set(None)


def main() -> None:
    """Serve until standard input ends."""
    camera = Aravis.GvFakeCamera(**json.loads(sys.argv[1]))
    if not camera.is_running():
        sys.exit("aravis' camera does not run")
    exposing = Exposing(camera)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    exposing.stop()


if __name__ == "__main__":
    main()
