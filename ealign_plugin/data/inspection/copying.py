"""How much of a caption stands in its article: what a model that only copies could reach."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from ealign_plugin.entities import entity_key, entity_keys, fold
from ealign_plugin.news import NewsSample

WAYS = ("as_text", "as_entity")
"""How a caption's entity is found: its `entity_key` stands in the folded text, in whole words (the ceiling
of copying); or the text has an entity with the same key."""


class MentionedEntity(NamedTuple):
    """A caption's entity, and in each of the `WAYS`: after how many words of the article it has occurred
    for the first time (None: never), and whether it occurs in a positive sentence."""

    label: str
    words: tuple[int | None, int | None]
    in_positives: tuple[bool, bool]


def find_caption_entities(
    sample: NewsSample, article: str, positives: Sequence[bool]
) -> list[MentionedEntity]:
    """Where the article tells each entity of the caption, repeated ones too.

    Args:
        sample: An annotated sample.
        article: The folded text of its paragraphs.
        positives: Which of its sentences are positive.
    """
    wanted = entity_keys(sample.caption_entities)
    before = [0, *accumulate(len(paragraph.split()) for paragraph in sample.paragraphs)]
    words: dict[str, int] = {}
    positive_keys: set[str] = set()
    positive_texts = []
    for sentence, positive in zip(sample.sentences, positives, strict=True):
        keys = {key: e for e in reversed(sentence.entities) if (key := entity_key(e.text)) in wanted}
        for key, entity in keys.items():
            read = sample.paragraphs[sentence.paragraph][: sentence.start + entity.end]
            count = before[sentence.paragraph] + len(read.split())
            words[key] = min(count, words.get(key, count))
        if positive:
            positive_keys |= keys.keys()
            positive_texts.append(sentence.text)
    positive_text = fold(" ".join(positive_texts))
    found = []
    for entity in sample.caption_entities:
        key = entity_key(entity.text)
        end = _end(key, article)
        # Folding leaves one space between words.
        in_text = None if end is None else article.count(" ", 0, end) + 1
        in_positives = (_end(key, positive_text) is not None, key in positive_keys)
        found.append(MentionedEntity(entity.label, (in_text, words.get(key)), in_positives))
    return found


def _end(key: str, text: str) -> int | None:
    """Where the key ends in the text, in whole words, the first time."""
    match = _whole_words(key).search(text) if key and key in text else None
    return match.end() if match else None


@lru_cache(maxsize=4096)
def _whole_words(key: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(key)}(?!\w)")
