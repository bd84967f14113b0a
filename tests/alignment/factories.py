"""Contexts of articles in few words, and measures of a text's length."""

from dataclasses import replace
from itertools import chain

from ealign_plugin.alignment.contexts import CONTEXTS, build_context, context_budget
from ealign_plugin.alignment.prompts import Templates, Wording
from ealign_plugin.alignment.selection import Selection
from tests.alignment.articles import STORM, article

CHOSEN = Selection((2, 4), ("Ana Ruiz", "OSLO"))
STRATEGIES = list(CONTEXTS)
BUDGETED = [strategy for strategy in STRATEGIES if strategy not in ("none", "full")]


def budget(words, length=None, usual="head", usual_words=None, **templates):
    """A budget of words, or of what another function counts; names are listed as the templates say."""
    return context_budget(
        Wording(Templates(**templates)),
        words=words,
        tokens=words if length else None,
        count_tokens=length,
        usual_context=usual,
        usual_words=usual_words,
    )


def context(strategy, words, selection=CHOSEN, sample=STORM, **options):
    return build_context(sample, strategy, budget(words, **options), selection)


def pages(*paragraphs, headline="", position=None):
    """An article of paragraphs, each a list of sentences; the photo stands before one of them."""
    made = [article("[Oslo/GPE]", *sentences) for sentences in paragraphs]
    return replace(
        article("[Oslo/GPE]"),
        headline=headline,
        image_position=position,
        paragraphs=tuple(chain.from_iterable(page.paragraphs for page in made)),
        sentences=tuple(replace(s, paragraph=i) for i, page in enumerate(made) for s in page.sentences),
    )


def letters(text):
    """A text's length; what joins two sentences costs one more."""
    return len(text)


def tokens(text):
    """Word pieces of up to four letters, and a mark in front as some tokenizers set it."""
    return 1 + sum(-(-len(word) // 4) for word in text.split())
