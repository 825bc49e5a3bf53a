"""What a photorefractive medium keeps of the light that it was exposed to.

Every exposure changes what the next one meets, so exposures are computed in their
order and one by one, whether anybody fetches their frames or not.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from drivers.sim.options import Options
from labctl.optics.memory import relaxed
from labctl.optics.propagation import node_weights

# Exposures that wait to be computed; more would only fill the computer's memory.
_WAITING = 64


class Exposure(Protocol):
    """What the medium must know of a shot, and the light that it leaves there.

    ``dwell_s`` is how long it was exposed to the shot's light.
    """

    number: int
    end_s: float
    dwell_s: float
    light: Tensor | None


T = TypeVar("T", bound=Exposure)


class Memory(Generic[T]):
    """The index that light has written.

    Parameters
    ----------
    options
        What is simulated.
    dtype
        Precision of real numbers.
    through
        Carries a shot through the medium, given the phase that is written at each
        kick: light on the sensor's grid, and the response that was exposed.
    """

    def __init__(
        self,
        options: Options,
        dtype: torch.dtype,
        through: Callable[[T, Tensor], tuple[Tensor, Tensor]],
    ) -> None:
        made = options.medium
        weights = torch.tensor(node_weights(made.steps), dtype=dtype)
        self._rad = made.memory_rad * weights[:, None, None]
        self._tau_s, self._through = made.memory_s, through
        self._written = torch.zeros((len(weights), *options.grid), dtype=dtype)
        self._waiting: list[T] = []

    def add(self, shot: T) -> None:
        """Take note of an exposure that begins, after all others."""
        if len(self._waiting) >= _WAITING:
            self.expose(shot.number - 1)
        self._waiting.append(shot)

    def expose(self, last: int) -> None:
        """Compute the exposures that wait, up to one.

        Parameters
        ----------
        last
            Its number.
        """
        while self._waiting and self._waiting[0].number <= last:
            self._expose(self._waiting.pop(0))

    def expose_ended(self, now_s: float) -> None:
        """Compute the exposures that have ended."""
        while self._waiting and self._waiting[0].end_s <= now_s:
            self._expose(self._waiting.pop(0))

    def _expose(self, shot: T) -> None:
        shot.light, exposed = self._through(shot, self._written * self._rad)
        times = shot.dwell_s / self._tau_s
        self._written = relaxed(self._written, exposed, times)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"written": self._written.numpy().copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a state.

        Raises
        ------
        ValueError
            It is of another medium.
        """
        written = np.array(state["written"])
        if written.shape != tuple(self._written.shape):
            text = (
                f"written of shape {written.shape}, expected "
                f"{tuple(self._written.shape)}. Resume on the bench that the state "
                "was saved on."
            )
            raise ValueError(text)
        self._written = torch.from_numpy(written).to(self._written.dtype)
        self._waiting.clear()
