import pytest
import torch
from torch import Generator

from labctl.training.surrogate.replay import Ring


def numbers(first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows that can be told apart, with shapes (2,) and (3, 1)."""
    row = torch.arange(first, last, dtype=torch.float32)
    return row[:, None].expand(-1, 2), -row[:, None, None].expand(-1, 3, 1)


def contents(ring: Ring) -> list[float]:
    return sorted(ring.state_dict()["columns"][0][:, 0].tolist())


@pytest.mark.parametrize("parts", [[5], [2, 3], [1, 1, 1, 1, 1]])
def test_remembers_every_row_until_it_is_full(parts: list[int]) -> None:
    ring = Ring(5)
    at = 0
    for part in parts:
        ring.append(*numbers(at, at + part))
        at += part
    assert contents(ring) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("parts", [[3, 4, 6], [13], [1] * 13, [12, 1], [2, 11]])
def test_oldest_rows_give_way(parts: list[int]) -> None:
    ring = Ring(5)
    at = 0
    for part in parts:
        ring.append(*numbers(at, at + part))
        at += part
    assert len(ring) == 5
    assert contents(ring) == [8, 9, 10, 11, 12]


def test_grows_past_its_first_allocation_without_losing_a_row() -> None:
    ring = Ring(100_000)
    ring.append(*numbers(0, 700))
    ring.append(*numbers(700, 5000))
    assert contents(ring) == list(range(5000))


def test_rows_stay_together() -> None:
    ring = Ring(8)
    ring.append(*numbers(0, 11))
    left, right = ring.draw(50, Generator().manual_seed(0))
    assert left.shape == (50, 2)
    assert right.shape == (50, 3, 1)
    assert torch.equal(left[:, 0], -right[:, 0, 0])


@pytest.mark.parametrize("rows", [6, 11])
def test_recency_draws_young_rows_more_often(rows: int) -> None:
    ring = Ring(8)
    ring.append(*numbers(0, rows))
    counts = []
    for recency in (0.0, 3.0):
        (left, _) = ring.draw(4000, Generator().manual_seed(0), recency=recency)
        counts.append(int((left[:, 0] == rows - 1).sum()))
    assert abs(counts[0] - 4000 / min(rows, 8)) < 120
    # The youngest of n has the share n^(-1/4).
    assert abs(counts[1] - 4000 * min(rows, 8) ** -0.25) < 200


def test_state_restores_what_is_drawn_and_overwritten() -> None:
    one, two = Ring(8), Ring(8)
    one.append(*numbers(0, 11))
    two.load_state_dict(one.state_dict())
    for ring in (one, two):
        ring.append(*numbers(11, 14))
    left, right = (ring.draw(20, Generator().manual_seed(0)) for ring in (one, two))
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_state_of_a_ring_that_is_not_full_goes_on_growing() -> None:
    one, two = Ring(8), Ring(8)
    one.append(*numbers(0, 3))
    two.load_state_dict(one.state_dict())
    two.append(*numbers(3, 10))
    assert contents(two) == list(range(2, 10))


def test_appending_nothing_changes_nothing() -> None:
    ring = Ring(4)
    ring.append(*numbers(0, 0))
    assert len(ring) == 0
    ring.append(*numbers(0, 2))
    ring.append(*numbers(2, 2))
    assert contents(ring) == [0, 1]


def test_refuses_other_shapes_no_rows_and_no_room() -> None:
    ring = Ring(4)
    ring.append(*numbers(0, 2))
    with pytest.raises(ValueError, match=r"expected one number of rows of shapes"):
        ring.append(torch.zeros(2, 3), torch.zeros(2, 3, 1))
    with pytest.raises(ValueError, match=r"rows=\[2, 3\]"):
        ring.append(torch.zeros(2, 2), torch.zeros(3, 3, 1))
    with pytest.raises(ValueError, match="rows=0, expected at least one"):
        Ring(4).draw(2, Generator().manual_seed(0))
    with pytest.raises(ValueError, match="capacity=0"):
        Ring(0)
    big = Ring(9)
    big.append(*numbers(0, 9))
    with pytest.raises(ValueError, match="rows=9, expected at most 4"):
        ring.load_state_dict(big.state_dict())


@pytest.mark.parametrize(("rows", "keep"), [(3, 2), (5, 5), (13, 4), (13, 0), (2, 9)])
def test_only_the_newest_rows_are_left_after_forgetting(rows: int, keep: int) -> None:
    ring = Ring(5)
    for number in range(rows):
        ring.append(torch.full((1, 2), float(number)))
    ring.forget(keep)
    left = min(keep, rows, 5)
    assert len(ring) == left
    for number in range(rows, rows + 2):
        ring.append(torch.full((1, 2), float(number)))
    (found,) = ring.rows()
    newest = list(range(rows - left, rows + 2))[-5:]
    assert sorted(found[:, 0].tolist()) == newest
    ring.forget(1)
    assert ring.rows()[0][:, 0].tolist() == [rows + 1]
