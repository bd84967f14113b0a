"""What a model answers: the probabilities of given answers, and answers that it writes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ealign_plugin.models.attention.generation import generate_with_prefix
from ealign_plugin.models.attention.interface import can_share
from ealign_plugin.models.attention.scoring import score_with_prefix
from ealign_plugin.models.batching import Tokens, by_length, pad
from ealign_plugin.models.forwards import embed_rows, forward_groups, next_logits, target_logits
from ealign_plugin.models.image_tokens import image_tokens_of

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel


@torch.no_grad()
def score_answers(
    model: NewsModel,
    features: Tensor,
    prefix: str,
    candidates: Sequence[str],
    answers: Sequence[str],
    *,
    question: str | None = None,
    batch_tokens: int = 16_384,
) -> Tensor:
    """See `NewsModel.score`."""
    image = model.image_tokens(features, [prefix if question is None else question])
    replies = model.ids(answers)
    texts = [prefix + candidate for candidate in fitting(model, prefix, candidates)]
    prompts = model.prompts(texts)
    if model.reads != "instruction" and can_share(model.language_model):
        return score_with_prefix(model, image, prompts, replies, batch_tokens)
    one_token = all(len(reply) == 1 for reply in replies)
    if one_token:  # the row of a candidate answers them all
        rows = [Tokens(prompt) for prompt in prompts]
    else:
        rows = [Tokens(prompt, reply) for prompt in prompts for reply in replies]
        texts = [text for text in texts for _ in replies]
    scores = torch.zeros(len(rows), len(replies) if one_token else 1, device=image.device)
    for group in forward_groups(model, rows, len(model.before) + image.shape[1], batch_tokens):
        images = image.expand(len(group), -1, -1)
        if model.reads == "instruction":
            seen = features.expand(len(group), -1, -1)
            images = model.image_tokens(seen, [texts[i] for i in group])
        if one_token:
            log = next_logits(model, images, [rows[i] for i in group]).float().log_softmax(-1)
            values = log[:, [reply[0] for reply in replies]]
        else:
            logits, labels, owner = target_logits(model, images, [rows[i] for i in group])
            each = logits.float().log_softmax(-1).gather(1, labels[:, None])[:, 0]
            values = each.new_zeros(len(group)).index_add(0, owner, each)[:, None]
        scores[group] = values
    return scores.reshape(len(candidates), len(answers))


def fitting(model: NewsModel, prefix: str, candidates: Sequence[str]) -> list[str]:
    """The candidates; of one that makes its prompt too long, as many of its last words as fit."""

    def length(candidate: str) -> int:
        return len(model.framed([prefix + candidate])[0])

    fitting = []
    for candidate in candidates:
        # A token is a byte at least, so most candidates are short beyond doubt.
        doubt = len((prefix + candidate).encode()) > model.max_txt_len // 2
        if doubt and length(candidate) > model.max_txt_len:
            words = candidate.split()
            counts = range(1, len(words))
            most = bisect_right(counts, model.max_txt_len, key=lambda n: length(" ".join(words[-n:])))
            candidate = " ".join(words[-most:]) if most else candidate  # a single word is cut by tokens
        fitting.append(candidate)
    return fitting


@torch.no_grad()
def write_answers(
    model: NewsModel,
    samples: Mapping[str, Any],
    use_nucleus_sampling: bool = False,
    num_beams: int = 5,
    max_length: int = 64,
    min_length: int = 1,
    top_p: float = 0.9,
    repetition_penalty: float = 1.0,
    length_penalty: float = 1.0,
    num_captions: int = 1,
    temperature: float = 1.0,
) -> list[str]:
    """See `NewsModel.generate`."""
    size = len(samples["features"] if samples.get("features") is not None else samples["image"])
    prompt = samples.get("instruction", samples.get("prompt", ""))
    instructions = [prompt] * size if isinstance(prompt, str) else list(prompt)
    images = image_tokens_of(model, {**samples, "instruction": instructions})
    rows = [Tokens(prompt) for prompt in model.prompts(instructions)]
    answers: list[list[str]] = [[] for _ in rows]
    # A decoder goes on at the right end. T5's encoder counts distances over padding too.
    left = not model.language_model.config.is_encoder_decoder
    # Writing costs a forward a token whatever the width, so padding is cheap here.
    for group in by_length([len(row) for row in rows], 0.5):
        batch = pad([rows[i] for i in group], model.tokenizer.pad_token_id, images.device, left=left)
        # Masked padding between image and text takes no position, so a row reads the same in any batch.
        embeds, mask = embed_rows(model, images[group], batch.ids, batch.mask)
        output = generate_with_prefix(
            model.language_model,
            embeds,
            mask,
            do_sample=use_nucleus_sampling,
            num_beams=1 if use_nucleus_sampling else num_beams,
            max_new_tokens=max_length,
            min_new_tokens=min_length,
            repetition_penalty=repetition_penalty,
            num_return_sequences=num_captions,
            pad_token_id=model.tokenizer.pad_token_id,
            eos_token_id=model.tokenizer.eos_token_id,
            bos_token_id=model.tokenizer.bos_token_id,
            # transformers would take the 50 likeliest only.
            **({"top_p": top_p, "top_k": 0, "temperature": temperature} if use_nucleus_sampling else {}),
            **({"length_penalty": length_penalty} if num_beams > 1 and not use_nucleus_sampling else {}),
        )
        texts = model.tokenizer.batch_decode(output, skip_special_tokens=True)
        for position, i in enumerate(group):
            answers[i] = texts[position * num_captions : (position + 1) * num_captions]
    return [answer.strip() for row in answers for answer in row]
