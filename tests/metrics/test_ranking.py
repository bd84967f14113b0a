"""Ranking metrics: by hand, by their definition, and where they are undefined."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ealign_plugin.errors import UserError
from ealign_plugin.metrics.ranking import auc, average_precision, list_f1, mean_by_group

RANKED = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=20)


def test_auc_by_hand():
    # Pairs (positive, negative): .9>.8 .9>.1 .3<.8 .3>.1
    assert auc([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0]) == 3 / 4


def test_equal_scores_are_a_coin_toss():
    assert auc([0.5] * 4, [1, 0, 0, 1]) == 1 / 2
    assert average_precision([0.5] * 4, [1, 0, 0, 0]) == 1 / 4


def test_average_precision_by_hand():
    # Positives at ranks 1 and 3.
    assert average_precision([-1, -2, -3, -4], [1, 0, 1, 0]) == pytest.approx((1 / 1 + 2 / 3) / 2)


@given(RANKED)
def test_auc_is_the_share_of_pairs_in_order(ranked):
    scores, labels = zip(*ranked, strict=True)
    pairs = [(p, n) for p, is_p in ranked if is_p for n, is_n in ranked if not is_n]
    wanted = sum((p > n) + (p == n) / 2 for p, n in pairs) / len(pairs) if pairs else None
    assert auc(scores, labels) == (None if wanted is None else pytest.approx(wanted))


@given(RANKED)
def test_average_precision_is_the_mean_precision_at_the_positives(ranked):
    scores, labels = zip(*ranked, strict=True)
    at = [[label for s, label in ranked if s >= score] for score, positive in ranked if positive]
    wanted = sum(sum(taken) / len(taken) for taken in at) / len(at) if at else None
    assert average_precision(scores, labels) == (None if wanted is None else pytest.approx(wanted))


@given(RANKED, st.randoms())
def test_order_and_scale_do_not_matter(ranked, chance):
    scores, labels = zip(*ranked, strict=True)
    moved, again = zip(
        *chance.sample([(math.exp(s) - 9, label) for s, label in ranked], len(ranked)), strict=True
    )
    for metric in (auc, average_precision):
        value = metric(scores, labels)
        assert metric(moved, again) == (None if value is None else pytest.approx(value))


def test_without_both_classes_there_is_no_figure():
    assert auc([1, 2], [True, True]) is None
    assert auc([1, 2], [False, False]) is None
    assert auc([], []) is None
    assert average_precision([1, 2], [False, False]) is None


def test_infinite_scores_are_scores():
    assert auc([-math.inf, 0, math.inf], [0, 0, 1]) == 1


def test_mean_by_group_leaves_out_the_undefined():
    scores, labels = [3, 1, 2, 5, 4, 9], [1, 0, 0, 0, 1, 1]
    assert mean_by_group(auc, scores, labels, list("aaabbc")) == (1 + 0) / 2
    assert mean_by_group(auc, [1], [True], ["a"]) is None


@pytest.mark.parametrize("metric", [auc, average_precision])
def test_bad_input_is_refused(metric):
    with pytest.raises(UserError, match="2 scores but 1 labels"):
        metric([1, 2], [True])
    with pytest.raises(UserError, match="score 1 of 2 is not a number"):
        metric([1, math.nan], [True, False])


def test_list_f1_sums_set_hits_over_photos():
    precision, recall, f1 = list_f1([["oslo", "oslo", "ana"], ["un"]], [["oslo"], ["un", "bo", "lyon"]])
    assert (precision, recall) == (2 / 3, 2 / 4)
    assert f1 == pytest.approx(4 / 7)


def test_list_f1_of_empty_lists():
    assert list_f1([[]], [["oslo"]]) == (None, 0, 0)
    assert list_f1([[]], [[]]) == (None, None, None)
    with pytest.raises(UserError, match="1 predicted lists but 0 wanted"):
        list_f1([[]], [])
