"""Rows of tokens through the language model: which run together, and the logits that they give.

::

    row         before    image tokens    prompt    target        Tokens(prompt, target)
    length      k         Q               P         T

A causal language model reads a row from end to end; of an encoder-decoder, such as T5, the encoder reads all
but the target, and the decoder the target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ealign_plugin.models.attention.packed import bins, decode, pack
from ealign_plugin.models.batching import Tokens, by_length, pad

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel


def forward_groups(
    model: NewsModel, rows: Sequence[Tokens], start: int, max_tokens: int | None
) -> list[list[int]]:
    """Numbers of the rows that run together; ``start`` tokens come before each."""
    lengths = [len(row) for row in rows]
    if model.batching == "packed":
        return bins([start + length for length in lengths], max_tokens)
    most = None
    if max_tokens is not None:
        most = max(1, max_tokens // (start + max(lengths, default=0)))
    return by_length(lengths, 1.0 if model.batching == "padded" else model.padding_waste, most)


def target_logits(model: NewsModel, images: Tensor, rows: Sequence[Tokens]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits at the positions that predict a target token, these tokens, and their rows."""
    if model.language_model.config.is_encoder_decoder:
        return _decoded_logits(model, images, rows)
    head = model.language_model.get_output_embeddings()
    if model.batching == "packed":
        embed = model.language_model.get_input_embeddings()
        ids = [*model.before, *(token for row in rows for token in row.prompt + row.target)]
        texts = embed(torch.tensor(ids, dtype=torch.long, device=images.device))
        before, texts = texts.split([len(model.before), len(texts) - len(model.before)])
        packed = pack(before, images.to(texts.dtype), texts, rows)
        hidden = decode(partial(_run, model, model.language_model.get_decoder()), packed)
        return head(hidden[packed.places]), packed.labels, packed.owner
    batch = pad(rows, model.tokenizer.pad_token_id, images.device)
    hidden = _hidden(model, images, batch.ids, batch.mask)[:, len(model.before) + images.shape[1] - 1 : -1]
    wanted = batch.labels >= 0
    return head(hidden[wanted]), batch.labels[wanted], _owner(wanted)


def _decoded_logits(
    model: NewsModel, images: Tensor, rows: Sequence[Tokens]
) -> tuple[Tensor, Tensor, Tensor]:
    """`_target_logits` of an encoder-decoder: the encoder reads the prompts, the decoder the targets."""
    fill = model.tokenizer.pad_token_id
    prompts = pad([Tokens(row.prompt) for row in rows], fill, images.device)
    targets = pad([Tokens([], row.target) for row in rows], fill, images.device)
    embeds, mask = embed_rows(model, images, prompts.ids, prompts.mask)
    start = targets.ids.new_full((len(rows), 1), model.language_model.config.decoder_start_token_id)
    logits = _run(
        model,
        model.language_model,
        inputs_embeds=embeds,
        attention_mask=mask,
        decoder_input_ids=torch.cat([start, targets.ids], dim=1),
        use_cache=False,
    ).logits[:, :-1]
    wanted = targets.labels >= 0
    return logits[wanted], targets.labels[wanted], _owner(wanted)


def next_logits(model: NewsModel, images: Tensor, rows: Sequence[Tokens]) -> Tensor:
    """Logits [R, V] of the token after each prompt."""
    fill = model.tokenizer.pad_token_id
    if model.batching == "packed" or model.language_model.config.is_encoder_decoder:
        return target_logits(model, images, [Tokens(row.prompt, [fill]) for row in rows])[0]
    batch = pad(rows, fill, images.device)
    hidden = _hidden(model, images, batch.ids, batch.mask)[:, len(model.before) + images.shape[1] :]
    last = hidden[torch.arange(len(rows)), batch.mask.sum(1) - 1]
    return model.language_model.get_output_embeddings()(last)


def _hidden(model: NewsModel, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Last hidden states [B, k + Q + T, D] of ``before``, image tokens and text (padded on the right)."""
    embeds, mask = embed_rows(model, images, ids, mask)
    decoder = model.language_model.get_decoder()
    return _run(model, decoder, inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state


def _run(model: NewsModel, module: nn.Module, **inputs: Any) -> Any:
    return compiled_call()(module, **inputs) if model.compiled else module(**inputs)


def embed_rows(model: NewsModel, images: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings [B, k + Q + T, D] and their mask: ``before``, image tokens [B, Q, D], ids [B, T]."""
    embed = model.language_model.get_input_embeddings()
    text = embed(ids)
    parts = [images.to(text.dtype), text]
    if model.before:
        before = embed(ids.new_tensor(model.before))
        parts.insert(0, before.expand(len(ids), -1, -1))
    seen = mask.new_ones(len(ids), len(model.before) + images.shape[1])
    return torch.cat(parts, dim=1), torch.cat([seen, mask], dim=1)


def _owner(wanted: Tensor) -> Tensor:
    """The row of each position that is wanted [R, T]."""
    return torch.arange(len(wanted), device=wanted.device)[:, None].expand_as(wanted)[wanted]


@cache
def compiled_call() -> Callable[..., Any]:
    """Calls a module; apart from the model, whose weights keep their names and which can be copied."""

    def call(module: nn.Module, **inputs: Any) -> Any:
        return module(**inputs)

    return torch.compile(call, dynamic=True)
