"""Writing with several beams, whose prompt is read and stored once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ealign_plugin.models.attention.interface import Kept, attending, can_share, no_mask
from ealign_plugin.models.attention.packed import attention

OWN = 2
"""Tokens of a prompt that every beam reads itself: with one, transformers 4 takes each new token for it."""


# Writing


def generate_with_prefix(language_model: Any, embeds: Tensor, mask: Tensor, **options: Any) -> Tensor:
    """transformers' ``generate`` with each prompt read once, not once for every beam; the same tokens.

    Args:
        language_model: A causal one. Where it can't share (`can_share`), or a prompt is shorter than three
            tokens, plain ``generate`` runs.
        embeds: Prompts [B, T, D], padded anywhere but at the end.
        mask: Their tokens, 1 or 0 [B, T].
        options: Of ``generate``: number of beams, new tokens and so on.

    Returns:
        New tokens, long [B × num_return_sequences, T'].
    """
    # On several processes each writes its own captions; else a sharded model waits for the others' tokens.
    options = {"synced_gpus": False, **options}
    rows = [row[seen] for row, seen in zip(embeds, mask.bool(), strict=True)]
    if not can_share(language_model) or min(map(len, rows)) <= OWN:
        return language_model.generate(inputs_embeds=embeds, attention_mask=mask, **options)
    decoder = language_model.get_decoder()
    lengths = tuple(len(row) - OWN for row in rows)
    starts = torch.tensor(lengths, device=embeds.device)

    def read_on(_: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        positions = inputs["position_ids"]
        behind = starts.repeat_interleave(len(positions) // len(starts))[:, None]
        changed = {"position_ids": positions + behind, "attention_mask": no_mask(embeds)}
        return args, {**inputs, **changed, "attend": prompts.attend}

    with attending(decoder), torch.no_grad():
        prompts = _Prompts(lengths, embeds.device)
        decoder(
            inputs_embeds=torch.cat([row[:-OWN] for row in rows])[None],
            position_ids=torch.cat([torch.arange(length, device=embeds.device) for length in lengths])[None],
            attention_mask=no_mask(embeds),
            use_cache=False,
            attend=prompts.read,
        )
        handle = decoder.register_forward_pre_hook(read_on, with_kwargs=True)
        try:
            # To transformers the prompt is these tokens; its cache holds them and what is written.
            ends = torch.stack([row[-OWN:] for row in rows])
            seen = mask.new_ones(len(rows), OWN)
            return language_model.generate(inputs_embeds=ends, attention_mask=seen, **options)
        finally:
            handle.remove()


class _Prompts:
    """The attention of writing: every beam of an image sees the image's prompt, and what it wrote itself.

    Args:
        lengths: Tokens of each prompt.
        device: Of the forwards.
    """

    def __init__(self, lengths: tuple[int, ...], device: torch.device) -> None:
        self.lengths = lengths
        ends = torch.tensor((0, *lengths), device=device).cumsum(0, dtype=torch.int32)
        steps = torch.arange(max(lengths), device=device)
        self.starts = ends
        self.padding = steps >= (ends[1:] - ends[:-1])[:, None]  # [B, P]
        self.places = torch.minimum(ends[:-1, None] + steps, ends[1:, None] - 1)
        self.kept: Kept = {}  # by layer: keys [B, H / groups, P, d] and values

    def read(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention within each prompt of a row of all, end to end; the keys and values are kept."""
        keys, values = (tensor[0][:, self.places].transpose(0, 1) for tensor in (key, value))
        self.kept[module.layer_idx] = keys, values
        lengths, starts = self.lengths, self.starts
        return attention(
            module, query, key, value, None, 0.0, scaling, row_lengths=lengths, row_starts=starts
        )[0]

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Of the new tokens [B × n, H, L, d] of n beams an image; keys and values of what they wrote."""
        shared_keys, shared_values = self.kept[module.layer_idx]
        size, pairs, length, width = shared_keys.shape
        rows, heads, new, _ = query.shape
        beams, stacked = rows // size, heads // pairs * new  # heads that share keys, below each other
        query = (query * scaling).reshape(size, beams, pairs, stacked, width)
        # A matrix product for the prompt and one for the beams; their keys together would be a copy.
        seen = query.transpose(1, 2).reshape(size, pairs, -1, width) @ shared_keys.transpose(2, 3)
        seen = seen.masked_fill(self.padding[:, None, None], -torch.inf)
        seen = seen.reshape(size, pairs, beams, stacked, -1)
        own = query.reshape(rows, pairs, stacked, width) @ key.transpose(2, 3)
        written = key.shape[2]
        later = own.new_ones(new, written, dtype=torch.bool).triu(1 + written - new)
        own = own.masked_fill(later.repeat(stacked // new, 1), -torch.inf)
        own = own.reshape(size, beams, pairs, stacked, -1).transpose(1, 2)
        weights = torch.cat([seen, own], dim=-1).softmax(-1, dtype=torch.float32).to(value.dtype)
        seen, own = weights.split([length, written], dim=-1)
        output = seen.reshape(size, pairs, -1, length) @ shared_values
        output = output.reshape(size, pairs, beams, -1, width).transpose(1, 2)
        own = own.transpose(1, 2).reshape(rows, pairs, stacked, -1) @ value
        output = output.reshape(rows, pairs, stacked, width) + own
        return output.reshape(rows, heads, new, width).transpose(1, 2)
