"""Intervals cover what they say, and one value has none."""

import math

import numpy as np

from labctl.training.interval import bootstrap


def test_the_interval_covers_a_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(300):
        low, high = bootstrap(list(generator.normal(size=20)))
        hits += low <= 0 <= high
    # Percentile intervals of 20 values are a little narrow.
    assert 0.88 < hits / 300 < 0.97


def test_one_value_has_no_interval() -> None:
    assert all(math.isnan(bound) for bound in bootstrap([0.3]))
