"""Perturbations of the phase, and what the device answers to them.

The perturbation of a probe is always the difference of the phases that the panel
really showed, never the one that was asked for.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from labctl.training.blackbox import Device, Exposure, Probes, Response, ask
from labctl.training.encoding import Layout, functions

CATEGORY = "probe"
SURVEY_SHOTS: Final = 5
"""Exposures of a survey beside the one of the batch, a sample."""
SMALLEST_RAD: Final = 0.01
"""Below it an 8-bit panel (2 pi / 256 = 0.025 rad a level) rounds a probe away."""
LARGEST_RAD: Final = 1.0
"""Above it twice a perturbation, as a survey shows it, wraps around the circle."""
FARTHEST: Final = 2.0
"""How much a size may change at once: so far a survey at the old one can be trusted."""


def wrap(difference: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Take a difference of phases into (-pi, pi] rad.

    Parameters
    ----------
    difference
        Any difference, in rad.
    """
    return torch.pi - torch.remainder(torch.pi - difference, 2 * torch.pi)


def rows(response: Response, index: Int[Tensor, " row"]) -> Response:
    """Return some rows of a response.

    Parameters
    ----------
    response
        What the device answered.
    index
        Which rows.
    """
    return Response(
        response.y[index], response.shown[index], response.shot[index.cpu()]
    )


DirectionName = Literal["all", "coordinates", "random", "modes"]


def coordinates(
    pixels: int, count: int, generator: Generator
) -> Float[Tensor, "direction pixel"]:
    """Draw some of the coordinates, as unit vectors.

    Parameters
    ----------
    pixels
        Number of coordinates.
    count
        How many are drawn.
    generator
        Where the choice comes from.
    """
    return torch.eye(pixels)[torch.randperm(pixels, generator=generator)[:count]]


def subspace(
    pixels: int, count: int, generator: Generator
) -> Float[Tensor, "direction pixel"]:
    """Draw orthonormal directions that span a random subspace.

    Parameters
    ----------
    pixels
        Number of coordinates.
    count
        Dimensions of the subspace.
    generator
        Where the choice comes from.
    """
    drawn = torch.randn(pixels, count, generator=generator)
    found: Tensor = torch.linalg.qr(drawn).Q.T
    return found


@dataclass(frozen=True)
class Directions:
    """Where perturbations lie.

    Parameters
    ----------
    name
        ``all`` macropixels; ``coordinates``: some macropixels, others each time;
        ``random``: a random subspace, another one each time; ``modes``: the slowest
        waves over the panel, always the same.
    dimensions
        How many, at most as many as there are macropixels; not used by ``all``.
    layout
        Rows and columns of macropixels; used by ``modes``.
    """

    name: DirectionName = "all"
    dimensions: int = 0
    layout: Layout = (1, 1)

    def count(self, pixels: int) -> int:
        """Say along how many directions a perturbation lies.

        Parameters
        ----------
        pixels
            Number of macropixels.
        """
        return pixels if self.name == "all" else self.dimensions

    def draw(
        self, pixels: int, generator: Generator
    ) -> Float[Tensor, "direction pixel"]:
        """Return orthonormal directions.

        Parameters
        ----------
        pixels
            Number of macropixels.
        generator
            Where the choice comes from.

        Raises
        ------
        ValueError
            There are not so many directions, or ``all`` is asked for them.
        """
        most = pixels - (self.name == "modes")  # without the constant
        if self.name == "all" or not 1 <= self.dimensions <= most:
            text = (
                f"probes: directions={self.name} with dimensions={self.dimensions}, "
                f"expected 1 to {most} ({pixels} macropixels)"
            )
            raise ValueError(text)
        if self.name == "modes":
            return functions("fourier", self.dimensions, self.layout)
        draw = coordinates if self.name == "coordinates" else subspace
        return draw(pixels, self.dimensions, generator)


ALL: Final = Directions()


@dataclass(frozen=True)
class Size:
    """How large perturbations are, and where they come from.

    Parameters
    ----------
    rms_rad
        Rms along each direction; of each macropixel, where these are all directions.
    generator
        Where the numbers come from.
    directions
        Where perturbations lie: the same for all rows that are drawn together.
    """

    rms_rad: float
    generator: torch.Generator
    directions: Directions = ALL

    def draw(self, phase: Float[Tensor, "probe pixel"]) -> Float[Tensor, "probe pixel"]:
        """Draw normal perturbations, one row for each row of a phase.

        Parameters
        ----------
        phase
            Gives shape and dtype.
        """
        if self.directions.name == "all":
            noise = torch.randn(
                phase.shape, generator=self.generator, dtype=phase.dtype
            )
            return self.rms_rad * noise.to(phase.device)
        ways = self.directions.draw(phase.shape[1], self.generator).to(phase)
        along = torch.randn(
            len(phase), len(ways), generator=self.generator, dtype=phase.dtype
        )
        return self.rms_rad * along.to(phase.device) @ ways

    def draw_apart(
        self, phase: Float[Tensor, "probe pixel"]
    ) -> Float[Tensor, "probe pixel"]:
        """Draw as :meth:`draw`, but each row along directions of its own.

        Parameters
        ----------
        phase
            Gives shape and dtype.
        """
        if self.directions.name == "all":
            return self.draw(phase)
        return torch.cat([self.draw(row) for row in torch.split(phase, 1)])


def paired(device: Device, base: Response, size: Size, made: Exposure) -> Probes:
    """Expose every row of a response once more, each with a perturbation.

    Parameters
    ----------
    device
        The device; it books the exposures as probes.
    base
        Exposures that are there already.
    size
        How large the perturbations are.
    made
        The exposure that the base belongs to: says layer and step.

    Returns
    -------
    probes
        One probe a row.
    """
    asked = base.shown + size.draw(base.shown)
    plus = ask(device, asked, category=CATEGORY, layer=made.layer, step=made.step)
    plus = Response(plus.y.to(base.y), plus.shown.to(base.shown), plus.shot)
    return _probes(base, base.shown, plus)


def central(
    device: Device, phase: Float[Tensor, "probe pixel"], size: Size, made: Exposure
) -> Probes:
    """Expose phases with a perturbation and with its opposite.

    The difference has no error of second order in the perturbation, and costs two
    exposures a probe.

    Parameters
    ----------
    device
        The device; it books the exposures as probes.
    phase
        Operating points, in rad.
    size
        How large each half of the perturbations is.
    made
        An exposure of the layer and step that the probes belong to.

    Returns
    -------
    probes
        One probe a row; ``base`` is the operating point, ``shot_base`` the
        exposure with the opposite perturbation.
    """
    half = size.draw(phase)
    asked = torch.cat((phase - half, phase + half))
    both = ask(device, asked, category=CATEGORY, layer=made.layer, step=made.step)
    both = Response(both.y.to(phase), both.shown.to(phase), both.shot)
    index = torch.arange(len(phase))
    minus, plus = rows(both, index), rows(both, index + len(phase))
    return _probes(minus, phase, plus)


def _probes(minus: Response, base: Tensor, plus: Response) -> Probes:
    return Probes(
        base=base,
        d_alpha=wrap(plus.shown - minus.shown),
        d_f=plus.y - minus.y,
        shot_base=minus.shot,
        shot_plus=plus.shot,
        plus=plus,
    )


@dataclass(frozen=True)
class Dither:
    """The random phase that every training exposure carries, over the course.

    Parameters
    ----------
    first_rad, last_rad
        Rms at the first and at the last step; straight in between.
    steps
        Steps of the course.
    """

    first_rad: float
    last_rad: float
    steps: int

    def rms_rad(self, step: int | float) -> float:
        """Return the rms at a step.

        Parameters
        ----------
        step
            Counted from 0.
        """
        share = min(step / (self.steps - 1), 1.0) if self.steps > 1 else 0.0
        return self.first_rad + share * (self.last_rad - self.first_rad)


@dataclass(frozen=True)
class Shares:
    """Which samples of a batch are probed, and which may be learned from.

    Parameters
    ----------
    held_out
        Bases of held-out probes: kept from every fit.
    paired
        Bases of probes that are fitted.
    fitted
        Samples that are fitted: all but the held-out ones.
    """

    held_out: Int[Tensor, " held"]
    paired: Int[Tensor, " paired"]
    fitted: Int[Tensor, " fitted"]


def share_out(
    batch: int, *, held_out: int, paired: int, generator: torch.Generator
) -> Shares:
    """Draw the samples that are probed, no sample twice.

    Parameters
    ----------
    batch
        Samples in the batch.
    held_out, paired
        How many of each.
    generator
        Where the numbers come from.

    Raises
    ------
    ValueError
        More probes than samples.
    """
    if held_out + paired > batch:
        text = (
            f"probes: held_out={held_out} and paired={paired}, expected at most "
            f"{batch} together (training.batch). Lower them, or raise the batch."
        )
        raise ValueError(text)
    order = torch.randperm(batch, generator=generator)
    return Shares(
        held_out=order[:held_out],
        paired=order[held_out : held_out + paired],
        fitted=order[held_out:].sort().values,
    )


def noise_variance(
    first: Float[Tensor, "repeat output"], second: Float[Tensor, "repeat output"]
) -> Float[Tensor, " output"]:
    """Variance of each output between exposures of one pattern.

    Parameters
    ----------
    first, second
        Two exposures of every pattern.

    Returns
    -------
    variance
        Noise of a single exposure, averaged over the patterns.

    Raises
    ------
    ValueError
        There is no pattern.
    """
    if len(first) == 0:
        text = "probes: noise_repeats=0, expected at least 1 to measure the noise."
        raise ValueError(text)
    return (first - second).square().mean(dim=0) / 2


def noise_of_target(
    cotangent: Float[Tensor, "probe output"], variance: Float[Tensor, " output"]
) -> Float[Tensor, " probe"]:
    """Variance that noise gives to ``grad_y . d_f`` of a probe.

    Parameters
    ----------
    cotangent
        Gradients with respect to the outputs.
    variance
        Noise of a single exposure; a probe is the difference of two.
    """
    return 2 * cotangent.square() @ variance


class Survey(NamedTuple):
    """What noise and curvature do to probes of one size, summed over the outputs.

    Parameters
    ----------
    rms_rad
        Size of the perturbations along each of their directions, as the panel showed
        them.
    noise
        Variance of a single exposure.
    second, third
        Mean square error that curvature gives to the response of a paired and of a
        central probe of that size. At or below 0 where the noise hides it.
    """

    rms_rad: float
    noise: float
    second: float
    third: float

    @property
    def paired_rad(self) -> float:
        """Size of paired probes with the least error, in rad.

        Notes
        -----
        With ``d ~ N(0, h^2)`` along each direction a paired probe answers
        ``J d + d.H.d / 2 + noise``: its mean square error beside the slope's part is
        ``(2 s^2 + q h^4) / h^2``, least at ``h^4 = 2 s^2 / q``. This is the balance of
        [1]_, with the root of the second derivative's mean square over directions in
        place of its bound.

        References
        ----------
        .. [1] J. J. More and S. M. Wild, "Estimating derivatives of noisy
           simulations", ACM Trans. Math. Softw. 38 (2012) 19,
           doi 10.1145/2168773.2168777.
        """
        return self.rms_rad * math.pow(_balance(self.noise, self.second, 1.0), 1 / 4)

    @property
    def central_rad(self) -> float:
        """Size of each half of a central probe with the least error, in rad.

        Notes
        -----
        The even orders cancel: ``(2 s^2 + c h^6) / (4 h^2)`` is least at
        ``h^6 = s^2 / c``.
        """
        return self.rms_rad * math.pow(_balance(self.noise, self.third, 2.0), 1 / 6)


def _balance(noise: float, error: float, powers: float) -> float:
    """Return how much greater the error of curvature should be, for the least sum."""
    if error <= 0:
        return math.inf
    return max(2 * noise, 0.0) / (powers * error)


def survey(device: Device, base: Response, size: Size, made: Exposure) -> Survey:
    """Measure noise and curvature around exposures that are there already.

    Every pattern is shown once more, and with once and twice a perturbation to both
    sides: five exposures. The mean square of each difference is taken of noise by
    what it has of the exposures' own. Where perturbations keep to some directions,
    each pattern has its own, so that what is found holds for all that may be drawn.

    Parameters
    ----------
    device
        The device; it books the exposures as probes.
    base
        Operating points.
    size
        How large the perturbations are, and where they lie: as those of the probes
        whose size is asked for.
    made
        The exposure that the base belongs to: says layer and step.

    Returns
    -------
    survey
        Means over the patterns.

    Raises
    ------
    ValueError
        There is no pattern.
    """
    count = len(base.y)
    if count == 0:
        text = "probes: size_samples=0, expected at least 1 to choose a size."
        raise ValueError(text)
    once = size.draw_apart(base.shown)
    points = [base.shown + turn * once for turn in (0, 1, -1, 2, -2)]
    found = ask(
        device, torch.cat(points), category=CATEGORY, layer=made.layer, step=made.step
    )
    again, plus, minus, far, back = torch.split(found.y.to(base.y).double(), count)
    shown = wrap(found.shown.to(base.shown)[count : 2 * count] - base.shown)
    first = base.y.double()
    noise = (again - first).square().sum(dim=1).mean() / 2
    # d.H.d, with the noise of four exposures; a probe's error is half of it.
    bend = (plus + minus - again - first).square().sum(dim=1).mean()
    # Twice the third derivative along d, with ten times the noise of one exposure; a
    # central probe's error is a sixth of it.
    twist = (far - back - 2 * (plus - minus)).square().sum(dim=1).mean()
    each = shown.double().square().sum(dim=1).mean()
    return Survey(
        rms_rad=math.sqrt(float(each) / size.directions.count(base.shown.shape[1])),
        noise=float(noise),
        second=float(bend - 4 * noise) / 4,
        third=float(twist - 10 * noise) / 36,
    )


def toward(size_rad: float, best_rad: float) -> float:
    """Go from a size toward the best one, no farther than what was measured holds.

    Parameters
    ----------
    size_rad
        The size so far.
    best_rad
        What a survey says; infinite where no curvature was seen.

    Returns
    -------
    size_rad
        At most :data:`FARTHEST` times larger or smaller, and between
        :data:`SMALLEST_RAD` and :data:`LARGEST_RAD`.
    """
    near = min(max(best_rad, size_rad / FARTHEST), size_rad * FARTHEST)
    return min(max(near, SMALLEST_RAD), LARGEST_RAD)
