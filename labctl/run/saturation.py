"""Whether the frames of a training hold more light than the camera can count."""

from typing import final

import numpy as np
from torch import Tensor
from typing_extensions import override

from labctl.errors import SaturatedError
from labctl.recording.writer import Recorder
from labctl.reservoir import Reservoir
from labctl.training.blackbox import Device, Response

PIXELS = 0.01
"""Share of a frame's pixels from which on it counts: a few hot ones spoil no output."""
FRAMES = 0.5
"""Share of a training's frames that may count."""
LEAST_FRAMES = 64
"""Frames before which nothing is judged."""


@final
class Sighted(Device):
    """A reservoir that ends a training most of whose frames are saturated.

    Frames are counted in the record, up to the shot that the reservoir is at: a run
    that is resumed ends where one that was never interrupted would. Final tests,
    reference lines and validation do not count, as nothing is learnt from them.

    Parameters
    ----------
    reservoir
        What exposes.
    recorder
        Has a row of every exposure once it was made.
    """

    def __init__(self, reservoir: Reservoir, recorder: Recorder) -> None:
        self._reservoir, self._recorder = reservoir, recorder
        height, width = reservoir.bench.bins(reservoir.entry).region[2:]
        self._pixels = height * width
        self._row = self.frames = self.saturated = 0

    @property
    @override
    def layout(self) -> tuple[int, int]:
        """Rows and columns of macropixels."""
        return self._reservoir.layout

    @property
    @override
    def pixels(self) -> int:
        """Number of macropixels."""
        return self._reservoir.pixels

    @property
    @override
    def outputs(self) -> int:
        """Number of outputs."""
        return self._reservoir.outputs

    @property
    def share(self) -> float:
        """Share of the frames so far that are saturated."""
        return self.saturated / max(1, self.frames)

    @override
    def __call__(
        self, phase: Tensor, *, category: str, layer: int, step: int
    ) -> Response:
        """Expose, and judge what the training has seen so far.

        Raises
        ------
        SaturatedError
            Most frames are saturated.
        """
        found = self._reservoir(phase, category=category, layer=layer, step=step)
        if category == "evaluate":
            return found
        self._count()
        if self.frames >= LEAST_FRAMES and self.share > FRAMES:
            raise SaturatedError(
                self._reservoir.bench.camera.name,
                saturated=self.saturated,
                frames=self.frames,
                pixels=PIXELS,
            )
        return found

    def _count(self) -> None:
        rows = slice(self._row, self._reservoir.shots)
        category, quality, saturated_px = (
            self._recorder.read("shots_meta", name, rows)
            for name in ("category", "quality", "saturated_px")
        )
        counted = (category != b"evaluate") & (quality == b"ok")
        self.frames += int(np.count_nonzero(counted))
        spoilt = counted & (saturated_px > PIXELS * self._pixels)
        self.saturated += int(np.count_nonzero(spoilt))
        self._row = rows.stop
