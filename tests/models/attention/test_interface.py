"""One name in transformers, calls told apart by their arguments; and any number of threads at a time."""

import logging
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Barrier
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers

from ealign_plugin.models import InstructBlip, Llava
from ealign_plugin.models.attention import interface
from ealign_plugin.models.attention import packed as packing
from ealign_plugin.models.attention.interface import (
    NAME,
    attention_layers,
    can_share,
    eager_attention,
    no_mask,
    replace_attention,
)
from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.section import defaults_of, merged
from tests.models.attention.factories import UNLIKE, batch_of, seeded

THREADS = 8


@cache
def model_of(family: type[NewsModel] = InstructBlip, **changes: Any) -> NewsModel:
    """Two layers, and weights so large that answers and captions are unlike each other."""
    defaults = defaults_of(family.PRETRAINED_MODEL_CONFIG_DICT, "micro")
    torch.manual_seed(0)
    model = family.from_config(merged(defaults, {"text_config": {"num_hidden_layers": 2}, **changes})).eval()
    for parameter in model.language_model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.1)
    return model


# What it relies on


def plain_llama(name: str) -> Any:
    """transformers' own, with the weights that the seed gives."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=50)
    return AutoModelForCausalLM.from_config(config, attn_implementation=name).eval()


def test_each_layer_s_attention_is_found():
    layers = attention_layers(plain_llama("sdpa").get_decoder())
    assert [type(layer).__name__ for layer in layers] == ["LlamaAttention"] * 2
    assert [layer.layer_idx for layer in layers] == [0, 1]
    assert all(eager_attention(layer) for layer in layers)


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_a_plain_call_is_that_of_the_attention_that_was_asked_for_to_the_bit(name):
    plain, ours = plain_llama(name), plain_llama(name)
    assert replace_attention(ours) and can_share(ours) and not can_share(plain)
    ids = torch.arange(24).view(2, 12)
    for mask in (torch.ones_like(ids), (ids != 12).long()):  # the latter fills up the second row
        wanted = plain(input_ids=ids, attention_mask=mask).logits
        assert torch.equal(ours(input_ids=ids, attention_mask=mask).logits, wanted)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "num_beams": 2}
    assert ours.generate(ids, **options).tolist() == plain.generate(ids, **options).tolist()
    assert ours.config._attn_implementation == name


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_arguments_of_the_decoder_s_call_reach_each_layer(name):
    model = plain_llama(name)
    replace_attention(model)
    seen = []

    def attend(module: Any, query: Any, key: Any, value: Any, scaling: float) -> torch.Tensor:
        seen.append((module.layer_idx, query.shape, key.shape, scaling))
        return query.transpose(1, 2)

    embeds = torch.randn(1, 5, 32)
    model.get_decoder()(inputs_embeds=embeds, attention_mask=no_mask(embeds), use_cache=False, attend=attend)
    shapes = ((1, 4, 5, 8), (1, 2, 5, 8), 8**-0.5)
    assert seen == [(0, *shapes), (1, *shapes)]


def test_layers_call_ours_by_name_and_the_decoder_keeps_its_own():
    model = plain_llama("sdpa")
    replace_attention(model)
    decoder = model.get_decoder()
    assert {layer.config._attn_implementation for layer in attention_layers(decoder)} == {NAME}
    assert decoder.config._attn_implementation == model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", ["flex_attention", "eager"])
def test_what_cannot_be_replaced_stays_as_it_is(monkeypatch, name):
    model = plain_llama("eager")
    if name == "eager":  # a kind of model whose file has no such function
        monkeypatch.delattr("transformers.models.llama.modeling_llama.eager_attention_forward")
    model.config._attn_implementation = name
    assert not replace_attention(model) and not can_share(model)
    assert {layer.config._attn_implementation for layer in attention_layers(model)} == {name}


# Threads

QUESTION = "Does the sentence tell what the photo shows? "
SENTENCES = ["The mayor spoke in Oslo.", "Police closed two streets.", "Nobody came.", "It rained in May."]
KINDS: dict[str, tuple[type[NewsModel], dict[str, Any]]] = {
    "instructblip": (InstructBlip, {}),
    "eager": (InstructBlip, {"attn_implementation": "eager"}),
    "whole instruction": (InstructBlip, {"qformer_text": "instruction"}),
    "llava, packed": (Llava, {}),
}


def work(model: NewsModel) -> list[Callable[[], Any]]:
    """Calls of every kind, each of another photo and other texts."""
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def scores(number: int, answers: list[str]) -> Any:
        features = model.encode_images(images[number : number + 1])
        return model.score(features, QUESTION + "?" * number, SENTENCES[: number + 1], answers).tolist()

    def captions(number: int, **options: Any) -> Any:
        rows = images[: number + 1]
        texts = [f"Write a caption. {sentence}" for sentence in SENTENCES[: number + 1]]
        return model.generate({"image": rows, "instruction": texts}, max_length=8, **options)

    def loss(number: int) -> Any:
        samples = {
            "image": images[: number + 1],
            "instruction": SENTENCES[: number + 1],
        }
        return model({**samples, "target": ["no"] * (number + 1)})["loss"].item()

    calls: list[Callable[[], Any]] = []
    for number in range(2):
        calls += [
            lambda number=number: scores(number, ["yes", "no"]),
            lambda number=number: captions(number, num_beams=3),
            lambda number=number: scores(number, ["Ana Ruiz of Oslo", "nobody"]),
            lambda number=number: captions(number, num_beams=1),
            lambda number=number: loss(number),
        ]
    return calls


@pytest.mark.parametrize("kind", KINDS)
def test_eight_threads_with_one_model_get_what_single_calls_get(kind):
    family, changes = KINDS[kind]
    model = model_of(family, **changes)
    calls = work(model)
    with torch.no_grad():
        wanted = [call() for call in calls]
    start = Barrier(THREADS)

    @torch.no_grad()
    def run(thread: int) -> list[Any]:
        start.wait()
        order = [(thread * 7 + step) % len(calls) for step in range(len(calls))]
        found = {number: calls[number]() for number in order}
        return [found[number] for number in range(len(calls))]

    with ThreadPoolExecutor(THREADS) as threads:
        results = list(threads.map(run, range(THREADS)))
    assert all(result == wanted for result in results)
    with torch.no_grad():
        assert [call() for call in calls] == wanted  # and the model is whole


def test_layers_that_lose_the_row_lengths_are_caught():
    query = torch.zeros(1, 4, 6, 8)
    with pytest.raises(RuntimeError, match="Identity does not hand row_lengths on"):
        interface.attention(torch.nn.Identity(), query, query, query, torch.zeros(1, 1, 1, 1))


class Older(ModuleType):
    """transformers as it was before attention could be registered."""

    def __getattr__(self, name: str) -> Any:
        if name == "AttentionInterface":
            raise AttributeError(name)
        return getattr(transformers, name)


@contextmanager
def old_transformers(monkeypatch) -> Iterator[None]:
    """Inside, models are built as with that version."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "transformers", Older("transformers"))
        forget_the_version()
        yield
    forget_the_version()


def forget_the_version() -> None:
    for once in (interface.register, packing.can_pack):
        once.cache_clear()


def test_without_a_place_for_our_attention_it_says_so_once_and_groups(models, monkeypatch, caplog):
    with caplog.at_level(logging.WARNING), old_transformers(monkeypatch):
        ours = [seeded(batching="packed") for _ in range(2)]
    assert [model.batching for model in ours] == ["groups", "groups"]
    assert [record.getMessage() for record in caplog.records if record.name == packing.__name__] == [
        "model.batching: packed needs transformers 4.51 or later; batching in groups instead"
    ]
    samples = batch_of(UNLIKE)
    torch.testing.assert_close(ours[0](samples), models["groups"](samples), rtol=0, atol=1e-6)
    assert not interface.can_share(ours[0].language_model)
    features = ours[0].encode_images(samples["image"][:1])
    asked = (features, "Is it", [" so?", ""], ["yes", "no"])
    torch.testing.assert_close(ours[0].score(*asked), models["groups"].score(*asked), rtol=0, atol=1e-5)
    assert ours[0].generate(samples, max_length=4) == models["groups"].generate(samples, max_length=4)
