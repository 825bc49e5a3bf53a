"""Kind ``camera``: dark level, gain by photon transfer, linearity, saturation.

In the manner of EMVA 1288, but with the bench's own light, which is no flat field
and trembles as a whole: its power, direction and phase differ a little from shot to
shot. What all pixels share is taken out before the noise is judged; only what is
left is the pixels' own. Without a calibrated source there is no quantum efficiency.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from labctl.calibrate.kind import (
    MORE_LIGHT,
    Figure,
    Finding,
    Kind,
    Merit,
    Quantity,
    Series,
)
from labctl.calibrate.stand import Exposed, Glimpse, Stand, glimpse
from labctl.devices import Levels
from labctl.errors import OutcomeError

Array = NDArray[np.float64]
DARKS, FRAMES, SPOT_FRAMES = 32, 24, 32
# Ways in which all pixels change together: power, two tilts, phase.
COMMON = 4
# Parts of the pixels, each of which is judged by what the others show.
SHARES = 16
# Of a pixel that trembles more than so many times as much as its own noise, that
# cannot be taken out well enough: an error of a tenth would count as noise.
TREMBLE = 10.0
# Photon transfer is judged up to this share of saturation, linearity in this range.
TRANSFER_TOP = 0.7
LINEAR_LOW, LINEAR_HIGH = 0.05, 0.95
# A pixel that reaches this share of its range says something about its shape.
COVERED = 0.5 * LINEAR_HIGH
QUANTISATION_DN2 = 1 / 12
# Fewer pixels make no point of the curve.
LEAST_PIXELS = 8
# A pixel whose dark level alone is so many times the noise of a frame is hot.
HOT_SIGMA = 8.0
# Light is what is so many times its noise.
LIT = 10.0
# Of the pixels, at the shortest exposure of the photon transfer.
MOST_SATURATED = 0.1


@dataclass(frozen=True, eq=False)
class Stack:
    """Frames of one pattern at one exposure time.

    Parameters
    ----------
    frames
        Counts, ``(frame, pixel)``.
    exposure_s
        Exposure time.
    power_mw
        Metered during each, ``(frame,)``.
    """

    frames: Array
    exposure_s: float
    power_mw: Array


@dataclass(frozen=True, eq=False)
class Dark:
    """What the sensor shows without light.

    Parameters
    ----------
    offset_dn, offset_error
        Mean count at no exposure.
    dark_dn_per_s, dark_error
        Growth with exposure time.
    variance_dn2, variance_error
        Of a pixel from frame to frame, at the shortest exposure.
    spread_dn
        Of the pixels' levels, noise taken off.
    level_dn
        Mean of each pixel at the shortest exposure, ``(pixel,)``.
    again_dn
        The same from other frames.
    hot
        Numbers of the hot pixels.
    """

    offset_dn: float
    offset_error: float
    dark_dn_per_s: float
    dark_error: float
    variance_dn2: float
    variance_error: float
    spread_dn: float
    level_dn: Array
    again_dn: Array
    hot: NDArray[np.int64]


def fit_dark(stacks: Sequence[Stack]) -> Dark:
    """Fit offset, dark current and noise to frames without light.

    Parameters
    ----------
    stacks
        At least two exposure times, rising.

    Returns
    -------
    dark
        Of all pixels but the hot ones.

    Raises
    ------
    OutcomeError
        The level falls as the exposure grows: there was light.
    """
    first, last = stacks[0], stacks[-1]
    variances = first.frames.var(axis=0, ddof=1)
    noise_dn = math.sqrt(float(np.median(variances)) + QUANTISATION_DN2)
    grown = last.frames.mean(axis=0) - np.median(last.frames)
    hot = np.flatnonzero(grown > HOT_SIGMA * noise_dn)
    cool = np.setdiff1d(np.arange(first.frames.shape[1]), hot)
    times = np.array([stack.exposure_s for stack in stacks])
    means = np.array([stack.frames[:, cool].mean() for stack in stacks])
    count = first.frames[:, cool].size
    slope, offset, slope_error, offset_error = line(
        times, means, np.full(len(times), noise_dn / math.sqrt(count))
    )
    if slope < -4 * slope_error:
        text = (
            f"camera: dark level falls by {-slope:.3g} counts/s as the exposure grows, "
            "expected it to rise. Keep room light off the camera and measure again."
        )
        raise OutcomeError(text)
    variance = float(variances[cool].mean())
    freedom = (len(first.frames) - 1) * len(cool)
    level = first.frames.mean(axis=0)
    spread2 = float(level[cool].var()) - variance / len(first.frames)
    return Dark(
        offset_dn=offset,
        offset_error=offset_error,
        dark_dn_per_s=max(slope, 0.0),
        dark_error=slope_error,
        variance_dn2=variance,
        variance_error=variance * math.sqrt(2 / freedom),
        spread_dn=math.sqrt(max(spread2, 0.0)),
        level_dn=level,
        again_dn=stacks[1].frames.mean(axis=0) - (means[1] - means[0]),
        hot=hot,
    )


def line(x: Array, y: Array, error: Array) -> tuple[float, float, float, float]:
    """Fit a straight line: slope, offset, and the standard error of each."""
    weight = 1 / error**2
    total = weight.sum()
    middle = (weight * x).sum() / total
    spread = (weight * (x - middle) ** 2).sum()
    slope = float((weight * (x - middle) * y).sum() / spread)
    offset = float((weight * y).sum() / total) - slope * float(middle)
    offset_error = math.sqrt(1 / total + middle**2 / spread)
    return slope, offset, 1 / math.sqrt(spread), offset_error


def own_variance(stacks: Sequence[Array]) -> tuple[list[Array], Array]:
    """Variance of each pixel that no other pixel shares, for each stack.

    What all pixels share is found on all but a share of them, over all stacks at
    once, and taken out of that share, so that a pixel's own noise never decides what
    is taken out of it; bright stacks show what dim ones hide. A way of changing may
    live on a few pixels alone, on a steep edge of the light: those that vary most are
    in shares of their own, so that each is judged by the others.

    Parameters
    ----------
    stacks
        ``(frame, pixel)`` each, of about equal noise.

    Returns
    -------
    variance
        ``(pixel,)`` each, without bias.
    tremble
        Variance that was taken out of each pixel, for each way, over what is left,
        ``(pixel,)``: about 1 where nothing is shared.
    """
    centred = [frames - frames.mean(axis=0) for frames in stacks]
    every = np.concatenate(centred)
    variance = [np.empty(every.shape[1]) for _ in stacks]
    tremble = np.empty(every.shape[1])
    by_spread = np.argsort(every.var(axis=0))[::-1]
    together = every @ every.T
    for share in range(SHARES):
        own = by_spread[share::SHARES]
        _, scores = np.linalg.eigh(together - every[:, own] @ every[:, own].T)
        shared = scores[:, -COMMON:]
        common = shared.T @ every[:, own]
        rest = every[:, own] - shared @ common
        left = (rest**2).sum(axis=0) / len(rest)
        tremble[own] = (common**2).sum(axis=0) / COMMON / np.maximum(left, 1e-12)
        # What is taken out of a frame takes that much of its freedom with it.
        taken = (shared**2).sum(axis=1)
        start = 0
        for number, frames in enumerate(centred):
            rows = slice(start, start + len(frames))
            start += len(frames)
            freedom = len(frames) - 1 - float(taken[rows].sum())
            variance[number][own] = (rest[rows] ** 2).sum(axis=0) / freedom
    return variance, tremble


@dataclass(frozen=True, eq=False)
class Transfer:
    """The photon-transfer curve and its slope.

    Parameters
    ----------
    gain_dn_per_e, gain_error
        The slope.
    mean_dn, variance_dn2, error_dn2
        Points above the dark: mean, variance and its standard error.
    """

    gain_dn_per_e: float
    gain_error: float
    mean_dn: Array
    variance_dn2: Array
    error_dn2: Array


def fit_transfer(stacks: Sequence[Stack], dark: Dark, saturation_dn: float) -> Transfer:
    """Fit the gain: how the variance of a pixel grows with its mean.

    Parameters
    ----------
    stacks
        One pattern at several exposure times.
    dark
        The sensor without light.
    saturation_dn
        Count at which pixels saturate.

    Returns
    -------
    transfer
        The curve.

    Raises
    ------
    OutcomeError
        There are too few photons for a slope.
    """
    levels = [stack.frames.mean(axis=0) - dark.level_dn for stack in stacks]
    times = np.array([stack.exposure_s for stack in stacks])
    top_dn = TRANSFER_TOP * (saturation_dn - dark.offset_dn)
    # From another dark level: its noise must not be in what weighs and what is weighed.
    others = [stack.frames.mean(axis=0) - dark.again_dn for stack in stacks]
    expected = [_expected(others, times, number) for number in range(len(stacks))]
    variances, tremble = _above_dark(stacks, expected, dark)
    still = tremble < TREMBLE
    still[dark.hot] = False
    gains: list[tuple[float, float]] = []
    points: list[tuple[float, float, float]] = []
    for number, stack in enumerate(stacks):
        used = (expected[number] < top_dn) & still
        seen = _Seen(levels[number], variances[number], expected[number], used)
        noise2 = dark.variance_dn2 + QUANTISATION_DN2
        gains.append(_ratio(seen, noise2, len(stack.frames)))
        points += _binned(seen, noise2, len(stack.frames))
    each, spread = np.array(gains).T
    weight = 1 / spread**2
    gain = float((weight * each).sum() / weight.sum())
    chi2 = float((weight * (each - gain) ** 2).sum()) / max(len(each) - 1, 1)
    gain_error = math.sqrt(max(chi2, 1.0) / float(weight.sum()))
    mean, middle, error = np.array(points).reshape(-1, 3).T
    if not gain > 5 * gain_error:
        text = (
            f"camera: too few photons: gain={gain:.3g} ± {gain_error:.2g} counts an "
            "electron, expected an error below a fifth of it. Take a filter away, "
            "raise the power, or allow a longer exposure (limits.exposure_s)."
        )
        raise OutcomeError(text)
    return Transfer(gain, gain_error, mean, middle, error)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A stack: level, variance and expected level of each pixel, and which count."""

    level: Array
    variance: Array
    expected: Array
    used: NDArray[np.bool_]


def _expected(levels: Sequence[Array], times: Array, number: int) -> Array:
    """Ask the other stacks about each pixel: its own noise must not weigh it."""
    others = np.arange(len(levels)) != number
    rate = np.sum(np.array(levels)[others], axis=0) / times[others].sum()
    expected: Array = np.maximum(rate * times[number], 0.0)
    return expected


def _above_dark(
    stacks: Sequence[Stack], expected: Sequence[Array], dark: Dark
) -> tuple[list[Array], Array]:
    """Own variance of each pixel above that in the dark, and how much it trembles."""
    noise2 = dark.variance_dn2 + QUANTISATION_DN2
    first = stacks[0].frames.var(axis=0, ddof=1).mean() - dark.variance_dn2
    rough = max(float(first), 0.0) / max(float(expected[0].mean()), 1e-9)
    # Brought to equal noise, so that a few bright pixels do not hide the tremble.
    scales = [np.sqrt(noise2 + rough * each) for each in expected]
    scaled = [s.frames / scale for s, scale in zip(stacks, scales, strict=True)]
    variances, tremble = own_variance(scaled)
    above = [
        variance * scale**2 - dark.variance_dn2
        for variance, scale in zip(variances, scales, strict=True)
    ]
    return above, tremble


def _ratio(seen: _Seen, noise2: float, frames: int) -> tuple[float, float]:
    """Variance over mean and its error, each pixel by what it tells of it."""
    mean = max(float(seen.level[seen.used].mean()), 1e-9)
    slope = max(float(seen.variance[seen.used].mean()) / mean, 0.0)
    whole2 = noise2 + slope * seen.expected
    weight = np.where(seen.used, seen.expected / whole2**2, 0.0)
    below = float((weight * seen.level).sum())
    error = math.sqrt(2 / (frames - 1) * float((weight**2 * whole2**2).sum()))
    if below <= 0:
        return 0.0, 1e9
    return float((weight * seen.variance).sum()) / below, error / below


def _binned(
    seen: _Seen, noise2: float, frames: int
) -> Iterator[tuple[float, float, float]]:
    """Mean, variance and its error of pixels that should be about as bright."""
    brightest = max(float(seen.expected.max()), 1e-9)
    for low, high in pairwise(np.geomspace(brightest / 200, brightest * 1.001, 9)):
        inside = (seen.expected >= low) & (seen.expected < high) & seen.used
        pixels = int(inside.sum())
        if pixels >= LEAST_PIXELS:
            got = float(seen.variance[inside].mean())
            error = (max(got, 0.0) + noise2) * math.sqrt(2 / ((frames - 1) * pixels))
            yield float(seen.level[inside].mean()), got, error


@dataclass(frozen=True, eq=False)
class Linearity:
    """How straight the brightest pixels' response is.

    Parameters
    ----------
    percent, error
        Greatest deviation of the smooth response from its straight line.
    share, deviation, deviation_error
        Points: share of saturation, and deviation from the line in percent.
    """

    percent: float
    error: float
    share: Array
    deviation: Array
    deviation_error: Array


def fit_linearity(
    stacks: Sequence[Stack], dark: Dark, gain: float, saturation_dn: float
) -> Linearity | None:
    """Compare the response of bright pixels with a straight line.

    Parameters
    ----------
    stacks
        One pattern at several exposure times, up to saturation if that is reached.
    dark
        The sensor without light.
    gain
        Counts an electron.
    saturation_dn
        Count at which pixels saturate.

    Returns
    -------
    linearity
        None where no pixel covers enough of the range.
    """
    times = np.array([stack.exposure_s for stack in stacks])
    nominal = np.median(np.concatenate([stack.power_mw for stack in stacks]))
    room = saturation_dn - dark.offset_dn
    level = np.array(
        [
            ((stack.frames - dark.level_dn) * (nominal / stack.power_mw)[:, None]).mean(
                axis=0
            )
            for stack in stacks
        ]
    )
    unclipped = np.array(
        [(stack.frames < 0.98 * saturation_dn).all(axis=0) for stack in stacks]
    )
    share = level / room
    good = (share > LINEAR_LOW) & (share < LINEAR_HIGH) & unclipped
    covered = np.where(good, share, 0).max(axis=0) > COVERED
    covered[dark.hot] = False
    good &= covered
    if good.sum() < 6:
        return None
    weight = np.where(good, 1 / np.maximum(level, 1.0), 0.0)
    # Each pixel has its own slope, all of them one bend: y = s t (1 + q (y / room)).
    slope = (weight * level * times[:, None]).sum(axis=0) / np.maximum(
        (weight * times[:, None] ** 2).sum(axis=0), 1e-300
    )
    straight = slope * times[:, None]
    row, column = np.nonzero(good)
    at, got = share[row, column], level[row, column] / straight[row, column] - 1
    counts = np.array([len(stack.frames) for stack in stacks])[row]
    error = np.sqrt(gain * level[row, column] / counts) / level[row, column]
    # The scatter of the points themselves, where it is more than shot noise: the
    # beam trembles on the brightest pixel.
    bend, bend_error = _bend(at, got, error, column)
    edges = np.linspace(LINEAR_LOW, LINEAR_HIGH, 10)
    points = [
        (float(at[part].mean()), *_mean(got[part], error[part]))
        for low, high in pairwise(edges)
        if (part := (at >= low) & (at < high)).any()
    ]
    found = np.array(points).T
    width = LINEAR_HIGH - LINEAR_LOW
    # A bend of q deviates from its best line by q w / 8 at most, w the width.
    factor = 100 * width / 8
    return Linearity(
        abs(bend) * factor,
        bend_error * factor,
        found[0],
        100 * found[1],
        100 * found[2],
    )


def _bend(
    at: Array, got: Array, error: Array, pixel: NDArray[np.int64]
) -> tuple[float, float]:
    """Slope of the deviation over the share, each pixel with its own offset."""
    weight = 1 / error**2
    x, y = at.copy(), got.copy()
    for each in np.unique(pixel):
        mine = pixel == each
        x[mine] -= np.average(at[mine], weights=weight[mine])
        y[mine] -= np.average(got[mine], weights=weight[mine])
    total = float((weight * x**2).sum())
    bend = float((weight * x * y).sum()) / total
    freedom = max(len(x) - len(np.unique(pixel)) - 1, 1)
    chi2 = float((weight * (y - bend * x) ** 2).sum()) / freedom
    return bend, math.sqrt(max(chi2, 1.0) / total)


def _mean(values: Array, error: Array) -> tuple[float, float]:
    weight = 1 / error**2
    return float(np.average(values, weights=weight)), 1 / math.sqrt(weight.sum())


def light_for_linearity(
    stacks: Sequence[Stack], dark: Dark, saturation_dn: float
) -> float:
    """Say how many times the light lets pixels cover half of their range.

    Parameters
    ----------
    stacks
        One pattern at several exposure times.
    dark
        The sensor without light.
    saturation_dn
        Count at which pixels saturate.

    Returns
    -------
    times
        The light that is there; infinite without any.
    """
    level = max(
        float(np.delete(stack.frames.mean(axis=0) - dark.level_dn, dark.hot).max())
        for stack in stacks
    )
    room = saturation_dn - dark.offset_dn
    return COVERED * room / level if level > 0 else math.inf


def reached_saturation(stacks: Sequence[Stack], dark: Dark) -> float | None:
    """Find the count at which the brightest pixel stops to grow.

    Parameters
    ----------
    stacks
        One pattern at several exposure times, rising.
    dark
        The sensor without light.

    Returns
    -------
    saturation_dn
        None where it still grows at the longest exposure.
    """
    pixel = int(stacks[-1].frames.mean(axis=0).argmax())
    rates = [
        (float(stack.frames[:, pixel].mean()) - dark.level_dn[pixel]) / stack.exposure_s
        for stack in stacks
    ]
    last = stacks[-1].frames[:, pixel]
    still = float(last.std()) < 1e-3 * float(last.mean())
    return float(last.max()) if rates[-1] < 0.9 * max(rates) and still else None


def zero_bits(frames: NDArray[np.uint16]) -> int:
    """Count the low bits that are 0 in every pixel of every frame."""
    seen = int(np.bitwise_or.reduce(frames, axis=None))
    return (seen & -seen).bit_length() - 1 if seen else 0


# ---- the procedure ---------------------------------------------------------------


def measure(stand: Stand, limits: Mapping[str, float]) -> Finding:
    """Measure the camera with the bench's own light.

    Parameters
    ----------
    stand
        The bench.
    limits
        Of the merits.

    Returns
    -------
    finding
        Dark level, gain, noise, saturation, linearity.

    Raises
    ------
    OutcomeError
        No light, too little or too much, an unstable source, or bits that never
        change.
    """
    longest = stand.longest_s
    dark_stacks = _darks(stand, longest)
    dark = fit_dark(dark_stacks)
    stand.light(stand.nominal_mw)
    spread = _stacks(stand, "photon transfer", _spread(stand), longest, FRAMES)
    _require_light(stand, spread[-1], dark, dark_stacks[-1])
    _require_room(stand, spread[0])
    _require_steady(spread)
    spot = _stacks(stand, "saturation", stand.flat(), longest, SPOT_FRAMES)
    stand.dark()  # what follows may take longer than a heartbeat
    declared = float(stand.bench.camera.saturation_dn)
    reached = reached_saturation(spot, dark)
    saturation = declared if reached is None else reached
    transfer = fit_transfer(spread, dark, saturation)
    straight = fit_linearity(spot, dark, transfer.gain_dn_per_e, saturation)
    _require_bits(spot[-1])
    finding = _finding(stand, dark, transfer, straight, reached, limits)
    remarks = _short(
        None if straight else light_for_linearity(spot, dark, saturation), reached
    )
    return replace(finding, remarks=(*remarks, *finding.remarks))


def _short(times: float | None, reached: float | None) -> list[str]:
    """Say what the light was not enough for, and how much would be."""
    remarks = []
    if reached is None:
        remarks.append(
            "saturation was not reached: take more light, or a longer exposure, to "
            "measure it."
        )
    if times is not None:
        remarks.append(
            "no pixel covers half of its range: linearity was not measured, nor "
            f"judged. It can be had at {times:.2g} times the light: take a filter "
            "away, raise the power, or allow a longer exposure (limits.exposure_s)."
        )
    return remarks


def _darks(stand: Stand, longest: float) -> list[Stack]:
    stand.dark()
    stacks = []
    for number, share in enumerate((0.01, 0.25, 0.5, 1.0)):
        stand.stage("dark frames", number, 4)
        stand.configure(max(share * longest, stand.shortest_s))
        stacks.append(_stack(stand.repeated(stand.flat(), DARKS)))
    return stacks


def _stack(exposed: Exposed) -> Stack:
    frames = exposed.frames.reshape(len(exposed.frames), -1).astype(np.float64)
    return Stack(frames, exposed.exposure_s, exposed.power_mw)


def _spread(stand: Stand) -> Levels:
    """Random levels of large blocks: light on as many pixels as can be."""
    rows, columns = (min(16, side) for side in stand.panel)
    drawn = np.random.default_rng(1).integers(0, stand.levels, (rows, columns))
    height, width = (-(-side // 16) for side in stand.panel)
    tiled = drawn.repeat(height, axis=0).repeat(width, axis=1)
    return stand.as_levels(tiled[None, : stand.panel[0], : stand.panel[1]])


def _stacks(
    stand: Stand, stage: str, panel: Levels, longest: float, count: int
) -> list[Stack]:
    shares = (0.03, 0.06, 0.1, 0.15, 0.2, 0.26, 0.33, 0.42, 0.55, 0.75, 1.0)
    stacks = []
    for number, share in enumerate(shares):
        stand.stage(stage, number, len(shares))
        stand.configure(max(share * longest, stand.shortest_s))
        stacks.append(_stack(stand.repeated(panel, count)))
    return stacks


def _require_light(stand: Stand, stack: Stack, dark: Dark, without: Stack) -> None:
    """Refuse frames that are no brighter than those without light.

    Raises
    ------
    OutcomeError
        They are not; says where the light is lost, or how much more is needed.
    """
    level = stack.frames.mean(axis=0) - dark.level_dn
    level -= dark.dark_dn_per_s * stack.exposure_s
    level[dark.hot] = 0
    noise = math.sqrt(2 * (dark.variance_dn2 + QUANTISATION_DN2) / len(stack.frames))
    drift = dark.dark_error * stack.exposure_s * level.size
    needed = LIT * (noise * math.sqrt(level.size) + drift)
    if level.sum() > needed:
        return
    # A flat pattern holds what little there is together.
    stand.stage("faint light")
    flat = _stack(stand.repeated(stand.flat(), len(stack.frames)))
    counts = 1 / len(stack.frames) + 1 / len(without.frames)
    noise = math.sqrt(counts * float(without.frames.var(axis=0, ddof=1).mean()))

    def look(shown: Stack) -> Glimpse:
        above = shown.frames.mean(axis=0) - without.frames.mean(axis=0)
        above[dark.hot] = 0
        frame = above.reshape(stand.frame)
        return glimpse(frame, noise, needed, "counts", shown.exposure_s)

    seen = max(look(stack), look(flat), key=lambda each: each.is_seen)
    exposed = Exposed(
        np.zeros((0, 1, 1), np.uint16), stack.power_mw, np.zeros(0), stack.exposure_s
    )
    text = f"camera: {stand.why_dark(exposed, seen)}"
    raise OutcomeError(text)


def _require_room(stand: Stand, stack: Stack) -> None:
    """Refuse light that saturates the sensor however short it is exposed.

    Raises
    ------
    OutcomeError
        It does, in more than a tenth of the pixels.
    """
    saturation_dn = stand.bench.camera.saturation_dn
    share = float((stack.frames >= saturation_dn).mean())
    if share > MOST_SATURATED:
        text = (
            f"camera: saturated: {100 * share:.0f} % of the pixels at exposure_s="
            f"{stack.exposure_s:g} and power_mw={stand.nominal_mw:g}, expected at most "
            f"{100 * MOST_SATURATED:.0f} % at {saturation_dn} counts. Put a filter "
            "before the camera."
        )
        raise OutcomeError(text)


def _require_steady(stacks: Sequence[Stack]) -> None:
    """Refuse light whose power changes too much from shot to shot.

    Raises
    ------
    OutcomeError
        It does.
    """
    powers = np.concatenate([stack.power_mw for stack in stacks])
    spread = float(powers.std() / powers.mean())
    if spread > 0.05:
        text = (
            f"camera: unstable source: power changes by {100 * spread:.1f} % from shot "
            "to shot, expected at most 5 %. Let the laser warm up."
        )
        raise OutcomeError(text)


def _require_bits(stack: Stack) -> None:
    """Refuse counts whose low bits never change.

    Raises
    ------
    OutcomeError
        They are left-justified.
    """
    zeros = zero_bits(stack.frames.astype(np.uint16))
    if zeros:
        text = (
            f"camera: the low {zeros} bits of every count are 0, expected counts that "
            "are right-justified. Choose another pixel format in the driver's options, "
            f"or name padding: {zeros} there."
        )
        raise OutcomeError(text)


def _finding(
    stand: Stand,
    dark: Dark,
    transfer: Transfer,
    straight: Linearity | None,
    reached: float | None,
    limits: Mapping[str, float],
) -> Finding:
    gain, gain_error = transfer.gain_dn_per_e, transfer.gain_error
    own2 = max(dark.variance_dn2 - QUANTISATION_DN2, 0.0)
    noise_e = math.sqrt(own2) / gain
    noise_error = noise_e * math.hypot(
        dark.variance_error / max(2 * own2, 1e-12), gain_error / gain
    )
    (top, left), columns = stand.corner, stand.frame[1]
    hot = (f"{dark.hot.size} hot pixels are left out.",) if dark.hot.size else ()
    merits = [
        Merit(
            "gain_error_percent",
            100 * gain_error / gain,
            math.nan,
            limits["gain_error_percent"],
            remedy=MORE_LIGHT,
        )
    ]
    if straight is not None:
        merits.append(
            Merit(
                "linearity_percent",
                straight.percent,
                straight.error,
                limits["linearity_percent"],
            )
        )
    return Finding(
        values={
            "offset_dn": dark.offset_dn,
            "dark_dn_per_s": dark.dark_dn_per_s,
            "gain_dn_per_e": gain,
            "read_noise_e": noise_e,
            "saturation_dn": reached,
            "hot_px": [
                [top + int(p) // columns, left + int(p) % columns] for p in dark.hot
            ],
        },
        quantities={
            "offset_dn": Quantity(dark.offset_dn, dark.offset_error, 0.02 * gain),
            "dark_dn_per_s": Quantity(dark.dark_dn_per_s, dark.dark_error, 1.0),
            "gain_dn_per_e": Quantity(gain, gain_error, 0.01 * gain),
            "read_noise_e": Quantity(noise_e, noise_error, 0.05 * noise_e),
            "dsnu_e": Quantity(dark.spread_dn / gain, 0.05 * dark.spread_dn / gain),
        },
        merits=tuple(merits),
        figures=_figures(transfer, straight, dark),
        conditions={
            "power_mw": stand.nominal_mw,
            "longest_exposure_s": stand.longest_s,
        },
        remarks=hot,
    )


def _figures(
    transfer: Transfer, straight: Linearity | None, dark: Dark
) -> tuple[Figure, ...]:
    order = np.argsort(transfer.mean_dn)
    mean = transfer.mean_dn[order]
    figures = [
        Figure(
            "photon-transfer",
            "Photon transfer",
            "Variance of a pixel from frame to frame, above that in the dark, over its "
            f"mean. The slope is the gain: {transfer.gain_dn_per_e:.4g} counts an "
            "electron; in the dark the noise is "
            f"{math.sqrt(dark.variance_dn2):.3g} counts.",
            "mean above the dark (counts)",
            "variance above the dark (counts²)",
            (
                Series(
                    "measured", mean, transfer.variance_dn2[order],
                    transfer.error_dn2[order],
                ),
                Series(
                    "fit",
                    mean,
                    transfer.gain_dn_per_e * mean,
                    is_line=True,
                ),
            ),
            "loglog",
        )
    ]  # fmt: skip
    if straight is not None:
        figures.append(
            Figure(
                "linearity",
                "Linearity",
                "Deviation of the brightest pixels from a straight line over exposure. "
                "What judges is the bend that all points share: "
                f"{straight.percent:.2g} %.",
                "share of saturation",
                "deviation (%)",
                (
                    Series(
                        "measured", straight.share, straight.deviation,
                        straight.deviation_error,
                    ),
                ),
            )
        )  # fmt: skip
    return tuple(figures)


KIND = Kind(
    name="camera",
    text="dark level, gain, noise, linearity and saturation of the camera",
    of=("camera",),
    measure=measure,
    valid_days=90.0,
    limits={"gain_error_percent": 2.0, "linearity_percent": 0.5},
)
