"""Losses that compare vectors x with targets y, both ``[N, n]``; a number comes out.

The scalar product runs over n, the mean over N, so a batch that is repeated costs
the same. Fits of relation (1), ``g(grad_y, alpha) . d_alpha ~ grad_y . d_f``, put
the probes of one group on n and the groups on N: with one probe a group the
gradient of ``cos`` is exactly zero, so :func:`relation` refuses it.

Norms below :data:`EPSILON` count as EPSILON wherever they divide, and logarithms
take their argument plus EPSILON: every loss and every gradient is finite at zero
vectors.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON: Final = 1e-12
Loss = Callable[[Tensor, Tensor], Tensor]
# These compare a direction or a projection along n; along one component there is
# none.
_NEED_TWO: Final = frozenset({"cos", "log-cos", "dot", "dot-norm", "gen"})


def _inner(x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]) -> Float[Tensor, " N"]:
    return (x * y).sum(dim=1)


def _norm(x: Float[Tensor, "N n"]) -> Float[Tensor, " N"]:
    norm: Tensor = torch.linalg.vector_norm(x, dim=1)
    return norm.clamp_min(EPSILON)


def sign(x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]) -> Float[Tensor, ""]:
    """``-sum_d max(0, 1 - sgn(y_d x_d))``: lowest where all signs disagree.

    Its gradient is zero wherever it exists.

    Parameters
    ----------
    x
        Vectors to judge.
    y
        Their targets.

    Returns
    -------
    loss
        Mean over the vectors.
    """
    # A product with zero keeps x in the graph: its gradient is zero, not missing.
    flat = (1 - torch.sign(y * x)).clamp_min(0).sum(dim=1)
    return -(flat + 0 * x.sum(dim=1)).mean()


def sign_mirror(x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]) -> Float[Tensor, ""]:
    """``sum_d max(0, 1 - sgn(y_d x_d))``: lowest where all signs agree.

    The mirror image of :func:`sign`; its gradient is as useless.

    Parameters
    ----------
    x
        Vectors to judge.
    y
        Their targets.

    Returns
    -------
    loss
        Mean over the vectors.
    """
    return -sign(x, y)


def relu(x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]) -> Float[Tensor, ""]:
    """``sum_d relu(-y_d x_d)``: only components of the wrong sign count.

    Parameters
    ----------
    x
        Vectors to judge.
    y
        Their targets.

    Returns
    -------
    loss
        Mean over the vectors.
    """
    return torch.relu(-y * x).sum(dim=1).mean()


def mse(x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]) -> Float[Tensor, ""]:
    """``mean <x - y, x - y>``: the gradient points straight at y.

    Parameters
    ----------
    x
        Vectors to judge.
    y
        Their targets.

    Returns
    -------
    loss
        Mean over the vectors of the squared distance.
    """
    return (x - y).square().sum(dim=1).mean()


def log_mse(x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]) -> Float[Tensor, ""]:
    """``log mse``: its gradient grows towards y.

    Parameters
    ----------
    x
        Vectors to judge.
    y
        Their targets.

    Returns
    -------
    loss
        Logarithm of :func:`mse`.
    """
    return torch.log(mse(x, y) + EPSILON)


def cos(x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]) -> Float[Tensor, ""]:
    """``1 - <x, y> / (|x| |y|)``: blind to both norms.

    Parameters
    ----------
    x
        Vectors to judge.
    y
        Their targets.

    Returns
    -------
    loss
        Mean over the vectors, 0 to 2; a zero vector counts 1.
    """
    return (1 - _inner(x / _norm(x)[:, None], y / _norm(y)[:, None])).mean()


def log_cos(x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]) -> Float[Tensor, ""]:
    """Logarithm of :func:`cos`.

    Parameters
    ----------
    x
        Vectors to judge.
    y
        Their targets.

    Returns
    -------
    loss
        Logarithm of the mean over the vectors.
    """
    # Rounding takes aligned vectors a little below zero.
    return torch.log(cos(x, y).clamp_min(0) + EPSILON)


def dot_similarity(
    x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]
) -> Float[Tensor, " N"]:
    """``<x, y> / <y, y>``: how long x is along y, in lengths of y.

    Parameters
    ----------
    x
        Vectors to judge.
    y
        Their targets.

    Returns
    -------
    similarity
        One a vector: 1 for x = y, without bound for longer x; 0 for a zero target.
    """
    norm = _norm(y)
    return _inner(x / norm[:, None], y / norm[:, None])


def dot(x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]) -> Float[Tensor, ""]:
    """``mse(1, <x, y> / <y, y>)``: what is orthogonal to y does not count.

    Parameters
    ----------
    x
        Vectors to judge.
    y
        Their targets.

    Returns
    -------
    loss
        Mean over the vectors; a zero target counts 1.
    """
    return (1 - dot_similarity(x, y)).square().mean()


def dot_norm(x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]) -> Float[Tensor, ""]:
    """``mse(|y|, <x, y> / |y|)``: as :func:`dot`, in the units of y.

    Parameters
    ----------
    x
        Vectors to judge.
    y
        Their targets.

    Returns
    -------
    loss
        Mean over the vectors.
    """
    norm = _norm(y)
    return (norm - _inner(x, y / norm[:, None])).square().mean()


def gen(a: float) -> Loss:
    """Build the loss between :func:`cos` and :func:`dot`.

    ``mse(S(x, y), S(y, y))`` with ``S(x, y) = <x, y> / (|x|^a |y|^(2-a))``.

    Parameters
    ----------
    a
        Exponent of the norm of x, 0 (``dot``) to 2.

    Returns
    -------
    loss
        Function of x and y, both ``[N, n]``.

    Raises
    ------
    ValueError
        ``a`` is outside 0 to 2.
    """
    if not 0 <= a <= 2:
        text = f"gen: a={a}, expected 0 to 2. Take a=0 for dot, a=1 for the cosine."
        raise ValueError(text)

    def loss(x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]) -> Float[Tensor, ""]:
        length, goal = _norm(x), _norm(y)
        unit = y / goal[:, None]
        # <x, y> / (|x|^a |y|^(2-a)), written so that no power overflows alone.
        got = _inner(x / length[:, None], unit) * (length / goal) ** (1 - a)
        return (got - _inner(unit, unit)).square().mean()

    return loss


def weighted(terms: Sequence[tuple[float, Loss]]) -> Loss:
    """Add losses.

    Parameters
    ----------
    terms
        Factor and loss of each.

    Returns
    -------
    loss
        Function of x and y, both ``[N, n]``.

    Raises
    ------
    ValueError
        There is nothing to add.
    """
    if not terms:
        text = "loss: terms=0, expected at least one. Name a loss."
        raise ValueError(text)

    def loss(x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]) -> Float[Tensor, ""]:
        return torch.stack([factor * term(x, y) for factor, term in terms]).sum()

    return loss


LOSSES: Final[Mapping[str, Loss]] = MappingProxyType(
    {
        "sign": sign,
        "sign-mirror": sign_mirror,
        "relu": relu,
        "mse": mse,
        "log-mse": log_mse,
        "cos": cos,
        "log-cos": log_cos,
        "dot": dot,
        "dot-norm": dot_norm,
        "cos+mse": weighted([(1.0, cos), (1.0, mse)]),
        "cos+dot": weighted([(1.0, cos), (1.0, dot)]),
    }
)


def named(name: str, a: float = 1.0) -> Loss:
    """Look a loss up by its name.

    Parameters
    ----------
    name
        A key of :data:`LOSSES`, or ``gen``.
    a
        Exponent of ``gen``; other losses have none.

    Returns
    -------
    loss
        Function of x and y, both ``[N, n]``.

    Raises
    ------
    ValueError
        There is no such loss.
    """
    if name == "gen":
        return gen(a)
    if name not in LOSSES:
        known = ", ".join([*LOSSES, "gen"])
        text = f"loss: name={name!r}, expected one of {known}. Correct the name."
        raise ValueError(text)
    return LOSSES[name]


def relation(name: str, a: float = 1.0) -> Loss:
    """Look up a loss for relation (1): groups on N, probes of a group on n.

    Parameters
    ----------
    name
        As for :func:`named`.
    a
        As for :func:`named`.

    Returns
    -------
    loss
        Function of ``s = g . d_alpha`` and ``t = grad_y . d_f``; it raises
        ValueError for one probe a group where the loss needs two.
    """
    plain = named(name, a)
    needs_two = any(part in _NEED_TWO for part in name.split("+"))

    def loss(x: Float[Tensor, "N n"], y: Float[Tensor, "N n"]) -> Float[Tensor, ""]:
        if needs_two and x.shape[1] < 2:
            text = (
                f"loss {name}: probes a group={x.shape[1]}, expected at least 2. "
                "Put the probes of one operating point on the last axis, or use mse."
            )
            raise ValueError(text)
        return plain(x, y)

    return loss
