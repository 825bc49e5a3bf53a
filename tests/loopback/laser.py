"""The laser of the room: a simulator by others behind a serial port, by itself.

A process of its own, so that nothing that keeps the room busy keeps the laser from its
answer, as nothing in a lab does. What it does is in a small file that the room reads,
written before the answer: whoever has an answer finds it there. It says ``ready`` on
standard output, then answers one line of JSON to each line of standard input, and ends
with it.
"""

import importlib
import json
import mmap
import struct
import sys
from collections.abc import Callable  # noqa: TC003 - no types at run time here
from pathlib import Path
from typing import Any, Final

from tests.conftest import Bridge, instrument

#: Whether it emits, and its power in mW.
BEAM: Final = struct.Struct("=?d")
NAME: Final = "beam"


class Beam:
    """What the laser does, shared by a file.

    Parameters
    ----------
    path
        The file, of one process that writes.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), BEAM.size)

    def tell(self, *, is_on: bool, power_mw: float) -> None:
        """Write it down."""
        self._shared[:] = BEAM.pack(is_on, power_mw)

    def seen(self) -> tuple[bool, float]:
        """Whether it emits, and its power in mW."""
        is_on, power_mw = BEAM.unpack(self._shared[:])
        return bool(is_on), float(power_mw)


class Told:
    """A simulator of which others are told what it does.

    Parameters
    ----------
    mock
        Of ``microscope.testsuite.mock_devices``.
    beam
        Who is told.
    """

    def __init__(self, mock: Any, beam: Beam) -> None:  # noqa: ANN401 - a peer has no types
        self._mock, self._beam = mock, beam
        self._tell()

    def _tell(self) -> None:
        self._beam.tell(is_on=self._mock.light, power_mw=self._mock.power)

    def write(self, data: bytes) -> None:
        """Take bytes of a command."""
        try:
            self._mock.write(data)
        except NotImplementedError:  # without the reset it poisons the next command
            self._mock.out_pending_bytes = 0
            raise
        self._tell()

    def read(self, size: int) -> bytes:
        """Give bytes of an answer."""
        answer: bytes = self._mock.read(size)
        return answer


class Plug:
    """The serial port, under a name that stays.

    Parameters
    ----------
    mock
        Who is behind it.
    port
        The name.
    """

    def __init__(self, mock: Any, port: Path) -> None:  # noqa: ANN401 - a peer has no types
        self._mock, self._port = mock, port
        self._bridge: Bridge | None = None
        self.put_in()

    def put_in(self) -> None:
        """Plug the cable in; nothing happens if it is."""
        if self._bridge is None:
            self._bridge = Bridge(self._mock)
            self._port.unlink(missing_ok=True)
            self._port.symlink_to(self._bridge.port)

    def pull(self) -> None:
        """Pull the cable; the laser stays as it is."""
        if self._bridge is not None:
            self._bridge.unplug()
            self._bridge = None


def main() -> None:
    """Serve until standard input ends."""
    folder = Path(sys.argv[1])
    mocks: Any = importlib.import_module("microscope.testsuite.mock_devices")
    mock = instrument(mocks, "CoboltLaserMock")
    mock.timeout = 0
    (folder / NAME).write_bytes(bytes(BEAM.size))
    plug = Plug(Told(mock, Beam(folder / NAME)), folder / "laser")
    done: dict[str, Callable[[], object]] = {"plug": plug.put_in, "unplug": plug.pull}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(done[line.strip()]()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
