"""The captioning task: photo and context → the caption."""

from __future__ import annotations

import random

from ealign_plugin.alignment.contexts import Budget, build_context
from ealign_plugin.alignment.prompts import Prompt, Wording
from ealign_plugin.alignment.tasks.base import (
    AlignmentTask,
    Example,
    TaskOptions,
    draw_context,
)
from ealign_plugin.news import NewsSample


class CaptionTask(AlignmentTask):
    """Write the caption of the photo, from a part of its article."""

    name = "caption"
    default_share = 1.0

    def examples(
        self,
        sample: NewsSample,
        options: TaskOptions,
        wording: Wording,
        budget: Budget,
        rng: random.Random,
    ) -> list[Example]:
        context = draw_context(sample, options.contexts, options, budget, rng)
        return [self.example(wording.caption(context.text), sample.caption)]

    def ask(self, sample: NewsSample, wording: Wording, budget: Budget) -> Prompt:
        """The caption from the usual context, which needs no first pass."""
        return wording.caption(build_context(sample, budget.usual, budget).text)
