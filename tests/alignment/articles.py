"""Articles for the tests: entities are marked in the text, as in ``[Ana Ruiz/PERSON] spoke.``"""

import re

from hypothesis import strategies as st

from ealign_plugin.news import Entity, NewsSample, Sentence

_MARKED = re.compile(r"\[([^/\]]+)/([A-Z_]+)\]")


def marked(text):
    """The text without its marks, and the entities that were marked."""
    plain, entities, end = "", [], 0
    for match in _MARKED.finditer(text):
        plain += text[end : match.start()]
        entities.append(Entity(match[1], match[2], len(plain)))
        plain, end = plain + match[1], match.end()
    return plain + text[end:], tuple(entities)


def article(caption, *sentences):
    """An annotated sample of one paragraph."""
    caption, caption_entities = marked(caption)
    found, start = [], 0
    for text, entities in map(marked, sentences):
        found.append(Sentence(text, 0, start, entities))
        start += len(text) + 1
    return NewsSample(
        key="a",
        split="train",
        caption=caption,
        caption_entities=caption_entities,
        paragraphs=(" ".join(sentence.text for sentence in found),),
        sentences=tuple(found),
    )


STORM = article(
    "[Ana Ruiz/PERSON] in [Oslo/GPE] on [Monday/DATE].",
    "It rained on [Monday/DATE].",  # 0: shares the date alone
    "[Bo Lind/PERSON] left [Bergen/GPE].",  # 1: other names
    "[Ana Ruiz/PERSON]’s talk began.",  # 2: positive
    "Nobody came, not even [Bo Lind/PERSON].",  # 3
    "[OSLO/GPE] slept.",  # 4: positive
    "[Kai Moe/PERSON] won.",  # 5
)

_WORDS = ["rain", "fell", "on", "the", "old", "town"]
_NAMES = [
    "[Ana Ruiz/PERSON]",
    "[Bo Lind/PERSON]",
    "[Oslo/GPE]",
    "[the United Nations/ORG]",
    "[Monday/DATE]",
    "[two/CARDINAL]",
]
_TEXT = st.lists(st.sampled_from(_WORDS + _NAMES), min_size=1, max_size=9).map(
    lambda words: " ".join(words) + "."
)

ARTICLES = st.builds(
    lambda caption, sentences: article(caption, *sentences), _TEXT, st.lists(_TEXT, max_size=8)
)
"""Small articles: sometimes empty, with repeated sentences and names, with and without positives."""
