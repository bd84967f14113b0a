"""The tokenizer of the ``micro`` models: byte-level BPE over MicroNews' own words.

Every word of the two worlds is one token, but for strangers' names: a compound is two, its stem and its
ending (Hart·well), so that a name that was never met is made of tokens that were. Any other text falls apart
into bytes.

It is shipped as ``ealign_plugin/configs/tokenizers/micro/tokenizer.json``; this file is how it was made
(``python -m ealign_plugin.micronews.tokenizer PATH``), and a test makes it again.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ealign_plugin.alignment.prompts import Templates
from ealign_plugin.alignment.selection import EMPTY_LIST
from ealign_plugin.micronews import closed
from ealign_plugin.micronews.names import ENDINGS, FESTIVALS, FIRMS, STEMS, pools
from ealign_plugin.micronews.strangers import EXTRAS, HAIR, ROLES
from ealign_plugin.micronews.world import TRAIN, World, make_samples

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>")

_SEAM = "\u2063"  # an invisible mark, of no other use here
_COMPOUND = re.compile(rf"\b({'|'.join(STEMS)})({'|'.join(ENDINGS)})\b")


def train_tokenizer(vocab_size: int = 2048, articles: int = 400) -> Tokenizer:
    """Train it."""
    tokenizer = Tokenizer(models.BPE())
    # A word at the beginning of a text is the same token as inside of it, so names can be copied.
    words = pre_tokenizers.ByteLevel(add_prefix_space=True)
    seams = pre_tokenizers.Split(Regex(_SEAM), behavior="removed")
    ends = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([seams, ends])  # merges never cross a seam
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=articles // 2,  # what is rarer than a word of the lists below is no word of the world
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (" " + _COMPOUND.sub(rf"\1{_SEAM}\2", text) for text in _texts(articles))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = words
    return tokenizer


def _texts(articles: int) -> Iterator[str]:
    templates = Templates()
    words = [templates.caption, templates.sentence, templates.entity, templates.names_label]
    words += [templates.yes, templates.no, EMPTY_LIST, *map(str, range(100))]
    for table in (closed.PEOPLE, closed.PLACES, closed.ORGANISATIONS, closed.EVENTS):
        words += [name for names in table for name in names]
    words += [*FIRMS, *FESTIVALS, *ROLES, *EXTRAS.values(), *(f"{hair}-haired" for hair in HAIR)]
    words += [*pools().women, *pools().men, *STEMS, *(f"{STEMS[0]}{ending}" for ending in ENDINGS)]
    for _ in range(articles):  # as frequent as the articles' words, so that each becomes one token
        yield from words
    rng = random.Random("tokenizer")
    for number in range(articles):
        for sample, _ in closed.make_samples(rng, str(number), "train"):
            yield sample.caption
            yield from sample.paragraphs
    world = World(names=pools().part(TRAIN))
    for number in range(articles):
        for sample, _ in make_samples(world, rng, str(number), "train"):
            yield sample.caption
            yield sample.headline
            yield from sample.paragraphs


if __name__ == "__main__":
    train_tokenizer().save(sys.argv[1], pretty=True)
