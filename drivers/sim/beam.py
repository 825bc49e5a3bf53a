"""The beam: the state of a simulated laser, in a small memory-mapped file.

The laser lives in the guard's process and outlives the run; the light path, in
the run's process, reads here whether it is lit. 64 bytes, little-endian.

The laser's own watchdog is a time in this file as well: from then on a reader finds
it dark, whether or not anybody is left to write so. That is what a timer in a head
does, and it works when the process that holds the laser is frozen.
"""

import mmap
import struct
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from typing_extensions import override

_MAGIC = b"LABBEAM1"
_LAYOUT = struct.Struct("<8sIIdddd")
_SIZE = 64
_COUNTER = struct.Struct("<I")
_COUNTER_AT = 8
_EMISSION, _SHUTTER = 1, 2
# A writer is done within a microsecond, unless another process got its processor: a
# reader that meets an odd counter so often in a row waits, and after so long looks at a
# file whose writer died half-way.
_READS: Final = 100
_PATIENCE_S: Final = 1.0
_NAP_S: Final = 0.001


class BeamError(Exception):
    """The beam file is missing, foreign, or was left half-written."""


@dataclass(frozen=True)
class BeamState:
    """What the laser published last.

    Parameters
    ----------
    emission
        Whether it emits.
    shutter_open
        Whether the shutter lets the light through.
    power_setpoint_mw
        Power demanded.
    since_s
        Time of the last change of emission, in seconds since 1970.
    power_mw
        Power that leaves now.
    watchdog_due_s
        When the laser's timer runs out, in seconds since 1970; 0 while it is not
        armed.
    """

    emission: bool
    shutter_open: bool
    power_setpoint_mw: float
    since_s: float
    power_mw: float
    watchdog_due_s: float = 0.0

    def at(self, now_s: float) -> "BeamState":
        """Give the state at a moment: dark once the timer has run out.

        Parameters
        ----------
        now_s
            Seconds since 1970.
        """
        if not self.emission or not 0 < self.watchdog_due_s <= now_s:
            return self
        return replace(self, emission=False, since_s=self.watchdog_due_s, power_mw=0.0)


@final
class Beam(AbstractContextManager["Beam"]):
    """The mapped file; made by :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self._path, self._view = path, view
        self._sequence = 0

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make the file, dark; one that is there is taken over in place.

        Parameters
        ----------
        path
            Where; its folder exists.

        Returns
        -------
        beam
            For writing.
        """
        # In place: a reader may have the old file mapped, and on Windows a
        # mapped file can be neither replaced nor made shorter.
        if not path.exists() or path.stat().st_size != _SIZE:
            path.write_bytes(bytes(_SIZE))
        beam = cls(path, cls._map(path, mmap.ACCESS_WRITE))
        beam.write(
            BeamState(
                emission=False,
                shutter_open=False,
                power_setpoint_mw=0.0,
                since_s=0.0,
                power_mw=0.0,
            )
        )
        return beam

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file for reading.

        Parameters
        ----------
        path
            Where.

        Returns
        -------
        beam
            For reading.

        Raises
        ------
        BeamError
            There is none, or it is another kind of file.
        """
        try:
            size = path.stat().st_size
        except OSError as error:
            text = f"{path}: no beam file, expected one. Open the laser first."
            raise BeamError(text) from error
        if size != _SIZE:
            text = f"{path}: {size} bytes, expected a beam file of {_SIZE}"
            raise BeamError(text)
        return cls(path, cls._map(path, mmap.ACCESS_READ))

    @staticmethod
    def _map(path: Path, access: int) -> mmap.mmap:
        mode = "rb" if access == mmap.ACCESS_READ else "r+b"
        with path.open(mode) as file:
            return mmap.mmap(file.fileno(), _SIZE, access=access)

    def write(self, state: BeamState) -> None:
        """Publish a state; a reader sees it whole or not yet."""
        flags = _EMISSION * state.emission | _SHUTTER * state.shutter_open
        # Odd while the fields change, even when they agree again.
        self._sequence = (self._sequence + 1) % 2**32 | 1
        _COUNTER.pack_into(self._view, _COUNTER_AT, self._sequence)
        _LAYOUT.pack_into(
            self._view,
            0,
            _MAGIC,
            self._sequence,
            flags,
            state.power_setpoint_mw,
            state.since_s,
            state.power_mw,
            state.watchdog_due_s,
        )
        self._sequence = (self._sequence + 1) % 2**32
        _COUNTER.pack_into(self._view, _COUNTER_AT, self._sequence)

    def read(self) -> BeamState:
        """Read the state that was published last.

        Returns
        -------
        state
            Whole, never a mixture of two.

        Raises
        ------
        BeamError
            The file is foreign, or its writer died while writing.
        """
        tries, due = 0, time.monotonic() + _PATIENCE_S
        while tries < _READS or time.monotonic() < due:
            tries += 1
            if tries > _READS:
                time.sleep(_NAP_S)
            before = _COUNTER.unpack_from(self._view, _COUNTER_AT)[0]
            magic, _, flags, *numbers = _LAYOUT.unpack_from(self._view)
            after = _COUNTER.unpack_from(self._view, _COUNTER_AT)[0]
            if before != after or before % 2:
                continue
            if magic != _MAGIC:
                text = f"{self._path}: magic {magic!r}, expected {_MAGIC!r}"
                raise BeamError(text)
            setpoint, since, power, due = numbers
            return BeamState(
                emission=bool(flags & _EMISSION),
                shutter_open=bool(flags & _SHUTTER),
                power_setpoint_mw=setpoint,
                since_s=since,
                power_mw=power,
                watchdog_due_s=due,
            ).at(time.time())
        text = f"{self._path}: half-written. Open the laser again."
        raise BeamError(text)

    def close(self) -> None:
        """Release the file; it stays on the disk. May be called twice."""
        self._view.close()

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
