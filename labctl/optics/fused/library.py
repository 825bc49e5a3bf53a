"""The compiled kernel in this process: its C interface, loaded and tried out."""

import ctypes
from pathlib import Path
from typing import final

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
        self.path = path
        self.lanes = int(loaded.labctl_lanes())
        self._propagate = loaded.labctl_propagate

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
