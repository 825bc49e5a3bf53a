"""Kind ``noise-floor``: how well an output repeats, and the probe step that it allows.

Random patterns are shown many times each: what is left between repeats is the noise of
an output. Small changes of the phases, up and down, say how strongly the outputs answer
and how soon they bend. A probe that steps too little drowns in noise, and one that
steps too far sees another slope: between them lies the best step.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labctl.calibrate.kind import Figure, Finding, Kind, Merit, Quantity, Series
from labctl.calibrate.stand import SATURATED, Stand
from labctl.errors import OutcomeError
from labctl.reservoir import Blocks, macropixel_scale

Array = NDArray[np.float64]
PATTERNS, REPEATS = 6, 24
DIRECTIONS, PAIRS = 6, 8
STEPS_RAD = (0.1, 0.2, 0.4)
# Standard errors from which patterns differ.
SEEN = 4.0


@dataclass(frozen=True)
class Floor:
    """Noise of an output, and the step that it allows.

    Parameters
    ----------
    noise_e, noise_error
        Of one output from frame to frame, rms over outputs and patterns.
    mean_e
        Of an output.
    excess
        Noise over that of the light and the camera alone.
    slope_e, slope_error
        Change of an output for a step of 1 rad on all macropixels, rms.
    bend_e
        Second change, for a step of 1 rad.
    step_rad, step_error
        Step of a probe that has the smallest error from both.
    """

    noise_e: float
    noise_error: float
    mean_e: float
    excess: float
    slope_e: float
    slope_error: float
    bend_e: float
    step_rad: float
    step_error: float


def fit_floor(
    repeated: Array,
    ideal_e: Array,
    stepped: Mapping[float, tuple[Array, Array]],
    still: Array,
) -> Floor:
    """Fit noise, slope and bend.

    Parameters
    ----------
    repeated
        Outputs, ``(pattern, repeat, output)``.
    ideal_e
        Noise of the light and the camera alone, ``(pattern, output)``.
    stepped
        Outputs after a step up and down, each ``(direction, repeat, output)``, by the
        size of the step in rad.
    still
        Outputs without a step, ``(repeat, output)``.

    Returns
    -------
    floor
        Noise and step.
    """
    variance = repeated.var(axis=1, ddof=1)
    noise2 = float(variance.mean())
    count = repeated.size - repeated.shape[0] * repeated.shape[2]
    slopes, bends = [], []
    middle, rest2 = still.mean(axis=0), noise2 / len(still)
    for step, (up, down) in stepped.items():
        own2 = noise2 / up.shape[1]
        above, below = up.mean(axis=1), down.mean(axis=1)
        slopes.append(_square((above - below) / 2 / step, own2 / 2 / step**2))
        even, even2 = above + below - 2 * middle, 2 * own2 + 4 * rest2
        bends.append(_square(even / step**2, even2 / step**4))
    slope2, slope2_error = _joined(slopes)
    bend2, bend2_error = _joined(bends)
    slope, bend = math.sqrt(max(slope2, 0.0)), math.sqrt(max(bend2, 0.0))
    # Error of a one-sided probe: 2 noise^2 / step^2 + (bend step / 2)^2, least at the
    # fourth root of 8 noise^2 / bend^2; never less than a step that can be seen.
    far2 = max(bend2, bend2_error)
    step = (8 * noise2 / far2) ** 0.25 if far2 > 0 else math.inf
    return Floor(
        noise_e=math.sqrt(noise2),
        noise_error=math.sqrt(noise2 / (2 * count)),
        mean_e=float(repeated.mean()),
        excess=math.sqrt(noise2 / float((ideal_e**2).mean())),
        slope_e=slope,
        slope_error=slope2_error / max(2 * slope, 1e-300),
        bend_e=bend,
        step_rad=min(step, math.pi),
        step_error=step * bend2_error / max(4 * far2, 1e-300),
    )


def require_change(repeated: Array) -> None:
    """Refuse outputs that are the same for all patterns.

    Parameters
    ----------
    repeated
        Outputs, ``(pattern, repeat, output)``.

    Raises
    ------
    OutcomeError
        They are, within noise.
    """
    patterns, repeats, outputs = repeated.shape
    mean = repeated.mean(axis=1)
    noise2 = float(repeated.var(axis=1, ddof=1).mean()) / repeats
    apart2 = float(mean.var(axis=0, ddof=1).mean())
    if apart2 > noise2 * (1 + SEEN * math.sqrt(2 / ((patterns - 1) * outputs))):
        return
    text = (
        "noise-floor: the panel does not modulate: outputs of random patterns differ "
        f"by {math.sqrt(apart2):.3g} electrons rms, expected more than the noise of "
        f"their means, {math.sqrt(noise2):.3g}. Look at its cable, its polarisation "
        "and whether it is awake; or there are too few photons to tell."
    )
    raise OutcomeError(text)


def _square(values: Array, noise2: float) -> tuple[float, float]:
    """Mean square of values without their noise, and its standard error."""
    found = float((values**2).mean()) - noise2
    spread2 = 2 * noise2**2 + 4 * max(found, 0.0) * noise2
    return found, math.sqrt(spread2 / values.size)


def _joined(found: list[tuple[float, float]]) -> tuple[float, float]:
    each, error = np.array(found).T
    weight = 1 / np.maximum(error, 1e-300) ** 2
    return float((weight * each).sum() / weight.sum()), 1 / math.sqrt(weight.sum())


# ---- the procedure ---------------------------------------------------------------


def measure(stand: Stand, limits: Mapping[str, float]) -> Finding:
    """Measure the noise of the outputs at the operating point.

    Parameters
    ----------
    stand
        The bench.
    limits
        Of the merits.

    Returns
    -------
    finding
        Noise, and the step of a probe that it allows.

    Raises
    ------
    OutcomeError
        No light or too much of it, or a panel that does not modulate.
    """
    entry = stand.bench.file.reservoir
    stand.light(stand.nominal_mw)
    stand.configure(entry.exposure_s)
    blocks = Blocks(stand.panel, entry.macropixels)
    scale = macropixel_scale(blocks, stand.bench.phase_curve_rad())
    rng = np.random.default_rng(9)
    pixels = entry.macropixels[0] * entry.macropixels[1]
    phases = rng.uniform(0, 2 * math.pi, (PATTERNS, pixels))

    def outputs(phase: Array, count: int) -> Array:
        exposed = stand.repeated(blocks.expand(scale.levels(phase)), count)
        stand.require_unsaturated(exposed, SATURATED)
        stand.require_light(exposed)
        found: Array = stand.outputs(exposed).reshape(len(phase), count, -1)
        return found

    stand.stage("repeats")
    repeated = outputs(phases, REPEATS)
    require_change(repeated)
    ideal = np.sqrt(
        np.maximum(repeated.mean(axis=1), 0)
        + stand.pixels_an_output * stand.response.read_noise_e**2
    )
    directions = rng.choice([-1.0, 1.0], (DIRECTIONS, pixels))
    stepped = {}
    for number, step in enumerate(STEPS_RAD):
        stand.stage("steps", number, len(STEPS_RAD))
        up, down = (
            outputs(phases[:1] + sign * step * directions, PAIRS) for sign in (1, -1)
        )
        stepped[step] = (up, down)
    floor = fit_floor(repeated, ideal, stepped, repeated[0])
    return _finding(floor, repeated, ideal, stepped, limits)


def _finding(
    floor: Floor,
    repeated: Array,
    ideal: Array,
    stepped: Mapping[float, tuple[Array, Array]],
    limits: Mapping[str, float],
) -> Finding:
    percent = 100 * floor.noise_e / floor.mean_e
    percent_error = 100 * floor.noise_error / floor.mean_e
    steps = np.array(sorted(stepped))
    answer2, answer2_error = np.array(
        [
            _square(
                (up.mean(axis=1) - down.mean(axis=1)) / 2,
                floor.noise_e**2 / up.shape[1] / 2,
            )
            for up, down in (stepped[step] for step in steps)
        ]
    ).T
    answer = np.sqrt(np.maximum(answer2, 0))
    # As far as it lies from 0, or from where its error begins.
    answer_error = answer2_error / (2 * np.maximum(answer, np.sqrt(answer2_error)))
    means = repeated.mean(axis=1).ravel()
    rising = means.argsort()
    noises = repeated.std(axis=1, ddof=1).ravel()
    return Finding(
        values={
            "noise_e": floor.noise_e,
            "noise_percent": percent,
            "excess": floor.excess,
            "step_rad": floor.step_rad,
        },
        quantities={
            "noise_e": Quantity(floor.noise_e, floor.noise_error, 0.03 * floor.noise_e),
            "slope_e_per_rad": Quantity(
                floor.slope_e, floor.slope_error, 0.05 * floor.slope_e
            ),
            "step_rad": Quantity(
                floor.step_rad, floor.step_error, 0.1 * floor.step_rad
            ),
        },
        merits=(
            Merit("noise_percent", percent, percent_error, limits["noise_percent"]),
            Merit("excess", floor.excess, math.nan, limits["excess"]),
        ),
        figures=(
            Figure(
                "noise-outputs",
                "Noise of each output",
                f"Standard deviation between {REPEATS} repeats over the mean, for each "
                "output and pattern; the line is what light and camera alone make.",
                "mean (electrons)",
                "noise (electrons)",
                (
                    Series("measured", means, noises),
                    Series(
                        "light and camera",
                        means[rising],
                        ideal.ravel()[rising],
                        is_line=True,
                    ),
                ),
            ),
            Figure(
                "noise-step",
                "Answer to a step",
                "Change of an output for a step of all phases, rms, its noise taken "
                "out, and the noise of one frame. The best step of a probe is "
                f"{floor.step_rad:.2g} rad.",
                "step (rad)",
                "change (electrons)",
                (
                    Series("answer", steps, answer, answer_error),
                    Series("slope", steps, floor.slope_e * steps, is_line=True),
                    Series(
                        "noise of a frame",
                        steps,
                        np.full(len(steps), floor.noise_e),
                        is_line=True,
                    ),
                ),
            ),
        ),
    )


KIND = Kind(
    name="noise-floor",
    text="repeatability of the outputs, and the probe step that it allows",
    of=("slm", "laser", "camera"),
    measure=measure,
    needs=("camera", "settle", "slm-phase"),
    looks_at_outputs=True,
    depends_on_wavelength=True,
    valid_days=7.0,
    limits={"noise_percent": 50.0, "excess": 2.0},
)
