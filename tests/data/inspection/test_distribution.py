"""Distributions with bins of whole numbers, beside the list of all their numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.data.inspection.distribution import MAX_BINS, distribution


@settings(derandomize=True, deadline=None)
@given(st.dictionaries(st.integers(0, 10**6), st.integers(1, 20), min_size=1, max_size=40))
def test_a_distribution_agrees_with_the_list_of_all_its_numbers(counts):
    numbers = np.repeat(list(counts), list(counts.values()))
    found = distribution(counts)
    assert found["count"] == len(numbers)
    assert found["mean"] == pytest.approx(numbers.mean())
    expected = np.percentile(numbers, [0, 5, 50, 95, 100]).tolist()
    assert [found[name] for name in ("min", "p5", "median", "p95", "max")] == pytest.approx(expected)

    bins = found["histogram"]
    edges = [bins["first"] + place * bins["bin_width"] for place in range(len(bins["counts"]))]
    assert bins["counts"] == np.histogram(numbers, [*edges, np.inf])[0].tolist()
    assert len(edges) <= MAX_BINS and bins["first"] <= found["min"]


def test_a_long_tail_stands_in_the_last_bin():
    bins = distribution({n: 100 for n in range(10)} | {5000: 1})["histogram"]
    assert bins == {"first": 0, "bin_width": 1, "counts": [100] * 9 + [101]}
