"""An explicit Jacobian, one for all operating points, by recursive ridge."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from labctl.training.surrogate.model import Surrogate
from labctl.training.surrogate.settings import FitTerm, Ports


class Jacobian(Surrogate):
    """The matrix ``[output, pixel]`` that explains the probes so far.

    It minimises ``sum_k forgetting^age_k |d_f_k - J d_alpha_k|^2`` plus ``ridge *
    pixels * h^2 |J|^2``, h^2 being the mean square of a probe's pixel: the ridge
    counts as ``ridge`` times as many isotropic probes as there are pixels, all of
    them answering zero. It is in closed form; there are no gradient steps.

    Parameters
    ----------
    ports
        Sizes of the device.
    ridge
        Weight of the ridge, above 0: plain least squares collapses where there are
        about as many noisy probes as pixels.
    forgetting
        Weight of a probe when the next one comes, above 0, to 1.

    Raises
    ------
    ValueError
        A parameter is out of range.

    Notes
    -----
    The sums are kept and solved when an answer is asked for, at a cost of
    pixels^3 / 3 operations after each update.
    """

    default_losses: ClassVar[tuple[FitTerm, ...]] = (FitTerm("mse"),)
    power: Float[Tensor, "pixel pixel"]
    cross: Float[Tensor, "pixel output"]
    weight: Float[Tensor, ""]

    def __init__(self, ports: Ports, *, ridge: float, forgetting: float) -> None:
        super().__init__(ports)
        if ridge <= 0 or not 0 < forgetting <= 1:
            text = (
                f"jacobian: ridge={ridge}, forgetting={forgetting}, expected ridge "
                "above 0 and forgetting above 0, to 1. Correct the surrogate."
            )
            raise ValueError(text)
        self.ridge, self.forgetting = ridge, forgetting
        self.register_buffer("power", torch.zeros(ports.pixels, ports.pixels))
        self.register_buffer("cross", torch.zeros(ports.pixels, ports.outputs))
        self.register_buffer("weight", torch.zeros(()))
        self._solved: Tensor | None = None

    @torch.no_grad()
    def update(
        self,
        d_alpha: Float[Tensor, "probe pixel"],
        d_f: Float[Tensor, "probe output"],
    ) -> None:
        """Take probes in, the oldest first.

        Parameters
        ----------
        d_alpha
            Perturbations, in rad.
        d_f
            Responses, in the units of the device.
        """
        d_alpha, d_f = d_alpha.to(self.device), d_f.to(self.device)
        age = torch.arange(len(d_alpha) - 1, -1, -1).to(self.power)
        factor = self.forgetting**age
        decay = self.forgetting ** len(d_alpha)
        faded = (d_alpha * factor[:, None]).T
        self.power.mul_(decay).add_(faded @ d_alpha)
        self.cross.mul_(decay).add_(faded @ d_f)
        self.weight.mul_(decay).add_(factor.sum())
        self._solved = None

    @override
    def absorb(
        self,
        d_alpha: Float[Tensor, "probe pixel"],
        d_f: Float[Tensor, "probe output"],
    ) -> None:
        self.update(d_alpha, d_f)

    @override
    @torch.no_grad()
    def forget(self) -> None:
        for total in (self.power, self.cross, self.weight):
            total.zero_()
        self._solved = None

    @property
    @torch.no_grad()
    def matrix(self) -> Float[Tensor, "output pixel"]:
        """Change of each output, in the units of the device, per rad on each pixel."""
        if self._solved is None or self._solved.dtype != self.power.dtype:
            self._solved = self._solve()
        return self._solved

    def _solve(self) -> Float[Tensor, "output pixel"]:
        # trace / weight = pixels * h^2. Before any probe, or after probes of zero,
        # nothing is known and the matrix is zero.
        trace = self.power.trace()
        if trace == 0:
            return torch.zeros_like(self.cross.T)
        loaded = self.power.clone()
        loaded.diagonal().add_(self.ridge * trace / self.weight)
        factor: Tensor = torch.linalg.cholesky(loaded)
        return torch.cholesky_solve(self.cross, factor).T

    @override
    def unit_vjp(
        self,
        cotangent: Float[Tensor, "batch output"],
        phase: Float[Tensor, "batch pixel"],
    ) -> Float[Tensor, "batch pixel"]:
        del phase  # One matrix serves every operating point.
        return (cotangent / self.y_scale) @ self.matrix

    @override
    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._solved = None
