"""Patterns that procedures share, and the power at which a medium is linear."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labctl.calibrate.stand import Stand
from labctl.calibration import PanelMap
from labctl.devices import Levels
from labctl.errors import OutcomeError
from labctl.reservoir import pixel_scale

Array = NDArray[np.float64]
# By how much frames differ, as a share of their light, and its error.
_Gap = tuple[float, float]
# Frames that tell whether the medium is linear; most of them where light is faint.
FRAMES, FAINT = 12, 64
# Frames of a tilt that show whether the camera looks at the far field; share of the
# light that must go along with it. None does elsewhere; with a bowed panel before a
# medium a twelfth did.
VIEWED, GONE_ALONG = 4, 0.03
# How much a frame may differ from that of a quarter of the power, a unit of light, rms:
# as much as 3 % from that of half of it, where light is faint. Halvings to a quarter;
# and powers that are tried, each half of the one before.
LINEAR = 0.045
QUARTER = 2
HALVINGS = 8
# Where a medium changes frames by so little, and by at most such a share of what it
# does at twice the power, half of the power does half as much, to first order in the
# light. Where it begins to saturate the share is greater, and that at half of the power
# is this part of the way nearer to a half. What is expected so is sure to a tenth.
FIRST_ORDER, ALONG, NEARER, UNCERTAIN = 2 * LINEAR, 0.75, 0.6, 0.1
# Power of what patterns differ by, as a share of that of a frame, below which a panel
# does not modulate; and standard errors that it takes to say so.
STILL, SURE = 1e-3, 4.0


class Painter:
    """Turns phases into levels of the panel, by the curve in force.

    Parameters
    ----------
    stand
        The bench.
    is_corrected
        Whether the wavefront is corrected, as far as that is in force.
    """

    def __init__(self, stand: Stand, *, is_corrected: bool = False) -> None:
        self._scale = pixel_scale(stand.bench.phase_curve_rad(), stand.panel)
        found = stand.correction_rad if is_corrected else None
        self._correction = np.zeros(stand.panel) if found is None else found
        height, width = stand.panel
        # From the middle, in pixels.
        self.row = (np.arange(height) - (height - 1) / 2)[:, None]
        self.column = (np.arange(width) - (width - 1) / 2)[None]

    def levels(self, phase_rad: Array) -> Levels:
        """Levels of phases ``(pattern, row, column)``."""
        return self._scale.levels(phase_rad + self._correction)

    def tilt(self, tilts: Array) -> Array:
        """Phases that send the light to a direction each.

        Parameters
        ----------
        tilts
            Cycles a panel pixel, along rows and columns, ``(pattern, 2)``.

        Returns
        -------
        phase_rad
            ``(pattern, row, column)``.
        """
        rows, columns = tilts[:, 0, None, None], tilts[:, 1, None, None]
        phase: Array = 2 * math.pi * (rows * self.row + columns * self.column)
        return phase


def gone_along(stand: Stand) -> float:
    """Share of the light that goes where ``mapping`` says that two tilts send it.

    Parameters
    ----------
    stand
        The bench; its light and exposure are changed.

    Returns
    -------
    share
        Of all light; about 0 where the camera does not look at the far field.

    Raises
    ------
    OutcomeError
        There is no light.
    """
    painter, mapped = Painter(stand), stand.calibrated(PanelMap)
    tilts = stand.bench.file.calibrate.reach_cycles_px * np.array(
        [[0.8, 1], [-0.8, -1]]
    )
    panel = painter.levels(painter.tilt(tilts))
    stand.stage("view")
    stand.light(stand.nominal_mw)
    stand.brighten(panel)
    exposed = stand.repeated(panel, VIEWED)
    level = (stand.power_mw / exposed.power_mw)[:, None, None]
    seen = (
        (stand.signal_e(exposed) * level).reshape(2, VIEWED, *stand.frame).mean(axis=1)
    )
    places = mapped.places(tilts) - stand.corner
    half = max(2, int(np.linalg.norm(places[0] - places[1]) / 4))
    moved = 0.0
    for place, sign in zip(places.round().astype(int), (1, -1), strict=True):
        rows, columns = (slice(max(at - half, 0), at + half + 1) for at in place)
        moved += sign * float((seen[0] - seen[1])[rows, columns].sum())
    return moved / max(float(seen.sum()), 1.0)


def require_far_field(stand: Stand) -> None:
    """Refuse a camera that nobody moved to the far field.

    Parameters
    ----------
    stand
        The bench; its light and exposure are changed.

    Raises
    ------
    OutcomeError
        Light does not go where ``mapping`` says that a tilt sends it.
    """
    share = gone_along(stand)
    if share < GONE_ALONG:
        text = (
            f"{stand.name}: {100 * share:.1f} % of the light goes where mapping says "
            f"that a tilt sends it, expected at least {100 * GONE_ALONG:.0f} %: the "
            "camera does not look at the far field as it did. Move it there; if it "
            "came back elsewhere, measure mapping again."
        )
        raise OutcomeError(text)


def linear_power(
    stand: Stand, panel: Levels, frames: int = FRAMES, most: int = 0
) -> float:
    """Find a power at which frames go along with it, and light it.

    They are compared with those of a quarter of the power, as what patterns differ by.
    Half of it would not tell: where a medium saturates, frames of twice the power
    differ by little however far both are from those of a faint beam. What all patterns
    share is left out: the dark of each pixel is in it, which does not go along, and
    which faint frames show as much of as of light.

    Parameters
    ----------
    stand
        The bench; its light is changed, and its exposure is the longest.
    panel
        A few patterns of the kind that will be shown, at least two.
    frames
        Of each at each power.
    most
        Up to so many where those hold too few photons to tell.

    Returns
    -------
    power_mw
        The greater of two powers that were compared.

    Raises
    ------
    OutcomeError
        There is no such power with light enough to tell, or too much of it.
    """
    stand.stage("linear power")
    seen: list[_Seen] = []
    gap, power_mw = math.inf, stand.nominal_mw
    before, expected = 0.0, None
    for halving in range(HALVINGS):
        while len(seen) <= halving + QUARTER:
            power_mw = stand.nominal_mw / 2 ** len(seen)
            seen.append(_see(stand, panel, power_mw, frames))
        power_mw = seen[halving].power_mw
        if seen[halving].is_saturated:
            continue
        pair, (gap, error) = _compared(
            stand, panel, (seen[halving], seen[halving + QUARTER]), most, expected
        )
        seen[halving], seen[halving + QUARTER] = pair
        if error > 2 * LINEAR:
            raise OutcomeError(_unseen(stand, panel, power_mw, gap, error))
        if gap <= LINEAR:
            stand.light(power_mw)
            return power_mw
        expected, before = _at_half((gap, error), before), gap
    if seen[0].is_saturated:
        # A filter comes first: so little of the power may not be steady.
        stand.light(stand.nominal_mw)
        stand.configure(stand.shortest_s)
        stand.require_unsaturated(stand.expose(panel))
    text = (
        f"{stand.name}: the medium is not linear: at power_mw={power_mw:.3g} a quarter "
        f"of the light still changes the frame by {100 * gap:.0f} %, expected at most "
        f"{100 * LINEAR:.2g} %. Take the medium out of the path, or dim the beam."
    )
    raise OutcomeError(text)


def _unseen(
    stand: Stand, panel: Levels, power_mw: float, gap: float, error: float
) -> str:
    """Say why patterns do not show how linear the medium is."""
    grouped, _ = _frames(stand, panel, stand.nominal_mw, FRAMES)
    mean, noise = grouped.mean(axis=1), grouped.var(axis=1, ddof=1) / FRAMES
    common = mean.mean(axis=0)
    apart2 = float(((mean - common) ** 2).sum() - noise.sum() * (1 - 1 / len(panel)))
    unsure2 = SURE * math.sqrt(2 * float((noise**2).sum()))
    if apart2 + unsure2 < STILL * len(panel) * float((common**2).sum()):
        return (
            f"{stand.name}: the panel does not modulate: patterns change the light by "
            f"less than {100 * math.sqrt(STILL):.0f} %, expected them to send it "
            "elsewhere. Look at its cable, its polarisation and whether it is awake."
        )
    needed = min((error / (2 * LINEAR)) ** 2, 1e6)
    beside = (
        ""
        if stand.is_whole
        else " Or it falls beside calibrate.region of the bench file: make that "
        "larger, or calibrate.reach_cycles_px smaller."
    )
    return (
        f"{stand.name}: too few photons: at power_mw={power_mw:.3g} a quarter of the "
        f"light changes the frame by {100 * gap:.0f} ± {100 * error:.0f} %, expected "
        f"an error below {200 * LINEAR:.2g} %. It can be had at about {needed:.2g} "
        "times the light: take a filter away, or allow a longer exposure "
        f"(limits.exposure_s).{beside}"
    )


@dataclass(frozen=True, eq=False)
class _Seen:
    """How frames at a power, a unit of it, differ by ``(pattern, pixel)``.

    Parameters
    ----------
    power_mw
        The power.
    mean, variance
        Of the differences from what all patterns share, and of their error.
    count
        Frames of each pattern.
    is_saturated
        Whether some were at the shortest exposure.
    """

    power_mw: float
    mean: Array
    variance: Array
    count: int
    is_saturated: bool = False


def _see(stand: Stand, panel: Levels, power_mw: float, count: int) -> _Seen:
    grouped, is_saturated = _frames(stand, panel, power_mw, count)
    variance = grouped.var(axis=1, ddof=1) / count * (1 - 1 / len(panel))
    mean = grouped.mean(axis=1)
    return _Seen(power_mw, mean - mean.mean(axis=0), variance, count, is_saturated)


def _compared(
    stand: Stand,
    panel: Levels,
    pair: tuple[_Seen, _Seen],
    most: int,
    expected: _Gap | None,
) -> tuple[tuple[_Seen, _Seen], _Gap]:
    """Say how far two powers are apart, with more frames where these do not tell."""
    above, below = pair
    gap, error = _joined(_distance(above, below), expected)
    count = 2 * max(above.count, below.count)
    while _is_open(gap, error) and count <= most:
        above = _longer(stand, panel, above, count)
        below = _longer(stand, panel, below, count)
        gap, error = _joined(_distance(above, below), expected)
        count *= 2
    return (above, below), (gap, error)


def _at_half(gap: _Gap, before: float) -> _Gap | None:
    """Say what half of a power is expected to do, after what twice the power did."""
    share, error = gap
    if not 0 < share <= min(FIRST_ORDER, ALONG * before):
        return None
    along = 0.5 + NEARER * max(share / before - 0.5, 0.0)
    least = share * math.sqrt(2 * UNCERTAIN)
    return along * share, along * max(error, least)


def _joined(gap: _Gap, expected: _Gap | None) -> _Gap:
    """Take what was seen and what was expected together, by what each is sure of.

    Squares of gaps are what has a standard error: the square of the error of each.
    """
    if expected is None:
        return gap
    seen, known = (max(error, 1e-12) ** -4 for _, error in (gap, expected))
    square = (seen * gap[0] ** 2 + known * expected[0] ** 2) / (seen + known)
    return math.sqrt(square), (seen + known) ** -0.25


def _longer(stand: Stand, panel: Levels, seen: _Seen, count: int) -> _Seen:
    """Add frames to some until they are so many."""
    added = count - seen.count
    if added <= 0:
        return seen
    more = _see(stand, panel, seen.power_mw, added)
    old, new = seen.count / count, added / count
    return _Seen(
        seen.power_mw,
        old * seen.mean + new * more.mean,
        old**2 * seen.variance + new**2 * more.variance,
        count,
        seen.is_saturated or more.is_saturated,
    )


def _frames(
    stand: Stand, panel: Levels, power_mw: float, count: int
) -> tuple[Array, bool]:
    """Frames at a power, a unit of power and time, ``(pattern, frame, pixel)``.

    And whether they are saturated however short they are exposed.
    """
    stand.light(power_mw)
    stand.configure(stand.longest_s)
    while True:
        exposed = stand.repeated(panel, count)
        if exposed.frames.max() < 0.9 * stand.bench.camera.saturation_dn:
            break
        if exposed.exposure_s <= stand.shortest_s:
            break
        stand.configure(max(exposed.exposure_s / 4, stand.shortest_s))
    stand.require_light(exposed)
    rate = 1 / (exposed.power_mw * exposed.exposure_s)
    frames = stand.signal_e(exposed) * rate[:, None, None]
    grouped: Array = frames.reshape(len(panel), count, -1)
    return grouped, stand.is_saturated(exposed)


def _is_open(gap: float, error: float) -> bool:
    """Whether noise could have a frame on either side of :data:`LINEAR`."""
    return error > 2 * LINEAR or (
        error > LINEAR / 2 and abs(gap**2 - LINEAR**2) < 2 * error**2
    )


def _distance(above: _Seen, below: _Seen) -> tuple[float, float]:
    """Difference of two frames as a share of their light, rms, and its noise."""
    gap2 = float(((above.mean - below.mean) ** 2).sum())
    noise = above.variance + below.variance
    hidden2 = math.sqrt(2 * float((noise**2).sum()))
    # Patterns that do not differ at all have no share: nothing is known.
    light2 = max(float((above.mean * below.mean).sum()), 1e-6 * hidden2, 1e-300)
    gap = math.sqrt(max(gap2 - float(noise.sum()), 0.0) / light2)
    return gap, math.sqrt(hidden2 / light2)
