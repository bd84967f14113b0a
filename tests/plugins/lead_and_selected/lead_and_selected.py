"""A context strategy: the article's first paragraph, then the sentences that pass 1 selected."""

from __future__ import annotations

from ealign_plugin.alignment.contexts import Budget, Context, compose, register_context
from ealign_plugin.alignment.selection import Selection
from ealign_plugin.news import NewsSample


@register_context("lead_and_selected", needs_selection=True)
def lead_and_selected(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The first paragraph and the selected sentences, in the article's order."""
    lead = [index for index, sentence in enumerate(sample.sentences) if sentence.paragraph == 0]
    chosen = selection.best_first if selection else ()
    return compose(sample, [*lead, *chosen], budget, once=True)
