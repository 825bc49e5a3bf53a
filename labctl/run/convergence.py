"""Whether simulated light is converged on the patterns that a run will show."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from labctl.bench import Bench
from labctl.calibration import ReservoirEntry
from labctl.devices import Convergence
from labctl.document import Document
from labctl.errors import ProtocolError
from labctl.optics.convergence import (
    EXIT_WARNS,
    GATE_PASSES,
    GATE_WARNS,
    NYQUIST_PASSES,
)
from labctl.reservoir import Blocks

_PATTERNS = 4


@dataclass(frozen=True)
class Verdict:
    """What was measured, and what it means for this run.

    Parameters
    ----------
    found
        The figures.
    refusals
        Why the run must not start unless the protocol accepts it.
    warnings
        What is legal but suspicious.
    exempt
        What a discrete bench is excused from; empty where there is nothing.
    """

    found: Convergence
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    exempt: str

    def text(self) -> str:
        """Give the figures in one line."""
        return (
            f"step_gate={self.found.step_gate:.2g} with {self.found.steps} steps, "
            f"nyquist_share={self.found.nyquist_share:.2g}, "
            f"exit_share={self.found.exit_share:.2g}, "
            f"power_over_critical={self.found.power_over_critical:.3g} on "
            f"{_PATTERNS} random patterns"
        )


def judge(bench: Bench, entry: ReservoirEntry) -> Verdict | None:
    """Measure steps and grid on random patterns at the operating point.

    Parameters
    ----------
    bench
        The bench, open or not.
    entry
        The operating point.

    Returns
    -------
    verdict
        None where the light is real.
    """
    if bench.world is None:
        return None
    blocks = Blocks(bench.slm.shape, entry.macropixels)
    count = entry.macropixels[0] * entry.macropixels[1]
    drawn = np.random.default_rng(0).integers(
        0, 2**bench.slm.bit_depth, (_PATTERNS, count)
    )
    levels = blocks.expand(drawn.astype(np.uint16))
    found = bench.world.convergence(levels, power_mw=entry.power_mw)
    where = f"bench {bench.file.name}"
    refusals, warnings, exempt = [], [], ""
    gate = f"{where}: {_gate(found)}"
    if not found.step_gate <= GATE_WARNS:
        refusals.append(
            f"{gate}, expected at most {GATE_WARNS:g}. {_more_steps(found)} Or set "
            "accept_unconverged: true in the protocol."
        )
    elif found.step_gate > GATE_PASSES:
        warnings.append(
            f"{gate}, expected at most {GATE_PASSES:g}. {_more_steps(found)}"
        )
    coarse = _coarse(found)
    if coarse and bench.file.discrete:
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
    return Verdict(found, tuple(refusals), tuple(warnings), exempt)


def _coarse(found: Convergence) -> dict[str, str]:
    """Tell what the grid under-samples, and the figure that says so."""
    shares = {"the panel": ("nyquist_share", found.nyquist_share)}
    # Of light that is not converged in steps the exit face tells nothing.
    if found.step_gate <= GATE_WARNS:
        shares["the far field"] = ("exit_share", found.exit_share)
    return {
        what: f"{name}={share:.2g}"
        for what, (name, share) in shares.items()
        if not share <= NYQUIST_PASSES
    }


def _gate(found: Convergence) -> str:
    return f"step_gate={found.step_gate:.2g} with {found.steps} steps"


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


def check(protocol: Document[Any], bench: Bench, entry: ReservoirEntry) -> None:
    """Refuse a simulated bench that is not converged at the operating point.

    Parameters
    ----------
    protocol
        The protocol; it may accept what is found.
    bench
        The bench, not open.
    entry
        The operating point.

    Raises
    ------
    ProtocolError
        Steps or grid do not do, and the protocol does not accept it.
    """
    verdict = judge(bench, entry)
    if verdict is None or protocol.value.accept_unconverged:
        return
    if verdict.refusals:
        raise ProtocolError(
            [protocol.fault("accept_unconverged", text) for text in verdict.refusals]
        )
