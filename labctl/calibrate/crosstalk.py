"""Kind ``crosstalk``: how far a pixel's phase reaches into its neighbours.

Square gratings of several periods and depths send light to their first orders. Sharp
ones give it as the sine of half their depth, squared; blurred ones do not, the less so
the finer they are. Each period has a scale and a background of its own, so that only
the shape over the depth counts: neither the pixels' own diffraction nor the medium
matters, as long as it is linear. The fit has one number, the width of a Gaussian over
the phase of the pixels, and a period that it has not seen judges it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from labctl.calibrate.kind import (
    MORE_LIGHT,
    Figure,
    Finding,
    Kind,
    Merit,
    Quantity,
    Series,
)
from labctl.calibrate.patterns import FAINT, Painter, linear_power
from labctl.calibrate.stand import Stand
from labctl.calibration import PanelMap
from labctl.errors import OutcomeError

Array = NDArray[np.float64]
# Half periods in panel pixels; the last is held out.
HALVES, HELD_OUT = (2, 3, 4), 6
DEPTHS, FRAMES = 9, 16
# Widest kernel that is looked for, in panel pixels.
WIDEST = 4.0
# Half of the side of the window that an order is summed in, in units of the smallest
# spot that the panel can make.
WINDOW = 1.0
# What the shape that is fitted makes of one that is as wide, besides noise: on five
# simulated specimens the width came out .02 to .07 smaller than it was, on `sim` once
# .11.
MODEL_PX = 0.06
# Fewer standard errors than this are no crosstalk.
SEEN = 3.0


@dataclass(frozen=True, eq=False)
class Orders:
    """Light in the first orders of gratings of one period and direction.

    Parameters
    ----------
    half
        Half of the period, in panel pixels.
    depth_rad
        Depth of each, ``(grating,)``.
    light, error
        Light in both orders, and its standard error.
    """

    half: int
    depth_rad: Array
    light: Array
    error: Array


def efficiency(depth_rad: Array, half: int, sigma_px: float) -> Array:
    """Share of the light in one first order of a blurred square grating.

    Parameters
    ----------
    depth_rad
        Depths.
    half
        Half of the period, in pixels.
    sigma_px
        Width of the blur, in pixels.

    Returns
    -------
    efficiency
        Of each depth.
    """
    period = 2 * half
    square = (np.arange(period) >= half).astype(float)
    reach = math.ceil(4 * sigma_px)
    at = np.arange(-reach, reach + 1)
    weight = np.exp(-(at**2) / (2 * sigma_px**2)) if reach else np.ones(1)
    weight /= weight.sum()
    blurred = sum(w * np.roll(square, k) for w, k in zip(weight, at, strict=True))
    field = np.exp(1j * depth_rad[:, None] * blurred)
    wave = np.exp(-2j * math.pi * np.arange(period) / period)
    found: Array = np.abs(field @ wave / period) ** 2
    return found


def fit_group(group: Orders, sigma_px: float) -> tuple[float, Array]:
    """Fit scale and background of one period: chi squared, and the fitted light."""
    shape = efficiency(group.depth_rad, group.half, sigma_px)
    design = np.stack([shape, np.ones_like(shape)], axis=1) / group.error[:, None]
    terms, *_ = np.linalg.lstsq(design, group.light / group.error, rcond=None)
    fitted = (design @ terms) * group.error
    return float((((group.light - fitted) / group.error) ** 2).sum()), fitted


@dataclass(frozen=True)
class Width:
    """Width of the kernel.

    Parameters
    ----------
    sigma_px, error_px
        In panel pixels.
    is_seen
        Whether it is more than noise; else ``most_px`` is an upper bound.
    most_px
        What it is at most, with 95 % certainty.
    """

    sigma_px: float
    error_px: float
    is_seen: bool
    most_px: float


def fit_width(groups: Sequence[Orders]) -> Width:
    """Fit one width to all periods.

    Parameters
    ----------
    groups
        Of several periods and directions.

    Returns
    -------
    width
        With its error.
    """

    def chi2(sigma_px: float) -> float:
        return sum(fit_group(group, sigma_px)[0] for group in groups)

    # In steps first: there may be more than one valley.
    grid = np.linspace(0, WIDEST, 41)
    start = float(min(grid, key=chi2))
    step = WIDEST / 40
    low, high = max(start - step, 0.0), min(start + step, WIDEST)
    found = minimize_scalar(chi2, bounds=(low, high), method="bounded")
    best, least = float(found.x), float(found.fun)
    freedom = sum(len(group.light) - 2 for group in groups) - 1
    scatter = max(least / max(freedom, 1), 1.0)
    # Where chi squared has risen by so much as one standard error makes.
    error = math.hypot(_rise(chi2, best, least + scatter), MODEL_PX)
    none = chi2(0.0)
    return Width(
        sigma_px=best,
        error_px=error,
        is_seen=none - least > SEEN**2 * scatter,
        most_px=best + 2 * error,
    )


def _rise(chi2: Callable[[float], float], best: float, level: float) -> float:
    step = 0.01
    while step < WIDEST and chi2(best + step) < level:
        step *= 1.2
    return step


# ---- the procedure ---------------------------------------------------------------


def measure(stand: Stand, limits: Mapping[str, float]) -> Finding:
    """Measure the width of the crosstalk.

    Parameters
    ----------
    stand
        The bench.
    limits
        Of the merits.

    Returns
    -------
    finding
        The width, or its upper bound.

    Raises
    ------
    OutcomeError
        No light, or no order that the camera sees.
    """
    painter = Painter(stand)
    depths = np.linspace(0, 2 * math.pi, DEPTHS + 1)[:-1]
    sample = painter.levels(_gratings(stand, HALVES[-1], 0, depths))
    power_mw = linear_power(stand, sample[1::3], most=FAINT)
    stand.brighten(sample)
    groups = []
    for half in (*HALVES, HELD_OUT):
        for axis in (0, 1):
            stand.stage(f"half period {half}, axis {axis}")
            groups.append(_orders(stand, painter, half, axis, depths))
    with stand.thinking():
        return _finding(groups, limits, power_mw)


def _gratings(stand: Stand, half: int, axis: int, depths: Array) -> Array:
    at = np.arange(stand.panel[axis])
    square = (at // half % 2).astype(float)
    along = square[:, None] if axis == 0 else square[None]
    phase = depths[:, None, None] * np.broadcast_to(along, stand.panel)
    found: Array = phase
    return found


def _orders(
    stand: Stand, painter: Painter, half: int, axis: int, depths: Array
) -> Orders:
    """Measure the first orders of gratings of one period.

    Raises
    ------
    OutcomeError
        The camera does not see them.
    """
    tilt = np.zeros((2, 2))
    tilt[0, axis], tilt[1, axis] = 1 / (2 * half), -1 / (2 * half)
    mapped = stand.calibrated(PanelMap)
    places = mapped.places(tilt) - stand.corner
    scale = math.sqrt(abs(float(np.linalg.det(np.array(mapped.matrix_px)))))
    reach = max(1, math.ceil(WINDOW * scale / min(stand.panel) - 0.25))
    shape = stand.frame
    inside = (places > reach) & (places < np.array(shape) - 1 - reach)
    if not inside.all():
        text = (
            f"crosstalk: first orders of a period of {2 * half} panel pixels fall at "
            f"{places.round(1).tolist()}, expected on the frame ({shape[0]} x "
            f"{shape[1]} px). Image more of the far field onto it."
        )
        raise OutcomeError(text)
    exposed = stand.repeated(
        painter.levels(_gratings(stand, half, axis, depths)), FRAMES
    )
    stand.require_light(exposed)
    frames = (
        stand.signal_e(exposed) * (stand.power_mw / exposed.power_mw)[:, None, None]
    )
    light = np.zeros(len(frames))
    for row, column in places.round().astype(int):
        rows = slice(row - reach, row + reach + 1)
        columns = slice(column - reach, column + reach + 1)
        light += frames[:, rows, columns].sum(axis=(1, 2))
    grouped = light.reshape(len(depths), FRAMES)
    # The noise of one depth is found from few frames: that of all of them is surer.
    noise2 = grouped.var(axis=1, ddof=1)
    mean = np.maximum(grouped.mean(axis=1), 0)
    line = np.polynomial.polynomial.polyfit(mean, noise2, 1)
    smooth = np.maximum(np.polynomial.polynomial.polyval(mean, line), noise2.mean() / 4)
    return Orders(half, depths, grouped.mean(axis=1), np.sqrt(smooth / FRAMES))


def _finding(
    groups: Sequence[Orders], limits: Mapping[str, float], power_mw: float
) -> Finding:
    own = [group for group in groups if group.half != HELD_OUT]
    others = [group for group in groups if group.half == HELD_OUT]
    width = fit_width(own)
    sigma_px = width.sigma_px if width.is_seen else 0.0
    gap2, size = 0.0, 0.0
    for group in others:
        _, fitted = fit_group(group, sigma_px)
        gap2 += float(((group.light - fitted) ** 2).mean()) / len(others)
        size += float(np.ptp(fitted)) / len(others)
    remarks = () if width.is_seen else (
        f"no crosstalk measurable: sigma is at most {width.most_px:.2g} pixels.",
    )  # fmt: skip
    return Finding(
        values={"sigma_px": sigma_px, "most_px": width.most_px},
        quantities={"sigma_px": Quantity(sigma_px, width.error_px, 0.05)},
        merits=(
            Merit(
                "error_px",
                width.error_px,
                math.nan,
                limits["error_px"],
                remedy=MORE_LIGHT,
            ),
            Merit(
                "held_out_percent",
                100 * math.sqrt(gap2) / max(size, 1e-300),
                math.nan,
                limits["held_out_percent"],
            ),
        ),
        figures=(_figure(groups, sigma_px),),
        conditions={"power_mw": power_mw},
        remarks=remarks,
    )


def _figure(groups: Sequence[Orders], sigma_px: float) -> Figure:
    series = []
    for group in groups[::2]:
        _, fitted = fit_group(group, sigma_px)
        top = float(fitted.max())
        name = f"period {2 * group.half} px"
        series += [
            Series(name, group.depth_rad, group.light / top, group.error / top),
            Series(f"{name}, fit", group.depth_rad, fitted / top, is_line=True),
        ]
    return Figure(
        "crosstalk",
        "First orders of square gratings along rows",
        "Light in the first orders over the depth of the grating, for each period; the "
        f"longest was held out. Kernel: sigma {sigma_px:.3g} panel pixels.",
        "depth (rad)",
        "light in the first orders (of the most)",
        tuple(series),
    )


KIND = Kind(
    name="crosstalk",
    text="how far a pixel's phase reaches into its neighbours",
    of=("slm", "laser"),
    measure=measure,
    needs=("camera", "settle", "slm-phase", "mapping"),
    views=("far_field",),
    depends_on_wavelength=True,
    valid_days=90.0,
    limits={"error_px": 0.15, "held_out_percent": 10.0},
)
