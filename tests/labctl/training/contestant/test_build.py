"""Every name leads to its parts."""

import typing

import pytest
import torch

from labctl import protocol
from labctl.training.contestant.build import FITTED, SEARCHES, Method, MethodName


@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_a_search_is_made_with_its_numbers(name: MethodName) -> None:
    method = Method(name=name, candidates=4, radius_rad=0.1)
    search = method.search(30, torch.Generator())
    assert type(search) is SEARCHES[name]
    assert (search.effort.candidates, search.effort.steps) == (4, 30)


def test_other_methods_have_no_search() -> None:
    assert Method(name="readout").search(30, torch.Generator()) is None
    assert not Method(name="surrogate").is_search


def test_the_protocol_knows_the_same_methods() -> None:
    entry = protocol.MethodEntry.model_fields["name"].annotation
    names = set(typing.get_args(MethodName))
    assert set(typing.get_args(entry)) == names
    assert names >= FITTED | set(SEARCHES)
    assert set(protocol.MethodEntry.model_fields) == set(Method.__dataclass_fields__)
