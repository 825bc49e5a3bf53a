"""What a checkpoint was packed into: read without torch, for whoever looks at arrays.

A report draws a parameter or two; loading torch would take longer than all its figures.
"""

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

_PREFIX: Final = struct.Struct("<Q")
# What bytes from a stranger can lead to.
_DAMAGES: Final = (
    struct.error,
    AttributeError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
    SafetensorError,
)


def arrays(blob: bytes) -> dict[str, Any]:
    """Turn bytes back into the state, its tensors as arrays.

    Parameters
    ----------
    blob
        What :func:`labctl.recording.checkpoint.pack` returned.

    Returns
    -------
    state
        Equal to the state that was packed, apart from that.

    Raises
    ------
    ValueError
        The bytes are no checkpoint, or numpy has no such numbers (bfloat16).
    """
    return opened(blob, safetensors.numpy.load, np.asarray)


def opened(
    blob: bytes,
    load: Callable[[bytes], Mapping[str, Any]],
    as_array: Callable[[Any], Any],
) -> dict[str, Any]:
    """Turn bytes back into the state.

    Parameters
    ----------
    blob
        What :func:`labctl.recording.checkpoint.pack` returned.
    load
        Reads the tensors of a safetensors file, by name.
    as_array
        Turns one into an array, where an array was packed.

    Returns
    -------
    state
        Equal to the state that was packed; tensors as they were loaded.

    Raises
    ------
    ValueError
        The bytes are no checkpoint.
    """
    try:
        (length,) = _PREFIX.unpack_from(blob)
        header = json.loads(blob[_PREFIX.size : _PREFIX.size + length])
        tree = json.loads(header["__metadata__"]["labctl"])
        state = _restore(tree, load(blob), as_array)
    except _DAMAGES as err:
        text = f"checkpoint: {err!r}, expected what a checkpoint was packed into."
        raise ValueError(text) from err
    if not isinstance(state, dict):
        text = "checkpoint: no dict at its top, expected one."
        raise ValueError(text)  # noqa: TRY004 - damaged bytes, not a wrong argument
    return state


def checksum(blob: bytes) -> int:
    """Return the CRC-32 of the bytes."""
    return zlib.crc32(blob)


def _restore(
    tree: object, tensors: Mapping[str, Any], as_array: Callable[[Any], Any]
) -> object:
    def again(item: object) -> object:
        return _restore(item, tensors, as_array)

    if isinstance(tree, list):
        return [again(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "$tensor":
        return tensors[content]
    if kind == "$array":
        return as_array(tensors[content])
    if kind == "$tuple":
        return tuple(again(item) for item in content)
    if kind == "$dict":
        return {key: again(item) for key, item in content}
    text = f"checkpoint: {kind} is not known."
    raise ValueError(text)
