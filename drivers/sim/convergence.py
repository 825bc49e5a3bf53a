"""How far a simulated light path is from converged, on patterns of one's own."""

from dataclasses import replace

import torch
from torch import Tensor

from drivers.sim.light import Illumination, LightPath, medium_plan, one_thread
from drivers.sim.options import Options
from labctl.devices import Convergence
from labctl.optics.convergence import (
    GATE_PASSES,
    NYQUIST_PASSES,
    critical_ratio,
    nyquist_share,
    step_gate,
)
from labctl.optics.lens import intensity

_MOST_STEPS = 512
_FINER = (2, 4, 8)
_MOST_POINTS = 1024**2


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
        ``(pattern, row, column)``, gray levels.
    power
        Power over nominal power.

    Returns
    -------
    convergence
        Both figures, with a remedy where they fail.
    """
    shown = levels.to(light.real)
    lit = Illumination(shown.new_full((len(shown),), power))
    with torch.no_grad(), one_thread():
        field = light.entrance(shown, lit)
        gates = _Gates(options, light, field)
        gate = gates.at(options.medium.steps)
        # The proxy is defined for phases from 0 to pi.
        share = nyquist_share(light.entrance(shown / 2, lit))
        made = options.medium
        return Convergence(
            steps=made.steps,
            step_gate=gate,
            nyquist_share=share,
            nyquist_share_full_range=nyquist_share(field),
            power_over_critical=critical_ratio(
                intensity(field).mean(dim=0),
                made.b,
                made.fresnel * options.macropixel_px**2,
            ),
            enough_steps=gates.enough() if gate > GATE_PASSES else made.steps,
            enough_grid=(
                options.grid
                if share <= NYQUIST_PASSES
                else _enough_grid(options, levels)
            ),
        )


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


def _enough_grid(options: Options, levels: Tensor) -> tuple[int, int] | None:
    for factor in _FINER:
        rows, columns = (side * factor for side in options.grid)
        if rows * columns > _MOST_POINTS:
            return None
        # The entrance is all that the proxy looks at: any medium will do.
        finer = replace(
            options,
            grid=(rows, columns),
            macropixel_px=options.macropixel_px * factor,
            medium=replace(
                options.medium, kind="free", guide=0, kappa=0, mismatch=0, conversion=0
            ),
        )
        light = LightPath(finer)
        blown = levels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        shown = blown.to(light.real) / 2
        lit = Illumination(shown.new_ones(len(shown)))
        if nyquist_share(light.entrance(shown, lit)) <= NYQUIST_PASSES:
            return (rows, columns)
    return None
