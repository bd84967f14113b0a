"""The first paragraph is read, and then what was selected, as far as the budget reaches."""

from __future__ import annotations

import lead_and_selected  # noqa: F401  registers the strategy
import pytest

from ealign_plugin.alignment.contexts import Budget, build_context
from ealign_plugin.alignment.selection import Selection
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample, Sentence

SAMPLE = NewsSample(
    key="a0_0",
    split="test",
    caption="",
    paragraphs=("It rained. The match began late.", "Ana Ruiz scored. Oslo lost."),
    sentences=(
        Sentence("It rained.", paragraph=0, start=0),
        Sentence("The match began late.", paragraph=0, start=11),
        Sentence("Ana Ruiz scored.", paragraph=1, start=0),
        Sentence("Oslo lost.", paragraph=1, start=17),
    ),
)


def read(words: int, *selected: int) -> str:
    """What the model reads of the sample."""
    return build_context(SAMPLE, "lead_and_selected", Budget(words), Selection(selected)).text


def test_the_first_paragraph_and_the_selected_sentences_in_the_articles_order():
    assert read(100, 3) == "It rained. The match began late. Oslo lost."
    assert read(100, 3, 2) == "It rained. The match began late. Ana Ruiz scored. Oslo lost."


def test_the_budget_is_kept():
    assert read(7, 3) == "It rained. The match began late."


def test_it_needs_a_selection():
    with pytest.raises(UserError, match="needs a selection"):
        build_context(SAMPLE, "lead_and_selected", Budget(100))
