"""Which sentences a control reads in place of those that pass 1 selected."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain, zip_longest

from ealign_plugin.alignment.contexts import Budget, Context, compose
from ealign_plugin.alignment.selection import oracle, unrepeated
from ealign_plugin.entities import entity_keys, fold
from ealign_plugin.inference.controls.articles import SplitArticles
from ealign_plugin.news import NewsSample

Order = Callable[[NewsSample, SplitArticles], Sequence[int]]
"""Sample and split → indexes of all its sentences, the most wanted first."""


def in_random_order(sample: NewsSample, articles: SplitArticles) -> list[int]:
    """All sentences, by chance; the same for the same photo."""
    return _shuffled(range(len(sample.sentences)), sample)


def most_names_first(sample: NewsSample, articles: SplitArticles) -> list[int]:
    """Those that hold the most names of what a picture can show, each once; else by position."""
    names = [len(entity_keys(sentence.entities, visual=True)) for sentence in sample.sentences]
    return sorted(range(len(names)), key=lambda index: (-names[index], index))


def nearest_to_the_headline(sample: NewsSample, articles: SplitArticles) -> list[int]:
    """By cosine of TF-IDF; else by position, as where there is no headline."""
    near = articles.similarities(sample.headline, [sentence.text for sentence in sample.sentences])
    return sorted(range(len(near)), key=lambda index: (-near[index], index))


ORDERS: dict[str, Order] = {
    "random_sentences": in_random_order,
    "most_names": most_names_first,
    "tfidf": nearest_to_the_headline,
}
"""Control → the order in which sentences are wanted."""


def as_much_as(text: str, sample: NewsSample, wanted: Iterable[int], budget: Budget) -> Context:
    """The first wanted sentences that fit into the length of a text; those that do not fit are passed over.

    Args:
        text: What the main context holds.
        sample: As `Wording.sample` gives it.
        wanted: Indexes of its sentences, the most wanted first, each text is read once.
        budget: How lengths are measured.
    """
    left = length = budget.length(text)
    if not length:
        return Context("")
    wanted = list(unrepeated(wanted, lambda index: sample.sentences[index].text))
    fitting = []
    for index in wanted:
        size = budget.length(sample.sentences[index].text)
        if size <= left:
            fitting.append(index)
            left -= size
    # Whatever part of the budget the usual context has, it plays none here.
    return compose(sample, fitting or wanted, replace(budget, number=length, usual_least=None), once=True)


def with_other_scenes(
    sample: NewsSample, others: Iterable[NewsSample], budget: Budget, count: int
) -> Context:
    """The sentences that the reference would select, and those that other photos' references would.

    Args:
        sample: As `Wording.sample` gives it.
        others: The other photos of the article, likewise. The first whose references select further sentences
            are taken; for each that is missing, as many random ones as the reference selects.
        budget: Of the context. The sentences of all take turns where it is too small for all.
        count: Number of other photos.
    """
    right = oracle(sample, entities=False).sentences
    taken, scenes = {fold(sample.sentences[index].text) for index in right}, [list(right)]
    for other in others:
        if len(scenes) > count:
            break
        texts = {fold(other.sentences[index].text) for index in oracle(other, entities=False).sentences}
        if further := texts - taken:
            scenes.append([i for i, one in enumerate(sample.sentences) if fold(one.text) in further])
            taken |= further
    rest = [index for index, one in enumerate(sample.sentences) if fold(one.text) not in taken]
    missing = (count + 1 - len(scenes)) * len(right)
    scenes.append(_shuffled(rest, sample)[:missing])
    turns = chain.from_iterable(zip_longest(*scenes)) if right else ()
    return compose(sample, [index for index in turns if index is not None], budget, once=True)


def _shuffled(indexes: Iterable[int], sample: NewsSample) -> list[int]:
    order = list(indexes)
    random.Random(sample.key).shuffle(order)
    return order
