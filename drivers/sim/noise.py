"""Random numbers that are a pure function of who asks: no generator has a state.

A draw is named by seed, stream (which effect), attempt and shot; the same name
gives the same numbers in any order, in any process, after any resume.
"""

import math
from enum import IntEnum

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray


class Stream(IntEnum):
    """One number for each effect that draws."""

    POWER = 1
    POINTING = 2
    METER = 3
    SENSOR = 4
    CAMERA_FAULTS = 5
    PANEL_FAULTS = 6
    METER_FAULTS = 7
    POWER_DRIFT = 8
    POINTING_DRIFT = 9
    MEDIUM_DRIFT = 10
    ELEMENT_DRIFT = 11
    SHUTTER_FAULTS = 12
    SPECKLE_DRIFT = 13
    SENSOR_DRIFT = 14
    READ = 15
    # What a specimen is made of; keyed by its device seed.
    SCREENS = 101
    CURVE = 102
    SENSITIVITY = 103
    DARK_LEVEL = 104
    CURVATURE = 106
    HOT = 107
    DOMAINS = 108
    UNEVENNESS = 109
    # Patterns that check how converged a specimen is.
    CHECK = 105


def generator(seed: int, stream: Stream, shot: int = 0, attempt: int = 0) -> Generator:
    """Random numbers of one effect at one shot.

    Parameters
    ----------
    seed
        Of the run, or of the device.
    stream
        The effect.
    shot
        Number of the exposure.
    attempt
        Counts repetitions of the same shot.

    Returns
    -------
    generator
        At its start.
    """
    # Word 0 of the counter is the one that a generator advances itself.
    key = np.array([seed, stream], dtype=np.uint64)
    counter = np.array([0, 0, attempt, shot], dtype=np.uint64)
    return Generator(Philox(key=key, counter=counter))


class Reseated:
    """The same random numbers as :func:`generator`, from one that is kept.

    Making a generator asks the computer for randomness that is then thrown away,
    and takes four times as long as giving one another counter.

    Parameters
    ----------
    seed
        Of the run.
    stream
        The effect.
    """

    def __init__(self, seed: int, stream: Stream) -> None:
        self._kept = generator(seed, stream)
        # Of a fresh one: nothing drawn, nothing buffered.
        self._fresh = dict(self._kept.bit_generator.state)
        self._key = self._fresh["state"]["key"]

    def at(self, shot: int) -> Generator:
        """Start the numbers of a shot; those of the shot before end."""
        counter = np.array([0, 0, 0, shot], dtype=np.uint64)
        self._kept.bit_generator.state = self._fresh | {
            "state": {"counter": counter, "key": self._key}
        }
        return self._kept


_BLOCK = 256


class PerShot:
    """A few normal numbers a shot, drawn for many shots at once.

    Opening a generator costs ten times what a few numbers do; so they are drawn
    in blocks of consecutive shots. Still a pure function: a block is named by
    its own number.

    Parameters
    ----------
    seed
        Of the run.
    stream
        The effect.
    count
        Numbers a shot.
    """

    def __init__(self, seed: int, stream: Stream, count: int) -> None:
        self._seed, self._stream, self._count = seed, stream, count
        self._number = -1
        self._block = np.empty((0, count))

    def normal(self, shot: int) -> NDArray[np.float64]:
        """Draw the standard normal numbers of a shot."""
        number, within = divmod(shot, _BLOCK)
        if number != self._number:
            source = generator(self._seed, self._stream, number)
            self._block = source.standard_normal((_BLOCK, self._count))
            self._number = number
        row: NDArray[np.float64] = self._block[within]
        return row

    def uniform(self, shot: int) -> NDArray[np.float64]:
        """Draw the numbers of a shot that are uniform in [0, 1)."""
        # By the normal distribution's own integral: one draw serves both.
        root = math.sqrt(2)
        return np.array([(1 + math.erf(x / root)) / 2 for x in self.normal(shot)])
