"""A batch's examples end to end through a decoder, without padding and without seeing each other.

::

    padded [2, 7]    i i p p p t t        packed [1, 11]   i i p p p t t i i p t
                     i i p t . . .        positions        0 1 2 3 4 5 6 0 1 2 3

``i`` is an image token, ``p`` of the prompt, ``t`` of the target. All but attention works on a token at a
time, so a pack costs what its tokens cost. Attention runs once a row on a CPU (a mask of the whole pack would
cost the square of its length), and in one variable-length kernel on a GPU (`rows`). The lengths of the rows
reach it as arguments of the decoder's call (`interface`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ealign_plugin.models.attention.interface import no_mask, register
from ealign_plugin.models.batching import Tokens

log = logging.getLogger(__name__)


@cache
def can_pack() -> bool:
    """Whether this transformers can run packs (4.51 and later); where it can't, the log says so once."""
    if not register():
        log.warning("model.batching: packed needs transformers 4.51 or later; batching in groups instead")
    return register()


class Pack(NamedTuple):
    """Rows end to end: ``embeds`` [1, T, D], ``positions`` long [1, T], and the ``lengths`` of the rows.

    The hidden states at ``places`` long [N] predict the target tokens ``labels`` long [N] of the rows
    ``owner`` long [N].
    """

    embeds: Tensor
    positions: Tensor
    lengths: tuple[int, ...]
    places: Tensor
    labels: Tensor
    owner: Tensor


def bins(lengths: Sequence[int], most: int | None) -> list[list[int]]:
    """Row numbers of each forward of at most so many tokens; a longer row is alone.

    >>> bins([5, 4, 3, 9], most=8)
    [[0, 2], [1], [3]]
    """
    if most is None:
        return [list(range(len(lengths)))]
    groups: list[list[int]] = []
    totals: list[int] = []
    for index, length in enumerate(lengths):
        place = next((n for n, total in enumerate(totals) if total + length <= most), None)
        if place is None:
            groups.append([index])
            totals.append(length)
        else:
            groups[place].append(index)
            totals[place] += length
    return groups


def pack(before: Tensor, images: Tensor, texts: Tensor, rows: Sequence[Tokens]) -> Pack:
    """Lay rows end to end.

    Args:
        before: Embeddings in front of the image tokens of every row [k, D].
        images: Image tokens of each row [R, Q, D].
        texts: Embeddings of the prompts and targets of all rows, one after the other [N, D].
        rows: Their tokens.
    """
    shared, (count, tokens) = len(before), images.shape[:2]
    start = shared + tokens
    lengths = np.array([start + len(row) for row in rows])
    ends = lengths.cumsum()
    numbers, owner = np.arange(ends[-1]), np.arange(count).repeat(lengths)
    positions = numbers - (ends - lengths)[owner]
    # One gather for the whole pack, there and back: a piece for each row would be a kernel each.
    parts = torch.cat([before, images.flatten(0, 1), texts])
    text = shared + count * tokens + numbers - start * (owner + 1)
    order = np.select([positions < shared, positions < start], [positions, owner * tokens + positions], text)
    learnt = (ends - [len(row.target) + 1 for row in rows])[owner] <= numbers
    places = np.flatnonzero(learnt & (positions < lengths[owner] - 1))
    labels = [token for row in rows for token in row.target]
    index, where, wanted, row_of, predicted = (
        torch.as_tensor(part, dtype=torch.long).to(texts.device)
        for part in (order, positions, places, owner[places], labels)
    )
    embeds = parts.index_select(0, index)[None]
    return Pack(embeds, where[None], tuple(lengths.tolist()), wanted, predicted, row_of)


def decode(decoder: Callable[..., Any], packed: Pack) -> Tensor:
    """Last hidden states [T, D] of a pack.

    Args:
        decoder: Of a language model whose attention is `replace_attention`'s.
        packed: The rows.
    """
    lengths = torch.tensor((0, *packed.lengths), device=packed.embeds.device)
    return decoder(
        inputs_embeds=packed.embeds,
        position_ids=packed.positions,
        attention_mask=no_mask(packed.embeds),
        use_cache=False,
        row_lengths=packed.lengths,
        row_starts=lengths.cumsum(0, dtype=torch.int32),
    ).last_hidden_state[0]
