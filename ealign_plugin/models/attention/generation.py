"""Writing with several beams, whose prompt is read and stored once."""

from __future__ import annotations

from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor, nn

from ealign_plugin.models.attention.interface import LayerKeys, can_share, layer_number, no_mask
from ealign_plugin.models.attention.rows import attend_rows

KEPT_BACK = 2
"""Tokens of a prompt that every beam reads itself: with one, transformers 4 takes each new token for it."""

METHODS = ("forward", "generate")
"""Of a language model, which a view has its own way of."""


@torch.no_grad()
def generate_with_prefix(language_model: Any, embeds: Tensor, mask: Tensor, **options: Any) -> Tensor:
    """transformers' ``generate`` with each prompt read once, not once for every beam; the same tokens.

    ::

        prompt      p p p p p p p         read once:   p p p p p
        beams                             each beam:             p p w w w ...

    ``generate`` runs on a view of the language model, which shares all its modules (`view_of`).

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
    if not can_share(language_model) or min(map(len, rows)) <= KEPT_BACK:
        return language_model.generate(inputs_embeds=embeds, attention_mask=mask, **options)
    prompts = SharedPrompts(tuple(len(row) - KEPT_BACK for row in rows), embeds.device)
    language_model.get_decoder()(
        inputs_embeds=torch.cat([row[:-KEPT_BACK] for row in rows])[None],
        position_ids=torch.cat([torch.arange(n, device=embeds.device) for n in prompts.lengths])[None],
        attention_mask=no_mask(embeds),
        use_cache=False,
        attend=prompts.read,
    )
    # To transformers the prompt is these tokens; its cache holds them and what is written.
    ends = torch.stack([row[-KEPT_BACK:] for row in rows])
    seen = mask.new_ones(len(rows), KEPT_BACK)
    return view_of(language_model, prompts).generate(inputs_embeds=ends, attention_mask=seen, **options)


class SharedPrompts:
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
        self.after = torch.tensor(lengths, device=device)
        self.padding = steps >= (ends[1:] - ends[:-1])[:, None]  # [B, P]
        self.places = torch.minimum(ends[:-1, None] + steps, ends[1:, None] - 1)
        self.no_mask = no_mask(torch.empty(0, device=device))
        self.kept: LayerKeys = {}

    def arguments(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Arguments of a forward of ``generate``, changed so that it reads on after the prompts."""
        positions = inputs["position_ids"]
        beams = len(positions) // len(self.after)
        changed = {
            "position_ids": positions + self.after.repeat_interleave(beams)[:, None],
            "attention_mask": self.no_mask,
            "attend": self.attend,
        }
        return {**inputs, **changed}

    def read(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention within each prompt of a row of all, end to end; the keys and values are kept."""
        keys, values = (tensor[0][:, self.places].transpose(0, 1) for tensor in (key, value))
        self.kept[layer_number(module)] = keys, values
        return attend_rows(query, key, value, self.lengths, self.starts, scaling=scaling)

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Of the new tokens [B × n, H, L, d] of n beams an image; keys and values of what they wrote."""
        shared_keys, shared_values = self.kept[layer_number(module)]
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


def view_of(language_model: Any, prompts: SharedPrompts) -> Any:
    """The language model as ``generate`` sees it: the same modules, and a forward that knows the prompts.

    ``generate`` refuses arguments that it doesn't know, and notes on the model what it works out (its
    generation config, a cache). The view takes both, so the language model stays as it is.
    """
    kind: Any = type(language_model)
    view = object.__new__(_view_class(kind))
    # Others put a method of their own on a model, as accelerate does: it is bound to the model, not the view.
    shared = {name: value for name, value in language_model.__dict__.items() if name not in METHODS}
    view.__dict__.update(shared, shared_prompts=prompts)
    return view


@cache
def _view_class(kind: Any) -> Any:
    class View(kind):
        @wraps(kind.forward)  # `generate` reads its signature
        def forward(self, **inputs: Any) -> Any:
            return kind.forward(self, **self.shared_prompts.arguments(inputs))

    View.__name__ = kind.__name__  # `generate` treats some models by their names
    return View
