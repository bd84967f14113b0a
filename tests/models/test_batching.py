"""Rows of tokens in padded batches of like length."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ealign_plugin.models.batching import Tokens, by_length, pad

CPU = torch.device("cpu")
IDS = st.lists(st.integers(1, 99), max_size=6)
ROWS = st.lists(st.builds(Tokens, IDS, IDS), min_size=1, max_size=8)
LENGTHS = st.lists(st.integers(0, 200), max_size=30)
WASTE = st.sampled_from([0.0, 0.15, 0.5, 1.0])


def test_padding_on_the_right_for_training():
    batch = pad([Tokens([5, 6], [7, 2]), Tokens([5], [8])], 0, CPU)
    assert batch.ids.tolist() == [[5, 6, 7, 2], [5, 8, 0, 0]]
    assert batch.mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.labels.tolist() == [[-100, -100, 7, 2], [-100, 8, -100, -100]]


def test_padding_on_the_left_for_generation():
    batch = pad([Tokens([5, 6, 7]), Tokens([5])], 0, CPU, left=True)
    assert batch.ids.tolist() == [[5, 6, 7], [0, 0, 5]]
    assert batch.mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert (batch.labels == -100).all()


@given(ROWS, st.booleans())
def test_mask_and_labels_give_the_rows_back(rows, left):
    batch = pad(rows, 0, CPU, left=left)
    assert {tensor.dtype for tensor in batch} == {torch.int64}
    for row, ids, mask, labels in zip(rows, *batch, strict=True):
        assert ids[mask == 1].tolist() == row.prompt + row.target
        assert labels[labels >= 0].tolist() == row.target
        assert labels[mask == 1].tolist() == [-100] * len(row.prompt) + row.target


@given(LENGTHS, WASTE, st.none() | st.integers(1, 5))
def test_every_row_is_in_one_group_of_bounded_size_and_padding(lengths, waste, most):
    groups = by_length(lengths, waste, most)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        inside = [lengths[index] for index in group]
        assert inside == sorted(inside, reverse=True)
        assert most is None or len(group) <= most
        assert max(inside) * len(group) - sum(inside) <= waste * max(inside) * len(group) + 1e-9


@given(st.lists(st.integers(1, 9), min_size=1))
def test_the_ends_of_the_scale(lengths):
    """No padding allowed: a group a length. Any allowed: one group."""
    assert len(by_length(lengths, 0.0)) == len(set(lengths))
    assert len(by_length(lengths, 1.0)) == 1


def test_rows_of_one_length_keep_their_order():
    assert by_length([4, 4, 4, 4], 0.0, most=3) == [[0, 1, 2], [3]]
