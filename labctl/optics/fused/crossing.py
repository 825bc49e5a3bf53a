"""Light through a saturable Kerr medium as a fit crosses it, by the compiled kernel."""

from typing import NamedTuple, cast, final

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from labctl.optics.fused import library as c
from labctl.optics.fused.library import Library
from labctl.optics.fused.plan import grid_refusal, order, twiddle
from labctl.optics.kicks import Kicks, Waves


class Derivatives(NamedTuple):
    """Derivatives of a loss.

    Parameters
    ----------
    field
        With respect to the fields at the entrance.
    length
        To the length of a step.
    strength, saturation, screen, left
        To what happens at the nodes.
    """

    field: Complex[Tensor, "batch row column"]
    length: Float[Tensor, ""] | None = None
    strength: Float[Tensor, " node"] | None = None
    saturation: Float[Tensor, ""] | None = None
    screen: Float[Tensor, "node row column"] | None = None
    left: Float[Tensor, "node row column"] | None = None


@final
class FusedMedium:
    """A medium, its tables laid out as the kernel visits them.

    Parameters
    ----------
    library
        The kernel.
    waves, length
        Diffraction, and how far it goes in a step.
    kicks
        What happens at each node.

    Raises
    ------
    ValueError
        The kernel does not know such a grid.
    """

    def __init__(
        self,
        library: Library,
        waves: Waves,
        length: Float[Tensor, ""],
        kicks: Kicks,
    ) -> None:
        rows, columns = (len(part) for part in waves)
        lacking = grid_refusal((rows, columns))
        if lacking:
            text = f"the compiled kernel does not do {lacking}."
            raise ValueError(text)
        self._library, self._grid = library, (rows, columns)
        self._nodes = len(kicks.strength)
        lines = [_Line(part, float(length)) for part in waves]
        laid = [self._laid(part) for part in (kicks.screen, kicks.left)]
        strengths = kicks.strength.detach().float().contiguous()
        # The kernel has addresses only: what they point to is kept here.
        self._kept = (lines, laid, strengths)
        # No fit that fails may fail by a division by zero.
        self._inverse = kicks.saturation.detach().reciprocal()
        self._medium = c.Crossing(
            lines[0].axis,
            lines[1].axis,
            lines[0].wave.ctypes.data,
            lines[1].wave.ctypes.data,
            self._nodes - 1,
            float(self._inverse),
            strengths.data_ptr(),
            *(part.data_ptr() for part in laid),
        )

    def _laid(self, table: Float[Tensor, "node row column"]) -> Tensor:
        """Order a table as it is visited: (node, strip, point, lane)."""
        rows, columns = self._grid
        lanes = self._library.lanes
        laid = torch.empty(self._nodes, rows * columns, dtype=torch.float32)
        table = table.detach()
        down = table[::2].view(-1, rows, columns // lanes, lanes).transpose(1, 2)
        laid[::2] = down.flatten(1)
        across = table[1::2].mT.reshape(-1, columns, rows // lanes, lanes)
        laid[1::2] = across.transpose(1, 2).flatten(1)
        return laid

    def _put_back(self, laid: Tensor) -> Float[Tensor, "node row column"]:
        rows, columns = self._grid
        lanes = self._library.lanes
        table = torch.empty(self._nodes, rows, columns, dtype=torch.float32)
        down = laid[::2].view(-1, columns // lanes, rows, lanes).transpose(1, 2)
        table[::2] = down.reshape(-1, rows, columns)
        across = laid[1::2].view(-1, rows // lanes, columns, lanes).transpose(1, 2)
        table[1::2] = across.reshape(-1, columns, rows).mT
        return table

    def cross(
        self, field: Complex[Tensor, "batch row column"], *, keep: bool
    ) -> tuple[Complex[Tensor, "batch row column"], Tensor | None]:
        """Take fields through.

        Parameters
        ----------
        field
            At the entrance, complex64.
        keep
            Whether :meth:`back` will be asked.

        Returns
        -------
        field, course
            At the exit, and the way there; None unless kept.

        Raises
        ------
        ValueError
            Shape or precision are not the medium's.
        """
        if tuple(field.shape[1:]) != self._grid or field.dtype != torch.complex64:
            text = (
                f"field of {field.dtype} and shape {tuple(field.shape)}, expected "
                f"torch.complex64 and (any, {self._grid[0]}, {self._grid[1]})"
            )
            raise ValueError(text)
        crossed = _own(field)
        size = (len(field), self._nodes, 2, *self._grid)
        course = torch.empty(size, dtype=torch.float32) if keep else None
        self._library.cross(crossed, self._medium, course)
        return crossed, course

    def back(
        self,
        gradient: Complex[Tensor, "batch row column"],
        course: Tensor,
        *,
        inner: bool,
    ) -> Derivatives:
        """Take gradients back.

        Parameters
        ----------
        gradient
            Of what left the medium, as torch has it.
        course
            From :meth:`cross`.
        inner
            Whether the medium's own derivatives are asked for.

        Returns
        -------
        derivatives
            Only that of the field without ``inner``.
        """
        pulled = _own(gradient)
        if not inner:
            self._library.cross_back(pulled, course, self._medium, None)
            return Derivatives(pulled)
        points = self._grid[0] * self._grid[1]
        screen, left = torch.zeros(2, self._nodes, points, dtype=torch.float32)
        strength = torch.zeros(self._nodes, dtype=torch.float64)
        found = c.Gradients(screen.data_ptr(), left.data_ptr(), strength.data_ptr())
        self._library.cross_back(pulled, course, self._medium, found)
        saturation = cast("float", found.saturation) * self._inverse.square()
        return Derivatives(
            pulled,
            torch.tensor(cast("float", found.length), dtype=torch.float32),
            strength.float(),
            saturation,
            self._put_back(screen),
            self._put_back(left),
        )


class _Line:
    """Tables of one axis; the transform leaves frequencies in an order of its own."""

    def __init__(self, wave: Float[Tensor, " point"], length: float) -> None:
        frequencies = wave.double().numpy()
        ordered = frequencies[order(len(frequencies))]
        transfer = np.exp(1j * length * ordered) / len(ordered)
        self.wave = ordered.astype(np.float32)
        self._twiddle = twiddle(len(ordered)).astype(np.complex64)
        self._transfer = transfer.astype(np.complex64)
        self.axis = c.Axis(
            len(ordered), self._twiddle.ctypes.data, self._transfer.ctypes.data
        )


def _own(field: Tensor) -> Tensor:
    """Copy fields as they lie in the kernel's memory."""
    return field.detach().resolve_conj().clone(memory_format=torch.contiguous_format)
