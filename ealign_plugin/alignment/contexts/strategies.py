"""The strategies of this package; what each reads stands at the head of the room (`contexts`)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, zip_longest

from ealign_plugin.alignment.contexts.base import Budget, Context, register_context
from ealign_plugin.alignment.contexts.compose import compose, joined, supplement
from ealign_plugin.alignment.selection import Selection, oracle
from ealign_plugin.news import NewsSample


@register_context("none")
def none(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """Nothing: only the photo is looked at."""
    return Context("")


@register_context("head")
def head(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The first sentences."""
    return compose(sample, range(len(sample.sentences)), budget)


@register_context("full")
def full(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The whole article, whatever the budget."""
    return Context(
        joined(*(sentence.text for sentence in sample.sentences)), tuple(range(len(sample.sentences)))
    )


@register_context("around_image")
def around_image(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """Headline, first paragraph, then paragraphs around the photo, the nearest first."""
    if sample.image_position is None:
        return head(sample, budget, selection)
    return compose(sample, _around(sample, sample.image_position), budget, headline=sample.headline)


@register_context("refined", needs_selection=True)
def refined(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The selected sentences."""
    assert selection is not None
    return compose(sample, selection.best_first, budget, once=True)


@register_context("supplemented", needs_selection=True)
def supplemented(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The usual context, and in it the selected sentences and names."""
    assert selection is not None
    return supplement(sample, budget, selection.best_first, selection.entities)


@register_context("oracle", reads_caption=True)
def both_oracles(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The sentences and names that the reference caption would select."""
    right = oracle(sample)
    return compose(sample, right.sentences, budget, names=right.entities, once=True)


@register_context("oracle_sentences", reads_caption=True)
def oracle_sentences(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The sentences that the reference caption would select."""
    return compose(sample, oracle(sample, entities=False).sentences, budget, once=True)


@register_context("oracle_entities", reads_caption=True)
def oracle_entities(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The usual context, and the names that the reference caption would select."""
    return compose(sample, (), budget, names=oracle(sample, sentences=False).entities, once=True)


@register_context("supplemented_oracle", reads_caption=True)
def supplemented_oracle(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The usual context, and in it the sentences and names that the reference caption would select."""
    right = oracle(sample)
    return supplement(sample, budget, right.sentences, right.entities)


@register_context("supplemented_oracle_sentences", reads_caption=True)
def supplemented_oracle_sentences(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The usual context, and in it the sentences that the reference caption would select."""
    return supplement(sample, budget, oracle(sample, entities=False).sentences)


def _around(sample: NewsSample, position: int) -> Iterable[int]:
    """All sentences in the order in which they are wanted where the photo stands before this paragraph."""
    paragraphs: dict[int, list[int]] = {}
    for index, sentence in enumerate(sample.sentences):
        paragraphs.setdefault(sentence.paragraph, []).append(index)
    first, *others = sorted(paragraphs) or [position]
    # Backwards, so that the budget ends on the side that is far from the photo.
    before = [paragraphs[p][::-1] for p in reversed(others) if p < position]
    after = [paragraphs[p] for p in others if p >= position]
    turns = chain.from_iterable(zip_longest(before, after, fillvalue=[]))
    return chain(paragraphs.get(first, []), chain.from_iterable(turns))
