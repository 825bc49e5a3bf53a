"""Which kernel crosses a medium: torch, or the compiled one."""

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import torch
from torch import Tensor

from labctl.optics.crossing import cross_fused, plainly
from labctl.optics.fused import build
from labctl.optics.fused.library import Library
from labctl.optics.fused.plan import FusedPlan, refusal
from labctl.optics.kicks import Kicks, Waves
from labctl.optics.medium import SaturableKerr
from labctl.optics.propagation import Crossing, Plan, plan, propagate

Kernel = Literal["torch", "fused", "auto"]

# Greatest difference between the kernels, over the greatest amplitude.
AGREEMENT: Final = 2e-4


@dataclass(frozen=True, eq=False)
class Chosen:
    """A medium with the kernel that crosses it.

    Parameters
    ----------
    crossing
        For :func:`labctl.optics.propagation.propagate`.
    kernel
        What it is.
    build
        Which compiled kernel it is, to the bit; empty for torch.
    note
        Why torch is taken although the other was tried; empty otherwise.
    """

    crossing: Crossing
    kernel: Literal["torch", "fused"]
    build: str = ""
    note: str = ""


def choose(ready: Crossing, wanted: Kernel, lacking: str = "") -> Chosen:
    """Take the kernel that was asked for, building it where that is its first use.

    Parameters
    ----------
    ready
        The medium, made ready for a grid by torch.
    wanted
        ``torch``; ``fused``, the compiled one or nothing; ``auto``, the compiled
        one where there is a compiler and it knows the medium, else torch.
    lacking
        What is asked of the medium that only torch does, and what was expected;
        empty where there is nothing.

    Returns
    -------
    chosen
        And what was chosen.

    Raises
    ------
    ValueError
        ``fused`` is not to be had.
    """
    choice = decide(wanted, _lacking(ready, lacking))
    if choice.kernel == "torch" or not isinstance(ready, Plan):
        return Chosen(ready, "torch", note=choice.note)
    library, key = loaded()
    return Chosen(FusedPlan(ready, library), "fused", key)


def _lacking(ready: Crossing, lacking: str) -> str:
    if not isinstance(ready, Plan):
        return "the compiled kernel crosses Kerr media and free space only."
    lacking = lacking or refusal(ready)
    return f"the compiled kernel does not do {lacking}." if lacking else ""


@dataclass(frozen=True)
class Choice:
    """A kernel.

    Parameters
    ----------
    kernel
        Which.
    build
        Which compiled kernel it is, to the bit; empty for torch.
    note
        Why torch is taken although the other was tried; empty otherwise.
    """

    kernel: Literal["torch", "fused"]
    build: str = ""
    note: str = ""


def decide(wanted: Kernel, lacking: str) -> Choice:
    """Decide on a kernel, building the compiled one where that is its first use.

    Parameters
    ----------
    wanted
        As for :func:`choose`.
    lacking
        Why the compiled one will not do, a sentence; empty where it will.

    Returns
    -------
    choice
        The kernel.

    Raises
    ------
    ValueError
        ``fused`` is not to be had.
    """
    if wanted == "torch":
        return Choice("torch")
    try:
        if lacking:
            raise ValueError(lacking)  # noqa: TRY301 - one way to say so
        return Choice("fused", loaded()[1])
    except ValueError as error:
        if wanted == "fused":
            text = (
                f"kernel='fused': {error} Or set kernel: auto, which takes torch "
                "where the compiled kernel cannot be had."
            )
            raise ValueError(text) from error
        return Choice("torch", note=str(error))


@cache
def loaded() -> tuple[Library, str]:
    """Load the compiled kernel, built where this is its first use, and try it out.

    Returns
    -------
    library, key
        The kernel, and which one it is.

    Raises
    ------
    ValueError
        It cannot be built or loaded, or computes something else than torch.
    """
    made = build.built()
    try:
        library = Library(made.path)
    except OSError as error:
        text = f"{made.path}: {error}, expected a library that loads. Delete it."
        raise ValueError(text) from error
    differs = disagreement(library)
    if not differs <= AGREEMENT:
        text = (
            f"{made.path}: differs from torch by {differs:.1e}, expected at most "
            f"{AGREEMENT:.0e}. Name another compiler in the environment variable CXX."
        )
        raise ValueError(text)
    return library, made.key


def disagreement(library: Library) -> float:
    """Compare a compiled kernel with torch on a small medium that has everything.

    Parameters
    ----------
    library
        The kernel.

    Returns
    -------
    disagreement
        Greatest difference over the greatest amplitude.
    """
    rows, columns = 32, 64
    medium = SaturableKerr(b=3.0, saturation=1.5, steps=5, loss=0.2, edge=1.0)
    y, x = torch.arange(rows)[:, None] / rows, torch.arange(columns)[None] / columns
    screen = 0.3 * torch.cos(6 * y + 17 * x)
    ready = plan(medium, (rows, columns), 4.0, screens={0.4: screen})
    bumps = torch.stack([torch.cos(4 * y - 9 * x), torch.sin(11 * y * x)])
    field = torch.polar(0.5 + bumps.square(), 5 * bumps.flip(0))
    with torch.no_grad():
        want, got = propagate(field, ready), propagate(field, FusedPlan(ready, library))
    across = _crossing_disagreement(field, screen, library)
    return max(float((got - want).abs().max() / want.abs().max()), across)


def _crossing_disagreement(field: Tensor, screen: Tensor, library: Library) -> float:
    """Compare a crossing and its derivatives, the greatest difference of any."""
    rows, columns = screen.shape
    waves = Waves(*(-(torch.fft.fftfreq(side) ** 2) for side in (rows, columns)))
    screens = torch.stack([screen, -screen, screen.flip(0), 2 * screen])
    kicks = Kicks(
        torch.tensor([0.4, -0.8, 0.8, 0.3]),
        torch.tensor(1.5),
        screens,
        torch.exp(-0.2 * screens.square()),
    )
    parts = [field, torch.tensor(20.0), *kicks]
    parts = [part.clone().requires_grad_() for part in parts]
    found = []
    for fused in (False, True):
        entrance, length, *inner = parts
        if fused:
            out = cross_fused(entrance, waves, length, Kicks(*inner), library)
        else:
            out = plainly(entrance, waves.transfer(length), Kicks(*inner))
        pulled = torch.autograd.grad(out, parts, torch.conj(field.roll(3, 2)))
        found.append([out.detach(), *pulled])
    pairs = zip(*found, strict=True)
    return max(
        float((got - want).abs().max() / want.abs().max()) for want, got in pairs
    )
