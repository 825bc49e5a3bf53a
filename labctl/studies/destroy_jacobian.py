"""Spoil backpropagation on purpose, and see how much of it learning needs.

XOR as four Gaussian clouds with wrong labels among them, a net of linear layers and
GELU. The backward pass of the linear layers is spoilt: signs of single components of
``grad_x``, ``grad_theta`` or of the theta in it are flipped at random, or only signs
are kept, or powers between. What is spoilt keeps the norm that it had.

All conditions of one depth and seed are trained side by side, from one start.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from typing_extensions import override

from labctl import data
from labctl.protocol import DestroyJacobian
from labctl.recording.layout import Column
from labctl.studies.job import (
    Claim,
    Job,
    Rows,
    Study,
    Values,
    Verdict,
    above,
    together,
    told,
    verdict,
)
from labctl.studies.nets import Nets

PARTS = ("grad_x", "grad_theta", "theta")
TARGETS = (*PARTS, "gradients", "all")
"""What is spoilt: one part, both gradients, or all three parts."""
MARKS = 26  # moments of a learning curve, the start included
SIDE = 24  # points a side of a decision map
_TINY = 1e-12


@dataclass(frozen=True)
class Condition:
    """One way to spoil the backward pass.

    Parameters
    ----------
    target
        Which part is spoilt.
    flip
        Probability that the sign of a component is flipped.
    power
        Exponent of its size; 1 leaves it, 0 keeps the sign alone.
    """

    target: str
    flip: float = 0.0
    power: float = 1.0

    def hits(self, part: str) -> bool:
        """Whether a part is spoilt.

        Parameters
        ----------
        part
            One of ``PARTS``.
        """
        both = self.target == "gradients" and part != "theta"
        return both or self.target in {part, "all"}


def conditions(spec: DestroyJacobian) -> list[Condition]:
    """List the conditions of a specification; the first is untouched.

    Parameters
    ----------
    spec
        The study's settings.
    """
    found = [Condition("grad_x")]
    for target in TARGETS:
        found += [Condition(target, flip=p) for p in spec.flips if p > 0]
        found += [Condition(target, power=k) for k in spec.powers if k < 1]
    return found


def columns(spec: DestroyJacobian) -> tuple[Column, ...]:
    """Say what every job leaves.

    Parameters
    ----------
    spec
        The study's settings.
    """
    count = len(conditions(spec))
    return (
        Column("depth", "i8", "Linear layers"),
        Column(
            "accuracy",
            "f8",
            "Accuracy on clean test data, by condition",
            shape=(count,),
            dims=("condition",),
        ),
        Column(
            "curve",
            "f4",
            "Loss of the training, by condition",
            shape=(count, MARKS),
            dims=("condition", "mark"),
        ),
        Column(
            "map",
            "f4",
            "Probability of class 1 on a square, by condition",
            shape=(count, SIDE, SIDE),
            dims=("condition", "row", "column"),
        ),
    )


def jobs(spec: DestroyJacobian, seeds: Sequence[int]) -> list[Job]:
    """List the jobs: one a depth and seed.

    Parameters
    ----------
    spec
        The study's settings.
    seeds
        Each draws the wrong labels, the start and the flips.
    """
    return [
        Job(f"depth {depth} seed {seed}", seed, {"depth": depth})
        for seed in seeds
        for depth in spec.depths
    ]


# ---- the spoilt backward pass ----------------------------------------------------


class Spoiler:
    """Spoils tensors whose first axis runs over conditions.

    Parameters
    ----------
    ways
        The conditions.
    rng
        Where the flips come from.
    """

    def __init__(self, ways: Sequence[Condition], rng: Generator) -> None:
        self._rng = rng
        self._flips: dict[str, Tensor] = {}
        self._powers: dict[str, Tensor] = {}
        for part in PARTS:
            flips = [way.flip if way.hits(part) else 0.0 for way in ways]
            powers = [way.power if way.hits(part) else 1.0 for way in ways]
            self._flips[part] = torch.tensor(flips)[:, None, None]
            self._powers[part] = torch.tensor(powers)[:, None, None]

    def __call__(self, part: str, values: Tensor) -> Tensor:
        """Flip signs and flatten sizes; every row keeps its norm.

        Parameters
        ----------
        part
            What the values are.
        values
            ``[condition, row, column]``.
        """
        drawn = torch.rand(values.shape, generator=self._rng)
        signs = torch.where(drawn < self._flips[part], -1.0, 1.0)
        bent = torch.sign(values) * values.abs() ** self._powers[part]
        before = torch.linalg.vector_norm(values, dim=2, keepdim=True)
        after = torch.linalg.vector_norm(bent, dim=2, keepdim=True)
        spoilt: Tensor = signs * bent * (before / (after + _TINY))
        return spoilt

    def multiply(self, x: Tensor, theta: Tensor) -> Tensor:
        """Multiply, with a spoilt backward pass.

        Parameters
        ----------
        x
            ``[condition, sample, in]``.
        theta
            ``[condition, in, out]``.
        """
        product: Tensor = SpoiltLinear.apply(x, theta, self)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        return product


class SpoiltLinear(torch.autograd.Function):
    """``x @ theta`` for every condition, with a spoilt backward pass."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, theta: Tensor, spoil: Spoiler) -> Tensor:
        """Multiply.

        Parameters
        ----------
        ctx
            Of torch.
        x
            ``[condition, sample, in]``.
        theta
            ``[condition, in, out]``.
        spoil
            Spoils what goes back.
        """
        ctx.save_for_backward(x, theta)
        ctx.spoil = spoil
        return x @ theta

    @staticmethod
    @override
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """Give both gradients, spoilt.

        Parameters
        ----------
        ctx
            Of torch.
        *grads
            Gradient of the product.
        """
        (grad,) = grads
        x, theta = ctx.saved_tensors
        grad_x = grad @ ctx.spoil("theta", theta).transpose(1, 2)
        grad_theta = x.transpose(1, 2) @ grad
        spoil = ctx.spoil
        return spoil("grad_x", grad_x), spoil("grad_theta", grad_theta), None


def measure(spec: DestroyJacobian, job: Job) -> Values:
    """Train the nets of one depth under every condition.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Which depth and seed.
    """
    rng = torch.Generator().manual_seed(job.seed)
    found = data.load(set="xor", train=spec.samples, validation=1, test=1000)
    x, test = (
        torch.tensor(part.x).float() * 4 - 2 for part in (found.train, found.test)
    )
    label = torch.tensor(found.train.y).float()
    wrong = torch.rand(len(label), generator=rng) < spec.wrong
    label = torch.where(wrong, 1 - label, label)
    ways = conditions(spec)
    sizes = [2, *[spec.width] * (int(job.settings["depth"]) - 1), 1]
    nets = Nets(sizes, len(ways), 2.0, rng)
    spoil = Spoiler(ways, rng)
    adam = torch.optim.Adam(nets.parameters, lr=spec.learning_rate)
    marks = set(np.linspace(0, spec.steps, MARKS).round().astype(int).tolist())
    goal = label.expand(len(ways), -1)
    curve = []
    for step in range(spec.steps + 1):
        logits = _logits(nets, x, spoil)
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, goal, reduction="none"
        ).mean(dim=1)
        if step in marks:
            curve.append(each.detach().numpy().copy())
        if step < spec.steps:
            adam.zero_grad()
            # The conditions share nothing, so their sum trains each apart.
            torch.autograd.backward(each.sum())
            adam.step()
    right, shown = _judged(nets, spoil, test, torch.tensor(found.test.y))
    return {
        "score": float(right[0]),
        "depth": int(job.settings["depth"]),
        "accuracy": right,
        "curve": np.array(curve).T,
        "map": shown,
    }


def _logits(nets: Nets, x: Tensor, spoil: Spoiler) -> Tensor:
    return nets(x, torch.nn.functional.gelu, spoil.multiply)[..., 0]


@torch.no_grad()
def _judged(
    nets: Nets, spoil: Spoiler, x: Tensor, label: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    right = ((_logits(nets, x, spoil) > 0) == (label > 0)).double().mean(dim=1)
    line = torch.linspace(-2, 2, SIDE)
    square = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    shown = torch.sigmoid(_logits(nets, square.reshape(-1, 2), spoil))
    return right.numpy(), shown.reshape(-1, SIDE, SIDE).numpy()


# ---- claims ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Found:
    """Accuracies by condition and depth.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a depth and seed.
    """

    spec: DestroyJacobian
    rows: Rows

    def of(self, way: Condition, depth: int) -> NDArray[np.float64]:
        """Return the accuracy of a condition, one a seed.

        Parameters
        ----------
        way
            The condition.
        depth
            Linear layers.
        """
        place = conditions(self.spec).index(way)
        some = self.rows["depth"] == depth
        order = np.argsort(self.rows["seed"][some], kind="stable")
        return np.asarray(self.rows["accuracy"][some][order][:, place])

    def lost(self, way: Condition, depth: int) -> NDArray[np.float64]:
        """Return what a condition costs, paired by seed.

        Parameters
        ----------
        way
            The condition.
        depth
            Linear layers.
        """
        return self.of(Condition("grad_x"), depth) - self.of(way, depth)


def claims(spec: DestroyJacobian, rows: Rows) -> list[Claim]:
    """Judge what the document says of an imperfect Jacobian.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a depth and seed.
    """
    found = Found(spec, rows)
    depths = [depth for depth in spec.depths if depth > 1]
    made = []
    if 0.0 in spec.powers:
        made += [_signs(found, depths, "grad_theta"), _signs(found, depths, "grad_x")]
    if any(0 < power < 1 for power in spec.powers):
        made.append(_between(found, depths))
    if 0.45 in spec.flips:
        made.append(_flips(found, depths))
    if any(0 < p <= _ROUGH for p in spec.flips):
        made.append(_heuristic(found, depths))
    made.append(_theta(found, depths))
    made.append(_deep(found, spec.depths))
    return made


_BIT = 0.02  # of accuracy: less is no loss
_LEARNED = 0.6  # accuracy, where chance has a half
_ROUGH = 0.25  # flipped share that leaves a direction: a cosine of at least a half


def _by_depth(values: Sequence[NDArray[np.float64]], depths: Sequence[int]) -> str:
    pairs = zip(depths, values, strict=True)
    return "; ".join(f"depth {depth}: {told(one)}" for depth, one in pairs)


def _signs(found: Found, depths: Sequence[int], target: str) -> Claim:
    lost = [found.lost(Condition(target, power=0.0), depth) for depth in depths]
    measured = f"accuracy lost, {_by_depth(lost, depths)} ({_BIT:g} is no loss)"
    unsure = [
        f"{depth}"
        for depth, one in zip(depths, lost, strict=True)
        if above(one, _BIT) is Verdict.OPEN
    ]
    if unsure:
        measured += f"; not decided at depth {', '.join(unsure)}"
    if target == "grad_theta":
        fine = together([_free(one) for one in lost])
        return Claim("keeping only signs works for grad_theta", measured, fine)
    text = "keeping only signs does not work for grad_x"
    return Claim(text, measured, together([above(one, _BIT) for one in lost]))


def _free(lost: NDArray[np.float64]) -> Verdict:
    """Whether so much accuracy is lost, by the whole interval, or not."""
    return above(-lost, -_BIT)


def _between(found: Found, depths: Sequence[int]) -> Claim:
    powers = sorted((p for p in found.spec.powers if p < 1), reverse=True)
    said, fine = [], []
    for target in ("grad_theta", "grad_x"):
        costs = []
        for power in powers:
            way = Condition(target, power=power)
            lost = np.mean([found.lost(way, depth) for depth in depths], axis=0)
            costs.append(f"k = {power:g}: {told(lost, '.4f')}")
            fine.append(_free(lost))
        said.append(f"{target}: {'; '.join(costs)}")
    return Claim(
        "to be tried in the document: exponents between sizes and signs alone",
        f"accuracy lost with sign(v) |v|^k, mean over depths: {' | '.join(said)}. Held "
        f"where no exponent costs more than {_BIT:g}, by the whole interval",
        together(fine),
    )


def _heuristic(found: Found, depths: Sequence[int]) -> Claim:
    p = max(p for p in found.spec.flips if 0 < p <= _ROUGH)
    lost = [found.lost(Condition("all", flip=p), depth) for depth in depths]
    one = [found.lost(Condition("grad_x", flip=p), depth) for depth in depths]
    return Claim(
        "the Jacobian is a heuristic that need not be modelled in detail to learn",
        f"accuracy lost where a share of {p:g} of all signs is wrong in every linear "
        f"layer, of grad_x (cosine {1 - 2 * p:.2g} a layer): {_by_depth(one, depths)} "
        f"| of grad_x, grad_theta and theta: {_by_depth(lost, depths)}",
        together([_free(cost) for cost in (*one, *lost)]),
    )


def _flips(found: Found, depths: Sequence[int]) -> Claim:
    said, good = [], []
    for target in ("grad_x", "grad_theta", "gradients", "all"):
        got = [found.of(Condition(target, flip=0.45), depth) for depth in depths]
        said.append(f"{target}: {_by_depth(got, depths)}")
        good += [above(one, _LEARNED) for one in got]
    return Claim(
        "learning survives random flips with p = .45",
        f"accuracy, {' | '.join(said)}; chance has .5, and {_LEARNED:g} is learned",
        together(good),
    )


def _theta(found: Found, depths: Sequence[int]) -> Claim:
    middle = [p for p in found.spec.flips if 0 < p < 0.5]
    if not middle or not depths:
        return Claim("grad_x matters more than grad_theta", "none", Verdict.OPEN)
    paired = [
        found.of(Condition("grad_theta", flip=p), depth)
        - found.of(Condition("grad_x", flip=p), depth)
        for p in middle
        for depth in depths
    ]
    by_seed = np.mean(paired, axis=0)
    return Claim(
        "accuracy of grad_x matters more than that of grad_theta",
        f"accuracy with grad_theta flipped less that with grad_x flipped, mean over "
        f"p below .5 and depths: {told(by_seed, '.4f')}",
        above(by_seed),
    )


def _deep(found: Found, depths: Sequence[int]) -> Claim:
    plain = [found.of(Condition("grad_x"), depth) for depth in depths]
    worst = "; ".join(
        f"depth {d}: {a.min():.3f}" for d, a in zip(depths, plain, strict=True)
    )
    some = [a for d, a in zip(depths, plain, strict=True) if d > 1]
    drop = len(some) > 1 and bool(some[-1].min() < some[0].min() - _BIT)
    return Claim(
        "deeper nets are unstable even unperturbed",
        f"untouched accuracy, {_by_depth(plain, depths)}; worst seed, {worst}",
        verdict(drop),
    )


STUDY = Study(
    "Spoil the backward pass of a net that learns XOR: flipped signs, signs alone",
    columns,
    jobs,
    measure,
    claims,
)
