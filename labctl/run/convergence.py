"""Whether simulated light is converged on the patterns that a run will show.

Random patterns say what the operating point is capable of, whatever training makes
of theta; the run's own say what it starts from. Smooth patterns focus otherwise than
random ones: of each figure the worse one rules.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from labctl.bench import Bench
from labctl.calibration import PhaseCurve, ReservoirEntry
from labctl.devices import Convergence, Levels
from labctl.document import Document
from labctl.errors import CalibrationError, ProtocolError
from labctl.optics.convergence import (
    EXIT_WARNS,
    GATE_PASSES,
    GATE_WARNS,
    NYQUIST_PASSES,
)
from labctl.reservoir import TURN, Blocks, Panel, pixel_scale

PATTERNS = 4
"""Random patterns that are judged, and at most so many of the run's own."""


@dataclass(frozen=True, eq=False)
class Show:
    """What a run shows at an operating point.

    Parameters
    ----------
    entry
        The operating point.
    phase
        Phases that the first device layer shows at the start, ``[pattern,
        macropixel]``, in rad: the first :data:`PATTERNS` are judged. None where
        they are not known.
    """

    entry: ReservoirEntry
    phase: Tensor | None = None


@dataclass(frozen=True)
class Judged:
    """Patterns, and how converged the light is on them.

    Parameters
    ----------
    what
        Names the patterns, such as ``4 random patterns``.
    found
        The figures.
    """

    what: str
    found: Convergence

    def text(self) -> str:
        """Give the figures in one line."""
        return (
            f"step_gate={self.found.step_gate:.2g}, "
            f"nyquist_share={self.found.nyquist_share:.2g}, "
            f"exit_share={self.found.exit_share:.2g}, "
            f"power_over_critical={self.found.power_over_critical:.3g} on {self.what}"
        )


@dataclass(frozen=True)
class Verdict:
    """What was measured, and what it means for this run.

    Parameters
    ----------
    power_mw
        Power on the panel.
    judged
        The figures of each kind of pattern.
    found
        Of each figure the worst.
    refusals
        Why the run must not start unless the protocol accepts it.
    warnings
        What is legal but suspicious.
    exempt
        What a discrete bench is excused from; empty where there is nothing.
    """

    power_mw: float
    judged: tuple[Judged, ...]
    found: Convergence
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    exempt: str

    def text(self) -> str:
        """Give the figures in one line, those of each kind of pattern."""
        each = "; ".join(judged.text() for judged in self.judged)
        return f"{self.found.steps} steps at power_mw={self.power_mw:g}: {each}"


class Light:
    """Simulated light, measured before a run; on the same patterns only once.

    Parameters
    ----------
    bench
        A bench that is not open, whose light is simulated. It takes the
        calibrations that it would open with.

    Raises
    ------
    TypeError
        Its light is real.
    """

    def __init__(self, bench: Bench) -> None:
        if bench.world is None:
            text = f"bench {bench.file.name}: light=real, expected simulated light"
            raise TypeError(text)
        self._bench, self._world = bench, bench.world
        self._known: dict[tuple[object, ...], Convergence] = {}

    @classmethod
    def among(cls, suited: Iterable[Bench]) -> "Light | None":
        """Take the light of the first bench that simulates it.

        Parameters
        ----------
        suited
            Benches that the run may open.

        Returns
        -------
        light
            None where all light is real.
        """
        simulated = [bench for bench in suited if bench.world is not None]
        return cls(simulated[0]) if simulated else None

    def judge(self, show: Show) -> Verdict:
        """Measure steps and grid on random patterns and on the run's own.

        Parameters
        ----------
        show
            Operating point and patterns.
        """
        entry, file = show.entry, self._bench.file
        rows, columns = entry.macropixels
        drawn = np.random.default_rng(0).integers(
            0, 2**self._bench.slm.bit_depth, (PATTERNS, rows * columns)
        )
        found = self._measured(entry, drawn.astype(np.uint16))
        judged = [Judged(f"{PATTERNS} random patterns", found)]
        if show.phase is not None:
            levels = self.levels(entry, show.phase[:PATTERNS])
            found = self._measured(entry, levels)
            judged.append(Judged(f"{len(levels)} of the run's own patterns", found))
        where = f"bench {file.name}"
        return _verdict(where, file.discrete, entry.power_mw, tuple(judged))

    def levels(self, entry: ReservoirEntry, phase: Tensor) -> Levels:
        """Give the gray levels that show phases once the bench is open.

        Parameters
        ----------
        entry
            The operating point.
        phase
            ``[pattern, macropixel]``, in rad.

        Returns
        -------
        levels
            ``(pattern, macropixel)``.
        """
        blocks = Blocks(self._bench.slm.shape, entry.macropixels)
        panel = Panel(blocks, *self._calibrated)
        return panel.levels(phase.detach().cpu().double().numpy())

    @cached_property
    def _calibrated(self) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Phase curve and correction that the bench will have once it is open.

        That one is missing or does not hold is told where calibrations are checked:
        here a turn over all levels does, which a twin has by construction.
        """
        bench = self._bench
        if not bench.notice:
            try:
                found = bench.source.in_force()
                bench.calibrations = {kind: each.record for kind, each in found.items()}
                curve_rad, correction = bench.phase_curve_rad(), bench.correction_rad()
                pixel_scale(curve_rad, bench.slm.shape)
            except CalibrationError:
                bench.calibrations = {}
            else:
                return curve_rad, correction
        turn = PhaseCurve(kind="slm-phase", span_rad=TURN)
        return turn.curve(bench.slm.bit_depth, bench.source.path.parent), None

    def _measured(self, entry: ReservoirEntry, levels: Levels) -> Convergence:
        blocks, power_mw = entry.macropixels, entry.power_mw
        key = (blocks, power_mw, levels.astype(np.uint16).tobytes())
        if key not in self._known:
            panel = Blocks(self._bench.slm.shape, blocks).expand(levels)
            self._known[key] = self._world.convergence(panel, power_mw=power_mw)
        return self._known[key]


def _verdict(
    where: str, discrete: bool, power_mw: float, judged: tuple[Judged, ...]
) -> Verdict:
    """Compare the worst of each figure with its limits."""
    found = _worst([each.found for each in judged])
    refusals, warnings, exempt = [], [], ""
    gate = (
        f"{where}: step_gate={found.step_gate:.2g} with {found.steps} steps on "
        f"{_on(judged, 'step_gate')}"
    )
    if not found.step_gate <= GATE_WARNS:
        refusals.append(
            f"{gate}, expected at most {GATE_WARNS:g}. {_more_steps(found)} Or set "
            "accept_unconverged: true in the protocol."
        )
    elif found.step_gate > GATE_PASSES:
        warnings.append(
            f"{gate}, expected at most {GATE_PASSES:g}. {_more_steps(found)}"
        )
    coarse = _coarse(found, judged)
    if coarse and discrete:
        exempt = (
            f"{where}: {', '.join(coarse.values())}, above {NYQUIST_PASSES:g}: the "
            f"grid does not resolve {' and '.join(coarse)}, and the bench says "
            "discrete: true. It is a device of its own, no picture of continuous "
            "optics."
        )
    elif coarse:
        text = (
            f"{where}: {', '.join(coarse.values())}, expected at most "
            f"{NYQUIST_PASSES:g}: the grid under-samples {' and '.join(coarse)}. "
            f"{_finer_grid(found)}"
        )
        if found.nyquist_share <= NYQUIST_PASSES and found.exit_share <= EXIT_WARNS:
            warnings.append(text)
        else:
            refusals.append(
                f"{text} Or set discrete: true in the bench file, or "
                "accept_unconverged: true in the protocol."
            )
    return Verdict(power_mw, judged, found, tuple(refusals), tuple(warnings), exempt)


def _size(figure: float) -> float:
    """Take what is not a number for the worst of all."""
    return math.inf if math.isnan(figure) else figure


def _worst(found: Sequence[Convergence]) -> Convergence:
    """Take of each figure the worst, with a remedy that does for all."""
    steps = [each.enough_steps for each in found if each.enough_steps is not None]
    grids = [each.enough_grid for each in found if each.enough_grid is not None]
    return Convergence(
        steps=found[0].steps,
        step_gate=max((each.step_gate for each in found), key=_size),
        nyquist_share=max((each.nyquist_share for each in found), key=_size),
        nyquist_share_full_range=max(
            (each.nyquist_share_full_range for each in found), key=_size
        ),
        exit_share=max((each.exit_share for each in found), key=_size),
        power_over_critical=max(
            (each.power_over_critical for each in found), key=_size
        ),
        enough_steps=max(steps) if len(steps) == len(found) else None,
        enough_grid=max(grids) if len(grids) == len(found) else None,
    )


def _on(judged: tuple[Judged, ...], name: str) -> str:
    """Name the patterns on which a figure is worst."""
    return max(judged, key=lambda each: _size(getattr(each.found, name))).what


def _coarse(found: Convergence, judged: tuple[Judged, ...]) -> dict[str, str]:
    """Tell what the grid under-samples, and the figure that says so."""
    shares = {"the panel": ("nyquist_share", found.nyquist_share)}
    # Of light that is not converged in steps the exit face tells nothing.
    if found.step_gate <= GATE_WARNS:
        shares["the far field"] = ("exit_share", found.exit_share)
    return {
        what: f"{name}={share:.2g} on {_on(judged, name)}"
        for what, (name, share) in shares.items()
        if not share <= NYQUIST_PASSES
    }


def _more_steps(found: Convergence) -> str:
    if found.enough_steps is None:
        return (
            "No sensible number of steps does: the light breaks into filaments. Lower "
            "reservoir.power_mw or medium.b, or let the medium saturate."
        )
    return (
        f"Set world.options.medium.steps to {found.enough_steps} in the bench file, or "
        "lower reservoir.power_mw."
    )


def _finer_grid(found: Convergence) -> str:
    if found.enough_grid is None:
        if found.nyquist_share <= NYQUIST_PASSES:
            return (
                "No sensible grid does: the light spreads too far. Lower "
                "reservoir.power_mw or medium.b."
            )
        return (
            "No sensible grid does: the edges of the macropixels are hard. Set "
            "world.options.panel.crosstalk_macropixels to 0.25."
        )
    return (
        f"Set world.options.grid to {list(found.enough_grid)} in the bench file and "
        "macropixel_px, region and bins with it, or use fewer reservoir.macropixels."
    )


def check(protocol: Document[Any], light: Light | None, shows: Iterable[Show]) -> None:
    """Refuse simulated light that is not converged on what a run shows.

    Parameters
    ----------
    protocol
        The protocol; it may accept what is found.
    light
        What is judged; None where it is real, or cannot be had.
    shows
        What the run shows, at each of its operating points.

    Raises
    ------
    ProtocolError
        Steps or grid do not do, and the protocol does not accept it.
    """
    if light is None or protocol.value.accept_unconverged:
        return
    told = [text for show in shows for text in light.judge(show).refusals]
    if told:
        raise ProtocolError(
            [protocol.fault("accept_unconverged", text) for text in dict.fromkeys(told)]
        )
