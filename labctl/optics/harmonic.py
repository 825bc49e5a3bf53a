"""Second-harmonic generation on the split-step core: two waves that exchange power."""

import cmath
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from labctl.optics.medium import SecondHarmonic, edge_profile
from labctl.optics.propagation import (
    chunk_size,
    node_weights,
    screens_by_node,
    step_transfer,
)

Pair = tuple[Tensor, Tensor]


def exchange(pair: Pair, kappa: float | Tensor, mismatch: float = 0.0) -> Pair:
    """Let both waves exchange power at every point, one Runge-Kutta step.

    Parameters
    ----------
    pair
        Fundamental and harmonic, ``(field, row, column)`` each.
    kappa
        Conversion of this step alone; at each point its own where the crystal has
        domains.
    mismatch
        Phase in rad that the harmonic lags in this step. It is solved together
        with the conversion: in the linear half of the scheme it would cost
        twice the splitting error.

    Returns
    -------
    pair
        Behind the step, to the fourth order.
    """

    def slope(at: Pair, share: float) -> Pair:
        up = cmath.exp(1j * share * mismatch)
        return (
            at[0].conj() * at[1] * (kappa * (1j * up.conjugate())),
            at[0] * at[0] * (kappa * (1j * up)),
        )

    def moved(by: Pair, share: float) -> Pair:
        return pair[0] + share * by[0], pair[1] + share * by[1]

    first = slope(pair, 0.0)
    second = slope(moved(first, 0.5), 0.5)
    third = slope(moved(second, 0.5), 0.5)
    fourth = slope(moved(third, 1.0), 1.0)
    fundamental, harmonic = (
        before + (k1 + 2 * (k2 + k3) + k4) / 6
        for before, k1, k2, k3, k4 in zip(
            pair, first, second, third, fourth, strict=True
        )
    )
    if mismatch != 0:
        harmonic = harmonic * cmath.exp(-1j * mismatch)
    return fundamental, harmonic


@dataclass(frozen=True, eq=False)
class Exchange:
    """What happens to both waves at one place.

    Parameters
    ----------
    kappa, mismatch
        Of this kick alone.
    masks
        Factors of fundamental and harmonic before and once more behind the
        conversion: half of the absorption and of the screen each; None for 1.
    """

    kappa: float | Tensor
    mismatch: float = 0.0
    masks: Pair | None = None

    def __call__(self, pair: Pair) -> Pair:
        """Apply the kick."""
        if self.masks is None:
            return exchange(pair, self.kappa, self.mismatch)
        first, second = self.masks
        # On either side: a whole mask on one would make the scheme first order.
        pair = (pair[0] * first, pair[1] * second)
        pair = exchange(pair, self.kappa, self.mismatch)
        return pair[0] * first, pair[1] * second


@dataclass(frozen=True, eq=False)
class PairPlan:
    """A chi(2) medium made ready for a grid.

    Parameters
    ----------
    transfers
        Diffraction of fundamental and harmonic over one step, divided by the
        number of grid points.
    kicks
        One more than steps.
    harmonic
        Which wave leaves: 1 or 2.
    chunk
        Fields computed together.
    """

    transfers: Pair
    kicks: tuple[Exchange, ...]
    harmonic: int
    chunk: int

    def pair(self, field: Complex[Tensor, "field row column"]) -> Pair:
        """Carry one chunk of fundamental fields through, and keep both waves."""
        first, *rest = self.kicks
        pair = first((field, torch.zeros_like(field)))
        for kick in rest:
            pair = kick((self._step(pair, 0), self._step(pair, 1)))
        return pair

    def _step(self, pair: Pair, wave: int) -> Tensor:
        spectrum = torch.fft.fft2(pair[wave]) * self.transfers[wave]
        stepped: Tensor = torch.fft.ifft2(spectrum, norm="forward")
        return stepped

    def through(
        self, field: Complex[Tensor, "field row column"]
    ) -> Complex[Tensor, "field row column"]:
        """Carry one chunk of fields from the entrance to the exit face."""
        return self.pair(field)[self.harmonic - 1]


def plan(
    medium: SecondHarmonic,
    shape: tuple[int, int],
    macropixel: float,
    *,
    screens: Mapping[float, Float[Tensor, "row column"]] | None = None,
    domains: Float[Tensor, "layer row column"] | None = None,
    dtype: torch.dtype = torch.complex64,
) -> PairPlan:
    """Make a medium ready for a grid.

    Parameters
    ----------
    medium
        The medium.
    shape
        Grid ``(height, width)``.
    macropixel
        Side of a macropixel in grid points: the length that ``fresnel`` is of.
    screens
        Thin phase screens for the fundamental, in rad, by their place in the
        medium as a fraction of its length.
    domains
        Factor on the conversion, 1 or -1, in layers of equal thickness: random
        quasi-phase matching [1]_. None for a crystal of one domain.
    dtype
        Precision: complex64, or complex128 to check it.

    Returns
    -------
    plan
        For :func:`labctl.optics.propagation.propagate`.

    References
    ----------
    .. [1] M. Baudrier-Raybaut et al., "Random quasi-phase-matching in bulk
       polycrystalline isotropic nonlinear materials", Nature 432 (2004), 374.
    """
    steps = medium.steps
    at_node = screens_by_node(screens or {}, steps, shape)
    exponent = medium.edge * edge_profile(shape) + medium.loss / 2
    masked = bool((exponent > 0).any())
    kicks = []
    signs = _signs(domains, steps, dtype)
    for node, weight in enumerate(node_weights(steps)):
        masks = None
        if node in at_node or masked:
            screen = at_node.get(node, torch.zeros_like(exponent)) / 2
            left = torch.exp(-exponent * weight / 2)
            masks = (
                torch.polar(left, screen).to(dtype),
                torch.polar(left, 2 * screen).to(dtype),
            )
        kappa = medium.kappa * weight * signs[node]
        kick = Exchange(kappa, medium.mismatch * weight, masks)
        kicks.append(kick)
    distance = medium.fresnel * macropixel**2 / steps
    transfers = (
        step_transfer(shape, distance, dtype),
        step_transfer(shape, distance / 2, dtype),
    )
    return PairPlan(transfers, tuple(kicks), medium.harmonic, chunk_size(shape))


def _signs(
    domains: Float[Tensor, "layer row column"] | None, steps: int, dtype: torch.dtype
) -> list[float] | list[Tensor]:
    """Mean of the domains over the part of the medium that each kick stands for."""
    if domains is None:
        return [1.0] * (steps + 1)
    layers = len(domains)
    real = torch.float64 if dtype == torch.complex128 else torch.float32
    means = []
    for node in range(steps + 1):
        low, high = max(0.0, node - 0.5) / steps, min(steps, node + 0.5) / steps
        shares = [
            max(0.0, min(high, (k + 1) / layers) - max(low, k / layers))
            for k in range(layers)
        ]
        weights = domains.new_tensor(shares) / (high - low)
        means.append(torch.tensordot(weights, domains, dims=1).to(real))
    return means
