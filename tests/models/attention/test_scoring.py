"""Answers scored after one prefix for all questions: the same numbers as each alone."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ealign_plugin.models.attention import scoring
from ealign_plugin.models.attention.generation import generate_with_prefix
from ealign_plugin.models.attention.scoring import branch, score_with_prefix, shared_length
from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.forwards import embed_rows
from tests.models.attention.prefixes import (
    FAMILIES,
    PROMPTS,
    image_tokens,
    model_of,
    options,
    prompts_of,
    tokens_of,
)

REPLIES = {"one token": [[7], [8]], "several": [[7], [8, 9, 10], [], [8, 9, 11, 12]]}


@torch.no_grad()
def score_alone(model: NewsModel, images: Tensor, prompt: list[int], reply: list[int]) -> Tensor:
    """The plain way: one row, logits of every position."""
    ids = torch.tensor([prompt + reply])
    embeds, mask = embed_rows(model, images, ids, torch.ones_like(ids))
    logits = model.language_model(inputs_embeds=embeds, attention_mask=mask).logits[0].log_softmax(-1)
    start = len(logits) - len(reply) - 1
    return sum((logits[start + i, token] for i, token in enumerate(reply)), torch.tensor(0.0))


@pytest.mark.parametrize("replies", REPLIES.values(), ids=REPLIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_each_alone_however_they_are_split(family, replies):
    model = model_of(family)
    images = image_tokens(model)
    alone = [score_alone(model, images, prompt, reply) for prompt in PROMPTS for reply in replies]
    wanted = torch.stack(alone).view(len(PROMPTS), len(replies))
    for batch_tokens in (1, 40, 70, 16_384):
        scores = score_with_prefix(model, images, PROMPTS, replies, batch_tokens)
        torch.testing.assert_close(scores, wanted, rtol=1e-6, atol=1e-5)
    assert len(set(wanted[:, 0].tolist())) == len(PROMPTS) - 1  # one of them is there twice


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    prompts=st.lists(st.lists(st.integers(20, 24), max_size=9), min_size=1, max_size=6),
    replies=st.lists(st.lists(st.integers(20, 24), max_size=4), min_size=1, max_size=4),
    batch_tokens=st.integers(1, 90),
)
def test_scores_of_whatever_prompts_and_replies(prompts, replies, batch_tokens):
    model = model_of("grouped heads")
    images, prompts = image_tokens(model), [[1, *prompt] for prompt in prompts]
    scores = score_with_prefix(model, images, prompts, replies, batch_tokens)
    for row, prompt in zip(scores, prompts, strict=True):
        wanted = torch.stack([score_alone(model, images, prompt, reply) for reply in replies])
        torch.testing.assert_close(row, wanted, rtol=1e-6, atol=1e-5)


def test_layouts_bounded_in_memory_give_the_same(monkeypatch):
    model = model_of("llava")
    images, replies = image_tokens(model), REPLIES["several"]
    wanted = score_with_prefix(model, images, PROMPTS, replies)
    monkeypatch.setattr(scoring, "KEYS", 1)  # each branch alone
    torch.testing.assert_close(score_with_prefix(model, images, PROMPTS, replies), wanted)


def test_what_is_shared_is_run_once_and_no_forward_is_above_the_budget():
    model = model_of("llava")
    images = image_tokens(model)
    start = len(model.before) + images.shape[1] + 3
    branches = [2, 1, 9, 1, 40]
    with tokens_of(model) as sizes:
        score_with_prefix(model, images, PROMPTS, REPLIES["one token"])
    assert sizes == [(1, start + sum(branches))]
    with tokens_of(model) as sizes:
        score_with_prefix(model, images, PROMPTS, REPLIES["one token"], start + 40)
    assert [tokens for _, tokens in sizes] == [start + 2 + 1 + 9 + 1, 40]


def test_nothing_to_score():
    assert score_with_prefix(model_of("llava"), image_tokens(model_of("llava")), [], [[7], [8]]).shape == (
        0,
        2,
    )


def test_half_precision_comes_near():
    model = model_of("grouped heads")
    images, replies = image_tokens(model), REPLIES["several"]
    wanted = score_with_prefix(model, images, PROMPTS, replies)
    with torch.autocast("cpu", torch.bfloat16):
        near = score_with_prefix(model, images, PROMPTS, replies, 60)
    assert near.dtype == torch.float32
    assert not torch.equal(near, wanted)
    torch.testing.assert_close(near, wanted, rtol=0.05, atol=0.5)


def state_of(module: torch.nn.Module) -> list[Any]:
    """What a call could leave changed: configs, hooks, and the names of what each module holds."""
    configs = [
        (config, config._attn_implementation)
        for config in (getattr(part, "config", None) for part in module.modules())
        if config is not None
    ]
    held = [(name, sorted(part.__dict__)) for name, part in module.named_modules()]
    hooks = [len(part._forward_pre_hooks) + len(part._forward_hooks) for part in module.modules()]
    return [[(id(config), name) for config, name in configs], held, hooks, id(module.generation_config)]


@pytest.mark.parametrize("family", ["eager", "packed", "llava"])
def test_nothing_on_the_model_changes_during_a_call(family):
    """Seen from inside each forward, and after a call that fails."""
    model = model_of(family)
    before, during = state_of(model.language_model), []
    handle = model.language_model.lm_head.register_forward_hook(
        lambda *_: during.append(state_of(model.language_model))
    )
    before = state_of(model.language_model)
    with pytest.raises(IndexError):
        score_with_prefix(model, image_tokens(model), [[1, 10**6], [1, 2]], [[7]])
    score_with_prefix(model, image_tokens(model), PROMPTS, [[7]])
    generate_with_prefix(model.language_model, *prompts_of(model, PROMPTS), **options(model))
    assert len(during) > 5 and all(state == before for state in during)
    assert state_of(model.language_model) == before
    handle.remove()


def test_a_branch_holds_the_rest_of_a_prompt_and_the_replies_without_their_ends():
    made = branch([5, 6, 7], [[1], [2, 3, 4]])
    assert made.ids == [5, 6, 7, 2, 3]
    assert made.positions == [0, 1, 2, 3, 4]
    assert made.segments == [0, 0, 0, 2, 2]
    assert list(zip(made.places, made.labels, made.owners, strict=True)) == [
        (2, 1, 0),
        (2, 2, 1),
        (3, 3, 1),
        (4, 4, 1),
    ]


@pytest.mark.parametrize(
    "prompts, length",
    [
        ([[1, 5, 6], [1, 5, 7]], 2),
        ([[1, 5], [1, 5, 7]], 1),
        ([[1, 5, 6]], 2),
        ([[1], [1]], 0),
        ([[4, 5], [1, 5], [4, 5]], 0),
    ],
)
def test_length_of_what_prompts_share(prompts, length):
    assert shared_length(prompts) == length
