"""Article → context: the part of an article that the model reads before it answers.

Strategies (EAMA, arXiv 2402.19404; the baselines are Transform and Tell's and ours):

=================================  ===================================================================
``none``                           nothing
``head``                           the first sentences
``full``                           the whole article
``around_image``                   the headline, the first paragraph, then paragraphs before and after the
                                   photo in turn, the nearest first (Transform and Tell, arXiv
                                   2004.08070); ``head`` where the photo's position is unknown
``refined``                        the selected sentences (v1 of the paper)
``supplemented``                   the usual context, and in it the selected sentences and names (v5)
``oracle_sentences``               the sentences that the reference caption would select: an upper bound
``oracle_entities``                the usual context, and the names that the caption would select: the same
``oracle``                         these sentences and names alone
``supplemented_oracle``            the usual context, and in it these sentences and names: the bound of
                                   ``supplemented``, as the paper's *Base + both oracles*
``supplemented_oracle_sentences``  the usual context, and in it these sentences alone
=================================  ===================================================================

The usual context is ``head``, or what ``run.usual_context`` names: any strategy that needs no selection and
does not read the caption. A part of the budget is its own (``run.usual_words``, else half), so its headline
and neighbourhood stay; names take half of the rest at most, then come the selected sentences, and what is
left of the budget goes back to the usual context. Where nothing is selected, each strategy falls back to it.

Every context keeps the article's order and its budget, and never cuts a sentence unless that sentence
alone exceeds the budget (what the names or the headline leave of it). Over budget the best-scored selected
sentences stay. Strategies that read a selection or the reference caption read a sentence that the article
repeats once, in training and at test; the others read the article as it stands.

Another package adds a strategy by one function, which training, evaluation and captioner can use at once::

    @register_context("last")
    def last(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
        return compose(sample, range(len(sample.sentences))[::-1], budget)
"""

from ealign_plugin.alignment.contexts import strategies  # noqa: F401  registers them
from ealign_plugin.alignment.contexts.base import (
    CONTEXTS,
    DEFAULT_CONTEXT_WORDS,
    DEFAULT_USUAL_CONTEXT,
    Budget,
    Context,
    ContextStrategy,
    MakeContext,
    build_context,
    check_usual_context,
    context_budget,
    context_strategy,
    register_context,
)
from ealign_plugin.alignment.contexts.compose import compose, supplement

__all__ = [
    "CONTEXTS",
    "DEFAULT_CONTEXT_WORDS",
    "DEFAULT_USUAL_CONTEXT",
    "Budget",
    "Context",
    "ContextStrategy",
    "MakeContext",
    "build_context",
    "check_usual_context",
    "compose",
    "context_budget",
    "context_strategy",
    "register_context",
    "supplement",
]
