"""A Kerr medium for the compiled kernel: the same plan, its tables laid out anew."""

import math
from typing import final

import numpy as np
import torch
from jaxtyping import Complex
from numpy.typing import NDArray
from torch import Tensor

from labctl.optics import propagation
from labctl.optics.fused.library import Axis, Kick, Library, Medium
from labctl.optics.propagation import Plan

# Shorter lines do not fill a register, longer ones leave the nearest cache.
SHORTEST, LONGEST = 16, 1024
# Up to this angle the kernel's polynomials do without a reduction.
_EIGHTH_RAD = math.pi / 4


def refusal(plan: Plan) -> str:
    """Say what the kernel lacks for a medium.

    Parameters
    ----------
    plan
        The medium, made ready for a grid.

    Returns
    -------
    refusal
        What is there and what was expected; empty where the kernel will do.
    """
    rows, columns = plan.transfer.shape
    lacking = grid_refusal((rows, columns))
    if lacking:
        return lacking
    if plan.transfer.dtype != torch.complex64:
        return "precision=complex128, expected complex64"
    if any(kick.bleaching for kick in plan.kicks):
        return "medium.bleaching=True, expected False"
    return ""


def grid_refusal(grid: tuple[int, int]) -> str:
    """Say what the kernel lacks for a grid.

    Parameters
    ----------
    grid
        Rows and columns of points.

    Returns
    -------
    refusal
        What is there and what was expected; empty where the kernel will do.
    """
    if any(side & (side - 1) or not SHORTEST <= side <= LONGEST for side in grid):
        return (
            f"grid=[{grid[0]}, {grid[1]}], expected powers of two from {SHORTEST} to "
            f"{LONGEST}"
        )
    return ""


@final
class FusedPlan:
    """A Kerr medium that the compiled kernel crosses.

    Where a gradient is asked for, and on another device than the processor, torch
    crosses it.

    Parameters
    ----------
    plan
        The medium, made ready for a grid.
    library
        The kernel.

    Raises
    ------
    ValueError
        The kernel lacks something for it.
    """

    def __init__(self, plan: Plan, library: Library) -> None:
        lacking = refusal(plan)
        if lacking:
            raise ValueError(lacking)
        self.plan, self.library = plan, library
        rows, columns = plan.transfer.shape
        self._shape = (int(rows), int(columns))
        # Of a separable factor, the first column and the first row are all.
        factor = plan.transfer.numpy()
        along_rows = _Line(factor[:, 0] * columns)
        along_columns = _Line(factor[0] * rows)
        kept = _Masks(library.lanes)
        kicks = (Kick * len(plan.kicks))(
            *(kept.kick(kick, across=bool(n % 2)) for n, kick in enumerate(plan.kicks))
        )
        self._kept = (along_rows, along_columns, kept, kicks)
        self._medium = Medium(
            along_rows.axis, along_columns.axis, len(plan.kicks) - 1, kicks
        )
        self._scratch = 2 * (rows * columns + library.lanes * columns)

    @property
    def chunk(self) -> int:
        """Fields computed together: the kernel takes any, the rest has a cache."""
        return self.plan.chunk

    def through(
        self, field: Complex[Tensor, "field row column"]
    ) -> Complex[Tensor, "field row column"]:
        """Carry one chunk of fields from the entrance to the exit face.

        Raises
        ------
        ValueError
            Shape or precision are not the plan's.
        """
        wanted = torch.is_grad_enabled() and field.requires_grad
        if wanted or field.device.type != "cpu":
            return self.plan.through(field)
        if tuple(field.shape[1:]) != self._shape or field.dtype != torch.complex64:
            text = (
                f"field of {field.dtype} and shape {tuple(field.shape)}, expected "
                f"torch.complex64 and (any, {self._shape[0]}, {self._shape[1]})"
            )
            raise ValueError(text)
        # Torch aligns what it allocates to 64 bytes, as the kernel wants it.
        crossed = (
            field.detach().resolve_conj().clone(memory_format=torch.contiguous_format)
        )
        scratch = torch.empty(self._scratch, dtype=torch.float32)
        self.library.propagate(crossed, self._medium, scratch)
        return crossed


class _Line:
    """Tables of one axis: turns of the butterflies, and diffraction in their order."""

    def __init__(self, factor: NDArray[np.complex64]) -> None:
        length = len(factor)
        self._twiddle = twiddle(length).astype(np.complex64)
        self._factor = np.ascontiguousarray(factor[order(length)])
        self.axis = Axis(length, self._twiddle.ctypes.data, self._factor.ctypes.data)


def order(length: int) -> NDArray[np.int64]:
    """Frequencies in the order in which the transform leaves them."""
    if length <= _LAST:
        return np.arange(length)
    inner = order(length // 4)
    return np.concatenate([4 * inner + q for q in range(4)])


# The longest transform that the kernel does at once.
_LAST = 8


def twiddle(length: int) -> NDArray[np.complex128]:
    """Factors between the stages, from the longest on: (stage and point, 3)."""
    stages = [np.empty((0, 3), dtype=np.complex128)]
    while length > _LAST:
        turns = np.outer(np.arange(length // 4), [1, 2, 3]) / length
        stages.append(np.exp(-2j * np.pi * turns))
        length //= 4
    return np.concatenate(stages)


class _Masks:
    """Masks as the kernel visits them, each of them once."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._kept: dict[bytes, NDArray[np.float32]] = {}

    def kick(self, kick: propagation.Kick, *, across: bool) -> Kick:
        """Lay out a kick for a visit along columns, or across them along rows."""
        kind, addresses = 0, [0, 0]
        if kick.mask is not None:
            mask: NDArray[np.complex64] = kick.mask.numpy()
            mask = mask.T if across else mask
            kind = 2 if bool(mask.imag.any()) else 1
            parts = (mask.real, mask.imag)[:kind]
            addresses[:kind] = [self._address(part) for part in parts]
        bound = abs(kick.b) * kick.saturation if kick.b else 0.0
        return Kick(
            kick.b,
            math.exp(-kick.loss / 2),
            1 / kick.saturation,
            0 if kick.b == 0 else 1 if bound <= _EIGHTH_RAD else 2,
            kind,
            *addresses,
        )

    def _address(self, part: NDArray[np.float32]) -> int:
        along, across = part.shape
        strips = part.reshape(along, across // self._lanes, self._lanes)
        laid = np.ascontiguousarray(strips.transpose(1, 0, 2))
        return int(self._kept.setdefault(laid.tobytes(), laid).ctypes.data)
