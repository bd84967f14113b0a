"""Entity-aware sentence selection: photo and one sentence of the article → yes or no.

A test asks every sentence of an article, which is pass 1 of the two passes (`ealign_plugin.inference`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from copy import copy

from ealign_plugin.alignment.contexts import Budget
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.selection import sentence_labels
from ealign_plugin.alignment.tasks.base import AlignmentTask, Example, TaskOptions
from ealign_plugin.entities import VISUAL_LABELS, entity_key, entity_keys
from ealign_plugin.news import Entity, NewsSample


class SentenceTask(AlignmentTask):
    """Judge whether a sentence of the article is about the photo."""

    name = "sentence"
    default_share = 2.0

    def examples_at_once(self, options: TaskOptions) -> int:
        """As many positives as negatives of one article."""
        return 2 * options.positives

    def examples(
        self,
        sample: NewsSample,
        options: TaskOptions,
        wording: Wording,
        budget: Budget,
        rng: random.Random,
    ) -> list[Example]:
        """As many positives as negatives of one article, balanced over the types of entity.

        A type is drawn first, then a positive that shares an entity of this type with the caption, then a
        negative that holds the type too: otherwise the frequent types are learnt and the others stay at
        chance.
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
        drawn: list[str] = []
        for _ in range(options.positives):
            kind = rng.choice(kinds)
            if rng.random() < options.caption_positive:
                positive = sample.caption
            else:
                positive = rng.choice([text for text, types in positives if kind in types])
            alike = [text for text, types in negatives if kind in types]
            if not alike or rng.random() < options.any_negative:
                alike = [text for text, _ in negatives]
            negative = rng.choice(alike)
            drawn += [positive, negative]
        answers = [wording.templates.yes, wording.templates.no] * options.positives
        if options.permute_labels:
            copy(rng).shuffle(answers)  # a copy, so that all other draws stay as they are without it
        return [
            self.example(wording.sentence(sentence), answer)
            for sentence, answer in zip(drawn, answers, strict=True)
        ]


def _types(entities: Iterable[Entity]) -> frozenset[str]:
    return frozenset(entity.label for entity in entities if entity.label in VISUAL_LABELS)
