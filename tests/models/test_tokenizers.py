"""Tokens of prompts and targets beside LLaVA's processor, with tokenizers like LLaMA's."""

import copy
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ealign_plugin.models import Llava
from ealign_plugin.models.meta import STAND_IN
from ealign_plugin.models.tokenizers import read_tokenizer
from tests.models.llava_files import PROMPT, llama_tokenizer, processor_of, shape


@cache
def reader(kind: str) -> Llava:
    """A model for its tokens only."""
    tokenizer = llama_tokenizer(kind) if kind != "bytes" else read_tokenizer(STAND_IN)
    tokenizer.split_special_tokens = True
    return Llava(config=shape(kind), tokenizer=tokenizer, max_txt_len=400)


KINDS = ["prepend", "first", "always", "bytes"]
CHARACTERS = st.sampled_from("aW3 \n\t.▁é東:<") | st.characters(exclude_categories=["Cs"])
TEXTS = ["Who?", "", " Who", "\n\nWho \n", "  ", "3 May", "▁", "Zoë in 東京 🙂 ", "Who? ASSISTANT: Ana"]


def processed(kind: str, text: str, target: str = "") -> list[int]:
    picture, prompt = Image.new("RGB", (32, 32)), PROMPT.format(text)
    return processor_of(kind)(images=picture, text=prompt + target, return_tensors="pt")["input_ids"][
        0
    ].tolist()


def read(kind: str, text: str) -> list[int]:
    model = reader(kind)
    image = processor_of(kind).tokenizer.convert_tokens_to_ids("<image>")
    return [*model.before, *[image] * 4, *model.prompts([text])[0]]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_has_the_processor_s_tokens(kind, text):
    assert read(kind, text) == processed(kind, text)


@pytest.mark.parametrize("kind", KINDS)
@settings(derandomize=True, deadline=None, max_examples=60)
@given(text=st.text(CHARACTERS, max_size=12))
def test_any_prompt_has_the_processor_s_tokens(kind, text):
    assert read(kind, text) == processed(kind, text)


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_goes_on_as_the_processor_reads_it(kind):
    (target,) = reader(kind).targets(["Ana Lopez speaks."])
    assert read(kind, "Who?") + target == processed(kind, "Who?", " Ana Lopez speaks.</s>")


def test_the_tokenizers_differ_at_the_border_of_the_image():
    assert reader("prepend").newline != reader("first").newline
    assert reader("first").lead == 1 and reader("always").lead == 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_article_that_spells_special_tokens_is_text(kind):
    model = reader(kind)
    (ids,) = model.prompts(["Ana <image> and </s> or <s> speak."])
    names = processor_of(kind).tokenizer.convert_tokens_to_ids(["<image>", "</s>", "<s>", "<pad>"])
    assert not set(ids) & set(names)
    assert "<image> and </s> or <s>" in model.tokenizer.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
@settings(derandomize=True, deadline=None, max_examples=60)
@given(text=st.text(st.sampled_from("abcW3 .,"), max_size=40), room=st.integers(30, 60))
def test_what_remains_of_a_text_is_what_its_prompt_spells(kind, text, room):
    model = reader(kind)
    short = copy.copy(model)
    short.max_txt_len = room
    long = "Ana speaks. " * 30 + text
    for whole in (text, long):
        (rest,) = short.remaining([whole])
        assert whole.endswith(rest)
        spelt = model.tokenizer.decode(short.prompts([whole])[0], skip_special_tokens=True)
        assert spelt.strip().removesuffix("ASSISTANT:").strip() == rest.strip()
    assert len(rest) < len(long)


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_prompt_loses_the_beginning_of_its_text(kind):
    model = reader(kind)
    (whole,) = model.prompts(["Ana speaks. " * 100 + "Who is it?"])  # more than 400 tokens
    assert len(whole) == 400
    text = model.tokenizer.decode(whole)
    assert text.lstrip(" ").startswith("\n") and text.endswith("Ana speaks. Who is it? ASSISTANT:")
    start = model.prompts(["Ana"])[0]
    assert whole[: len(model.newline)] == start[: len(model.newline)]
