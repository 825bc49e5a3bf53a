"""The true gradient of the simulated bench, for reference lines only."""

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from drivers.sim.camera import SimCamera
from drivers.sim.light import Illumination, one_thread
from drivers.sim.slm import SimSLM
from drivers.sim.world import World
from labctl.devices import SLM, Camera, CameraSettings, Levels, Oracle
from labctl.errors import OutOfRangeError

_NAME = "oracle"


@final
class SimOracle(Oracle):
    """Autograd through the settled light path and the sensor, without noise.

    Pointing, flicker, drift and the noise of the power are left out; pixels beyond
    full well have no slope.

    Parameters
    ----------
    world
        The light path.
    slm, camera
        Its devices.

    Raises
    ------
    TypeError
        A device is not simulated, or of another light path.
    """

    def __init__(self, *, world: World, slm: SLM, camera: Camera) -> None:
        if not isinstance(slm, SimSLM) or not isinstance(camera, SimCamera):
            text = "oracle: expected the simulated slm and camera (sim.slm, sim.camera)"
            raise TypeError(text)
        if slm.world is not world or camera.world is not world:
            text = "oracle: slm and camera are in another world than the oracle"
            raise TypeError(text)
        self._world, self._slm, self._camera = world, slm, camera

    @override
    def gradient(
        self, levels: Levels, cotangent: NDArray[np.float64], *, power_mw: float
    ) -> NDArray[np.float64]:
        self._slm.check(levels, stacked=True)
        settings = self._camera.taken
        expected = (len(levels), *settings.region[2:])
        if cotangent.shape != expected:
            raise OutOfRangeError(
                _NAME,
                "cotangent shape",
                cotangent.shape,
                low=expected,
                high=expected,
            )
        if not power_mw >= 0:
            raise OutOfRangeError(_NAME, "power_mw", power_mw, low=0, high="any")
        light = self._world.light
        chunk = light.chunk
        shown = torch.from_numpy(levels.astype(np.float64)).to(light.device, light.real)
        pulled = torch.from_numpy(cotangent).to(light.device, light.real)
        with one_thread():
            parts = [
                self._pull(
                    shown[at : at + chunk], pulled[at : at + chunk], settings, power_mw
                )
                for at in range(0, len(levels), chunk)
            ]
        return np.concatenate(parts) if parts else np.zeros(levels.shape)

    def _pull(
        self,
        levels: Tensor,
        cotangent: Tensor,
        settings: CameraSettings,
        power_mw: float,
    ) -> NDArray[np.float64]:
        with torch.enable_grad():
            levels = levels.clone().requires_grad_()
            counts = self.mean_counts(levels, settings, power_mw)
            (gradient,) = torch.autograd.grad(counts, levels, cotangent)
        return gradient.double().cpu().numpy()

    def mean_counts(
        self, levels: Tensor, settings: CameraSettings, power_mw: float
    ) -> Tensor:
        """Frames without noise, of a settled panel.

        Parameters
        ----------
        levels
            ``(pattern, row, column)``, fractions included; at most one chunk.
        settings
            Of the camera.
        power_mw
            Optical power.

        Returns
        -------
        counts
            ``(pattern, row, column)`` of the region; differentiable.
        """
        world = self._world
        power = levels.new_full((len(levels),), power_mw / world.options.nominal_mw)
        fraction = world.light.fraction(
            world.panel_grid.sample_all(levels), Illumination(power)
        )
        seen = world.sensor_grid.crop(fraction, world.sensor.pixels(settings.region))
        return world.sensor.mean_counts(seen, settings)
