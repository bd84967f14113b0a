"""An alignment task outside news captions: which of the listed products does this advertisement show?

A sample of the source holds the products of a catalogue page, and those that the photo shows::

    extra = {"products": ["Solana Cola", "Kivu Water"], "shown": ["Kivu Water"]}
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ealign_plugin.alignment.contexts import Budget
from ealign_plugin.alignment.prompts import Prompt, Wording
from ealign_plugin.alignment.tasks import AlignmentTask, Example, TaskOptions, register_task
from ealign_plugin.news import NewsSample

TEMPLATE = "Products: {products} Which of them does this advertisement show? Answer:"


@register_task
class AdvertisedProducts(AlignmentTask):
    """Name the products, of those that are listed, that the photo of an advertisement shows."""

    name = "products"

    def examples(
        self,
        sample: NewsSample,
        options: TaskOptions,
        wording: Wording,
        budget: Budget,
        rng: random.Random,
    ) -> list[Example]:
        """One example; the list is shuffled, so that its order gives nothing away."""
        listed, shown = products(sample, "products", wording), products(sample, "shown", wording)
        if not shown:
            return []
        rng.shuffle(listed)
        return [self.example(question(listed, wording), wording.names(shown))]

    def ask(self, sample: NewsSample, wording: Wording, budget: Budget) -> Prompt | None:
        """The question with the list as the source gives it; None where the photo is no advertisement."""
        listed = products(sample, "products", wording)
        return question(listed, wording) if listed else None

    def parse(self, answer: str, wording: Wording) -> list[str]:
        """The names in the answer."""
        names = answer.split(wording.templates.separator.strip(" "))
        return [name.strip() for name in names if name.strip()]

    def score(self, samples: Sequence[NewsSample], answers: Sequence[list[str]]) -> dict[str, float | None]:
        """Micro-averaged precision and recall of the products."""
        pairs = [
            (set(sample.extra["shown"]), set(answer)) for sample, answer in zip(samples, answers, strict=True)
        ]
        hits = sum(len(shown & answered) for shown, answered in pairs)
        shown, answered = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
        return {
            "precision": hits / answered if answered else None,
            "recall": hits / shown if shown else None,
        }


def products(sample: NewsSample, which: str, wording: Wording) -> list[str]:
    """The listed (``products``) or the visible (``shown``) products; none in an ordinary news photo."""
    return [wording.text(name) for name in sample.extra.get(which, ())]


def question(listed: Sequence[str], wording: Wording) -> Prompt:
    """What is asked, in training and at test."""
    return wording.fill(TEMPLATE, "{products}", wording.names(listed))
