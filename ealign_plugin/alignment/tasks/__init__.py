"""The three instruction tasks of EAMA (arXiv 2402.19404, section 3): sample → (instruction, target).

========  ==============================  =============================================
task      input                           target
========  ==============================  =============================================
caption   photo + context                 the caption
sentence  photo + one article sentence    yes / no
entity    photo + context                 the article's names that are also in the caption
========  ==============================  =============================================

One model learns all three with one language-model loss. The paper publishes neither templates nor the
list's separator: those below are ours, and config values.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ealign_plugin.alignment.contexts import NEED_SELECTION, build_context
from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.selection import (
    EMPTY_LIST,
    Selection,
    noisy_oracle,
    sentence_labels,
    shared_entities,
)
from ealign_plugin.entities import VISUAL_LABELS, entity_key, entity_keys
from ealign_plugin.news import Entity, NewsSample


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn: instruction → target. The photo joins it in the stream.

    ``question`` is the instruction without what is to be read: the Q-Former sees it, so that one set of
    image tokens serves every sentence of an article.
    """

    task: str
    instruction: str
    question: str
    target: str


def examples(
    sample: NewsSample, task: str, recipe: TaskMixture, wording: Wording, rng: random.Random
) -> list[Example]:
    """The examples of one task that one visit to a sample gives; none where the sample cannot give any.

    Args:
        sample: An annotated sample, as `Wording.sample` gives it.
        task: The task.
        recipe: Which examples to make.
        wording: How they are worded.
        rng: Where all draws come from.
    """
    if task == "caption":
        return [_caption(sample, recipe, wording, rng)]
    if task == "entity":
        return [_entity(sample, recipe, wording, rng)]
    return _sentence_pairs(sample, recipe, wording, rng)


def _caption(sample: NewsSample, recipe: TaskMixture, wording: Wording, rng: random.Random) -> Example:
    context, _ = _context(sample, recipe.contexts, recipe, wording, rng)
    return Example("caption", *wording.caption(context), sample.caption)


def _entity(sample: NewsSample, recipe: TaskMixture, wording: Wording, rng: random.Random) -> Example:
    context, sentences = _context(sample, recipe.entity_contexts, recipe, wording, rng)
    # A sentence longer than the budget is cut: what it no longer shows is not asked for.
    names = [name for name in shared_entities(sample, sentences) if name in context]
    return Example("entity", *wording.entity(context), wording.names(names) or EMPTY_LIST)


def _context(
    sample: NewsSample,
    shares: Mapping[str, float],
    recipe: TaskMixture,
    wording: Wording,
    rng: random.Random,
) -> tuple[str, tuple[int, ...]]:
    strategy = rng.choices(list(shares), list(shares.values()))[0]
    selection: Selection | None = None
    if strategy in NEED_SELECTION:
        selection = noisy_oracle(sample, rng, miss=recipe.miss, extra=recipe.extra)
    context = build_context(
        sample,
        strategy,
        words=recipe.words,
        selection=selection,
        names_label=wording.templates.names_label,
        separator=wording.templates.separator,
    )
    return context.text, context.sentences


def _sentence_pairs(
    sample: NewsSample, recipe: TaskMixture, wording: Wording, rng: random.Random
) -> list[Example]:
    """As many positives as negatives of one article, balanced over the types of entity.

    A type is drawn first, then a positive that shares an entity of this type with the caption, then a
    negative that holds the type too: otherwise the frequent types are learnt and the others stay at chance.
    """
    labels = sentence_labels(sample)
    wanted = entity_keys(sample.caption_entities, visual=True)
    positives = [
        (sentence.text, _types(e for e in sentence.entities if entity_key(e.text) in wanted))
        for sentence, label in zip(sample.sentences, labels, strict=True)
        if label
    ]
    negatives = [
        (sentence.text, _types(sentence.entities))
        for sentence, label in zip(sample.sentences, labels, strict=True)
        if not label
    ]
    if not positives or not negatives:
        return []
    kinds = sorted(set().union(*(types for _, types in positives)))
    pairs = []
    for _ in range(recipe.positives):
        kind = rng.choice(kinds)
        if rng.random() < recipe.caption_positive:
            positive = sample.caption
        else:
            positive = rng.choice([text for text, types in positives if kind in types])
        alike = [text for text, types in negatives if kind in types]
        if not alike or rng.random() < recipe.any_negative:
            alike = [text for text, _ in negatives]
        negative = rng.choice(alike)
        for sentence, answer in ((positive, wording.templates.yes), (negative, wording.templates.no)):
            pairs.append(Example("sentence", *wording.sentence(sentence), answer))
    return pairs


def _types(entities: Iterable[Entity]) -> frozenset[str]:
    return frozenset(entity.label for entity in entities if entity.label in VISUAL_LABELS)
