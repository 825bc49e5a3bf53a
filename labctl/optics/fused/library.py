"""The compiled kernel in this process: its C interface, loaded and tried out."""

import ctypes
from pathlib import Path
from typing import final

import torch
from jaxtyping import Complex, Float
from torch import Tensor


class Axis(ctypes.Structure):
    """One axis of the grid; fields as in ``kernel.cpp``."""

    _fields_ = (
        ("length", ctypes.c_int64),
        ("twiddle", ctypes.c_void_p),
        ("transfer", ctypes.c_void_p),
    )


class Kick(ctypes.Structure):
    """What happens at one place; fields as in ``kernel.cpp``."""

    _fields_ = (
        ("b", ctypes.c_float),
        ("damp", ctypes.c_float),
        ("inverse_saturation", ctypes.c_float),
        ("phase", ctypes.c_int32),
        ("mask", ctypes.c_int32),
        ("mask_re", ctypes.c_void_p),
        ("mask_im", ctypes.c_void_p),
    )


class Medium(ctypes.Structure):
    """The medium; fields as in ``kernel.cpp``."""

    _fields_ = (
        ("rows", Axis),
        ("columns", Axis),
        ("steps", ctypes.c_int64),
        ("kicks", ctypes.POINTER(Kick)),
    )


class Crossing(ctypes.Structure):
    """A medium as a fit crosses it; fields as in ``crossing.cpp``."""

    _fields_ = (
        ("rows", Axis),
        ("columns", Axis),
        ("wave_rows", ctypes.c_void_p),
        ("wave_columns", ctypes.c_void_p),
        ("steps", ctypes.c_int64),
        ("inverse_saturation", ctypes.c_float),
        ("strength", ctypes.c_void_p),
        ("screen", ctypes.c_void_p),
        ("left", ctypes.c_void_p),
    )


class Gradients(ctypes.Structure):
    """Derivatives of a medium; fields as in ``crossing.cpp``."""

    _fields_ = (
        ("screen", ctypes.c_void_p),
        ("left", ctypes.c_void_p),
        ("strength", ctypes.c_void_p),
        ("saturation", ctypes.c_double),
        ("length", ctypes.c_double),
    )


@final
class Library:
    """The kernel, loaded.

    Parameters
    ----------
    path
        The shared library, as :func:`labctl.optics.fused.build.built` makes it.

    Raises
    ------
    OSError
        It cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        loaded = ctypes.CDLL(str(path))
        loaded.labctl_lanes.restype = ctypes.c_int64
        loaded.labctl_propagate.restype = None
        loaded.labctl_propagate.argtypes = (
            ctypes.c_void_p,
            ctypes.c_int64,
            ctypes.POINTER(Medium),
            ctypes.c_void_p,
        )
        loaded.labctl_crossing_scratch.restype = ctypes.c_int64
        loaded.labctl_crossing_scratch.argtypes = (ctypes.c_int64, ctypes.c_int64)
        loaded.labctl_cross.restype = None
        loaded.labctl_cross.argtypes = (
            ctypes.c_void_p,
            ctypes.c_int64,
            ctypes.POINTER(Crossing),
            ctypes.c_void_p,
            ctypes.c_void_p,
        )
        loaded.labctl_cross_back.restype = None
        loaded.labctl_cross_back.argtypes = (
            ctypes.c_void_p,
            ctypes.c_int64,
            ctypes.c_void_p,
            ctypes.POINTER(Crossing),
            ctypes.POINTER(Gradients),
            ctypes.c_void_p,
        )
        self.path = path
        self.lanes = int(loaded.labctl_lanes())
        self._propagate = loaded.labctl_propagate
        self._crossing_scratch = loaded.labctl_crossing_scratch
        self._cross, self._cross_back = loaded.labctl_cross, loaded.labctl_cross_back

    def propagate(
        self,
        field: Complex[Tensor, "field row column"],
        medium: Medium,
        scratch: Float[Tensor, " scratch"],
    ) -> None:
        """Carry fields through the medium, in place; other threads go on meanwhile.

        Parameters
        ----------
        field
            Contiguous, complex64, of the medium's grid.
        medium
            Tables and all.
        scratch
            As long as ``kernel.cpp`` asks for.
        """
        self._propagate(
            field.data_ptr(), len(field), ctypes.byref(medium), scratch.data_ptr()
        )

    def cross(
        self,
        field: Complex[Tensor, "field row column"],
        medium: Crossing,
        course: Float[Tensor, "field node part row column"] | None,
    ) -> None:
        """Carry fields through the medium, in place, as a fit does.

        Parameters
        ----------
        field
            Contiguous, complex64, of the medium's grid.
        medium
            Tables and all.
        course
            Where the way is kept that :meth:`cross_back` goes back; None where
            nobody will.
        """
        way = None if course is None else course.data_ptr()
        scratch = self._scratch(field)
        self._cross(
            field.data_ptr(),
            len(field),
            ctypes.byref(medium),
            way,
            scratch.data_ptr(),
        )

    def cross_back(
        self,
        gradient: Complex[Tensor, "field row column"],
        course: Float[Tensor, "field node part row column"],
        medium: Crossing,
        found: Gradients | None,
    ) -> None:
        """Take gradients of what left the medium back to its entrance, in place.

        Parameters
        ----------
        gradient
            Contiguous, complex64; that of the real part plus i times that of the
            imaginary part.
        course
            As :meth:`cross` kept it.
        medium
            The same.
        found
            What the medium's own derivatives are added to; None where nobody asks.
        """
        asked = None if found is None else ctypes.byref(found)
        scratch = self._scratch(gradient)
        self._cross_back(
            gradient.data_ptr(),
            len(gradient),
            course.data_ptr(),
            ctypes.byref(medium),
            asked,
            scratch.data_ptr(),
        )

    def _scratch(self, field: Tensor) -> Tensor:
        rows, columns = field.shape[1:]
        size = int(self._crossing_scratch(rows, columns))
        return torch.empty(size, dtype=torch.float32)
