"""What the article says about the picture: labels from the caption, and the model's choice in pass 1.

Labels follow EAMA (arXiv 2402.19404, section 3.2): a sentence is positive when it shares a *visual*
entity with the caption, negative when it shares none. They come from caption data alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ealign_plugin.entities import entity_key, entity_keys, fold, mentioned_names
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample

EMPTY_LIST = "none"

# A number or bullet in front; a full stop behind, unless it belongs to letters such as U.S.
_DECORATION = re.compile(r"^(?:\(?\d+[.)](?:\s+|$)|[-*•]\s*|[‣◦▪●·–—](?:\s+|$))+|(?<!\.\w)\s*\.+$")
_LABEL = re.compile(r"\s*(?:names|entities)\s*:", re.IGNORECASE)
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_FIRST_NUMBER = re.compile(r"\(?1[.)]\s")
_NEXT_NUMBER = re.compile(r"\s+(?=\(?\d+[.)]\s)")


@dataclass(frozen=True, slots=True)
class Selection:
    """What pass 1 chose from an article, in article order.

    Args:
        sentences: Indexes into ``sample.sentences``.
        entities: Names, each once.
        scores: P(yes) of each of the sentences; None where nothing scored them, as in selections from labels.

    Raises:
        ValueError: not as many scores as sentences.

    Example:
        >>> Selection((1, 4, 7), scores=(0.51, 0.52, 0.99)).best_first
        (7, 4, 1)
    """

    sentences: tuple[int, ...] = ()
    entities: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.scores is not None and len(self.scores) != len(self.sentences):
            raise ValueError(
                f"a score of each of {len(self.sentences)} sentences was expected, found {len(self.scores)}"
            )

    @property
    def best_first(self) -> tuple[int, ...]:
        """The sentences by their scores, equal ones by position; in article order where none are known."""
        if self.scores is None:
            return self.sentences
        ranked = sorted(zip(self.sentences, self.scores, strict=True), key=lambda pair: (-pair[1], pair[0]))
        return tuple(index for index, _ in ranked)

    def only(self, sentences: Iterable[int]) -> Selection:
        """The same with some of its sentences."""
        kept = tuple(sentences)
        if self.scores is None:
            return replace(self, sentences=kept)
        scores = dict(zip(self.sentences, self.scores, strict=True))
        return replace(self, sentences=kept, scores=tuple(scores[index] for index in kept))


def sentence_labels(sample: NewsSample) -> list[bool]:
    """For each sentence: does it share a visual entity with the caption?"""
    wanted = entity_keys(sample.caption_entities, visual=True)
    return [bool(entity_keys(s.entities, visual=True) & wanted) for s in sample.sentences]


def shared_entities(sample: NewsSample, sentences: Sequence[int] | None = None) -> tuple[str, ...]:
    """Names of the article that are also in the caption, visual or not, in article order, each once.

    Args:
        sample: An annotated sample.
        sentences: Look only at these sentences; at all where None.
    """
    wanted = entity_keys(sample.caption_entities)
    return tuple(name for key, name in article_names(sample, sentences).items() if key in wanted)


def oracle(sample: NewsSample, *, sentences: bool = True, entities: bool = True) -> Selection:
    """The selection that the reference caption itself would make: an upper bound, never a result."""
    labels = sentence_labels(sample) if sentences else []
    return Selection(
        tuple(index for index, positive in enumerate(labels) if positive),
        shared_entities(sample) if entities else (),
    )


def noisy_oracle(
    sample: NewsSample, rng: random.Random, *, miss: float, extra: float, extra_names: float = 0.0
) -> Selection:
    """The oracle's selection with mistakes, so that pass 2 learns to read what pass 1 will give it.

    Args:
        sample: An annotated sample.
        rng: Where the mistakes come from.
        miss: Share of the right sentences and names that are left out; one right sentence always stays.
        extra: Expected number of wrong sentences per right one, at most 1.
        extra_names: The same of names: others of the article, which stand where the article has them.
    """
    labels = sentence_labels(sample)
    right = [index for index, positive in enumerate(labels) if positive]
    wrong = [index for index, positive in enumerate(labels) if not positive]
    kept = [index for index in right if rng.random() >= miss] or right[:1]
    added = sum(rng.random() < extra for _ in right)
    sentences = sorted(kept + rng.sample(wrong, min(added, len(wrong))))
    shared = shared_entities(sample)
    names = [name for name in shared if rng.random() >= miss]
    if extra_names:  # no draw where it is off, so that the draws are those of earlier versions
        others = _other_names(sample)
        added = sum(rng.random() < extra_names for _ in shared)
        listed = {*names, *rng.sample(others, min(added, len(others)))}
        names = [name for name in article_names(sample).values() if name in listed]
    return Selection(tuple(sentences), tuple(names))


def article_names(sample: NewsSample, sentences: Sequence[int] | None = None) -> dict[str, str]:
    """Key → name of the article's entities, in article order, each once.

    Args:
        sample: An annotated sample.
        sentences: Look only at these sentences; at all where None.
    """
    found: dict[str, str] = {}
    for index in range(len(sample.sentences)) if sentences is None else sentences:
        for entity in sample.sentences[index].entities:
            found.setdefault(entity_key(entity.text), " ".join(entity.text.split()))
    return found


def _other_names(sample: NewsSample) -> list[str]:
    """The article's names that are not in the caption, in article order."""
    wanted = entity_keys(sample.caption_entities)
    return [name for key, name in article_names(sample).items() if key not in wanted]


def count_words(text: str) -> int:
    """Words of a text: what stands between white space."""
    return len(text.split())


def unrepeated(
    indexes: Iterable[int], text: Callable[[int], str], before: Iterable[int] = ()
) -> Iterator[int]:
    """The indexes without those whose sentence came before, whatever its case, spacing and quotes.

    Args:
        indexes: Sentences in the order in which they are wanted.
        text: The text of each.
        before: Sentences that are read already.
    """
    seen = {fold(text(index)) for index in before}
    for index in indexes:
        key = fold(text(index))
        if key not in seen:
            seen.add(key)
            yield index


def first_within(
    indexes: Iterable[int], budget: int, size: Callable[[int], int], *, at_least_one: bool = True
) -> tuple[list[int], int]:
    """The first of the sentences whose sizes together fit the budget, and what is left of it.

    Args:
        indexes: Sentences in the order in which they are wanted; read no further than needed.
        budget: In the unit of `size`.
        size: Size of each sentence.
        at_least_one: Take the first even where it exceeds the budget; then less than nothing is left.
    """
    kept: list[int] = []
    for index in indexes:
        left = budget - size(index)
        if left < 0 and (kept or not at_least_one):
            break
        kept.append(index)
        budget = left
    return kept, budget


def select_sentences(
    scores: Sequence[float],
    *,
    threshold: float | None = 0.5,
    top_k: int | None = None,
    words: int | None = None,
    texts: Sequence[str] | None = None,
    length: Callable[[str], int] = count_words,
) -> tuple[int, ...]:
    """Indexes of the sentences to read in pass 2, in article order.

    Args:
        scores: P(yes) of each sentence of the article.
        threshold: Keep those with at least this score; None keeps all.
        top_k: Keep at most so many, the best first; equal scores by position.
        words: Keep the best, equal scores by position, until the next does not fit this budget; the best
            one always.
        texts: The sentences; where given, repeated ones are kept once, the first that reaches the
            threshold. Needed by ``words``.
        length: Measures a sentence for ``words``: its words, or its tokens (see `build_context`).

    Raises:
        UserError: a budget below 1.
        ValueError: ``words`` without ``texts``, or not as many texts as scores.
    """
    if words is not None and words < 1:
        raise UserError(f"sentence selection: a budget of at least 1 word was expected, found {words}")
    if texts is None and words is not None:
        raise ValueError("sentences are selected by their words: their texts were expected, none were given")
    if texts is not None and len(texts) != len(scores):
        raise ValueError(f"a text for each of {len(scores)} scores was expected, found {len(texts)} texts")
    chosen = [i for i, score in enumerate(scores) if threshold is None or score >= threshold]
    if texts is not None:
        chosen = list(unrepeated(chosen, texts.__getitem__))
    if top_k is not None or words is not None:
        chosen = sorted(chosen, key=lambda i: (-scores[i], i))[:top_k]
    if texts is not None and words is not None:
        chosen, _ = first_within(chosen, words, lambda i: length(texts[i]))
    return tuple(sorted(chosen))


def parse_entities(answer: str, separator: str) -> tuple[str, ...]:
    """Names in an answer to the entity task, in order, each once.

    Models also number their lists, on lines of their own or on one, begin lines with bullets, repeat the
    word "Names:", set names in bold, and end them with a full stop.

    >>> parse_entities("Ana Ruiz; Oslo; ana ruiz;", "; ")
    ('Ana Ruiz', 'Oslo')
    >>> parse_entities("1. Ana Ruiz\\n2. U.S.", "; ")
    ('Ana Ruiz', 'U.S.')
    >>> parse_entities("Names: 1. Ana Ruiz 2. Oslo", "; ")
    ('Ana Ruiz', 'Oslo')
    """
    answer = _BOLD.sub(r"\1", answer)
    if label := _LABEL.match(answer):
        answer = answer[label.end() :]
    mark = separator.strip()
    if not mark or mark.isalnum():  # "and" also stands within names
        mark = separator
    items = [item for part in re.split(rf"{re.escape(mark)}|[\r\n]", answer) if (item := part.strip())]
    if len(items) == 1 and _FIRST_NUMBER.match(items[0]):
        items = _NEXT_NUMBER.split(items[0])
    found: dict[str, str] = {}
    for item in items:
        name = " ".join(_DECORATION.sub("", item).split())
        key = entity_key(name)
        if key and key != EMPTY_LIST:
            found.setdefault(key, name)
    return tuple(found.values())


def in_article(sample: NewsSample, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the names that the article mentions, in whole words; the others were made up.

    >>> sample = NewsSample(key="a", split="test", caption="", paragraphs=("Oslo's mayor left.",))
    >>> in_article(sample, ["Oslo", "Os", "Bergen"])
    ('Oslo',)
    """
    return tuple(mentioned_names(" ".join((sample.headline, *sample.paragraphs)), names))


def select_entities(
    sample: NewsSample, answer: str, separator: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names in an answer to the entity task: those that the article mentions, and those that were made up.

    >>> sample = NewsSample(key="a", split="test", caption="", paragraphs=("Oslo's mayor left.",))
    >>> select_entities(sample, "Oslo; Bergen", "; ")
    (('Oslo',), ('Bergen',))
    """
    listed = parse_entities(answer, separator)
    known = in_article(sample, listed)
    return known, tuple(name for name in listed if name not in known)
