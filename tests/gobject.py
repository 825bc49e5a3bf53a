"""What the bindings of GObject do not tell."""

import ctypes
from typing import Any


def address(thing: Any) -> int:  # noqa: ANN401 - its bindings have no types
    """Address of a GObject."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return int(pointer(thing.__gpointer__, None))
