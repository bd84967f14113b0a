"""What controls must know of the whole split: which photos share an article, and how common words are."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from ealign_plugin.errors import UserError
from ealign_plugin.inference.protocols import EvaluationData
from ealign_plugin.news import NewsSample

_WORD = re.compile(r"\w+")


class SplitArticles:
    """Reads each record of a split once, when it is first asked; keeps words and numbers, not the articles.

    Args:
        data: The split.
    """

    def __init__(self, data: EvaluationData) -> None:
        self.data = data

    def others(self, sample: NewsSample) -> list[NewsSample]:
        """The other photos of its article: first those whose keys come after its own."""
        members = sorted(self._read[0][sample.article])
        after = [index for key, index in members if key > sample.key]
        before = [index for key, index in members if key < sample.key]
        return [self.data.sample(index) for index in after + before]

    def similarities(self, query: str, texts: Sequence[str]) -> list[float]:
        """Cosine of the TF-IDF vectors of each text and the query; 0 where they share no word.

        Document frequencies are those of the split's articles, headline and text.
        """
        wanted = self._vector(query)
        return [_cosine(wanted, self._vector(text)) for text in texts]

    def _vector(self, text: str) -> dict[str, float]:
        _, frequencies, articles = self._read
        counts = Counter(_words(text))
        return {
            word: count * (math.log((1 + articles) / (1 + frequencies[word])) + 1)
            for word, count in counts.items()
        }

    @cached_property
    def _read(self) -> tuple[Mapping[str | tuple[str, ...], list[tuple[str, int]]], Counter[str], int]:
        """Article → key and index of its photos; word → articles that hold it; number of articles."""
        members: dict[str | tuple[str, ...], list[tuple[str, int]]] = {}
        frequencies: Counter[str] = Counter()
        for index in range(len(self.data)):
            try:
                sample = self.data.sample(index)
            except UserError:
                continue  # recorded where this photo itself is read
            if sample.article not in members:
                frequencies.update(set(_words(" ".join((sample.headline, *sample.paragraphs)))))
            members.setdefault(sample.article, []).append((sample.key, index))
        return members, frequencies, len(members)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _cosine(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    product = sum(value * other.get(word, 0.0) for word, value in one.items())
    lengths = math.hypot(*one.values()) * math.hypot(*other.values())
    return product / lengths if lengths else 0.0
