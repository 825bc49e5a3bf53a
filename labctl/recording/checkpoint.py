"""Checkpoints as bytes: safetensors for arrays, JSON for the rest, never pickle.

Reading a data file must not run code that lies in it. The tree of a state is
kept as JSON in the metadata of a safetensors file: tensors and arrays by name,
dicts as pairs (so that keys stay numbers), tuples told from lists. JSON of Python
keeps whole numbers of any size and every bit of a float.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from labctl.recording.packed import opened


def pack(state: Mapping[str, Any]) -> bytes:
    """Turn a state into bytes.

    Parameters
    ----------
    state
        Nested dicts, lists and tuples of tensors, arrays and plain values.

    Returns
    -------
    blob
        A safetensors file.

    Raises
    ------
    TypeError
        Something in it has no checkpoint form.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten(dict(state), "", tensors)
    return safetensors.torch.save(tensors, metadata={"labctl": json.dumps(tree)})


def unpack(blob: bytes) -> dict[str, Any]:
    """Turn bytes back into the state.

    Parameters
    ----------
    blob
        What :func:`pack` returned.

    Returns
    -------
    state
        Equal to the state that was packed; tensors on the processor.

    Raises
    ------
    ValueError
        The bytes are no checkpoint.
    """
    return opened(blob, safetensors.torch.load, torch.Tensor.numpy)


def _flatten(value: object, path: str, tensors: dict[str, torch.Tensor]) -> object:
    if isinstance(value, torch.Tensor | np.ndarray):
        return _flatten_array(value, path, tensors)
    if isinstance(value, np.generic):
        return _flatten(value.item(), path, tensors)
    if isinstance(value, Mapping):
        pairs = enumerate(value.items())
        return {
            "$dict": [
                [_key(key, path), _flatten(item, f"{path}/{n}", tensors)]
                for n, (key, item) in pairs
            ]
        }
    if isinstance(value, list | tuple):
        items = [_flatten(v, f"{path}/{n}", tensors) for n, v in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if value is None or type(value) in {bool, int, float, str}:
        return value
    text = f"checkpoint: {path or '/'}={type(value).__name__} has no checkpoint form."
    raise TypeError(text)


def _flatten_array(
    value: torch.Tensor | NDArray[Any], path: str, tensors: dict[str, torch.Tensor]
) -> dict[str, str]:
    # A clone each: safetensors refuses tensors that share memory.
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().clone().contiguous()
        return {"$tensor": path}
    tensors[path] = torch.from_numpy(np.array(value, order="C", copy=True))
    return {"$array": path}


def _key(key: object, path: str) -> str | int | float | bool | None:
    if key is None or isinstance(key, str | int | float | bool):
        return key
    text = f"checkpoint: {path or '/'}: key={key!r}, expected text or a number."
    raise TypeError(text)
