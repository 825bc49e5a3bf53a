"""Probes that the optimiser makes anyway: a sample that is exposed again.

Between two passes over the training split theta has moved, and the dither is another.
Both exposures are there, so their difference is a probe that costs nothing; it is as
large as the move, and fits along relation (1) bear the curvature over all of it.
"""

from typing import Any, final

import torch
from jaxtyping import Int
from torch import Tensor

from labctl.training.blackbox import Probes, Response
from labctl.training.probe import rows, wrap


@final
class Secants:
    """The last exposure of every training sample, for each pass of a step.

    Parameters
    ----------
    samples
        Of the training split.
    limit_rad
        Largest rms, over the macropixels, of a difference that counts as a probe.
    """

    def __init__(self, samples: int, limit_rad: float) -> None:
        self.samples, self.limit_rad = samples, limit_rad
        self._last: dict[int, Response] = {}

    def pair(
        self, number: int, sample: Int[Tensor, " row"], response: Response
    ) -> Probes:
        """Compare exposures with the last ones of their samples, and remember them.

        Parameters
        ----------
        number
            Which pass of its step it is: samples are compared within one.
        sample
            Training sample of each exposure, no sample twice.
        response
            What was shown and answered.

        Returns
        -------
        probes
            Those of samples that were seen before and moved no farther than the limit,
            but moved; none is possible.
        """
        last = self._last.get(number)
        if last is None:
            last = self._last[number] = self._empty(response)
        sample = sample.to(last.shown.device)
        before = rows(last, sample)
        moved = wrap(response.shown - before.shown)
        size_rad = moved.square().mean(dim=1).sqrt()
        near = (size_rad > 0) & (size_rad <= self.limit_rad)
        known = before.shot.to(near.device) >= 0
        index = torch.nonzero(near & known).flatten()
        last.shown[sample] = response.shown.detach()
        last.y[sample] = response.y.detach()
        last.shot[sample.cpu()] = response.shot
        found, old = rows(response, index), rows(before, index)
        return Probes(
            base=old.shown,
            d_alpha=moved[index],
            d_f=found.y - old.y,
            shot_base=old.shot,
            shot_plus=found.shot,
            plus=found,
        )

    def _empty(self, like: Response) -> Response:
        return Response(
            y=like.y.new_zeros(self.samples, like.y.shape[1]),
            shown=like.shown.new_zeros(self.samples, like.shown.shape[1]),
            shot=like.shot.new_full((self.samples,), -1),
        )

    def forget(self) -> None:
        """Forget every exposure: the device has become another one."""
        self._last = {}

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint must hold."""
        return {
            str(number): {
                "y": last.y.clone(),
                "shown": last.shown.clone(),
                "shot": last.shot.clone(),
            }
            for number, last in self._last.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state.

        Parameters
        ----------
        state
            What :meth:`state_dict` returned.
        """
        self._last = {
            int(number): Response(
                held["y"].clone(), held["shown"].clone(), held["shot"].clone()
            )
            for number, held in state.items()
        }
