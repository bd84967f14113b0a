"""Scoring many continuations of one prefix, which is read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ealign_plugin.models.attention.interface import LayerKeys, layer_number, no_mask
from ealign_plugin.models.attention.packed import bins
from ealign_plugin.models.batching import by_length

KEYS = 32_768
"""Most keys laid out for one call of the attention, copies of the prefix's included; bounds its memory."""


# Scoring


class Branch(NamedTuple):
    """What is read after the prefix: the rest of a prompt, then each reply but its last token.

    ::

        rest of prompt 5 6 7, replies [1] and [2 3 4]      ids        5 6 7 2 3
                                                           positions  0 1 2 3 4   counted after the prefix
        7 predicts 1 and 2; 2 predicts 3, 3 predicts 4     segments   0 0 0 2 2   0: seen by all behind

    The token at ``places[i]`` predicts ``labels[i]``, which belongs to reply ``owners[i]``.
    """

    ids: list[int]
    positions: list[int]
    segments: list[int]
    places: list[int]
    labels: list[int]
    owners: list[int]


def branch(rest: Sequence[int], replies: Sequence[Sequence[int]]) -> Branch:
    """Of a prompt's rest, which is not empty, and the replies to compare after it."""
    made = Branch([*rest], [*range(len(rest))], [0] * len(rest), [], [], [])
    for number, reply in enumerate(replies):
        start = len(made.ids)
        for index, token in enumerate(reply):
            made.places.append(start + index - 1 if index else len(rest) - 1)
            made.labels.append(token)
            made.owners.append(number)
        for index, token in enumerate(reply[:-1]):
            made.ids.append(token)
            made.positions.append(len(rest) + index)
            made.segments.append(number + 1)
    return made


def shared_length(prompts: Sequence[list[int]]) -> int:
    """Tokens with which all prompts begin; at least one of each prompt is left over.

    >>> shared_length([[1, 5, 6], [1, 5, 7, 8]])
    2
    >>> shared_length([[1, 5], [1, 5, 7]])
    1
    """
    # All that lies between two in the order of dictionaries begins as both do.
    first, last = min(prompts), max(prompts)
    pairs = enumerate(zip(first, last, strict=False))
    same = next((index for index, (one, other) in pairs if one != other), len(first))
    return min(same, min(map(len, prompts)) - 1)


@torch.no_grad()
def score_with_prefix(
    model: Any,
    image_tokens: Tensor,
    prompts: Sequence[list[int]],
    replies: Sequence[Sequence[int]],
    batch_tokens: int = 16_384,
) -> Tensor:
    """Log-probability of each reply after each prompt, for one image; as of each alone.

    Args:
        model: A `NewsModel` whose ``language_model`` `can_share`.
        image_tokens: [1, Q, D], in front of every prompt, behind ``model.before``.
        prompts: Their ids, at least one each; what they begin with in common is run once.
        replies: Ids of the replies.
        batch_tokens: Most tokens in one forward; a longer branch is alone.

    Returns:
        Float [n_prompts, n_replies]: the sum over the reply's tokens of their log-probabilities.
    """
    device = image_tokens.device
    scores = torch.zeros(len(prompts), len(replies), device=device)
    if not prompts:
        return scores
    decoder, head = model.language_model.get_decoder(), model.language_model.get_output_embeddings()
    embed = model.language_model.get_input_embeddings()

    def embedded(ids: Sequence[int]) -> Tensor:
        return embed(torch.tensor(ids, dtype=torch.long, device=device))

    same = shared_length(prompts)
    texts = embedded([*model.before, *prompts[0][:same]])
    before, text = texts.split([len(model.before), same])
    prefix = torch.cat([before, image_tokens[0].to(text.dtype), text])
    branches = [branch(prompt[same:], replies) for prompt in prompts]
    forwards = bins([len(one.ids) for one in branches], max(1, batch_tokens - len(prefix)))
    kept: LayerKeys = {}
    for number, rows in enumerate(forwards):
        run = [branches[row] for row in rows]
        embeds = embedded([token for one in run for token in one.ids])
        places = [len(prefix) + place for one in run for place in one.positions]
        skipped = len(prefix) if number else 0
        if not number:
            embeds, places = torch.cat([prefix, embeds]), [*range(len(prefix)), *places]
        hidden = decoder(
            inputs_embeds=embeds[None],
            position_ids=torch.tensor(places, device=device)[None],
            attention_mask=no_mask(embeds),
            use_cache=False,
            attend=_Branches(run, len(prefix), kept, device, keep=len(forwards) > 1).attend,
        ).last_hidden_state[0]
        wanted, labels, owners = _wanted(run, rows, len(prefix) - skipped, len(replies))
        log = head(hidden[wanted.to(device)]).float().log_softmax(-1)
        each = log.gather(1, labels.to(device)[:, None])[:, 0]
        scores.view(-1).index_add_(0, owners.to(device), each)
    return scores


def _wanted(run: Sequence[Branch], rows: Sequence[int], start: int, replies: int) -> tuple[Tensor, ...]:
    """Where in the row of ``run`` a token is predicted, this token, and the place of its score; long [N]."""
    wanted, labels, owners = [], [], []
    for row, one in zip(rows, run, strict=True):
        wanted += [start + place for place in one.places]
        labels += one.labels
        owners += [row * replies + owner for owner in one.owners]
        start += len(one.ids)
    return tuple(torch.tensor(part, dtype=torch.long) for part in (wanted, labels, owners))


class _Group(NamedTuple):
    """Branches of like length L, padded for the attention alone.

    ``places`` long [N, L]: of their tokens in the row of prefix and branches; ``keys`` long [N, P + L]: of
    those and the prefix; ``mask`` bool [N, 1, L, P + L]; ``real`` bool [N, L]: no padding.
    """

    places: Tensor
    keys: Tensor
    mask: Tensor
    real: Tensor


class _Branches:
    """The attention of one forward: the prefix sees itself, a branch the prefix and itself.

    Args:
        run: The branches, which lie end to end behind the prefix.
        prefix: Tokens of the prefix.
        kept: Where the prefix's keys and values are; empty if this forward runs the prefix too.
        device: Of the forward.
        keep: Fill ``kept`` for the next forwards.
    """

    def __init__(
        self, run: Sequence[Branch], prefix: int, kept: LayerKeys, device: torch.device, *, keep: bool
    ) -> None:
        self.prefix, self.kept, self.keep = prefix, kept, keep
        self.first = not kept
        lengths = [len(one.ids) for one in run]
        starts = [prefix]
        for length in lengths:
            starts.append(starts[-1] + length)
        most = max(1, KEYS // (prefix + max(lengths)))
        self.groups = [
            _group([run[row] for row in rows], [starts[row] for row in rows], prefix, device)
            for rows in by_length(lengths, 0.2, most)
        ]

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """[1, H, T, d] and keys and values [1, H / groups, T, d] → [1, T, H, d]."""
        heads, pairs = query.shape[1], key.shape[1]
        output = query.new_empty(query.shape[2], heads, query.shape[3])
        skipped = 0 if self.first else self.prefix
        if self.first:
            q, k, v = (tensor[:, :, : self.prefix] for tensor in (query, key, value))
            if self.keep:
                self.kept[layer_number(module)] = k.clone(), v.clone()
            k, v = (tensor.repeat_interleave(heads // pairs, dim=1) for tensor in (k, v))
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
            output[: self.prefix] = seen[0].transpose(0, 1)
        else:
            shared = self.kept[layer_number(module)]
            key, value = (torch.cat(pair, dim=2) for pair in zip(shared, (key, value), strict=True))
        query, key, value = query[0], key[0], value[0]
        for places, keys, mask, real in self.groups:
            rows, width = places.shape
            # Heads that share keys stand below each other, which spares a copy of the keys for each.
            q = query[:, places - skipped].view(pairs, -1, rows, width, query.shape[-1])
            q = q.permute(2, 0, 1, 3, 4).reshape(rows, pairs, -1, query.shape[-1])
            k, v = (tensor[:, keys].transpose(0, 1) for tensor in (key, value))
            mask = mask.repeat(1, 1, heads // pairs, 1)
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
            seen = seen.reshape(rows, heads, width, -1).transpose(1, 2)
            output[(places - skipped)[real]] = seen[real].to(output.dtype)
        return output[None]


def _group(run: Sequence[Branch], starts: Sequence[int], prefix: int, device: torch.device) -> _Group:
    width = max(len(one.ids) for one in run)
    segments = torch.tensor([one.segments + [-1] * (width - len(one.ids)) for one in run])
    lengths = torch.tensor([len(one.ids) for one in run])
    steps = torch.arange(width)
    places = torch.tensor(starts)[:, None] + torch.minimum(steps, lengths[:, None] - 1)
    keys = torch.cat([torch.arange(prefix).expand(len(run), -1), places], dim=1)
    behind = steps[:, None] >= steps
    related = (segments[:, None] == 0) | (segments[:, None] == segments[:, :, None])
    mask = torch.cat([torch.ones(len(run), width, prefix, dtype=torch.bool), behind & related], dim=2)
    return _Group(*(part.to(device) for part in (places, keys, mask[:, None], segments >= 0)))
