"""Thresholds to try where yes is rarer than it was in training."""

from __future__ import annotations

import math

import pytest

from ealign_plugin.metrics.thresholds import candidate_thresholds, corrected, share_of_positives

SCORES = [0.51, 0.52, 0.99]
"""Of three sentences, one of them positive."""


def test_the_correction_is_a_shift_of_the_logit():
    def logit(p):
        return math.log(p / (1 - p))

    for probability, positives in ((0.2, 0.1), (0.9, 0.1), (0.7, 0.5), (0.7, 0.8)):
        shift = logit(corrected(probability, positives)) - logit(probability)
        assert shift == pytest.approx(logit(positives), abs=1e-9)
    assert corrected(1 - 0.15, 0.15) == 0.5
    assert (corrected(0.0, 0.3), corrected(1.0, 0.3)) == (0.0, 1.0)


def test_a_share_of_positives_is_never_quite_none_or_all():
    assert share_of_positives([True, False, False, False]) == 0.25
    assert (share_of_positives([False] * 4), share_of_positives([True] * 4)) == (0.125, 0.875)
    with pytest.raises(ValueError, match="no sentences"):
        share_of_positives([])


def test_of_three_sentences_each_number_that_can_be_selected_is_tried_once():
    assert candidate_thresholds(SCORES, 1 / 3, 7) == [pytest.approx(2 / 3), pytest.approx(0.515), 0.0]
    assert candidate_thresholds([0.5, 0.5, 0.5], 1 / 3, 7) == [pytest.approx(2 / 3), 0.0]  # none, or all


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("positives", [0.05, 0.2, 0.6, 0.9])
def test_where_the_corrected_probability_is_one_half_is_the_first_candidate(positives, count):
    scores = [number / 200 for number in range(200)]
    first, *others = candidate_thresholds(scores, positives, count)
    assert corrected(first, positives) == pytest.approx(0.5)
    assert len(others) < count and others == sorted(set(others), reverse=True)
    selected = [sum(score >= threshold for score in scores) / 200 for threshold in (first, *others)]
    assert len(set(selected)) == len(selected)
    assert all(positives / 2 <= share <= max(4 * positives, 1) for share in selected[1:])
    if count == 7 and positives == 0.2:
        assert len(others) == 6 and min(selected[1:]) < 0.2 < 0.6 < max(selected)
