"""Counted whole numbers → mean, percentiles and a histogram, without a list of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

MAX_BINS = 30


def distribution(counts: Mapping[int, int]) -> dict[str, Any]:
    """How the numbers are distributed, as JSON values; all but the count is null where there are none.

    Percentiles are interpolated, as numpy does. The histogram has equal bins from ``first`` on, at round
    numbers; the last one holds the 99th percentile and everything above, so that a long tail leaves the
    rest readable::

        >>> distribution({10: 3, 12: 1})["histogram"]
        {'first': 10, 'bin_width': 1, 'counts': [3, 0, 1]}

    Args:
        counts: How often each number occurs; numbers are 0 or more.
    """
    if not counts:
        return {"count": 0, **dict.fromkeys(("mean", "min", "p5", "median", "p95", "max", "histogram"))}
    values = np.array(sorted(counts))
    weights = np.array([counts[value] for value in values.tolist()])
    ends = np.cumsum(weights)
    total = int(ends[-1])

    def percentile(percent: int) -> float:
        rank, rest = divmod(percent * (total - 1), 100)
        low, high = values[np.searchsorted(ends, (rank, min(rank + 1, total - 1)), side="right")].tolist()
        return low + (high - low) * rest / 100

    top = -int(-percentile(99) // 1)  # rounded up
    first, width = _bins(int(values[0]), top)
    bins = np.minimum(values - first, top - first) // width
    return {
        "count": total,
        "mean": float(values @ weights / total),
        "min": int(values[0]),
        "p5": percentile(5),
        "median": percentile(50),
        "p95": percentile(95),
        "max": int(values[-1]),
        "histogram": {
            "first": first,
            "bin_width": width,
            "counts": np.bincount(bins, weights).astype(int).tolist(),
        },
    }


def _bins(low: int, high: int) -> tuple[int, int]:
    """Where the first bin starts and how wide bins are, so that `MAX_BINS` reach from low to high."""
    widths = (step * 10**power for power in range(18) for step in (1, 2, 5))
    width = next(width for width in widths if high // width - low // width < MAX_BINS)
    return low - low % width, width
