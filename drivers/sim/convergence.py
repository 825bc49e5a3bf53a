"""How far a simulated light path is from converged, on patterns of one's own."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from drivers.sim.geometry import PanelGrid
from drivers.sim.light import Illumination, LightPath, medium_plan, one_thread
from drivers.sim.options import DriftOptions, MediumOptions, Options, fewest_steps
from labctl.devices import Convergence
from labctl.optics.convergence import (
    GATE_PASSES,
    GATE_WARNS,
    NYQUIST_PASSES,
    critical_ratio,
    nyquist_share,
    step_gate,
)
from labctl.optics.lens import intensity
from labctl.optics.propagation import propagate

_MOST_STEPS = 512
_FINER = (2, 4, 8)
# Of the panel alone, and with the medium behind it.
_MOST_POINTS, _MOST_CROSSED = 1024**2, 256**2
_FREE = MediumOptions(kind="free", fresnel=0.0, steps=1, screens=0).effective()


def measure(
    options: Options, light: LightPath, levels: Tensor, power: float
) -> Convergence:
    """Measure steps and grid on patterns, and find what would do where they fail.

    Parameters
    ----------
    options
        What is simulated.
    light
        The light path made of it.
    levels
        ``(pattern, row, column)``, gray levels of the panel.
    power
        Power over nominal power.

    Returns
    -------
    convergence
        Both figures, with a remedy where they fail.
    """
    shown = _seen(options, levels).to(light.real)
    lit = Illumination(shown.new_full((len(shown),), power))
    with torch.no_grad(), one_thread():
        field = light.entrance(shown, lit)
        gates = _Gates(options, light, field)
        gate = gates.at(options.medium.steps)
        shares = _Shares.of(options, light, levels, power)
        made = options.medium
        return Convergence(
            steps=made.steps,
            step_gate=gate,
            nyquist_share=shares.entrance,
            nyquist_share_full_range=nyquist_share(field),
            exit_share=shares.exit,
            power_over_critical=critical_ratio(
                intensity(field).mean(dim=0),
                made.b,
                made.fresnel * options.macropixel_px**2,
            ),
            enough_steps=gates.enough() if gate > GATE_PASSES else made.steps,
            enough_grid=(
                options.grid
                if max(shares.entrance, shares.exit) <= NYQUIST_PASSES
                else _enough_grid(options, levels, power, gate)
            ),
        )


def _seen(options: Options, levels: Tensor) -> Tensor:
    rows, columns = levels.shape[-2:]
    return PanelGrid((rows, columns), options.grid).sample_all(levels)


class _Gates:
    """The step gate at any number of steps, on the same fields."""

    def __init__(self, options: Options, light: LightPath, field: Tensor) -> None:
        self._options, self._light, self._field = options, light, field
        self._seen: dict[int, Tensor] = {}

    def at(self, steps: int) -> float:
        return step_gate(self._picture(steps), self._picture(2 * steps))

    def _picture(self, steps: int) -> Tensor:
        if steps not in self._seen:
            ready = medium_plan(self._options, steps, self._light.dtype)
            self._seen[steps] = self._light.on_sensor(self._field, ready)
        return self._seen[steps]

    def enough(self) -> int | None:
        steps = 2 * self._options.medium.steps
        while steps <= _MOST_STEPS:
            if self.at(steps) <= GATE_PASSES:
                return steps
            steps *= 2
        return None


@dataclass(frozen=True)
class _Shares:
    """What a grid hardly resolves of the light at both faces."""

    entrance: float
    exit: float

    @classmethod
    def of(
        cls, options: Options, light: LightPath, levels: Tensor, power: float
    ) -> Self:
        # Both are defined for phases from 0 to pi.
        shown = _seen(options, levels).to(light.real) / 2
        field = light.entrance(
            shown, Illumination(shown.new_full((len(shown),), power))
        )
        entrance = nyquist_share(field)
        # A scatterer leaves light at every grid point: there is no finer grid of it.
        if options.medium.kind == "tm_shg":
            return cls(entrance, 0.0)
        return cls(entrance, nyquist_share(propagate(field, light.plan)))


def _enough_grid(
    options: Options, levels: Tensor, power: float, gate: float
) -> tuple[int, int] | None:
    for factor in _FINER:
        rows, columns = (side * factor for side in options.grid)
        if rows * columns > _MOST_POINTS:
            return None
        side = options.macropixel_px * factor
        # A grid that does not even resolve the panel needs no medium behind it.
        free = replace(
            options,
            grid=(rows, columns),
            macropixel_px=side,
            kernel="torch",
            medium=_FREE,
            drift=DriftOptions(),
        )
        if _Shares.of(free, LightPath(free), levels, power).entrance > NYQUIST_PASSES:
            continue
        # Of light that is not converged in steps the exit face tells nothing.
        if options.medium.kind == "tm_shg" or gate > GATE_WARNS:
            return (rows, columns)
        if rows * columns > _MOST_CROSSED:
            return None
        # A finer grid knows steeper light, which may want shorter steps.
        medium = options.medium
        if medium.steps < max(fewest_steps(medium, (rows, columns), side).values()):
            medium = replace(medium, steps=medium.steps * factor)
        finer = replace(free, medium=medium)
        one = _Shares.of(finer, LightPath(finer), levels[:1], power)
        if one.exit <= NYQUIST_PASSES:
            return (rows, columns)
    return None
