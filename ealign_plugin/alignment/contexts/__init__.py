"""Article → context: the part of an article that the model reads before it answers.

Strategies (EAMA, arXiv 2402.19404; the baselines are Transform and Tell's and ours):

====================  =============================================================================
``none``              nothing
``head``              the first sentences
``full``              the whole article
``around_image``      the headline, the first paragraph, then paragraphs before and after the photo in
                      turn, the nearest first (Transform and Tell, arXiv 2004.08070); ``head`` where the
                      photo's position is unknown
``refined``           the selected sentences (v1 of the paper)
``supplemented``      the head, and the selected sentences and names (v5)
``oracle_sentences``  the sentences that the reference caption would select: an upper bound
``oracle_entities``   the head, and the names that the reference caption would select: the same
``oracle``            these sentences and names
====================  =============================================================================

Every context keeps the article's order and its budget, and never cuts a sentence unless that sentence
alone exceeds the budget (what the names or the headline leave of it). Where nothing is selected, each
falls back to ``head``. Strategies that read a selection or the reference caption read a sentence that the
article repeats once, in training and at test; the others read the article as it stands.

Another package adds a strategy by one function, which training, evaluation and captioner can use at once::

    @register_context("last")
    def last(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
        return compose(sample, range(len(sample.sentences))[::-1], budget)
"""

from ealign_plugin.alignment.contexts import strategies  # noqa: F401  registers them
from ealign_plugin.alignment.contexts.base import (
    CONTEXTS,
    DEFAULT_CONTEXT_WORDS,
    Budget,
    Context,
    ContextStrategy,
    MakeContext,
    build_context,
    context_budget,
    context_strategy,
    register_context,
)
from ealign_plugin.alignment.contexts.compose import compose

__all__ = [
    "CONTEXTS",
    "DEFAULT_CONTEXT_WORDS",
    "Budget",
    "Context",
    "ContextStrategy",
    "MakeContext",
    "build_context",
    "compose",
    "context_budget",
    "context_strategy",
    "register_context",
]
