"""One prefix for all questions, one prompt for all beams: the same numbers as each alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from ealign_plugin.models import InstructBlip, Llava
from ealign_plugin.models.attention import generation as prefix
from ealign_plugin.models.attention import scoring
from ealign_plugin.models.attention.generation import generate_with_prefix
from ealign_plugin.models.attention.interface import can_share
from ealign_plugin.models.attention.scoring import branch, score_with_prefix, shared_length
from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.batching import Tokens, pad
from ealign_plugin.models.forwards import embed_rows

FAMILIES: dict[str, tuple[type[NewsModel], dict[str, Any]]] = {
    "instructblip": (InstructBlip, {}),
    "grouped heads": (InstructBlip, {"text_config": {"num_key_value_heads": 2}}),
    "packed": (InstructBlip, {"batching": "packed"}),
    "llava": (Llava, {}),
    "llava, grouped heads": (Llava, {"text_config": {"num_key_value_heads": 1}}),
    "eager": (Llava, {"batching": "groups", "attn_implementation": "eager"}),
}
PROMPTS = [  # ids after the image tokens; of these the first three are the same in all
    [1, 30, 31, 40, 41],
    [1, 30, 31, 50],
    [1, 30, 31, 40, 41, 60, 61, 62, 63, 64, 65, 66],
    [1, 30, 31, 50],
    [1, 30, 31, *range(100, 140)],
]
REPLIES = {"one token": [[7], [8]], "several": [[7], [8, 9, 10], [], [8, 9, 11, 12]]}


@cache
def model_of(family: str) -> NewsModel:
    """Two layers, and weights so large that answers and captions are unlike each other."""
    kind, changes = FAMILIES[family]
    config = OmegaConf.load(kind.default_config_path("micro")).model
    small = {"text_config": {"num_hidden_layers": 2}}
    torch.manual_seed(0)
    model = kind.from_config(OmegaConf.merge(config, small, changes)).eval()
    for parameter in model.language_model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.1)
    return model


def image_tokens(model: NewsModel, images: int = 1) -> Tensor:
    size, width = 5, model.config.text_config.hidden_size
    return torch.randn(images, size, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def score_alone(model: NewsModel, images: Tensor, prompt: list[int], reply: list[int]) -> Tensor:
    """The plain way: one row, logits of every position."""
    ids = torch.tensor([prompt + reply])
    embeds, mask = embed_rows(model, images, ids, torch.ones_like(ids))
    logits = model.language_model(inputs_embeds=embeds, attention_mask=mask).logits[0].log_softmax(-1)
    start = len(logits) - len(reply) - 1
    return sum((logits[start + i, token] for i, token in enumerate(reply)), torch.tensor(0.0))


@contextmanager
def tokens_of(model: NewsModel) -> Iterator[list[tuple[int, ...]]]:
    """Rows and tokens of each forward of the decoder."""
    sizes: list[tuple[int, ...]] = []
    decoder = model.language_model.get_decoder()
    handle = decoder.layers[0].register_forward_pre_hook(
        lambda _, args, options: sizes.append((args[0] if args else options["hidden_states"]).shape[:2]),
        with_kwargs=True,
    )
    try:
        yield sizes
    finally:
        handle.remove()


# Scoring


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


# Writing


def options(model: NewsModel, **more: Any) -> dict[str, Any]:
    tokenizer = model.tokenizer
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return {"do_sample": False, "num_beams": 1, "max_new_tokens": 12} | ends | more


WAYS = {
    "greedy": {},
    "beam": {"num_beams": 5, "length_penalty": 2.0},
    "beams": {"num_beams": 4, "num_return_sequences": 3, "repetition_penalty": 2.0, "min_new_tokens": 5},
    "nucleus": {"do_sample": True, "top_p": 0.9, "top_k": 0},
    "samples": {"do_sample": True, "num_return_sequences": 3, "temperature": 0.7},
}


def prompts_of(model: NewsModel, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """As `NewsModel.generate` makes them: padding stands between image and text."""
    batch = pad([Tokens(row) for row in rows], 0, torch.device("cpu"), left=True)
    return embed_rows(model, image_tokens(model, len(rows)), batch.ids, batch.mask)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_captions_are_those_of_plain_generate(family, way):
    model = model_of(family)
    embeds, mask = prompts_of(model, PROMPTS)
    torch.manual_seed(2)
    wanted = model.language_model.generate(inputs_embeds=embeds, attention_mask=mask, **options(model, **way))
    torch.manual_seed(2)
    found = generate_with_prefix(model.language_model, embeds, mask, **options(model, **way))
    assert found.tolist() == wanted.tolist()
    assert len(set(map(tuple, wanted.tolist()))) > len(PROMPTS) // 2


@pytest.mark.parametrize("way", [{}, {"num_beams": 5, "length_penalty": 0.5}], ids=["greedy", "beam"])
def test_captions_that_end_before_the_limit(way):
    model = model_of("packed")
    embeds, mask = prompts_of(model, PROMPTS)
    ends = options(model, eos_token_id=list(range(2, 1280, 48)), **way)
    wanted = model.language_model.generate(inputs_embeds=embeds, attention_mask=mask, **ends)
    found = generate_with_prefix(model.language_model, embeds, mask, **ends)
    assert found.tolist() == wanted.tolist()
    lengths = (wanted != ends["pad_token_id"]).sum(1)
    assert lengths.min() < ends["max_new_tokens"]


def test_a_prompt_is_read_once_whatever_the_beams():
    model = model_of("grouped heads")
    embeds, mask = prompts_of(model, PROMPTS[:2])
    with tokens_of(model) as sizes:
        generate_with_prefix(
            model.language_model, embeds, mask, **options(model, num_beams=5, min_new_tokens=12)
        )
    prompt = int(mask.sum()) - 2 * prefix.KEPT_BACK
    assert sizes == [(1, prompt), (10, prefix.KEPT_BACK), *[(10, 1)] * 11]


def test_a_prompt_too_short_to_share_is_written_the_plain_way():
    model = model_of("instructblip")
    embeds, mask = (part[:, -2:] for part in prompts_of(model, PROMPTS[:1]))
    plain = options(model, num_beams=3)
    wanted = model.language_model.generate(inputs_embeds=embeds, attention_mask=mask, **plain)
    assert generate_with_prefix(model.language_model, embeds, mask, **plain).tolist() == wanted.tolist()


# What cannot share


def test_an_encoder_decoder_writes_the_plain_way():
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 4}
    t5 = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).eval()
    assert not can_share(t5)
    embeds, mask = torch.randn(2, 6, 16), torch.ones(2, 6).long()
    given_options = {"num_beams": 3, "max_new_tokens": 5, "do_sample": False}
    wanted = t5.generate(inputs_embeds=embeds, attention_mask=mask, **given_options)
    assert generate_with_prefix(t5, embeds, mask, **given_options).tolist() == wanted.tolist()


def test_a_decoder_whose_attention_is_its_own_cannot_share(monkeypatch):
    model = model_of("instructblip")
    assert can_share(model.language_model)
    monkeypatch.setattr(type(model.language_model), "is_backend_compatible", classmethod(lambda _: False))
    other = InstructBlip.from_pretrained("micro").eval()
    assert not can_share(other.language_model)
    embeds, mask = prompts_of(other, PROMPTS)
    wanted = other.language_model.generate(inputs_embeds=embeds, attention_mask=mask, **options(other))
    found = generate_with_prefix(other.language_model, embeds, mask, **options(other))
    assert found.tolist() == wanted.tolist()
