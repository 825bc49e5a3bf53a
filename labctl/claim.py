"""One process owns an instrument, whatever bench file names it and who opens it.

For drivers whose operating system lets two processes in, as a display, a socket or VISA
do. Serial ports and most cameras need no claim: a second opener is refused by whoever
has them. It holds among processes with one state folder, and for one spelling of a
place.
"""

import re
import zlib
from typing import final

from labctl import state
from labctl.errors import DeviceError, InputError


@final
class Claim:
    """An instrument that is this process's until released, or until it dies.

    Parameters
    ----------
    device
        Name of the device in the bench file.
    place
        What tells the instrument from every other of this computer, for a person.

    Raises
    ------
    DeviceError
        It is claimed already; tells by whom.
    """

    def __init__(self, device: str, place: str) -> None:
        words = re.sub(r"[^A-Za-z0-9]+", "-", place).strip("-")[:80]
        name = f"instrument.{words}-{zlib.crc32(place.encode()):08x}"
        try:
            self._owned = state.Ownership(name, place)
        except InputError as err:
            raise DeviceError(device, "open", str(err)) from err

    def release(self) -> None:
        """Let others have it."""
        self._owned.release()
