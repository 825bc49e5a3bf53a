"""Kind ``mapping``: where on the camera light goes that the panel sends somewhere.

Blazed patterns send the light to many directions, one after the other, and the middle
of the spot of each is found on the camera. A straight-line map leads from tilts, in
cycles a panel pixel, to camera pixels; terms of second order are taken in where they
lower the error on spots that the fit has not seen. Each spot is known by the pattern
that made it, so mirrored and turned maps are told apart: the parity is the sign of the
map's determinant, and it must be certain. A correction of the wavefront that is in
force is on the panel meanwhile, as it is in a run: it moves spots.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

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
from labctl.calibrate.patterns import FAINT, Painter, linear_power
from labctl.calibrate.stand import Stand
from labctl.devices import Levels
from labctl.errors import OutcomeError

Array = NDArray[np.float64]
SPOTS, HELD_OUT, FRAMES = 24, 10, 12
# Tilts are at least so many cycles over the panel: away from the light that stays in
# the middle. The bench file says how steep they may be.
LEAST = 4.0
# Half of the side of the window in which a spot's middle is found, in units of the
# smallest spot that the panel can make.
WINDOW = 2.0
# A spot must hold so much of the light, and the map be so certain of its parity.
SHARE, CERTAIN = 0.2, 8.0
# So many spots may be somewhere else altogether.
ASTRAY = 2


@dataclass(frozen=True, eq=False)
class Affine:
    """A map from tilts to camera pixels.

    Parameters
    ----------
    terms, spread
        Of each axis, ``(term, axis)``: offset, rows, columns, and where they pay their
        squares and product; and the covariance of the terms of one axis.
    error_px
        Scatter of one spot along one axis.
    """

    terms: Array
    spread: Array
    error_px: float

    def __call__(self, tilts: Array) -> Array:
        """Camera pixels of tilts ``(spot, 2)``."""
        places: Array = _design(tilts, len(self.terms)) @ self.terms
        return places

    @property
    def matrix(self) -> Array:
        """Change of row and column with the tilt along rows and columns."""
        return self.terms[1:3].T

    @property
    def certainty(self) -> float:
        """How many standard errors the determinant is from 0."""
        (a, b), (c, d) = self.matrix
        rows, columns = self.spread[1, 1], self.spread[2, 2]
        variance = (d**2 + b**2) * rows + (a**2 + c**2) * columns
        return float(abs(a * d - b * c)) / max(math.sqrt(variance), 1e-300)

    @property
    def is_mirrored(self) -> bool:
        """Whether the camera sees the panel's directions as in a mirror."""
        return float(np.linalg.det(self.matrix)) < 0


def _design(tilts: Array, terms: int) -> Array:
    rows, columns = tilts.T
    every = [np.ones_like(rows), rows, columns, rows**2, rows * columns, columns**2]
    return np.stack(every[:terms], axis=1)


def fit_map(tilts: Array, spots: Array, terms: int = 3) -> Affine:
    """Fit a map to spots.

    Parameters
    ----------
    tilts
        Cycles a panel pixel, ``(spot, 2)``.
    spots
        Row and column on the camera, ``(spot, 2)``.
    terms
        3 for a straight-line map, 6 with terms of second order.

    Returns
    -------
    map
        With its errors.
    """
    design = _design(tilts, terms)
    found: Array = np.asarray(np.linalg.lstsq(design, spots, rcond=None)[0], np.float64)
    rest = spots - design @ found
    freedom = max(2 * (len(spots) - terms), 1)
    error = math.sqrt(float((rest**2).sum()) / freedom)
    spread: Array = np.asarray(np.linalg.inv(design.T @ design), np.float64)
    spread *= error**2
    return Affine(found, spread, error)


def residual(mapped: Affine, tilts: Array, spots: Array) -> float:
    """Distance of spots from where a map puts them, rms, in pixels."""
    gap = mapped(tilts) - spots
    return math.sqrt(float((gap**2).sum(axis=1).mean()))


def require_certain(mapped: Affine, name: str) -> None:
    """Refuse a map whose determinant may be 0.

    Parameters
    ----------
    mapped
        The map.
    name
        Kind of the calibration, for the message.

    Raises
    ------
    OutcomeError
        It may.
    """
    if mapped.certainty < CERTAIN:
        text = (
            f"{name}: parity is not certain: the determinant is "
            f"{mapped.certainty:.1f} standard errors from 0, expected {CERTAIN:g}. "
            "Look for spots that are not where the panel sends them."
        )
        raise OutcomeError(text)


def require_parity(mapped: Affine, tilts: Array, spots: Array) -> None:
    """Refuse a map that does not know whether it is mirrored or turned.

    Parameters
    ----------
    mapped
        The map.
    tilts, spots
        Held out, ``(spot, 2)``.

    Raises
    ------
    OutcomeError
        Its determinant may be 0, or a mirrored or turned map fits as well.
    """
    require_certain(mapped, "mapping")
    own = residual(mapped, tilts, spots)
    turns = {
        "mirrored": tilts * [1, -1],
        "turned by half a turn": -tilts,
        "turned by a quarter": tilts[:, ::-1] * [1, -1],
        "transposed": tilts[:, ::-1],
    }
    for name, other in turns.items():
        if residual(mapped, other, spots) < 3 * own:
            text = (
                f"mapping: the {name} map fits the held-out spots as well "
                f"({own:.2g} px), expected it not to. It is refused."
            )
            raise OutcomeError(text)


def middle(frame: Array, half: int) -> tuple[Array, float]:
    """Find the middle of the brightest spot, and the share of the light in it.

    Parameters
    ----------
    frame
        Electrons, ``(row, column)``.
    half
        Half of the side of the window around the brightest pixel.

    Returns
    -------
    place, share
        Row and column, and the light within the window over all light.
    """
    row, column = (int(at) for at in np.unravel_index(frame.argmax(), frame.shape))
    rows = np.arange(max(row - half, 0), min(row + half + 1, frame.shape[0]))
    columns = np.arange(max(column - half, 0), min(column + half + 1, frame.shape[1]))
    window = np.maximum(frame[np.ix_(rows, columns)], 0.0)
    total = max(float(window.sum()), 1e-300)
    place = np.array(
        [
            float(window.sum(axis=1) @ rows) / total,
            float(window.sum(axis=0) @ columns) / total,
        ]
    )
    return place, total / max(float(frame.sum()), total)


# ---- the procedure ---------------------------------------------------------------


def measure(stand: Stand, limits: Mapping[str, float]) -> Finding:
    """Measure where the panel's directions are on the camera.

    Parameters
    ----------
    stand
        The bench.
    limits
        Of the merits.

    Returns
    -------
    finding
        The map.

    Raises
    ------
    OutcomeError
        No light, no spots, or a map whose parity is not certain.
    """
    painter = Painter(stand, is_corrected=True)
    tilts = directions(stand, SPOTS + HELD_OUT)
    panel = painter.levels(painter.tilt(tilts))
    power_mw = linear_power(stand, panel[:4], most=FAINT)
    kept, places = find_spots(stand, tilts, panel)
    lost = float(len(kept) - kept.sum())
    conditions = {"power_mw": power_mw, "spots_left_out": lost}
    return _finding(tilts[kept], places[kept], limits, conditions)


def directions(stand: Stand, count: int) -> Array:
    """Choose tilts all around, in random order, that the camera sees.

    Parameters
    ----------
    stand
        The bench.
    count
        How many.

    Returns
    -------
    tilts
        Cycles a panel pixel, ``(spot, 2)``.
    """
    most = stand.bench.file.calibrate.reach_cycles_px
    return _tilts(count, LEAST / min(stand.panel), most)


def find_spots(
    stand: Stand, tilts: Array, panel: Levels
) -> tuple[NDArray[np.bool_], Array]:
    """Find the middle of the spot of each of some directions.

    Parameters
    ----------
    stand
        The bench, lit.
    tilts
        Cycles a panel pixel, ``(spot, 2)``.
    panel
        Patterns that send the light there, ``(spot, row, column)``.

    Returns
    -------
    kept, places
        Which spots are to be trusted, ``(spot,)``; and row and column of all on the
        sensor, ``(spot, 2)``.

    Raises
    ------
    OutcomeError
        No light, or no spots.
    """
    stand.brighten(panel[:8])
    stand.stage("spots")
    exposed = stand.repeated(panel, FRAMES)
    stand.require_light(exposed)
    shape = (len(panel), FRAMES, *exposed.frames.shape[1:])
    frames = stand.signal_e(exposed).reshape(shape).mean(axis=1)
    spots = np.stack([middle(frame, 0)[0] for frame in frames])
    # The smallest spot is one cycle over the panel wide.
    scale = math.sqrt(abs(float(np.linalg.det(fit_map(tilts, spots).matrix))))
    half = max(2, math.ceil(WINDOW * scale / min(stand.panel)))
    shares = np.empty(len(frames))
    for number, frame in enumerate(frames):
        spots[number], shares[number] = middle(frame, half)
    kept = in_line(tilts, spots, half)
    for share in shares[kept]:
        if share < SHARE:
            text = (
                f"{stand.name}: no spot: {100 * share:.0f} % of the light is where it "
                f"is brightest, expected {100 * SHARE:g} %. A scatterer in the path "
                "makes that, or a phase curve of another wavelength."
            )
            raise OutcomeError(text)
    return kept, spots + np.array(stand.corner)


def in_line(tilts: Array, spots: Array, half: int) -> NDArray[np.bool_]:
    """Say which spots a straight map of the others finds in their window.

    A direction whose light is spread may have something else brighter on its frame.

    Parameters
    ----------
    tilts, spots
        ``(spot, 2)``.
    half
        Half of the side of the window around a spot.

    Returns
    -------
    kept
        All but at most :data:`ASTRAY`, ``(spot,)``.
    """
    kept = np.ones(len(tilts), dtype=bool)
    for _ in range(ASTRAY):
        off = np.abs(fit_map(tilts[kept], spots[kept])(tilts) - spots).max(axis=1)
        worst = int(np.where(kept, off, 0.0).argmax())
        if off[worst] <= half:
            break
        kept[worst] = False
    return kept


def _tilts(count: int, least: float, most: float) -> Array:
    """Directions all around, in random order, far from the middle."""
    rng = np.random.default_rng(7)
    turn = np.arange(count) * math.pi * (3 - math.sqrt(5))
    length = np.sqrt(np.linspace(min(least, 0.8 * most) ** 2, most**2, count))
    tilts: Array = np.stack([length * np.sin(turn), length * np.cos(turn)], axis=1)
    return rng.permutation(tilts)


def judged(tilts: Array, spots: Array) -> tuple[Affine, float]:
    """Fit a map to the first spots and judge it by the others.

    Parameters
    ----------
    tilts, spots
        ``(spot, 2)``; the last :data:`HELD_OUT` are held out.

    Returns
    -------
    map, residual_px
        The map, of second order where that fits the others better; and how well.

    Raises
    ------
    OutcomeError
        The parity is not certain.
    """
    own, others = slice(None, -HELD_OUT), slice(-HELD_OUT, None)
    straight, bent = (fit_map(tilts[own], spots[own], terms) for terms in (3, 6))
    rest, bent_rest = (
        residual(each, tilts[others], spots[others]) for each in (straight, bent)
    )
    require_parity(straight, tilts[others], spots[others])
    # Six more numbers must pay.
    return (bent, bent_rest) if bent_rest < 0.8 * rest else (straight, rest)


def _finding(
    tilts: Array,
    spots: Array,
    limits: Mapping[str, float],
    conditions: Mapping[str, float],
) -> Finding:
    mapped, rest = judged(tilts, spots)
    gap = mapped(tilts) - spots
    (a, b), (c, d) = mapped.matrix
    rows, columns = (math.sqrt(mapped.spread[at, at]) for at in (1, 2))
    zero = math.sqrt(mapped.spread[0, 0])
    top, left = (float(each) for each in mapped.terms[0])
    reach = 0.1 / float(np.abs(tilts).max())
    arrows = lengthened(spots, gap)
    words = "mirrored" if mapped.is_mirrored else "upright"
    return Finding(
        values={
            "matrix_px": [[float(a), float(b)], [float(c), float(d)]],
            "offset_px": [top, left],
            "bend_px": mapped.terms[3:].tolist(),
            "mirrored": mapped.is_mirrored,
        },
        quantities={
            "offset_row_px": Quantity(top, zero, 0.1),
            "offset_column_px": Quantity(left, zero, 0.1),
            "row_by_row_px": Quantity(float(a), rows, reach),
            "row_by_column_px": Quantity(float(b), columns, reach),
            "column_by_row_px": Quantity(float(c), rows, reach),
            "column_by_column_px": Quantity(float(d), columns, reach),
        },
        merits=(
            Merit(
                "residual_px",
                rest,
                rest / math.sqrt(2 * HELD_OUT),
                limits["residual_px"],
                remedy=MORE_LIGHT,
            ),
        ),
        figures=(
            Figure(
                "mapping",
                "Spots on the camera",
                "Where the spots are; the arrows point to where the map puts them, "
                f"{arrows:g} times as long.",
                "column (px)",
                "row (px)",
                (
                    _arrows("fitted", spots[:-HELD_OUT], gap[:-HELD_OUT]),
                    _arrows("held out", spots[-HELD_OUT:], gap[-HELD_OUT:]),
                ),
                "image",
                arrows=arrows,
            ),
        ),
        conditions=conditions,
        remarks=(f"the camera sees the panel's directions {words}.",),
    )


def _arrows(name: str, spots: Array, gap: Array) -> Series:
    return Series(name, spots[:, 1], spots[:, 0], arrow=(gap[:, 1], gap[:, 0]))


def lengthened(spots: Array, gap: Array) -> float:
    """Say how many times as long arrows from spots may be drawn.

    Parameters
    ----------
    spots, gap
        Where they begin, and their length along both axes, ``(spot, 2)``.

    Returns
    -------
    factor
        1, 2 or 5 times a power of ten: none is longer than half of the way between
        any two spots, so that no two cross.
    """
    apart = np.linalg.norm(spots[:, None] - spots[None], axis=2)
    nearest = float(apart[~np.eye(len(spots), dtype=bool)].min())
    longest = float(np.linalg.norm(gap, axis=1).max())
    if not min(nearest, longest) > 0:
        return 1.0
    most = nearest / 2 / longest
    power = 10.0 ** math.floor(math.log10(most))
    return max(times * power for times in (1, 2, 5) if times * power <= most)


KIND = Kind(
    name="mapping",
    text="where on the camera light goes that the panel sends somewhere",
    of=("slm", "camera", "laser"),
    measure=measure,
    needs=("camera", "settle", "slm-phase"),
    views=("far_field",),
    depends_on_wavelength=True,
    valid_days=30.0,
    limits={"residual_px": 0.1},
)
