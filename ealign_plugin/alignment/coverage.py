"""What a context strategy can put before the model, found by asking it for a context of a made-up article.

A model that never read a headline or a list of names in training, or never more than its budget, is asked
something new where a test shows it one. Every registered strategy can be asked, those of other packages too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ealign_plugin.alignment.contexts import Budget, build_context
from ealign_plugin.alignment.selection import Selection
from ealign_plugin.news import Entity, NewsSample, Sentence

SENTENCES, HEADLINE, NAMES, MORE = (
    "sentences of the article",
    "the headline",
    "a list of names",
    "more than the budget",
)

_HEADLINE, _NAMES, _PERSON = "Headline", "[names]", "Ana Ruiz"


def parts_of(strategy: str, budget: Budget) -> frozenset[str]:
    """Which of `SENTENCES`, `HEADLINE`, `NAMES` and `MORE` a context of this strategy can hold.

    >>> sorted(parts_of("supplemented", Budget(80)))
    ['a list of names', 'sentences of the article']
    >>> sorted(parts_of("full", Budget(80)))
    ['more than the budget', 'sentences of the article']

    Raises:
        UserError: an unknown strategy.
    """
    budget = replace(budget, list_names=lambda names: _NAMES)
    sample = _article(budget)
    every = Selection(tuple(range(len(sample.sentences))), (_PERSON,))
    context = build_context(sample, strategy, budget, every)
    found = {
        SENTENCES: bool(context.sentences),
        HEADLINE: _HEADLINE in context.text,
        NAMES: _NAMES in context.text,
        MORE: not budget.fits(context.text),
    }
    return frozenset(part for part, there in found.items() if there)


def parts_of_all(strategies: Iterable[str], budget: Budget) -> frozenset[str]:
    """What contexts of any of the strategies can hold."""
    return frozenset[str]().union(*(parts_of(strategy, budget) for strategy in strategies))


def _article(budget: Budget) -> NewsSample:
    """An article that exceeds the budget, with headline, place of the photo and names in the caption."""
    person = (Entity(_PERSON, "PERSON", 0),)
    texts: list[str] = []
    while budget.fits(" ".join(texts)) or len(texts) < 3:
        # Twice as many each time, so that a long budget is not measured a thousand times.
        texts += [f"{_PERSON} came {number}." for number in range(len(texts), 2 * len(texts) + 1)]
    return NewsSample(
        key="a",
        split="test",
        caption=_PERSON,
        caption_entities=person,
        headline=_HEADLINE,
        paragraphs=tuple(texts),
        image_position=1,
        sentences=tuple(Sentence(text, number, 0, person) for number, text in enumerate(texts)),
    )
