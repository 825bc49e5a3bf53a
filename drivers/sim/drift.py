"""Slow changes: processes of Ornstein and Uhlenbeck, readable at any time in any order.

Increments are drawn by number on a grid of virtual time, and the process is the
weighted sum of those of the last while: a pure function of seed and time, which
neither the calls before nor a resume can change.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivers.sim.noise import PerShot, Stream, generator
from drivers.sim.options import Options

# Grid points in one correlation time, and correlation times that are remembered:
# what is forgotten weighs exp(-16) of the variance.
_PER_TAU = 16
_REMEMBERED = 8 * _PER_TAU
# Keeps the numbers of increments from before the clock started positive.
_FIRST = 2**20


class Wander:
    """Independent stationary processes of mean 0 and variance 1.

    Their correlation over a time t is exp(-t / tau); within a sixteenth of tau
    they go straight.

    Parameters
    ----------
    seed
        Of the run.
    stream
        The effect.
    tau_s
        Correlation time, in virtual time.
    count
        Processes.
    """

    def __init__(self, seed: int, stream: Stream, tau_s: float, count: int) -> None:
        self._step_s = tau_s / _PER_TAU
        self._steps = PerShot(seed, stream, count)
        weights = np.exp(-np.arange(_REMEMBERED)[::-1] / _PER_TAU)
        self._weights = weights / math.sqrt(float(np.sum(weights**2)))
        self._node, self._ends = -1, np.empty((2, count))

    def at(self, time_s: float) -> NDArray[np.float64]:
        """Read the processes.

        Parameters
        ----------
        time_s
            Virtual time, from 0.

        Returns
        -------
        values
            ``(process,)``.
        """
        node, share = divmod(time_s / self._step_s, 1)
        if node != self._node:
            self._ends = self._drawn(int(node))
            self._node = int(node)
        # A mean of two correlated values varies less than each: put it right.
        rho = math.exp(-1 / _PER_TAU)
        spread = math.sqrt((1 - share) ** 2 + share**2 + 2 * share * (1 - share) * rho)
        value: NDArray[np.float64] = (1 - share) * self._ends[0] + share * self._ends[1]
        return value / spread

    def _drawn(self, node: int) -> NDArray[np.float64]:
        first = _FIRST + node - _REMEMBERED
        drawn = np.stack(
            [self._steps.normal(first + at) for at in range(1, _REMEMBERED + 2)]
        )
        return np.stack([self._weights @ drawn[:-1], self._weights @ drawn[1:]])


# Nodes of time that are ever reached: of 0.1 s each they take 13 years.
_NODES = 2**32
# Parts of a node's time in which a slowly renewed thing stays as it is.
_PARTS = 16


class Renewal:
    """Normal numbers that slowly become others, readable at any time in any order.

    They are given at time 0; from one node of time to the next, V becomes
    sqrt(1 - change^2) V + change times another. What they are at a node is found by
    halving the time between two nodes at which they are known (Levy's construction,
    for a process of Ornstein and Uhlenbeck), with one draw a halving.

    Parameters
    ----------
    first
        The numbers at time 0.
    change
        How much of another they take on in the time of a node, from 0 to 1.
    node_s
        That time.
    seed
        Of the run.
    """

    def __init__(
        self, first: NDArray[np.float64], change: float, node_s: float, seed: int
    ) -> None:
        self._first, self._change, self._node_s = first, change, node_s
        self._seed = seed
        self._node, self._ends = -1, (first, first)

    def part(self, time_s: float) -> int:
        """Return the number of the part of time that holds a moment."""
        return int(time_s / self._node_s * _PARTS)

    def at(self, part: int) -> NDArray[np.float64]:
        """Read the numbers in a part of time."""
        node, within = divmod(part, _PARTS)
        if within == node == 0:
            return self._first
        if node != self._node:
            self._node, self._ends = node, self._around(node)
        share, kept = within / _PARTS, self._kept(1)
        spread = math.sqrt(1 - 2 * share * (1 - share) * (1 - kept))
        before, after = self._ends
        read: NDArray[np.float64] = ((1 - share) * before + share * after) / spread
        return read

    def _kept(self, nodes: int) -> float:
        """Correlation over so many nodes."""
        return float((1 - self._change**2) ** (nodes / 2))

    def _drawn(self, node: int) -> NDArray[np.float64]:
        source = generator(self._seed, Stream.SPECKLE_DRIFT, node)
        return source.standard_normal(self._first.shape)

    def _around(self, node: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        low, high, kept = 0, _NODES, self._kept(_NODES)
        before = self._first
        after = kept * before + math.sqrt(1 - kept**2) * self._drawn(high)
        while high - low > 1:
            middle = (low + high) // 2
            kept2 = self._kept(middle - low) ** 2
            mean = math.sqrt(kept2) / (1 + kept2) * (before + after)
            between = mean + math.sqrt((1 - kept2) / (1 + kept2)) * self._drawn(middle)
            if node < middle:
                high, after = middle, between
            else:
                low, before = middle, between
        return before, after


@dataclass(frozen=True, eq=False)
class Drifted:
    """How far everything has wandered at one moment.

    Parameters
    ----------
    power
        Factor on the laser's power.
    tilt_px
        Direction of the beam along rows and columns, in camera pixels.
    strength
        Factor on the medium's response.
    element_rad
        Phase of each macropixel, ``(row, column)``; None where it stays.
    sensor_k
        How much warmer the sensor is.
    """

    power: float
    tilt_px: NDArray[np.float64]
    strength: float
    element_rad: NDArray[np.float64] | None
    sensor_k: float


class Drift:
    """All that wanders on one bench.

    Parameters
    ----------
    options
        What is simulated.
    seed
        Of the run.
    """

    def __init__(self, options: Options, seed: int) -> None:
        made = options.drift
        side = options.macropixel_px
        self._blocks = tuple(-(-length // side) for length in options.grid)

        def wander(
            stream: Stream, size: float, tau_s: float, count: int
        ) -> tuple[float, Wander] | None:
            return (size, Wander(seed, stream, tau_s, count)) if size > 0 else None

        self._power = wander(Stream.POWER_DRIFT, made.power, made.power_s, 1)
        self._pointing = wander(
            Stream.POINTING_DRIFT, made.pointing_px, made.pointing_s, 2
        )
        self._medium = wander(Stream.MEDIUM_DRIFT, made.medium, made.medium_s, 1)
        self._element = wander(
            Stream.ELEMENT_DRIFT,
            made.element_rad,
            made.element_s,
            self._blocks[0] * self._blocks[1],
        )
        self._sensor = wander(Stream.SENSOR_DRIFT, made.sensor_k, made.sensor_s, 1)
        parts = (
            self._power,
            self._pointing,
            self._medium,
            self._element,
            self._sensor,
        )
        self._still = not any(parts)
        self._neutral = Drifted(1.0, np.zeros(2), 1.0, None, 0.0)

    def at(self, time_s: float) -> Drifted:
        """Tell how far everything has wandered.

        Parameters
        ----------
        time_s
            Virtual time.

        Returns
        -------
        drifted
            Neutral where nothing drifts.
        """
        if self._still:
            return self._neutral

        def read(part: tuple[float, Wander] | None) -> NDArray[np.float64] | None:
            return None if part is None else part[0] * part[1].at(time_s)

        power, pointing = read(self._power), read(self._pointing)
        medium, element = read(self._medium), read(self._element)
        sensor = read(self._sensor)
        return Drifted(
            power=1.0 if power is None else 1 + float(power[0]),
            tilt_px=np.zeros(2) if pointing is None else pointing,
            strength=1.0 if medium is None else 1 + float(medium[0]),
            element_rad=None if element is None else element.reshape(self._blocks),
            sensor_k=0.0 if sensor is None else float(sensor[0]),
        )
