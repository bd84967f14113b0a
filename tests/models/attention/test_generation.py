"""Captions written from one prompt for all beams: the same texts as from plain `generate`."""

import pytest
import torch

from ealign_plugin.models import InstructBlip
from ealign_plugin.models.attention import generation as prefix
from ealign_plugin.models.attention.generation import generate_with_prefix
from ealign_plugin.models.attention.interface import can_share
from tests.models.attention.prefixes import FAMILIES, PROMPTS, model_of, options, prompts_of, tokens_of

# Writing


WAYS = {
    "greedy": {},
    "beam": {"num_beams": 5, "length_penalty": 2.0},
    "beams": {"num_beams": 4, "num_return_sequences": 3, "repetition_penalty": 2.0, "min_new_tokens": 5},
    "nucleus": {"do_sample": True, "top_p": 0.9, "top_k": 0},
    "samples": {"do_sample": True, "num_return_sequences": 3, "temperature": 0.7},
}


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
    ends = options(model, eos_token_id=list(range(2, 1905, 16)), **way)
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


@pytest.mark.parametrize("method", ["forward", "generate"])
def test_a_method_that_another_library_puts_on_the_model_takes_no_prompt_away(method, monkeypatch):
    model = model_of("grouped heads")
    embeds, mask = prompts_of(model, PROMPTS)
    wanted = generate_with_prefix(model.language_model, embeds, mask, **options(model, num_beams=3))
    plain = getattr(model.language_model, method)
    monkeypatch.setattr(model.language_model, method, lambda *args, **more: plain(*args, **more))
    found = generate_with_prefix(model.language_model, embeds, mask, **options(model, num_beams=3))
    assert found.tolist() == wanted.tolist()


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
