import json
import math
import random
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labctl.recording.checkpoint import pack, unpack

KEYS = st.text(max_size=8) | st.integers()
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | hnp.arrays(
        st.sampled_from(["f8", "f4", "i8", "u1", "?"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
        elements={"allow_nan": False},
    )
)
STATES = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(KEYS, inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


def same(one: object, other: object) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@given(STATES)
def test_a_state_comes_back_as_it_was(state: dict[Any, Any]) -> None:
    assert same(state, unpack(pack(state)))


def test_training_goes_on_bit_identically() -> None:
    def build() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Dropout(0.3)
        )
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model: torch.nn.Module, adam: torch.optim.Optimizer) -> float:
        noise = numbers.normal(size=(4, 3)) + random.random()  # noqa: S311 - no secret
        loss = model(torch.tensor(noise, dtype=torch.float32)).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        return float(loss.detach())

    random.seed(1)
    numbers = np.random.Generator(np.random.Philox(3))
    model, adam = build()
    for _ in range(3):
        step(model, adam)
    blob = pack(
        {
            "model": model.state_dict(),
            "adam": adam.state_dict(),
            "torch": torch.get_rng_state(),
            "numpy": numbers.bit_generator.state,
            "python": random.getstate(),
        }
    )
    undisturbed = [step(model, adam) for _ in range(3)]

    state = unpack(blob)
    model, adam = build()
    model.load_state_dict(state["model"])
    adam.load_state_dict(state["adam"])
    torch.set_rng_state(state["torch"])
    numbers = np.random.Generator(np.random.Philox(99))
    numbers.bit_generator.state = state["numpy"]
    random.setstate(state["python"])
    assert [step(model, adam) for _ in range(3)] == undisturbed


def test_generators_of_wide_words_come_back() -> None:
    numbers = np.random.Generator(np.random.PCG64(5))
    state = unpack(pack({"state": numbers.bit_generator.state}))
    again = np.random.Generator(np.random.PCG64(0))
    again.bit_generator.state = state["state"]
    assert again.integers(2**63) == numbers.integers(2**63)


def test_tied_and_strided_tensors_are_kept() -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    state = unpack(pack({"a": weight, "b": weight.T}))
    assert torch.equal(state["a"], weight)
    assert torch.equal(state["b"], weight.T)


def test_numbers_that_are_not_finite_come_back() -> None:
    state = unpack(pack({"a": math.nan, "b": -math.inf, "c": np.float64(2.5)}))
    assert math.isnan(state["a"])
    assert state["b"] == -math.inf
    assert state["c"] == 2.5


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": [0, object()]}, "/0/1=object has no checkpoint form"),
        ({(1, 2): 0}, r"key=\(1, 2\), expected text or a number"),
    ],
)
def test_what_has_no_form_is_refused(state: dict[Any, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        pack(state)


def rewritten(blob: bytes, tree: object) -> bytes:
    (length,) = struct.unpack_from("<Q", blob)
    header = json.loads(blob[8 : 8 + length])
    header["__metadata__"]["labctl"] = json.dumps(tree)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + blob[8 + length :]


@pytest.mark.parametrize(
    "tree", [{"$eval": "1"}, [1], {"$tensor": "none"}, {}, {"$x": 1}]
)
def test_a_tree_that_nobody_packed_is_refused(tree: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        unpack(rewritten(pack({"a": torch.zeros(2)}), tree))


@pytest.mark.parametrize("blob", [b"", b"\x80\x04N.", b"\xff" * 64])
def test_other_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match="expected what a checkpoint was packed into"):
        unpack(blob)


@given(st.binary(max_size=300))
def test_bytes_from_a_stranger_are_refused_in_words(blob: bytes) -> None:
    with pytest.raises(ValueError, match=r"checkpoint: .*expected"):
        unpack(blob)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["$tensor", "$array", "$tuple", "$dict", "$x"]),
                inner,
                max_size=2,
            )
        ),
        max_leaves=6,
    )
)
def test_a_tree_from_a_stranger_gives_plain_values_or_a_refusal(tree: object) -> None:
    header = json.dumps({"__metadata__": {"labctl": json.dumps(tree)}}).encode()
    blob = struct.pack("<Q", len(header)) + header
    with suppress(ValueError):
        assert isinstance(unpack(blob), dict)
