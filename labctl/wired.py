"""Batches whose exposures are started by a cable and not by software: the edges.

::

    write 1 | edge, delay of the camera | expose 1 | write 2 | edge, delay | expose 2
                                                   |    frame 1            |

The panel gives an edge with every pattern that it shows; the camera waits the settling
time by itself and exposes. What comes over the cable nobody sees, so a batch is
accepted whole or not at all: as many frames as patterns, their counters in a row, none
left over, and each exposure begun by an edge within the write of its pattern. The last
is shown by the camera, which tells when an exposure is over, or by the times that it
stamps on its frames (decision 0016).
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from labctl import devices, waiting
from labctl.calibration import ExposureWire
from labctl.devices import (
    SLM,
    Camera,
    Clock,
    Edge,
    Frame,
    Levels,
    Meter,
    Played,
    Written,
    check_levels,
)
from labctl.errors import DeviceError, FrameError, OutOfRangeError

LONGEST: Final = 1024
MANY: Final = 32  # patterns, all of which are slow by chance on no computer
# How far the clock of a camera may be off, as a fraction and in steps.
RATE: Final = 2e-4
STAMP_S: Final = 1e-5


@final
class WiredSequence(devices.Sequence):
    """Plays patterns on a panel whose output starts the exposures of a camera.

    Parameters
    ----------
    slm, camera
        The devices, with a deadline for each call of theirs.
    meter
        Read after each frame; None where there is none.
    clock
        Of the bench.
    wire
        The cable, as the bench file declares it.
    patience_s
        Longest time between the end of the delay and the frame.
    turn_s
        Longest time of it without a sign of life.
    beat
        Tells the guard that the run is alive.
    """

    def __init__(  # noqa: PLR0913 - what a bench has
        self,
        *,
        slm: SLM,
        camera: Camera,
        meter: Meter | None,
        clock: Clock,
        wire: ExposureWire,
        patience_s: float,
        turn_s: float,
        beat: Callable[[], None],
    ) -> None:
        self._slm, self._camera, self._meter = slm, camera, meter
        self._beat, self._turn_s = beat, turn_s
        self._clock, self._wire, self._patience_s = clock, wire, patience_s

    @property
    @override
    def longest(self) -> int:
        return LONGEST

    def check(self, settle_s: float) -> None:
        """Refuse a wiring that the devices, both open, cannot satisfy.

        Parameters
        ----------
        settle_s
            Time between an edge and the exposure.

        Raises
        ------
        DeviceError
            The panel gives no edges, or the camera takes none on that line or cannot
            wait so long.
        """
        wire = self._wire
        if not self._slm.gives_edges:
            text = (
                "gives_edges=no, expected an edge with every pattern (wiring). Say "
                "gives_edges in the options of a panel that has a trigger output, or "
                "remove wiring from the bench file."
            )
            raise DeviceError(self._slm.name, "wiring", text)
        lines = self._camera.edge_lines
        if wire.line not in lines:
            text = (
                f"line={wire.line}, expected one of {', '.join(lines) or 'none'}. "
                "Correct wiring.exposure.line in the bench file, or remove wiring: "
                "software then triggers."
            )
            raise DeviceError(self._camera.name, "wiring", text)
        low_s, high_s = self._camera.edge_delay_limits_s
        if not low_s <= settle_s <= high_s:
            text = (
                f"delay={settle_s:g} s, the panel's settling, expected {low_s:g} to "
                f"{high_s:g} s from an edge to the exposure. Use a camera that waits "
                "longer, or remove wiring from the bench file."
            )
            raise DeviceError(self._camera.name, "wiring", text)

    @override
    def play(self, levels: Levels, *, settle_s: float) -> Played:
        self._check_patterns(levels, settle_s)
        tells = self._camera.tells_exposure_end
        if len(levels) == 1 and not tells:  # nothing to compare its stamp with
            return self._by_software(levels[0], settle_s)
        edge = Edge(self._wire.line, self._wire.edge == "rising", settle_s)
        batch = _Batch()
        try:
            self._camera.arm_for_edges(len(levels), edge)
            self._step(levels, settle_s, batch)
            self._check_whole(batch)
        except DeviceError as error:
            error.exposed = len(batch.written)
            raise
        finally:
            self._camera.disarm()
        return batch.played()

    def _by_software(self, pattern: Levels, settle_s: float) -> Played:
        batch = _Batch()
        try:
            self._camera.arm(1)
            self._beat()
            batch.written.append(self._slm.write(pattern))
            batch.asked_s.append(batch.written[0].written_s)
            batch.checksums.append(zlib.crc32(np.ascontiguousarray(pattern).data))
            passed_s = self._clock.now() - batch.asked_s[0]
            self._clock.sleep(max(0.0, settle_s - passed_s))
            self._camera.trigger()
            self._collect(self._patience_s, batch)
            self._check_shown(batch)
        except DeviceError as error:
            error.exposed = len(batch.written)
            raise
        finally:
            self._camera.disarm()
        return batch.played()

    def _check_patterns(self, levels: Levels, settle_s: float) -> None:
        """Refuse a batch before anything is sent.

        Raises
        ------
        OutOfRangeError
            It does not fit.
        """
        name = "sequence"
        if levels.ndim != 3:
            raise OutOfRangeError(name, "axes", levels.ndim, low=3, high=3)
        if not 1 <= len(levels) <= LONGEST:
            raise OutOfRangeError(name, "patterns", len(levels), low=1, high=LONGEST)
        low_s, high_s = self._camera.edge_delay_limits_s
        if not low_s <= settle_s <= high_s:
            raise OutOfRangeError(
                self._camera.name, "settle_s", settle_s, low=low_s, high=high_s
            )
        for pattern in levels:
            check_levels(self._slm, pattern)

    def _step(self, levels: Levels, settle_s: float, batch: "_Batch") -> None:
        timeout_s = settle_s + self._patience_s
        for number, pattern in enumerate(levels):
            self._show(pattern, batch)
            # Asked at once: told while it is waited for, it is when it was.
            is_over = self._is_over(timeout_s)
            batch.told += is_over
            batch.slow += batch.back_s[-1] - batch.asked_s[-1] >= settle_s
            if len(batch.frames) < number:  # of the one before, read out meanwhile
                self._collect(timeout_s, batch)
            if not is_over:
                self._collect(timeout_s, batch)
        if len(batch.frames) < len(levels):
            self._collect(timeout_s, batch)

    def _show(self, pattern: Levels, batch: "_Batch") -> None:
        self._beat()
        # Read before: whenever the edge comes, it is not earlier.
        batch.asked_s.append(self._clock.now())
        self._camera.trigger()
        batch.written.append(self._slm.write(pattern))
        batch.back_s.append(self._clock.now())
        batch.checksums.append(zlib.crc32(np.ascontiguousarray(pattern).data))

    def _is_over(self, timeout_s: float) -> bool:
        """Wait for the end of the exposure, where the camera tells it."""
        if not self._camera.tells_exposure_end:
            return False
        try:
            self._camera.wait_exposed(min(timeout_s, self._turn_s))
        except FrameError:
            return False  # its frame tells what became of it, and is waited for
        return True

    def _collect(self, timeout_s: float, batch: "_Batch") -> None:
        try:
            came = waiting.frame(
                self._camera, timeout_s, turn_s=self._turn_s, beat=self._beat
            )
            batch.frames.append(came)
        except FrameError as error:
            if error.kind != "timeout":
                raise
            text = (
                f"{error.detail} after pattern {len(batch.frames) + 1}: no edge came "
                f"on {self._wire.line}, or its frame was lost. Look at the cable from "
                "the panel's output to the camera, and at that of the camera"
            )
            raise FrameError(error.device, error.kind, text) from error
        if self._meter is not None:
            batch.power_mw.append(self._meter.reading().value)

    def _check_whole(self, batch: "_Batch") -> None:
        """Refuse a batch that is not the one that was shown.

        Raises
        ------
        FrameError
            An exposure was not begun by the edge of its pattern, for all that is known.
        DeviceError
            The camera tells nothing by which that could be known.
        """
        self._check_shown(batch)
        count = len(batch.written)
        if batch.slow:
            self._refuse_slow(batch.slow, count)
        stamps_s = np.array([frame.device_time_s for frame in batch.frames])
        if count < 2 or not (np.diff(stamps_s) > 0).all():
            if batch.told == count:
                return
            if batch.told:
                text = f"the ends of {count - batch.told} of {count} exposures unheard"
                raise FrameError(self._camera.name, "stale", text)
            text = (
                "it stamped no times on its frames, and did not tell the end of each "
                "exposure: expected either, or an edge of nobody would not be found. "
                "Say tells_exposure_end in its options, or remove wiring from the "
                "bench file."
            )
            raise DeviceError(self._camera.name, "wiring", text)
        # Both clocks differ by one number: the same for every frame, or one of them
        # was begun outside the write of its pattern.
        least_s = (np.array(batch.asked_s) - stamps_s).max()
        most_s = (np.array(batch.back_s) - stamps_s).min()
        spare_s = STAMP_S + RATE * float(stamps_s[-1] - stamps_s[0])
        if least_s > most_s + spare_s:
            text = (
                f"stamped {least_s - most_s:.6f} s off the writes of their patterns: "
                f"an edge came on {self._wire.line} that nobody gave, or one was lost"
            )
            raise FrameError(self._camera.name, "stale", text)

    def _refuse_slow(self, slow: int, count: int) -> NoReturn:
        """Refuse a batch in whose writes an edge of nobody could hide.

        Such an edge comes before the pattern, and the exposure that it begins may be
        over before the pattern is there: neither a stamp nor the end tells them apart.

        Raises
        ------
        FrameError
            Some writes were slow, as others' work may make them.
        DeviceError
            All of many were: no batch will be better.
        """
        text = "a write took longer than the settling, so that nobody knows which edge"
        text = f"{text} began its exposure ({slow} of {count})"
        if slow < count or count < MANY:
            raise FrameError(self._camera.name, "stale", text)
        text = (
            f"{text}. The cable gains nothing on this bench: remove wiring from the "
            "bench file, software then triggers."
        )
        raise DeviceError(self._camera.name, "wiring", text)

    def _check_shown(self, batch: "_Batch") -> None:
        """Refuse what a panel showed that was not asked for.

        Raises
        ------
        FrameError
            ``stale``
        DeviceError
            The panel is gone.
        """
        if [each.checksum for each in batch.written] != batch.checksums:
            text = "the panel says that it showed another pattern, expected each"
            raise FrameError(self._slm.name, "stale", text)
        # Each write has asked; nobody has since the last.
        self._slm.check_shown()


@dataclass(eq=False)
class _Batch:
    """What was shown and what came, in order."""

    asked_s: list[float] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    power_mw: list[float] = field(default_factory=list)
    told: int = 0  # exposures whose end was heard
    slow: int = 0  # writes that lasted longer than the settling

    def played(self) -> Played:
        """Return the batch, column by column."""
        frames = self.frames
        return Played(
            frames=np.stack([frame.data for frame in frames]),
            pattern_id=_whole([each.pattern_id for each in self.written]),
            checksum=_whole([each.checksum for each in self.written]),
            # The edge says that the pattern is there; it came at this moment or later,
            # and the exposure by as much later.
            written_s=np.array(self.asked_s),
            frame_id=_whole([frame.frame_id for frame in frames]),
            trigger=_whole([frame.trigger for frame in frames]),
            device_time_s=np.array([frame.device_time_s for frame in frames]),
            host_time_s=np.array([frame.host_time_s for frame in frames]),
            exposure_start_s=np.array([frame.exposure_start_s for frame in frames]),
            exposure_end_s=np.array([frame.exposure_end_s for frame in frames]),
            power_mw=np.array(self.power_mw) if self.power_mw else None,
            time_error_s=max(frame.time_error_s for frame in frames),
        )


def _whole(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)
