"""Entity selection: photo and context → the article's names that are also in the caption."""

from __future__ import annotations

import random
from collections.abc import Sequence
from copy import copy

from ealign_plugin.alignment.contexts import Budget, build_context
from ealign_plugin.alignment.prompts import Prompt, Wording
from ealign_plugin.alignment.selection import EMPTY_LIST, article_names, parse_entities, shared_entities
from ealign_plugin.alignment.tasks.base import (
    AlignmentTask,
    Example,
    TaskOptions,
    draw_context,
)
from ealign_plugin.entities import entity_key
from ealign_plugin.news import NewsSample


class EntityTask(AlignmentTask):
    """List the names of the article that belong to the photo."""

    name = "entity"
    default_share = 0.3

    def examples(
        self,
        sample: NewsSample,
        options: TaskOptions,
        wording: Wording,
        budget: Budget,
        rng: random.Random,
    ) -> list[Example]:
        context = draw_context(sample, options.entity_contexts, options, budget, rng)
        # A sentence longer than the budget is cut: what it no longer shows is not asked for.
        names = [name for name in shared_entities(sample, context.sentences) if name in context.text]
        if options.permute_labels:
            shown = [n for n in article_names(sample, context.sentences).values() if n in context.text]
            # A copy draws, so that all other draws stay as they are without it.
            drawn = copy(rng).sample(range(len(shown)), len(names))
            names = [shown[index] for index in sorted(drawn)]
        return [self.example(wording.entity(context.text), wording.names(names) or EMPTY_LIST)]

    def ask(self, sample: NewsSample, wording: Wording, budget: Budget) -> Prompt:
        """The names in the usual context, which needs no first pass."""
        return wording.entity(build_context(sample, budget.usual, budget).text)

    def parse(self, answer: str, wording: Wording) -> tuple[str, ...]:
        """The names in a list of names."""
        return parse_entities(answer, wording.templates.separator)

    def score(
        self, samples: Sequence[NewsSample], answers: Sequence[Sequence[str]]
    ) -> dict[str, float | None]:
        """Micro-averaged precision and recall of the names that article and caption share."""
        hits = listed = wanted = 0
        for sample, names in zip(samples, answers, strict=True):
            right = {entity_key(name) for name in shared_entities(sample)}
            answered = {entity_key(name) for name in names}
            hits, listed, wanted = (
                hits + len(right & answered),
                listed + len(answered),
                wanted + len(right),
            )
        return {"precision": hits / listed if listed else None, "recall": hits / wanted if wanted else None}
