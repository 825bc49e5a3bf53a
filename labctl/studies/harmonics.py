"""A response over one turn of a phase, taken apart into harmonics; noise is known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLEAR = 9.0
"""A harmonic is kept whose power is so many times what noise alone would leave."""


@dataclass(frozen=True, eq=False)
class Harmonics:
    """What repeated measurements over equal steps of a turn have in common.

    Parameters
    ----------
    mean
        Mean response, ``(output,)``.
    waves
        Amplitude and phase of each harmonic from the first, complex, ``(harmonic,
        output)``: the response is the mean plus the real part of their sum.
    noise
        Power that noise alone would leave in each of them, ``(harmonic, output)``.
    """

    mean: NDArray[np.float64]
    waves: NDArray[np.complex128]
    noise: NDArray[np.float64]

    @property
    def power(self) -> NDArray[np.float64]:
        """Power of each harmonic over all outputs, without bias by noise."""
        return np.asarray((np.abs(self.waves) ** 2 - self.noise).sum(axis=1))

    @property
    def defect(self) -> float:
        """Share of the power that lies beyond the first harmonic."""
        power = self.power
        return float(power[1:].sum() / power.sum())

    @property
    def floor(self) -> float:
        """Share of the power that noise left in it, and that was taken out."""
        return float(self.noise[1:].sum() / self.power.sum())

    def curves(
        self, phase_rad: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw the response from the harmonics that stand out of the noise.

        Parameters
        ----------
        phase_rad
            Where, ``(point,)``.

        Returns
        -------
        value, slope
            Each in units of its output's own spread over the turn, the value around
            0; ``(output, point)``. An output that does not respond is 0.
        """
        clear = np.abs(self.waves) ** 2 > CLEAR * self.noise
        kept = np.where(clear, self.waves, 0)
        spread = np.sqrt((np.abs(kept) ** 2).sum(axis=0) / 2)
        kept = kept / np.where(spread > 0, spread, 1)
        order = np.arange(1, len(kept) + 1)
        turned = np.exp(1j * np.multiply.outer(order, phase_rad))
        value = (kept.T @ turned).real
        slope = (kept.T @ (1j * order[:, None] * turned)).real
        return value, slope


def taken_apart(response: NDArray[np.float64]) -> Harmonics:
    """Find the harmonics of a response.

    Parameters
    ----------
    response
        At equal steps from 0 to a turn, the end left out; the number of steps is
        even. ``(repeat, step, output)``, at least two repeats.

    Returns
    -------
    harmonics
        All but the highest, which is its own mirror image.
    """
    repeats, steps, _ = response.shape
    found = np.fft.rfft(response, axis=1) / steps
    waves = 2 * found[:, 1 : steps // 2]
    spread = waves.real.var(axis=0, ddof=1) + waves.imag.var(axis=0, ddof=1)
    return Harmonics(
        mean=found[:, 0].real.mean(axis=0),
        waves=waves.mean(axis=0),
        # White over the harmonics, as shot noise is: few repeats know it well enough.
        noise=np.broadcast_to(spread.mean(axis=0) / repeats, spread.shape),
    )


def common_power(values: NDArray[np.float64]) -> float:
    """Sum the squares of what repeated measurements share, without bias by noise.

    Parameters
    ----------
    values
        ``(repeat, ...)``, at least two repeats.
    """
    repeats = len(values)
    noise = values.var(axis=0, ddof=1).sum() / repeats
    return float((values.mean(axis=0) ** 2).sum() - noise)
