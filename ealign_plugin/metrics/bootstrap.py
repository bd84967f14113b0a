"""How sure a figure is: 95 % intervals by resampling whole articles.

Photos of one article share its names and its difficulty, so that they are drawn together: each resample draws
as many clusters as there are, with repetition. A figure is a function of sums over photos::

    people right   [right, photos with people]                          `ratio`
    entity F1      [hits, count] of references, [hits, count] of captions   `f1`
    CIDEr          [score, 1]                                           `ratio`

    interval(resamples.values(counts, f1))                               of one row
    interval(resamples.values(one, f1) - resamples.values(other, f1))    paired difference of two rows
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Figure = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Sums [..., columns] → figures [...]; not a number where a figure is undefined."""

RESAMPLES = 1000
LEVEL = 0.95


def ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """First column / second column."""
    return _divide(sums[..., 0], sums[..., 1])


def f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of hits and count of the references, hits and count of the captions; as `EntityScores.f1`."""
    reference_hits, references, caption_hits, captions = np.moveaxis(sums, -1, 0)
    recall = np.nan_to_num(_divide(reference_hits, references))
    precision = np.nan_to_num(_divide(caption_hits, captions))
    value = np.nan_to_num(_divide(2 * precision * recall, precision + recall))
    return np.where(references + captions > 0, value, np.nan)


class ClusterResamples:
    """Resamples of a set of photos; each call sees the same ones, so that differences are paired.

    Args:
        clusters: Of each photo, what those of its cluster share: its article.
        count: Number of resamples.
        seed: Of the random numbers.

    Example:
        >>> resamples = ClusterResamples(["a", "a", "b"])
        >>> resamples.clusters, resamples.values([[1, 1], [1, 1], [1, 1]], ratio).tolist()[:2]
        (2, [1.0, 1.0])
    """

    def __init__(self, clusters: Sequence[Hashable], count: int = RESAMPLES, seed: int = 0) -> None:
        numbers: dict[Hashable, int] = {}
        self._of_photo = np.array([numbers.setdefault(one, len(numbers)) for one in clusters], dtype=np.intp)
        self.clusters, self.count, self.seed = len(numbers), count, seed

    def values(self, counts: ArrayLike, figure: Figure) -> NDArray[np.float64]:
        """The figure of each resample, of counts [photos, columns]."""
        by_photo = np.asarray(counts, dtype=np.float64)
        sums = np.zeros((self.clusters, by_photo.shape[1]))
        np.add.at(sums, self._of_photo, by_photo)
        rng = np.random.default_rng(self.seed)
        drawn = (rng.integers(self.clusters, size=self.clusters) for _ in range(self.count))
        # One at a time: a table of all of them takes a gigabyte on the largest test sets.
        return figure(np.stack([np.bincount(one, minlength=self.clusters) @ sums for one in drawn]))


def interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The bounds that hold 95 % of the values; None where they are all undefined."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _divide(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    undefined = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)
