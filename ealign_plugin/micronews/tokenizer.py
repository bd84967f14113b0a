"""The tokenizer of the ``micro`` models: byte-level BPE over MicroNews' own words.

It is shipped as ``ealign_plugin/configs/tokenizers/micro/tokenizer.json``; this file is how it was made
(``python -m ealign_plugin.micronews.tokenizer PATH``), and a test makes it again.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ealign_plugin.alignment.prompts import Templates
from ealign_plugin.alignment.selection import EMPTY_LIST
from ealign_plugin.micronews.world import EVENTS, ORGANISATIONS, PEOPLE, PLACES, make_samples

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>")


def train_tokenizer(vocab_size: int = 1280, articles: int = 400) -> Tokenizer:
    """Train it: every word of the world is one token, any other text falls apart into bytes."""
    tokenizer = Tokenizer(models.BPE())
    # A word at the beginning of a text is the same token as inside of it, so names can be copied.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(articles), trainer)
    return tokenizer


def _texts(articles: int) -> Iterator[str]:
    templates = Templates()
    words = [templates.caption, templates.sentence, templates.entity, templates.names_label]
    words += [templates.yes, templates.no, EMPTY_LIST, *map(str, range(100))]
    for table in (PEOPLE, PLACES, ORGANISATIONS, EVENTS):
        words += [name for names in table for name in names]
    for _ in range(articles):  # as frequent as the articles' words, so that each becomes one token
        yield from words
    rng = random.Random("tokenizer")
    for number in range(articles):
        for sample, _ in make_samples(rng, str(number), "train"):
            yield sample.caption
            yield from sample.paragraphs


if __name__ == "__main__":
    train_tokenizer().save(sys.argv[1], pretty=True)
