"""Intervals: articles are resampled whole, the same ones for every row."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ealign_plugin.metrics.bootstrap import ClusterResamples, f1, interval, ratio
from ealign_plugin.metrics.entities import EntityScores

ARTICLES = [article for article in range(40) for _ in range(3)]


def coins(seed: int, share: float) -> list[tuple[int, int]]:
    """A photo each: right or not."""
    chance = random.Random(seed)
    return [(int(chance.random() < share), 1) for _ in ARTICLES]


def width(clusters, counts) -> float:
    low, high = interval(ClusterResamples(clusters).values(counts, ratio))
    return high - low


def test_the_interval_of_independent_photos_is_that_of_the_formula():
    photos = coins(1, 0.7)
    share = sum(right for right, _ in photos) / len(photos)
    low, high = interval(ClusterResamples(range(len(photos))).values(photos, ratio))
    assert low < share < high
    assert high - low == pytest.approx(2 * 1.96 * (share * (1 - share) / len(photos)) ** 0.5, rel=0.15)


def test_photos_of_one_article_that_agree_count_as_one():
    agreeing = [photo for photo in coins(1, 0.7)[:40] for _ in range(3)]
    assert width(ARTICLES, agreeing) > 1.5 * width(range(120), agreeing)


def test_the_difference_of_two_rows_is_paired():
    resamples = ClusterResamples(ARTICLES)
    one = coins(1, 0.5)
    better = [(1, 1) if number < 12 else photo for number, photo in enumerate(one)]
    paired = interval(resamples.values(better, ratio) - resamples.values(one, ratio))
    assert paired[1] - paired[0] < width(ARTICLES, one) / 2
    same = interval(resamples.values(one, ratio) - resamples.values(one, ratio))
    assert same == (0.0, 0.0)


def test_the_same_photos_give_the_same_interval():
    assert width(ARTICLES, coins(1, 0.7)) == width(ARTICLES, coins(1, 0.7))


@pytest.mark.parametrize("counts", [(3, 4, 2, 5), (0, 4, 0, 5), (0, 0, 0, 3), (0, 3, 0, 0), (0, 0, 0, 0)])
def test_f1_of_sums_is_that_of_entity_scores(counts):
    value = f1(np.array(counts, dtype=float))
    expected = EntityScores(*counts).f1
    assert np.isnan(value) if expected is None else value == pytest.approx(expected)


def test_what_is_undefined_in_every_resample_has_no_interval():
    assert interval(ClusterResamples([1, 2]).values([[0, 0], [0, 0]], ratio)) is None


def test_resamples_without_a_photo_that_counts_are_left_out():
    assert interval(ClusterResamples([1, 2]).values([[1, 1], [0, 0]], ratio)) == (1.0, 1.0)
