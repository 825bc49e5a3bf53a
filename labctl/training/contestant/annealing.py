"""Random variations of the best theta so far, kept where they do better."""

from typing import final

import torch
from typing_extensions import override

from labctl.training.contestant.search import Candidates, Losses, Search, Theta


@final
class Annealing(Search):
    """Evolutive selection: vary the theta that stands, keep the best of a batch.

    The first candidate is the theta that stands, measured again, because losses of
    different batches cannot be compared. The variations shrink from ``radius_rad``
    to ``step_rad`` over the course, geometrically: the annealing. Nothing that did
    worse on its batch is ever kept.

    Parameters
    ----------
    effort
        How it moves.
    generator
        Where the variations come from.
    """

    @override
    def ask(self, theta: Theta) -> Candidates:
        reach = self.reach_rad
        varied = theta + reach * self.normal(self.effort.candidates - 1, theta)
        return torch.cat((theta[None], varied))

    @property
    def reach_rad(self) -> float:
        """Rms of the variations at this step."""
        effort = self.effort
        share = min(self.done / max(effort.steps - 1, 1), 1.0)
        return float(effort.radius_rad * (effort.step_rad / effort.radius_rad) ** share)

    @override
    def tell(self, theta: Theta, candidates: Candidates, losses: Losses) -> Theta:
        return candidates[int(losses.argmin())].clone()
