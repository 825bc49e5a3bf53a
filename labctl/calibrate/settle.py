"""Kind ``settle``: how long after a write the panel shows what was written.

A pattern is held long, another is written, and after a wait a short exposure is
taken: how far from its goal is the panel still? Settled frames of slightly higher and
lower levels say how the picture changes there, which needs no order to be looked at and
works behind a scatterer as well; not in proportion, so a cubic through them is
inverted. What is left of the step falls off as the crystal relaxes;
the tail gives the time after which less than a stated share is left. Large steps take
longer than small ones: the wait is that of a step over all levels, by a straight line
through the measured ones.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from labctl.calibrate.kind import (
    MORE_LIGHT,
    Figure,
    Finding,
    Kind,
    Merit,
    Quantity,
    Series,
)
from labctl.calibrate.stand import Stand
from labctl.devices import Levels
from labctl.errors import OutcomeError

Array = NDArray[np.float64]
# Share of a transition that may be left in a frame.
LEFT = 0.005
REPEATS, REFERENCES, FRESH, SETTLED = 6, 18, 12, 4
DELAYS = 12
# Steps as shares of the panel's levels, from where to where.
STEPS = ((0.1, 0.9), (0.9, 0.1), (0.1, 0.5), (0.5, 0.1), (0.4, 0.6), (0.6, 0.4))
# To either side of a level, to see how frames change there, as shares of all levels:
# farther than the last nothing is told.
AROUND = (-0.1, -0.05, 0.0, 0.05, 0.1)
FARTHEST = AROUND[-1]
# Share of pixels that may be saturated: they tell nothing, the others do.
SATURATED = 0.1
# Standard errors from which on a point of a tail tells something; share by which it may
# lie below a straight exponential, as no crystal follows one exactly.
CERTAIN, UNEVEN = 4.0, 0.2
_NOTHING = (
    "settle: the panel does not modulate: frames of different levels are the same "
    "within noise, expected them to differ. Look at its cable, its polarisation and "
    "whether it is awake."
)
_TOO_FAST = (
    "settle: a step falls within one delay, expected some points on its tail. Lower "
    "calibrate.settle_s in the bench file."
)


@dataclass(frozen=True, eq=False)
class Course:
    """What is left of one transition over time.

    Parameters
    ----------
    size
        Of the step, as a share of all levels.
    time_s
        Since the write, ``(point,)``.
    left, error
        Share of the step that the panel has still to go, and its standard error.
    shared
        Standard error that all points share: the goal is known from frames, too.
    exposure_s
        Of each point, around its time.
    """

    size: float
    time_s: Array
    left: Array
    error: Array
    shared: float = 0.0
    exposure_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Relaxation:
    """How a panel relaxes.

    Parameters
    ----------
    settle_s, settle_error
        Time after which less than :data:`LEFT` of a step over all levels is left.
    delay_s, delay_error
        Time in which nothing happens yet.
    tau_s, tau_error
        Time constant of a step over all levels.
    taus_s
        Of each step that was measured.
    """

    settle_s: float
    settle_error: float
    delay_s: float
    delay_error: float
    tau_s: float
    tau_error: float
    taus_s: Array


def left_over(frame: Array, settled: Array, others: Array) -> float:
    """Share of the way from a pattern back to the one before that is left in a frame.

    Parameters
    ----------
    frame
        ``(pixel,)``.
    settled
        Settled frames of the pattern before and of this one, ``(2, pixel)``.
    others
        The same of other exposures: they say where to look.

    Returns
    -------
    left
        1 where nothing has happened yet, 0 where all has.
    """
    weight = (others[0] - others[1]) / np.maximum(others[0] + others[1], 1.0)
    way = settled[0] - settled[1]
    return float((frame - settled[1]) @ weight) / float(way @ weight)


class Reach:
    """How far a panel is from its goal, by settled frames of levels around that.

    Along the change of the frames from the level below to the one above, weighted by
    their noise, a frame's distance from the goal is a number; a cubic tells which level
    it belongs to. Which way to look comes from one half of the frames and the number
    from the other, as noise that is in both does not average out; and the other way
    round.

    Parameters
    ----------
    halves
        Mean frames at :data:`AROUND` from the goal of either half of the exposures,
        ``(half, shift, pixel)``.
    """

    def __init__(self, halves: Array) -> None:
        middle = len(AROUND) // 2
        self._ways: list[tuple[Array, float, Array, Array]] = []
        for here, there in (halves, halves[::-1]):
            goal = there[middle]
            slope = there[middle + 1] - there[middle - 1]
            weight = slope / np.maximum(goal, 1.0)
            seen = (here - here[middle]) @ weight
            by = np.array(AROUND)
            powers = np.stack([by, by**2, by**3], axis=1)
            terms, *_ = np.linalg.lstsq(powers, seen, rcond=None)
            self._ways.append((weight, float(here[middle] @ weight), *_rising(terms)))

    def away(self, frame: Array) -> float:
        """Distance of a frame from the goal, as a share of all levels.

        Parameters
        ----------
        frame
            ``(pixel,)``.

        Returns
        -------
        away
            Signed; beyond :data:`FARTHEST` where it is not told.
        """
        found = [
            np.interp(frame @ weight - zero, seen, by)
            for weight, zero, seen, by in self._ways
        ]
        return float(np.mean(found))


def _rising(terms: Array) -> tuple[Array, Array]:
    """Numbers that a cubic shows around 0 as far as it rises, and where.

    Beyond its turns, or well beyond :data:`FARTHEST`, it goes on to far away at once.

    Raises
    ------
    OutcomeError
        It does not rise at 0: the levels around the goal make no difference.
    """
    by = np.linspace(-1.5 * FARTHEST, 1.5 * FARTHEST, 601)
    seen = np.stack([by, by**2, by**3], axis=1) @ terms
    middle = len(by) // 2
    if seen[middle + 1] <= seen[middle - 1]:
        raise OutcomeError(_NOTHING)
    rises = np.diff(seen) > 0
    falls = np.flatnonzero(~rises)
    low = falls[falls < middle].max(initial=-1) + 1
    high = falls[falls >= middle].min(initial=len(by) - 1)
    seen, by = seen[low : high + 1], by[low : high + 1]
    step = 1e-9 * float(np.ptp(seen))
    ends = np.array([seen[0] - step]), np.array([seen[-1] + step])
    far = np.array([2 * FARTHEST])
    return np.concatenate([ends[0], seen, ends[1]]), np.concatenate([-far, by, far])


def fit_relaxation(courses: Sequence[Course]) -> Relaxation | None:
    """Fit one delay, and a time constant for each step, to the tails.

    Parameters
    ----------
    courses
        Of several steps.

    Returns
    -------
    relaxation
        None where the data are constant within noise: there is no transition.

    Raises
    ------
    OutcomeError
        It has not settled at the longest time, or falls too fast to be followed.
    """
    seen = [course for course in courses if _has_transition(course)]
    if not seen:
        return None
    tails = [_tail(course) for course in seen]

    count = len(tails)

    def rest(parameters: Array) -> Array:
        delay_s, log_taus = parameters[0], parameters[1 : count + 1]
        offsets = parameters[count + 1 :]
        parts = []
        for each, log_tau, offset in zip(tails, log_taus, offsets, strict=True):
            rate = math.exp(-log_tau)
            half = rate * each.exposure_s / 2
            # The mean over an exposure is a little more than its middle.
            mean = math.sinh(half) / half if half else 1.0
            told = mean * np.exp(-(each.time_s - delay_s) * rate)
            parts += [
                (each.left - told - offset * each.shared) / each.error,
                np.array([offset]),
            ]
        return np.concatenate(parts)

    # Nothing happens before it is asked for.
    last_s = max(float(each.time_s.max()) for each in tails)
    log_taus = [math.log(max(float(t.time_s.min()), last_s / 20) / 2) for t in tails]
    free = [math.inf] * count
    low = [-1e-9, *(math.log(last_s) - 9 for _ in tails), *(-x for x in free)]
    high = [last_s, *(math.log(last_s) + 1 for _ in tails), *free]
    start = [0.0, *log_taus, *(0.0 for _ in tails)]
    fit = least_squares(rest, start, bounds=(low, high), x_scale="jac")
    freedom = max(len(fit.fun) - len(fit.x), 1)
    scatter = max(2 * float(fit.cost) / freedom, 1.0)
    every = covariance(np.asarray(fit.jac, dtype=np.float64))
    spread = scatter * every[: count + 1, : count + 1]
    taus_s = np.exp(fit.x[1 : count + 1])
    return _over_all_levels(seen, float(fit.x[0]), taus_s, spread)


def covariance(slope: Array) -> Array:
    """Tell the errors of parameters from how residuals change with them.

    Parameters
    ----------
    slope
        Of residuals of unit noise, ``(point, parameter)``.

    Returns
    -------
    covariance
        ``(parameter, parameter)``.

    Raises
    ------
    OutcomeError
        The points do not tell one of them.
    """
    size = np.sqrt((slope**2).sum(axis=0))
    told = slope / np.where(size > 0, size, 1.0)
    normal = told.T @ told
    if np.linalg.matrix_rank(normal, hermitian=True) < len(size):
        raise OutcomeError(_TOO_FAST)
    found: Array = np.linalg.inv(normal) / np.outer(size, size)
    return found


def _has_transition(course: Course) -> bool:
    """Test against a constant, by the noise that repeats have shown."""
    rest, _ = _end(course)
    chi2 = float((((course.left - rest) / course.error) ** 2).mean())
    return chi2 > 1 + 10 * math.sqrt(2 / len(course.left))


def _end(course: Course) -> tuple[float, float]:
    late = course.time_s > 0.6 * course.time_s.max()
    weight = 1 / course.error[late] ** 2
    error = math.hypot(1 / math.sqrt(float(weight.sum())), course.shared)
    return float(np.average(course.left[late], weights=weight)), error


def folded_s(course: Course) -> float:
    """Time up to which a panel is farther from its goal than its frames look.

    Far from the goal light may come round and be what it is near it. A tail goes on as
    it falls: looking back from its end, the first point that lies below where the two
    after it lead is none of it.

    Parameters
    ----------
    course
        Of one step.

    Returns
    -------
    time_s
        Of that point; before all of them where there is none.
    """
    left, error, time_s = course.left, course.error, course.time_s
    for k in range(len(left) - 3, -1, -1):
        now, later = left[k + 1], left[k + 2]
        if min(now, later) < CERTAIN * error[k + 2]:
            continue
        span = (time_s[k + 1] - time_s[k]) / (time_s[k + 2] - time_s[k + 1])
        led = now * (now / later) ** span
        doubt = math.hypot((1 + span) * error[k + 1] / now, span * error[k + 2] / later)
        least = led * (1 - UNEVEN) - CERTAIN * math.hypot(led * doubt, error[k])
        if left[k] < least:
            return float(time_s[k])
    return -1.0


def _tail(course: Course) -> Course:
    """Part of a course that is told: far from the goal none is.

    Raises
    ------
    OutcomeError
        It has not settled, or there is no tail.
    """
    rest, rest_error = _end(course)
    last_s = float(course.time_s.max())
    if rest > LEFT + 4 * rest_error:
        text = (
            f"settle: not settled: {100 * rest:.1f} % of a step is left after "
            f"{last_s:.3g} s, expected at most {100 * LEFT:g} %. Raise "
            "calibrate.settle_s in the bench file."
        )
        raise OutcomeError(text)
    early = np.flatnonzero(np.abs(course.left) > FARTHEST / course.size)
    start_s = float(course.time_s[early].max()) if early.size else -1.0
    tail = course.time_s > max(start_s, folded_s(course))
    if tail.sum() < 3 or not (course.left[tail] > 3 * course.error[tail]).any():
        raise OutcomeError(_TOO_FAST)
    return replace(
        course,
        time_s=course.time_s[tail],
        left=course.left[tail],
        error=course.error[tail],
    )


def _over_all_levels(
    seen: Sequence[Course], delay_s: float, taus_s: Array, spread: Array
) -> Relaxation:
    """Time constant of a step over all levels, by a line through those measured."""
    sizes = np.array([course.size for course in seen])
    errors = taus_s * np.sqrt(np.diag(spread)[1:])
    weight = 1 / np.maximum(errors, 1e-6 * taus_s) ** 2
    design = np.ones((len(sizes), 1))
    if np.ptp(sizes) > 0:
        design = np.stack([np.ones_like(sizes), sizes], axis=1)
    normal = np.linalg.inv((design.T * weight) @ design)
    # The full step's time constant is this mean of those measured.
    mean = np.ones(design.shape[1]) @ normal @ (design.T * weight)
    tau_s = float(mean @ taus_s)
    straight = design @ (normal @ (design.T * weight) @ taus_s)
    freedom = len(sizes) - design.shape[1]
    chi2 = float((weight * (taus_s - straight) ** 2).sum())
    bent = max(chi2 / freedom, 1.0) if freedom else 1.0
    slope = mean * taus_s  # of ln tau
    turns = math.log(1 / LEFT)
    whole = np.array([1.0, *(turns * slope)])
    error = math.sqrt(bent * float(whole @ spread @ whole))
    return Relaxation(
        settle_s=delay_s + turns * tau_s,
        settle_error=error,
        delay_s=delay_s,
        delay_error=math.sqrt(float(spread[0, 0])),
        tau_s=tau_s,
        tau_error=math.sqrt(bent * float(slope @ spread[1:, 1:] @ slope)),
        taus_s=taus_s,
    )


# ---- the procedure ---------------------------------------------------------------


def measure(stand: Stand, limits: Mapping[str, float]) -> Finding:
    """Measure how long the panel needs.

    Parameters
    ----------
    stand
        The bench.
    limits
        Of the merits.

    Returns
    -------
    finding
        The time to wait, and what leaks from one frame into the next after it.

    Raises
    ------
    OutcomeError
        No light, a panel that does not modulate, or one that never settles.
    """
    stand.light(stand.nominal_mw)
    longest_s = stand.settle_s
    mask = _mask(stand.panel)
    sample = [_shown(stand, mask, share) for share in sorted(set(sum(STEPS, ())))]
    exposure_s = _brief(stand, longest_s, np.concatenate(sample))
    near = {round(end + by, 9) for _, end in STEPS for by in AROUND}
    ends = sorted(near.union(start for start, _ in STEPS))
    panels = {share: _shown(stand, mask, share) for share in ends}
    stand.stage("settled frames")
    settled = {share: _halves(stand, panels[share]) for share in ends}
    delays = np.array(
        [0.0, *np.geomspace(longest_s / 20, 0.6 * longest_s, DELAYS - 2), longest_s]
    )
    courses = []
    for number, (start, end) in enumerate(STEPS):
        stand.stage("transitions", number, len(STEPS))
        require_step(settled[start].mean(axis=0), settled[end].mean(axis=0))
        known = [settled[round(end + by, 9)] for by in AROUND]
        reach = Reach(np.stack(known, axis=1))
        steps = panels[start], panels[end]
        left, error = _followed(stand, steps, reach, delays)
        size = abs(end - start)
        courses.append(
            Course(
                size=size,
                # A frame shows the middle of its exposure.
                time_s=delays + exposure_s / 2,
                left=left / (start - end),
                error=error / size,
                shared=float(error[0]) / size * math.sqrt(REPEATS / REFERENCES),
                exposure_s=exposure_s,
            )
        )
    with stand.thinking():
        found = fit_relaxation(courses)
    stand.stage("leakage")
    leak = _leakage(stand, mask, 0.0 if found is None else found.settle_s)
    return _finding(courses, found, leak, limits, exposure_s)


def _brief(stand: Stand, longest_s: float, sample: Levels) -> float:
    """Choose an exposure during which little happens, and which does not saturate."""
    low_s, high_s = stand.shortest_s, stand.longest_s
    wanted_s = max(longest_s / 32, stand.bench.file.reservoir.exposure_s)
    while True:
        wanted_s = min(max(wanted_s, low_s), high_s)
        taken = stand.configure(wanted_s)
        exposed = stand.expose(sample)
        if wanted_s <= low_s or not stand.is_saturated(exposed, SATURATED):
            stand.require_unsaturated(exposed, SATURATED)
            return taken.exposure_s
        wanted_s /= 2


def _mask(panel: tuple[int, int]) -> NDArray[np.bool_]:
    """Blocks of the panel that change: half of them, at random."""
    rows, columns = (min(8, side) for side in panel)
    chosen = np.zeros(rows * columns, dtype=bool)
    order = np.random.default_rng(2).permutation(rows * columns)
    chosen[order[: rows * columns // 2]] = True
    height, width = -(-panel[0] // rows), -(-panel[1] // columns)
    blocks = chosen.reshape(rows, columns)
    tiled = blocks.repeat(height, axis=0).repeat(width, axis=1)
    return tiled[: panel[0], : panel[1]]


def _shown(stand: Stand, mask: NDArray[np.bool_], share: float) -> Levels:
    level = round(share * (stand.levels - 1))
    return stand.as_levels(np.where(mask, level, 0)[None])


def _halves(stand: Stand, panel: Levels) -> Array:
    """Mean settled frames of a pattern, of every other exposure, ``(2, pixel)``."""
    exposed = stand.repeated(panel, REFERENCES)
    stand.require_light(exposed)
    flat = _flat(stand, exposed.frames, exposed.power_mw)
    return np.stack([flat[half::2].mean(axis=0) for half in (0, 1)])


def _frames(stand: Stand, panel: Levels, count: int) -> Array:
    """Mean settled frame of a pattern, at equal power, ``(pixel,)``."""
    exposed = stand.repeated(panel, count)
    stand.require_light(exposed)
    mean: Array = _flat(stand, exposed.frames, exposed.power_mw).mean(axis=0)
    return mean


def _flat(stand: Stand, frames: NDArray[np.uint16], power_mw: Array) -> Array:
    dark_dn = stand.response.offset_dn
    scaled = (frames - dark_dn) * (stand.power_mw / power_mw)[:, None, None]
    flat: Array = scaled.reshape(len(frames), -1) / stand.response.gain_dn_per_e
    return flat


def require_step(before: Array, after: Array) -> None:
    """Refuse a panel whose levels make no difference.

    Parameters
    ----------
    before, after
        Mean of :data:`REFERENCES` frames of two patterns, ``(pixel,)``, electrons.

    Raises
    ------
    OutcomeError
        Frames of different levels are the same within noise.
    """
    noise2 = (np.maximum(before + after, 0) + 2) / REFERENCES
    chi2 = float(((before - after) ** 2 / noise2).mean())
    if chi2 < 1 + 8 * math.sqrt(2 / len(before)):
        raise OutcomeError(_NOTHING)


def _followed(
    stand: Stand, panels: tuple[Levels, Levels], reach: Reach, delays: Array
) -> tuple[Array, Array]:
    """How far the panel is from its goal after each delay, in shares of all levels."""
    order = np.random.default_rng(3).permutation(
        np.repeat(np.arange(len(delays)), REPEATS)
    )
    left = np.empty((len(delays), REPEATS))
    taken = np.zeros(len(delays), dtype=int)
    for number in order:
        stand.hold(panels[0])
        exposed = stand.expose(panels[1], settle_s=float(delays[number]))
        frame = _flat(stand, exposed.frames, exposed.power_mw)
        left[number, taken[number]] = reach.away(frame[0])
        taken[number] += 1
    # Noise is about the same at every delay at which the panel is near: that of all
    # repeats together.
    near = np.abs(left).max(axis=1) < FARTHEST
    spread = left[near] if near.any() else left
    noise = math.sqrt(float(spread.var(axis=1, ddof=1).mean()) / REPEATS)
    return left.mean(axis=1), np.full(len(delays), noise)


def _leakage(
    stand: Stand, mask: NDArray[np.bool_], settle_s: float
) -> tuple[float, float]:
    """Share of the pattern before in each frame of fresh random patterns."""
    rng = np.random.default_rng(4)
    drawn = rng.integers(0, stand.levels, (FRESH, *mask.shape))
    side = max(1, min(mask.shape) // 8)
    blocks = drawn[:, ::side, ::side].repeat(side, axis=1).repeat(side, axis=2)
    panel = stand.as_levels(blocks[:, : mask.shape[0], : mask.shape[1]])
    # Two sets of settled frames: the noise of one must not look like a leak in both.
    still, other = (
        np.stack([_frames(stand, each[None], SETTLED) for each in panel])
        for _ in range(2)
    )
    shares = []
    for _ in range(4):
        exposed = stand.expose(panel, settle_s=settle_s)
        quick = _flat(stand, exposed.frames, exposed.power_mw)
        shares += [
            left_over(quick[k], other[k - 1 : k + 1], still[k - 1 : k + 1])
            for k in range(1, FRESH)
        ]
    return float(np.mean(shares)), float(
        np.std(shares, ddof=1) / math.sqrt(len(shares))
    )


def _finding(
    courses: Sequence[Course],
    found: Relaxation | None,
    leak: tuple[float, float],
    limits: Mapping[str, float],
    exposure_s: float,
) -> Finding:
    leakage = Merit(
        "leakage_percent", 100 * abs(leak[0]), 100 * leak[1], limits["leakage_percent"]
    )
    conditions = {"exposure_s": exposure_s, "left": LEFT}
    figures = (_figure(courses, found),)
    if found is None:
        text = (
            "no transition: the panel shows a pattern as soon as it is written, within "
            f"the camera's exposure of {exposure_s:g} s."
        )
        return Finding(
            values={"settle_s": 0.0},
            quantities={"settled_s": Quantity(0.0, exposure_s)},
            merits=(leakage,),
            figures=figures,
            conditions=conditions,
            remarks=(text,),
        )
    percent = 100 * found.settle_error / found.settle_s
    # What is waited is the upper end of the interval: late is safe.
    waited_s = found.settle_s + 2 * found.settle_error
    return Finding(
        values={"settle_s": waited_s},
        quantities={
            "settled_s": Quantity(found.settle_s, found.settle_error, 0.05 * waited_s),
            "delay_s": Quantity(found.delay_s, found.delay_error, 0.02 * waited_s),
            "tau_s": Quantity(found.tau_s, found.tau_error, 0.05 * found.tau_s),
        },
        merits=(
            Merit(
                "error_percent",
                percent,
                math.nan,
                limits["error_percent"],
                remedy=MORE_LIGHT,
            ),
            leakage,
        ),
        figures=figures,
        conditions=conditions,
    )


def _figure(courses: Sequence[Course], found: Relaxation | None) -> Figure:
    if found is not None:  # of what was fitted, what a logarithm can show
        courses = [_plain(course) for course in courses]
    series = [
        Series(
            f"{start:g} to {end:g} of the levels",
            1e3 * course.time_s,
            course.left,
            course.error,
        )
        for (start, end), course in zip(STEPS, courses, strict=True)
    ]
    if found is not None:
        begin_s = max(found.delay_s, 0.0)
        last_s = found.delay_s + found.tau_s * math.log(2 / LEFT)
        time_s = np.linspace(begin_s, max(last_s, begin_s), 100)
        left = np.exp(-(time_s - found.delay_s) / found.tau_s)
        series.append(Series("over all levels", 1e3 * time_s, left, is_line=True))
        settled = np.array([1e3 * found.settle_s]), np.array([LEFT])
        series.append(Series(f"{100 * LEFT:g} % left", *settled))
    return Figure(
        "settle",
        "What is left of a step",
        "Share of a step that the panel has still to go, over the time since the "
        "write. The tails give a delay and time constants, and these the time at which "
        f"{100 * LEFT:g} % of a step over all levels is left. Left out are points far "
        "from the goal, of which a frame does not tell, and those within two errors "
        "of 0."
        if found is not None
        else "Share of a step that the panel has still to go, over the time since the "
        "write: nothing, at any time.",
        "time since the write (ms)",
        "left of the step",
        tuple(series),
        "linear" if found is None else "logy",
    )


def _plain(course: Course) -> Course:
    seen = course.left > 2 * course.error
    seen &= course.left <= FARTHEST / course.size
    seen &= course.time_s > folded_s(course)
    return replace(
        course,
        time_s=course.time_s[seen],
        left=course.left[seen],
        error=course.error[seen],
    )


KIND = Kind(
    name="settle",
    text="time from a write to a settled panel",
    of=("slm",),
    measure=measure,
    needs=("camera",),
    valid_days=90.0,
    limits={"error_percent": 10.0, "leakage_percent": 2.0},
)
