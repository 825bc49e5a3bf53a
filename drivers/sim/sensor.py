"""The camera's sensor: light in, counts out, with its noise.

The order is that of the EMVA 1288 reference simulator: dark and light electrons,
read noise, full well, gain, offset, rounding, converter. Rounding is the
quantiser; no dither is added to it, which would count its noise twice. Where pixels
are binned their charge is added between full well and read noise.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from drivers.sim.noise import Reseated, Stream, generator
from drivers.sim.options import Options
from labctl.devices import CameraSettings

BIT_DEPTH = 16
_TOP_DN = 2**BIT_DEPTH - 1
# Above this mean a normal distribution is close enough to Poisson's, and cheap.
_BRIGHT_E = 20.0
# Temperature at which the options give the dark current, in degrees Celsius.
_REFERENCE_C = 30.0


class Sensor:
    """The sensor of one specimen.

    Parameters
    ----------
    options
        What is simulated.
    seed
        Of the noise.
    """

    def __init__(self, options: Options, seed: int) -> None:
        self._made, self._noise = options.sensor, Reseated(seed, Stream.SENSOR)
        self._read = Reseated(seed, Stream.READ)
        self._binning, shape = options.sensor.binning, options.pixels
        device = options.device_seed
        spread = generator(device, Stream.SENSITIVITY).standard_normal(shape)
        # Of millions of pixels some would otherwise give light back.
        self._sensitivity = np.maximum(1 + options.sensor.prnu * spread, 0.0)
        level = generator(device, Stream.DARK_LEVEL).standard_normal(shape)
        self._dark_level_e = options.sensor.dsnu_e * level
        chance = generator(device, Stream.HOT).random(shape)
        at_reference = np.where(
            chance < options.sensor.hot_pixels,
            options.sensor.hot_e_per_s,
            options.sensor.dark_e_per_s,
        )
        warmer_k = options.sensor.temperature_c - _REFERENCE_C
        self._dark_e_per_s = at_reference * self._warmed(warmer_k)

    def saturation_dn(self, gain_db: float) -> int:
        """Return the counts at which full well or converter clip, whichever is first.

        Parameters
        ----------
        gain_db
            Gain.

        Returns
        -------
        saturation
            In counts.
        """
        well_e = self._made.well_e * self._binning**2
        well = well_e * self._gain(gain_db) + self._made.offset_dn
        return int(min(well, _TOP_DN))

    def _gain(self, gain_db: float) -> float:
        return float(self._made.gain_dn_per_e * 10 ** (gain_db / 20))

    def _warmed(self, warmer_k: float) -> float:
        return float(2 ** (warmer_k / self._made.doubling_k))

    @property
    def dark_e_per_s(self) -> float:
        """Dark current of a pixel of the frame that is not hot."""
        warmer_k = self._made.temperature_c - _REFERENCE_C
        return self._made.dark_e_per_s * self._warmed(warmer_k) * self._binning**2

    def pixels(self, region: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """Return the pixels that make a region of a frame.

        Parameters
        ----------
        region
            Row, column, height and width in the frame.

        Returns
        -------
        pixels
            The same before binning.
        """
        row, column, height, width = (side * self._binning for side in region)
        return row, column, height, width

    def _crop(
        self, full: NDArray[np.float64], settings: CameraSettings
    ) -> NDArray[np.float64]:
        row, column, height, width = self.pixels(settings.region)
        return full[row : row + height, column : column + width]

    def _dark_current_e(self, settings: CameraSettings) -> NDArray[np.float64]:
        return self._crop(self._dark_e_per_s, settings) * settings.exposure_s

    def electrons_per_fraction(self, settings: CameraSettings) -> NDArray[np.float64]:
        """Electrons of each pixel in the region for all the light at nominal power.

        Parameters
        ----------
        settings
            Exposure and region.

        Returns
        -------
        electrons
            ``(row, column)``, before binning.
        """
        light = (
            self._made.photons_per_s
            * self._made.quantum_efficiency
            * settings.exposure_s
        )
        return light * self._crop(self._sensitivity, settings)

    def mean_counts(self, seen: Tensor, settings: CameraSettings) -> Tensor:
        """Return counts without noise and without rounding; differentiable.

        Parameters
        ----------
        seen
            Light on the pixels of the region, ``(field, row, column)``, before
            binning.
        settings
            Exposure, gain and region.

        Returns
        -------
        counts
            Of the region, ``(field, row, column)``.
        """
        factor = torch.from_numpy(self.electrons_per_fraction(settings)).to(seen)
        level = self._crop(self._dark_level_e, settings)
        dark = torch.from_numpy(level).to(seen)
        current = self._dark_current_e(settings)
        electrons = seen * factor + dark + torch.from_numpy(current).to(seen)
        charge = electrons.clamp(max=self._made.well_e)
        if self._binning > 1:
            # The mean of a square times its size: the same sum, with a gradient.
            charge = avg_pool2d(charge, self._binning) * self._binning**2
        counts = charge * self._gain(settings.gain_db)
        return (counts + self._made.offset_dn).clamp(min=0, max=_TOP_DN)

    def counts(
        self,
        light_e: NDArray[np.float64],
        settings: CameraSettings,
        shots: Sequence[int],
        warmer_k: NDArray[np.float64] | None = None,
    ) -> NDArray[np.uint16]:
        """Make frames.

        Parameters
        ----------
        light_e
            Mean electrons that the light makes in the pixels of the region,
            ``(shot, row, column)``, before binning.
        settings
            Exposure, gain and region.
        shots
            Numbers of the exposures: they name the noise.
        warmer_k
            How much warmer than usual the sensor is, ``(shot,)``; None for not.

        Returns
        -------
        counts
            ``(shot, row, column)``, uint16.
        """
        made = self._made
        current = self._dark_current_e(settings)
        if warmer_k is not None and warmer_k.any():
            factor = 2 ** (warmer_k / made.doubling_k)
            current = factor[:, None, None] * current
        electrons = light_e + current
        binned = self._binning > 1
        self._disturb(electrons, shots, 0.0 if binned else made.read_noise_e)
        electrons += self._crop(self._dark_level_e, settings)
        np.minimum(electrons, made.well_e, out=electrons)
        if binned:
            electrons = self._binned(electrons, shots)
        electrons *= self._gain(settings.gain_db)
        electrons += made.offset_dn
        np.rint(electrons, out=electrons)
        return np.clip(electrons, 0, _TOP_DN, out=electrons).astype(np.uint16)

    def _disturb(
        self, electrons: NDArray[np.float64], shots: Sequence[int], read_e: float
    ) -> None:
        """Add shot noise, and read noise of a size, to mean electrons, in place."""
        shot_noise = self._made.shot_noise
        if not shot_noise and read_e == 0:
            return
        normal = np.empty(electrons.shape, dtype=np.float32)
        uniform = np.empty(electrons.shape)
        for number, shot in enumerate(shots):
            source = self._noise.at(shot)
            source.standard_normal(dtype=np.float32, out=normal[number])
            if shot_noise:
                source.random(out=uniform[number])
        if shot_noise:
            _add_noise(electrons, read_e, normal, uniform)
        else:
            electrons += read_e * normal

    def _binned(
        self, charge: NDArray[np.float64], shots: Sequence[int]
    ) -> NDArray[np.float64]:
        """Add the charge of squares of pixels, and the noise of reading each sum."""
        side = self._binning
        # Pixel by pixel: sums over axes may add in another order for another batch.
        rows = charge[:, ::side].copy()
        for at in range(1, side):
            rows += charge[:, at::side]
        summed = rows[..., ::side].copy()
        for at in range(1, side):
            summed += rows[..., at::side]
        if self._made.read_noise_e > 0:
            for number, shot in enumerate(shots):
                normal = self._read.at(shot).standard_normal(summed.shape[1:])
                summed[number] += self._made.read_noise_e * normal
        return summed


def _add_noise(
    electrons: NDArray[np.float64],
    read_e: float,
    normal: NDArray[np.float32],
    uniform: NDArray[np.float64],
) -> None:
    """Add shot and read noise to mean electrons, in place.

    One normal number a pixel serves both where light is bright: independent normal
    numbers add to one, their variances too. Where it is dim the uniform number
    becomes Poisson's, and the normal one is the read noise's alone. Both are drawn
    for all pixels, so that no number depends on how many are bright.
    """
    # Places, not a mask: numpy gathers ten times as fast by them.
    dim = np.flatnonzero(electrons < _BRIGHT_E)
    few = poisson(electrons.take(dim), uniform.take(dim)) + read_e * normal.take(dim)
    if len(dim) < electrons.size:
        electrons += np.sqrt(electrons + read_e**2) * normal
    electrons.put(dim, few)


def poisson(mean: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[Any]:
    """Turn uniform numbers into those of Poisson's distribution, by inversion.

    Parameters
    ----------
    mean
        Means, at most some tens: it takes as many steps.
    uniform
        Numbers in [0, 1), of the same shape ``(n,)``.

    Returns
    -------
    count
        The least ``k`` for which the probability of ``k`` or fewer exceeds the
        uniform number, ``(n,)``.
    """
    count = np.zeros(len(mean))
    place = np.arange(len(mean))
    chance = np.exp(-mean)
    reached = chance.copy()
    greatest = mean.max(initial=0.0)
    # Beyond the last step every chance is below the spacing of numbers near one.
    for step in range(1, math.ceil(greatest + 10 * math.sqrt(greatest) + 20)):
        (more,) = np.nonzero(uniform >= reached)
        if not len(more):
            break
        place, mean, uniform = place.take(more), mean.take(more), uniform.take(more)
        chance = chance.take(more) * mean / step
        reached = reached.take(more) + chance
        count[place] = step
    return count
