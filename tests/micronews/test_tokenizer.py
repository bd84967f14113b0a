"""The micro models' tokenizer: names are tokens that can be copied, and nothing is unknown to it."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ealign_plugin.alignment.prompts import Templates
from ealign_plugin.micronews import closed
from ealign_plugin.micronews.names import FESTIVALS, FIRMS, pools
from ealign_plugin.micronews.tokenizer import SPECIAL_TOKENS, train_tokenizer
from ealign_plugin.micronews.world import TEST, world_of

SHIPPED = "ealign_plugin/configs/tokenizers/micro/tokenizer.json"


@pytest.fixture(scope="module")
def made() -> Tokenizer:
    return train_tokenizer()


def test_the_shipped_file_is_what_this_code_makes(made, root, tmp_path):
    made.save(str(tmp_path / "tokenizer.json"), pretty=True)
    assert (tmp_path / "tokenizer.json").read_bytes() == (root / SHIPPED).read_bytes()


def test_every_word_of_the_worlds_and_of_the_templates_is_one_token(made):
    rng = random.Random("not the tokenizer's own articles")
    texts = [Templates().caption, Templates().sentence, Templates().entity]
    for number in range(400):
        for sample, _ in closed.make_samples(rng, str(number), "train"):
            texts += [sample.caption, *sample.paragraphs]
    for _ in range(400):
        article = world_of("test").article(rng)
        texts += [article.headline, *article.paragraphs]
    compounds = {word for names in (pools().last, pools().towns, pools().firms, pools().festivals)
                 for name in names for word in name.split()} - {*FIRMS, *FESTIVALS}  # fmt: skip
    words = set(re.findall(r"(?<!-)\b[A-Za-z]+|\d+", re.sub(r"{\w+}", "", " ".join(texts)))) - compounds
    assert len(words) > 500
    assert sorted(word for word in words if len(made.encode(word).ids) != 1) == []
    assert made.encode("a red-haired, blue-capped judge").tokens == [
        *("Ġa", "Ġred", "-", "haired", ",", "Ġblue", "-", "capped", "Ġjudge")
    ]


def test_a_last_name_that_training_never_holds_is_few_pieces_that_it_knows(made):
    known = {token for name in pools().last for token in made.encode(name).tokens}
    new = [made.encode(name).tokens for name in pools().part(TEST).last]
    assert sum(len(tokens) == 2 for tokens in new) > 0.85 * len(new)
    assert all(set(tokens) <= known for tokens in new)


def test_a_name_is_the_same_tokens_wherever_it_stands(made):
    name = made.encode("Laura Romero").ids
    inside = made.encode("Guests saw Laura Romero at the World Cup.").ids
    assert inside[2:4] == name == made.encode("Laura Romero, on 14 March").ids[:2]


def test_special_tokens_come_first(made):
    assert [made.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1))
def test_any_text_survives(made, text):
    """Words that the world does not have fall apart into bytes; only a space is added at the beginning."""
    read = made.decode(made.encode(text).ids)
    assert read in (text, f" {text}")
