"""What is left of a context whose beginning the model does not read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ealign_plugin.alignment.contexts import Budget, Context, build_context
from ealign_plugin.alignment.truncation import without_beginning
from tests.alignment.articles import article
from tests.alignment.factories import pages

RAIN = article("[Oslo/GPE]", "It rained.", "Ana spoke.", "Leo sang.")
WHOLE = Context("It rained. Ana spoke. Leo sang.", (0, 1, 2))


@pytest.mark.parametrize(
    ("characters", "text", "sentences"),
    [
        (-3, "It rained. Ana spoke. Leo sang.", (0, 1, 2)),
        (0, "It rained. Ana spoke. Leo sang.", (0, 1, 2)),
        (3, "rained. Ana spoke. Leo sang.", (0, 1, 2)),  # a part of the first is read
        (10, "Ana spoke. Leo sang.", (1, 2)),
        (11, "Ana spoke. Leo sang.", (1, 2)),
        (15, "spoke. Leo sang.", (1, 2)),
        (30, ".", (2,)),
        (99, "", ()),
    ],
)
def test_a_sentence_is_read_as_long_as_something_of_it_is_left(characters, text, sentences):
    assert without_beginning(WHOLE, RAIN, characters) == Context(text, sentences)


def test_a_headline_that_says_what_a_sentence_says_is_not_taken_for_it():
    sample = replace(pages(["Ana spoke.", "Leo sang."], headline="Ana spoke.", position=0))
    context = build_context(sample, "around_image", Budget(20))
    assert context == Context("Ana spoke. Ana spoke. Leo sang.", (0, 1))
    assert without_beginning(context, sample, 11) == Context("Ana spoke. Leo sang.", (0, 1))
    assert without_beginning(context, sample, 22) == Context("Leo sang.", (1,))


def test_a_sentence_that_the_budget_shortened_is_read_as_long_as_any_text_is():
    context = build_context(RAIN, "head", Budget(1))
    assert context == Context("It", (0,))
    assert without_beginning(context, RAIN, 1) == Context("t", (0,))
    assert without_beginning(context, RAIN, 2) == Context("", ())
