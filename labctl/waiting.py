"""Waiting for a frame: as long as the bench file says, and never in silence."""

from collections.abc import Callable

from labctl.devices import Camera, Frame
from labctl.errors import FrameError


def frame(
    camera: Camera, timeout_s: float, *, turn_s: float, beat: Callable[[], None]
) -> Frame:
    """Take a frame, in turns so short that the guard takes none for silence.

    Parameters
    ----------
    camera
        Armed, and triggered.
    timeout_s
        Longest time to wait.
    turn_s
        Longest time without a sign of life.
    beat
        Gives one; called between two turns.

    Returns
    -------
    frame
        The answer to the oldest trigger that has none yet.

    Raises
    ------
    FrameError
        ``timeout``, or what the camera says of the frame.
    """
    left_s = timeout_s
    while True:
        try:
            return camera.frame(min(left_s, turn_s))
        except FrameError as error:
            left_s -= turn_s
            if error.kind != "timeout":
                raise
            if left_s <= 0:
                if timeout_s <= turn_s:
                    raise
                text = f"no frame within {timeout_s} s"
                raise FrameError(error.device, error.kind, text) from error
        beat()
